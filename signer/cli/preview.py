"""What a person is about to sign, shown before she is asked for anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from signer.cli.prompt import tell
from signer.person import Shown

_FORMS = {"PADES_B_B": "PAdES, the signature in the PDF", "CADES_B_B": "CAdES, the signature in a file of its own"}


def show(credential: Any, files: Sequence[Shown], output: str) -> None:
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    tell(f"{credential.subject} signs {count} with {credential.name} ({_FORMS[output]}):")
    for number, file in enumerate(files, 1):
        tell(f"{number:3}. {_harmless(file.name)}  {file.size:,} bytes\n     SHA-256 {file.sha256.hex()}")


def shown(sources: Sequence[Path]) -> list[Shown]:
    return [Shown.of(source) for source in sources]


def _harmless(name: str) -> str:
    """A file may be named so that a terminal shows something else: control characters, and marks that turn the line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
