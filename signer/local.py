"""
Local documents, signed while only digests travel: the service never sees them.

    async with Client.from_profile(Path("var/demo/client.toml")) as client:
        await sign_pdf(client, await client.credential("ana-p-256"), Path("contract.pdf"), Path("contract-signed.pdf"))

A PDF is prepared and finished here by the same code as in the daemon. It is *not* in a limited process: open only PDFs
whose author you trust as much as the program that runs this. Needs the extra `pdf`.
"""

import asyncio
import hashlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asn1crypto import algos, x509
from pyhanko.sign.signers import Signer
from pyhanko_certvalidator.registry import SimpleCertificateStore

from signer import gap, pades
from signer.client import Client, algorithms_for
from signer.trust import PdfProblem
from signer.whole import whole

__all__ = ["PdfProblem", "RemoteSigner", "sign_file", "sign_pdf"]


async def sign_pdf(
    client: Client,
    credential: Any,
    source: Path,
    target: Path,
    *,
    pss: bool = False,
    reason: str = "",
    location: str = "",
) -> None:
    """
    PAdES B-B. `credential` is what `client.credential()` answered. `target` appears whole or not at all.

    Raises `PdfProblem` for a PDF that cannot be signed, `ServiceError` for what the service refuses.
    """
    digest_algorithm, signature_algorithm = algorithms_for(credential, pss=pss)
    wishes = pades.Wishes(
        certificate=_chain_of(credential)[0],
        digest=digest_algorithm.lower(),
        cms_bytes_max=credential.cms_bytes_max,
        time=datetime.now(UTC).replace(microsecond=0),
        file_id=os.urandom(32),
        reason=reason,
        location=location,
    )
    with whole(target) as file:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)
        prepared = await asyncio.to_thread(pades.prepare, file, wishes)
        cms = await client.sign_digest(
            credential.name,
            prepared.content_digest,
            output="PADES_B_B",
            digest_algorithm=digest_algorithm,
            signature_algorithm=signature_algorithm,
        )
        gap.finish(prepared, cms, file)


async def sign_file(client: Client, credential: Any, source: Path, target: Path, *, pss: bool = False) -> None:
    """Detached CAdES B-B over any file, into `target`, which appears whole or not at all."""
    digest_algorithm, signature_algorithm = algorithms_for(credential, pss=pss)
    digest = await asyncio.to_thread(_digest, source, digest_algorithm.lower())
    cms = await client.sign_digest(
        credential.name,
        digest,
        output="CADES_B_B",
        digest_algorithm=digest_algorithm,
        signature_algorithm=signature_algorithm,
    )
    with whole(target) as file:
        file.write(cms)


def _chain_of(credential: Any) -> Any:
    """Raises ValueError for a group: what is prepared here is for one certificate, and who signs is not known yet."""
    if not credential.certificates:
        raise ValueError(f"{credential.name} is a group: name one of its members, or let the service sign the document")
    return credential.certificates


class RemoteSigner(Signer):  # type: ignore[misc]  # pyHanko's types are not read
    """
    pyHanko's own `Signer`, with the key in the service: for what pyHanko does and Paraph does not.

    pyHanko builds the signed attributes; the credential must therefore allow RAW. `credential` is what
    `client.credential()` answered; Ed25519 keys are not for this class, because their RAW takes messages.
    """

    def __init__(self, client: Client, credential: Any, *, pss: bool = False) -> None:
        chain = [x509.Certificate.load(der) for der in _chain_of(credential)]
        registry = SimpleCertificateStore()
        registry.register_multiple(chain[1:])
        self._client = client
        self._credential = credential
        self._digest_algorithm, self._signature_algorithm = algorithms_for(credential, pss=pss)
        if self._signature_algorithm == "ED25519":
            raise ValueError("RemoteSigner signs digests, and an Ed25519 key takes messages")
        mechanism = _mechanism(self._signature_algorithm, self._digest_algorithm.lower())
        super().__init__(signing_cert=chain[0], cert_registry=registry, signature_mechanism=mechanism)

    async def async_sign_raw(self, data: bytes, digest_algorithm: str, dry_run: bool = False) -> bytes:
        if dry_run:
            return bytes(512)  # the longest signature known here, RSA-4096
        return await self._client.sign_digest(
            self._credential.name,
            hashlib.new(digest_algorithm, data).digest(),
            digest_algorithm=digest_algorithm.upper(),
            signature_algorithm=self._signature_algorithm,
        )


def _mechanism(signature: str, digest: str) -> algos.SignedDigestAlgorithm:
    """As the service signs: PSS with one hash for both uses and a salt as long as it (RFC 4056)."""
    if signature != "RSA_PSS":
        return algos.SignedDigestAlgorithm({"algorithm": f"{digest}_{'ecdsa' if signature == 'ECDSA' else 'rsa'}"})
    hash_algorithm = algos.DigestAlgorithm({"algorithm": digest})
    parameters = algos.RSASSAPSSParams(
        {
            "hash_algorithm": hash_algorithm,
            "mask_gen_algorithm": algos.MaskGenAlgorithm({"algorithm": "mgf1", "parameters": hash_algorithm}),
            "salt_length": hashlib.new(digest).digest_size,
        }
    )
    return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pss", "parameters": parameters})


def _digest(path: Path, algorithm: str) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).digest()
