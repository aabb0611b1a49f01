"""Random sequences of PINs over three kinds of tokens, in the size that every run of the tests has time for (row 2.5)."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.pool import pins

STACKS = ("softhsm", "opencryptoki", "tpm", "card")
FIXED = (3, 14, 18, 27)  # in which all of it happens
RANDOM = 2  # more of each stack, other ones in every run


@pytest.mark.timeout(300)
async def test_no_token_is_locked_by_us() -> None:
    """
    Row 2.5: right and wrong PINs, crashes between login and answer, answers that say nothing, flags that lie, operators and
    persons who are wrong, over the shim before SoftHSM, opencryptoki, a TPM and a card: no token is locked but by an override, none
    has lost more tries than we know of, and no more logins are refused than persons have acted.
    """
    seeds = [*FIXED, *(random.randrange(10**6, 10**9) for _ in range(RANDOM))]

    async def over(stack: str) -> None:
        with pins.counted(stack) as token:
            for seed in seeds:
                tally.update(await pins.play(token, seed))

    tally = Counter()
    async with asyncio.TaskGroup() as group:
        for stack in STACKS:
            group.create_task(over(stack))
    assert tally["sequences"] == len(STACKS) * len(seeds)
    # The fixed seeds see to it that all of it has happened.
    for what in ("refused", "unlocks", "guarded", "overrides", "leases", "locked by an override"):
        assert tally[what], f"no {what} in {tally}"


def send_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.start.check_machine", lambda *_: None)


def let_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.pool.check_person", lambda *_, override: None)
    monkeypatch.setattr("pool.login.check_holder", lambda *_: None)


def give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.tries._KEEPS_COUNT", ())


def write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.tries.Tries.begin", lambda *_: None)


BROKEN = (
    ("softhsm", send_always, (3,)),
    ("softhsm", let_persons, (3,)),
    ("tpm", give_back, (5,)),
    ("softhsm", write_nothing, (0,)),
)


@pytest.mark.parametrize(("stack", "broken", "seeds"), BROKEN, ids=[broken.__name__ for _, broken, _ in BROKEN])
async def test_a_broken_rule_is_found(
    stack: str, broken: Callable[[pytest.MonkeyPatch], None], seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2.5: the sequences of these seeds find a pool that lacks one of the rules for PINs."""
    broken(monkeypatch)
    found = r"we have locked it|than we know of|than persons have acted"
    with pins.counted(stack) as token, pytest.raises(AssertionError, match=found):
        for seed in seeds:
            await pins.play(token, seed)
