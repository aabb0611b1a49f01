"""paraph otp: the key that seeds, and messages that wait, are encrypted with: made, and changed."""

import argparse
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from signer.appearing import appearing
from signer.cli.exits import CONFIG, FAILED, OK
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.config import Config

HELP = "make the key of people's seeds, or change it"
EXAMPLE = "paraph otp key /etc/paraph/seeds.key"
KEY_BYTES = 32


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    key = actions.add_parser("key", help="make a key: 32 random bytes in a file of mode 0400")
    key.add_argument("file", metavar="FILE", type=Path)
    rekey = actions.add_parser(
        "rekey",
        help="encrypt all seeds, and messages that wait, with the configured key instead of an older one; daemon stopped",
    )
    rekey.add_argument("old", metavar="OLD-KEY-FILE", type=Path)
    rekey.add_argument("--config", type=Path, default=Path("/etc/paraph/paraph.toml"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    return _make(options.file) if options.action == "key" else _rekey(options)


def _make(path: Path) -> int:
    try:
        with appearing(path, 0o400) as draft:
            draft.write_bytes(secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        print(f"paraph otp: {path}: {error.strerror}", file=sys.stderr)
        return FAILED
    print(f"{path}: keep a copy where the database's copies are not; without it people must be enrolled again")
    return OK


def _rekey(options: argparse.Namespace) -> int:
    from signer import config as configs
    from signer.config import ConfigError
    from signer.database import StoreError
    from signer.exclusive import AlreadyRunning
    from signer.otp import SeedError
    from signer.queued import RowUnreadable

    try:
        config = configs.load(options.config)
        if config.people is None:
            raise ConfigError(options.config, ["people: is missing: nobody has a seed"])
        new, old = config.people.seed_key(), options.old.read_bytes()
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"{error.path}: {mistake}", file=sys.stderr)
        return CONFIG
    except OSError as error:
        print(f"paraph otp: {options.old}: {error.strerror}", file=sys.stderr)
        return FAILED
    try:
        seeds, messages = _changed(config, old, new)
    except (AlreadyRunning, StoreError, SeedError, RowUnreadable, ValueError) as error:
        print(printable(f"paraph otp: {error}; nothing was changed"), file=sys.stderr)
        return FAILED
    print(f"encrypted with the configured key now: seeds {seeds}, messages that wait {messages}")
    return OK


def _changed(config: "Config", old: bytes, new: bytes) -> tuple[int, int]:
    """All in one transaction; answers how many seeds and messages."""
    from signer import queued, subject
    from signer.database import where
    from signer.exclusive import hold_state
    from signer.otp import Seeds
    from signer.people import derived
    from signer.store import open_store

    before, after = (Seeds(derived(key, "seeds")) for key in (old, new))
    release = hold_state(config.server.state)
    try:
        engine = open_store(where(config))
        with engine.begin() as connection:
            seeds = subject.rekey(connection, before, after)
            return seeds, queued.rekey(connection, derived(old, "messages"), derived(new, "messages"))
    finally:
        release()
