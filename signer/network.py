"""Whom limits take for one, by the address that somebody is at."""

from ipaddress import IPv6Address, ip_address


def network(address: str) -> str:
    """An IPv4 address, or 64 bits of an IPv6 one, of which one line has as many as it likes."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # behind a socket there is none
        return address
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64)
    return str(found)
