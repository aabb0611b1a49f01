"""Contacts: what is one, what is none, and what is shown of one."""

import time

import pytest

from signer.contact import EMAIL_CHARACTERS_MAX, Contact, ContactError, Kind

LABEL = "a" * 63


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("alice@example.org", "a***@example.org"),
        ("a@example.org", "***@example.org"),
        ("o'neil+sign=1@sub.example.org", "o***@sub.example.org"),
        ("x.y.z@xn--bcher-kva.example", "x***@xn--bcher-kva.example"),
        (f"{'l' * 64}@{LABEL}.org", f"l***@{LABEL}.org"),
        ("a=b?c@4.example.o1g", "a***@4.example.o1g"),
    ],
)
def test_an_email_address(address: str, masked: str) -> None:
    """A dot-atom in ASCII, and a domain name; its repr shows one character and the domain."""
    contact = Contact(Kind.EMAIL, address)
    assert (contact.address, contact.masked) == (address, masked)
    assert repr(contact) == str(contact) == f"Contact(email, {masked})"


INJECTIONS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u200b",
    "\t",
    " ",
]


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("template", ["{}alice@example.org", "ali{}ce@example.org", "alice{}@example.org", "alice@exa{}mple.org", "alice@example.org{}", "alice@example.org{}Bcc: eve@example.net"])  # fmt: skip
def test_line_ends_in_an_address(injection: str, template: str) -> None:
    """
    Row 6.5: values with CR, LF, NUL, encoded-word newlines and Unicode separators are filtered by us, not by the
    standard library: 0 injected headers. Here the addresses.
    """
    with pytest.raises(ContactError) as refused:
        Contact(Kind.EMAIL, template.format(injection))
    assert "alice" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        *("", "@", "alice", "alice@", "@example.org", "alice@example", "alice@localhost", "a@b@example.org"),
        *("alice@[192.0.2.1]", "alice@192.0.2.1", "alice@[IPv6:::1]", "alice@example.123"),
        *('"alice"@example.org', '"a b"@example.org', "alice(x)@example.org", "alice@example.org(x)", "a\\b@example.org"),
        *("<alice@example.org>", "Alice <alice@example.org>", "alice@example.org,eve@example.net", "a;b@example.org"),
        *(".alice@example.org", "alice.@example.org", "a..b@example.org", "alice@example..org", "alice@.example.org"),
        *("alice@example.org.", "alice@-example.org", "alice@example-.org", "alice@exam_ple.org", f"a@{LABEL}a.org"),
        *("älice@example.org", "alice@bücher.example", "alice@exаmple.org", "alice＠example.org"),
        *("=?UTF-8?Q?=0A?=@example.org", "a=?@example.org", "=?UTF-8?Q?=0ABcc:=20eve@example.net?=@example.org"),
        *(f"{'l' * 65}@example.org", f"a@{'.'.join([LABEL] * 4)}", f"{'l' * 60}@{'.'.join([LABEL] * 3)}.org"),
        *("alice@example.org\ud800", "https://example.org/"),
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    """Refused with what to write instead, without what was written: a contact is personal."""
    with pytest.raises(ContactError) as refused:
        Contact(Kind.EMAIL, address)
    assert not any(word in str(refused.value) for word in ("alice", "bücher", "eve", "0A"))


def test_the_longest_address() -> None:
    domain = f"{'.'.join([LABEL] * 3)[: EMAIL_CHARACTERS_MAX - 65 - 4]}.org"
    address = f"{'l' * 64}@{domain}"
    assert len(Contact(Kind.EMAIL, address).address) == EMAIL_CHARACTERS_MAX
    with pytest.raises(ContactError, match="at most 254"):
        Contact(Kind.EMAIL, f"{address}g")


def test_a_long_address_takes_no_time() -> None:
    """What matches almost does not make the check slow: 200 000 characters, and 250 of the worst kind."""
    began = time.monotonic()
    for address in ("a." * 100_000, "a" * 100_000 + "@" + "a." * 50_000, "a.b" * 20 + "@" + "a-" * 90 + "!"):
        with pytest.raises(ContactError):
            Contact(Kind.EMAIL, address)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://hook.example/canary/4711?key=1", "https://hook.example/***"),
        ("https://hook.example:8443", "https://hook.example:8443/***"),
        ("http://127.0.0.1:8080/canary", "http://127.0.0.1:8080/***"),
        ("http://[::1]:8080/canary", "http://[::1]:8080/***"),
    ],
)
def test_a_webhook(url: str, masked: str) -> None:
    """https, or http to this host; its path and query, which may be a secret, are not shown."""
    contact = Contact(Kind.WEBHOOK, url)
    assert (contact.address, repr(contact)) == (url, f"Contact(webhook, {masked})")


@pytest.mark.parametrize(
    "url",
    [
        *("", "hook.example", "http://hook.example/canary", "http://localhost/canary", "ftp://hook.example/canary"),
        *("https://hook.example/can ary", "https://hook.example/canary\r\nX: y", "https://hook.example/canary\0"),
        *("https://me:canary@hook.example/", "https://hook.example/#canary", "https://hook.example:x/canary", "https:///canary"),
        *("https://hook.example/" + "c" * 2000, "https://bücher.example/canary", "alice@example.org"),
    ],
)  # fmt: skip
def test_what_is_no_webhook(url: str) -> None:
    """The same check as for the ledger's webhooks, and a length; the URL is not repeated."""
    with pytest.raises(ContactError) as refused:
        Contact(Kind.WEBHOOK, url)
    assert "canary" not in str(refused.value)
