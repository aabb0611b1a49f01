"""paraph restore: an older state in the place of the daemon's database, and what it lacks declared as lost."""

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, TEMPORARY, USAGE
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.config import Config
    from signer.restore import Restored

HELP = "put an older state of a stopped daemon's database in its place, and declare what is lost"
EXAMPLE = "paraph restore --reason disk-failed-on-Monday /mnt/backups/paraph-monday.sqlite"
_SQLITE = """\
paraph restore: give FILE, what `paraph backup` has written: this daemon's ledger is in SQLite, and its database is
replaced by that file."""
_POSTGRESQL = """\
paraph restore: this daemon's ledger is in PostgreSQL, which takes no FILE. Recover the server to its last commit (write-
ahead log archive, or a standby), and nothing is lost. Where that cannot be, put an older state back with its own tools
(pg_restore), and run this command without FILE: it declares what is lost."""
_NOTHING = """\
paraph restore: no anchor names a row that the database lacks: nothing is lost as far as anybody knows, and nothing was
declared. Start the daemon. What a log server or a webhook has kept is looked at with --anchor FILE."""
_NOT_KNOWN = """\
NOT KNOWN any more: what was signed from {since} to {until}. Request ids that say
when they were made (version 7, as our client makes them) are burnt: until a day later one from before is refused with
REQUEST_BURNT. Other ids, random ones, cannot be told from new ones: the same one again would be signed anew. Tell callers
that use such ids not to send again what they sent in that time."""
_KNOWN = """\
requests since {since} that were taken over from the old database: {carried:,}. The same request id
again gets the answer of then, and is not signed again."""
_CREDENTIALS = """\
credentials and people are as they were at {since}: what was suspended, locked or removed since may be
active again. Look at `paraph credential list` before you start the daemon, and at `paraph subject list` after it."""
_OTHERS = "each other daemon on this database has lost rows, too: run this with its configuration, on its host"


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why rows are lost; it stays in the ledger")
    parser.add_argument("--key", type=Path, metavar="PEM", help="checkpoint.pub, where this user cannot read the key")
    configured.more_anchors(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help="what `paraph backup` has written; none with PostgreSQL, whose own tools have put the older state back",
    )


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from signer.database import StoreError, where
    from signer.entry import Failed
    from signer.exclusive import AlreadyRunning, hold_state, hold_tokens
    from signer.recovery import Broken
    from signer.restore import Halfway

    wrong = _wrong(options, config)
    if wrong:
        print(wrong, file=sys.stderr)
        return USAGE
    try:
        let_go = [hold_state(config.server.state), hold_tokens(config.token)]
    except AlreadyRunning as error:
        print(f"paraph restore: {error}; stop it first", file=sys.stderr)
        return TEMPORARY
    try:
        return _restore(options, config)
    except Halfway as error:
        print(printable(f"paraph restore: {error}"), file=sys.stderr)
        return FAILED
    except (Broken, StoreError, Failed, OSError) as error:
        is_sqlite = isinstance(where(config), Path)
        state = "The daemon's database is as it was" if is_sqlite else "Nothing was declared as lost"
        print(printable(f"paraph restore: {error}. {state}"), file=sys.stderr)
        return FAILED
    finally:
        for each in let_go:
            each()


def _wrong(options: argparse.Namespace, config: "Config") -> str:
    """What is wrong with the command line here; empty if nothing."""
    from signer.database import INSTANCE, where

    state, is_sqlite = config.server.state, isinstance(where(config), Path)
    if is_sqlite and options.file is None:
        return _SQLITE
    if not is_sqlite and options.file is not None:
        return _POSTGRESQL
    if not options.reason.strip():
        return "paraph restore: --reason is empty; say why rows are lost, an auditor reads it"
    missing = [path for path in (options.file, *options.anchor) if path is not None and not path.is_file()]
    if missing:
        return f"paraph restore: there is no file {missing[0]}"
    if state.exists() and state.stat().st_uid != os.geteuid():  # else the daemon could not read what is put there
        return f"paraph restore: {state} is not this user's; run it as {state.owner()}"
    if not is_sqlite and not (state / INSTANCE).is_file():
        return (
            f"paraph restore: there is no file {state / INSTANCE}, which says whose chain is this daemon's; put it back"
        )
    return ""


def _restore(options: argparse.Namespace, config: "Config") -> int:
    from pool.public import spki_of_pem
    from signer.checkpoint_key import spki_of
    from signer.config import ConfigError
    from signer.database import database_at, where
    from signer.lost import notes_of
    from signer.restore import declare_in_place, restore
    from signer.store import open_store

    place = where(config)
    try:
        spki = spki_of_pem(options.key.read_bytes()) if options.key else spki_of(config.ledger)
    except (ConfigError, OSError, ValueError) as error:
        print(f"paraph restore: {error}; --key takes checkpoint.pub, which says whether an anchor's checkpoints are this "
              "daemon's", file=sys.stderr)  # fmt: skip
        return CONFIG
    files = [each.file for each in config.ledger.anchor if each.file is not None]
    is_all = bool(options.anchor) or len(files) == len(config.ledger.anchor)
    unread = [file for file in files if not file.is_file()]
    notes, reason = notes_of([*files, *options.anchor]), options.reason.strip()
    if isinstance(place, Path):
        done = restore(options.file, place, notes, spki, reason, version("paraph"), is_all=is_all)
    else:
        open_store(place).dispose()
        database = database_at(place, config.server.state)
        in_place = declare_in_place(database, place, notes, spki, reason, version("paraph"), is_all=is_all)
        if in_place is None:
            _tell_unread(unread)
            print(_NOTHING, file=sys.stderr)
            return FAILED
        done = in_place
    _tell(done, place)
    _tell_unread(unread)
    return OK


def _tell(done: "Restored", place: "Path | str") -> None:
    epoch, sequence = done.kept
    since, until = printable(done.since), printable(done.until)  # as rows of the older state have them
    is_backup = isinstance(place, Path)
    print(f"{place} {'is the backup, up to' if is_backup else 'ends with'} row {epoch}/{sequence} of {since}; "
          f"epoch {done.epoch} has begun")  # fmt: skip
    for loss in done.losses:
        print(f"declared as lost: rows {loss.first} to {loss.last} of epoch {loss.epoch}")
    if not done.losses:
        print("nobody knows of a row that the backup lacks: nothing is declared as lost")
    if done.aside is not None:
        print(f"the old database is kept as evidence: {done.aside}")
    if done.trouble:
        print(done.trouble)
    requests = _NOT_KNOWN if done.carried is None else _KNOWN
    print(requests.format(carried=done.carried, since=since, until=until))
    print(_CREDENTIALS.format(since=since))
    if not is_backup:
        print(_OTHERS)


def _tell_unread(files: list[Path]) -> None:
    for file in files:
        print(f"the anchor {file} is not there: what only that one knows was not looked at", file=sys.stderr)
