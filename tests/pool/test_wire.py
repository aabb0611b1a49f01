"""Messages, and the page that outlives a lane."""

import contextlib
import os
import socket
from collections.abc import Iterator
from mmap import mmap
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import wire
from pool.wire import FRAME_BYTES_MAX, FRAME_ITEMS_MAX, FRAMES_IN_FLIGHT, PACKET_BYTES_MAX, Page, items_that_fit
from tests.pool.rig import begin, put

MARKS = [wire.MARK_EXPIRED, wire.MARK_SKIPPED, wire.MARK_REFUSED, wire.MARK_INVALID]


@pytest.fixture
def page() -> Iterator[Page]:
    memory = mmap(-1, wire.PAGE_BYTES * FRAMES_IN_FLIGHT)
    made = Page(memory, 0)
    yield made
    made.release()
    memory.close()


def test_a_new_page_says_nothing(page: Page) -> None:
    """No item is under C_Sign, no slot has a result."""
    assert page.under is None
    assert [page.get(index) for index in range(FRAME_ITEMS_MAX)] == [None] * FRAME_ITEMS_MAX


def test_the_counter_names_the_item_under_c_sign(page: Page) -> None:
    """From begin on, until the next begin or the end; item 0 is told apart from none."""
    assert begin(page, 0)
    assert page.under == 0
    put(page, 0, b"s")
    assert page.under == 0
    assert begin(page, FRAME_ITEMS_MAX - 1)
    assert page.under == FRAME_ITEMS_MAX - 1
    page.end()
    assert page.under is None


def test_a_skipped_item_is_not_begun_and_yet_known(page: Page) -> None:
    """The counter is written before skip is read: one of the two sides sees the other."""
    page.skip(3)
    assert begin(page, 2)
    assert not begin(page, 3)
    assert page.under == 3
    assert begin(page, 4)


@pytest.mark.parametrize("length", [1, 64, 72, 256, 512, wire.SIGNATURE_BYTES_MAX])
def test_a_signature_is_read_as_written(page: Page, length: int) -> None:
    """Whole, and without touching its neighbours."""
    last = FRAME_ITEMS_MAX - 1
    for index in (0, 1, last):
        put(page, index, bytes([index % 251 + 1]) * length)
    for index in (0, 1, last):
        assert page.get(index) == bytes([index % 251 + 1]) * length
    assert page.get(2) is None
    assert page.under is None


@pytest.mark.parametrize("mark", MARKS)
def test_marks_are_told_apart_from_lengths(page: Page, mark: int) -> None:
    """A mark is an int, a signature bytes."""
    page.put_mark(7, mark, "CKR_DEVICE_REMOVED")
    assert page.get(7) == mark
    assert page.code(7) == "CKR_DEVICE_REMOVED"
    assert mark > wire.SIGNATURE_BYTES_MAX


def test_a_long_or_broken_name_of_a_code_is_cut(page: Page) -> None:
    """A name is at most 64 bytes, and what no UTF-8 is does no harm."""
    page.put_mark(0, wire.MARK_REFUSED, "C" * 200)
    assert page.code(0) == "C" * 64
    page.put_mark(0, wire.MARK_REFUSED, "é" * 60 + "x")
    assert page.code(0) == "é" * 32
    page.put_mark(0, wire.MARK_REFUSED, "x" + "é" * 60)
    assert page.code(0).startswith("x" + "é" * 31)


def test_an_unknown_mark_is_an_error(page: Page) -> None:
    """A page that says what nobody wrote is not interpreted."""
    page.put_mark(0, 0xEFFF)
    with pytest.raises(ValueError, match="unknown mark 0xefff"):
        page.get(0)


def test_clear_forgets_results_skips_and_the_counter(page: Page) -> None:
    """A page that is used again tells nothing of the frame before."""
    for index in range(4):
        begin(page, index)
        put(page, index, b"old")
        page.skip(index)
    page.clear(4)
    assert page.under is None
    assert [page.get(index) for index in range(4)] == [None] * 4
    assert all(begin(page, index) for index in range(4))


def test_pages_do_not_overlap() -> None:
    """Each frame in flight has a page of its own."""
    memory = mmap(-1, wire.PAGE_BYTES * FRAMES_IN_FLIGHT)
    pages = [Page(memory, number) for number in range(FRAMES_IN_FLIGHT)]
    for number, one in enumerate(pages):
        for index in range(FRAME_ITEMS_MAX):
            begin(one, index)
            put(one, index, bytes([number + 1]) * wire.SIGNATURE_BYTES_MAX)
    for number, one in enumerate(pages):
        assert one.under == FRAME_ITEMS_MAX - 1
        assert all(one.get(index) == bytes([number + 1]) * wire.SIGNATURE_BYTES_MAX for index in range(FRAME_ITEMS_MAX))
        one.release()
    memory.close()


def test_both_ends_see_one_memory() -> None:
    """What the lane writes into its mapping, the parent reads in another of the same file."""
    fd = wire.make_pages()
    size = wire.PAGE_BYTES * FRAMES_IN_FLIGHT
    assert os.fstat(fd).st_size == size
    theirs, ours = mmap(fd, size), mmap(fd, size)
    lane, parent = Page(theirs, 1), Page(ours, 1)
    begin(lane, 5)
    put(lane, 5, b"signature")
    parent.skip(6)
    assert (parent.under, parent.get(5)) == (5, b"signature")
    assert not begin(lane, 6)
    lane.release()
    parent.release()
    theirs.close()
    ours.close()
    os.close(fd)


def test_messages_come_back_as_they_were() -> None:
    """Bytes stay bytes, texts stay texts."""
    message = {"t": "frame", "items": [b"\0\xff", b""], "runs": [[1, 2**62]], "hash": "", "none": None, "yes": True}
    assert wire.unpack(wire.pack(message)) == message


def test_packets_share_one_place_and_leave_no_pin_there() -> None:
    """A long packet, a short one, one with a PIN: each is read as it was sent, nothing of the PIN stays, the end is None."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inbox = wire.Inbox()
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PACKET_BYTES_MAX)
        for message in ({"t": "long", "i": bytes(100_000)}, {"t": "short"}, {"t": "login", "pin": "canary-493817"}):
            ours.send(wire.pack(message))
            assert inbox.receive(theirs) == message
        assert b"canary" not in bytes(inbox._room)
        ours.send(b"\xc1")
        with pytest.raises(ValueError):
            inbox.receive(theirs)
        ours.close()
        assert inbox.receive(theirs) is None


def test_the_packer_that_is_kept_packs_no_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffer lives as long as the process, and would keep the PIN until a longer message comes."""
    packed = []

    class Kept(msgpack.Packer):
        def pack(self, message: dict[str, Any]) -> bytes:
            packed.append(message)
            return bytes(super().pack(message))

    monkeypatch.setattr(wire, "_PACKER", Kept(buf_size=PACKET_BYTES_MAX))
    login, ping = {"t": "login", "pin": "canary-493817"}, {"t": "ping"}
    assert [wire.unpack(wire.pack(message)) for message in (login, ping)] == [login, ping]
    assert packed == [ping]


def test_a_message_that_fits_no_packet_is_not_sent() -> None:
    """The limit is told to the sender, in bytes."""
    with pytest.raises(ValueError, match="over the"):
        wire.pack({"t": "frame", "items": [bytes(PACKET_BYTES_MAX)]})
    assert wire.pack({"t": "x", "i": bytes(PACKET_BYTES_MAX - 20)})


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        msgpack.packb([1]),
        msgpack.packb({"n": 1}),
        msgpack.packb({"t": 5}),
        msgpack.packb("t"),
    ],
)
def test_what_is_no_message_is_a_value_error(packet: bytes) -> None:
    """A lane that breaks the protocol is found out by one exception."""
    with pytest.raises(ValueError):
        wire.unpack(packet)


@given(packet=st.binary(max_size=200))
def test_noise_is_a_message_or_a_value_error(packet: bytes) -> None:
    """Whatever bytes come: nothing else is raised."""
    with contextlib.suppress(ValueError):
        assert isinstance(wire.unpack(packet)["t"], str)


@given(sizes=st.lists(st.one_of(st.integers(1, 64), st.integers(1, 4096), st.just(4096)), max_size=300))
def test_a_frame_takes_what_fits(sizes: list[int]) -> None:
    """At least one item if there is one, never over the bytes of a frame, and no fewer than it could."""
    items = [bytes(size) for size in sizes]
    count = items_that_fit(items)
    assert count or not items
    assert sum(sizes[:count]) <= FRAME_BYTES_MAX
    if count < len(items):
        assert sum(sizes[: count + 1]) > FRAME_BYTES_MAX


def test_a_short_message_before_long_ones_does_not_overfill_a_frame() -> None:
    """The first item's length says nothing of the others': Ed25519 messages differ."""
    items = [b"m"] + [bytes(4096)] * 255
    assert sum(map(len, items[: items_that_fit(items)])) <= FRAME_BYTES_MAX


def test_a_frame_s_worth_of_the_longest_digests_fits() -> None:
    """Digests are never counted by their bytes."""
    assert items_that_fit([bytes(64)] * FRAME_ITEMS_MAX) == FRAME_ITEMS_MAX


def test_all_slots_are_read_at_once(page: Page) -> None:
    """What a healthy frame is read with: each signature in its place, None where there is none or a mark."""
    put(page, 0, b"first")
    page.put_mark(1, wire.MARK_REFUSED, "CKR_GENERAL_ERROR")
    put(page, 3, bytes(range(200)))
    put(page, 4, b"not asked for")
    assert page.signatures(4) == [b"first", None, None, bytes(range(200))]


def test_two_full_frames_fit_a_lane_socket() -> None:
    """The widest frame is one packet, and frames in flight wait in the socket without blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PACKET_BYTES_MAX)
    ours.setblocking(False)
    items = [bytes(4096)] * (FRAME_BYTES_MAX // 4096)
    packet = wire.pack({"t": "frame", "n": 2**60, "key": "k" * 64, "runs": [[1, 2**62]] * len(items), "items": items})
    for _ in range(FRAMES_IN_FLIGHT + 1):  # and a stop behind them
        assert ours.send(packet) == len(packet)
    ours.close()
    theirs.close()
