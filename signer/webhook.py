"""
HTTP POST to somebody else's server. Its URL may have a secret in its path, so nothing that is said here has the path.

Certificates are checked against the system's CAs, or those of $SSL_CERT_FILE; proxies are not used, redirects are not
followed, and of the answer only the head is read.
"""

import http.client
import re
import socket
import ssl
from typing import cast
from urllib.parse import urlsplit

from signer.line import Line, is_loopback

_LATER = frozenset({408, 425, 429})  # RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4: the same may be taken later


class WebhookError(Exception):
    """
    The server has not taken it, as far as is known. `status` is its answer, None for none; the message says what to do,
    and neither host nor path.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)

    @property
    def is_final(self) -> bool:
        """Whether the same will not be taken later, either."""
        return self.status is not None and 300 <= self.status < 500 and self.status not in _LATER


def check_url(url: str) -> str:
    """The same URL; raises `ValueError`, which does not repeat it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # both raise for some that are wrong
    except ValueError:
        raise ValueError("the webhook is no URL; write it as https://host/path") from None
    if re.fullmatch("[!-~]+", url) is None or not host or parts.scheme not in {"https", "http"}:
        raise ValueError("a webhook is a URL as https://host/path, without spaces")
    if parts.username is not None or parts.fragment:
        raise ValueError("a webhook's URL has no user, password or fragment; put a secret into its path")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("http goes only to a loopback address, as http://127.0.0.1:8080/; use https")
    return url


def origin(url: str) -> str:
    """Of a URL that was checked: scheme, host and port, without what may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def post(url: str, content: bytes, content_type: str, limit_s: float) -> None:
    """
    Returns when the server has answered 2xx; raises `WebhookError`. Blocks, at most so long, and for the time of a
    resolver.
    """
    parts = urlsplit(url)
    host, target = str(parts.hostname), (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        status = _status(parts.scheme == "https", host, parts.port, target, content, content_type, limit_s)
    except ssl.SSLCertVerificationError as error:
        why = str(error.verify_message).partition(",")[0]  # behind the comma of a mismatch is the host
        raise WebhookError(f"its certificate is not good: {why}") from error
    except http.client.HTTPException as error:
        raise WebhookError(f"does not answer in HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise WebhookError(error.strerror or "timed out") from error
    if 300 <= status < 400:
        raise WebhookError(f"answered {status}; give the URL that it redirects to", status)
    if not 200 <= status < 300:
        raise WebhookError(f"answered {status}; look at its log", status)


def _status(
    is_tls: bool, host: str, port: int | None, target: str, content: bytes, content_type: str, limit_s: float
) -> int:
    connection = http.client.HTTPConnection(host, port)
    context = ssl.create_default_context() if is_tls else None  # each time: CAs may have been renewed
    if context is not None:
        connection = http.client.HTTPSConnection(host, port, context=context)
    line = Line(host, connection.port, step_s=limit_s, whole_s=limit_s)
    try:
        if context is not None:
            line.encrypt(context)
        connection.sock = cast("socket.socket", line)
        connection.request("POST", target, content, {"Content-Type": content_type, "User-Agent": "paraph"})
        return connection.getresponse().status
    finally:
        connection.close()
        line.close()
