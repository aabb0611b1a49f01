"""
People allow, and the daemon makes sure that it was they: code and one-time code are looked at here and nowhere else.

In this order, each step durable before the next: the attempt is counted (`guesses.py`), the secret code is compared in a
process of its own (`code.py`), the one-time code is compared and used up, and what was allowed is written down. Whatever
is wrong with the codes, the answer is one and the same, and costs the same time.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import OperationalError

from signer import authorisation, guesses, otp, pending, subject
from signer.batch import Allowed, Ask
from signer.chain import Kind
from signer.clock import Steady, rfc3339
from signer.code import Code, CodeError, Codes, CodesError
from signer.contact import Contact, ContactError
from signer.contact import Kind as ContactKind
from signer.credential import Credential
from signer.errors import Refusal
from signer.gate import FACTORS, LIFETIME_S, LIFETIME_S_MAX, Factor, Redemption, Terms
from signer.ledger import Ledger
from signer.message import Language, Template, compose
from signer.notify import Outbox
from signer.queued import OutboxFull
from signer.store import sent_codes
from signer.subject import Subject

log = logging.getLogger("signer.consent")

CLOCK_JUMP_S = 5.0  # of the system's clock, before a person is to look at it
SENT_S = 300.0  # a one-time code that was sent (ASVS 5.0, 6.5.5: at most ten minutes)
SENT_PAUSE_S = 30.0  # between two of them: a person who asks twice is still waiting for the first
LOOK_S = 30.0  # for enrolments that begin, and what is to be forgotten

T = TypeVar("T")


def source_of(text: str) -> str:
    """
    Where a person was, as the caller says: an IP address in its one form, or empty. It is counted and written down, so it
    is nothing else: with its port, say, each connection would be another source. Raises `Refusal` SOURCE_INVALID.
    """
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise Refusal("SOURCE_INVALID") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise Refusal("SOURCE_INVALID")
        return str(address.ipv4_mapped or address)
    return str(address)


@dataclass(frozen=True, slots=True)
class Given:
    """What a person has typed, and where she was then, as the caller says."""

    code: Code
    otp: str
    source: str

    @classmethod
    def read(cls, request: Any) -> "Given":
        """Of any message with secret_code, otp and source; raises `Refusal` CODE_RULES, SOURCE_INVALID."""
        try:
            code = Code(request.secret_code)
        except CodeError as error:
            raise Refusal("CODE_RULES", str(error)) from None
        return cls(code, request.otp, source_of(request.source))

    def __repr__(self) -> str:
        return f"Given(source={self.source!r})"


class Consent:
    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        codes: Codes,
        seeds: otp.Seeds,
        sent_key: bytes,
        outbox: Outbox,
        refresh: Callable[[], Awaitable[None]],
        steady: Steady,
        issuer: str,
        whom: str,
        wait_s: float,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._codes = codes
        self._seeds = seeds
        self._sent_key = sent_key
        self._outbox = outbox
        self._refresh = refresh
        self._steady = steady
        self._issuer = issuer
        self._whom = whom
        self._wait_s = wait_s

    # ---- signing

    async def send_otp(
        self, credential: Credential, terms: Terms, first: str, *, is_login: bool
    ) -> tuple[Contact, float]:
        """Send a one-time code for these terms; answers where to, and until when it is good. Raises `Refusal`."""
        self._check_clock()
        if Factor.SENT not in FACTORS[credential.gate]:
            raise Refusal("GATE_MISMATCH", f"{credential.gate} sends no code")
        now, code = self._steady.now(), otp.new_code()
        ends = now + SENT_S

        def send(connection: Connection) -> Contact:
            person = _active(connection, credential.subject)
            self._put_sent(connection, person, code, terms.digest(), now)
            contact = _contact(person)
            if is_login:
                self._tell(connection, person, Template.LOGIN_CODE, ends, code=code, until=_time(ends))
                return contact
            what = {"document": first, "count": terms.count, "digest_code": otp.short_digest(terms.digest())}
            self._tell(connection, person, Template.SIGN_CODE, ends, code=code, until=_time(ends), **what)
            return contact

        contact = await self._do(send)
        return contact, ends

    async def authorise(
        self, credential: Credential, terms: Terms, given: Given, authorised_by: str
    ) -> tuple[bytes, float]:
        """
        The reference of an authorisation for these terms, and until when it is good, once the person has proved who she
        is. Raises `Refusal`.
        """
        self._check_clock()
        now = self._steady.now()
        credential.bounds.check(terms.count, datetime.fromtimestamp(now, UTC).hour)
        person = await self._prove(credential, given, terms.digest())
        return await self._allow(credential, terms, person.name, authorised_by)

    async def allow_with_pin(self, credential: Credential, terms: Terms, authorised_by: str) -> tuple[bytes, float]:
        """The same for a person whose own token has taken her PIN. Raises `Refusal`."""
        self._check_clock()
        hour = datetime.fromtimestamp(self._steady.now(), UTC).hour
        credential.bounds.check(terms.count, hour)
        return await self._allow(credential, terms, credential.subject, authorised_by)

    def pin_refused(self, refusal: Refusal, credential: Credential, source: str) -> None:
        """To be written down."""
        self._refused(refusal, credential, source)

    async def _allow(
        self, credential: Credential, terms: Terms, person: str, authorised_by: str
    ) -> tuple[bytes, float]:
        lifetime_s = min(credential.bounds.lifetime_s or LIFETIME_S, LIFETIME_S_MAX)
        now = self._steady.now()

        def issue(connection: Connection) -> bytes:
            return authorisation.issue(connection, person, authorised_by, terms, now, lifetime_s)

        reference = await self._do(issue)
        fields = {
            "authorisation": authorisation.name_of(reference).hex(),
            "subject": person,
            "caller": authorised_by,
            "for": terms.caller,
            "credential": credential.name,
            "output": terms.output,
            "count": terms.count,
            "terms": terms.digest().hex(),
            "expires": _text(now + lifetime_s),
        }
        await self._ledger.note(Kind.AUTHORISED, fields)
        return reference, now + lifetime_s

    async def redeem(self, ask: Ask) -> Allowed:
        """Give the authorisation that a request names to it; raises `Refusal` AUTHZ_*."""
        credential = ask.credential
        if not ask.authorisation:
            raise Refusal("AUTHZ_MISSING")
        now = self._steady.now()
        asked = Redemption(
            request=ask.id,
            caller=ask.caller.name,
            credential=credential.name,
            key=credential.key.ref,
            output=ask.output.value,
            algorithm=str(ask.algorithm),
            digests=[ask.login] if ask.login else ask.digests,
            item=ask.item,
            document=ask.document,
            inputs=ask.inputs,
        )

        def redeemed(connection: Connection) -> tuple[str, float]:
            found = authorisation.redeem(connection, ask.authorisation, asked, now)
            if Factor.CODE in FACTORS[credential.gate]:
                _active(connection, found.subject)
            else:
                _not_suspended(connection, found.subject)
            if found.subject != credential.subject:
                raise Refusal("AUTHZ_KEY")
            return found.subject, found.expires - now

        try:
            person, left_s = await self._do(redeemed)
        except Refusal as refusal:
            self._refused(refusal, credential, ask.caller.name)
            raise
        return Allowed(person, authorisation.name_of(ask.authorisation), left_s)

    # ---- people

    async def enrol(self, name: str, contact: Contact, language: str, factor: Factor, operator: str) -> float:
        """Begin an enrolment; answers when its code is sent. The old contact is told at once. Raises `Refusal`."""
        try:
            self._outbox.check(contact)
        except ContactError as error:
            raise Refusal("CONTACT_UNREACHABLE", str(error)) from None
        now = self._steady.now()

        def begin(connection: Connection) -> float:
            where = (contact.kind, contact.address)
            old, begins = subject.enrol(connection, name, where, language, factor, now, self._wait_s)
            if old is not None and old.code:
                ends = begins + subject.ENROLMENT_S
                self._tell(connection, old, Template.ENROLMENT_REVOKED, ends, begins=_time(begins))
            return begins

        begins = await self._do(begin)
        await self._changed(name, "enrolment asked for", operator)
        await self._begin_enrolment(name)
        return begins

    async def suspend(self, name: str, operator: str, *, resume: bool) -> None:
        def act(connection: Connection) -> None:
            if resume:
                subject.resume(connection, name)
                return
            person = subject.suspend(connection, name)
            now = self._steady.now()
            self._tell(connection, person, Template.SUSPENDED, now + subject.ENROLMENT_S, since=_time(now))

        await self._do(act)
        await self._changed(name, "resumed" if resume else "suspended", operator)

    async def unlock(self, name: str, operator: str) -> None:
        def act(connection: Connection) -> None:
            subject.known(connection, name)
            guesses.forgive(connection, name)

        await self._do(act)
        await self._changed(name, "unlocked", operator)

    async def begin_completing(self, enrolment: str, source: str, only: str | None) -> tuple[str, str, Contact | None]:
        """
        What the first one-time code comes from: the subject, and an otpauth URI, or the contact that a code went to. `only`
        is the subject whose own certificate the caller has.
        """
        now = self._steady.now()

        def look(connection: Connection) -> tuple[str, str, Contact | None]:
            number = guesses.begin(connection, "", "", source, now)
            found = subject.enrolment(connection, enrolment, now)
            _check_only(found, only)
            guesses.right(connection, number)
            person = subject.known(connection, found.subject)
            if found.factor is not Factor.SENT:
                seed = self._seeds.open(found.subject, otp.Kind[found.factor.name], subject.SEED_ID, found.seed)
                return found.subject, otp.uri(otp.Kind[found.factor.name], seed, found.subject, self._issuer), None
            code, contact = otp.new_code(), _contact(person)
            self._put_sent(connection, person, code, _ENROLMENT, now)
            self._tell(connection, person, Template.LOGIN_CODE, now + SENT_S, code=code, until=_time(now + SENT_S))
            return found.subject, "", contact

        return await self._do(look, keep=("ENROLMENT_UNKNOWN",))

    async def complete(self, enrolment: str, given: Given, only: str | None) -> str:
        """Set the person's code, once a first one-time code is shown; answers the subject. Raises `Refusal`."""
        now = self._steady.now()

        def look(connection: Connection) -> tuple[subject.Enrolment, Subject, int]:
            number = guesses.begin(connection, "", "", given.source, now)
            found = subject.enrolment(connection, enrolment, now)
            _check_only(found, only)
            mine = guesses.begin(connection, found.subject, "", "", now)
            guesses.right(connection, number)
            return found, subject.known(connection, found.subject), mine

        found, person, number = await self._do(look, keep=("ENROLMENT_UNKNOWN",))
        code = await self._hashed(given.code)

        def finish(connection: Connection) -> None:
            last = self._last(connection, person, found.factor, found.seed, 0, given.otp, _ENROLMENT, now)
            guesses.right(connection, number)
            subject.complete(connection, found.subject, code, found.seed, last)

        await self._do(finish)
        await self._changed(found.subject, "enrolled", found.subject)
        return found.subject

    async def keep_looking_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look_around()
            except Exception:
                log.exception("enrolments that begin were not looked for")

    async def look_around(self) -> None:
        """Send the codes of enrolments that begin now, and forget what is over."""
        now = self._steady.now()
        for name in await self._do(lambda connection: subject.due(connection, now)):
            try:
                await self._begin_enrolment(name)
            except Refusal as refusal:  # one contact that cannot be reached is no reason not to reach the next
                log.warning("the enrolment of %s waits: %s", name, refusal)

        def erase(connection: Connection) -> None:
            for table in (guesses, authorisation):
                table.erase(connection, now)

        await self._do(erase)

    async def _begin_enrolment(self, name: str) -> None:
        """Send its code, if it begins now and nobody has sent it yet. Raises `Refusal` CONTACT_UNREACHABLE."""
        now = self._steady.now()

        def begin(connection: Connection) -> None:
            if name not in subject.due(connection, now):
                return
            person = subject.known(connection, name)
            seed = b""
            if person.factor is not Factor.SENT:
                seed = self._seeds.seal(name, otp.Kind[person.factor.name], subject.SEED_ID, otp.new_seed())
            code = subject.ticket(connection, name, seed)
            ends = now + subject.ENROLMENT_S
            self._tell(connection, person, Template.ENROLMENT_CODE, ends, code=code, until=_time(ends))

        await self._do(begin)

    async def confirm_clock(self) -> None:
        """
        An operator has looked at the system's clock. Had it jumped, what is open ends: by the time that it is now, some of
        it would live longer than it was to, or once more.
        """

        def end_all(connection: Connection) -> None:
            for table in (authorisation, pending):
                table.end_all(connection)
            connection.execute(delete(sent_codes))

        if abs(self._steady.jump_s) > CLOCK_JUMP_S:
            await self._do(end_all)
        self._steady.confirm()

    # ---- the proof

    async def _prove(self, credential: Credential, given: Given, binding: bytes) -> Subject:
        """Who it is, now that code and one-time code are right; raises `Refusal` OTP_*."""
        try:
            return await self._proved(credential, given, binding)
        except Refusal as refusal:
            self._refused(refusal, credential, given.source)
            raise

    async def _proved(self, credential: Credential, given: Given, binding: bytes) -> Subject:
        now = self._steady.now()
        [_, kind] = FACTORS[credential.gate]

        def look(connection: Connection) -> tuple[Subject, int]:
            person = _active(connection, credential.subject)
            if person.factor is not kind:
                raise Refusal("GATE_MISMATCH", f"the subject is enrolled with {person.factor}")
            return person, guesses.begin(connection, person.name, credential.name, given.source, now)

        person, number = await self._do(look)
        is_right = await self._matches(given.code, person.code)

        def finish(connection: Connection) -> None:
            if not is_right:
                raise Refusal("OTP_INCORRECT")
            fresh = _active(connection, person.name)
            last = self._last(connection, fresh, kind, fresh.seed, fresh.last, given.otp, binding, now)
            if not subject.use(connection, fresh.name, fresh.last, last):
                raise Refusal("OTP_USED")
            guesses.right(connection, number)

        try:
            await self._do(finish)
        except Refusal:
            await self._do(lambda connection: self._tell_if_locked(connection, person, now))
            raise
        return person

    def _tell_if_locked(self, connection: Connection, person: Subject, now: float) -> None:
        """After the last attempt; those that are refused afterwards are not counted, so it is told once."""
        until = guesses.locked_until(connection, person.name, now)
        if until is not None:
            self._tell(connection, person, Template.LOCKED, until, until=_time(until))

    def _last(
        self, connection: Connection, person: Subject, kind: Factor, sealed: bytes, last: int, code: str, binding: bytes,
        now: float,
    ) -> int:  # fmt: skip
        """What the subject's `last` is after this one-time code; raises `Refusal` unless it is right."""
        if kind is Factor.SENT:
            self._take_sent(connection, person.name, code, binding, now)
            return last + 1
        seed = self._seeds.open(person.name, otp.Kind[kind.name], subject.SEED_ID, sealed)
        if kind is Factor.HOTP:
            following = otp.hotp_counter(seed, code, last)
            if following is None:
                raise Refusal("OTP_INCORRECT")
            return following
        moment = datetime.fromtimestamp(now, UTC)
        step = otp.totp_step(seed, code, moment, last)
        if step is None:
            used = otp.totp_step(seed, code, moment, 0) is not None
            raise Refusal("OTP_USED" if used else "OTP_INCORRECT")
        return step

    def _put_sent(self, connection: Connection, person: Subject, code: str, binding: bytes, now: float) -> None:
        table = sent_codes
        ends = connection.execute(select(table.c.ends).where(table.c.subject == person.name)).scalar_one_or_none()
        if ends is not None and now < ends - SENT_S + SENT_PAUSE_S:
            raise Refusal("OTP_SENT", retry_s=ends - SENT_S + SENT_PAUSE_S - now)
        connection.execute(delete(table).where(table.c.subject == person.name))
        fingerprint = otp.fingerprint(self._sent_key, code, otp.binding("terms", person.name, binding))
        values = {"fingerprint": fingerprint, "binding": binding, "ends": int(now + SENT_S)}
        connection.execute(insert(table).values(subject=person.name, **values))

    def _take_sent(self, connection: Connection, name: str, code: str, binding: bytes, now: float) -> None:
        table = sent_codes
        row = connection.execute(select(table).where(table.c.subject == name)).one_or_none()
        if row is None or now >= row.ends or row.binding != binding:
            raise Refusal("OTP_EXPIRED")
        if not otp.matches(self._sent_key, code, otp.binding("terms", name, binding), row.fingerprint):
            raise Refusal("OTP_INCORRECT")
        if connection.execute(delete(table).where(table.c.subject == name)).rowcount != 1:
            raise Refusal("OTP_USED")

    async def _matches(self, code: Code, stored: str) -> bool:
        try:
            return await self._codes.matches(code, stored)
        except CodesError as error:
            raise Refusal(error.reason) from None

    async def _hashed(self, code: Code) -> str:
        try:
            return await self._codes.hash(code)
        except CodesError as error:
            raise Refusal(error.reason) from None

    def _tell(self, connection: Connection, person: Subject, template: Template, ends: float, **fields: Any) -> None:
        """Queue a message to the person's contact, with what the transaction does otherwise. Raises `Refusal`."""
        message = compose(template, Language(person.language), tell=self._whom, **fields)
        try:
            self._outbox.add(connection, _contact(person), message, _time(ends))
        except (OutboxFull, ContactError) as error:
            raise Refusal("CONTACT_UNREACHABLE", str(error)) from None

    # ---- what is shared

    def _check_clock(self) -> None:
        if abs(self._steady.jump_s) > CLOCK_JUMP_S:
            raise Refusal("CLOCK_UNSAFE", f"by {self._steady.jump_s:+.0f} s")

    async def _changed(self, name: str, what: str, who: str) -> None:
        await self._refresh()
        await self._ledger.note(Kind.REGISTER, {"subject": name, "what": what, "who": who})

    def _refused(self, refusal: Refusal, credential: Credential, source: str) -> None:
        """Refusals of people's codes and authorisations are in the ledger, too; they are bounded by the guesses."""
        fields = {"reason": refusal.reason, "subject": credential.subject, "credential": credential.name}
        self._ledger.note_soon(Kind.REFUSED, {**fields, "source": source})

    async def _do(self, act: Callable[[Connection], T], *, keep: tuple[str, ...] = ()) -> T:
        """In one transaction, off the loop. A refusal takes back what the transaction did, but for those in `keep`."""

        def run() -> Any:
            with self._engine.begin() as connection:
                try:
                    return act(connection)
                except Refusal as refusal:
                    if refusal.reason in keep:
                        return refusal
                    raise

        try:
            answer = await asyncio.to_thread(run)
        except OperationalError:  # somebody has the database for too long, or its server is away
            raise Refusal("STORE_BUSY") from None
        if isinstance(answer, Refusal):
            raise answer
        return answer  # type: ignore[no-any-return]


_ENROLMENT = hashlib.sha256(b"paraph-enrolment-v1").digest()


def _active(connection: Connection, name: str) -> Subject:
    person = subject.read(connection, name)
    if person is None or person.state is not subject.State.ACTIVE:
        raise Refusal("SUBJECT_SUSPENDED")
    return person


def _not_suspended(connection: Connection, name: str) -> None:
    """Who signs with a card of her own need not be enrolled."""
    person = subject.read(connection, name)
    if person is not None and person.state is subject.State.SUSPENDED:
        raise Refusal("SUBJECT_SUSPENDED")


def _check_only(found: subject.Enrolment, only: str | None) -> None:
    """A person's own certificate is good for that person alone."""
    if only is not None and only != found.subject:
        raise Refusal("ENROLMENT_UNKNOWN")


def _contact(person: Subject) -> Contact:
    return Contact(ContactKind(person.contact_kind), person.contact)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))
