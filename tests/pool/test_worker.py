"""A lane's hot loop by itself, over a page and something that only looks like a token."""

import ctypes
import time
from collections.abc import Iterator
from mmap import mmap

import pytest

from pool import wire
from pool.cryptoki import Refused
from pool.mechanism import WrongSignature
from pool.wire import Page
from pool.worker import CUT, sign_run, signing, verified

FOREVER = 2**62  # ns


@pytest.fixture
def page() -> Iterator[Page]:
    memory = mmap(-1, wire.PAGE_BYTES * wire.FRAMES_IN_FLIGHT)
    made = Page(memory, 0)
    yield made
    made.release()
    memory.close()


class Token:
    """Answers an item with its own bytes turned round; does what a test says for some."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.seen: list[tuple[bytes, int | None]] = []  # what was signed, and what the counter said meanwhile
        self.does: dict[bytes, object] = {}

    def sign(self, data: bytes, address: ctypes.c_void_p) -> int:
        self.seen.append((data, self._page.under))
        does = self.does.get(data)
        if isinstance(does, Exception):
            raise does
        if callable(does):
            does()
        ctypes.memmove(address, data[::-1], len(data))
        return len(data)


def run(page: Page, token: Token, items: list[bytes], deadline: int = FOREVER, start: int = 0) -> tuple[int, str]:
    return sign_run(page, signing(bytes, token.sign), items, range(start, len(items)), deadline)


def test_each_item_is_in_its_slot_and_under_the_counter_meanwhile(page: Page) -> None:
    """The counter names the item before the call; the mark is its length."""
    token, items = Token(page), [b"ab", b"cde", b"f"]
    assert run(page, token, items) == (3, "")
    assert [page.get(index) for index in range(3)] == [b"ba", b"edc", b"f"]
    assert token.seen == [(item, index) for index, item in enumerate(items)]


def test_a_run_begins_where_it_is_told(page: Page) -> None:
    """Two runs of a frame share its page."""
    assert run(page, Token(page), [b"ab", b"cd"], start=1) == (1, "")
    assert [page.get(index) for index in range(2)] == [None, b"dc"]


def test_a_withdrawn_item_never_meets_the_token(page: Page) -> None:
    """Also one that is withdrawn while the one before it is signed."""
    token = Token(page)
    token.does[b"a"] = lambda: page.skip(1)
    assert run(page, token, [b"a", b"b", b"c"]) == (2, "")
    assert [item for item, _ in token.seen] == [b"a", b"c"]
    assert page.get(1) == wire.MARK_SKIPPED


def test_the_clock_is_read_before_each_item(page: Page) -> None:
    """What comes after the deadline is marked, not signed."""
    token, deadline = Token(page), time.monotonic_ns() + 20_000_000

    def past_the_deadline() -> None:
        while time.monotonic_ns() < deadline:
            pass

    token.does[b"b"] = past_the_deadline
    assert run(page, token, [b"a", b"b", b"c"], deadline) == (2, "")
    assert page.get(2) == wire.MARK_EXPIRED


def test_a_refused_request_is_its_own_matter(page: Page) -> None:
    """The next item is signed."""
    token = Token(page)
    token.does[b"a"] = Refused("CKR_DATA_LEN_RANGE")
    assert run(page, token, [b"a", b"b"]) == (1, "")
    assert (page.get(0), page.code(0), page.get(1)) == (wire.MARK_REFUSED, "CKR_DATA_LEN_RANGE", b"b")


@pytest.mark.parametrize(("begun", "mark"), [(True, wire.MARK_REFUSED), (False, wire.MARK_NOT_BEGUN)])
def test_a_lost_session_ends_the_run(page: Page, begun: bool, mark: int) -> None:
    """What comes after it was seen by no token; whether C_Sign was called is kept."""
    token = Token(page)
    token.does[b"b"] = Refused("CKR_SESSION_HANDLE_INVALID", begun=begun)
    assert run(page, token, [b"a", b"b", b"c"]) == (1, "CKR_SESSION_HANDLE_INVALID")
    assert [page.get(index) for index in range(3)] == [b"a", mark, None]


def test_what_does_not_verify_gets_no_length(page: Page) -> None:
    """It stands in the slot, but the slot says that it is wrong; and the lane signs no more."""
    token = Token(page)

    def check(item: bytes, signature: bytes) -> None:
        if (item, signature) == (b"cd", b"dc"):
            raise WrongSignature

    make = verified(signing(bytes, token.sign), bytes, check)
    assert sign_run(page, make, [b"ab", b"cd", b"ef"], range(3), FOREVER) == (1, "WRONG_SIGNATURE")
    assert [page.get(index) for index in range(3)] == [b"ba", wire.MARK_INVALID, None]


def test_a_frame_cut_short_leaves_the_rest_unmarked(page: Page) -> None:
    """What was not begun is as if it had never been sent; one that was withdrawn before is not signed either."""
    token = Token(page)
    page.skip(2)
    token.does[b"b"] = lambda: page.cut(4)
    assert run(page, token, [b"a", b"b", b"c", b"d"]) == (2, CUT)
    assert [page.get(index) for index in range(4)] == [b"a", b"b", None, None]
    page.clear(4)
    assert run(page, token, [b"a"]) == (1, ""), "the next frame on the page is none the worse"
