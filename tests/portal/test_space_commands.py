"""`paraph-portal space` and `paraph-portal nominate`: what an operator does, and what it leaves in the audit."""

import json
from pathlib import Path

from sqlalchemy import select

from portal_adapter.cli.operator import name
from portal_adapter.domain import certification
from portal_adapter.domain.space import create_business, of
from portal_adapter.settings import Portal
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from tests.portal.commands import command
from tests.portal.place import ORIGIN, Place, Visitor
from tests.portal.team import Bare, account_of, business_form, joins
from tests.portal.town import picture


def audited(place: Place, event: str) -> list[dict[str, object]]:
    with place.services.engine.connect() as connection:
        rows = connection.execute(select(schema.audit).where(schema.audit.c.event == event)).mappings()
        return [{**row, **json.loads(row["detail"])} for row in rows]


def test_spaces_are_listed(place: Place, ada: Visitor, space: str) -> None:
    """ESP-18: an operator sees every space with its state, its certification and how many administer it; as lines or JSON."""
    joins(place, ada, space)
    (found,) = json.loads(command(place, "space", "list", "--json").stdout)
    assert (found["identifier"], found["title"], found["members"], found["administrators"]) == (space, "Engines", 2, 1)
    assert (found["state"], found["certification"]) == ("active", "no")
    assert "Engines" in command(place, "space", "list").stdout
    assert json.loads(command(place, "space", "list", "--certification", "asked", "--json").stdout) == []


def test_a_space_is_suspended_and_resumed(place: Place, ada: Visitor, space: str) -> None:
    """11.5, ESP-24: suspended means read-only, resumed as before; repeating either is refused with status 1, and audited is who."""
    page = f"/spaces/{space}/data"
    form = {"title": "Looms", "company": "Looms Ltd", "email": "a@example.org"}
    version = ada.form(page)["version"]
    done = command(place, "space", "suspend", space, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "suspended")
    assert ada.json(page, {**form, "version": version}).json()["reason"] == "space-suspended"
    again = command(place, "space", "suspend", space)
    assert again.returncode == 1
    assert "forbidden-transition" in again.stderr
    assert command(place, "space", "resume", space).returncode == 0
    assert command(place, "space", "resume", space).returncode == 1
    assert ada.post(page, {**form, "version": ada.form(page)["version"]}, page=page).status_code == 303
    for event in ("space-suspend", "space-resume"):
        lines = [(one["outcome"], one["operator"]) for one in audited(place, event)]
        assert lines == [("done", name()), ("forbidden-transition", name())]


def test_certification_is_asked_for_given_and_taken_back(place: Place, ada: Visitor, space: str) -> None:
    """ESP-18: an administrator asks once, operators see it; who gave it and when is stored, and it can be taken back."""
    page = f"/spaces/{space}"
    assert ada.post(f"{page}/certification", page=page).headers["location"] == page
    assert "Your request is noted." in ada.get(page).text
    assert "it has been asked for" in ada.get(page).text
    again = ada.json(f"{page}/certification", {}).json()
    assert (again["code"], again["state"], again["event"], again["allowed"]) == (
        "forbidden-transition", "asked", "ask", ["certify", "uncertify"],
    )  # fmt: skip
    (asked,) = json.loads(command(place, "space", "list", "--certification", "asked", "--json").stdout)
    assert asked["identifier"] == space and asked["certification_asked"]
    assert command(place, "space", "certify", space).returncode == 0
    (found,) = json.loads(command(place, "space", "list", "--json").stdout)
    assert (found["certification"], found["certified_by"], found["certification_asked"]) == ("yes", name(), None)
    assert found["certified"]
    assert "yes, since" in ada.get(page).text
    assert command(place, "space", "certify", space).returncode == 1
    assert command(place, "space", "uncertify", space).returncode == 0
    (found,) = json.loads(command(place, "space", "list", "--json").stdout)
    assert (found["certification"], found["certified"], found["certified_by"]) == ("no", None, "")
    assert {one["operator"] for event in ("certify", "uncertify") for one in audited(place, f"space-{event}")} == {
        name()
    }


def test_operators_are_told_of_it_by_mail(tmp_path: Path) -> None:
    """ESP-18: where the portal has an address for help, the request for certification goes there, in the portal's language."""
    bare = Bare(tmp_path)
    ada = bare.person("Ada").actor()
    about = {"name": "Millbrook", "origin": ORIGIN, "state": tmp_path, "key_file": tmp_path, "language": "fr"}
    for number, address in enumerate(("", "help@example.org")):
        with writing(bare.engine) as connection:
            identifier = create_business(
                connection, ada, business_form(f"Engines {number}"), bare.business, bare.limits
            )
            space = of(connection, ada, identifier)
            certification.ask(connection, ada, space["id"], Portal(**about, help_email=address))
    (mail,) = bare.rows(schema.outbox)
    assert (mail["recipient"], mail["template"], mail["language"]) == ("help@example.org", "certification-asked", "fr")
    assert "Engines 1" in mail["data"] and identifier in mail["data"]
    bare.close()


def test_another_member_is_appointed_where_the_last_administrator_is_lost(
    place: Place, ada: Visitor, space: str
) -> None:
    """ESP-24: an operator makes a member the administrator, and nobody who is none; who did it is in the audit."""
    bob = joins(place, ada, space, role="viewer")
    eve = place.visitor()
    eve.logs_in("Eve", "Dropper")
    people = json.loads(command(place, "space", "members", space, "--json").stdout)
    assert [(one["given"], one["role"]) for one in people] == [("Ada", "administrator"), ("Bob", "viewer")]
    member = next(one["account"] for one in people if one["given"] == "Bob")
    assert command(place, "space", "appoint", space, member).returncode == 0
    assert bob.get(f"/spaces/{space}/data").status_code == 200
    assert audited(place, "administrator-appointed")[0]["operator"] == name()
    before = picture(place.services.engine, without=("audit",))
    for wrong, code in ((member, "forbidden-transition"), (account_of(place.services.engine, "Eve"), "not-found")):
        refused = command(place, "space", "appoint", space, wrong)
        assert refused.returncode == 1
        assert code in refused.stderr
    assert picture(place.services.engine, without=("audit",)) == before
    outcomes = [one["outcome"] for one in audited(place, "administrator-appointed")]
    assert outcomes == ["done", "forbidden-transition", "not-found"]


def test_what_an_operator_cannot_do(place: Place, ada: Visitor) -> None:
    """ESP-18, ESP-24: an unknown space does not exist, a private one has no team and is not certified: status 1, nothing changed."""
    ada.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    private = ada.get("/home").headers["location"].rsplit("/", 1)[1]
    before = picture(place.services.engine, without=("audit",))
    for words, code in (
        (("suspend", "00000000000"), "not-found"),
        (("suspend", "x"), "not-found"),
        (("certify", private), "guard-failed"),
        (("members", private), "guard-failed"),
        (("appoint", private, account_of(place.services.engine, "Ada")), "guard-failed"),
    ):
        done = command(place, "space", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"paraph-portal: {code}")
    assert picture(place.services.engine, without=("audit",)) == before
    assert [(one["outcome"], one["identifier"]) for one in audited(place, "space-certify")] == [
        ("guard-failed", private)
    ]
    assert command(place, "space", "explode", private).returncode == 2


def test_people_are_nominated(place: Place) -> None:
    """ESP-21: by the serial of a certificate, however it is written; twice is once, and it can be taken back; each is audited."""
    assert json.loads(command(place, "nominate", "add", "10:3a b", "--json").stdout) == {
        "serial": "103AB",
        "nominated": True,
    }
    assert command(place, "nominate", "add", "103AB").returncode == 0
    (found,) = json.loads(command(place, "nominate", "list", "--json").stdout)
    assert (found["serial"], found["operator"]) == ("103AB", name())
    assert "103AB" in command(place, "nominate", "list").stdout
    assert command(place, "nominate", "remove", "103ab").returncode == 0
    gone = command(place, "nominate", "remove", "103ab")
    assert (gone.returncode, gone.stderr.strip()) == (1, "paraph-portal: not-found")
    for wrong in (" ", "1" * 65):
        assert command(place, "nominate", "add", wrong).returncode == 1
    outcomes = {
        event: [one["outcome"] for one in audited(place, event)] for event in ("nominated", "nomination-removed")
    }
    assert outcomes == {
        "nominated": ["done", "validation", "validation"], "nomination-removed": ["done", "not-found"],
    }  # fmt: skip
