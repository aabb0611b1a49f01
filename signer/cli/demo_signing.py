"""Signing as any caller would: documents in turn by every credential and algorithm, and one burst of digests."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signer.cli.demo_steps import SCRIPTS, Advance, DemoFailed, Steps
from signer.client import Client, ServiceError, algorithms_for
from signer.v1 import signing_pb2 as pb

BURST_CREDENTIAL, BURST_DIGESTS = "ana-p-256", 2_000


@dataclass
class Row:
    """A document in the table."""

    document: str
    size: int  # bytes, before it was signed
    credential: str
    algorithm: str
    output: str
    source: Path = field(repr=False)
    signed: Path = field(repr=False)
    token: str = ""
    verified_by: list[str] = field(default_factory=list)
    ms: float = 0.0  # from its first bytes on their way to the signed file on the disk
    problem: str = ""


@dataclass(frozen=True)
class Burst:
    count: int
    seconds: float
    first: Path  # its first CMS, which is verified like the documents


async def sign_all(steps: Steps, directory: Path) -> tuple[list[Row], Burst]:
    """Every document, as many at once as the client sends, by every credential and algorithm in turn; then one burst of digests."""
    (directory / "signed").mkdir(exist_ok=True)
    async with Client.from_profile(directory / "client.toml") as client:
        credentials = {credential.name: credential for credential in await client.credentials()}
        rows = _plan(directory, list(credentials.values()))

        async def sign(row: Row, advance: Advance) -> None:
            await _sign_one(client, row)
            advance(row.document)

        with steps("signing", len(rows)) as advance:
            await asyncio.gather(*(sign(row, advance) for row in rows))
        with steps(f"{BURST_DIGESTS:,} digests", BURST_DIGESTS) as advance:
            burst = await _burst(client, credentials[BURST_CREDENTIAL], directory, advance)
    return rows, burst


def _plan(directory: Path, credentials: Sequence[Any]) -> list[Row]:
    """Which document is signed by whom: the credentials take turns, RSA keys with both of their schemes."""
    ways = [
        (credential.name, *algorithms_for(credential, pss=pss))
        for credential in credentials
        for pss in ((False, True) if credential.key_type.startswith("RSA") else (False,))
    ]
    documents = [*sorted((SCRIPTS / "corpus").glob("*.pdf")), directory / "ledger-of-the-mill.pdf"]
    targets = [(path, directory / "signed" / path.name, "PADES_B_B") for path in documents]
    text = SCRIPTS / "corpus" / "ORIGIN.md"
    targets += [(text, directory / "signed" / f"{text.name}{ending}", "CADES_B_B") for ending in (".p7s", ".p7m")]
    # Ed25519 is left to PDFs, so that each CMS file is one that openssl can verify.
    ways.sort(key=lambda way: way[2] == "ED25519", reverse=True)
    rows = []
    for number, (source, signed, output) in enumerate(targets):
        credential, digest, scheme = ways[number % len(ways)]
        size = source.stat().st_size
        rows.append(Row(signed.name, size, credential, f"{scheme}/{digest}", output, source, signed))
    return rows


async def _sign_one(client: Client, row: Row) -> None:
    scheme, digest = row.algorithm.split("/")
    sent_at: list[float] = []  # the client holds back what is too much at one time
    try:
        signed = await client.sign_file(
            row.credential,
            row.source,
            row.signed,
            output=row.output,
            digest_algorithm=digest,
            signature_algorithm=scheme,
            enveloping=row.signed.suffix == ".p7m",
            reason="Paraph demo" if row.output == "PADES_B_B" else "",
            progress=lambda _: sent_at.append(time.perf_counter()),
        )
    except ServiceError as error:
        row.problem = str(error)
        return
    row.ms = round((time.perf_counter() - sent_at[0]) * 1e3, 1)
    row.token = signed.token


async def _burst(client: Client, credential: Any, directory: Path, advance: Advance) -> Burst:
    """Digests as a portal sends them that keeps its documents to itself, as many a message as their CMS allow."""
    text = (SCRIPTS / "corpus" / "ORIGIN.md").read_bytes()
    digests = [hashlib.sha256(text if number == 0 else b"%d" % number).digest() for number in range(BURST_DIGESTS)]
    digest, scheme = algorithms_for(credential)
    size = min(credential.cms_digests_max, BURST_DIGESTS // 4)
    began = time.perf_counter()

    async def part(start: int) -> list[Any]:
        answer = await client.sign_digests(
            credential.name,
            digests[start : start + size],
            output="CADES_B_B",
            digest_algorithm=digest,
            signature_algorithm=scheme,
        )
        for item in answer.items:
            advance("")
            if item.status != pb.SIGNED:
                raise DemoFailed(f"a digest of the burst was not signed: {item.reason}")
        return list(answer.items)

    parts = await asyncio.gather(*(part(start) for start in range(0, len(digests), size)))
    seconds = time.perf_counter() - began
    first = directory / "signed" / "burst-first.p7s"
    first.write_bytes(parts[0][0].signature)
    return Burst(sum(map(len, parts)), seconds, first)
