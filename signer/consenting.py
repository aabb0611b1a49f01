"""
The part of the Signing service that people's callers use: proto to our words and back. What is decided, is decided in
`consent.py`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from pool import Algorithm
from signer import otp
from signer import requests as read
from signer.approving import ApprovingService
from signer.batch import Ask, Batches, whole_call
from signer.clock import Clock, rfc3339
from signer.config import Caller
from signer.consent import Consent
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.gate import FACTORS, Factor, Terms
from signer.given import Given, code_of, source_of
from signer.handlers import Call
from signer.limits import DIGESTS_MAX
from signer.policy import Policy
from signer.secret import Code
from signer.v1 import signing_pb2 as pb

SHA256_BYTES = 32
NONCE_BYTES = (16, 64)
STATEMENT = "paraph-login-v1"


class ConsentService:
    """`consent` is None where the configuration serves no people."""

    def __init__(
        self,
        consent: Consent | None,
        batches: Batches,
        approving: ApprovingService,
        policy: Callable[[], Policy],
        credentials: Callable[[], Mapping[str, Credential]],
        clock: Clock,
    ) -> None:
        self._consent = consent
        self._batches = batches
        self._approving = approving
        self._policy = policy
        self._credentials = credentials
        self._clock = clock

    async def request_otp(self, request: Any, call: Call) -> Any:
        purpose = request.WhichOneof("purpose")
        if purpose == "change":
            credential = self._credential(request.change, call)
            source_of(request.source, call.caller)
            contact, ends = await self._people().send_change_otp(credential, call.caller.name)
            return pb.RequestOtpResponse(contact=contact.masked, expires=rfc3339(ends))
        is_login = purpose == "login"
        if purpose == "login":
            credential, _, terms, _ = self._login(request.login, call)
            first = request.login.audience
        elif purpose == "batch":
            credential, batch = await self._approving.terms_of(request.batch, call)
            terms, first = batch.terms(), batch.items[0].name
        else:
            credential, terms = self._terms(request.terms, call)
            first = request.terms.items[0].name
        source_of(request.source, call.caller)
        contact, ends = await self._people().send_otp(credential, terms, first, call.caller.name, is_login=is_login)
        return pb.RequestOtpResponse(
            contact=contact.masked, short_digest=otp.short_digest(terms.digest()), expires=rfc3339(ends)
        )

    async def authorize(self, request: Any, call: Call) -> Any:
        credential, terms = self._terms(request.terms, call)
        given = Given.read(request, call.caller)
        reference, ends = await self._people().authorise(credential, terms, given, call.caller.name)
        return pb.AuthorizeResponse(
            authorisation=reference, expires=rfc3339(ends), short_digest=otp.short_digest(terms.digest())
        )

    async def authenticate(self, request: Any, call: Call) -> Any:
        call.request_id = read.request_id(request.request_id)
        try:
            credential, algorithm, terms, lines = self._login(request.login, call)
        except Refusal as refusal:
            if refusal.reason == "CREDENTIAL_UNKNOWN" and self._consent is not None:
                await self._consent.nobody(Given.read(request, call.caller))
            raise
        given = Given.read(request, call.caller, is_open=not request.known)
        credential.check(call.accepted, Purpose.AUTHENTICATION)
        reference, _ = await self._people().authorise(credential, terms, given, call.caller.name)
        # The time is no part of what was allowed: the nonce says which statement it is.
        statement = "".join(f"{line}\n" for line in (*lines, rfc3339(self._clock.wall()))).encode()
        signed = hashlib.new(algorithm.hash.value, statement).digest() if algorithm.hash else statement
        ask = Ask(
            call.caller, call.request_id, credential, Output.LOGIN, algorithm, [signed], call.deadline, call.accepted,
            authorisation=reference, login=terms.digests[0], identify=call.check_again,
        )  # fmt: skip
        outcomes, record = await self._batches.sign(ask)
        call.place.at_end(record.release)
        whole_call(outcomes)
        return pb.AuthenticateResponse(
            statement=statement, signature=outcomes.signatures[0], certificates=credential.certificates
        )

    async def complete_enrolment(self, request: Any, call: Call) -> Any:
        people, source = self._people(), source_of(request.source, call.caller)
        if not request.otp:
            name, uri, contact = await people.begin_completing(request.enrolment, source, call.caller.subject)
            return pb.CompleteEnrolmentResponse(
                subject=name, otp_uri=uri, contact=contact.masked if contact is not None else ""
            )
        code_of(request.secret_code, Code.chosen)
        name = await people.complete(request.enrolment, Given.read(request, call.caller), call.caller.subject)
        return pb.CompleteEnrolmentResponse(subject=name, complete=True)

    async def change_code(self, request: Any, call: Call) -> Any:
        given = Given.read(request, call.caller, is_open=not request.known)
        new = code_of(request.new_secret_code, Code.chosen)
        people = self._people()
        try:
            credential = self._credential(request.credential, call)
        except Refusal as refusal:
            if refusal.reason == "CREDENTIAL_UNKNOWN":
                await people.nobody(given, new)
            raise
        return pb.ChangeCodeResponse(subject=await people.change_code(credential, given, new))

    # ---- reading

    def _people(self) -> Consent:
        if self._consent is None:
            raise Refusal("PEOPLE_NOT_SERVED")
        return self._consent

    def _credential(self, name: str, call: Call) -> Credential:
        credential = read.credential_of(name, call.caller, self._policy(), self._credentials())
        if Factor.CODE not in FACTORS[credential.gate]:
            raise Refusal("GATE_MISMATCH", f"its gate is {credential.gate}")
        return credential

    def _terms(self, message: Any, call: Call) -> tuple[Credential, Terms]:
        credential = self._credential(message.credential, call)
        output = read.output(message.output)
        is_message = not message.digest_algorithm and output is Output.RAW
        algorithm = read.algorithm(message.signature_algorithm, message.digest_algorithm, message=is_message)
        credential.check(call.accepted)
        credential.check_request(output, algorithm)
        if not 1 <= len(message.items) <= DIGESTS_MAX:
            raise Refusal("BATCH_EMPTY" if not message.items else "BATCH_TOO_LARGE", f"at most {DIGESTS_MAX} items")
        for number, item in enumerate(message.items):
            read.text(item.name, f"items[{number}].name")
            if len(item.input_sha256) not in {0, SHA256_BYTES} or bool(item.digest) == bool(item.input_sha256):
                raise Refusal("DIGEST_LENGTH", f"items[{number}]: give input_sha256, 32 bytes, or digest")
            if item.digest:
                credential.check_item(output, algorithm, item.digest, number)
        if any(item.digest for item in message.items) and not credential.bounds.claimed:
            raise Refusal("NOT_SEEN")
        terms = Terms(
            caller=self._redeemer(message.caller, call.caller),
            credential=credential.name,
            key=credential.key.ref,
            output=output.value,
            algorithm=str(algorithm),
            inputs=tuple(item.input_sha256 for item in message.items),
            digests=tuple(item.digest for item in message.items),
        )
        return credential, terms

    def _redeemer(self, name: str, caller: Caller) -> str:
        """Who will redeem it: a caller that may submit with somebody's consent, or the person's own."""
        if caller.role == "self" and name in {"", caller.name}:
            return caller.name
        other = self._policy().by_name.get(name)
        if other is None or other.role != "submit":
            raise Refusal("AUTHZ_CALLER", "name a configured caller of the role submit")
        return name

    def _login(self, message: Any, call: Call) -> tuple[Credential, Algorithm, Terms, tuple[str, ...]]:
        """What is to be allowed, and the statement's lines but for its time."""
        credential = self._credential(message.credential, call)
        credential.check(call.accepted, Purpose.AUTHENTICATION)
        message_key = not message.digest_algorithm
        algorithm = read.algorithm(message.signature_algorithm, message.digest_algorithm, message=message_key)
        if algorithm not in credential.algorithms():
            raise Refusal("ALGORITHM_NOT_ALLOWED", f"a {credential.key_type} key makes no {algorithm}")
        audience = read.text(message.audience, "audience")
        if not audience or not NONCE_BYTES[0] <= len(message.nonce) <= NONCE_BYTES[1]:
            raise Refusal("NONCE_LENGTH")
        lines = (STATEMENT, call.caller.name, audience, message.nonce.hex(), credential.subject)
        what = hashlib.sha256("\n".join(lines).encode()).digest()
        terms = Terms(
            caller=call.caller.name,
            credential=credential.name,
            key=credential.key.ref,
            output=Output.LOGIN.value,
            algorithm=str(algorithm),
            inputs=(b"",),
            digests=(what,),
        )
        return credential, algorithm, terms, lines
