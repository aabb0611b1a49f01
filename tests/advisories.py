"""
Compares the versions of requirements.lock with a database of known flaws: `python -m tests.advisories DIRECTORY`.

DIRECTORY is a checkout of a database in the OSV format that knows Python packages (PyPA's Advisory Database, GitHub's
Advisory Database, an unpacked export of OSV), brought up to date before: nothing is fetched here. For each finding is said
until when it has to be answered, by the time frames of SECURITY.md, and whether that is over.

Ends with 0 if no pinned version has a known flaw, 1 if one has, and 65 if that cannot be told: something cannot be read,
is no such database, or the database is old. Then the findings that there are are printed all the same.

It stands here and not in deploy/: who makes a release runs it, with packages of the dev group. Operators cannot change a
lock with hashes themselves; they take the release that answers a flaw.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tests import osv

LOCK = Path(__file__).parent.parent / "requirements.lock"
NONE, SOME, UNTOLD = 0, 1, 65
# Days from an advisory's publication until a release answers it, by its level; SECURITY.md has the same.
DAYS = {"critical": 3, "high": 14, "other": 90}
# Days since the newest change in a database after which it is not believed to be up to date: from 2021 to 2024
# the longest silence of PyPA's was 18 days.
STALE_DAYS = 21

Pin = tuple[str, Version]


@dataclass(frozen=True)
class Finding:
    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    level: str
    published: date
    fixed: str | None
    until: date  # the last day of its time frame
    over: bool

    def __str__(self) -> str:
        names = ", ".join((self.id, *self.aliases))
        fixed = f"fixed in {self.fixed}" if self.fixed else "not fixed yet"
        frame = f"to be answered until {self.until}" + (": OVER" if self.over else "")
        return f"{self.package} {self.version}: {names}: {self.level}, published {self.published}, {fixed}, {frame}"

    def plain(self) -> dict[str, object]:
        return vars(self) | {"published": self.published.isoformat(), "until": self.until.isoformat()}


@dataclass
class Outcome:
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why it cannot be told
    advisories: int = 0  # those that are about packages of PyPI
    newest: datetime | None = None  # when the database was changed last

    @property
    def code(self) -> int:
        return UNTOLD if self.problems else SOME if self.findings else NONE


def pins(text: str) -> list[Pin]:
    """
    (name as PEP 503 spells it, version) for each line of a lock, whatever its marker; a package can be there twice.

    Raises Unread for an empty one, and for a line that is no 'name==version': a package that is not understood would
    not be compared.
    """
    found = []
    for whole in text.replace("\\\n", " ").splitlines():
        line = whole.partition("#")[0].partition(" --hash=")[0].strip()
        if not line:
            continue
        try:
            wanted = Requirement(line)
            (only,) = wanted.specifier
            if only.operator != "==":
                raise ValueError(line)
            found.append((canonicalize_name(wanted.name), Version(only.version)))
        except (InvalidRequirement, InvalidVersion, ValueError) as error:
            raise osv.Unread(f"the lock has a line that pins no version: {line}") from error
    if not found:
        raise osv.Unread("the lock pins nothing")
    return found


def compare(directory: Path, locked: Sequence[Pin], now: datetime) -> Outcome:
    """Every advisory of the directory with every pin."""
    outcome = Outcome()
    try:
        for path in osv.files(directory):
            try:
                advisory = osv.read(path)
            except osv.Unread as error:
                outcome.problems.append(str(error))
                continue
            outcome.advisories += any(each.name for each in advisory.affected)
            if advisory.modified <= now:  # a date that is wrong would make an old database new
                outcome.newest = max(advisory.modified, outcome.newest or advisory.modified)
            _compare(advisory, locked, now, outcome)
    except osv.Unread as error:
        outcome.problems.append(str(error))
    if not outcome.advisories:
        outcome.problems.append(
            f"{directory}: no database of advisories: none for packages of {osv.ECOSYSTEM} is there"
        )
    elif outcome.newest is None or now - outcome.newest > timedelta(days=STALE_DAYS):
        newest = outcome.newest.date() if outcome.newest else "never"
        outcome.problems.append(f"{directory}: the database is old, changed last {newest}: bring it up to date")
    outcome.findings.sort(key=lambda one: (one.package, one.version, one.until, one.id))
    return outcome


def _compare(advisory: osv.Advisory, locked: Sequence[Pin], now: datetime, outcome: Outcome) -> None:
    named = advisory.named()
    for name, version in (pin for pin in locked if pin[0] in named):
        try:
            if not advisory.affects(name, version):
                continue
            fixed = advisory.fixed(name, version)
        except osv.NotComparable as error:
            outcome.problems.append(f"{advisory.id}: cannot be compared with {name} {version}: {error}")
            continue
        published = (advisory.published or advisory.modified).date()
        until = published + timedelta(days=DAYS[advisory.level])
        outcome.findings.append(
            Finding(
                name, str(version), advisory.id, tuple(advisory.aliases), advisory.level, published,
                str(fixed) if fixed else None, until, now.date() > until,
            )
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None, now: datetime | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.advisories", description="Compare requirements.lock with a database of known flaws."
    )
    parser.add_argument("directory", type=Path, help="a checkout of an advisory database in the OSV format")
    parser.add_argument("--lock", type=Path, default=LOCK, help="another lock, as of an earlier release")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    given = parser.parse_args(arguments)
    locked: list[Pin] = []
    try:
        locked = pins(given.lock.read_text(encoding="utf-8"))
        outcome = compare(given.directory, locked, now or datetime.now(UTC))
    except (OSError, UnicodeDecodeError, osv.Unread) as error:
        outcome = Outcome(problems=[f"{given.lock}: {error}"])
    newest = outcome.newest.date().isoformat() if outcome.newest else None
    if given.json:
        plain = {
            "pins": len(locked),
            "advisories": outcome.advisories,
            "newest": newest,
            "findings": [one.plain() for one in outcome.findings],
            "problems": outcome.problems,
        }
        print(json.dumps(plain, indent=2))
        return outcome.code
    for finding in outcome.findings:
        print(finding)
    for problem in outcome.problems:
        print(problem, file=sys.stderr, flush=True)
    over = sum(one.over for one in outcome.findings)
    print(
        f"{len(locked)} pinned versions, {outcome.advisories} advisories, the newest of {newest or 'never'}: "
        f"{len(outcome.findings)} found, {over} over their time frame"
        + ("; there may be more, as said above" if outcome.problems else "")
    )
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
