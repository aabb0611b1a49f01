"""How a result page is read: the same way whatever ended the frame."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from mmap import mmap
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from pool import wire
from pool.assign import Frame, Run
from pool.attendant import VERIFY_EACH, Attendant
from pool.codes import TABLE, Meaning
from pool.errors import REASONS
from pool.lane import Lane
from pool.settle import Reading, reason_for
from pool.wire import FRAMES_IN_FLIGHT, Page
from pool.work import Outcome, Status, Work
from tests.pool.rig import ECDSA, begin, digests, put, work
from tests.pool.test_mechanism import spki

PRIVATE = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def page() -> Iterator[Page]:
    memory = mmap(-1, wire.PAGE_BYTES * FRAMES_IN_FLIGHT)
    made = Page(memory, 1)
    yield made
    made.release()
    memory.close()


def sign(item: bytes) -> bytes:
    """As a token gives it: r||s."""
    r, s = utils.decode_dss_signature(PRIVATE.sign(item, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    return r.to_bytes(32) + s.to_bytes(32)


def der(raw: bytes) -> bytes:
    return utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


def reading(page: Page, *, ended: str = "") -> Reading:
    """A frame of two requests: items 2 and 3 of the first, item 0 of the second."""
    first = work(4, algorithm=ECDSA, spki=spki(PRIVATE), items=digests(4))
    second = work(1, algorithm=ECDSA, spki=spki(PRIVATE), items=digests(1, 10))
    frame = Frame(Lane("card", 0), "k", ECDSA, (Run(first, 2, 4), Run(second, 0, 1)), 0.001)
    return Reading(frame, page, "card", ended)


def outcomes(one: Reading) -> list[Outcome | None]:
    return [one.outcome(run, index, slot) for run, index, slot in one.items()]


def test_slots_belong_to_items(page: Page) -> None:
    """Slot by slot through the runs: the item's index in its own request."""
    one = reading(page)
    first, second = (run.work for run in one.frame.runs)
    assert [(run.work, index, slot) for run, index, slot in one.items()] == [
        (first, 2, 0),
        (first, 3, 1),
        (second, 0, 2),
    ]


def test_an_empty_slot_was_seen_by_no_token(page: Page) -> None:
    """None: it goes back to the line; also when the lane ended, unless it was the one under C_Sign."""
    assert outcomes(reading(page)) == outcomes(reading(page, ended="signal SIGKILL")) == [None] * 3


def test_marks_have_their_meaning(page: Page) -> None:
    """Expired and withdrawn items were not attempted, an invalid signature is withheld."""
    page.put_mark(0, wire.MARK_EXPIRED)
    page.put_mark(1, wire.MARK_SKIPPED)
    page.put_mark(2, wire.MARK_INVALID)
    assert outcomes(reading(page)) == [
        Outcome(Status.NOT_ATTEMPTED, reason="DEADLINE_EXCEEDED", token="card"),
        Outcome(Status.NOT_ATTEMPTED, reason="CANCELLED", token="card"),
        Outcome(Status.FAILED, reason="SIGNATURE_INVALID", token="card"),
    ]


def test_after_a_kill_each_item_is_what_its_slot_says(page: Page) -> None:
    """Finished ones are kept, the one under C_Sign is INDETERMINATE, the rest were not attempted."""
    one = reading(page, ended="signal SIGSEGV")
    begin(page, 0)
    put(page, 0, signature := sign(one.frame.runs[0].work.items[2]))
    begin(page, 1)
    assert outcomes(one) == [
        Outcome(Status.SIGNED, der(signature), token="card"),
        Outcome(Status.INDETERMINATE, reason="MODULE_CRASH", token="card", detail="signal SIGSEGV"),
        None,
    ]


def test_a_full_slot_is_done_whatever_the_counter_says(page: Page) -> None:
    """Killed between the last byte of a signature and the next item: it was signed and verified."""
    one = reading(page, ended="signal SIGKILL")
    begin(page, 0)
    put(page, 0, sign(one.frame.runs[0].work.items[2]))
    assert [getattr(outcome, "status", None) for outcome in outcomes(one)] == [Status.SIGNED, None, None]


def test_under_c_sign_is_open_while_the_lane_lives(page: Page) -> None:
    """No outcome yet: it may still be signed."""
    begin(page, 1)
    assert outcomes(reading(page)) == [None] * 3


def test_one_look_at_an_item_verifies_it(page: Page) -> None:
    """A wrong signature is withheld; a right one of another item is wrong, and so is what is no signature."""
    one = reading(page)
    first = one.frame.runs[0].work
    put(page, 0, sign(first.items[2]))
    put(page, 1, sign(first.items[2]))
    put(page, 2, bytes(64))
    assert [outcome.reason for outcome in outcomes(one)] == ["", "SIGNATURE_INVALID", "SIGNATURE_INVALID"]
    assert all(not outcome.signature for outcome in outcomes(one)[1:])


def nothing(_slots: Sequence[int]) -> Sequence[int]:
    return ()


def fill(page: Page, one: Reading) -> tuple[Work, Work]:
    """Every item of the frame signed; answers the two requests."""
    first, second = (run.work for run in one.frame.runs)
    for slot, item in enumerate((first.items[2], first.items[3], second.items[0])):
        put(page, slot, sign(item))
    return first, second


def test_a_whole_frame_is_given_to_its_requests(page: Page) -> None:
    """Run by run, in the world's form, with the token's name; what is not doubted is not verified here."""
    one = reading(page)
    first, second = fill(page, one)
    put(page, 1, wrong := sign(first.items[2]))
    signatures, others = one.settle_signed(nothing)
    assert (signatures[1:], others) == ([der(wrong), second.outcomes.signatures[0]], [])
    assert signatures[0] == first.outcomes.signatures[2] != b""
    assert first.outcomes.signatures[:2] == [b"", b""]
    assert first.outcomes.signatures[3] == der(wrong)
    assert second.outcomes[0] == Outcome(Status.SIGNED, second.outcomes.signatures[0], token="card")
    assert (first.left, second.left) == (2, 0)


def test_a_doubted_signature_is_verified_and_its_neighbours_keep_theirs(page: Page) -> None:
    """The wrong one is left over for `outcome`, which calls it invalid."""
    one = reading(page)
    first, second = fill(page, one)
    put(page, 1, sign(first.items[2]))
    signatures, [(run, index, slot)] = one.settle_signed(lambda slots: slots)
    assert (signatures.count(None), index, slot) == (1, 3, 1)
    assert (first.left, second.left) == (3, 0)
    assert one.outcome(run, index, slot).reason == "SIGNATURE_INVALID"


def test_a_fast_lane_is_looked_at_once_in_256_whatever_its_frames_hold() -> None:
    """Two of a frame of 512, none of a short one; slow lanes' and dead ones' signatures are verified all."""
    lane = Lane("card", 0)
    lane.item_s = {("k", ECDSA): 0.00005}
    token = SimpleNamespace(config=SimpleNamespace(lanes=1))
    attendant: Any = SimpleNamespace(lane=lane, token=token, _since_verified=0)
    frame, seen, before = reading(cast("Any", None)).frame, [], 0
    for count in (512, 100, 300, 7, 512, 1, 255, 256):
        seen += [before + slot for slot in Attendant._doubted(attendant, frame, range(count), "")]
        before += count
    assert seen == list(range(VERIFY_EACH - 1, before, VERIFY_EACH))
    assert Attendant._doubted(attendant, frame, range(9), "signal SIGKILL") == range(9)


@pytest.mark.parametrize(
    ("lanes", "item_s", "all_of_them"), [(1, 0.006, True), (1, 0.004, False), (16, 0.006, False), (16, 0.09, True)]
)
def test_a_slow_token_is_verified_whole(lanes: int, item_s: float, all_of_them: bool) -> None:
    """By what all its lanes sign: an HSM of 6 ms with sixteen would have the parent verify 2 700 a second."""
    lane = Lane("card", 0)
    lane.item_s = {("k", ECDSA): item_s}
    token = SimpleNamespace(config=SimpleNamespace(lanes=lanes))
    attendant: Any = SimpleNamespace(lane=lane, token=token, _since_verified=0)
    frame = reading(cast("Any", None)).frame
    assert list(Attendant._doubted(attendant, frame, range(9), "")) == (list(range(9)) if all_of_them else [])


def test_what_is_no_signature_is_left_over_without_doubt(page: Page) -> None:
    """r of zero has no form in DER: it is seen although nobody verifies, and its neighbours keep theirs."""
    one = reading(page)
    first, _ = fill(page, one)
    put(page, 0, bytes(32) + b"s" * 32)
    signatures, [(run, index, slot)] = one.settle_signed(nothing)
    assert (signatures.count(None), index, slot) == (1, 2, 0)
    assert one.outcome(run, index, slot).reason == "SIGNATURE_INVALID"
    assert first.outcomes.signatures[3]


def test_a_request_that_was_answered_takes_nothing_more(page: Page) -> None:
    """Withdrawn meanwhile: what it was answered with stays."""
    one = reading(page)
    first, _ = fill(page, one)
    first.settle_rest(Outcome(Status.NOT_ATTEMPTED, reason="CANCELLED"))
    one.settle_signed(nothing)
    assert {outcome.reason for outcome in first.outcomes} == {"CANCELLED"}
    assert first.outcomes.signatures == [b""] * 4


@pytest.mark.parametrize("code", sorted(code for code, what in TABLE.items() if what is Meaning.MAYBE_SIGNED))
def test_a_code_that_hides_a_signature(page: Page, code: str) -> None:
    """The token may have signed before it failed: INDETERMINATE."""
    page.put_mark(0, wire.MARK_REFUSED, code)
    removed = {"CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT"}
    reason = "TOKEN_REMOVED" if code in removed else {"CKR_HOST_MEMORY": "WORKER_LIMIT"}.get(code, "TOKEN_FAULT")
    (outcome, *_) = outcomes(reading(page))
    assert outcome == Outcome(Status.INDETERMINATE, reason=reason, token="card", detail=code)


def test_a_code_about_the_session_sends_the_item_back(page: Page) -> None:
    """Nothing was signed and another session can do it; items before it keep what they have."""
    one = reading(page)
    put(page, 0, sign(one.frame.runs[0].work.items[2]))
    page.put_mark(1, wire.MARK_REFUSED, "CKR_SESSION_HANDLE_INVALID")
    signed, refused, rest = outcomes(one)
    assert signed.status is Status.SIGNED
    assert refused is rest is None


def test_an_item_goes_back_once(page: Page) -> None:
    """
    What costs a second session, too, is not tried a third time: it would cost every lane its own. A look at it meanwhile, and
    the end of a lane, are no tries.
    """
    one = reading(page)
    page.put_mark(0, wire.MARK_REFUSED, "CKR_SESSION_HANDLE_INVALID")
    for other in (
        replace(one, first_look=True),
        one,
        replace(one, first_look=True),
        replace(one, ended="signal SIGKILL"),
    ):
        assert outcomes(other)[0] is None
    assert outcomes(one)[0] == Outcome(
        Status.FAILED, reason="TOKEN_FAULT", token="card", detail="CKR_SESSION_HANDLE_INVALID"
    )


def test_a_code_about_the_request_fails_its_item_alone(page: Page) -> None:
    """The key or the token cannot do it: no use in trying again, and the next item is none the worse."""
    page.put_mark(0, wire.MARK_REFUSED, "CKR_MECHANISM_INVALID")
    assert outcomes(reading(page)) == [
        Outcome(Status.FAILED, reason="ALGORITHM_NOT_ALLOWED", token="card", detail="CKR_MECHANISM_INVALID"),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("CKR_DEVICE_REMOVED", "TOKEN_REMOVED"),
        ("CKR_TOKEN_NOT_PRESENT", "TOKEN_REMOVED"),
        ("TOKEN_TIMEOUT", "TOKEN_TIMEOUT"),
        ("signal SIGSEGV", "MODULE_CRASH"),
        ("exit code 1", "MODULE_CRASH"),
        ("CKR_DEVICE_ERROR", "TOKEN_FAULT"),
        ("CKR_SESSION_COUNT", "TOKEN_SESSIONS"),
        ("login failed (CKR_DEVICE_MEMORY)", "TOKEN_SESSIONS"),
        ("WORKER_LIMIT", "WORKER_LIMIT"),
        ("", "TOKEN_FAULT"),
    ],
)
def test_every_end_has_a_reason(problem: str, reason: str) -> None:
    """And every reason has its sentence."""
    assert reason_for(problem) == reason
    assert reason in REASONS
