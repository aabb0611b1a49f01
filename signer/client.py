"""
The client: what a portal back end or a command calls the service with.

    async with Client.from_profile(Path("var/demo/client.toml")) as client:
        signed = await client.sign_file(
            "ana-p-256", Path("contract.pdf"), Path("contract-signed.pdf"),
            output="PADES_B_B", digest_algorithm="SHA256", signature_algorithm="ECDSA",
        )

Single digests that are signed at one time travel together by themselves (`sign_digest`). A call that the service
refused before it attempted anything, and said when to come back, is sent again with the same request id until its
deadline; nothing else is. `signer/sync.py` is the same without asyncio. Signing a local PDF while only its digest travels
is in `signer/local.py`.

This needs gRPC with its error details (google.rpc), google_crc32c, the stubs and the standard library; a base installation
of `paraph` has all of it.
"""

import asyncio
import hashlib
import random
import ssl
import time
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import google_crc32c
import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from signer.coalesce import Coalescer, TooMany
from signer.request_id import new_request_id
from signer.v1 import operator_pb2 as op
from signer.v1 import operator_pb2_grpc, signing_pb2_grpc
from signer.v1 import signing_pb2 as pb
from signer.whole import whole

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024  # the service's limit for one
ANSWER_BYTES_MAX = 4 * 1024 * 1024
PAGE_CREDENTIALS = 1_000  # the service's limit for one answer
DOCUMENT_STREAMS_MAX = 4  # the service's limit for one caller: one more would be sent to be refused
CALL_S = 30.0
DOCUMENTS_S = 600.0
CANCEL_S = 2.0  # while the service lets go of a batch
_CANCEL_PAUSE_S = 0.1
_LAST_TRY_S = 0.05  # with less left it would be lost on its way, and a clear refusal would become "nobody knows"

_DIGEST_BYTES = {"SHA256": 32, "SHA384": 48, "SHA512": 64}

Wait = Callable[["ServiceError", float], bool]  # whether to pause so many seconds after this refusal, and send it again
Progress = Callable[[int], None]  # bytes that were sent since the last call; less than none where a file is sent again


class ServiceError(Exception):
    """
    The service refused a call or an item, or could not be reached.

    `reason` is the stable word of proto/README.md ('' when nothing of the service answered), `code` the gRPC status by
    name, `retry_s` when the same may help later, `tries_left` of a person's PIN where the token tells it. Of a document or a
    digest `status` is its ItemStatus by name ('' for a call as a whole): after INDETERMINATE it may have been signed.
    `request_id` is that of what was to be signed: where the answer was lost, `Client.result` tells what became of it, and the
    same call with the same `request_id` gets what was signed already.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        code: str = "",
        retry_s: float | None = None,
        tries_left: int | None = None,
        request_id: str = "",
        status: str = "",
    ) -> None:
        self.reason = reason
        self.code = code
        self.message = message
        self.retry_s = retry_s
        self.tries_left = tries_left
        self.request_id = request_id
        self.status = status
        super().__init__(f"{reason or code}: {message}")

    def again(self) -> "ServiceError":
        """Another one that says the same: one that many callers raise would be written on by each."""
        return ServiceError(
            self.reason, self.message, self.code, self.retry_s, self.tries_left, self.request_id, self.status
        )


class ProfileError(ValueError):
    """The client's profile cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Profile:
    """
    Where the service is and who we are. In a file: TOML with `server` ('127.0.0.1:7443' or 'unix:/run/paraph.sock')
    and, for TCP, `ca`, `certificate` and `key`, paths relative to the file.
    """

    server: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def load(cls, path: Path) -> "Profile":
        try:
            table = tomllib.loads(path.read_text())
        except OSError as error:
            raise ProfileError(f"{path}: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(f"{path}: not TOML: {error}") from None
        known = {"server", "ca", "certificate", "key"}
        unknown = sorted(table.keys() - known)
        if unknown or not isinstance(table.get("server"), str):
            raise ProfileError(f"{path}: {'unknown key ' + unknown[0] if unknown else 'server is missing'}")
        strange = [name for name in sorted(table) if not isinstance(table[name], str)]
        if strange:
            raise ProfileError(f"{path}: {strange[0]} is a text in quotes: the path of a file")
        files = {name: path.parent / table[name] for name in ("ca", "certificate", "key") if name in table}
        if not table["server"].startswith("unix:") and len(files) < 3:
            raise ProfileError(f"{path}: a TCP server needs ca, certificate and key")
        return cls(table["server"], **files)

    def channel(self) -> grpc.aio.Channel:
        options = [("grpc.max_receive_message_length", ANSWER_BYTES_MAX + 64 * 1024)]
        if self.server.startswith("unix:"):
            return grpc.aio.insecure_channel(self.server, options=options)
        try:
            ca, key, certificate = (Path(str(p)).read_bytes() for p in (self.ca, self.key, self.certificate))
        except OSError as error:
            raise ProfileError(f"{error.filename}: {error.strerror}") from None
        self._check_pem()
        return grpc.aio.secure_channel(self.server, grpc.ssl_channel_credentials(ca, key, certificate), options=options)

    def _check_pem(self) -> None:
        """Raises `ProfileError`. gRPC would take other files without a word, and say at the first call that nobody answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, ValueError):
            raise ProfileError(f"{self.ca}: no certificate in PEM that can be read") from None
        try:
            context.load_cert_chain(str(self.certificate), self.key, password="")  # else it would ask at the terminal
        except (ssl.SSLError, ValueError) as error:
            why = "they do not belong to one another" if "MISMATCH" in str(error) else "not in PEM, or with a password"
            raise ProfileError(
                f"{self.certificate} and {self.key}: certificate and key cannot be used: {why}"
            ) from None


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed document or file."""

    token: str
    signing_time: str  # RFC 3339, UTC
    certificate: bytes  # DER
    input_sha256: bytes
    size: int  # of the output, bytes


class Client:
    """Not for several event loops. Every call raises `ServiceError`, and what reads a file its `OSError`."""

    def __init__(self, profile: Profile) -> None:
        self._channel = profile.channel()
        self._coalescer = Coalescer(self._send_digests)
        self._document_streams = asyncio.Semaphore(DOCUMENT_STREAMS_MAX)  # first come, first served
        self._is_closed = False
        self.signing: Any = signing_pb2_grpc.SigningStub(self._channel)
        self.operator: Any = operator_pb2_grpc.OperatorStub(self._channel)

    @classmethod
    def from_profile(cls, path: Path) -> "Client":
        return cls(Profile.load(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """What is under way fails with CANCELLED."""
        self._is_closed = True
        await self._channel.close()

    async def credentials(self, of_person: Sequence[bytes] = ()) -> list[Any]:
        """All of this caller's, page by page; with certificates, in DER or as SHA-256, those of the person who has these."""
        found: list[Any] = []
        token = ""
        while True:
            request = pb.ListCredentialsRequest(page_size=PAGE_CREDENTIALS, page_token=token, of_person=of_person)
            answer = await called(self.signing.ListCredentials(request, timeout=CALL_S))
            found += answer.credentials
            token = answer.next_page_token
            if not token:
                return found

    async def credential(self, name: str) -> Any:
        return await called(self.signing.GetCredential(pb.GetCredentialRequest(credential=name), timeout=CALL_S))

    async def sign_digests(
        self,
        credential: str,
        digests: Sequence[bytes],
        *,
        output: str,
        digest_algorithm: str,
        signature_algorithm: str,
        request_id: str = "",
        timeout_s: float = CALL_S,
    ) -> Any:
        """
        The service's answer: one item for each digest, in order, with a status of its own. Without a `request_id` it is given
        a new one, which is on the error, too.
        """
        request = pb.SignDigestsRequest(
            request_id=request_id or new_request_id(),
            credential=credential,
            output=output,
            digest_algorithm=digest_algorithm,
            signature_algorithm=signature_algorithm,
            digests=digests,
            crc32c=google_crc32c.value(b"".join(digests)),
        )

        async def attempt(left_s: float) -> Any:
            return await called(self.signing.SignDigests(request, timeout=left_s), request.request_id)

        return await self._patiently(attempt, request.request_id, timeout_s)

    async def sign_digest(
        self, credential: str, digest: bytes, *, digest_algorithm: str, signature_algorithm: str, output: str = "RAW"
    ) -> bytes:
        """
        One signature (RAW), or one CMS, for one digest. Calls made at one time share messages.

        Raises `ServiceError`; its `reason` is that of the item or of the message. What can be seen here to be no such digest
        is refused here (DIGEST_LENGTH, `TypeError`), because the service would refuse its whole message.
        """
        if not isinstance(digest, bytes | bytearray | memoryview):
            raise TypeError(f"a digest is bytes, not {type(digest).__name__}")
        wanted = _DIGEST_BYTES.get(digest_algorithm, len(digest))
        if len(digest) != wanted:
            raise ServiceError(
                "DIGEST_LENGTH", f"{len(digest)} bytes, {digest_algorithm} has {wanted}", "INVALID_ARGUMENT"
            )
        digest = bytes(digest)
        return await self._coalescer.ask((credential, output, digest_algorithm, signature_algorithm), digest)

    async def _send_digests(self, kind: Any, digests: Sequence[bytes]) -> list[bytes | Exception]:
        credential, output, digest_algorithm, signature_algorithm = kind
        try:
            answer = await self.sign_digests(
                credential,
                digests,
                output=output,
                digest_algorithm=digest_algorithm,
                signature_algorithm=signature_algorithm,
            )
        except ServiceError as error:
            if error.reason == "BATCH_TOO_LARGE":
                raise TooMany from error  # CMS with long chains: their answer would be too long
            return [error.again() for _ in digests]
        told = "this digest was not signed"
        return [item.signature if item.status == pb.SIGNED else not_signed(item, told) for item in answer.items]

    async def _patiently(
        self,
        attempt: Callable[[float], Awaitable[T]],
        request_id: str,
        timeout_s: float,
        wait: Wait = lambda _error, _pause_s: True,
    ) -> T:
        """Call, and call again when the service says that it attempted nothing and when to come back."""
        end = time.monotonic() + timeout_s
        while True:
            if self._is_closed:  # while it waited for its turn
                raise ServiceError("", "the client was closed", "CANCELLED", request_id=request_id)
            try:
                return await attempt(end - time.monotonic())
            except ServiceError as error:
                # A reason means that the service itself answered; a lost connection says nothing of what was signed.
                if not error.reason or error.retry_s is None:
                    raise
                pause_s = error.retry_s * (1 + random.random() / 4)  # noqa: S311 -- spreads the crowd
                if time.monotonic() + pause_s >= end - _LAST_TRY_S or not wait(error, pause_s):
                    raise
                await asyncio.sleep(pause_s)

    async def sign_file(
        self,
        credential: str,
        source: Path,
        target: Path,
        *,
        output: str,
        digest_algorithm: str,
        signature_algorithm: str,
        enveloping: bool = False,
        reason: str = "",
        location: str = "",
        authorisation: bytes = b"",
        request_id: str = "",
        index: int = 0,
        progress: Progress | None = None,
        wait: Wait = lambda _error, _pause_s: True,
        timeout_s: float = DOCUMENTS_S,
    ) -> Signed:
        """
        Sign one file. `target` appears whole or not at all; what comes back is compared with its SHA-256. With an
        `authorisation` all its files have one `request_id`, and their places as `index`. However many are signed at one time,
        `DOCUMENT_STREAMS_MAX` of them are under way and the others wait, which is part of their `timeout_s`. `wait` is asked
        before each pause after a refusal; without it a file that is refused for now waits as long as its time lasts.
        """
        opening = pb.OpenDocuments(
            request_id=request_id or new_request_id(),
            authorisation=authorisation,
            credential=credential,
            output=output,
            digest_algorithm=digest_algorithm,
            signature_algorithm=signature_algorithm,
            enveloping=enveloping,
        )
        begin = pb.BeginDocument(
            index=index, name=source.name[:255], size=source.stat().st_size, reason=reason, location=location
        )
        sent_bytes = 0

        def count(more: int) -> None:
            nonlocal sent_bytes
            sent_bytes += more
            if progress is not None:
                progress(more)

        async def attempt(left_s: float) -> Any:
            if sent_bytes:
                count(-sent_bytes)
            sent = _Sent(_upload(opening, begin, source, count))
            call = self.signing.SignDocuments(aiter(sent), timeout=left_s)
            with whole(target) as file:
                return await called(_download(call, file), opening.request_id, sent)

        end = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._document_streams.acquire()
        except TimeoutError:
            told = "the files before it took all of its time: give it more, or sign fewer at one time"
            raise ServiceError("", told, "DEADLINE_EXCEEDED", request_id=opening.request_id) from None
        try:
            result = await self._patiently(attempt, opening.request_id, end - time.monotonic(), wait)
        finally:
            self._document_streams.release()
        return Signed(result.token, result.signing_time, result.certificate, result.input_sha256, result.size)

    async def verify(self, source: Path, content: Path | None = None, *, timeout_s: float = DOCUMENTS_S) -> Any:
        """The service's report on a PDF, or on a CMS with the file that it signs."""

        async def messages() -> AsyncIterator[Any]:
            yield pb.VerifyDocumentRequest(open=pb.OpenVerify(name=source.name[:255]))
            for chunk in _chunks(source):
                yield pb.VerifyDocumentRequest(chunk=chunk)
            for chunk in _chunks(content) if content is not None else ():
                yield pb.VerifyDocumentRequest(content=chunk)

        sent = _Sent(messages())
        return await called(self.signing.VerifyDocument(aiter(sent), timeout=timeout_s), sent=sent)

    # ---- batches for people (the protocol says who may do what)

    async def open_batch(
        self,
        credential: str,
        files: Sequence[tuple[str, Path]],
        *,
        output: str,
        digest_algorithm: str,
        signature_algorithm: str,
        request_id: str = "",
        reason: str = "",
        location: str = "",
        progress: Progress | None = None,
        timeout_s: float = DOCUMENTS_S,
    ) -> Any:
        """
        Send documents that a person is to sign, each with the name that she is shown; all or none. The answer has the
        `batch` and its one-time `link`. `reason` and `location` are for a person's own program alone.
        """
        opening = pb.BatchOpening(
            request_id=request_id or new_request_id(),
            credential=credential,
            output=output,
            digest_algorithm=digest_algorithm,
            signature_algorithm=signature_algorithm,
        )

        async def messages() -> AsyncIterator[Any]:
            yield pb.OpenBatchRequest(open=opening)
            for index, (name, path) in enumerate(files):
                begin = pb.BeginDocument(
                    index=index, name=name, size=path.stat().st_size, reason=reason, location=location
                )
                async for message in document(pb.OpenBatchRequest, begin, path, progress):
                    yield message

        sent = _Sent(messages())
        return await called(self.signing.OpenBatch(aiter(sent), timeout=timeout_s), opening.request_id, sent)

    async def batch(self, request_id: str = "", *, link: str = "") -> Any:
        """How a batch stands; by its one-time `link` it becomes this caller's to show."""
        call = self.signing.GetBatch(pb.GetBatchRequest(request_id=request_id, link=link), timeout=CALL_S)
        try:
            [answer] = [message async for message in call]
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from None
        return answer.batch

    async def batches(self) -> list[Any]:
        """Those of this caller, the newest first, without their items."""
        return list((await called(self.signing.ListBatches(pb.ListBatchesRequest(), timeout=CALL_S))).batches)

    async def batch_document(
        self, request_id: str, index: int = 0, *, timeout_s: float = DOCUMENTS_S
    ) -> AsyncGenerator[bytes, None]:
        """One of a batch's documents, in pieces: as it came in, or to its submitter as it was signed."""
        request = pb.GetBatchRequest(request_id=request_id, with_document=True, index=index)
        call = self.signing.GetBatch(request, timeout=timeout_s)
        try:
            async for message in call:
                if message.WhichOneof("message") == "chunk":
                    yield message.chunk
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from None
        finally:
            call.cancel()

    async def fetch_document(
        self, request_id: str, index: int, target: Path, *, progress: Progress | None = None
    ) -> int:
        """The same into `target`, whole or not at all; answers its length in bytes."""
        size = 0
        with whole(target) as file:
            async for chunk in self.batch_document(request_id, index):
                size += len(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(len(chunk))
            if not size:
                raise ServiceError("", "the answer did not arrive whole", "DATA_LOSS")
        return size

    async def request_otp(self, batch: str, source: str = "") -> Any:
        """Have a one-time code sent to the person, for this batch and nothing else; `source` is her IP address."""
        request = pb.RequestOtpRequest(batch=batch, source=source)
        return await called(self.signing.RequestOtp(request, timeout=CALL_S))

    async def sign_batch(
        self,
        request_id: str,
        *,
        secret_code: str = "",
        otp: str = "",
        pin: str = "",
        source: str = "",
        override_final_try: bool = False,
        timeout_s: float = DOCUMENTS_S,
    ) -> Any:
        """The batch and an outcome for each document. Sent once: whether again with the same codes is the person's word."""
        request = pb.SignBatchRequest(
            request_id=request_id,
            secret_code=secret_code,
            otp=otp,
            pin=pin,
            source=source,
            override_final_try=override_final_try,
        )
        return await called(self.signing.SignBatch(request, timeout=timeout_s))

    async def cancel_batch(self, request_id: str, *, timeout_s: float = CALL_S) -> Any:
        """Nothing of it is signed any more. While the service is just letting go of it, it is asked again."""
        request, end = pb.CancelBatchRequest(request_id=request_id), time.monotonic() + CANCEL_S
        while True:
            try:
                return (await called(self.signing.CancelBatch(request, timeout=timeout_s))).batch
            except ServiceError as error:
                if error.reason != "BATCH_STATE" or time.monotonic() >= end:
                    raise
                if (await self.batch(request_id)).state not in {pb.Batch.SIGNING, pb.Batch.OPEN}:
                    raise
            await asyncio.sleep(_CANCEL_PAUSE_S)

    async def result(self, request_id: str) -> list[Any]:
        """What became of a request of the last 24 hours, item by item; of documents their CMS."""
        items: list[Any] = []
        first = 0
        while True:
            request = pb.GetResultRequest(request_id=request_id, first=first)
            answer = await called(self.signing.GetResult(request, timeout=CALL_S))
            items += answer.items
            first = answer.next
            if not first:
                return items

    async def tokens(self) -> list[Any]:
        return list((await self.tokens_and_ledger()).tokens)

    async def tokens_and_ledger(self) -> Any:
        """`tokens`, and `ledger`: the reason why nothing is signed whatever the tokens could, empty where there is none."""
        return await called(self.operator.ListTokens(op.ListTokensRequest(), timeout=CALL_S))

    async def watch_tokens(self) -> AsyncGenerator[Any, None]:
        """The same now and after each change, until the service ends the stream."""
        call = self.operator.WatchTokens(op.WatchTokensRequest())
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from None
        finally:
            call.cancel()

    async def change_token(self, what: str, token: str, *, override_final_try: bool = False) -> Any:
        """`what`: 'unlock', 'drain' or 'resume'."""
        call, request = {
            "unlock": (
                self.operator.UnlockToken,
                op.UnlockTokenRequest(token=token, override_final_try=override_final_try),
            ),
            "drain": (self.operator.DrainToken, op.DrainTokenRequest(token=token)),
            "resume": (self.operator.ResumeToken, op.ResumeTokenRequest(token=token)),
        }[what]
        return await called(call(request, timeout=CALL_S))


def algorithms_for(credential: Any, *, pss: bool = False) -> tuple[str, str]:
    """
    (digest algorithm, signature algorithm) that fit a credential's key: a choice made here, because a request names
    both and the service defaults neither.
    """
    kinds = {"P-384": ("SHA384", "ECDSA"), "P-521": ("SHA512", "ECDSA"), "Ed25519": ("SHA512", "ED25519")}
    if credential.key_type.startswith("RSA"):
        return "SHA256", "RSA_PSS" if pss else "RSA_PKCS1_V15"
    return kinds.get(credential.key_type, ("SHA256", "ECDSA"))


def error_from(error: grpc.aio.AioRpcError) -> ServiceError:
    """What a failed call says: the reason is in its details (google.rpc.Status)."""
    reason, retry_s, tries_left = "", None, None
    metadata = dict(error.trailing_metadata() or ())
    try:
        status = status_pb2.Status.FromString(bytes(metadata.get("grpc-status-details-bin", b"")))
    except DecodeError:
        status = status_pb2.Status()
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
            tries_left = int(info.metadata["tries_left"]) if info.metadata.get("tries_left", "").isdigit() else None
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToNanoseconds() / 1e9
    return ServiceError(reason, error.details() or "", error.code().name, retry_s, tries_left)


def not_signed(item: Any, message: str, retry_s: float | None = None) -> ServiceError:
    """What a SignedItem, a DocumentResult or a SignBatchOutcome says that is not SIGNED."""
    # An older service has no code there.
    code = next((each.name for each in grpc.StatusCode if item.code and each.value[0] == item.code), "UNKNOWN")
    return ServiceError(item.reason, message, code, retry_s, status=pb.ItemStatus.Name(item.status))


class _Sent:
    """The messages of a call. What goes wrong as they are made is kept: gRPC cancels the call, and says nothing of it."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._messages:
                yield message
        except Exception as error:
            self.error = error
            raise


async def called(call: Any, request_id: str = "", sent: _Sent | None = None) -> Any:
    """The answer of a call; raises `ServiceError`, and what went wrong as its messages were made."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()  # Python 3.11 leaves it at 1 behind a TaskGroup that failed
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        told = error_from(error)
    except ServiceError as error:
        told = error
    except asyncio.CancelledError:
        if task is None or task.cancelling() > before:
            raise
        # Nobody cancelled us: it is the call that was.
        if sent is not None and sent.error is not None:
            raise sent.error from None
        told = ServiceError("", "the client was closed", "CANCELLED")
    told.request_id = request_id
    raise told from None


def _chunks(path: Path) -> Any:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def _upload(opening: Any, begin: Any, source: Path, progress: Progress | None) -> AsyncIterator[Any]:
    yield pb.SignDocumentsRequest(open=opening)
    if begin.size <= CHUNK_BYTES and len(content := source.read_bytes()) == begin.size:
        whole = pb.WholeDocument(begin=begin, content=content, crc32c=google_crc32c.value(content))
        yield pb.SignDocumentsRequest(whole=whole)
        if progress is not None:
            progress(len(content))
        return
    async for message in document(pb.SignDocumentsRequest, begin, source, progress):
        yield message


async def document(kind: Any, begin: Any, source: Path, progress: Progress | None) -> AsyncIterator[Any]:
    """A file as messages of a `kind` that has `begin`, `chunk` and `end`."""
    yield kind(begin=begin)
    checksum = google_crc32c.Checksum()
    for chunk in _chunks(source):
        checksum.update(chunk)
        yield kind(chunk=chunk)
        if progress is not None:
            progress(len(chunk))
        await asyncio.sleep(0)  # an answer may already be there
    yield kind(end=pb.EndDocument(crc32c=int.from_bytes(checksum.digest())))


async def _download(call: Any, file: BinaryIO) -> Any:
    """Write the signed bytes as they come; answers the result, raises `ServiceError` if there is none to trust."""
    result, digest, size = None, hashlib.sha256(), 0
    async for message in call:
        if message.WhichOneof("message") == "result":
            result, content = message.result, message.result.content
            if result.status != pb.SIGNED:
                retry_s = result.retry_after_s or None
                raise not_signed(result, result.message, retry_s)
        else:
            content = message.chunk
        digest.update(content)
        size += len(content)
        file.write(content)
    if result is None or size != result.size or digest.digest() != result.sha256:
        raise ServiceError("", "the answer did not arrive whole", "DATA_LOSS")
    return result
