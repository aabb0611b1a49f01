"""
People allow, and the daemon makes sure that it was they: `proof.py` looks at code and one-time code.

In this order, each step durable before the next: the attempt is counted (`guesses.py`), the secret code is compared in a
process of its own (`code.py`), the one-time code is compared and used up, and what was allowed is stored in one transaction
with that, so that a change of the code, or a suspension, is before both or ends what was allowed. Whatever is wrong with
the codes, the answer is one and the same, and costs the same time.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete

from pool import PinRefused, Unavailable
from signer import authorisation, guesses, otp, pending, roll, subject
from signer.batch import Allowed, Ask
from signer.chain import Kind
from signer.clock import rfc3339
from signer.code import Codes
from signer.contact import Contact, ContactError
from signer.contact import Kind as ContactKind
from signer.credential import Credential, check_active, texts_of
from signer.errors import Refusal, refusal_from
from signer.gate import FACTORS, LIFETIME_S, LIFETIME_S_MAX, Factor, Redemption, Terms
from signer.given import Given
from signer.ledger import Ledger
from signer.message import ENROL_COMMAND, Language, Template, compose
from signer.notify import Outbox
from signer.proof import SENT_S, Proof, WrongCode
from signer.queued import OutboxFull
from signer.secret import Code
from signer.steady import Steady
from signer.store import sent_codes
from signer.subject import Subject
from signer.transaction import transactions

log = logging.getLogger("signer.consent")

PIN_SENT = frozenset({"PIN_INCORRECT", "PIN_UNCLEAR", "PIN_LOCKED"})  # it was, and the token did not take it
REFUSED_MAX = 30  # rows of the ledger a minute, of one source: what somebody tries for hours must not fill the disk
LOOK_S = 30.0  # for enrolments that begin, and what is to be forgotten

T = TypeVar("T")


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
        enrol_at: str = ENROL_COMMAND,
    ) -> None:
        self._ledger = ledger
        self._do = transactions(engine)
        self._codes = codes
        self._seeds = seeds
        self._proof = Proof(self._do, codes, seeds, sent_key, steady)
        self._outbox = outbox
        self._refresh = refresh
        self._steady = steady
        self._issuer = issuer
        self._whom = whom
        self._wait_s = wait_s
        self._enrol_at = enrol_at
        self._rate = _Rate()

    # ---- signing

    async def send_otp(
        self, credential: Credential, terms: Terms, first: str, asked_by: str, *, is_login: bool
    ) -> tuple[Contact, float]:
        """Send a one-time code for these terms; answers where to, and until when it is good. Raises `Refusal`."""
        if is_login:
            return await self._send_otp(
                credential, terms.digest(), asked_by, "to log in", Template.LOGIN_CODE, audience=first
            )
        short = otp.short_digest(terms.digest())
        what = {"document": first, "count": terms.count, "digest_code": short}
        return await self._send_otp(credential, terms.digest(), asked_by, f"for {short}", Template.SIGN_CODE, **what)

    async def send_change_otp(self, credential: Credential, asked_by: str) -> tuple[Contact, float]:
        """Send a one-time code to change the secret code with; as `send_otp`. Raises `Refusal`."""
        return await self._send_otp(credential, _CHANGE, asked_by, "to change the secret code", Template.CHANGE_CODE)

    async def _send_otp(
        self, credential: Credential, binding: bytes, asked_by: str, why: str, template: Template, **fields: Any
    ) -> tuple[Contact, float]:
        self._check_clock()
        if Factor.SENT not in FACTORS[credential.gate]:
            raise Refusal("GATE_MISMATCH", f"{credential.gate} sends no code")
        now, code = self._steady.now(), otp.new_code()
        ends = now + SENT_S

        def send(connection: Connection) -> Contact:
            person = subject.active(connection, credential.subject)
            self._proof.put_sent(connection, person.name, code, binding, now)
            self._tell(connection, person, template, ends, code=code, until=_time(ends), **fields)
            return _contact(person)

        contact = await self._do(send)
        self._happened(credential.subject, f"a one-time code was sent {why}", asked_by)
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
        issued: list[tuple[bytes, float]] = []

        def issue(connection: Connection, person: Subject) -> None:
            subject.check_unchanged(connection, person)
            issued.append(self._issue(connection, credential, terms, person.name, authorised_by))

        person = await self._prove(credential, given, terms.digest(), then=issue)
        [(reference, ends)] = issued
        await self._authorised(reference, ends, credential, terms, person.name, authorised_by)
        return reference, ends

    async def change_code(self, credential: Credential, given: Given, new: Code) -> str:
        """
        Another secret code for the person of this credential, once she has proved who she is with the one that she has;
        answers the subject. What she was allowed to do with the old one ends. Raises `Refusal`; CODE_WEAK, and CODE_RULES
        for the same code, to herself alone, with nothing used up.
        """
        self._check_clock()
        if self._ledger.trouble:
            raise Refusal(self._ledger.trouble)
        hashed = ""

        async def unfit(person: Subject) -> Refusal | None:
            nonlocal hashed
            hashed = await self._proof.asked(self._codes.hash(new))
            if hmac.compare_digest(given.code.reveal().encode(), new.reveal().encode()):
                return Refusal("CODE_RULES", "it is the present one")
            return Refusal("CODE_WEAK") if await self._is_weak(new, person) else None

        person = await self._prove(credential, given, _CHANGE, unfit)

        def change(connection: Connection) -> None:
            now = self._steady.now()
            subject.change(connection, person.name, person.code, hashed)
            self._tell(connection, person, Template.CODE_CHANGED, now + subject.ENROLMENT_S, since=_time(now))

        await self._announced(person.name, "secret code changed", given.source)
        try:
            await self._do(change)
        except Refusal as refusal:
            self._refused(refusal, person.name, credential.name, given.source)
            raise
        return person.name

    async def _is_weak(self, code: Code, person: Subject) -> bool:
        """Whether it is easy to guess by whoever knows the person and the service. Raises `Refusal` CODES_*."""
        texts = await self._do(lambda connection: texts_of(connection, person.name))
        return await self._has_few_guesses(code, person.name, person.contact, *texts)

    async def _has_few_guesses(self, code: Code, *texts: str) -> bool:
        words = sorted({word for text in (self._issuer, *texts) for word in _WORD.findall(text)})
        return await self._proof.asked(self._codes.is_weak(code, words))

    async def nobody(self, given: Given, new: Code | None = None) -> None:
        """
        Codes for a credential that there is not, and the secret code that is wanted: neither their limit nor their time tells
        that. Raises `Refusal`.
        """
        self._check_clock()

        async def also(code: Code) -> None:
            await self._proof.asked(self._codes.hash(code))
            await self._has_few_guesses(code)

        await self._proof.nobody(given.source, partial(also, new) if new is not None else None)

    @contextlib.asynccontextmanager
    async def pin_given(
        self, credential: Credential, count: int, source: str, *, override: bool
    ) -> AsyncIterator[None]:
        """
        Round the use of a person's own token: whatever else would refuse is looked at before her PIN is sent anywhere, the
        attempt is counted, and a refused PIN is written down. Raises `Refusal`.
        """
        self._check_clock()
        now = self._steady.now()
        credential.bounds.check(count, datetime.fromtimestamp(now, UTC).hour)
        if self._ledger.trouble:
            raise Refusal(self._ledger.trouble)

        def look(connection: Connection) -> int:
            _not_suspended(connection, credential.subject)
            check_active(connection, credential.name)
            return guesses.begin(connection, credential.subject, credential.name, source, now)

        number = await self._do(look)
        if override:
            who = {"subject": credential.subject, "credential": credential.name, "source": source}
            await self._ledger.note(Kind.REGISTER, {**who, "what": "the last try of the PIN is allowed"})
        was_refused = False
        try:
            yield
        except (PinRefused, Unavailable) as error:
            was_refused = error.reason in PIN_SENT
            refusal = refusal_from(error)
            if refusal is not None and (was_refused or isinstance(error, PinRefused)):
                self._refused(refusal, credential.subject, credential.name, source)
            raise
        finally:
            if not was_refused:
                await self._proof.take_back(number)

    async def allow_with_pin(self, credential: Credential, terms: Terms, authorised_by: str) -> tuple[bytes, float]:
        """The reference of an authorisation, where the person's own token has taken her PIN (`pin_given`)."""
        return await self._allow(credential, terms, credential.subject, authorised_by)

    async def _allow(
        self, credential: Credential, terms: Terms, person: str, authorised_by: str
    ) -> tuple[bytes, float]:
        def issue(connection: Connection) -> tuple[bytes, float]:
            _not_suspended(connection, person)  # while her token took the PIN
            return self._issue(connection, credential, terms, person, authorised_by)

        reference, ends = await self._do(issue)
        await self._authorised(reference, ends, credential, terms, person, authorised_by)
        return reference, ends

    def _issue(
        self, connection: Connection, credential: Credential, terms: Terms, person: str, authorised_by: str
    ) -> tuple[bytes, float]:
        lifetime_s = min(credential.bounds.lifetime_s or LIFETIME_S, LIFETIME_S_MAX)
        now = self._steady.now()
        return authorisation.issue(connection, person, authorised_by, terms, now, lifetime_s), now + lifetime_s

    async def _authorised(
        self, reference: bytes, ends: float, credential: Credential, terms: Terms, person: str, authorised_by: str
    ) -> None:
        """It is in the ledger before anybody has the reference."""
        fields = {
            "authorisation": authorisation.name_of(reference).hex(),
            "subject": person,
            "caller": authorised_by,
            "for": terms.caller,
            "credential": credential.name,
            "output": terms.output,
            "count": terms.count,
            "terms": terms.digest().hex(),
            "expires": rfc3339(ends),
        }
        await self._ledger.note(Kind.AUTHORISED, fields)

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
            check_active(connection, credential.name)  # it may have been suspended while the call waited
            if Factor.CODE in FACTORS[credential.gate]:
                subject.active(connection, found.subject)
            else:
                _not_suspended(connection, found.subject)
            if found.subject != credential.subject:
                raise Refusal("AUTHZ_KEY")
            return found.subject, found.expires - now

        try:
            person, left_s = await self._do(redeemed)
        except Refusal as refusal:
            self._refused(refusal, credential.subject, credential.name, ask.caller.name)
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
            if old is not None and (old.code or begins > now):
                ends = begins + subject.ENROLMENT_S
                self._tell(connection, old, Template.ENROLMENT_REVOKED, ends, begins=_time(begins))
            elif old is not None:  # nobody was enrolled there, so that nothing waits
                self._tell(connection, old, Template.ENROLMENT_MOVED, now + subject.ENROLMENT_S)
            return begins

        is_known = await self._do(lambda connection: subject.read(connection, name)) is not None
        await self._announced(name, f"enrolment asked for{' anew' if is_known else ''}", operator)
        begins = await self._do(begin)
        await self._refresh()
        await self._begin_enrolment(name)
        return begins

    async def suspend(self, name: str, operator: str, *, resume: bool) -> None:
        def act(connection: Connection) -> None:
            if resume:
                subject.resume(connection, name)
                return
            person = subject.suspend(connection, name)
            now = self._steady.now()
            try:
                self._tell(connection, person, Template.SUSPENDED, now + subject.ENROLMENT_S, since=_time(now))
            except Refusal as refusal:  # the more reason to do it
                log.warning("%s is suspended, and was not told: %s", name, refusal.message)

        await self._do(lambda connection: subject.known(connection, name))  # no name that is nobody's is written down
        await self._announced(name, "resumed" if resume else "suspended", operator)
        await self._do(act)
        await self._refresh()

    async def unlock(self, name: str, operator: str) -> None:
        def look(connection: Connection) -> None:
            if not guesses.has(connection, name):  # who signs with a card need not be enrolled
                subject.known(connection, name)

        await self._do(look)
        await self._announced(name, "unlocked", operator)
        await self._do(lambda connection: guesses.forgive(connection, name))

    async def roll(self, name: str, after: str) -> tuple[list[roll.Entry], str]:
        """For operators: everybody behind a name, or one, and where to go on. Raises `Refusal`."""
        now = self._steady.now()
        return await self._do(lambda connection: roll.read(connection, name, after, now))

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
            self._proof.put_sent(connection, person.name, code, _ENROLMENT, now)
            self._tell(connection, person, Template.CONFIRM_CODE, now + SENT_S, code=code, until=_time(now + SENT_S))
            return found.subject, "", contact

        return await self._looked(look, source)

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

        found, person, number = await self._looked(look, given.source)
        async with self._proof.counted(number):
            if await self._is_weak(given.code, person):
                raise Refusal("CODE_WEAK")
            code = await self._proof.asked(self._codes.hash(given.code))

        def finish(connection: Connection) -> None:
            reason, last = self._proof.one_time(
                connection, person, found.factor, found.seed, 0, given.otp, _ENROLMENT, now
            )
            if reason:
                raise Refusal(reason)
            guesses.right(connection, number)
            subject.complete(connection, found.subject, enrolment, code, found.seed, last)

        await self._announced(found.subject, "enrolled", found.subject)
        try:
            await self._do(finish)
        except Refusal as refusal:
            self._refused(refusal, found.subject, "", given.source)
            raise
        await self._refresh()
        return found.subject

    async def _looked(self, look: Callable[[Connection], T], source: str) -> T:
        """What `look` answers; an enrolment code that there is not has been counted all the same, and written down."""

        def counted(connection: Connection) -> T | Refusal:
            try:
                return look(connection)
            except Refusal as refusal:
                if refusal.reason != "ENROLMENT_UNKNOWN":
                    raise
                return refusal

        answer = await self._do(counted)
        if isinstance(answer, Refusal):
            self._refused(answer, "", "", source)
            raise answer
        return answer

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

        def begin(connection: Connection) -> bool:
            if name not in subject.due(connection, now):
                return False
            person = subject.known(connection, name)
            seed = b""
            if person.factor is not Factor.SENT:
                seed = self._seeds.seal(name, otp.Kind[person.factor.name], subject.SEED_ID, otp.new_seed())
            code = subject.ticket(connection, name, seed, now)
            if not code:
                return False
            ends = now + subject.ENROLMENT_S
            told = {"code": code, "where": self._enrol_at, "until": _time(ends)}
            self._tell(connection, person, Template.ENROLMENT_CODE, ends, **told)
            return True

        if await self._do(begin):
            self._happened(name, "an enrolment code was sent", "")

    async def confirm_clock(self, who: str) -> float:
        """
        An operator has looked at the system's clock; answers by how many seconds it had been set. Had it jumped, what is
        open ends: by the time that it is now, some of it would live longer than it was to, or once more. Raises `Refusal`.
        """

        def end_all(connection: Connection) -> None:
            for table in (authorisation, pending):
                table.end_all(connection)
            connection.execute(delete(sent_codes))

        async def end() -> None:
            await self._do(end_all)

        return await confirm_clock(self._ledger, self._steady, who, end)

    # ---- the proof

    async def _prove(
        self,
        credential: Credential,
        given: Given,
        binding: bytes,
        unfit: Callable[[Subject], Awaitable[Refusal | None]] | None = None,
        then: Callable[[Connection, Subject], None] | None = None,
    ) -> Subject:
        """Who it is, as `Proof.person` has it; raises `Refusal` OTP_*, and what is `unfit`."""
        try:
            return await self._proof.person(credential, given, binding, unfit, then)
        except Refusal as refusal:
            self._refused(refusal, credential.subject, credential.name, given.source)
            with contextlib.suppress(Refusal):  # that the person cannot be told is nothing to who gave the codes
                if isinstance(refusal, WrongCode):
                    await self._tell_if_locked(credential.subject, given.source, refusal.number)
            raise

    async def _tell_if_locked(self, name: str, source: str, number: int) -> None:
        """Once for each lock: by the attempt that was the last one. Raises `Refusal`."""
        now = self._steady.now()
        lock = await self._do(lambda connection: guesses.lock_by(connection, name, number, now))
        if lock is None:
            return
        limit, until = lock
        where, template = (" where not known", Template.LOGIN_LOCKED) if limit.is_open else ("", Template.LOCKED)
        self._happened(name, f"locked{where} until {rfc3339(until)}", source)
        await self._do(
            lambda connection: self._tell(
                connection, subject.known(connection, name), template, until, until=_time(until)
            )
        )

    def _tell(self, connection: Connection, person: Subject, template: Template, ends: float, **fields: Any) -> None:
        """Queue a message to the person's contact, with what the transaction does otherwise. Raises `Refusal`."""
        message = compose(template, Language(person.language), tell=self._whom, **fields)
        try:
            self._outbox.add(connection, _contact(person), message, _time(ends))
        except (OutboxFull, ContactError) as error:
            raise Refusal("CONTACT_UNREACHABLE", str(error)) from None

    # ---- what is shared

    def _check_clock(self) -> None:
        if not self._steady.is_safe:
            raise Refusal("CLOCK_UNSAFE", f"by {self._steady.jump_s:+.0f} s")

    async def _announced(self, name: str, what: str, who: str) -> None:
        """Before it is done, so that nothing is done that cannot be written down. Raises `Refusal`."""
        await self._ledger.note(Kind.REGISTER, {"subject": name, "what": what, "who": who})

    def _happened(self, name: str, what: str, who: str) -> None:
        """Of itself, or because of what somebody sent; not kept for later where it cannot be written now."""
        self._ledger.note_soon(Kind.REGISTER, {"subject": name, "what": what, "who": who})

    def _refused(self, refusal: Refusal, name: str, credential: str, source: str) -> None:
        """
        Refusals of people's codes and authorisations are in the ledger, too: codes are bounded by the guesses, and of each
        source only so many in a minute, whatever it sends.
        """
        if refusal.reason == "OTP_LOCKED" or not self._rate.allows(source, self._steady.now()):
            log.warning("refused: %s subject=%s source=%s", refusal.reason, name, source)
            return
        fields = {"reason": refusal.reason, "subject": name, "credential": credential}
        self._ledger.note_soon(Kind.REFUSED, {**fields, "source": source})


async def confirm_clock(
    ledger: Ledger, steady: Steady, who: str, end_all: Callable[[], Awaitable[None]] | None = None
) -> float:
    """As `Consent.confirm_clock`; what is open, where people are served, ends by `end_all`."""
    what = f"the system's clock is confirmed, set by {steady.jump_s:+.0f} s"
    await ledger.note(Kind.REGISTER, {"what": what, "who": who})
    if end_all is not None and not steady.is_safe:
        await end_all()
    try:
        step_s = await asyncio.to_thread(steady.confirm)
    except OSError as error:
        raise Refusal("STORE_BUSY", f"the state directory: {error.strerror}") from None
    log.warning("the system's clock is confirmed by %s: it had been set by %+.1f s", who, step_s)
    return step_s


class _Rate:
    """So many in a minute, of each source."""

    def __init__(self) -> None:
        self._minute = 0
        self._counts: Counter[str] = Counter()

    def allows(self, source: str, now: float) -> bool:
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._counts.clear()
        self._counts[source] += 1
        return self._counts[source] <= REFUSED_MAX


_ENROLMENT = hashlib.sha256(b"paraph-enrolment-v1").digest()
_CHANGE = hashlib.sha256(b"paraph-change-of-code-v1").digest()
_WORD = re.compile(r"[^\W_]{3,}")  # of a name, an address, a number: what a person would build a code from


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
