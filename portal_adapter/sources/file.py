"""
The sample source: a JSON file. deploy/portal-source.json is the example, and a test loads it.

    {"subjects": [{"serial": "...", "family": "...", "given": "...",
                   "items": [{"key": "...", "label_fr": "...", "label_en": "...", "value": "..."}]}]}

A subject is found by the serial and both names together, the names without regard to case and accents: two CAs may give
one serial to two persons. The file is read at every question, so that it may be replaced while the portal runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from portal_adapter.domain.fields import folded
from portal_adapter.sources.source import SourceItem, Subject

Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Item(_Part):
    key: Key
    label_fr: Text
    label_en: Text
    value: Text


class _Subject(_Part):
    serial: Text
    family: Text
    given: Text
    items: tuple[_Item, ...]


class _Content(_Part):
    subjects: tuple[_Subject, ...]


class FileSource:
    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, subject: Subject) -> Sequence[SourceItem]:
        """Raises OSError, and ValueError for a file of another form."""
        content = _Content.model_validate_json(self._path.read_bytes())
        wanted = (subject.serial, folded(subject.family), folded(subject.given))
        return [
            SourceItem(item.key, item.label_fr, item.label_en, item.value)
            for one in content.subjects
            if (one.serial, folded(one.family), folded(one.given)) == wanted
            for item in one.items
        ]
