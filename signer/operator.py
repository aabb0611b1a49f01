"""The Operator service: tokens and the daemon itself, for the people who run it."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from pool import Pool, TokenView, TryRefused, WrongEvent
from pool.lane import Lane
from signer import limits
from signer.chain import Kind
from signer.clock import Clock, rfc3339
from signer.config import NAME, Config, ConfigError
from signer.consent import Consent, confirm_clock
from signer.contact import Contact, ContactError
from signer.contact import Kind as ContactKind
from signer.credential import Credential, State
from signer.errors import Refusal
from signer.gate import Factor
from signer.handlers import Call, draining
from signer.ledger import Ledger
from signer.message import Language
from signer.register import Register
from signer.roll import Entry
from signer.steady import Steady
from signer.v1 import operator_pb2 as pb

log = logging.getLogger("signer.operator")

PROTOCOL = 1
WATCH_PAUSE_S = 0.1  # ten pictures a second are enough for an eye
WATCH_LOOK_S = 1.0  # without a change: what waits may have grown
WATCH_QUIET_S = 5.0  # then the same picture is sent once more: it still holds
# What an operator's step is for, where it meets another state.
_ONLY = {
    "unlocked": "only one that is LOCKED, QUARANTINED or TRIPPED is unlocked",
    "drained": "is out of service already",
    "resumed": "only one that is DRAINED is resumed",
}
_WORDS = "contact_kind is email or webhook, language en or fr, factor totp, hotp or sent"


class OperatorService:
    def __init__(
        self,
        pool: Pool,
        config: Callable[[], Config],
        credentials: Callable[[], Mapping[str, Credential]],
        reload: Callable[[str], Awaitable[None]],
        register: Register,
        consent: Consent | None,
        ledger: Ledger,
        clock: Clock,
        steady: Steady,
    ) -> None:
        self._pool = pool
        self._config = config
        self._credentials = credentials
        self._reload = reload
        self._register = register
        self._consent = consent
        self._ledger = ledger
        self._steady = steady
        self._started = clock.wall()

    async def get_server_info(self, _request: Any, call: Call) -> Any:
        return pb.GetServerInfoResponse(
            version=version("paraph"),
            started=rfc3339(self._started),
            config_sha256=self._config().sha256,
            caller=call.caller.name,
            protocol=PROTOCOL,
            limits=pb.Limits(
                message_bytes_max=limits.MESSAGE_BYTES_MAX,
                answer_bytes_max=limits.ANSWER_BYTES_MAX,
                digests_max=limits.DIGESTS_MAX,
                stream_digests_unanswered_max=limits.STREAM_UNANSWERED_DIGESTS_MAX,
                document_bytes_max=limits.DOCUMENT_BYTES_MAX,
                documents_max=limits.DOCUMENTS_MAX,
                document_streams_max=limits.DOCUMENT_STREAMS_MAX,
            ),
        )

    async def reload_config(self, _request: Any, call: Call) -> Any:
        try:
            await self._reload(call.caller.name)
        except ConfigError as error:
            raise Refusal("CONFIG_REJECTED", str(error)) from None
        return pb.ReloadConfigResponse(
            config_sha256=self._config().sha256,
            credentials=len(self._credentials()),
            callers=len(self._config().caller),
        )

    async def list_tokens(self, _request: Any, _call: Call) -> Any:
        return self._tokens(self._pool.snapshot())

    async def watch_tokens(self, _request: Any, context: Any, call: Call) -> None:
        try:
            async with asyncio.timeout(None) as watching:
                with call.admission.when_draining(lambda: watching.reschedule(0)):
                    last, sent = None, 0.0
                    async for views in self._pool.watch(WATCH_LOOK_S):
                        call.check_again()
                        tokens, now = self._tokens(views), time.monotonic()
                        if tokens == last and now - sent < WATCH_QUIET_S:
                            continue
                        last, sent = tokens, now
                        await context.write(tokens)
                        await asyncio.sleep(WATCH_PAUSE_S)
        except TimeoutError:
            raise draining() from None

    async def unlock_token(self, request: Any, call: Call) -> Any:
        override = request.override_final_try
        what = "unlocked, although a refused PIN may lock it for good" if override else "unlocked"
        try:
            return self._step(partial(self._pool.unlock, override=override), request.token, what, call)
        except TryRefused as error:
            raise Refusal("PIN_FINAL_TRY_GUARD", str(error)) from None

    async def drain_token(self, request: Any, call: Call) -> Any:
        return self._step(self._pool.drain, request.token, "drained", call)

    async def resume_token(self, request: Any, call: Call) -> Any:
        return self._step(self._pool.resume, request.token, "resumed", call)

    async def register_credential(self, request: Any, call: Call) -> Any:
        found = await self._register.store(request, call.caller.name)
        return pb.RegisterCredentialResponse(state=found.state.value)

    async def set_credential_state(self, request: Any, call: Call) -> Any:
        state = State.SUSPENDED if request.suspended else State.ACTIVE
        found = await self._register.set_state(request.name, state, call.caller.name)
        return pb.SetCredentialStateResponse(state=found.state.value)

    async def enrol_subject(self, request: Any, call: Call) -> Any:
        if not re.fullmatch(NAME, request.subject):
            raise Refusal("SUBJECT_UNKNOWN", "a subject's name has small letters, digits, '.', '_' and '-'")
        try:
            kind, language = ContactKind(request.contact_kind), Language(request.language or "en")
            factor = Factor(request.factor)
        except ValueError:
            raise Refusal("SUBJECT_INVALID", _WORDS) from None
        if factor not in {Factor.TOTP, Factor.HOTP, Factor.SENT}:
            raise Refusal("SUBJECT_INVALID", _WORDS)
        try:
            contact = Contact(kind, request.contact)
        except ContactError as error:
            raise Refusal("CONTACT_INVALID", str(error)) from None
        begins = await self._people().enrol(request.subject, contact, language.value, factor, call.caller.name)
        return pb.EnrolSubjectResponse(begins=rfc3339(begins))

    async def suspend_subject(self, request: Any, call: Call) -> Any:
        await self._people().suspend(request.subject, call.caller.name, resume=request.resume)
        return pb.SuspendSubjectResponse()

    async def list_subjects(self, request: Any, _call: Call) -> Any:
        entries, following = await self._people().roll(request.subject, request.after)
        return pb.ListSubjectsResponse(subjects=[_subject(entry) for entry in entries], next=following)

    async def unlock_subject(self, request: Any, call: Call) -> Any:
        await self._people().unlock(request.subject, call.caller.name)
        return pb.UnlockSubjectResponse()

    async def confirm_clock(self, _request: Any, call: Call) -> Any:
        who = call.caller.name
        if self._consent is not None:
            return pb.ConfirmClockResponse(step_s=await self._consent.confirm_clock(who))
        return pb.ConfirmClockResponse(step_s=await confirm_clock(self._ledger, self._steady, who))

    def _people(self) -> Consent:
        if self._consent is None:
            raise Refusal("PEOPLE_NOT_SERVED")
        return self._consent

    def _step(self, step: Callable[[str], None], token: str, what: str, call: Call) -> Any:
        try:
            step(token)
        except WrongEvent:
            state = next(view.state for view in self._pool.snapshot() if view.name == token)
            why = _ONLY[what.partition(",")[0]]
            raise Refusal("TOKEN_STATE", f"{token} is {state}, and {why}") from None
        # Not before: what ails the ledger may be a token that has the key of checkpoints.
        log.info("token %s: %s by %s", token, what, call.caller.name)
        self._ledger.note_soon(Kind.REGISTER, {"token": token, "what": what, "who": call.caller.name})
        return self._token(token)

    def _token(self, name: str) -> Any:
        return next(self._view(view) for view in self._pool.snapshot() if view.name == name)

    def _tokens(self, views: list[TokenView]) -> Any:
        return pb.ListTokensResponse(tokens=[self._view(view) for view in views], ledger=self._ledger.trouble)

    def _view(self, view: TokenView) -> Any:
        holds = sorted(c.name for c in self._credentials().values() if c.key.ref in view.keys)
        return pb.Token(
            name=view.name,
            kind=view.kind,
            state=view.state.value,
            since=rfc3339(view.since),
            detail="; ".join(filter(None, (view.detail, view.advice))),
            label=view.label,
            serial=view.serial,
            model=view.model,
            module=view.module,
            credentials=holds,
            lanes=[_lane(lane, pid) for lane, pid in view.lanes],
            waiting=view.waiting,
            pin_tries_used=view.pin_tries_used,
            pin_tries=view.pin_tries,
            personal=view.personal,
        )


def _subject(entry: Entry) -> Any:
    begins, ends = entry.enrolment or (None, None)
    return pb.Subject(
        name=entry.name,
        state=entry.state,
        factor=entry.factor,
        contact_kind=entry.contact_kind,
        contact=entry.contact,
        language=entry.language,
        enrolment_begins=_time(begins),
        enrolment_ends=_time(ends),
        attempts=entry.attempts,
        locked_until=_time(entry.locked_until),
        credentials=entry.credentials,
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else rfc3339(seconds)


def _lane(lane: Lane, pid: int) -> Any:
    fastest = min(lane.item_s.values(), default=0.0)
    return pb.Lane(
        index=lane.index,
        state=lane.state.value,
        pid=pid,
        signatures=lane.tally.signed,
        errors=dict(lane.tally.failed),
        starts=lane.tally.starts,
        losses=lane.tally.losses,
        per_second=1 / fastest if fastest else 0.0,
        problem=lane.problem,
        direct=lane.direct,
    )
