"""A copy of the daemon's SQLite database at one moment, taken while the daemon writes."""

import sqlite3
from contextlib import closing
from pathlib import Path

from signer.appearing import appearing
from signer.database import StoreError
from signer.evidence import read_only


def copy(database: Path, file: Path) -> int:
    """
    Write the database as it is now to a new file that only its owner reads; answers how many rows its ledger has.

    One step: a copy in several would begin anew with each commit of the daemon. Readers do not hold up who writes.
    Raises `StoreError`, `FileExistsError`, `OSError`.
    """
    with closing(read_only(database)) as source, appearing(file) as draft:
        try:
            with closing(sqlite3.connect(draft)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file
                (count,) = target.execute("SELECT count(*) FROM ledger_rows").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{file}: {error}") from None
    return int(count)
