"""Whether the document is PDF/A-2U, by veraPDF, whose verdicts others go by."""

import subprocess
from pathlib import Path

import pytest

from portal_adapter.form.coverage import drawable
from portal_adapter.form.declaration import declaration
from portal_adapter.form.drawing import draw
from tests.daemon import REPOSITORY
from tests.portal.test_form import EVERY, HEAD, MIXED, paper
from tests.portal.test_sheet import ENGLISH, FRENCH

VERAPDF = REPOSITORY / "tests" / "verapdf" / "Conforms.java"
JARS = REPOSITORY / ".venv" / "verapdf"
SAMPLE = "".join(c for c in map(chr, range(0x21, 0x1FFFF, 61)) if drawable(c))


def verdicts(directory: Path, documents: list[bytes]) -> list[str]:
    paths = []
    for i, document in enumerate(documents):
        paths.append(directory / f"{i}.pdf")
        paths[-1].write_bytes(document)
    words = ["java", "-cp", f"{JARS}/*", VERAPDF, *paths]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=90)
    return done.stdout.decode().splitlines()


@pytest.mark.skipif(not JARS.is_dir(), reason="deploy/setup could not fetch veraPDF")
def test_verapdf_finds_that_they_conform(tmp_path: Path) -> None:
    """PROC-13: every shipped definition in both languages, texts of every kind, all scripts at once, long ones; a document that claims another part, or has no map to Unicode, is found out."""
    documents = [
        draw(declaration(one, given, language, HEAD)) for one, given in EVERY for language in (FRENCH, ENGLISH)
    ]
    documents += [
        draw(paper(MIXED, "السلام (abc) عليكم שלום 12")),
        draw(paper(SAMPLE)),
        draw(paper("x " * 2000, "\n" * 200)),
    ]
    false = [
        documents[0].replace(b"<pdfaid:part>2<", b"<pdfaid:part>3<"),
        documents[0].replace(b"/ToUnicode", b"/ToUnicorn"),
    ]
    assert verdicts(tmp_path, [*documents, *false]) == ["conforms"] * len(documents) + ["6.6.4-2", "6.2.11.7.2-1"]
