"""What these tests share: a stream of documents driven message by message, and the verifiers that are not ours."""

import asyncio
import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import psutil
from asn1crypto import cms, x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import async_validate_detached_cms, async_validate_pdf_signature
from pyhanko.sign.validation.generic_cms import async_validate_cms_signature
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko.sign.validation.status import SignatureStatus
from pyhanko_certvalidator import ValidationContext

from signer.client import Client, error_from
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig
from tests.processes import children
from tests.softhsm import Store

CHUNK = 256 * 1024
CORPUS = Path(__file__).parents[3] / "deploy" / "demo" / "corpus"
P256 = {"credential": "p-256", "digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}
# The schemes and digests that a key can be asked for.
ALGORITHMS = [
    *(
        (f"RSA-{bits}", scheme, digest)
        for bits in (2048, 3072, 4096)
        for scheme in ("RSA_PKCS1_V15", "RSA_PSS")
        for digest in ("SHA256", "SHA384", "SHA512")
    ),
    *((f"P-{bits}", "ECDSA", digest) for bits in (256, 384, 521) for digest in ("SHA256", "SHA384", "SHA512")),
    ("Ed25519", "ED25519", "SHA512"),
]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def copied(store: Store, directory: Path) -> Store:
    """The tokens of a store, in a directory of our own: a daemon's user may have them, and others keep theirs."""
    made = Store(directory)
    shutil.copytree(store.directory / "tokens", directory / "tokens", dirs_exist_ok=True)
    made.made = store.made
    return made


# --- streams -----------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back for one document."""

    result: Any
    data: bytes = b""

    @property
    def signed(self) -> bool:
        return self.result.status == pb.SIGNED

    @property
    def reason(self) -> str:
        return self.result.reason

    @property
    def kind(self) -> str:
        """Why a PDF was rejected: the word in brackets at the message's end."""
        found = re.search(r"\(([^()]*)\)$", self.result.message)
        return found[1] if found else ""

    def check(self) -> "Answer":
        """The bytes are those that the result announced."""
        if self.signed:
            assert len(self.data) == self.result.size
            assert sha256(self.data) == self.result.sha256
        else:
            assert not self.data
            assert self.result.reason
        return self


class Stream:
    """One SignDocuments call, driven message by message. Writing never waits for reading: `answers` runs by itself."""

    def __init__(self, client: Client, *, timeout_s: float = 60.0) -> None:
        self.call = client.signing.SignDocuments(timeout=timeout_s)
        self._current: Answer | None = None

    async def open(self, output: str = "PADES_B_B", **order: Any) -> "Stream":
        await self.send(open=pb.OpenDocuments(**{"request_id": str(uuid.uuid4()), "output": output, **P256, **order}))
        return self

    async def send(self, **message: Any) -> None:
        await self.call.write(pb.SignDocumentsRequest(**message))

    async def begin(self, index: int, **more: Any) -> None:
        await self.send(begin=pb.BeginDocument(index=index, **more))

    async def chunks(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            await self.send(chunk=data[start : start + CHUNK])

    async def end(self, data: bytes, crc: int | None = None) -> None:
        await self.send(end=pb.EndDocument(crc32c=google_crc32c.value(data) if crc is None else crc))

    async def document(self, index: int, data: bytes, *, crc: int | None = None, **more: Any) -> None:
        """A whole document, its size announced."""
        await self.begin(index, **{"size": len(data), **more})
        await self.chunks(data)
        await self.end(data, crc)

    async def whole(self, index: int, data: bytes, *, crc: int | None = None, **more: Any) -> None:
        """The same in one message."""
        begin = pb.BeginDocument(**{"index": index, "size": len(data), **more})
        checksum = google_crc32c.value(data) if crc is None else crc
        await self.send(whole=pb.WholeDocument(begin=begin, content=data, crc32c=checksum))

    async def next(self) -> Answer:
        """The next document's answer, whole."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError(await self.call.code())
        answer = Answer(message.result)
        size = answer.result.size if answer.signed else 0
        parts: list[bytes] = [answer.result.content]
        while sum(map(len, parts)) < size:
            parts.append((await self.call.read()).chunk)
        answer.data = b"".join(parts)
        return answer.check()

    async def round(self, index: int, data: bytes, *, way: str = "document", **more: Any) -> Answer:
        """Send a document, in one way or the other, and wait for its answer."""
        await getattr(self, way)(index, data, **more)
        answer = await self.next()
        assert answer.result.index == index
        return answer

    async def close(self) -> None:
        """End our side; the service ends without a complaint, and with nothing more to say."""
        await self.call.done_writing()
        assert await self.call.read() is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK

    async def refusal(self) -> str:
        """The reason by which the service ended the stream."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        assert await self.call.code() is not grpc.StatusCode.OK
        try:
            await self.call.read()
        except grpc.aio.AioRpcError as error:
            return error_from(error).reason
        raise AssertionError("the stream ended without an error")


async def sign(client: Client, documents: Iterable[bytes], **order: Any) -> list[Answer]:
    """Sign documents on one stream; their answers in the order of the documents. `order`: for open, reason, location."""
    stream = Stream(client)
    given = list(documents)
    texts = {word: order.pop(word) for word in ("reason", "location") if word in order}

    async def write() -> None:
        await stream.open(**order)
        for index, data in enumerate(given):
            await stream.document(index, data, **texts)

    async def read() -> dict[int, Answer]:
        answers = [await stream.next() for _ in given]
        return {answer.result.index: answer for answer in answers}

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            reading = tasks.create_task(read())
        await stream.close()
    finally:
        stream.call.cancel()
    return [reading.result()[index] for index in range(len(given))]


async def sign_one(client: Client, document: bytes, **order: Any) -> bytes:
    (answer,) = await sign(client, [document], **order)
    assert answer.signed, answer.result.message
    return answer.data


async def examine(client: Client, document: bytes, content: bytes | None = None) -> Any:
    """What VerifyDocument says."""

    async def messages() -> AsyncIterator[Any]:
        yield pb.VerifyDocumentRequest(open=pb.OpenVerify(name="any"))
        for start in range(0, len(document), CHUNK):
            yield pb.VerifyDocumentRequest(chunk=document[start : start + CHUNK])
        for start in range(0, len(content or b""), CHUNK):
            yield pb.VerifyDocumentRequest(content=content[start : start + CHUNK])

    report = await client.signing.VerifyDocument(messages(), timeout=60)
    assert report.input_sha256 == sha256(document)
    return report


# --- the daemon from outside -------------------------------------------------------------------------------


def front(rig: Rig) -> psutil.Process:
    assert rig.process is not None
    return psutil.Process(rig.process.pid)


def assemblers(rig: Rig) -> list[psutil.Process]:
    """The assembly processes that live now."""
    return children(front(rig).pid, "signer.assembler")


# --- verifiers ---------------------------------------------------------------------------------------------


def signed_parts(pdf: bytes, number: int = -1) -> tuple[bytes, bytes]:
    """(CMS, the bytes that it signs) of a signature in a PDF, found by its ByteRange alone; the last by default."""
    ranges = re.findall(rb"/ByteRange\s*\[\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\]", pdf)
    start, length, resume, rest = (int(word) for word in ranges[number])
    gap = pdf[start + length : resume]
    assert (gap[:1], gap[-1:]) == (b"<", b">")
    padded = bytes.fromhex(gap[1:-1].decode())
    return cms.ContentInfo.load(padded).dump(), pdf[start : start + length] + pdf[resume : resume + rest]


class Verifiers:
    """Programs and libraries that know nothing of this service, and trust the rig's root alone."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        self._nss = f"sql:{directory}/nss"
        (directory / "nss").mkdir()
        run("certutil", "-N", "-d", self._nss, "--empty-password")
        run("certutil", "-A", "-d", self._nss, "-n", "root", "-t", "CT,C,C", "-i", str(root))
        self.trust = x509.Certificate.load(_der(root.read_bytes()))

    def file(self, data: bytes, suffix: str = ".pdf") -> Path:
        path = self._directory / f"{uuid.uuid4()}{suffix}"
        path.write_bytes(data)
        return path

    def pdfsig(self, pdf: bytes) -> list[dict[str, str]]:
        """What pdfsig prints about each signature: 'Signature Validation' and so on."""
        path = self.file(pdf)
        text = run("pdfsig", "-nssdir", self._nss, str(path), check=False)
        path.unlink()
        blocks = re.split(r"^Signature #\d+:$", text, flags=re.MULTILINE)[1:]
        return [dict(re.findall(r"^  - ([^:\n]+): ?(.*)$", block, re.MULTILINE)) for block in blocks]

    def pdf_good(self, pdf: bytes, signatures: int = 1) -> bool:
        """pdfsig finds so many signatures, all of them valid and trusted."""
        found = self.pdfsig(pdf)
        return len(found) == signatures and all(
            each["Signature Validation"] == "Signature is Valid."
            and each["Certificate Validation"] == "Certificate is Trusted."
            for each in found
        )

    def openssl(self, signature: bytes, content: bytes | None) -> bytes:
        """The content that `openssl cms -verify -cades` accepts; raises CalledProcessError where it does not."""
        files = {"in": self.file(signature, ".p7s"), "out": self.file(b"", ".out")}
        words = ["-in", str(files["in"]), "-inform", "DER", "-out", str(files["out"]), "-CAfile", str(self._root)]
        if content is not None:
            files["content"] = self.file(content, ".bin")
            words += ["-content", str(files["content"])]
        try:
            run("openssl", "cms", "-verify", "-cades", "-binary", *words)
            return files["out"].read_bytes()
        finally:
            for path in files.values():
                path.unlink()

    def _context(self) -> ValidationContext:
        return ValidationContext(trust_roots=[self.trust], allow_fetching=False)

    async def pyhanko_pdf(self, pdf: bytes, number: int = -1) -> bool:
        """pyHanko's verdict: intact, by a trusted certificate for contentCommitment, nothing added that may not be."""
        signature = PdfFileReader(io.BytesIO(pdf)).embedded_signatures[number]
        status = await async_validate_pdf_signature(
            signature, self._context(), key_usage_settings=KeyUsageConstraints({"non_repudiation"})
        )
        return bool(status.bottom_line)

    async def pyhanko_cms(self, signature: bytes, content: bytes | None) -> bool:
        """pyHanko's verdict on a CMS over this content; None: what it judges is inside."""
        signed = cms.ContentInfo.load(signature)["content"]
        context, usage = self._context(), KeyUsageConstraints({"non_repudiation"})
        if content is not None:
            status = await async_validate_detached_cms(content, signed, context, key_usage_settings=usage)
        else:
            given = {"validation_context": context, "key_usage_settings": usage}
            status = await async_validate_cms_signature(signed, SignatureStatus, **given)
        return bool(status.valid and status.intact and status.trusted)


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace")


def _der(pem: bytes) -> bytes:
    from asn1crypto import pem as armor

    return armor.unarmor(pem)[2]
