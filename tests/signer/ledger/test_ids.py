"""Which request ids may be in the database: nothing that is there is ever denied, and what is new is hardly ever looked up."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from signer import ids
from signer.chain import Row
from signer.database import Epochs
from signer.entry import Entry
from signer.errors import Refusal
from signer.ids import PAGE_ROWS, Ids, Place
from signer.record import DIGESTS, Asked
from signer.sqlite import SqliteDatabase
from signer.store import open_store
from tests.pool.rig import until
from tests.signer.ledger.entries import asked, executed, ledger_on

LATE = 10.0  # seconds on this clock are enough for all


def stored(found: list[bytes]) -> Ids:
    """Over a database that has these, each once."""

    async def page_after(last: Place, most: int) -> list[Place]:
        return sorted((one, DIGESTS) for one in found if (one, DIGESTS) > last)[:most]

    return Ids(page_after)


def new(count: int) -> list[bytes]:
    return [os.urandom(16) for _ in range(count)]


async def test_what_is_there_is_never_denied() -> None:
    """Before it is filled it denies nothing; then what is new, but for a few."""
    there, others = new(3 * PAGE_ROWS + 1), new(4000)
    known = stored(there)
    assert all(known.may_have(one) for one in there + others)
    await known.fill()
    assert all(known.may_have(one) for one in there)
    assert sum(known.may_have(one) for one in others) < 20
    known.add(others[0])
    assert known.may_have(others[0])


async def test_ids_that_count_up_do_not_meet() -> None:
    """A client whose ids differ in their last bits alone is served like the others."""
    known = stored([number.to_bytes(16, "big") for number in range(5000)])
    await known.fill()
    assert sum(known.may_have(number.to_bytes(16, "big")) for number in range(5000, 10_000)) < 20


async def test_documents_of_one_request_are_one_id() -> None:
    """Each is added, and only the first fills it any more."""
    known = stored([])
    await known.fill()
    one, two = new(2)
    for id_ in (one, one, one, two):
        known.add(id_)
    assert known._added == 2


async def test_what_comes_while_it_is_filled() -> None:
    """An id behind the page that is read at that moment is in it, too."""
    there = sorted(new(PAGE_ROWS + 1))
    early = bytes(16)
    known = stored(there)
    filling = asyncio.create_task(known.fill())
    await asyncio.sleep(0)
    known.add(early)
    await filling
    assert known.may_have(early)
    assert not known.may_have(b"\xff" * 16)


async def test_what_is_on_its_way_to_the_database() -> None:
    """Added before it is filled anew, and committed behind the page that would have had it: it is in the new one, too."""
    slow, gone = new(2)
    known = stored(new(3))
    for one in (slow, slow, gone):  # two items of one request
        known.add(one)
    known.decided(gone)
    known.decided(slow)
    await known.fill()
    assert known.may_have(slow)
    assert not known.may_have(gone)
    known.decided(slow)
    await known.fill()
    assert not known.may_have(slow)


async def test_a_commit_that_lasts_longer_than_a_filling(tmp_path: Path) -> None:
    """A request whose INTENT is not decided when the ids are filled anew is found when it is asked again; its row is there."""

    class Held:
        """Holds the commit until it is let go."""

        def __init__(self, real: Epochs) -> None:
            self._real = real
            self.go = threading.Event()

        def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
            self.go.wait(LATE)
            self._real.write(entries, rows)

        def pulse(self) -> None:
            self._real.pulse()

        def close(self) -> None:
            self._real.close()

    async with ledger_on(tmp_path / "ledger.sqlite", Held) as (ledger, held):
        known = ledger._reader.ids
        assert known is not None
        one = asked(1)
        record = await ledger.enter(one, float("inf"))
        intent = record.intend(0, 1, "card")
        await known.fill()
        held.go.set()
        await intent.durable
        intent.settled([b"signature"], {})
        record.leave()
        await ledger.settled()
        again = await ledger.enter(one, float("inf"))
        assert again.known is not None
        assert list(again.known.signatures) == [b"signature"]
        again.leave()
        assert known.may_have(one.id)
        assert not known._undecided


async def test_a_page_has_so_many_rows(tmp_path: Path) -> None:
    """Of streams of many documents SQLite reads no more rows for a page than of single requests, and every id is found."""
    path, documents, streams = tmp_path / "ledger.sqlite", 10_000, sorted(new(3))
    open_store(path).dispose()
    executed(
        path,
        *(
            f"WITH RECURSIVE number(item) AS (SELECT 0 UNION ALL SELECT item + 1 FROM number WHERE item < {documents}) "
            "INSERT INTO ledger_requests (id, item, caller, body, accepted, count, output, chain, detail, instance) "
            f"SELECT x'{id_.hex()}', item, 'portal', x'', 0, 1, 'RAW', x'', x'', '' FROM number"
            for id_ in streams
        ),
    )
    reader = SqliteDatabase(path).reader()
    assert reader.ids is not None
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    reader._db.set_progress_handler(step, 100)  # instructions of SQLite's: some ten for each row
    assert await reader._rows_after((b"", 0), PAGE_ROWS) == [(streams[0], item) for item in range(PAGE_ROWS)]
    assert len(await reader._rows_after((streams[2], documents - PAGE_ROWS), PAGE_ROWS)) == PAGE_ROWS
    assert steps < PAGE_ROWS
    reader._db.set_progress_handler(None, 0)
    place, rows = (streams[0], documents - 1), []
    while page := await reader._rows_after(place, documents):
        rows += page
        place = page[-1]
    assert rows == [(streams[0], documents), *((id_, item) for id_ in streams[1:] for item in range(documents + 1))]
    await reader.close()


async def test_what_was_erased_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When more were added than it is made for it is filled anew, and who asks meanwhile is answered by the old one."""
    monkeypatch.setattr(ids, "IDS_MOST", 10)
    monkeypatch.setattr(ids, "REST_S", 0.001)
    there = new(5)
    known = stored(there)
    keeping = asyncio.create_task(known.keep())
    erased, stays = new(20), new(1)[0]
    await until(lambda: not known.may_have(erased[0]), LATE)
    there.append(stays)
    for one in (*erased, stays):
        known.add(one)
        known.decided(one)
        assert known.may_have(one)
    await until(lambda: not any(known.may_have(one) for one in erased), LATE)
    assert all(known.may_have(one) for one in there)
    keeping.cancel()


async def test_a_new_request_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked before is found, in this life of the daemon and in the next; what is new costs the database nothing."""
    looked: list[bytes] = []
    path = tmp_path / "ledger.sqlite"

    async def enter(ledger: object, one: Asked) -> bool:
        """Whether the database was asked."""
        looked.clear()
        record = await ledger.enter(one, float("inf"))  # type: ignore[attr-defined]
        record.leave()
        return bool(looked)

    async with ledger_on(path, lambda real: real) as (ledger, _):
        reader = ledger._reader
        assert reader.ids is not None
        any_of = reader.any_of

        async def spied(id_: bytes) -> object:
            looked.append(id_)
            return await any_of(id_)

        monkeypatch.setattr(reader, "any_of", spied)
        first, second = asked(1), asked(1)
        assert await enter(ledger, first)  # it is not filled yet
        await reader.ids.fill()
        assert not await enter(ledger, first)
        record = await ledger.enter(second, float("inf"))
        intent = record.intend(0, 1, "card")
        await intent.durable
        intent.settled([None], {})
        record.leave()
        await ledger.settled()
        assert await enter(ledger, second)
        with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
            await ledger.check_owner(second.id, "other")

    fresh = SqliteDatabase(path).reader()
    assert fresh.ids is not None
    await fresh.ids.fill()
    assert fresh.ids.may_have(second.id)
    assert not fresh.ids.may_have(first.id)
    await fresh.close()
