"""One daemon for the tests that change nothing in it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from signer.credential import State
from tests.daemon import Rig, running
from tests.signer.access.calls import Caller, card_rig, enrol, statuses


@pytest.fixture(scope="session")
def shared() -> Iterator[Rig]:
    """A card with three keys, and credentials that are wrong in one way each."""
    made = card_rig("P-256", "RSA-2048", "Ed25519")
    _, spki = made.store.made["card"]["P-256"]
    both = ("RAW", "CADES_B_B", "PADES_B_B")
    year = timedelta(days=365)

    def certified(*bits: str, **more: Any) -> bytes:
        return made.pki.signer("Signer", spki, *bits, **more)

    wrong = {
        "forbidden": (certified(), both),
        "cms-only": (certified(), both[1:]),
        "expired": (certified(begins=-year, ends=-timedelta(seconds=1)), both),
        "future": (certified(begins=timedelta(hours=1), ends=year), both),
        "login": (certified("digital_signature"), ()),
        "suspended": (certified(), both),
    }
    for name, (chain, outputs) in wrong.items():
        state = State.SUSPENDED if name == "suspended" else State.ACTIVE
        enrol(made, name, chain, "P-256", outputs, state)
    role, rpcs, _ = made.callers["portal"]
    made.callers["portal"] = (role, rpcs, sorted((made.credentials.keys() | wrong) - {"forbidden"}))
    with running(made):
        with Caller(made) as warm:  # templates are made at the first use of a credential
            for credential in ("p-256", "cms-only"):
                warm.sign(credential=credential, output="CADES_B_B")
            assert statuses(warm.sign()) == ["SIGNED"]
        yield made
