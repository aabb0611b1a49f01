"""
What the portal asks of the daemon for people's signatures, as a caller with the role submit: which credentials there are,
a batch for one of them, what became of it, and whether a signed PDF is what it should be.

Each call has a connection of its own, so that a daemon that was away is used again at once, and raises `Refusal`
`signer-unavailable` where it is away. For threads without an event loop, and never inside a transaction: it takes seconds.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, guard, invalid
from signer.client import Client, ProfileError, ServiceError, algorithms_for
from signer.v1 import signing_pb2 as pb

log = logging.getLogger("portal")

ASK_S = 5.0  # for what it knows
WORK_S = 20.0  # for a document that it takes in, gives back, or looks into
T = TypeVar("T")

# What is wrong with the certificate that was chosen: reason -> message.
_NOT_THIS_ONE: Mapping[str, str] = {
    "CERT_EXPIRED": msgid("This certificate has expired. Choose another one."),
    "CERT_NOT_YET_VALID": msgid("This certificate is not valid yet. Choose another one."),
    "CERT_REVOKED": msgid("This certificate was revoked. Choose another one."),
    "CERT_UNTRUSTED": msgid("This certificate is not from an issuer that is accepted here. Choose another one."),
    "CERT_USAGE": msgid("This certificate is not for signing. Choose another one."),
    "CREDENTIAL_UNKNOWN": msgid("This certificate is not one of yours. Choose one of those offered."),
    "CREDENTIAL_SUSPENDED": msgid("This certificate is suspended. Choose another one, or ask whoever issued it."),
    "CREDENTIAL_PENDING": msgid("This certificate is not set up yet. Choose another one, or ask whoever issued it."),
    "SUBJECT_SUSPENDED": msgid("This certificate is suspended. Choose another one, or ask whoever issued it."),
    "SUBJECT_UNKNOWN": msgid("This certificate is not set up yet. Choose another one, or ask whoever issued it."),
}


_TOO_MANY_OPEN = msgid(
    "Too many documents wait for your signature already. Sign some of them, or cancel, and try again."
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One certificate that the daemon has the key of, or knows the way to."""

    name: str
    subject: str  # whose it is, in the daemon's words; empty for a seal
    certificate: bytes  # DER
    fingerprint: str  # SHA-256, hexadecimal
    signs_pdf: bool  # for people's signatures, and active
    trouble: str  # why it cannot sign just now, a reason of the daemon's; or nothing


@dataclass(frozen=True, slots=True)
class Found:
    """One signature of a PDF, the first one first."""

    is_valid: bool
    fingerprint: str  # of the certificate
    covers_all: bool  # to the end of the file
    before_sha256: str  # of the file before it was added
    is_undisturbed: bool  # what came after it is only what may


@dataclass(frozen=True, slots=True)
class Daemon:
    """`profile` is the client's: its allow-list has people's credentials."""

    profile: Path

    def credentials(self, of_person: Sequence[bytes]) -> list[Credential]:
        """Of whoever has these certificates, in DER or as SHA-256; where there are none, none."""

        async def ask(client: Client) -> list[Credential]:
            return [_credential(one) for one in await client.credentials(of_person) if one.certificates]

        if not of_person:
            return []

        return self._sure(ask, ASK_S)

    def open(self, batch: str, credential: str, name: str, document: Path, sha256: str) -> str:
        """
        Have the person of `credential` asked to sign a PDF whose SHA-256 is `sha256`; `name` is what she is shown. Answers
        the one-time link to it. Raises `validation` where the certificate is not good for it, `guard-failed` where as many
        wait for the person as may.
        """

        async def ask(client: Client) -> str:
            digest, signature = algorithms_for(await client.credential(credential))
            opened = await client.open_batch(
                credential, [(name, document)], output="PADES_B_B", digest_algorithm=digest,
                signature_algorithm=signature, request_id=batch, timeout_s=WORK_S,
            )  # fmt: skip
            seen = [one.input_sha256.hex() for one in opened.batch.items]
            if seen != [sha256]:
                log.error("the daemon was sent %s, and has %s", sha256, seen)
                await client.cancel_batch(batch, timeout_s=ASK_S)
                raise ServiceError("", "not the document that was sent")
            return str(opened.link)

        try:
            return self._ask(ask, WORK_S)
        except ServiceError as error:
            if error.reason == _HERS_ARE_TOO_MANY:
                raise guard("too-many-open", _TOO_MANY_OPEN) from None
            if (message := _NOT_THIS_ONE.get(error.reason)) is not None:
                raise invalid("credential", error.reason.lower().replace("_", "-"), message) from None
            raise _away(error) from None

    def state(self, batch: str) -> str:
        """OPEN, SIGNING, SIGNED or CANCELLED; empty where there is none, or none any more."""

        async def ask(client: Client) -> str:
            return str(pb.Batch.State.Name((await client.batch(batch)).state))

        return self._unless_gone(ask, "", ASK_S)

    def fetch(self, batch: str, target: Path) -> bool:
        """The signed PDF; False where there is none, or none any more."""

        async def ask(client: Client) -> bool:
            await client.fetch_document(batch, 0, target)
            return True

        try:
            return self._ask(ask, WORK_S)
        except ServiceError as error:  # its time is over, or no good signature came from the token
            log.warning("the batch %s has no signed document: %s", batch, error.reason)
            return False

    def signatures(self, document: Path) -> list[Found]:
        """Of a PDF; nothing of what cannot be read as one."""

        async def ask(client: Client) -> list[Found]:
            report = await client.verify(document, timeout_s=WORK_S)
            is_pdf = report.readable and report.kind == pb.VerifyDocumentResponse.PDF
            return [_found(one) for one in report.signatures] if is_pdf else []

        return self._sure(ask, WORK_S)

    def cancel(self, batch: str) -> bool:
        """Nothing of it is signed any more; False while it is just being signed, so that it is to be tried again."""

        async def ask(client: Client) -> bool:
            try:
                await client.cancel_batch(batch, timeout_s=ASK_S)
            except ServiceError as error:
                if error.reason != "BATCH_STATE":
                    raise
                return bool((await client.batch(batch)).state == pb.Batch.CANCELLED)
            return True

        return self._unless_gone(ask, True, ASK_S)

    def cancel_quietly(self, batch: str) -> None:
        """The same for one that nobody was led to: where it fails, its time ends it."""
        try:
            self.cancel(batch)
        except Refusal as error:
            log.warning("the batch %s is left to its end: %s", batch, error)

    def _unless_gone(self, ask: Callable[[Client], Coroutine[Any, Any, T]], gone: T, within_s: float) -> T:
        try:
            return self._ask(ask, within_s)
        except ServiceError as error:
            if error.reason in {"BATCH_UNKNOWN", "BATCH_STATE"}:
                return gone
            raise _away(error) from None

    def _sure(self, ask: Callable[[Client], Coroutine[Any, Any, T]], within_s: float) -> T:
        try:
            return self._ask(ask, within_s)
        except ServiceError as error:
            raise _away(error) from None

    def _ask(self, ask: Callable[[Client], Coroutine[Any, Any, T]], within_s: float) -> T:
        """Raises `ServiceError` where the daemon has an answer that is none of being away."""

        async def connected() -> T:
            async with Client.from_profile(self.profile) as client:
                return await ask(client)

        try:
            return asyncio.run(asyncio.wait_for(connected(), within_s))
        except (ProfileError, TimeoutError) as error:
            raise _away(error) from error
        except ServiceError as error:
            if error.reason == _HERS_ARE_TOO_MANY or (error.reason and error.code not in _AWAY):
                raise
            raise _away(error) from None


_HERS_ARE_TOO_MANY = "TOO_MANY_FOR_PERSON"  # which only she mends
_AWAY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_NOT_LET_IN = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})  # a mistake in a configuration: no waiting mends it


def _credential(one: Any) -> Credential:
    der = bytes(one.certificates[0])
    signs = one.purpose == pb.Credential.SIGNATURE and pb.PADES_B_B in one.outputs and one.state == "ACTIVE"
    return Credential(
        name=one.name, subject=one.subject, certificate=der, fingerprint=hashlib.sha256(der).hexdigest(),
        signs_pdf=signs and bool(one.subject), trouble="" if one.available else one.unavailable_reason or "UNAVAILABLE",
    )  # fmt: skip


def _found(one: Any) -> Found:
    report = pb.SignatureReport
    return Found(
        is_valid=one.valid,
        fingerprint=hashlib.sha256(one.certificate).hexdigest(),
        covers_all=one.covers == report.WHOLE_FILE,
        before_sha256=one.revision_sha256.hex(),
        is_undisturbed=one.changes_after in {report.NO_CHANGES, report.PERMITTED},
    )


def _away(error: Exception) -> Refusal:
    if isinstance(error, ServiceError) and error.code in _NOT_LET_IN:
        log.error("the daemon does not let the portal ask: %s", error)
        message = "The signing service does not accept the portal’s request. Nothing was changed. Whoever runs the portal has to look at it."
        return Refusal("signer-unavailable", message, reason="not-let-in")
    log.warning("the daemon is not to be had: %s", error)
    message = "The signing service cannot be reached just now. Nothing was changed: please try again in a moment."
    return Refusal("signer-unavailable", message, retry_after_s=30)
