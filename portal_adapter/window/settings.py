"""
The window's configuration: one TOML file. deploy/window.toml is the commented example, and a test loads it.

It has no database and no state: what it needs to know of a login comes with it, and of a signing the daemon says it.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from portal_adapter.settings import Daemon, Listener, Origin, Section, check_apart, check_origin, parse


class Own(Section):
    """Where people find the window; the portal's file names the same origin."""

    origin: Origin
    language: Literal["fr", "en"] = "en"  # for whoever has said nothing

    _origin = field_validator("origin")(check_origin)


class Portal(Section):
    """Whose window it is: people log in there, and are led back there alone."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    origin: Origin

    _origin = field_validator("origin")(check_origin)


class Limits(Section):
    form_bytes: int = Field(default=16 * 1024, ge=1024)  # of a form: codes are short
    tries_a_minute: int = Field(
        default=10, ge=1
    )  # of one address or known browser: forms with codes, and codes asked for
    # Sent with one product number, of one network or known browser; twice as many of all networks together.
    codes_in_10_minutes: int = Field(default=3, ge=1)
    enrolment_s: int = Field(default=15 * 60, ge=60)  # from the enrolment code to the end; the seed is kept so long


class Settings(Section):
    window: Own
    listener: Listener
    portal: Portal
    daemon: Daemon
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _origins(self) -> Self:
        check_apart(self.window.origin, self.portal.origin)
        return self


def load(path: Path) -> Settings:
    """Raises `SettingsError` with every mistake. Paths in the file are relative to it."""
    return parse(path, Settings)
