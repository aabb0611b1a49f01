"""
That it is the person: her secret code and a one-time code, looked at here and nowhere else.

In this order, each step durable before the next: the attempt is counted (`guesses.py`), the secret code is compared in a
process of its own (`code.py`), the one-time code is looked at and used up. What is wrong with a one-time code is told
whatever the secret code is, and a wrong secret code is told as a wrong one-time code: so neither can be guessed alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection, delete, func, insert, select

from signer import guesses, otp, subject
from signer.code import Codes, CodesError
from signer.credential import Credential
from signer.errors import Refusal
from signer.gate import FACTORS, Factor
from signer.given import Given
from signer.steady import Steady
from signer.store import sent_codes
from signer.subject import Subject
from signer.transaction import Transact

SENT_S = 300.0  # a one-time code that was sent (ASVS 5.0, 6.5.5: at most ten minutes)
SENT_PAUSE_S = 30.0  # between two for one thing: a person who asks twice is still waiting for the first
# That are good at one time, each for another thing: nobody's asking makes another one's code worthless. More than the window
# sends for strangers meanwhile (6 in ten minutes), so that there is room for hers.
SENT_MAX = 16

T = TypeVar("T")


class WrongCode(Refusal):
    """A code or one-time code was wrong, and the attempt of this number stays counted."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.number = number


class Proof:
    def __init__(self, transact: Transact, codes: Codes, seeds: otp.Seeds, sent_key: bytes, steady: Steady) -> None:
        self._transact = transact
        self._codes = codes
        self._seeds = seeds
        self._sent_key = sent_key
        self._steady = steady
        self._taking_back: set[asyncio.Task[None]] = set()

    async def person(
        self, credential: Credential, given: Given, binding: bytes,
        unfit: Callable[[Subject], Awaitable[Refusal | None]] | None = None,
        then: Callable[[Connection, Subject], None] | None = None,
    ) -> Subject:  # fmt: skip
        """
        Whose credential it is, now that code and one-time code are right; raises `Refusal` OTP_* and others. What `unfit`
        finds is raised where both are right, so that nobody else learns it, and then nothing is used up. `then` is done in
        the transaction that lets her pass: between the two nobody changes anything.
        """
        now = self._steady.now()
        [_, kind] = FACTORS[credential.gate]

        def look(connection: Connection) -> tuple[Subject, int]:
            person = subject.active(connection, credential.subject)
            if person.factor is not kind:
                raise Refusal("GATE_MISMATCH", f"the subject is enrolled with {person.factor}")
            return person, guesses.begin(
                connection, person.name, credential.name, given.source, now, is_open=given.is_open
            )

        person, number = await self._begun(look)
        async with self.counted(number):
            is_right = await self.asked(self._codes.matches(given.code, person.code))
            # Also of a wrong one, so that the time does not tell which it is; what is to be changed needs no other hash.
            renewed = await self.asked(self._codes.renewed(given.code, person.code)) if unfit is None else ""
            refused = await unfit(person) if unfit is not None else None

        # From here on the attempt stays counted whatever happens: what is written may be found out by another one.
        def judge(connection: Connection) -> str:
            reason = self._verdict(
                connection, person, kind, given.otp, binding, now, number, is_right, renewed, uses=refused is None
            )
            if not reason and refused is None and then is not None:
                then(connection, replace(person, code=renewed or person.code))
            return reason

        reason = await self._transact(judge)
        if reason:
            raise WrongCode(reason, number)
        if refused is not None:
            raise refused
        return person

    async def nobody(self, source: str, also: Callable[[], Awaitable[object]] | None = None) -> None:
        """
        What codes cost that were given for nobody: an attempt of their source, and the time to hash one. Raises `Refusal`
        as `person` does.
        """
        now = self._steady.now()
        _, number = await self._begun(lambda connection: ("", guesses.begin(connection, "", "", source, now)))
        async with self.counted(number):
            await self.asked(self._codes.spend())
            if also is not None:
                await also()

    async def _begun(self, look: Callable[[Connection], tuple[T, int]]) -> tuple[T, int]:
        """What `look` answers with an attempt's number. Of a call that goes away meanwhile the attempt is taken back."""
        begun = asyncio.create_task(self._transact(look), name="attempt")
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # then nothing was counted
                _, number = await begun
                await self.take_back(number)
            raise

    def _verdict(
        self, connection: Connection, verified: Subject, kind: Factor, code: str, binding: bytes, now: float, number: int,
        is_right: bool, renewed: str, *, uses: bool,
    ) -> str:  # fmt: skip
        """
        Why not; empty if she may pass: then a hash of our setting (`renewed`) takes the place of an older one. A device's code
        is used up although the secret code is wrong: its counter has gone on; not where both are right and it is not to be
        used (`uses`).
        """
        name = verified.name
        person = subject.active(connection, name)
        is_right &= person.code == verified.code  # it may have been changed while it was compared
        reason, last = self.one_time(connection, person, kind, person.seed, person.last, code, binding, now)
        if not reason and is_right and not uses:
            guesses.right(connection, number)
            return ""
        if not reason and (is_right or kind is Factor.HOTP) and not subject.use(connection, name, person.last, last):
            reason = "OTP_USED"
        if not reason and not is_right:
            reason = "OTP_INCORRECT"
        if not reason:
            if kind is Factor.SENT:
                _used(connection, name, binding)
            if renewed:
                subject.renew(connection, name, renewed)
            guesses.right(connection, number)
        return reason

    def one_time(
        self, connection: Connection, person: Subject, kind: Factor, sealed: bytes, last: int, code: str,
        binding: bytes, now: float,
    ) -> tuple[str, int]:  # fmt: skip
        """(why not, empty if it is right; the subject's `last` afterwards) of a one-time code."""
        if kind is Factor.SENT:
            return self._sent(connection, person.name, code, binding, now), last + 1
        seed = self._seeds.open(person.name, otp.Kind[kind.name], subject.SEED_ID, sealed)
        if kind is Factor.HOTP:
            following = otp.hotp_counter(seed, code, last)
            return ("OTP_INCORRECT", last) if following is None else ("", following)
        moment = datetime.fromtimestamp(now, UTC)
        step = otp.totp_step(seed, code, moment, last)
        if step is None:
            was_good = otp.totp_step(seed, code, moment, 0) is not None
            return "OTP_USED" if was_good else "OTP_INCORRECT", last
        return "", step

    def put_sent(self, connection: Connection, name: str, code: str, binding: bytes, now: float) -> None:
        """A code is sent for this, and for nothing else; raises `Refusal` OTP_SENT."""
        table = sent_codes
        connection.execute(delete(table).where(table.c.ends <= now))
        mine = table.c.subject == name
        before = connection.execute(select(table.c.ends).where(mine, table.c.binding == binding)).scalar_one_or_none()
        if before is not None and now < before - SENT_S + SENT_PAUSE_S:
            raise Refusal("OTP_SENT", retry_s=before - SENT_S + SENT_PAUSE_S - now)
        others = connection.execute(
            select(func.count(), func.min(table.c.ends)).where(mine, table.c.binding != binding)
        ).one()
        if others[0] >= SENT_MAX:
            raise Refusal("OTP_SENT", f"{SENT_MAX} are good now, for other things", retry_s=max(1.0, others[1] - now))
        connection.execute(delete(table).where(mine, table.c.binding == binding))
        fingerprint = otp.fingerprint(self._sent_key, code, otp.binding("terms", name, binding))
        values = {"fingerprint": fingerprint, "binding": binding, "ends": int(now + SENT_S)}
        connection.execute(insert(table).values(subject=name, **values))

    def _sent(self, connection: Connection, name: str, code: str, binding: bytes, now: float) -> str:
        """Why not. Of codes that were sent for other things nothing is told: one more to guess at would be each of them."""
        mine = (sent_codes.c.subject == name) & (sent_codes.c.binding == binding)
        row = connection.execute(select(sent_codes).where(mine)).one_or_none()
        if row is None or now >= row.ends:
            return "OTP_EXPIRED"
        is_it = otp.matches(self._sent_key, code, otp.binding("terms", name, binding), row.fingerprint)
        return "" if is_it else "OTP_INCORRECT"

    async def asked(self, question: Awaitable[T]) -> T:
        """What the hashers say; raises `Refusal`."""
        try:
            return await question
        except CodesError as error:
            raise Refusal(error.reason) from None

    @contextlib.asynccontextmanager
    async def counted(self, number: int) -> AsyncIterator[None]:
        """
        Where it ends without a verdict (nobody answered, the call has gone, the store failed), nothing was found out, and
        the attempt is taken back.
        """
        try:
            yield
        except (Exception, asyncio.CancelledError):
            await self.take_back(number)
            raise

    async def take_back(self, number: int) -> None:
        """It was no wrong one; also where the call is being cancelled."""
        task = asyncio.create_task(self._transact(lambda connection: guesses.right(connection, number)), name="attempt")
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)
        await asyncio.shield(task)


def _used(connection: Connection, name: str, binding: bytes) -> None:
    table = sent_codes
    connection.execute(delete(table).where(table.c.subject == name, table.c.binding == binding))
