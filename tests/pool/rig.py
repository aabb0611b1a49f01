"""What the tests of the pool share: waiting, a pool over a store, work without an event loop, an independent verifier."""

import asyncio
import contextlib
import ctypes
import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from pool import Algorithm, Hash, Key, Outcome, Pin, Pool, Scheme, Status, TokenConfig, TokenView
from pool.mechanism import from_token, to_token
from pool.public import order_bytes
from pool.wire import FENCE, Page
from pool.work import Work
from tests import processes
from tests.shim import Call, Shim
from tests.softhsm import MODULE, PIN, Store

RSA = Algorithm(Scheme.RSA_PKCS1_V15, Hash.SHA256)
PSS = Algorithm(Scheme.RSA_PSS, Hash.SHA256)
ECDSA = Algorithm(Scheme.ECDSA, Hash.SHA256)
EDDSA = Algorithm(Scheme.ED25519, None)

T = TypeVar("T")


async def until(predicate: Callable[[], T], timeout_s: float = 5.0) -> T:
    """Wait for a condition, at most so long; answers what made it true."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            pytest.fail(f"did not happen within {timeout_s} s")
        await asyncio.sleep(0.003)
    return value


def digests(count: int, start: int = 0, algorithm: Algorithm = RSA) -> list[bytes]:
    """Digests that differ from each other; the same numbers give the same ones."""
    name = (algorithm.hash or Hash.SHA256).value
    return [hashlib.new(name, number.to_bytes(4)).digest() for number in range(start, start + count)]


def config(store: Store, label: str = "card", *, shim: Shim | None = None, **more: Any) -> TokenConfig:
    """A token of the store, named by its label, with its PIN, behind the shim if one is given."""
    given: dict[str, Any] = {
        "name": label,
        "module": Path(shim.module) if shim else MODULE,
        "label": label,
        "pin": lambda: Pin(PIN),
        "environment": store.environment | (shim.env if shim else {}),
    }
    return TokenConfig(**given | more)


def token_input(algorithm: Algorithm, spki: bytes, item: bytes) -> bytes:
    """What `C_Sign` gets for an item."""
    return to_token(algorithm, order_bytes(spki))(item)


def worlds_form(algorithm: Algorithm, raw: bytes) -> bytes:
    """A token's output as it leaves the pool."""
    return from_token(algorithm)(raw)


def begin(page: Page, index: int) -> bool:
    """What a lane does before C_Sign; False where the parent has withdrawn the item."""
    page.under_c_sign[0] = index + 1
    with FENCE:
        return not page.skips[index]


def put(page: Page, index: int, given: bytes) -> None:
    """What the token and then the lane write: the token's output, and the mark that says done."""
    ctypes.memmove(page.addresses[index], given, len(given))
    page.marks[index] = len(given)


@contextlib.asynccontextmanager
async def pool_over(
    *configs: TokenConfig, state: Path, wait: bool = True, keys: Sequence[Key] | None = None, **limits: Any
) -> AsyncIterator[Pool]:
    """A pool whose tokens are READY with all their lanes up, or say why not; with `wait` False as it is at first."""
    async with Pool(configs, state=state, keys=keys, **limits) as pool:
        if wait:
            await pool.ready(15)
            await until(lambda: all(view.state != "READY" or lanes_up(view) for view in pool.snapshot()), 15)
        yield pool


def view(pool: Pool, name: str = "card") -> TokenView:
    return next(view for view in pool.snapshot() if view.name == name)


def state(pool: Pool, name: str = "card") -> str:
    return view(pool, name).state.value


def lanes_up(token: TokenView) -> bool:
    return all(lane.state in {"IDLE", "SIGNING"} for lane, _ in token.lanes)


def pids(pool: Pool, name: str = "card") -> list[int]:
    """The processes of a token's lanes; 0 for a lane without one."""
    return [pid for _, pid in view(pool, name).lanes]


def gone(pid: int) -> bool:
    """No process of this number runs any more; one that only waits to be reaped by init does not count."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children() -> list[psutil.Process]:
    """The lanes, probes and resets of this process that still run; a daemon beside has its own under it."""
    found = processes.children(os.getpid(), "pool.worker", "pool.probe", "pool.card")
    return processes.living(found, lambda child: child.ppid() == os.getpid())


def open_tries(directory: Path) -> int:
    """How many logins are on disk without an answer."""
    database = sqlite3.connect(directory / "tries.sqlite")
    try:
        return database.execute("SELECT coalesce(sum(open), 0) FROM tries").fetchone()[0]
    except sqlite3.OperationalError:  # no login was ever begun
        return 0
    finally:
        database.close()


async def warm(pool: Pool, key: str, algorithm: Algorithm = RSA) -> None:
    """Sign until every lane was measured, so that its frames hold several items. Uses digests from 900 000 on."""
    start = 900_000
    while True:
        lanes = [lane for token in pool.snapshot() for lane, pid in token.lanes if pid and key in lane.keys]
        if lanes and all(lane.item_s for lane in lanes):
            return
        await pool.sign(key, algorithm, digests(20, start, algorithm))
        start += 20


def statuses(outcomes: Iterable[Outcome]) -> Counter[tuple[str, str]]:
    return Counter((outcome.status.value, outcome.reason) for outcome in outcomes)


def inputs(shim: Shim) -> list[str]:
    """What each C_Sign was given so far, in hex, in order."""
    return [call.data or "" for call in shim.signs()]


def audit(
    shim: Shim, spki: bytes, algorithm: Algorithm, items: Sequence[bytes], outcomes: Sequence[Outcome]
) -> list[int]:
    """
    Compare outcomes with what the token was really asked. Answers the indexes that are INDETERMINATE.

    No digest was given to C_Sign twice; SIGNED was signed once and verifies; NOT_ATTEMPTED was never given to it; what
    was given to C_Sign and never came back is INDETERMINATE.
    """
    assert len(outcomes) == len(items)
    asked = Counter(inputs(shim))
    unfinished = {call.data for call in unfinished_signs(shim)}
    for item, outcome in zip(items, outcomes, strict=True):
        given = token_input(algorithm, spki, item).hex()
        assert asked[given] <= 1, "a digest was given to C_Sign twice"
        assert bool(outcome.signature) == (outcome.status is Status.SIGNED)
        assert bool(outcome.reason) == (outcome.status is not Status.SIGNED)
        if outcome.status is Status.SIGNED:
            assert asked[given] == 1
            check(algorithm, spki, item, outcome.signature)
        if outcome.status is Status.NOT_ATTEMPTED:
            assert not asked[given], f"{outcome.reason}, and C_Sign was called"
        if given in unfinished:
            assert outcome.status is Status.INDETERMINATE
    return [index for index, outcome in enumerate(outcomes) if outcome.status is Status.INDETERMINATE]


def unfinished_signs(shim: Shim) -> list[Call]:
    return [call for call in shim.unfinished() if call.fn == "C_Sign" and not call.query]


_HASHES = {Hash.SHA256: hashes.SHA256(), Hash.SHA384: hashes.SHA384(), Hash.SHA512: hashes.SHA512()}


def check(algorithm: Algorithm, spki: bytes, item: bytes, signature: bytes) -> None:
    """Verify with `cryptography`, without the pool's own code; raises InvalidSignature."""
    key = serialization.load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, item)
        return
    hash_ = _HASHES[algorithm.hash]
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, item, ec.ECDSA(utils.Prehashed(hash_)))
        return
    assert isinstance(key, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hash_), hash_.digest_size)
    scheme = pss if algorithm.scheme is Scheme.RSA_PSS else padding.PKCS1v15()
    key.verify(signature, item, scheme, utils.Prehashed(hash_))


class Answer:
    """Stands for the future of a `Work` where no event loop runs."""

    def __init__(self) -> None:
        self.result: list[Outcome] | None = None

    def done(self) -> bool:
        return self.result is not None

    def set_result(self, result: list[Outcome]) -> None:
        assert self.result is None, "answered twice"
        self.result = result


def work(
    count: int = 1,
    *,
    caller: str = "a",
    key: str = "k",
    algorithm: Algorithm = RSA,
    deadline: float = 1e9,
    items: Sequence[bytes] | None = None,
    spki: bytes = b"",
) -> Work:
    items = digests(count, 0, algorithm) if items is None else items
    answer: Any = Answer()
    return Work(caller, key, spki, algorithm, items, deadline, answer)
