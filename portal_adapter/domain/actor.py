"""Who acts, and what she may: roles and rights are a table."""

from collections.abc import Mapping
from dataclasses import dataclass

from portal_adapter.refusal import Refusal

READ, FILL, SIGN, MANAGE = "read", "fill", "sign", "manage"

# What a member may. 'fill': create, copy, fill, confirm, attach, message, delete what was not sent, My information,
# archive. 'sign': sign, send, transfer, recall. 'manage': team and space data.
RIGHTS: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({READ}),
    "editor": frozenset({READ, FILL}),
    "signatory": frozenset({READ, FILL, SIGN}),
    "administrator": frozenset({READ, FILL, SIGN, MANAGE}),
    "owner": frozenset({READ, FILL, SIGN, MANAGE}),  # of a private space
}
ROLES = ("administrator", "signatory", "editor", "viewer")  # that an invitation may give


@dataclass(frozen=True, slots=True)
class Actor:
    """A logged-in person in one request."""

    account: str
    family: str
    given: str
    email: str
    fingerprint: str  # of the certificate she logged in with
    session: str  # SHA-256 of its token
    now: int
    address: str = ""  # that the request came from

    @property
    def name(self) -> str:
        return f"{self.given} {self.family}"


def check_right(role: str, right: str) -> None:
    """Raise `forbidden`, naming the right, unless the role has it."""
    if right not in RIGHTS[role]:
        raise Refusal("forbidden", "Your role in this space does not allow this.", reason="missing-right", right=right)
