"""Whose a live request id is: what a stream of documents is spared, and what it must not be spared."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from signer import owners
from signer.errors import Refusal
from signer.ledger import Ledger
from signer.owners import Owners
from signer.record import DIGESTS, Record
from signer.sqlite import SqliteReader
from tests.signer.ledger.entries import asked, ledger_on

LATE = float("inf")


@pytest.fixture(params=[True, False], ids=["filled", "not filled yet"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Over an empty database, whose ids are known or not."""
    async with ledger_on(tmp_path / "ledger.sqlite", lambda real: real) as (made, _):
        if request.param:
            assert made._reader.ids is not None
            await made._reader.ids.fill()
        yield made


@pytest.fixture
def looked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that the database is asked."""
    found: list[str] = []
    reader = ledger._reader
    assert isinstance(reader, SqliteReader)

    def spy(name: str) -> Callable[..., object]:
        real = getattr(reader, name)

        def spied(*words: object) -> object:
            found.append(name)
            return real(*words)

        return spied

    for name in ("any_of", "request"):
        monkeypatch.setattr(reader, name, spy(name))
    return found


async def signed(record: Record) -> None:
    intent = record.intend(0, 1, "card")
    await intent.durable
    intent.settled([b"signature"], {})
    await record.finish(LATE)
    record.leave()


async def test_documents_of_a_stream_are_not_looked_up(ledger: Ledger, looked: list[str]) -> None:
    """One after the other, with nothing of the request in work between them: none is looked up but by the stream's opening."""
    whole = asked(1)
    async with ledger.opened(whole.id, "portal"):
        looked.clear()
        for item in range(5):
            await signed(await ledger.enter(replace(whole, item=item), LATE))
        refused = await ledger.enter(replace(whole, item=5), LATE)
        refused.leave()  # before anything was in writing
        assert not looked


async def test_a_document_that_was_begun_is_looked_up(ledger: Ledger, looked: list[str]) -> None:
    """Asked again on the same stream, on another one beside it, or later: it has the same signature."""
    whole = asked(1)
    async with ledger.opened(whole.id, "portal"):
        await signed(await ledger.enter(replace(whole, item=3), LATE))
        for _ in range(2):
            async with ledger.opened(whole.id, "portal"):
                again = await ledger.enter(replace(whole, item=3), LATE)
                assert again.known is not None
                assert list(again.known.signatures) == [b"signature"]
                again.leave()
        with pytest.raises(Refusal, match="IDEMPOTENCY_MISMATCH"):
            await ledger.enter(replace(whole, item=3, body=b"another"), LATE)
    for item in (3, 4):
        async with ledger.opened(whole.id, "portal"):
            looked.clear()
            later = await ledger.enter(replace(whole, item=item), LATE)
            assert (later.known is not None) is (item == 3)
            assert "any_of" in looked  # something of it was there when it came to life
            later.leave()
    assert ledger._owners.of(whole.id) is None


async def test_an_open_stream_is_its_callers(ledger: Ledger) -> None:
    """While it is open, with nothing of it in work yet, and afterwards by what is stored."""
    whole = asked(1)
    other = replace(whole, caller="other")
    async with ledger.opened(whole.id, "portal"):
        for foreign in (other, replace(other, item=7)):
            with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
                await ledger.enter(foreign, LATE)
        with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
            async with ledger.opened(whole.id, "other"):
                pass
        with pytest.raises(Refusal, match="IDEMPOTENCY_MISMATCH"):
            await ledger.enter(whole, LATE)  # for digests
    free = await ledger.enter(other, LATE)  # nothing came of it
    free.leave()
    async with ledger.opened(whole.id, "portal"):
        await signed(await ledger.enter(replace(whole, item=0), LATE))
    for foreign in (other, replace(other, item=7)):
        with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
            await ledger.enter(foreign, LATE)


async def test_a_stream_for_an_id_of_digests(ledger: Ledger) -> None:
    """Each of its documents is refused; the digests are answered as before, also while it is open."""
    one = asked(1)
    await signed(await ledger.enter(one, LATE))
    async with ledger.opened(one.id, "portal"):
        with pytest.raises(Refusal, match="IDEMPOTENCY_MISMATCH"):
            await ledger.enter(replace(one, item=0), LATE)
        again = await ledger.enter(one, LATE)
        assert again.known is not None
        again.leave()


async def test_what_lives_on_after_its_stream(ledger: Ledger) -> None:
    """A lane still has the document when its stream has ended: the id stays its caller's until that is over."""
    whole = asked(1)
    async with ledger.opened(whole.id, "portal"):
        record = await ledger.enter(replace(whole, item=0), LATE)
        intent = record.intend(0, 1, "card")
        record.leave()
    with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
        await ledger.check_owner(whole.id, "other")
    await intent.durable
    intent.settled([b"signature"], {})
    await ledger.settled()
    assert ledger._owners.of(whole.id) is None


@pytest.fixture
def held(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A database that others write, too, and whose answers are held until this is set."""
    go = asyncio.Event()
    monkeypatch.setattr(ledger._reader, "ids", None)
    real = ledger._reader.any_of

    async def any_of(id_: bytes) -> object:
        await go.wait()
        return await real(id_)

    monkeypatch.setattr(ledger._reader, "any_of", any_of)
    return go


async def test_a_stream_that_opens_while_its_id_is_looked_up(ledger: Ledger, held: asyncio.Event) -> None:
    """It waits for that, and is then told whose it is; the first one has all of it."""
    one = asked(1)

    async def open_(caller: str) -> None:
        async with ledger.opened(one.id, caller):
            pass

    first = asyncio.create_task(ledger.enter(one, LATE))
    await asyncio.sleep(0)
    others = [asyncio.create_task(open_("other")), asyncio.create_task(open_("other"))]
    await asyncio.sleep(0)
    held.set()
    record = await first
    for other in others:
        with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
            await other
    record.leave()
    assert ledger._owners.of(one.id) is None


async def test_an_id_that_is_asked_for_while_its_stream_opens(ledger: Ledger, held: asyncio.Event) -> None:
    """The other way round: the stream has it, and its caller's digests and another caller's are refused."""
    one = asked(1)
    is_open, end = asyncio.Event(), asyncio.Event()

    async def open_() -> None:
        async with ledger.opened(one.id, "portal"):
            is_open.set()
            await end.wait()

    stream = asyncio.create_task(open_())
    await asyncio.sleep(0)
    digests = asyncio.create_task(ledger.enter(one, LATE))
    foreign = asyncio.create_task(ledger.enter(replace(one, item=0, caller="other"), LATE))
    await asyncio.sleep(0)
    held.set()
    await is_open.wait()
    with pytest.raises(Refusal, match="IDEMPOTENCY_MISMATCH"):
        await digests
    with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
        await foreign
    end.set()
    await stream
    assert ledger._owners.of(one.id) is None


def test_what_is_known_of_an_id_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past so many documents each is looked up."""
    monkeypatch.setattr(owners, "BEGUN_MOST", 3)
    life = Owners().enter(b"id", "portal", is_digests=False, is_new=True)
    for item in (1, 2, 3, 3):
        life.begin(item)
    assert life.begun == {1, 2, 3}
    life.begin(4)
    assert life.begun is None
    life.begin(5)


def test_of_a_database_that_others_write_nothing_is_known() -> None:
    """Where it is not new, or not known to be, each document is looked up."""
    all_ = Owners()
    assert all_.enter(b"id", "portal", is_digests=False, is_new=False).begun is None
    assert all_.enter(b"id", "portal", is_digests=False, is_new=True).begun is None  # of the same life
    all_.leave(b"id")
    all_.leave(b"id")
    assert all_.enter(b"id", "portal", is_digests=False, is_new=True).begun == set()
    assert all_.enter(bytes(16), "portal", is_digests=True, is_new=True).begun is None
    assert DIGESTS < 0  # no document has this index
