"""The ledger of a running daemon: looked through and begun at the start, checkpointed, rid of what is a day old."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pool.process import Child, ChildLost
from signer import anchor, recovery
from signer.anchor import Anchor
from signer.burnt_ids import BurntIds
from signer.checkpoint import Checkpoints
from signer.checkpoint_key import Key
from signer.cipher import Cipher
from signer.clock import Clock
from signer.config import Ledger as LedgerConfig
from signer.database import Database, Past, Where, database_at
from signer.entry import Entry, Failed
from signer.ids import Ids
from signer.ledger import KEEP_S, Ledger
from signer.lost import is_declared
from signer.note import MAGIC, Note, NoteError, parse
from signer.recovery import Broken, Found
from signer.retention import Retention
from signer.writer import EX_IOERR, Writer

log = logging.getLogger("signer.ledger")

T = TypeVar("T")

ERASE_EVERY_S = 60.0
ERASE_MOST = 500  # requests at a time: a few milliseconds of the database
ERASE_PAUSE_S = 0.2  # between two times, while there is more: who signs comes first
SETTLE_S = 2.0  # at the daemon's end, for what lanes still have, and what waits for a commit
END_S = 5.0  # for its end: SQLite tidies its file
COMMITTER_S = 30.0  # until the process that commits is there, on a busy machine
NOTES_MOST = 200  # of an anchor's file are looked at: three hours
_BEGIN = f"{MAGIC}\n"


@dataclass(frozen=True, slots=True)
class Books:
    ledger: Ledger
    _anchors: Sequence[Anchor]
    _found: Found
    _clock: Clock

    @property
    def ended(self) -> float | None:
        """When the last row was written before this start, in seconds since the epoch; None where it does not say."""
        time = self._found.time
        return datetime.fromisoformat(time).timestamp() if time else None

    @contextlib.asynccontextmanager
    async def checkpointed(self, key: Key) -> AsyncIterator[Checkpoints]:
        """Until the end, whose last checkpoint covers what was signed: a key on a token has its pool until then."""
        ledger, found = self.ledger, self._found
        last = next(parse(found.note)) if found.note else None
        checkpoints = Checkpoints(
            key, ledger.heads, ledger.record_checkpoint, self._anchors,
            last=last, anchored=found.anchored, began=found.began, clock=self._clock,
        )  # fmt: skip
        ledger.anchored_at = lambda: checkpoints.anchored_at
        ledger.recorded = checkpoints.chunk_recorded
        async with checkpoints:
            ledger.may_sign = lambda: checkpoints.may_sign
            yield checkpoints
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await ledger.settled()


@contextlib.asynccontextmanager
async def opened(config: LedgerConfig, where: Where, state: Path, clock: Clock, spki: bytes) -> AsyncIterator[Books]:
    """
    The ledger in the database that `open_store` has made ready; `state` is the daemon's directory, `spki` the public half
    of the key that signs checkpoints.

    Raises `ConfigError` for the data key, `Broken` or `StoreError` for what stands in the database, `Failed` where it
    cannot be written.
    """
    cipher, anchors = Cipher(config.data_key()), anchor.of(config)
    files = [each.file for each in config.anchor if each.file is not None]
    database = database_at(where, state)
    found, restored, (epoch, sequence, hash_) = await asyncio.to_thread(_begun, database, files, cipher, spki)
    if found.open_intents:
        log.warning(
            "%d chunks may have been signed and were not released: POSSIBLE_UNRELEASED_SIGNATURE",
            len(found.open_intents),
        )

    child, stream = await _committing(where, state, config.data_key(), found.instance, epoch, sequence, hash_)

    def writer(flushed: Callable[[], Iterable[Entry]]) -> Writer:
        return Writer(stream, found.instance, epoch, hash_, sequence, flushed)

    reader = database.reader()
    ledger = Ledger(writer, reader, cipher, clock)
    retention = Retention(clock, found.times)
    ledger.accepted = retention.accepted
    ledger.is_burnt = BurntIds(restored, retention.now).has
    tasks = [asyncio.create_task(_keep_erasing(database, retention), name="ledger erasing")]
    if reader.ids is not None:
        tasks.append(asyncio.create_task(_keep_knowing(reader.ids), name="ledger ids"))
    try:
        yield Books(ledger, anchors, found, clock)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ChildLost):  # the writer knows
            child.send({"t": "ending"})
        await ledger.writer.close()
        await child.stop(END_S)
        await reader.close()


async def _committing(
    where: Where, state: Path, key: bytes, instance: str, epoch: int, sequence: int, hash_: bytes
) -> tuple[Child, socket.socket]:
    """The committer in this epoch, and the stream that leads to it; raises `Failed`."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            number = theirs.fileno()
            child = await Child.start("signer.committer", str(number), environment=os.environ, fds=(number,))
        order = {"t": "begin", "state": str(state), "instance": instance, "epoch": epoch, "sequence": sequence}
        place = {"file": str(where), "url": ""} if isinstance(where, Path) else {"file": "", "url": where}
        try:
            await child.ask({**order, **place, "hash": hash_, "key": key}, COMMITTER_S)
        except BaseException:
            await child.close()
            raise
    except (OSError, ChildLost, TimeoutError) as error:
        ours.close()
        raise Failed("AUDIT_UNWRITABLE", f"the process that writes the ledger does not start: {error}") from None
    except BaseException:
        ours.close()
        raise
    return child, ours


def _begun(
    database: Database, anchors: Sequence[Path], cipher: Cipher, spki: bytes
) -> tuple[Found, float, tuple[int, int, bytes]]:
    """What was there, when a restore was of which not all is known, and where the epoch stands that has been begun."""
    past, backend = database.past(), database.backend()
    try:
        found = recovery.look(past)
        for file in anchors:
            _check_anchor(past, found, file, spki)
        return found, restored_at(past), recovery.begin(past, backend, found, cipher, version("paraph"))
    finally:
        past.close()
        backend.close()


def restored_at(past: Past) -> float:
    """
    When the last restore was after which nobody knows the requests before it, of whichever daemon: requests are one table.
    In seconds since the epoch; 0 if there was none within a day of a daemon's last start.
    """
    newest = 0.0
    for instance, last in past.instances():
        since = 0.0
        for epoch in range(last, 0, -1):
            begun, is_unknown = _beginning(past.body_of(instance, epoch, 1))
            since = since or begun - KEEP_S
            if not begun or begun <= since:  # archived, or older
                break
            if is_unknown:
                newest = max(newest, begun)
                break
    return newest


def _beginning(body: str | None) -> tuple[float, bool]:
    """
    Of an epoch's first row: when it was, and whether a restore began it that does not know the requests before. Of another
    daemon's chain nobody has looked yet whether it is whole.
    """
    try:
        said = json.loads(body or "")
        return datetime.fromisoformat(said["time"]).timestamp(), said.get("restored", {}).get("requests") == "unknown"
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0.0, False


def _check_anchor(past: Past, found: Found, file: Path, spki: bytes) -> None:
    """
    Raise `Broken` where an anchor knows more of this chain than the database does: that was rolled back. Or where it knows
    nothing of this chain, and of no other that is there, and the key has signed no checkpoint of this one: it has taken
    another's place. An anchor that others put into, too, is no reason. Or where there is nothing in it that could be read.
    """
    notes = _last_notes(file, found, spki)
    heads = [(head, note.checkpoint.number) for note in notes for head in note.checkpoint.heads]
    for head, number in sorted((each for each in heads if each[0].instance == found.instance), reverse=True):
        if recovery.has_row(past, head) or is_declared(found, head):
            continue
        if recovery.was_archived(past, head):
            break  # and so were those before it
        raise Broken(
            f"checkpoint {number} in {file} names row {head.epoch}/{head.sequence}, which is not in the "
            "database or is another: an older state was put back. `paraph restore --reason` declares what is lost"
        )
    is_known = any(head.instance == found.instance or recovery.has_row(past, head) for head, _ in heads)
    if notes and not (is_known or _is_in_checkpoint(found, spki)):
        raise Broken(
            f"checkpoint {notes[-1].checkpoint.number} in {file} is of another ledger, and the checkpoint key has signed none of "
            f"the one in the database, {found.instance}: it has taken the other's place, or is new. If the other was this daemon's, "
            "put it back (`paraph restore`). If this one is new on purpose, keep the file as evidence and move it away, or "
            "give this daemon a file of its own"
        )


def _is_in_checkpoint(found: Found, spki: bytes) -> bool:
    """Whether the last checkpoint that the database has names its chain, and is signed by this key."""
    if not found.note:
        return False
    last = next(parse(found.note))
    return last.checkpoint.own.instance == found.instance and last.is_signed_by(spki)


def _last_notes(file: Path, found: Found, spki: bytes) -> list[Note]:
    """
    The last whole note of a file that an anchor has written, and those shortly before it that the key has signed, in their
    order: what a power cut has left of a note, and what anybody has put behind it, hides none of them.

    A file that is not there, or is empty, is a new one. One that has something and no whole note ends in what no daemon
    has written there: raises `Broken`, unless it may be its first note, of which only a part was written.
    """
    try:
        with file.open("rb") as opened_:
            size = opened_.seek(0, 2)
            opened_.seek(max(0, size - anchor.LAST_NOTE_BYTES_MAX))
            tail = opened_.read().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise Broken(f"the anchor {file} cannot be read: {error}") from None
    notes = _whole(tail)
    if not notes:
        is_torn = tail.startswith(_BEGIN[: len(tail)]) and tail.count("\n\n") < 2
        if tail and not is_torn:
            raise Broken(
                f"the anchor {file} ends without a whole checkpoint, so that nobody can say whether the database is older: "
                "somebody changed it. Keep it as evidence; put back what was there, or move it away, and the daemon begins "
                "another"
            )
        if found.anchored is not None:
            log.warning(
                "%s has no whole checkpoint, and an anchor had one of this ledger: if it is not new, it was emptied",
                file,
            )
        return []
    return [*(note for note in notes[:-1] if note.is_signed_by(spki)), notes[-1]]


def _whole(text: str) -> list[Note]:
    """The last notes in a text, whatever stands before, between and behind them."""
    found: list[Note] = []
    for piece in text.split(_BEGIN)[1:][-NOTES_MOST:]:
        body, *rest = piece.split("\n\n", 2)
        if len(rest) == 2:
            with contextlib.suppress(NoteError):
                found += parse(f"{_BEGIN}{body}\n\n{rest[0]}\n\n")
    return found


async def _keep_knowing(ids: Ids) -> None:
    """Without it every id is looked up, and that is all."""
    while True:
        try:
            await ids.keep()
        except Exception:
            log.exception("which request ids are new is not known")
        await asyncio.sleep(ERASE_EVERY_S)


async def _to_its_end(work: Callable[[], T]) -> T:
    """In a thread. Whoever is cancelled meanwhile ends with it: SQLite crashes where a connection is closed that is in use."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait([task])


async def _keep_erasing(database: Database, retention: Retention) -> None:
    while True:
        try:
            eraser = await asyncio.to_thread(database.eraser)
            try:
                while True:
                    erase = partial(eraser.erase, int(retention.now()) - KEEP_S, ERASE_MOST)
                    more = await _to_its_end(erase) == ERASE_MOST
                    await asyncio.sleep(ERASE_PAUSE_S if more else ERASE_EVERY_S)
            finally:
                eraser.close()
        except Failed as failed:
            if failed.is_fatal:
                log.critical("the ledger's storage has failed, the process ends: %s", failed.detail)
                os._exit(EX_IOERR)
            log.warning("results a day old are not erased yet: %s", failed)
        except Exception:
            log.exception("results a day old are not erased yet")
        await asyncio.sleep(ERASE_EVERY_S)
