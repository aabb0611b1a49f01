"""The audit: only ever added to, a line for everything, nothing secret in it; and what operators see of people."""

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DatabaseError

from portal_adapter.auth.session import SESSION_COOKIE, VISITOR_COOKIE
from portal_adapter.domain import audit
from portal_adapter.store import schema
from portal_adapter.store.database import open_database, reading, writing
from portal_adapter.upkeep import Upkeep
from tests.portal.cards import nonce_of_card, ticket
from tests.portal.commands import command
from tests.portal.place import Place, SetClock, Visitor
from tests.postgres import Postgres


def lines(place: Place) -> list[dict[str, Any]]:
    with reading(place.services.engine) as connection:
        return list(audit.lines(connection, 0))


def events(place: Place) -> list[tuple[str, str]]:
    return [(line["event"], line["outcome"]) for line in lines(place)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_changes_or_deletes_a_line(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """UI-08: the database itself refuses to change, delete or empty the audit, on both databases."""
    server: Postgres | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    engine = open_database(tmp_path / "state", server.create("portal_audit") if server else None)
    with writing(engine) as connection:
        audit.note(connection, 1, "first", account="a")
    tries: list[Any] = [update(schema.audit).values(event="other"), delete(schema.audit)]
    if server:
        tries.append(text("TRUNCATE audit"))
    for one in tries:
        with pytest.raises(DatabaseError, match="only added to"), writing(engine) as connection:
            connection.execute(one)
    with reading(engine) as connection:
        assert [line["event"] for line in audit.lines(connection, 0)] == ["first"]
    engine.dispose()


def test_everything_that_is_done_has_its_line(place: Place) -> None:
    """UI-08: login, registration, terms, spaces, products, account, logout: a line each, with who, where from and what."""
    ada = place.visitor()
    product = ada.logs_in()
    ada.creates_business()
    ada.post("/spaces/new/private", {"email": "a@example.org"}, page="/spaces/new/private")
    ada.proves(place.issuer.product("Ada", "Lovelace"), "second")
    ada.post("/account/products", page="/account/products/new")
    second = next(one for one in ada.json("/account").json()["products"] if not one["in_use"])
    ada.post(f"/account/products/{second['id']}/remove", page="/account")
    ada.post("/account", {"email": "new@example.org", "language": "fr"}, page="/account")
    ada.post("/logout")
    assert ada.proves(product).status_code == 303
    assert [event for event, outcome in events(place) if outcome == "done"] == [
        "register", "terms-accepted", "space-created", "space-created", "product-added", "product-removed",
        "account-changed", "logout", "login",
    ]  # fmt: skip
    account = {line["account"] for line in lines(place)}
    assert len(account) == 1 and account != {""}
    assert {line["address"] for line in lines(place)} == {"testclient"}


def test_what_is_refused_has_its_line_and_nothing_else(place: Place) -> None:
    """UI-08, 0.1: a refused transition is written down with its code and reason, as a page and as JSON alike."""
    ada = place.visitor()
    ada.logs_in()
    before = len(lines(place))
    ada.post("/spaces/new/business", {"kind": "king"}, page="/spaces/new/business")
    ada.json("/spaces/new/business", {"kind": "king"})
    ada.http.post("/spaces/new/private", data={"csrf": "wrong"})
    ada.post("/login/statement", place.issuer.product("Eve", "Moriarty").statement("00" * 32))
    found = lines(place)[before:]
    assert [(line["event"], line["outcome"], line["detail"]["reason"]) for line in found] == [
        ("create-business-space", "validation", ""),
        ("create-business-space", "validation", ""),
        ("create-private-space", "forbidden", "form-token"),
        ("login-statement", "unauthenticated", "attempt-unknown"),
    ]
    with reading(place.services.engine) as connection:
        assert connection.execute(select(schema.spaces)).first() is None
        assert connection.execute(select(schema.outbox)).first() is None


def test_how_somebody_logged_in_is_noted(place: Place) -> None:
    """UI-08: a login has the product's fingerprint and the way it was proven; one that fails has its way and its reason."""
    ada, card = place.visitor(), place.issuer.product("Ada", "Lovelace")
    ada.logs_in()
    product = place.issuer.product("Ada", "Lovelace")
    ada.proves(product, "second")
    ada.post("/account/products", page="/account/products/new")
    ada.post("/logout")
    ada.proves(product, "second")
    ada.post("/logout")
    ada.post("/login/ticket", ticket(place, card, nonce_of_card(ada)))
    ada.post("/register", {"email": "ada@example.org", "kind": "stick"}, page="/register")
    ada.post("/logout")
    ada.post("/login/ticket", ticket(place, card, nonce_of_card(ada)))
    ada.post("/logout")
    ada.post("/login/ticket", {"ticket": "x"})
    ada.post("/login/statement", product.statement("00" * 32))
    found = [line for line in lines(place) if line["event"].startswith("login")]
    assert [(line["event"], line["outcome"], line["detail"].get("by", line["detail"].get("reason"))) for line in found] == [
        ("login", "done", "codes"), ("login", "done", "tls"), ("login-ticket", "unauthenticated", "ticket-over"),
        ("login-statement", "unauthenticated", "attempt-unknown"),
    ]  # fmt: skip
    assert [line["detail"]["fingerprint"] for line in found[:2]] == [
        hashlib.sha256(one.der).hexdigest() for one in (product, card)
    ]


def test_who_looks_for_what_is_anothers_is_noted(place: Place) -> None:
    """UI-08: who is logged in and asks for another's by its id leaves a line, also by a GET; a mistyped page, and nobody, leave none."""
    ada, bob = place.visitor(), place.visitor()
    ada.logs_in()
    bob.logs_in("Bob", "Boole")
    space = bob.creates_business()
    before = len(lines(place))
    assert ada.get(f"/spaces/{space}").status_code == ada.json(f"/spaces/{space}/files").status_code == 404
    assert ada.get("/nothing").status_code == 404
    assert place.visitor().get(f"/spaces/{space}").status_code == 303
    account = next(line["account"] for line in lines(place) if line["event"] == "register")
    found = lines(place)[before:]
    assert [(line["event"], line["outcome"], line["account"]) for line in found] == [
        ("space", "not-found", account), ("files", "not-found", account)
    ]  # fmt: skip


def test_every_line_is_in_the_log_too(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """UI-08: once it is committed, as one line of JSON that a collector takes elsewhere; what was taken back is in neither."""
    caplog.set_level(logging.INFO, "portal")
    ada = place.visitor()
    ada.logs_in()
    ada.http.post("/spaces/new/private", data={"csrf": "wrong"})
    with contextlib.suppress(RuntimeError), writing(place.services.engine) as connection:
        audit.note(connection, 1, "never", account="a")
        raise RuntimeError
    with writing(place.services.engine) as connection:
        audit.note(connection, 1, "later", note="é\n")
    logged = [text.removeprefix("audit ") for text in caplog.messages if text.startswith("audit ")]
    assert not any("\n" in text for text in logged)
    found = [{name: value for name, value in line.items() if name != "id"} for line in lines(place)]
    assert [json.loads(text) for text in logged] == found and found[-1]["event"] == "later"


def test_no_line_holds_a_secret(place: Place) -> None:
    """UI-08: neither cookies nor form tokens, nonces, statements, tickets or whole addresses stand in the audit."""
    ada = place.visitor()
    secrets = set[str]()

    def keep(visitor: Visitor) -> None:
        cookies = visitor.http.cookies
        secrets.update(cookies[name] for name in (SESSION_COOKIE, VISITOR_COOKIE) if name in cookies)
        secrets.update(visitor.form("/login").values())

    keep(ada)
    product = place.issuer.product("Ada", "Lovelace")
    nonce = (
        ada.post("/login/server", {"number": "n", "back": "/"}, page="/login").headers["location"].split("nonce=")[1]
    )
    statement = product.statement(nonce.split("&")[0])
    secrets.update({nonce.split("&")[0], *statement.values()})
    ada.post("/login/statement", statement)
    ada.post("/login/statement", statement)
    ada.post("/register", {"email": "ada.lovelace@example.org"}, page="/register")
    ada.post("/terms", {"accepted": "yes"})
    ada.post("/account", {"email": "ada.king@example.org", "language": "en"}, page="/account")
    keep(ada)
    secrets.update({"ada.lovelace@example.org", "ada.king@example.org"})
    written = json.dumps(lines(place), ensure_ascii=False)
    assert len(lines(place)) >= 4
    assert [secret for secret in secrets if secret and secret in written] == []


def test_operators_read_the_audit(place: Place) -> None:
    """UI-08: `audit show` prints the lines from a time on, for people and as JSON."""
    place.visitor().logs_in()
    shown = command(place, "audit", "show", "--json")
    assert [json.loads(line)["event"] for line in shown.stdout.splitlines()] == ["register", "terms-accepted"]
    assert "terms-accepted  done" in command(place, "audit", "show").stdout
    SetClock.later(86400)
    after = f"{SetClock.at // 86400 * 86400}"
    from datetime import UTC, datetime

    day = datetime.fromtimestamp(int(after), UTC).strftime("%Y-%m-%d")
    assert command(place, "audit", "show", "--since", day).stdout == ""
    assert command(place, "audit", "show", "--since", "soon").returncode == 2


def test_operators_see_people_and_end_their_sessions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-08, TOK-12: `user list` and `show` say who has what; `end-sessions` logs a person out at once, with a line."""
    ada = place.visitor()
    ada.logs_in()
    identifier = ada.creates_business()
    monkeypatch.setattr("portal_adapter.cli.user.Clock", SetClock)
    (one,) = json.loads(command(place, "user", "list", "--json").stdout)
    assert one["id"] in command(place, "user", "list").stdout
    shown = json.loads(command(place, "user", "show", one["id"], "--json").stdout)
    assert (shown["family"], shown["sessions"], len(shown["products"])) == ("Lovelace", 1, 1)
    assert shown["spaces"] == [{"identifier": identifier, "title": "Engines", "role": "administrator"}]
    assert identifier in command(place, "user", "show", one["id"]).stdout
    assert ada.get("/account").status_code == 200
    assert command(place, "user", "end-sessions", one["id"]).returncode == 0
    assert ada.get("/account").status_code == 303
    line = lines(place)[-1]
    assert (line["event"], line["account"], line["detail"]["sessions"]) == ("sessions-ended", one["id"], 1)
    assert line["detail"]["operator"]


def test_a_session_that_is_over_by_the_clock_is_not_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOK-12: operators see it as over, and a day later nothing of it is kept; nor of a login that was not finished."""
    ada = place.visitor()
    ada.logs_in()
    ada.post("/login/server", {"number": "ada-login", "back": "/invitations/secret"}, page="/login")
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    monkeypatch.setattr("portal_adapter.cli.user.Clock", SetClock)
    monkeypatch.setattr(SetClock, "at", SetClock.at)  # put back afterwards: other tests expect the day
    (one,) = json.loads(command(place, "user", "list", "--json").stdout)
    upkeep = Upkeep(place.services.engine, place.services.clock, place.services.blobs, place.services.settings.limits)
    upkeep.once()
    assert json.loads(command(place, "user", "show", one["id"], "--json").stdout)["sessions"] == 1
    SetClock.later(15 * 60)
    assert json.loads(command(place, "user", "show", one["id"], "--json").stdout)["sessions"] == 0
    SetClock.later(2 * 86400)
    upkeep.once()
    with reading(place.services.engine) as connection:
        for table in (schema.sessions, schema.attempts, schema.presented):
            assert connection.execute(select(table)).first() is None


@pytest.mark.parametrize("action", ["show", "end-sessions"])
def test_nobody_is_nobody(place: Place, action: str) -> None:
    """UI-08: a command about an account that is not there says so, fails, and writes nothing."""
    done = command(place, "user", action, "0" * 32)
    assert (done.returncode, done.stdout) == (1, "") and "no such account" in done.stderr
    assert lines(place) == []
