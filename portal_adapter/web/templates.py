"""Pages out of Jinja2's templates: escaped always, and a name that is not there is an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from portal_adapter.language import LANGUAGES, NAMES, Language
from portal_adapter.refusal import FieldError

_TEMPLATES = Path(__file__).parent / "templates"


class Templates:
    """`about` is what every page knows: the portal's name, its origins."""

    def __init__(self, about: Mapping[str, Any], *directories: Path) -> None:
        self._environment = Environment(
            loader=FileSystemLoader([*directories, _TEMPLATES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(about, languages=LANGUAGES, language_names=NAMES)
        self._environment.tests["tuple"] = lambda value: isinstance(value, tuple)

    def render(self, template: str, data: Mapping[str, Any], *, language: Language, **more: Any) -> str:
        errors: tuple[FieldError, ...] = data.get("errors", ())

        def text(message: str, /, **values: Any) -> Markup:
            """Escaped once, with its values."""
            return Markup(language.text(message)).format(**values) if values else Markup(escape(language.text(message)))  # noqa: S704 -- values are escaped by format, messages are ours

        def error_of(field: str) -> str:
            return next((_said(language, one) for one in errors if one.field == field), "")

        labels: dict[str, str] = {}

        def named(field: str, label: str) -> str:
            """For the summary of errors, which stands before the fields: how each is called."""
            labels[field] = label
            return ""

        values = {
            "errors": errors,
            "labels": labels,
            "named": named,
            "form": {},
            "stale": False,
            **data,
            **more,
            "language": language,
            "_": text,
            "error_of": error_of,
            "said": lambda one: _said(language, one),
        }
        return self._environment.get_template(template).render(values)


def _said(language: Language, error: FieldError) -> str:
    return language.text(error.message, **(error.values or {}), limit=error.limit)
