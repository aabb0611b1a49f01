"""paraph sign: sign files with a credential of the daemon."""

import argparse
import getpass
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from signer import person
from signer.cli import session
from signer.cli.exits import FAILED, OK, USAGE
from signer.client import Client, ServiceError, algorithms_for

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
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    try:
        jobs = [(source, _target(options, source), _is_pdf(options, source)) for source in options.files]
    except OSError as error:
        print(f"paraph sign: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    targets = [target for _, target, _ in jobs]
    for target in targets:
        if targets.count(target) > 1:
            print(f"paraph sign: two files would both be written to {target}", file=sys.stderr)
            return USAGE
        if target.exists() and not options.force:
            print(f"paraph sign: {target} exists; --force writes over it", file=sys.stderr)
            return USAGE
    return session.with_client(options, lambda client: _sign_all(client, options, jobs))


async def _sign_all(client: Client, options: argparse.Namespace, jobs: list[tuple[Path, Path, bool]]) -> int:
    credential = await client.credential(options.credential)
    digest, signature = algorithms_for(credential, pss=options.pss)
    allowed: dict[Path, dict[str, Any]] = {}
    if credential.gate.startswith("code"):
        allowed = await _allowed(client, options, credential, jobs, (digest, signature))
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        total = progress.add_task("signing", total=sum(source.stat().st_size for source, _, _ in jobs))
        for source, target, is_pdf in jobs:
            progress.update(total, description=source.name)
            began = time.perf_counter()
            row = {"file": str(source), "output": str(target)}
            try:
                signed = await client.sign_file(
                    options.credential,
                    source,
                    target,
                    output="PADES_B_B" if is_pdf else "CADES_B_B",
                    digest_algorithm=digest,
                    signature_algorithm=signature,
                    enveloping=options.enveloping and not is_pdf,
                    reason=options.reason if is_pdf else "",
                    location=options.location if is_pdf else "",
                    **allowed.get(source, {}),
                    progress=lambda count: progress.advance(total, count),
                )
                row |= {"status": "SIGNED", "token": signed.token, "time": signed.signing_time}
            except ServiceError as error:
                if not error.reason:
                    raise  # the daemon is gone, not this document bad
                row |= {"status": error.code, "reason": error.reason, "message": error.message}
            rows.append(row | {"ms": round((time.perf_counter() - began) * 1e3, 1)})
    _print(options, rows)
    return OK if all(row["status"] == "SIGNED" for row in rows) else FAILED


async def _allowed(
    client: Client,
    options: argparse.Namespace,
    credential: Any,
    jobs: list[tuple[Path, Path, bool]],
    algorithms: tuple[str, str],
) -> dict[Path, dict[str, Any]]:
    """
    What each file is signed with, once the person has seen what it is and typed her codes: one authorisation for those
    that become PAdES, and one for those that become CAdES.
    """
    if not sys.stdin.isatty():
        raise ServiceError(
            "", "this credential signs with a person's codes, typed at a terminal", "FAILED_PRECONDITION"
        )
    found: dict[Path, dict[str, Any]] = {}
    code = ""
    for output in ("PADES_B_B", "CADES_B_B"):
        sources = [source for source, _, is_pdf in jobs if is_pdf == (output == "PADES_B_B")]
        if not sources:
            continue
        shown = [person.Shown.of(source) for source in sources]
        print(f"{credential.subject} signs with {credential.name}, as {output}:", file=sys.stderr)
        for file in shown:
            print(f"  {file.name}  {file.size:,} bytes  SHA-256 {file.sha256.hex()[:16]}...", file=sys.stderr)
        names = {"digest_algorithm": algorithms[0], "signature_algorithm": algorithms[1]}
        terms = person.terms(options.credential, shown, output=output, **names)
        if credential.gate == "code+sent-otp":
            sent = await person.request_otp(client, terms)
            print(f"A one-time code was sent to {sent.contact}; it names {sent.short_digest}.", file=sys.stderr)
        code = code or getpass.getpass("Secret code: ")
        otp = getpass.getpass("One-time code: ")
        reference = await person.authorise(client, terms, code, otp)
        request_id = str(uuid.uuid4())
        for index, source in enumerate(sources):
            found[source] = {"authorisation": reference, "request_id": request_id, "index": index}
    return found


def _print(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        if row["status"] == "SIGNED":
            print(f"{row['file']} -> {row['output']}  (token {row['token']}, {row['ms']} ms)")
        else:
            print(f"{row['file']}: not signed: {row['reason']}: {row['message']}", file=sys.stderr)


def _is_pdf(options: argparse.Namespace, source: Path) -> bool:
    """By content, not by name: the first bytes of a PDF (ISO 32000-1, 7.5.2)."""
    with source.open("rb") as file:
        return not options.cades and not options.enveloping and b"%PDF-" in file.read(1024)


def _target(options: argparse.Namespace, source: Path) -> Path:
    directory = options.output_dir or source.parent
    directory.mkdir(parents=True, exist_ok=True)
    if _is_pdf(options, source):
        name = source.name if options.output_dir else f"{source.stem}-signed{source.suffix}"
    else:
        name = source.name + (".p7m" if options.enveloping else ".p7s")
    target: Path = directory / name
    if target.exists() and target.samefile(source):
        target = directory / f"{source.stem}-signed{source.suffix}"
    return target
