"""A request is executed once, whatever happens to its caller or to the daemon; the shim's log is the oracle."""

import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from signer.chain import Kind
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, running, until
from tests.hostile import minimal_pdf
from tests.signer.access.calls import (
    Caller,
    ask,
    asked,
    card_rig,
    digest,
    digests,
    metric,
    said,
    shim_of,
    signed,
    statuses,
)
from tests.signer.ledger.book import documents, kinds, of, request, result, signatures, statuses_of

CMS = {"output": "CADES_B_B"}


def two_callers() -> Rig:
    made = card_rig("P-256", "RSA-2048")
    made.callers["other"] = made.callers["portal"]
    return made


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(two_callers()) as made:
        yield made


@pytest.fixture(scope="module")
def ended() -> Iterator[Rig]:
    """For tests that end the daemon and start it again."""
    with running(two_callers()) as made:
        yield made


@pytest.fixture
def portal(rig: Rig) -> Iterator[Caller]:
    with Caller(rig) as caller:
        yield caller


def again(rig: Rig) -> None:
    """Kill -9 of the daemon, and its next start."""
    rig.stop(signal.SIGKILL)
    rig.launch()
    rig.wait_serving()


@pytest.mark.parametrize("output", ["RAW", "CADES_B_B", "PADES_B_B"])
def test_row_4_2_the_same_again(rig: Rig, portal: Caller, output: str) -> None:
    """
    Row 4.2: the same id with the same body is signed once and answered with identical bytes, also by GetResult.
    """
    message = request(digests=digests(3), output=output)
    first = portal.sign(message)
    before = signed(rig)
    assert signatures(portal.sign(message)) == signatures(first)
    assert portal.sign(message).value.SerializeToString() == first.value.SerializeToString()
    told = result(portal, message.request_id)
    assert signatures(told) == signatures(first)
    assert told.value.certificate == first.value.certificate
    assert [each.index for each in told.value.items] == [0, 1, 2]
    assert signed(rig) == before, "it was signed again"


def test_f30_twins(rig: Rig, portal: Caller) -> None:
    """
    F30, row 4.2: a request and 1 000 duplicates of it at one time: one execution, identical answers; who comes while it is
    in work joins it. A caller may have 256 calls in work; more than those are in streams, which are a call each.
    """
    message = request(digests=digests(2, 40), credential="rsa-2048", signature_algorithm="RSA_PKCS1_V15")
    other = ask(request_id=message.request_id, digests=[digest(40)])
    before = signed(rig)
    shim_of(rig).script(f"C_Sign {before + 1} hold 60")
    with Caller(rig) as second, Caller(rig) as third:
        first = portal.signing.SignDigests.future(message, timeout=60)
        until(lambda: shim_of(rig).unfinished(), 5, "C_Sign")
        halves = (second, third)  # a connection has 128 calls at one time
        calls = [halves[number % 2].signing.SignDigests.future(message, timeout=60) for number in range(200)]
        # The last one of each stream is refused as soon as it is read, and that is written down: then all of it was read.
        streams = [portal.signing.StreamDigests(iter([message] * 100 + [other]), timeout=60) for _ in range(8)]
        until(lambda: kinds(rig, message.request_id)[Kind.MISMATCH] == len(streams), 20, "all of the streams were read")
        until(lambda: metric(rig, "paraph_calls_in_work") == 1 + len(calls) + len(streams), 20, "all calls are in work")
        assert not any(call.done() for call in [first, *calls])
        shim_of(rig).clear()
        answers = [call.result() for call in [first, *calls]]
        for stream in streams:
            *same, last = stream
            assert last.error.reason == "IDEMPOTENCY_MISMATCH"
            answers += same
    assert len(answers) == 1_001
    assert {answer.SerializeToString() for answer in answers} == {first.result().SerializeToString()}
    assert [item.status for item in first.result().items] == [pb.SIGNED] * 2
    assert signed(rig) == before + 2


def test_f30_who_waits_has_a_deadline_of_his_own(rig: Rig, portal: Caller) -> None:
    """F30: the first hangs over its token; its twin is answered at its own deadline, and the first later."""
    message = request(digests=[digest(77)])
    shim_of(rig).script(f"C_Sign {signed(rig) + 1} hold 60")
    first = portal.signing.SignDigests.future(message, timeout=20)
    until(lambda: shim_of(rig).unfinished(), 5, "C_Sign")
    began = time.monotonic()
    twin = portal.sign(message, timeout_s=2.0)
    took_s, is_first_done = time.monotonic() - began, first.done()
    shim_of(rig).clear()
    assert (twin.code, twin.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert took_s < 2.2
    assert not is_first_done
    assert first.result().items[0].status == pb.SIGNED


@pytest.mark.parametrize(
    "change",
    [
        {"digests": [digest(6)]},
        {"digests": [digest(5), digest(5)]},
        {"output": "CADES_B_B"},
        {"credential": "rsa-2048", "signature_algorithm": "RSA_PKCS1_V15"},
    ],
    ids=["digest", "count", "output", "key"],
)
def test_f31_another_body(rig: Rig, portal: Caller, change: dict[str, Any]) -> None:
    """
    F31: the same request id with other digests or another key: INVALID_ARGUMENT/IDEMPOTENCY_MISMATCH, in the ledger; for
    another caller it is NOT_FOUND, as one that never was, and in the ledger, too.
    """
    message = request(digests=[digest(5)])
    assert statuses(portal.sign(message)) == ["SIGNED"]
    before = signed(rig)
    answer = portal.sign(**{"request_id": message.request_id, "digests": [digest(5)]} | change)
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "IDEMPOTENCY_MISMATCH")
    with Caller(rig, "other") as other:
        foreign = other.sign(message)
        assert (foreign.code, foreign.reason) == ("NOT_FOUND", "REQUEST_UNKNOWN")
        there, nowhere = result(other, message.request_id), result(other, str(uuid.uuid4()))
        assert (there.code, there.reason, there.message) == (nowhere.code, nowhere.reason, nowhere.message)
    assert signed(rig) == before
    until(lambda: kinds(rig, message.request_id)[Kind.MISMATCH] == 2, 5, "both in the ledger")


def test_f28_after_the_answer(ended: Rig) -> None:
    """F28: kill -9 after the answer: the same request id gets the stored bytes. (Between the two: test_crashes.py.)"""
    messages = [request(digests=digests(2, 10 * i), output=o) for i, o in enumerate(("RAW", "CADES_B_B"))]
    with Caller(ended) as portal:
        first = [signatures(portal.sign(message)) for message in messages]
    before = signed(ended)
    again(ended)
    with Caller(ended) as portal:
        assert [signatures(portal.sign(message)) for message in messages] == first
        assert [signatures(result(portal, message.request_id)) for message in messages] == first
    assert signed(ended) == before


def test_f27_under_c_sign(ended: Rig) -> None:
    """
    F27: kill -9 between C_Sign and SIGNED: INDETERMINATE; the ledger says POSSIBLE_UNRELEASED_SIGNATURE; the same digests
    again within 120 s are attempt 2 of the same places. F26: between INTENT and C_Sign the disk says the same, and so does
    the answer.
    """
    message = request(digests=digests(3, 200), credential="rsa-2048", signature_algorithm="RSA_PKCS1_V15")
    before = signed(ended)
    shim_of(ended).script(f"C_Sign {before + 2} hang 60")
    with Caller(ended) as portal:
        call = portal.signing.SignDigests.future(message, timeout=30)
        until(lambda: len(asked(ended)) >= before + 2, 5, "the second C_Sign")
        shim_of(ended).clear()
        again(ended)
        assert call.exception() is not None
    with Caller(ended) as portal:
        told = result(portal, message.request_id)
        possible = [place for row in of(ended, message.request_id, Kind.POSSIBLE) for place in row["items"]]
        doubtful = [i for i, status in enumerate(statuses_of(told)) if status == "INDETERMINATE"]
        assert 1 in doubtful, "it was under C_Sign"
        assert sorted(possible) == doubtful
        known = {i: one for i, one in enumerate(signatures(told)) if one}
        assert not known.keys() & set(doubtful), "nothing that no OUTCOME names is released"
        resumed = portal.sign(message)
        assert statuses(resumed) == ["SIGNED"] * 3
        assert known.items() <= dict(enumerate(signatures(resumed))).items(), "what was signed stays what it was"
        assert signatures(portal.sign(message)) == signatures(resumed) == signatures(result(portal, message.request_id))
    attempts = [fields["attempt"] for fields in of(ended, message.request_id, Kind.INTENT)]
    assert (min(attempts), max(attempts)) == (1, 2)


def test_f43_the_caller_has_gone(rig: Rig, portal: Caller) -> None:
    """
    F43: the call is cancelled in the middle of its batch: it stops after one item more at the most; the result is kept, the
    ledger says SIGNED_NOT_DELIVERED, and the same request again signs the rest, each digest once.
    """
    message = request(digests=digests(60, 300), credential="rsa-2048", signature_algorithm="RSA_PKCS1_V15")
    start = signed(rig)
    shim_of(rig).script("C_Sign * delay 0.04")
    call = portal.signing.SignDigests.future(message, timeout=30)
    until(lambda: signed(rig) >= start + 3, 5, "some signatures")
    call.cancel()
    cancelled_at = signed(rig)
    until(lambda: kinds(rig, message.request_id)[Kind.NOT_DELIVERED], 10, "SIGNED_NOT_DELIVERED")
    shim_of(rig).clear()
    made = signed(rig) - start
    assert made <= cancelled_at - start + 2, "the one under way, and one that began while we looked"
    told = result(portal, message.request_id)
    assert sum(map(bool, signatures(told))) == made
    assert len(told.value.items) == 60
    rest = portal.sign(message)
    assert statuses(rest) == ["SIGNED"] * 60
    pairs = zip(signatures(rest), signatures(told), strict=True)
    assert [now for now, then in pairs if then] == [then for then in signatures(told) if then]
    assert signed(rig) == start + 60, "each digest once"


def test_released_is_written(rig: Rig, portal: Caller) -> None:
    """An answer that was taken is RELEASED in the ledger, a moment later, behind its INTENT and its OUTCOME."""
    message = request(digests=[digest(9)])
    portal.sign(message)
    until(lambda: kinds(rig, message.request_id)[Kind.RELEASED] == 1, 5, "RELEASED")
    assert kinds(rig, message.request_id) == {Kind.INTENT: 1, Kind.RELEASED: 1}  # an OUTCOME names its INTENT's place


def test_a_refused_request_leaves_nothing(rig: Rig, portal: Caller) -> None:
    """What was refused before anything was tried can be asked again, with another body too."""
    message = request(digests=[])
    assert portal.sign(message).reason == "BATCH_EMPTY"
    assert result(portal, message.request_id).reason == "REQUEST_UNKNOWN"
    assert statuses(portal.sign(request_id=message.request_id, digests=[digest(3)])) == ["SIGNED"]


@pytest.mark.parametrize("output", ["PADES_B_B", "CADES_B_B"])
def test_documents_again(ended: Rig, output: str) -> None:
    """
    Row 4.2: a document that is sent again with its request id and index gets the stored signature put in, the same bytes,
    also after kill -9; another document there is refused, and a new index is a new document.
    """
    name = str(uuid.uuid4())
    contents = {0: minimal_pdf(text="One."), 7: minimal_pdf(text="Two.")}
    with Caller(ended) as portal:
        first = documents(portal, name, contents, output)
        before = signed(ended)
        assert documents(portal, name, contents, output) == first
    again(ended)
    with Caller(ended) as portal:
        assert documents(portal, name, contents, output) == first
        assert signed(ended) == before
        told = result(portal, name)
        assert [(each.index, each.item.status) for each in told.value.items] == [(0, pb.SIGNED), (7, pb.SIGNED)]
        if output == "CADES_B_B":
            assert [each.item.signature for each in told.value.items] == [first[0][1], first[7][1]]
        else:
            assert told.value.items[0].item.signature.hex().encode() in first[0][1].lower()
        other = documents(portal, name, {0: minimal_pdf(text="Three."), 8: contents[7]}, output)
        assert (other[0][0].reason, pb.ItemStatus.Name(other[8][0].status)) == ("IDEMPOTENCY_MISMATCH", "SIGNED")
        with Caller(ended, "other") as stranger:
            assert documents(stranger, name, contents, output).reason == "REQUEST_UNKNOWN"


def test_a_stream_again(rig: Rig, portal: Caller) -> None:
    """Requests of a stream are the same requests: what was signed by it is answered by a call, and the other way round."""
    messages = [request(digests=[digest(400 + i)]) for i in range(3)]
    streamed = said(lambda: list(portal.signing.StreamDigests(iter(messages), timeout=10)))
    before = signed(rig)
    assert [signatures(portal.sign(message)) for message in messages] == [
        [a.items[0].signature] for a in streamed.value
    ]
    assert signed(rig) == before


def test_results_are_not_readable_on_the_disk(rig: Rig, portal: Caller) -> None:
    """Signatures that are kept for who asks again are encrypted at rest."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: portal.sign(request(digests=[digest(500 + i)])), range(8)))
    kept = b"".join(path.read_bytes() for path in rig.state.glob("paraph.sqlite*"))
    assert kept.count(b"ledger_results") >= 1
    assert not any(answer.value.items[0].signature in kept for answer in answers)
