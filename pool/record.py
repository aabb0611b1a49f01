"""
Who must have it in writing: told by the pool what a token is about to see, and what came of it.

The pool signs without a record, too. With one, a lane is not told of an item before its intent is durable, and what a
request is answered has been told to the record before.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # who only writes, in a process of its own, has no loop
    import asyncio

    from pool.work import Outcome


class Unrecorded(Exception):
    """The intent could not be written down: nothing of it is signed. `reason` is what the request is answered."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class Intent(Protocol):
    """Some items of a request, about to be given to a token."""

    @property
    def durable(self) -> "asyncio.Future[None]":
        """Done when it may be acted upon; fails with `Unrecorded`."""

    def settled(
        self, signatures: Sequence[bytes | None], problems: Mapping[int, "Outcome"], *, is_last: bool = True
    ) -> None:
        """
        What became of its items, in order: their signatures, None where there is none; why, by the item's place in the
        request, where a token saw it. Nothing was tried with the others. Without `is_last` more may come.
        """


class Record(Protocol):
    """
    One request's. `revoked` is the reason why nothing more of it may be started, empty while it may; who sets it calls
    `Pool.revoke`.
    """

    revoked: str

    def intend(self, start: int, stop: int, token: str, *, within_s: float = 0.0) -> Intent:
        """
        Items `start` to `stop` of the request are about to be given to this token, which has other work for so many
        seconds: writing may wait that long for company.
        """
