"""The client library against a real daemon: what travels together, what is sent again, and what never travels."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign.signers import PdfSignatureMetadata, async_sign_pdf

from signer import limits, local
from signer.cli import exits, session
from signer.client import DOCUMENT_STREAMS_MAX, Client, Profile, ProfileError, ServiceError
from signer.errors import Refusal, details
from signer.sync import SyncClient
from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc
from tests.daemon import Rig, Token, running
from tests.hostile import minimal_pdf

KINDS = ("RSA-2048", "P-256", "Ed25519")
ECDSA = {"digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    made.store.token("card")
    made.store.keys("card", KINDS)
    made.tokens = [Token("card", "card")]
    made.add_keys("card", KINDS)
    with running(made):
        yield made


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[Client]:
    async with rig.client() as made:
        yield made


def digest_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def check(rig: Rig, digest: bytes, signature: bytes) -> None:
    """The P-256 credential's signature, by a library that is not ours."""
    key = serialization.load_der_public_key(rig.store.made["card"]["P-256"][1])
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


async def test_concurrent_single_calls_share_messages(rig: Rig, client: Client) -> None:
    """256 calls at one time are a handful of messages, each with its own right signature."""
    sent: list[int] = []
    original = client.sign_digests

    async def counted(credential: str, digests: Any, **more: Any) -> Any:
        sent.append(len(digests))
        return await original(credential, digests, **more)

    client.sign_digests = counted  # type: ignore[method-assign]
    signatures = await asyncio.gather(*(client.sign_digest("p-256", digest_of(i), **ECDSA) for i in range(256)))
    for number, signature in enumerate(signatures):
        check(rig, digest_of(number), signature)
    assert sum(sent) == 256
    assert len(sent) <= 4


async def test_one_call_has_its_reason(client: Client) -> None:
    """What the service says of a message is what each of its calls raises."""
    with pytest.raises(ServiceError) as error:
        await client.sign_digest("nobody", digest_of(1), **ECDSA)
    assert (error.value.reason, error.value.code) == ("CREDENTIAL_UNKNOWN", "NOT_FOUND")


@pytest.mark.parametrize("bad", [digest_of(1)[:20], digest_of(1) + b"!", b"", "a" * 32, None])
async def test_what_is_no_digest_harms_nobody_else(rig: Rig, client: Client, bad: Any) -> None:
    """It is refused here, and the calls that would have shared its message are signed."""
    asked = (client.sign_digest("p-256", digest, **ECDSA) for digest in (digest_of(1), bad, digest_of(2)))
    first, refused, second = await asyncio.gather(*asked, return_exceptions=True)
    check(rig, digest_of(1), first)
    check(rig, digest_of(2), second)
    if isinstance(bad, bytes):
        assert isinstance(refused, ServiceError)
        assert (refused.reason, refused.code) == ("DIGEST_LENGTH", "INVALID_ARGUMENT")
    else:
        assert isinstance(refused, TypeError)


async def test_a_lost_answer_can_be_asked_for(rig: Rig, client: Client) -> None:
    """The request's id is the caller's to choose, and on what a call fails with; the same again signs nothing twice."""
    with pytest.raises(ServiceError) as lost:
        await client.sign_digests("p-256", [digest_of(1)], output="RAW", timeout_s=1e-9, **ECDSA)
    id_ = lost.value.request_id
    assert (lost.value.reason, lost.value.code) == ("", "DEADLINE_EXCEEDED")
    first = await client.sign_digests("p-256", [digest_of(1)], output="RAW", request_id=id_, **ECDSA)
    again = await client.sign_digests("p-256", [digest_of(1)], output="RAW", request_id=id_, **ECDSA)
    assert first.request_id == id_
    assert [item.signature for item in first.items] == [item.signature for item in again.items]
    assert len(await client.result(id_)) == 1


async def test_a_file_that_cannot_be_read_says_so(client: Client, tmp_path: Path) -> None:
    """By its own error, also in a group of tasks; nothing is left where the signed one would be."""
    missing, directory, target = tmp_path / "missing.pdf", tmp_path / "directory", tmp_path / "signed"
    directory.mkdir()
    algorithms = {"output": "CADES_B_B", "digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}
    good = tmp_path / "good.pdf"
    good.write_bytes(minimal_pdf())
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: client.sign_file("p-256", directory, target, **algorithms),
        lambda: client.verify(missing),
        lambda: client.verify(directory),
        lambda: client.verify(good, content=missing),
    ]
    for call in calls:
        with pytest.raises(OSError, match=r"missing|directory") as error:
            await call()
        assert error.value.filename in {str(missing), str(directory)}
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(call())
    assert not target.exists()


async def test_documents_that_stay_at_home(rig: Rig, client: Client, tmp_path: Path) -> None:
    """A local PDF or file is signed while one digest travels; the daemon finds the result good."""
    source = tmp_path / "a.pdf"
    source.write_bytes(minimal_pdf())
    for kind in KINDS:
        credential = await client.credential(kind.lower())
        for pss in (False, True):
            await local.sign_pdf(client, credential, source, tmp_path / "signed.pdf", pss=pss, reason="Agreed")
            report = await client.verify(tmp_path / "signed.pdf")
            (signature,) = report.signatures
            assert (signature.valid, signature.trusted, signature.profile) == (True, True, "PAdES")
            assert signature.revision_sha256 == hashlib.sha256(source.read_bytes()).digest()
        await local.sign_file(client, credential, source, tmp_path / "a.p7s")
        (signature,) = (await client.verify(tmp_path / "a.p7s", source)).signatures
        assert (signature.valid, signature.trusted, signature.profile) == (True, True, "CAdES")
    assert not list(tmp_path.glob(".paraph-*"))


async def test_a_bad_local_pdf_leaves_nothing(client: Client, tmp_path: Path) -> None:
    """The problem has its word, and no half-written target is there."""
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 nothing more")
    with pytest.raises(local.PdfProblem) as problem:
        await local.sign_pdf(client, await client.credential("p-256"), tmp_path / "a.pdf", tmp_path / "b.pdf")
    assert problem.value.kind == "truncated"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


@pytest.mark.parametrize(("name", "pss"), [("rsa-2048", False), ("rsa-2048", True), ("p-256", False)])
async def test_pyhanko_signs_with_our_key(client: Client, tmp_path: Path, name: str, pss: bool) -> None:
    """pyHanko's own signing, with `RemoteSigner` in the place of a key."""
    source, target = tmp_path / "a.pdf", tmp_path / "b.pdf"
    source.write_bytes(minimal_pdf())
    signer = local.RemoteSigner(client, await client.credential(name), pss=pss)
    with source.open("rb") as file, target.open("w+b") as output:
        metadata = PdfSignatureMetadata(field_name="S", md_algorithm="sha256")
        await async_sign_pdf(IncrementalPdfFileWriter(file), metadata, signer, output=output)
    (signature,) = (await client.verify(target)).signatures
    assert (signature.valid, signature.trusted) == (True, True)


async def test_all_credentials_on_however_many_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, none twice."""
    monkeypatch.setattr("signer.client.PAGE_CREDENTIALS", 1)
    assert [one.name for one in await client.credentials()] == sorted(kind.lower() for kind in KINDS)


async def test_ed25519_is_not_for_pyhanko(client: Client) -> None:
    """Its RAW takes messages; the class says so instead of signing something else."""
    credential = await client.credential("ed25519")
    with pytest.raises(ValueError, match="messages"):
        local.RemoteSigner(client, credential)


def test_the_synchronous_client(rig: Rig, tmp_path: Path) -> None:
    """Without asyncio: the same methods, from several threads at one time, and local PDFs."""
    with SyncClient(rig.profile("portal")) as client:
        assert {credential.name for credential in client.credentials()} == {kind.lower() for kind in KINDS}
        with futures.ThreadPoolExecutor(8) as threads:
            jobs = [threads.submit(client.sign_digest, "p-256", digest_of(i), **ECDSA) for i in range(64)]
            for number, job in enumerate(jobs):
                check(rig, digest_of(number), job.result())
        source, target = tmp_path / "a.pdf", tmp_path / "b.pdf"
        source.write_bytes(minimal_pdf())
        client.sign_pdf("rsa-2048", source, target, pss=True, reason="Agreed")
        (signature,) = client.verify(target).signatures
        assert (signature.valid, signature.profile) == (True, "PAdES")
        before = threading.active_count()
    client.close()  # a second time is no harm
    assert threading.active_count() < before


def test_a_client_that_is_closed_or_forked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and nobody waits for a loop that is not there."""
    with SyncClient(rig.profile("portal")) as client:
        process = os.getpid()
        monkeypatch.setattr("signer.sync.os.getpid", lambda: process + 1)
        with pytest.raises(RuntimeError, match="fork"):
            client.credentials()
        client.close()
        monkeypatch.undo()
    with pytest.raises(RuntimeError, match="closed"):
        client.credentials()
    before = threading.active_count()
    with pytest.raises(ProfileError):
        SyncClient(Profile("127.0.0.1:1", Path("/nowhere"), Path("/nowhere"), Path("/nowhere")))
    assert threading.active_count() == before


class Moody(signing_pb2_grpc.SigningServicer):  # type: ignore[misc]
    """Refuses as often as it is told, then answers; remembers every request."""

    def __init__(self, *refusals: Refusal | grpc.StatusCode) -> None:
        self.refusals = list(refusals)
        self.results: list[Any] = []  # of documents that are not signed
        self.requests: list[Any] = []
        self.gate = asyncio.Event()  # answers wait for it
        self.gate.set()
        self.came = asyncio.Condition()  # told of each request

    async def SignDigests(self, request: Any, context: Any) -> Any:  # noqa: N802 -- gRPC's name
        self.requests.append(request)
        async with self.came:
            self.came.notify_all()
        await self.gate.wait()
        if self.refusals:
            refusal = self.refusals.pop(0)
            if isinstance(refusal, Refusal):
                await context.abort(refusal.code, refusal.message, details(refusal))
            await context.abort(refusal, "nobody knows")
        assert request.crc32c == google_crc32c.value(b"".join(request.digests))
        items = [pb.SignedItem(status=pb.SIGNED, signature=b"s") for _ in request.digests]
        return pb.SignDigestsResponse(request_id=request.request_id, items=items)

    async def SignDocuments(self, messages: Any, context: Any) -> Any:  # noqa: N802 -- gRPC's name
        sent = [message async for message in messages]
        self.requests.append(sent)
        async with self.came:
            self.came.notify_all()
        await self.gate.wait()
        if self.refusals:
            refusal = self.refusals.pop(0)
            await context.abort(refusal.code, refusal.message, details(refusal))
        if self.results:
            yield pb.SignDocumentsResponse(result=self.results.pop(0))
            return
        content = b"".join(each.whole.content or each.chunk for each in sent)
        result = pb.DocumentResult(
            status=pb.SIGNED, size=len(content), sha256=hashlib.sha256(content).digest(), content=content
        )
        yield pb.SignDocumentsResponse(result=result)

    async def OpenBatch(self, messages: Any, _context: Any) -> Any:  # noqa: N802 -- gRPC's name
        async for _ in messages:
            pass
        return pb.OpenBatchResponse()

    async def have_come(self, count: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.requests) >= count)


@pytest.fixture
async def moody(tmp_path: Path) -> AsyncIterator[Any]:
    """(the servicer, a client of it), over a Unix socket."""
    server = grpc.aio.server()
    servicer = Moody()
    signing_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    await server.start()
    async with Client(Profile(f"unix:{tmp_path / 's'}")) as client:
        yield servicer, client
    await server.stop(0)


async def test_what_was_not_attempted_is_sent_again(moody: Any) -> None:
    """Refused with a reason and a time to come back: the same request id, until it is taken."""
    servicer, client = moody
    servicer.refusals = [Refusal("BACKLOG_FULL", retry_s=0.01), Refusal("TOO_MANY_CALLS", retry_s=0.01)]
    assert await client.sign_digest("c", digest_of(1), **ECDSA) == b"s"
    assert len({request.request_id for request in servicer.requests}) == 1
    assert len(servicer.requests) == 3


async def test_a_message_that_the_service_finds_too_long(moody: Any) -> None:
    """CMS with long chains: their answer would be too long, so they are sent in halves, each with an id of its own."""
    servicer, client = moody
    servicer.refusals = [Refusal("BATCH_TOO_LARGE")]
    asked = (client.sign_digest("c", digest_of(i), output="CADES_B_B", **ECDSA) for i in range(4))
    assert await asyncio.gather(*asked) == [b"s"] * 4
    assert [len(request.digests) for request in servicer.requests] == [4, 2, 2]
    assert len({request.request_id for request in servicer.requests}) == 3


async def test_a_batch_of_files_of_which_one_is_missing(moody: Any, tmp_path: Path) -> None:
    _, client = moody
    good, missing = tmp_path / "good.pdf", tmp_path / "missing.pdf"
    good.write_bytes(minimal_pdf())
    with pytest.raises(FileNotFoundError) as error:
        await client.open_batch("c", [("good", good), ("missing", missing)], output="CADES_B_B", **ECDSA)
    assert error.value.filename == str(missing)


def test_a_command_names_the_file_and_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of a file is one line and an exit code; where the answer was lost, the line has the request's id."""

    async def fails(error: Exception) -> int:
        raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there/contract.pdf")
    assert session.told(lambda: fails(full)) == exits.FAILED
    assert capsys.readouterr().err == "paraph: /there/contract.pdf: No space left on device\n"
    assert session.told(lambda: fails(OSError(errno.EIO, "Input/output error"))) == exits.FAILED
    assert capsys.readouterr().err == "paraph: a file: Input/output error\n"
    lost = ServiceError("", "Socket closed", "UNAVAILABLE", request_id="018f")
    assert session.told(lambda: fails(lost)) == exits.UNAVAILABLE
    assert capsys.readouterr().err.endswith("The request is 018f.\n")
    refused = ServiceError("PIN_LOCKED", "It is locked.", request_id="018f")
    assert session.told(lambda: fails(refused)) == exits.UNAVAILABLE
    assert "018f" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "refusal",
    [Refusal("PIN_LOCKED"), Refusal("CREDENTIAL_UNKNOWN"), grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL],
)
async def test_nothing_else_is_sent_again(moody: Any, refusal: Any) -> None:
    """What waiting cannot help, and what may have been attempted, is the caller's to decide."""
    servicer, client = moody
    servicer.refusals = [refusal]
    with pytest.raises(ServiceError):
        await client.sign_digest("c", digest_of(1), **ECDSA)
    assert len(servicer.requests) == 1


@pytest.mark.parametrize(
    ("refusal", "times"),
    [(Refusal("DRAINING", retry_s=0.01), 2), (Refusal("TOKEN_REMOVED", "the item is INDETERMINATE"), 1)],
)
async def test_gRPC_s_own_retries_heed_us(tmp_path: Path, refusal: Refusal, times: int) -> None:  # noqa: N802
    """A stock policy that retries UNAVAILABLE waits as long as it is told, and never resends what may have been signed."""
    server, servicer = grpc.aio.server(), Moody(refusal)
    signing_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    await server.start()
    policy = {
        "name": [{}],
        "retryPolicy": {
            "maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }  # fmt: skip
    options = [("grpc.service_config", json.dumps({"methodConfig": [policy]}))]
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}", options) as channel:
        request = pb.SignDigestsRequest(request_id="r", digests=[b"d"], crc32c=google_crc32c.value(b"d"))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await signing_pb2_grpc.SigningStub(channel).SignDigests(request, timeout=5)
    await server.stop(0)
    assert len(servicer.requests) == times


@pytest.mark.parametrize("retry_s", [60.0, 1.0, 0.97])
async def test_patience_ends_with_the_deadline(moody: Any, retry_s: float) -> None:
    """A time to come back that is past the deadline, or hardly before it, is not waited for: the refusal stands."""
    servicer, client = moody
    servicer.refusals = [Refusal("BACKLOG_FULL", retry_s=retry_s)]
    with pytest.raises(ServiceError) as error:
        await client.sign_digests("c", [digest_of(1)], output="RAW", timeout_s=1.0, **ECDSA)
    assert (error.value.reason, error.value.retry_s) == ("BACKLOG_FULL", retry_s)
    assert len(servicer.requests) == 1


def files(directory: Path, count: int) -> list[Path]:
    made = [directory / f"{number}.pdf" for number in range(count)]
    for path in made:
        path.write_bytes(minimal_pdf())
    return made


def signing(client: Client, path: Path, **more: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(
        client.sign_file("p-256", path, path.with_suffix(".signed"), output="PADES_B_B", **ECDSA, **more)
    )


async def test_many_files_at_one_time(client: Client, tmp_path: Path) -> None:
    """More than the service lets a caller have under way: those that are too many wait in the client, and all are signed."""
    assert DOCUMENT_STREAMS_MAX == limits.DOCUMENT_STREAMS_MAX
    paths = files(tmp_path, 3 * DOCUMENT_STREAMS_MAX)
    streams: list[Any] = []
    original = client.signing.SignDocuments

    def counted(*args: Any, **more: Any) -> Any:
        streams.append(args)
        return original(*args, **more)

    client.signing.SignDocuments = counted
    signed = await asyncio.gather(*(signing(client, path) for path in paths))
    assert [path.with_suffix(".signed").stat().st_size for path in paths] == [one.size for one in signed]
    assert len(streams) == len(paths)  # none was refused, and had to come again


async def test_another_program_of_the_caller_has_all_streams(rig: Rig, client: Client, tmp_path: Path) -> None:
    """A file that is refused for that is sent again when the service says, and signed when one of them has ended."""
    [path] = files(tmp_path, 1)
    sent: list[int] = []
    async with rig.client() as other:
        streams = [other.signing.SignDocuments(timeout=30) for _ in range(DOCUMENT_STREAMS_MAX)]
        order = {"credential": "p-256", "output": "PADES_B_B", **ECDSA}
        for number, stream in enumerate(streams):
            opening = pb.OpenDocuments(request_id=f"00000000-0000-4000-8000-00000000000{number}", **order)
            await stream.write(pb.SignDocumentsRequest(open=opening))
            whole = pb.WholeDocument(content=path.read_bytes(), crc32c=google_crc32c.value(path.read_bytes()))
            await stream.write(pb.SignDocumentsRequest(whole=whole))
            assert (await stream.read()).result.status == pb.SIGNED  # now it is open for certain
        with pytest.raises(ServiceError) as error:
            await signing(client, path, timeout_s=0.5)  # in which the service would not have it come again
        assert error.value.reason == "TOO_MANY_STREAMS"
        waiting = signing(client, path, progress=sent.append)
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        assert not path.with_suffix(".signed").exists()
        for stream in streams:
            await stream.done_writing()
        signed = await waiting
    assert path.with_suffix(".signed").stat().st_size == signed.size
    assert sum(sent) == path.stat().st_size  # however often it was sent


async def test_a_file_that_was_not_attempted_is_sent_again(moody: Any, tmp_path: Path) -> None:
    """From its beginning, with the same request id; what was sent before is taken off the progress."""
    servicer, client = moody
    servicer.refusals = [Refusal("TOO_MANY_STREAMS", retry_s=0.01), Refusal("TOO_MANY_CALLS", retry_s=0.01)]
    [path] = files(tmp_path, 1)
    path.write_bytes(bytes(600_000))
    sent: list[int] = []
    await signing(client, path, progress=sent.append)
    assert len(servicer.requests) == 3
    assert servicer.requests[0] == servicer.requests[1] == servicer.requests[2]
    assert sent.count(-600_000) == 2
    assert sum(sent) == 600_000
    assert path.with_suffix(".signed").read_bytes() == path.read_bytes()


async def test_a_file_that_alone_was_not_attempted_is_sent_again(moody: Any, tmp_path: Path) -> None:
    """Where the service says so in the document's own result, too; not where it may have been signed, or never will be."""
    servicer, client = moody
    [path] = files(tmp_path, 1)
    busy = pb.DocumentResult(status=pb.FAILED, reason="BACKLOG_FULL", retry_after_s=0.01)
    servicer.results = [busy, pb.DocumentResult(status=pb.FAILED, reason="SPOOL_FULL", retry_after_s=0.01)]
    await signing(client, path)
    assert len(servicer.requests) == 3
    assert servicer.requests[0] == servicer.requests[1] == servicer.requests[2]
    assert path.with_suffix(".signed").read_bytes() == path.read_bytes()
    for status, reason in ((pb.INDETERMINATE, "TOKEN_TIMEOUT"), (pb.FAILED, "PDF_REJECTED")):
        servicer.results = [pb.DocumentResult(status=status, reason=reason)]
        before = len(servicer.requests)
        with pytest.raises(ServiceError) as error:
            await signing(client, path)
        assert (error.value.reason, error.value.retry_s) == (reason, None)
        assert (error.value.code, error.value.status) == ("UNKNOWN", pb.ItemStatus.Name(status)), (
            "as of an older service"
        )
        assert len(servicer.requests) == before + 1


async def test_a_refused_file_has_the_status_of_its_reason(client: Client, tmp_path: Path) -> None:
    """By gRPC's name, as a refused call has it, and beside it how far it came."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7\nnothing more")
    with pytest.raises(ServiceError) as error:
        await client.sign_file("p-256", path, tmp_path / "b.pdf", output="PADES_B_B", **ECDSA)
    assert (error.value.reason, error.value.code, error.value.status) == ("PDF_REJECTED", "INVALID_ARGUMENT", "FAILED")


async def test_a_file_waits_no_longer_than_its_time(moody: Any, tmp_path: Path) -> None:
    """Behind files that take long it is told so, and was never sent; the next one has its turn."""
    servicer, client = moody
    servicer.gate.clear()
    *first, late, last = files(tmp_path, DOCUMENT_STREAMS_MAX + 2)
    asked = [signing(client, path) for path in first]
    await servicer.have_come(DOCUMENT_STREAMS_MAX)
    with pytest.raises(ServiceError, match="files before it") as error:
        await signing(client, late, timeout_s=0.05, request_id="018f")
    assert (error.value.code, error.value.reason, error.value.request_id) == ("DEADLINE_EXCEEDED", "", "018f")
    assert len(servicer.requests) == DOCUMENT_STREAMS_MAX
    servicer.gate.set()
    await asyncio.gather(*asked, signing(client, last))


async def test_files_that_wait_when_the_client_is_closed(moody: Any, tmp_path: Path) -> None:
    """Are told so, those that were sent and those that wait for their turn."""
    servicer, client = moody
    servicer.gate.clear()
    asked = [signing(client, path) for path in files(tmp_path, DOCUMENT_STREAMS_MAX + 2)]
    await servicer.have_come(DOCUMENT_STREAMS_MAX)
    await client.close()
    done, waiting = await asyncio.wait(asked, timeout=10)
    servicer.gate.set()
    assert not waiting
    errors = [each.exception() for each in done]
    assert [error.code for error in errors if isinstance(error, ServiceError)] == ["CANCELLED"] * len(asked)


async def test_who_waits_when_the_client_is_closed(moody: Any) -> None:
    """Is told so: alone, and in a message that is shared."""
    servicer, client = moody
    servicer.gate.clear()
    asked = [asyncio.ensure_future(client.sign_digest("c", digest_of(i), **ECDSA)) for i in range(3)]
    asked.append(asyncio.ensure_future(client.sign_digests("c", [digest_of(9)], output="RAW", **ECDSA)))
    await servicer.have_come(2)
    await client.close()
    done, waiting = await asyncio.wait(asked, timeout=10)
    servicer.gate.set()
    assert not waiting
    errors = [each.exception() for each in done]
    assert {error.code for error in errors if isinstance(error, ServiceError)} == {"CANCELLED"}
    assert len(set(map(id, errors))) == 4


async def test_who_waits_in_another_thread_when_it_is_closed(moody: Any, tmp_path: Path) -> None:
    """Is told so, also in the pause before the next try; and a second thread that closes it comes back, too."""
    servicer, _ = moody
    client = await asyncio.to_thread(SyncClient, Profile(f"unix:{tmp_path / 's'}"))
    servicer.refusals = [Refusal("BACKLOG_FULL", retry_s=20.0)]

    def sign(number: int) -> str:
        with pytest.raises(ServiceError) as error:
            client.sign_digest("c", digest_of(number), **ECDSA)
        return error.value.code

    pausing = asyncio.create_task(asyncio.to_thread(sign, 1))
    await servicer.have_come(1)
    servicer.gate.clear()
    under_way = asyncio.create_task(asyncio.to_thread(sign, 2))
    await servicer.have_come(2)
    async with asyncio.timeout(10):
        await asyncio.gather(asyncio.to_thread(client.close), asyncio.to_thread(client.close))
        assert await asyncio.gather(pausing, under_way) == ["CANCELLED", "CANCELLED"]
    servicer.gate.set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server = 1", "server is missing"),
        ("serve", "not TOML"),
        ('server = "a:1"', "needs ca"),
        ('servr = "x"', "servr"),
    ],
)
def test_a_bad_profile_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """The file and the mistake, in one line."""
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=said):
        Profile.load(path)


async def test_a_signed_file_has_the_users_mode(client: Client, tmp_path: Path) -> None:
    """It is written by way of a temporary file, which is 0600; what the umask gives is what the user gets."""
    source = tmp_path / "a.pdf"
    source.write_bytes(minimal_pdf())
    plain = tmp_path / "plain"
    plain.touch()
    credential = await client.credential("p-256")
    await local.sign_pdf(client, credential, source, tmp_path / "local.pdf")
    await client.sign_file("p-256", source, tmp_path / "sent.pdf", output="PADES_B_B", **ECDSA)
    modes = {path.stat().st_mode for path in (plain, tmp_path / "local.pdf", tmp_path / "sent.pdf")}
    assert len(modes) == 1
