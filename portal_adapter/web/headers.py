"""
What every answer says to browsers (ASVS 5.0, 3.4): TLS only, nothing but our own files, no frames, no guessing of types,
no place in caches but for the static files.
"""

from collections.abc import Sequence
from typing import Any

_STATIC_S = 3600


def policy(form_targets: Sequence[str] = (), *, frames: str = "", ancestors: str = "'none'") -> str:
    """The content security policy (CSP 3). `frames`: what a page may show in a frame; `ancestors`: who may frame it."""
    targets = " ".join(["'self'", *form_targets])
    return (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        f"form-action {targets}; base-uri 'none'; frame-ancestors {ancestors}; object-src 'none'"
        + (f"; frame-src {frames}" if frames else "")
    )


def always(form_targets: Sequence[str] = ()) -> list[tuple[bytes, bytes]]:
    """What every answer has, whoever makes it."""
    return [
        (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
        (b"content-security-policy", policy(form_targets).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]


class Headers:
    """
    ASGI middleware. `form_targets`: other origins that a form of ours may lead to. What an answer says by itself is left
    as it is.
    """

    def __init__(self, app: Any, *, form_targets: Sequence[str] = ()) -> None:
        self._app = app
        self._always = always(form_targets)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = scope["path"].startswith("/static/")

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                is_kept = is_static and message["status"] in {200, 304}
                cache = f"public, max-age={_STATIC_S}".encode() if is_kept else b"no-store"
                said = {name for name, _ in message["headers"]}
                ours = [one for one in (*self._always, (b"cache-control", cache)) if one[0] not in said]
                message = {**message, "headers": [*map(_with_charset, message["headers"]), *ours]}
            await send(message)

        await self._app(scope, receive, with_headers)


def _with_charset(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Starlette says it of text/* alone, and a picture in SVG is text, too (RFC 7303, 9.1)."""
    name, value = header
    return (
        (name, value + b"; charset=utf-8") if (name.lower(), value) == (b"content-type", b"image/svg+xml") else header
    )
