"""
The PDF of a declaration: what is confirmed, signed and sent. It is made of a definition and its answers, in a process of
its own and before the transaction that keeps it; the same ones make the same bytes.
"""

from collections.abc import Mapping
from typing import Protocol

from portal_adapter.definitions.definition import Definition
from portal_adapter.refusal import Refusal


class Render(Protocol):
    def __call__(self, definition: Definition, answers: Mapping[str, str], language: str, reference: str, /) -> bytes:
        """Raises `Refusal` `signer-unavailable` where it cannot be made just now."""
        ...


def unavailable(_: Definition, __: Mapping[str, str], ___: str, ____: str, /) -> bytes:
    raise Refusal("signer-unavailable", "The form cannot be made just now. Please try again in a moment.")
