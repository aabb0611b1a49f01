"""Kill -9 of daemon and lanes, and power cuts, under load; the full figure is `make soak PART=crashes`."""

from collections.abc import Iterator

import pytest

from tests.daemon import Rig, running
from tests.disk import Disk
from tests.signer.access.calls import card_rig
from tests.signer.ledger.crashes import run


def crashing_rig() -> Rig:
    made = card_rig("P-256", lanes=2)
    made.environment = Disk(made.directory / "disk", "paraph.sqlite", undo=True).environment
    return made


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running(crashing_rig()) as made:
        yield made


@pytest.mark.parametrize("seed", [1, 2])
def test_row_4_1_intent_before_record_after(rig: Rig, seed: int) -> None:
    """
    Row 4.1: kill -9 and power cuts at moments that the seed draws, under load: nothing is released without INTENT and SIGNED,
    nothing acknowledged is lost, no C_Sign is without a record. F28: whatever step of a request it strikes, the same
    request again has the bytes that anybody was given. F29: the power goes, and with it what was not synced. Row 4.7:
    every request has its result or a reason within its deadline and a second. Row 3.3: eight clients, a random kill -9
    of the daemon, a worker or what writes the store, and a checker of the whole history: no release twice, no
    acknowledged answer lost, the audit covers all that was released.
    """
    print(run(rig, crashes=6, seed=seed))
