"""The catalogue of procedures, the page of each, and the link by which one is begun from elsewhere (PROC-01 to PROC-09)."""

from collections.abc import Sequence
from typing import Any

from portal_adapter.definitions.catalogue import WORDS_CHARACTERS_MAX
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import prefill, procedure, space, subject
from portal_adapter.domain.actor import FILL, READ
from portal_adapter.domain.fields import clean
from portal_adapter.refusal import invalid, not_found
from portal_adapter.sources.asked import Fetched
from portal_adapter.store.database import reading
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ahead, Ask
from portal_adapter.web.route import Level, Route


def show(ask: Ask) -> Answer:
    """By theme and by words, both together; what is found nowhere is said with all themes (PROC-02 to PROC-05)."""
    assert ask.space is not None
    catalogue, kind, language = ask.services.catalogue, ask.space["kind"], ask.language.code
    words, theme = clean(ask.query.get("words", "")), ask.query.get("theme", "")
    if len(words) > WORDS_CHARACTERS_MAX:
        raise invalid(
            "words", "too_long", "Use at most {limit} characters; this has {count}.", limit=WORDS_CHARACTERS_MAX,
            count=len(words),
        )  # fmt: skip
    themes = catalogue.themes(kind)
    if theme and theme not in themes:
        raise not_found()
    found = catalogue.search(kind, language, words=words, theme=theme)
    data = {
        "themes": [{"name": one, "label": catalogue.names[one].in_(language)} for one in themes], "theme": theme,
        "words": words, "words_most": WORDS_CHARACTERS_MAX, "definitions": [_about(ask, one) for one in found],
    }  # fmt: skip
    return Page("catalogue.html", data)


def show_definition(ask: Ask) -> Answer:
    """What it is, what it asks for, and the button that creates it."""
    assert ask.space is not None
    found = _current(ask.services.catalogue.current(ask.parts["definition"]))
    language = ask.language.code
    administrations = [ask.services.catalogue.administrations[one] for one in found.administrations()]
    unmet = procedure.unmet_to_create(found, ask.space)
    data = {
        "definition": _about(ask, found),
        "steps": [one.title.in_(language) for one in found.step],
        "pieces": [
            {"label": one.label.in_(language), "always": one.when is None} for one in found.piece if not one.optional
        ],
        "administrations": [
            {"name": one.name.in_(language), "reach": one.reach.in_(language)} for one in administrations
        ],
        "unmet": [{"code": one.code, "message": ask.language.text(one.message), "href": one.href} for one in unmet],
        "may_create": space.may_fill(ask.space) and not unmet,
    }
    return Page("definition.html", data)


def start(ask: Ask) -> Answer:
    """From the information portal: the space that fits, one of several, or one that is still to be created (PROC-01)."""
    found = _current(ask.services.catalogue.current(ask.parts["definition"]))
    mine = space.all_of(ask.connection, ask.actor.account)
    fitting = [one for one in mine if found.suits(one["kind"]) and space.may_fill(one)]
    if len(fitting) == 1:
        return Redirect(f"/spaces/{fitting[0]['identifier']}/catalogue/{found.name}")
    has_private = any(one["kind"] == "private" for one in mine)
    data = {
        "definition": {"name": found.name, "title": found.title.in_(ask.language.code), "summary": found.summary.in_(ask.language.code)},
        "fitting": [{"identifier": one["identifier"], "title": one["title"], "kind": one["kind"]} for one in fitting],
        "offers": [
            kind
            for kind in ("private", "business")
            if found.suits(kind) and not (kind == "private" and has_private)
        ],
    }  # fmt: skip
    return Page("start.html", data)


def ask_sources(ahead: Ahead) -> Sequence[Fetched]:
    """
    What administrations hold about who creates it; a source that is away is left out (ESP-37). In a business space none is
    asked: the whole team reads its forms, and what is held about a person is shown to her alone.
    """
    assert ahead.space is not None
    _current(ahead.services.catalogue.current(ahead.parts["definition"]))
    if not ahead.services.settings.source or ahead.space["kind"] != "private":
        return []
    with reading(ahead.services.engine) as connection:
        whom = subject.of(connection, ahead.actor)
    return ahead.services.sources.fetch(whom, ahead.now)


def create(ask: Ask) -> Answer:
    """PROC-06; filled in by PROC-07 and PROC-08."""
    assert ask.space is not None
    catalogue = ask.services.catalogue
    found = _current(catalogue.current(ask.parts["definition"]))
    answers, origins = prefill.begin(ask.connection, ask.actor, ask.space, found, catalogue, ask.found)
    reference = procedure.create(ask.connection, ask.actor, ask.space, found, answers, origins)
    at = f"/spaces/{ask.space['identifier']}/procedures/{reference}"
    return Redirect(f"{at}/steps/{found.step[0].id}", notice="procedure-created")


def _current(found: Definition | None) -> Definition:
    if found is None:
        raise not_found()
    return found


def _about(ask: Ask, one: Definition) -> dict[str, Any]:
    language = ask.language.code
    names = ask.services.catalogue.names
    return {
        "name": one.name,
        "version": one.version,
        "title": one.title.in_(language),
        "summary": one.summary.in_(language),
        "themes": [names[theme].in_(language) for theme in one.themes],
        "certified_only": one.requires_certified_space,
        "signatures": one.signatures,
        "messaging": one.messaging,
    }


ROUTES = (
    Route(
        "GET", "/spaces/{space}/catalogue", "catalogue", show, Level.TERMS,
        ("PROC-02", "PROC-03", "PROC-04", "PROC-05"), right=READ,
    ),
    Route(
        "GET", "/spaces/{space}/catalogue/{definition}", "definition", show_definition, Level.TERMS,
        ("PROC-05", "ESP-17", "ESP-19"), right=READ,
    ),
    Route(
        "POST", "/spaces/{space}/catalogue/{definition}", "create-procedure", create, Level.TERMS,
        ("PROC-06", "PROC-07", "PROC-08", "ESP-17", "ESP-19", "ESP-27", "ESP-28"), right=FILL, before=ask_sources,
    ),
    Route("GET", "/start/{definition}", "start", start, Level.TERMS, ("PROC-01",)),
)  # fmt: skip
FORMS = {"create-procedure": "definition"}
