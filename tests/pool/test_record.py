"""What must be in writing before a token sees it, and what is told of what came of it; the shim's log is the oracle."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pool import Outcome, Outcomes, Status
from pool.process import Child
from pool.record import Unrecorded
from pool.work import hides
from tests.conftest import Keys, MakePool
from tests.pool.rig import RSA, digests, inputs, pids, statuses, token_input, until, view, warm
from tests.shim import Shim


@dataclass
class Told:
    """One intent, and what was told of it."""

    start: int
    stop: int
    durable: asyncio.Future[None]
    signed: dict[int, bytes] = field(default_factory=dict)
    problems: dict[int, Outcome] = field(default_factory=dict)
    last: int = 0

    def settled(
        self, signatures: Sequence[bytes | None], problems: Mapping[int, Outcome], *, is_last: bool = True
    ) -> None:
        assert len(signatures) == self.stop - self.start
        self.signed |= {self.start + place: one for place, one in enumerate(signatures) if one}
        self.problems |= problems
        self.last += is_last


class Writing:
    """A record that writes at once, when it is told to (`held`), or not at all (`error`)."""

    def __init__(self, *, held: bool = False, error: Exception | None = None) -> None:
        self.intents: list[Told] = []
        self.revoked = ""
        self.held = held
        self.error = error

    def intend(self, start: int, stop: int, token: str, *, within_s: float = 0.0) -> Told:
        assert token == "card"
        assert within_s >= 0
        told = Told(start, stop, asyncio.get_running_loop().create_future())
        self.intents.append(told)
        if self.error is not None:
            told.durable.set_exception(self.error)
        elif not self.held:
            told.durable.set_result(None)
        return told

    def write(self) -> None:
        self.held = False
        for told in self.intents:
            if not told.durable.done():
                told.durable.set_result(None)

    @property
    def signed(self) -> dict[int, bytes]:
        return {index: one for told in self.intents for index, one in told.signed.items()}


async def test_no_token_sees_what_is_not_in_writing(make_pool: MakePool, shim: Shim) -> None:
    """Row 4.1: the intent is on the disk before a worker sees the digest, and what was signed is told before the answer."""
    async with make_pool(shim=shim, lanes=2) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        before = len(shim.signs())
        writing = Writing(held=True)
        asked = asyncio.create_task(pool.sign(key, RSA, digests(200), record=writing))
        await until(lambda: bool(writing.intents))
        await asyncio.sleep(0.1)  # thirty signatures' time
        assert len(shim.signs()) == before, "C_Sign was called without an intent"
        writing.write()
        outcomes = await asked
        assert statuses(outcomes) == {("SIGNED", ""): 200}
        assert writing.signed == dict(enumerate(outcomes.signatures))
        assert all(told.last == 1 for told in writing.intents)
        assert sorted(i for told in writing.intents for i in range(told.start, told.stop)) == list(range(200))


async def test_who_is_more_urgent_does_not_wait_for_an_intent(make_pool: MakePool, shim: Shim) -> None:
    """
    Frames of bulk whose intents are still being written are taken back for a short request; each intent is told
    that nothing came of it, and the bulk is signed later, each item once.
    """
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        writing = Writing(held=True)
        bulk = asyncio.create_task(pool.sign(key, RSA, digests(200), caller="bulk", record=writing))
        await until(lambda: bool(writing.intents))
        given = len(writing.intents)
        assert statuses(await pool.sign(key, RSA, digests(1, 500), caller="person", timeout_s=5)) == {("SIGNED", ""): 1}
        assert all((told.last, told.signed) == (1, {}) for told in writing.intents[:given])
        writing.write()
        assert statuses(await bulk) == {("SIGNED", ""): 200}
        assert sum(len(told.signed) for told in writing.intents) == 200
        assert all(told.last == 1 for told in writing.intents)


async def test_what_is_revoked(make_pool: MakePool, shim: Shim) -> None:
    """
    No item that was not begun is, in a lane, in the line or back from a lane that was lost, or of a request that comes only
    then; what a lane has begun is awaited. Another request goes on.
    """
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        before = len(shim.signs())
        shim.script(f"C_Sign {before + 1}+ delay 0.2", f"C_Sign {before + 5} delay 30")
        writing, later, others = Writing(), Writing(), Writing()
        asked = [asyncio.create_task(pool.sign(key, RSA, digests(300), record=record)) for record in (writing, later)]
        await until(lambda: len(shim.signs()) == before + 2)
        writing.revoked = later.revoked = "CREDENTIAL_SUSPENDED"
        pool.revoke()
        outcomes = await asked[0]
        assert statuses(outcomes) == {("SIGNED", ""): 2, ("NOT_ATTEMPTED", "CREDENTIAL_SUSPENDED"): 298}
        assert writing.signed == dict(enumerate(outcomes.signatures[:2]))
        assert statuses(await asked[1]) == {("NOT_ATTEMPTED", "CREDENTIAL_SUSPENDED"): 300}
        assert statuses(await pool.sign(key, RSA, digests(1), record=later)) == {
            ("NOT_ATTEMPTED", "CREDENTIAL_SUSPENDED"): 1
        }
        lost = asyncio.create_task(pool.sign(key, RSA, digests(20), record=others))
        await until(lambda: len(shim.signs()) == before + 5)
        others.revoked = "CALLER_REVOKED"
        pool.revoke()
        os.kill(pids(pool)[0], signal.SIGKILL)
        assert statuses(await lost) == {
            ("SIGNED", ""): 2, ("INDETERMINATE", "MODULE_CRASH"): 1, ("NOT_ATTEMPTED", "CALLER_REVOKED"): 17
        }  # fmt: skip
        assert statuses(await pool.sign(key, RSA, digests(2))) == {("SIGNED", ""): 2}
        assert len(shim.signs()) == before + 7


async def test_what_cannot_be_written_is_not_signed(make_pool: MakePool, shim: Shim) -> None:
    """Row 4.3: where the intent cannot be written the request is answered why, and the lane goes on with others."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        before = len(shim.signs())
        writing = Writing(error=Unrecorded("AUDIT_UNWRITABLE", "no space left"))
        assert statuses(await pool.sign(key, RSA, digests(40), record=writing)) == {
            ("NOT_ATTEMPTED", "AUDIT_UNWRITABLE"): 40
        }
        assert len(shim.signs()) == before
        assert statuses(await pool.sign(key, RSA, digests(40))) == {("SIGNED", ""): 40}


async def test_a_disk_that_hangs_costs_no_lane(make_pool: MakePool, shim: Shim) -> None:
    """A frame that waits to be written is no lane that hangs: its request ends at its deadline, the lane lives on."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        lane, before = pids(pool), len(shim.signs())
        writing = Writing(held=True)
        began = time.monotonic()
        outcomes = await pool.sign(key, RSA, digests(2), record=writing, timeout_s=0.3)
        assert time.monotonic() - began < 0.5
        assert statuses(outcomes) == {("NOT_ATTEMPTED", "DEADLINE_EXCEEDED"): 2}
        await asyncio.sleep(1.0)  # twice the time after which an item under C_Sign ends its lane
        writing.write()
        await until(lambda: all(told.last for told in writing.intents))
        assert statuses(await pool.sign(key, RSA, digests(5, 50))) == {("SIGNED", ""): 5}
        assert (pids(pool), len(shim.signs())) == (lane, before + 5)


async def test_what_is_answered_at_the_deadline_was_told(make_pool: MakePool, shim: Shim, keys: Keys) -> None:
    """A lane hangs over the third item: the two finished ones are told before they are delivered, the third as it is."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        shim.script(f"C_Sign {shim.number('C_Sign') + 3} hang 60")
        writing = Writing()
        outcomes = await pool.sign(key, RSA, digests(5), record=writing, timeout_s=0.5)
        assert [outcome.status for outcome in outcomes] == [
            Status.SIGNED, Status.SIGNED, Status.INDETERMINATE, Status.NOT_ATTEMPTED, Status.NOT_ATTEMPTED,
        ]  # fmt: skip
        assert writing.signed == {0: outcomes.signatures[0], 1: outcomes.signatures[1]}
        [told] = writing.intents
        assert told.problems[2].status is Status.INDETERMINATE
        assert told.last == 0
        await until(lambda: told.last == 1)
        shim.clear()


async def test_a_lost_lane_is_told_of(make_pool: MakePool, shim: Shim, keys: Keys) -> None:
    """Kill -9 of a lane: what it had is told item by item, and what it never came to is intended anew."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        shim.script(f"C_Sign {shim.number('C_Sign') + 4} hang 60")
        writing, items = Writing(), digests(8)
        asked = asyncio.create_task(pool.sign(key, RSA, items, record=writing))
        await until(lambda: token_input(RSA, spki, items[3]).hex() in inputs(shim))
        shim.clear()
        os.kill(pids(pool)[0], signal.SIGKILL)
        outcomes = await asked
        assert [i for i, outcome in enumerate(outcomes) if outcome.status is not Status.SIGNED] == [3]
        assert writing.signed == {i: one for i, one in enumerate(outcomes.signatures) if one}
        first = writing.intents[0]
        assert first.problems[3].status is Status.INDETERMINATE
        assert (first.last, sorted(first.signed)) == (1, [0, 1, 2])
        assert sum(told.start <= 5 < told.stop for told in writing.intents) == 2, "given back, and intended again"


@pytest.mark.parametrize("end", ["its deadline passed", "it was cancelled"])
async def test_what_nobody_waits_for_is_not_sent(
    make_pool: MakePool, shim: Shim, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """
    A request is over before its intent is on the disk: its frame never goes to the lane, which would look as if it hung;
    the intent is told that nothing came of it, and the lane goes on with others.
    """
    frames, send = [], Child.send

    def seen(child: Child, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        frames.append(message)
        send(child, message, fds)

    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        lane, before = pids(pool), len(shim.signs())
        monkeypatch.setattr(Child, "send", seen)
        writing = Writing(held=True)
        timeout_s = 0.2 if end == "its deadline passed" else 10.0
        asked = asyncio.create_task(pool.sign(key, RSA, digests(2), record=writing, timeout_s=timeout_s))
        await until(lambda: writing.intents)
        if end == "it was cancelled":
            asked.cancel()
        await asyncio.wait({asked})
        assert not any(told.last for told in writing.intents)
        writing.write()
        await until(lambda: all(told.last == 1 for told in writing.intents))
        assert not [message for message in frames if message["t"] == "frame"]
        assert (len(shim.signs()), writing.signed) == (before, {})
        assert [lane.in_flight for lane, _ in view(pool).lanes] == [0]
        assert statuses(await pool.sign(key, RSA, digests(5, 50))) == {("SIGNED", ""): 5}
        assert (pids(pool), len(shim.signs())) == (lane, before + 5)


INDETERMINATE = Outcome(Status.INDETERMINATE, reason="TOKEN_TIMEOUT", token="card")


@pytest.mark.parametrize("now", Status)
def test_indeterminate_is_not_hidden(now: Status) -> None:
    """What may have been signed is not called NOT_ATTEMPTED for a later attempt that never came to it; all else counts."""
    later = Outcome(now, b"signature" if now is Status.SIGNED else b"", "" if now is Status.SIGNED else "TOKEN_FAULT")
    assert hides(INDETERMINATE, now) == (now is Status.NOT_ATTEMPTED)
    assert not any(hides(before, now) for before in (None, Outcome(Status.NOT_ATTEMPTED), Outcome(Status.FAILED)))
    first, second = Outcomes(3), Outcomes(1)
    first.signed(0, [b"first"], "card")
    first.problems = {1: INDETERMINATE, 2: Outcome(Status.FAILED, reason="SIGNATURE_INVALID")}
    if now is Status.SIGNED:
        second.signed(0, [later.signature], later.token)
    else:
        second.problems[0] = later
    whole = first.completed([1], second)
    assert whole[1] == (INDETERMINATE if now is Status.NOT_ATTEMPTED else later)
    assert (whole[0].signature, whole[2].status) == (b"first", Status.FAILED)
