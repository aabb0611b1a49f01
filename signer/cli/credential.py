"""paraph credential: what the daemon may sign with. Works on the daemon's store, on its machine."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signer.cli.exits import CONFIG, FAILED, OK, UNAVAILABLE
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.config import Config
    from signer.gate import Gate

HELP = "list, add, remove, suspend or resume credentials"
EXAMPLE = "paraph credential add clerk --certificate clerk.pem --key-label clerk-2026 --output PADES_B_B"
TRIES, TRY_S = 5, 2.0  # to have the daemon put it in force
LOOK_S = 0.05


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("/etc/paraph/paraph.toml"), help="(default: %(default)s)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("list", help="what there is")
    show.add_argument("--json", action="store_true", help="print as JSON")
    add = actions.add_parser("add", help="add one; its purpose is its certificate's")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--certificate", required=True, type=Path, metavar="PEM", help="the chain, the signer's first")
    add.add_argument("--key-label", metavar="LABEL", help="the key's CKA_LABEL on its token")
    add.add_argument("--key-id", metavar="HEX", help="the key's CKA_ID on its token")
    add.add_argument(
        "--output", action="append", default=[], choices=["RAW", "CADES_B_B", "PADES_B_B"], help="what it may make"
    )
    add.add_argument("--gate", default="caller", help="what a signature needs: caller, token-pin, code+totp, ...")
    add.add_argument("--subject", default="", metavar="S", help="whose it is; not with the gate caller")
    add.add_argument("--digests-max", type=int, default=0, metavar="N", help="the most digests of one authorisation")
    add.add_argument(
        "--lifetime", type=int, default=120, metavar="S", help="of an authorisation (default: %(default)s)"
    )
    add.add_argument("--hours", default="", metavar="HH-HH", help="when it may be used, UTC")
    add.add_argument("--claimed", action="store_true", help="it signs digests of documents not seen by the daemon, too")
    for name, text in (
        ("remove", "forget one"),
        ("suspend", "refuse to sign with it"),
        ("resume", "sign with it again"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", metavar="NAME")
    for action in actions.choices.values():  # where people look for it, too
        action.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="as before the action")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of them.
    from signer import config as configs
    from signer.config import ConfigError
    from signer.credential import CredentialError
    from signer.database import StoreError

    try:
        config = configs.load(options.config)
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"{error.path}: {mistake}", file=sys.stderr)
        return CONFIG
    try:
        return _list(options, config) if options.action == "list" else _change(options, config)
    except ConfigError as error:
        print(f"paraph credential: {error}", file=sys.stderr)
        return CONFIG
    except (CredentialError, StoreError) as error:
        print(printable(f"paraph credential: {error}"), file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"paraph credential: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return FAILED


def _list(options: argparse.Namespace, config: "Config") -> int:
    from rich.markup import escape  # late: the other actions draw no table
    from rich.table import Table

    from signer import credential as rows
    from signer.cli.console import for_tables
    from signer.clock import rfc3339
    from signer.database import where
    from signer.store import open_store

    found = rows.read(open_store(where(config))).values()
    records: list[dict[str, Any]] = [
        {
            "name": c.name,
            "purpose": c.purpose.value,
            "state": c.state.value,
            "key": c.key_type,
            "key_label": c.key.label,
            "outputs": sorted(c.outputs),
            "gate": c.gate.value,
            "person": c.subject,
            "subject": c.x509.subject.rfc4514_string(),
            "not_after": rfc3339(c.x509.not_valid_after_utc),
            "key_id": c.key.ref,
        }
        for c in found
    ]
    if options.json:
        print(json.dumps(records, indent=2))
        return OK
    names = ("name", "purpose", "state", "gate", "person", "key", "outputs", "valid to", "subject")
    table = Table(*names, box=None, pad_edge=False)
    for r in records:
        outputs = " ".join(r["outputs"] or ["-"])
        who = (r["gate"], r["person"] or "-")
        cells = (r["name"], r["purpose"], r["state"], *who, r["key"], outputs, r["not_after"], r["subject"])
        table.add_row(*(escape(printable(cell)) for cell in cells))
    for_tables().print(table)
    return OK


def _change(options: argparse.Namespace, config: "Config") -> int:
    from signer import checkpoint_key
    from signer import credential as rows
    from signer.clock import Clock
    from signer.database import where
    from signer.gate import Bounds
    from signer.store import open_store

    engine, clock = open_store(where(config)), Clock()
    if options.action == "add":
        # A key in a file may not be this user's to read; the daemon looks at its start.
        is_on_token = config.ledger.checkpoint_token is not None
        reserved = checkpoint_key.spki_of(config.ledger) if is_on_token else b""
        cka_id = None
        if options.key_id is not None:
            try:
                cka_id = bytes.fromhex(options.key_id)
            except ValueError:
                raise rows.CredentialError("--key-id is hexadecimal") from None
        before = rows.read(engine).get(options.name)
        added = rows.add(
            engine,
            options.name,
            options.certificate.read_bytes(),
            cka_id=cka_id,
            key_label=options.key_label,
            outputs=[rows.Output(output) for output in options.output],
            clock=clock,
            reserved=reserved,
            gate=_gate(options.gate),
            subject=options.subject,
            bounds=Bounds(options.digests_max, options.lifetime, options.hours, options.claimed),
        )
        said = "" if before is None else " (as before)" if before == added else " (replaced: outputs and bounds)"
        print(f"{added.name}: {added.purpose.value.lower()}, {added.key_type}{said}")
    elif options.action == "remove":
        groups = [group.name for group in config.group if options.name in group.members]
        if groups:
            said = f"{options.name} is a member of {', '.join(groups)}: take it out of [[group]] and reload, then remove it"
            raise rows.CredentialError(said)
        rows.remove(engine, options.name, clock)
    else:
        wanted = rows.State.SUSPENDED if options.action == "suspend" else rows.State.ACTIVE
        rows.set_state(engine, options.name, wanted, clock)
    return _tell_daemon(config.server.state, lambda: rows.fingerprint(rows.read(engine)))


def _gate(name: str) -> "Gate":
    from signer.credential import CredentialError
    from signer.gate import Gate

    try:
        return Gate(name)
    except ValueError:
        raise CredentialError(f"there is no gate {name!r}; there are {', '.join(Gate)}") from None


def _tell_daemon(state: Path, stored: Callable[[], bytes]) -> int:
    """
    A running daemon, which holds a lock on the file with its process id, reads its credentials again; answered when it
    says that those that are `stored` are in force. It is told more than once, because one that is starting does not listen.
    """
    from signer.credential import IN_FORCE

    try:
        holders, pid = _lock_holders(state / "lock"), (state / "lock").read_text()
    except FileNotFoundError:
        holders, pid = set(), ""
    except OSError as error:
        return _not_known(f"{state / 'lock'}: {error.strerror}")
    if pid not in holders:
        print(f"no daemon is seen to use {state}: this is in force from its next start on", file=sys.stderr)
        return OK
    for _ in range(TRIES):
        wanted = stored()
        try:
            os.kill(int(pid), signal.SIGHUP)
            until = time.monotonic() + TRY_S
            while time.monotonic() < until:
                with contextlib.suppress(FileNotFoundError):
                    if (state / IN_FORCE).read_bytes() == wanted:
                        print(f"the daemon (process {pid}) was told, and has it in force", file=sys.stderr)
                        return OK
                time.sleep(LOOK_S)
        except OSError as error:
            return _not_known(f"process {pid}: {error.strerror}")
    return _not_known(f"process {pid} has not said so within {TRIES * TRY_S:g} s")


def _not_known(why: str) -> int:
    print(
        f"paraph credential: it is stored, but NOT KNOWN TO BE IN FORCE ({why}): the daemon may go on as before. See its log, "
        "and have it reload or restart it",
        file=sys.stderr,
    )
    return UNAVAILABLE


def _lock_holders(path: Path) -> set[str]:
    """Process ids that hold a lock on a file (proc(5), /proc/locks): a stale id must not be sent a signal."""
    inode = path.stat().st_ino
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return {row[4] for row in rows if row[5].rsplit(":", 1)[-1] == str(inode)}
