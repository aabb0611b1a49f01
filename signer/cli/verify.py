"""paraph verify: what the signatures in files prove, by the daemon's trust anchors."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from signer.cli import session
from signer.cli.exits import FAILED, OK, USAGE
from signer.cli.printable import printable
from signer.client import Client
from signer.v1 import signing_pb2 as pb

HELP = "verify the signatures in PDFs and CMS files"
EXAMPLE = "paraph verify contract-signed.pdf annex.csv.p7s"
_DETACHED = ".p7s"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument(
        "--content", type=Path, metavar="FILE", help="what a detached CMS signs (default: its name without .p7s)"
    )
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    pairs = [(path, options.content or _content_of(path)) for path in options.files]
    for path in (p for pair in pairs for p in pair if p is not None):
        if not path.is_file():
            print(f"paraph verify: there is no file {path}", file=sys.stderr)
            return USAGE
    return session.with_client(options, lambda client: _verify_all(client, options, pairs))


async def _verify_all(client: Client, options: argparse.Namespace, pairs: list[tuple[Path, Path | None]]) -> int:
    reports = [(path, await client.verify(path, content)) for path, content in pairs]
    if options.json:
        print(
            json.dumps(
                [{"file": str(path), "good": _good(report)} | _dict(report) for path, report in reports], indent=2
            )
        )
    else:
        for path, report in reports:
            _print(path, report)
    return OK if all(_good(report) for _, report in reports) else FAILED


def _good(report: Any) -> bool:
    """Every signature is valid, trusted, over a whole revision, and nothing forbidden came after."""
    fine = {pb.SignatureReport.NO_CHANGES, pb.SignatureReport.PERMITTED}
    return bool(report.signatures) and all(
        s.valid and s.trusted and s.covers != pb.SignatureReport.PARTIAL and s.changes_after in fine
        for s in report.signatures
    )


def _print(path: Path, report: Any) -> None:
    file, verdict = printable(str(path)), "good" if _good(report) else "NOT good"
    if not report.readable:
        print(f"{file}: cannot be read: {printable(report.problem)}")
        return
    if not report.signatures:
        print(f"{file}: not signed")
        return
    print(f"{file}: {verdict}")
    for each in report.signatures:
        words = [
            "valid" if each.valid else f"NOT valid ({each.reason})",
            "trusted" if each.trusted else f"not trusted ({each.trust_reason})",
            pb.SignatureReport.Coverage.Name(each.covers).lower().replace("_", " "),
            {
                pb.SignatureReport.NO_CHANGES: "unchanged since",
                pb.SignatureReport.PERMITTED: "permitted changes since",
                pb.SignatureReport.NOT_PERMITTED: "CHANGED since",
            }.get(each.changes_after, "changes unknown"),
        ]
        said = f"{each.profile} {each.algorithm} {each.time}: {', '.join(words)}"
        print(f"  {printable(each.subject)}\n    {printable(said)}")


def _dict(report: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(
        report, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # As sha256sum prints them; a certificate stays base64.
    found["input_sha256"] = report.input_sha256.hex()
    for shown, each in zip(found["signatures"], report.signatures, strict=True):
        shown["revision_sha256"] = each.revision_sha256.hex()
    return found


def _content_of(path: Path) -> Path | None:
    return path.with_suffix("") if path.suffix == _DETACHED else None
