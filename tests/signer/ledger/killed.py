"""
The real daemon, which ends by SIGKILL at one arrow of one request's life: `python killed.py serve ...` is `paraph serve`
with one piece replaced. KILLED_AT names the arrow, KILLED_REQUEST the request.

What an arrow leads to never happens. Where that is something in writing, the daemon lives on for a moment without it: a
step that does not wait for it would be seen.

    entered    the request is in work, and its INTENT is on no disk
    intended   the INTENT is on the disk, and its lane has no digest (F26)
    settled    the signatures came back, and their OUTCOME is on no disk (F27)
    written    the OUTCOME is on the disk, and nothing is answered (F28)
    answered   the caller has the answer, and RELEASED is on no disk
"""

import asyncio
import os
import signal
from functools import partial
from typing import Any

from pool.attendant import Attendant
from signer import service
from signer.__main__ import main
from signer.chain import Kind
from signer.entry import Entry
from signer.ledger import Ledger
from signer.writer import Writer

WITHOUT_S = 0.5  # that the daemon lives on: fifty frames of a fast lane


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon() -> None:
    asyncio.get_running_loop().call_later(WITHOUT_S, die)


def unwritten(kind: Kind, name: str) -> None:
    """No row of this kind for the request is given to what commits."""
    add = Writer.add

    def held(self: Writer, entry: Entry, *, within_s: float = 0.0) -> None:
        about = entry.refers or entry  # an OUTCOME names its INTENT, and that the request
        if entry.kind is kind and about.fields["request"] == name:
            die_soon()
        else:
            add(self, entry, within_s=within_s)

    Writer.add = held  # type: ignore[method-assign]


def untransmitted(name: str) -> None:
    transmit = Attendant._transmit

    def held(self: Attendant, number: int, out: Any) -> None:
        if any(intent is not None and intent._record.asked.name == name for intent in out.intents):
            die()
        transmit(self, number, out)

    Attendant._transmit = held  # type: ignore[method-assign]


def unanswered(name: str) -> None:
    encoded = service.encoded

    def held(request: str, *what: Any) -> bytes:
        if request == name:
            die()
        return encoded(request, *what)

    vars(service)["encoded"] = held


def unreleased(name: str) -> None:
    ended = Ledger.ended

    def held(self: Ledger, request: str, *, delivered: bool) -> None:
        if request == name:
            die_soon()
        else:
            ended(self, request, delivered=delivered)

    Ledger.ended = held  # type: ignore[method-assign]


ARROWS = {
    "entered": partial(unwritten, Kind.INTENT),
    "intended": untransmitted,
    "settled": partial(unwritten, Kind.OUTCOME),
    "written": unanswered,
    "answered": unreleased,
}

if __name__ == "__main__":
    ARROWS[os.environ["KILLED_AT"]](os.environ["KILLED_REQUEST"])
    main()
