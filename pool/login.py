"""
A person's login: the rules before the PIN, the PIN, and what the token's answer means.

Rules of this file: a try is on disk before its PIN is on its way, and only an answer that says what became of the PIN
takes it off again. Whatever is not CKR_OK ends the lane. A login that waits at a pad leaves the module to others; what a
second login beside it may cost is a try without an answer, and who has one already is alone with the module.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pool.codes import PCSC_DOWN, PIN_NOT_CHECKED, REMOVED, REMOVED_BEFORE
from pool.errors import PinRefused, Unavailable
from pool.keeper import TokenKeeper
from pool.pin import Pin
from pool.process import Child, ChildLost, NotSent
from pool.token import Event, WrongEvent
from pool.tries import OPEN_MAX, Flags, TriesSpent, TryRefused, check_holder, check_spent, tries_left

log = logging.getLogger("pool")

COMES_BACK_S = 3.0  # a card that is put back
FLAGS_S = 2.0  # a slow card answers in one; a person waits for the words that tell her how many tries are left


class Cost(StrEnum):
    """What a login has cost so far: for whoever is told that it had no answer."""

    NO_PIN = "no PIN was sent"
    TRY = "the PIN counts as a try"
    AT_PAD = "what was typed at the reader, if anything, is not counted: it may have cost the token a try"
    NO_TRY = "the PIN was right"


@dataclass(slots=True)
class Claim:
    """What a person comes with; no PIN where it is typed at the reader. `lease` is the id that the login is for."""

    lease: str
    caller: str
    pin: Pin | None
    override: bool
    cost: Cost = Cost.NO_PIN


async def log_in(
    child: Child,
    token: TokenKeeper,
    opened: dict[str, Any],
    claim: Claim,
    timeout_s: float,
    let_go: Callable[[], Awaitable[None]],
) -> bool:
    """
    Send the person's PIN if the rules of `tries.py` allow it, and forget it. `let_go` gives up the module's lock.

    Answers whether the lane calls the module's functions directly. Raises `PinRefused`; `Unavailable` with PIN_LOCKED,
    TOKEN_CHANGED, TOKEN_ABSENT, TOKEN_REMOVED, PCSC_DOWN or TOKEN_BUSY.
    """
    config, tries, identity = token.config, token.tries, token.identity
    assert identity is not None
    flags = await _look_again(child, token, opened, timeout_s)
    count = tries.count(identity)
    try:
        check_holder(count, flags, config.pin_tries)
    except TriesSpent as spent:
        raise Unavailable("PIN_LOCKED", str(spent)) from None
    except TryRefused as refused:
        if not claim.override:
            left = tries_left(count, flags, config.pin_tries)
            raise PinRefused("PIN_FINAL_TRY_GUARD", str(refused), left) from None
        log.warning("token %s: %s overrides the guard of the last tries: %s", config.name, claim.caller, refused)
        await asyncio.to_thread(tries.override, identity, claim.caller)
    if count.open:
        await token.module.quiet.wait()
    elif claim.pin is None:
        await let_go()
    if claim.pin is None:
        with token.module.at_pad():
            answer = await _at_the_pad(child, token, claim, timeout_s)
    else:
        message = {"t": "login", "pin": claim.pin.reveal(), "pad": False, "lease": claim.lease}
        try:
            await _begin(token, claim)
            claim.pin.forget()
            answer = await child.ask(message, timeout_s)
        except NotSent:
            await asyncio.to_thread(tries.not_sent, identity)
            claim.cost = Cost.NO_PIN
            raise
        finally:
            message.clear()  # an error's traceback would keep the PIN
    if answer["t"] == "logged-in":
        await asyncio.to_thread(tries.accepted, identity, gives_back=token.gives_back)
        claim.cost = Cost.NO_TRY
        return bool(answer["direct"])
    detail = answer["detail"]
    if detail in PIN_NOT_CHECKED:
        if claim.pin is not None:
            await asyncio.to_thread(tries.not_sent, identity)
        raise Unavailable("TOKEN_BUSY", f"somebody is logged in to it: {detail}", 1.0)
    if claim.pin is None:  # what was typed at the pad was a try, now that there is an answer to it
        await _begin(token, claim)
    await not_accepted(child, token, detail, is_refused=answer["t"] == "refused")
    raise AssertionError  # pragma: no cover -- the line above raises


async def _begin(token: TokenKeeper, claim: Claim) -> None:
    """Write a try down. Who stops waiting for that does not stop the write."""
    assert token.identity is not None
    before, claim.cost = claim.cost, Cost.TRY
    try:
        await asyncio.to_thread(token.tries.begin, token.identity)
    except sqlite3.Error:
        claim.cost = before
        raise


async def _at_the_pad(child: Child, token: TokenKeeper, claim: Claim, timeout_s: float) -> dict[str, Any]:
    """
    The reader asks for the PIN. No try is on disk while it does: what is typed there is a person's doing, and where nobody
    comes nothing was tried; a refusal counts like any other.
    """
    with contextlib.suppress(WrongEvent):  # an operator has taken it out of service meanwhile
        token.on(Event.AWAIT, "its PIN is to be typed at the reader")
    claim.cost = Cost.AT_PAD
    try:
        return await child.ask({"t": "login", "pin": None, "pad": True, "lease": claim.lease}, timeout_s)
    finally:
        with contextlib.suppress(WrongEvent):
            token.on(Event.ANSWERED, f"for {claim.caller}")


async def not_accepted(child: Child | None, token: TokenKeeper, detail: str, *, is_refused: bool) -> None:
    """
    Write down what a PIN that was not accepted has cost, and only then ask the lane, where there is one, what the token says of
    it: it may never come back. Raise what the person is told.

    A code that says nothing of the PIN (CKR_GENERAL_ERROR is some tokens' word for a wrong one) leaves the try open: it
    may be spent. The second of them in a row locks the token.
    """
    config, tries, identity = token.config, token.tries, token.identity
    assert identity is not None
    if is_refused:
        await asyncio.to_thread(tries.refused, identity)
    flags = Flags() if child is None else await _flags(child)
    count = tries.count(identity)
    try:
        check_spent(count, flags, config.pin_tries)
    except TriesSpent as spent:
        raise Unavailable("PIN_LOCKED", f"{detail}: {spent}") from None
    if detail == "CKR_PIN_LOCKED":
        raise Unavailable("PIN_LOCKED", f"{detail}: unblock it with its PUK, then unlock it here")
    if is_refused:
        raise PinRefused("PIN_INCORRECT", detail, tries_left(count, flags, config.pin_tries))
    if detail in REMOVED | REMOVED_BEFORE:
        raise Unavailable("TOKEN_REMOVED", f"{detail} was the answer to the PIN; it counts as a try", COMES_BACK_S)
    if detail == PCSC_DOWN:
        raise Unavailable(detail, "pcscd ended before the PIN was answered; it counts as a try", COMES_BACK_S)
    if count.open > OPEN_MAX:
        raise Unavailable(
            "PIN_LOCKED",
            f"{count.open} logins had no clear answer, the last {detail}: see to the token, then unlock it",
        )
    raise PinRefused("PIN_UNCLEAR", detail, tries_left(count, flags, config.pin_tries))


async def _flags(child: Child) -> Flags:
    """What the token says of its PIN after a refusal; nothing, where the module does not come back from being asked."""
    try:
        answer = await child.ask({"t": "flags"}, FLAGS_S)
    except (ChildLost, TimeoutError):
        return Flags()
    return Flags(*answer["flags"])


async def _look_again(child: Child, token: TokenKeeper, opened: dict[str, Any], timeout_s: float) -> Flags:
    """What the token says of its PIN now; raises `Unavailable` unless it is still the one that was opened."""
    answer = await child.ask({"t": "look"}, timeout_s)
    if answer["t"] == "failed":
        reason = PCSC_DOWN if answer["detail"] == PCSC_DOWN else "TOKEN_ABSENT"
        raise Unavailable(reason, f"token {token.config.name}: {answer['detail']}", COMES_BACK_S)
    if any(answer.get(name) != opened.get(name) for name in ("serial", "publics", "mark")):
        raise Unavailable("TOKEN_CHANGED", f"token {token.config.name}: serial {answer['serial']}, or other keys")
    return Flags(*answer["flags"])
