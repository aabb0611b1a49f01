"""Whether a secret code that a person chooses is easy to guess: a process looks at one, and ends."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from signer.code import UNJUDGED_MAX, Codes, CodesError
from signer.judge import GUESSES_MIN, judge
from signer.secret import Code
from tests.processes import children, gone


@pytest.fixture
async def codes() -> AsyncIterator[Codes]:
    async with Codes() as made:
        yield made


def judges() -> list[psutil.Process]:
    return [each for each in children(os.getpid(), "signer.judge") if each.ppid() == os.getpid()]


@pytest.mark.parametrize(
    "code",
    [
        *("password1", "12345678", "qwertyuiop", "iloveyou", "motdepasse", "azertyuiop", "1q2w3e4r", "P@ssw0rd"),
        *("qsdfghjklm", "ordinateur", "juillet1987", "bonjour2024", "mercredi12", "14 juillet"),
        *("19800101", "01021990", "abcdefgh", "11112222", "asdfasdf", "aaaaaaab", "xy" * 32, "password" * 8),
    ],
)
async def test_what_is_easy(codes: Codes, code: str) -> None:
    """ASVS 6.2.4, 6.2.12: stolen passwords, words, dates, rows of keys and repetitions, at any length."""
    assert await codes.is_weak(Code(code), [])


@pytest.mark.parametrize("code", ["correct horse 7", "kiln and clay 4", "Zimtstern-58213", "84739105", "пароль и ключ"])
async def test_what_is_not(codes: Codes, code: str) -> None:
    """Some words, a word with digits, eight digits from nowhere, any script."""
    assert not await codes.is_weak(Code(code), ["ada", "Paraph"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("Paraph2026", ["Paraph"]),
        ("dupond1987", ["dupond"]),
        ("bricedupond", ["brice", "dupond"]),
        ("brice-2026", ["brice", "dupond"]),
        ("lefevreux77", ["Lefe\u0300vreux"]),  # an accent that is left out, or written apart
        ("LEFÈVREUX77", ["lefèvreux"]),
        ("handwerkskammerverbandsportal", ["Handwerkskammerverbandsportal"]),
    ],
)
async def test_words_of_the_person_and_the_service(codes: Codes, code: str, words: list[str]) -> None:
    """ASVS 6.1.2, 6.2.11: what is built from them is easy for whoever knows them, and not easy without."""
    assert await codes.is_weak(Code(code), words)
    assert not await codes.is_weak(Code(code), [])


def test_digits_are_enough() -> None:
    """Of codes of eight random digits, as a device of digits alone would have them, more than six in seven are taken."""
    dice = random.Random(17)
    drawn = [f"{dice.randrange(10**8):08}" for _ in range(400)]
    taken = [code for code in drawn if not judge({"words": []}, code)["weak"]]
    assert len(taken) >= 6 / 7 * len(drawn), len(taken)
    assert GUESSES_MIN <= 10**8


async def test_no_code_takes_long(codes: Codes) -> None:
    """Letters that stand for many others, and whatever else makes many readings: answered, in less than a person notices."""
    for code in ("4@8({[</\\369&#!10|$5+7%2" * 3, "a4@8({[<" * 8, "1!|7" * 16, "abcABC123" * 7):
        began = time.monotonic()
        await codes.is_weak(Code(code[:64]), ["ada"] * 50)
        assert time.monotonic() - began < 3


async def test_it_ends_with_its_answer(codes: Codes) -> None:
    """No process that has seen a code is left: Python's copies of it end with it."""
    asked = asyncio.ensure_future(codes.is_weak(Code("84739105"), []))
    seen: list[psutil.Process] = []
    async with asyncio.timeout(10):
        while not seen and not asked.done():
            seen = judges()
            await asyncio.sleep(0.001)
    assert not await asked
    assert seen
    assert all(gone(process) for process in seen)
    assert not judges()


async def test_who_signs_waits_for_no_judge(codes: Codes) -> None:
    """However many codes are being chosen, codes are compared meanwhile; more than may wait are told so."""
    phc = await codes.hash(Code("correct horse 7"))
    chosen = [asyncio.ensure_future(codes.is_weak(Code("correct horse 7"), [])) for _ in range(UNJUDGED_MAX + 3)]
    assert await codes.matches(Code("correct horse 7"), phc)
    assert sum(not one.done() for one in chosen) > UNJUDGED_MAX / 2
    answers = await asyncio.gather(*chosen, return_exceptions=True)
    assert [str(one).partition(":")[0] for one in answers if one is not False] == ["CODES_BUSY"] * 3


async def test_one_that_is_lost(codes: Codes) -> None:
    """It is asked once more of another one; where that is lost, too, nothing was found out."""
    asked = asyncio.ensure_future(codes.is_weak(Code("password1"), []))
    await kill_next(1)
    assert await asked
    asked = asyncio.ensure_future(codes.is_weak(Code("password1"), []))
    await kill_next(2)
    with pytest.raises(CodesError, match="CODES_FAILED"):
        await asked


async def kill_next(count: int) -> None:
    killed: set[int] = set()
    async with asyncio.timeout(20):
        while len(killed) < count:
            for process in judges():
                if process.pid not in killed:
                    process.kill()
                    killed.add(process.pid)
            await asyncio.sleep(0.001)
