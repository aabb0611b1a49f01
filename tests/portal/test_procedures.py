"""Procedures from the catalogue to the confirmed form: created, filled in, left, resumed, checked, edited, copied, deleted."""

import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from portal_adapter import app as portal
from portal_adapter.definitions.catalogue import DIRECTORY
from portal_adapter.definitions.definition import Definition, Route, When
from portal_adapter.domain import kept
from portal_adapter.domain.ids import new_id
from portal_adapter.form.paper import Paper
from portal_adapter.form.process import Printer
from portal_adapter.refusal import Refusal
from portal_adapter.settings import SettingsError, load
from portal_adapter.store import schema
from tests.portal.place import ORIGIN, Place, SetClock, Visitor, hidden
from tests.portal.team import account_of, joins
from tests.portal.test_information import source
from tests.portal.town import picture

ADDRESS = "change-of-address"
PERMIT = "operating-permit"
# Whole answers of the private procedure, by step.
PERSON = {"given": "Ada", "family": "Lovelace", "phone": "+352 26 43 21"}
HOME = {"street": "12 Mill Lane", "postcode": "L-1234", "town": "Millbrook", "since": "1.11.2026", "tenure": "owner"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ada(place: Place) -> Visitor:
    """With a private space."""
    person = place.visitor()
    person.logs_in("Ada", "Lovelace", place.issuer.product("Ada", "Lovelace", serial="10304441830071892504"))
    return person


def private(person: Visitor) -> str:
    """The path of her private space, which is made where there is none."""
    made = person.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    if made.status_code == 303:
        return str(made.headers["location"])
    return next(
        f"/spaces/{one['identifier']}" for one in person.json("/spaces").json()["mine"] if one["kind"] == "private"
    )


def creates(person: Visitor, space: str, definition: str = ADDRESS) -> str:
    """The path of a new procedure's page."""
    page = f"{space}/catalogue/{definition}"
    made = person.post(page, page=page)
    assert made.status_code == 303, made.text
    found = re.fullmatch(r"(.*/procedures/P-[0-9A-Z]{5}-[0-9A-Z]{5})/steps/\w+", made.headers["location"])
    assert found is not None, made.headers["location"]
    return found[1]


def version(person: Visitor, at: str) -> str:
    return str(person.json(at).json()["procedure"]["version"])


def saves(person: Visitor, at: str, step: str, answers: Mapping[str, str], go: str = "next") -> Any:
    return person.post(
        f"{at}/steps/{step}", {"version": version(person, at), "go": go, **answers}, page=f"{at}/steps/{step}"
    )


def fills(person: Visitor, at: str) -> None:
    for step, answers in (("person", PERSON), ("address", HOME)):
        assert saves(person, at, step, answers).status_code == 303


def confirms(person: Visitor, at: str) -> Any:
    return person.post(f"{at}/check", {"version": version(person, at)}, page=f"{at}/check")


def confirmed(person: Visitor) -> str:
    at = creates(person, private(person))
    fills(person, at)
    done = confirms(person, at)
    assert (done.status_code, done.headers["location"]) == (303, f"{at}/check"), done.text
    return at


def row(place: Place, at: str) -> dict[str, Any]:
    with place.services.engine.connect() as connection:
        found = select(schema.procedures).where(schema.procedures.c.reference == at.rsplit("/", 1)[1])
        return dict(connection.execute(found).mappings().one())


def sets(place: Place, at: str, **values: Any) -> None:
    """As if it had happened."""
    with place.services.engine.begin() as connection:
        found = schema.procedures.c.reference == at.rsplit("/", 1)[1]
        connection.execute(update(schema.procedures).where(found).values(**values))


def answers(place: Place, at: str) -> dict[str, str]:
    return dict(json.loads(row(place, at)["answers"]))


def where(person: Visitor, *definitions: Definition, **services: Any) -> Visitor:
    """The same person and database, in a portal that has these definitions, too, or other services."""
    made, known = person.place.services, person.place.services.catalogue
    versions = {**known.versions, **{(one.name, one.version): one for one in definitions}}
    other = replace(made, catalogue=replace(known, versions=versions), **services)
    visitor = Visitor(person.place, portal.app(other), ORIGIN)
    visitor.http.cookies = person.http.cookies
    return visitor


# ---- the catalogue


def names(person: Visitor, path: str) -> list[str]:
    return [one["name"] for one in person.json(path).json()["definitions"]]


def test_a_catalogue_has_what_fits_its_space_by_theme_and_words(ada: Visitor) -> None:
    """PROC-02, PROC-03, PROC-04, PROC-05: a button leads to it; tabs and words narrow it down together, whatever case and accents."""
    own, business = private(ada), f"/spaces/{ada.creates_business()}"
    for page in (own, f"{own}/procedures", f"{own}/files"):
        assert f'href="{own}/catalogue">Select a procedure</a>' in ada.get(page).text
    assert names(ada, f"{own}/catalogue") == [ADDRESS, "transfer-of-lease"]
    assert names(ada, f"{business}/catalogue") == [PERMIT, "transfer-of-lease"]
    assert names(ada, f"{own}/catalogue?theme=business") == ["transfer-of-lease"]
    assert names(ada, f"{own}/catalogue?words=MÓVING+home") == [ADDRESS]
    assert names(ada, f"{own}/catalogue?words=moving&theme=business") == []
    page = ada.get(f"{own}/catalogue?words=moving&theme=business")
    assert page.status_code == 200
    assert "No procedure found." in page.text
    assert all(theme in page.text for theme in ("Family", "Housing", "Business"))
    french = ada.get(f"{own}/catalogue?words=demenagement", headers={"accept-language": "fr"}).text
    assert "Déclarer un changement d’adresse" in french
    assert "cession" not in french
    assert "Sélectionner une démarche" in french
    assert ada.json(f"{own}/catalogue?words={'x' * 100}").status_code == 200
    refused = ada.json(f"{own}/catalogue?words={'x' * 101}")
    assert (refused.status_code, refused.json()["errors"][0]["limit"]) == (422, 100)
    refused = ada.get(f"{own}/catalogue?words={'x' * 101}&theme=housing")
    assert (refused.status_code, refused.text.count("Use at most 100 characters; this has 101.")) == (422, 2)
    assert f'name="words" type="search" value="{"x" * 101}"' in refused.text
    assert 'theme=housing" aria-current="page"' in refused.text
    assert ada.get(f"{own}/catalogue?theme=nothing").status_code == 404


def test_a_link_from_elsewhere_begins_a_procedure(place: Place, ada: Visitor) -> None:
    """PROC-01: by login if need be; in the one space that fits, in one of several, or in one that is created for it first."""
    nobody = place.visitor()
    assert nobody.get(f"/start/{ADDRESS}").headers["location"] == f"/login?back=%2Fstart%2F{ADDRESS}"
    assert ada.get("/start/nothing").status_code == 404
    page = ada.get(f"/start/{ADDRESS}").text
    assert f"/spaces/new/private?back=/start/{ADDRESS}" in page
    assert "new/business" not in page
    at = f"/spaces/new/private?back=/start/{ADDRESS}"
    made = ada.post("/spaces/new/private", {"email": "ada@example.org", "back": f"/start/{ADDRESS}"}, page=at)
    assert made.headers["location"] == f"/start/{ADDRESS}"
    own = private(ada)
    assert ada.get(f"/start/{ADDRESS}").headers["location"] == f"{own}/catalogue/{ADDRESS}"
    business = ada.creates_business()
    found = ada.json("/start/transfer-of-lease").json()
    assert {f"/spaces/{one['identifier']}" for one in found["fitting"]} == {own, f"/spaces/{business}"}
    away = ada.post("/spaces/new/business", {"kind": "association", "title": "A", "company": "A", "email": "a@example.org", "back": "/account"}, page="/terms")  # fmt: skip
    assert away.headers["location"].startswith("/spaces/")


def test_what_does_not_fit_is_not_created(place: Place, ada: Visitor) -> None:
    """ESP-17, ESP-19, PROC-05: another kind of space, and a space that is not certified, are told so; nothing is created."""
    own, business = private(ada), f"/spaces/{ada.creates_business()}"
    permit = place.services.catalogue.versions[PERMIT, 1]
    other = where(ada, permit.model_copy(update={"requires_certified_space": True}))
    for path, reason in (
        (f"{own}/catalogue/{PERMIT}", "wrong-space-kind"),
        (f"{business}/catalogue/{PERMIT}", "space-not-certified"),
    ):
        page = other.json(path).json()
        assert not page["may_create"]
        assert reason in [one["code"] for one in page["unmet"]]
        done = other.json(path, {})
        assert (done.status_code, done.json()["code"], done.json()["reason"]) == (409, "guard-failed", reason)
        assert done.json()["unmet"][0]["href"]
        assert html.unescape(other.post(path, page="/spaces").text).count(done.json()["unmet"][0]["message"]) == 1
    listing = other.json(f"{business}/catalogue").json()["definitions"]
    assert [one["certified_only"] for one in listing if one["name"] == PERMIT] == [True]
    assert other.json(f"{business}/procedures").json()["procedures"] == []
    with place.services.engine.begin() as connection:
        connection.execute(update(schema.spaces).values(certification="yes"))
    creates(other, business, PERMIT)


def test_a_viewer_creates_nothing(place: Place, ada: Visitor) -> None:
    """PROC-06: the role must allow it."""
    business = ada.creates_business()
    eve = joins(place, ada, business, "Eve", "Engineer", "viewer")
    page = eve.get(f"/spaces/{business}/catalogue/{PERMIT}").text
    assert "Your role in this space does not allow" in page
    done = eve.json(f"/spaces/{business}/catalogue/{PERMIT}", {})
    assert (done.status_code, done.json()["right"]) == (403, "fill")


def test_definitions_of_ones_own(place: Place, tmp_path: Path) -> None:
    """PROC-03: a directory of an operator's own takes the place of the examples; every mistake of it is named at the start."""
    own = tmp_path / "own"
    (own / "procedures").mkdir(parents=True)
    for name in ("administrations.toml", "themes.toml"):
        (own / name).write_bytes((DIRECTORY / name).read_bytes())
    text = (DIRECTORY / "procedures" / "transfer-of-lease-1.toml").read_text()
    (own / "procedures" / "a.toml").write_text(text)
    settings = place.config.read_text().replace('state = "state"', f'state = "state"\ndefinitions = "{own}"')
    place.config.write_text(settings)
    found = portal.read_files(load(place.config)).catalogue
    assert {name for name, _ in found.versions} == {"transfer-of-lease"}
    text = text.replace("millbrook-town-hall", "nobody").replace('"business", ', '"x", ')
    (own / "procedures" / "a.toml").write_text(text)
    (own / "themes.toml").write_text("housing = 1")
    with pytest.raises(SettingsError) as raised:
        portal.read_files(load(place.config))
    assert all(word in str(raised.value) for word in ("nobody", "themes.toml does not have x", "themes.toml: housing"))


# ---- creating


def test_a_procedure_is_created_and_listed(place: Place, ada: Visitor) -> None:
    """PROC-06, PROC-18, TRK-01, TRK-02, TRK-10, ESP-31, ESP-34: in preparation, with a reference, its author and its time; the list and the history say so."""
    own = private(ada)
    at = creates(ada, own)
    found = row(place, at)
    assert (found["status"], found["entry"], found["signature"], found["transmissions"]) == (
        "in_preparation",
        "open",
        "none",
        0,
    )
    assert (found["author"], found["created"], found["updated"]) == (
        account_of(place.services.engine, "Ada"),
        SetClock.at,
        SetClock.at,
    )
    (listed,) = ada.json(f"{own}/procedures").json()["procedures"]
    assert (listed["title"], listed["status_name"], listed["messages"]) == (
        "Declare a change of address",
        "In preparation",
        0,
    )
    for page in (own, f"{own}/files", f"{own}/procedures"):
        text = ada.get(page).text
        assert listed["reference"] in text
        assert '<time datetime="2026-11-27T10:00:00+01:00">' in text
        assert "badge" not in text
    (line,) = ada.json(f"{at}/history").json()["history"]
    assert (line["status"], line["side"], line["by"]) == ("in_preparation", "applicant", "Ada Lovelace")
    assert "Saved, not yet sent" in ada.get(at).text
    french = ada.get(at, headers={"accept-language": "fr"}).text
    assert "En préparation" in french
    assert "Reprendre la déclaration" in french


def test_a_double_click_creates_one(place: Place, ada: Visitor) -> None:
    """PROC-06, 0.1: the same form leads to the first one."""
    page = f"{private(ada)}/catalogue/{ADDRESS}"
    fields = {name: value for name, value in ada.form(page).items() if name in {"csrf", "form"}}
    first, second = (ada.http.post(page, data=fields) for _ in range(2))
    assert first.headers["location"] == second.headers["location"]
    with place.services.engine.connect() as connection:
        assert len(connection.execute(select(schema.procedures.c.id)).all()) == 1


def test_the_form_begins_with_what_is_known(tmp_path: Path) -> None:
    """PROC-07, PROC-09, ESP-27, ESP-29: from a source before the space's own data; each with its origin, which a change or a deletion replaces."""
    file = tmp_path / "source.json"
    item = {"key": "family", "label_fr": "Nom", "label_en": "Name", "value": "King"}
    late = {"key": "phone", "label_fr": "T", "label_en": "T", "value": "not a number"}
    file.write_text(
        json.dumps({"subjects": [{"serial": "7", "family": "Lovelace", "given": "Ada", "items": [item, late]}]})
    )
    place = Place(tmp_path / "place", extra=source(file))
    ada = place.visitor()
    ada.logs_in(product=place.issuer.product("Ada", "Lovelace", serial="7"))
    own = private(ada)
    contact = f"{own}/information/contact"
    ada.post(contact, {"version": "0", "phone": "+352 26 43 21"}, page=contact)
    at = creates(ada, own)
    assert answers(place, at) == {"given": "Ada", "family": "King", "phone": "+352264321"}
    assert json.loads(row(place, at)["origins"]) == {
        "given": "information", "family": "source:population", "phone": "information",
    }  # fmt: skip
    page = ada.get(f"{at}/steps/person").text
    assert "Filled in from: National register" in page
    assert "Filled in from your space." in page
    assert saves(ada, at, "person", {"given": "Augusta", "family": "King", "phone": ""}).status_code == 303
    assert json.loads(row(place, at)["origins"]) == {
        "given": "edited", "family": "source:population", "phone": "cleared",
    }  # fmt: skip
    assert answers(place, at) == {"given": "Augusta", "family": "King"}
    page = ada.get(f"{at}/steps/person").text
    assert "you have changed it" in page
    assert "you have taken it out" in page
    file.unlink()  # the source is down: it goes on without
    assert answers(place, creates(ada, own))["family"] == "Lovelace"
    place.close()


def test_what_is_held_about_a_person_fills_no_form_of_a_business(tmp_path: Path) -> None:
    """PROC-07, ESP-37: the team would read it there, and whoever created the form has it shown to her alone; the form has what the business says itself."""
    file = tmp_path / "source.json"
    item = {"key": "email", "label_fr": "E-mail", "label_en": "E-mail", "value": "ada@home.example"}
    file.write_text(json.dumps({"subjects": [{"serial": "7", "family": "Lovelace", "given": "Ada", "items": [item]}]}))
    place = Place(tmp_path / "place", extra=source(file))
    ada = place.visitor()
    ada.logs_in(product=place.issuer.product("Ada", "Lovelace", serial="7"))
    business = f"/spaces/{ada.creates_business()}"
    at = creates(ada, business, PERMIT)
    assert "office@example.org" in answers(place, at).values()
    assert set(json.loads(row(place, at)["origins"]).values()) == {"information"}
    bob = joins(place, ada, business.rsplit("/", 1)[1], role="viewer")
    assert "ada@home.example" not in bob.get(at).text
    assert "ada@home.example" in ada.get(f"{business}/information").text
    place.close()


def test_earlier_procedures_fill_only_what_the_law_allows(place: Place, ada: Visitor) -> None:
    """PROC-08, ESP-28: the same administration needs no rule, another one a rule in force; only what is shareable, of what was last sent and is closed."""
    own = private(ada)
    sent = {"street": "1 Old Road", "town": "Oldtown", "postcode": "L-1111", "given": "Nobody"}

    def closed(**values: Any) -> str:
        at = creates(ada, own)
        found = row(place, at)
        with place.services.engine.begin() as connection:
            connection.execute(
                insert(schema.transmissions).values(
                    procedure=found["id"], number=1, time=SetClock.at, account=found["author"], file="f" * 32,
                    sha256="0" * 64, answers=json.dumps(sent),
                )
            )  # fmt: skip
        sets(place, at, transmissions=1, administration="millbrook-town-hall", **{"status": "closed", **values})
        return at

    closed(status="sent")
    assert "street" not in answers(place, creates(ada, own))
    closed()
    at = creates(ada, own)
    assert {name: value for name, value in answers(place, at).items() if name in sent} == {**sent, "given": "Ada"}
    assert json.loads(row(place, at)["origins"])["street"] == "procedure"
    assert "Filled in from an earlier procedure." in ada.get(f"{at}/steps/address").text

    present = place.services.catalogue.versions[ADDRESS, 1]
    other = where(ada, present.model_copy(update={"administration": "millbrook-environment", "version": 2}))
    assert "street" not in answers(place, creates(other, own))
    rule = {
        "source": "millbrook-town-hall", "target": "millbrook-environment", "item": "street", "basis": "Law 1",
        "operator": "root",
    }  # fmt: skip
    with place.services.engine.begin() as connection:
        connection.execute(
            insert(schema.sharing_rules).values(id=new_id(), begins=SetClock.at - 9, ends=SetClock.at, **rule)
        )
        connection.execute(insert(schema.sharing_rules).values(id=new_id(), begins=SetClock.at + 1, ends=None, **rule))
    assert "street" not in answers(place, creates(other, own))
    with place.services.engine.begin() as connection:
        connection.execute(insert(schema.sharing_rules).values(id=new_id(), begins=SetClock.at, ends=None, **rule))
    found = answers(place, creates(other, own))
    assert found["street"] == "1 Old Road"
    assert "town" not in found
    # Whoever of two will get it: both may be shown it.
    guest = Route(
        administration="millbrook-environment", when=When.model_validate({"field": "tenure", "is": ["guest"]})
    )
    either = where(ada, present.model_copy(update={"route": (guest,), "version": 3}))
    found = answers(place, creates(either, own))
    assert found["street"] == "1 Old Road"
    assert "town" not in found


# ---- filling in


def test_a_draft_is_left_and_resumed(place: Place, ada: Visitor) -> None:
    """PROC-10, PROC-11, PROC-12, PROC-15, TRK-01: saved complete or not, resumed at the step that was left with its values; the status and its time stay."""
    own = private(ada)
    at = creates(ada, own)
    SetClock.later(60)
    assert "Check what was taken from your space" in ada.get(f"{at}/steps/person").text
    assert saves(ada, at, "person", {}).headers["location"] == f"{at}/steps/address"
    left = saves(ada, at, "address", {"street": "12 Mill Lane", "since": "1.11.2026"}, go="later")
    assert left.headers["location"] == f"{own}/procedures"
    assert "The draft is saved." in ada.get(f"{own}/procedures").text
    found = row(place, at)
    assert (found["status"], found["updated"]) == ("in_preparation", SetClock.at - 60)
    assert f'<a class="action" href="{at}/steps/address">Continue the declaration</a>' in ada.get(at).text
    page = ada.get(f"{at}/steps/address").text
    assert 'value="12 Mill Lane"' in page
    assert 'value="2026-11-01"' in page
    assert saves(ada, at, "address", {}, go="previous").headers["location"] == f"{at}/steps/person"


def test_a_wrong_value_keeps_the_others(place: Place, ada: Visitor) -> None:
    """PROC-11, 0.1: everything else is saved, the step is shown again with the wrong value in its field; emptied or mended it goes on."""
    at = creates(ada, private(ada))
    sent = {**HOME, "since": "soon", "street": "x" * 121}
    for go in ("later", "next"):
        page = saves(ada, at, "address", sent, go)
        assert page.status_code == 422
        assert "Error:" in page.text
        assert 'value="soon"' in page.text
        assert "x" * 121 in page.text
        assert 'href="#field-since"' in page.text
        assert f'name="version" value="{version(ada, at)}"' in page.text
    assert {name: answers(place, at).get(name) for name in HOME} == {**HOME, "since": None, "street": None}
    problem = ada.json(f"{at}/steps/address", {"version": version(ada, at), "since": "soon", "town": "Elsewhere"})
    assert (problem.status_code, [(one["field"], one["code"]) for one in problem.json()["errors"]]) == (
        422, [("since", "date_invalid")],
    )  # fmt: skip
    assert answers(place, at)["town"] == "Elsewhere"
    assert saves(ada, at, "address", {"since": "", "street": "1 Road"}, "later").status_code == 303


def test_a_field_that_there_is_not_is_refused(place: Place, ada: Visitor) -> None:
    """PROC-10: nothing but the step's own fields is taken, and a version is wanted."""
    at = creates(ada, private(ada))
    before = answers(place, at)
    problem = ada.json(f"{at}/steps/person", {"version": "1", "street": "1 Road"})
    assert [(one["field"], one["code"]) for one in problem.json()["errors"]] == [("street", "unknown")]
    assert ada.json(f"{at}/steps/person", {"given": "Eve"}).json()["errors"][0]["field"] == "version"
    assert answers(place, at) == before


def test_an_answer_brings_a_question_up(place: Place, ada: Visitor) -> None:
    """PROC-10: a field whose condition an answer of the same step has made true is shown before one goes on; hidden again it is not kept at the confirmation."""
    at = creates(ada, private(ada))
    saves(ada, at, "person", PERSON)
    assert "Name of your host" not in ada.get(f"{at}/steps/address").text
    again = saves(ada, at, "address", {**HOME, "tenure": "guest"})
    assert again.headers["location"] == f"{at}/steps/address"
    page = ada.get(f"{at}/steps/address").text
    assert "Your answer adds a question to this step." in page
    assert "Name of your host" in page
    assert saves(ada, at, "address", {"host": "Charles"}).headers["location"] == f"{at}/check"
    saves(ada, at, "address", {"tenure": "owner", "host": "x" * 500})
    assert answers(place, at)["host"] == "Charles"
    assert confirms(ada, at).status_code == 303
    assert "host" not in answers(place, at)


def test_two_who_have_the_same_draft_open(place: Place, ada: Visitor) -> None:
    """PROC-19, 0.1: who saves an older version is told; both texts stand in the page, and saving again is said knowingly."""
    business = ada.creates_business()
    bob = joins(place, ada, business)
    at = creates(ada, f"/spaces/{business}", PERMIT)
    seen = version(bob, at)
    saves(ada, at, "business", {"company": "Engines of Ada", "contact": "ada@example.org"})
    fields = {"version": seen, "company": "Engines of Bob", "contact": "ada@example.org"}
    page = bob.post(f"{at}/steps/business", fields, page=f"{at}/steps/business")
    assert page.status_code == 409
    assert "Stored now: Engines of Ada" in page.text
    assert 'value="Engines of Bob"' in page.text
    assert answers(place, at)["company"] == "Engines of Ada"
    fields["version"] = version(bob, at)
    assert bob.post(f"{at}/steps/business", fields, page=f"{at}/steps/business").status_code == 303
    assert answers(place, at)["company"] == "Engines of Bob"


# ---- checking, confirming, editing


def test_the_entry_is_checked_and_confirmed(place: Place, ada: Visitor) -> None:
    """PROC-13: every answer with a way to change it; what is missing is named with its place; then the PDF and its hash are stored."""
    own = private(ada)
    at = creates(ada, own)
    saves(ada, at, "person", {})
    saves(ada, at, "address", {**HOME, "street": ""})
    page = ada.get(f"{at}/check")
    assert "Still empty: Number and street" in page.text
    assert f'href="{at}/steps/address#field-street"' in page.text
    assert "Confirm the entry" not in page.text
    refused = ada.json(f"{at}/check", {"version": version(ada, at)}).json()
    assert (refused["code"], [one["href"] for one in refused["unmet"]]) == (
        "guard-failed", [f"{at}/steps/address#field-street"],
    )  # fmt: skip
    html = ada.post(f"{at}/check", {"version": version(ada, at)}, page=f"{at}/check")
    assert (html.status_code, "Still empty: Number and street" in html.text) == (409, True)
    assert row(place, at)["entry"] == "open"
    saves(ada, at, "address", {"street": "12 Mill Lane"})
    page = ada.get(f"{at}/check").text
    for text in (
        "12 Mill Lane",
        "1 November 2026",
        "the owner",
        "Confirm the entry",
        f"{at}/steps/address#field-tenure",
    ):
        assert text in page
    assert confirms(ada, at).headers["location"] == f"{at}/check"
    found = row(place, at)
    assert (found["entry"], found["status"], found["updated"]) == ("confirmed", "in_preparation", found["created"])
    pdf = ada.get(f"{at}/form")
    assert (pdf.status_code, pdf.headers["content-type"]) == (200, "application/pdf")
    assert pdf.headers["content-disposition"].startswith("inline")
    assert hashlib.sha256(pdf.content).hexdigest() == found["form_sha256"]
    assert b"12 Mill Lane" in pdf.content
    again = ada.json(f"{at}/check", {"version": version(ada, at)})
    assert (again.status_code, again.json()["reason"]) == (409, "already-confirmed")
    assert ada.json(f"{at}/check", {"version": "1"}).status_code == 409
    assert f'<a class="secondary" href="{at}/check">Edit the declaration' in ada.get(at).text  # to be signed now
    assert "Confirm the entry" not in ada.get(f"{at}/check").text


def test_a_double_click_confirms_once(place: Place, ada: Visitor) -> None:
    """PROC-13, 0.1: the same form leads where it led; one file is kept."""
    at = creates(ada, private(ada))
    fills(ada, at)
    given = {name: value for name, value in ada.form(f"{at}/check").items() if name in {"csrf", "form"}}
    fields = {**given, "version": version(ada, at)}
    first, second = (ada.http.post(f"{at}/check", data=fields) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert len([one for one in (place.directory / "state" / "blobs").iterdir() if one.is_file()]) == 1


def test_without_its_renderer_nothing_is_confirmed(place: Place, ada: Visitor) -> None:
    """PROC-13, 0.1: a form that cannot be made just now is said so, and everything stays; one that is stale is not made at all."""
    at = creates(ada, private(ada))
    fills(ada, at)

    class Away(Printer):
        def draw(self, paper: Paper) -> bytes:
            raise Refusal("signer-unavailable", "The form cannot be made just now. Please try again in a moment.")

    other = where(ada, printer=Away())
    before = row(place, at)
    assert confirms(other, at).status_code == 503
    assert other.json(f"{at}/check", {"version": "1"}).json()["code"] == "stale"
    assert row(place, at) == before


def test_a_change_voids_what_was_confirmed_and_signed(place: Place, ada: Visitor) -> None:
    """PROC-14, PROC-12: only a real change does, and for good; the signature stays in the history, the PDF goes, an open attempt ends."""
    at = confirmed(ada)
    found = row(place, at)
    SetClock.later(60)
    with place.services.engine.begin() as connection:
        who = {"procedure": found["id"], "account": found["author"], "number": 1, "fingerprint": "0" * 64}
        connection.execute(
            insert(schema.signatures).values(
                id=new_id(), credential="ada", file="e" * 32, sha256="0" * 64, form_sha256=found["form_sha256"],
                approved=1, time=1, **who,
            )
        )  # fmt: skip
        connection.execute(
            insert(schema.signings).values(
                id=new_id(),
                open=found["id"],
                session="s",
                space=found["space"],
                state="select",
                created=1,
                seen=1,
                **who,
            )
        )
    sets(place, at, status="ready", signature="valid")
    assert f'href="{at}/check">Edit the declaration' in ada.get(at).text
    assert "a signature becomes void" in ada.get(f"{at}/steps/address").text
    unchanged = saves(ada, at, "address", {**HOME, "street": "  12 Mill Lane ", "since": "2026-11-01"})
    assert unchanged.headers["location"] == f"{at}/check"
    now = row(place, at)
    assert (now["status"], now["signature"], now["version"], now["updated"]) == (
        "ready",
        "valid",
        found["version"],
        found["updated"],
    )
    blob = place.services.blobs.path(found["form_file"])
    assert blob.exists()
    assert saves(ada, at, "address", {"street": "13 Mill Lane"}).status_code == 303
    said = "The signature is void: check, confirm and sign again."
    assert said in ada.get(f"{at}/check").text  # once
    assert said not in ada.get(f"{at}/check").text and said in ada.get(at).text
    assert (
        ada.json(f"{at}/history").json()["history"][0]["comment"]
        == "The declaration was changed: its signature is void."
    )
    now = row(place, at)
    assert (now["status"], now["entry"], now["signature"], now["form_file"]) == ("in_preparation", "open", "void", "")
    assert now["updated"] == SetClock.at
    assert not blob.exists()
    with place.services.engine.connect() as connection:
        assert connection.execute(select(schema.signatures.c.voided)).scalar_one() == SetClock.at
        assert tuple(connection.execute(select(schema.signings.c.open, schema.signings.c.state)).one()) == (
            None,
            "cancelled",
        )
    saves(ada, at, "address", {"street": "12 Mill Lane"})
    assert row(place, at)["signature"] == "void"
    assert [one["status"] for one in ada.json(f"{at}/history").json()["history"]] == [
        "in_preparation",
        "in_preparation",
    ]


@pytest.mark.parametrize("status", ["sent", "accepted", "closed"])
def test_what_was_sent_is_not_changed(place: Place, ada: Visitor, status: str) -> None:
    """PROC-12, PROC-14, PROC-17, COR-01, SUB-05: no save, no confirmation and no deletion; the answer names the state and what is allowed; copying goes on."""
    at = confirmed(ada)
    sets(place, at, status=status, transmissions=1)
    before = picture(place.services.engine, without=("audit",))
    page = ada.get(at).text
    assert "Continue the declaration" not in page
    assert "Edit the declaration" not in page
    assert "Delete the procedure" not in page
    assert "Copy the procedure" in page
    for path, event in ((f"{at}/steps/person", "save"), (f"{at}/check", "confirm"), (f"{at}/delete", "delete")):
        done = ada.json(path, {"version": version(ada, at), "given": "Eve", "confirmed": "yes"})
        assert (done.status_code, done.json()["code"]) == (409, "forbidden-transition"), path
        assert (done.json()["state"], done.json()["event"]) == (status, event)
        assert event not in done.json()["allowed"]
        assert ada.get(path).status_code == 409
    assert picture(place.services.engine, without=("audit",)) == before


def test_what_was_sent_back_is_changed_and_not_deleted(place: Place, ada: Visitor) -> None:
    """PROC-14, PROC-17, COR-04: to be corrected the form is open again, and the status word stays; it is never deleted."""
    at = confirmed(ada)
    sets(place, at, status="to_be_corrected", transmissions=1, signature="valid")
    assert saves(ada, at, "address", {"street": "13 Mill Lane"}).status_code == 303
    now = row(place, at)
    assert (now["status"], now["entry"], now["signature"]) == ("to_be_corrected", "open", "void")
    assert confirms(ada, at).status_code == 303
    assert row(place, at)["status"] == "to_be_corrected"
    done = ada.json(f"{at}/delete", {"confirmed": "yes"})
    assert (done.status_code, done.json()["code"]) == (409, "forbidden-transition")


def test_while_another_space_has_it_nothing_is_changed(place: Place, ada: Visitor) -> None:
    """SIG-17: edited and deleted only after a recall."""
    at = confirmed(ada)
    sets(place, at, signature="first", second_state="transferred")
    for path, fields in ((f"{at}/steps/address", {"street": "13 Mill Lane"}), (f"{at}/delete", {"confirmed": "yes"})):
        done = ada.json(path, {"version": version(ada, at), **fields})
        assert (done.status_code, done.json()["reason"]) == (409, "transferred")
    assert "Delete the procedure" not in ada.get(at).text


# ---- copying and deleting


def test_a_procedure_is_copied(place: Place, ada: Visitor) -> None:
    """
    PROC-16, PROC-20, ESP-17, ESP-19: answers alone, in the present version; what has no field there is named once and left out; a
    withdrawn one is not copied, nor one that the space may not create any more.
    """
    at = confirmed(ada)
    sets(place, at, status="closed", transmissions=1, signature="valid")
    assert "left out" not in ada.get(f"{at}/copy").text
    made = ada.post(f"{at}/copy", page=f"{at}/copy").headers["location"]
    new, old = row(place, made), row(place, at)
    assert made != at
    assert (new["status"], new["entry"], new["signature"], new["transmissions"]) == (
        "in_preparation",
        "open",
        "none",
        0,
    )
    assert (answers(place, made), new["form_file"]) == (answers(place, at), "")
    assert len(ada.json(f"{made}/history").json()["history"]) == 1
    assert old["version"] == row(place, at)["version"]

    present = place.services.catalogue.versions[ADDRESS, 1]
    first, second = present.step
    shorter = second.model_copy(update={"field": tuple(one for one in second.field if one.id != "street")})
    newer = present.model_copy(update={"version": 2, "step": (first, shorter)})
    other = where(ada, newer)
    page = other.get(f"{at}/copy").text
    assert "left out" in page
    assert "12 Mill Lane" in page
    made = other.post(f"{at}/copy", page=f"{at}/copy").headers["location"]
    assert row(place, made)["definition_version"] == 2
    assert "street" not in answers(place, made)
    assert "12 Mill Lane" in other.get(at).text  # the old one keeps its version

    other = where(ada, newer.model_copy(update={"withdrawn": True}))
    assert "no longer offered" in other.get(f"{at}/copy").text
    assert other.json(f"{at}/copy", {}).json()["reason"] == "definition-withdrawn"
    assert other.get(f"{at.rsplit('/', 2)[0]}/catalogue/{ADDRESS}").status_code == 404
    assert other.get(f"{made}/steps/person").status_code == 200  # and a draft goes on
    for change, reason in (
        ({"audience": "business"}, "wrong-space-kind"),
        ({"requires_certified_space": True}, "space-not-certified"),
    ):
        other = where(ada, newer.model_copy(update=change))
        page = other.get(f"{at}/copy").text
        assert "This cannot be created here" in page and f'action="{at}/copy"' not in page
        assert [one["code"] for one in other.json(f"{at}/copy").json()["unmet"]] == [reason]
        before = picture(place.services.engine, without=("audit",))
        done = other.json(f"{at}/copy", {}).json()
        assert (done["code"], done["reason"]) == ("guard-failed", reason)
        assert picture(place.services.engine, without=("audit",)) == before


def test_a_procedure_is_deleted_for_good(place: Place, ada: Visitor) -> None:
    """PROC-17, UI-06: only with its confirmation, which names it; form, PDF and history go, a bare line of the audit stays, and it is not found any more."""
    at = confirmed(ada)
    reference = at.rsplit("/", 1)[1]
    blob = place.services.blobs.path(row(place, at)["form_file"])
    page = ada.get(f"{at}/delete").text
    assert reference in page
    assert "cannot be brought back" in page
    done = ada.json(f"{at}/delete", {})
    assert (done.status_code, done.json()["code"]) == (422, "confirmation-required")
    assert blob.exists()
    asked = ada.post(f"{at}/delete", {}, page=f"{at}/delete")
    assert (asked.status_code, f'action="{at}/delete"' in asked.text, reference in asked.text) == (422, True, True)
    assert hidden(asked.text)["confirmed"] == "yes"
    done = ada.post(f"{at}/delete", ada.form(f"{at}/delete"), page=f"{at}/delete")
    assert done.headers["location"] == at.rsplit("/", 1)[0]
    assert not blob.exists()
    found = picture(place.services.engine)
    assert found["procedures"] == found["procedure_history"] == []
    assert "Mill Lane" not in str(found)
    assert [line for line in found["audit"] if "procedure-delete" in line and reference in str(line)]
    for path in (at, f"{at}/steps/person", f"{at}/check", f"{at}/form", f"{at}/history", f"{at}/delete"):
        assert ada.get(path).status_code == 404
    assert ada.json(f"{at}/delete", {"confirmed": "yes"}).status_code == 404


def test_what_was_signed_meanwhile_is_not_deleted(place: Place, ada: Visitor) -> None:
    """PROC-17, PROC-19, 0.1: a page of the draft erases nothing that a colleague has gone on with since; the page that comes back says so, and has the present version."""
    at = creates(ada, private(ada))
    old = ada.form(f"{at}/delete")
    for code, version_ in (("validation", "x"), ("stale", "7")):
        done = ada.json(f"{at}/delete", {"confirmed": "yes", "version": version_})
        assert done.json()["code"] == code
    saves(ada, at, "person", PERSON)
    saves(ada, at, "address", HOME)
    confirms(ada, at)
    sets(place, at, status="ready", signature="valid")
    done = ada.http.post(f"{at}/delete", data=old)
    assert done.status_code == 409
    assert row(place, at)["status"] == "ready"
    assert hidden(done.text)["version"] == version(ada, at) != old["version"]
    assert ada.http.post(f"{at}/delete", data=hidden(done.text)).status_code == 303


def test_bytes_stay_while_a_row_names_them(place: Place, ada: Visitor) -> None:
    """SUB-07, ATT-06: every column that names a file is looked at before its bytes go, and when old ones are swept."""
    named = {
        column
        for table in schema.METADATA.sorted_tables
        for column in table.c
        if column.name == "file" or column.name.endswith("_file")
    }
    assert set(kept.COLUMNS) == named
    at = confirmed(ada)
    file = row(place, at)["form_file"]
    with place.services.engine.begin() as connection:
        assert kept.unnamed(connection, [file, "", "0" * 32]) == ["0" * 32]
        assert kept.sweep(connection, place.services.blobs, SetClock.at + 10**9) == 0


# ---- the list


def test_the_list_is_narrowed_down_by_status(place: Place, ada: Visitor) -> None:
    """PROC-18, TRK-02, TRK-03, TRK-04, TRK-05, TRK-06, ESP-33: with the names people know, in both languages, each with what it means; what is ready is not sent."""
    own = private(ada)
    names = {
        "in_preparation": ("In preparation", "En préparation"), "ready": ("Ready", "Prête"), "sent": ("Sent", "Transmise"),
        "accepted": ("Accepted", "Acceptée"), "to_be_corrected": ("To be corrected", "À corriger"),
        "closed": ("Closed", "Clôturée"),
    }  # fmt: skip
    for status in names:
        sets(place, creates(ada, own), status=status)

    def statuses(query: str) -> list[str]:
        return sorted(one["status"] for one in ada.json(f"{own}/procedures{query}").json()["procedures"])

    assert statuses("") == sorted(names)
    assert statuses("?status=not_sent") == ["in_preparation", "ready"]
    for status in ("sent", "accepted", "to_be_corrected", "closed"):
        assert statuses(f"?status={status}") == [status]
    for query in ("?status=erased", "?page=2", "?page=0", "?page=x"):
        assert ada.get(f"{own}/procedures{query}").status_code == 404
    for at, language in ((0, "en"), (1, "fr")):
        listing = ada.json(f"{own}/procedures").json() if at == 0 else None
        page = ada.get(f"{own}/procedures", headers={"accept-language": language}).text
        assert all(name[at] in page for name in names.values())
        if listing:
            assert all(one["status_said"] for one in listing["procedures"])


def test_messages_of_the_administration_are_counted_in_a_red_circle(place: Place, ada: Visitor) -> None:
    """TRK-09: all that the administration has sent, the unread ones in the text alternative; one's own are not counted."""
    own = private(ada)
    at = creates(ada, own)
    found = row(place, at)
    for number, (side, read) in enumerate((("administration", None), ("administration", 5), ("applicant", None)), 1):
        with place.services.engine.begin() as connection:
            connection.execute(
                insert(schema.messages).values(
                    id=new_id(), procedure=found["id"], number=number, time=1, side=side, account=found["author"],
                    subject="s", body="b", read=read,
                )
            )  # fmt: skip
    (listed,) = ada.json(f"{own}/procedures").json()["procedures"]
    assert (listed["messages"], listed["unread"]) == (2, 1)
    page = ada.get(f"{own}/procedures").text
    assert '<span class="badge"><span aria-hidden="true">2</span>' in page
    assert "2 messages from the administration, 1 unread" in page


def test_a_long_list_has_pages(place: Place, ada: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROC-18: the one whose status changed last stands first."""
    own = private(ada)
    made = []
    for _ in range(3):
        SetClock.later(1)
        made.append(creates(ada, own).rsplit("/", 1)[1])
    monkeypatch.setattr("portal_adapter.domain.procedure.PAGE", 2)
    first, second = (ada.json(f"{own}/procedures?page={page}").json() for page in (1, 2))
    assert [one["reference"] for one in first["procedures"]] + [
        one["reference"] for one in second["procedures"]
    ] == made[::-1]
    assert "Next page" in ada.get(f"{own}/procedures").text


def test_members_read_and_others_see_nothing(place: Place, ada: Visitor) -> None:
    """PROC-06, 0.1: a viewer reads and changes nothing; a stranger, and another space of the same person, do not find it."""
    business = f"/spaces/{ada.creates_business()}"
    at = creates(ada, business, PERMIT)
    eve = joins(place, ada, business.rsplit("/", 1)[1], "Eve", "Engineer", "viewer")
    page = eve.get(at)
    assert page.status_code == 200
    assert "Continue" not in page.text
    assert eve.json(f"{business}/procedures").json()["procedures"]
    for path, fields in (
        (f"{at}/steps/business", {"company": "x"}),
        (f"{at}/check", {}),
        (f"{at}/copy", {}),
        (f"{at}/delete", {"confirmed": "yes"}),
    ):
        done = eve.json(path, {"version": "1", **fields})
        assert (done.status_code, done.json()["code"]) == (403, "forbidden")
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    assert bob.get(at).status_code == 404
    assert ada.get(f"{private(ada)}/procedures/{at.rsplit('/', 1)[1]}").status_code == 404
