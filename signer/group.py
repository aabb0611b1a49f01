"""
A group: several seals behind one name. A request that names it is signed by the member that will have done it soonest.

    [[group]]                       name -> the names of its members
    Policy.groups                   what is in force of it
    candidates()                    the members, the soonest first
    Batches.sign, DocumentStream    one after the other, as long as nothing was attempted with any

Each member has a key and a certificate of its own, and signed attributes hold the certificate: so the member is chosen
before anything is prepared, and the answer carries its certificate. The ledger's rows name the member; what a request is
known by is the group's name, and its row has the member's certificates: asked again, it goes to that member, and is
answered with the same bytes. Once an INTENT is written a request never goes to another member: it is the ledger that
holds this, by the certificates in the request's row (CREDENTIAL_CHANGED for any other).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pool import Busy, Unavailable
from signer.config import ConfigError, Group
from signer.credential import Credential, Purpose
from signer.errors import Refusal
from signer.gate import Gate
from signer.policy import Policy
from signer.requests import credential_of

# Of one member, and said before anything was attempted with it. CREDENTIAL_CHANGED: the request was begun with another.
_NEXT = frozenset(
    {
        *("CREDENTIAL_CHANGED", "CREDENTIAL_SUSPENDED", "CREDENTIAL_PENDING", "CERT_USAGE", "OUTPUT_NOT_ALLOWED"),
        *("CERT_NOT_YET_VALID", "CERT_EXPIRED", "CERT_REVOKED", "CERT_UNTRUSTED", "REVOCATION_UNAVAILABLE"),
    }
)


def check(groups: Sequence[Group], credentials: Mapping[str, Credential]) -> None:
    """Raise `ConfigError` where a group cannot be what it is to be with the credentials that there are."""
    mistakes = []
    for group in groups:
        place = f'group "{group.name}": members'
        if group.name in credentials:
            mistakes.append(f'group "{group.name}": it is the name of a credential; choose another')
        mistakes += [
            f"{place}: there is no credential {name!r}; `paraph credential add {name}` first, or take it out"
            for name in group.members
            if name not in credentials
        ]
        members = [credentials[name] for name in group.members if name in credentials]
        mistakes += [
            f"{place}: {member.name} is no seal (gate caller, for signatures), and nobody else may sign in its place"
            for member in members
            if (member.gate, member.purpose) != (Gate.CALLER, Purpose.SIGNATURE)
        ]
        kinds = sorted({member.key_type for member in members})
        if len(kinds) > 1:
            mistakes.append(f"{place}: have keys of several types ({', '.join(kinds)}), and requests name one")
    if mistakes:
        raise ConfigError(Path("group"), mistakes)


def candidates(
    name: str,
    caller: Any,
    policy: Policy,
    credentials: Mapping[str, Credential],
    done_in_s: Callable[[Credential], float | None],
) -> tuple[Credential, ...]:
    """
    Who may sign for a name that a caller has given: a group's members, who will have done it soonest first and who cannot
    sign now last; else the credential. One answer for what is not there and what is not this caller's.
    """
    if name not in policy.groups:
        return (credential_of(name, caller, policy, credentials),)
    policy.check_credential(caller, name)
    members = [credentials[member] for member in policy.groups[name] if member in credentials]
    if not members or caller.subject is not None:
        raise Refusal("CREDENTIAL_UNKNOWN")
    if len(members) == 1:
        return tuple(members)
    expected = {member.name: done_in_s(member) for member in members}
    return tuple(sorted(members, key=lambda member: math.inf if (s := expected[member.name]) is None else s))


def may_go_on(error: Exception) -> bool:
    """Whether the next member may be asked after this error of one with whom nothing was attempted."""
    return isinstance(error, Unavailable | Busy) or (isinstance(error, Refusal) and error.reason in _NEXT)


def worse(first: Exception | None, second: Exception) -> Exception:
    """Which of two members' errors is told: the first that says more than that the request is another member's."""
    is_other = isinstance(first, Refusal) and first.reason == "CREDENTIAL_CHANGED"
    return second if first is None or is_other else first
