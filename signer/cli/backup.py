"""paraph backup: a copy of the daemon's database, while it runs."""

import argparse
import sys
from pathlib import Path

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, USAGE
from signer.cli.printable import printable

HELP = "copy the daemon's database, also while it runs"
EXAMPLE = "paraph backup /mnt/backups/paraph-monday.sqlite"
_POSTGRESQL = """\
paraph backup: this daemon's ledger is in PostgreSQL, whose own tools know it best:
  pg_dump --format=custom --file=FILE 'URL'     the URL is ledger.database in {config}
Keep with it {instance}: it says which chain is this daemon's.
{also}"""
_ALSO = """\
Not in it, and needed after a loss of this host: the checkpoint key if it is in a file, the data key, {config}.
Keep these where this file is not: whoever has both can read the results of its last day, and write the ledger anew.
Keep what the anchors have: without it nobody can say which rows a restore has lost."""


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="a new file; only its owner can read it")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from signer.backup import copy
    from signer.database import StoreError, where

    database = where(config)
    if not isinstance(database, Path):
        instance = config.server.state / "instance"
        also = _ALSO.format(config=options.config)
        print(_POSTGRESQL.format(config=options.config, instance=instance, also=also), file=sys.stderr)
        return USAGE
    try:
        rows = copy(database, options.file)
    except FileExistsError as error:
        print(f"paraph backup: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    except (StoreError, OSError) as error:
        print(printable(f"paraph backup: {error}"), file=sys.stderr)
        return FAILED
    print(f"{options.file}: the database with a ledger of {rows:,} rows")
    print(_ALSO.format(config=options.config))
    return OK
