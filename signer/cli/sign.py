"""paraph sign: sign files with a credential of the daemon; a person's own is asked for her codes or her PIN."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from signer.cli import exits, session
from signer.cli.exits import USAGE
from signer.cli.job import Job, jobs
from signer.cli.printable import printable
from signer.cli.session import UsageError
from signer.cli.signing import Signing
from signer.client import Client

HELP = "sign files: a PDF as PAdES, anything else as CAdES"
EXAMPLE = "paraph sign contract.pdf annex.csv --credential clerk -o signed/"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--credential", required=True, metavar="C", help="the credential's name")
    parser.add_argument(
        "-o", "--output-dir", type=Path, metavar="DIR", help="where to write (default: beside each file)"
    )
    parser.add_argument("--cades", action="store_true", help="CAdES for PDFs too")
    parser.add_argument(
        "--enveloping", action="store_true", help="CAdES with the file inside (.p7m), not beside (.p7s)"
    )
    parser.add_argument("--pss", action="store_true", help="RSA keys: RSASSA-PSS instead of PKCS#1 v1.5")
    parser.add_argument("--reason", default="", help="PDF: why it is signed")
    parser.add_argument("--location", default="", help="PDF: where it is signed")
    parser.add_argument("--force", action="store_true", help="write over what is there")
    parser.add_argument(
        "--override-final-try", action="store_true", help="your own token's PIN: even if it may be the last try"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    try:
        found = jobs(options)
    except UsageError as error:
        print(f"paraph sign: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"paraph sign: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    return session.with_client(options, lambda client: _run(client, options, found))


async def _run(client: Client, options: argparse.Namespace, found: list[Job]) -> int:
    credential = await client.credential(options.credential)
    signing = Signing(client, options, credential)
    try:
        await signing.sign(found)
    finally:  # what is signed is told, whatever came then
        rows = [signing.rows[job] for job in found if job in signing.rows]
        if rows:
            _print(options, rows)
    return exits.of_all(signing.exits)


def _print(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        if row["status"] != "SIGNED":
            print(printable(f"{row['file']}: not signed: {row['reason']}: {row['message']}"), file=sys.stderr)
        elif "token" in row:
            print(printable(f"{row['file']} -> {row['output']}  (token {row['token']}, {row['ms']} ms)"))
        else:
            print(printable(f"{row['file']} -> {row['output']}"))
