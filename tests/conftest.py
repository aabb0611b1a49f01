"""Fixtures that several parts of the suite use. A store is shared where tests only sign with it."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from pool import Pool, TokenConfig
from tests.pool.rig import config, pool_over
from tests.postgres import Postgres
from tests.shim import Shim
from tests.softhsm import KINDS, MODULE, Store

# asyncio's debug mode makes a loop several times slower; times measured here would say nothing.
os.environ.pop("PYTHONASYNCIODEBUG", None)


# A file is one process's (--dist loadfile): those that last longest begin first, or two processes wait for the last one.
LONGEST = (
    "portal/test_window_in_browser.py", "portal/test_browser.py", "portal/test_every_route.py",
    "signer/ledger/test_exactly_once_postgresql.py", "signer/outputs/test_bad_documents.py", "signer/people/test_machine.py",
    "portal/test_window.py", "portal/test_window_signing.py", "signer/people/test_burnt.py",
    "signer/ledger/test_restore_postgresql.py", "portal/test_demo.py", "pool/test_pins.py",
    "signer/access/test_smartcards.py", "portal/test_signing.py", "pool/test_entries.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: ranks.get(item.path.relative_to(here).as_posix(), len(ranks)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many rules of the portal wait for a part that is not built yet, where its tests ran."""
    ran = (one for reports in terminalreporter.stats.values() for one in reports if hasattr(one, "nodeid"))
    if any(one.nodeid.startswith("tests/portal/") for one in ran):
        from tests.portal.requirement_list import waiting  # late: it imports the portal

        terminalreporter.write_sep("=", f"the portal's requirements: {waiting()}")


Keys = dict[str, tuple[bytes, bytes]]
MakePool = Callable[..., AbstractAsyncContextManager[Pool]]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the token "card", PIN "1234", and on it a key of every kind. For signing only: it is shared."""
    made = Store(tmp_path_factory.mktemp("store") / "softhsm")
    made.token("card")
    made.keys("card", KINDS)
    return made


@pytest.fixture(scope="session")
def keys(store: Store) -> Keys:
    """kind -> (CKA_ID, SubjectPublicKeyInfo) of the keys on the shared store's card."""
    return store.made["card"]


@pytest.fixture
def own_store(tmp_path: Path) -> Store:
    """An empty store for one test, which may do with it what it likes."""
    return Store(tmp_path / "softhsm")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, started for the first test that wants it. A test makes a database of its own on it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    """The shim before SoftHSM, with a log and a script of this test's own."""
    return Shim(tmp_path / "shim", str(MODULE))


@pytest.fixture
def make_pool(store: Store, tmp_path: Path) -> MakePool:
    """
    `async with make_pool() as pool:` a pool over the shared card, its lanes up.

    `shim=` puts a shim before it; configurations given are used instead; other words go to `TokenConfig` (without
    configurations) or, `state`, `wait` and `limits`, to the pool.
    """

    @contextlib.asynccontextmanager
    async def made(
        *configs: TokenConfig,
        shim: Shim | None = None,
        state: Path = tmp_path / "state",
        wait: bool = True,
        pool_keys: Any = None,
        limits: dict[str, int] | None = None,
        **token: Any,
    ) -> AsyncIterator[Pool]:
        configs = configs or (config(store, shim=shim, **token),)
        async with pool_over(*configs, state=state, wait=wait, keys=pool_keys, **limits or {}) as pool:
            yield pool

    return made
