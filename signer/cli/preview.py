"""What a person is about to sign, shown before she is asked for anything."""

from collections.abc import Sequence
from typing import Any

from signer.cli.job import Job
from signer.cli.printable import printable
from signer.cli.prompt import tell
from signer.person import Shown

_FORMS = {"PADES_B_B": "PAdES, the signature in the PDF", "CADES_B_B": "CAdES, the signature in a file of its own"}


def show(credential: Any, jobs: Sequence[Job]) -> list[Shown]:
    """Files of one output; what was shown of each is what she allows."""
    count = "1 file" if len(jobs) == 1 else f"{len(jobs)} files"
    tell(f"{printable(credential.subject)} signs {count} with {credential.name} ({_FORMS[jobs[0].output]}):")
    shown = [Shown.of(job.source) for job in jobs]
    for number, file in enumerate(shown, 1):
        tell(f"{number:3}. {printable(file.name)}  {file.size:,} bytes\n     SHA-256 {file.sha256.hex()}")
    return shown
