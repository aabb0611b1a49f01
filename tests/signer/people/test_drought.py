"""The system gives no random bytes any more, in a daemon that runs: nothing is signed or kept, and nothing weaker takes their place."""

import time
from collections.abc import Callable, Iterator

import pytest
from grpc_health.v1 import health_pb2

from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.dry import Drought
from tests.signer.access.calls import Answer, ask, digests, said, shim_of, signed, statuses
from tests.signer.people.persons import Town, batch, redeem, terms

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def town() -> Iterator[Town]:
    """With a system of its own, and ada and bob in it."""
    made = Town()
    made.rig.environment |= Drought(made.rig.directory).environment
    with made:
        made.enrol("ada", "hotp")
        made.enrol("bob", "sent")
        yield made


def test_f57_random_bytes_end_while_it_runs(town: Town) -> None:
    """
    F57: getrandom fails in a daemon that runs: whatever wants a random byte is UNAVAILABLE, with when to come back: what is
    signed (AUDIT_UNWRITABLE, because what is kept of it is encrypted with a nonce) before any C_Sign, and authorisations,
    one-time codes, enrolments and documents that wait (NO_RANDOMNESS); NOT_SERVING. It heals by itself, and no request has
    left anything behind. The token's own random bytes are never asked for.
    """
    rig, portal, window, ada = town.rig, town["portal"], town["window"], town.people["ada"]
    drought = Drought(rig.directory)
    wanted, seal = digests(2), ask(digests=digests(3))
    reference, otp = town.reference(ada, terms(wanted)), ada.otp()
    by_bob = pb.RequestOtpRequest(terms=terms(wanted, "bob"), source="192.0.2.7")
    calls: dict[str, Callable[[], Answer]] = {
        "a seal's": lambda: portal.sign(seal),
        "authorised": lambda: redeem(town, reference, wanted),
        "authorisation": lambda: town.authorise(ada, terms(wanted), otp=otp),
        "a code that is sent": lambda: said(lambda: window.signing.RequestOtp(by_bob, timeout=10)),
        "an enrolment": lambda: said(lambda: town["operator"].operator.EnrolSubject(town.enrolment("fay", "hotp"))),
        "a batch": lambda: said(lambda: portal.signing.OpenBatch(batch([b"one"]), timeout=10)),
    }
    before, messages = signed(rig), len(town.inbox.messages)
    drought.begins()
    answers = {name: call() for name, call in calls.items()}
    assert {answer.code for answer in answers.values()} == {"UNAVAILABLE"}, answers
    assert {answer.reason for answer in answers.values()} == {"AUDIT_UNWRITABLE", "NO_RANDOMNESS"}
    assert answers["a seal's"].reason == answers["authorised"].reason == "AUDIT_UNWRITABLE"
    assert answers["authorisation"].reason == answers["a code that is sent"].reason == "NO_RANDOMNESS"
    assert None not in {answer.retry_s for answer in answers.values()}
    until(lambda: rig.health() == NOT_SERVING, 2, "NOT_SERVING")
    time.sleep(1)
    assert rig.health() == NOT_SERVING, "though nothing is to be written"
    assert (signed(rig), len(town.inbox.messages)) == (before, messages)
    drought.ends()
    until(lambda: rig.health() == SERVING, 5, "SERVING again")
    assert statuses(calls["a seal's"]()) == ["SIGNED"] * 3
    assert statuses(calls["authorised"]()) == ["SIGNED"] * 2
    assert town.authorise(ada, terms(wanted)).code == "OK"
    assert [calls[name]().code for name in ("a code that is sent", "an enrolment", "a batch")] == ["OK"] * 3
    log = rig.log.read_text()
    assert "the system gives no random bytes" in log
    assert "Traceback" not in log
    assert "fault of ours" not in log
    assert shim_of(rig).number("C_GenerateRandom") == 0


def test_f57_random_bytes_end_in_a_signature(town: Town) -> None:
    """
    F57: they end while the token signs: the signature is made and not released, and is there when they are back, signed
    once.
    """
    drought, portal, message = Drought(town.rig.directory), town["portal"], ask(digests=digests(1))
    before, shim = signed(town.rig), shim_of(town.rig)
    shim.script("C_Sign * hold 20")
    call = portal.signing.SignDigests.future(message, timeout=10)
    until(shim.unfinished, 5, "C_Sign")
    drought.begins()
    shim.clear()
    assert "AUDIT_UNWRITABLE" in str(call.trailing_metadata()), call
    drought.ends()
    until(lambda: town.rig.health() == SERVING, 5, "SERVING again")
    until(lambda: statuses(portal.sign(message)) == ["SIGNED"], 5, "what was signed")
    assert signed(town.rig) == before + 1
