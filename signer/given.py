"""What a person has given to prove who she is, as it comes with a call."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from signer.config import Caller
from signer.errors import Refusal
from signer.network import network
from signer.secret import Code, CodeError


def source_of(text: str, caller: Caller) -> str:
    """
    Where a person was, as the caller says: the caller and an IP address in its one form, of IPv6 its first 64 bits
    (network.py), or empty. It is counted and written down, so it is nothing else: with its port, say, each connection
    would be another source. One caller's word counts against no other's people, and of a person's own program it is
    nothing: she is known. Raises `Refusal` SOURCE_INVALID.
    """
    if not text or caller.role == "self":
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise Refusal("SOURCE_INVALID") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Refusal("SOURCE_INVALID")
    return f"{caller.name} {network(text)}"


def code_of(typed: str, make: Callable[[str], Code] = Code) -> Code:
    """Raises `Refusal` CODE_RULES; `Code.chosen` makes one that is to be set."""
    try:
        return make(typed)
    except CodeError as error:
        raise Refusal("CODE_RULES", str(error)) from None


@dataclass(frozen=True, slots=True)
class Given:
    """What a person has typed, and where she was then, as the caller says."""

    code: Code
    otp: str
    source: str
    is_open: bool = False  # anybody could have typed it who knows the credential's name

    @classmethod
    def read(cls, request: Any, caller: Caller, *, is_open: bool = False) -> "Given":
        """
        Of any message with secret_code, otp and source; raises `Refusal` CODE_RULES, SOURCE_INVALID. A person's own program
        is nobody else's.
        """
        source = source_of(request.source, caller)
        return cls(code_of(request.secret_code), request.otp, source, is_open and caller.role != "self")

    def __repr__(self) -> str:
        return f"Given(source={self.source!r})"
