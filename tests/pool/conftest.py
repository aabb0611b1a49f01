"""No test of the pool leaves a process behind, however it ends; and people's tokens."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import Pool
from tests.pool.persons import Resets
from tests.pool.rig import children, config, pool_over
from tests.shim import Shim
from tests.softhsm import Store

MakePersonal = Callable[..., contextlib.AbstractAsyncContextManager[Pool]]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    left = children()
    for child in left:
        child.kill()
    assert not left, f"lanes or probes outlived their pool: {left}"


@pytest.fixture
def resets() -> Resets:
    return Resets()


@pytest.fixture(scope="session")
def one_card(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("one") / "softhsm")
    made.token("card")
    made.keys("card", ["P-256"])
    return made


@pytest.fixture
def people(own_store: Store, one_card: Store) -> Store:
    """A test's own token "card" with one P-256 key, unless the test has made another "card"."""
    if "card" not in own_store.made:
        one_card.copy_to(own_store)
    return own_store


@pytest.fixture
def make_personal(people: Store, shim: Shim, resets: Resets, tmp_path: Path) -> MakePersonal:
    """`async with make_personal() as pool:` a pool over the card behind the shim, which waits for its person."""

    @contextlib.asynccontextmanager
    async def made(*, wait: bool = True, keys: Any = None, **token: Any) -> AsyncIterator[Pool]:
        one = config(people, shim=shim, pin=None, personal=True, **token)
        async with pool_over(one, state=tmp_path / "state", wait=wait, keys=keys, reset=resets) as pool:
            yield pool

    return made
