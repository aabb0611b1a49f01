"""My team: who is in it, with which role, and how one comes in and goes."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select, update

from portal_adapter.domain import certification, invitation, team
from portal_adapter.domain.actor import RIGHTS, ROLES
from portal_adapter.domain.space import create_private
from portal_adapter.mail.delivery import Delivery
from portal_adapter.mail.sender import SendError
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Limits
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from portal_adapter.upkeep import Upkeep
from tests.portal.commands import command
from tests.portal.place import ORIGIN, Place, SetClock, Visitor
from tests.portal.post import Memory
from tests.portal.team import Bare, account_of, invites, joins, links
from tests.portal.town import picture

DAY_S = 86400
UNCHANGED = ("audit",)  # that a refusal does write to


def versions(place: Place, table: object = schema.members) -> dict[str, str]:
    """account or id -> the version that a form would have."""
    with place.services.engine.connect() as connection:
        rows = connection.execute(select(table)).mappings().all()  # type: ignore[call-overload]
    return {str(row.get("account") or row["id"]): str(row["version"]) for row in rows}


def roles(place: Place) -> dict[str, str]:
    query = select(schema.accounts.c.given, schema.members.c.role).join(
        schema.members, schema.members.c.account == schema.accounts.c.id
    )
    with place.services.engine.connect() as connection:
        return {row.given: row.role for row in connection.execute(query)}


# ---- sections


def test_a_business_space_has_three_sections_and_a_private_one_no_team(place: Place, ada: Visitor, space: str) -> None:
    """ESP-20: My information, My team and My files, on each page of a space; a private space has no team at all."""
    page = ada.get(f"/spaces/{space}/team")
    nav = page.text.partition('<nav class="sections"')[2].partition("</nav>")[0]
    names = ["My information", "My team", "My files"]
    assert [name for name in names if f">{name}</a>" in nav] == names
    assert nav.count("<a ") == 3
    assert f'href="/spaces/{space}/team" aria-current="page"' in nav
    ada.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    private = ada.get("/home").headers["location"]
    nav = ada.get(private).text.partition('<nav class="sections"')[2].partition("</nav>")[0]
    assert nav.count("<a ") == 2
    assert "My team" not in nav
    for path in ("team", "team/invite", "team/leave"):
        assert ada.get(f"{private}/{path}").status_code == 404
    assert ada.post(f"{private}/team/leave").status_code == 404
    french = ada.get(f"/spaces/{space}", headers={"accept-language": "fr"}).text
    assert all(name in french for name in ("Mes informations", "Mon équipe", "Mes dossiers"))


def test_nothing_makes_a_team_of_a_private_space(tmp_path: Path) -> None:
    """ESP-20: whoever asks the domain itself to invite into, to leave or to certify a private space is told that there is none."""
    bare = Bare(tmp_path)
    ada, bob = bare.person("Ada").actor(), bare.person("Bob")
    with writing(bare.engine) as connection:
        create_private(connection, ada, {"email": "ada@example.org"}, bare.limits)
    (row,) = bare.rows(schema.spaces)
    before = picture(bare.engine)
    for function, arguments in (
        (invitation.invite, (bob.invited(), ORIGIN, bare.limits)),
        (team.change_role, (ada.account, {"role": "viewer", "version": "1"}, bare.business)),
        (team.leave, ()),
        (certification.ask, (None,)),
    ):
        with writing(bare.engine) as connection, pytest.raises(Refusal) as refused:
            function(connection, ada, row["id"], *arguments)  # type: ignore[operator]
        assert refused.value.code == "not-found"
    assert picture(bare.engine) == before
    bare.close()


# ---- inviting


def test_an_administrator_invites_and_the_invited_one_works_with_the_role_given(
    place: Place, ada: Visitor, space: str
) -> None:
    """ESP-22: each invited person works in the same space, and may what the role says."""
    bob = joins(place, ada, space)
    page = bob.get(f"/spaces/{space}")
    assert "You are a member of this space now." in page.text
    assert "Engines Ltd" in page.text
    assert bob.get("/spaces").text.count(space) >= 1
    assert roles(place) == {"Ada": "administrator", "Bob": "editor"}


@pytest.mark.parametrize("role", [role for role in ROLES if role != "administrator"])
def test_only_an_administrator_invites_and_manages(place: Place, ada: Visitor, space: str, role: str) -> None:
    """ESP-22, ESP-24: who is no administrator may not invite, change, remove or edit: forbidden, with the right that is missing."""
    bob = joins(place, ada, space, role=role)
    account, before = account_of(place.services.engine, "Ada"), picture(place.services.engine, without=UNCHANGED)
    fields = {"given": "Cy", "family": "Clerk", "email": "cy@example.org", "role": "viewer", "language": "en"}
    for path, form in {
        "team/invite": fields,
        f"team/members/{account}/role": {"role": "viewer", "version": "1"},
        f"team/members/{account}/remove": {"version": "1"},
        "data": {"title": "Mine", "company": "Mine", "email": "b@example.org", "version": "1"},
        "certification": {},
    }.items():
        answer = bob.json(f"/spaces/{space}/{path}", form)
        assert (answer.status_code, answer.json()["code"], answer.json()["right"]) == (403, "forbidden", "manage"), path
        assert bob.post(f"/spaces/{space}/{path}", form).status_code == 403
    for path in ("team/invite", f"team/members/{account}", "data"):
        assert bob.get(f"/spaces/{space}/{path}").status_code == 403
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_members_see_names_and_roles_but_addresses_only_administrators(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24: the list of members; addresses and invitations are the administrators' business, in pages and JSON alike."""
    bob = joins(place, ada, space)
    invites(ada, space, "Cy", "Clerk")
    text = bob.get(f"/spaces/{space}/team").text
    assert "Ada Lovelace" in text and "Administrator" in text
    for answer in (text, bob.json(f"/spaces/{space}/team").text):
        assert "ada@example.org" not in answer
        assert "Clerk" not in answer
    assert all(one in ada.get(f"/spaces/{space}/team").text for one in ("bob@example.org", "Clerk", "Send again"))
    assert {one["role"] for one in ada.json(f"/spaces/{space}/team").json()["members"]} == {"administrator", "editor"}


def test_an_invitation_is_a_mail_with_a_personal_link(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23, MAIL-09: to the invited address in the language that was chosen, with space, role, who invites and until when."""
    link = invites(ada, space, role="signatory", language="fr")
    with place.services.engine.connect() as connection:
        mail = connection.execute(select(schema.outbox)).mappings().one()
        stored = connection.execute(select(schema.invitations)).mappings().one()
    assert (mail["recipient"], mail["language"], mail["template"]) == ("bob@example.org", "fr", "invitation")
    for one in ('"Engines"', '"signatory"', '"Ada Lovelace"', str(SetClock.at + 14 * DAY_S), link):
        assert one in mail["data"]
    assert link.rsplit("/", 1)[1] not in stored.values()  # what is stored is its hash


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("given", "", "required"), ("family", " ", "required"), ("email", "", "required"), ("email", "bob", "email_invalid"),
        ("role", "", "required"), ("role", "owner", "unknown"), ("role", "king", "unknown"), ("language", "de", "unknown"),
        ("given", "B" * 101, "too_long"), ("family", "B\0b", "control_characters"), ("serial", "1" * 65, "too_long"),
    ],
)  # fmt: skip
def test_a_wrong_invitation_is_refused_with_everything_kept(
    place: Place, ada: Visitor, space: str, field: str, value: str, code: str
) -> None:
    """ESP-23, 0.1: each mistake beside its field, what was typed kept, nothing stored and nothing sent."""
    page = f"/spaces/{space}/team/invite"
    fields = {"given": "Bob", "family": "Babbage", "email": "bob@example.org", "role": "editor", "language": "en"}
    before = picture(place.services.engine, without=UNCHANGED)
    problem = ada.json(page, {**fields, field: value})
    assert problem.status_code == 422
    assert [(one["field"], one["code"]) for one in problem.json()["errors"]] == [(field, code)]
    shown = ada.post(page, {**fields, field: value}, page=page)
    assert shown.status_code == 422
    kept = {"given": "Bob", "family": "Babbage", "email": "bob@example.org"}
    assert all(f'value="{text}"' in shown.text for name, text in kept.items() if name != field)
    assert f'id="field-{field}"' in shown.text and f'href="#field-{field}"' in shown.text
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_whoever_is_in_or_invited_is_not_invited_again(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: a member, or somebody with an open invitation, in whatever spelling: validation."""
    joins(place, ada, space, "Zoe", "Le Brún")
    invites(ada, space, "Cy", "Clerk")
    for given, family, email, code in (
        ("ZOE", "LEBRUN", "Zoe@example.org", "already-member"),
        ("cy", "CLÉRK", "CY@example.org", "already-invited"),
    ):
        person = {"given": given, "family": family, "email": email, "role": "viewer", "language": "en"}
        answer = ada.json(f"/spaces/{space}/team/invite", person)
        assert [one["code"] for one in answer.json()["errors"]] == [code]


# ---- the link


def test_who_has_the_link_is_led_through_login_registration_and_terms(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23, ESP-03: the page says to what one is invited; then login or registration, the terms, and back to the page."""
    link = invites(ada, space, "Bob", "Babbage")
    bob = place.visitor()
    page = bob.get(link)
    assert page.status_code == 200
    assert all(one in page.text for one in ("Engines", "Editor", "Ada Lovelace", f"/login?back={link}"))
    assert "Accept" not in page.text.partition("<main")[2].replace("Accept the general terms", "")
    done = bob.proves(place.issuer.product("Bob", "Babbage"), "bob-login", back=link)
    assert done.headers["location"] == "/register"
    done = bob.post("/register", {"email": "bob@example.org"}, page="/register")
    assert done.headers["location"] == link
    assert f"/terms?back={link}" in bob.get(link).text
    answer = bob.post(f"{link}/accept", page=link)
    assert answer.status_code == 409  # the terms come first
    assert bob.form(f"/terms?back={link}")["back"] == link
    done = bob.post("/terms", {"accepted": "yes", "back": link}, page=f"/terms?back={link}")
    assert done.headers["location"] == link
    assert bob.post(f"{link}/accept", page=link).headers["location"] == f"/spaces/{space}"
    assert "You have no space yet" not in bob.get("/spaces").text  # he needed none of his own


def test_the_names_are_compared_without_case_accents_and_hyphens(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: an invitation for 'zoe le brun' is accepted with a product of 'Zoé Le-Brun'."""
    link = invites(ada, space, "zoe", "LE BRUN")
    zoe = place.visitor()
    zoe.proves(place.issuer.product("Zoé", "Le-Brun"), "zoe")
    zoe.post("/register", {"email": "zoe@example.org"}, page="/register")
    zoe.post("/terms", {"accepted": "yes"})
    assert zoe.post(f"{link}/accept", page=link).headers["location"] == f"/spaces/{space}"


def test_another_person_cannot_use_the_link(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: with another person's product the page, accepting and refusing are forbidden; the invitation stays open."""
    link = invites(ada, space)
    eve = place.visitor()
    eve.logs_in("Eve", "Dropper")
    before = picture(place.services.engine, without=UNCHANGED)
    assert eve.get(link).status_code == 403
    for event in ("accept", "refuse"):
        answer = eve.json(f"{link}/{event}", {})
        assert (answer.status_code, answer.json()["reason"]) == (403, "other-person")
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_an_invitation_for_one_certificate_wants_that_one(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: where a serial was given, the certificate of the session must have it, however it is written."""
    link = invites(ada, space, serial="10 30:ab")
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage", place.issuer.product("Bob", "Babbage", serial="999"))
    answer = bob.json(f"{link}/accept", {})
    assert (answer.status_code, answer.json()["reason"]) == (403, "other-certificate")
    invited = place.visitor()
    invited.logs_in("Bob", "Babbage", place.issuer.product("Bob", "Babbage", serial="1030AB"))
    assert invited.post(f"{link}/accept", page=link).status_code == 303


def test_a_link_works_once(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: a used link is gone (410) for everybody, and the page says how to get a new one."""
    link = invites(ada, space)
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    bob.post(f"{link}/accept", page=link)
    for visitor in (bob, place.visitor()):
        gone = visitor.get(link)
        assert gone.status_code == 410
        assert "Ask whoever invited you for a new one." in gone.text
    for event in ("accept", "refuse"):
        assert bob.json(f"{link}/{event}", {}).status_code == 410


def test_the_same_form_twice_leads_to_the_winner(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23, 0.1: an acceptance that is posted again by the same form leads into the space, and makes no second member."""
    link = invites(ada, space)
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    form = {name: value for name, value in bob.form(link).items() if name in {"csrf", "form"}}
    answers = [bob.http.post(f"{link}/accept", data=form) for _ in range(2)]
    assert [one.headers.get("location") for one in answers] == [f"/spaces/{space}"] * 2
    assert roles(place)["Bob"] == "editor"


def test_an_invitation_can_be_refused(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: whoever refuses is no member, the link is gone, and the team sees it."""
    link = invites(ada, space)
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    assert bob.post(f"{link}/refuse", page=link).headers["location"] == "/spaces"
    assert bob.get(link).status_code == 410
    assert bob.get(f"/spaces/{space}").status_code == 404
    assert "refused" in ada.get(f"/spaces/{space}/team").text


def test_an_invitation_is_over_after_14_days(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: open to the last second of its 14 days, gone from then on; the upkeep writes that down, once."""
    link = invites(ada, space)
    bob = place.visitor()
    try:
        SetClock.later(14 * DAY_S - 1)
        bob.logs_in("Bob", "Babbage")
        assert bob.get(link).status_code == 200
        SetClock.later(1)
        assert bob.get(link).status_code == 410
        assert bob.json(f"{link}/accept", {}).status_code == 410
        with place.services.engine.connect() as connection:
            assert connection.execute(select(schema.invitations.c.state)).scalar_one() == "sent"
        upkeep = Upkeep(place.services.engine, place.services.clock, place.services.blobs, Limits())
        for _ in range(2):
            upkeep.once()
        with place.services.engine.connect() as connection:
            assert connection.execute(select(schema.invitations.c.state)).scalar_one() == "expired"
            noted = select(schema.audit.c.id).where(schema.audit.c.event == "invitation-expired")
            assert len(connection.execute(noted).all()) == 1
    finally:
        SetClock.later(-14 * DAY_S)


def test_a_member_cannot_accept_once_more(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: who is a member already gets validation, beside the buttons; role and invitation stay as they are."""
    bob = joins(place, ada, space)
    link = invites(ada, space, role="administrator", email="bob-at-home@example.org")
    answer = bob.post(f"{link}/accept", page=link)
    assert answer.status_code == 422
    assert "You are a member of this space already." in answer.text
    assert bob.json(f"{link}/accept", {}).json()["errors"][0]["code"] == "already-member"
    assert roles(place)["Bob"] == "editor"
    assert bob.get(link).status_code == 200


def test_an_unknown_link_leads_nowhere(place: Place, ada: Visitor) -> None:
    """ESP-23, 0.1: a token that was never given does not exist."""
    for path in ("/invitations/x", "/invitations/" + "a" * 43):
        assert place.visitor().get(path).status_code == 404
        assert ada.json(f"{path}/accept", {}).status_code == 404


def test_an_invitation_is_withdrawn(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: the link is over at once; withdrawing again is a forbidden transition that says what it is and what can be done."""
    link = invites(ada, space)
    ((id_, version),) = versions(place, schema.invitations).items()
    path = f"/spaces/{space}/team/invitations/{id_}/withdraw"
    stale = ada.json(path, {"version": "7"})
    assert (stale.status_code, stale.json()["version"]) == (409, 1)
    assert ada.json(path, {}).json()["errors"][0]["field"] == "version"
    done = ada.post(path, {"version": version}, page=f"/spaces/{space}/team")
    assert done.headers["location"] == f"/spaces/{space}/team"
    assert place.visitor().get(link).status_code == 410
    before = picture(place.services.engine, without=UNCHANGED)
    problem = ada.json(path, {"version": "2"}).json()
    assert (problem["code"], problem["state"], problem["event"], problem["allowed"]) == (
        "forbidden-transition", "withdrawn", "withdraw", [],
    )  # fmt: skip
    assert "This invitation is withdrawn" in ada.post(path, {"version": "2"}).text
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_a_withdrawn_invitation_is_not_sent_any_more(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23, MAIL-08: its mail that waits, or was given up, goes no more, not by an operator either; the others do."""
    services, memory = place.services, Memory()
    delivery = Delivery(services.engine, services.clock, services.settings.mail, services.settings.portal, way=memory)
    invites(ada, space)
    memory.answers.append(SendError("no", is_final=True))
    delivery.once()
    invites(ada, space, "Cleo", "Clifford")
    invites(ada, space, "Dora", "Dorn")
    for name in ("Bob", "Cleo"):
        with services.engine.connect() as connection:
            named = select(schema.invitations.c.id).where(schema.invitations.c.given == name)
            id_ = connection.execute(named).scalar_one()
        done = ada.post(
            f"/spaces/{space}/team/invitations/{id_}/withdraw", {"version": "1"}, page=f"/spaces/{space}/team"
        )
        assert done.status_code == 303
    while delivery.once():
        pass
    assert memory.recipients == ["dora@example.org"]
    mails = json.loads(command(place, "mail", "list", "--json").stdout)
    assert sorted((one["recipient"], one["state"]) for one in mails) == [
        ("b***@example.org", "failed"), ("c***@example.org", "failed"), ("d***@example.org", "sent"),
    ]  # fmt: skip
    for one in mails:
        assert command(place, "mail", "retry", one["id"]).returncode == 1


def test_an_invitation_is_sent_again_with_a_new_link(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23: the old link is over, the new one works with the same role, for 14 days from now."""
    old = invites(ada, space, role="signatory", serial="1")
    ((id_, version),) = versions(place, schema.invitations).items()
    done = ada.post(
        f"/spaces/{space}/team/invitations/{id_}/resend", {"version": version}, page=f"/spaces/{space}/team"
    )
    assert done.status_code == 303
    (new,) = links(place.services.engine) - {old}
    assert place.visitor().get(old).status_code == 410
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage", place.issuer.product("Bob", "Babbage", serial="1"))
    bob.post(f"{new}/accept", page=new)
    assert roles(place)["Bob"] == "signatory"


def test_people_are_not_written_to_in_masses(place: Place, ada: Visitor, space: str) -> None:
    """ESP-23, 0.1: after 30 invitations in an hour an account waits; the refusal says how long, and nothing is sent."""
    for number in range(invitation.AN_HOUR_MAX):
        invites(ada, space, f"Bob{number}", "Babbage")
    before = links(place.services.engine)
    page = f"/spaces/{space}/team/invite"
    fields = {"given": "Cy", "family": "Clerk", "email": "cy@example.org", "role": "viewer", "language": "en"}
    answer = ada.post(page, fields, page=page)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3600")
    assert links(place.services.engine) == before


# ---- roles, removal, leaving


def test_a_role_is_changed_and_applies_at_once(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24: from the next request on the member may what the new role says; the audit has both roles."""
    bob = joins(place, ada, space, role="viewer")
    account = account_of(place.services.engine, "Bob")
    page = f"/spaces/{space}/team/members/{account}"
    assert bob.get(f"/spaces/{space}/data").status_code == 403
    done = ada.post(f"{page}/role", {"role": "administrator", "version": "1"}, page=page)
    assert done.headers["location"] == f"/spaces/{space}/team"
    assert bob.get(f"/spaces/{space}/data").status_code == 200
    with place.services.engine.connect() as connection:
        line = connection.execute(
            select(schema.audit.c.detail).where(schema.audit.c.event == "role-changed")
        ).scalar_one()
    assert '"before": "viewer"' in line and '"role": "administrator"' in line


@pytest.mark.parametrize(("role", "code"), [("", "required"), ("owner", "unknown"), ("king", "unknown")])
def test_there_are_four_roles(place: Place, ada: Visitor, space: str, role: str, code: str) -> None:
    """ESP-24: another role is refused beside the choice, and the member keeps hers."""
    joins(place, ada, space)
    page = f"/spaces/{space}/team/members/{account_of(place.services.engine, 'Bob')}"
    answer = ada.post(f"{page}/role", {"role": role, "version": "1"}, page=page)
    assert answer.status_code == 422 and 'id="error-role"' in answer.text
    assert ada.json(f"{page}/role", {"role": role, "version": "1"}).json()["errors"][0]["code"] == code
    assert roles(place)["Bob"] == "editor"


def test_what_somebody_else_has_changed_is_shown_first(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24, 0.1: a stale form changes nothing, comes back with what was chosen and the present version, and then works."""
    joins(place, ada, space)
    page = f"/spaces/{space}/team/members/{account_of(place.services.engine, 'Bob')}"
    ada.post(f"{page}/role", {"role": "viewer", "version": "1"}, page=page)
    for event, form in (("role", {"role": "signatory"}), ("remove", {})):
        stale = ada.json(f"{page}/{event}", {**form, "version": "1"})
        assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (409, "stale", 2)
    shown = ada.post(f"{page}/role", {"role": "signatory", "version": "1"}, page=page)
    assert shown.status_code == 409
    assert "Somebody else has changed this meanwhile." in shown.text
    assert 'name="version" value="2"' in shown.text
    assert 'value="signatory" checked' in shown.text
    assert "Viewer" in shown.text
    assert roles(place)["Bob"] == "viewer"
    assert ada.post(f"{page}/role", {"role": "signatory", "version": "2"}, page=page).status_code == 303


def test_a_removed_member_has_no_access_any_more(place: Place, ada: Visitor, space: str) -> None:
    """ESP-25, MAIL-12: at the next request, in a session that is open, the space does not exist; the audit keeps what was done."""
    bob = joins(place, ada, space)
    engine = place.services.engine
    account = account_of(engine, "Bob")
    assert bob.get(f"/spaces/{space}/team").status_code == 200
    page = f"/spaces/{space}/team/members/{account}"
    done = ada.post(f"{page}/remove", {"version": "1"}, page=page)
    assert done.headers["location"] == f"/spaces/{space}/team"
    for path in ("", "/team", "/team/leave", "/data"):
        assert bob.get(f"/spaces/{space}{path}").status_code == 404
    assert bob.json(f"/spaces/{space}/team/leave", {}).status_code == 404
    assert space not in bob.get("/spaces").text
    assert "Engines" not in bob.get("/account").text
    with engine.connect() as connection:
        assert connection.execute(
            select(schema.audit.c.id).where(
                schema.audit.c.account == account, schema.audit.c.event == "invitation-accepted"
            )
        ).first()
        notice = connection.execute(select(schema.outbox).where(schema.outbox.c.template == "notice")).mappings().one()
    assert notice["recipient"] == "bob@example.org"
    assert '"member-removed"' in notice["data"] and '"Engines"' in notice["data"]
    assert ada.json(f"{page}/remove", {"version": "1"}).status_code == 404


def test_the_last_administrator_stays(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24: demoting, removing or leaving as the only administrator: guard-failed, with the page where another one is made."""
    joins(place, ada, space, role="signatory")
    before = picture(place.services.engine, without=UNCHANGED)
    own = f"/spaces/{space}/team/members/{account_of(place.services.engine, 'Ada')}"
    for path, form in (
        (f"{own}/role", {"role": "viewer", "version": "1"}),
        (f"{own}/remove", {"version": "1"}),
        (f"/spaces/{space}/team/leave", {}),
    ):
        problem = ada.json(path, form)
        assert (problem.status_code, problem.json()["code"]) == (409, "guard-failed")
        assert problem.json()["unmet"][0]["code"] == "last-administrator"
        assert problem.json()["unmet"][0]["href"] == f"/spaces/{space}/team"
        assert f'href="/spaces/{space}/team"' in ada.post(path, form).text.partition("<main")[2]
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_whoever_leaves_goes_and_the_space_stays(place: Place, ada: Visitor, space: str) -> None:
    """ESP-14: a business space belongs to a group: its creator leaves, and data, team and title are the others'."""
    bob = joins(place, ada, space, role="administrator")
    page = f"/spaces/{space}/team/leave"
    assert "stay with the other members" in ada.get(page).text
    assert ada.post(page, page=page).headers["location"] == "/spaces"
    assert "You have left the space." in ada.get("/spaces").text
    assert ada.get(f"/spaces/{space}").status_code == 404
    assert "Engines Ltd" in bob.get(f"/spaces/{space}").text
    assert roles(place) == {"Bob": "administrator"}
    assert bob.post(page, page=page).status_code == 409  # now he is the last


def test_every_role_leaves(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24, ESP-25: reading is right enough for leaving."""
    bob = joins(place, ada, space, role="viewer")
    page = f"/spaces/{space}/team/leave"
    assert bob.post(page, page=page).status_code == 303
    assert bob.get(f"/spaces/{space}").status_code == 404


def test_a_suspended_space_is_only_read(place: Place, ada: Visitor, space: str) -> None:
    """ESP-24, 11.5: in a suspended space nothing of team and data can be changed and nobody comes in; everything can be read."""
    joins(place, ada, space)
    link = invites(ada, space, "Cy", "Clerk")
    cy = place.visitor()
    cy.logs_in("Cy", "Clerk")
    with writing(place.services.engine) as connection:
        connection.execute(update(schema.spaces).values(state="suspended"))
    before = picture(place.services.engine, without=UNCHANGED)
    bob = account_of(place.services.engine, "Bob")
    for path, form in (
        ("team/invite", {}), (f"team/members/{bob}/role", {}), (f"team/members/{bob}/remove", {}), ("team/leave", {}),
        ("data", {}), ("certification", {}),
    ):  # fmt: skip
        answer = ada.json(f"/spaces/{space}/{path}", form)
        assert (answer.status_code, answer.json()["reason"]) == (409, "space-suspended"), path
    assert cy.json(f"{link}/accept", {}).json()["reason"] == "space-suspended"
    for path in ("", "/team", f"/team/members/{bob}"):
        page = ada.get(f"/spaces/{space}{path}")
        assert page.status_code == 200
        assert "it can only be read" in page.text
        main = page.text.partition("<main")[2].partition("</main>")[0]
        assert "<form" not in main
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_the_roles_are_one_table() -> None:
    """ESP-22: every role that an invitation may give has its rights, each more than the one below, and only one manages."""
    ordered = [RIGHTS[role] for role in ROLES]
    assert all(more > less for more, less in pairwise(ordered))
    assert [role for role in ROLES if "manage" in RIGHTS[role]] == ["administrator"]
