"""How browsers come in, for real: TLS, client certificates, the front's socket, and who is kept out."""

import http.client
import json
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.daemon import until
from tests.pki import Authority
from tests.portal.place import hidden
from tests.portal.real import Browser, Real
from tests.processes import children

HEADER = "X-Client-Certificate"


@pytest.fixture(scope="module")
def fronted() -> Iterator[Real]:
    """A portal whose cards come by a front's socket."""
    with Real(front=HEADER) as made:
        yield made


Held = Mapping[str, "Future[float]"]
DRIPS = (
    b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


@pytest.fixture(scope="module", autouse=True)
def held(real: Real) -> Iterator[Held]:
    """How long who only holds a connection does, in seconds; begun before everything else, for it takes half a minute."""
    context = ssl.create_default_context(cafile=str(real.ca))
    begins = {
        "nothing": b"", "half": b"GET / HTTP/1.1\r\nHost: local",
        "form": DRIPS % b"/login/server", "nowhere": DRIPS % b"/nowhere",
    }  # fmt: skip
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(begins)))
        over = threading.Event()
        stack.callback(over.set)
        ends = {}
        for name, sent in begins.items():
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", real.ports["portal"]), 10))
            connection = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            connection.sendall(sent)
            ends[name] = pool.submit(_held, connection, over, drips=sent.startswith(b"POST"))
        yield ends


def _held(connection: ssl.SSLSocket, over: threading.Event, *, drips: bool) -> float:
    """Until the other side has ended it; to half a request or less it says nothing before."""
    began = time.monotonic()
    connection.settimeout(1)
    while not over.is_set():
        try:
            if drips:
                connection.sendall(b"x")
            if not connection.recv(65536):
                break
            assert drips, "it is answered"
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


# ---- cards


def test_a_card_logs_in(real: Real) -> None:
    """TOK-02, TOK-08, TOK-14: TLS asks for the card's certificate, and the page names who it is before anything is done."""
    browser = real.browser(real.card("Cleo", "Clifford"))
    begun = browser.post("/login/card", browser.get("/login").text)
    shown = browser.get(begun.headers["location"])
    assert "Cleo Clifford" in shown.text and "Test issuing" in shown.text
    browser.logs_in_with_card()
    assert "Cleo Clifford" in browser.get("/account").text


def test_an_operator_registers_a_product_number(real: Real) -> None:
    """TOK-06, UI-08: of a Signing Server product the daemon says whose it is; a number that is none is refused."""
    browser = real.browser(real.card("Ivy", "Ingham"))
    browser.logs_in_with_card()
    people = json.loads(real.run("user", "portal", "list", "--json").stdout)
    (ivy,) = [one["id"] for one in people if one["given"] == "Ivy"]
    done = real.run("user", "portal", "add-product", ivy, "--number", "nobody-login")
    assert done.returncode == 1 and "the daemon knows no such product" in done.stderr
    done = real.run("user", "portal", "add-product", ivy, "--number", "ivy-login", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "server"
    assert "ivy-login" in browser.get("/account").text


def _token(browser: Browser, real: Real) -> dict[str, str]:
    """A form's token on the cards' origin, whose page without a certificate has no form."""
    shown = browser.get(f"{real.cards_origin}/present", headers={"accept": "application/json"})
    return {"csrf": shown.json()["csrf"]}


def test_without_a_certificate_there_is_a_page_that_says_so(real: Real) -> None:
    """TOK-08: who presents no certificate sees why nothing goes on, and posting all the same is `unauthenticated`."""
    browser = real.browser()
    shown = browser.presents()
    assert "Your browser has presented no certificate." in shown.text
    answer = browser.post(f"{real.cards_origin}/present", "", {**_token(browser, real), "nonce": "0" * 64})
    assert answer.status_code == 401


@pytest.mark.parametrize("what", ["expired", "of another CA", "of a CA with the same name"])
def test_a_certificate_that_is_not_accepted_ends_in_the_handshake(real: Real, what: str) -> None:
    """TOK-08: TLS refuses a certificate that has expired or that another CA has issued; nothing is said of the portal."""
    if what == "expired":
        card = real.card("Cleo", "Clifford", ends=timedelta(days=-1))
    else:
        card = real.card("Cleo", "Clifford", issuer=Authority("Other" if what == "of another CA" else "Test issuing"))
    browser = real.browser(card)
    begun = browser.post("/login/card", browser.get("/login").text)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        browser.get(begun.headers["location"])


def test_a_short_key_comes_through_tls_and_is_told(real: Real) -> None:
    """TOK-08: TLS takes an RSA key of 2048 bits, so that it is the page that says what to do."""
    shown = real.browser(real.card("Cleo", "Clifford", key=rsa.generate_private_key(65537, 2048))).presents()
    assert shown.status_code == 403
    assert "Ask its issuer for a certificate with a longer key." in shown.text


@pytest.mark.parametrize("listener", ["portal", "window", "cards"])
def test_tls_agrees_on_elliptic_curves_alone(real: Real, listener: str) -> None:
    """ASVS 11.2.3: at each listener a client that offers a finite field of 2 048 bits alone is refused, and one of curves is not."""
    address = getattr(real, f"{listener}_origin").removeprefix("https://")

    def shakes_hands(*groups: str) -> bool:
        command = ["openssl", "s_client", "-connect", address, "-groups", ":".join(groups), "-brief"]
        done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
        return b"CONNECTION ESTABLISHED" in done.stderr

    assert [shakes_hands(group) for group in ("X25519", "P-256", "P-384")] == [True] * 3
    assert not shakes_hands("ffdhe2048")
    assert shakes_hands("ffdhe2048", "P-256")


def test_a_signature_certificate_does_not_log_in(real: Real) -> None:
    """TOK-03: a certificate for signing alone is refused with `wrong-certificate-usage`, whatever TLS made of it."""
    browser = real.browser(real.card("Cleo", "Clifford", usage="content_commitment"))
    try:
        done = browser.presents()
    except (httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError):
        return  # OpenSSL refuses it for a client, too
    answer = browser.returns(done)
    assert answer.status_code == 422
    assert "This certificate is for signing." in answer.text


def test_the_portal_s_own_origin_asks_for_no_certificate(real: Real) -> None:
    """TOK-14: a card is presented on the cards' origin alone; the portal knows nothing of one, and has no such page."""
    browser = real.browser(real.card("Cleo", "Clifford"))
    assert browser.get("/account").status_code == 303
    assert browser.get("/present").status_code == 404
    assert browser.get(f"{real.cards_origin}/account").status_code == 404


def test_what_draws_documents_is_ready(real: Real) -> None:
    """PROC-13: before anybody confirms the first one, beside the portal and below it."""
    portal = real.processes["portal"]
    until(lambda: children(portal.pid, "portal_adapter.form.press"), what="a process that draws")


def test_old_tls_is_refused(real: Real) -> None:
    """UI-07: TLS 1.2 or newer, on each of the three origins; plain HTTP gets no answer."""
    for name, host in (("portal", "127.0.0.1"), ("window", "127.0.0.1"), ("cards", "127.0.0.2")):
        context = ssl.create_default_context(cafile=str(real.ca))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection((host, real.ports[name]), 10) as plain,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            context.wrap_socket(plain, server_hostname=host)
        with socket.create_connection((host, real.ports[name]), 10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/" not in _rest(plain)


# ---- headers are nobody


FORGED = (
    HEADER,
    "X-SSL-Client-Cert",
    "X-Client-Cert",
    "SSL-Client-Cert",
    "X-User",
    "X-Remote-User",
    "X-Forwarded-User",
)


def test_a_header_makes_nobody(real: Real) -> None:
    """F55, TOK-14: a user's name or a certificate in a header opens nothing on any TLS listener, with a front's name too."""
    certificate, _ = real.card("Cleo", "Clifford")
    browser = real.browser()
    for value in (quote(certificate.read_text()), "cleo", "root"):
        forged = dict.fromkeys(FORGED, value)
        answer = browser.get("/account", headers=forged)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?back=%2Faccount")
        assert browser.get("/account", headers={**forged, "accept": "application/json"}).status_code == 401
        begun = browser.post("/login/card", browser.get("/login").text)
        shown = browser.get(begun.headers["location"], headers=forged)
        assert "Your browser has presented no certificate." in shown.text
        fields = {**_token(browser, real), "nonce": "0" * 64}
        posted = browser.post(f"{real.cards_origin}/present", "", fields, headers=forged)
        assert posted.status_code == 401
    elsewhere = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9"}
    assert browser.post("/login/server", "", {"csrf": "wrong"}, headers=elsewhere).status_code == 403
    lines = [json.loads(line) for line in real.run("audit", "portal", "show", "--json").stdout.splitlines()]
    [*_, refused] = [line for line in lines if line["outcome"] == "forbidden"]  # a mail may have left meanwhile
    assert refused["address"] == browser.address
    assert "203.0.113.9" not in json.dumps(lines)


# ---- the front's socket


class _Plain(http.client.HTTPConnection):
    """A front's side of the socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("cards.test")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


def _through(real: Real, method: str, path: str, headers: list[tuple[str, str]], form: dict[str, str] | None = None):
    connection = _Plain(real.front)
    connection.putrequest(method, path, skip_accept_encoding=True)
    body = urlencode(form).encode() if form is not None else b""
    more = [("content-type", "application/x-www-form-urlencoded"), ("content-length", str(len(body)))]
    for name, value in [*headers, *(more if form is not None else [])]:
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def _answers(real: Real) -> bool:
    """Not while the socket is still that of a process that was killed."""
    try:
        return _through(real, "GET", "/present?nonce=0", [])[0].status == 200
    except ConnectionRefusedError:
        return False


def test_a_front_passes_a_certificate_through_its_socket(fronted: Real) -> None:
    """TOK-14: with [front] the verified certificate comes in one header through a Unix socket, and opens a session."""
    certificate = quote(fronted.card("Cleo", "Clifford")[0].read_text())
    browser = fronted.browser()
    begun = browser.post("/login/card", browser.get("/login").text)
    path = begun.headers["location"].removeprefix(fronted.cards_origin)
    shown, page = _through(fronted, "GET", path, [(HEADER, certificate)])
    assert shown.status == 200
    assert "Cleo Clifford" in page
    cookie = shown.headers["set-cookie"].partition(";")[0]
    done, _ = _through(fronted, "POST", "/present", [(HEADER, certificate), ("cookie", cookie)], hidden(page))
    assert done.status == 303
    back = browser.get(done.headers["location"])
    browser.opens(browser.post("/login/ticket", back.text))
    assert "Cleo Clifford" in browser.get("/account").text


def test_a_front_s_certificate_is_looked_at_again(fronted: Real) -> None:
    """TOK-08: what the front passes on is accepted only from an accepted issuer, while it is valid, and with a long key."""
    for card, said in (
        (fronted.card("Cleo", "Clifford", ends=timedelta(days=-1)), "This product has expired."),
        (fronted.card("Cleo", "Clifford", issuer=Authority("Test issuing")), "not from an issuer that is accepted"),
        (fronted.card("Cleo", "Clifford", key=rsa.generate_private_key(65537, 2048)), "with a longer key."),
    ):
        answer, page = _through(fronted, "GET", "/present?nonce=0", [(HEADER, quote(card[0].read_text()))])
        assert answer.status == 403
        assert said in page


@pytest.mark.parametrize("value", ["x", "%00", "-----BEGIN%20CERTIFICATE-----"])
def test_a_front_s_header_that_is_none_is_refused(fronted: Real, value: str) -> None:
    """TOK-14: a header that holds no certificate, or comes twice, is refused; an empty one is no certificate."""
    good = quote(fronted.card("Cleo", "Clifford")[0].read_text())
    refused, _ = _through(fronted, "GET", "/present?nonce=0", [(HEADER, value)])
    assert refused.status == 400 and refused.headers["strict-transport-security"].endswith("; includeSubDomains")
    assert _through(fronted, "GET", "/present?nonce=0", [(HEADER, good), (HEADER.lower(), good)])[0].status == 400
    empty, page = _through(fronted, "GET", "/present?nonce=0", [(HEADER, "")])
    assert (empty.status, "has presented no certificate" in page) == (200, True)


def test_the_front_s_header_is_ignored_everywhere_else(fronted: Real) -> None:
    """F55, TOK-14: with a front configured its header on the portal's own listener is still nobody's certificate."""
    forged = {HEADER: quote(fronted.card("Cleo", "Clifford")[0].read_text())}
    browser = fronted.browser()
    assert browser.get("/account", headers=forged).status_code == 303
    assert browser.get("/present?nonce=0", headers=forged).status_code == 404
    begun = browser.post("/login/card", browser.get("/login").text, headers=forged)
    assert begun.headers["location"].startswith(f"{fronted.cards_origin}/present?")


def test_the_front_s_socket_is_not_everybody_s(fronted: Real) -> None:
    """TOK-14: the socket is its owner's and its group's (0660), is there again after a kill, and gone after a stop."""
    assert stat.S_IMODE(fronted.front.stat().st_mode) == 0o660
    process = fronted.processes.pop("portal")
    process.kill()
    process.wait()
    assert fronted.front.exists()
    fronted.start("portal")
    until(lambda: _answers(fronted), what="the front's socket answers")
    assert fronted.stop("portal") == 0
    assert not fronted.front.exists()
    fronted.start("portal")


# ---- those who only hold connections


def _rest(connection: socket.socket) -> bytes:
    """Until the other side has closed."""
    connection.settimeout(25)
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_a_connection_without_a_request_is_ended(held: Held) -> None:
    """UI-07, row 6.1: who connects and sends nothing, or half a request, holds a connection for 10 s and no longer."""
    for end in held["nothing"], held["half"]:
        assert 5 < end.result(40) < 20


def test_a_body_that_drips_is_ended(held: Held) -> None:
    """UI-07, row 6.1: who sends a form drop by drop holds a connection for 20 s, whether its path is there or not."""
    for end in held["form"], held["nowhere"]:
        assert 15 < end.result(40) < 30


def test_endless_headers_are_refused(real: Real) -> None:
    """UI-07, row 6.1: a request's headers that go on and on are refused, and not collected."""
    context = ssl.create_default_context(cafile=str(real.ca))
    with (
        socket.create_connection(("127.0.0.1", real.ports["portal"]), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        sent = 0
        try:
            while sent < 4 * 1024 * 1024:
                sent += secure.send(b"X-%d: %s\r\n" % (sent, b"y" * 4000))
        except OSError:
            pass
        assert sent < 4 * 1024 * 1024


def test_a_listener_that_cannot_listen_is_told(real: Real) -> None:
    """UI-07, row 6.1: a second portal at the same address ends with a line that says so, and not with a traceback."""
    second = real.run("serve", "portal")
    assert second.returncode == 69
    assert f"cannot listen on 127.0.0.1:{real.ports['portal']}" in second.stderr
    assert "Traceback" not in second.stderr
