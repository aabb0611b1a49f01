"""Preparing a PDF is a function: same document and same wishes, same bytes."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pyhanko.pdf_utils.metadata import info, xmp_xml

from signer import gap, pades
from signer.increment import Unusual
from tests.hostile import minimal_pdf
from tests.pki import Authority

CORPUS = sorted((Path(__file__).parents[3] / "deploy" / "demo" / "corpus").glob("*.pdf"))


@pytest.fixture(scope="module")
def wishes() -> pades.Wishes:
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = Authority("Test signer").certificate.public_bytes(Encoding.DER)
    moment = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    return pades.Wishes(certificate, "sha256", 2000, moment, gap.file_id("portal", "request", "0"), "Agreed", "Lyon")


class Later(type):
    """Stands for `datetime` in all but the present."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)

    def __getattr__(cls, name: str) -> Any:
        return getattr(datetime, name)


class NextYear(metaclass=Later):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + timedelta(days=365)


def stand_aside(*_: Any) -> NoReturn:
    raise Unusual


def prepared(document: bytes, wishes: pades.Wishes) -> tuple[gap.Prepared, bytes]:
    stream = io.BytesIO(document)
    result = pades.prepare(stream, wishes)
    return result, stream.getvalue()


@pytest.mark.parametrize("way", ["short", "pyHanko's"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_twice_is_the_same(path: Path, way: str, wishes: pades.Wishes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second attempt, a year later or by another process, gives the same digest and the same bytes."""
    if way != "short":
        monkeypatch.setattr(pades, "append", stand_aside)
    document = path.read_bytes()
    first = prepared(document, wishes)
    for module in (info, xmp_xml):
        monkeypatch.setattr(module, "datetime", NextYear)
    assert prepared(document, wishes) == first
    assert first[1].startswith(document)


@pytest.mark.parametrize("pdf", [minimal_pdf(), CORPUS[0].read_bytes()], ids=["without /ID", "with /ID"])
def test_what_is_asked_for_is_what_differs(pdf: bytes, wishes: pades.Wishes) -> None:
    """Another time, identifier or reason is another digest: nothing is left out of the bytes."""
    others = (
        replace(wishes, time=wishes.time + timedelta(seconds=1)),
        replace(wishes, file_id=gap.file_id("portal", "request", "1")),
        replace(wishes, reason="Not agreed"),
    )
    digests = {prepared(pdf, each)[0].content_digest for each in (wishes, *others)}
    assert len(digests) == 1 + len(others)


def test_the_identifier_is_of_its_words() -> None:
    """Caller, request and index each count, and do not run into each other."""
    words = [("a", "b", "1"), ("a", "b1", ""), ("ab", "", "1"), ("a", "b", "2")]
    assert len({gap.file_id(*each) for each in words}) == len(words)
    assert gap.file_id("a", "b", "1") == gap.file_id("a", "b", "1")
