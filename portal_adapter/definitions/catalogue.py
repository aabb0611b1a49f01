"""
All definitions: what can be created, found by theme and by words (PROC-02 to PROC-05), and every version that is still in
use. A procedure keeps the version it was created with.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from portal_adapter.definitions.definition import Definition, DefinitionError, load

SHIPPED = Path(__file__).parent / "procedures"


@dataclass(frozen=True, slots=True)
class Catalogue:
    versions: Mapping[tuple[str, int], Definition]

    @classmethod
    def read(cls, *directories: Path) -> "Catalogue":
        """Of `*.toml` in the directories; raises `DefinitionError` with every mistake of every file."""
        versions: dict[tuple[str, int], Definition] = {}
        mistakes = []
        for path in sorted(path for directory in directories for path in directory.glob("*.toml")):
            try:
                found = load(path)
            except DefinitionError as error:
                mistakes.append(str(error))
                continue
            if (found.name, found.version) in versions:
                mistakes.append(f"{path}: version {found.version} of {found.name} is there twice")
            versions[found.name, found.version] = found
        if mistakes:
            raise DefinitionError("\n".join(mistakes))
        return cls(versions)

    def current(self, name: str) -> Definition | None:
        """The newest version, unless it is withdrawn; None for what cannot be created."""
        versions = [version for known, version in self.versions if known == name]
        newest = self.versions[name, max(versions)] if versions else None
        return None if newest is None or newest.withdrawn else newest

    def version(self, name: str, version: int) -> Definition:
        """Of a procedure that exists; raises KeyError where somebody has taken the file away."""
        return self.versions[name, version]

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
        return sorted({theme for one in self.creatable() if one.suits(kind) for theme in one.themes})


def _texts(definition: Definition, language: str) -> Iterable[str]:
    return (definition.title.in_(language), definition.summary.in_(language), *definition.keywords.in_(language))


def folded(text: str) -> str:
    """Without case and accents; words stay apart."""
    text = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in text if not unicodedata.combining(c))
