"""The documents say what the code does: diagrams, tables, file names, and the commands of the README."""

import re
import shlex
from pathlib import Path

import pytest

from pool import diagram
from pool.attendant import VERIFY_EACH
from signer import tables
from signer.__main__ import parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("*/DESIGN.md"), *ROOT.glob("*/README.md")]


def test_the_diagrams_are_those_of_the_tables() -> None:
    """pool/DESIGN.md shows the state tables as they are; `python -m pool.diagram` draws them."""
    text = diagram.DESIGN.read_text()
    assert diagram.drawn(text) == text


@pytest.mark.parametrize(("path", "mark"), [(path, mark) for path, mark, _ in tables.PLACES])
def test_the_tables_are_those_of_the_code(path: Path, mark: str) -> None:
    """Reasons and exit codes stand in the documents as they are; `python -m signer.tables` writes them."""
    content = next(content for place, name, content in tables.PLACES if (place, name) == (path, mark))
    assert tables.written(path.read_text(), mark, content()) == path.read_text()


def test_security_names_files_that_exist() -> None:
    """Each guarantee names the file that gives it and the tests that hold it: they are there."""
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) >= 10
    for row in rows:
        *_, given, held, _ = row.split("|")
        files = re.findall(r"`([^`]+)`", given), re.findall(r"`([^`]+)`", held)
        assert all(files), row
        for name in (*files[0], *files[1]):
            assert (ROOT / name).exists(), f"{name} in: {row}"
        assert all(name.startswith("tests/") for name in files[1])


def test_how_many_are_verified_again() -> None:
    """Of the signatures that their lane has not verified: as many as the code looks at."""
    for name in ("SECURITY.md", "pool/DESIGN.md"):
        assert f"one in {VERIFY_EACH}" in (ROOT / name).read_text(), name


def test_nothing_is_claimed() -> None:
    """Row 1.9: the words 'qualified' and 'SCAL2' stand only in a section that says what is not claimed."""
    for path in [*DOCUMENTS, *ROOT.glob("deploy/**/*.*"), *ROOT.glob("signer/**/*.py"), *ROOT.glob("pool/**/*.py")]:
        if path.suffix not in {".md", ".py", ".toml", ".service"}:
            continue
        text = re.sub(r"### What we do not claim.*?(?=\n#)", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\bqualified\b|SCAL2", text, re.IGNORECASE), path


def test_links_lead_somewhere() -> None:
    """A relative link of a document names a file of the repository."""
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"


def commands() -> list[str]:
    """The `paraph` commands that the README shows."""
    lines = (line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith(".venv/bin/paraph")]


@pytest.mark.parametrize("command", commands())
def test_the_commands_are_those_of_the_program(command: str) -> None:
    """Every command line of the README is one that the program takes."""
    options = parser().parse_args(shlex.split(command)[1:])
    assert callable(options.run)


def test_every_command_has_an_example_that_it_takes() -> None:
    """`paraph COMMAND --help` ends with an example, and the example is a command line that works."""
    from signer.__main__ import COMMANDS

    for name in COMMANDS:
        module = __import__(f"signer.cli.{name}", fromlist=["EXAMPLE"])
        assert module.EXAMPLE.startswith(f"paraph {name}")
        assert callable(parser().parse_args(shlex.split(module.EXAMPLE)[1:]).run)
