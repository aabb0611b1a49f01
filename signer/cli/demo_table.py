"""What the demo prints at its end: a row for each document, what it all took, and what to do next."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from signer.cli.demo_signing import BURST_CREDENTIAL, Burst, Row

SCHEMES = {"RSA_PKCS1_V15": "v1.5", "RSA_PSS": "PSS", "ECDSA": "", "ED25519": ""}  # what the key's name does not say


def show(directory: Path, rows: Sequence[Row], burst: Burst, seconds: float) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=100)
    table = Table(box=None, padding=(0, 1, 0, 0))
    lines = [_line(row) for row in rows]
    names = ("document", "size", "credential", "token", "verified by", "ms")
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    # On a narrow terminal it is the names of documents that are cut.
    widths[0] = max(12, min(widths[0], console.width - sum(widths[1:]) - len(widths)))
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, no_wrap=True, width=width, justify="right" if name in {"size", "ms"} else "left")
    for row, line in zip(rows, lines, strict=True):
        table.add_row(*line, style="red" if row.problem else "")
    print()
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"[red]{row.document}: {escape(row.problem)}[/]", soft_wrap=True)
    shown = Path(os.path.relpath(directory))
    paraph = Path(os.path.relpath(Path(sys.executable).with_name("paraph")))
    good = sum(not row.problem for row in rows)
    print(
        f"""
{good} of {len(rows)} documents signed and verified; {burst.count:,} digests more with {BURST_CREDENTIAL}: \
{burst.count / burst.seconds:,.0f} a second.
{seconds:.1f} s in all. Signed files: {shown / "signed"}   the daemon's log: {shown / "daemon.log"}
pdfsig and openssl's cms do not know Ed25519: pyHanko read it in the daemon, and cryptography in deploy/demo/check.py.

The "card" here is software, and sits in the server's reader. Its keys are seals: every allowed caller
signs with them, and nobody is asked for a PIN. Nothing here is a legal signature.

Once more by hand, in two terminals:
  {paraph} serve --config {shown / "paraph.toml"}
  {paraph} sign FILE --credential {BURST_CREDENTIAL} --profile {shown / "client.toml"}"""
    )


def _line(row: Row) -> tuple[str, ...]:
    way = f"{row.credential} {SCHEMES[row.algorithm.split('/')[0]]}"
    verdict = "NOT VERIFIED" if row.problem else ", ".join(row.verified_by)
    return row.document.removesuffix(".pdf"), _size(row.size), way.rstrip(), row.token, verdict, f"{row.ms:.0f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
