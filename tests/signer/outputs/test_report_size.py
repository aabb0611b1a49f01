"""What VerifyDocument answers is bounded, however short the file is that asks for more, and counted until it is read."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from asn1crypto import algos, cms
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from signer.assembly import Assembly
from signer.client import Client
from signer.clock import Clock
from signer.examine import SIGNATURES_MAX
from signer.limits import ANSWER_BYTES_MAX
from signer.service import SigningService
from signer.spool import Spool
from signer.unparsed import Unparsed
from signer.v1 import signing_pb2 as pb
from tests.signer.outputs.driver import CHUNK, examine

KIB = 1024


def shared(size: int) -> bytes:
    """A CMS of as many signers as are looked at, whose one certificate has so many bytes and a few more."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Everybody")])
    ballast = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), os.urandom(size))
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7).public_key(key.public_key())
    )
    builder = (
        builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).add_extension(ballast, critical=False)
    )
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    certificate = asn1.Certificate.load(der)
    hash_ = algos.DigestAlgorithm({"algorithm": "sha256"})
    whose = cms.IssuerAndSerialNumber({"issuer": certificate.issuer, "serial_number": 7})
    signer = cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier({"issuer_and_serial_number": whose}),
            "digest_algorithm": hash_,
            "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
            "signature": b"none",
        }
    )
    data = {
        "version": "v1",
        "digest_algorithms": [hash_],
        "encap_content_info": {"content_type": "data", "content": b"hello"},
        "certificates": [certificate],
        "signer_infos": [signer] * SIGNATURES_MAX,
    }
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(data)}).dump())


async def test_a_report_fits_an_answer(client: Client) -> None:
    """One certificate that all signers share is in each report: where that is more than 4 MiB, that is the answer."""
    fits = await examine(client, shared(60 * KIB))
    assert (fits.readable, len(fits.signatures)) == (True, SIGNATURES_MAX)
    assert 60 * SIGNATURES_MAX * KIB < fits.ByteSize() <= ANSWER_BYTES_MAX
    for size in (64 * KIB, 1024 * KIB):
        over = await examine(client, shared(size))
        assert (over.readable, over.problem, len(over.signatures)) == (False, "report-too-large", 0)


async def test_a_report_is_promised(tmp_path: Path) -> None:
    """It counts as what its caller has not read yet, before it is built: as long as it will be at least."""
    nothing: Any = None
    promised: list[int] = []
    messages: Iterator[Any] = iter(_sent(shared(20 * KIB)))

    async def read() -> Any:
        return next(messages, grpc.aio.EOF)

    call: Any = SimpleNamespace(
        caller=SimpleNamespace(name="portal"), promise=promised.append, check_again=lambda: None
    )
    policy: Any = SimpleNamespace(roots=())
    spool = Spool(tmp_path / "spool", lambda _: None, 1_024)
    async with Assembly(1) as assembly:
        service = SigningService(nothing, nothing, nothing, assembly, spool, lambda: policy, nothing, Clock(), nothing)
        answer = await service.verify_document(SimpleNamespace(read=read), call)
    assert len(answer.signatures) == SIGNATURES_MAX
    (size,) = promised
    assert answer.ByteSize() <= size <= answer.ByteSize() + 1_024 * SIGNATURES_MAX


def _sent(document: bytes) -> list[Unparsed]:
    chunks = [pb.VerifyDocumentRequest(chunk=document[at : at + CHUNK]) for at in range(0, len(document), CHUNK)]
    whole = [pb.VerifyDocumentRequest(open=pb.OpenVerify(name="any")), *chunks]
    return [Unparsed(pb.VerifyDocumentRequest.FromString, each.SerializeToString()) for each in whole]
