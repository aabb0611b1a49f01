"""paraph audit archive: old rows of a ledger go into a file, and out of the database."""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, TEMPORARY, USAGE
from signer.cli.printable import printable

HELP = "write a ledger's old rows to a file, check it, and delete them from the database, also while the daemon runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("--key", type=Path, metavar="PEM", help="checkpoint.pub, where this user cannot read the key")
    configured.more_anchors(parser)
    parser.add_argument(
        "--keep-days", type=int, default=1, metavar="N", help="what is younger stays, one day at least (default: 1)"
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="where the file goes")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from pool.public import spki_of_pem
    from signer.archive import NotWhole, archive
    from signer.checkpoint_key import spki_of
    from signer.config import ConfigError
    from signer.database import StoreError, database_at, where
    from signer.entry import Failed
    from signer.lost import notes_of
    from signer.recovery import Broken
    from signer.store import open_store

    if options.keep_days < 1 or not options.directory.is_dir():
        wrong = "--keep-days is 1 at least" if options.keep_days < 1 else f"there is no directory {options.directory}"
        print(f"paraph audit: {wrong}", file=sys.stderr)
        return USAGE
    try:
        spki = spki_of_pem(options.key.read_bytes()) if options.key else spki_of(config.ledger)
    except (ConfigError, OSError, ValueError) as error:
        print(f"paraph audit: {error}; --key takes checkpoint.pub", file=sys.stderr)
        return CONFIG
    files = [each.file for each in config.ledger.anchor if each.file is not None]
    now = datetime.now(UTC) - timedelta(days=options.keep_days - 1)
    try:
        notes = sorted(notes_of([*files, *options.anchor]), key=lambda note: note.checkpoint.number)
        place = where(config)
        if isinstance(place, Path) and not place.is_file():
            raise StoreError(f"there is no database {place}; look at server.state in the configuration")
        engine, past = open_store(place), database_at(place, config.server.state).past()
        try:
            done = archive(past, engine, notes, spki, options.directory, now=now)
        finally:
            past.close()
            engine.dispose()
    except (NotWhole, Broken) as error:
        said = f"nothing was deleted: {error}. `paraph audit export` gives it as it is"
        print(printable(f"paraph audit: {said}"), file=sys.stderr)
        return FAILED
    except Failed as error:
        print(printable(f"paraph audit: {error}; try again"), file=sys.stderr)
        return TEMPORARY
    except (StoreError, OSError) as error:
        print(printable(f"paraph audit: {error}"), file=sys.stderr)
        return TEMPORARY if isinstance(error, StoreError) and error.is_temporary else FAILED
    if done is None:
        print("nothing to archive: no checkpoint of an anchor covers rows that are old enough")
        return OK
    print(f"{done.file}: rows {done.first[0]}/{done.first[1]} to {done.last[0]}/{done.last[1]}, {done.rows:,} in all")
    print(f"{done.deleted:,} of them were deleted from the database; keep the file, and a copy elsewhere")
    return OK
