"""A small PKI, small PDFs, and signatures over them that were not made by the code under test."""

import asyncio
import datetime as dt
import io
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import MDPPerm, SigSeedSubFilter
from pyhanko.sign.timestamps import DummyTimeStamper
from pyhanko_certvalidator.registry import SimpleCertificateStore

NOW = dt.datetime(2030, 6, 1, 12, 0, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    key: Any
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@cache
def key_of(kind: str) -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    curve = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind.split("-", 1)[0]]
    return ec.generate_private_key(curve)


def issue(
    name: str,
    key: Any,
    issuer: Identity | None = None,
    *,
    ca: bool = False,
    start: dt.datetime = NOW - 30 * DAY,
    end: dt.datetime = NOW + 30 * DAY,
    usage: bool | None = True,
) -> Identity:
    """`usage`: digitalSignature (or keyCertSign for a CA); False: keyAgreement only; None: no extension."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "EE"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if usage is not None:
        flags = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        flags["key_agreement" if not usage else "key_cert_sign" if ca else "digital_signature"] = True
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    signing_key = issuer.key if issuer else key
    algorithm = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(key, builder.sign(signing_key, algorithm))


@cache
def root() -> Identity:
    return issue("Test Root", key_of("p256-root"), ca=True)


@cache
def middle() -> Identity:
    return issue("Test Issuing", key_of("p256-middle"), root(), ca=True)


@cache
def person(kind: str = "p256") -> Identity:
    return issue(f"Signer {kind}", key_of(kind), middle())


def pyhanko_signer(identity: Identity, **options: Any) -> signers.SimpleSigner:
    registry = SimpleCertificateStore()
    registry.register(asn1_x509.Certificate.load(middle().der))
    key = identity.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signers.SimpleSigner(
        signing_cert=asn1_x509.Certificate.load(identity.der),
        signing_key=asn1_keys.PrivateKeyInfo.load(key),
        cert_registry=registry,
        **options,
    )


@cache
def page(text: bytes = b"(one hundred euros) Tj", *, stream_xrefs: bool = False, ballast: int = 0) -> bytes:
    writer = PdfFileWriter(stream_xrefs=stream_xrefs)
    contents = writer.add_object(generic.StreamObject(stream_data=b"BT " + text + b" ET"))
    writer.insert_page(PageObject(contents=contents, media_box=(0, 0, 200, 200)))
    if ballast:
        import random

        blob = writer.add_object(generic.StreamObject(stream_data=random.Random(1).randbytes(ballast)))
        writer.root["/Ballast"] = blob
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def hybrid() -> bytes:
    """A document as word processors write it: the structure tree is only in a cross-reference stream."""
    hidden_object = b"5 0 <</Type/StructTreeRoot>>"
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R/StructTreeRoot 5 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<<>>>>",
        4: b"<</Length 5>>stream\nBT ET\nendstream",
        6: b"<</Type/ObjStm/N 1/First 4/Length %d>>stream\n%s\nendstream" % (len(hidden_object), hidden_object),
    }
    out, at = b"%PDF-1.5\n", {}
    for number, body in objects.items():
        at[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    hidden = len(out)
    row = b"\2" + (6).to_bytes(4, "big") + b"\0"
    out += b"7 0 obj\n<</Type/XRef/Size 8/Index[5 1]/W[1 4 1]/Root 1 0 R/Length 6>>stream\n" + row
    out += b"\nendstream\nendobj\n"
    table = len(out)
    out += b"xref\n0 8\n0000000000 65535 f \n"
    for number in range(1, 8):
        place = hidden if number == 7 else at.get(number)
        out += b"%010d 00000 n \n" % place if place else b"0000000000 65535 f \n"
    return out + b"trailer\n<</Size 8/Root 1 0 R/XRefStm %d>>\nstartxref\n%d\n%%%%EOF\n" % (hidden, table)


def sign_pdf(
    document: bytes,
    identity: Identity,
    *,
    name: str = "Sig1",
    digest: str = "sha256",
    certify: MDPPerm | None = None,
    sub_filter: SigSeedSubFilter = SigSeedSubFilter.PADES,
    pss: bool = False,
    strict: bool = True,
) -> bytes:
    metadata = signers.PdfSignatureMetadata(
        field_name=name,
        md_algorithm=digest,
        subfilter=sub_filter,
        certify=certify is not None,
        docmdp_permissions=certify or MDPPerm.FILL_FORMS,
    )
    writer = IncrementalPdfFileWriter(io.BytesIO(document), strict=strict)
    pdf_signer = signers.PdfSigner(metadata, pyhanko_signer(identity, prefer_pss=pss))
    return asyncio.run(pdf_signer.async_sign_pdf(writer)).getvalue()


def update(document: bytes, change: Any) -> bytes:
    """An incremental update; `change` is given the writer."""
    writer = IncrementalPdfFileWriter(io.BytesIO(document))
    change(writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def document_timestamp(document: bytes, tsa: Identity) -> bytes:
    key = tsa.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    stamper = DummyTimeStamper(
        asn1_x509.Certificate.load(tsa.der),
        asn1_keys.PrivateKeyInfo.load(key),
        certs_to_embed=[asn1_x509.Certificate.load(middle().der)],
        fixed_dt=NOW,
    )
    writer = IncrementalPdfFileWriter(io.BytesIO(document))
    return asyncio.run(signers.PdfTimeStamper(stamper).async_timestamp_pdf(writer, "sha256")).getvalue()


def openssl_cms(folder: Path, content: bytes, identity: Identity, *options: str) -> bytes:
    """Sign with `openssl cms`; the issuing certificate goes along."""
    files = {"content": content, "key": identity.key_pem, "cert": identity.pem, "chain": middle().pem}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    subprocess.run(
        [
            "openssl",
            "cms",
            "-sign",
            "-binary",
            "-in",
            "content",
            "-signer",
            "cert",
            "-inkey",
            "key",
            "-certfile",
            "chain",
            "-outform",
            "DER",
            "-out",
            "out",
            *options,
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return (folder / "out").read_bytes()
