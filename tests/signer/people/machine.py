"""
A portal, a window, an operator and two people, in any order that Hypothesis thinks of, over a real daemon, gRPC and
SoftHSM; beside them a model that knows what may be signed. After every step the model and the witnesses (shim, ledger,
log, the operator's list of people) must agree:

    I1  no C_Sign but for what this person has allowed: so many, and these
    I2  one signature at most was ever given out for an item of a request
    I3  what was answered is answered again, the same bytes
    I4  each C_Sign stands under an INTENT
    I5  nobody else is any worse or better for it
    I6  no secret is in the log
    I7  every answer comes in time
    I8  no PIN is sent but at a start
"""

import hashlib
import itertools
import secrets
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pyotp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from signer.chain import Kind, items_hash
from signer.credential import Output
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.jump import Jump
from tests.signer.access.calls import Answer, ask, said, shim_of
from tests.signer.people import canaries
from tests.signer.people.persons import ALGORITHMS, Person, Town, terms
from tests.signer.people.witnesses import Seen, Witnesses

NAMES = ("ada", "fay")
people = st.sampled_from(NAMES)
TIMEOUT_S, LATE_S = 10.0, 1.0
WRONG_MAX = 5  # then she is locked
BRIEF_S = 2.0  # what "-brief" credentials allow lives so long, or up to a second less
# Of each in one run: they take seconds, or take so much away that nothing is left to look at.
RESTARTS, WAITS, ENROLMENTS, JUMPS = 1, 1, 2, 2
LATELY = 4  # what was allowed or opened last is more often still alive
# In which states who may cancel a batch: its submitter takes back what is signed.
CANCELS = {"portal": {"OPEN", "SIGNED"}, "window": {"OPEN"}, "other": set[str]()}


class Village(Town):
    """The town, where who is enrolled anew does not wait, and whose clock can be set."""

    def __init__(self) -> None:
        super().__init__()
        rig = self.rig
        rig.sections = [line.replace("wait_h = 24", "wait_h = 0") for line in rig.sections]
        self.jump = Jump(rig.directory)
        rig.environment = self.jump.environment
        gate, _, outputs, bounds, usage = self.wanted["ada-brief"]
        self.wanted["fay-brief"] = gate, "fay", outputs, bounds, usage
        self.digests = map(_digest, itertools.count())
        self.codes: set[str] = set()  # whatever was typed in this run, and references

    def __enter__(self) -> Self:
        super().__enter__()
        self.witnesses = Witnesses(self.rig)
        return self

    def __exit__(self, *error: object) -> None:
        self.witnesses.close()
        super().__exit__(*error)


def _digest(number: int) -> bytes:
    return hashlib.sha256(b"machine %d" % number).digest()


@dataclass
class Human:
    """What the daemon should know of her."""

    person: Person
    state: str = "ACTIVE"
    wrong: int = 0
    enrolment: str = ""  # a code that was sent and not used

    @property
    def is_locked(self) -> bool:
        return self.wrong >= WRONG_MAX

    def otp(self) -> str:
        """The next one of her device, which shows it until it is used."""
        return str(pyotp.parse_uri(self.person.uri).at(self.person.counter))  # type: ignore[union-attr]


@dataclass
class Allowed:
    whose: str
    credential: str
    digests: list[bytes]
    reference: bytes
    began: float  # of the monotonic clock: it was asked for ...
    answered: float  # ... and given at some moment between
    lives_s: float
    is_revoked: bool = False
    request: str = ""  # that has redeemed it

    @property
    def is_brief(self) -> bool:
        return self.credential.endswith("-brief")

    @property
    def is_over(self) -> bool | None:
        """None: nobody can say, because the store counts in whole seconds."""
        now = time.monotonic()
        if now > self.answered + self.lives_s + 0.1:
            return True
        return False if now < self.began + self.lives_s - 1.1 else None


@dataclass
class Waiting:
    whose: str
    name: str
    link: str
    digests: list[bytes]
    state: str = "OPEN"
    is_shown: bool = False


@dataclass
class Step:
    """What this step may come to: so many signatures, of this person's, and whom it may change."""

    signs: int = 0
    whose: str = ""
    content: list[bytes] = field(default_factory=list)  # what the signatures are over, item by item
    logins: bool = False


class Machine(RuleBasedStateMachine):
    village: ClassVar[Village]
    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()  # rpc and reason

    @initialize()
    def begin(self) -> None:
        """Everybody is enrolled anew, so that nothing of an earlier run counts."""
        self.village.codes.clear()
        self.humans: dict[str, Human] = {}
        self.allowed: list[Allowed] = []
        self.batches: list[Waiting] = []
        self.given: dict[str, tuple[Any, list[bytes]]] = {}  # request id -> (the request, its signatures)
        self.restarts = self.waits = self.enrolments = self.jumps = 0
        for name in NAMES:
            self._enrol(name)
            self._complete(name)
        self.step = Step()
        self.village.witnesses.look()

    # ---- calls

    def _call(self, caller: str, rpc: str, request: Any) -> Answer:
        """I7."""
        holder = self.village[caller]
        stub = getattr(holder.signing, rpc, None) or getattr(holder.operator, rpc)
        began = time.monotonic()
        answer = said(lambda: stub(request, timeout=TIMEOUT_S))
        assert time.monotonic() - began < TIMEOUT_S + LATE_S
        self.told[f"{rpc} {answer.reason or answer.code}"] += 1
        return answer

    def _operate(self, rpc: str, request: Any) -> None:
        answer = self._call("operator", rpc, request)
        assert answer.code == "OK", answer

    # ---- people

    def _enrol(self, name: str) -> None:
        after = len(self.village.inbox.messages)
        self._operate("EnrolSubject", self.village.enrolment(name, "hotp"))
        self.humans[name] = Human(Person(name, "hotp"), "PENDING")
        self.humans[name].enrolment = self.village.inbox.code(name, "enrolment-code", after)
        self.village.codes.add(self.humans[name].enrolment)
        self._revoke(name)

    def _revoke(self, name: str) -> None:
        for one in self.allowed:
            if one.whose == name and not one.request:
                one.is_revoked = True

    def _complete(self, name: str) -> None:
        human = self.humans[name]
        human.person.code = f"code {secrets.token_hex(6)}"
        human.person.counter = 0
        request = pb.CompleteEnrolmentRequest(enrolment=human.enrolment)
        human.person.uri = self.village["window"].signing.CompleteEnrolment(request, timeout=TIMEOUT_S).otp_uri
        self.village.codes |= {human.person.code, human.person.uri.partition("secret=")[2].partition("&")[0]}
        request = pb.CompleteEnrolmentRequest(enrolment=human.enrolment, secret_code=human.person.code, otp=human.otp())
        assert self._call("window", "CompleteEnrolment", request).code == "OK"
        human.person.counter = 1
        human.state, human.enrolment = "ACTIVE", ""

    @precondition(lambda self: self.enrolments < ENROLMENTS)
    @rule(name=people, is_completed=st.booleans())
    def enrol_anew(self, name: str, is_completed: bool) -> None:
        """At any time: what she had is over at once."""
        self.enrolments += 1
        self._enrol(name)
        if is_completed:
            self._complete(name)

    @precondition(lambda self: any(human.enrolment for human in self.humans.values()))
    @rule(name=people)
    def complete(self, name: str) -> None:
        if self.humans[name].enrolment:
            self._complete(name)

    @rule(name=people)
    def suspend_or_resume(self, name: str) -> None:
        human = self.humans[name]
        if human.state == "PENDING":
            return
        self._operate("SuspendSubject", op.SuspendSubjectRequest(subject=name, resume=human.state == "SUSPENDED"))
        if human.state == "ACTIVE":
            self._revoke(name)
        human.state = "ACTIVE" if human.state == "SUSPENDED" else "SUSPENDED"

    @precondition(lambda self: any(human.wrong for human in self.humans.values()))
    @rule(name=people)
    def unlock(self, name: str) -> None:
        self._operate("UnlockSubject", op.UnlockSubjectRequest(subject=name))
        self.humans[name].wrong = 0

    # ---- allowing

    def _proof(self, whose: str, given: Human, *, code: bool, otp: bool) -> tuple[dict[str, str], str]:
        """What is typed, and the reason that it is to be answered with; the model goes on."""
        human = self.humans[whose]
        typed = {"secret_code": given.person.code if code else "not her code", "otp": given.otp() if otp else "000000"}
        typed["source"] = "192.0.2.7"
        self.village.codes |= {typed["otp"]} - {"000000"}
        if human.state == "PENDING":
            return typed, "CREDENTIAL_PENDING"
        if human.state == "SUSPENDED":
            return typed, "SUBJECT_SUSPENDED"
        if human.is_locked:
            return typed, "OTP_LOCKED"
        is_hers = given is human
        if is_hers and otp:  # used up, whatever the secret code is
            human.person.counter += 1
        if is_hers and code and otp:
            return typed, ""
        human.wrong += 1
        return typed, "OTP_INCORRECT"

    @rule(name=people, count=st.integers(1, 3), brief=st.booleans())
    def allow(self, name: str, count: int, brief: bool) -> None:
        self._allow(name, count, self.humans[name], brief=brief)

    @rule(name=people, count=st.integers(1, 3))
    def allow_and_sign(self, name: str, count: int) -> None:
        """As most people do most of the time; who was locked has called the operator."""
        if self.humans[name].is_locked:
            self.unlock(name)
        self._allow(name, count, self.humans[name])
        if self.allowed and not self.allowed[-1].request:
            self._sign(self.allowed[-1])

    @rule(name=people, wrong=st.sampled_from(["code", "otp", "both", "somebody else's"]), times=st.integers(1, 3))
    def allow_with_wrong_codes(self, name: str, wrong: str, times: int) -> None:
        other = self.humans[next(one for one in NAMES if one != name)]
        for _ in range(times):
            if wrong == "somebody else's" and other.person.uri:
                self._allow(name, 1, other)
            else:
                self._allow(name, 1, self.humans[name], code=wrong == "otp", otp=wrong == "code")

    def _allow(
        self, name: str, count: int, given: Human, *, code: bool = True, otp: bool = True, brief: bool = False
    ) -> None:
        if not given.person.uri:  # not enrolled yet: there is nothing to type
            return
        digests = list(itertools.islice(self.village.digests, count))
        credential = f"{name}-brief" if brief else name
        typed, reason = self._proof(name, given, code=code, otp=otp)
        began = time.monotonic()
        request = pb.AuthorizeRequest(terms=terms(digests, credential), **typed)  # type: ignore[arg-type]
        answer = self._call("window", "Authorize", request)
        answered = time.monotonic()
        assert answer.reason == reason, (answer, reason)
        if not reason:
            lives_s = BRIEF_S if brief else 120.0
            reference = bytes(answer.value.authorisation)
            self.village.codes.add(reference.hex())
            self.allowed.append(Allowed(name, credential, digests, reference, began, answered, lives_s))

    # ---- signing what was allowed

    def _expected(self, one: Allowed, request: str) -> set[str]:
        if self.humans[one.whose].state == "PENDING":
            return {"CREDENTIAL_PENDING"}
        if one.is_revoked:
            return {"AUTHZ_UNKNOWN"}
        if one.request and one.request != request:
            return {"AUTHZ_USED"}
        return {True: {"AUTHZ_EXPIRED"}, False: {""}, None: {"", "AUTHZ_EXPIRED"}}[one.is_over]

    @precondition(lambda self: self.allowed)
    @rule(data=st.data())
    def sign(self, data: st.DataObject) -> None:
        """As it was allowed, with a new request id."""
        self._sign(data.draw(st.sampled_from(self.allowed[-LATELY:])))

    def _sign(self, one: Allowed) -> None:
        name = str(uuid.uuid4())
        message = self._ask(one, name)
        expected = self._expected(one, name)
        answer = self._call("portal", "SignDigests", message)
        assert answer.reason in expected, (answer, expected)
        if answer.code == "OK":
            one.request = name
            self._signed(name, message, answer, one)

    def _ask(self, one: Allowed, name: str, **changes: Any) -> Any:
        wanted = {"credential": one.credential, "digests": one.digests, "authorisation": one.reference}
        return ask(request_id=name, **(wanted | changes))

    def _signed(self, name: str, message: Any, answer: Answer, one: Allowed) -> None:
        assert [item.status for item in answer.value.items] == [pb.SIGNED] * len(one.digests)
        self.step = Step(len(one.digests), one.whose, one.digests)
        if not one.is_brief:  # whether it was signed with in time is not decided by the steps alone
            self._give(name, message, [item.signature for item in answer.value.items])

    def _give(self, name: str, message: Any, signatures: list[bytes]) -> None:
        """I2, I3: once, and always the same."""
        _, before = self.given.setdefault(name, (message, signatures))
        assert signatures == before

    @precondition(lambda self: self.allowed)
    @rule(
        data=st.data(),
        change=st.sampled_from(["digest", "order", "more", "fewer", "caller", "credential", "output", "reference"]),
    )
    def sign_something_else(self, data: st.DataObject, change: str) -> None:
        """Than was allowed, or by somebody else."""
        one = data.draw(st.sampled_from(self.allowed[-LATELY:]))
        digests, caller, changes, reason = list(one.digests), "portal", {}, ""
        other = next(name for name in NAMES if name != one.whose)
        match change:
            case "digest":
                digests[-1], reason = next(self.village.digests), "AUTHZ_DIGEST"
            case "order":
                digests, reason = digests[::-1], "AUTHZ_DIGEST" if len(digests) > 1 else ""
            case "more":
                digests, reason = [*digests, digests[0]], "AUTHZ_COUNT"
            case "fewer":
                digests, reason = digests[:-1], "AUTHZ_COUNT"
            case "caller":
                caller, reason = "other", "AUTHZ_CALLER"
            case "credential":
                changes, reason = {"credential": other}, "AUTHZ_KEY"
            case "output":
                changes, reason = {"output": "CADES_B_B"}, "AUTHZ_OUTPUT"
            case "reference":
                changes, reason = {"authorisation": secrets.token_bytes(32)}, "AUTHZ_UNKNOWN"
        if not reason:
            return
        if not digests:
            reason = "BATCH_EMPTY"
        elif one.is_revoked:
            reason = "AUTHZ_UNKNOWN"
        signer = other if change == "credential" else one.whose
        if self.humans[signer].state == "PENDING":
            reason = "CREDENTIAL_PENDING"
        answer = self._call(caller, "SignDigests", self._ask(one, str(uuid.uuid4()), digests=digests, **changes))
        assert answer.reason == reason, (answer, reason)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """I3: the same request again, whoever is suspended or enrolled anew meanwhile."""
        name = data.draw(st.sampled_from(list(self.given)))
        message, _ = self.given[name]
        if message is None:
            answer = self._call("portal", "GetResult", pb.GetResultRequest(request_id=name))
            signatures = [each.item.signature for each in answer.value.items] if answer.code == "OK" else []
        else:
            whose = next(one.whose for one in self.allowed if one.request == name)
            answer = self._call("portal", "SignDigests", message)
            if self.humans[whose].state == "PENDING":
                assert answer.reason == "CREDENTIAL_PENDING"
                return
            assert answer.code == "OK", answer
            signatures = [item.signature for item in answer.value.items]
        self._give(name, message, signatures)

    # What may come next is decided by what was done, and not by how fast: Hypothesis draws the same again for the same.
    @precondition(lambda self: self.waits < WAITS and self._brief())
    @rule()
    def wait(self) -> None:
        """Until what lives briefly is over."""
        self.waits += 1
        until(lambda: all(one.is_over for one in self._brief()), 5)
        self._sign(self._brief()[-1])

    def _brief(self) -> list[Allowed]:
        return [one for one in self.allowed if one.is_brief and not one.is_revoked]

    # ---- batches

    @rule(name=people, count=st.integers(1, 2), is_shown=st.booleans())
    def open_batch(self, name: str, count: int, is_shown: bool) -> None:
        digests = list(itertools.islice(self.village.digests, count))
        opening = {"credential": name, "output": "CADES_B_B", "request_id": str(uuid.uuid4())} | ALGORITHMS
        messages = [pb.OpenBatchRequest(open=pb.BatchOpening(**opening))]  # type: ignore[arg-type]
        messages += [pb.OpenBatchRequest(digest=pb.TermsItem(name="letter", digest=one)) for one in digests]
        answer = self._call("portal", "OpenBatch", iter(messages))
        if self.humans[name].state == "PENDING":
            assert answer.reason == "CREDENTIAL_PENDING"
            return
        assert answer.code == "OK", answer
        self.village.codes.add(answer.value.link)
        self.batches.append(Waiting(name, answer.value.batch.request_id, answer.value.link, digests))
        if is_shown:
            self._show(self.batches[-1])

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def show(self, data: st.DataObject) -> None:
        """Its link, followed once."""
        self._show(data.draw(st.sampled_from(self.batches[-LATELY:])))

    def _show(self, batch: Waiting) -> None:
        stub = self.village["window"].signing.GetBatch
        answer = said(lambda: list(stub(pb.GetBatchRequest(link=batch.link), timeout=TIMEOUT_S)))
        is_good = not batch.is_shown and batch.state == "OPEN"
        assert answer.reason == ("" if is_good else "BATCH_UNKNOWN"), (answer, batch)
        batch.is_shown = batch.is_shown or is_good

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), wrong=st.sampled_from(["", "", "code", "otp"]))
    def sign_batch(self, data: st.DataObject, wrong: str) -> None:
        batch = data.draw(st.sampled_from(self.batches[-LATELY:]))
        human = self.humans[batch.whose]
        if not human.person.uri:
            return
        typed = {"secret_code": human.person.code, "otp": human.otp()}
        reason = "BATCH_UNKNOWN" if not batch.is_shown else "" if batch.state == "OPEN" else "BATCH_STATE"
        if not reason:
            typed, reason = self._proof(batch.whose, human, code=wrong != "code", otp=wrong != "otp")
        answer = self._call("window", "SignBatch", pb.SignBatchRequest(request_id=batch.name, **typed))
        assert answer.reason == reason, (answer, reason)
        if reason:
            return
        assert [one.status for one in answer.value.outcomes] == [pb.SIGNED] * len(batch.digests)
        batch.state = "SIGNED"
        self.step = Step(len(batch.digests), batch.whose, batch.digests)
        found = self._call("portal", "GetResult", pb.GetResultRequest(request_id=batch.name)).value
        self._give(batch.name, None, [each.item.signature for each in found.items])

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), caller=st.sampled_from(["portal", "window", "other"]))
    def cancel(self, data: st.DataObject, caller: str) -> None:
        batch = data.draw(st.sampled_from(self.batches[-LATELY:]))
        may = caller == "portal" or (caller == "window" and batch.is_shown)
        reason = "BATCH_UNKNOWN" if not may else "" if batch.state in CANCELS[caller] else "BATCH_STATE"
        answer = self._call(caller, "CancelBatch", pb.CancelBatchRequest(request_id=batch.name))
        assert answer.reason == reason, (answer, reason)
        batch.state = batch.state if reason else "CANCELLED"

    # ---- what happens to all of them

    @rule()
    def a_seal_signs(self) -> None:
        """Beside them, whatever they do."""
        digest = next(self.village.digests)
        answer = self._call("portal", "SignDigests", ask(digests=[digest]))
        assert answer.value.items[0].status == pb.SIGNED
        self.step = Step(1, "portal", [digest])

    @precondition(lambda self: self.jumps < JUMPS)
    @rule(name=people, by_s=st.sampled_from([3_600, -3_600]))
    def the_clock_jumps(self, name: str, by_s: int) -> None:
        """And back: meanwhile nobody allows anything, and no attempt is counted."""
        self.jumps += 1
        human = self.humans[name]
        self.village.jump.to(by_s)
        try:
            request = pb.AuthorizeRequest(
                terms=terms([next(self.village.digests)], name), secret_code="not her code", otp="000000"
            )
            answer = self._call("window", "Authorize", request)
        finally:
            self.village.jump.to(0)
        assert answer.reason == ("CREDENTIAL_PENDING" if human.state == "PENDING" else "CLOCK_UNSAFE")

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule(how=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def restart(self, how: signal.Signals) -> None:
        self.restarts += 1
        self._again(how)
        self.step = Step(logins=True)

    def _again(self, how: signal.Signals) -> None:
        rig = self.village.rig
        rig.stop(how)
        rig.launch()
        rig.wait_serving()

    @precondition(lambda self: self.restarts < RESTARTS and self._unused())
    @rule(data=st.data())
    def crash_in_the_middle(self, data: st.DataObject) -> None:
        """
        Kill -9 under C_Sign: nothing was given out; the same request again is the second attempt of the same items, by the
        same authorisation, and no other one gets it.
        """
        self.restarts += 1
        one = data.draw(st.sampled_from(self._unused()))
        if one.is_over is not False:
            return
        rig, name = self.village.rig, str(uuid.uuid4())
        message, before = self._ask(one, name), shim_of(rig).number("C_Sign")
        shim_of(rig).script("C_Sign * hold 30")
        call = self.village["portal"].signing.SignDigests.future(message, timeout=TIMEOUT_S)
        until(lambda: shim_of(rig).number("C_Sign") > before, 5, "the call that is held")
        self._again(signal.SIGKILL)
        shim_of(rig).clear()
        assert said(call.result).code != "OK"
        one.request = name
        seen = self.village.witnesses.look()
        self._check_log(seen)
        assert seen.logins, "of the start"
        assert len(seen.signed) == 1, "the one that was held"
        assert sum(stop - start for intent in seen.of(Kind.INTENT) for start, stop in intent["items"]) >= 1
        answer = self._call("portal", "SignDigests", message)
        assert answer.code == "OK", answer
        self._signed(name, message, answer, one)
        assert self._call("portal", "SignDigests", self._ask(one, str(uuid.uuid4()))).reason == "AUTHZ_USED"

    def _unused(self) -> list[Allowed]:
        """What may still be signed with, unless its two minutes are over."""
        return [
            one
            for one in self.allowed
            if not (one.is_brief or one.is_revoked or one.request) and self.humans[one.whose].state != "PENDING"
        ]

    # ---- the invariants

    @invariant()
    def the_witnesses_agree(self) -> None:
        if not hasattr(self, "step"):
            return
        type(self).steps += 1
        step, self.step = self.step, Step()
        seen = self.village.witnesses.look()
        assert len(seen.signed) == step.signs, f"I1: {len(seen.signed)} C_Sign, {step.signs} allowed"
        seen.check_intents()
        self._check_who(seen, step)
        assert bool(seen.logins) == step.logins, "I8"
        self._check_people()
        self._check_log(seen)

    def _check_log(self, seen: Seen) -> None:
        """I6."""
        typed = {code: code.encode() for code in self.village.codes}
        assert canaries.hits(typed, {"log": seen.log.encode()}) == []

    def _check_who(self, seen: Seen, step: Step) -> None:
        """I1: it was she, and over what she has allowed."""
        for intent in seen.of(Kind.INTENT):
            assert intent["subject"] == step.whose
            over = intent["content"] if Output(intent["output"]) is not Output.RAW else intent["signed"]
            places = [place for start, stop in intent["items"] for place in range(start, stop)]
            assert over == items_hash([step.content[place] for place in places])
            if step.whose in NAMES:
                mine = {hashlib.sha256(one.reference).hexdigest() for one in self.allowed if one.whose == step.whose}
                mine |= {row["authorisation"] for row in seen.of(Kind.AUTHORISED) if row["subject"] == step.whose}
                assert intent["authorisation"] in mine

    def _check_people(self) -> None:
        """I5: each of them is as she was made by what was done to her."""
        answer = self._call("operator", "ListSubjects", op.ListSubjectsRequest())
        for subject in answer.value.subjects:
            human = self.humans.get(subject.name)
            if human is not None:
                assert (subject.state, subject.attempts) == (human.state, human.wrong), subject
                assert bool(subject.locked_until) == human.is_locked, subject

    def teardown(self) -> None:
        """I3: everything that was answered is there, at the end, too. What is still open would count in the next run."""
        for batch in getattr(self, "batches", []):
            if batch.state == "OPEN":
                self._call("portal", "CancelBatch", pb.CancelBatchRequest(request_id=batch.name))
        for name in NAMES:
            if name in getattr(self, "humans", {}) and self.humans[name].enrolment:
                self._complete(name)
        for name, (_, signatures) in getattr(self, "given", {}).items():
            found = self._call("portal", "GetResult", pb.GetResultRequest(request_id=name))
            assert [each.item.signature for each in found.value.items] == signatures, found
