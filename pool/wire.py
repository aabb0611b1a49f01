"""
What the parent and a lane's process say to each other, and the page they share.

Messages are msgpack maps over a SOCK_SEQPACKET pair: one message, one packet. Signatures do not travel as messages:
the token writes each into a slot of a *result page*, shared memory made by the parent, so that what was finished
survives the lane. They stand there as the token gave them; the parent gives them the world's form. A page holds the
results of one frame; a lane has `FRAMES_IN_FLIGHT` of them and never waits for the parent.

    page:   u64 item under C_Sign (index + 1; 0 none), written before the call
            then one slot an item:
    slot:   u16 mark | u8 skip | 5 bytes unused | payload
            mark 0              nothing yet
                 1..0xEFFF      length of what the token gave, in the payload; written last, and only after verifying
                 MARK_*         why there is none
            skip                written by the parent: SKIP, do not start this item; CUT, start nothing more of this frame

A frame names the *lease* that it belongs to, '' for none. The worker keeps the one that came with the PIN, and signs
nothing for another.

The worker writes the counter, *then* reads skip; the parent writes skip, *then* reads the counter: one of the two sees
the other, so a cancelled item is either not started or known to be under C_Sign.
"""

import ctypes
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from mmap import mmap
from typing import Any, TypeVar

import msgpack

T = TypeVar("T")
Name = tuple[bytes | None, str | None]  # by which a key is looked for: CKA_ID, label

FRAMES_IN_FLIGHT = 2  # one is signed while the next one waits in the socket
FRAME_ITEMS_MAX = 512
FRAME_BYTES_MAX = 96 * 1024  # a SEQPACKET packet must fit the socket's buffer (208 KiB on a stock Linux)
PACKET_BYTES_MAX = 160 * 1024
# Of one question about keys: its answer repeats their references, and says what is wrong with them.
KEYS_BYTES_MAX = PACKET_BYTES_MAX // 2
_KEY_BYTES = 48  # of a key, for what frames its fields and for a hash
MARK_BYTES = 4  # of the hash of a key that a probe is asked for: one question asks for thousands

_HEAD = 8
_SLOT_HEAD = 8
SIGNATURE_BYTES_MAX = 1024  # RSA-8192
SLOT_BYTES = _SLOT_HEAD + SIGNATURE_BYTES_MAX
PAGE_BYTES = _HEAD + FRAME_ITEMS_MAX * SLOT_BYTES
_CUTS = memoryview(b"\2" * FRAME_ITEMS_MAX)
_NO_MARKS, _NO_SKIPS = memoryview(bytes(2 * FRAME_ITEMS_MAX)).cast("H"), memoryview(bytes(FRAME_ITEMS_MAX))

MARK_EXPIRED = 0xF001  # its deadline passed before its turn
MARK_SKIPPED = 0xF002  # the parent withdrew it
MARK_REFUSED = 0xF003  # the token answered with an error: payload u32 length, then the name of its return code
MARK_NOT_BEGUN = 0xF005  # the same, by C_SignInit: nothing was signed
MARK_INVALID = 0xF004  # the token signed, and the signature does not verify
_CODE_BYTES_MAX = 64
SKIP, CUT = 1, 2
FOREIGN_LEASE = "FOREIGN_LEASE"  # why a lane ends that was given another lease's frame; no return code of PKCS#11
WORKER_LIMIT = "WORKER_LIMIT"  # why a lane ends that has come to its process's limits; no return code either
EX_LIMIT = 77  # the exit code of one that could not even say so
_MARKS = {MARK_EXPIRED, MARK_SKIPPED, MARK_REFUSED, MARK_NOT_BEGUN, MARK_INVALID}


# Kept: each new one would have a new buffer from the system.
_PACKER = msgpack.Packer(buf_size=PACKET_BYTES_MAX)


def pack(message: dict[str, Any]) -> bytes:
    # The kept packer would keep what a person gave for a moment only.
    packet: bytes = msgpack.packb(message) if "pin" in message else _PACKER.pack(message)
    if len(packet) > PACKET_BYTES_MAX:
        raise ValueError(f"a message of {len(packet)} bytes is over the {PACKET_BYTES_MAX} of a packet")
    return packet


def unpack(packet: bytes | memoryview) -> dict[str, Any]:
    """One message; raises ValueError for what is not one."""
    message = msgpack.unpackb(packet)
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ValueError("not a message of this protocol")
    return message


class Inbox:
    """
    Takes packets into one place that is kept: room for the longest one is more than the allocator keeps, and asking the
    system for it anew cost 12 us a packet at each end.
    """

    def __init__(self) -> None:
        self._room = memoryview(bytearray(PACKET_BYTES_MAX))

    def receive(self, sock: socket.socket) -> dict[str, Any] | None:
        """The next message, None at the end; raises what the socket raises, and ValueError for what is no message."""
        length = sock.recv_into(self._room)
        if not length:
            return None
        packet = self._room[:length]
        message = unpack(packet)
        if "pin" in message:
            packet[:] = bytes(length)
        return message


def mark_of(hashes: Iterable[bytes]) -> bytes:
    """What stands for the keys that a token has shown, by the SHA-256 of each, in whatever order."""
    return hashlib.sha256(b"".join(sorted(set(hashes)))).digest()


def parts_of(keys: Sequence[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Of what is asked about many keys: as much as one question takes, and its answer; one part at least, which may be empty."""
    part: list[T] = []
    left = KEYS_BYTES_MAX
    for key in keys:
        size = size_of(key)
        if part and size > left:
            yield part
            part, left = [], KEYS_BYTES_MAX
        part.append(key)
        left -= size
    yield part


def name_bytes(name: Name) -> int:
    """Of a key's name in a question, with the hash that is answered."""
    cka_id, label = name
    return len(cka_id or b"") + len((label or "").encode()) + _KEY_BYTES


def items_that_fit(items: Sequence[bytes]) -> int:
    """
    How many of the first items one frame takes by their bytes: at least one, because no item is longer than a frame.
    Digests always fit: `FRAME_ITEMS_MAX` of the longest are 32 KiB.
    """
    size = 0
    for count, item in enumerate(items):
        size += len(item)
        if size > FRAME_BYTES_MAX:
            return max(1, count)
    return len(items)


def make_pages() -> int:
    """A memory file for the pages of one lane process; the descriptor is the caller's to close."""
    fd = os.memfd_create("paraph-lane", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGE_BYTES * FRAMES_IN_FLIGHT)
    return fd


# `with FENCE: pass` lets what was written be seen before what is read next: a processor may otherwise turn the two
# round. Python has no word for it; taking a lock that nobody holds is an atomic instruction, which is a full barrier.
FENCE = threading.Lock()


class Page:
    """
    One frame's results. Both ends use this class; who writes what stands above.

    `under_c_sign` has one place, the counter; `skips` and `marks` have one for each slot.
    """

    def __init__(self, memory: mmap, number: int) -> None:
        start = self._start = number * PAGE_BYTES
        self._memory = memory
        self._bytes = memoryview(memory)[start : start + PAGE_BYTES]
        self.under_c_sign = self._bytes[:_HEAD].cast("Q")
        slots = self._bytes[_HEAD:]
        self.marks = slots.cast("H")[:: SLOT_BYTES // 2]
        self.skips = slots[2::SLOT_BYTES]

    def clear(self, count: int) -> None:
        """Forget the last frame before the next one is sent; only while no frame is out on this page."""
        self.under_c_sign[0] = 0
        self.marks[:count] = _NO_MARKS[:count]
        self.skips[:count] = _NO_SKIPS[:count]

    def end(self) -> None:
        """Worker: nothing of this frame is under C_Sign any more."""
        self.under_c_sign[0] = 0

    @cached_property
    def addresses(self) -> Sequence[ctypes.c_void_p]:
        """Worker: where each slot's payload is, as C is given it."""
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._bytes)) + _HEAD + _SLOT_HEAD
        return [ctypes.c_void_p(first + index * SLOT_BYTES) for index in range(FRAME_ITEMS_MAX)]

    def payload(self, index: int, length: int) -> bytes:
        """What stands in a slot, whatever its mark."""
        offset = _HEAD + index * SLOT_BYTES + _SLOT_HEAD
        return bytes(self._bytes[offset : offset + length])

    def put_mark(self, index: int, mark: int, code: str = "") -> None:
        """Worker: why there is no signature; `code` names the token's return code."""
        offset = _HEAD + index * SLOT_BYTES
        name = code.encode()[:_CODE_BYTES_MAX]
        self._bytes[offset + 8 : offset + 12 + len(name)] = len(name).to_bytes(4, "little") + name
        self.marks[index] = mark

    def skip(self, index: int) -> None:
        """Parent: do not start this item."""
        self.skips[index] = SKIP

    def cut(self, count: int) -> None:
        """Parent: start nothing more of this frame, which has `count` items; what was not started is as if never sent."""
        self.skips[:count] = _CUTS[:count]

    @property
    def under(self) -> int | None:
        """The item under C_Sign, as far as the page tells."""
        value: int = self.under_c_sign[0]
        return value - 1 if value else None

    def signatures(self, count: int) -> list[bytes | None]:
        """What the token gave in the first `count` slots, None where nothing: what a healthy frame is read with."""
        memory, first = self._memory, self._start + _HEAD + _SLOT_HEAD
        offsets = range(first, first + count * SLOT_BYTES, SLOT_BYTES)
        lengths = self.marks[:count].tolist()
        return [
            memory[offset : offset + length] if 0 < length <= SIGNATURE_BYTES_MAX else None
            for offset, length in zip(offsets, lengths, strict=True)
        ]

    def get(self, index: int) -> bytes | int | None:
        """What the token gave, or the mark that stands for nothing, or None while there is neither."""
        mark: int = self.marks[index]
        if not mark:
            return None
        if mark <= SIGNATURE_BYTES_MAX:
            return self.payload(index, mark)
        if mark not in _MARKS:
            raise ValueError(f"unknown mark {mark:#x} in a result page")
        return mark

    def code(self, index: int) -> str:
        """The name of the PKCS#11 return code behind MARK_REFUSED."""
        offset = _HEAD + index * SLOT_BYTES
        length = min(int.from_bytes(self._bytes[offset + 8 : offset + 12], "little"), _CODE_BYTES_MAX)
        return bytes(self._bytes[offset + 12 : offset + 12 + length]).decode("utf-8", "replace")

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        for view in (self.marks, self.skips, self.under_c_sign):
            view.release()
        self._bytes.release()
