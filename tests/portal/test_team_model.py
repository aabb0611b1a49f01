"""
The bare domain of spaces and teams against a model of it, in whatever order things happen (Hypothesis).

The model is three small tables: who has which role where, which invitation is in which state, and which space is suspended
or certified. It says beforehand what must come of each event: done, or refused with which code.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import func, select

from portal_adapter.domain import certification, invitation, oversight, space, team
from portal_adapter.domain.actor import ROLES
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Portal
from portal_adapter.store import schema
from portal_adapter.store.database import reading, writing
from tests.portal.place import ORIGIN
from tests.portal.team import NOW, Bare, Person, business_form, links
from tests.portal.town import picture

DAY_S = 86400
PEOPLE = 4
SPACES_MAX = 3


@dataclass
class Space:
    identifier: str
    id: str
    title: str
    roles: dict[str, str] = field(default_factory=dict)  # account -> role
    versions: dict[str, int] = field(default_factory=dict)  # of the members
    is_suspended: bool = False
    certification: str = "no"


@dataclass
class Invitation:
    id: str
    token: str
    space: Space
    person: Person
    role: str
    expires: int
    state: str = "sent"
    version: int = 1

    def at(self, now: int) -> str:
        return "expired" if self.state == "sent" and now >= self.expires else self.state


def manages(where: Space, who: Person) -> str:
    """What an event that wants an administrator comes to before anything else is looked at; empty: she may."""
    role = where.roles.get(who.account)
    if role is None:
        return "not-found"
    if role != "administrator":
        return "forbidden"
    return "guard-failed" if where.is_suspended else ""


class Teams(RuleBasedStateMachine):
    people = Bundle("people")
    spaces = Bundle("spaces")
    invitations = Bundle("invitations")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-teams-"))
        self.bare = Bare(self.directory)
        self.now = NOW
        self.known: list[Person] = []
        self.all: list[Space] = []
        self.mails = 0
        self.sent: list[Invitation] = []
        about = {"name": "Millbrook", "origin": ORIGIN, "state": self.directory, "key_file": self.directory}
        self.portal = Portal(**about)

    def teardown(self) -> None:
        self.bare.close()
        shutil.rmtree(self.directory)

    @initialize(target=people)
    def nobody_yet(self) -> Person:
        return self.comes()

    def comes(self) -> Person:
        self.known.append(self.bare.person(f"Ada{len(self.known)}"))
        return self.known[-1]

    def happens(self, expected: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do it: refused as expected, and then nothing is changed; or done."""
        if not expected:
            with writing(self.bare.engine) as connection:
                return function(connection, *arguments)
        before = picture(self.bare.engine)
        try:
            with writing(self.bare.engine) as connection:
                function(connection, *arguments)
        except Refusal as refusal:
            assert refusal.code == expected, (refusal, expected)
        else:
            raise AssertionError(f"{function.__name__} was not refused: {expected}")
        assert picture(self.bare.engine) == before
        return None

    # ---- what people do

    @rule(target=people)
    def one_more_person(self) -> Any:
        return self.comes() if len(self.known) < PEOPLE else self.known[0]

    @rule(target=spaces, who=people, title=st.sampled_from(["Engines", "ENGINES", "Looms"]))
    def create(self, who: Person, title: str) -> Any:
        administered = [one for one in self.all if one.roles.get(who.account) == "administrator"]
        if any(one.title.casefold() == title.casefold() for one in administered):
            expected = "validation"
        else:
            expected = "guard-failed" if len(administered) >= SPACES_MAX else ""
        business = self.bare.business.model_copy(update={"spaces_max": SPACES_MAX})
        identifier = self.happens(
            expected, space.create_business, who.actor(self.now), business_form(title), business, self.bare.limits
        )
        if expected:
            return self.all[-1]
        with reading(self.bare.engine) as connection:
            id_ = connection.execute(
                select(schema.spaces.c.id).where(schema.spaces.c.identifier == identifier)
            ).scalar_one()
        self.all.append(Space(identifier, id_, title, {who.account: "administrator"}, {who.account: 1}))
        return self.all[-1]

    @rule(target=invitations, where=spaces, who=people, whom=people, role=st.sampled_from(ROLES))
    def invite(self, where: Space, who: Person, whom: Person, role: str) -> Any:
        expected = manages(where, who)
        if not expected and (whom.account in where.roles or self.is_open(where, whom)):
            expected = "validation"
        return self.sends(
            expected, where, whom, role,
            invitation.invite, who.actor(self.now), where.id, whom.invited(role), ORIGIN, self.bare.limits,
        )  # fmt: skip

    def sends(
        self, expected: str, where: Space, whom: Person, role: str, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        before = links(self.bare.engine)
        self.happens(expected, function, *arguments)
        if expected:
            return None
        self.mails += 1
        (link,) = links(self.bare.engine) - before
        token = link.rsplit("/", 1)[1]
        with reading(self.bare.engine) as connection:
            found = invitation.opened(connection, self.now, token)
        made = Invitation(found["id"], token, where, whom, role, self.now + self.bare.limits.invitation_s)
        self.sent.append(made)
        return made

    def is_open(self, where: Space, whom: Person) -> bool:
        return any(one.space is where and one.person is whom and one.at(self.now) == "sent" for one in self.sent)

    @rule(one=invitations, who=people)
    def accept(self, one: Invitation | None, who: Person) -> None:
        if one is None:
            return
        expected = self.answers(one, who)
        if not expected and one.space.is_suspended:
            expected = "guard-failed"
        if not expected and who.account in one.space.roles:
            expected = "validation"
        self.happens(expected, invitation.accept, who.actor(self.now), one.token, self.bare.business)
        if not expected:
            one.state, one.version = "accepted", 2
            one.space.roles[who.account], one.space.versions[who.account] = one.role, 1

    @rule(one=invitations, who=people)
    def refuse(self, one: Invitation | None, who: Person) -> None:
        if one is None:
            return
        expected = self.answers(one, who)
        self.happens(expected, invitation.refuse, who.actor(self.now), one.token)
        if not expected:
            one.state, one.version = "refused", 2

    def answers(self, one: Invitation, who: Person) -> str:
        if one.at(self.now) != "sent":
            return "gone"
        return "" if who is one.person else "forbidden"

    @rule(one=invitations, who=people, behind=st.booleans())
    def withdraw(self, one: Invitation | None, who: Person, behind: bool) -> None:
        if one is None:
            return
        expected = self.takes_back(one, who, behind)
        form = {"version": str(one.version + behind)}
        self.happens(expected, invitation.withdraw, who.actor(self.now), one.space.id, one.id, form)
        if not expected:
            one.state, one.version = "withdrawn", 2

    @rule(target=invitations, one=invitations, who=people)
    def resend(self, one: Invitation | None, who: Person) -> Any:
        if one is None:
            return None
        expected = self.takes_back(one, who, behind=False)
        form = {"version": str(one.version)}
        made = self.sends(
            expected, one.space, one.person, one.role,
            invitation.resend, who.actor(self.now), one.space.id, one.id, form, ORIGIN, self.bare.limits,
        )  # fmt: skip
        if not expected:
            one.state, one.version = "withdrawn", 2
        return made

    def takes_back(self, one: Invitation, who: Person, behind: bool) -> str:
        expected = manages(one.space, who)
        if not expected and one.at(self.now) != "sent":
            expected = "forbidden-transition"
        return expected or ("stale" if behind else "")

    @rule(where=spaces, who=people, whom=people, role=st.sampled_from(ROLES), behind=st.booleans())
    def change_role(self, where: Space, who: Person, whom: Person, role: str, behind: bool) -> None:
        expected = self.changes(where, who, whom, behind)
        if not expected and role != "administrator" and self.is_last(where, whom):
            expected = "guard-failed"
        form = {"role": role, "version": str(where.versions.get(whom.account, 1) + behind)}
        self.happens(expected, team.change_role, who.actor(self.now), where.id, whom.account, form, self.bare.business)
        if not expected:
            where.roles[whom.account] = role
            where.versions[whom.account] += 1

    @rule(where=spaces, who=people, whom=people, behind=st.booleans())
    def remove(self, where: Space, who: Person, whom: Person, behind: bool) -> None:
        expected = self.changes(where, who, whom, behind)
        if not expected and self.is_last(where, whom):
            expected = "guard-failed"
        form = {"version": str(where.versions.get(whom.account, 1) + behind)}
        self.happens(expected, team.remove, who.actor(self.now), where.id, whom.account, form)
        if not expected:
            self.mails += 1
            del where.roles[whom.account]

    def changes(self, where: Space, who: Person, whom: Person, behind: bool) -> str:
        expected = manages(where, who)
        if not expected and whom.account not in where.roles:
            expected = "not-found"
        return expected or ("stale" if behind else "")

    @rule(where=spaces, who=people)
    def leave(self, where: Space, who: Person) -> None:
        if who.account not in where.roles:
            expected = "not-found"
        else:
            expected = "guard-failed" if where.is_suspended or self.is_last(where, who) else ""
        self.happens(expected, team.leave, who.actor(self.now), where.id)
        if not expected:
            del where.roles[who.account]

    def is_last(self, where: Space, whom: Person) -> bool:
        administrators = [account for account, role in where.roles.items() if role == "administrator"]
        return administrators == [whom.account]

    @rule(where=spaces, who=people)
    def ask_certification(self, where: Space, who: Person) -> None:
        expected = manages(where, who) or ("" if where.certification == "no" else "forbidden-transition")
        self.happens(expected, certification.ask, who.actor(self.now), where.id, self.portal)
        if not expected:
            where.certification = "asked"

    # ---- what an operator and the clock do

    @rule(where=spaces)
    def suspend(self, where: Space) -> None:
        expected = "forbidden-transition" if where.is_suspended else ""
        self.happens(expected, oversight.fire, self.now, "root", where.identifier, "suspend")
        where.is_suspended = True

    @rule(where=spaces)
    def resume(self, where: Space) -> None:
        expected = "" if where.is_suspended else "forbidden-transition"
        self.happens(expected, oversight.fire, self.now, "root", where.identifier, "resume")
        where.is_suspended = False

    @rule(where=spaces, event=st.sampled_from(["certify", "uncertify"]))
    def decide(self, where: Space, event: str) -> None:
        is_over = where.certification == ("yes" if event == "certify" else "no")
        expected = "forbidden-transition" if is_over else ""
        self.happens(expected, oversight.fire, self.now, "root", where.identifier, event)
        where.certification = "yes" if event == "certify" else "no"

    @rule(where=spaces, whom=people)
    def appoint(self, where: Space, whom: Person) -> None:
        role = where.roles.get(whom.account)
        expected = {None: "not-found", "administrator": "forbidden-transition"}.get(role, "")
        self.happens(expected, oversight.appoint, self.now, "root", where.identifier, whom.account, self.bare.business)
        if not expected:
            where.roles[whom.account] = "administrator"
            where.versions[whom.account] += 1

    @rule(days=st.sampled_from([1, 13, 14]))
    def time_passes(self, days: int) -> None:
        self.now += days * DAY_S

    @rule()
    def upkeep(self) -> None:
        due = [one for one in self.sent if one.state == "sent" and self.now >= one.expires]
        assert self.happens("", invitation.expire, self.now) == len(due)
        for one in due:
            one.state, one.version = "expired", 2

    # ---- what always holds

    @invariant()
    def every_space_has_an_administrator(self) -> None:
        with reading(self.bare.engine) as connection:
            rows = connection.execute(
                select(schema.members.c.space, schema.members.c.account, schema.members.c.role)
            ).all()
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            found.setdefault(row.space, {})[row.account] = row.role
        assert found == {one.id: one.roles for one in self.all}
        assert all("administrator" in roles.values() for roles in found.values())

    @invariant()
    def whoever_is_no_member_sees_nothing(self) -> None:
        with reading(self.bare.engine) as connection:
            for who in self.known:
                mine = {one["identifier"] for one in space.all_of(connection, who.account)}
                assert mine == {one.identifier for one in self.all if who.account in one.roles}
                for one in self.all:
                    try:
                        seen = space.of(connection, who.actor(self.now), one.identifier)["role"]
                    except Refusal as refusal:
                        assert refusal.code == "not-found"
                        seen = None
                    assert seen == one.roles.get(who.account)

    @invariant()
    def invitations_and_mails_are_the_models(self) -> None:
        with reading(self.bare.engine) as connection:
            rows = connection.execute(select(schema.invitations.c.id, schema.invitations.c.state)).all()
            mails = connection.execute(select(func.count()).select_from(schema.outbox)).scalar_one()
        assert {row.id: row.state for row in rows} == {one.id: one.state for one in self.sent}
        assert mails == self.mails


Teams.TestCase.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestTeams(Teams.TestCase):  # type: ignore[misc, name-defined]
    """
    ESP-22, ESP-23, ESP-24, ESP-25: in whatever order people are invited, answer, change, go and are removed, the last
    administrator never vanishes, what is refused changes nothing, and who is no member sees nothing.
    """
