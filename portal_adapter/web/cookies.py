"""Cookies as the portal sets them: `__Host-`, for this host alone, its whole path, over TLS (RFC 6265bis, 4.1.3.2)."""

from typing import Any

from starlette.responses import Response

from portal_adapter.auth.session import LANGUAGE_COOKIE

NOTICE_COOKIE = "__Host-notice"
_YEAR_S = 365 * 86400


def set_cookie(response: Response, name: str, value: str | None, *, max_age: int | None = None) -> None:
    """None deletes it."""
    same_site: Any = "lax"  # a login comes back from another origin
    if value is None:
        response.delete_cookie(name, path="/", secure=True, httponly=True, samesite=same_site)
    else:
        life = _YEAR_S if name == LANGUAGE_COOKIE else max_age
        response.set_cookie(name, value, max_age=life, path="/", secure=True, httponly=True, samesite=same_site)
