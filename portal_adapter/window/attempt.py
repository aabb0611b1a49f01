"""
What a browser brings back of a signing: which batch it is, what its person has approved, and where her one-time code was
sent, masked. It is a cookie with a MAC (HMAC-SHA-256) under the window's key, which takes in the browser's other cookie: so
the window keeps nothing, and neither another browser nor an invented cookie goes on. No PIN and no code is in it. How the
batch stands, the daemon alone says.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

COOKIE = "__Host-signing"
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Attempt:
    """Times in seconds since the epoch."""

    batch: str
    link: str  # its fingerprint: who follows the same link again in this browser goes on where she was
    ends: int
    approved: int = 0  # when the box was ticked; 0: it was not
    shown: str = ""  # what was approved (`Batch.shown`)
    contact: str = ""  # as the daemon masks it; empty until a code was sent


def link_of(link: str) -> str:
    return hashlib.sha256(link.encode()).hexdigest()[:32]


def sealed(key: bytes, browser: str, attempt: Attempt) -> str:
    body = json.dumps(asdict(attempt)).encode()
    return base64.urlsafe_b64encode(_mac(key, browser, body) + body).decode()


def opened(key: bytes, browser: str, cookie: str, now: float) -> Attempt | None:
    """None for what this window has not given to this browser, or whose time is over."""
    try:
        data = base64.urlsafe_b64decode(cookie.encode())
    except (binascii.Error, ValueError):
        return None
    mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, browser, body)):
        return None
    attempt = Attempt(**json.loads(body))
    return attempt if attempt.ends > now else None


def _mac(key: bytes, browser: str, body: bytes) -> bytes:
    words = browser.encode()
    return hmac.digest(key, b"signing\0" + len(words).to_bytes(4, "big") + words + body, "sha256")
