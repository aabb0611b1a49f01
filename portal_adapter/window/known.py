"""
Browsers in which somebody has logged in with a product number before. Each has limits of its own: whoever else knows the
number uses up those of strangers, and not hers.

What shows it is a cookie for each number, with a MAC (HMAC-SHA-256) under the window's key: nothing of it is kept here, and
there is no code in it. It opens nothing.
"""

import hashlib
import hmac
import secrets
import time

from starlette.responses import Response

from portal_adapter.network import network
from portal_adapter.window.visit import Visit
from signer.client import Profile

KNOWN_S = 180 * 86400  # since the last login there
_COOKIE = "__Host-known-"


def key_of(profile: Profile) -> bytes:
    """
    Made of the key of the window's client certificate, so that browsers stay known over restarts; of a window without one
    (a Unix socket) it is new at each start. Raises OSError.
    """
    if profile.key is None:
        return secrets.token_bytes(32)
    return hmac.digest(profile.key.read_bytes(), b"paraph window: known browsers", "sha256")


def browser(visit: Visit, number: str) -> str:
    """A name for this one, which is none's but its own; empty where nobody has logged in here with this number."""
    ends, _, rest = visit.request.cookies.get(_name(number), "")[:128].partition(".")
    id_, _, mac = rest.partition(".")
    is_ours = hmac.compare_digest(_mac(visit, number, f"{ends}.{id_}").encode(), mac.encode())
    return id_ if is_ours and int(ends) > time.time() else ""


def remember(visit: Visit, number: str, response: Response) -> None:
    said = f"{int(time.time()) + KNOWN_S}.{browser(visit, number) or secrets.token_urlsafe(16)}"
    response.set_cookie(
        _name(number), f"{said}.{_mac(visit, number, said)}", max_age=KNOWN_S, path="/",
        secure=True, httponly=True, samesite="strict",
    )  # fmt: skip


def check_try(visit: Visit, number: str) -> None:
    """Count a form with codes; raises `rate-limited`."""
    visit.services.pace.check(browser(visit, number) or network(visit.address), visit.now)


def check_sending(visit: Visit, number: str, what_for: str) -> None:
    """Count a code that is asked for; raises `rate-limited`. Numbers that are nobody's count, too: they look alike."""
    services, known = visit.services, browser(visit, number)
    who = known or network(visit.address)
    services.pace.check(who, visit.now)
    services.sent.check(f"{number} {what_for} {who}", visit.now)
    services.often.check(f"{number} {who}", visit.now)
    if not known:
        services.strangers.check(number, visit.now)


def _name(number: str) -> str:
    return _COOKIE + hashlib.sha256(number.encode()).hexdigest()[:16]


def _mac(visit: Visit, number: str, said: str) -> str:
    return hmac.new(visit.services.known_key, f"{number} {said}".encode(), hashlib.sha256).hexdigest()
