"""What the tests over real token stacks share: the stack's token as a pool's, and signing by all that it can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pool import Pin, Pool, TokenConfig
from pool.public import algorithms
from tests.opencryptoki import Opencryptoki
from tests.pool.rig import check, digests
from tests.shim import Shim
from tests.tpm import Tpm

Stack = Opencryptoki | Tpm


def token(
    stack: Stack, pin: str | Callable[[], Pin] | None = "", *, shim: Shim | None = None, **more: Any
) -> TokenConfig:
    """The stack's token, named "card", with its own PIN where none is given, behind the shim if one is given."""
    if isinstance(pin, str):
        value = pin or stack.pin
        pin = lambda: Pin(value)  # noqa: E731 -- a PIN is asked for at each login
    given: dict[str, Any] = {
        "name": "card",
        "module": Path(shim.module) if shim else stack.module,
        "label": stack.label,
        "pin": pin,
        "environment": stack.environment | (shim.env if shim else {}),
    }
    return TokenConfig(**given | more)


async def signs_all(pool: Pool, stack: Stack) -> list[str]:
    """Sign with each key by every algorithm of its type, and verify; answers what was done."""
    done = []
    for kind, (_, spki) in stack.made.items():
        for algorithm in algorithms(spki):
            items = digests(5, algorithm=algorithm)
            outcomes = await pool.sign(pool.key(kind), algorithm, items)
            for item, outcome in zip(items, outcomes, strict=True):
                assert outcome.status == "SIGNED", (kind, str(algorithm), outcome)
                check(algorithm, spki, item, outcome.signature)
            done.append(f"{kind} {algorithm}")
    return done
