"""What people's and operators' programs ask of the service about people. Every call raises `ServiceError`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signer.client import CALL_S, Client, called
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb


@dataclass(frozen=True, slots=True)
class Shown:
    """A file as a person sees it before she signs: `sha256` is what she allows."""

    name: str
    size: int
    sha256: bytes

    @classmethod
    def of(cls, path: Path) -> "Shown":
        with path.open("rb") as file:
            return cls(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").digest())


def terms(
    credential: str, files: Sequence[Shown], *, output: str, digest_algorithm: str, signature_algorithm: str
) -> Any:
    """What a person with a certificate of her own allows: these files, to be signed by herself."""
    items = [pb.TermsItem(name=file.name[:255], input_sha256=file.sha256) for file in files]
    return pb.Terms(
        credential=credential,
        output=output,
        digest_algorithm=digest_algorithm,
        signature_algorithm=signature_algorithm,
        items=items,
    )


async def request_otp(client: Client, wanted: Any) -> Any:
    """Have a one-time code sent for these terms: the contact, masked, and the 8 characters of the message."""
    return await called(client.signing.RequestOtp(pb.RequestOtpRequest(terms=wanted), timeout=CALL_S))


async def authorise(client: Client, wanted: Any, code: str, otp: str) -> bytes:
    """The reference of an authorisation for these terms."""
    request = pb.AuthorizeRequest(terms=wanted, secret_code=code, otp=otp)
    answer = await called(client.signing.Authorize(request, timeout=CALL_S))
    return bytes(answer.authorisation)


async def begin_enrolment(client: Client, enrolment: str) -> Any:
    """What the first one-time code comes from: `subject`, and `otp_uri` or `contact`."""
    return await called(
        client.signing.CompleteEnrolment(pb.CompleteEnrolmentRequest(enrolment=enrolment), timeout=CALL_S)
    )


async def complete_enrolment(client: Client, enrolment: str, code: str, otp: str) -> None:
    request = pb.CompleteEnrolmentRequest(enrolment=enrolment, secret_code=code, otp=otp)
    await called(client.signing.CompleteEnrolment(request, timeout=CALL_S))


async def confirm_clock(client: Client) -> float:
    """An operator's: the daemon's system clock is right; by how many seconds it had been set."""
    answer = await called(client.operator.ConfirmClock(op.ConfirmClockRequest(), timeout=CALL_S))
    return float(answer.step_s)


async def enrol(client: Client, subject: str, kind: str, contact: str, *, factor: str, language: str) -> str:
    """An operator's: when the enrolment code is sent (RFC 3339)."""
    request = op.EnrolSubjectRequest(
        subject=subject, contact_kind=kind, contact=contact, factor=factor, language=language
    )
    answer = await called(client.operator.EnrolSubject(request, timeout=CALL_S))
    return str(answer.begins)


async def subjects(client: Client, subject: str = "") -> list[Any]:
    """An operator's: everybody, or this one."""
    found: list[Any] = []
    request = op.ListSubjectsRequest(subject=subject)
    while True:
        answer = await called(client.operator.ListSubjects(request, timeout=CALL_S))
        found += answer.subjects
        if not answer.next:
            return found
        request = op.ListSubjectsRequest(after=answer.next)


async def change(client: Client, what: str, subject: str) -> None:
    """An operator's: 'suspend', 'resume' or 'unlock'."""
    if what == "unlock":
        await called(client.operator.UnlockSubject(op.UnlockSubjectRequest(subject=subject), timeout=CALL_S))
    else:
        request = op.SuspendSubjectRequest(subject=subject, resume=what == "resume")
        await called(client.operator.SuspendSubject(request, timeout=CALL_S))


async def request_change_otp(client: Client, credential: str) -> Any:
    """Have a one-time code sent to change the secret code with: the contact, masked."""
    return await called(client.signing.RequestOtp(pb.RequestOtpRequest(change=credential), timeout=CALL_S))


async def change_code(client: Client, credential: str, code: str, otp: str, new: str) -> str:
    """Whose secret code is `new` now."""
    request = pb.ChangeCodeRequest(credential=credential, secret_code=code, otp=otp, new_secret_code=new)
    return str((await called(client.signing.ChangeCode(request, timeout=CALL_S))).subject)
