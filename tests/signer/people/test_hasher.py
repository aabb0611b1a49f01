"""The processes that hash secret codes: two at a time, replaced when they die, and nobody's answer is another's."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from argon2.low_level import Type, hash_secret

from signer.code import HASHERS, WAITING_MAX, Codes, CodesError
from signer.hasher import MEMORY_BYTES_MAX
from signer.phc import OURS, PhcError, setting_of
from signer.secret import Code
from tests.processes import children

SECRET, WRONG = "73019264-unmistakable", "73019264-unmistakeable"
# A known answer of the reference program: "password", "somesalt".
KNOWN = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
RSS_BYTES_MAX = 48 * 1024 * 1024
SOON_S = 5.0  # for what takes milliseconds, on a busy machine


@pytest.fixture
async def codes() -> AsyncIterator[Codes]:
    async with Codes() as made:
        yield made


@pytest.fixture
async def phc(codes: Codes) -> str:
    return await codes.hash(Code(SECRET))


def hashers() -> list[psutil.Process]:
    """Of this process; a daemon that other tests keep has its own."""
    return [each for each in children(os.getpid(), "signer.hasher") if each.ppid() == os.getpid()]


def send(number: signal.Signals) -> None:
    for each in hashers():
        each.send_signal(number)


@contextmanager
def stopped() -> Iterator[None]:
    """The hashers stand still, so that what is asked of them stays asked."""
    send(signal.SIGSTOP)
    yield
    send(signal.SIGCONT)


def asked(question: Awaitable[bool]) -> asyncio.Future[bool]:
    return asyncio.ensure_future(question)


async def turns(count: int = 5) -> None:
    """Of the loop: what can go on without a hasher's answer has gone on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def refused(question: Awaitable[object]) -> str:
    """The reason, which comes soon."""
    with pytest.raises(CodesError) as error:
        await asyncio.wait_for(question, SOON_S)
    assert SECRET not in f"{error.value!r} {error.value}"
    return error.value.reason


# --- Answers ---------------------------------------------------------------------------------------------------------


async def test_right_and_wrong(codes: Codes, phc: str) -> None:
    """A code matches its own hash; each hash has a salt of its own, is of our setting and does not show the code."""
    assert await codes.matches(Code(SECRET), phc)
    assert not await codes.matches(Code(WRONG), phc)
    again = await codes.hash(Code(SECRET))
    assert again.rpartition("$")[0] != phc.rpartition("$")[0]
    assert await codes.matches(Code(SECRET), again)
    assert setting_of(phc) == OURS
    assert await codes.renewed(Code(SECRET), phc) == ""
    assert SECRET not in phc


async def test_one_code_from_all_keyboards(codes: Codes) -> None:
    """A code set on one keyboard is right on another that writes its letters otherwise."""
    stored = await codes.hash(Code("cafe\u0301 １２３"))
    assert await codes.matches(Code("café 123"), stored)


@pytest.mark.parametrize(("memory_kib", "passes", "lanes"), [(8192, 1, 1), (65536, 3, 4)])
async def test_another_setting(codes: Codes, memory_kib: int, passes: int, lanes: int) -> None:
    """What was hashed with an older or stronger setting is verified, and hashed anew with ours."""
    made = hash_secret(SECRET.encode(), os.urandom(16), passes, memory_kib, lanes, 32, Type.ID).decode()
    assert await codes.matches(Code(SECRET), made)
    assert not await codes.matches(Code(WRONG), made)
    renewed = await codes.renewed(Code(SECRET), made)
    assert setting_of(renewed) == OURS
    assert await codes.matches(Code(SECRET), renewed)


async def test_known_answer(codes: Codes) -> None:
    """It is argon2id as others have it."""
    assert await codes.matches(Code("password"), KNOWN)
    assert not await codes.matches(Code("passwore"), KNOWN)


async def test_what_is_not_verified_reaches_no_hasher(codes: Codes) -> None:
    """A hash that would want gigabytes is refused before anybody is asked."""
    with stopped(), pytest.raises(PhcError, match="4194304"):
        await asyncio.wait_for(codes.matches(Code(SECRET), KNOWN.replace("65536", "4194304")), SOON_S)


async def test_nobody_costs_as_much_as_somebody(codes: Codes, phc: str) -> None:
    """
    Whether a subject exists is not told by the time: the same work is done for one who does not. Counted in the
    hashers' processor time, in turns, so that it does not matter what else the machine does.
    """

    processes = hashers()

    async def used_s(ask: Callable[[], Awaitable[object]]) -> float:
        before = {each: each.cpu_times() for each in processes}
        await ask()
        return sum(sum(each.cpu_times()[:2]) - sum(times[:2]) for each, times in before.items())

    somebody_s = nobody_s = 0.0
    for _ in range(10):
        somebody_s += await used_s(lambda: codes.matches(Code(WRONG), phc))
        nobody_s += await used_s(codes.spend)
    assert 0.7 < nobody_s / somebody_s < 1.4, (nobody_s, somebody_s)


# --- Two at a time ---------------------------------------------------------------------------------------------------


async def test_two_at_a_time(codes: Codes, phc: str) -> None:
    """There are two processes; two questions are with them, and the third waits until one has answered."""
    assert len(hashers()) == HASHERS == 2
    with stopped():
        questions = [asked(codes.matches(Code(SECRET), phc)) for _ in range(3)]
        await turns()
        assert (len(codes._asked), codes._waiting) == (2, 1)
    assert await asyncio.gather(*questions) == [True] * 3
    assert len(hashers()) == 2


async def test_one_that_is_slow_holds_up_nobody(codes: Codes, phc: str) -> None:
    """While one hasher is at it, the other answers all that come, in the order in which they came."""
    order: list[int] = []

    async def one(number: int) -> None:
        assert await codes.matches(Code(SECRET), phc)
        order.append(number)

    slow = hashers()[0]
    slow.send_signal(signal.SIGSTOP)
    questions = [asyncio.ensure_future(one(number)) for number in range(6)]
    while len(order) < 5:
        await asyncio.wait([each for each in questions if not each.done()], return_when=asyncio.FIRST_COMPLETED)
    slow.send_signal(signal.SIGCONT)
    await asyncio.gather(*questions)
    assert order[:5] == sorted(order[:5])


async def test_so_many_wait(codes: Codes, phc: str) -> None:
    """One more than may wait is refused at once, whatever it asks; who goes away from the line makes room."""
    with stopped():
        questions = [asked(codes.matches(Code(SECRET), phc)) for _ in range(HASHERS + WAITING_MAX)]
        await turns()
        assert await refused(codes.matches(Code(SECRET), phc)) == "CODES_BUSY"
        assert await refused(codes.spend()) == "CODES_BUSY"
        assert await refused(codes.hash(Code(SECRET))) == "CODES_BUSY"
        for each in questions[4:]:
            each.cancel()
        await turns()
        assert codes._waiting == 2
    assert await asyncio.gather(*questions[:4]) == [True] * 4
    assert await codes.matches(Code(SECRET), phc)


async def test_no_answer_is_anothers(codes: Codes, phc: str) -> None:
    """Who goes away while a hasher is at it leaves no answer for the next one: a wrong code stays wrong."""
    with stopped():
        right = [asked(codes.matches(Code(SECRET), phc)) for _ in range(2)]
        await turns()
        for each in right:
            each.cancel()
        await turns()
        assert all(each.cancelled() for each in right)
        pids = {each.pid for each in hashers()}
        wrong = [asked(codes.matches(Code(WRONG), phc)) for _ in range(6)]
        await turns()
        assert codes._waiting == 6
    assert await asyncio.gather(*wrong) == [False] * 6
    assert {each.pid for each in hashers()} == pids, "they were let finish"


async def test_the_loop_goes_on(codes: Codes, phc: str) -> None:
    """While codes are verified the loop turns, many times for each, and this process does none of the work."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    used_s, began = time.process_time(), time.perf_counter()
    ticking = asyncio.ensure_future(tick())
    for _ in range(10):
        assert await codes.matches(Code(SECRET), phc)
    ticking.cancel()
    taken_s = time.perf_counter() - began
    assert ticks > 10 * 5
    assert time.process_time() - used_s < taken_s / 2


# --- What dies -------------------------------------------------------------------------------------------------------


async def test_killed_in_the_middle(codes: Codes, phc: str) -> None:
    """A hasher that is killed over a question is replaced and asked once more: nobody notices."""
    before = {each.pid for each in hashers()}
    with stopped():
        questions = [asked(codes.matches(Code(code), phc)) for code in (SECRET, WRONG)]
        await turns()
        send(signal.SIGKILL)
    assert await asyncio.gather(*questions) == [True, False]
    after = {each.pid for each in hashers()}
    assert len(after) == 2
    assert not before & after


async def test_killed_while_idle(codes: Codes, phc: str, caplog: pytest.LogCaptureFixture) -> None:
    """One that died while it had nothing to do is replaced when it is asked; that is no try of a question."""
    idle = [each._child for each in codes._hashers]
    send(signal.SIGKILL)
    await asyncio.gather(*(each.ended for each in idle if each is not None))
    assert await asyncio.gather(*(codes.matches(Code(SECRET), phc) for _ in range(2))) == [True, True]
    assert len(hashers()) == 2
    assert "was lost" not in caplog.text


async def test_killed_each_time(codes: Codes, phc: str, caplog: pytest.LogCaptureFixture) -> None:
    """After the second loss the question ends, with no answer taken for one; the next question is answered."""
    caplog.set_level(logging.DEBUG)

    async def keep_killing() -> None:
        while True:
            send(signal.SIGKILL)
            await asyncio.sleep(0.002)

    killing = asyncio.ensure_future(keep_killing())
    assert await refused(codes.matches(Code(SECRET), phc)) == "CODES_FAILED"
    killing.cancel()
    assert caplog.text.count("was lost: ") == 2  # while it worked, or before it was asked
    assert SECRET not in caplog.text
    assert await codes.matches(Code(SECRET), phc)


async def test_one_that_hangs(codes: Codes, phc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer in time is ended, and its successor answers."""
    monkeypatch.setattr("signer.code.ANSWER_S", 1.0)
    hanging = {each.pid for each in hashers()}
    send(signal.SIGSTOP)
    assert not await codes.matches(Code(WRONG), phc)
    assert len({each.pid for each in hashers()} - hanging) == 1


SECOND_FAILS = """#!/bin/sh
if mkdir {once} 2>/dev/null; then exec {python} "$@"; fi
exit 1
"""


@pytest.mark.parametrize("program", ["false", "nowhere", "second"])
async def test_what_does_not_start(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashers that do not come up are said at the start, and nothing is left of them: not of one that did, either."""
    second = tmp_path / "second"
    second.write_text(SECOND_FAILS.format(once=tmp_path / "once", python=sys.executable))
    second.chmod(0o700)
    monkeypatch.setattr(sys, "executable", {"false": "/bin/false", "second": str(second)}.get(program, "/nowhere"))
    assert await refused(Codes().__aenter__()) == "CODES_FAILED"
    assert (tmp_path / "once").exists() == (program == "second")
    assert not hashers()


async def test_the_end(codes: Codes, phc: str) -> None:
    """Who is being answered, who waits and who comes later is told that it failed, soon; no process is left."""
    send(signal.SIGSTOP)
    questions = [asked(codes.matches(Code(SECRET), phc)) for _ in range(5)]
    await turns()
    await asyncio.wait_for(codes._close(), SOON_S)
    assert [await refused(each) for each in questions] == ["CODES_FAILED"] * 5
    assert await refused(codes.matches(Code(SECRET), phc)) == "CODES_FAILED"
    assert not hashers()


async def test_the_end_while_one_is_replaced(codes: Codes, phc: str) -> None:
    """A hasher that is just being started is waited for and ended as well; every question ends."""
    idle = [each._child for each in codes._hashers]
    send(signal.SIGKILL)
    await asyncio.gather(*(each.ended for each in idle if each is not None))
    questions = [asked(codes.matches(Code(SECRET), phc)) for _ in range(5)]
    for _ in range(100):
        if not any(each._child in idle for each in codes._hashers):
            break  # the dead are gone, and their successors were just started
        await turns(1)
    else:
        pytest.fail("they are not replaced")
    async with asyncio.timeout(SOON_S):  # and at once: in a task of its own it would come too late
        await codes._close()
    ends = await asyncio.gather(*questions, return_exceptions=True)
    assert all(end is True or (isinstance(end, CodesError) and end.reason == "CODES_FAILED") for end in ends)
    assert not hashers()


# --- What it may, and what it knows ----------------------------------------------------------------------------------


async def test_it_is_shut_in(codes: Codes, phc: str) -> None:
    """Little memory, no core, few files; what it holds stays small over many questions."""
    for _ in range(10):
        await asyncio.gather(codes.matches(Code(SECRET), phc), codes.hash(Code(SECRET)))
    for each in hashers():
        limits = Path(f"/proc/{each.pid}/limits").read_text()
        values = {line[:25].strip(): line[26:].split()[:2] for line in limits.splitlines()}
        assert values["Max address space"] == [str(MEMORY_BYTES_MAX)] * 2
        assert values["Max core file size"] == ["0", "0"]
        assert values["Max open files"] == ["8", "8"]
        assert each.memory_info().rss < RSS_BYTES_MAX


async def test_a_code_is_in_no_list_of_processes(codes: Codes, phc: str) -> None:
    """It goes over a socket: neither argv nor, where that may be read, the environment has it."""
    assert await codes.matches(Code(SECRET), phc)
    for each in hashers():
        assert SECRET not in " ".join(each.cmdline())
        if os.geteuid() == 0:
            assert SECRET.encode() not in Path(f"/proc/{each.pid}/environ").read_bytes()


async def test_nothing_is_written_of_a_code(
    codes: Codes, phc: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """With logs at DEBUG, a hasher killed over a code and one that finds no memory: the code is nowhere."""
    caplog.set_level(logging.DEBUG)
    with stopped():
        question = asked(codes.matches(Code(SECRET), phc))
        await turns()
        tasks = " ".join(map(repr, asyncio.all_tasks()))
        send(signal.SIGKILL)
    assert await question
    for each in hashers():
        room = each.memory_info().vms + 8 * 1024 * 1024  # not for the 64 MiB that KNOWN wants
        psutil.Process(each.pid).rlimit(psutil.RLIMIT_AS, (room, room))
    assert not await codes.matches(Code(WRONG), KNOWN)
    written = "".join(capfd.readouterr())
    assert "argon2: Memory allocation error" in written
    for text in (tasks, written, caplog.text, repr(codes), repr(vars(codes))):
        assert SECRET not in text
        assert WRONG not in text
