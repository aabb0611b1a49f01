"""The reader that a token's card sits in: asked, and its card reset, by processes that are thrown away (card.py)."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from typing import Any

from pool.pcsc import Seen
from pool.process import Child, ChildLost
from pool.token import TokenConfig

ANSWER_S = 5.0  # a card that another process holds answers after 4.3 s (measured)
WAIT_S = 5.0  # then it is looked at all the same: a card changed between two looks of pcscd (0.4 s) makes no noise
WAITS_S = 10.0  # more than that, a process that waits has lost its way

Reset = Callable[[TokenConfig], Awaitable[None]]


class ReaderError(Exception):
    """`why` is `PcscError.why`; the message says what PC/SC answered."""

    def __init__(self, detail: str, why: str = "fault") -> None:
        self.why = why
        super().__init__(detail)


class ResetFailed(ReaderError):
    """The card may still be logged in."""


async def reset_card(config: TokenConfig) -> None:
    """Reset the card in the token's reader; nothing where none is named. Raises `ResetFailed`."""
    if config.reader is None:
        return
    try:
        await _ask(config, ["reset"], ANSWER_S)
    except ReaderError as error:
        raise ResetFailed(str(error), error.why) from None


async def look(config: TokenConfig) -> Seen:
    """What is in the token's reader now. Raises `ReaderError`."""
    return Seen(*(await _ask(config, ["look"], ANSWER_S))["seen"])


async def change(config: TokenConfig, last: Seen | None) -> Seen:
    """What is in the token's reader, as soon as it is not as `last`, or after `WAIT_S`. Raises `ReaderError`."""
    order = ["wait", None if last is None else astuple(last), WAIT_S]
    return Seen(*(await _ask(config, order, WAIT_S + WAITS_S))["seen"])


async def _ask(config: TokenConfig, order: list[Any], timeout_s: float) -> dict[str, Any]:
    assert config.reader is not None
    try:
        child = await Child.start("pool.card", config.reader, json.dumps(order), environment=config.environment)
        try:
            answer = await child.ask(None, timeout_s)
        finally:
            await child.close()
    except (ChildLost, TimeoutError, OSError) as error:
        raise ReaderError(str(error) or "no answer in time") from None
    if answer["t"] == "failed":
        raise ReaderError(answer["detail"], answer["why"])
    return answer
