"""Signing with a pool of PKCS#11 tokens. The public list; everything else is the pool's own business."""

from pool.errors import REASONS, BadRequest, Busy, PoolError, Unavailable
from pool.key import Key
from pool.mechanism import Algorithm, Hash, Scheme
from pool.pin import Pin, PinError, PinFile
from pool.pool import Pool, TokenView
from pool.token import TokenConfig, WrongEvent
from pool.tries import TryRefused
from pool.work import Outcome, Status

__all__ = [
    "REASONS",
    "Algorithm",
    "BadRequest",
    "Busy",
    "Hash",
    "Key",
    "Outcome",
    "Pin",
    "PinError",
    "PinFile",
    "Pool",
    "PoolError",
    "Scheme",
    "Status",
    "TokenConfig",
    "TokenView",
    "TryRefused",
    "Unavailable",
    "WrongEvent",
]
