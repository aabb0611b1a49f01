"""
All definitions: what can be created, found by theme and by words (PROC-02 to PROC-05), and every version that is still in
use. A procedure keeps the version it was created with.

    procedures/*.toml       the definitions
    administrations.toml    who gets them: names, and how they are reached
    themes.toml             what the tabs of the catalogue are called, in their order
"""

import logging
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from portal_adapter.definitions.definition import Both, Definition, DefinitionError, Part, Slug, load, mistakes_of
from portal_adapter.refusal import guard

log = logging.getLogger("portal")

DIRECTORY = Path(__file__).parent
SHIPPED = DIRECTORY / "procedures"
WORDS_CHARACTERS_MAX = 100  # of a search
T = TypeVar("T")


class Administration(Part):
    """`reach` says how people reach it."""

    name: Both
    reach: Both


@dataclass(frozen=True, slots=True)
class Catalogue:
    versions: Mapping[tuple[str, int], Definition]
    administrations: Mapping[str, Administration]
    names: Mapping[str, Both]  # of themes

    @classmethod
    def read(cls, *directories: Path, beside: Path = DIRECTORY) -> "Catalogue":
        """
        Definitions of `*.toml` in the directories, with the administrations and themes that stand in `beside`. Raises
        `DefinitionError` with every mistake of every file.
        """
        mistakes: list[str] = []
        administrations = _table(beside / "administrations.toml", Administration, mistakes)
        names = _table(beside / "themes.toml", Both, mistakes)
        versions: dict[tuple[str, int], Definition] = {}
        for path in sorted(path for directory in directories for path in directory.glob("*.toml")):
            try:
                found = load(path)
            except DefinitionError as error:
                mistakes.append(str(error))
                continue
            if (found.name, found.version) in versions:
                mistakes.append(f"{path}: version {found.version} of {found.name} is there twice")
            mistakes += [
                f"{path}: administrations.toml does not have {one}"
                for one in found.administrations()
                if one not in administrations
            ]
            mistakes += [f"{path}: themes.toml does not have {one}" for one in found.themes if one not in names]
            versions[found.name, found.version] = found
        if mistakes:
            raise DefinitionError("\n".join(mistakes))
        return cls(versions, administrations, names)

    def current(self, name: str) -> Definition | None:
        """The newest version, unless it is withdrawn; None for what cannot be created."""
        versions = [version for known, version in self.versions if known == name]
        newest = self.versions[name, max(versions)] if versions else None
        return None if newest is None or newest.withdrawn else newest

    def version(self, name: str, version: int, otherwise: str = "") -> Definition:
        """
        Of a procedure that exists; raises `guard-failed` where somebody has taken the file away. `otherwise` leads to what
        can be read without it.
        """
        found = self.versions.get((name, version))
        if found is None:
            log.error("procedures were made with version %d of %s, which is missing: put its file back", version, name)
            message = "The definition of this form is missing here. Tell whoever runs this portal; what was signed can be read all the same."
            raise guard("definition-missing", message, otherwise)
        return found

    def creatable(self) -> list[Definition]:
        names = sorted({name for name, _ in self.versions})
        return [found for name in names if (found := self.current(name)) is not None]

    def search(self, kind: str, language: str, *, words: str = "", theme: str = "") -> list[Definition]:
        """For a space of this kind: every word is in title, keywords or summary, whatever its case and accents."""
        wanted = folded(words).split()
        found = [
            one
            for one in self.creatable()
            if one.suits(kind)
            and (not theme or theme in one.themes)
            and all(word in folded(" ".join(_texts(one, language))) for word in wanted)
        ]
        return sorted(found, key=lambda one: folded(one.title.in_(language)))

    def themes(self, kind: str) -> list[str]:
        """Those of what a space of this kind may create, in the order of themes.toml."""
        used = {theme for one in self.creatable() if one.suits(kind) for theme in one.themes}
        return [theme for theme in self.names if theme in used]


def _table(path: Path, kind: type[T], mistakes: list[str]) -> Mapping[str, T]:
    try:
        return TypeAdapter(dict[Slug, kind]).validate_python(tomllib.loads(path.read_text()))  # type: ignore[valid-type]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(f"{path}: {error}")
    except ValidationError as error:
        mistakes += mistakes_of(path, error)
    return {}


def _texts(definition: Definition, language: str) -> Iterable[str]:
    return (definition.title.in_(language), definition.summary.in_(language), *definition.keywords.in_(language))


def folded(text: str) -> str:
    """Without case and accents; words stay apart."""
    text = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in text if not unicodedata.combining(c))
