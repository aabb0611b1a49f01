"""
What is written into the ledger, as it goes from the event loop (`writer.py`) to the process that commits it
(`committer.py`), and what may go wrong there.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from pool.record import Unrecorded
from signer.chain import Kind, Row, items_hash

if TYPE_CHECKING:
    import asyncio  # not in the committer, which has no loop

_PACKER = msgpack.Packer()  # kept: each has a buffer of a megabyte
_LENGTH = struct.Struct("=I")  # in front of each message of the stream, in bytes


class Failed(Exception):
    """A commit failed and left nothing. `reason` is what requests are answered; `is_fatal`: what is on the disk is unknown."""

    def __init__(self, reason: str, detail: str, *, is_fatal: bool = False) -> None:
        self.reason = reason
        self.detail = detail
        self.is_fatal = is_fatal
        super().__init__(f"{reason}: {detail}")


class Taken(Exception):
    """
    The requests that these entries bring are in the database, as a rule another daemon's: nothing of the commit was written.
    Without them, and what else is intended for those requests, it can be.
    """

    def __init__(self, entries: "Sequence[Entry]") -> None:
        self.names = {entry.fields["request"] for entry in entries}
        super().__init__(f"another daemon has {', '.join(sorted(self.names))}")


Seal = Callable[[bytes, int, Any], bytes]  # of a request's item (cipher.py)


@dataclass(eq=False, slots=True)
class Entry:
    """
    A row of the chain, and what is written with it in one transaction. `fields` is completed on the way: an OUTCOME names
    the place of the INTENT it `refers` to, and `closes` says that nothing of that is open any more; `items` are digests
    whose hash belongs there. `request` and `result` hold what is encrypted before it is written.
    """

    kind: Kind
    fields: dict[str, Any]
    request: tuple[Any, ...] | None = None  # a row of ledger_requests
    result: tuple[Any, ...] | None = None  # a row of ledger_results
    items: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    chain: tuple[bytes, bytes] | None = None  # a row of ledger_chains, where there is none yet
    note: str = ""  # the checkpoint that this instance goes on from
    refers: "Entry | None" = None
    closes: bool = False
    must: bool = False  # it is not forgotten when a commit fails
    # Told None when it is durable; and why not yet, or not at all, for each commit that failed.
    then: Callable[[Unrecorded | None], None] | None = None
    sequence: int = 0  # its place, once it is written
    intent: int = 0  # the place of what it refers to, as the committer knows it
    durable: "asyncio.Future[None] | None" = None  # unless it must be written

    def sent(self) -> tuple[Any, ...]:
        """As it goes to the committer. What it refers to is on the disk, and has its place."""
        intent = 0 if self.refers is None else self.refers.sequence
        fields = {"intent": intent, **self.fields} if intent else self.fields
        return (self.kind, fields, self.request, self.result, self.items, self.chain, self.note, intent, self.closes)

    @classmethod
    def came(
        cls,
        kind: str,
        fields: dict[str, Any],
        request: tuple[Any, ...] | None,
        result: tuple[Any, ...] | None,
        items: Mapping[str, Sequence[bytes]],
        chain: tuple[bytes, bytes] | None,
        note: str,
        intent: int,
        closes: bool,
    ) -> "Entry":
        """The reverse of `sent`."""
        return cls(Kind(kind), fields, request, result, items, chain, note, closes=closes, intent=intent)

    def complete(self, seal: Seal) -> None:
        """What the committer does for the event loop: hash, and encrypt."""
        for name, items in self.items.items():
            self.fields[name] = items_hash(items) if items else ""
        if "signatures" in self.fields:
            made = [one for one in self.result[3][3] if one] if self.result is not None else []
            self.fields["signatures"] = items_hash(made)
        if self.request is not None:
            id_, item, *_ = self.request
            self.request = (*self.request[:8], seal(id_, item, self.request[8]), *self.request[9:])
        if self.result is not None:
            id_, item, number, value = self.result
            self.result = (id_, item, number, seal(id_, item, value))

    def is_intent_for(self, requests: set[str]) -> bool:
        return self.kind is Kind.INTENT and self.fields["request"] in requests


class Backend(Protocol):
    """A database, used by one thread alone."""

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        """Put everything into one transaction and make it durable; raises `Failed`, or `Taken`."""

    def pulse(self) -> None:
        """Write something that means nothing, durably; raises `Failed`."""

    def close(self) -> None: ...


def packed(message: object) -> bytes:
    """A message as it goes over the stream between writer and committer."""
    data: bytes = _PACKER.pack(message)
    return _LENGTH.pack(len(data)) + data


class Unpacker:
    """Messages out of what arrives of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete now; what was a list in them is a tuple."""
        buffer = self._buffer
        found = []
        buffer += data
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            found.append(msgpack.unpackb(bytes(buffer[_LENGTH.size : end]), use_list=False))
            del buffer[:end]
        return found
