"""Messages about a procedure: who may write when, how they are read, and who is told."""

import pytest
from sqlalchemy import update

from portal_adapter.store import schema
from tests.portal.place import ORIGIN, Place, SetClock, Visitor
from tests.portal.sent import agent, closes, desk_of, mails, ready, returns, rows, sent, writes
from tests.portal.team import account_of, joins
from tests.portal.test_procedures import confirmed, row, sets, version, where
from tests.portal.town import picture


@pytest.fixture
def ada(place: Place) -> Visitor:
    person = place.visitor()
    person.logs_in("Ada", "Lovelace", place.issuer.product("Ada", "Lovelace", serial="10304441830071892504"))
    return person


@pytest.fixture
def grace(place: Place) -> Visitor:
    return agent(place)


def opens(person: Visitor, at: str, number: int = 0) -> str:
    """The first of what is listed; the answer's way back."""
    found = person.json(f"{at}/messages").json()["messages"][number]
    done = person.post(f"{at}/messages/{found['id']}/open", page=f"{at}/messages")
    assert done.status_code == 303, done.text
    return str(done.headers["location"])


def test_both_sides_write(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-01, MSG-02, MSG-03, TRK-08: from the tab by its button; subject and text; each side reads the other's as of a side, its own with names."""
    at = sent(place, ada)
    page = ada.get(f"{at}/messages").text
    assert f'href="{at}/messages/new">New message</a>' in page
    assert "There are no messages yet." in page
    assert f'href="{at}/messages"' in ada.get(at).text
    done = writes(ada, at, " A question ", "How long?\r\nAnd where?")
    assert (done.status_code, done.headers["location"]) == (303, f"{at}/messages")
    SetClock.later(1)
    assert writes(grace, desk_of(at), "An answer", "A week.").status_code == 303
    (answer, question) = ada.json(f"{at}/messages").json()["messages"]
    assert (answer["subject"], answer["body"], answer["by"], answer["is_new"]) == ("An answer", "", "", True)
    assert (question["subject"], question["body"], question["by"]) == (
        "A question", "How long?\nAnd where?", "Ada Lovelace",
    )  # fmt: skip
    assert "Grace" not in ada.get(f"{at}/messages").text
    events = [one["event"] for one in rows(place, schema.audit)]
    assert events.count("message-sent") == 2


def test_opening_a_message_notes_who_has_read_it(place: Place, ada: Visitor, grace: Visitor) -> None:
    """ESP-33, MSG-04, TRK-09: unread it shows its subject; opened, its text, and to its side who has read it when; the first counts, and looking at the list is no reading."""
    at = sent(place, ada)
    writes(grace, desk_of(at), "An answer", "A week.")
    assert ada.json(at).json()["procedure"]["unread"] == 1
    page = ada.get(f"{at}/messages").text
    assert "A week." not in page
    assert '<span class="tag">new</span>' in page
    assert "1 message from the administration, 1 unread" in page
    SetClock.later(60)
    first = SetClock.at
    (found,) = rows(place, schema.messages)
    assert opens(ada, at) == f"{at}/messages#message-{found['id']}"
    SetClock.later(60)
    opens(ada, at)
    (found,) = rows(place, schema.messages)
    assert (found["read"], found["read_by"]) == (first, account_of(place.services.engine, "Ada"))
    assert "A week." in ada.get(f"{at}/messages").text
    assert "Read by Ada Lovelace" in ada.get(f"{at}/messages").text
    theirs = grace.get(f"{desk_of(at)}/messages").text
    assert ">Read ·" in theirs
    assert "Read by" not in theirs
    found_procedure = ada.json(at).json()["procedure"]
    assert (found_procedure["messages"], found_procedure["unread"]) == (1, 0)
    writes(ada, at)
    assert opens(grace, desk_of(at)).startswith(f"{desk_of(at)}/messages#message-")
    assert "Read by Grace Hopper" in grace.get(f"{desk_of(at)}/messages").text
    assert [one["event"] for one in rows(place, schema.audit)].count("message-read") == 2


def test_only_the_other_sides_message_is_opened(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-04, 0.1: one's own, another procedure's, and what there is not: not found, and nothing is noted."""
    at, other = sent(place, ada), sent(place, ada)
    writes(ada, at)
    (own,) = rows(place, schema.messages)
    before = picture(place.services.engine, without=("audit",))
    for person, path in (
        (ada, f"{at}/messages/{own['id']}/open"),
        (grace, f"{desk_of(other)}/messages/{own['id']}/open"),
        (grace, f"{desk_of(at)}/messages/{'0' * 32}/open"),
        (grace, f"{desk_of(at)}/messages/x/open"),
    ):
        assert person.json(path, {}).status_code == 404
    assert picture(place.services.engine, without=("audit",)) == before


def test_messages_of_one_second_stand_as_they_came(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-02: of either side, the newest first, whatever the clock says; each procedure's are counted by themselves."""
    at, other = sent(place, ada), sent(place, ada)
    for number in range(6):
        assert writes(ada, at, f"Question {number}").status_code == 303
        assert writes(grace, desk_of(at), f"Answer {number}").status_code == 303
        assert writes(ada, other, f"Other {number}").status_code == 303
    wanted = [f"{what} {number}" for number in range(5, -1, -1) for what in ("Answer", "Question")]
    for person, page in ((ada, at), (grace, desk_of(at))):
        assert [one["subject"] for one in person.json(f"{page}/messages").json()["messages"]] == wanted
    assert [one["number"] for one in rows(place, schema.messages) if one["subject"].startswith("Other")] == [
        *range(1, 7)
    ]


def test_when_one_may_write(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-01, TRK-08: not before it is sent; then in every status, from both sides."""
    at = ready(place, ada)
    page = ada.get(f"{at}/messages").text
    assert "Messages can be written once the procedure is sent." in page
    assert f"{at}/messages/new" not in page
    done = ada.json(f"{at}/messages/new", {"subject": "x", "body": "y"})
    assert (done.status_code, done.json()["code"], done.json()["event"]) == (409, "forbidden-transition", "write")
    assert ada.get(f"{at}/messages/new").status_code == 409
    at = sent(place, ada)
    for status in ("sent", "accepted", "to_be_corrected", "closed"):
        sets(place, at, status=status)
        assert writes(ada, at, status).status_code == 303
        assert writes(grace, desk_of(at), status).status_code == 303
    assert len(rows(place, schema.messages)) == 8


def test_a_procedure_that_takes_no_messages(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-01: the tab has no button, a post is refused and says why; the administration writes all the same."""
    at = sent(place, ada)
    silent = place.services.catalogue.versions["change-of-address", 1].model_copy(update={"messaging": False})
    other, desk = where(ada, silent), where(grace, silent)
    page = other.get(f"{at}/messages").text
    assert "New message" not in page
    assert "This procedure takes no messages" in page
    done = other.json(f"{at}/messages/new", {"subject": "x", "body": "y"})
    assert (done.status_code, done.json()["code"], done.json()["reason"]) == (409, "guard-failed", "messaging-off")
    assert rows(place, schema.messages) == []
    assert "say how you can be reached" in desk.get(f"{desk_of(at)}/messages/new").text
    assert writes(desk, desk_of(at)).status_code == 303


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, ["subject", "body"]),
        ({"subject": " ", "body": "\n"}, ["subject", "body"]),
        ({"subject": "x" * 121, "body": "y"}, ["subject"]),
        ({"subject": "x", "body": "y" * 4001}, ["body"]),
        ({"subject": "two\nlines", "body": "y"}, ["subject"]),
        ({"subject": "x", "body": "a\x00b"}, ["body"]),
    ],
)
def test_a_message_that_is_not_right(
    place: Place, ada: Visitor, grace: Visitor, form: dict[str, str], fields: list[str]
) -> None:
    """MSG-03: each field named, what was typed kept; nothing is sent, and nobody is told."""
    at = sent(place, ada)
    before = picture(place.services.engine, without=("audit",))
    for person, page in ((ada, at), (grace, desk_of(at))):
        done = person.json(f"{page}/messages/new", form)
        assert (done.status_code, [one["field"] for one in done.json()["errors"]]) == (422, fields)
    shown = ada.post(f"{at}/messages/new", {"subject": "Kept", "body": ""}, page=f"{at}/messages/new")
    assert shown.status_code == 422
    assert 'value="Kept"' in shown.text
    assert picture(place.services.engine, without=("audit",)) == before


def test_the_limits_are_inclusive(place: Place, ada: Visitor) -> None:
    """MSG-03: 120 and 4000 characters."""
    at = sent(place, ada)
    assert writes(ada, at, "x" * 120, "y" * 4000).status_code == 303


def test_twenty_an_hour(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-03: of one procedure and from each side; the answer says when to come back, and another procedure is not concerned."""
    at = sent(place, ada)
    for number in range(20):
        done = ada.json(f"{at}/messages/new", {"subject": str(number), "body": "y"})
        assert done.status_code in {200, 303}
    done = ada.json(f"{at}/messages/new", {"subject": "20", "body": "y"})
    assert (done.status_code, done.json()["code"], done.headers["retry-after"]) == (429, "rate-limited", "3600")
    assert writes(grace, desk_of(at)).status_code == 303
    assert writes(ada, sent(place, ada)).status_code == 303
    with place.services.engine.begin() as connection:  # an hour later
        connection.execute(update(schema.marks).values(time=schema.marks.c.time - 3600))
    assert writes(ada, at).status_code == 303
    assert ada.json(f"{at}/messages").json()["pages"] == 2
    assert ada.get(f"{at}/messages?page=3").status_code == 404


def test_a_double_click_writes_once(place: Place, ada: Visitor) -> None:
    """MSG-03, 0.1: the same form leads where it led."""
    at = sent(place, ada)
    given = {name: value for name, value in ada.form(f"{at}/messages/new").items() if name in {"csrf", "form"}}
    for _ in range(2):
        assert ada.http.post(f"{at}/messages/new", data={**given, "subject": "x", "body": "y"}).status_code == 303
    assert len(rows(place, schema.messages)) == 1


def test_a_new_message_is_announced_without_a_word_of_it(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-05, MAIL-10: to the space's address, a link alone; an applicant's is not mailed to anybody."""
    at = sent(place, ada)
    writes(ada, at)
    assert mails(place, "message") == []
    writes(grace, desk_of(at), "Subject of mine", "Body of mine")
    assert mails(place, "message") == [
        {"recipient": "ada@example.org", "language": "en", "link": f"{ORIGIN}{at}/messages"}
    ]
    settings = place.services.settings
    silent = settings.model_copy(update={"mail": settings.mail.model_copy(update={"announce": ()})})
    writes(where(grace, settings=silent), desk_of(at))
    assert len(mails(place, "message")) == 1


def test_a_message_is_plain_text(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-06: whatever stands in it is shown as it is typed."""
    at = sent(place, ada)
    writes(ada, at, "<b>bold</b>", "<script>alert(1)</script> {{ 7*7 }} {portal_name} %s")
    opens(grace, desk_of(at))
    for person, page in ((ada, at), (grace, desk_of(at))):
        text = person.get(f"{page}/messages").text
        assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7*7 }} {portal_name} %s" in text
        assert "<b>bold" not in text


def test_a_message_disturbs_nobody_who_fills_in(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-08, TRK-01, PROC-19: neither the procedure's version nor its time moves; a draft that is open is saved."""
    at = sent(place, ada)
    returns(grace, at)
    seen, before = version(ada, at), row(place, at)
    SetClock.later(60)
    writes(grace, desk_of(at))
    assert row(place, at) == before
    done = ada.json(f"{at}/steps/address", {"version": seen, "street": "13 Mill Lane"})
    assert done.status_code in {200, 303}, done.text


def test_members_read_and_those_who_fill_in_write(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-01, MSG-04, 0.1: a viewer opens messages, and does not write; a suspended space reads them without a button."""
    at = confirmed(ada)
    business, author = ada.creates_business(), row(place, at)["author"]
    with place.services.engine.begin() as connection:
        found = schema.spaces.c.identifier == business
        id_ = connection.execute(schema.spaces.select().where(found)).mappings().one()["id"]
        connection.execute(update(schema.procedures).values(
            space=id_, status="sent", transmissions=1, administration="millbrook-town-hall", sent_by=author,
        ))  # fmt: skip
    at = f"/spaces/{business}/procedures/{at.rsplit('/', 1)[1]}"
    eve = joins(place, ada, business, "Eve", "Engineer", "viewer")
    writes(grace, desk_of(at), "An answer", "A week.")
    assert "New message" not in eve.get(f"{at}/messages").text
    assert eve.json(f"{at}/messages/new", {"subject": "x", "body": "y"}).json()["right"] == "fill"
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.spaces).values(state="suspended"))
    text = eve.get(f"{at}/messages").text
    assert "A week." in text
    assert ">Open<" not in text
    (found_message,) = rows(place, schema.messages)
    refused = eve.json(f"{at}/messages/{found_message['id']}/open", {})
    assert refused.json()["reason"] == "space-suspended"
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.spaces).values(state="active"))
    opens(eve, at)
    assert rows(place, schema.messages)[0]["read_by"] == account_of(place.services.engine, "Eve")


def test_messages_of_a_closed_procedure(place: Place, ada: Visitor, grace: Visitor) -> None:
    """MSG-01, TRK-08: closed counts as sent; nothing else is possible but to read and copy."""
    at = sent(place, ada)
    closes(grace, at, reason="Done.")
    assert writes(ada, at).status_code == 303
    assert writes(grace, desk_of(at)).status_code == 303
