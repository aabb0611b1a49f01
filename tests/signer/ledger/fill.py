"""A ledger with many rows behind the ones that a daemon left, as a daemon would have gone on."""

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from signer.chain import Kind, Row, after, items_hash

EACH = 20_000  # rows in a transaction


def fill(path: Path, chunks: int) -> None:
    """So many INTENTs, each but the last with its OUTCOME."""
    db = sqlite3.connect(path, isolation_level=None)
    [(instance, epoch)] = db.execute("SELECT instance, epoch FROM ledger_instances").fetchall()
    last = db.execute("SELECT sequence, hash FROM ledger_rows ORDER BY epoch DESC, sequence DESC LIMIT 1").fetchone()
    db.execute("PRAGMA synchronous = OFF")
    pending = []
    for row, closes in _rows(instance, epoch, *last, chunks):
        pending.append((row.instance, row.epoch, row.sequence, row.kind, row.body, row.hash, closes))
        if len(pending) == EACH:
            _put(db, pending)
    _put(db, pending)
    db.close()


def _rows(instance: str, epoch: int, sequence: int, previous: bytes, chunks: int) -> Iterator[tuple[Row, int | None]]:
    time, hash_ = "2026-01-01T00:00:00Z", items_hash([bytes(32)])
    for number in range(chunks):
        said = {
            "request": str(uuid.UUID(int=number)), "caller": "portal", "subject": "portal", "credential": "p-256",
            "key": "ab" * 32, "output": "RAW", "algorithm": "ECDSA with SHA256", "attempt": 1, "items": [[0, 1]],
            "input": "", "content": "", "signed": hash_, "token": "card", "time": time,
        }  # fmt: skip
        intent = after(instance, epoch, sequence + 1, previous, Kind.INTENT, said)
        yield intent, None
        sequence, previous = intent.sequence, intent.hash
        if number < chunks - 1:
            told = {"intent": sequence, "signed": 1, "signatures": hash_, "closed": True, "time": time}
            outcome = after(instance, epoch, sequence + 1, previous, Kind.OUTCOME, told)
            yield outcome, intent.sequence
            sequence, previous = outcome.sequence, outcome.hash


def _put(db: sqlite3.Connection, pending: list[tuple[object, ...]]) -> None:
    db.execute("BEGIN")
    db.executemany("INSERT INTO ledger_rows VALUES (?, ?, ?, ?, ?, ?, ?)", pending)
    db.execute("COMMIT")
    pending.clear()
