"""A credential's certificate that ends while it is signed with."""

import time
from datetime import UTC, datetime, timedelta

from signer.v1 import signing_pb2 as pb
from tests.daemon import running
from tests.signer.access.calls import Caller, card_rig, digests, enrol, shim_of, signed

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
