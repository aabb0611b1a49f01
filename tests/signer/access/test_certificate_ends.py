"""A credential's certificate that ends while it is signed with."""

import time
from datetime import UTC, datetime, timedelta

from signer.config import ROLES
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import running, until
from tests.jump import Jump
from tests.signer.access.calls import Caller, card_rig, digests, enrol, shim_of, signed, statuses

LIFE_S = 6


def test_f35_a_certificate_ends_in_a_batch() -> None:
    """
    F35: a certificate that has expired, or is not valid yet, is refused before the key is used (CERT_EXPIRED,
    CERT_NOT_YET_VALID); one that expires in the middle of a batch signs nothing more from then on: what is left is
    NOT_ATTEMPTED/CERT_EXPIRED, but for the one under C_Sign then, which may be INDETERMINATE.
    """
    rig = card_rig("P-256")
    _, spki = rig.store.made["card"]["P-256"]
    hour = timedelta(hours=1)
    for name, more in (
        ("expired", {"begins": -hour, "ends": -timedelta(seconds=1)}),
        ("future", {"begins": hour, "ends": 2 * hour}),
    ):
        enrol(rig, name, rig.pki.signer(name, spki, **more), "P-256", ("RAW",))
    ends = time.time() + LIFE_S
    enrol(rig, "ending", rig.pki.signer("ending", spki, ends=timedelta(seconds=LIFE_S)), "P-256", ("RAW",))
    role, rpcs, _ = rig.callers["portal"]
    rig.callers["portal"] = (role, rpcs, ["expired", "future", "ending"])
    with running(rig), Caller(rig) as portal:
        assert portal.sign(credential="expired").brief == ("FAILED_PRECONDITION", "CERT_EXPIRED")
        assert portal.sign(credential="future").brief == ("FAILED_PRECONDITION", "CERT_NOT_YET_VALID")
        assert signed(rig) == 0
        shim_of(rig).script("C_Sign * delay 0.2")
        answer = portal.sign(credential="ending", digests=digests(60), timeout_s=40)
        took_until = time.time()
        assert answer.code == "OK", answer
        told = [(pb.ItemStatus.Name(item.status), item.reason) for item in answer.value.items]
        under_way = ("INDETERMINATE", "TOKEN_TIMEOUT")  # the one the key was asked for when the certificate ended
        assert told.count(under_way) <= 1
        assert {*told} - {under_way} == {("SIGNED", ""), ("NOT_ATTEMPTED", "CERT_EXPIRED")}
        assert took_until < ends + 2, f"nothing is signed long after {datetime.fromtimestamp(ends, UTC)}"
        before = signed(rig)
        assert portal.sign(credential="ending").brief == ("FAILED_PRECONDITION", "CERT_EXPIRED")
        assert signed(rig) == before


def test_f34_what_has_ended_stays_so() -> None:
    """
    F34: with the system's clock put back by an hour, also over a restart, a seal's certificate and a caller's that ended
    before are refused as before, with what to do, until an operator confirms the clock; so it is where no people are served.
    """
    rig = card_rig("P-256")
    jump = Jump(rig.directory)
    rig.environment = jump.environment
    _, spki = rig.store.made["card"]["P-256"]
    ended = {"begins": -timedelta(days=1), "ends": -timedelta(seconds=30)}
    enrol(rig, "ended", rig.pki.signer("ended", spki, **ended), "P-256", ("RAW", "CADES_B_B"))
    role, rpcs, _ = rig.callers["portal"]
    rig.callers["portal"] = (role, rpcs, ["ended", "p-256"])
    rig.callers["operator"] = ("operator", sorted(ROLES["operator"]), ())
    with running(rig):
        with Caller(rig, files=rig.pki.caller("portal")) as portal:
            assert portal.sign(credential="ended").reason == "CERT_EXPIRED"
        jump.to(-3_600)
        for is_anew in (False, True):
            if is_anew:
                rig.stop()
                rig.launch()
                rig.wait_serving()
            with Caller(rig, files=rig.pki.caller("portal")) as portal:
                for output in ("RAW", "CADES_B_B"):
                    answer = portal.sign(credential="ended", output=output)
                    assert answer.brief == ("FAILED_PRECONDITION", "CERT_EXPIRED")
                    assert "then `paraph clock confirm`" in answer.message
                assert statuses(portal.sign()) == ["SIGNED"]
            with Caller(rig, files=rig.pki.caller("portal", **ended)) as portal:
                answer = portal.sign()
                assert answer.brief == ("UNAUTHENTICATED", "CALLER_EXPIRED")
                assert "the system's clock was set by -3600 s" in answer.message
        assert signed(rig) == 2
        until(lambda: "the system's clock was set by -3600 s, so nothing new" in rig.log.read_text(), 40, "the advice")
        with Caller(rig, "operator") as operator:
            step_s = operator.operator.ConfirmClock(op.ConfirmClockRequest(), timeout=10).step_s
        assert abs(step_s + 3_600) < 5
        with Caller(rig, files=rig.pki.caller("portal")) as portal:
            assert statuses(portal.sign(credential="ended")) == ["SIGNED"]
