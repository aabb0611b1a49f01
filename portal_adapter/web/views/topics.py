"""The help (UI-05): its topics and each of them; one that is not there in the reader's language says so (UI-02)."""

from datetime import UTC, datetime

from portal_adapter.language import LANGUAGES
from portal_adapter.refusal import Refusal
from portal_adapter.web.answer import Answer, Page
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.topics import Topic, topics


def listed(ask: Ask) -> Answer:
    """All topics, each with its title in the reader's language, else in the one that it has."""
    code = ask.language.code
    found = [texts.get(code) or next(iter(texts.values())) for texts in topics().values()]
    return Page(
        "help.html", {"topics": [{"name": one.name, "title": one.title, "language": one.language} for one in found]}
    )


def show(ask: Ask) -> Answer:
    """In the reader's language; `?in=fr` shows another one's, where she asks for it."""
    texts = topics().get(ask.parts["topic"])
    if texts is None:
        raise Refusal("not-found")
    wanted = ask.query.get("in", "")
    wanted = wanted if wanted in LANGUAGES else ask.language.code
    topic = texts.get(wanted)
    others = [code for code in LANGUAGES if code in texts and code != wanted]
    return Page("help_topic.html", {"name": ask.parts["topic"], "topic": _shown(topic), "others": others})


def _shown(topic: Topic | None) -> dict[str, object] | None:
    if topic is None:
        return None
    noon = datetime(topic.changed.year, topic.changed.month, topic.changed.day, 12, tzinfo=UTC)
    return {
        "title": topic.title, "language": topic.language, "changed": int(noon.timestamp()), "blocks": topic.blocks,
        "date": topic.changed.isoformat(),
    }  # fmt: skip


ROUTES = (
    Route("GET", "/help", "help", listed, Level.OPEN, ("UI-05",)),
    Route("GET", "/help/{topic}", "help-topic", show, Level.OPEN, ("UI-02", "UI-05")),
)
FORMS: dict[str, str] = {}
