"""The pinned versions against a database of known flaws: what `python -m tests.advisories` finds, and when it cannot tell."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from tests import osv
from tests.advisories import DAYS, LOCK, NONE, SOME, STALE_DAYS, UNTOLD, main, pins

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROOT = Path(__file__).parent.parent
Events = list[dict[str, str]]


def affected(name: str = "part", *events: Events, ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    """An entry about a package, with a range for each list of events."""
    ranges = [{"type": "ECOSYSTEM", "events": each} for each in events]
    return {"package": {"ecosystem": ecosystem, "name": name}, "ranges": ranges, **more}


BEFORE_2 = affected("part", [{"introduced": "0"}, {"fixed": "2.0"}])


class Database:
    """A directory laid out as PyPA's, and a lock, in a place of this test's."""

    def __init__(self, place: Path) -> None:
        self.place = place / "database"
        self.lock = place / "lock"
        # Each database has this one: it is recent, and about nothing that is pinned.
        self.plant("PYSEC-2026-1", affected("unused", [{"introduced": "0"}]))

    def plant(self, id_: str, *entries: dict[str, Any], ending: str = "yaml", **more: Any) -> Path:
        advisory = {
            "id": id_, "modified": "2026-11-19T01:02:03.456Z", "published": "2026-11-18T00:00:00Z",
            "aliases": [f"CVE-of-{id_}"], "affected": list(entries), **more,
        }  # fmt: skip
        written = json.dumps(advisory) if ending == "json" else yaml.safe_dump(advisory)
        return self.write(f"vulns/some/{id_}.{ending}", written)

    def write(self, name: str, text: str) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def pin(self, *lines: str) -> None:
        self.lock.write_text("".join(f"{line} \\\n    --hash=sha256:{64 * 'a'}\n" for line in lines))

    def run(self, now: datetime = NOW) -> int:
        return main([str(self.place), "--lock", str(self.lock)], now)

    def finds(self, version: str) -> bool:
        """Whether 'part' has a known flaw in this version; there must be nothing that is not told."""
        self.pin(f"part=={version}")
        code = self.run()
        assert code in {NONE, SOME}
        return code == SOME


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


# ---- which versions are affected


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_a_range_ends_with_its_fix(database: Database, ending: str) -> None:
    """In YAML and in JSON: from the introduction on, without the fix, by PEP 440 and not by the letter."""
    database.plant("PYSEC-2026-2", affected("part", [{"introduced": "1.9"}, {"fixed": "1.10"}]), ending=ending)
    assert [one for one in ("1.8", "1.9", "1.9.5", "1.10", "1.10.0", "1.11", "2") if database.finds(one)] == [
        "1.9",
        "1.9.5",
    ]


def test_a_version_of_two_digits_stays_one(database: Database) -> None:
    """YAML without quotes reads 3.10 as a number; it is the version 3.10, not 3.1."""
    database.write(
        "vulns/part/PYSEC-2026-2.yaml",
        "id: PYSEC-2026-2\nmodified: 2026-11-19T00:00:00Z\nwithdrawn: null\naffected:\n- package: {ecosystem: PyPI, name: part}\n"
        "  ranges:\n  - type: ECOSYSTEM\n    events:\n    - introduced: 0\n    - fixed: 3.10\n  versions: [3.20]\n",
    )
    assert [one for one in ("3.2", "3.9", "3.10", "3.20") if database.finds(one)] == ["3.2", "3.9", "3.20"]


def test_the_last_affected_version_is_affected(database: Database) -> None:
    database.plant("PYSEC-2026-2", affected("part", [{"last_affected": "1.5"}, {"introduced": "1.5"}]))
    assert [one for one in ("1.4", "1.5", "1.5.post1", "1.6") if database.finds(one)] == ["1.5"]


def test_a_range_without_an_end_goes_on(database: Database) -> None:
    database.plant("PYSEC-2026-2", affected("part", [{"introduced": "1.5"}]))
    assert [one for one in ("1.4", "1.5", "99") if database.finds(one)] == ["1.5", "99"]


def test_several_ranges(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """In one list of events, in whatever order; in two lists; in two entries for one package: one finding, and its own fix."""
    database.plant(
        "PYSEC-2026-2",
        affected(
            "part",
            [{"introduced": "2.0"}, {"fixed": "2.3"}, {"introduced": "0"}, {"fixed": "1.4"}],
            [{"introduced": "3.0"}, {"fixed": "3.1"}],
        ),
        affected("part", [{"introduced": "4.0"}, {"last_affected": "4.1"}]),
    )
    versions = ("1.3", "1.4", "2.0", "2.2", "2.3", "3.0", "3.1", "4.0", "4.1", "4.2")
    found = [one for one in versions if database.finds(one)]
    assert found == ["1.3", "2.0", "2.2", "3.0", "4.0", "4.1"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("part")]
    fixes = [line.split("published 2026-11-18, ")[1].split(",")[0] for line in lines]
    assert fixes == ["fixed in 1.4", "fixed in 2.3", "fixed in 2.3", "fixed in 3.1", "not fixed yet", "not fixed yet"]


def test_a_fix_that_is_affected_again_is_no_fix(database: Database) -> None:
    """2.0 ended the flaw, and the same advisory has it again from 2.0 to 2.1."""
    database.plant("PYSEC-2026-2", BEFORE_2, affected("part", [{"introduced": "2.0"}, {"fixed": "2.1"}]))
    advisory = osv.read(database.place / "vulns/some/PYSEC-2026-2.yaml")
    assert advisory.fixed("part", Version("1.0")) == Version("2.1")


def test_a_limit(database: Database) -> None:
    """What is not before it is not in the range; '*' is none."""
    database.plant("PYSEC-2026-2", affected("part", [{"introduced": "1"}, {"limit": "2"}]))
    assert [one for one in ("0.9", "1.5", "2", "3") if database.finds(one)] == ["1.5"]
    database.plant("PYSEC-2026-2", affected("part", [{"introduced": "1"}, {"limit": "*"}]))
    assert database.finds("3")


def test_listed_versions(database: Database) -> None:
    """Beside a range, or alone, or beside commits; however they are spelled, and one that no one could install."""
    commits = {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "c0ffee"}]}
    database.plant("PYSEC-2026-2", affected("part", versions=["1.0", "v2.0.0", "2004d"]) | {"ranges": [commits]})
    database.plant("PYSEC-2026-3", affected("part", [{"introduced": "5"}, {"fixed": "6"}], versions=["0.9-RC1"]))
    assert [one for one in ("0.9rc1", "0.9", "1.0.0", "1.1", "2.0", "5.5", "6") if database.finds(one)] == [
        *("0.9rc1", "1.0.0", "2.0", "5.5")
    ]


@pytest.mark.parametrize(
    ("version", "found"), [("2.0rc1", True), ("2.0.dev1", True), ("2.0", False), ("2.0.post1", False)]
)
def test_a_prerelease_comes_before_its_release(database: Database, version: str, found: bool) -> None:
    """A release candidate of the version with the fix has not the fix; the range from 0 on has pre-releases of 0."""
    database.plant("PYSEC-2026-2", BEFORE_2)
    assert database.finds(version) is found
    assert database.finds("0.0.dev1")


def test_a_prerelease_before_the_introduction(database: Database) -> None:
    database.plant("PYSEC-2026-2", affected("part", [{"introduced": "2.0"}]))
    assert not database.finds("2.0rc1")


# ---- which advisories count


def test_what_was_withdrawn_is_none(database: Database) -> None:
    database.plant("PYSEC-2026-2", BEFORE_2, withdrawn="2026-11-19T00:00:00Z")
    assert not database.finds("1.0")
    database.plant("PYSEC-2026-2", BEFORE_2, withdrawn=None)
    assert database.finds("1.0")


@pytest.mark.parametrize("ecosystem", ["npm", "Debian:12", "pypi-like"])
def test_another_ecosystem_is_another_package(database: Database, ecosystem: str) -> None:
    database.plant("GHSA-aaaa-bbbb-cccc", affected("part", [{"introduced": "0"}], ecosystem=ecosystem), ending="json")
    assert not database.finds("1.0")


@pytest.mark.parametrize("name", ["Some_Part", "some.part", "SOME--PART", "some-part"])
def test_a_name_is_the_same_however_it_is_spelled(database: Database, name: str) -> None:
    """PEP 503, in the database as in the lock."""
    database.plant("PYSEC-2026-2", affected(name, [{"introduced": "0"}]))
    for pinned in ("some-part==1.0", "Some.Part==1.0", "some-part-too==1.0"):
        database.pin(pinned)
        assert database.run() == (NONE if "too" in pinned else SOME)


def test_what_is_no_advisory_is_not_read(database: Database) -> None:
    """Notes beside the advisories, and what is in hidden directories."""
    database.write("triage/false_positives.yaml", "- CVE-1\n")
    database.write("package.json", "nothing that could be read")
    database.write(".git/PYSEC-2026-9.yaml", "nothing: that: could be read")
    assert not database.finds("1.0")


# ---- what is said of a finding


def test_what_is_printed(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Package, version, advisory, its other names, level, dates, fix and time frame; the same as JSON."""
    word = {"database_specific": {"severity": "HIGH"}}
    database.plant("PYSEC-2026-2", BEFORE_2, published="2026-11-05T23:00:00Z", **word)
    database.plant("PYSEC-2026-3", BEFORE_2, published="2026-11-06T00:00:00Z", **word)
    database.pin("part==1.5", "other==1 ; sys_platform == 'win32'")
    assert database.run() == SOME
    said = "CVE-of-{0}: high, published {1}, fixed in 2.0, to be answered until {2}"
    assert capsys.readouterr().out.splitlines() == [
        "part 1.5: PYSEC-2026-2, " + said.format("PYSEC-2026-2", "2026-11-05", "2026-11-19: OVER"),
        "part 1.5: PYSEC-2026-3, " + said.format("PYSEC-2026-3", "2026-11-06", "2026-11-20"),
        "2 pinned versions, 3 advisories, the newest of 2026-11-19: 2 found, 1 over their time frame",
    ]
    assert main([str(database.place), "--lock", str(database.lock), "--json"], NOW) == SOME
    plain = json.loads(capsys.readouterr().out)
    assert (plain["pins"], plain["advisories"], plain["newest"], plain["problems"]) == (2, 3, "2026-11-19", [])
    assert plain["findings"][0] == {
        "package": "part", "version": "1.5", "id": "PYSEC-2026-2", "aliases": ["CVE-of-PYSEC-2026-2"], "level": "high",
        "published": "2026-11-05", "fixed": "2.0", "until": "2026-11-19", "over": True,
    }  # fmt: skip
    assert not plain["findings"][1]["over"]


def test_what_has_no_publication_counts_from_its_last_change(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.plant("PYSEC-2026-2", BEFORE_2, published=None, modified="2026-11-14T00:00:00Z")
    assert database.finds("1.0")
    assert (
        "critical, published 2026-11-14, fixed in 2.0, to be answered until 2026-11-17: OVER" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("vector", "points"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H", 9.9),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H/E:P", 7.5),
        ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:N/A:N", 5.9),
        ("CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", 1.6),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N", None),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", None),
        ("", None),
    ],
)
def test_the_score_of_a_vector(vector: str, points: float | None) -> None:
    assert osv.score(vector) == points


@pytest.mark.parametrize(
    ("more", "level"),
    [
        ({}, "critical"),
        ({"database_specific": {"severity": "MODERATE"}}, "other"),
        ({"database_specific": {"severity": "LOW"}}, "other"),
        ({"database_specific": {"severity": "CRITICAL"}}, "critical"),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"}]}, "high"),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:N/A:N"}]}, "other"),
        ({"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]}, "critical"),
        (
            {
                "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"}],
                "database_specific": {"severity": "LOW"},
            },
            "high",
        ),
    ],
)
def test_the_level_is_the_worst_that_is_said(database: Database, more: dict[str, Any], level: str) -> None:
    """And critical where nothing is said that can be read."""
    assert osv.read(database.plant("PYSEC-2026-2", BEFORE_2, **more)).level == level
    assert set(DAYS) == set(osv.LEVELS)


# ---- when it cannot be told


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("yaml", "id: [PYSEC"),
        ("yaml", ""),
        ("yaml", "- id: PYSEC-2026-2\n"),
        ("yaml", "id: PYSEC-2026-2\n"),
        ("yaml", "id: PYSEC-2026-2\nmodified: some day\n"),
        ("yaml", "\udcff"),
        ("json", '{"id": "PYSEC-2026-2", "modified":'),
        ("json", '{"id": "PYSEC-2026-2", "modified": "2026-11-19T00:00:00Z", "affected": [{"versions": "1.0"}]}'),
        ("json", "[" * 200_000),
    ],
)
def test_a_file_that_cannot_be_read_is_said(
    database: Database, ending: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its name; what else there is, is compared all the same, and the command does not end well."""
    path = database.place / f"vulns/part/PYSEC-2026-2.{ending}"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    database.plant("PYSEC-2026-3", BEFORE_2)
    database.pin("part==1.0")
    assert database.run() == UNTOLD
    printed = capsys.readouterr()
    assert printed.err.startswith(str(path)) and len(printed.err.splitlines()) == 1
    assert "part 1.0: PYSEC-2026-3" in printed.out
    database.pin("part==3.0")
    assert database.run() == UNTOLD


@pytest.mark.parametrize(
    "entry",
    [
        affected("part"),
        affected("part") | {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]},
        affected("part", [{"introduced": "0"}, {"fixed": "2004d"}]),
        affected("part", [{"fixed": "2.0"}]),
        affected("part", [{"introduced": "0"}, {"mended": "2.0"}]),
    ],
)
def test_what_cannot_be_compared_is_said(
    database: Database, entry: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """An advisory about a pinned package that says nothing of versions; about another package it is nobody's business."""
    database.plant("PYSEC-2026-2", entry)
    database.pin("part==1.0")
    assert database.run() == UNTOLD
    assert "PYSEC-2026-2: cannot be compared with part 1.0" in capsys.readouterr().err
    database.pin("other==1.0")
    assert database.run() == NONE


def test_an_empty_directory_is_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is one that is not there, a file, or one without advisories for Python."""
    database = Database(tmp_path)
    database.pin("part==1.0")
    empty, npm = tmp_path / "empty", tmp_path / "npm"
    empty.mkdir()
    npm.mkdir()
    other = affected("part", [{"introduced": "0"}], ecosystem="npm")
    advisory = {"id": "GHSA-a", "modified": "2026-11-19T00:00:00Z", "affected": [other]}
    (npm / "GHSA-a.json").write_text(json.dumps(advisory))
    for place in (empty, npm, tmp_path / "nowhere", database.lock):
        assert main([str(place), "--lock", str(database.lock)], NOW) == UNTOLD
        assert f"{place}: no database of advisories" in capsys.readouterr().err


def test_a_directory_that_cannot_be_read_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of many: its advisories are missing."""
    (database.place / "vulns" / "part").mkdir()
    scan = osv.os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("part"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    database.pin("part==1.0")
    assert database.run() == NONE
    monkeypatch.setattr(osv.os, "scandir", refusing)
    assert database.run() == UNTOLD
    assert f"{database.place}/vulns/part: Permission denied" in capsys.readouterr().err


def test_an_old_database_tells_nothing(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """By the newest change in it; a change in the future, which is a mistake, makes it no newer."""
    database.pin("part==1.0")
    newest = datetime(2026, 11, 19, 1, 2, 3, 456000, tzinfo=UTC)
    database.plant(
        "PYSEC-2020-1", BEFORE_2, modified="2020-01-01T00:00:00Z", published=None, withdrawn="2020-01-02T00:00:00Z"
    )
    database.plant("PYSEC-2099-1", affected("unused", [{"introduced": "0"}]), modified="2099-01-01T00:00:00Z")
    assert database.run(newest + timedelta(days=STALE_DAYS)) == NONE
    assert database.run(newest + timedelta(days=STALE_DAYS, seconds=1)) == UNTOLD
    assert "the database is old, changed last 2026-11-19" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lock",
    ["", "# nothing\n", "part\n", "part>=1.0\n", "part==1.*\n", "part @ file:///part\n", "-e .\n", "part==1.0,!=2\n"],
)
def test_a_lock_that_pins_nothing_is_said(database: Database, lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is not understood is not passed over."""
    database.lock.write_text(lock)
    assert database.run() == UNTOLD
    assert capsys.readouterr().err.startswith(f"{database.lock}: the lock ")


# ---- what is pinned here


def test_the_lock_is_read_whole() -> None:
    """Each package that has hashes in requirements.lock, in each of its versions."""
    text = LOCK.read_text()
    assert len(pins(text)) == sum(not line.startswith((" ", "#")) for line in text.splitlines()) > 50
    assert {"cryptography", "starlette", "grpcio", "pyyaml"} <= {name for name, _ in pins(text)}
    assert len({version for name, version in pins(text) if name == "numpy"}) == 2


@pytest.mark.parametrize("name", ["cryptography", "python-multipart", "sqlalchemy"])
def test_a_flaw_in_what_is_pinned_is_found(database: Database, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """ASVS 15.2.1: one of the versions in requirements.lock, named as people write it; without the flaw all is well."""
    assert main([str(database.place)], NOW) == NONE
    version = next(version for each, version in pins(LOCK.read_text()) if each == name)
    written = {"sqlalchemy": "SQLAlchemy", "python-multipart": "Python_Multipart"}.get(name, name)
    database.plant(
        "GHSA-aaaa-bbbb-cccc",
        affected(written, [{"introduced": str(version)}, {"fixed": f"{version}.post1"}]),
        ending="json", published="2026-11-01T00:00:00Z",
    )  # fmt: skip
    assert main([str(database.place)], NOW) == SOME
    found = capsys.readouterr().out.splitlines()[-2]
    assert found.startswith(f"{name} {version}: GHSA-aaaa-bbbb-cccc, ") and found.endswith(": OVER")


def test_the_time_frames_are_those_that_are_published() -> None:
    """ASVS 15.1.1, 15.2.1: SECURITY.md has the figures of the command, and the command."""
    text = " ".join((ROOT / "SECURITY.md").read_text().split())
    for level, days in DAYS.items():
        assert f"| {level} | {days} days |" in text
    assert "python -m tests.advisories" in text and f"{STALE_DAYS} days" in text
