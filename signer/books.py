"""The ledger of a running daemon: looked through and begun at the start, checkpointed, rid of what is a day old."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from signer import anchor, recovery
from signer.checkpoint import Checkpoints, KeyFile
from signer.clock import Clock
from signer.config import Ledger as LedgerConfig
from signer.ledger import KEEP_S, Ledger
from signer.note import Note, NoteError, parse
from signer.recovery import Broken, Found
from signer.results import Cipher
from signer.sqlite import Sqlite, SqliteReader
from signer.writer import Entry, Failed, Writer

log = logging.getLogger("signer.ledger")

ERASE_EVERY_S = 60.0
ERASE_MOST = 500  # requests at a time: a few milliseconds of the database
ERASE_PAUSE_S = 0.2  # between two times, while there is more: who signs comes first
TAIL_BYTES = 64 * 1024  # of an anchor's file: its last note is in there, 0.4 KB and 0.1 more for each chain


@dataclass(frozen=True, slots=True)
class Books:
    ledger: Ledger
    checkpoints: Checkpoints


@contextlib.asynccontextmanager
async def opened(config: LedgerConfig, path: Path, clock: Clock) -> AsyncIterator[Books]:
    """Raises `ConfigError` for the keys, `Broken` for what stands in the database, `Failed` where it cannot be written."""
    key, cipher, anchors = KeyFile.of(config), Cipher(config.data_key()), anchor.of(config)
    found = await asyncio.to_thread(recovery.look, path)
    for each in config.anchor:
        if each.file is not None:
            _check_anchor(path, found, each.file)
    epoch, sequence, hash_ = await asyncio.to_thread(recovery.begin, path, found, cipher, version("paraph"))
    if found.open_intents:
        log.warning(
            "%d chunks may have been signed and were not released: POSSIBLE_UNRELEASED_SIGNATURE",
            len(found.open_intents),
        )

    def writer(flushed: Callable[[], Iterable[Entry]]) -> Writer:
        return Writer(Sqlite(path), found.instance, epoch, hash_, sequence, flushed)

    reader = SqliteReader(path)
    ledger = Ledger(writer, reader, cipher, clock)
    last = next(parse(found.note)) if found.note else None
    checkpoints = Checkpoints(key, ledger.heads, ledger.record_checkpoint, anchors, last=last, clock=clock)
    ledger.recorded = checkpoints.chunk_recorded
    eraser = asyncio.create_task(_keep_erasing(path, clock), name="ledger erasing")
    try:
        async with checkpoints:
            ledger.may_sign = lambda: checkpoints.may_sign
            yield Books(ledger, checkpoints)
    finally:
        eraser.cancel()
        await asyncio.gather(eraser, return_exceptions=True)
        await ledger.writer.close()
        reader.close()


def _check_anchor(path: Path, found: Found, file: Path) -> None:
    """Raise `Broken` where an anchor knows more of this chain than the database does: that was rolled back."""
    note = _last_note(file)
    if note is None:
        return
    for head in note.checkpoint.heads:
        if head.instance == found.instance and not recovery.has_row(path, head):
            raise Broken(
                f"checkpoint {note.checkpoint.number} in {file} names row {head.epoch}/{head.sequence}, which is not in the "
                "database or is another: an older state was put back. `paraph restore --reason` declares what is lost"
            )


def _last_note(file: Path) -> Note | None:
    try:
        with file.open("rb") as opened_:
            size = opened_.seek(0, 2)
            opened_.seek(max(0, size - TAIL_BYTES))
            tail = opened_.read().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Broken(f"the anchor {file} cannot be read: {error}") from None
    start = tail.rfind("paraph-checkpoint-v1\n")
    if start < 0:
        return None
    try:
        return next(parse(tail[start:]))
    except (NoteError, StopIteration):
        return None  # its last note is torn: the anchor itself will say so


async def _keep_erasing(path: Path, clock: Clock) -> None:
    backend = await asyncio.to_thread(Sqlite, path)
    try:
        while True:
            before = int(clock.wall().timestamp()) - KEEP_S
            try:
                more = await asyncio.to_thread(partial(backend.erase, before, ERASE_MOST)) == ERASE_MOST
            except Failed as failed:
                more = False
                log.warning("results a day old are not erased yet: %s", failed)
            await asyncio.sleep(ERASE_PAUSE_S if more else ERASE_EVERY_S)
    finally:
        backend.close()
