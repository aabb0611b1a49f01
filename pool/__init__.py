"""
Signing with a pool of PKCS#11 tokens. The public list; everything else is the pool's own business.

The names are imported when they are asked for: each lane's process imports this package, and is to stay small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pool.errors import REASONS, BadRequest, Busy, PinRefused, PoolError, Unavailable
    from pool.key import Key
    from pool.lease import Lease
    from pool.library import LibraryRefused
    from pool.mechanism import Algorithm, Hash, Scheme
    from pool.pin import Pin, PinError, PinFile
    from pool.pool import Pool, TokenView
    from pool.token import TokenConfig, WrongEvent
    from pool.tries import TryRefused
    from pool.work import Outcome, Outcomes, Status

_PLACES = {
    "pool.errors": ("REASONS", "BadRequest", "Busy", "PinRefused", "PoolError", "Unavailable"),
    "pool.key": ("Key",),
    "pool.lease": ("Lease",),
    "pool.library": ("LibraryRefused",),
    "pool.mechanism": ("Algorithm", "Hash", "Scheme"),
    "pool.pin": ("Pin", "PinError", "PinFile"),
    "pool.pool": ("Pool", "TokenView"),
    "pool.token": ("Presence", "TokenConfig", "WrongEvent"),
    "pool.tries": ("TryRefused",),
    "pool.work": ("Outcome", "Outcomes", "Status"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "REASONS",
    "Algorithm",
    "BadRequest",
    "Busy",
    "Hash",
    "Key",
    "Lease",
    "LibraryRefused",
    "Outcome",
    "Outcomes",
    "Pin",
    "PinError",
    "PinFile",
    "PinRefused",
    "Pool",
    "PoolError",
    "Presence",
    "Scheme",
    "Status",
    "TokenConfig",
    "TokenView",
    "TryRefused",
    "Unavailable",
    "WrongEvent",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'pool' has no attribute {name!r}")
    return getattr(import_module(_PLACE_OF[name]), name)
