"""paraph audit keys: make the keys that a ledger needs, or say which a daemon has."""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from signer.appearing import appearing
from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, USAGE

if TYPE_CHECKING:
    from signer.config import Ledger

HELP = "make the keys that a ledger needs; without a directory, say which a daemon has and where they are"
_NAMES = ("checkpoint.key", "checkpoint.pub", "data.key")
_DATA_KEY_BYTES = 32  # AES-256
_MADE = """\
{directory}/checkpoint.key  signs checkpoints. For the daemon alone: checkpoint_key or checkpoint_key_credential in [ledger]
{directory}/checkpoint.pub  what auditors check them with: give it to them now, on a way of its own
{directory}/data.key        encrypts what is kept for a day. For the daemon alone: data_key_file or data_key_credential
Keep a copy of both keys where backups of the database are not. Who has checkpoint.key can write the ledger anew.
A key on a token cannot be copied: with checkpoint_token in [ledger] the first two are not needed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument(
        "directory", metavar="DIRECTORY", nargs="?", type=Path, help="where to put new ones; made if it is not there"
    )


def run(options: argparse.Namespace) -> int:
    return _tell(options) if options.directory is None else _make(options.directory)


def _tell(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from pool.public import key_type
    from signer.checkpoint_key import spki_of
    from signer.config import ConfigError, NoCredentials
    from signer.note import key_id

    ledger = config.ledger
    try:
        spki = spki_of(ledger)
    except NoCredentials:
        print(f"checkpoints  a key {_place(ledger)}, which is the service's alone: it was not looked at")
    except ConfigError as error:
        print(f"paraph audit: {error}", file=sys.stderr)
        return CONFIG
    else:
        print(f"checkpoints  key {key_id(spki)}, {key_type(spki)}, {_place(ledger)}")
    data = ledger.data_key_file or f"the credential {ledger.data_key_credential}"
    print(f"results      a key for AES-256-GCM, in {'the file ' if ledger.data_key_file else ''}{data}")
    return OK


def _place(ledger: "Ledger") -> str:
    """Where the key of checkpoints is."""
    if ledger.checkpoint_key is not None:
        return f"in the file {ledger.checkpoint_key}"
    if ledger.checkpoint_token is None:
        return f"in the credential {ledger.checkpoint_key_credential}"
    label, id_ = ledger.checkpoint_key_label, ledger.checkpoint_key_id
    found = [f"label {label!r}"] if label is not None else []
    found += [f"id {id_.lower()}"] if id_ is not None else []
    return f"on token {ledger.checkpoint_token} ({', '.join(found)}); its public half is {ledger.checkpoint_public_key}"


def _make(directory: Path) -> int:
    # Late imports: the client's installation has none of them.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    there = [directory / name for name in _NAMES if os.path.lexists(directory / name)]
    if there:
        print(f"paraph audit: {there[0]} exists and is not written over; give another directory", file=sys.stderr)
        return USAGE
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        contents = private, public, os.urandom(_DATA_KEY_BYTES)
        with contextlib.ExitStack() as stack:  # all are written before one gets its name
            for name, content, mode in zip(_NAMES, contents, (0o400, 0o444, 0o400), strict=True):
                stack.enter_context(appearing(directory / name, mode)).write_bytes(content)
    except OSError as error:
        print(f"paraph audit: {directory}: {error.strerror}", file=sys.stderr)
        return FAILED
    print(_MADE.format(directory=directory))
    return OK
