"""The front page, the language, the terms, and where a person lands (ESP-03, ESP-05, UI-02, TOK-12)."""

from portal_adapter.auth.session import LANGUAGE_COOKIE
from portal_adapter.domain import agent, space, terms
from portal_adapter.domain.fields import Fields
from portal_adapter.language import LANGUAGES
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.back import inside
from portal_adapter.web.route import Level, Route


def front(ask: Ask) -> Answer:
    """For who is nobody yet; a person is taken to her place."""
    return Page("front.html") if ask.session is None else Redirect("/home")


def home(ask: Ask) -> Answer:
    """The private space, else the only business space, else the list (ESP-05); an agent's desk, where he has no space."""
    mine = space.all_of(ask.connection, ask.actor.account)
    if not mine and agent.administration_of(ask.connection, ask.actor.account):
        return Redirect("/desk")
    if mine and (mine[0]["kind"] == "private" or len(mine) == 1):
        return Redirect(f"/spaces/{mine[0]['identifier']}")
    return Redirect("/spaces")


def choose_language(ask: Ask) -> Answer:
    fields = Fields(dict(ask.form))
    code = fields.choice("language", LANGUAGES)
    fields.check()
    return Redirect(inside(ask.form.get("back", "")), {LANGUAGE_COOKIE: code})


def show_terms(ask: Ask) -> Answer:
    accepted = ask.session is not None and terms.are_accepted(
        ask.connection, ask.actor.account, ask.settings.terms.version
    )
    data = {
        "paragraphs": ask.services.terms[ask.language.code], "version": ask.settings.terms.version, "accepted": accepted,
        "back": inside(ask.query.get("back", "/")),
    }  # fmt: skip
    return Page("terms.html", data)


def accept_terms(ask: Ask) -> Answer:
    terms.accept(ask.connection, ask.actor, ask.settings.terms.version, dict(ask.form))
    back = inside(ask.form.get("back", "/"))
    return Redirect("/home" if back == "/" else back)


ROUTES = (
    Route("GET", "/", "front", front, Level.OPEN, ("TOK-12",)),
    Route("GET", "/home", "home", home, Level.TERMS, ("ESP-05",)),
    Route("POST", "/language", "language", choose_language, Level.OPEN, ("UI-02",)),
    Route("GET", "/terms", "terms", show_terms, Level.OPEN, ("ESP-03",)),
    Route("POST", "/terms", "accept-terms", accept_terms, Level.SESSION, ("ESP-03",)),
)

FORMS = {"accept-terms": "terms"}
