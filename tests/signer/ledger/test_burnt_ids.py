"""Which request ids a restore has burnt, and for how long."""

import contextlib
import time
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from signer.books import restored_at
from signer.burnt_ids import CLOCK_S, BurntIds
from signer.clock import Clock
from signer.config import LedgerAnchor
from signer.database import database_at
from signer.errors import Refusal
from signer.ledger import KEEP_S
from signer.request_id import new_request_id
from signer.store import open_store
from tests.signer.ledger.entries import executed
from tests.signer.ledger.ids import made_at
from tests.signer.ledger.test_books import Place

RESTORED = 1_800_000_000.0


@pytest.mark.parametrize(
    ("made", "burnt"), [(-KEEP_S * 9, True), (-1, True), (0, True), (CLOCK_S, True), (CLOCK_S + 0.001, False)]
)
def test_what_was_made_before_the_restore(made: float, burnt: bool) -> None:
    """By the id's own time, and a little more, because clocks differ."""
    ids = BurntIds(RESTORED, lambda: RESTORED + 1)
    assert ids.has(uuid.UUID(made_at(RESTORED + made)).bytes) == burnt


def test_ids_that_do_not_say_when() -> None:
    """Random ones, and what only looks like a UUID of version 7 in one place, are never burnt."""
    ids = BurntIds(RESTORED, lambda: RESTORED + 1)
    old = uuid.UUID(made_at(RESTORED - 9))
    assert ids.has(old.bytes)
    for other in (uuid.uuid4(), uuid.uuid1(), uuid.UUID(int=old.int & ~(0xC << 60)), uuid.UUID(int=0)):
        assert not ids.has(other.bytes), other


def test_for_a_day() -> None:
    """As long as the answer would have been kept; and never without such a restore."""
    now = [RESTORED]
    old = uuid.UUID(made_at(RESTORED - 9)).bytes
    ids = BurntIds(RESTORED, lambda: now[0])
    now[0] = RESTORED + KEEP_S - 1
    assert ids.has(old)
    now[0] = RESTORED + KEEP_S
    assert not ids.has(old)
    assert not BurntIds(0.0, time.time).has(uuid.UUID(new_request_id()).bytes)


def test_whichever_daemon_was_restored(tmp_path: Path) -> None:
    """
    Daemons share their requests: what one of them does not know any more is burnt for all; of another's rows that nobody
    has looked through, what cannot be read says nothing.
    """
    where = tmp_path / "paraph.sqlite"
    open_store(where).dispose()
    moment = "2026-05-04T03:02:01Z"
    unknown = f'{{"time":"{moment}","restored":{{"reason":"the disk","kept":"","requests":"unknown"}}}}'
    later, day_after = '{"time":"2026-05-04T05:00:00Z"}', '{"time":"2026-05-05T04:00:00Z"}'

    def restored(*bodies: str) -> float:
        """By the beginnings of the other daemon's epochs."""
        rows = [f"('b', {epoch}, 1, 'EPOCH', '{body}', x'00', NULL)" for epoch, body in enumerate(bodies, 1)]
        executed(
            where,
            *("DELETE FROM ledger_rows", "DELETE FROM ledger_instances"),
            f"INSERT INTO ledger_instances VALUES ('a', 0, '', 0), ('b', {len(bodies)}, '', 0)",
            f"INSERT INTO ledger_rows VALUES {', '.join(rows)}",
        )
        with contextlib.closing(database_at(where, tmp_path).past()) as past:
            return restored_at(past)

    at = datetime.fromisoformat(moment).timestamp()
    assert restored(unknown) == restored(later, unknown, later) == at
    assert restored(unknown, day_after) == 0, "its answers would be forgotten"
    assert restored(later) == restored("7") == restored('{"time":"soon"}') == restored("{") == 0


async def test_said_before_anything_is_spent(tmp_path: Path) -> None:
    """A batch, or a stream of documents, with a burnt id is refused before a person gives a code for it."""
    place = Place(tmp_path, LedgerAnchor(file=tmp_path / "checkpoints"))
    async with place.starts(Clock()) as (books, _):
        ledger, id_ = books.ledger, uuid.UUID(made_at(RESTORED)).bytes
        await ledger.check_owner(id_, "portal")
        ledger.is_burnt = BurntIds(RESTORED, lambda: RESTORED + 1).has
        with pytest.raises(Refusal, match="REQUEST_BURNT"):
            await ledger.check_owner(id_, "portal")
        with pytest.raises(Refusal, match="REQUEST_BURNT"):
            async with ledger.opened(id_, "portal"):
                pass
