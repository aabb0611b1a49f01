"""What it costs that a person must allow: her time for one document, and what an authorised batch costs more than a seal's."""

import statistics
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from signer.v1 import signing_pb2 as pb
from tests.hostile import minimal_pdf
from tests.signer.access.calls import ask, digests, said
from tests.signer.people.persons import Town, batch, terms

PERSON_S = 0.25  # code and one-time code included, 95 of 100
BATCHES = 0.98  # of the same without a person
ALONE = 0.94  # the same one at a time: one more commit before the first signature, 3 ms of 100
IN_FLIGHT = 4
PDF = minimal_pdf(text="A letter.")


def one_document(town: Town, count: int) -> list[float]:
    """Seconds, sorted: from her codes to the answer that it is signed (SignBatch), for one document each."""
    ada, times = town.people["ada"], []
    for _ in range(count):
        opened = town["portal"].signing.OpenBatch(batch([PDF], output="PADES_B_B"), timeout=20)
        list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=opened.link), timeout=20))
        request = pb.SignBatchRequest(request_id=opened.batch.request_id, secret_code=ada.code, otp=ada.otp())
        began = time.perf_counter()
        answer = said(lambda: town["window"].signing.SignBatch(request, timeout=20))  # noqa: B023 -- called at once
        times.append(time.perf_counter() - began)
        assert answer.code == "OK", answer
        assert [one.status for one in answer.value.outcomes] == [pb.SIGNED]
    return sorted(times)


def batches(town: Town, rounds: int, size: int, in_flight: int) -> float:
    """
    How fast batches of this size are with an authorisation, against the same key's seal, so many in flight, in turns: the
    medians' ratio. Alone, a batch waits for its own redemption to be on the disk; beside others the lanes go on meanwhile.
    """
    ada, portal = town.people["ada"], town["portal"]
    times: dict[str, list[float]] = {"ada": [], "p-256": []}
    with ThreadPoolExecutor(in_flight) as pool:
        for number in range(rounds):
            wanted = [digests(size, start=(number * in_flight + one) * size) for one in range(in_flight)]
            allowed = [{"authorisation": town.reference(ada, terms(each))} for each in wanted]
            for credential, more in (("ada", allowed), ("p-256", [{}] * in_flight)):
                requests = [
                    ask(credential=credential, digests=each, request_id=str(uuid.uuid4()), **one)
                    for each, one in zip(wanted, more, strict=True)
                ]
                began = time.perf_counter()
                answers = list(pool.map(lambda request: portal.sign(request, timeout_s=60), requests))
                times[credential].append(time.perf_counter() - began)
                assert {answer.code for answer in answers} == {"OK"}, answers
    return statistics.median(times["p-256"]) / statistics.median(times["ada"])


def p95(times: list[float]) -> float:
    return times[int(len(times) * 0.95)]


def report(documents: int = 200, rounds: int = 40, size: int = 1_000) -> str:
    """Raises AssertionError where a figure is missed."""
    with Town() as town:
        town.enrol("ada", "hotp")
        one_document(town, 5)
        times = one_document(town, documents)
        alone, beside = batches(town, rounds, size, 1), batches(town, rounds // 2, size, IN_FLIGHT)
    said_ = (
        f"one document, {documents} times: median {statistics.median(times) * 1e3:.0f} ms, p95 {p95(times) * 1e3:.0f} ms; "
        f"batches of {size}, {rounds} in turns: {beside:.3f} of the seal's speed with {IN_FLIGHT} in flight, "
        f"{alone:.3f} one at a time"
    )
    assert p95(times) <= PERSON_S, said_
    assert beside >= BATCHES, said_
    assert alone >= ALONE, said_
    return said_
