"""
Advisories in the OSV format, as PyPA's and GitHub's databases have them in files: read, and compared with a version.

Of an advisory only what is said of the ecosystem PyPI counts. `severity` here is one of LEVELS.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ValidationError, model_validator

LEVELS = ("critical", "high", "other")
# A file is named after its advisory. What else a database holds (notes, settings, lists of mistakes) is not.
NAMED = re.compile(r"[A-Z][A-Z0-9]*-.+\.(yaml|yml|json)")
ECOSYSTEM = "PyPI"
NOTHING = (None, "", "null", "~")  # BaseLoader gives YAML's ways to write null as they are written

# Texts stay texts: another loader would read the version 3.10 as the number 3.1. libyaml's is 10 times as fast.
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_UTC = AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))
_Time = Annotated[datetime, _UTC]
_WORDS = {"CRITICAL": "critical", "HIGH": "high", "MODERATE": "other", "MEDIUM": "other", "LOW": "other"}


class Unread(Exception):
    """A file or a directory that cannot be read, or holds something else; the text says which, and why."""


class NotComparable(Exception):
    """An advisory that names a package of ours, but no versions that could be compared."""


class _Part(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if isinstance(value, (dict, list)) or value not in NOTHING}


class Range(_Part):
    type: str
    events: list[dict[str, str]] = []


class Package(_Part):
    ecosystem: str
    name: str


class Severity(_Part):
    type: str
    score: str


class Affected(_Part):
    package: Package | None = None
    ranges: list[Range] = []
    versions: list[str] = []
    severity: list[Severity] = []

    @property
    def name(self) -> str:
        """Of the package, as PEP 503 spells it; '' for one of another ecosystem, or none."""
        if self.package is None or self.package.ecosystem.partition(":")[0] != ECOSYSTEM:
            return ""
        return canonicalize_name(self.package.name)

    def has(self, version: Version) -> bool:
        """Whether the version is one of these. Raises NotComparable."""
        ranges = [each.events for each in self.ranges if each.type == "ECOSYSTEM"]
        if not ranges and not self.versions:
            raise NotComparable("it names no versions")
        # Those that PEP 440 does not know are none that could be installed.
        listed = any(_version(text) == version for text in self.versions)
        return listed or any(_within(version, events) for events in ranges)


class Advisory(_Part):
    id: str
    modified: _Time
    published: _Time | None = None
    withdrawn: _Time | None = None
    aliases: list[str] = []
    affected: list[Affected] = []
    severity: list[Severity] = []
    database_specific: dict[str, Any] = {}

    def named(self) -> set[str]:
        """The packages of PyPI that it is about; none if it was withdrawn."""
        return set() if self.withdrawn else {each.name for each in self.affected} - {""}

    def affects(self, name: str, version: Version) -> bool:
        """Raises NotComparable."""
        return any(each.has(version) for each in self.affected if each.name == name)

    def fixed(self, name: str, version: Version) -> Version | None:
        """The next version in which the flaw is not, among those that are named; None if there is none yet."""
        events = [
            event
            for each in self.affected
            if each.name == name
            for span in each.ranges
            if span.type == "ECOSYSTEM"
            for event in span.events
        ]
        found = {_point(event["fixed"]) for event in events if "fixed" in event}
        return min((each for each in found if each > version and not self.affects(name, each)), default=None)

    @property
    def level(self) -> str:
        """
        One of LEVELS, the worst that is said: by a word of the database, or a CVSS 3 vector's base score.

        Where neither is, it is critical until somebody has looked: a CVSS 4 vector alone is not computed here.
        """
        given = [*self.severity, *(one for each in self.affected for one in each.severity)]
        said = [_WORDS.get(str(self.database_specific.get("severity")).upper())]
        said += [_level(score(one.score)) for one in given if one.type == "CVSS_V3"]
        return next((level for level in LEVELS if level in said), LEVELS[0])


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _point(text: str) -> Version:
    found = _version(text)
    if found is None:
        raise NotComparable(f"{text} is no version of PEP 440")
    return found


def _within(version: Version, events: list[dict[str, str]]) -> bool:
    """
    Whether a range's events leave the version in it, as the OSV schema has it. Raises NotComparable.

    At one and the same version: what a fix ends, a new introduction opens again; a last version is itself affected.
    """
    order = ("fixed", "introduced", "last_affected")
    points, limits = [], []
    for kind, text in (pair for event in events for pair in event.items()):
        if kind == "limit":
            limits.append(text == "*" or version < _point(text))
        elif kind not in order:
            raise NotComparable(f"its ranges have {kind}")
        elif kind == "introduced" and text == "0":  # before every version, pre-releases of 0 too
            points.append((False, version, 0, kind))
        else:
            points.append((True, _point(text), order.index(kind), kind))
    if not any(kind == "introduced" for *_, kind in points):
        raise NotComparable("a range has no beginning")
    inside = False
    for _, point, _, kind in sorted(points):
        if kind == "introduced":
            inside = inside or version >= point
        elif version > point or (kind == "fixed" and version == point):
            inside = False
    return inside and (not limits or any(limits))


# ---- CVSS 3.0 and 3.1

_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    **{metric: {"H": 0.56, "L": 0.22, "N": 0.0} for metric in ("C", "I", "A")},
}
_PRIVILEGES_BEYOND = {"N": 0.85, "L": 0.68, "H": 0.5}  # where the scope changes


def score(vector: str) -> float | None:
    """The base score, 0 to 10, of a CVSS 3.0 or 3.1 vector; None for anything else."""
    first, *pairs = vector.split("/")
    given = dict(pair.partition(":")[::2] for pair in pairs)
    if first not in {"CVSS:3.0", "CVSS:3.1"} or given.get("S") not in {"U", "C"}:
        return None
    if any(given.get(metric) not in weights for metric, weights in _WEIGHTS.items()):
        return None
    beyond = given["S"] == "C"
    of = {metric: weights[given[metric]] for metric, weights in _WEIGHTS.items()}
    if beyond:
        of["PR"] = _PRIVILEGES_BEYOND[given["PR"]]
    share = 1 - (1 - of["C"]) * (1 - of["I"]) * (1 - of["A"])
    impact = 7.52 * (share - 0.029) - 3.25 * (share - 0.02) ** 15 if beyond else 6.42 * share
    if impact <= 0:
        return 0.0
    ease = 8.22 * of["AV"] * of["AC"] * of["PR"] * of["UI"]
    # Up to a tenth, in whole numbers: a product of decimal fractions is a little beside what it should be.
    hundred_thousandths = round(min(10.0, (1.08 if beyond else 1) * (impact + ease)) * 100_000)
    return -(-hundred_thousandths // 10_000) / 10


def _level(points: float | None) -> str | None:
    if points is None:
        return None
    return "critical" if points >= 9 else "high" if points >= 7 else "other"


# ---- a database's files


def files(directory: Path) -> Iterator[Path]:
    """Every file that is named like an advisory, but in hidden directories. Raises Unread."""

    def unread(error: OSError) -> None:
        raise Unread(f"{error.filename}: {error.strerror}") from error

    for place, inner, names in os.walk(directory, onerror=unread):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if NAMED.fullmatch(name))


def read(path: Path) -> Advisory:
    """Raises Unread."""
    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
        return Advisory.model_validate(given)
    except ValidationError as error:
        places = sorted({".".join(map(str, one["loc"])) or "its form" for one in error.errors()})
        raise Unread(f"{path}: not as OSV has it: {', '.join(places)}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Unread(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
