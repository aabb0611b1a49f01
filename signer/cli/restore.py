"""paraph restore: a backup in the place of the daemon's database, and what it lacks declared as lost."""

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, TEMPORARY, USAGE

if TYPE_CHECKING:
    from signer.config import Config
    from signer.restore import Restored

HELP = "put a backup in the place of a stopped daemon's database, and declare what is lost"
EXAMPLE = "paraph restore --reason disk-failed-on-Monday /mnt/backups/paraph-monday.sqlite"
_POSTGRESQL = """\
paraph restore: this daemon's ledger is in PostgreSQL, and this version restores SQLite's only. Recover the server to its
last commit (write-ahead log archive, or a standby): nothing is lost then, and the daemon starts."""


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why rows are lost; it stays in the ledger")
    configured.more_anchors(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="what `paraph backup` has written")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from signer.database import StoreError, where
    from signer.entry import Failed
    from signer.exclusive import AlreadyRunning, hold_state, hold_tokens
    from signer.recovery import Broken

    if not isinstance(where(config), Path):
        print(_POSTGRESQL, file=sys.stderr)
        return USAGE
    if not options.reason.strip():
        print("paraph restore: --reason is empty; say why rows are lost, an auditor reads it", file=sys.stderr)
        return USAGE
    missing = [path for path in (options.file, *options.anchor) if not path.is_file()]
    if missing:
        print(f"paraph restore: there is no file {missing[0]}", file=sys.stderr)
        return USAGE
    state = config.server.state
    if state.exists() and state.stat().st_uid != os.geteuid():  # else the daemon could not read what is put there
        print(f"paraph restore: {state} is not this user's; run it as {state.owner()}", file=sys.stderr)
        return USAGE
    try:
        let_go = [hold_state(state), hold_tokens(config.token)]
    except AlreadyRunning as error:
        print(f"paraph restore: {error}; stop it first", file=sys.stderr)
        return TEMPORARY
    try:
        return _restore(options, config)
    except (Broken, StoreError, Failed, OSError) as error:
        print(f"paraph restore: {error}. The daemon's database is as it was", file=sys.stderr)
        return FAILED
    finally:
        for each in let_go:
            each()


def _restore(options: argparse.Namespace, config: "Config") -> int:
    from signer.checkpoint import KeyFile
    from signer.config import ConfigError, NoCredentials
    from signer.database import where
    from signer.restore import notes_of, restore

    database = where(config)
    assert isinstance(database, Path)
    try:
        spki = KeyFile.of(config.ledger).spki
    except NoCredentials:
        spki = None
        print("paraph restore: the checkpoint key is the service's alone: signatures of the anchors are not checked",
              file=sys.stderr)  # fmt: skip
    except ConfigError as error:
        print(f"paraph restore: {error}", file=sys.stderr)
        return CONFIG
    files = [each.file for each in config.ledger.anchor if each.file is not None]
    unread = [file for file in files if not file.is_file()]
    notes = notes_of([*files, *options.anchor])
    done = restore(options.file, database, notes, spki, options.reason.strip(), version("paraph"))
    _tell(done, database, unread)
    return OK


def _tell(done: "Restored", database: Path, unread: list[Path]) -> None:
    epoch, sequence = done.kept
    print(f"{database} is the backup, up to row {epoch}/{sequence}; epoch {done.epoch} has begun")
    for loss in done.losses:
        print(f"declared as lost: rows {loss.first} to {loss.last} of epoch {loss.epoch}")
    if not done.losses:
        print("nobody knows of a row that the backup lacks: nothing is declared as lost")
    if done.aside is not None:
        print(f"the old database is kept as evidence: {done.aside}")
    if done.carried is None:
        print("REQUESTS SINCE THE BACKUP ARE NOT KNOWN: the same request id again would be signed again. Tell callers "
              "not to send again what they sent before now.")  # fmt: skip
    else:
        print(
            f"{done.carried:,} requests since the backup were taken over from the old database: they are not signed again"
        )
    for file in unread:
        print(f"the anchor {file} is not there: what only that one knows was not looked at", file=sys.stderr)
