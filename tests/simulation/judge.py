"""
What may never happen, judged by the cards' own logs and what is really on the disk (RELIABILITY: invariants I1 to I8).

    I1  a card signs only what somebody has asked, and of a person's key what she has allowed, for as long as that lives;
        nobody comes to a card that is open for somebody else, or that has made a wrong signature
    I2  for an item of a request one signature at most is ever given out, and a card is not asked again where it may have
        signed, unless the caller was told INDETERMINATE, or nobody could be told, and has asked again
    I3  what was answered is answered again, the same bytes
    I4  a card signs only under an open INTENT, and what is given out as signed is in an OUTCOME, both on the disk
    I5  a token that nobody disturbs is in service, whatever happens to the others; a lane is up with all keys, or not at
        all; a breaker opens for five losses of a lane, and each counts once; in the end everything comes back
    I6  no PIN is in the log or in an error
    I7  every answer comes by its deadline and a second; nothing waits beside idle lanes, and no item is lost
    I8  no card loses more tries of its PIN than people have given
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pool import Lease, Outcomes, Status
from pool.codes import NAMES, Meaning, meaning
from signer.chain import Kind
from signer.entry import Entry
from signer.results import Part
from tests.simulation.loop import Clock
from tests.simulation.module import Card, Login, Signed

LATE_S = 1.0
END_S = 1.1  # after a lease its lane is gone
# A lane looks at the clock, and then signs: a turn or two of the loop lie between.
MOMENT_S = 0.01
AT_ONCE = {"LOGIN_REQUIRED", "DEADLINE_EXCEEDED", "CANCELLED"}  # ends of a lease after which nothing more is begun
OPEN_MAX = 2  # logins of a machine that nobody knows the end of


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(eq=False)
class Allowed:
    """What a person has allowed; by herself, not by what the daemon makes of it."""

    caller: str
    credential: str
    digests: tuple[bytes, ...]
    ends: float  # of the monotonic clock
    reference: bytes = b""
    used_by: str = ""


@dataclass(eq=False)
class Request:
    name: str
    caller: str
    credential: str
    digests: tuple[bytes, ...]
    allowed: Allowed | None = None
    lease: "Visit | None" = None
    calls: int = 0  # under way
    given: dict[int, bytes] = field(default_factory=dict)  # what was released
    told: dict[tuple[int, int], Status] = field(default_factory=dict)  # (attempt, place) -> what the caller knows
    over_at: float = 0.0
    late: set[int] = field(default_factory=set)  # processes that have signed once after the last call's end


@dataclass(eq=False)
class Visit:
    """A person at her card, from the PIN to the end of the lease."""

    card: str
    lease: Lease
    ended: float | None = None
    late: int = 0


@dataclass(eq=False)
class Intent:
    request: str
    place: int
    attempt: int
    token: str
    signs: list[Signed] = field(default_factory=list)


@dataclass(eq=False)
class Guard:
    """What a card's PIN may still be used for."""

    card: Card
    is_personal: bool
    is_foreign: bool = False
    refused: int = 0  # since a person has last allowed a try
    unclear: int = 0
    is_wrong: bool = False  # it made a wrong signature, which is written down, and nobody has looked at it since
    examined_at: float = 0.0  # by a person: what was signed before is no news when it is written down
    visits: int = 0  # PINs that people have brought
    logins: int = 0
    overrides: int = 0


class Judge:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.requests: dict[str, Request] = {}
        self.asked: dict[bytes, list[tuple[Request, int]]] = {}  # who has named a digest, and where
        self.open: dict[tuple[str, int], list[Intent]] = {}  # of each item, oldest first
        self._by_sequence: dict[int, list[Intent]] = {}
        self.signs: dict[tuple[str, int], list[tuple[Intent, Signed]]] = {}
        self.durable: dict[tuple[str, int], bytes] = {}
        self.guards: dict[str, Guard] = {}  # by the card's serial
        self.visits: dict[str, Visit] = {}  # by token: whoever is let in now
        self.counts: Counter[str] = Counter()

    @property
    def now(self) -> float:
        return self._clock.now

    # ---- the ledger

    def new_life(self) -> None:
        """What was open is closed by the daemon's start, as POSSIBLE_UNRELEASED_SIGNATURE."""
        self.open.clear()
        self._by_sequence.clear()
        self.visits.clear()

    def committed(self, entries: Sequence[Entry], first: int) -> None:
        for sequence, entry in enumerate(entries, first):
            if entry.kind is Kind.INTENT:
                self._intended(entry, sequence)
            elif entry.kind is Kind.OUTCOME:
                self._decided(entry)

    def _intended(self, entry: Entry, sequence: int) -> None:
        fields, made = entry.fields, []
        for place in (place for start, stop in fields["items"] for place in range(start, stop)):
            key = (fields["request"], place)
            # Two may be open: the lane of the first was lost before it was written, and its OUTCOME comes after it.
            self.open.setdefault(key, []).append(Intent(*key, fields["attempt"], fields["token"]))
            made.append(self.open[key][-1])
        self._by_sequence[sequence] = made

    def _decided(self, entry: Entry) -> None:
        if entry.result is not None:
            id_, _, _, value = entry.result
            part = Part.of(value)
            text = id_.hex()
            name = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
            places = [place for start, stop in part.ranges for place in range(start, stop)]
            for place, signature in zip(places, part.signatures, strict=True):
                if signature and self.durable.setdefault((name, place), signature) != signature:
                    raise Violation(f"I2: two signatures for item {place} of {name} are on the disk")
            guard = self.guard_of(part.token)
            for place in (at for at, (_, reason) in part.problems.items() if reason == "SIGNATURE_INVALID"):
                _, signed = self.signs[name, place][-1]
                guard.is_wrong = guard.is_wrong or signed.at > guard.examined_at
        if entry.closes:
            for intent in self._by_sequence.pop(entry.intent):
                key = (intent.request, intent.place)
                self.open[key].remove(intent)
                if not self.open[key]:
                    del self.open[key]

    # ---- cards

    def of(self, digest: bytes, token: str = "") -> tuple[Request, int] | None:
        """Whose digest it is: of several, theirs who has an open INTENT for it, with this token."""
        found = self.asked.get(digest, [])
        under = [each for each in found if (each[0].name, each[1]) in self.open]
        by_token = [each for each in under if self.open[each[0].name, each[1]][-1].token == token]
        return next(iter([*by_token, *under, *found]), None)

    def c_sign(self, pid: int, token: str, said: Signed) -> None:
        """A card is about to sign."""
        self.counts["C_Sign"] += 1
        found = self.of(said.data, token)
        if found is None:
            raise Violation("I1: a card signs what nobody has asked for")
        request, place = found
        what = f"item {place} of {request.name}"
        intents = self.open.get((request.name, place))
        if not intents:
            raise Violation(f"I4: a card signs {what} without an open INTENT on the disk")
        intent = intents[-1]
        if any(before.signs for before in intents[:-1]):
            raise Violation(f"I2: a card signs {what}, which another lane may be signing")
        if intent.token != token:
            raise Violation(f"I4: {token} signs {what}, the INTENT names {intent.token}")
        if intent.signs:
            raise Violation(f"I2: a card signs {what} twice under one INTENT")
        if (request.name, place) in self.durable:
            raise Violation(f"I2: a card signs {what} again, whose signature is on the disk")
        earlier = self.signs.setdefault((request.name, place), [])
        for before, signed in earlier:
            if before.attempt == intent.attempt and may_have_signed(signed):
                raise Violation(
                    f"I2: a card signs {what} again in attempt {intent.attempt}, and it may have been signed"
                )
        told = request.told.get((intent.attempt, place))
        if told not in {None, Status.INDETERMINATE}:  # under the counter, and not yet in C_Sign: it may be signed
            raise Violation(f"I2: a card signs {what} after its caller was told {told}")
        intent.signs.append(said)
        earlier.append((intent, said))
        if not request.calls and request.over_at < self.now - MOMENT_S:
            if pid in request.late:
                raise Violation(f"I2: a lane signs {what}, a second one after its caller has gone")
            request.late.add(pid)
        self._is_allowed(request, what)

    def _is_allowed(self, request: Request, what: str) -> None:
        allowed, visit = request.allowed, request.lease
        if allowed is not None:
            said = (allowed.caller, allowed.credential, allowed.digests)
            if said != (request.caller, request.credential, request.digests):
                raise Violation(f"I1: {what} is not what was allowed")
            if self.now > allowed.ends + MOMENT_S:
                raise Violation(f"I1: {what} is signed {self.now - allowed.ends:.3f} s after its authorisation ended")
            if allowed.used_by not in {"", request.name}:
                raise Violation(f"I1: {what} is signed with an authorisation that {allowed.used_by} has used")
            allowed.used_by = request.name
        if visit is None:
            return
        if visit.ended is not None and visit.lease.over in AT_ONCE:
            visit.late += 1
            since = self.now - visit.ended
            if visit.late > 1 or since > END_S:
                raise Violation(f"I1: {what} is signed {since:.3f} s after its person's lease")
        if self.visits.get(visit.card) is not visit:
            raise Violation(f"I1: {what} is signed while somebody else has the card")

    def c_login(self, token: str, card: Card, said: Login) -> None:
        """A PIN is about to be sent to a card."""
        self.counts["C_Login"] += 1
        guard = self.guards[card.serial]
        if guard.is_foreign:
            raise Violation(f"I8: a PIN is sent to {card.serial}, which is not the card of {token}")
        if guard.is_wrong and not said.is_context:
            raise Violation(f"I1: {token} is logged in to, which has made a wrong signature")
        if said.is_context:  # with the PIN that this lease was given for
            return
        guard.logins += 1
        if guard.is_personal:
            if guard.logins > guard.visits:
                raise Violation(f"I8: {token} is sent {guard.logins} PINs, people have brought {guard.visits}")
            return
        if guard.refused:
            raise Violation(f"I8: {token} is sent a PIN after a refusal, and no person has allowed it")
        if guard.unclear >= OPEN_MAX:
            raise Violation(f"I8: {token} is sent a PIN after {guard.unclear} logins without an answer")
        guard.unclear += 1

    def login_left(self, card: Card, said: Login, code: int) -> None:
        guard = self.guards[card.serial]
        self.counts[f"C_Login {NAMES.get(code, 'CKR_OK')}"] += 1
        if not said.is_context and not guard.is_personal:
            if not code:
                guard.unclear = guard.refused = 0
            elif NAMES[code].startswith("CKR_PIN"):
                guard.unclear -= 1
                guard.refused += 1
        self.check_pins()

    def guard_of(self, token: str) -> Guard:
        """Of the card that is the token's own."""
        return next(one for one in self.guards.values() if one.card.label == token and not one.is_foreign)

    def opened(self, pid: int, card: Card) -> None:
        """A process speaks to a card for the first time."""
        if card.is_open and card.open_for != pid and self.guards[card.serial].is_personal:
            raise Violation(f"I1: the card of {card.label} is still open for somebody else")

    def check_pins(self) -> None:
        for guard in self.guards.values():
            if guard.card.wrong >= guard.card.tries and not guard.overrides:
                raise Violation(f"I8: the PIN of {guard.card.label} is locked, and nobody has overridden its guard")

    def granted(self, card: Card, *, override: bool = False) -> None:
        """A person has unlocked the token whose PIN was refused."""
        guard = self.guards[card.serial]
        guard.refused = guard.unclear = 0
        guard.overrides += override

    def examined(self, card: Card) -> None:
        """A person has unlocked the token that made a wrong signature."""
        guard = self.guards[card.serial]
        guard.is_wrong, guard.examined_at = False, self.now

    # ---- callers

    def new_request(self, request: Request) -> None:
        self.requests[request.name] = request
        for place, digest in enumerate(request.digests):
            self.asked.setdefault(digest, []).append((request, place))

    def call_begins(self, request: Request) -> None:
        request.calls += 1
        request.told.clear()  # it is asked for again

    def call_ends(self, request: Request) -> None:
        request.calls -= 1
        request.over_at = self.now
        request.late.clear()

    def in_time(self, what: str, deadline: float, stalled: float) -> None:
        late_s = self.now - deadline - (self._clock.stalled - stalled)
        if late_s > LATE_S:
            raise Violation(f"I7: {what} was answered {late_s:.3f} s after its deadline")

    def answered(self, request: Request, attempt: int, outcomes: Outcomes) -> None:
        if len(outcomes) != len(request.digests):
            raise Violation(f"I7: {len(outcomes)} outcomes for {len(request.digests)} items of {request.name}")
        for place, outcome in enumerate(outcomes):
            what = f"item {place} of {request.name}"
            if outcome.status is Status.SIGNED:
                self._released(request, place, outcome.signature, what)
                continue
            if place in request.given:
                raise Violation(f"I3: {what} was given out and is now {outcome.status} {outcome.reason}")
            if request.calls == 1:  # otherwise somebody has asked again already
                request.told[attempt, place] = outcome.status
            now = [signed for intent, signed in self.signs.get((request.name, place), ()) if intent.attempt == attempt]
            if outcome.status is Status.NOT_ATTEMPTED and any(map(may_have_signed, now)):
                raise Violation(f"I2: {what} is answered NOT_ATTEMPTED {outcome.reason}, and may have been signed")

    def _released(self, request: Request, place: int, signature: bytes, what: str) -> None:
        if request.given.setdefault(place, signature) != signature:
            raise Violation(f"I2: {what} is given out with another signature than before")
        if self.durable.get((request.name, place)) != signature:
            raise Violation(f"I4: {what} is given out, and its OUTCOME is not on the disk")
        made = [signed.made for _, signed in self.signs.get((request.name, place), ())]
        if signature not in made:
            raise Violation(f"I1: {what} is given out with a signature that no card has made")


def may_have_signed(signed: Signed) -> bool:
    """Whether a card may have made the signature that it was asked for, as far as its answer says."""
    if signed.code is None:
        return True
    return not signed.code or meaning(NAMES.get(signed.code, hex(signed.code))) is Meaning.MAYBE_SIGNED
