"""Eight threads that do the same at the same moment, on both databases: one of them has done it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from portal_adapter.domain import certification, invitation, login, nomination, oversight, space, team
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Business, Portal
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from tests.portal.place import ORIGIN
from tests.portal.team import NOW, Bare, Person, business_form, links
from tests.portal.town import picture

THREADS = 8
Work = Callable[[Connection, int], object]


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bare]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create("team")
    made = Bare(tmp_path, url)
    yield made
    made.close()


class Team:
    """Ada's space with Bob in it."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.ada, self.bob, self.cy = bare.person("Ada"), bare.person("Bob"), bare.person("Cy")
        self.identifier = str(
            self.does(space.create_business, self.ada.actor(), business_form(), bare.business, bare.limits)
        )
        self.id = bare.rows(schema.spaces)[0]["id"]
        self.joins(self.bob)

    def does(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with writing(self.bare.engine) as connection:
            return function(connection, *arguments)

    def invites(self, person: Person, role: str = "editor") -> str:
        before = links(self.bare.engine)
        self.does(invitation.invite, self.ada.actor(), self.id, person.invited(role), ORIGIN, self.bare.limits)
        (link,) = links(self.bare.engine) - before
        return link.rsplit("/", 1)[1]

    def joins(self, person: Person, role: str = "editor") -> None:
        self.does(invitation.accept, person.actor(), self.invites(person, role), self.bare.business)

    def roles(self) -> dict[str, str]:
        names = {one.account: one.given for one in (self.ada, self.bob, self.cy)}
        return {names[row["account"]]: row["role"] for row in self.bare.rows(schema.members) if row["space"] == self.id}

    def sent(self) -> str:
        """The id of the open invitation."""
        return str(next(row["id"] for row in self.bare.rows(schema.invitations) if row["state"] == "sent"))


@pytest.fixture
def made(bare: Bare) -> Team:
    return Team(bare)


def race(bare: Bare, work: Work, *, looks_again: bool = True) -> Counter[str]:
    """What became of each: 'done', or the refusal's code. Like the frame, who loses a unique key looks again; a command does not."""
    ready, found, failures = threading.Barrier(THREADS), [], []

    def once(number: int) -> str:
        try:
            with writing(bare.engine) as connection:
                work(connection, number)
        except Refusal as refusal:
            return refusal.code
        return "done"

    def run(number: int) -> None:
        try:
            ready.wait()
            try:
                found.append(once(number))
            except IntegrityError:
                assert looks_again
                found.append(once(number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=[number]) for number in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failures
    assert len(found) == THREADS
    return Counter(found)


def one_won(found: Counter[str], *others: str) -> None:
    assert found["done"] == 1, found
    assert set(found) - {"done"} <= set(others), found


def test_one_accepts(bare: Bare, made: Team) -> None:
    """ESP-23, 0.1: of eight acceptances one makes a member; to the others the link is gone."""
    token = made.invites(made.cy, "signatory")
    one_won(race(bare, lambda c, _: invitation.accept(c, made.cy.actor(), token, bare.business)), "gone")
    assert made.roles()["Cy"] == "signatory"


def test_one_answers(bare: Bare, made: Team) -> None:
    """ESP-23: accepting, refusing, withdrawing and expiring at one moment: one of them, and the member is there if it was the first."""
    token = made.invites(made.cy)
    sent = made.sent()

    def work(connection: Connection, number: int) -> None:
        match number % 4:
            case 0:
                invitation.accept(connection, made.cy.actor(), token, bare.business)
            case 1:
                invitation.refuse(connection, made.cy.actor(), token)
            case 2:
                invitation.withdraw(connection, made.ada.actor(), made.id, sent, {"version": "1"})
            case _:
                if not invitation.expire(connection, NOW + bare.limits.invitation_s):
                    raise Refusal("gone")

    one_won(race(bare, work), "gone", "forbidden-transition")
    (row,) = [one for one in bare.rows(schema.invitations) if one["id"] == sent]
    assert row["version"] == 2
    assert ("Cy" in made.roles()) is (row["state"] == "accepted")


def test_one_withdraws(bare: Bare, made: Team) -> None:
    """ESP-23, 0.1: the others are told that it is withdrawn."""
    made.invites(made.cy)
    sent = made.sent()
    work: Work = lambda c, _: invitation.withdraw(c, made.ada.actor(), made.id, sent, {"version": "1"})  # noqa: E731
    one_won(race(bare, work), "forbidden-transition")


def test_one_sends_again(bare: Bare, made: Team) -> None:
    """ESP-23: eight wishes to send it again are one new link and one mail."""
    made.invites(made.cy)
    sent, before = made.sent(), links(bare.engine)
    work: Work = lambda c, _: invitation.resend(  # noqa: E731
        c, made.ada.actor(), made.id, sent, {"version": "1"}, ORIGIN, bare.limits
    )
    one_won(race(bare, work), "forbidden-transition")
    assert len(links(bare.engine) - before) == 1


def test_one_invites(bare: Bare, made: Team) -> None:
    """ESP-23: the same person is invited once, and gets one mail."""
    before = links(bare.engine)
    work: Work = lambda c, _: invitation.invite(  # noqa: E731
        c, made.ada.actor(), made.id, made.cy.invited(), ORIGIN, bare.limits
    )
    one_won(race(bare, work), "validation")
    assert len(links(bare.engine) - before) == 1


def test_one_changes_a_role(bare: Bare, made: Team) -> None:
    """ESP-24, 0.1: eight forms of the same version: one applies, the others are stale."""
    roles = ("viewer", "signatory")
    work: Work = lambda c, number: team.change_role(  # noqa: E731
        c, made.ada.actor(), made.id, made.bob.account, {"role": roles[number % 2], "version": "1"}, bare.business
    )
    one_won(race(bare, work), "stale")
    assert made.roles()["Bob"] in roles


def test_one_removes(bare: Bare, made: Team) -> None:
    """ESP-24, ESP-25: one removal, one notice."""
    work: Work = lambda c, _: team.remove(c, made.ada.actor(), made.id, made.bob.account, {"version": "1"})  # noqa: E731
    one_won(race(bare, work), "not-found")
    assert made.roles() == {"Ada": "administrator"}
    assert [row["template"] for row in bare.rows(schema.outbox)].count("notice") == 1


def test_one_leaves(bare: Bare, made: Team) -> None:
    """ESP-24: to the others the space does not exist any more."""
    one_won(race(bare, lambda c, _: team.leave(c, made.bob.actor(), made.id)), "not-found")


def test_of_two_administrators_one_stays(bare: Bare, made: Team) -> None:
    """ESP-24: they remove, demote and leave at one moment, four times each: exactly one is left, whoever was first."""
    made.joins(made.cy, "administrator")
    both = (made.ada, made.cy)

    def work(connection: Connection, number: int) -> None:
        me, other = both[number % 2], both[(number + 1) % 2]
        match number // 2:
            case 0:
                team.leave(connection, me.actor(), made.id)
            case 1:
                team.remove(connection, me.actor(), made.id, other.account, {"version": "1"})
            case 2:
                form = {"role": "viewer", "version": "1"}
                team.change_role(connection, me.actor(), made.id, me.account, form, bare.business)
            case _:
                form = {"role": "viewer", "version": "1"}
                team.change_role(connection, me.actor(), made.id, other.account, form, bare.business)

    found = race(bare, work)
    assert found["done"] in {1, 2}, found  # whoever was made a viewer may still leave
    assert set(found) <= {"done", "not-found", "forbidden", "guard-failed", "stale"}
    assert list(made.roles().values()).count("administrator") == 1


def test_one_changes_the_data(bare: Bare, made: Team) -> None:
    """ESP-07, 0.1: eight forms of the same version: one applies, the others are stale."""
    (row,) = bare.rows(schema.spaces)

    def work(connection: Connection, number: int) -> None:
        form = {"title": f"Looms {number}", "company": "L", "email": "l@example.org", "version": str(row["version"])}
        space.change(connection, made.ada.actor(), made.id, form, bare.business, bare.limits)

    one_won(race(bare, work), "stale")
    assert bare.rows(schema.spaces)[0]["title"].startswith("Looms ")


def test_one_asks_for_certification_and_one_gives_it(bare: Bare, made: Team, tmp_path: Path) -> None:
    """ESP-18: each event of the machine has one winner."""
    portal = Portal(name="M", origin=ORIGIN, state=tmp_path, key_file=tmp_path, help_email="help@example.org")
    one_won(
        race(bare, lambda c, _: certification.ask(c, made.ada.actor(), made.id, portal)),
        "forbidden-transition",
        "stale",
    )
    assert [row["template"] for row in bare.rows(schema.outbox)].count("certification-asked") == 1
    for event in ("certify", "uncertify", "suspend", "resume"):
        found = race(bare, lambda c, _, event=event: oversight.fire(c, NOW, "root", made.identifier, event))  # type: ignore[misc]
        one_won(found, "forbidden-transition", "stale")


def test_one_appoints(bare: Bare, made: Team) -> None:
    """ESP-24: the others are told that the member is an administrator."""
    work: Work = lambda c, _: oversight.appoint(c, NOW, "root", made.identifier, made.bob.account, bare.business)  # noqa: E731
    one_won(race(bare, work), "forbidden-transition")


def test_one_private_space(bare: Bare) -> None:
    """ESP-01: eight requests at once make one."""
    ada = bare.person("Ada").actor()
    one_won(
        race(bare, lambda c, _: space.create_private(c, ada, {"email": "a@example.org"}, bare.limits)), "guard-failed"
    )
    assert len(bare.rows(schema.spaces)) == len(bare.rows(schema.members)) == 1


def test_one_title_of_one_person(bare: Bare) -> None:
    """ESP-07: the same title eight times at once is one space, and the last place under the limit is given once."""
    ada = bare.person("Ada").actor()
    work: Work = lambda c, _: space.create_business(c, ada, business_form(), bare.business, bare.limits)  # noqa: E731
    one_won(race(bare, work), "validation")
    two = Business(spaces_max=2)
    more: Work = lambda c, number: space.create_business(  # noqa: E731
        c, ada, business_form(f"Looms {number}"), two, bare.limits
    )
    one_won(race(bare, more), "guard-failed")


def test_one_space_of_one_business(bare: Bare) -> None:
    """ESP-13: eight persons at once with the same number: one space."""
    people = [bare.person(f"Ada{number}").actor() for number in range(THREADS)]
    single = Business(single_space=True)
    work: Work = lambda c, number: space.create_business(  # noqa: E731
        c, people[number], business_form(registration="b-1" if number % 2 else "B 1"), single, bare.limits
    )
    one_won(race(bare, work), "guard-failed")
    assert len(bare.rows(schema.spaces)) == 1


def test_one_takes_a_ticket(bare: Bare) -> None:
    """A ticket of the cards' origin that is brought eight times at once logs in once."""
    with writing(bare.engine) as connection:
        nonce = login.begin(connection, NOW, "visitor", "/home", "", bare.limits, "192.0.2.1")
        ticket = login.issue_ticket(connection, NOW, nonce, b"certificate", bare.limits)
    one_won(race(bare, lambda c, _: login.take_ticket(c, NOW, ticket, bare.limits)), "unauthenticated")


def test_eight_nominate_the_same(bare: Bare) -> None:
    """ESP-21: all are content, one nomination is stored."""
    assert race(bare, lambda c, _: nomination.add(c, NOW, "root", "10AB"), looks_again=False)["done"] == THREADS
    assert len(bare.rows(schema.nominations)) == 1


def test_a_refused_change_leaves_nothing(bare: Bare, made: Team) -> None:
    """0.1: on both databases a refused invitation, role, removal and answer leave every table as it was, the outbox included."""
    token = made.invites(made.cy)
    before = picture(bare.engine)
    for function, arguments in (
        (invitation.invite, (made.bob.actor(), made.id, made.cy.invited(), ORIGIN, bare.limits)),
        (invitation.invite, (made.ada.actor(), made.id, made.cy.invited(), ORIGIN, bare.limits)),
        (invitation.accept, (made.bob.actor(), token, bare.business)),
        (invitation.withdraw, (made.ada.actor(), made.id, made.sent(), {"version": "9"})),
        (invitation.withdraw, (made.ada.actor(), made.id, "\0", {"version": "1"})),
        (team.remove, (made.ada.actor(), made.id, "\0", {"version": "1"})),
        (team.leave, (made.ada.actor(), made.id)),
        (team.remove, (made.ada.actor(), made.id, made.ada.account, {"version": "1"})),
        (team.remove, (made.ada.actor(), made.id, made.bob.account, {"version": "9"})),
    ):
        with pytest.raises(Refusal):
            made.does(function, *arguments)
    assert picture(bare.engine) == before
