"""
Lanes that are no processes stand under the same tests as the real ones: each test named here is the very one of its own
file, over fixtures that start nothing (pool/fake.py), on the simulated loop. What they cannot show is left out: forks, noise, memory, the death
of the parent, and what another library or another store does.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import Pool, TokenConfig
from tests.conftest import Keys, MakePool
from tests.pool import rig, test_faults, test_lease, test_login
from tests.pool.conftest import MakePersonal
from tests.pool.persons import Resets
from tests.pool.rig import config, lanes_up, until
from tests.pool.test_faults import (  # noqa: F401 -- collected here
    short_rests,
    test_a_breaker_stays_open_while_a_look_cannot_say,
    test_a_cancelled_call,
    test_a_cancelled_call_leaves_the_others_alone,
    test_a_code_nobody_knows_may_have_signed,
    test_a_crash_on_the_way_out,
    test_a_deadline_in_the_line,
    test_a_device_that_only_fails,
    test_a_fast_lane_verifies_itself,
    test_a_hang_in_a_ping,
    test_a_hang_in_c_sign,
    test_a_hang_in_the_start,
    test_a_hang_on_the_way_out,
    test_a_hang_with_a_distant_deadline,
    test_a_kill_under_one_token_is_nothing_to_another,
    test_a_lost_session_is_opened_anew,
    test_a_mechanism_that_the_token_has_not,
    test_a_module_that_dies_in_c_sign,
    test_a_passing_error_is_a_loss_and_not_the_end,
    test_a_quarantine_outlives_a_restart,
    test_a_request_that_costs_every_lane_its_session,
    test_a_wrong_signature_found_at_the_deadline,
    test_a_wrong_signature_is_not_released,
    test_a_wrong_signature_of_a_token_being_drained,
    test_an_algorithm_that_c_sign_init_does_not_take,
    test_close_with_a_hanging_lane,
    test_kill_9_at_any_moment,
    test_kill_9_of_the_only_lane_before_a_deadline,
    test_kill_9_under_load,
    test_no_pin_before_a_credential,
    test_short_deadlines_do_not_cost_a_slow_token_its_lane,
    test_the_device_went_away_in_c_sign,
    test_the_lane_itself_looks_at_the_clock,
    test_two_hangs_in_the_login_are_enough,
)
from tests.pool.test_lease import (  # noqa: F401 -- collected here
    test_a_lane_that_dies_while_it_waits,
    test_another_lease_s_frame_is_refused_by_the_worker,
    test_b_beside_a,
    test_however_a_lease_ends,
    test_nobody_has_a_card_that_could_not_be_reset,
    test_several_requests_of_one_lease,
    test_the_pool_s_end_is_a_lease_s_end,
    test_what_a_lease_signs_is_in_writing_before,
    test_who_comes_second_waits,
    test_who_waits_is_told_when_it_is_in_vain,
)
from tests.pool.test_login import (  # noqa: F401 -- collected here
    disk,
    test_a_caller_who_goes_while_the_module_hangs,
    test_a_caller_who_goes_while_the_pin_is_under_way,
    test_a_card_that_goes_with_the_pin,
    test_a_general_error_and_then_the_right_pin,
    test_a_module_that_dies_in_the_login,
    test_a_module_that_hangs_in_the_login,
    test_a_stop_while_the_pin_is_under_way,
    test_a_token_that_says_general_error,
    test_a_wrong_pin,
    test_a_wrong_pin_after_the_override,
    test_the_last_try_is_guarded,
)
from tests.pool.test_record import (  # noqa: F401 -- collected here
    test_a_disk_that_hangs_costs_no_lane,
    test_a_lost_lane_is_told_of,
    test_no_token_sees_what_is_not_in_writing,
    test_what_cannot_be_written_is_not_signed,
    test_what_is_answered_at_the_deadline_was_told,
)
from tests.pool.test_swapped import (  # noqa: F401 -- collected here
    test_a_person_s_card,
    test_a_service_s_card,
    two,
)
from tests.simulation.loop import simulated
from tests.simulation.shim import CLOCK, FakeShim, FakeStore


@pytest.fixture(autouse=True)
def simulated_time() -> Iterator[None]:
    with simulated(CLOCK):
        yield


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> FakeShim:
    made = FakeShim()
    monkeypatch.setattr(os, "kill", made.kill(os.kill))
    for module in (test_faults, test_lease, test_login):
        monkeypatch.setattr(module, "gone", made.gone)
    real = Pool.__init__

    def over_fakes(self: Pool, *args: Any, **more: Any) -> None:
        real(self, *args, start=made.fakes.start, **more)

    monkeypatch.setattr(Pool, "__init__", over_fakes)
    return made


@pytest.fixture
def store(shim: FakeShim) -> FakeStore:
    made = FakeStore(shim)
    made.keys("card", ["RSA-2048", "P-256"])
    return made


@pytest.fixture
def own_store(shim: FakeShim) -> FakeStore:
    return FakeStore(shim)


@pytest.fixture
def people(shim: FakeShim) -> FakeStore:
    made = FakeStore(shim)
    made.keys("card", ["P-256"])
    return made


@pytest.fixture
def resets() -> Resets:
    return Resets()


@pytest.fixture
def make_personal(people: FakeStore, shim: FakeShim, resets: Resets, tmp_path: Path) -> MakePersonal:
    """As in tests/pool/conftest.py."""

    @contextlib.asynccontextmanager
    async def made(*, wait: bool = True, keys: Any = None, **token: Any) -> AsyncIterator[Pool]:
        one: TokenConfig = config(people, **{"shim": shim, "pin": None, "personal": True, **token})  # type: ignore[arg-type]
        async with rig.pool_over(one, state=tmp_path / "state", wait=wait, keys=keys, reset=resets) as pool:
            yield pool
        assert not shim.fakes.living
        assert not shim.fakes.errors

    return made


@pytest.fixture
def pair(shim: FakeShim) -> FakeStore:
    made = FakeStore(shim)
    made.keys("card", ["RSA-2048"])
    made.keys("other", ["P-256"])
    return made


@pytest.fixture
def keys(store: FakeStore) -> Keys:
    return store.made["card"]


@pytest.fixture
def make_pool(store: FakeStore, shim: FakeShim, tmp_path: Path) -> MakePool:
    """As in tests/conftest.py; there is no way round this shim."""

    @contextlib.asynccontextmanager
    async def made(
        *, wait: bool = True, state: Path = tmp_path / "state", pool_keys: Any = None, **token: Any
    ) -> AsyncIterator[Pool]:
        one: TokenConfig = config(store, **{"shim": shim, **token})  # type: ignore[arg-type]
        async with rig.pool_over(one, state=state, wait=wait, keys=pool_keys) as pool:
            if wait:
                await until(lambda: all(map(lanes_up, pool.snapshot())))
            yield pool
        assert not shim.fakes.living
        assert not shim.fakes.errors

    return made


def test_the_shim_refuses_what_it_cannot() -> None:
    """A rule that would do nothing here would make a test pass for nothing."""
    with pytest.raises(ValueError, match="fork"):
        FakeShim().script("C_Sign 3 fork")
