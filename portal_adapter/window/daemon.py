"""
What the window asks of the daemon, as a caller with the role consent. Every call raises `ServiceError`, and is made once:
whether the same codes are sent again is the person's decision.

Each has a connection of its own: a certificate that was renewed is used at once, and so is a daemon that was away.
"""

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from signer.client import CALL_S, Client, Profile, ProfileError, ServiceError, algorithms_for, called
from signer.v1 import signing_pb2 as pb

log = logging.getLogger("window")


@dataclass(frozen=True, slots=True)
class Login:
    """What is to be proved, and to whom: `audience` is the portal's origin, `nonce` its challenge."""

    credential: str
    nonce: bytes
    audience: str


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person has typed, and the address that it came from."""

    secret_code: str = field(repr=False)
    otp: str = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An enrolment: `uri` is what a device makes codes from, empty where a code was sent to `contact`."""

    subject: str
    uri: str = field(repr=False)
    contact: str


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

    async def authenticate(self, login: Login, typed: Typed) -> tuple[bytes, bytes, bytes]:
        """(statement, signature, the person's certificate)."""
        async with self._client() as client:
            request = pb.AuthenticateRequest(
                request_id=str(uuid.uuid4()),
                login=await _message(client, login),
                secret_code=typed.secret_code,
                otp=typed.otp,
                source=typed.source,
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

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        try:
            client = Client(self._profile)
        except ProfileError as error:  # its files were there at the start
            log.error("the daemon's client: %s", error)  # noqa: TRY400 -- the message says all
            raise ServiceError("", "no client") from None
        async with client:
            yield client


async def _message(client: Client, login: Login) -> Any:
    """With the algorithms of the credential's key; Ed25519 signs the statement itself, not a digest."""
    digest, signature = algorithms_for(await client.credential(login.credential))
    return pb.Login(
        credential=login.credential,
        digest_algorithm=None if signature == "ED25519" else digest,
        signature_algorithm=signature,
        audience=login.audience,
        nonce=login.nonce,
    )
