"""What the tests of true smartcards share: a card of its own for a test, tokens over it, and what other programs find."""

import asyncio
import time
from typing import Any

from pool import Pin, TokenConfig
from tests.card import Card, Pcscd, Reader, has_card, is_logged_in
from tests.card.pcscd import OPENSC
from tests.card.piv import PIN, PIN_REF
from tests.pool.rig import until

WRONG = "999999"
LABEL = "Virtual Card"
BACK_S = 3.0  # a card that is put back signs within this


def card_token(pcscd: Pcscd, where: str = "desk", **more: Any) -> TokenConfig:
    """A service's token in this reader; `personal=True`: a person's."""
    given: dict[str, Any] = {
        "name": "card",
        "module": OPENSC,
        "label": LABEL,
        "environment": pcscd.environment,
        "reader": pcscd[where].name,
        "pin": None if more.get("personal") else lambda: Pin(PIN),
    }
    return TokenConfig(**given | more)


SEEN_S = 3.0  # pcscd looks every 0.4 s


async def insert(pcscd: Pcscd, card: Card, name: str = "desk") -> Card:
    """Put a card in, and wait until pcscd knows."""
    pcscd[name].insert(card)
    await seen(pcscd, True, name)
    return card


async def pull(pcscd: Pcscd, name: str = "desk") -> Card:
    """Take the card out, and wait until pcscd knows."""
    card = pcscd[name].remove()
    await seen(pcscd, False, name)
    return card


async def seen(pcscd: Pcscd, there: bool, name: str = "desk") -> None:
    """
    Now and then pcscd 1.9.9 over vpcd looks at a reader no more, when a card was pulled just as it was reset: it goes on
    with what it saw last, all its threads asleep. Then it is started anew, as an operator would.
    """
    for _ in range(2):
        if await _is_seen(pcscd, there, pcscd[name].name):
            return
        await asyncio.to_thread(pcscd.kill)
        await asyncio.to_thread(pcscd.start)
    raise AssertionError(f"pcscd {'does not see' if there else 'goes on seeing'} the card in {pcscd[name].name}")


async def _is_seen(pcscd: Pcscd, there: bool, reader: str) -> bool:
    end = time.monotonic() + SEEN_S
    while await asyncio.to_thread(has_card, pcscd.environment, reader) is not there:
        if time.monotonic() > end:
            return False
    return True


async def logged_in(pcscd: Pcscd, reader: Reader) -> bool:
    """What another process's empty VERIFY is answered: whether it could sign."""
    return await asyncio.to_thread(is_logged_in, pcscd.environment, reader.name)


def pins(card: Card) -> int:
    """How many PINs the card was sent, right or wrong."""
    return len(card.seen("verify"))


def tries(card: Card) -> int:
    return card.tries[PIN_REF]


async def at_work(card: Card) -> None:
    """The next signature, or PIN, that hangs has begun to hang."""
    await until(lambda: card.hang_s == 0.0)
