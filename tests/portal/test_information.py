"""My information: items, their kinds, their versions, and what sources hold beside them."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from portal_adapter import countries
from portal_adapter.domain import information
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.information import GROUPS, ITEMS
from portal_adapter.domain.kinds import KINDS
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Source as SourceSettings
from portal_adapter.sources import asked
from portal_adapter.sources.asked import AT_A_TIME, Sources
from portal_adapter.sources.file import FileSource
from portal_adapter.sources.source import SourceItem, Subject
from portal_adapter.store.database import writing
from portal_adapter.store.schema import accounts, audit, members, spaces
from portal_adapter.store.schema import information as rows
from tests.daemon import REPOSITORY
from tests.portal.place import Place, SetClock, Visitor
from tests.postgres import Postgres

ADA = Subject("10304441830071892504", "Lovelace", "Ada")


def settled(place: Place, given: str = "Ada", family: str = "Lovelace") -> tuple[Visitor, str]:
    """A person with a business space, and the path of its information."""
    person = place.visitor()
    person.logs_in(given, family)
    return person, f"/spaces/{person.creates_business(f'{given} Works')}/information"


def private(person: Visitor) -> str:
    made = person.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    return f"{made.headers['location']}/information"


def values(person: Visitor, path: str) -> dict[str, str]:
    return {one["key"]: one["value"] for group in person.json(path).json()["groups"] for one in group["items"]}


def saves(person: Visitor, path: str, fields: dict[str, str]) -> Any:
    """With the version that the page has now."""
    return person.post(path, {"version": str(person.json(path).json()["version"]), **fields}, page=path)


def hidden(person: Visitor, path: str) -> dict[str, str]:
    """Of the page's own form, not of the header's."""
    return {name: value for name, value in person.form(path).items() if name in {"csrf", "form", "version"}}


# ---- kinds


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("date", "2026-02-28", "2026-02-28"), ("date", "28.2.2026", "2026-02-28"), ("date", "29/02/2024", "2024-02-29"),
        ("date", "29.02.2025", None), ("date", "1899-12-31", None), ("date", "2026-2-8", None), ("date", "soon", None),
        ("date", "٢٠٢٦-٠١-٠١", None),
        ("email", "ada@example.org", "ada@example.org"), ("email", "ada@localhost", None), ("email", "ada", None),
        ("phone", "+352 621 123-456", "+352621123456"), ("phone", "00352 (621) 12.34.56", "+352621123456"),
        ("phone", "621 123 456", None), ("phone", "+0352621123456", None), ("phone", "+1234567890123456", None),
        ("iban", "lu28 0019 4006 4475 0000", "LU280019400644750000"), ("iban", "LU28 0019 4006 4475 0001", None),
        ("iban", "LU82 0019 4006 4475 0000", None), ("iban", "0028", None), ("iban", "LU28-0019", None),
        ("bic", "bceelull", "BCEELULL"), ("bic", "BCEELULLXXX", "BCEELULLXXX"), ("bic", "BCEEZZLL", None),
        ("postal_code", "L-1611", "L-1611"), ("postal_code", "sw1a 1aa", "SW1A 1AA"), ("postal_code", "-1", None),
        ("country", "LU", "LU"), ("country", "lu", None), ("country", "EU", None), ("country", "ZZ", None),
        ("vat", "lu 1234.5678", "LU12345678"), ("vat", "12345678", None),
        ("text", "anything", "anything"),
    ],
)  # fmt: skip
def test_a_kind_reads_what_it_is_and_nothing_else(kind: str, given: str, kept: str | None) -> None:
    """ESP-26: each kind has one form in which it is kept, and takes the ways in which people write it."""
    assert KINDS[kind].read(given) == kept


def test_every_item_has_a_kind_a_group_and_a_limit() -> None:
    """ESP-26: the table is whole: keys are its own, no group is empty in a space that has it, a kind says what it wants."""
    assert len({item.key for item in ITEMS}) == len(ITEMS)
    assert {item.group for item in ITEMS} == set(GROUPS)
    assert {item.kind for item in ITEMS} == set(KINDS)
    assert all(item.most > 0 and item.label for item in ITEMS)
    assert all(kind.message for name, kind in KINDS.items() if name != "text")
    for space in ("private", "business"):
        assert information.groups_of({"kind": space}) == list(GROUPS)
    assert len(countries.CODES) == 249 + 1  # ISO 3166-1, and Kosovo's
    assert list(countries.names("fr").values())[:2] == ["Afghanistan", "Afrique du Sud"]


# ---- pages


def test_information_is_saved_shown_and_taken_away(place: Place) -> None:
    """ESP-26: what was typed is kept in one form and shown in the reader's; an empty field takes an item away."""
    ada, path = settled(place)
    done = saves(ada, f"{path}/bank", {"account_holder": "Ada Works", "iban": "lu28 0019400644750000", "bic": ""})
    assert (done.status_code, done.headers["location"]) == (303, path)
    page = ada.get(path).text
    assert "The information is saved." in page
    assert "LU28 0019 4006 4475 0000" in page
    saves(ada, f"{path}/identity", {"founded": "1.3.2020"})
    saves(ada, f"{path}/address", {"country": "DE"})
    page = ada.get(path).text
    assert "1 March 2020" in page
    assert "Germany" in page
    french = ada.get(path, headers={"accept-language": "fr"}).text
    assert "1 mars 2020" in french
    assert "Allemagne" in french
    assert values(ada, path)["iban"] == "LU280019400644750000"
    saves(ada, f"{path}/bank", {"account_holder": "Ada Works", "iban": ""})
    assert values(ada, path)["iban"] == ""
    assert values(ada, path)["account_holder"] == "Ada Works"
    with place.services.engine.connect() as connection:
        assert "LU28" not in str(connection.execute(select(rows)).all())
        lines = connection.execute(select(audit.c.detail).where(audit.c.event == "information-saved")).scalars().all()
    assert json.loads(lines[0]) == {"items": ["account_holder", "iban"]}  # which, never what
    assert "0019" not in str(lines)


def test_what_is_wrong_is_said_beside_each_field_and_kept(place: Place) -> None:
    """ESP-26, 0.1: all at once; nothing is saved, the right fields neither."""
    ada, path = settled(place)
    typed = {"contact_email": "ada", "phone": "12", "contact_name": "x" * 201}
    answer = saves(ada, f"{path}/contact", typed)
    assert answer.status_code == 422
    for field, value in typed.items():
        assert f'id="error-{field}"' in answer.text
        assert f'value="{value}"' in answer.text
    answer = saves(ada, f"{path}/bank", {"account_holder": "Ada", "iban": "LU28 0019 4006 4475 0001"})
    assert "a character is wrong." in answer.text
    assert not any(values(ada, path).values())
    answer = ada.json(f"{path}/address", {"version": "0", "country": "XX", "street": "a\x07b"})
    assert {(one["field"], one["code"]) for one in answer.json()["errors"]} == {
        ("country", "country_invalid"), ("street", "control_characters"),
    }  # fmt: skip


def test_a_field_that_there_is_not_is_refused(place: Place) -> None:
    """ESP-26, 0.1: another group's, a business's in a private space, nobody's; and a form without its version."""
    ada, path = settled(place)
    for base, field in ((f"{path}/bank", "street"), (f"{path}/identity", "birth_date"), (f"{path}/bank", "owner")):
        answer = ada.json(base, {"version": "0", field: "x"})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unknown")
    assert ada.json(f"{path}/bank", {"bic": "BCEELULL"}).json()["errors"][0]["field"] == "version"
    assert ada.get(f"{path}/poems").status_code == 404


def test_who_has_seen_an_older_version_is_told_and_keeps_what_she_typed(place: Place) -> None:
    """ESP-26, 0.1: the present values stand beside hers; sending it again is said knowingly."""
    ada, path = settled(place)
    page = f"{path}/bank"
    old = hidden(ada, page)
    assert saves(ada, page, {"account_holder": "Ada Works", "bic": "BCEELULL"}).status_code == 303
    fields = {"account_holder": "Ada", "bic": "BCEELULL"}
    answer = ada.http.post(page, data={**old, **fields})
    assert answer.status_code == 409
    assert 'value="Ada"' in answer.text
    assert "Stored now: Ada Works" in answer.text
    assert 'name="version" value="2"' in answer.text
    assert values(ada, path)["account_holder"] == "Ada Works"
    assert saves(ada, page, fields).status_code == 303
    assert values(ada, path)["account_holder"] == "Ada"


def test_groups_do_not_disturb_each_other(place: Place) -> None:
    """ESP-26: who edits the address does not hold up who edits the bank account; what is the same changes no version."""
    ada, path = settled(place)
    old = hidden(ada, f"{path}/bank")
    saves(ada, f"{path}/address", {"street": "1, rue A"})
    assert ada.http.post(f"{path}/bank", data={**old, "bic": "BCEELULL"}).status_code == 303
    saves(ada, f"{path}/bank", {"bic": "BCEELULL"})
    assert ada.json(f"{path}/bank").json()["version"] == 1


def test_editing_needs_the_right_to_fill(place: Place) -> None:
    """ESP-26, 0.1: a viewer reads, and is offered no more; a member with the right edits."""
    ada, path = settled(place)
    eve = place.visitor()
    eve.logs_in("Eve", "Other")
    identifier = path.split("/")[2]

    def has(role: str) -> None:
        with place.services.engine.begin() as connection:
            account = connection.execute(select(accounts.c.id).where(accounts.c.given == "Eve")).scalar_one()
            space = connection.execute(select(spaces.c.id).where(spaces.c.identifier == identifier)).scalar_one()
            connection.execute(members.delete().where(members.c.account == account))
            connection.execute(members.insert().values(space=space, account=account, role=role, since=SetClock.at))

    assert eve.get(path).status_code == 404
    has("viewer")
    saves(ada, f"{path}/bank", {"bic": "BCEELULL"})
    page = eve.get(path).text
    assert "BCEELULL" in page
    assert f"{path}/bank" not in page
    assert eve.get(f"{path}/bank").status_code == 403
    answer = eve.json(f"{path}/bank", {"version": "1", "bic": ""})
    assert (answer.status_code, answer.json()["right"]) == (403, "fill")
    has("editor")
    assert saves(eve, f"{path}/bank", {"bic": "BCEELULLXXX"}).status_code == 303
    assert values(ada, path)["bic"] == "BCEELULLXXX"


def test_a_private_space_has_its_own_items(place: Place) -> None:
    """ESP-26: a person's birth and nationality, which a business has not, and help from the browser to fill them in."""
    ada, path = settled(place)
    own = private(ada)
    assert saves(ada, f"{own}/identity", {"birth_date": "10.12.1985", "nationality": "LU"}).status_code == 303
    assert values(ada, own)["birth_date"] == "1985-12-10"
    assert "birth_date" not in values(ada, path)
    assert 'autocomplete="bday"' in ada.get(f"{own}/identity").text
    assert "autocomplete" not in ada.get(f"{path}/address").text


def test_one_of_two_who_save_at_once_wins(tmp_path: Path) -> None:
    """ESP-26, 0.1: on SQLite."""
    _race(Place(tmp_path))


def test_one_of_two_who_save_at_once_wins_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    """ESP-26, 0.1: on PostgreSQL."""
    _race(Place(tmp_path, database=postgres.create("information_race")))


def test_of_two_who_change_different_items_at_once_one_wins(tmp_path: Path, postgres: Postgres) -> None:
    """ESP-26, 0.1: a group is changed as a whole: no account number stands beside the bank that somebody else has typed."""
    place = Place(tmp_path, database=postgres.create("information_group"))
    settled(place)
    engine = place.services.engine
    with engine.connect() as connection:
        space = dict(connection.execute(select(spaces)).mappings().one())
        account = connection.execute(select(accounts.c.id)).scalar_one()
    actor = Actor(account, "Lovelace", "Ada", "ada@example.org", "", "", SetClock.at)
    said = []

    def other() -> None:
        try:
            with writing(engine) as connection:
                information.save(connection, actor, space, "bank", {"version": "0", "bic": "BCEELULL"})
            said.append("saved")
        except Refusal as refusal:
            said.append(refusal.code)

    thread = threading.Thread(target=other)
    with writing(engine) as connection:
        information.save(connection, actor, space, "bank", {"version": "0", "account_holder": "Ada"})
        thread.start()
        thread.join(1.0)
    thread.join()
    place.close()
    assert said == ["stale"]


def _race(place: Place) -> None:
    settled(place)
    engine = place.services.engine
    with engine.connect() as connection:
        space = dict(connection.execute(select(spaces)).mappings().one())
        account = connection.execute(select(accounts.c.id)).scalar_one()
    actor = Actor(account, "Lovelace", "Ada", "ada@example.org", "", "", SetClock.at)
    for version in ("0", "1"):
        gate, said = threading.Barrier(8), []

        def save(name: str, version: str = version, gate: threading.Barrier = gate, said: list[str] = said) -> None:
            gate.wait()
            try:
                with writing(engine) as connection:
                    form = {"version": version, "account_holder": f"{name} {version}"}
                    information.save(connection, actor, space, "bank", form)
                said.append("saved")
            except Refusal as refusal:
                said.append(refusal.code)

        threads = [threading.Thread(target=save, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(said) == ["saved", *["stale"] * 7]
    place.close()


# ---- authentic sources


def source(file: Path, name: str = "population") -> str:
    return (
        f'[[source]]\nname = "{name}"\nkind = "file"\nfile = "{file}"\n'
        'label_fr = "Registre national"\nlabel_en = "National register"\n'
    )


def test_without_a_source_the_page_says_so(place: Place) -> None:
    """ESP-37: none is configured."""
    ada, path = settled(place)
    assert "No source is connected to Millbrook yet." in ada.get(path).text
    assert ada.json(path).json()["sources"] == []


def test_what_a_source_holds_is_shown_with_its_date_to_its_subject_alone(tmp_path: Path) -> None:
    """ESP-37, ESP-11: item, value, source, date; in the private and in a business space, to the person whom it is about."""
    place = Place(tmp_path, extra=source(REPOSITORY / "deploy" / "portal-source.json"))
    ada, bob = place.visitor(), place.visitor()
    ada.logs_in(product=place.issuer.product("Ada", "Lovelace", serial=ADA.serial))
    bob.logs_in("Bob", "Babbage")
    path = f"/spaces/{ada.creates_business()}/information"
    with place.services.engine.begin() as connection:
        account = connection.execute(select(accounts.c.id).where(accounts.c.given == "Bob")).scalar_one()
        space = connection.execute(select(spaces.c.id)).scalar_one()
        connection.execute(members.insert().values(space=space, account=account, role="administrator", since=1))
    for where in (path, private(ada)):
        page = ada.get(where).text
        for text in ("Registered address", "rue de la Gare", "National register", "27 Nov 2026"):
            assert text in page
        assert "Adresse officielle" in ada.get(where, headers={"accept-language": "fr"}).text
        (shown,) = ada.json(where).json()["sources"]
        assert (shown["available"], shown["fetched"]) == (True, SetClock.at)
        assert not [line for line in page.splitlines() if "<input" in line and "rue de la Gare" in line]
    page = bob.get(path).text
    assert "rue de la Gare" not in page
    assert "Nothing is held about you here." in page
    place.close()


def test_what_a_source_holds_cannot_be_changed(tmp_path: Path) -> None:
    """ESP-37, 0.1: a posted change is read-only, and nothing beside it is saved."""
    place = Place(tmp_path, extra=source(REPOSITORY / "deploy" / "portal-source.json"))
    ada, path = settled(place)
    answer = ada.json(f"{path}/address", {"version": "0", "source.population.address": "elsewhere", "street": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "read-only")
    assert not any(values(ada, path).values())
    place.close()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"subjects": [{"serial": "1"}]}', '{"people": []}'])
def test_a_source_that_is_down_is_not_available_and_the_page_works(tmp_path: Path, content: str | None) -> None:
    """ESP-37: its file is away, is no JSON, is of another form; the other source and the items are there."""
    file = tmp_path / "source.json"
    if content is not None:
        file.write_text(content)
    good = source(REPOSITORY / "deploy" / "portal-source.json", "other")
    place = Place(tmp_path / "place", extra=source(file) + good)
    ada = place.visitor()
    ada.logs_in(product=place.issuer.product("Ada", "Lovelace", serial=ADA.serial))
    path = f"/spaces/{ada.creates_business()}/information"
    assert saves(ada, f"{path}/bank", {"bic": "BCEELULL"}).status_code == 303
    page = ada.get(path)
    assert page.status_code == 200
    assert "Not available just now." in page.text
    assert "rue de la Gare" in page.text
    assert "BCEELULL" in page.text
    place.close()


def test_the_file_finds_a_person_by_serial_and_names(tmp_path: Path) -> None:
    """ESP-37: all three; case and accents aside. A serial alone is not enough: two issuers may give the same."""
    found = FileSource(REPOSITORY / "deploy" / "portal-source.json")
    assert [one.key for one in found.fetch(ADA)] == ["address", "civil_status"]
    assert found.fetch(replace(ADA, family="LOVELACE", given="Áda"))
    for wrong in (replace(ADA, serial="1"), replace(ADA, family="Love"), replace(ADA, given="Eve")):
        assert found.fetch(wrong) == []


class Hanging:
    """Answers once it is let go."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0

    def fetch(self, _: Subject) -> Sequence[SourceItem]:
        self.asked += 1
        self.go.wait()
        return [SourceItem("key", "clé", "key", "value")]


def test_a_source_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESP-37: not available after its time; after so many hanging questions at once, until one is answered; others go on."""
    monkeypatch.setattr(asked, "FETCH_S", 0.1)
    hanging = Hanging()
    settings = [
        SourceSettings(name=name, kind="file", file=Path("x"), label_fr=name, label_en=name) for name in ("a", "b")
    ]
    ways = {"a": hanging, "b": FileSource(REPOSITORY / "deploy" / "portal-source.json")}
    make: Callable[[SourceSettings], Any] = lambda one: ways[one.name]  # noqa: E731
    sources = Sources(settings, {"file": make})
    for _ in range(AT_A_TIME + 3):
        slow, quick = sources.fetch(ADA, 7)
        assert slow.items is None
        assert quick.items is not None
        assert len(quick.items) == 2
        assert quick.time == 7
    assert hanging.asked == AT_A_TIME
    hanging.go.set()
    for thread in threading.enumerate():
        if thread.name == "source":
            thread.join()
    monkeypatch.undo()
    assert sources.fetch(ADA, 8)[0].items
