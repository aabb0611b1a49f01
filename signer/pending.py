"""
Batches that wait for a person: what will be signed, as the daemon has seen it, until it is signed or its time is over.

    OPEN       the documents are here; the person may look at them, and sign or refuse
    SIGNING    a SignBatch is at it; OPEN again if it fails, or leaves items to be signed
    SIGNED     every item has its outcome; the submitter fetches them
    CANCELLED  by the person, or by the submitter, who may cancel what is signed, too: nobody is to have it

Rows in the store, documents in `kept.py`: both are erased 15 minutes after the last step.
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from pool import Algorithm, Hash, Scheme
from signer.credential import Output
from signer.errors import Refusal
from signer.gate import Terms
from signer.store import batch_items, batches

LIFE_S = 900  # from its opening, and again from its end: a person reads, a portal fetches
# What waits takes room in the database; its documents are in the caller's share of the spool (limits.SPOOL_CALLER_BYTES_MAX).
PERSON_MAX = 30  # open at one time, of one caller for one person: nobody reads more in the time that a batch lives
CALLER_MAX = 5_000  # open at one time, of one caller: as many people before the window, one more of them each 0.2 s
CALLER_ITEMS_MAX = (
    500_000  # of one caller's batches until they are erased: 1 KB each at most, 4 KB of Ed25519's messages
)
LINK_BYTES = 32
ERASED_MAX = 4  # in one transaction: 20 000 items take 0.1 s, and whoever signs waits for no more than that


class State(StrEnum):
    OPEN = "OPEN"
    SIGNING = "SIGNING"
    SIGNED = "SIGNED"
    CANCELLED = "CANCELLED"


# Where each state is reached from: the one update that makes a step looks at it, so that of two at a time one is made.
FROM: Mapping[State, State] = {
    State.SIGNING: State.OPEN,
    State.CANCELLED: State.OPEN,
    State.OPEN: State.SIGNING,
    State.SIGNED: State.SIGNING,
}
LIVE = (State.OPEN.value, State.SIGNING.value)  # not at its end yet


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    size: int
    input: bytes  # SHA-256 of the document; empty where it was not seen
    digest: bytes
    gap_start: int = 0
    gap_end: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    id: bytes
    caller: str
    subject: str
    credential: str
    key: str
    output: Output
    algorithm: Algorithm
    claimed: bool
    opened: float
    ends: float
    state: State
    consent: str
    items: tuple[Item, ...]  # none in a list
    count: int = 0  # of them, and the digest of the terms: as they were stored
    digest: bytes = b""

    def terms(self) -> Terms:
        return Terms(
            caller=self.caller,
            credential=self.credential,
            key=self.key,
            output=self.output.value,
            algorithm=str(self.algorithm),
            inputs=tuple(item.input for item in self.items),
            digests=tuple(item.digest for item in self.items),
        )


def put(connection: Connection, batch: Batch, now: float) -> str:
    """Store it; answers its one-time link. Raises `Refusal` TOO_MANY_FOR_PERSON, TOO_MANY_BATCHES."""
    _check_room(connection, batch, now)
    link = secrets.token_urlsafe(LINK_BYTES)
    connection.execute(
        insert(batches).values(
            id=batch.id,
            caller=batch.caller,
            subject=batch.subject,
            credential=batch.credential,
            key=batch.key,
            output=batch.output.value,
            scheme=batch.algorithm.scheme.value,
            hash=batch.algorithm.hash.value if batch.algorithm.hash else "",
            claimed=int(batch.claimed),
            count=batch.count,
            digest=batch.digest,
            opened=int(batch.opened),
            ends=int(batch.ends),
            state=batch.state.value,
            signing="",
            link=_hash(link),
            consent="",
        )
    )
    connection.execute(
        insert(batch_items),
        [
            {
                "batch": batch.id,
                "item": number,
                "name": item.name,
                "size": item.size,
                "input": item.input,
                "digest": item.digest,
                "gap_start": item.gap_start,
                "gap_end": item.gap_end,
            }
            for number, item in enumerate(batch.items)
        ],
    )
    return link


def _check_room(connection: Connection, batch: Batch, now: float) -> None:
    """
    One person takes few of a caller's places, so that the others behind the same portal have theirs. Items count until
    they are erased: cancelled ones are in the database, too.
    """
    is_open = batches.c.state.in_(LIVE)
    hers, open_, items = connection.execute(
        select(
            func.count().filter(is_open, batches.c.subject == batch.subject),
            func.count().filter(is_open),
            func.coalesce(func.sum(batches.c.count), 0),
        ).where(batches.c.caller == batch.caller, batches.c.ends > now)
    ).one()
    if hers >= PERSON_MAX:
        raise Refusal("TOO_MANY_FOR_PERSON")
    if open_ >= CALLER_MAX or items + batch.count > CALLER_ITEMS_MAX:
        raise Refusal("TOO_MANY_BATCHES", f"{open_} batches are open, and {items} items are kept")


def is_known(connection: Connection, id_: bytes) -> bool:
    return connection.execute(select(batches.c.id).where(batches.c.id == id_)).first() is not None


def follow(connection: Connection, link: str, consent: str, now: float) -> bytes:
    """The batch that a link leads to, once: from now on it is this caller's to show. Raises `Refusal` BATCH_UNKNOWN."""
    found = connection.execute(select(batches.c.id).where(batches.c.link == _hash(link), batches.c.ends > now)).scalar()
    if found is None:
        raise Refusal("BATCH_UNKNOWN")
    used = update(batches).where(batches.c.id == found, batches.c.link == _hash(link)).values(link=b"", consent=consent)
    if connection.execute(used).rowcount != 1:
        raise Refusal("BATCH_UNKNOWN")
    return bytes(found)


def get(connection: Connection, id_: bytes, now: float) -> Batch:
    """Raises `Refusal` BATCH_UNKNOWN, for one whose time is over, too."""
    row = connection.execute(select(batches).where(batches.c.id == id_, batches.c.ends > now)).one_or_none()
    if row is None:
        raise Refusal("BATCH_UNKNOWN")
    table = batch_items
    items = connection.execute(select(table).where(table.c.batch == id_).order_by(table.c.item)).all()
    return _batch(row, items)


def _batch(row: Any, items: Sequence[Any] = ()) -> Batch:
    return Batch(
        id=row.id,
        caller=row.caller,
        subject=row.subject,
        credential=row.credential,
        key=row.key,
        output=Output(row.output),
        algorithm=Algorithm(Scheme(row.scheme), Hash(row.hash) if row.hash else None),
        claimed=bool(row.claimed),
        opened=row.opened,
        ends=row.ends,
        state=State(row.state),
        consent=row.consent,
        items=tuple(Item(one.name, one.size, one.input, one.digest, one.gap_start, one.gap_end) for one in items),
        count=row.count,
        digest=row.digest,
    )


def named(connection: Connection, names: Mapping[str, str], now: float, most: int) -> list[Batch]:
    """
    Without their items, the newest first; `names` has the columns that say whose: `caller` the submitter's, `consent` the
    consent caller's, `subject` the person's.
    """
    mine = [batches.c[column] == name for column, name in names.items()]
    found = select(batches).where(*mine, batches.c.ends > now)
    rows = connection.execute(found.order_by(batches.c.opened.desc(), batches.c.id).limit(most))
    return [_batch(row) for row in rows]


def begin(connection: Connection, id_: bytes, instance: str) -> None:
    """A SignBatch is at it, in this instance's daemon; raises `Refusal` BATCH_STATE."""
    _step(connection, id_, State.SIGNING, {"signing": instance})


def back(connection: Connection, id_: bytes) -> None:
    """... and has ended without an outcome for every item."""
    _step(connection, id_, State.OPEN, {"signing": ""})


def end(connection: Connection, id_: bytes, state: State, now: float) -> None:
    """SIGNED or CANCELLED; raises `Refusal` BATCH_STATE."""
    _step(connection, id_, state, _ended(now))


def take_back(connection: Connection, id_: bytes, now: float) -> None:
    """CANCELLED, although it is signed; raises `Refusal` BATCH_STATE for one that is neither OPEN nor SIGNED."""
    _step(connection, id_, State.CANCELLED, _ended(now), (State.OPEN, State.SIGNED))


def _ended(now: float) -> Mapping[str, object]:
    return {"signing": "", "link": b"", "ends": int(now + LIFE_S)}


def _step(
    connection: Connection, id_: bytes, state: State, values: Mapping[str, object], before: Collection[State] = ()
) -> None:
    """From one of `before`, or else as `FROM` has it."""
    table = batches
    stands = update(table).where(table.c.id == id_, table.c.state.in_([one.value for one in before or [FROM[state]]]))
    if connection.execute(stands.values(state=state.value, **values)).rowcount != 1:
        raise Refusal("BATCH_STATE")


def reopen(connection: Connection, instance: str, at_it: Collection[bytes]) -> None:
    """What a crash, or a database that did not answer, has left SIGNING: all of this instance's but those `at_it`."""
    table = batches
    left = select(table.c.id).where(table.c.state == State.SIGNING.value, table.c.signing == instance)
    for id_ in connection.execute(left).scalars().all():
        if bytes(id_) not in at_it:
            back(connection, id_)


def end_all(connection: Connection) -> None:
    """The clock that their times were taken from was wrong: nobody may sign what waits any more."""
    connection.execute(update(batches).where(batches.c.state.in_(LIVE)).values(ends=0))


def erase(connection: Connection, now: float) -> Sequence[bytes]:
    """Some of those whose time is over, but for one that is just being signed; until there are none, ask again."""
    over = select(batches.c.id).where(batches.c.ends <= now, batches.c.state != State.SIGNING.value)
    ids = connection.execute(over.limit(ERASED_MAX)).scalars().all()
    for id_ in ids:
        connection.execute(delete(batch_items).where(batch_items.c.batch == id_))
        connection.execute(delete(batches).where(batches.c.id == id_))
    return ids


def living(connection: Connection) -> dict[bytes, str]:
    """All that there are, whichever daemon has their files, and the caller of each."""
    return {bytes(row.id): row.caller for row in connection.execute(select(batches.c.id, batches.c.caller))}


def _hash(link: str) -> bytes:
    return hashlib.sha256(link.encode()).digest()
