"""Help, printing, sending on, and languages."""

import html
import re
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from portal_adapter.language import LANGUAGES, Language
from portal_adapter.web import topics
from portal_adapter.web.aids import SAME_TO_ALL
from portal_adapter.web.route import Level
from portal_adapter.web.routes import ROUTES
from portal_adapter.web.topics import DIRECTORY, TOPICS, read
from tests.portal.messages import translated
from tests.portal.place import Place, Visitor
from tests.portal.town import ATTACHES, Town

TEMPLATES = Path(topics.__file__).parents[1]
EXPLAINED = "Fields marked * are mandatory."
BY_NAME = {route.name: route for route in ROUTES}


def links(page: str) -> list[str]:
    return [html.unescape(href) for href in re.findall(r'<a [^>]*href="([^"]+)"', page)]


def main(page: str) -> str:
    return page[page.index("<main") : page.index("</main>")]


# ---- help


@pytest.mark.parametrize("name", topics.topics())
@pytest.mark.parametrize("code", LANGUAGES)
def test_every_topic_is_there_in_both_languages_with_its_date(place: Place, name: str, code: str) -> None:
    """UI-05: title, steps and the day it was last changed, in the reader's language."""
    page = place.visitor().get(f"/help/{name}", headers={"accept-language": code})
    topic = topics.topics()[name][code]
    assert page.status_code == 200
    assert f"<h1>{topic.title}</h1>" in html.unescape(page.text) and "<ol>" in page.text
    assert f'<time datetime="{topic.changed.isoformat()}">' in page.text
    assert topic.changed <= date(2100, 1, 1)


def test_the_help_lists_its_topics(place: Place) -> None:
    """UI-05: every page leads to the help, and that to every topic."""
    assert "/help" in links(place.visitor().get("/").text)
    assert {f"/help/{name}" for name in topics.topics()} <= set(links(place.visitor().get("/help").text))


def test_a_topic_that_is_not_there(place: Place) -> None:
    """UI-05, 0.1: an unknown topic, or a path in its place, is no page."""
    for name in ("nowhere", "%2e%2e%2fen%2flog-in", "en%2Flog-in"):
        assert place.visitor().get(f"/help/{name}").status_code == 404


def test_pages_lead_to_the_help_that_concerns_them(place: Place) -> None:
    """UI-05: each page of the table has the link to its topic; the table names pages and topics that there are."""
    assert set(TOPICS) <= set(BY_NAME) and set(TOPICS.values()) <= set(topics.topics())
    ada = place.visitor()
    assert "/help/log-in" in links(main(ada.get("/login").text))
    ada.logs_in()
    identifier = ada.creates_business()
    for name in TOPICS:
        route = BY_NAME[name]
        if "{" in route.path.replace("{space}", "") or route.level is Level.OPEN:
            continue
        page = ada.get(route.path.replace("{space}", identifier))
        if page.status_code == 200:
            assert f"/help/{TOPICS[name]}" in links(main(page.text)), name
    assert "/help/spaces" in links(main(ada.get("/spaces").text))


def test_no_form_is_without_help() -> None:
    """UI-05: a page with a form, but for the front page's and the languages', has a topic."""
    from portal_adapter.web.routes import FORMS

    assert set(FORMS.values()) <= set(TOPICS)


# Buttons whose page says all there is to say of them.
SELF_EXPLAINING = {
    *(
        "Begin again",
        "Look again",
        "Search",
        "Set up",
        "To the procedure",
        "Try again",
        "Enter the enrolment code",
        "Read the general terms",
    ),
    *(
        "Continue to {portal_name}",
        "Log in to {portal_name}",
        "To my account on {portal_name}",
        "Read it in {other}",
        "Send me another code",
        "Remove {name}",
    ),
    *("Close procedure {reference}", "Delete procedure {reference}", "Delete this document", "Remove this attachment"),
}


def captions() -> set[str]:
    """Of every button, and of every link that looks like one, in all templates."""
    pattern = r'<button[^>]*>.*?</button>|<a [^>]*class="[^"]*(?:action|secondary)[^"]*".*?</a>|\bbutton\([^\n]*?\) *}}'
    found = set[str]()
    for file in (*TEMPLATES.glob("web/templates/*.html"), *TEMPLATES.glob("window/templates/*.html")):
        for one in re.findall(pattern, file.read_text(), re.DOTALL):
            found |= set(
                re.findall(r'_\("([^"]+)"', re.sub(r'<span class="unseen">.*?</span>', "", one, flags=re.DOTALL))
            )
    return found


@pytest.mark.parametrize(("code", "opens", "ends"), [("en", "“", "”"), ("fr", "«\u00a0", "\u00a0»")])
def test_the_help_names_every_button(code: str, opens: str, ends: str) -> None:
    """UI-05: a button is named in the help as it is called on its page, but for those that explain themselves."""
    told = "".join((DIRECTORY / code / f"{name}.txt").read_text() for name in topics.topics())
    language = Language(code, "UTC")
    found = captions()
    assert len(found) > 50 and found > SELF_EXPLAINING
    called = {one: language.text(one).partition(" {portal_name}")[0] for one in found - SELF_EXPLAINING}
    assert sorted(one for one, said in called.items() if f"{opens}{said}{ends}" not in told) == []


@pytest.mark.parametrize(("code", "quoted"), [("en", "“(.*?)”"), ("fr", "«\u00a0(.*?)\u00a0»")])
def test_what_the_help_quotes_is_on_a_page(code: str, quoted: str) -> None:
    """UI-05, UI-02: buttons, tabs and headings are called in the help as they are on their pages."""
    known = {(one.forms[0] if code == "fr" else one.id).partition(" {portal_name}")[0] for one in translated()}
    named = {one for file in (DIRECTORY / code).glob("*.txt") for one in re.findall(quoted, file.read_text())}
    assert len(named) > 50 and sorted(named - known) == []


def test_a_topic_without_its_date_is_found_out(tmp_path: Path) -> None:
    """UI-05: a help file without the day of its last change is a mistake."""
    (tmp_path / "en").mkdir()
    file = tmp_path / "en" / "x.txt"
    file.write_text("Title\n\nText")
    with pytest.raises(ValueError, match="changed"):
        read(file)


# ---- languages


def test_the_language_is_switched_on_the_same_page(place: Place) -> None:
    """UI-02: the switch leads back to the page where it was used, and the next pages are in that language."""
    ada = place.visitor()
    ada.logs_in()
    identifier = ada.creates_business()
    page = f"/spaces/{identifier}"
    shown = ada.get(page).text
    assert '<html lang="en">' in shown and f'name="back" value="{page}"' in shown
    done = ada.post("/language", {"language": "fr", "back": page}, page=page)
    assert (done.status_code, done.headers["location"]) == (303, page)
    assert '<html lang="fr">' in ada.get(page).text and '<html lang="fr">' in ada.get("/help").text


@pytest.mark.parametrize("language", ["de", "", "../fr"])
def test_a_language_that_is_not_ours_is_refused(place: Place, language: str) -> None:
    """UI-02, 0.1: only a language that there is can be chosen."""
    assert place.visitor().post("/language", {"language": language, "back": "/terms"}).status_code == 422


def test_a_page_of_one_language_says_so_in_the_readers_and_leads_to_the_other(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UI-02: the reader is told in her language, the link names the other one, and there the text is marked as of it."""
    directory = tmp_path / "help"
    (directory / "fr").mkdir(parents=True)
    (directory / "fr" / "only.txt").write_text("Seulement\nchanged 2026-11-27\n\nUn texte.\n")
    monkeypatch.setattr(topics, "DIRECTORY", directory)
    topics.topics.cache_clear()
    try:
        visitor = place.visitor()
        page = visitor.get("/help/only").text
        assert "This page is not available in English." in page and "Un texte" not in page
        assert '<a class="action" href="/help/only?in=fr" hreflang="fr">Read it in Français</a>' in page
        other = visitor.get("/help/only?in=fr").text
        assert '<html lang="en">' in other and '<article lang="fr">' in other and "Un texte." in other
        assert '<a href="/help/only" lang="fr" hreflang="fr">Seulement</a>' in visitor.get("/help").text
        mine = visitor.get("/help/only", headers={"accept-language": "fr"}).text
        assert "<article>" in mine
    finally:
        topics.topics.cache_clear()


# ---- printing and sending on


def pages(place: Place) -> list[tuple[str, Visitor, str]]:
    """Name, visitor and path of pages of all kinds."""
    nobody, ada = place.visitor(), place.visitor()
    ada.logs_in()
    identifier = ada.creates_business()
    return [
        ("front", nobody, "/"), ("terms", nobody, "/terms"), ("login", nobody, "/login"), ("help", nobody, "/help"),
        ("help-topic", nobody, "/help/team"), ("account", ada, "/account"), ("spaces", ada, "/spaces"),
        ("space", ada, f"/spaces/{identifier}"), ("terms", ada, "/terms"),
    ]  # fmt: skip


def test_every_page_has_a_print_view(place: Place) -> None:
    """UI-04: "Print this page" leads to the same content without header, menus and footer, and back."""
    for _, visitor, path in pages(place):
        page = visitor.get(path).text
        assert f'<a href="{path}?view=print" data-print>Print this page</a>' in page
        printed = visitor.get(f"{path}?view=print").text
        title = re.search("<h1>.*</h1>", page)
        assert title is not None and title[0] in printed
        assert "<header" not in printed and "<footer" not in printed and "Print this page" not in printed
        assert f'<a href="{path}">Back to the page</a>' in printed
        sheet = '<link rel="stylesheet" href="/static/print.css" media="{}">'
        assert sheet.format("print") in page and sheet.format("all") in printed


def test_a_print_view_keeps_what_was_asked(place: Place) -> None:
    """UI-04: the print view is of the page as it is shown, with the rest of its address."""
    assert "/help/team?in=fr&view=print" in links(place.visitor().get("/help/team?in=fr").text)
    assert "/help/team?in=fr" in links(place.visitor().get("/help/team?in=fr&view=print").text)


def test_only_pages_without_personal_data_are_sent_on(place: Place) -> None:
    """UI-04: "Send this page" has title and address of a page that says the same to everybody; no other page has it."""
    assert all(BY_NAME[name].level is Level.OPEN for name in SAME_TO_ALL)
    for name, visitor, path in pages(place):
        page = visitor.get(path).text
        mails = [href for href in links(main(page)) if href.startswith("mailto:?")]
        assert bool(mails) is (name in SAME_TO_ALL), path
        if mails:
            given = parse_qs(urlsplit(mails[0]).query)
            heading = re.search(r"<title>(.*?) – Millbrook</title>", page)
            assert heading is not None
            assert given == {"subject": [html.unescape(heading[1])], "body": [f"https://portal.test{path}"]}


def test_a_refused_page_is_neither_printed_nor_sent(place: Place) -> None:
    """UI-04: what is no page has no such links."""
    page = place.visitor().get("/help/nowhere").text
    assert "view=print" not in page and "mailto:?" not in page


# ---- forms


def test_mandatory_fields_are_marked_and_the_mark_is_explained_once_before_them(tmp_path: Path) -> None:
    """UI-03: on every page each required field has * in its label; its meaning stands before the first field, once a form."""
    place = Place(tmp_path, extra=ATTACHES)
    town, seen = Town(place), 0
    for visitor in (town.ada, town.carol, town.nobody):
        for route in ROUTES:
            if route.method != "GET" or (visitor is not town.ada and route.level is not Level.OPEN):
                continue
            page = visitor.get(town.paths(route)[0])
            if page.status_code != 200 or not page.headers["content-type"].startswith("text/html"):
                continue
            nested = re.search(r"<p\b[^>]*>(?:(?!</p>).)*<(?:form|div|ul|dl)\b", page.text, re.DOTALL)
            assert nested is None, (
                route.path,
                nested,
            )  # a browser ends the paragraph before it, and what stands in it is strewn
            for form in re.findall(r"<form method=.*?</form>", main(page.text), re.DOTALL):
                required = re.findall(r"<(?:input|select|textarea)[^>]* required[^>]*>", form)
                names = {re.findall(r' name="([^"]+)"', one)[0] for one in required}
                starred = re.findall(r"\*\s*</(?:label|legend)>", form)
                assert len(starred) == len(names), (route.path, starred, names)
                assert form.count(EXPLAINED) == bool(required), route.path
                if EXPLAINED in form:
                    assert form.index(EXPLAINED) < form.index("<label")
                seen += len(names)
    assert seen > 10
    place.close()


def test_help_files_are_there_in_pairs() -> None:
    """UI-05, UI-02: what the portal ships has both languages; a file of another place is not found."""
    assert {path.parent.name for path in DIRECTORY.glob("*/*")} == set(LANGUAGES)
    assert all(set(texts) == set(LANGUAGES) for texts in topics.topics().values())
