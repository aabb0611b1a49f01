"""
The ledger's rows and what ties each to the one before: pure, and all that a verifier elsewhere needs.

A chain belongs to one daemon instance. Its rows are numbered within an epoch, which begins with each start of the
daemon, and go on over epochs: the first row of an epoch names the last one of the epoch before. A row's hash covers
everything that makes it that row at that place:

    SHA-256("paraph-ledger-v1" 0x00  instance (16 bytes)  epoch (8)  sequence (8)  previous hash (32)  kind 0x00  body)

numbers big-endian, kind and body in UTF-8. The body is a JSON object on one line. It holds hashes of digests and of
signatures, never these themselves: what is erased after a day leaves the chain whole.

A file of rows ("segment") is text, so that it can be read and checked with anything:

    paraph-ledger-v1 INSTANCE PREVIOUS-HASH
    EPOCH SEQUENCE KIND HASH BODY
    ...
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

MAGIC = "paraph-ledger-v1"
GENESIS = bytes(32)  # what stands before the first row of all
_INSTANCE = re.compile("[0-9a-f]{32}")
_HASH = re.compile("[0-9a-f]{64}")
_NUMBERS = struct.Struct(">QQ")
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode  # kept: `json.dumps` makes one at each call
_NUMBER = re.compile("[1-9][0-9]{0,17}")


class Kind(StrEnum):
    EPOCH = "EPOCH"  # the daemon has started: time, the last checkpoint, the version
    INTENT = "INTENT"  # these items are about to be given to a token
    OUTCOME = "OUTCOME"  # what became of them: nothing is released before this is on the disk
    RELEASED = "RELEASED"  # the answer was taken
    NOT_DELIVERED = "SIGNED_NOT_DELIVERED"  # signed, and the caller had gone
    POSSIBLE = "POSSIBLE_UNRELEASED_SIGNATURE"  # an INTENT without OUTCOME, found after a crash; nothing was released
    AUTHORISED = "AUTHORISED"  # a person has allowed it: what, for whom, until when
    REFUSED = "REFUSED"  # a code or an authorisation was not right
    REGISTER = "REGISTER"  # what was done to a subject, a credential, a token or the configuration, and by whom
    BATCH = "BATCH"  # documents that wait for a person: opened, shown, cancelled
    MISMATCH = "IDEMPOTENCY_MISMATCH"  # a request id came again with another body, or from another caller
    CHECKPOINT = "CHECKPOINT"  # the head of this daemon's chain was signed
    GAP = "GAP"  # a backup was restored: what is lost, and why


_KINDS = frozenset(Kind)


class ChainError(ValueError):
    """A line is no row, or no header; the message says where and why."""

    def __init__(self, line: int, said: str) -> None:
        self.line, self.said = line, said
        super().__init__(f"line {line}: {said}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row at its place. `body` is the exact text that the hash covers."""

    instance: str  # 32 hexadecimal digits
    epoch: int
    sequence: int  # from 1 in each epoch
    kind: str
    body: str
    previous: bytes
    hash: bytes

    @property
    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_whole(self) -> bool:
        """Whether its hash is the hash of what it says."""
        return self.hash == row_hash(self.instance, self.epoch, self.sequence, self.previous, self.kind, self.body)

    @property
    def line(self) -> str:
        return f"{self.epoch} {self.sequence} {self.kind} {self.hash.hex()} {self.body}\n"


def row_hash(instance: str, epoch: int, sequence: int, previous: bytes, kind: str, body: str) -> bytes:
    place = _head(instance) + _NUMBERS.pack(epoch, sequence) + previous
    return hashlib.sha256(place + f"{kind}\0{body}".encode()).digest()


@lru_cache(maxsize=64)  # instances: a verifier may meet several
def _head(instance: str) -> bytes:
    return MAGIC.encode() + b"\0" + bytes.fromhex(instance)


def after(instance: str, epoch: int, sequence: int, previous: bytes, kind: Kind, fields: dict[str, Any]) -> Row:
    """The row that says this at this place."""
    body = _ENCODE(fields)
    return Row(
        instance, epoch, sequence, kind, body, previous, row_hash(instance, epoch, sequence, previous, kind, body)
    )


def items_hash(items: Sequence[bytes]) -> str:
    """One hash, in hexadecimal, over several digests or signatures: their lengths (4 bytes each), then they themselves."""
    return hashlib.sha256(struct.pack(f">{len(items)}I", *map(len, items)) + b"".join(items)).hexdigest()


def write(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of a segment; rows of one chain, one behind the other, at least one."""
    yield f"{MAGIC} {rows[0].instance} {rows[0].previous.hex()}\n"
    for row in rows:
        yield row.line


def read(lines: Iterable[str]) -> Iterator[Row]:
    """
    The rows that a segment says it has, each tied to the line before it; whether they are whole is for the caller to see.

    Raises `ChainError` at the first line that is none.
    """
    source = iter(lines)
    instance, previous = _header(next(source, ""))
    number = 1
    for number, line in enumerate(source, 2):
        if not line.endswith("\n"):
            raise ChainError(number, "it ends in the middle")
        words = line[:-1].split(" ", 4)
        if len(words) != 5 or not _NUMBER.fullmatch(words[0]) or not _NUMBER.fullmatch(words[1]):
            raise ChainError(number, "no row")
        if words[2] not in _KINDS or not _HASH.fullmatch(words[3]):
            raise ChainError(number, "no kind of row that this program knows, or no hash")
        row = Row(instance, int(words[0]), int(words[1]), words[2], words[4], previous, bytes.fromhex(words[3]))
        yield row
        previous = row.hash
    if number == 1:
        raise ChainError(2, "a segment has at least one row")


def _header(line: str) -> tuple[str, bytes]:
    """The instance, and the hash before the first row."""
    words = line.removesuffix("\n").split(" ")
    if not line:
        raise ChainError(1, "the file is empty")
    if len(words) != 3 or words[0] != MAGIC or not _INSTANCE.fullmatch(words[1]) or not _HASH.fullmatch(words[2]):
        raise ChainError(1, f"a segment begins with {MAGIC}, an instance and a hash")
    return words[1], bytes.fromhex(words[2])
