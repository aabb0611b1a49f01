"""Whose a live request id is: what a stream of documents is spared, and what it must not be spared."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

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


def test_of_a_database_that_others_write_nothing_is_known() -> None:
    """Where it is not new, or not known to be, each document is looked up."""
    owners = Owners()
    assert owners.enter(b"id", "portal", is_digests=False, is_new=False).begun is None
    assert owners.enter(b"id", "portal", is_digests=False, is_new=True).begun is None  # of the same life
    owners.leave(b"id")
    owners.leave(b"id")
    assert owners.enter(b"id", "portal", is_digests=False, is_new=True).begun == set()
    assert owners.enter(bytes(16), "portal", is_digests=True, is_new=True).begun is None
    assert DIGESTS < 0  # no document has this index
