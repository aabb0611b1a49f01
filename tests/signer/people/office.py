"""
What decides about people, in this process: `Consent` over a real database, with a clock to set, an inbox to read, and a
count of every code that was really compared. No token, no network, no hasher.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyotp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine, insert, select

from pool import Algorithm, Hash, Key, Scheme
from signer.batch import Allowed, Ask
from signer.config import Caller
from signer.consent import Consent, Given
from signer.contact import Contact
from signer.contact import Kind as ContactKind
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.gate import Bounds, Factor, Gate, Terms
from signer.notify import Outbox
from signer.otp import Seeds
from signer.queued import Queue
from signer.queued import settled as settled_row
from signer.secret import Code
from signer.steady import Steady
from signer.store import credentials, open_store

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC).timestamp()
ALGORITHM = Algorithm(Scheme.ECDSA, Hash.SHA256)
SPKI = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)  # fmt: skip
KEY = bytes(range(32))
WAIT_S = 24 * 3600.0
SECRET = "correct horse 7"
WEAK = "password1"
GATES = {"hotp": Gate.CODE_HOTP, "totp": Gate.CODE_TOTP, "sent": Gate.CODE_SENT}


class HandClock:
    """A `Clock` that stands still until it is told: time passes by both clocks, the system's alone is set."""

    def __init__(self, now: float = NOON) -> None:
        self._wall = now
        self._monotonic = 1_000.0

    def passes(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    def is_set(self, by_s: float) -> None:
        self._wall += by_s

    def epoch(self) -> float:
        return self._wall

    def wall(self) -> datetime:
        return datetime.fromtimestamp(int(self._wall), UTC)

    def monotonic(self) -> float:
        return self._monotonic


class Codes:
    """A hasher that counts: `compared` has the time of every comparison. `fails` says what the next ones end with."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.compared: list[float] = []
        self.spent = 0  # for nobody
        self.judged: list[list[str]] = []  # with which words
        self.fails: BaseException | None = None

    async def hash(self, code: Code) -> str:
        if self.fails is not None:
            raise self.fails
        return f"hash of {code.reveal()}"

    async def is_weak(self, code: Code, words: Sequence[str]) -> bool:
        self.judged.append(list(words))
        if self.fails is not None:
            raise self.fails
        return code.reveal() == WEAK

    async def matches(self, code: Code, stored: str) -> bool:
        await asyncio.sleep(0)  # as a real one lets others run
        if self.fails is not None:
            raise self.fails
        self.compared.append(self._clock.epoch())
        return stored.removeprefix("old ") == f"hash of {code.reveal()}"

    async def renewed(self, code: Code, stored: str) -> str:
        return await self.hash(code) if stored.startswith("old ") else ""

    async def spend(self) -> None:
        await self.matches(Code("nobody's"), "")
        self.spent += 1


@dataclass
class Book:
    """The ledger's two methods that `Consent` has."""

    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    trouble: str = ""

    async def note(self, kind: str, fields: dict[str, Any]) -> None:
        self.notes.append((kind, fields))

    def note_soon(self, kind: str, fields: dict[str, Any]) -> None:
        self.notes.append((kind, fields))


@dataclass
class Person:
    name: str
    factor: str
    uri: str = ""
    counter: int = 0

    def otp(self, at: float = 0.0) -> str:
        """A HOTP device's next one-time code, a TOTP device's of a moment."""
        device: Any = pyotp.parse_uri(self.uri)
        if self.factor == "totp":
            return str(device.at(int(at)))
        self.counter += 1
        return str(device.at(self.counter - 1))


class Office:
    """`Office(directory)` or, over another database, `Office(directory, engine)`."""

    def __init__(self, directory: Path, engine: Engine | None = None, *, now: float = NOON) -> None:
        self.path = directory / "paraph.sqlite"
        self.engine = engine or open_store(self.path)
        self.clock: Any = HandClock(now)
        self.steady = Steady(self.clock)
        self.codes: Any = Codes(self.clock)
        self.book: Any = Book()
        self._queue = Queue(self.engine, KEY, self.clock)
        self.consent = Consent(
            self.engine, self.book, self.codes, Seeds(KEY), KEY, Outbox(self.engine, KEY, None, clock=self.clock),
            self._refresh, self.steady, "Paraph", "the help desk", WAIT_S,
        )  # fmt: skip

    async def _refresh(self) -> None:
        pass

    # ---- messages

    def messages(self) -> list[tuple[str, str, str]]:
        """(to, template, text) of what was sent since the last look, in the order of its writing."""
        found = []
        while claims := self._queue.look(1_000, 1_000, []).claims:  # one of each contact
            for claim in claims:
                contact, message = self._queue.opened(claim)
                found.append((contact.address.rpartition("/")[2], message.template.value, message.text))
                self._queue.settle(claim, settled_row(claim.tries, claim.expires, self._queue.now(), None))
        return found

    def code(self, name: str, template: str) -> str:
        """The code in the one message of a template to this person."""
        [text] = [text for to, kind, text in self.messages() if (to, kind) == (name, template)]
        return text.splitlines()[0].partition(":")[2].strip()

    # ---- people

    @staticmethod
    def contact(name: str) -> Contact:
        return Contact(ContactKind.WEBHOOK, f"http://127.0.0.1/{name}")

    async def named(self, name: str, factor: str = "hotp", contact: str = "") -> float:
        """As an operator begins it; answers in how many seconds it begins."""
        begins = await self.consent.enrol(name, self.contact(contact or name), "en", Factor(factor), "operator")
        return begins - self.steady.now()

    async def finish(self, name: str, factor: str, enrolment: str, secret: str = SECRET) -> Person:
        """As the person ends it."""
        person = Person(name, factor)
        _, person.uri, _ = await self.consent.begin_completing(enrolment, "", None)
        otp = self.code(name, "confirm-code") if factor == "sent" else person.otp(self.steady.now())
        await self.consent.complete(enrolment, self.given(secret, otp), None)
        return person

    async def enrol(self, name: str, factor: str = "hotp") -> Person:
        await self.named(name, factor)
        person = await self.finish(name, factor, self.code(name, "enrolment-code"))
        self.clock.passes(60)  # no code is asked for, and no step used, twice within it
        return person

    # ---- what they allow

    @staticmethod
    def credential(person: Person, name: str = "", subject: str = "", **bounds: Any) -> Credential:
        return Credential(
            name or person.name, Purpose.SIGNATURE, (b"",), Key(SPKI, label="key"), frozenset(Output),
            gate=GATES[person.factor], subject=subject or person.name, bounds=Bounds(**bounds),
        )  # fmt: skip

    def terms(self, person: Person, digests: Sequence[bytes] = (b"d" * 32,), **other: Any) -> Terms:
        words = {"caller": "portal", "credential": person.name, "key": Key(SPKI, label="key").ref, "output": "RAW"}
        inputs = tuple(b"" for _ in digests)
        return Terms(**({**words, "algorithm": str(ALGORITHM), "inputs": inputs, "digests": tuple(digests)} | other))

    async def authorise(
        self, person: Person, *, secret: str = SECRET, otp: str | None = None, source: str = "", **credential: Any
    ) -> tuple[bytes, float]:
        """(reference, until when), or `Refusal`."""
        given = self.given(secret, otp if otp is not None else await self.otp(person), source)
        return await self.consent.authorise(self.credential(person, **credential), self.terms(person), given, "window")

    @staticmethod
    def given(secret: str, otp: str, source: str = "") -> Given:
        return Given(Code(secret), otp, source)

    async def allow(self, person: Person, given: Given, **terms: Any) -> tuple[bytes, float]:
        """What she has typed, for other terms."""
        return await self.consent.authorise(self.credential(person), self.terms(person, **terms), given, "window")

    async def otp(self, person: Person, **terms: Any) -> str:
        """A one-time code that is right now, for these terms."""
        if person.factor != "sent":
            return person.otp(self.steady.now())
        await self.consent.send_otp(
            self.credential(person), self.terms(person, **terms), "letter", "window", is_login=False
        )  # fmt: skip
        return self.code(person.name, "sign-code")

    def ask(self, credential: Credential, reference: bytes, digests: Sequence[bytes] = (b"d" * 32,)) -> Ask:
        with self.engine.begin() as connection:  # it is looked at in the store, too
            known = connection.execute(select(credentials.c.name).where(credentials.c.name == credential.name)).first()
            if known is None:
                connection.execute(
                    insert(credentials).values(
                        name=credential.name, purpose="SIGNATURE", certificates="", outputs="", state="ACTIVE",
                        gate=credential.gate.value, subject=credential.subject,
                    )
                )  # fmt: skip
        portal = Caller(name="portal", role="submit", rpcs=frozenset())
        ask = (portal, str(uuid.uuid4()), credential, Output.RAW, ALGORITHM, list(digests))
        return Ask(*ask, self.clock.monotonic() + 30, self.clock.wall(), authorisation=reference)

    async def redeem(self, person: Person, reference: bytes) -> Allowed:
        return await self.consent.redeem(self.ask(self.credential(person), reference))

    async def reason(self, doing: Any) -> str:
        """What a coroutine is refused with; 'OK' where it is not."""
        try:
            await doing
        except Refusal as refusal:
            return refusal.reason
        return "OK"
