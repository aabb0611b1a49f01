"""
The bare domain of procedures against a model of it, in whatever order things happen (Hypothesis): on both databases.

The model says beforehand what must come of each event: done, or refused with which code. What belongs to other parts
(signing) happens as they would do it: an event that is fired where it is allowed.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import Connection, select

from portal_adapter.definitions.answers import check_whole, kept
from portal_adapter.domain import desk, transmission
from portal_adapter.domain.procedure import STATUSES
from portal_adapter.refusal import Refusal
from portal_adapter.store import schema
from portal_adapter.store.database import reading, writing
from tests.portal.draft import ADDRESS, LEASE, WHOLE, Desk, sum_of
from tests.portal.team import NOW
from tests.portal.town import picture
from tests.postgres import Postgres

# What is typed into the only step of the lease's form; a date as people type it, and one that is the same.
TYPED: tuple[Mapping[str, str], ...] = (
    WHOLE,
    {"premises": "1 Mill Lane"},
    {"premises": " 1 Mill Lane "},
    {"premises": "2 Mill Lane"},
    {"premises": ""},
    {"on": "1.12.2026"},
    {"deposit": "no"},
    {"deposit": "yes", "account": ""},
    {},
)
OPEN = {"in_preparation", "ready", "to_be_corrected"}  # where the form may be changed
AFTER: Mapping[str, tuple[set[str], str]] = {
    "accept": ({"sent"}, "accepted"),
    "ask_correction": ({"sent", "accepted"}, "to_be_corrected"),
    "close": ({"sent", "accepted", "to_be_corrected"}, "closed"),
}


@dataclass
class Known:
    reference: str
    where: Mapping[str, Any]
    updated: int
    answers: dict[str, str] = field(default_factory=dict)
    status: str = "in_preparation"
    entry: str = "open"
    signature: str = "none"
    transmissions: int = 0
    version: int = 1
    changes: int = 1  # of the status, its creation included, and signatures that became void
    slots: list[str] = field(default_factory=list)  # of its attachments
    flagged: set[str] = field(default_factory=set)  # attachments that were sent back
    sent_answers: dict[str, str] = field(default_factory=dict)
    sent_slots: list[str] = field(default_factory=list)
    is_elsewhere: bool = False
    is_gone: bool = False

    def becomes(self, status: str, now: int) -> None:
        self.version += 1
        if status != self.status:
            self.status, self.updated, self.changes = status, now, self.changes + 1

    def pdf(self) -> str:
        """The hash of the form that these answers make."""
        return sum_of(LEASE, self.answers)


class Procedures(RuleBasedStateMachine):
    known = Bundle("known")

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-procedures-"))
        self.desk = Desk(self.directory, url)
        self.now = NOW
        self.all: list[Known] = []

    def teardown(self) -> None:
        self.desk.close()
        shutil.rmtree(self.directory)

    def happens(self, expected: str, work: Callable[[Connection], Any]) -> Any:
        """Do it, a moment later: refused as expected, and then nothing is changed; or done."""
        self.now += 1
        if not expected:
            with writing(self.desk.engine) as connection:
                return work(connection)
        before = picture(self.desk.engine)
        try:
            with writing(self.desk.engine) as connection:
                work(connection)
        except Refusal as refusal:
            assert refusal.code == expected, (refusal, expected)
        else:
            raise AssertionError(f"was not refused: {expected}")
        assert picture(self.desk.engine) == before
        return None

    # ---- what a member does

    @rule(target=known, in_business=st.booleans(), steps=st.integers(0, 7))
    def create(self, in_business: bool, steps: int) -> Any:
        """With so many of the steps that come next in any case."""
        where = self.desk.business if in_business else self.desk.private
        reference = self.happens("", lambda c: self.desk.create(c, where, LEASE, self.now))
        self.all.append(Known(reference, where, self.now))
        for _ in range(steps):
            self.goes_on(self.all[-1])
        return self.all[-1]

    @rule()
    def create_what_does_not_fit(self) -> None:
        self.happens("guard-failed", lambda c: self.desk.create(c, self.desk.business, ADDRESS, self.now))

    @rule(one=known)
    def goes_on(self, one: Known) -> None:
        """It is filled in, confirmed, signed, completed, sent: whatever comes next."""
        if one.entry == "open" and one.status in OPEN:
            if check_whole(LEASE, one.answers):
                self.save(one, WHOLE, behind=False)
            else:
                self.confirm(one, behind=False)
        elif one.signature == "valid" and "lease" not in one.slots:
            self.attach(one, "lease", has_seen=True)
        elif one.signature == "valid":
            self.send(one, behind=False)
        else:
            self.sign(one)

    @rule(one=known, typed=st.sampled_from(TYPED), behind=st.booleans())
    def save(self, one: Known, typed: Mapping[str, str], behind: bool) -> None:
        answers = {**one.answers, **{name: value.strip() for name, value in typed.items()}}
        answers = {name: "2026-12-01" if value == "1.12.2026" else value for name, value in answers.items() if value}
        is_change = answers != one.answers
        if one.is_gone:
            expected = "not-found"
        elif one.status not in OPEN:
            expected = "forbidden-transition"
        elif is_change and behind:
            expected = "stale"
        else:
            expected = "guard-failed" if is_change and one.is_elsewhere else ""
        form = {**typed, "version": str(one.version - behind)}
        self.happens(expected, lambda c: self.desk.save(c, one.where, one.reference, form, self.now))
        if expected or not is_change:
            return
        one.answers, one.entry = answers, "open"
        if one.signature in {"valid", "first"}:
            one.signature = "void"
            one.changes += one.status != "ready"  # the history says it, whether the status changes or not
        one.becomes("in_preparation" if one.status == "ready" else one.status, self.now)

    @rule(one=known, behind=st.booleans())
    def confirm(self, one: Known, behind: bool) -> None:
        if one.is_gone:
            expected = "not-found"
        elif one.status not in OPEN or one.entry == "confirmed":
            expected = "forbidden-transition"
        elif behind:
            expected = "stale"
        else:
            expected = "guard-failed" if check_whole(LEASE, one.answers) else ""
        version = one.version - behind
        self.happens(expected, lambda c: self.desk.confirm(c, one.where, one.reference, version, self.now))
        if not expected:
            one.answers = {name: value for name, value in kept(LEASE, one.answers).items() if value}
            one.entry = "confirmed"
            one.becomes(one.status, self.now)

    @rule(target=known, one=known)
    def copy(self, one: Known) -> Any:
        expected = "not-found" if one.is_gone else ""
        reference = self.happens(expected, lambda c: self.desk.copy(c, one.where, one.reference, self.now))
        if expected:
            return multiple()
        self.all.append(Known(reference, one.where, self.now, dict(one.answers)))
        return self.all[-1]

    @rule(one=known, is_confirmed=st.booleans(), behind=st.booleans())
    def delete(self, one: Known, is_confirmed: bool, behind: bool) -> None:
        if one.is_gone:
            expected = "not-found"
        elif one.transmissions:
            expected = "forbidden-transition"
        elif one.is_elsewhere:
            expected = "guard-failed"
        elif not is_confirmed:
            expected = "confirmation-required"
        else:
            expected = "stale" if behind else ""
        form = {"version": str(one.version - behind), **({"confirmed": "yes"} if is_confirmed else {})}
        self.happens(expected, lambda c: self.desk.remove(c, one.where, one.reference, form, self.now))
        one.is_gone = one.is_gone or not expected

    @rule(one=known, slot=st.sampled_from(("lease", "")), has_seen=st.booleans())
    def attach(self, one: Known, slot: str, has_seen: bool) -> None:
        """Into the slot, in place of what is seen there, or beside; at most three."""
        is_swap = slot in one.slots and slot != ""
        if one.is_gone:
            expected = "not-found"
        elif one.status not in {"ready", "to_be_corrected"}:
            expected = "forbidden-transition"
        elif is_swap:
            expected = "" if has_seen else "stale"
        else:
            expected = "guard-failed" if len(one.slots) == 3 else ""
        replaces = next((id_ for id_, at in self._attached(one) if at == slot), "") if slot and has_seen else ""
        self.happens(expected, lambda c: self.desk.attach(c, one.where, one.reference, slot, replaces, self.now))
        if not expected:
            one.slots += [] if is_swap else [slot]
            one.becomes(one.status, self.now)

    @rule(one=known)
    def detach(self, one: Known) -> None:
        pieces = self._attached(one)
        if not pieces:
            return
        expected = "" if one.status in OPEN else "forbidden-transition"
        id_, slot = pieces[0]
        self.happens(expected, lambda c: self.desk.detach(c, one.where, one.reference, id_, self.now))
        if not expected:
            one.slots.remove(slot)
            one.becomes(one.status, self.now)

    def _attached(self, one: Known) -> list[tuple[str, str]]:
        """Their ids and slots."""
        return (
            [] if one.is_gone else [(each["id"], each["slot"]) for each in self.desk.attached(one.where, one.reference)]
        )

    # ---- what others do

    def sign(self, one: Known) -> None:
        if one.is_gone or one.entry != "confirmed" or one.signature == "valid" or one.is_elsewhere:
            return

        self.now += 1
        self.desk.signs(one.reference, self.now)
        one.signature = "valid"
        one.becomes("ready" if one.status == "in_preparation" else one.status, self.now)

    @rule(one=known, behind=st.booleans())
    def send(self, one: Known, behind: bool) -> None:
        if one.is_gone:
            expected = "not-found"
        elif one.status not in {"ready", "to_be_corrected"}:
            expected = "forbidden-transition"
        elif behind:
            expected = "stale"
        else:
            attached = {id_ for id_, _ in self._attached(one)}
            is_green = one.signature == "valid" and "lease" in one.slots and not attached & one.flagged
            expected = "" if is_green else "guard-failed"
        version = one.version - behind
        self.happens(expected, lambda c: self.desk.send(c, one.where, one.reference, version, self.now))
        if not expected:
            one.transmissions += 1
            one.sent_answers, one.sent_slots, one.flagged = dict(one.answers), list(one.slots), set()
            one.becomes("sent", self.now)

    @rule(
        one=known, event=st.sampled_from(sorted(AFTER)), flags=st.booleans(), behind=st.booleans(), says=st.booleans()
    )
    def an_agent_answers(self, one: Known, event: str, flags: bool, behind: bool, says: bool) -> None:
        """`says`: what is wrong, or why it is closed; `flags`: of the first piece, too; `behind`: he has seen another transmission."""
        allowed, target = AFTER[event]
        if not one.transmissions:
            expected = "not-found"
        elif one.status not in allowed:
            expected = "forbidden-transition"
        elif behind:
            expected = "stale"
        else:
            needs = event == "ask_correction" or (event == "close" and one.status != "accepted")
            is_said = says or (flags and event == "ask_correction")
            expected = "validation" if needs and not is_said else ""
        form = {"transmission": str(one.transmissions + behind), "status": one.status}
        form |= {"general": "x", "reason": "x"} if says else {}
        form |= {"piece.1": "Not legible."} if flags else {}
        self.happens(expected, lambda c: self.desk.agent(c, one.reference, event, form, self.now))
        if expected:
            return
        if event == "ask_correction" and flags:
            one.flagged |= {self._attached(one)[0][0]}
        if event == "close" and one.status == "to_be_corrected":
            one.answers, one.slots = dict(one.sent_answers), list(one.sent_slots)
            one.entry, one.signature, one.is_elsewhere = "confirmed", "valid", False
        one.becomes(target, self.now)

    @rule(one=known)
    def goes_to_another_space_and_back(self, one: Known) -> None:
        if one.is_gone or one.entry != "confirmed" or one.signature == "valid":
            return
        event, state = ("recall", "") if one.is_elsewhere else ("transfer", "transferred")
        self.happens("", lambda c: self.desk.fire(c, one.where, one.reference, event, self.now, second_state=state))
        one.is_elsewhere = not one.is_elsewhere
        one.becomes(one.status, self.now)

    # ---- what always holds

    @invariant()
    def the_database_is_the_model(self) -> None:
        with reading(self.desk.engine) as connection:
            rows = {row["reference"]: row for row in connection.execute(select(schema.procedures)).mappings()}
            history = [row["procedure"] for row in connection.execute(select(schema.procedure_history)).mappings()]
        assert rows.keys() == {one.reference for one in self.all if not one.is_gone}
        for one in self.all:
            if one.is_gone:
                continue
            row = self.desk.row(one.where, one.reference)
            for name in ("status", "entry", "signature", "transmissions", "version", "updated", "answers"):
                assert row[name] == getattr(one, name), name
            assert row["form_sha256"] == (one.pdf() if one.entry == "confirmed" else "")
            assert history.count(row["id"]) == one.changes
            assert sorted(slot for _, slot in self._attached(one)) == sorted(one.slots)

    @invariant()
    def what_is_ready_or_sent_is_signed_as_it_is(self) -> None:
        with reading(self.desk.engine) as connection:
            signed = list(connection.execute(select(schema.signatures)).mappings())
        for one in self.all:
            if one.is_gone:
                continue
            row = self.desk.row(one.where, one.reference)
            standing = [
                each["form_sha256"] for each in signed if each["procedure"] == row["id"] and each["voided"] is None
            ]
            assert standing == ([row["form_sha256"]] if one.signature == "valid" else [])
            if one.status in {"ready", "sent", "accepted"}:
                assert standing == [one.pdf()]

    @invariant()
    def an_agent_sees_what_was_sent_and_nothing_else(self) -> None:
        sent = {one.reference: one for one in self.all if one.transmissions}
        with reading(self.desk.engine) as connection:
            listed = desk.listed(connection, LEASE.administration, tuple(STATUSES), 1, 1000)
            assert {row["reference"] for row in listed} == sent.keys()
            for row in listed:
                one = sent[row["reference"]]
                last = transmission.of(connection, row, row["transmissions"])
                assert (row["status"], row["transmissions"]) == (one.status, one.transmissions)
                assert (last["answers"], len(last["pieces"])) == (one.sent_answers, len(one.sent_slots))
                assert len(transmission.listed(connection, row)) == one.transmissions
                assert not {"answers", "origins", "form_file", "entry", "signature"} & row.keys()


def runs(url: Callable[[], str | None], examples: int) -> None:
    """Not shrunk: that takes minutes, and the steps of what failed are printed all the same."""
    run_state_machine_as_test(
        lambda: Procedures(url()),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_in_whatever_order() -> None:
    """
    11.1, PROC-11, PROC-13, PROC-14, PROC-16, PROC-17, PROC-19, TRK-01, TRK-07, TRK-10, SUB-01, SUB-03, SUB-07, COR-04, COR-05, ATT-01, ATT-07, ATT-08, 0.1: nothing is ready or sent whose signature
    is not of the form that it has; no agent sees anything that was not sent; it is deleted if and only if it was never sent; its time changes if and only if its
    status does; and what is refused changes nothing.
    """
    runs(lambda: None, 25)


def test_in_whatever_order_on_postgresql(postgres: Postgres) -> None:
    """PROC-14, PROC-17, TRK-01, 0.1: the same on PostgreSQL."""
    runs(lambda: postgres.create("procedure_model"), 6)
