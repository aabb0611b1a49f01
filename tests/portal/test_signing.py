"""
The portal's side of a signing, with a stand-in for the daemon: the steps in their order, one attempt at a time, what may
come back, and two signatures of two spaces. The real daemon and window are in test_signing_for_real.py.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from sqlalchemy import insert, select

import portal_adapter.auth.daemon
from portal_adapter import app as portal
from portal_adapter.auth.certificate import Issuers
from portal_adapter.auth.daemon import Found
from portal_adapter.domain import signing, transfer
from portal_adapter.domain.ids import hashed, new_id
from portal_adapter.domain.procedure import PAGE
from portal_adapter.domain.signing import Task
from portal_adapter.refusal import Refusal
from portal_adapter.store import schema
from portal_adapter.unsaved import Unsaved
from portal_adapter.upkeep import Upkeep
from signer.client import ServiceError
from signer.v1 import signing_pb2 as pb
from tests.portal.place import ORIGIN, Place, SetClock, Visitor, hidden
from tests.portal.sent import attaches, closes, returns, sends
from tests.portal.signs import begins, chooses, comes_back, lease, ready_to_sign, signs, to_save, window_of
from tests.portal.team import account_of, joins
from tests.portal.test_procedures import PERSON, confirmed, confirms, private, row, saves, sets
from tests.portal.test_session import revoked
from tests.portal.town import picture


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ada(place: Place) -> Visitor:
    """With a private space, and certificates at the daemon."""
    person = place.visitor()
    person.logs_in("Ada", "Lovelace")
    ready_to_sign(place, person)
    return person


def rows(place: Place, table: Any) -> list[dict[str, Any]]:
    with place.services.engine.connect() as connection:
        return [dict(one) for one in connection.execute(select(table)).mappings()]


def state(place: Place) -> str:
    """Of the newest attempt."""
    return str(max(rows(place, schema.signings), key=lambda one: one["created"])["state"])


def clears(place: Place) -> None:
    """What the clock does."""
    made = place.services
    Unsaved(made.engine, made.clock, made.daemon, made.settings.limits).once()


def still(place: Place) -> tuple[Any, list[str]]:
    """The database but for the audit and what limits count, and the files."""
    files = sorted(path.name for path in place.services.blobs.path("0" * 32).parent.iterdir())
    return picture(place.services.engine, without=("audit", "marks")), files


def audited(place: Place) -> list[str]:
    """What was done of signing."""
    events = [one["event"] for one in rows(place, schema.audit) if one["outcome"] == "done"]
    return [one for one in events if "sign" in one]


def signed_file(place: Place) -> bytes:
    [one] = rows(place, schema.signatures)
    return place.services.blobs.path(one["file"]).read_bytes()


# ---- the way through


def test_a_procedure_is_signed(place: Place, ada: Visitor) -> None:
    """
    SIG-01, SIG-02, SIG-05, SIG-08, SIG-12, UI-08: from "Sign" in a window of its own to "Save"; then the procedure is Ready, and the signed
    PDF is shown and downloaded byte for byte.
    """
    at = confirmed(ada)
    page = ada.get(at).text
    form = re.search(
        rf'<form method="post" action="{re.escape(at)}/signing" target="_blank" rel="noopener" data-after="{re.escape(at)}">.*?</form>',
        page,
        re.DOTALL,
    )
    assert form is not None and 'formtarget="_self"' in form[0]
    assert f'action="{at}/signing"' in ada.get(f"{at}/check").text
    confirmed_pdf = ada.get(f"{at}/form").content

    step = begins(ada, at)
    shown = ada.get(step)
    assert "frame-src 'self'" in shown.headers["content-security-policy"]
    assert f'<iframe src="{at}/form"' in shown.text
    assert "Fields marked * are mandatory." in shown.text
    assert "frame-ancestors 'self'" in ada.get(f"{at}/form").headers["content-security-policy"]
    steps = re.findall(r"<li([^>]*)>([^<]+)", re.findall(r'<ol class="course">.*?</ol>', shown.text, re.DOTALL)[0])
    assert [name.strip() for _, name in steps] == [
        "Select the certificate",
        "Read and approve",
        "Sign",
        "Save to Millbrook",
    ]
    assert [bool(what) for what, _ in steps] == [True, False, False, False]

    window = window_of(chooses(ada, step))
    batch = place.desk.newest()
    assert window == {"link": f"link-to-{batch}", "language": "en"}
    assert place.desk.held[batch].document == confirmed_pdf
    assert "I have signed there" in ada.get(step).text
    SetClock.later(60)
    place.desk.signs(batch)
    before = still(place)
    ada.get(f"/signings/returned?batch={batch}&outcome=signed")
    assert still(place) == before  # coming back changes nothing until the button is pressed
    done = comes_back(ada, batch, approved="2026-11-27T09:00:30+00:00")
    assert done.headers["location"] == step
    page = ada.get(step).text
    assert "Save to Millbrook" in page
    sha256 = re.findall(r"<dt>Confirmed form, SHA-256</dt><dd><code[^>]*>(\w+)", page)
    assert sha256 == [hashlib.sha256(confirmed_pdf).hexdigest()]
    assert row(place, at)["status"] == "in_preparation"
    assert rows(place, schema.signatures) == []

    saved = ada.post(f"{step}/save", page=step)
    assert (saved.status_code, saved.headers["location"]) == (303, at)
    now = row(place, at)
    assert (now["status"], now["entry"], now["signature"]) == ("ready", "confirmed", "valid")
    [one] = rows(place, schema.signatures)
    signed = place.desk.held[batch].signed
    assert one["approved"] == SetClock.BEGIN + 30
    assert (one["number"], one["credential"], one["sha256"]) == (1, "ada", hashlib.sha256(signed).hexdigest())
    assert one["form_sha256"] == hashlib.sha256(confirmed_pdf).hexdigest()
    inline, saved_file = ada.get(f"{at}/form"), ada.get(f"{at}/form/download")
    assert inline.content == saved_file.content == signed
    assert inline.headers["content-disposition"].startswith("inline;")
    assert saved_file.headers["content-disposition"].startswith("attachment;")
    assert audited(place) == ["signing-begin", "signing-choose", "signing-sign", "procedure-sign"]


def test_a_page_of_a_signing_says_what_is_signed(place: Place, ada: Visitor) -> None:
    """SIG-02: the procedure's title with its reference, in the heading, the page's title, the frame's, and where another window is at it."""
    at = confirmed(ada)
    step = begins(ada, at)
    title, reference = "Declare a change of address", at.rsplit("/", 1)[1]
    heading = f'<h2 id="paper">{title} <span class="whole">{reference}</span></h2>'
    page = ada.get(step).text
    assert "<h1>Select the certificate</h1>" in page
    assert heading in page and f'title="Document: {title} {reference}"' in page
    assert "nothing is signed then" in page
    assert f"<title>Select the certificate – {title} – Millbrook</title>" in page
    assert f'<span class="above">{title} {reference}</span>' in ada.get(f"{at}/signing").text
    page = ada.get(to_save(place, ada, at)).text
    assert "<h1>Save to Millbrook</h1>" in page
    assert "what you have signed is destroyed then" in page and "nothing is signed then" not in page
    assert heading in page and f"<title>Save to Millbrook – {title} – Millbrook</title>" in page


def test_sign_is_offered_while_it_is_unsigned(place: Place, ada: Visitor) -> None:
    """SIG-11, PROC-14: gone once it is signed, and refused; back with a change, which voids the signature; then the new one counts."""
    at = confirmed(ada)
    page = ada.get(f"{at}/check").text
    assert (
        page.count("<button>Sign<") == 1 and f'class="secondary" href="{at}">To the procedure' in page
    )  # one thing comes next
    assert signs(place, ada, at).headers["location"] == at
    assert f'class="action" href="{at}">To the procedure' in ada.get(f"{at}/check").text
    signed = ada.get(f"{at}/form").content
    page = ada.get(at).text
    assert f'action="{at}/signing"' not in page and "Signed by Ada Lovelace" in page
    again = ada.json(f"{at}/signing", {})
    assert (again.status_code, again.json()["code"], again.json()["reason"]) == (
        409,
        "forbidden-transition",
        "already-signed",
    )
    refused = ada.post(f"{at}/signing", page=at)
    assert refused.status_code == 409 and f'href="{at}">To the procedure</a>' in refused.text
    assert saves(ada, at, "address", {"street": "13 Mill Lane"}).status_code == 303
    assert row(place, at)["signature"] == "void" and rows(place, schema.signatures)[0]["voided"]
    confirms(ada, at)
    assert ada.get(f"{at}/form").content != signed
    assert signs(place, ada, at).status_code == 303
    assert row(place, at)["status"] == "ready"


def test_nothing_is_signed_before_it_is_confirmed(place: Place, ada: Visitor) -> None:
    """SIG-01, SIG-10: not offered, and refused with the way to the check; what was sent is not signed either."""
    at = confirmed(ada)
    saves(ada, at, "address", {"street": "13 Mill Lane"})
    assert f'action="{at}/signing"' not in ada.get(at).text
    done = ada.json(f"{at}/signing", {})
    assert (done.status_code, done.json()["reason"]) == (409, "entry-not-confirmed")
    assert done.json()["unmet"][0]["href"] == f"{at}/check"
    confirms(ada, at)
    for status in ("sent", "accepted", "closed"):
        sets(place, at, status=status, signature="valid")
        done = ada.json(f"{at}/signing", {})
        assert (done.status_code, done.json()["state"]) == (409, status)


# ---- the certificate


def offered(person: Visitor, step: str) -> list[dict[str, Any]]:
    return list(person.json(step).json()["choices"])


def test_the_certificates_are_the_persons_own(place: Place, ada: Visitor) -> None:
    """
    SIG-03, SIG-04, TOK-03, TOK-13: those of her registered products, by subject, certificate or her CA's word, that are valid now; the
    one of the login's product is chosen already. Nobody else's, and none that is over or for logging in.
    """
    desk, issuer = place.desk, place.issuer
    desk.offers("bob", issuer.product("Bob", "Boole", signs=True).der, subject="bob")
    desk.offers("namesake", issuer.product("Ada", "Lovelace", signs=True).der, subject="other")
    desk.offers("old", issuer.product("Ada", "Lovelace", signs=True, days=-1).der, subject="ada")
    desk.offers("new", issuer.product("Ada", "Lovelace", signs=True, begins=1).der, subject="ada")
    desk.offers(
        "second", issuer.product("Ada", "Lovelace", signs=True, begins=-3).der, subject="ada", trouble="TOKEN_ABSENT"
    )
    at = confirmed(ada)
    step = begins(ada, at)
    assert [(one["credential"], one["is_preselected"], one["is_available"]) for one in offered(ada, step)] == [
        ("ada", True, True), ("second", False, False),
    ]  # fmt: skip
    page = ada.get(step).text
    assert re.findall(r'value="([^"]+)"( checked)?', page[page.index("<fieldset") :])[:2] == [
        ("ada", " checked"),
        ("second", ""),
    ]
    for credential, reason in (("", "required"), ("bob", "unknown"), ("old", "unknown"), ("ada-login", "unknown")):
        answer = ada.json(f"{step}/certificate", {"credential": credential})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, reason)
    page = chooses(ada, step, "bob")
    assert page.status_code == 422 and "not one of yours" in page.text and 'value="ada"' in page.text
    desk.refused["ada"] = "cert-revoked"  # the daemon knows better
    answer = ada.json(f"{step}/certificate", {"credential": "ada"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "cert-revoked")
    assert (state(place), desk.held) == ("select", {})


def test_a_certificate_for_both_and_a_cards_other_one(place: Place) -> None:
    """SIG-03, TOK-03: one certificate with both usages serves for both; that of the same card is told by its CA's word."""
    ada = place.visitor()
    both = ada.logs_in("Ada", "Lovelace", place.issuer.product("Ada", "Lovelace", both=True, serial="77"))
    place.desk.offers("card", place.issuer.product("Ada", "Lovelace", signs=True, serial="77").der, subject="somebody")
    place.desk.offers("both", both.der, subject="ada")
    place.desk.offers("other", place.issuer.product("Ada", "Lovelace", signs=True, serial="78").der, subject="x")
    step = begins(ada, confirmed(ada))
    assert [(one["credential"], one["is_preselected"]) for one in offered(ada, step)] == [
        ("both", True),
        ("card", False),
    ]
    place.desk.offered = place.desk.offered[:1]
    assert [(one["credential"], one["is_preselected"]) for one in offered(ada, step)] == [("card", True)]
    place.desk.offered = []
    assert "None of your certificates can sign here now." in ada.get(step).text


def test_a_revoked_certificate_is_not_offered(place: Place) -> None:
    """SIG-03, SIG-04: by its CA's list, from the moment that it is there."""
    path = revoked(place, "list.crl")
    place.services = replace(place.services, issuers=Issuers((place.issuer.certificate,), (path,)))
    place.app = portal.app(place.services)
    ada = place.visitor()
    product = ada.logs_in()
    place.desk.offers("ada-login", product.der, subject="ada", signs=False)
    signing_one = place.issuer.product("Ada", "Lovelace", signs=True)
    place.desk.offers("ada", signing_one.der, subject="ada")
    step = begins(ada, confirmed(ada))
    assert [one["credential"] for one in offered(ada, step)] == ["ada"]
    revoked(place, "list.crl", signing_one)
    assert offered(ada, step) == []
    done = ada.json(f"{step}/certificate", {"credential": "ada"})
    assert (done.status_code, done.json()["errors"][0]["code"]) == (422, "unknown")


def test_a_business_is_signed_for_with_a_professional_certificate(tmp_path: Path) -> None:
    """TOK-04, SIG-03, SIG-04: where the portal wants one for a business; in the private space the other one does as well."""
    pro = "1.3.6.1.4.1.32473.1.1"
    place = Place(tmp_path, extra=f'[business]\nrequire_pro_certificate = true\npro_policy_oids = ["{pro}"]')
    try:
        ada, issuer = place.visitor(), place.issuer
        login = ada.logs_in("Ada", "Lovelace", issuer.product("Ada", "Lovelace", policies=(pro,)))
        place.desk.offers("ada-login", login.der, subject="ada", signs=False)
        place.desk.offers("own", issuer.product("Ada", "Lovelace", signs=True).der, subject="ada")
        place.desk.offers("pro", issuer.product("Ada", "Lovelace", signs=True, policies=(pro,)).der, subject="ada")
        step = begins(ada, lease(ada, f"/spaces/{ada.creates_business()}"))
        assert [one["credential"] for one in offered(ada, step)] == ["pro"]
        done = ada.json(f"{step}/certificate", {"credential": "own"})
        assert (done.status_code, done.json()["errors"][0]["code"]) == (422, "unknown")
        step = begins(ada, lease(ada))
        assert {one["credential"] for one in offered(ada, step)} == {"own", "pro"}
    finally:
        place.close()


# ---- the order, and one attempt at a time


def test_the_steps_have_one_order(place: Place, ada: Visitor) -> None:
    """SIG-13: whatever is posted, a step without the earlier ones is refused and changes nothing; of an attempt that there is not nothing is found."""
    at = confirmed(ada)
    for step in ("certificate", "returned", "save", "cancel"):
        assert ada.json(f"{at}/signing/{'0' * 32}/{step}", {"credential": "ada"}).status_code == 404
    step = begins(ada, at)
    before = still(place)
    for path in (f"{step}/save", f"{step}/returned"):
        done = ada.json(path, {"outcome": "signed"})
        assert (done.status_code, done.json()["code"]) == (409, "forbidden-transition"), path
    assert still(place) == before
    chooses(ada, step)
    before = still(place)
    assert ada.json(f"{step}/save", {}).json()["state"] == "approve"
    back = comes_back(ada, place.desk.newest())  # the window did not sign, whatever the address says
    assert back.headers["location"] == step
    assert still(place) == before
    place.desk.signs(place.desk.newest())
    comes_back(ada, place.desk.newest())
    done = ada.json(f"{step}/certificate", {"credential": "ada"})
    assert (done.status_code, done.json()["state"]) == (409, "save")


def test_a_second_window_takes_over_after_asking(place: Place, ada: Visitor) -> None:
    """SIG-14: a second "Sign" asks first; then the first window is stale at every step, and what it had at the daemon is destroyed."""
    at = confirmed(ada)
    first = begins(ada, at)
    chooses(ada, first)
    batch = place.desk.newest()
    asked = ada.post(f"{at}/signing", page=at)
    assert (asked.status_code, asked.headers["location"]) == (303, f"{at}/signing")
    page = ada.get(f"{at}/signing").text
    assert re.search(r"You have begun to sign this procedure in another window, on 27 Nov 2026, \d\d:\d\d\.", page)
    assert state(place) == "approve"  # asking is not taking
    place.desk.signs(batch)
    second = begins(ada, at, take_over=first.rsplit("/", 1)[1])
    for end in ("certificate", "save"):
        done = ada.json(f"{first}/{end}", {"credential": "ada"})
        assert (done.status_code, done.json()["code"]) == (409, "stale"), end
    assert ada.get(first).headers["location"] == f"{at}/signing"
    assert comes_back(ada, batch).headers["location"] == at
    clears(place)
    assert place.desk.held[batch].signed == b""
    assert window_of(chooses(ada, second))["link"] != f"link-to-{batch}"


def test_what_is_barely_begun_goes_on(place: Place, ada: Visitor) -> None:
    """SIG-14, SIG-15: nothing is at the window yet, in the same session: "Sign" goes on with it, without a question."""
    at = confirmed(ada)
    step = begins(ada, at)
    place.desk.is_away = True
    assert ada.get(step).status_code == 503
    place.desk.is_away = False
    SetClock.later(place.services.settings.limits.idle_s - 10)
    assert begins(ada, at) == step
    SetClock.later(20)  # the second "Sign" was a step
    assert ada.get(step).status_code == 200
    chooses(ada, step)
    assert ada.post(f"{at}/signing", page=at).headers["location"] == f"{at}/signing"


def test_the_page_that_stayed_open_signs_again(place: Place, ada: Visitor) -> None:
    """SIG-02, SIG-09, SIG-14: "Sign" opens a window beside the page: pressed twice it is one attempt, and after a cancel it is the next one."""
    at = confirmed(ada)
    form = re.search(rf'<form method="post" action="{re.escape(at)}/signing".*?</form>', ada.get(at).text, re.DOTALL)
    assert form is not None

    def presses() -> str:
        done = ada.http.post(f"{at}/signing", data=hidden(form[0]))
        assert done.status_code == 303, done.text
        return str(done.headers["location"])

    first = presses()
    assert presses() == first
    assert ada.post(f"{first}/cancel").headers["location"] == at
    second = presses()
    assert second != first
    assert ada.get(second).status_code == 200


def test_another_members_attempt_is_named(place: Place) -> None:
    """SIG-14, SIG-16: whose it is; whoever may not sign sees and does nothing of it."""
    ada = place.visitor()
    ada.logs_in("Ada", "Lovelace")
    ready_to_sign(place, ada)
    space = ada.creates_business()
    at = lease(ada, f"/spaces/{space}")
    bob = joins(place, ada, space, "Bob", "Babbage", "signatory")
    step = begins(ada, at)
    assert "Ada Lovelace has begun to sign this procedure, on " in bob.get(f"{at}/signing").text
    assert bob.get(step).headers["location"] == f"{at}/signing"
    assert bob.json(f"{step}/certificate", {"credential": "ada"}).json()["code"] == "stale"
    for role, given in (("viewer", "Vera"), ("editor", "Edda")):
        other = joins(place, ada, space, given, "Member", role)
        assert f'action="{at}/signing"' not in other.get(at).text
        before = still(place)
        for path in (f"{at}/signing", f"{step}/certificate", f"{step}/save", f"{step}/cancel", f"{at}/transfer"):
            done = other.json(path, {"credential": "ada"})
            assert (done.status_code, done.json()["reason"]) == (403, "missing-right"), path
        assert other.json(step).status_code == 403
        assert still(place) == before


def test_an_attempt_ends_by_itself(place: Place, ada: Visitor) -> None:
    """SIG-14, UI-08: a quarter of an hour after its last step, and with the session; what it had at the daemon is destroyed, and a new one is begun without asking."""
    at = confirmed(ada)
    step = begins(ada, at)
    chooses(ada, step)
    batch = place.desk.newest()
    clears(place)
    assert place.desk.held[batch].state == "OPEN"
    for _ in range(3):  # she is there meanwhile
        SetClock.later(301)
        ada.get(at)
    assert ada.json(f"{step}/certificate", {"credential": "ada"}).json()["code"] == "stale"
    clears(place)
    assert (state(place), place.desk.held[batch].state) == ("cancelled", "CANCELLED")
    clears(place)
    assert audited(place) == ["signing-begin", "signing-choose", "signing-over"]
    step = begins(ada, at, take_over="x" * 100)
    assert "xxx" not in str(rows(place, schema.audit))  # there was none to take over
    chooses(ada, step)
    batch = place.desk.newest()
    place.desk.signs(batch)
    ada.post("/logout")
    clears(place)
    assert (state(place), place.desk.held[batch].signed) == ("cancelled", b"")


def test_signings_are_begun_so_often(place: Place, ada: Visitor) -> None:
    """0.1 rate-limited: the twenty-first within a minute is refused with the time to wait, and the attempt stays."""
    at = confirmed(ada)
    open_ = ""
    for _ in range(20):
        open_ = begins(ada, at, take_over=open_).rsplit("/", 1)[1]
    done = ada.json(f"{at}/signing", {"take_over": open_})
    assert done.status_code == 429 and 1 <= int(done.headers["retry-after"]) <= 60
    assert offered(ada, f"{at}/signing/{open_}")


# ---- leaving


@pytest.mark.parametrize("after", ["begin", "choose", "sign", "away"])
def test_it_is_cancelled_at_any_step(place: Place, ada: Visitor, after: str) -> None:
    """SIG-09: confirmed, unsigned, back on the procedure's page, and what was at the daemon is destroyed, later where it is away."""
    at = confirmed(ada)
    step = begins(ada, at)
    if after != "begin":
        chooses(ada, step)
    if after == "sign":
        place.desk.signs(place.desk.newest())
        comes_back(ada, place.desk.newest())
    assert "Cancel" in ada.get(step).text and "Back to Millbrook" in ada.get(step).text
    place.desk.is_away = after == "away"
    done = ada.post(f"{step}/cancel")
    assert (done.status_code, done.headers["location"]) == (303, at)
    now = row(place, at)
    assert (now["status"], now["entry"], now["signature"], state(place)) == (
        "in_preparation",
        "confirmed",
        "none",
        "cancelled",
    )
    if after == "away":
        clears(place)
        assert place.desk.held[place.desk.newest()].state == "OPEN"
        place.desk.is_away = False
        clears(place)
    assert all((one.state, one.signed) == ("CANCELLED", b"") for one in place.desk.held.values())
    assert ada.get(step).headers["location"] == at
    assert signs(place, ada, at).status_code == 303
    [done] = [one for one in rows(place, schema.signings) if one["state"] == "done"]
    before = still(place)
    assert ada.post(f"{at}/signing/{done['id']}/cancel").headers["location"] == at
    assert still(place) == before  # what is saved stays
    assert row(place, at)["signature"] == "valid"


def test_what_arrives_after_the_cancel_is_destroyed(place: Place, ada: Visitor) -> None:
    """SIG-09: a batch that the daemon opens while she cancels is nobody's; so is one that comes back signed."""
    at = confirmed(ada)
    step = begins(ada, at)
    token = ada.form(step)["csrf"]
    place.desk.meanwhile = lambda: ada.http.post(f"{step}/cancel", data={"csrf": token}) and None
    done = ada.json(f"{step}/certificate", {"credential": "ada"})
    assert done.status_code == 409
    assert place.desk.held[place.desk.newest()].state == "CANCELLED"
    step = begins(ada, at)
    chooses(ada, step)
    batch = place.desk.newest()
    page = ada.get(f"/signings/returned?batch={batch}&outcome=signed").text
    action = re.search(r'action="([^"]+/returned)"', page)
    assert action is not None
    place.desk.signs(batch)
    ada.post(f"{step}/cancel")
    assert ada.post(action[1], {"outcome": "signed"}).headers["location"] == at
    assert (row(place, at)["signature"], place.desk.held[batch].signed) == ("none", b"")
    assert ada.get(f"/signings/returned?batch={batch}&outcome=signed").headers["location"] == "/home"


@pytest.mark.parametrize(("outcome", "notice"), [("cancelled", "The signing is cancelled"), ("failed", "No good signature came back"), ("over", "The signing is cancelled")])  # fmt: skip
def test_the_window_leads_back_unsigned(place: Place, ada: Visitor, outcome: str, notice: str) -> None:
    """SIG-09, SIG-15: cancelled there, failed or over: the attempt ends, and one can begin again."""
    at = confirmed(ada)
    chooses(ada, begins(ada, at))
    batch = place.desk.newest()
    if outcome == "cancelled":
        place.desk.cancel(batch)
    if outcome == "over":
        del place.desk.held[batch]
    assert comes_back(ada, batch, outcome, "").headers["location"] == at
    assert notice in ada.get(at).text
    assert (row(place, at)["signature"], state(place)) == ("none", "cancelled")
    assert signs(place, ada, at).status_code == 303


# ---- what comes back


FAULTS = {
    "another certificate": lambda place, batch: place.desk.signs(batch, by="f" * 64),
    "another document": lambda place, batch: place.desk.signs(batch, document=b"%PDF-1.7 another"),
    "the document changed": lambda place, batch: place.desk.signs(batch, document=place.desk.held[batch].document[:-1] + b"!"),
    "more than the document": lambda place, batch: place.desk.signs(batch, document=place.desk.held[batch].document + b" "),
    "no signature": lambda place, batch: setattr(place.desk.held[batch], "signed", place.desk.held[batch].document),
    "something after it": lambda place, batch: setattr(place.desk.held[batch], "signed", place.desk.held[batch].signed + b"%"),
    "signed twice": lambda place, batch: place.desk.signs(batch, document=place.desk.held[batch].signed),
    "nothing": lambda place, batch: place.desk.held.pop(batch),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_nothing_else_is_saved(place: Place, ada: Visitor, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """SIG-08: what is not the confirmed PDF with that one signature over all of it is not kept, nothing is changed, and the log says what is wrong."""
    at = confirmed(ada)
    step = to_save(place, ada, at)
    FAULTS[fault](place, place.desk.newest())
    before = still(place)
    done = ada.json(f"{step}/save", {})
    reason = "signature-gone" if fault == "nothing" else "signature-invalid"
    assert (done.status_code, done.json()["code"], done.json()["reason"]) == (409, "guard-failed", reason)
    assert bool(re.search("what came back of the batch .* is not what was to be signed: [a-z-]+", caplog.text)) is (
        fault != "nothing"
    )
    assert still(place) == before
    assert row(place, at)["signature"] == "none"
    assert ada.post(f"{step}/cancel").headers["location"] == at


GIVEN = b"%PDF-1.7 what was confirmed"
GOOD = Found(True, "a" * 64, covers_all=True, before_sha256=hashlib.sha256(GIVEN).hexdigest(), is_undisturbed=True)
FIRST = Found(True, "b" * 64, covers_all=False, before_sha256="c" * 64, is_undisturbed=True)


@pytest.mark.parametrize(
    ("fault", "number", "signed", "found"),
    [
        ("", 1, GIVEN + b"!", [GOOD]),
        ("", 2, GIVEN + b"!", [FIRST, GOOD]),
        ("not-this-document", 1, GIVEN, [GOOD]),
        ("not-this-document", 1, GIVEN[1:] + b"!", [GOOD]),
        ("other-signatures", 1, GIVEN + b"!", []),
        ("other-signatures", 1, GIVEN + b"!", [FIRST, GOOD]),
        ("other-signatures", 2, GIVEN + b"!", [GOOD]),
        ("not-valid", 1, GIVEN + b"!", [replace(GOOD, is_valid=False)]),
        ("another-certificate", 1, GIVEN + b"!", [replace(GOOD, fingerprint="b" * 64)]),
        ("not-all-of-it", 1, GIVEN + b"!", [replace(GOOD, covers_all=False)]),
        ("another-revision", 1, GIVEN + b"!", [replace(GOOD, before_sha256="c" * 64)]),
        ("earlier-signature", 2, GIVEN + b"!", [replace(FIRST, is_valid=False), GOOD]),
        ("earlier-signature", 2, GIVEN + b"!", [replace(FIRST, is_undisturbed=False), GOOD]),
    ],
)
def test_what_is_wrong_with_a_signed_document(fault: str, number: int, signed: bytes, found: list[Found]) -> None:
    """SIG-08, SIG-17: each fault has its word, and a good one has none; the first of two signatures has to be as good as it was."""
    task = Task({}, number, "sign", "", "", "", hashlib.sha256(GIVEN).hexdigest())
    assert signing.fault(signed, GIVEN, found, task, "a" * 64) == fault


@pytest.mark.parametrize("at_step", ["approve", "save"])
def test_who_has_closed_the_window_goes_on(place: Place, ada: Visitor, at_step: str) -> None:
    """SIG-08, SIG-14: by "Sign" on the procedure's page and a link there, to where she was: what was signed and not saved is not lost."""
    at = confirmed(ada)
    if at_step == "save":
        step = to_save(place, ada, at)
    else:
        chooses(ada, step := begins(ada, at))
    done = ada.post(f"{at}/signing", page=at)
    page = ada.get(done.headers["location"]).text
    assert f'href="{step}">Go on with it</a>' in page
    assert ("signed there, and not saved yet" in page) is (at_step == "save")
    assert ada.get(step).status_code == 200
    if at_step == "save":
        assert ada.post(f"{step}/save", page=step).status_code == 303
        assert row(place, at)["signature"] == "valid"


@pytest.mark.parametrize(("told", "kept_s"), [("2000-01-01", 300), ("2100-01-01", 900), ("no time", 900)])
def test_the_time_of_approval_is_of_this_batch(place: Place, ada: Visitor, told: str, kept_s: int) -> None:
    """SIG-05: whatever the browser says, it is kept no earlier than the batch that was approved was opened, and no later than now."""
    at, begun = confirmed(ada), SetClock.at
    step = begins(ada, at)
    SetClock.later(300)
    chooses(ada, step)
    place.desk.signs(place.desk.newest())
    SetClock.later(600)
    comes_back(ada, place.desk.newest(), approved=told)
    [one] = rows(place, schema.signings)
    assert one["approved"] - begun == kept_s


def test_what_ends_an_attempt_is_in_the_audit(place: Place, ada: Visitor, bob: Visitor) -> None:
    """UI-08, SIG-14: an edit, a recall, a refusal and the desk's closing end what is being signed with a line that says which of them, and whose batch."""
    at = confirmed(ada)
    chooses(ada, begins(ada, at))
    batch = place.desk.newest()
    saves(ada, at, "person", {**PERSON, "phone": "+352 26 43 22"})
    lease_at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, lease_at)
    there = f"/spaces/{other}/signatures/{row(place, lease_at)['reference']}"
    for ends in (
        lambda: ada.post(f"{lease_at}/recall", page=lease_at),
        lambda: bob.post(f"{there}/refuse", {"reason": "No."}, page=there),
    ):
        transfers(ada, lease_at, other)
        begins(bob, there)
        assert ends().status_code == 303
    found = [json.loads(one["detail"]) for one in rows(place, schema.audit) if one["event"] == "signing-ended"]
    assert [(one["by"], one["number"], one.get("batch")) for one in found] == [
        ("save", 1, batch), ("recall", 2, None), ("decline", 2, None),
    ]  # fmt: skip
    assert [one["begun_by"] for one in found] == [
        account_of(place.services.engine, name) for name in ("Ada", "Bob", "Bob")
    ]


def test_an_attempt_is_its_sessions(place: Place, ada: Visitor) -> None:
    """SIG-14: the same person, logged in elsewhere too, does not go on with it there, but takes it over."""
    at = confirmed(ada)
    step = to_save(place, ada, at)
    elsewhere = place.visitor()
    with place.services.engine.begin() as connection:
        [session] = connection.execute(select(schema.sessions)).mappings().all()
        connection.execute(insert(schema.sessions).values({**session, "token": hashed("another")}))
    elsewhere.http.cookies.set("__Host-session", "another", domain="portal.test")
    assert elsewhere.get(step).headers["location"] == f"{at}/signing"
    for end in ("save", "certificate"):
        assert elsewhere.json(f"{step}/{end}", {"credential": "ada"}).json()["code"] == "stale"
    page = elsewhere.get(f"{at}/signing").text
    assert "in another window" in page
    assert "Go on with it" not in page
    assert ada.post(f"{step}/save", page=step).status_code == 303


@pytest.mark.parametrize("by", ["delete", "choose"])
def test_what_no_attempt_names_is_destroyed_once_the_daemon_is_back(place: Place, ada: Visitor, by: str) -> None:
    """PROC-17, SIG-09: a batch of a deleted procedure, or of a certificate chosen before, cannot be signed, also where the daemon was away at that moment."""
    at = confirmed(ada)
    step = begins(ada, at)
    chooses(ada, step)
    left, made = place.desk.newest(), place.services

    def goes_away() -> None:
        place.desk.is_away = True

    if by == "delete":
        page = ada.form(f"{at}/delete")
        goes_away()
        done = ada.http.post(f"{at}/delete", data=page)
    else:
        place.desk.meanwhile = goes_away
        done = chooses(ada, step)
    assert done.status_code == 303, done.text
    clock = Unsaved(made.engine, made.clock, made.daemon, made.settings.limits)
    clock.once()
    assert (place.desk.held[left].state, [one["batch"] for one in rows(place, schema.dropped_batches)]) == (
        "OPEN",
        [left],
    )
    place.desk.is_away = False
    clock.once()
    assert (place.desk.held[left].state, rows(place, schema.dropped_batches)) == ("CANCELLED", [])
    assert by == "delete" or place.desk.held[place.desk.newest()].state == "OPEN"


def test_what_is_deleted_leaves_nothing_at_the_daemon(place: Place, ada: Visitor) -> None:
    """PROC-17, SIG-09: what was signed and not saved goes with the procedure; attempts that are over are forgotten a day later."""
    at = confirmed(ada)
    to_save(place, ada, at)
    assert ada.post(f"{at}/delete", ada.form(f"{at}/delete"), page=f"{at}/delete").status_code == 303
    assert place.desk.held[place.desk.newest()].signed == b""
    at = confirmed(ada)
    signs(place, ada, at)
    ended = begins(ada, confirmed(ada))
    ada.post(f"{ended}/cancel")
    made = place.services
    upkeep = Upkeep(made.engine, made.clock, made.blobs, made.settings.limits)
    SetClock.later(86_000)
    upkeep.once()
    assert len(rows(place, schema.signings)) == 2
    SetClock.later(1_000)
    upkeep.once()
    assert rows(place, schema.signings) == []
    assert row(place, at)["signature"] == "valid"


def test_a_form_that_is_changed_meanwhile_is_not_signed(place: Place, ada: Visitor) -> None:
    """SIG-05, PROC-14: a change of the declaration ends the attempt, wherever it is, and what was signed is destroyed."""
    at = confirmed(ada)
    step = to_save(place, ada, at)
    assert saves(ada, at, "address", {"street": "13 Mill Lane"}).status_code == 303
    confirms(ada, at)
    done = ada.json(f"{step}/save", {})
    assert (done.status_code, done.json()["code"]) == (409, "stale")
    assert (row(place, at)["signature"], rows(place, schema.signatures)) == ("none", [])
    clears(place)
    assert place.desk.held[place.desk.newest()].signed == b""


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create(f"t{tmp_path.name[-20:]}")
    made = Place(tmp_path, database=url)
    yield made
    made.close()


def at_once(person: Visitor, path: str, **fields: str) -> list[Any]:
    """Eight posts at the same moment, each by a browser of its own that has her cookies."""
    barrier, answers = threading.Barrier(8), list[Any]()
    token = person.form("/terms")["csrf"]

    def post() -> None:
        browser = person.place.visitor()
        browser.http.cookies.update(person.http.cookies)
        barrier.wait()
        answers.append(browser.http.post(path, data={"csrf": token, **fields}))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_many_at_once_one_is_done(either: Place) -> None:
    """
    SIG-08, SIG-14, SIG-17, 0.1: "Sign", "Save", transfer, recall and refusal eight times at one moment: each is done once, and of the
    bytes that came the others' are gone; on both databases.
    """
    ada = either.visitor()
    ada.logs_in("Ada", "Lovelace")
    ready_to_sign(either, ada)
    bob = either.visitor()
    bob.logs_in("Bob", "Boole")
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    for nothing in ("%00", "x", "0" * 32):  # PostgreSQL takes no zero byte
        assert ada.get(f"{at}/signing/{nothing}").status_code == 404
        assert ada.get(f"/signings/returned?batch={nothing}").headers["location"] == "/home"
    begun = at_once(ada, f"{at}/signing")
    assert [one.status_code for one in begun] == [303] * 8
    [attempt] = rows(either, schema.signings)
    step = f"{at}/signing/{attempt['id']}"
    assert {one.headers["location"] for one in begun} == {step}  # one begins, the others go on with it
    chosen = at_once(ada, f"{step}/certificate", credential="ada")
    assert {one.status_code for one in chosen} <= {303, 409}
    [attempt] = [one for one in rows(either, schema.signings) if one["open"]]
    assert [batch for batch, one in either.desk.held.items() if one.state == "OPEN"] == [attempt["batch"]]
    either.desk.signs(attempt["batch"])
    comes_back(ada, attempt["batch"])
    done = at_once(ada, f"{step}/save")
    assert sorted(one.status_code for one in done) == [303] + [409] * 7
    assert len(rows(either, schema.signatures)) == 1
    files = {path.name for path in either.services.blobs.path("0" * 32).parent.iterdir() if path.is_file()}
    assert files == {rows(either, schema.signatures)[0]["file"], row(either, at)["form_file"]}
    there = f"/spaces/{other}/signatures/{row(either, at)['reference']}"
    for person, path, fields in (
        (ada, f"{at}/transfer", {"identifier": other}), (ada, f"{at}/recall", {}),
        (ada, f"{at}/transfer", {"identifier": other}), (bob, f"{there}/refuse", {"reason": "No."}),
    ):  # fmt: skip
        done = at_once(person, path, **fields)
        assert sum(one.status_code == 303 for one in done) == 1, path
    events = [one["event"] for one in rows(either, schema.audit) if one["outcome"] == "done"]
    assert [events.count(f"procedure-{one}") for one in ("transfer", "recall", "decline")] == [2, 1, 1]
    mails = [one for one in rows(either, schema.outbox) if one["template"] == "signature-asked"]
    assert [one["state"] for one in mails] == ["failed", "failed"]  # stopped: recalled, and refused


# ---- the daemon away


@pytest.mark.parametrize("where", ["select", "certificate", "returned", "save"])
def test_without_the_daemon_nothing_changes(place: Place, ada: Visitor, where: str) -> None:
    """SIG-15: each step that asks it is 503 with the time to wait and a way to try again; then it goes on where it was."""
    at = confirmed(ada)
    step = begins(ada, at)
    if where in {"returned", "save"}:
        chooses(ada, step)
        place.desk.signs(place.desk.newest())
    if where == "save":
        comes_back(ada, place.desk.newest())
    fields = {"credential": "ada", "outcome": "signed"}
    page = ada.form(step)
    place.desk.is_away = True
    before = still(place)
    path = step if where == "select" else f"{step}/{where}"
    answer = ada.get(path) if where == "select" else ada.http.post(path, data={"csrf": page["csrf"], **fields})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert f'class="action" href="{step}">Try again</a>' in answer.text  # and the others are not as big
    assert f'class="secondary" href="{at}">To the procedure</a>' in answer.text
    assert still(place) == before
    place.desk.is_away = False
    if where == "select":
        assert ada.get(path).status_code == 200
    else:
        assert ada.post(path, fields, page=step).status_code == 303


# ---- two signatures


@pytest.fixture
def bob(place: Place) -> Visitor:
    person = place.visitor()
    person.logs_in("Bob", "Boole")
    ready_to_sign(place, person, "bob")
    return person


def waiting_mails(place: Place) -> list[tuple[str, str]]:
    """The template of each, and its link."""
    found = [one for one in rows(place, schema.outbox) if one["state"] == "queued"]
    return [(one["template"], json.loads(one["data"])["link"]) for one in found]


def transfers(person: Visitor, at: str, identifier: str) -> Any:
    return person.post(f"{at}/transfer", {"identifier": identifier}, page=at)


def test_two_spaces_sign_one_after_the_other(place: Place, ada: Visitor, bob: Visitor) -> None:
    """
    SIG-17: signed first, transferred by the other space's identifier, signed there as an addition to the first-signed PDF; then it is Ready.
    The other space sees title, reference, first signer and the signed PDF, and nothing else.
    """
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    assert "Transfer the procedure" not in ada.get(at).text
    assert "Two signatures are needed" in ada.get(f"{at}/check").text
    assert signs(place, ada, at).headers["location"] == at
    now = row(place, at)
    assert (now["status"], now["signature"]) == ("in_preparation", "first")
    page = ada.get(at).text
    assert "Transfer the procedure" in page and "Continue the declaration" not in page
    assert "Signed once" in page
    assert ada.json(at).json()["next_step"] == "transfer"
    first = ada.get(f"{at}/form").content
    assert ada.json(f"{at}/signing", {}).json()["reason"] == "already-signed"

    done = transfers(ada, at, f" {other[:5]}-{other[5:10]}-{other[10:].lower()} ")
    assert (done.status_code, done.headers["location"]) == (303, at), done.text
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    assert "nobody but you" not in ada.get(at).text + ada.get(f"{at.rsplit('/', 1)[0]}").text
    page = ada.get(at).text
    assert "Boole Ltd has this procedure to sign it." in page and "Edit the declaration" not in page
    for page in ("", "/files", "/procedures"):  # it has no procedure of its own
        assert "1 procedure of another space is to be signed here." in bob.get(f"/spaces/{other}{page}").text
    assert f'href="{there}"' in bob.get(f"/spaces/{other}/signatures").text
    page = bob.get(there)
    for seen in ("Declare the transfer of a lease", row(place, at)["reference"], "Ada Lovelace"):
        assert seen in page.text
    assert set(bob.json(there).json()) == {"title", "reference", "first", "is_hers", "at", "reason_most", "csrf"}
    assert "Mill Ltd" not in page.text
    assert bob.get(f"{there}/document").content == first
    for path in (at, f"{at}/form", f"/spaces/{other}/procedures/{row(place, at)['reference']}"):
        assert bob.get(path).status_code == 404
    for path, fields in (
        (f"{at}/steps/lease", {"premises": "x", "version": str(row(place, at)["version"])}),
        (f"{at}/delete", {"confirmed": "yes"}),
    ):
        assert ada.json(path, fields).json()["reason"] == "transferred"

    done = signs(place, bob, there, "bob")
    assert (done.status_code, done.headers["location"]) == (303, f"/spaces/{other}/signatures"), done.text
    now = row(place, at)
    assert (now["status"], now["signature"], now["second_state"]) == ("ready", "valid", "")
    both = ada.get(f"{at}/form").content
    assert both.startswith(first) and len(both) > len(first)
    page = ada.get(at).text
    assert "Signed by Ada Lovelace" in page and "Signed by Bob Boole" in page and "Transfer the procedure" not in page
    assert [one["number"] for one in rows(place, schema.signatures)] == [1, 2]
    assert bob.get(there).status_code == 404
    (line,) = bob.json(f"/spaces/{other}/signatures").json()["signed"]
    assert (line["title"], line["reference"], line["family"]) == (
        "Declare the transfer of a lease",
        now["reference"],
        "Boole",
    )
    assert "Signed here for other spaces" in bob.get(f"/spaces/{other}/signatures").text
    assert "nobody but you" not in ada.get(at).text + ada.get(f"{at.rsplit('/', 1)[0]}").text
    (mail,) = [one for one in rows(place, schema.outbox) if one["template"] == "signature-given"]
    assert json.loads(mail["data"]) == {
        "space": "Boole Ltd",
        "reference": now["reference"],
        "link": ORIGIN + at,
    }
    saves(ada, at, "lease", {"premises": "13 Mill Lane"})
    assert all(one["voided"] for one in rows(place, schema.signatures))
    assert (row(place, at)["status"], row(place, at)["signature"]) == ("in_preparation", "void")


def test_what_a_space_has_signed_stays_readable_there(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17, SIG-12: the space that has given the second signature opens the PDF from its list, byte for byte, until it is void; nobody else does."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    assert bob.get(f"{there}/document").content == ada.get(f"{at}/form").content
    signs(place, bob, there, "bob")
    assert f'href="{there}/document"' in bob.get(f"/spaces/{other}/signatures").text
    assert bob.get(f"{there}/document").content == ada.get(f"{at}/form").content
    assert ada.get(f"{there}/document").status_code == 404
    saves(ada, at, "lease", {"premises": "13 Mill Lane"})
    assert bob.get(f"{there}/document").status_code == 404
    assert bob.json(f"/spaces/{other}/signatures").json()["signed"] == []


def changed_for_another(place: Place, ada: Visitor, at: str) -> tuple[Visitor, str]:
    """The form is changed and signed anew; who is to sign it then, and her space's identifier."""
    saves(ada, at, "lease", {"premises": "13 Mill Lane"})
    confirms(ada, at)
    signs(place, ada, at)
    carol = place.visitor()
    carol.logs_in("Carol", "Clifford")
    return carol, carol.creates_business("Third")


def test_the_next_space_is_not_told_who_has_signed_before(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17: changed, signed anew and transferred to a third space: whose signature is void now is nothing that one sees."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    signs(place, bob, f"/spaces/{other}/signatures/{row(place, at)['reference']}", "bob")
    assert waiting_mails(place) == [("signature-given", ORIGIN + at)]  # nobody is asked any more
    carol, third = changed_for_another(place, ada, at)
    assert transfers(ada, at, third).status_code == 303
    found = carol.json(f"/spaces/{third}/signatures").json()
    assert (len(found["procedures"]), found["signed"]) == (1, [])


def test_what_no_space_is_transferred_to(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17, ESP-16: a mistyped, unknown, own or closed identifier sounds the same; before the first signature nothing is transferred."""
    own = private(ada)
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    done = ada.json(f"{at}/transfer", {"identifier": other})
    assert (done.status_code, done.json()["code"]) == (409, "forbidden-transition")
    signs(place, ada, at)
    before = still(place)
    wrong = other[:-1] + ("0" if other[-1] != "0" else "1")
    said = set()
    with place.services.engine.begin() as connection:
        connection.execute(schema.spaces.update().where(schema.spaces.c.identifier == other).values(state="suspended"))
    before = still(place)
    for identifier in (wrong, "00000000000", own.rsplit("/", 1)[1], other, "x" * 300, "\0"):
        done = ada.json(f"{at}/transfer", {"identifier": identifier})
        assert done.status_code == 422
        said.add(str(done.json()["errors"]))
    assert len(said) == 1 and "unknown-space" in said.pop()
    page = transfers(ada, at, wrong)
    assert page.status_code == 422 and f'value="{wrong}"' in page.text
    assert ada.json(f"{at}/recall", {}).json()["code"] == "forbidden-transition"
    assert still(place) == before
    one = confirmed(ada)
    signs(place, ada, one)
    assert ada.json(f"{one}/transfer", {"identifier": own}).json()["code"] == "forbidden-transition"


def test_nobody_is_written_to_in_masses(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17, 0.1 rate-limited: a transfer is a mail to another space: of one account there are so many in an hour, however often it is recalled."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    account = row(place, at)["author"]
    with place.services.engine.begin() as connection:
        mark = {"kind": "transfer", "who": account, "time": SetClock.at}
        connection.execute(insert(schema.marks), [mark] * (transfer.AN_HOUR_MAX - 1))
    assert transfers(ada, at, other).status_code == 303
    assert ada.post(f"{at}/recall", page=at).status_code == 303
    before = still(place)
    done = ada.json(f"{at}/transfer", {"identifier": other})
    assert (done.status_code, done.headers["retry-after"]) == (429, "3600")
    assert still(place) == before


def test_what_is_of_a_suspended_space_is_not_signed(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17, 11.5: by no step of the second signature, wherever the other space is; once the suspension is over it goes on, and meanwhile it may be refused."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    own = schema.spaces.update().where(schema.spaces.c.id == row(place, at)["space"])

    def becomes(state: str) -> None:
        with place.services.engine.begin() as connection:
            connection.execute(own.values(state=state))

    def refused(path: str, page: str, **fields: str) -> bool:
        becomes("suspended")
        done = bob.post(path, fields, page=page)
        assert (done.status_code, "this procedure is of is suspended" in done.text) == (409, True), done.text
        becomes("active")
        return True

    assert refused(f"{there}/signing", there)
    step = begins(bob, there)
    assert refused(f"{step}/certificate", step, credential="bob")
    window_of(chooses(bob, step, "bob"))
    place.desk.signs(place.desk.newest())
    comes_back(bob, place.desk.newest())
    assert refused(f"{step}/save", step)
    assert (row(place, at)["status"], row(place, at)["signature"]) == ("in_preparation", "first")
    assert bob.post(f"{step}/save", page=step).status_code == 303
    assert row(place, at)["status"] == "ready"


def test_the_other_space_refuses_or_is_recalled(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17: refused with a reason that the first space sees; recalled while the other one signs, whose attempt ends; then transferred again, or changed."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    assert bob.post(f"{there}/refuse", {"reason": " "}, page=there).status_code == 422
    done = bob.post(f"{there}/refuse", {"reason": "The date is wrong."}, page=there)
    assert done.headers["location"] == f"/spaces/{other}/signatures"
    now = row(place, at)
    assert (now["signature"], now["second"], now["second_state"], now["status"]) == (
        "first",
        None,
        "declined",
        "in_preparation",
    )
    assert "The date is wrong." in ada.get(at).text
    assert "The date is wrong." in ada.get(f"{at}/history").text
    assert bob.get(there).status_code == 404
    assert waiting_mails(place) == []  # what has asked for it and is not sent yet

    transfers(ada, at, other)
    assert waiting_mails(place) == [("signature-asked", ORIGIN + there)]
    assert "The date is wrong." not in ada.get(at).text
    step = to_save(place, bob, there, "bob")
    batch = place.desk.newest()
    assert ada.post(f"{at}/recall", page=at).headers["location"] == at
    assert bob.json(f"{step}/save", {}).status_code == 404
    assert waiting_mails(place) == []
    clears(place)
    assert place.desk.held[batch].signed == b""
    assert (row(place, at)["signature"], len(rows(place, schema.signatures))) == ("first", 1)
    assert "The date is wrong." not in ada.get(at).text  # it was asked again since
    transfers(ada, at, other)
    with place.services.engine.begin() as connection:
        connection.execute(schema.spaces.update().where(schema.spaces.c.identifier == other).values(state="suspended"))
    assert bob.json(f"{there}/signing", {}).json()["reason"] == "space-suspended"
    ada.post(f"{at}/recall", page=at)
    assert saves(ada, at, "lease", {"premises": "13 Mill Lane"}).status_code == 303
    assert row(place, at)["signature"] == "void"


def test_whose_signature_counts_again_reads_it_again(place: Place, ada: Visitor, bob: Visitor, grace: Visitor) -> None:
    """
    SIG-17, SUB-07: what was sent is signed by Bob's space; sent back, changed, and signed by Carol's; closed, it is what was
    sent: it is on the list of Bob's space again, and on no other's. A space that is still asked then is asked no more.
    """
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    reference = row(place, at)["reference"]
    signs(place, bob, f"/spaces/{other}/signatures/{reference}", "bob")
    attaches(place, at, "Lease", slot="lease")
    assert sends(ada, at).status_code == 303
    both = ada.get(f"{at}/form").content
    returns(grace, at)
    carol, third = changed_for_another(place, ada, at)
    transfers(ada, at, third)
    assert [link for template, link in waiting_mails(place) if template == "signature-asked"]
    assert closes(grace, at, reason="Too late.").status_code == 303
    assert [link for template, link in waiting_mails(place) if template == "signature-asked"] == []
    seen = [
        [one["reference"] for one in person.json(f"/spaces/{space}/signatures").json()["signed"]]
        for person, space in ((bob, other), (carol, third))
    ]
    assert seen == [[reference], []]
    assert bob.get(f"/spaces/{other}/signatures/{reference}/document").content == both
    assert carol.get(f"/spaces/{third}/signatures/{reference}/document").status_code == 404
    assert row(place, at)["second"] == next(
        one["id"] for one in rows(place, schema.spaces) if one["identifier"] == other
    )


def test_many_that_were_signed_have_pages(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-17: what a space has signed for others is listed to its end."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    signs(place, bob, f"/spaces/{other}/signatures/{row(place, at)['reference']}", "bob")
    [second] = [one for one in rows(place, schema.signatures) if one["number"] == 2]
    with place.services.engine.begin() as connection:
        more = [{**second, "id": new_id(), "time": second["time"] - number} for number in range(1, PAGE + 1)]
        connection.execute(insert(schema.signatures), more)
    pages = [bob.json(f"/spaces/{other}/signatures?page={number}").json()["signed"] for number in (1, 2)]
    assert [len(one) for one in pages] == [PAGE, 1]
    assert pages[1][0]["time"] == second["time"] - PAGE
    assert 'href="?page=2"' in bob.get(f"/spaces/{other}/signatures").text


def test_one_person_does_not_sign_twice(place: Place, ada: Visitor) -> None:
    """SIG-17: whoever has signed first is refused in the other space, too: by account, and by certificate."""
    at, other = lease(ada), ada.creates_business("Engines")
    signs(place, ada, at)
    transfers(ada, at, other)
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    assert f'action="{there}/signing"' not in ada.get(there).text
    for end in ("signing", "refuse"):
        done = ada.json(f"{there}/{end}", {"reason": "no"})
        assert (done.status_code, done.json()["reason"]) == (409, "same-signer")
    bob = joins(place, ada, other, "Bob", "Babbage", "signatory")
    [first] = rows(place, schema.signatures)
    place.desk.offers("bob-login", place.numbers["bob-login"], subject="ada", signs=False)
    place.desk.offers("ada-2", place.issuer.product("Ada", "Signs", signs=True).der, subject="ada")
    step = begins(bob, there)
    for credential in ("ada", "ada-2"):
        done = bob.json(f"{step}/certificate", {"credential": credential})
        assert (done.status_code, done.json()["reason"]) == (409, "same-signer"), credential
    assert place.desk.held.keys() == {place.desk.newest()}
    assert first["fingerprint"] == rows(place, schema.signatures)[0]["fingerprint"]


def test_one_person_with_two_accounts_does_not_sign_twice(place: Place) -> None:
    """SIG-17: her other card, registered by itself, has her CA's word that she is the same person; the first one's product may be gone since."""
    ada, again, issuer = place.visitor(), place.visitor(), place.issuer
    both = ada.logs_in("Ada", "Lovelace", issuer.product("Ada", "Lovelace", both=True, serial="77"))
    place.desk.offers("both", both.der, subject="somebody")
    at = lease(ada)
    assert signs(place, ada, at, "both").status_code == 303
    again.logs_in("Ada", "Lovelace", issuer.product("Ada", "Lovelace", serial="77", begins=-801))
    assert len(rows(place, schema.accounts)) == 2
    place.desk.offers("card", issuer.product("Ada", "Lovelace", signs=True, serial="77").der, subject="another")
    other = again.creates_business("Engines")
    transfers(ada, at, other)
    step = begins(again, f"/spaces/{other}/signatures/{row(place, at)['reference']}")
    assert {one["credential"] for one in offered(again, step)} == {"both", "card"}
    for products in ("registered", "gone"):
        for credential in ("both", "card"):
            done = again.json(f"{step}/certificate", {"credential": credential})
            assert (done.status_code, done.json()["reason"]) == (409, "same-signer"), (products, credential)
        [first] = rows(place, schema.signatures)
        with place.services.engine.begin() as connection:
            gone = schema.products.c.fingerprint == first["fingerprint"]
            connection.execute(schema.products.delete().where(gone))


def test_only_signatories_of_the_other_space_see_it(place: Place, ada: Visitor, bob: Visitor) -> None:
    """SIG-16, SIG-17: viewers and editors there are refused, strangers find nothing."""
    at, other = lease(ada), bob.creates_business("Boole Ltd")
    signs(place, ada, at)
    transfers(ada, at, other)
    there = f"/spaces/{other}/signatures/{row(place, at)['reference']}"
    editor = joins(place, bob, other, "Edda", "Member", "editor")
    for path in (f"/spaces/{other}/signatures", there, f"{there}/document"):
        assert editor.json(path).status_code == 403
        assert ada.json(path).status_code == 404
    for page in ("", "/files", "/procedures"):
        assert "to be signed here" not in editor.get(f"/spaces/{other}{page}").text
    third = place.visitor()
    third.logs_in("Carol", "Clifford")
    mine = third.creates_business("Third")
    assert third.get(f"/spaces/{mine}/signatures/{row(place, at)['reference']}").status_code == 404


# ---- what the daemon refuses


class Full:
    """A daemon that opens no batch, for this reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def credential(self, _name: str) -> Any:
        return pb.Credential(signature_algorithms=[pb.ECDSA], digest_algorithms=[pb.SHA256], key_type="P-256")

    async def open_batch(self, *_: Any, **__: Any) -> Any:
        raise ServiceError(self._reason, "no", "RESOURCE_EXHAUSTED")


class Lying(Full):
    """A daemon that has another document than the one that was sent."""

    def __init__(self, sha256: str) -> None:
        self._sha256 = sha256
        self.cancelled: list[str] = []

    async def open_batch(self, *_: Any, **__: Any) -> Any:
        item = pb.BatchItem(input_sha256=bytes.fromhex(self._sha256))
        return pb.OpenBatchResponse(batch=pb.Batch(items=[item]), link="a link")

    async def cancel_batch(self, batch: str, **_: Any) -> None:
        self.cancelled.append(batch)


def test_another_document_than_was_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is led to a batch with another document than the one that was sent: it is destroyed, and the log says so."""
    mine, others = (hashlib.sha256(one).hexdigest() for one in (b"mine", b"another's"))
    lying = Lying(others)
    monkeypatch.setattr(portal_adapter.auth.daemon, "Client", SimpleNamespace(from_profile=lambda _: lying))
    daemon = portal_adapter.auth.daemon.Daemon(tmp_path)
    with pytest.raises(Refusal) as refused:
        daemon.open("batch", "ada", "a letter", tmp_path, mine)
    assert (refused.value.code, lying.cancelled) == ("signer-unavailable", ["batch"])
    assert f"was sent {mine}" in caplog.text
    assert daemon.open("batch", "ada", "a letter", tmp_path, others) == "a link"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("TOO_MANY_FOR_PERSON", ("guard-failed", "too-many-open")), ("TOO_MANY_BATCHES", ("signer-unavailable", ""))],
)
def test_too_many_wait_at_the_daemon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str, told: tuple[str, str]
) -> None:
    """SIG-15: who has too many documents waiting is told what to do about it; who comes when others have, to come again."""
    profile = SimpleNamespace(from_profile=lambda _: Full(reason))
    monkeypatch.setattr(portal_adapter.auth.daemon, "Client", profile)
    with pytest.raises(Refusal) as refused:
        portal_adapter.auth.daemon.Daemon(tmp_path).open("batch", "ada", "a letter", tmp_path, "")
    assert (refused.value.code, refused.value.reason) == told
