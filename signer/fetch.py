"""
GET one file over HTTP(S), for a process that may hang and be killed: nothing here ends by itself but a stalled line.

http is enough for what is signed, as CRLs are; https may need the very CRL that it brings (RFC 5280, 8). Certificates of
servers are checked against the system's CAs, or those of $SSL_CERT_FILE; proxies are not used.
"""

import http.client
import re
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

REDIRECTS_MAX = 3  # a host that was renamed, http to https, a mirror
STALL_S = 10.0  # for a connection, and between two parts of an answer


class FetchFailed(Exception):
    """The file was not had; the message says why."""


class Fetched(NamedTuple):
    content: bytes | None  # None: it has not changed
    modified: str  # Last-Modified, to be handed in the next time; empty: none was told


def fetch(url: str, modified: str, bytes_max: int) -> Fetched:
    """The file there, unless it is as it was at `modified` (RFC 9110, 13.1.3; empty: always); raises `FetchFailed`."""
    for _ in range(REDIRECTS_MAX + 1):
        answer = _get(check_url(url), modified, bytes_max)
        if isinstance(answer, Fetched):
            return answer
        url = _redirected(url, answer)
    raise FetchFailed(f"more than {REDIRECTS_MAX} redirects")


def check_url(url: str) -> SplitResult:
    """The parts of a URL that can be fetched; raises `ValueError`, which does not repeat it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # both raise for some that are wrong
    except ValueError:
        raise ValueError("is no URL; write it as http://host/path") from None
    if re.fullmatch("[!-~]+", url) is None or not host or parts.scheme not in {"http", "https"}:
        raise ValueError("a URL is http://host/path or https://host/path here, without spaces")
    if parts.username is not None or parts.fragment:
        raise ValueError("a URL has no user, password or fragment here: what is fetched is public")
    return parts


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location).partition("#")[0]
        check_url(target)
    except ValueError:
        raise FetchFailed("the server redirects to what is no http or https URL") from None
    return target


def _get(parts: SplitResult, modified: str, bytes_max: int) -> Fetched | str:
    """What is there, or where it is."""
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=STALL_S)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=STALL_S, context=context)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": "paraph", "Accept": "application/pkix-crl, */*"}
    if modified:
        headers["If-Modified-Since"] = modified
    try:
        connection.request("GET", target, headers=headers)
        return _answer(connection.getresponse(), modified, bytes_max)
    except ssl.SSLCertVerificationError as error:
        raise FetchFailed(f"the server's certificate is not good: {error.verify_message}") from None
    except TimeoutError:
        raise FetchFailed(f"nothing came for {STALL_S:g} s") from None
    except OSError as error:
        raise FetchFailed(error.strerror or repr(error)) from None
    except (http.client.HTTPException, ValueError) as error:
        raise FetchFailed(f"the server does not answer in HTTP ({error!r})") from None
    finally:
        connection.close()


def _answer(answer: http.client.HTTPResponse, modified: str, bytes_max: int) -> Fetched | str:
    location = answer.headers.get("Location")
    if answer.status in {301, 302, 303, 307, 308} and location:
        return location
    if answer.status == 304 and modified:
        return Fetched(None, modified)
    if answer.status != 200:
        raise FetchFailed(f"the server answered {answer.status}")
    content = answer.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise FetchFailed(f"the server sent more than {bytes_max} bytes")
    return Fetched(content, answer.headers.get("Last-Modified", ""))
