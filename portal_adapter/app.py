"""
The portal as an ASGI application: its routes, the frame round them, and what every answer's headers say.

    app(services)          the portal
    cards_app(services)    the origin where TLS asks for a certificate (auth by card or stick), one page
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles

from portal_adapter.auth import revocation, strength
from portal_adapter.auth.certificate import Issuers
from portal_adapter.auth.daemon import Daemon
from portal_adapter.auth.number import Numbers
from portal_adapter.clock import Clock
from portal_adapter.definitions.catalogue import DIRECTORY, Catalogue
from portal_adapter.definitions.definition import DefinitionError
from portal_adapter.files.blobs import Blobs
from portal_adapter.form import coverage
from portal_adapter.form.process import Printer
from portal_adapter.language import LANGUAGES
from portal_adapter.refusal import Refusal
from portal_adapter.settings import KEY_BYTES, Settings, SettingsError
from portal_adapter.sources.asked import Sources
from portal_adapter.store.database import open_database
from portal_adapter.web import frame
from portal_adapter.web.arriving import Arriving
from portal_adapter.web.headers import Headers
from portal_adapter.web.lines import Lines
from portal_adapter.web.route import Level, Route
from portal_adapter.web.routes import FORMS, ROUTES
from portal_adapter.web.templates import Templates
from portal_adapter.web.views.cards import CARDS_ROUTES

THREADS = 16  # views wait for the database, not for the processor
ASKERS = 8  # that wait for somebody else, who may not answer: the pages' threads do not
LOOKERS = 4  # that look into uploads: a picture takes up to 512 MB and 10 s of a processor
_STATIC = Path(__file__).parent / "web" / "static"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """What views use, made once."""

    settings: Settings
    engine: Engine
    clock: Clock
    key: bytes
    issuers: Issuers
    threads: ThreadPoolExecutor
    templates: Templates
    forms: Mapping[str, Route]  # of a POST route: the GET route that shows its form
    lookers: ThreadPoolExecutor
    askers: ThreadPoolExecutor
    blobs: Blobs
    sources: Sources
    lines: Lines
    arriving: Arriving
    terms: Mapping[str, tuple[str, ...]]  # language -> paragraphs, read together with their version
    numbers: Numbers
    daemon: Daemon
    catalogue: Catalogue
    printer: Printer  # declarations as PDF
    site: str = ""  # before the paths of links to the portal: its origin, on the cards' one

    def close(self) -> None:
        self.lookers.shutdown()
        self.askers.shutdown()
        self.threads.shutdown()
        self.printer.close()
        self.engine.dispose()


@dataclass(frozen=True, slots=True)
class Read:
    """What the configuration's files say."""

    key: bytes  # of forms' tokens
    issuers: Issuers
    terms: Mapping[str, tuple[str, ...]]
    catalogue: Catalogue


def read_files(settings: Settings) -> Read:
    """Raises `SettingsError` with every file that cannot be used, fonts among them."""
    mistakes: list[str] = []

    def read(file: Path, use: Callable[[bytes], T], default: T) -> T:
        try:
            return use(file.read_bytes())
        except OSError as error:
            mistakes.append(f"{file}: {error.strerror}")
        except ValueError as error:
            mistakes.append(f"{file}: {error}")
        return default

    key = read(settings.portal.key_file, _key, b"")
    none: list[x509.Certificate] = []
    trust = settings.trust
    issuers = [read(file, partial(_authorities, rsa_bits_min=trust.rsa_bits_min), none) for file in trust.issuers]
    for file in trust.crls:
        read(file, revocation.read, None)
    nothing: tuple[str, ...] = ()
    terms = {code: read(getattr(settings.terms, code), _paragraphs, nothing) for code in LANGUAGES}
    catalogue, definitions = Catalogue({}, {}, {}), settings.portal.definitions or DIRECTORY
    mistakes += coverage.missing()
    try:
        catalogue = Catalogue.read(definitions / "procedures", beside=definitions)
    except DefinitionError as error:
        mistakes += str(error).splitlines()
    if mistakes:
        raise SettingsError(None, mistakes)
    authorities = tuple(one for found in issuers for one in found)
    return Read(key, Issuers(authorities, trust.crls, trust.rsa_bits_min), terms, catalogue)


def _authorities(content: bytes, *, rsa_bits_min: int) -> list[x509.Certificate]:
    """Raises ValueError for one whose key is too short: what it has issued could be somebody else's work."""
    found = x509.load_pem_x509_certificates(content)
    for one in found:
        if fault := strength.fault_of_key(one, rsa_bits_min):
            raise ValueError(
                f"{one.subject.rfc4514_string()} has {fault}; trust.rsa_bits_min says how long RSA keys are"
            )
    return found


def _paragraphs(content: bytes) -> tuple[str, ...]:
    return tuple(part.strip() for part in content.decode().split("\n\n") if part.strip())


def _key(content: bytes) -> bytes:
    if len(content) != KEY_BYTES:
        raise ValueError(f"has {len(content)} bytes; {KEY_BYTES} random bytes are wanted")
    return content


def services(settings: Settings, *, clock: Clock | None = None) -> Services:
    """Raises `SettingsError` for files that cannot be used, `StoreError` and the database's own errors."""
    files = read_files(settings)
    about = {
        "portal_name": settings.portal.name,
        "portal_origin": settings.portal.origin,
        "window_origin": settings.window.origin,
        "has_cards": settings.cards is not None or settings.front is not None,
        "help_email": settings.portal.help_email,
    }
    by_name = {route.name: route for route in ROUTES}
    return Services(
        settings,
        open_database(settings.portal.state, settings.portal.database),
        clock or Clock(),
        files.key,
        files.issuers,
        ThreadPoolExecutor(THREADS, thread_name_prefix="view"),
        Templates(about),
        {post: by_name[get] for post, get in FORMS.items()},
        ThreadPoolExecutor(LOOKERS, thread_name_prefix="look"),
        ThreadPoolExecutor(ASKERS, thread_name_prefix="ask"),
        Blobs(settings.portal.state),
        Sources(settings.source),
        Lines(),
        Arriving(),
        files.terms,
        Numbers(settings.daemon.profile),
        Daemon(settings.daemon.profile),
        files.catalogue,
        Printer(),
    )


def app(made: Services) -> Any:
    """Every answer, of whatever, has the headers of `web/headers.py`."""
    settings = made.settings
    outside = [settings.window.origin]
    if settings.cards is not None:
        outside.append(settings.cards.origin)
    if settings.front is not None:
        outside.append(settings.front.origin)
    return Headers(_starlette(made, ROUTES), form_targets=outside)


def cards_app(made: Services) -> Any:
    made = replace(made, site=made.settings.portal.origin)
    return Headers(_starlette(made, CARDS_ROUTES), form_targets=[made.settings.portal.origin])


def _starlette(made: Services, routes: tuple[Route, ...]) -> Starlette:
    nowhere = frame.endpoint(Route("GET", "/", "nowhere", _nowhere, Level.OPEN, ("0.1",)), made)
    otherwise = frame.endpoint(Route("GET", "/", "otherwise", _otherwise, Level.OPEN, ("0.1",)), made)

    async def not_found(request: Request, _: Exception) -> Response:
        return await nowhere(request)

    async def not_allowed(request: Request, _: Exception) -> Response:
        """RFC 9110, 15.5.6: with the methods that there are."""
        response = await otherwise(request)
        paths = [one for one in served.routes if one.matches(request.scope)[0] is not Match.NONE]
        response.headers["allow"] = ", ".join(sorted({each for one in paths for each in getattr(one, "methods", ())}))
        return response

    served = Starlette(
        routes=[
            *(
                StarletteRoute(one.path, frame.endpoint(one, made), methods=[one.method], name=one.name)
                for one in routes
            ),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        exception_handlers={404: not_found, 405: not_allowed},
    )
    return served


def _nowhere(_: Any) -> Any:
    raise Refusal("not-found")


def _otherwise(_: Any) -> Any:
    raise Refusal("method-not-allowed", "This address takes no such request.")
