"""
paraph demo: tokens, a CA, a daemon, real documents signed and verified by others' programs; all of it under var/demo.

What touches PKCS#11, the CA's keys or the verifying programs are scripts in deploy/demo, each in a process of its own;
this file puts the parts in order, and demo_*.py beside it are the parts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from signer.cli import session
from signer.cli.demo_daemon import log_tail, running
from signer.cli.demo_setting import lock, prepare
from signer.cli.demo_signing import sign_all
from signer.cli.demo_steps import REPOSITORY, SCRIPTS, DemoFailed, Steps
from signer.cli.demo_table import show
from signer.cli.demo_verdicts import verify_by_daemon, verify_by_others
from signer.cli.exits import FAILED, OK, USAGE
from signer.client import ServiceError

HELP = "sign real documents with three software tokens, and have others verify them"
EXAMPLE = "paraph demo"

PROGRAMS = {"softhsm2-util": "softhsm2", "pdfsig": "poppler-utils", "certutil": "libnss3-tools", "openssl": "openssl"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        type=Path,
        default=REPOSITORY / "var" / "demo",
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(options: argparse.Namespace) -> int:
    if not SCRIPTS.is_dir():
        print("paraph demo: runs from a clone of the repository: it needs deploy/demo", file=sys.stderr)
        return USAGE
    missing = sorted(PROGRAMS[program] for program in PROGRAMS if shutil.which(program) is None)
    if missing:
        print(f"paraph demo: install {', '.join(missing)} first; `make demo` does it with apt-get", file=sys.stderr)
        return USAGE
    os.umask(0o077)  # PINs, keys and documents are for the user who runs this
    options.directory = options.directory.absolute()
    try:
        return asyncio.run(_main(options))
    except DemoFailed as error:
        print(f"paraph demo: {error}", file=sys.stderr)
    except ServiceError as error:
        print(f"paraph demo: {session.say(error)}\n{log_tail(options.directory)}", file=sys.stderr)
    except asyncio.CancelledError:
        print("paraph demo: stopped", file=sys.stderr)
    return FAILED


async def _main(options: argparse.Namespace) -> int:
    # SIGTERM and a closed terminal end the demo as Ctrl-C does: the daemon is stopped first.
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    began = time.perf_counter()
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        lock(stack, directory / "demo.lock", "another demo is at work")
        steps = stack.enter_context(Steps())
        await prepare(steps, directory)
        async with running(steps, directory):
            rows, burst = await sign_all(steps, directory)
            await verify_by_daemon(steps, directory, rows)
        await verify_by_others(steps, directory, rows, burst)
    if options.json:
        hidden = {"source", "signed"}
        print(json.dumps([{k: v for k, v in asdict(row).items() if k not in hidden} for row in rows], indent=2))
    else:
        show(directory, rows, burst, time.perf_counter() - began)
    return FAILED if any(row.problem for row in rows) else OK
