"""Spaces: which one may make, what they are told apart by, where one lands, and their data."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from portal_adapter.domain.fields import masked
from portal_adapter.settings import SettingsError, load
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from tests.portal.commands import command
from tests.portal.place import Place, Visitor
from tests.portal.team import account_of, invites, joins
from tests.portal.town import picture

UNCHANGED = ("audit",)  # that a refusal does write to
NEW = "/spaces/new/business"
PRO = "1.3.171.1.1.10.3"
Make = Callable[..., Place]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make("single_space = true")`: a place with these lines in [business]."""
    made: list[Place] = []

    def place(*business: str) -> Place:
        made.append(Place(tmp_path, extra="\n".join(["[business]", *business])))
        return made[-1]

    yield place
    for one in made:
        one.close()


@pytest.fixture
def place(make: Make) -> Place:
    return make()


def form(title: str = "Engines", **more: str) -> dict[str, str]:
    return {"kind": "legal_person", "title": title, "company": f"{title} Ltd", "email": "office@example.org", **more}


def private_space(visitor: Visitor) -> str:
    page = "/spaces/new/private"
    done = visitor.post(page, {"email": "home@example.org"}, page=page)
    assert done.status_code == 303, done.text
    return done.headers["location"]


def codes(answer: object) -> list[tuple[str, str]]:
    return [(one["field"], one["code"]) for one in answer.json()["errors"]]  # type: ignore[attr-defined]


# ---- creating


def test_one_private_space_and_many_business_spaces(place: Place, ada: Visitor) -> None:
    """ESP-01, ESP-35, ESP-16: one private space each, with its identifier on its page; a second one is refused and leads to the spaces that there are."""
    assert "Create a private space" in ada.get("/spaces").text
    at = private_space(ada)
    shown = ada.json(at).json()["shown"]["identifier_shown"]
    assert f"<code>{shown}</code>" in ada.get(at).text  # what a second signature by another space needs (ESP-16)
    assert "Create a private space" not in ada.get("/spaces").text
    before = picture(place.services.engine, without=UNCHANGED)
    answer = ada.json("/spaces/new/private", {"email": "ada@example.org"})
    assert (answer.status_code, answer.json()["code"]) == (409, "guard-failed")
    assert answer.json()["unmet"] == [
        {"code": "private-space-exists", "message": "You have a private space already.", "href": "/spaces"}
    ]
    assert picture(place.services.engine, without=UNCHANGED) == before
    for title in ("Engines", "Looms"):
        ada.creates_business(title)


@pytest.mark.parametrize("kind", ["legal_person", "self_employed", "association"])
def test_a_business_space_is_for_one_of_three_kinds(ada: Visitor, kind: str) -> None:
    """ESP-02: a legal person, a self-employed person or an association; whoever makes it is its administrator."""
    identifier = ada.creates_business("Engines", kind=kind)
    assert ada.json(f"/spaces/{identifier}").json()["shown"]["role"] == "administrator"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("kind", "", "required"), ("kind", "state", "unknown"),
        ("title", "", "required"), ("title", " \t", "required"), ("title", "T" * 101, "too_long"),
        ("title", "a\u202eb", "control_characters"), ("title", "a\0b", "control_characters"),
        ("company", "", "required"), ("company", "C" * 201, "too_long"),
        ("registration", "1" * 65, "too_long"),
        ("email", "", "required"), ("email", "office", "email_invalid"), ("email", "a@b@example.org", "email_invalid"),
        ("family", "Byron", "read-only"), ("given", "Augusta", "read-only"), ("identifier", "0123456789A", "read-only"),
    ],
)  # fmt: skip
def test_a_wrong_form_makes_no_space(place: Place, ada: Visitor, field: str, value: str, code: str) -> None:
    """ESP-02, ESP-04, ESP-07, ESP-08, ESP-09, ESP-10, ESP-15, TOK-07: the mistake beside its field, the rest kept, no space."""
    before = picture(place.services.engine, without=UNCHANGED)
    assert codes(ada.json(NEW, {**form(), field: value})) == [(field, code)]
    page = ada.post(NEW, {**form(), field: value}, page=NEW)
    assert page.status_code == 422
    assert f'href="#field-{field}"' in page.text
    assert field == "title" or 'value="Engines"' in page.text
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_a_title_is_no_format(ada: Visitor) -> None:
    """ESP-07: braces and percent signs in what is typed are shown as they stand, on every page and in what is told."""
    title = "{portal_name} {0.__class__} %s %(x)s {{ 7*7 }}"
    identifier = ada.creates_business(title)
    for path in ("/spaces", f"/spaces/{identifier}", f"/spaces/{identifier}/team"):
        assert title in ada.get(path).text, path
    for language in ("en", "fr"):
        ada.post("/language", {"language": language})
        again = ada.post(NEW, {**form(), "title": title}, page=NEW)
        assert again.status_code == 422 and f'value="{title}"' in again.text
    ada.post("/language", {"language": "en"})


def test_all_mistakes_are_said_at_once(ada: Visitor) -> None:
    """ESP-04: an empty form names each mandatory field."""
    wanted = {("kind", "required"), ("title", "required"), ("company", "required"), ("email", "required")}
    assert set(codes(ada.json(NEW, {}))) == wanted


def test_the_longest_texts_are_taken(ada: Visitor) -> None:
    """ESP-07, ESP-08, 0.4: 100 characters of title and 200 of company, counted after NFC."""
    identifier = ada.creates_business("é" * 100, company="e\u0301" * 200)
    shown = ada.json(f"/spaces/{identifier}").json()["shown"]
    assert (shown["title"], shown["company"]) == ("é" * 100, "é" * 200)


def test_names_are_read_only_and_the_issuer_is_named(ada: Visitor) -> None:
    """ESP-09, TOK-07: both names stand in the form, read-only, with where to have them corrected."""
    page = ada.get(NEW).text
    for value in ("Ada", "Lovelace"):
        assert f'value="{value}" readonly' in page
    assert "its issuer is the place to correct it" in page


def test_a_space_has_an_address_of_its_own(place: Place, ada: Visitor) -> None:
    """ESP-10: prefilled from the account, editable, and the account keeps its own; used at once."""
    assert 'value="ada@example.org"' in ada.get(NEW).text
    identifier = ada.creates_business(email="works@example.org")
    assert ada.json(f"/spaces/{identifier}").json()["shown"]["email"] == "works@example.org"
    assert ada.json("/account").json()["email"] == "ada@example.org"


def test_titles_differ_among_what_one_administers(place: Place, ada: Visitor) -> None:
    """ESP-07: whatever the case, also when a title is changed; somebody else may take the same one, and it may be the company's."""
    ada.creates_business("Engines", company="Engines")
    assert codes(ada.json(NEW, form("ENGINES"))) == [("title", "duplicate")]
    other = ada.creates_business("Looms")
    page = f"/spaces/{other}/data"
    assert codes(ada.json(page, {**form("engines"), "version": "1"})) == [("title", "duplicate")]
    del_kind = {name: value for name, value in form("LOOMS").items() if name != "kind"}
    assert ada.post(page, {**del_kind, "version": "1"}, page=page).status_code == 303  # its own title, in capitals
    bob = place.visitor()
    bob.logs_in("Bob", "Babbage")
    bob.creates_business("Engines")


def test_several_spaces_for_one_company(ada: Visitor) -> None:
    """ESP-08, ESP-12: the company's name and number may be the same; from the header's menu one comes to the form again."""
    first = ada.creates_business("Engines", company="Works", registration="B 1")
    assert "Manage my spaces" in ada.get(f"/spaces/{first}").text
    assert f'href="{NEW}"' in ada.get("/spaces").text
    second = ada.creates_business("Looms", company="Works", registration="B 1")
    assert first != second


def test_one_space_a_business_where_it_is_set_so(make: Make) -> None:
    """ESP-13: the registration number is mandatory then, a second space is refused and says whom to ask, address masked."""
    place = make("single_space = true")
    ada, bob = place.visitor(), place.visitor()
    ada.logs_in()
    bob.logs_in("Bob", "Babbage")
    assert codes(ada.json(NEW, form())) == [("registration", "required")]
    identifier = ada.creates_business("Engines", registration="B 123")
    before = picture(place.services.engine, without=UNCHANGED)
    for same in ("b 123", "B123", "B-1.23", "\uff22 123"):
        answer = bob.json(NEW, form("Mine", registration=same))
        assert (answer.status_code, answer.json()["reason"]) == (409, "business-space-exists"), same
    assert codes(bob.json(NEW, form("Mine", registration="-./"))) == [("registration", "no-number")]
    assert answer.json()["administrator"] == "a***@example.org"
    page = bob.post(NEW, form("Mine", registration="b 123"), page=NEW)
    assert "a***@example.org" in page.text and "ada@" not in page.text
    assert picture(place.services.engine, without=UNCHANGED) == before
    other = bob.creates_business("Looms", registration="B 124")
    data = {"title": "Looms", "company": "Looms Ltd", "email": "l@example.org", "version": "1"}
    assert (
        bob.json(f"/spaces/{other}/data", {**data, "registration": "B 123"}).json()["reason"] == "business-space-exists"
    )
    assert ada.json(f"/spaces/{identifier}/data", {**data, "registration": "B 123"}).status_code == 200  # its own


@pytest.mark.parametrize(
    ("email", "shown"), [("ada@example.org", "a***@example.org"), ("a@b.example", "a***@b.example")]
)
def test_masked_addresses(email: str, shown: str) -> None:
    """ESP-13: of an address only the first character and the domain are shown."""
    assert masked(email) == shown


def test_one_person_administers_so_many(make: Make) -> None:
    """ESP-12, 0.4: beyond the setting it is guard-failed; spaces where one is but a member do not count."""
    place = make("spaces_max = 2")
    ada = place.visitor()
    ada.logs_in()
    spaces = [ada.creates_business(title) for title in ("Engines", "Looms")]
    assert ada.json(NEW, form("Mills")).json()["reason"] == "too-many-spaces"
    bob = joins(place, ada, spaces[0])
    for title in ("Engines", "Looms"):
        bob.creates_business(title)


def test_the_identifier_is_shown_and_stays(place: Place, ada: Visitor) -> None:
    """ESP-15: given by the portal, unique, typeable with hyphens, shown to every member; setting or changing it is refused."""
    first, second = ada.creates_business("Engines"), ada.creates_business("Looms")
    assert first != second
    typed = f"{first[:5]}-{first[5:10]}-{first[10:]}".lower()
    bob = joins(place, ada, first, role="viewer")
    assert typed.upper() in bob.get(f"/spaces/{typed}").text
    data = {"title": "Engines", "company": "Engines Ltd", "email": "a@example.org", "version": "1"}
    assert codes(ada.json(f"/spaces/{first}/data", {**data, "identifier": second})) == [("identifier", "read-only")]
    mistyped = first[:-1] + ("0" if first[-1] != "0" else "1")
    assert ada.get(f"/spaces/{mistyped}").status_code == 404


# ---- where one lands


def test_after_login_one_lands_where_one_works(place: Place, ada: Visitor) -> None:
    """ESP-05: without a space on the list, with one business space there, with several on the list, with a private one there."""
    assert ada.get("/home").headers["location"] == "/spaces"
    assert "You have no space yet." in ada.get("/spaces").text
    first = ada.creates_business("Engines")
    assert ada.get("/home").headers["location"] == f"/spaces/{first}"
    ada.creates_business("Looms")
    assert ada.get("/home").headers["location"] == "/spaces"
    private = private_space(ada)
    assert ada.get("/home").headers["location"] == private


def test_the_header_has_the_space_and_its_menu(place: Place, ada: Visitor) -> None:
    """ESP-05, ESP-12: on every page the title opens a menu of one's spaces and «Manage my spaces», where another is made."""
    private = private_space(ada)
    business = ada.creates_business("Engines")
    for path, title in ((f"/spaces/{business}", "Engines"), (private, "Ada Lovelace"), ("/account", "Ada Lovelace")):
        header = ada.get(path).text.partition("<header")[2].partition("</header>")[0]
        menu = header.partition("<details")[2]
        assert f'<span class="space-title">{title}</span>' in menu
        assert header.index('class="brand"') < header.index("<details")
        for target in (private, f"/spaces/{business}", "/spaces"):
            assert f'href="{target}"' in menu
        assert "Manage my spaces" in menu
    assert f'href="{NEW}"' in ada.get("/spaces").text
    french = ada.get("/spaces", headers={"accept-language": "fr"}).text
    assert "Gérer mes espaces" in french and "Créer un espace professionnel" in french


def test_the_symbol_stands_for_the_title_on_a_small_screen(ada: Visitor) -> None:
    """ESP-06: the green symbol has the title as its text, opens the same menu, and takes the title's place below 640 pixels."""
    business = ada.creates_business("Engines & <Looms>")
    summary = ada.get(f"/spaces/{business}").text.partition("<summary")[2].partition("</summary>")[0]
    assert 'role="img" aria-label="Engines &amp; &lt;Looms&gt;"' in summary
    sheet = ada.get("/static/portal.css").text
    wide, _, small = sheet.partition("@media (max-width: 640px) {")
    assert ".space-symbol { display: none;" in wide and "fill: var(--accent)" in wide
    assert ".space-title { display: none; }" in small and ".space-symbol { display: block; }" in small


# ---- the data of a space


def test_an_administrator_changes_the_data(place: Place, ada: Visitor) -> None:
    """ESP-07, ESP-08, ESP-10: title, company, number and address; the audit says which, not what."""
    identifier = ada.creates_business()
    page = f"/spaces/{identifier}/data"
    assert all(f'value="{one}"' in ada.get(page).text for one in ("Engines", "Engines Ltd", "office@example.org"))
    data = {"title": "Looms", "company": "Engines Ltd", "registration": "B 7", "email": "looms@example.org"}
    done = ada.post(page, {**data, "version": "1"}, page=page)
    assert done.headers["location"] == f"/spaces/{identifier}"
    shown = ada.json(f"/spaces/{identifier}").json()["shown"]
    assert {name: shown[name] for name in data} == data
    with place.services.engine.connect() as connection:
        line = connection.execute(
            select(schema.audit.c.detail).where(schema.audit.c.event == "space-changed")
        ).scalar_one()
    assert line == '{"fields": ["email", "registration", "title"]}'


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("title", "", "required"), ("company", "", "required"), ("email", "x", "email_invalid"), ("version", "", "required"),
        ("version", "one", "required"), ("version", "9" * 10, "required"), ("version", "²", "required"),
        ("family", "Byron", "read-only"), ("given", "Augusta", "read-only"), ("kind", "association", "read-only"),
    ],
)  # fmt: skip
def test_wrong_data_change_nothing(place: Place, ada: Visitor, field: str, value: str, code: str) -> None:
    """ESP-07, ESP-08, ESP-10, TOK-07: as when it is made."""
    page = f"/spaces/{ada.creates_business()}/data"
    before = picture(place.services.engine, without=UNCHANGED)
    data = {"title": "Looms", "company": "Looms Ltd", "email": "looms@example.org", "version": "1", field: value}
    assert codes(ada.json(page, data)) == [(field, code)]
    assert ada.post(page, data, page=page).status_code == 422
    assert picture(place.services.engine, without=UNCHANGED) == before


def test_data_that_somebody_else_has_changed_are_compared_first(place: Place, ada: Visitor) -> None:
    """ESP-07, 0.1: what was typed stays, what is stored stands beside it, and the second try is knowingly over it."""
    identifier = ada.creates_business()
    bob = joins(place, ada, identifier, role="administrator")
    page = f"/spaces/{identifier}/data"
    data = {"company": "Engines Ltd", "registration": "", "email": "office@example.org", "version": "1"}
    assert ada.post(page, {**data, "title": "Ada's"}, page=page).status_code == 303
    before = picture(place.services.engine, without=UNCHANGED)
    stale = bob.json(page, {**data, "title": "Bob's"})
    assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (409, "stale", 2)
    shown = bob.post(page, {**data, "title": "Bob's"}, page=page)
    assert shown.status_code == 409
    assert 'value="Bob&#39;s"' in shown.text
    assert "Stored now: Ada&#39;s" in shown.text
    assert shown.text.count("Stored now") == 1
    assert 'name="version" value="2"' in shown.text
    assert picture(place.services.engine, without=UNCHANGED) == before
    assert bob.post(page, {**data, "title": "Bob's", "version": "2"}, page=page).status_code == 303
    assert "Bob&#39;s" in ada.get(page).text


def test_the_data_of_a_private_space(place: Place, ada: Visitor) -> None:
    """ESP-35, ESP-10, TOK-07: its address and profiles can be changed, the names cannot, and its title stays the person's."""
    page = f"{private_space(ada)}/data"
    assert 'value="Ada" readonly' in ada.get(page).text
    assert codes(ada.json(page, {"email": "a@example.org", "family": "Byron", "version": "1"})) == [
        ("family", "read-only")
    ]
    changed = {"email": "new@example.org", "profile_exploitant": "yes", "title": "Mine", "version": "1"}
    assert ada.post(page, changed, page=page).status_code == 303
    with place.services.engine.connect() as connection:
        row = connection.execute(select(schema.spaces)).mappings().one()
    assert (row["title"], row["email"], row["profiles"]) == ("Ada Lovelace", "new@example.org", "exploitant")
    text = ada.get(page).text
    assert 'name="profile_exploitant" value="yes" checked' in text
    assert 'name="profile_particulier" value="yes" checked' not in text


# ---- who may


def test_a_business_wants_a_professional_product_where_it_is_set_so(make: Make) -> None:
    """TOK-04: without one of the policies a business space is neither made, entered nor joined; a private one is."""
    place = make("require_pro_certificate = true", f'pro_policy_oids = ["{PRO}"]')
    ada, bob = place.visitor(), place.visitor()
    ada.logs_in("Ada", "Lovelace", place.issuer.product("Ada", "Lovelace", policies=(PRO,)))
    business = ada.creates_business()
    link = invites(ada, business)
    bob.logs_in("Bob", "Babbage", place.issuer.product("Bob", "Babbage", policies=("1.2.3",)))
    private = private_space(bob)
    assert bob.get(private).status_code == 200
    before = picture(place.services.engine, without=UNCHANGED)
    for answer in (bob.json(NEW), bob.json(NEW, form("Mine")), bob.json(f"{link}/accept", {})):
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (
            401,
            "auth-too-weak",
            "pro-required",
        )
    assert "Acting for a business needs a professional product." in bob.get(NEW).text
    assert picture(place.services.engine, without=UNCHANGED) == before
    account = account_of(place.services.engine, "Bob")
    with writing(place.services.engine) as connection:  # a member from before the setting
        space = connection.execute(select(schema.spaces.c.id).where(schema.spaces.c.kind == "business")).scalar_one()
        connection.execute(insert(schema.members).values(space=space, account=account, role="editor", since=0))
    for path in ("", "/team", "/team/leave"):
        assert bob.get(f"/spaces/{business}{path}").status_code == 401
    assert bob.json(f"/spaces/{business}/team/leave", {}).json()["code"] == "auth-too-weak"


def test_a_setting_without_its_policies_is_a_mistake(make: Make, tmp_path: Path) -> None:
    """TOK-04: who asks for professional products and names no policy would shut everybody out: the configuration says so."""
    with pytest.raises(SettingsError, match="pro_policy_oids"):
        make("require_pro_certificate = true")
    assert load(make().config).business.require_pro_certificate is False


def test_administrators_are_nominated_where_it_is_set_so(make: Make) -> None:
    """ESP-21: making a space, accepting or being given that role is forbidden unless an operator has nominated the certificate."""
    place = make("admin_nomination_required = true")
    ada, bob = place.visitor(), place.visitor()
    ada.logs_in("Ada", "Lovelace", place.issuer.product("Ada", "Lovelace", serial="10:AB"))
    bob.logs_in("Bob", "Babbage", place.issuer.product("Bob", "Babbage", serial="20CD"))
    before = picture(place.services.engine, without=UNCHANGED)
    for answer in (ada.json(NEW), ada.json(NEW, form())):
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (
            403,
            "forbidden",
            "not-nominated",
        )
    assert picture(place.services.engine, without=UNCHANGED) == before
    assert command(place, "nominate", "add", "10ab").returncode == 0
    space = ada.creates_business()
    link = invites(ada, space, role="administrator")
    assert bob.json(f"{link}/accept", {}).json()["reason"] == "not-nominated"
    as_editor = invites(ada, space, email="b@example.org")
    assert bob.post(f"{as_editor}/accept", page=as_editor).status_code == 303
    account = account_of(place.services.engine, "Bob")
    role = f"/spaces/{space}/team/members/{account}/role"
    given = {"role": "administrator", "version": "1"}
    assert ada.json(role, given).json()["reason"] == "not-nominated"
    assert command(place, "space", "appoint", space, account).returncode == 1
    assert command(place, "nominate", "add", "20 cd").returncode == 0
    assert ada.json(role, given).status_code == 200
