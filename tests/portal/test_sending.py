"""Sending: what must be green, what is frozen, where it goes, who is told; and the way back and forth of a correction."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, update

from portal_adapter import app as portal
from portal_adapter.store import schema
from tests.portal.place import ORIGIN, Place, SetClock, Visitor
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
    signs,
)
from tests.portal.team import joins
from tests.portal.test_procedures import (
    PERMIT,
    answers,
    confirmed,
    confirms,
    creates,
    fills,
    private,
    row,
    saves,
    sets,
    version,
    where,
)
from tests.portal.town import picture


def unmet(person: Visitor, at: str) -> list[str]:
    """The codes that a refused sending names; nothing is changed by it."""
    before = picture(person.place.services.engine, without=("audit",))
    done = person.json(f"{at}/sending", {"version": version(person, at)})
    assert (done.status_code, done.json()["code"]) == (409, "guard-failed"), done.text
    assert picture(person.place.services.engine, without=("audit",)) == before
    shown = [one["code"] for one in person.json(f"{at}/sending").json()["unmet"]]
    assert shown == [one["code"] for one in done.json()["unmet"]]
    assert all(one["href"].startswith(at) for one in done.json()["unmet"])
    return shown


# ---- sending


def test_a_procedure_is_sent(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-03, SUB-04, SUB-07, SUB-08, SUB-02: by one button on a page that says what is green; the next page is the receipt, and the administration has it in the same moment."""
    at = confirmed(ada)
    assert "Send the procedure" not in ada.get(at).text
    sha256 = signs(place, at)
    before = row(place, at)
    assert ada.json(at).json()["procedure"]["status_name"] == "Ready"
    assert f'href="{at}/sending">Send the procedure' in ada.get(at).text
    page = ada.get(f"{at}/sending").text
    assert "Everything that is needed is there." in page
    assert "Millbrook Town Hall" in page
    SetClock.later(60)
    done = sends(ada, at)
    assert (done.status_code, done.headers["location"]) == (303, f"{at}/transmissions/1")
    now = row(place, at)
    assert (now["status"], now["transmissions"], now["sent_by"], now["administration"], now["updated"]) == (
        "sent", 1, before["author"], "millbrook-town-hall", SetClock.at,
    )  # fmt: skip
    receipt = ada.get(f"{at}/transmissions/1").text
    for said in (now["reference"], "27 Nov 2026", "Millbrook Town Hall", "1 Town Hall Square", "12 Mill Lane"):
        assert said in receipt
    (frozen,) = rows(place, schema.transmissions)
    assert (frozen["number"], frozen["time"], frozen["sha256"]) == (1, SetClock.at, sha256)
    assert json.loads(frozen["answers"]) == answers(place, at)
    form = ada.get(f"{at}/transmissions/1/form")
    assert form.content.startswith(b"%PDF-1.7\n% signed ")
    assert form.headers["content-disposition"].startswith("inline")
    assert form.headers["content-type"] == "application/pdf"
    assert f'href="{at}/transmissions/1"' in ada.get(at).text
    assert grace.json("/desk").json()["procedures"][0]["reference"] == now["reference"]
    history = ada.json(f"{at}/history").json()["history"]
    assert [(one["status"], one["side"], one["by"]) for one in history[:1]] == [("sent", "applicant", "Ada Lovelace")]
    assert [one["event"] for one in rows(place, schema.audit)].count("procedure-send") == 1


def test_who_sends_is_told_that_it_was_received(place: Place, ada: Visitor) -> None:
    """SUB-08, MAIL-11: the space's address, in the sender's language: reference, time, the service and how to reach it, a link; unless the portal does not want it."""
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.accounts).values(language="fr"))
    at = sent(place, ada)
    (mail,) = mails(place, "received")
    assert mail == {
        "recipient": "ada@example.org", "language": "fr", "reference": at.rsplit("/", 1)[1], "time": SetClock.at,
        "service": "Administration communale de Millbrook", "link": ORIGIN + at,
        "reach": "1, place de l’Hôtel de Ville, Millbrook · +352 26 43 1 · mairie@millbrook.example",
    }  # fmt: skip
    settings = place.services.settings
    silent = settings.model_copy(update={"mail": settings.mail.model_copy(update={"announce": ()})})
    other = where(ada, settings=silent)
    again = ready(place, other)
    assert sends(other, again).status_code == 303
    assert len(mails(place, "received")) == 1


def test_what_is_red_is_named(place: Place, ada: Visitor) -> None:
    """SUB-03, ATT-11, SUB-02: a piece that the answers require, one that is not clean, a form that is not signed: each with the way to it; nothing is sent."""
    at = creates(ada, private(ada))
    fills(ada, at)
    saves(ada, at, "address", {"tenure": "tenant"})
    done = ada.json(f"{at}/sending", {"version": version(ada, at)})
    assert (done.json()["code"], done.json()["state"]) == ("forbidden-transition", "in_preparation")
    assert confirms(ada, at).status_code == 303
    signs(place, at)
    assert unmet(ada, at) == ["attachment-missing"]
    assert "Still to be attached: Lease" in ada.get(f"{at}/sending").text
    assert "<button>Send the procedure" not in ada.get(f"{at}/sending").text
    lease = attaches(place, at, "My lease", "lease", scan="error")
    assert "attachment-not-scanned" in unmet(ada, at)
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.attachments).where(schema.attachments.c.id == lease).values(scan="clean"))
    sets(place, at, status="to_be_corrected", signature="void", transmissions=1)
    assert unmet(ada, at) == ["not-signed"]
    sets(place, at, entry="open")
    assert unmet(ada, at) == ["not-confirmed"]
    sets(place, at, entry="confirmed", signature="valid", form_sha256="f" * 64)  # never so: signed is another form
    done = ada.json(f"{at}/sending", {"version": version(ada, at)})
    assert done.json()["reason"] == "not-signed"


def next_of(person: Visitor, at: str) -> tuple[str, list[str]]:
    """What comes next, and what the big links of the page say."""
    shown = re.findall(r'<a class="action" href="[^"]*">([^<]*)</a>', person.get(at).text)
    return person.json(at).json()["next_step"], shown


def test_the_big_button_is_what_comes_next(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-02, SUB-03, COR-03: whatever is red first; sending where nothing is; of what was sent back the flagged field first, though it may be sent as it is."""
    at = creates(ada, f"/spaces/{ada.creates_business()}", "operating-permit")
    assert next_of(ada, at) == ("continue", ["Continue the declaration"])
    fills_permit(place, at, pieces=())
    assert next_of(ada, at) == ("attach", ["Complete the attachments"])
    for slot in ("site_plan", "register_extract"):
        attaches(place, at, slot, slot)
    assert next_of(ada, at) == ("send", ["Send the procedure"])

    at = sent(place, ada)
    assert next_of(ada, at) == ("", [])
    returns(grace, at, field_street="Which?")
    assert next_of(ada, at) == ("edit", ["Edit the declaration"])
    assert f'href="{at}/steps/address#field-street">Edit the declaration' in ada.get(at).text  # where it is done
    assert f'<a class="secondary" href="{at}/sending">Send the procedure' in ada.get(at).text
    saves(ada, at, "address", {"street": "13 Mill Lane"})
    assert next_of(ada, at) == ("check", ["Check and confirm"])
    assert f'href="{at}/sending"' not in ada.get(at).text
    confirms(ada, at)
    assert next_of(ada, at) == ("sign", [])
    assert f'action="{at}/signing"' in ada.get(at).text  # its own form
    signs(place, at)
    assert next_of(ada, at) == ("send", ["Send the procedure"])


def test_it_is_sent_once(place: Place, ada: Visitor) -> None:
    """SUB-06, SUB-04: the same form again leads to the same receipt; another one comes too late, and an older page is told so."""
    at = ready(place, ada)
    given = {name: value for name, value in ada.form(f"{at}/sending").items() if name in {"csrf", "form", "version"}}
    stale = ada.json(f"{at}/sending", {"version": str(int(given["version"]) - 1)})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    first, second = (ada.http.post(f"{at}/sending", data=given) for _ in range(2))
    assert first.headers["location"] == second.headers["location"] == f"{at}/transmissions/1"
    late = ada.json(f"{at}/sending", {"version": given["version"]})
    assert (late.status_code, late.json()["code"], late.json()["event"]) == (409, "forbidden-transition", "send")
    assert len(rows(place, schema.transmissions)) == len(mails(place, "received")) == 1


def test_sending_is_a_signatorys(place: Place, ada: Visitor) -> None:
    """SUB-03, 0.1: an editor sees what is missing and cannot send; a signatory can; a stranger finds nothing."""
    business = ada.creates_business()
    at = creates(ada, f"/spaces/{business}", PERMIT)
    sets(place, at, status="ready", entry="confirmed", signature="valid", form_sha256="f" * 64)
    eve = joins(place, ada, business, "Eve", "Engineer", "editor")
    page = eve.get(f"{at}/sending").text
    assert "Plan of the site" in page
    assert "Your role in this space does not allow this." in page
    assert f'href="{at}/sending"' not in eve.get(at).text
    done = eve.json(f"{at}/sending", {"version": version(eve, at)})
    assert (done.status_code, done.json()["right"]) == (403, "sign")
    sam = joins(place, ada, business, "Sam", "Signer", "signatory")
    assert sam.json(f"{at}/sending", {"version": version(sam, at)}).json()["code"] == "guard-failed"
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    for path in (f"{at}/sending", f"{at}/transmissions/1", f"{at}/transmissions/1/form", f"{at}/messages"):
        assert bob.get(path).status_code == 404


def test_pieces_are_frozen_with_it(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-07, ATT-06: each with its bytes, also once it is no longer attached; what is not there is not found."""
    at = ready(place, ada)
    attaches(place, at, "My plan")
    assert sends(ada, at).status_code == 303
    with place.services.engine.begin() as connection:
        connection.execute(delete(schema.attachments))
    (piece,) = ada.json(f"{at}/transmissions/1").json()["pieces"]
    assert (piece["position"], piece["name"], piece["type"]) == (1, "My plan", "Another document")
    for reader, page in ((ada, at), (grace, desk_of(at))):
        answer = reader.get(f"{page}/transmissions/1/pieces/1")
        assert answer.content == b"bytes of My plan"
        assert "My%20plan.pdf" in answer.headers["content-disposition"]
        for end in ("2", "2/form", "0", "x", "1/pieces/2", "1/pieces/x", "1/pieces/0", "9999999999"):
            assert reader.get(f"{page}/transmissions/{end}").status_code == 404


# ---- correcting


def test_what_is_to_be_corrected_is_said(place: Place, ada: Visitor, grace: Visitor) -> None:
    """COR-02, COR-03, COR-01, TRK-05, MAIL-01: items with their comments, shown first with the way to each; a mail with status, reference and link; what was sent stays as it was."""
    at = ready(place, ada)
    attaches(place, at, "My plan")
    sends(ada, at)
    page = grace.get(f"{desk_of(at)}/correction").text
    assert "My plan" in page
    assert "Answer: 12 Mill Lane" in page
    done = returns(grace, at, field_street="Which\nnumber?", piece_1="Too small.", general="Nearly there.")
    assert (done.status_code, done.headers["location"]) == (303, desk_of(at))
    found = ada.json(at).json()
    assert found["procedure"]["status_name"] == "To be corrected"
    assert [(one["kind"], one["label"], one["comment"], one["href"]) for one in found["to_correct"]] == [
        ("general", "In general", "Nearly there.", ""),
        ("field", "Number and street", "Which\nnumber?", f"{at}/steps/address#field-street"),
        ("attachment", "My plan", "Too small.", f"{at}/attachments"),
    ]
    text = ada.get(at).text
    assert text.index("What is to be corrected") < text.index("Too small.") < text.index("Edit the declaration")
    reference = at.rsplit("/", 1)[1]
    assert mails(place, "status") == [
        {
            "recipient": "ada@example.org", "language": "en", "status": "to_be_corrected", "reference": reference,
            "link": ORIGIN + at,
        }
    ]  # fmt: skip
    (line,) = [one for one in ada.json(f"{at}/history").json()["history"] if one["status"] == "to_be_corrected"]
    assert (line["side"], line["by"], line["points"]) == ("administration", "", 3)
    for reader, page in ((ada, at), (grace, desk_of(at))):
        assert f'href="{page}/transmissions/1">3 points to be corrected</a>' in reader.get(f"{page}/history").text
    step = ada.get(f"{at}/steps/address").text
    assert step.index("The administration writes: Which\nnumber?") < step.index('id="field-street"')
    assert "Too small." not in step
    assert "Grace" not in ada.get(f"{at}/history").text
    assert grace.json(desk_of(at)).json()["items"][0]["href"] == ""


def test_what_was_sent_is_read_without_its_definition(place: Place, ada: Visitor, grace: Visitor) -> None:
    """ESP-32, PROC-20, 0.1: where somebody has taken its file away, form, pieces and history can be read; a page that needs it says so, with the way to what was signed, and nothing is a mistake of ours."""
    at = ready(place, ada)
    piece = attaches(place, at, "My plan")
    sends(ada, at)
    closes(grace, at, reason="Done.")
    known = place.services.catalogue
    versions = {key: one for key, one in known.versions.items() if key[0] != row(place, at)["definition"]}
    services = {"catalogue": replace(known, versions=versions)}
    hers, theirs, desk = without(ada, **services), without(grace, **services), desk_of(at)
    for ending in (
        "/form",
        "/form/download",
        "/transmissions/1/form",
        "/transmissions/1/pieces/1",
        f"/attachments/{piece}",
    ):
        assert hers.get(at + ending).content == ada.get(at + ending).content
    for ending in ("/transmissions/1/form", "/transmissions/1/pieces/1", "/history", "/messages"):
        assert theirs.get(desk + ending).status_code == 200
    for person, base, endings, stored in (
        (
            hers,
            at,
            ("", "/history", "/messages", "/attachments", "/transmissions/1", "/sending", "/copy"),
            f"{at}/form",
        ),
        (theirs, desk, ("", "/transmissions/1"), f"{desk}/transmissions/1/form"),
    ):
        for ending in endings:
            page = person.get(base + ending)
            assert (page.status_code, f'href="{stored}"' in page.text) == (409, True), ending
            assert person.json(base + ending).json()["reason"] == "definition-missing"
    for path in (at.rsplit("/", 1)[0], "/home"):
        assert hers.get(path).status_code in {200, 303}
    assert theirs.get("/desk").status_code == 200


def without(person: Visitor, **services: Any) -> Visitor:
    """The same person in a portal with other services."""
    visitor = Visitor(person.place, portal.app(replace(person.place.services, **services)), ORIGIN)
    visitor.http.cookies = person.http.cookies
    return visitor


@pytest.mark.parametrize(
    ("form", "field", "code"),
    [
        ({}, "general", "required"),
        ({"general": "  "}, "general", "required"),
        ({"general": "x" * 1001}, "general", "too_long"),
        ({"general": "a\x1bb"}, "general", "control_characters"),
        ({"field.nowhere": "x"}, "field.nowhere", "unknown"),
        ({"field.host": "x"}, "field.host", "unknown"),  # not asked with these answers
        ({"piece.1": "x"}, "piece.1", "unknown"),
    ],
)
def test_a_correction_says_what(
    place: Place, ada: Visitor, grace: Visitor, form: dict[str, str], field: str, code: str
) -> None:
    """COR-03: without an item, with one for what was not sent, or too long: validation, what was typed is kept, nothing changes."""
    at = sent(place, ada)
    before = picture(place.services.engine, without=("audit",))
    done = grace.json(f"{desk_of(at)}/correction", {**seen(grace, at), **form})
    assert (done.status_code, [(one["field"], one["code"]) for one in done.json()["errors"]]) == (422, [(field, code)])
    if "field.street" not in form and code == "required":
        page = grace.post(f"{desk_of(at)}/correction", seen(grace, at), page=f"{desk_of(at)}/correction")
        assert "Say at least once what is to be corrected." in page.text
    assert picture(place.services.engine, without=("audit",)) == before


def test_a_long_form_is_opened_step_by_step(place: Place, ada: Visitor, grace: Visitor) -> None:
    """COR-03, UI-03: the steps of a form with many answers are closed; what an agent has written in one stays in sight when another thing is wrong."""
    at = sent(place, ada)
    page = f"{desk_of(at)}/correction"

    def opened(text: str) -> list[str]:
        found = re.findall(r'<details class="part"( open)?><summary><h2>([^<]*)</h2>', text)
        assert {title for _, title in found} == {"Your data", "Your new address"}
        return [title for is_open, title in found if is_open]

    assert opened(grace.get(page).text) == []
    again = grace.post(page, {**seen(grace, at), "field.street": "x" * 1001, "general": "y"}, page=page)
    assert again.status_code == 422
    assert opened(again.text) == ["Your new address"]


def test_a_correction_is_mailed_to_who_sent_it_too(place: Place, ada: Visitor) -> None:
    """COR-02, MAIL-01: in a business space to its address, and to the member who sent it so long as she is one; never twice to one address."""
    business = ada.creates_business()
    at = creates(ada, f"/spaces/{business}", PERMIT)
    sam = joins(place, ada, business, "Sam", "Signer", "signatory")
    private(sam)  # of which she stays the owner
    fills_permit(place, at)
    assert sends(sam, at).status_code == 303
    otto = agent(place, "Otto")
    assert returns(otto, at).status_code == 303
    assert {one["recipient"] for one in mails(place, "status")} == {"office@example.org", "sam@example.org"}
    assert [one["recipient"] for one in mails(place, "received")] == ["office@example.org"]
    sets(place, at, status="sent")
    sender = row(place, at)["sent_by"]
    with place.services.engine.begin() as connection:
        in_team = (schema.members.c.account == sender) & (schema.members.c.role == "signatory")
        connection.execute(delete(schema.members).where(in_team))
        connection.execute(delete(schema.outbox))
    assert returns(otto, at).status_code == 303
    assert [one["recipient"] for one in mails(place, "status")] == ["office@example.org"]


def fills_permit(place: Place, at: str, pieces: Sequence[str] = ("site_plan", "register_extract"), **more: str) -> None:
    """As if it had been filled in, confirmed, signed, and everything attached."""
    given = {"company": "Engines Ltd", "place": "Mill", "activity": "It turns.", "people": "3", "waste": "no", **more}
    sets(place, at, entry="confirmed", form_sha256="f" * 64, answers=json.dumps(given))
    signs(place, at)
    for slot in pieces:
        attaches(place, at, slot, slot)


def test_an_answer_says_who_gets_it(place: Place, ada: Visitor, grace: Visitor) -> None:
    """
    SUB-04: where the definition routes by an answer, that administration has it, and the page before sending, the receipt
    and the mail name it; corrected, it goes back to whoever has asked for that, whatever the answer is now.
    """
    otto = agent(place, "Otto", ENVIRONMENT)
    business = ada.creates_business()
    about = ada.get(f"/spaces/{business}/catalogue/{PERMIT}").text
    assert 'Millbrook Town Hall <span class="hint">(depending on your answers)</span>' in about
    at = creates(ada, f"/spaces/{business}", PERMIT)
    fills_permit(place, at)
    assert "Millbrook Town Hall" in ada.get(f"{at}/sending").text
    assert sends(ada, at).status_code == 303
    assert row(place, at)["administration"] == TOWN_HALL
    assert "1 Town Hall Square" in ada.get(f"{at}/transmissions/1").text
    assert mails(place, "received")[0]["service"] == "Millbrook Town Hall"
    assert [len(one.json("/desk").json()["procedures"]) for one in (grace, otto)] == [1, 0]
    assert otto.get(desk_of(at)).status_code == 404
    assert returns(grace, at).status_code == 303
    changed = {**answers(place, at), "waste": "yes", "waste_kind": "Oil."}
    sets(place, at, answers=json.dumps(changed), form_sha256="e" * 64)
    signs(place, at)
    attaches(place, at, "waste_contract", "waste_contract")
    assert sends(ada, at).headers["location"] == f"{at}/transmissions/2"
    assert row(place, at)["administration"] == TOWN_HALL

    second = creates(ada, f"/spaces/{business}", PERMIT)
    fills_permit(place, second, ("site_plan", "register_extract", "waste_contract"), waste="yes", waste_kind="Oil.")
    assert sends(ada, second).status_code == 303
    assert row(place, second)["administration"] == ENVIRONMENT
    assert otto.get(desk_of(second)).status_code == 200


def test_it_is_corrected_and_sent_again(place: Place, ada: Visitor, grace: Visitor) -> None:
    """COR-04, COR-05, COR-01, SUB-07, SUB-02: the form is open again; what was flagged blocks while it is untouched, fields never do; then it is transmission 2, the request is answered, and both stay readable."""
    at = ready(place, ada)
    old = attaches(place, at, "My plan")
    sends(ada, at)
    accepts(grace, at)
    returns(grace, at, field_street="Which?", piece_1="Too small.")
    assert unmet(ada, at) == ["attachment-flagged"]
    with place.services.engine.begin() as connection:
        connection.execute(delete(schema.attachments).where(schema.attachments.c.id == old))
    assert "replaced or removed" in ada.get(at).text
    attaches(place, at, "A bigger plan")
    assert saves(ada, at, "address", {"street": "13 Mill Lane"}).status_code == 303
    assert unmet(ada, at) == ["not-confirmed"]
    confirms(ada, at)
    assert unmet(ada, at) == ["not-signed"]
    signs(place, at)
    assert row(place, at)["status"] == "to_be_corrected"
    SetClock.later(60)
    assert sends(ada, at).headers["location"] == f"{at}/transmissions/2"
    assert row(place, at)["status"] == "sent"
    (request,) = rows(place, schema.corrections)
    assert (request["number"], request["answered"]) == (1, SetClock.at)
    assert "to_correct" not in ada.json(at).json() or not ada.json(at).json()["to_correct"]
    for reader, page in ((ada, at), (grace, desk_of(at))):
        first, second = (reader.json(f"{page}/transmissions/{number}").json() for number in (1, 2))
        assert [one["comment"] for one in first["items"]] == ["Which?", "Too small."]
        assert (first["pieces"][0]["name"], second["pieces"][0]["name"]) == ("My plan", "A bigger plan")
        assert "12 Mill Lane" in str(first["answers"])
        assert "13 Mill Lane" in str(second["answers"])
        assert second["items"] == []
    assert len(mails(place, "received")) == 2
    told = grace.json(desk_of(at)).json()["changes"]
    assert told == {
        "since": 1,
        "answers": [{"label": "Number and street", "before": "12 Mill Lane", "now": "13 Mill Lane"}],
        "added": ["A bigger plan"],
        "left_out": ["My plan"],
    }
    page = grace.get(desk_of(at)).text
    assert "Changed since transmission 1" in page and "before: 12 Mill Lane" in page and "now: 13 Mill Lane" in page
    assert grace.json(f"{desk_of(at)}/transmissions/1").json()["changes"] is None


def test_with_attachments_alone_the_signature_stands(place: Place, ada: Visitor, grace: Visitor) -> None:
    """COR-04: what was signed is sent once more, with what is attached now."""
    at = sent(place, ada)
    returns(grace, at)
    attaches(place, at, "A plan")
    assert sends(ada, at).headers["location"] == f"{at}/transmissions/2"
    told = grace.json(desk_of(at)).json()["changes"]
    assert (told["answers"], told["added"], told["left_out"]) == ([], ["A plan"], [])
    first, second = rows(place, schema.transmissions)
    assert first["sha256"] == second["sha256"]
    assert [one["number"] for one in rows(place, schema.transmission_pieces)] == [2]


def test_closing_drops_what_was_under_way(place: Place, ada: Visitor, grace: Visitor) -> None:
    """TRK-06, SUB-07: what was edited since goes, bytes included; form, signature and attachments are those of the last transmission, and an attempt to sign ends."""
    at = ready(place, ada)
    attaches(place, at, "My plan")
    sends(ada, at)
    before = {table: picture(place.services.engine)[table] for table in ("transmissions", "transmission_pieces")}
    given, signed = answers(place, at), rows(place, schema.signatures)[0]["file"]
    returns(grace, at)
    with place.services.engine.begin() as connection:
        connection.execute(delete(schema.attachments))
    attaches(place, at, "Another plan")
    saves(ada, at, "address", {"street": "13 Mill Lane"})
    confirms(ada, at)
    signs(place, at)
    unsent = row(place, at)["form_file"]
    dropped = rows(place, schema.attachments)[0]["file"]
    assert closes(grace, at, reason="It took too long.").status_code == 303
    now = row(place, at)
    assert (now["status"], now["entry"], now["signature"], now["form_file"]) == ("closed", "confirmed", "valid", "")
    assert answers(place, at) == given
    assert {one["file"]: one["voided"] is None for one in rows(place, schema.signatures)}[signed]
    assert sum(one["voided"] is None for one in rows(place, schema.signatures)) == 1
    assert [one["name"] for one in rows(place, schema.attachments)] == ["My plan"]
    for gone in (unsent, dropped):
        assert not place.services.blobs.path(gone).exists()
    assert place.services.blobs.path(rows(place, schema.attachments)[0]["file"]).exists()
    assert {table: picture(place.services.engine)[table] for table in before} == before
    page = ada.get(at).text
    assert "It took too long." in page
    assert "12 Mill Lane" in page
    assert "13 Mill Lane" not in page
    assert ada.get(f"{at}/sending").status_code == 409


def test_a_suspended_space_reads_what_it_sent(place: Place, ada: Visitor, grace: Visitor) -> None:
    """SUB-07, ESP-24: a suspended space reads transmissions and messages, and sends nothing."""
    at = sent(place, ada)
    returns(grace, at)
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.spaces).values(state="suspended"))
    assert ada.get(f"{at}/transmissions/1/form").status_code == 200
    assert ada.json(f"{at}/sending", {"version": version(ada, at)}).json()["reason"] == "space-suspended"
    assert f'href="{at}/sending"' not in ada.get(at).text


# ---- what is worth keeping


def test_what_was_sent_is_kept_for_next_time(place: Place, ada: Visitor) -> None:
    """
    ESP-30, ESP-32: the page after the sending, which is there at any time, lists what differs from My information; what is
    ticked is saved there in one step, and the procedure stays as it is.
    """
    at = sent(place, ada)
    page, before = f"{at}/transmissions/1", row(place, at)
    (offered,) = ada.json(page).json()["differing"]
    assert offered == {"item": "phone", "label": "Telephone", "now": "", "sent": answers(place, at)["phone"]}
    assert "Save to My information" in ada.get(page).text
    none = ada.post(page, {"version": "0"}, page=page)
    assert none.status_code == 422
    assert "Tick what is to be saved." in none.text
    assert ada.post(page, {"version": "7", "item_phone": "yes"}, page=page).status_code == 409
    assert rows(place, schema.information) == []
    done = ada.post(page, {"version": "0", "item_phone": "yes", "item_iban": "yes"}, page=page)
    assert (done.status_code, done.headers["location"]) == (303, page)
    (kept,) = rows(place, schema.information)
    assert (kept["item"], kept["value"]) == ("phone", offered["sent"])
    assert row(place, at) == before
    assert ada.json(page).json()["differing"] == []
    assert "Save to My information" not in ada.get(page).text
    assert ada.get(f"{page}/form").headers["content-type"] == "application/pdf"


def test_who_may_not_fill_is_not_offered_it(place: Place, ada: Visitor) -> None:
    """ESP-30: a viewer reads what was sent; saving from it is no option of hers, and refused."""
    business = ada.creates_business()
    at = creates(ada, f"/spaces/{business}", PERMIT)
    viewer = joins(place, ada, business, "Vera", "Viewer", "viewer")
    page = f"{at}/transmissions/1"
    assert viewer.json(page, {"version": "0", "item_vat": "yes"}).json()["code"] == "forbidden"
