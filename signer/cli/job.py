"""What becomes of each file of `paraph sign`: where its signature goes, and in which form."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signer.cli.session import UsageError

OUTPUTS = ("PADES_B_B", "CADES_B_B")  # in the order in which they are signed where one needs a word of its own


@dataclass(frozen=True, slots=True)
class Job:
    source: Path
    target: Path
    output: str  # of OUTPUTS

    @property
    def row(self) -> dict[str, Any]:
        """What is told of it, whatever becomes of it."""
        return {"file": str(self.source), "output": str(self.target)}


def jobs(options: argparse.Namespace) -> list[Job]:
    """Raises `UsageError` before anything would be written over, and OSError for a file that cannot be read."""
    found = [_job(options, source) for source in options.files]
    targets = [job.target for job in found]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two files would both be written to {target}")
        if target.exists() and not options.force:
            raise UsageError(f"{target} exists; --force writes over it")
    return found


def _job(options: argparse.Namespace, source: Path) -> Job:
    """A PDF by content, not by name: the first bytes of one (ISO 32000-1, 7.5.2)."""
    with source.open("rb") as file:
        is_pdf = not options.cades and not options.enveloping and b"%PDF-" in file.read(1024)
    directory = options.output_dir or source.parent
    directory.mkdir(parents=True, exist_ok=True)
    if is_pdf:
        name = source.name if options.output_dir else f"{source.stem}-signed{source.suffix}"
    else:
        name = source.name + (".p7m" if options.enveloping else ".p7s")
    target: Path = directory / name
    if target.exists() and target.samefile(source):
        target = directory / f"{source.stem}-signed{source.suffix}"
    return Job(source, target, "PADES_B_B" if is_pdf else "CADES_B_B")
