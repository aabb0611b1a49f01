"""The state machine of machine.py, in its small size; `soak machine` is the full one."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.signer.people.machine import Machine, Village

EXAMPLES, STEPS = 8, 40
# What has to have happened for the test to mean something.
TOLD = {
    *("Authorize OK", "Authorize OTP_INCORRECT", "SignDigests OK", "SignBatch OK", "OpenBatch OK", "CancelBatch OK"),
    "SignDigests AUTHZ_USED",
}
# And in the full size; here a few hundred steps come to some of them only, and test_bound.py has each.
ALL_TOLD = TOLD | {"SignDigests AUTHZ_DIGEST", "SignDigests AUTHZ_EXPIRED", "SignDigests AUTHZ_UNKNOWN"}


def run(examples: int, steps: int) -> int:
    """So many runs of so many steps, over one daemon; answers how many steps there were. Raises AssertionError."""
    with Village() as village:
        Machine.village, Machine.steps = village, 0
        Machine.told.clear()
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
                # What a run has done to the daemon stays: a shorter one cannot be tried in its place.
                phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False,
            ),
        )  # fmt: skip
        return Machine.steps


@pytest.mark.timeout(120)
def test_any_order() -> None:
    """
    Whatever a portal, a window, an operator and two people do, in any order, and whenever the daemon ends: nothing is
    signed but what the person has allowed, by her live authorisation and once; what was answered is answered again; the
    ledger has an INTENT for each C_Sign; nobody else is touched; no secret is in the log; every answer comes in time.
    """
    assert run(EXAMPLES, STEPS) >= EXAMPLES * STEPS // 2
    assert Machine.told.keys() >= TOLD
