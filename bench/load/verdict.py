"""
Whether what came is what was asked for, by libraries that are not the product's: `cryptography`, and asn1crypto to take
a CMS to pieces. What the service itself says of a PDF, and pdfsig, come on top of it.

Every function raises where it is not, and is called after the clock has stopped.
"""

import asyncio
import hashlib
import math
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from asn1crypto import cms, parser, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from bench.load.seen import RANDOM
from bench.load.target import Target
from signer.v1 import signing_pb2 as pb

CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 300.0


class NotGood(Exception):
    """What came is not what was asked for."""


async def verify(target: Target) -> dict[str, Any]:
    """All that was kept of the last order. Of a batch the first and the last, and so many more that there are `RANDOM`."""
    kept = target.seen.taken() if target.seen else []
    more = math.ceil(RANDOM / max(1, len(kept)))
    for judge, asked, got in kept:
        await judge(target, asked, got, more)
    return {"count": len(kept)}


async def digests(target: Target, asked: pb.SignDigestsRequest, got: pb.SignDigestsResponse, more: int) -> None:
    """
    An answer: as many items as digests, in their order, by the key of the credential that was asked. What is not signed is
    its order's to count.
    """
    held = await _certificate(target, asked.credential)
    things = asked.messages or asked.digests
    require(got.certificate == held, "the answer's certificate is not the credential's")
    require(len(got.items) == len(things), "there are not as many signatures as digests")
    signed = [place for place, item in enumerate(got.items) if item.status == pb.SIGNED]
    for place in {signed[0], signed[-1], *random.choices(signed, k=more)}:  # noqa: S311 -- a sample
        if asked.output == pb.RAW:
            signature(held, got.items[place].signature, things[place])
        else:
            certificate, digest = envelope(got.items[place].signature)
            require(certificate == held, "the CMS is another certificate's")
            require(digest == things[place], "the CMS is over another digest")


async def bare(target: Target, asked: tuple[str, bytes], got: bytes, _more: int) -> None:
    """One signature as the client library gives it, of a (credential, digest)."""
    credential, digest = asked
    signature(await _certificate(target, credential), got, digest)


async def document(target: Target, asked: tuple[str, bytes], received: bytearray, _more: int) -> None:
    """A PDF of a (credential, content): that content, more behind it, and a CMS over all but its own place in it."""
    (credential, content), got = asked, bytes(received)
    require(got.startswith(content) and len(got) > len(content), "it does not begin with the document that was sent")
    ranges = re.findall(rb"/ByteRange\s*\[\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\]", got[len(content) :])
    require(len(ranges) == 1, "what was added is not one signature")
    start, before, after, rest = map(int, ranges[0])
    require(start == 0 and before >= len(content) and after + rest == len(got), "it does not cover the whole file")
    gap = got[before:after]
    require(gap[:1] + gap[-1:] == b"<>", "what is not covered is not the signature alone")
    filled = bytes.fromhex(gap[1:-1].decode())
    _, _, _, *parts = parser.parse(filled)
    made = b"".join(parts)
    require(not filled[len(made) :].strip(b"\0"), "there is something behind the CMS")
    certificate, digest = envelope(made)
    require(certificate == await _certificate(target, credential), "it is signed by another certificate")
    require(digest == hashlib.sha256(got[:before] + got[after:]).digest(), "it is signed over something else")
    target.documents.add(document, asked, got)


async def examine(target: Target) -> dict[str, Any]:
    """What the service says of some of the documents since the last time, and pdfsig, where it is installed, of one."""
    kept = target.documents.taken() if target.documents else []
    async with asyncio.TaskGroup() as tasks:
        for _, (_, content), got in kept:
            tasks.create_task(_reported(target, content, got))
    if kept and shutil.which("pdfsig"):
        await asyncio.to_thread(_pdfsig, kept[-1][2])
    return {"count": len(kept)}


async def _reported(target: Target, content: bytes, got: bytes) -> None:
    async def messages() -> AsyncIterator[pb.VerifyDocumentRequest]:
        yield pb.VerifyDocumentRequest(open=pb.OpenVerify(name="d.pdf"))
        for offset in range(0, len(got), CHUNK_BYTES):
            yield pb.VerifyDocumentRequest(chunk=got[offset : offset + CHUNK_BYTES])

    report = await target.stubs(1)[0].VerifyDocument(messages(), timeout=TIMEOUT_S)
    require(report.readable and len(report.signatures) > 0, f"the service cannot read it: {report.problem}")
    last = report.signatures[-1]
    require(last.valid and last.trusted, f"the service: {last.reason or last.trust_reason}")
    require(last.covers == pb.SignatureReport.WHOLE_FILE, "the service: it does not cover the whole file")
    require(last.profile == "PAdES", f"the service: it is {last.profile}")
    revision = hashlib.sha256(content).digest()
    require(last.revision_sha256 == revision, "the service: what was signed is not the document that was sent")


def _pdfsig(got: bytes) -> None:
    """All its signatures are valid, and the last one covers the file; it does not know our root."""
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(got)
        file.flush()
        done = subprocess.run(["pdfsig", "-nocert", file.name], check=False, text=True, capture_output=True, timeout=60)
    *_, last = done.stdout.split("\nSignature #")
    require("Signature is Valid." in last and "Total document signed" in last, f"pdfsig: {last.strip()}")


def signature(certificate: bytes, signed: bytes, thing: bytes) -> None:
    """The certificate's key signed this digest; with Ed25519 this message."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    prehashed = utils.Prehashed(hashes.SHA256())
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signed, thing, padding.PKCS1v15(), prehashed)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signed, thing, ec.ECDSA(prehashed))
    else:
        assert isinstance(key, ed25519.Ed25519PublicKey)
        key.verify(signed, thing)


def envelope(content: bytes) -> tuple[bytes, bytes]:
    """
    (certificate, digest) of a CMS with one signer: the certificate is named in the signed attributes by its hash, and its
    key signed them (RFC 5652, 5.4; RFC 5035, 3).
    """
    held = cms.ContentInfo.load(content, strict=True)["content"]
    (info,) = held["signer_infos"]
    require(info["digest_algorithm"]["algorithm"].native == "sha256", "its digest algorithm is not SHA-256")
    attributes = {each["type"].native: each["values"] for each in info["signed_attrs"]}
    named: tsp.ESSCertIDv2 = attributes["signing_certificate_v2"][0]["certs"][0]
    found = [one.chosen.dump() for one in held["certificates"]]
    (certificate,) = (one for one in found if hashlib.sha256(one).digest() == named["cert_hash"].native)
    signed = hashlib.sha256(info["signed_attrs"].untag().dump()).digest()
    signature(certificate, info["signature"].native, signed)
    digest: bytes = attributes["message_digest"][0].native
    return certificate, digest


def require(what: bool, otherwise: str) -> None:
    if not what:
        raise NotGood(otherwise)


async def _certificate(target: Target, credential: str) -> bytes:
    """The credential's own, asked for once."""
    if credential not in target.certificates:
        found = await target.stubs(1)[0].GetCredential(pb.GetCredentialRequest(credential=credential), timeout=30)
        target.certificates[credential] = found.certificates[0]
    return target.certificates[credential]
