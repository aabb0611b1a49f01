"""What is committed in PostgreSQL, for the event loop: look-ups that come while one is under way share the next round trip."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.types.numeric import Int8BinaryDumper

from signer.database import Stored, StoreError
from signer.errors import Refusal
from signer.ids import Ids
from signer.note import Head
from signer.postgresql import LOCK_S, RESULTS, STATEMENT_S, check_durable, columns, conninfo, said_by, session_settings
from signer.writer import STALL_S

log = logging.getLogger("signer.ledger")

Answer = TypeVar("Answer")

LOOK_S = 1.0  # who looks something up is told then that the database does not answer
_COLUMNS = "r.item, r.caller, r.body, r.accepted, r.count, r.output, r.chain, r.detail, r.instance"
# The first row of each of several requests, or of each's items from one to another. LATERAL: each by the index.
_LOOK = f"""
SELECT asked.number, {_COLUMNS}
FROM unnest(%b::int8[], %b::bytea[], %b::int8[], %b::int8[]) AS asked (number, id, first, last), LATERAL (
    SELECT * FROM ledger_requests WHERE id = asked.id AND item BETWEEN asked.first AND asked.last ORDER BY item LIMIT 1
) AS r
"""  # noqa: S608
_ALL_OF = f"SELECT {_COLUMNS} FROM ledger_requests AS r WHERE id = %b AND item >= %b ORDER BY item LIMIT %b"  # noqa: S608
_CERTIFICATES = "SELECT certificates FROM ledger_chains WHERE hash = %b"
# Of each daemon's chain the last row: by the primary key, whatever is in it.
_HEADS = """
SELECT row.instance, row.epoch, row.sequence, row.hash
FROM ledger_instances AS daemon, LATERAL (
    SELECT * FROM ledger_rows WHERE instance = daemon.instance AND epoch > 0 ORDER BY epoch DESC, sequence DESC LIMIT 1
) AS row
"""
_ANY = (-(2**63), 2**63 - 1)


class PostgresqlReader:
    """
    What is committed; for the event loop. Look-ups that come while one is under way share the next round trip.

    Every method raises `Refusal` STORE_BUSY where the database does not answer within `LOOK_S`.
    """

    ids: Ids | None = None

    def __init__(self, url: str) -> None:
        self._url = url
        self._db: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._connecting = asyncio.Lock()
        self._asked: list[tuple[bytes, int, int, asyncio.Future[Stored | None]]] = []
        self._looking: asyncio.Task[None] | None = None
        self._sent = 0.0  # when the look-ups under way began; 0: there are none
        self._asking: set[asyncio.Task[Any]] = set()

    @property
    def trouble(self) -> str:
        """A request that is looked up writes nothing until it is found: the writer would not notice."""
        return "STORE_BUSY" if self._sent and time.monotonic() - self._sent > STALL_S else ""

    async def request(self, id_: bytes, item: int) -> Stored | None:
        return await self._look(id_, item, item)

    async def any_of(self, id_: bytes) -> Stored | None:
        return await self._look(id_, *_ANY)

    async def all_of(self, id_: bytes, first: int, most: int) -> list[Stored]:
        return [Stored(*row) for row in await self._ask(_ALL_OF, (id_, first, most))]

    async def results(self, id_: bytes, item: int) -> list[bytes]:
        return [data for (data,) in await self._ask(RESULTS, (id_, item))]

    async def certificates(self, chain: bytes) -> bytes:
        [(certificates,)] = await self._ask(_CERTIFICATES, (chain,))
        return bytes(certificates)

    async def heads(self) -> list[Head]:
        return [Head(*row) for row in await self._ask(_HEADS, ())]

    async def close(self) -> None:
        tasks = [*self._asking, *([self._looking] if self._looking is not None else [])]
        for _ in range(2 if tasks else 0):  # first the server is asked to break off; then nobody waits for it
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LOOK_S)
        if self._db is not None:
            await self._db.close()

    async def _look(self, id_: bytes, first: int, last: int) -> Stored | None:
        future: asyncio.Future[Stored | None] = asyncio.get_running_loop().create_future()
        self._asked.append((id_, first, last, future))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_all(), name="ledger look-ups")
        return await _within(future)

    async def _look_all(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, []
                self._sent = time.monotonic()
                keys = [(number, id_, first, last) for number, (id_, first, last, _) in enumerate(asked)]
                try:
                    rows = await self._rows(_LOOK, columns(keys, 4))
                except Exception as error:  # noqa: BLE001 -- whatever it was, each who waits is told
                    for *_, future in asked:
                        if not future.done():
                            future.set_exception(error)
                    continue
                found = {number: Stored(*row) for number, *row in rows}
                for number, (*_, future) in enumerate(asked):
                    if not future.done():
                        future.set_result(found.get(number))
        finally:
            self._looking, self._sent = None, 0.0

    async def _ask(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """In a task of its own: a caller who goes away does not break off what the connection is at."""
        task = asyncio.create_task(self._rows(statement, values), name="ledger look-up")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        return await _within(asyncio.shield(task))

    async def _rows(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Once more where the connection has been lost meanwhile: the server was restarted."""
        try:
            for is_last in (False, True):
                db = await self._connected()
                try:
                    cursor = await db.execute(statement, values, prepare=True)
                    return await cursor.fetchall()
                except psycopg.OperationalError:
                    if is_last or not db.broken:
                        raise
        except psycopg.Error as error:
            log.warning("a look-up in the ledger failed: %s", said_by(error))
        except StoreError as error:
            log.warning("a look-up in the ledger failed: %s", error)
        raise Refusal("STORE_BUSY", "the ledger's database does not answer")

    async def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        async with self._connecting:
            if self._db is None or self._db.closed:
                self._db = None
                db = await psycopg.AsyncConnection.connect(conninfo(self._url), autocommit=True)
                try:
                    db.adapters.register_dumper(int, Int8BinaryDumper)
                    cursor = await db.execute(*session_settings(STATEMENT_S, LOCK_S))
                    check_durable(self._url, await cursor.fetchone())
                except BaseException:
                    await db.close()
                    raise
                self._db = db
            return self._db


async def _within(future: asyncio.Future[Answer]) -> Answer:
    try:
        async with asyncio.timeout(LOOK_S):
            return await future
    except TimeoutError:
        raise Refusal("STORE_BUSY", "the ledger's database does not answer") from None
