"""
Everything that the service signs, judged by programs that are not ours: pdfsig, openssl and pyHanko.

pdfsig 22 and openssl 3.0 know no Ed25519 in CMS; there pyHanko and a second reading with `cryptography` judge.
"""

import asyncio
import hashlib
import io
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils
from pyhanko.pdf_utils.reader import PdfFileReader

from portal_adapter.definitions.catalogue import SHIPPED
from portal_adapter.definitions.definition import load
from portal_adapter.form.declaration import Head, declaration
from portal_adapter.form.drawing import draw
from portal_adapter.language import Language
from signer.client import Client
from signer.v1 import signing_pb2 as pb
from tests.hostile import minimal_pdf
from tests.signer.outputs.driver import (
    ALGORITHMS,
    CORPUS,
    Stream,
    Verifiers,
    examine,
    run,
    sha256,
    sign,
    sign_one,
    signed_parts,
)

CONTENT = bytes(range(256)) * 300 + b"\r\n a line \n"
FILES = sorted(CORPUS.glob("*.pdf"))
COVERS, CHANGES = pb.SignatureReport.Coverage, pb.SignatureReport.Changes
KEYS = ["RSA-2048", "P-256", "RSA-3072", "P-384", "RSA-4096", "P-521"]
HASHES = {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}
every_algorithm = pytest.mark.parametrize(("kind", "scheme", "digest"), ALGORITHMS)


def order(kind: str, scheme: str, digest: str) -> dict[str, str]:
    return {"credential": kind.lower(), "signature_algorithm": scheme, "digest_algorithm": digest}


def default_order(kind: str) -> dict[str, str]:
    """One algorithm that the key can do."""
    return order(*next(each for each in ALGORITHMS if each[0] == kind))


async def raw(client: Client, kind: str, scheme: str, digest: str, items: list[bytes]) -> Any:
    field = "messages" if scheme == "ED25519" else "digests"
    named = {} if scheme == "ED25519" else {"digest_algorithm": digest}
    request = pb.SignDigestsRequest(
        request_id=str(uuid.uuid4()),
        credential=kind.lower(),
        output="RAW",
        signature_algorithm=scheme,
        crc32c=google_crc32c.value(b"".join(items)),
        **named,
        **{field: items},
    )
    return await client.signing.SignDigests(request, timeout=30)


def check_raw(certificate: bytes, digest: str, scheme: str, item: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless the certificate's key signed the item, by `cryptography`."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, item)
        return
    hash_ = HASHES[digest]
    hashed = utils.Prehashed(hash_)
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, item, ec.ECDSA(hashed))
    elif scheme == "RSA_PSS":
        key.verify(signature, item, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hashed)
    else:
        key.verify(signature, item, padding.PKCS1v15(), hashed)


async def judge_cms(verifiers: Verifiers, kind: str, signature: bytes, content: bytes) -> None:
    """pyHanko; and openssl, or for Ed25519 a second reading with `cryptography`."""
    assert await verifiers.pyhanko_cms(signature, content)
    if kind == "Ed25519":
        second_reading(signature, content)
    else:
        assert verifiers.openssl(signature, content) == content


def second_reading(signature: bytes, content: bytes) -> None:
    """RFC 8419, without any code that knows CMS signatures: digest, attributes, and the key of the certificate."""
    (signer,) = (data := cms.ContentInfo.load(signature)["content"])["signer_infos"]
    serial = signer["sid"].chosen["serial_number"].native
    (certificate,) = (each.chosen for each in data["certificates"] if each.chosen.serial_number == serial)
    (digest,) = (each["values"][0].native for each in signer["signed_attrs"] if each["type"].native == "message_digest")
    assert digest == hashlib.sha512(content).digest()
    attributes = b"\x31" + signer["signed_attrs"].dump()[1:]
    x509.load_der_x509_certificate(certificate.dump()).public_key().verify(signer["signature"].native, attributes)


# --- every output, key and algorithm -----------------------------------------------------------------------


@every_algorithm
async def test_pades(client: Client, verifiers: Verifiers, kind: str, scheme: str, digest: str) -> None:
    """A PDF signed with any key and algorithm is valid and trusted to all verifiers that know the algorithm."""
    document = minimal_pdf(2, f"{kind} {scheme} {digest}")
    signed = await sign_one(client, document, **order(kind, scheme, digest))
    assert signed.startswith(document)
    assert await verifiers.pyhanko_pdf(signed)
    await judge_cms(verifiers, kind, *signed_parts(signed))
    if kind != "Ed25519":
        assert verifiers.pdf_good(signed)
    (report,) = (await examine(client, signed)).signatures
    assert (report.valid, report.trusted, report.profile) == (True, True, "PAdES")
    assert report.algorithm == ("ED25519" if kind == "Ed25519" else f"{scheme}/{digest}")


@every_algorithm
async def test_cades_detached(client: Client, verifiers: Verifiers, kind: str, scheme: str, digest: str) -> None:
    """A detached CMS over any file, with any key and algorithm."""
    signature = await sign_one(client, CONTENT, output="CADES_B_B", **order(kind, scheme, digest))
    await judge_cms(verifiers, kind, signature, CONTENT)


@every_algorithm
async def test_cades_enveloping(client: Client, verifiers: Verifiers, kind: str, scheme: str, digest: str) -> None:
    """A CMS round a file: openssl takes the very file out of it."""
    signed = await sign_one(client, CONTENT, output="CADES_B_B", enveloping=True, **order(kind, scheme, digest))
    assert cms.ContentInfo.load(signed)["content"]["encap_content_info"]["content"].native == CONTENT
    assert await verifiers.pyhanko_cms(signed, None)
    if kind == "Ed25519":
        second_reading(signed, CONTENT)
    else:
        assert verifiers.openssl(signed, None) == CONTENT


@every_algorithm
async def test_raw(client: Client, kind: str, scheme: str, digest: str) -> None:
    """RAW: the bare signature over the digest; for Ed25519 over the message (RFC 8032)."""
    contents = [b"one", b"two", b"one"]
    items = contents if kind == "Ed25519" else [hashlib.new(digest, each).digest() for each in contents]
    answer = await raw(client, kind, scheme, digest, items)
    for item, signed in zip(items, answer.items, strict=True):
        assert signed.status == pb.SIGNED
        check_raw(answer.certificate, digest, scheme, item, signed.signature)


@every_algorithm
async def test_digests_as_cades(client: Client, verifiers: Verifiers, kind: str, scheme: str, digest: str) -> None:
    """CADES_B_B over digests: each answer is the detached CMS of the file whose digest was sent."""
    contents = [b"first", b"second"]
    answer = await client.sign_digests(
        kind.lower(),
        [hashlib.new(digest, each).digest() for each in contents],
        output="CADES_B_B",
        digest_algorithm=digest,
        signature_algorithm=scheme,
    )
    for content, item in zip(contents, answer.items, strict=True):
        await judge_cms(verifiers, kind, item.signature, content)
    with pytest.raises(subprocess.CalledProcessError):
        verifiers.openssl(answer.items[0].signature, b"second")


async def test_digests_as_pades(client: Client, verifiers: Verifiers) -> None:
    """
    PADES_B_B over digests: the CMS fits the gap of a PDF that the caller prepared, has no signing-time, and the PDF is
    good.
    """
    for kind in ("RSA-2048", "P-384", "Ed25519"):
        signed = await sign_one(client, minimal_pdf(), **default_order(kind))
        _, content = signed_parts(signed)
        asked = order(*next(each for each in ALGORITHMS if each[0] == kind))
        digest = hashlib.new(asked["digest_algorithm"], content).digest()
        answer = await client.sign_digests(asked.pop("credential"), [digest], output="PADES_B_B", **asked)
        signature = answer.items[0].signature
        await judge_cms(verifiers, kind, signature, content)
        (signer,) = cms.ContentInfo.load(signature)["content"]["signer_infos"]
        assert "signing_time" not in {each["type"].native for each in signer["signed_attrs"]}
        start = signed.rindex(b"/Contents <") + len(b"/Contents <")
        again = signed[:start] + signature.hex().encode() + signed[start + 2 * len(signature) :]
        assert await verifiers.pyhanko_pdf(again)
        assert kind == "Ed25519" or verifiers.pdf_good(again)


# --- real documents ----------------------------------------------------------------------------------------


def signatures_in(document: bytes) -> int:
    return document.count(b"/ByteRange")


@pytest.mark.parametrize("number", range(len(FILES)), ids=[path.stem for path in FILES])
async def test_corpus(client: Client, verifiers: Verifiers, number: int) -> None:
    """
    Each real document keeps its bytes and gets one good signature over the whole of it; the report finds the SHA-256
    of what was handed in.
    """
    document = FILES[number].read_bytes()
    before = signatures_in(document)
    kind = KEYS[number % len(KEYS)]
    (answer,) = await sign(client, [document], **default_order(kind))
    assert answer.signed, answer.result.message
    signed = answer.data
    assert signed.startswith(document)
    assert answer.result.input_sha256 == sha256(document)
    assert answer.result.token == "card"
    found = verifiers.pdfsig(signed)
    assert len(found) == before + 1
    assert found[-1]["Signature Validation"] == "Signature is Valid."
    assert found[-1]["Certificate Validation"] == "Certificate is Trusted."
    assert all(each["Signature Validation"] == "Signature is Valid." for each in found)

    report = await examine(client, signed)
    assert (report.readable, report.problem, report.kind) == (True, "", pb.VerifyDocumentResponse.PDF)
    assert report.pages == PdfFileReader(io.BytesIO(document), strict=False).root["/Pages"]["/Count"]
    assert len(report.signatures) == before + 1
    ours = report.signatures[-1]
    assert (ours.valid, ours.reason, ours.trusted, ours.trust_reason) == (True, "", True, "")
    assert ours.revision_sha256 == answer.result.input_sha256
    assert (ours.covers, ours.changes_after) == (COVERS.WHOLE_FILE, CHANGES.NO_CHANGES)
    assert ours.certificate == answer.result.certificate == ours.chain[0]
    assert ours.time == answer.result.signing_time
    for earlier in report.signatures[:-1]:
        assert (earlier.valid, earlier.covers, earlier.changes_after) == (True, COVERS.REVISION, CHANGES.PERMITTED)


async def test_a_declaration(client: Client, verifiers: Verifiers) -> None:
    """
    SIG-08: the document that the portal draws is signed, and signed again: it begins with the confirmed bytes, pdfsig, pyHanko and
    the report find both signatures good, and qpdf no fault.
    """
    head = Head("Millbrook Online", "MB-1", "Kiln and Clay", "Ada Lovelace", 1_795_766_400)
    definition = load(SHIPPED / "transfer-of-lease-1.toml")
    given = {"premises": "2 Mill Lane 中文 السلام", "landlord": "The Mill", "on": "2026-12-31", "deposit": "yes"}
    confirmed = draw(declaration(definition, given, Language("fr", "Europe/Luxembourg"), head))
    once = await sign_one(client, confirmed, **default_order("P-256"))
    twice = await sign_one(client, once, **default_order("RSA-2048"))
    assert once.startswith(confirmed)
    assert twice.startswith(once)
    assert verifiers.pdf_good(once)
    assert verifiers.pdf_good(twice, signatures=2)
    assert await verifiers.pyhanko_pdf(twice, 0)
    assert await verifiers.pyhanko_pdf(twice, 1)
    report = await examine(client, twice)
    assert [one.revision_sha256 for one in report.signatures] == [sha256(confirmed), sha256(once)]
    assert all(one.valid and one.trusted for one in report.signatures)
    assert "No syntax or stream encoding errors found" in run("qpdf", "--check", str(verifiers.file(twice)))


async def test_signed_twice(client: Client, verifiers: Verifiers) -> None:
    """
    A second signature leaves the first valid: it covers its revision, and what came after it was permitted. Each knows
    the document as it was handed in for it.
    """
    document = (CORPUS / "lettre-du-moulin.pdf").read_bytes()
    first = await sign_one(client, document, reason="agreed")
    second = await sign_one(client, first, **default_order("RSA-2048"))
    assert second.startswith(first)
    assert verifiers.pdf_good(second, 2)
    for number in (0, 1):
        assert await verifiers.pyhanko_pdf(second, number)
    earlier, later = (await examine(client, second)).signatures
    assert (earlier.valid, earlier.trusted) == (later.valid, later.trusted) == (True, True)
    assert (earlier.covers, earlier.changes_after) == (COVERS.REVISION, CHANGES.PERMITTED)
    assert (later.covers, later.changes_after) == (COVERS.WHOLE_FILE, CHANGES.NO_CHANGES)
    assert (earlier.revision_sha256, later.revision_sha256) == (sha256(document), sha256(first))


async def test_the_same_document_twice_on_one_stream(client: Client, verifiers: Verifiers) -> None:
    """One document under two indexes is two documents: both signed, each for itself."""
    document = (CORPUS / "notice-road-works.pdf").read_bytes()
    one, two = await sign(client, [document, document])
    assert one.result.input_sha256 == two.result.input_sha256 == sha256(document)
    assert verifiers.pdf_good(one.data)
    assert verifiers.pdf_good(two.data)


@pytest.mark.parametrize("output", ["PADES_B_B", "CADES_B_B"])
async def test_a_document_in_one_message(client: Client, verifiers: Verifiers, output: str) -> None:
    """A short document may come whole, with or without its size: its answer is one message, the same as in chunks."""
    document = minimal_pdf()
    order = {"output": output, "request_id": str(uuid.uuid4())}
    stream = await Stream(client).open(**order)
    one = await stream.round(0, document, way="whole")
    two = await stream.round(1, document, way="whole", size=0)
    assert one.result.content == one.data and two.result.content == two.data
    await stream.close()
    if output == "PADES_B_B":
        assert verifiers.pdf_good(one.data)
        assert verifiers.pdf_good(two.data)
    stream = await Stream(client).open(**order)
    again = await stream.round(0, document)
    assert again.data == one.data
    assert not again.result.content
    await stream.close()


async def test_a_large_document_and_a_small_one(client: Client, verifiers: Verifiers) -> None:
    """Both arrive, each whole, whichever is ready first."""
    from tests.hostile import sized_pdf

    large, small = sized_pdf(20 * 1024 * 1024), minimal_pdf()
    one, two = await sign(client, [large, small])
    assert one.data.startswith(large)
    assert two.data.startswith(small)
    assert await verifiers.pyhanko_pdf(one.data)
    assert verifiers.pdf_good(two.data)


async def test_time_is_that_of_the_request(client: Client) -> None:
    """signing-time and /M are the time the service gave with the result, for all documents of a stream the same."""
    answers = await sign(client, [CONTENT, CONTENT], output="CADES_B_B")
    for answer in answers:
        (signer,) = cms.ContentInfo.load(answer.data)["content"]["signer_infos"]
        (time,) = (each["values"][0].native for each in signer["signed_attrs"] if each["type"].native == "signing_time")
        assert time.strftime("%Y-%m-%dT%H:%M:%SZ") == answer.result.signing_time
    assert len({answer.result.signing_time for answer in answers}) == 1


async def test_one_stream_has_many_documents(client: Client, verifiers: Verifiers) -> None:
    """Twenty documents on one stream: every one is answered under its own index with its own bytes."""
    documents = [minimal_pdf(text=f"number {number}") for number in range(20)]
    answers = await sign(client, documents)
    for document, answer in zip(documents, answers, strict=True):
        assert answer.data.startswith(document)
    assert verifiers.pdf_good(answers[7].data)


# --- streams of digests ------------------------------------------------------------------------------------


RUN = uuid.uuid4().int >> 32 << 32  # an id is used for one request, and tests share a daemon


def name(number: int, start: int = 0) -> str:
    return str(uuid.UUID(int=RUN + start + number))


def request(number: int, count: int = 500, **more: Any) -> pb.SignDigestsRequest:
    digests = [sha256(f"{number} {each}".encode()) for each in range(count)]
    return pb.SignDigestsRequest(
        **{
            "request_id": name(number),
            "credential": "p-256",
            "output": "RAW",
            "digest_algorithm": "SHA256",
            "signature_algorithm": "ECDSA",
            "digests": digests,
            "crc32c": google_crc32c.value(b"".join(digests)),
            **more,
        }
    )


async def test_stream_of_digests(client: Client) -> None:
    """
    Forty requests of 500 digests: answers come in the order of the requests, and one bad request is answered with its
    error while the stream goes on.
    """
    bad = 20

    async def requests() -> AsyncIterator[Any]:
        for number in range(40):
            yield request(number) if number != bad else request(number, crc32c=1)

    answers = [answer async for answer in client.signing.StreamDigests(requests(), timeout=60)]
    assert [answer.request_id for answer in answers] == [name(number) for number in range(40)]
    failed = answers.pop(bad)
    assert not failed.items
    assert (failed.error.reason, failed.error.code) == ("CRC_MISMATCH", grpc.StatusCode.INVALID_ARGUMENT.value[0])
    for answer in answers:
        assert not answer.HasField("error")
        assert [item.status for item in answer.items] == [pb.SIGNED] * 500
    for number in (0, 39):
        sent, answer = request(number), answers[min(number, len(answers) - 1)]
        for place in (0, 250, 499):
            item = answer.items[place].signature
            check_raw(answer.certificate, "SHA256", "ECDSA", sent.digests[place], item)


async def test_requests_of_a_stream_may_differ(client: Client, verifiers: Verifiers) -> None:
    """Each request of a stream has a credential, an output and an algorithm of its own."""
    digest = hashlib.sha512(CONTENT).digest()
    shared = {"digests": [digest], "crc32c": google_crc32c.value(digest), "digest_algorithm": "SHA512"}
    call = client.signing.StreamDigests(timeout=30)
    wanted = [("rsa-2048", "RSA_PSS"), ("p-521", "ECDSA"), ("rsa-4096", "RSA_PKCS1_V15"), ("nobody", "ECDSA")]
    for number, (credential, scheme) in enumerate(wanted):
        changed = {"credential": credential, "output": "CADES_B_B", "signature_algorithm": scheme}
        changed["request_id"] = name(number, 1_000)
        await call.write(request(number, **shared, **changed))
    await call.done_writing()
    answers = [answer async for answer in call]
    assert answers[3].error.reason == "CREDENTIAL_UNKNOWN"
    for answer in answers[:3]:
        assert verifiers.openssl(answer.items[0].signature, CONTENT) == CONTENT


async def test_streams_side_by_side(client: Client, verifiers: Verifiers) -> None:
    """Four document streams of one caller at a time, each with an output of its own."""
    documents = [minimal_pdf(text=f"stream {number}") for number in range(4)]
    outputs = [("PADES_B_B", False), ("CADES_B_B", False), ("CADES_B_B", True), ("PADES_B_B", False)]
    made = await asyncio.gather(
        *(
            sign_one(client, document, output=output, enveloping=enveloping)
            for document, (output, enveloping) in zip(documents, outputs, strict=True)
        )
    )
    assert verifiers.pdf_good(made[0])
    assert verifiers.openssl(made[1], documents[1]) == documents[1]
    assert verifiers.openssl(made[2], None) == documents[2]
    assert verifiers.pdf_good(made[3])


# --- what the report says ----------------------------------------------------------------------------------


async def test_report_of_a_detached_cms(client: Client) -> None:
    """A detached CMS is valid with its content, not without it, and not with another one."""
    signature = await sign_one(client, CONTENT, output="CADES_B_B")
    report = await examine(client, signature, CONTENT)
    assert (report.readable, report.kind, report.pages) == (True, pb.VerifyDocumentResponse.CMS, 0)
    (each,) = report.signatures
    assert (each.valid, each.trusted, each.profile, each.covers) == (True, True, "CAdES", COVERS.WHOLE_FILE)
    assert len(each.chain) == 3
    (each,) = (await examine(client, signature)).signatures
    assert (each.valid, each.reason) == (False, "content-missing")
    (each,) = (await examine(client, signature, CONTENT + b"!")).signatures
    assert (each.valid, each.reason) == (False, "message-digest")


async def test_report_of_an_enveloping_cms(client: Client) -> None:
    """An enveloping CMS is valid by itself, over more than one chunk; with another content beside it, it is not."""
    content = CONTENT * 10
    signed = await sign_one(client, content, output="CADES_B_B", enveloping=True)
    assert len(signed) > 3 * 256 * 1024 - 50_000
    (each,) = (await examine(client, signed)).signatures
    assert (each.valid, each.trusted, each.profile) == (True, True, "CAdES")
    (each,) = (await examine(client, signed, content)).signatures
    assert each.valid
    (each,) = (await examine(client, signed, b"another")).signatures
    assert (each.valid, each.reason) == (False, "content-mismatch")


async def test_report_of_an_unsigned_pdf(client: Client) -> None:
    """A PDF without signatures is readable, has its pages, and no signature is made up for it."""
    report = await examine(client, minimal_pdf(7))
    assert (report.readable, report.problem, report.pages, len(report.signatures)) == (True, "", 7, 0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not-pdf-or-cms"),
        (b"hello", "not-pdf-or-cms"),
        (b"\x00" * 150_000, "not-pdf-or-cms"),
        (b"%PDF-1.7\n", "truncated"),
        (b"%PDF-1.7\n" + b"x" * 120_000 + b"\n%%EOF", "damaged"),
        (b"\x30\x82\x10\x00" + b"y" * 200, "truncated"),
    ],
    ids=["empty", "text", "zeros", "header", "noise", "cms"],
)
async def test_report_of_garbage(client: Client, data: bytes, problem: str) -> None:
    """What is neither PDF nor CMS is answered, not refused: not readable, and a stable word why."""
    report = await examine(client, data)
    assert (report.readable, report.problem, len(report.signatures)) == (False, problem, 0)


async def test_report_of_a_changed_pdf(client: Client, verifiers: Verifiers) -> None:
    """One changed byte under the signature: not valid to us, as it is not to pdfsig."""
    signed = await sign_one(client, minimal_pdf(text="Pay 100 euros"))
    changed = signed.replace(b"Pay 100 euros", b"Pay 900 euros")
    (each,) = (await examine(client, changed)).signatures
    assert (each.valid, each.reason) == (False, "message-digest")
    assert not verifiers.pdf_good(changed)


async def test_report_of_a_large_pdf(client: Client) -> None:
    """More than 100 kB come in chunks and are judged as a whole."""
    document = (CORPUS / "minutes-47-pages.pdf").read_bytes()
    assert len(document) > 200_000
    report = await examine(client, await sign_one(client, document))
    assert (report.pages, report.signatures[0].valid) == (47, True)


async def test_report_needs_its_order(client: Client) -> None:
    """Chunks before open, or after content, end the call with STREAM_ORDER."""
    from signer.client import error_from

    for messages in (
        [{"chunk": b"x"}],
        [{"open": pb.OpenVerify(name="x")}, {"content": b"x"}, {"chunk": b"x"}],
        [{"open": pb.OpenVerify(name="x")}, {"open": pb.OpenVerify(name="x")}],
        [],
    ):
        call = client.signing.VerifyDocument(iter([pb.VerifyDocumentRequest(**each) for each in messages]), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_from(caught.value).reason == "STREAM_ORDER"


async def test_the_stream_ends_well_without_documents(client: Client) -> None:
    """A stream that is opened and closed has nothing to complain about."""
    stream = await Stream(client).open()
    await stream.close()


def test_corpus_is_there() -> None:
    """The corpus that these tests read is not empty, and has what its list says."""
    listed = (CORPUS / "ORIGIN.md").read_text()
    assert len(FILES) >= 10
    assert all(f"`{Path(path).name}`" in listed for path in FILES)
