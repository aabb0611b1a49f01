"""
The window as an ASGI application: where codes are typed, and nothing else. It has an origin, a process and a client
certificate of its own, and no database.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from portal_adapter.refusal import Refusal
from portal_adapter.settings import SettingsError
from portal_adapter.web.headers import Headers
from portal_adapter.web.templates import Templates
from portal_adapter.window import change, enrolment, known, login, signing
from portal_adapter.window.acts import Acts
from portal_adapter.window.daemon import Daemon
from portal_adapter.window.enrolment import Enrolments
from portal_adapter.window.pace import Pace
from portal_adapter.window.reasons import OFTEN, SENT
from portal_adapter.window.settings import Settings
from portal_adapter.window.visit import Visit, endpoint
from signer.client import Profile, ProfileError, ServiceError

_TEMPLATES = Path(__file__).parent / "templates"
_STATIC = Path(__file__).parent.parent / "web" / "static"


@dataclass(frozen=True, slots=True)
class Services:
    """What views use, made once."""

    settings: Settings
    daemon: Daemon
    key: bytes  # of forms' tokens, and of what a browser brings back of a signing
    templates: Templates
    known_key: bytes  # of what a browser shows that it is known by
    pace: Pace  # of networks, and of known browsers; as the next two
    sent: Pace  # for one login
    often: Pace  # with one product number
    strangers: Pace  # of all networks with one number: nobody's mailbox is filled by who knows it
    enrolments: Enrolments
    acts: Acts[signing.Done]
    changes: Acts[ServiceError | None]


def services(settings: Settings) -> Services:
    """Raises `SettingsError` for a profile that cannot be used."""
    try:
        profile = Profile.load(settings.daemon.profile)
        known_key = known.key_of(profile)
    except ProfileError as error:
        raise SettingsError(None, [str(error)]) from None
    except OSError as error:
        raise SettingsError(None, [f"{error.filename}: {error.strerror}"]) from None
    about = {
        "portal_name": settings.portal.name,
        "portal_origin": settings.portal.origin,
        "window_origin": settings.window.origin,
    }
    return Services(
        settings,
        Daemon(profile),
        secrets.token_bytes(32),
        Templates(about, _TEMPLATES),
        known_key,
        Pace(settings.limits.tries_a_minute, 60.0, "Too many tries. Please wait a moment."),
        Pace(1, login.SEND_EVERY_S, SENT),
        Pace(settings.limits.codes_in_10_minutes, 600.0, OFTEN),
        Pace(2 * settings.limits.codes_in_10_minutes, 600.0, OFTEN),
        Enrolments(),
        Acts(),
        Acts(),
    )


def app(made: Services) -> Any:
    async def not_found(request: Request, _: Exception) -> Response:
        return Visit(made, request).refused("refused.html", {}, Refusal("not-found"))

    views = (
        ("GET", "/", _front),
        ("GET", "/login", login.show),
        ("POST", "/login", login.answer),
        ("GET", "/enrol", enrolment.show),
        ("POST", "/enrol", enrolment.begin),
        ("GET", "/enrol/finish", enrolment.show_finish),
        ("POST", "/enrol/finish", enrolment.answer),
        ("GET", "/enrol/picture.svg", enrolment.picture),
        ("GET", "/code", change.show),
        ("POST", "/code", change.answer),
        ("GET", "/sign", signing.begin),
        ("GET", "/sign/approve", signing.show_approval),
        ("POST", "/sign/approve", signing.approve),
        ("GET", "/sign/codes", signing.show_codes),
        ("POST", "/sign/codes", signing.answer),
        ("POST", "/sign/cancel", signing.cancel),
        ("GET", "/sign/document/{index:int}", signing.document),
    )
    starlette = Starlette(
        routes=[
            *(Route(path, endpoint(view, made), methods=[method]) for method, path, view in views),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        exception_handlers={404: not_found, 405: not_found},
    )
    return Headers(starlette, form_targets=[made.settings.portal.origin])


async def _front(visit: Visit) -> Response:
    return visit.page("front.html", {})
