"""The process that draws documents: what it may use, that it forgets everybody, and that the next document is drawn whatever became of the last."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from portal_adapter.form import press
from portal_adapter.form.coverage import drawable
from portal_adapter.form.declaration import declaration
from portal_adapter.form.drawing import draw
from portal_adapter.form.paper import Paper, Part
from portal_adapter.form.process import Printer
from portal_adapter.refusal import Refusal
from tests.daemon import until
from tests.portal.place import Place
from tests.portal.test_form import ADDRESS, HEAD, MIXED, PERMIT, PERMITTED
from tests.portal.test_sheet import ENGLISH, FRENCH, GOOD
from tests.processes import gone, living

RSS_MOST = 130e6
DOCUMENT_S = 0.4  # what a confirmation may take in all


@pytest.fixture(scope="module")
def printer() -> Iterator[Printer]:
    made = Printer()
    made.start()
    yield made
    made.close()


def papers(*texts: str) -> Paper:
    lines = tuple((f"Label {i}", text) for i, text in enumerate(texts))
    return Paper("en", "Portal", "Title", "Title · 1", 0, (), (Part("Part", lines),), "foot")


def process(printer: Printer) -> psutil.Process:
    assert printer._process is not None
    return psutil.Process(printer._process.pid)


@pytest.fixture
def own() -> Iterator[Printer]:
    """One that has drawn nothing yet, and that a test may break."""
    made = Printer(wait_s=60.0)
    made.start()
    yield made
    made.close()


def child(printer: Printer) -> psutil.Process:
    """That waits for the next paper; of a printer that is not just drawing."""
    (found,) = until(lambda: living(process(printer).children()), what="a child that draws")
    return found


def test_it_draws_what_is_drawn_here(printer: Printer) -> None:
    """PROC-13: the same bytes, one document after the other, whatever was drawn in between."""
    first = printer.render(ADDRESS, GOOD, FRENCH, HEAD)
    assert first == draw(declaration(ADDRESS, GOOD, FRENCH, HEAD))
    assert printer.render(PERMIT, PERMITTED, FRENCH, HEAD) == draw(declaration(PERMIT, PERMITTED, FRENCH, HEAD))
    assert printer.draw(papers(MIXED)) == draw(papers(MIXED))
    assert printer.render(ADDRESS, GOOD, FRENCH, HEAD) == first


def test_many_ask_at_once(printer: Printer) -> None:
    """PROC-13: each gets his own."""
    asked = [replace(HEAD, reference=f"MB-{i}") for i in range(12)]
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda head: printer.render(ADDRESS, GOOD, FRENCH, head), asked))
    assert [f"MB-{i}<".encode() in data for i, data in enumerate(found)] == [True] * 12


def test_it_keeps_nothing_of_anybody(own: Printer) -> None:
    """PROC-13: whoever draws a document ends with it, and neither the process that stays nor its next child knows an answer of it."""
    drew = child(own)
    assert own.draw(papers("Zaphod-" + "Beeblebrox"))
    until(lambda: gone(drew), what="the end of the child")
    for found in (process(own), child(own)):
        assert "pdfaid:conformance" in memory(found)  # a text of the program's own is found in the same way
        assert "Zaphod-" + "Beeblebrox" not in memory(found)


def memory(found: psutil.Process) -> str:
    """All that it can write to."""
    read = []
    where = Path(f"/proc/{found.pid}")
    with (where / "mem").open("rb", 0) as file:
        for place, rights, *_ in map(str.split, (where / "maps").read_text().splitlines()):
            if rights.startswith("rw"):
                begin, end = (int(one, 16) for one in place.split("-"))
                file.seek(begin)
                read.append(file.read(end - begin).decode("latin-1"))
    return "".join(read)


def test_the_next_document_is_drawn_after_a_crash(own: Printer, caplog: pytest.LogCaptureFixture) -> None:
    """PROC-13: a child that is killed while it draws is a clear refusal for whoever asked; the next document is drawn."""
    victim = child(own)
    victim.suspend()
    killing = threading.Timer(0.2, victim.kill)
    killing.start()
    with pytest.raises(Refusal) as refused:
        own.draw(papers("b"))
    killing.join()
    assert (refused.value.code, refused.value.retry_after_s) == ("signer-unavailable", 30)
    assert "no document was made" in caplog.text
    assert own.draw(papers("b")) == draw(papers("b"))


def test_a_process_that_died_meanwhile_is_nobodys_trouble(own: Printer) -> None:
    """PROC-13: the next document is drawn by another."""
    victim, waits = process(own), child(own)
    victim.kill()
    until(lambda: gone(victim))
    assert own.draw(papers("b")) == draw(papers("b"))
    until(lambda: gone(waits), what="the end of its child")


def test_a_process_that_hangs_is_killed_at_the_deadline(own: Printer) -> None:
    """PROC-13: with its child; who waits behind it is not let down later than that, either."""
    hangs, parent = child(own), process(own)
    hangs.suspend()
    own._wait_s = 1.0
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(own.draw, papers("b")) for _ in range(2)]
        assert {type(one.exception()) for one in asked} == {Refusal}
    assert time.monotonic() - begun < 10
    until(lambda: gone(hangs) and gone(parent))
    own._wait_s = 60.0
    assert own.draw(papers("c")) == draw(papers("c"))


def test_what_cannot_be_drawn_fails_without_saying_what(capfd: pytest.CaptureFixture[str]) -> None:
    """PROC-13: a failure in the child is told by its place; what people have typed is in no log."""
    printer = Printer(wait_s=60.0)
    with pytest.raises(Refusal, match="cannot be made just now"):
        printer.draw(papers("secret \ue000"))
    printer.close()
    said = capfd.readouterr().err
    assert "Undrawable in " in said
    assert "secret" not in said
    assert "E000" not in said


def test_its_limits_are_set(own: Printer) -> None:
    """PROC-13: memory, files, and for each document the processor; no environment, and nothing of it is left after the end."""
    parent, waits = process(own), child(own)
    assert waits.rlimit(psutil.RLIMIT_AS)[1] == press.MEMORY_BYTES
    until(lambda: waits.rlimit(psutil.RLIMIT_CPU)[1] == press.PROCESSOR_S)
    assert waits.rlimit(psutil.RLIMIT_FSIZE)[1] == press.FILE_BYTES
    assert waits.environ() == {}
    own.close()
    assert gone(parent)
    until(lambda: gone(waits))


def test_a_process_ends_with_the_portal(own: Printer) -> None:
    """PROC-13: its socket closes with the portal, however that ends."""
    parent, waits = process(own), child(own)
    assert own._socket is not None
    own._socket.close()
    until(lambda: gone(parent) and gone(waits))


def test_views_have_it_until_the_portal_ends(tmp_path: Path) -> None:
    """PROC-13: it is among the services, starts when it is needed at the latest, and ends with them."""
    place = Place(tmp_path)
    place.services = replace(place.services, printer=Printer())  # the tests' own says what it is given
    data = place.services.printer.render(ADDRESS, GOOD, ENGLISH, HEAD)
    assert data == draw(declaration(ADDRESS, GOOD, ENGLISH, HEAD))
    parent = process(place.services.printer)
    place.close()
    assert gone(parent)


@pytest.mark.alone
def test_a_document_is_quick_and_small(printer: Printer) -> None:
    """PROC-13: a document of one page takes a fraction of what a confirmation may; the longest, of eighty pages and every kind of character, stays within the memory."""
    printer.render(ADDRESS, GOOD, FRENCH, HEAD)
    taken = []
    for _ in range(20):
        begun = time.perf_counter()
        printer.render(ADDRESS, {**GOOD, "street": "1, rue de l’Église, Łódź"}, FRENCH, HEAD)
        taken.append(time.perf_counter() - begun)
    every = "".join(c for c in map(chr, range(0x21, 0x20000, 16)) if drawable(c))
    long = papers(*("Lorem ipsum dolor sit amet, " * 143 for _ in range(58)), every[:4000], every[4000:8000])
    with ThreadPoolExecutor(1) as threads:
        draws = child(printer)
        asked = threads.submit(printer.draw, long)
        most = 0
        while not asked.done():
            with contextlib.suppress(psutil.NoSuchProcess):
                most = max(most, draws.memory_info().rss)
            time.sleep(0.005)
    assert asked.result().startswith(b"%PDF")
    middle, slow = sorted(taken)[10], sorted(taken)[18]
    said = f"{middle * 1000:.0f} ms, p95 {slow * 1000:.0f} ms; {process(printer).memory_info().rss / 1e6:.0f} and {most / 1e6:.0f} MB"
    print(said)
    assert middle <= DOCUMENT_S / 2, said
    assert slow <= DOCUMENT_S, said
    assert max(most, process(printer).memory_info().rss) <= RSS_MOST, said
