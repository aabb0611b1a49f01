"""GET over HTTP(S) from servers on loopback that answer well, badly, or without an end."""

import ssl
from pathlib import Path

import pytest

from signer import fetch as fetching
from signer.fetch import REDIRECTS_MAX, Fetched, FetchFailed, fetch
from tests.pki import Pki
from tests.signer.people.sites import MONDAY, Site, site

BYTES_MAX = 100_000


def test_what_is_there() -> None:
    """The bytes come as they are, with their date; asked for with that date, they are not sent again."""
    with site() as server:
        server.content, server.headers = b"x" * BYTES_MAX, {"Last-Modified": MONDAY}
        assert fetch(f"{server.url}/a?b=c", "", BYTES_MAX) == Fetched(server.content, MONDAY)
        server.status, server.content = 304, b""
        assert fetch(f"{server.url}/a?b=c", MONDAY, BYTES_MAX) == Fetched(None, MONDAY)
        assert server.asked == [("/a?b=c", None), ("/a?b=c", MONDAY)]


def test_too_much() -> None:
    """One byte more than the limit, announced or not, and an answer without an end, are refused; the rest is not read."""
    with site() as server:
        server.content = b"x" * (BYTES_MAX + 1)
        for server.headers in ({}, {"Content-Length": str(BYTES_MAX + 1)}):
            with pytest.raises(FetchFailed, match=f"sent more than {BYTES_MAX} bytes"):
                fetch(server.url, "", BYTES_MAX)
        server.headers, server.is_endless = {}, True
        with pytest.raises(FetchFailed, match=f"sent more than {BYTES_MAX} bytes"):
            fetch(server.url, "", BYTES_MAX)


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 400, 404, 500, 503])
def test_other_answers(status: int) -> None:
    """Anything but 200 is no file: a redirect to nowhere, and a 304 that nobody asked for, are none either."""
    with site() as server:
        server.status, server.content = status, b"" if status in {204, 304} else b"a page"
        with pytest.raises(FetchFailed, match=f"the server answered {status}"):
            fetch(server.url, "", BYTES_MAX)


def test_redirects() -> None:
    """Three redirects are followed, to another server too, a fourth is not."""
    with site() as server, site() as other:
        other.content = b"a list"
        server.goes = {"/1": "/2", "/2": "3", "/3": f"{other.url}/4"}
        assert fetch(f"{server.url}/1", "", BYTES_MAX).content == b"a list"
        server.goes["/0"] = f"//{server.url.removeprefix('http://')}/1"
        with pytest.raises(FetchFailed, match=f"more than {REDIRECTS_MAX} redirects"):
            fetch(f"{server.url}/0", "", BYTES_MAX)
        server.goes["/round"] = "/round"
        with pytest.raises(FetchFailed, match=f"more than {REDIRECTS_MAX} redirects"):
            fetch(f"{server.url}/round", "", BYTES_MAX)
        assert [path for path, _ in server.asked] == ["/1", "/2", "/3", "/0", "/1", "/2", "/3", *["/round"] * 4]


ELSEWHERE = ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/", "data:,a", "javascript:1", "/a b"]
ELSEWHERE += ["https://", "https:///a", "http://[::1/", "http://127.0.0.1:99999/"]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_only_http(target: str) -> None:
    """Nothing but http and https is ever opened, wherever a server redirects to."""
    with site() as server:
        server.goes = {"/": target}
        with pytest.raises(FetchFailed, match="redirects to what is no http or https URL"):
            fetch(f"{server.url}/", "", BYTES_MAX)
        assert len(server.asked) == 1


def test_a_server_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing is left after the time for that."""
    monkeypatch.setattr(fetching, "STALL_S", 0.01)
    with site() as server:
        server.is_silent = True
        with pytest.raises(FetchFailed, match=r"nothing came for 0\.01 s"):
            fetch(server.url, "", BYTES_MAX)


def test_no_server(tmp_path: Path) -> None:
    """Where nobody listens, and where it is not HTTP, is said."""
    with site() as server:
        url = server.url
    with pytest.raises(FetchFailed, match="Connection refused"):
        fetch(url, "", BYTES_MAX)
    with site(_context(Pki(tmp_path))) as server, pytest.raises(FetchFailed):
        fetch(server.url.replace("https:", "http:"), "", BYTES_MAX)


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's certificate is checked against $SSL_CERT_FILE; one that is not trusted is refused."""
    pki = Pki(tmp_path)

    def content(server: Site) -> bytes | None:
        server.content = b"a list"
        return fetch(server.url, "", BYTES_MAX).content

    with site(_context(pki)) as server:
        with pytest.raises(FetchFailed, match="the server's certificate is not good"):
            content(server)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(pki.root_file))
        assert content(server) == b"a list"


def _context(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.server())
    return context
