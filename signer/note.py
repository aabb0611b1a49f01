"""
A checkpoint: the heads of a ledger's chains at one moment, signed by a daemon. Pure; what an auditor elsewhere reads, too.

It is text, and so is a file of many, one behind the other:

    paraph-checkpoint-v1
    NUMBER                            from 1, one more each time
    TIME                              RFC 3339, UTC
    PREVIOUS                          SHA-256 of the text of the note before, 64 zeros in the first
    INSTANCE EPOCH SEQUENCE HASH      of the last row of the daemon's own chain; then, a line each, in the order of the
                                      instances, of the other chains in its database
                                      (an empty line)
    KEY ALGORITHM SIGNATURE           first 16 hexadecimal digits of the SHA-256 of the SubjectPublicKeyInfo; base64
                                      (an empty line)

The signature is over the lines before the first empty line, their line ends included. They begin with a word of their
own, so that a signature over them can be taken for nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature

from pool import Algorithm, Hash, Scheme
from pool.public import algorithms, verify
from signer.clock import rfc3339

MAGIC = "paraph-checkpoint-v1"
NOTHING = bytes(32)  # stands for the note before the first
# What a checkpoint key makes, by the name that stands in the note.
ALGORITHMS = {
    "ED25519": Algorithm(Scheme.ED25519, None),
    "ECDSA-SHA256": Algorithm(Scheme.ECDSA, Hash.SHA256),
    "ECDSA-SHA384": Algorithm(Scheme.ECDSA, Hash.SHA384),
    "ECDSA-SHA512": Algorithm(Scheme.ECDSA, Hash.SHA512),
    "RSA-SHA256": Algorithm(Scheme.RSA_PKCS1_V15, Hash.SHA256),
}
_KEY = re.compile("[0-9a-f]{16}")
_NUMBER = re.compile("[1-9][0-9]{0,17}")
_HEAD = re.compile("([0-9a-f]{32}) ([1-9][0-9]{0,17}) ([1-9][0-9]{0,17}) ([0-9a-f]{64})")


class NoteError(ValueError):
    """It is no checkpoint, or its signature is not the key's; the message says which."""


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """The last row of a chain."""

    instance: str
    epoch: int
    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    number: int  # of those of one daemon
    time: datetime  # UTC, whole seconds
    previous: bytes
    own: Head  # of the chain of the daemon that has made it
    others: tuple[Head, ...] = ()

    @property
    def heads(self) -> tuple[Head, ...]:
        return (self.own, *sorted(self.others))

    def names(self, instance: str) -> bool:
        """Whether it has a head of this chain."""
        return any(head.instance == instance for head in self.heads)

    @property
    def text(self) -> str:
        """What is signed."""
        lines = [MAGIC, str(self.number), rfc3339(self.time), self.previous.hex()]
        lines += [f"{head.instance} {head.epoch} {head.sequence} {head.hash.hex()}" for head in self.heads]
        return "\n".join(lines) + "\n"

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint with its signature."""

    checkpoint: Checkpoint
    key: str
    algorithm: str
    signature: bytes

    def __str__(self) -> str:
        signature = base64.b64encode(self.signature).decode()
        return f"{self.checkpoint.text}\n{self.key} {self.algorithm} {signature}\n\n"

    def check(self, spki: bytes) -> None:
        """Raises `NoteError` unless this key has signed it."""
        if self.key != key_id(spki):
            raise NoteError(f"checkpoint {self.checkpoint.number} is signed by key {self.key}, not {key_id(spki)}")
        algorithm, text = ALGORITHMS[self.algorithm], self.checkpoint.text.encode()
        if algorithm not in algorithms(spki):
            raise NoteError(f"checkpoint {self.checkpoint.number} says {self.algorithm}, which its key cannot make")
        message = text if algorithm.hash is None else hashlib.new(algorithm.hash.value, text).digest()
        try:
            verify(algorithm, spki, message, self.signature)
        except (InvalidSignature, ValueError):
            raise NoteError(f"the signature of checkpoint {self.checkpoint.number} is wrong") from None

    def is_signed_by(self, spki: bytes) -> bool:
        """Whether `check` finds nothing."""
        try:
            self.check(spki)
        except NoteError:
            return False
        return True


def key_id(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()[:16]


def sign(checkpoint: Checkpoint, spki: bytes, algorithm: str, make: Callable[[bytes], bytes]) -> Note:
    """`make` signs what the key takes: the digest of the text, for Ed25519 the text itself."""
    wanted, text = ALGORITHMS[algorithm], checkpoint.text.encode()
    message = text if wanted.hash is None else hashlib.new(wanted.hash.value, text).digest()
    return Note(checkpoint, key_id(spki), algorithm, make(message))


def parse(text: str) -> Iterator[Note]:
    """The notes in a text, in its order; raises `NoteError` where something else stands."""
    parts = text.split("\n\n")
    if parts[-1] != "" or len(parts) % 2 == 0:
        raise NoteError("the last checkpoint ends in the middle")
    for body, seal in zip(parts[:-1:2], parts[1::2], strict=True):
        words = seal.split(" ")
        if len(words) != 3 or words[1] not in ALGORITHMS:
            raise NoteError("a checkpoint has no signature of a kind that this program knows")
        try:
            signature = base64.b64decode(words[2], validate=True)
        except ValueError:
            raise NoteError("a checkpoint's signature is not base64") from None
        note = Note(_checkpoint(body.split("\n")), words[0], words[1], signature)
        if not _KEY.fullmatch(note.key) or str(note) != f"{body}\n\n{seal}\n\n":
            raise NoteError(f"the signature of checkpoint {note.checkpoint.number} is not in its one form")
        yield note


def _checkpoint(lines: Sequence[str]) -> Checkpoint:
    if not lines or lines[0] != MAGIC:
        raise NoteError(f"a checkpoint begins with {MAGIC}")
    if len(lines) < 5:
        raise NoteError("a checkpoint names at least one chain, its daemon's own")
    heads = []
    for line in lines[4:]:
        match = _HEAD.fullmatch(line)
        if match is None:
            raise NoteError(f"a checkpoint has a line that names no chain: {line[:80]!r}")
        heads.append(Head(match[1], int(match[2]), int(match[3]), bytes.fromhex(match[4])))
    try:
        time = datetime.strptime(lines[2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        found = Checkpoint(int(lines[1]), time, bytes.fromhex(lines[3]), heads[0], tuple(heads[1:]))
    except ValueError:
        raise NoteError("a checkpoint's number, time or previous hash is none") from None
    is_one_each = len({head.instance for head in heads}) == len(heads)
    is_in_form = _NUMBER.fullmatch(lines[1]) and len(found.previous) == len(NOTHING) and is_one_each
    if not is_in_form or found.text != "\n".join(lines) + "\n":
        raise NoteError("a checkpoint is not in its one form")
    return found


def on_one_line(text: str) -> str:
    """As it goes to a log; `note_of` gives it back."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def note_of(message: str) -> str:
    """The note of a message, or of any line that ends with one, as log files have; raises `NoteError`."""
    at = message.find(f"{MAGIC}\\n")
    if at < 0:
        raise NoteError("the line has no checkpoint")
    return re.sub(r"\\([\\n])", lambda found: "\n" if found[1] == "n" else "\\", message[at:].rstrip("\r\n"))
