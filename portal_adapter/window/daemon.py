"""
What the window asks of the daemon, as a caller with the role consent. Every call raises `ServiceError`, and is made once:
whether the same codes are sent again is the person's decision.

Each has a connection of its own: a certificate that was renewed is used at once, and so is a daemon that was away.
"""

import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from signer.client import CALL_S, Client, Profile, ProfileError, ServiceError, algorithms_for, called
from signer.request_id import new_request_id
from signer.v1 import signing_pb2 as pb

log = logging.getLogger("window")

PRESENCE_S = 120.0  # for whoever types a PIN at a reader, or touches a token


@dataclass(frozen=True, slots=True)
class Login:
    """
    What is to be proved, and to whom: `audience` is the portal's origin, `nonce` its challenge, which it takes until `ends`
    (seconds since the epoch).
    """

    credential: str
    nonce: bytes
    audience: str
    ends: int


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person has typed, and the address that it came from."""

    secret_code: str = field(repr=False)
    otp: str = field(repr=False)
    source: str
    pin: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """An enrolment: `uri` is what a device makes codes from, empty where a code was sent to `contact`."""

    subject: str
    uri: str = field(repr=False)
    contact: str


@dataclass(frozen=True, slots=True)
class Document:
    """As the daemon has it."""

    name: str
    size: int
    sha256: str  # hexadecimal; empty where the daemon has not seen it


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What a person is to sign, and with what: `gate` and `presence` as a credential has them, `trouble` the reason why its
    token cannot sign now, `short_digest` the 8 characters by which a message with a code names it. `ends` in seconds since
    the epoch.
    """

    id: str
    state: str
    credential: str
    is_pdf: bool
    is_seen: bool
    documents: tuple[Document, ...]
    short_digest: str
    shown: str  # SHA-256 over the batch and all that is signed with it
    ends: int
    gate: str
    presence: str
    trouble: str

    @property
    def is_open(self) -> bool:
        return self.state == "OPEN"


class Daemon:
    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    async def check_for_login(self, credential: str) -> None:
        """Raise CERT_USAGE for one that is for signing."""
        async with self._client() as client:
            if (await client.credential(credential)).purpose != pb.Credential.AUTHENTICATION:
                raise ServiceError("CERT_USAGE", "not for logging in")

    async def send_code(self, login: Login, source: str) -> None:
        async with self._client() as client:
            request = pb.RequestOtpRequest(login=await _message(client, login), source=source)
            await called(client.signing.RequestOtp(request, timeout=CALL_S))

    async def authenticate(self, login: Login, typed: Typed, *, is_known: bool) -> tuple[bytes, bytes, bytes]:
        """(statement, signature, the person's certificate)."""
        async with self._client() as client:
            request = pb.AuthenticateRequest(
                request_id=new_request_id(),
                login=await _message(client, login),
                secret_code=typed.secret_code,
                otp=typed.otp,
                source=typed.source,
                known=is_known,
            )
            answer = await called(client.signing.Authenticate(request, timeout=CALL_S))
            return bytes(answer.statement), bytes(answer.signature), bytes(answer.certificates[0])

    async def begin_enrolment(self, enrolment: str, source: str) -> Begun:
        async with self._client() as client:
            request = pb.CompleteEnrolmentRequest(enrolment=enrolment, source=source)
            answer = await called(client.signing.CompleteEnrolment(request, timeout=CALL_S))
            return Begun(answer.subject, answer.otp_uri, answer.contact)

    async def complete_enrolment(self, enrolment: str, typed: Typed) -> None:
        async with self._client() as client:
            request = pb.CompleteEnrolmentRequest(
                enrolment=enrolment, secret_code=typed.secret_code, otp=typed.otp, source=typed.source
            )
            await called(client.signing.CompleteEnrolment(request, timeout=CALL_S))

    async def send_code_to_change(self, credential: str, source: str) -> None:
        async with self._client() as client:
            request = pb.RequestOtpRequest(change=credential, source=source)
            await called(client.signing.RequestOtp(request, timeout=CALL_S))

    async def change_code(self, credential: str, typed: Typed, new: str, *, is_known: bool) -> None:
        async with self._client() as client:
            request = pb.ChangeCodeRequest(
                credential=credential, secret_code=typed.secret_code, otp=typed.otp, source=typed.source,
                new_secret_code=new, known=is_known,
            )  # fmt: skip
            await called(client.signing.ChangeCode(request, timeout=CALL_S))

    # ---- signing

    async def follow(self, link: str) -> tuple[str, int]:
        """Redeem a one-time link: the batch that it leads to, and when that one ends."""
        async with self._client() as client:
            found = await client.batch(link=link)
            return str(found.request_id), _seconds(found.expires)

    async def batch(self, id_: str) -> Batch:
        async with self._client() as client:
            found = await client.batch(id_)
            return _batch(found, await client.credential(found.credential))

    async def document(self, id_: str, index: int) -> AsyncIterator[bytes]:
        async with self._client() as client:
            async for piece in client.batch_document(id_, index):
                yield piece

    async def send_code_for(self, id_: str, source: str) -> str:
        """Where it was sent, masked."""
        async with self._client() as client:
            return str((await client.request_otp(id_, source)).contact)

    async def sign(self, batch: Batch, typed: Typed) -> tuple[bool, str]:
        """Whether it is over now, and the reason of the first document that was not signed; empty where all were."""
        async with self._client() as client:
            answer = await client.sign_batch(
                batch.id, secret_code=typed.secret_code, otp=typed.otp, pin=typed.pin, source=typed.source,
                timeout_s=PRESENCE_S if batch.presence else CALL_S,
            )  # fmt: skip
            reasons = [one.reason or "INTERNAL" for one in answer.outcomes if one.status != pb.SIGNED]
            return answer.batch.state == pb.Batch.SIGNED, next(iter(reasons), "")

    async def cancel(self, id_: str) -> None:
        async with self._client() as client:
            await client.cancel_batch(id_)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        try:
            client = Client(self._profile)
        except ProfileError as error:  # its files were there at the start
            log.error("the daemon's client: %s", error)  # noqa: TRY400 -- the message says all
            raise ServiceError("", "no client") from None
        async with client:
            yield client


def _batch(found: Any, credential: Any) -> Batch:
    documents = tuple(Document(one.name, one.size, one.input_sha256.hex()) for one in found.items)
    shown = hashlib.sha256(found.request_id.encode())
    for one in found.items:
        for part in (one.name.encode(), one.input_sha256, one.digest):
            shown.update(len(part).to_bytes(4, "big") + part)
    return Batch(
        id=found.request_id,
        state=pb.Batch.State.Name(found.state),
        credential=found.credential,
        is_pdf=found.output == pb.PADES_B_B,
        is_seen=not found.as_claimed,
        documents=documents,
        short_digest=found.short_digest,
        shown=shown.hexdigest(),
        ends=_seconds(found.expires),
        gate=credential.gate,
        presence=credential.presence,
        trouble="" if credential.available else credential.unavailable_reason,
    )


def _seconds(time: str) -> int:
    """Since the epoch, of RFC 3339."""
    return int(datetime.fromisoformat(time).timestamp())


_OF_NOBODY = "SHA256", "ECDSA"  # the algorithms of a number that is nobody's


async def _message(client: Client, login: Login) -> Any:
    """
    With the algorithms of the credential's key; Ed25519 signs the statement itself, not a digest. For a number that is
    nobody's the daemon is asked like for any other: an answer that comes sooner would tell.
    """
    try:
        digest, signature = algorithms_for(await client.credential(login.credential))
    except ServiceError as error:
        if error.reason != "CREDENTIAL_UNKNOWN":
            raise
        digest, signature = _OF_NOBODY
    return pb.Login(
        credential=login.credential,
        digest_algorithm=None if signature == "ED25519" else digest,
        signature_algorithm=signature,
        audience=login.audience,
        nonce=login.nonce,
    )
