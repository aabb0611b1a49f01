"""Every text that people read has its French, once, with the same names in braces, and as French is printed."""

import re
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from string import Formatter

import pytest

from portal_adapter.language import Language, _french
from portal_adapter.web.route import Level
from portal_adapter.web.routes import ROUTES
from portal_adapter.web.topics import DIRECTORY
from tests.portal.messages import Translation, of_code, of_french, of_template, translated, used
from tests.portal.place import Place
from tests.portal.town import ATTACHES, Town

USED = list(used())
FRENCH = list(translated())

# What the portal's names are, in the two languages: the buttons, menus and fields that people know from elsewhere.
NAMES = {
    "Confirm": "Valider",
    "Cancel": "Annuler",
    "Log in": "Connexion",
    "Create a business space": "Créer un espace professionnel",
    "Create a private space": "Créer un espace privé",
    "Manage my spaces": "Gérer mes espaces",
    "Title of the business space": "Intitulé de l'espace professionnel",
    "Company name": "Dénomination ou raison sociale",
    "Name(s)": "Nom(s)",
    "First name(s)": "Prénom(s)",
    "E-mail address": "Adresse e-mail",
    "a legal person": "une personne morale",
    "a self-employed person": "un indépendant",
    "an association": "une association",
    "You have successfully created a business space on {portal_name}.": "Vous avez créé avec succès un espace professionnel sur {portal_name}.",
    "Register another product": "Enregistrer un autre produit",
    "My information": "Mes informations",
    "My team": "Mon équipe",
    "My files": "Mes dossiers",
    "Print this page": "Imprimer cette page",
    "Send this page": "Envoyer cette page",
    "Back to {portal_name}": "Retour vers {portal_name}",
    "Edit": "Modifier",
    "In preparation": "En préparation",
    "Ready": "Prête",
    "Sent": "Transmise",
    "Accepted": "Acceptée",
    "To be corrected": "À corriger",
    "Closed": "Clôturée",
    "Select a procedure": "Sélectionner une démarche",
    "Create": "Créer",
    "Resume later": "Reprendre plus tard",
    "Continue the declaration": "Reprendre la déclaration",
    "Next": "Suivant",
    "Edit the declaration": "Modifier la déclaration",
    "Confirm the entry": "Confirmer la saisie",
    "Copy the procedure": "Copier la démarche",
    "Delete the procedure": "Supprimer la démarche",
    "Read and approved": "Lu et approuvé",
    "Next step": "Étape suivante",
    "Sign": "Signer",
    "Save to {portal_name}": "Enregistrer dans {portal_name}",
    "Attach": "Joindre",
    "Add a supporting document": "Ajouter une pièce justificative",
}


def mistakes(text: str) -> list[str]:
    """What is not as French is printed: straight quotes, and ordinary blanks where a line must not break."""
    found = []
    if re.search(r"['\"]", text):
        found.append("a straight quote or apostrophe: ’ and « » are wanted")
    if re.search(r" [:;?!»]|« ", text):
        found.append("an ordinary blank beside : ; ? ! « ». The non-breaking one is wanted")
    if re.search(r"[^\s\u00a0\u202f][;?!»]|[^\s\u00a0\u202f]:(?=\s|$)|«[^\u00a0\u202f]", text):
        found.append("no blank beside : ; ? ! « »")
    if re.search(r"  |\.\.\.|^\s|\s$", text):
        found.append("two blanks, three dots, or a blank at an end")
    return found


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_text_has_its_french() -> None:
    """UI-02: a text of code, template or table without French is named with its place."""
    known = {one.id for one in FRENCH}
    assert sorted({f"{one.place}: {one.id}" for one in USED if one.id not in known}) == []


def test_no_french_is_left_over() -> None:
    """UI-02: what no page says any more is taken out."""
    known = {one.id for one in USED}
    assert [(one.file, one.id) for one in FRENCH if one.id not in known] == []


def test_a_text_has_one_french() -> None:
    """UI-02: the same English has the same French in whatever file."""
    found = defaultdict(set)
    for one in FRENCH:
        found[one.id].add(one.forms)
    assert {id_: forms for id_, forms in found.items() if len(forms) > 1} == {}


@pytest.mark.parametrize("one", FRENCH, ids=lambda one: f"{one.file}: {one.id[:40]}")
def test_a_translation_is_whole(one: Translation) -> None:
    """UI-02: every form is there, with the names that stand in braces in the English, printed as French is."""
    assert len(one.forms) == (2 if one.many else 1) and all(one.forms)
    for form in one.forms:
        wanted = names_in(one.many or one.id)
        assert names_in(form) | ({"number"} if one.many else set()) == wanted | ({"number"} if one.many else set())
        assert mistakes(form) == []


def test_the_names_that_people_know() -> None:
    """UI-02: buttons, menus and fields are called as they are elsewhere; ’ counts as '."""
    french = {one.id: one.forms[0].replace("’", "'") for one in FRENCH}
    assert {id_: french.get(id_) for id_ in NAMES} == NAMES


@pytest.mark.parametrize("file", sorted((DIRECTORY / "fr").glob("*.txt")), ids=lambda file: file.stem)
def test_the_help_is_printed_as_french_is(file: Path) -> None:
    """UI-05, UI-02: the same for every line of the help."""
    assert [(line, mistakes(line)) for line in file.read_text().split("\n") if mistakes(line)] == []


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("L’espace\u00a0: «\u00a0Engines\u00a0»", True),
        ("L'espace", False),
        ("Vraiment ?", False),
        ("Vraiment?", False),
        ("L’espace: ici", False),
        ("« Engines »", False),
        ("https://example.org", True),
        ("à 9:30", True),
        ("Attendez...", False),
    ],
)
def test_what_is_printed_as_french(text: str, is_good: bool) -> None:
    """The rules themselves find what they are for."""
    assert (mistakes(text) == []) is is_good


def test_the_readers_find_texts() -> None:
    """Texts in calls within calls, under conditions, and of an object's method are found; a form's field is none."""
    code = (
        'fields.text("title", most=3)\nRefusal("x", errors=[FieldError("f", "c", "One.")])\n'
        'message = "Two." if x else "Three."\nlanguage.count("{number} day", "{number} days", 2)\nmsgid("Four" "teen")\n'
    )
    assert {one.id for one in of_code(code, "x.py")} == {"One.", "Two.", "Three.", "{number} day", "Fourteen"}
    template = '{{ _("One", a=1) }}{{ language.count("a day", "{number} days", n) }}{{ field("x", _("Two")) }}'
    assert {(one.id, one.many) for one in of_template(template, "x.html")} == {
        ("One", ""),
        ("a day", "{number} days"),
        ("Two", ""),
    }
    file = b'msgid ""\nmsgstr ""\n"Plural-Forms: nplurals=2; plural=(n > 1);\\n"\n\n'
    file += b'msgid "One"\nmsgstr "Un"\n\nmsgid "a"\nmsgid_plural "b"\nmsgstr[0] "c"\nmsgstr[1] "d"\n'
    assert [one.forms for one in of_french(BytesIO(file), "x.po")] == [("Un",), ("c", "d")]


@pytest.mark.parametrize(
    ("octets", "english", "french"),
    [
        (1, "1 kB", "1 ko"),
        (1024 * 1024, "1 MB", "1 Mo"),
        (1500 * 1024, "1.5 MB", "1,5 Mo"),
        (10240 * 1024, "10 MB", "10 Mo"),
    ],
)
def test_sizes_are_told_as_people_say_them(octets: int, english: str, french: str) -> None:
    """UI-02: kilobytes, and from one megabyte on megabytes."""
    assert Language("en", "UTC").size(octets) == english
    assert Language("fr", "UTC").size(octets).replace("\u00a0", " ") == french


def test_no_page_in_french_shows_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-02: whatever a page looks up while it is made in French is there, in whatever table it stood."""
    place = Place(tmp_path, extra=ATTACHES)
    try:
        town = Town(place)
        asked, text = set[str](), Language.text

        def kept(self: Language, message: str, /, **values: object) -> str:
            asked.add(message)
            return text(self, message, **values)

        monkeypatch.setattr(Language, "text", kept)
        for visitor in (town.ada, town.carol, town.nobody):
            visitor.http.headers["accept-language"] = "fr"
            for route in ROUTES:
                if route.method == "GET" and (visitor is town.ada or route.level is Level.OPEN):
                    for path in town.paths(route):
                        visitor.get(path)
        assert len(asked) > 100
        assert sorted(message for message in asked if message and message not in _french()[0]) == []
    finally:
        place.close()
