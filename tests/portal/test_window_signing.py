"""Signing in the window, for real: what is shown, typed and pressed there, and what the daemon and the portal get of it."""

import asyncio
import base64
import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import pytest
from sqlalchemy import update

from portal_adapter.window.attempt import COOKIE, Attempt, opened, sealed
from signer.store import batches, open_store
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.card.piv import PIN_REF
from tests.daemon import until
from tests.pool.cards import insert, pull
from tests.portal.real import CARD_PIN, PAD_PIN, TRIES_A_MINUTE, Browser, Real
from tests.portal.signing import DOCUMENT, Signer, fetched, fields, opens, portal, returned, state
from tests.signer.access.calls import Caller, signed
from tests.signer.people import canaries

WRONG, WRONG_PIN = "wrong horse 8", "93051742"
TYPED: dict[str, bytes] = {"the wrong secret code": WRONG.encode(), "the wrong PIN": WRONG_PIN.encode()}


def heading(answer: httpx.Response) -> str:
    return re.findall(r"<h1>([^<]*)</h1>", answer.text)[0]


def waits(real: Real, token: str, state: str = "OPEN") -> None:
    """Until a token is so; OPEN: there, and waiting for its person."""

    with Caller(real.rig, "operator") as operator:

        def is_so() -> bool:
            tokens = operator.operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
            found = next(one.state for one in tokens if one.name == token)
            return op.Token.State.Name(found) == state

        until(is_so, 20, f"the {token} is {state}")


# ---- step 2


@pytest.mark.parametrize("name", ["ada", "bob", "dan"])
def test_a_person_signs_with_her_codes(real: Real, name: str) -> None:
    """
    SIG-06: secret code and one-time code, whatever that one comes from, sign what was approved. The browser is led to the
    portal with batch, outcome and time of approval; the portal fetches a PDF that begins with its own and verifies.
    """
    signer, person = Signer.at(real, name), real.people[name]
    before = datetime.now(UTC) - timedelta(seconds=1)
    page = signer.approves()
    typed = signer.codes_of(person, page)
    TYPED[f"{name}'s secret code"] = person.secret_code.encode()
    told = returned(signer.types(page, **typed))
    assert (told["batch"], told["outcome"]) == (signer.opened.id, "signed")
    assert before <= datetime.fromisoformat(told["approved"]) <= datetime.now(UTC)
    assert f"{person.given} {person.family}" in fetched(real, signer.opened.id)


def test_what_is_shown_is_the_daemon_s_copy(real: Real) -> None:
    """
    SIG-02: document, name, size, digest and number are the daemon's, the current one of the four steps is marked, and the
    link is out of the address. Nothing is kept in caches, and only our own pages have the document in a frame.
    """
    signer = Signer.at(real, "ada")
    answer = signer.browser.get(signer.opened.address)
    assert answer.headers["location"] == "/sign/approve?language=en"
    for cookie in answer.headers.get_list("set-cookie"):
        assert cookie.startswith("__Host-")
        assert {"secure", "httponly", "path=/", "samesite=lax"} <= {one.strip().lower() for one in cookie.split(";")}
    page = signer.get("/sign/approve")
    for shown in ("Déclaration d’adresse.pdf", f"{len(DOCUMENT)} bytes", hashlib.sha256(DOCUMENT).hexdigest()):
        assert shown in page.text
    assert "<title>Read and approve – Déclaration d’adresse.pdf – Signing window of" in page.text
    steps = re.findall(r"<li([^>]*)>([^<]+)", re.findall(r'<ol class="course">.*?</ol>', page.text, re.DOTALL)[0])
    assert [(attribute.strip(), name.strip()) for attribute, name in steps] == [
        ('class="done"', "Select the certificate"),
        ('aria-current="step"', "Read and approve"),
        ("", "Sign"),
        ("", "Save to Millbrook"),
    ]
    assert 'aria-current="step">Sign<' in signer.approves_again()
    document = signer.get("/sign/document/0")
    assert document.content == DOCUMENT
    assert document.headers["content-type"] == "application/pdf"
    assert document.headers["content-disposition"].startswith("inline; filename*=UTF-8''D%C3%A9claration")
    assert document.headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in document.headers["content-security-policy"]
    policy = page.headers["content-security-policy"]
    assert "frame-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert {page.headers["cache-control"], document.headers["cache-control"]} == {"no-store"}
    assert "frame-src" not in signer.get("/").headers["content-security-policy"]
    assert signer.get("/sign/document/1").status_code == 404
    for other in ("1", "x", "9" * 5000):  # the page of the first
        assert '<iframe src="/sign/document/0"' in signer.get(f"/sign/approve?document={other}").text


def test_a_link_leads_one_browser_to_its_batch_once(real: Real) -> None:
    """
    0.1 gone: a second browser with the same link, one with another's cookie, and one with an altered or invented one get a
    page that says what to do. The browser that was first goes on, also by the link again.
    """
    signer = Signer.at(real, "ada")
    with portal(real) as client:
        assert signer.opened.id in [one.request_id for one in client.batches()]
    cookie = signer.browser.get(signer.opened.address).headers.get_list("set-cookie")[-1]
    assert cookie.startswith("__Host-signing=")
    for flag in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert flag in cookie
    assert 800 < int(re.findall(r"Max-Age=(\d+)", cookie)[0]) <= 900
    value = cookie.partition("=")[2].partition(";")[0].strip('"')
    altered = value[:-8] + ("A" if value[-8] != "A" else "B") + value[-7:]
    for given in ("", value, altered, "AAAA", "%"):
        other = real.browser()
        other.http.cookies.set(COOKIE, given)
        for address in (signer.opened.address, f"{real.window_origin}/sign/approve"):
            gone = other.get(address)
            assert gone.status_code == 410
            assert heading(gone) == "This signing is not here any more"
            assert f'href="{real.portal_origin}/"' in gone.text
    for given, code in ((altered, 410), (value, 200)):
        signer.browser.http.cookies.delete(COOKIE)
        signer.browser.http.cookies.set(COOKIE, given)
        assert signer.get("/sign/approve").status_code == code
    assert signer.browser.get(signer.opened.address).headers["location"] == "/sign/approve?language=en"


def test_what_a_browser_brings_back_is_over_with_its_batch() -> None:
    """SIG-13: the cookie says nothing any more once the batch's time is over, nor under another key or beside another browser."""
    key, attempt = b"k" * 32, Attempt("a batch", "a link", ends=1000, approved=900, shown="a hash")
    cookie = sealed(key, "browser", attempt)
    assert opened(key, "browser", cookie, 999.5) == attempt
    assert opened(key, "browser", cookie, 1000.0) is None
    assert opened(b"l" * 32, "browser", cookie, 999.5) is None
    assert opened(key, "another", cookie, 999.5) is None


def test_the_box_has_to_be_ticked(real: Real) -> None:
    """SIG-05: without the tick there is no next step, and for another document than the one that was shown there is none either."""
    signer = Signer.at(real, "ada")
    page = signer.follows()
    empty = signer.post("/sign/approve", page)
    assert empty.status_code == 422
    assert "Tick this box once you have read the document." in empty.text
    stale = signer.post("/sign/approve", page, {"approved": "yes", "shown": "0" * 64})
    assert stale.status_code == 409
    assert "This is not the document of the page that you sent." in stale.text
    assert "checked" not in stale.text
    assert signer.get("/sign/codes").headers["location"] == "/sign/approve?language=en"


def test_the_steps_are_taken_in_their_order(real: Real) -> None:
    """SIG-13: codes that come before the approval sign nothing and are not looked at; they are good afterwards."""
    signer, ada = Signer.at(real, "ada"), real.people["ada"]
    page, before = signer.follows(), signed(real.rig)
    typed = {"secret_code": ada.secret_code, "otp": ada.otp()}
    early = signer.types(page, **typed)
    assert early.status_code == 409
    assert "Read and approve the document first." in early.text
    assert fields(early.text) == {"approved": "yes"} and 'action="/sign/approve"' in early.text
    assert signed(real.rig) == before
    assert returned(signer.types(signer.approves_again(), **typed))["outcome"] == "signed"


# ---- step 3


def test_codes_that_are_missing_or_wrong(real: Real) -> None:
    """
    SIG-06, SIG-07: empty fields are named all at once; wrong codes stay on the step, are not shown again and not sent again;
    with the right ones it is signed.
    """
    signer, eve = Signer.at(real, "eve"), real.people["eve"]
    page, before = signer.approves(), signed(real.rig)
    empty = signer.types(page, secret_code="", otp=" ")
    assert empty.status_code == 422
    assert [name in empty.text for name in ("Secret code: This field", "One-time code: This field")] == [True, True]
    short = signer.types(page, secret_code=WRONG, otp="12345")
    assert "One-time code: A one-time code has six digits." in short.text and "not right" not in short.text
    wrong = signer.types(page, secret_code=WRONG, otp="000000")
    assert wrong.status_code == 422
    assert "The secret code or the one-time code is not right." in wrong.text
    assert "After a few more wrong tries nothing is looked at" in wrong.text
    assert fields(wrong.text) == {"secret_code": "", "otp": ""}
    assert WRONG not in wrong.text
    assert signed(real.rig) == before
    assert returned(signer.types(wrong.text, secret_code=eve.secret_code, otp=eve.otp()))["outcome"] == "signed"


def test_a_code_is_sent_for_this_document(real: Real) -> None:
    """SIG-06: the message names document and check code as the window does; a second one at once is refused with a time; for another document the code is not good."""
    dan, other, signer = real.people["dan"], Signer.at(real, "dan"), Signer.at(real, "dan")
    after = len(real.inbox.messages)
    page = signer.approves()
    sent = signer.has_sent(page)
    code = real.inbox.code("dan", "sign-code", after)
    text = real.inbox.next("dan", "sign-code", after)["text"]
    check = re.findall(r"names this signing (\S+):", sent.text)[0]
    assert check in text and "adresse.pdf" in text
    assert "A one-time code was sent to you." in sent.text and real.inbox.url("***") not in sent.text
    again = signer.post("/sign/codes", page, {"do": "send"})
    assert again.status_code == 429 and 0 < int(again.headers["retry-after"]) <= 30
    typed = {"secret_code": dan.secret_code, "otp": code}
    theirs = other.types(other.approves(), **typed)
    assert theirs.status_code == 422 and "was sent for something else" in theirs.text
    wrong = signer.types(sent.text, secret_code=WRONG, otp=code)
    assert wrong.status_code == 422 and "that was sent to you is not used up" in wrong.text
    assert (
        ">Send me a code<" in page and ">Send me another code<" in sent.text and ">Send me another code<" in wrong.text
    )
    assert "A one-time code was sent to you." in signer.get("/sign/codes").text  # as long as the signing is
    assert returned(signer.types(sent.text, **typed))["outcome"] == "signed"


def test_a_card_s_pin(real: Real) -> None:
    """
    SIG-06, SIG-07: a card wants its PIN: empty and wrong ones stay on the step; the tries that are left are told where the
    card tells them. The last one is not spent: nothing more is sent to the card, and the page says who can help.
    """
    waits(real, "desk")
    card, signer = real.own_card, Signer.at(real, "cleo")
    page = signer.approves()
    assert fields(page) == {"pin": ""}
    TYPED["the PIN"] = CARD_PIN.encode()
    assert "PIN of your card or stick: This field is mandatory." in signer.types(page, pin="").text
    first = signer.types(page, pin=WRONG_PIN)
    assert first.status_code == 422
    assert "The PIN is not right." in first.text and "Tries left" not in first.text
    waits(real, "desk")
    second = signer.types(first.text, pin=WRONG_PIN)
    assert "The PIN is not right. Tries left: 1." in second.text
    assert fields(second.text) == {"pin": ""} and WRONG_PIN not in second.text
    heard = len(card.seen("verify"))
    waits(real, "desk")
    guarded = signer.types(second.text, pin=CARD_PIN)
    assert guarded.status_code == 409
    assert "Whoever issued it can help." in guarded.text and fields(guarded.text) == {}
    assert (len(card.seen("verify")), card.tries[PIN_REF]) == (heard, 1)
    # Whoever issued it has looked at it; what she uses then is not the window.
    waits(real, "desk")
    request = pb.SignBatchRequest(request_id=signer.opened.id, pin=CARD_PIN, override_final_try=True)
    with Caller(real.rig, "window") as window:
        window.signing.SignBatch(request, timeout=20)
    over = signer.get("/sign/codes")
    assert (over.status_code, heading(over)) == (409, "This is signed")
    assert f"batch={signer.opened.id}&amp;outcome=signed" in over.text
    assert "Cleo Token" in fetched(real, signer.opened.id)


def test_a_card_that_is_locked(real: Real) -> None:
    """SIG-06: a locked card is told as `pin-locked`, with who can help, and is sent nothing."""
    waits(real, "desk")
    card, signer = real.own_card, Signer.at(real, "cleo")
    page, heard = signer.approves(), len(card.seen("verify"))
    card.tries[PIN_REF] = 0
    try:
        locked = signer.types(page, pin=CARD_PIN)
        assert locked.status_code == 409
        assert "Whoever issued it can unlock it." in locked.text
        assert fields(locked.text) == {}
        assert len(card.seen("verify")) == heard
        assert returned(signer.post("/sign/cancel", locked.text))["outcome"] == "cancelled"
    finally:
        waits(real, "desk", "LOCKED")
        card.unblock()
        with Caller(real.rig, "operator") as operator:
            operator.operator.UnlockToken(op.UnlockTokenRequest(token="desk"), timeout=10)
    waits(real, "desk")


def test_a_card_that_is_pulled(real: Real) -> None:
    """SIG-15: without the card `token-absent` and what to do; the form stays, and with the card in again it is signed."""
    waits(real, "desk")
    pcscd, signer = real.pcscd, Signer.at(real, "cleo")
    assert pcscd is not None
    page = signer.approves()
    card = asyncio.run(pull(pcscd))
    until(lambda: "Put it in" in signer.get("/sign/codes").text, 10, "the page says so before a PIN is typed")
    absent = signer.types(page, pin=CARD_PIN)
    assert absent.status_code == 409
    assert "Put it in" in absent.text
    assert fields(absent.text) == {"pin": ""}
    asyncio.run(insert(pcscd, card))
    waits(real, "desk")
    assert returned(signer.types(absent.text, pin=CARD_PIN))["outcome"] == "signed"


def test_a_pin_at_the_reader_is_waited_for(real: Real) -> None:
    """SIG-06, SIG-09: without a field, the page waits for the reader; Cancel ends that at once; typed there, it is signed."""
    waits(real, "stick")
    signer = Signer.at(real, "pia")
    page = signer.approves()
    assert fields(page) == {} and "type your PIN at the reader itself" in page
    real.pad(f"C_Login@stick * typed {PAD_PIN}", "C_Login@stick * hold 20")
    try:
        with ThreadPoolExecutor(1) as pool:
            signing = pool.submit(signer.types, page)
            until(lambda: state(real, signer.opened.id) == "SIGNING", 10, "the reader waits")
            began = time.monotonic()
            assert returned(signer.post("/sign/cancel", page))["outcome"] == "cancelled"
            assert time.monotonic() - began < 10
            signing.result(20)
    finally:
        real.pad(f"C_Login@stick * typed {PAD_PIN}")
    assert state(real, signer.opened.id) == "CANCELLED"
    waits(real, "stick")
    signer = Signer.at(real, "pia")
    assert returned(signer.types(signer.approves()))["outcome"] == "signed"
    real.pad()


def test_a_double_click_is_one(real: Real) -> None:
    """0.1: the same form twice at one moment is acted on once and answered alike: a right PIN signs once, a wrong one costs one try."""
    waits(real, "desk")
    card, signer = real.own_card, Signer.at(real, "cleo")
    page = signer.approves()

    def twice(page: str, pin: str) -> list[httpx.Response]:
        heard = len(card.seen("verify"))
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: signer.types(page, pin=pin), range(2)))
        assert len(card.seen("verify")) - heard <= 1
        return answers

    wrong = twice(page, WRONG_PIN)
    assert ["The PIN is not right." in one.text for one in wrong] == [True, True]
    waits(real, "desk")
    # The same form, by the browser's way back, with the right one: this is no double click.
    for one in twice(page, CARD_PIN):
        assert returned(one)["outcome"] == "signed"
    assert card.tries[PIN_REF] == 3


def test_the_second_click_comes_while_it_is_signed(real: Real) -> None:
    """0.1: it finds the batch no longer open, by the first, and is answered as that one; so is one that comes just after."""
    waits(real, "stick")
    signer = Signer.at(real, "pia")
    page = signer.approves()
    typed = f"C_Login@stick * typed {PAD_PIN}"
    real.pad(typed, "C_Login@stick * hold 20")
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(signer.types, page)
            until(lambda: state(real, signer.opened.id) == "SIGNING", 10, "the reader waits")
            second = pool.submit(signer.types, page)
            with pytest.raises(FutureTimeout):
                second.result(0.5)
            real.pad(typed)
            answers = [first.result(20), second.result(20), signer.types(page)]
    finally:
        real.pad()
    for one in answers:
        assert returned(one)["outcome"] == "signed"


# ---- what happens meanwhile


def test_a_second_signing_in_the_same_browser(real: Real) -> None:
    """0.1 stale: a form of the first one does nothing to the second, and its codes are not looked at."""
    first, ada = Signer.at(real, "ada"), real.people["ada"]
    page = first.approves()
    second = Signer(real, first.browser, opens(real, "ada"))
    second.approves()
    typed = {"secret_code": ada.secret_code, "otp": ada.otp()}
    stale = first.types(page, **typed)
    assert stale.status_code == 409 and "This is not the document of the page that you sent." in stale.text
    assert {state(real, one.opened.id) for one in (first, second)} == {"OPEN"}
    assert returned(second.types(second.approves_again(), **typed))["batch"] == second.opened.id


@pytest.mark.parametrize("step", ["/sign/approve", "/sign/codes"])
def test_leaving_cancels(real: Real, step: str) -> None:
    """SIG-09: Cancel and Back are on each page; nothing is signed, the portal is told, and the page afterwards says so."""
    signer = Signer.at(real, "ada")
    page = signer.follows() if step == "/sign/approve" else signer.approves()
    assert 'form="leave">Cancel<' in page and ">Back to Millbrook<" in page
    assert '<form method="post" id="leave" action="/sign/cancel"' in page
    told = returned(signer.post("/sign/cancel", page))
    assert (told["batch"], told["outcome"]) == (signer.opened.id, "cancelled")
    assert bool(told["approved"]) is (step == "/sign/codes")
    assert state(real, signer.opened.id) == "CANCELLED"
    after = signer.get(step)
    assert (after.status_code, heading(after)) == (409, "This signing was cancelled")
    assert signer.get("/sign/document/0").status_code == 409


def test_a_batch_that_the_portal_has_cancelled_or_whose_time_is_over(real: Real) -> None:
    """0.1: each is a calm page that leads back, whatever is posted; no code is looked at."""
    cancelled, over, ada = Signer.at(real, "ada"), Signer.at(real, "ada"), real.people["ada"]
    pages = [one.approves() for one in (cancelled, over)]
    with portal(real) as client:
        client.cancel_batch(cancelled.opened.id)
    engine = open_store(real.rig.state / "paraph.sqlite")
    with engine.begin() as connection:
        mine = batches.c.id == bytes.fromhex(over.opened.id.replace("-", ""))
        assert connection.execute(update(batches).where(mine).values(ends=0)).rowcount == 1
    engine.dispose()
    typed = {"secret_code": ada.secret_code, "otp": ada.otp()}
    first, second = (one.types(page, **typed) for one, page in zip((cancelled, over), pages, strict=True))
    assert (first.status_code, heading(first)) == (409, "This signing was cancelled")
    assert "outcome=cancelled" in first.text
    assert (second.status_code, heading(second)) == (410, "This signing is not here any more")
    assert f"batch={over.opened.id}&amp;outcome=over" in second.text
    signer = Signer.at(real, "ada")
    assert returned(signer.types(signer.approves(), **typed))["outcome"] == "signed"


def test_a_copy_that_was_changed_after_the_approval(real: Real) -> None:
    """SIG-05, F54: one bit of what the daemon keeps is another than was approved: nothing is signed, and the page says so."""
    kept = real.rig.state / "kept"
    before, count = set(kept.iterdir()), signed(real.rig)
    signer, ada = Signer.at(real, "ada"), real.people["ada"]
    page = signer.approves()
    [file] = set(kept.iterdir()) - before
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    seen = signer.get("/sign/document/0")
    assert (seen.status_code, heading(seen)) == (409, "This could not be signed")
    answer = signer.types(page, secret_code=ada.secret_code, otp=ada.otp())
    assert (answer.status_code, heading(answer)) == (409, "This could not be signed")
    assert "outcome=failed" in answer.text
    assert signed(real.rig) == count


def test_an_address_tries_so_many_times_a_minute(real: Real) -> None:
    """0.1 rate-limited: as at the login, forms with codes are counted for each address; others go on."""
    signer = Signer.at(real, "ada")
    page = signer.approves()
    answers = [signer.types(page, secret_code="x" * 300, otp="1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 422]  # no codes at all, so that nothing is counted
    for _ in range(TRIES_A_MINUTE):
        signer.post("/sign/codes", page, {"do": "send"})  # of a product that is sent none
    late = signer.types(page, secret_code=WRONG, otp="000000")
    assert late.status_code == 429 and 1 <= int(late.headers["retry-after"]) <= 60
    other = Browser(real, None, "127.0.2.1")
    assert other.get(f"{real.window_origin}/sign").status_code == 410
    other.http.close()


def test_nothing_that_was_typed_is_written_anywhere(real: Real) -> None:
    """SIG-07, row 7.2: after all of the above no PIN and no code is in a log, database, command line or environment, in any form, nor in a cookie."""
    waits(real, "desk")
    signer = Signer.at(real, "cleo")
    done = signer.types(signer.approves(), pin=CARD_PIN)
    assert returned(done)["outcome"] == "signed"
    written = canaries.files(real.directory) | {"the daemon's log": real.rig.log.read_bytes()}
    written["the address that leads back"] = done.headers["location"].encode()
    cookies = list(signer.browser.http.cookies.jar)
    written["the cookies"] = b"".join(
        base64.urlsafe_b64decode(one.value or "") for one in cookies if one.name == COOKIE
    )
    written |= {
        f"the {name}'s {what}": (real.proc(name) / what).read_bytes()
        for name in ("portal", "window")
        for what in ("cmdline", "environ")
    }
    assert signer.opened.id.encode() in written["the cookies"]
    assert any("window.log" in name and b"is signed" in content for name, content in written.items())
    assert canaries.hits(TYPED, written) == []
