"""What others say of the signatures: pdfsig and openssl, and pyHanko where those do not know the algorithm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from signer.cli.demo_signing import Burst, Row
from signer.cli.demo_steps import SCRIPTS, DemoFailed, Steps, script
from signer.client import Client
from signer.v1 import signing_pb2 as pb


async def verify_by_daemon(steps: Steps, directory: Path, rows: Sequence[Row]) -> None:
    """Ed25519, which neither pdfsig nor openssl's cms knows: pyHanko reads it, in the daemon's assembly process."""
    chosen = [row for row in rows if row.algorithm.startswith("ED25519") and not row.problem]
    async with Client.from_profile(directory / "client.toml") as client:
        with steps("verifying by pyHanko", len(chosen)) as advance:
            for row in chosen:
                report = await client.verify(row.signed)
                last = report.signatures[-1] if report.signatures else pb.SignatureReport()
                if last.valid and last.trusted and last.covers == pb.SignatureReport.WHOLE_FILE:
                    row.verified_by.append("pyHanko")
                else:
                    row.problem = f"pyHanko: {report.problem or last.reason or last.trust_reason}"
                advance(row.document)


async def verify_by_others(steps: Steps, directory: Path, rows: Sequence[Row], burst: Burst) -> None:
    """Everything else by programs that are not ours (check.py)."""
    chosen = [row for row in rows if not row.problem]
    text = str(SCRIPTS / "corpus" / "ORIGIN.md")
    jobs: list[dict[str, Any]] = [
        {
            "file": str(row.signed),
            "content": None if row.output == "PADES_B_B" else str(row.source),
            "ed25519": row.algorithm.startswith("ED25519"),
        }
        for row in chosen
    ]
    jobs.append({"file": str(burst.first), "content": text, "ed25519": False})
    with steps("verifying", len(jobs)) as advance:
        said = await script("check.py", directory / "pki", directory / "nss", text=json.dumps(jobs), advance=advance)
    *answers, of_burst = json.loads(said)
    for row, answer in zip(chosen, answers, strict=True):
        row.verified_by += answer["by"]
        row.problem = answer["problem"]
    if of_burst["problem"]:
        raise DemoFailed(f"the burst's first signature: {of_burst['problem']}")
