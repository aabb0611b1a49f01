"""A card's reset after a lease, asked of a process that is thrown away (reset.py)."""

from collections.abc import Awaitable, Callable

from pool.process import Child, ChildLost
from pool.token import TokenConfig

RESET_S = 5.0  # a card that another process holds answers after 4.3 s (measured)

Reset = Callable[[TokenConfig], Awaitable[None]]


class ResetFailed(Exception):
    """The card may still be logged in; the message says what its reader answered."""


async def reset_card(config: TokenConfig) -> None:
    """Reset the card in the token's reader; nothing where none is named. Raises `ResetFailed`."""
    if config.reader is None:
        return
    try:
        child = await Child.start("pool.reset", config.reader, environment=config.environment)
        try:
            answer = await child.ask(None, RESET_S)
        finally:
            await child.close()
    except (ChildLost, TimeoutError, OSError) as error:
        raise ResetFailed(str(error) or "no answer in time") from None
    if answer["t"] != "reset":
        raise ResetFailed(answer["detail"])
