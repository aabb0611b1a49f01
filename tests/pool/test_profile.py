"""The forty cases: what is published of SoftHSM is what it does, and asking them hurts nobody."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pool.cases import CASES, Given, ask
from tests import modules
from tests.shim import Shim
from tests.softhsm import PIN, Store

CKR_OK, CKR_PIN_INCORRECT, CKR_USER_ALREADY_LOGGED_IN = 0x0, 0xA0, 0x100


@pytest.fixture
def card(own_store: Store) -> Store:
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    return own_store


def given(shim: Shim, **more: bool) -> Given:
    return Given(shim.module, "card", PIN, **more)


def environment(store: Store, shim: Shim) -> dict[str, str]:
    return os.environ | store.environment | shim.env


def answers(shim: Shim) -> list[int | None]:
    """What C_Login has answered."""
    return [call.rv for call in shim.log() if call.fn == "C_Login" and call.ev == "leave"]


def test_softhsm_does_what_is_published(tmp_path: Path) -> None:
    """
    Row 2.11: the forty cases, by the command that operators have: what SoftHSM answers is what pool/MODULES.md says of
    it, and there every module has an answer to every case.
    """
    wanted = modules.published()
    assert list(wanted) == list(modules.STACKS)
    assert len(CASES) == 40
    assert all(column[name] for column in wanted.values() for name in CASES)
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    pin.chmod(0o400)
    with modules.soft_hsm() as asked:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pool.profile",
            asked.given.module,
            "card",
            "--pin-file",
            pin,
            "--wrong-pins",
        ]
        env = os.environ | asked.environment
        same = [name for name in CASES if name not in modules.VARYING]
        published = {name: wanted["SoftHSM 2.6.1"][name] for name in same}
        found = asked_by(command, env)
        if {name for name in same if found[name] != published[name]} == {"two_lanes"}:
            # On a busy machine SoftHSM now and then answers CKR_GENERAL_ERROR to one of two processes that begin at once.
            found = asked_by(command, env)
    assert {name: found[name] for name in same} == published


def asked_by(command: list[str | Path], env: Mapping[str, str]) -> dict[str, str]:
    """Case -> answer."""
    done = subprocess.run(command, env=env, check=True, text=True, capture_output=True, timeout=110)
    return dict(zip(CASES, (line.rsplit("  ", 1)[1] for line in done.stdout.splitlines()), strict=True))


def test_no_wrong_pin_without_leave(card: Store, shim: Shim) -> None:
    """I8: a profile without --wrong-pins sends nothing that a token could refuse; with it, the right one after each."""
    for name in ("wrong_pin", "empty_pin", "long_pin", "wrong_pin_again", "right_pin_again"):
        ask(name, given(shim), 20, environment(card, shim))
    assert set(answers(shim)) == {CKR_OK, CKR_USER_ALREADY_LOGGED_IN}
    before = len(answers(shim))
    assert ask("wrong_pin", given(shim, wrong_pins=True), 20, environment(card, shim)).startswith("CKR_PIN_INCORRECT")
    assert answers(shim)[before:] == [CKR_PIN_INCORRECT, CKR_OK]


def test_a_module_that_dies_or_hangs_is_an_answer(card: Store, shim: Shim) -> None:
    """
    F9, F11: of a profile each case has a process of its own and a time: a crash or a hang in C_Sign is that case's answer,
    and the next one is asked.
    """
    shim.script("C_Sign * crash")
    assert ask("ecdsa_p256", given(shim), 20, environment(card, shim)) == f"dies: {signal.Signals.SIGSEGV.name}"
    shim.script("C_Sign * hang 60")
    assert ask("ecdsa_p256", given(shim), 2, environment(card, shim)) == "no answer in 2 s"
    shim.script("C_Initialize * noise paraph is no answer")
    assert ask("ecdsa_p256", given(shim), 20, environment(card, shim)) == "verified"
    shim.script("C_Sign * corrupt")
    assert "a wrong signature" in ask("ecdsa_p256", given(shim), 20, environment(card, shim))


def test_hands_are_asked(card: Store, shim: Shim) -> None:
    """Row 2.6: who stands by is told to pull the token and to put it back; here SoftHSM's is, and does not mind."""
    asked: list[str] = []
    answer = ask("pulled", given(shim, hands=True), 20, environment(card, shim), asked.append)
    assert (answer, asked) == ("verified", ["pull", "put back"])
    assert ask("pulled", given(shim), 20, environment(card, shim)) == "-"
