"""The desk of an administration: who has one, what is on it and what never is, and what agents do there."""

import json

import pytest

from portal_adapter.cli.operator import name
from portal_adapter.domain.desk import SAID
from portal_adapter.store import schema
from portal_adapter.web.route import Level
from portal_adapter.web.routes import ROUTES
from tests.portal.commands import command
from tests.portal.place import Place, SetClock, Visitor, hidden
from tests.portal.sent import (
    ENVIRONMENT,
    TOWN_HALL,
    accepts,
    agent,
    attaches,
    closes,
    desk_of,
    mails,
    ready,
    returns,
    rows,
    seen,
    sends,
    sent,
    writes,
)
from tests.portal.team import account_of
from tests.portal.test_procedures import HOME, answers, private, row, saves, sets, where
from tests.portal.test_space_commands import audited
from tests.portal.town import picture


def listed(person: Visitor, query: str = "") -> list[str]:
    return [one["reference"] for one in person.json(f"/desk{query}").json()["procedures"]]


# ---- who has one


def test_an_operator_says_who_is_an_agent(place: Place, ada: Visitor) -> None:
    """TRK-11: added, listed and removed by command, as lines or JSON, with who did it in the audit; the desk opens and closes with the next click."""
    account = account_of(place.services.engine, "Ada")
    assert json.loads(command(place, "agent", "list", "--json").stdout) == []
    assert ada.get("/desk").status_code == 403
    assert 'href="/desk"' not in ada.get("/account").text
    done = command(place, "agent", "add", account, TOWN_HALL, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (
        0, {"id": account, "administration": TOWN_HALL, "agent": True},
    )  # fmt: skip
    assert command(place, "agent", "add", account, TOWN_HALL).returncode == 0
    (found,) = json.loads(command(place, "agent", "list", "--json").stdout)
    assert found == {
        "account": account, "administration": TOWN_HALL, "given": "Ada", "family": "Lovelace", "email": "ada@example.org",
    }  # fmt: skip
    assert f"{TOWN_HALL}  {account}  Lovelace, Ada" in command(place, "agent", "list").stdout
    assert ada.get("/desk").status_code == 200
    assert 'href="/desk"' in ada.get("/account").text
    assert ada.get("/home").headers["location"] == "/desk"  # who has no space works here
    assert command(place, "agent", "remove", account).returncode == 0
    assert ada.get("/desk").status_code == 403
    for event in ("agent-added", "agent-removed"):
        (line,) = audited(place, event)
        assert (line["account"], line["operator"], line["administration"]) == (account, name(), TOWN_HALL)


def test_an_agent_that_cannot_be_is_refused(place: Place, ada: Visitor) -> None:
    """TRK-11: an unknown account or administration, one who works for another, one who is none: status 1, one line of the audit, and nothing changes."""
    account = account_of(place.services.engine, "Ada")
    assert command(place, "agent", "add", account, TOWN_HALL).returncode == 0
    before = picture(place.services.engine, without=("audit",))
    for words, said in (
        (("add", "0" * 32, TOWN_HALL), "not-found"),
        (("add", account, "nowhere"), ENVIRONMENT),
        (("add", account, ENVIRONMENT), "another administration"),
        (("remove", "0" * 32), "not-found"),
    ):
        done = command(place, "agent", *words)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert picture(place.services.engine, without=("audit",)) == before
    assert [one["outcome"] for one in audited(place, "agent-added")][1:] == ["not-found", "validation", "guard-failed"]


@pytest.mark.parametrize("route", [one for one in ROUTES if one.level is Level.AGENT], ids=lambda one: one.name)
def test_the_desk_is_the_agents(place: Place, ada: Visitor, route: object) -> None:
    """TRK-07, TRK-11: to everybody else each of its pages and forms is forbidden, whether there is such a procedure or not."""
    at = sent(place, ada)
    before = picture(place.services.engine, without=("audit",))
    for reference in (at.rsplit("/", 1)[1], "P-00000-00000"):
        ids = {"sent": reference, "number": "1", "position": "1", "message": "0" * 32}
        path = route.path.format(**ids)  # type: ignore[attr-defined]
        done = ada.json(path, None if route.method == "GET" else {"transmission": "1", "general": "x"})  # type: ignore[attr-defined]
        assert (done.status_code, done.json()["reason"], done.json()["right"]) == (403, "not-an-agent", "agent")
    assert picture(place.services.engine, without=("audit",)) == before


# ---- what is on it


def test_nothing_is_there_before_it_is_sent(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-01, TRK-08: no count, no title, no page, whoever guesses the reference; nothing can be written either."""
    at = ready(place, ada)
    desk = desk_of(at)
    assert listed(grace) == []
    assert "change of address" not in grace.get("/desk").text.lower()
    assert grace.json("/desk").json()["count"] == 0
    for end in ("", "/history", "/messages", "/messages/new", "/correction", "/closing", "/transmissions/1"):
        assert grace.get(f"{desk}{end}").status_code == 404
    for end, fields in (
        ("accept", {"transmission": "0"}),
        ("correction", {"transmission": "0", "general": "x"}),
        ("closing", {"transmission": "0", "reason": "x"}),
        ("messages/new", {"subject": "x", "body": "y"}),
    ):
        assert grace.json(f"{desk}/{end}", fields).status_code == 404
    sends(ada, at)
    assert listed(grace) == [at.rsplit("/", 1)[1]]


def test_another_administration_sees_nothing(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-07, TRK-11: what was sent to the town hall does not exist for the environment agency."""
    at = sent(place, ada)
    otto = agent(place, "Otto", ENVIRONMENT)
    assert listed(otto) == []
    assert otto.get(desk_of(at)).status_code == 404
    assert accepts_json(otto, at).status_code == 404
    assert listed(grace) == [at.rsplit("/", 1)[1]]


def accepts_json(person: Visitor, at: str, number: str = "1") -> object:
    return person.json(f"{desk_of(at)}/accept", {"transmission": number})


def test_the_list_is_narrowed_down_and_has_pages(
    place: Place, ada: Visitor, grace: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRK-11, TRK-03: reference, title, applicant, status with what it means to an agent, and when it was sent; by status, page by page."""
    made = []
    for status in ("sent", "accepted", "to_be_corrected", "closed"):
        SetClock.later(60)
        made.append(sent(place, ada))
        sets(place, made[-1], status=status)
    (first, *_) = grace.json("/desk?status=sent").json()["procedures"]
    assert (first["title"], first["applicant"], first["status_name"]) == (
        "Declare a change of address", "Ada Lovelace", "Sent",
    )  # fmt: skip
    assert first["sent"] == SetClock.at - 180
    assert first["status_said"].startswith("Sent to you")
    assert "version" not in first
    for at, status in zip(made, ("sent", "accepted", "to_be_corrected", "closed"), strict=True):
        assert listed(grace, f"?status={status}") == [at.rsplit("/", 1)[1]]
    assert len(listed(grace)) == 4
    for query in ("?status=ready", "?page=2", "?page=x", "?page=0"):
        assert grace.get(f"/desk{query}").status_code == 404
    monkeypatch.setattr("portal_adapter.domain.desk.PAGE", 3)
    assert (len(listed(grace)), len(listed(grace, "?page=2"))) == (3, 1)
    page = grace.get("/desk").text
    assert "Next page" in page
    assert "Millbrook Town Hall" in page
    french = grace.get("/desk", headers={"accept-language": "fr"}).text
    assert "Transmise" in french
    assert "Administration communale de Millbrook" in french


def test_edits_under_way_are_never_seen(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-01, TRK-11: while it is being corrected an agent sees the last transmission, and whatever is edited changes nothing of what he gets: not a byte, no number, no time."""
    at = sent(place, ada)
    returns(grace, at, field_street="Which?")
    ends = ("", "/transmissions/1", "/messages", "/history", "/closing")

    def looked() -> list[object]:
        found: list[object] = [grace.json("/desk").json()["procedures"]]
        for end in ends:
            answer = grace.json(desk_of(at) + end).json()
            found.append({name: value for name, value in answer.items() if name != "csrf"})
        return found

    before = looked()
    SetClock.later(600)
    saves(ada, at, "address", {"street": "Secret Lane"})
    attaches(place, at, "Secret plan")
    assert looked() == before
    for end in ends:
        text = grace.get(desk_of(at) + end).text
        assert "Secret" not in text
    assert answers(place, at)["street"] == "Secret Lane"
    assert grace.get(f"{desk_of(at)}/transmissions/2").status_code == 404
    assert closes(grace, at, reason="Too late.").status_code == 303


def test_the_history_begins_with_the_sending(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-10, SUB-01: when it was begun and signed is the applicant's alone; the applicant is a side, a colleague has a name."""
    at = sent(place, ada)
    accepts(grace, at)
    lines = grace.json(f"{desk_of(at)}/history").json()["history"]
    assert [(one["status"], one["side"], one["by"]) for one in lines] == [
        ("accepted", "administration", "Grace Hopper"),
        ("sent", "applicant", ""),
    ]
    assert len(ada.json(f"{at}/history").json()["history"]) == 3


def test_what_agents_open_is_noted(place: Place, ada: Visitor, grace: Visitor) -> None:
    """UI-08, SIG-12: who, of whom, which; before the file is given out. An applicant's own is not."""
    at = ready(place, ada)
    attaches(place, at, "My plan")
    sends(ada, at)
    form = grace.get(f"{desk_of(at)}/transmissions/1/form")
    assert form.content == ada.get(f"{at}/transmissions/1/form").content
    grace.get(f"{desk_of(at)}/transmissions/1/pieces/1")
    reference = at.rsplit("/", 1)[1]
    assert [(one["account"], one["procedure"], one["transmission"], one["file"]) for one in audited(place, "desk-download")] == [
        (account_of(place.services.engine, "Grace"), reference, 1, f"{reference}-1.pdf"),
        (account_of(place.services.engine, "Grace"), reference, 1, "My plan.pdf"),
    ]  # fmt: skip
    for one in rows(place, schema.transmission_pieces):
        place.services.blobs.path(one["file"]).unlink()
    lost = grace.get(f"{desk_of(at)}/transmissions/1/pieces/1")
    assert (lost.status_code, lost.headers["cache-control"]) == (500, "no-store")
    assert "Something went wrong" in lost.text
    assert len(audited(place, "desk-download")) == 2


# ---- what agents do


def test_an_agent_accepts_and_closes(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-04, TRK-06, TRK-07, TRK-10: each in the history, with its side; a reason may be given, and is read; who has sent it does neither."""
    at = sent(place, ada)
    page = grace.get(desk_of(at)).text
    assert all(button in page for button in (">Accept<", ">Ask for correction<", ">Close<", ">New message<"))
    SetClock.later(60)
    done = accepts(grace, at)
    assert (done.status_code, done.headers["location"]) == (303, desk_of(at))
    assert ">Accept<" not in grace.get(desk_of(at)).text
    assert ada.json(at).json()["procedure"]["status_name"] == "Accepted"
    assert row(place, at)["updated"] == SetClock.at
    assert closes(grace, at).status_code == 303  # after it was accepted no reason is wanted
    assert ada.json(at).json()["procedure"]["status_name"] == "Closed"
    page = grace.get(desk_of(at)).text
    assert ">Close<" not in page
    assert ">New message<" in page
    assert mails(place, "status") == []  # only what is to be corrected is announced always
    assert [one["side"] for one in ada.json(f"{at}/history").json()["history"]] == [
        "administration", "administration", "applicant", "applicant",
    ]  # fmt: skip


def test_a_portal_may_announce_more(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MAIL-01: Accepted and Closed are announced where the portal says so."""
    settings = place.services.settings
    chosen = settings.mail.model_copy(update={"announce": ("accepted", "closed")})
    other = where(grace, settings=settings.model_copy(update={"mail": chosen}))
    at = sent(place, ada)
    accepts(other, at)
    closes(other, at)
    assert [one["status"] for one in mails(place, "status")] == ["accepted", "closed"]


def test_closing_wants_a_reason(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-06: where it was not accepted before; the applicant reads it in the history and on the page."""
    at = sent(place, ada)
    done = grace.json(f"{desk_of(at)}/closing", seen(grace, at))
    assert (done.status_code, done.json()["errors"][0]["field"]) == (422, "reason")
    again = closes(grace, at)
    assert again.status_code == 422
    assert "This field is mandatory." in again.text
    assert closes(grace, at, reason="Not here,\nbut there.").status_code == 303
    assert ada.json(f"{at}/history").json()["history"][0]["comment"] == "Not here,\nbut there."
    assert "Not here,\nbut there." in ada.get(at).text


@pytest.mark.parametrize(
    ("status", "event", "path"),
    [
        ("accepted", "accept", "accept"),
        ("to_be_corrected", "accept", "accept"),
        ("to_be_corrected", "ask_correction", "correction"),
        ("closed", "accept", "accept"),
        ("closed", "ask_correction", "correction"),
        ("closed", "close", "closing"),
    ],
)
def test_what_a_status_does_not_allow(
    place: Place, ada: Visitor, grace: Visitor, status: str, event: str, path: str
) -> None:
    """TRK-07, 11.1, 0.1: the answer names state and event, and what an agent can do instead, in words for him; nothing changes."""
    at = sent(place, ada)
    sets(place, at, status=status)
    before = picture(place.services.engine, without=("audit",))
    fields = {"transmission": "1", "general": "x", "reason": "x"}
    done = grace.json(f"{desk_of(at)}/{path}", fields).json()
    assert (done["code"], done["state"], done["event"]) == ("forbidden-transition", status, event)
    assert event not in done["allowed"]
    assert not {"save", "send", "attach"} & set(done["allowed"])
    assert done["detail"] == SAID[status]
    if path != "accept":
        assert grace.get(f"{desk_of(at)}/{path}").status_code == 409
    assert picture(place.services.engine, without=("audit",)) == before


def test_an_agent_says_which_transmission_he_has_seen(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-07, 0.1: what was sent again meanwhile is not accepted, sent back or closed unseen."""
    at = sent(place, ada)
    returns(grace, at)
    sends(ada, at)
    before = picture(place.services.engine, without=("audit",))
    for path in ("accept", "correction", "closing"):
        for number, code in (("1", "stale"), ("", "validation"), ("x", "validation")):
            fields = {"transmission": number, "status": "sent", "general": "x", "reason": "x"}
            done = grace.json(f"{desk_of(at)}/{path}", fields)
            assert done.json()["code"] == code, path
    assert picture(place.services.engine, without=("audit",)) == before
    page = accepts(grace, at, 1)
    assert page.status_code == 409
    assert 'name="transmission" value="2"' in page.text
    assert accepts(grace, at, 2).status_code == 303


@pytest.mark.parametrize("path", ["accept", "correction", "closing"])
def test_an_agent_says_which_status_he_has_seen(place: Place, ada: Visitor, grace: Visitor, path: str) -> None:
    """TRK-07, 0.1: a form without it, or with another one, changes nothing; the answer has the present one."""
    at = sent(place, ada)
    before = picture(place.services.engine, without=("audit",))
    for status, code in (("", "validation"), ("ready", "validation"), ("accepted", "stale")):
        fields = {"transmission": "1", "status": status, "general": "x", "reason": "x"}
        done = grace.json(f"{desk_of(at)}/{path}", fields).json()
        assert (done["code"], done.get("state")) == (code, "sent" if code == "stale" else None)
    assert picture(place.services.engine, without=("audit",)) == before


def test_a_closing_runs_over_no_correction(place: Place, ada: Visitor, grace: Visitor) -> None:
    """COR-03, COR-04, 0.1: an agent's page of before a colleague's request is stale, with what was typed kept; what the applicant has corrected stays. On the page as it is now it is closed knowingly."""
    bob = agent(place, "Bob")
    at = sent(place, ada)
    page = f"{desk_of(at)}/closing"
    old = grace.form(page)
    returns(bob, at, field_street="Which?")
    saves(ada, at, "address", {**HOME, "street": "99 Right Street"})
    done = grace.http.post(page, data={**old, "reason": "No longer needed."})
    assert done.status_code == 409
    assert "No longer needed." in done.text
    assert (row(place, at)["status"], answers(place, at)["street"]) == ("to_be_corrected", "99 Right Street")
    assert grace.http.post(page, data={**hidden(done.text), "reason": "No longer needed."}).status_code == 303


def test_who_changes_an_administrations_procedures_is_its_agent_now(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-07: who has been removed meanwhile does nothing any more."""
    at = sent(place, ada)
    assert command(place, "agent", "remove", account_of(place.services.engine, "Grace")).returncode == 0
    assert accepts_json(grace, at).status_code == 403
    assert row(place, at)["status"] == "sent"


def test_a_desk_shows_what_waits_to_be_read(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-11: how many messages of an applicant nobody of the administration has opened."""
    at = sent(place, ada)
    writes(ada, at)
    assert grace.json("/desk").json()["procedures"][0]["unread"] == 1
    assert "1 unread message" in grace.get("/desk").text
    assert len(rows(place, schema.messages)) == 1
    assert private(ada) in at
