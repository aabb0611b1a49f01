"""What is looked into in a file: kinds, polyglots, pictures, names, malware, and the blobs that keep it."""

import contextlib
import io
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.datastructures import UploadFile

from portal_adapter.files import decoding, names, picture, sniff
from portal_adapter.files.blobs import SWEPT_AFTER_S, Blobs
from portal_adapter.files.scan import scan
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Scan
from portal_adapter.web.body import on_disk
from tests import hostile
from tests.portal.pictures import archive, jpeg, part, png, png_of

PIXELS = 40_000_000


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def refused(work: Callable[[], object]) -> tuple[str, str]:
    """Code and reason."""
    with pytest.raises(Refusal) as raised:
        work()
    return raised.value.code, raised.value.reason


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (hostile.minimal_pdf(), sniff.PDF),
        (hostile.minimal_pdf() + b"\r\n\0", sniff.PDF),
        (png(), sniff.PNG),
        (jpeg(), sniff.JPEG),
        (jpeg(progressive=True), sniff.JPEG),
        (jpeg() + bytes(16) + jpeg(), sniff.JPEG),  # a camera's second picture
        (jpeg() + b"\0\0\x01\x0a" + b"list" + b"SEFT", sniff.JPEG),  # what one maker's cameras put there
    ],
    ids=["pdf", "pdf-padded", "png", "jpeg", "jpeg-progressive", "jpeg-two", "jpeg-list"],
)
def test_the_accepted_kinds_are_known_by_their_bytes(tmp_path: Path, content: bytes, expected: str) -> None:
    """ATT-09: PDF, JPEG and PNG, whatever their name."""
    assert sniff.media_type(put(tmp_path, content)) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"text", b"GIF89a" + bytes(40), b"<html>%PDF-1.7", b" %PDF-1.7\n%%EOF", b"MZ" + bytes(99), archive(), b"\xff\xd8",
        b"RIFF\0\0\0\0WEBPVP8 ", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"II*\0" + bytes(40),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_with_those_that_are_taken(tmp_path: Path, content: bytes) -> None:
    """ATT-09, 0.1: by content, not by name; the accepted types are said."""
    with pytest.raises(Refusal) as raised:
        sniff.media_type(put(tmp_path, content))
    assert raised.value.code == "bad-type"
    assert raised.value.details["accepted"] == ["application/pdf", "image/jpeg", "image/png"]
    assert [one.field for one in raised.value.errors] == ["file"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """ATT-09: a file without a byte is a mistake of the form."""
    assert refused(lambda: sniff.media_type(put(tmp_path, b""))) == ("validation", "empty")


@pytest.mark.parametrize(
    "content",
    [
        hostile.minimal_pdf() + archive(),
        hostile.minimal_pdf().replace(b"%%EOF", b"%" + archive() + b"\n%%EOF"),  # unpackers look for it before the end
        png() + archive(),
        png()[:-12] + part(b"teXt", archive()) + part(b"IEND", b""),
        jpeg() + archive(),
        jpeg() + hostile.minimal_pdf(),
        jpeg()[:2] + b"\xff\xfe\x00\x20" + hostile.minimal_pdf()[:30] + jpeg()[2:],
        png()[:33] + part(b"teXt", b"%PDF-1.7\n1 0 obj") + png()[33:],
        png() + b"<script>alert(1)</script>",
        jpeg() + b"<?php system($_GET['c']); ?>",
        hostile.minimal_pdf() + b"<html>",
        hostile.minimal_pdf() + png(),
    ],
    ids=[
        *("pdf+zip", "zip-before-eof", "png+zip", "zip-in-png", "jpeg+zip", "jpeg+pdf", "pdf-in-jpeg", "pdf-in-png"),
        *("png+script", "jpeg+php", "pdf+html", "pdf+png"),
    ],
)
def test_a_file_that_is_two_things_is_refused(tmp_path: Path, content: bytes) -> None:
    """ATT-09, 0.1: polyglots, as far as magic bytes and the end of a file tell."""
    assert refused(lambda: sniff.media_type(put(tmp_path, content))) == ("rejected-content", "two-kinds")


@pytest.mark.parametrize(
    "content", [png()[:-13], png()[:40], jpeg()[:-2], jpeg()[:-40], jpeg()[:30], hostile.minimal_pdf()[:-8]]
)
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, content: bytes) -> None:
    """ATT-09, 0.1: what has no end is not whole."""
    assert refused(lambda: sniff.media_type(put(tmp_path, content))) == ("rejected-content", "unreadable")


def test_no_bytes_bring_the_look_down(tmp_path: Path) -> None:
    """ATT-09: whatever one byte is changed to, there is an answer or a refusal."""
    for whole in (jpeg(), png(), hostile.minimal_pdf()):
        for at in range(0, len(whole), 7):
            for byte in (0x00, 0xFF):
                path = put(tmp_path, whole[:at] + bytes([byte]) + whole[at + 1 :])
                try:
                    sniff.media_type(path)
                except Refusal as refusal:
                    assert refusal.code in {"bad-type", "rejected-content"}


# ---- pictures


@pytest.mark.parametrize("content", [png(), jpeg(), jpeg(progressive=True)])
def test_a_sound_picture_is_decoded(tmp_path: Path, content: bytes) -> None:
    """ATT-09: what a phone makes passes."""
    picture.check(put(tmp_path, content), PIXELS)


def test_a_picture_has_at_most_so_many_pixels(tmp_path: Path) -> None:
    """ATT-09, 0.1: the limit is inclusive, and asked before anything is decoded."""
    picture.check(put(tmp_path, png(50, 20)), 1000)
    assert refused(lambda: picture.check(put(tmp_path, png(91, 11)), 1000)) == ("rejected-content", "too-many-pixels")
    bomb = png_of(2**31 - 1, 2**31 - 1, zlib.compress(bytes(10_000_000), 9))
    assert len(bomb) < 20_000
    assert refused(lambda: picture.check(put(tmp_path, bomb), PIXELS)) == ("rejected-content", "too-many-pixels")


@pytest.mark.parametrize(
    "content",
    [
        png_of(6000, 6000, zlib.compress(b"\0" * 600, 9)),
        png()[:33] + part(b"IDAT", b"no deflate") + part(b"IEND", b""),
        png()[:45] + bytes([png()[45] ^ 0x55]) + png()[46:],
        jpeg()[: len(jpeg()) // 2] + b"\xff\xd9",
        b"\xff\xd8\xff\xd9",
        png_of(0, 0, b""),
        png()[:33] + part(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)) + png()[33:],
    ],
    ids=["too-few-pixels", "no-deflate", "checksum", "half-a-jpeg", "no-picture", "no-pixels", "text-bomb"],
)
def test_a_damaged_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    """ATT-09, 0.1: what cannot be decoded whole is not kept."""
    assert refused(lambda: picture.check(put(tmp_path, content), PIXELS)) == ("rejected-content", "unreadable")


def test_the_process_that_decodes_has_little(tmp_path: Path) -> None:
    """ATT-09: 512 MB of memory, 10 s of a processor, no file to write, no environment; the portal never loads the library."""
    program = (
        "import resource, runpy, sys; sys.argv = ['decoding.py', '1000']; "
        f"module = runpy.run_path({decoding.__file__!r}); print(module['main']()); "
        "print([resource.getrlimit(one)[1] for one in "
        "(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)])"
    )
    with put(tmp_path, png()).open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], stdin=file, capture_output=True, text=True, check=True
        )
    said, limits = done.stdout.splitlines()
    assert said == "ok"
    assert limits == "[536870912, 10, 0, 0]"
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, portal_adapter.app; print('PIL' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout == "False\n"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != decoding.MEMORY_BYTES


def test_a_process_that_needs_more_than_it_may_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATT-09: out of memory, killed or hanging: the picture is refused, and the portal goes on."""
    program = tmp_path / "program.py"
    monkeypatch.setattr(picture, "_DECODING", program)
    path = put(tmp_path, png())
    for text in ("import os; os.kill(os.getpid(), 9)", "raise MemoryError", "print('nonsense')"):
        program.write_text(text)
        assert refused(lambda: picture.check(path, PIXELS)) == ("rejected-content", "unreadable")
    monkeypatch.setattr(picture, "WAIT_S", 0.3)
    program.write_text("while True: pass")
    assert refused(lambda: picture.check(path, PIXELS)) == ("rejected-content", "too-complex")


# ---- names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Rechnung 2026.pdf", "Rechnung 2026"),
        ("C:\\Users\\ada\\scan.JPG", "scan"),
        ("../../etc/passwd", "passwd"),
        ("a/b/", ""),
        ("..", ""),
        (".pdf", "pdf"),
        ("x\r\nSet-Cookie: a=b.png", "x Set-Cookie: a=b"),
        ("gpj.\u202eexe.pdf", "gpj.exe"),
        ("nul\0byte.pdf", "nulbyte"),
        ("e\u0301te\u0301.pdf", "été"),
        ("x" * 300 + ".pdf", "x" * 80),
        ("report.tar.gz", "report.tar.gz"),
    ],
)
def test_a_file_name_becomes_a_text_for_people(given: str, expected: str) -> None:
    """ATT-09: its last part, without path, ending and what cannot be seen, of at most 80 characters."""
    assert names.cleaned(given, most=80) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Invoice", "Invoice.pdf"), ("Invoice.PDF", "Invoice.PDF"), ("a/b\\c:d", "a_b_c_d.pdf"), ("..", "document.pdf"),
        ("été “1”", "été “1”.pdf"), ("a.exe", "a.exe.pdf"),
    ],
)  # fmt: skip
def test_a_download_has_the_ending_of_what_it_is(name: str, expected: str) -> None:
    """ATT-09: so that nobody opens it as something else; no character that a file system reads."""
    assert names.for_download(name, sniff.PDF) == expected


# ---- malware


def test_without_a_scanner_nothing_is_scanned_and_that_is_said(tmp_path: Path) -> None:
    """ATT-10: clean at once, noted as not scanned."""
    assert (scan(put(tmp_path, b"x"), None).state, scan(put(tmp_path, b"x"), None).note) == ("clean", "not scanned")


@pytest.mark.parametrize(
    ("script", "state", "note"),
    [
        ("grep -q bad && { echo 'Test.Virus'; exit 1; }; exit 0", "infected", "Test.Virus"),
        ("cat >/dev/null; echo fine", "clean", "fine"),
        ("echo no database; exit 2", "error", "no database"),
        ("kill -9 $$", "error", "exit code -9"),
        ("printf 'a\\033[2J\\nb'", "clean", "a [2J b"),
    ],
)
def test_a_command_says_what_it_found_by_its_exit_code(tmp_path: Path, script: str, state: str, note: str) -> None:
    """ATT-10: 0 clean, 1 infected, anything else is tried again; it gets the file on its standard input."""
    found = scan(put(tmp_path, b"something bad"), Scan(command=("sh", "-c", script)))
    assert (found.state, found.note) == (state, note)


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """ATT-10: a scanner that is away never makes a file clean."""
    assert scan(put(tmp_path, b"x"), Scan(command=("/nowhere/scanner",))).state == "error"


class Clamd:
    """Speaks INSTREAM: takes the chunks and answers `answer`; `content` is what came."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.content, self._answer = b"", answer
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listening.accept()
        with peer, peer.makefile("rb") as stream:
            assert stream.read(10) == b"zINSTREAM\0"
            while length := int.from_bytes(stream.read(4), "big"):
                self.content += stream.read(length)
            peer.sendall(self._answer)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"stream: OK\0", "clean"), (b"stream: Eicar-Test-Signature FOUND\0", "infected"),
        (b"INSTREAM size limit exceeded. ERROR\0", "error"), (b"", "error"),
    ],
)  # fmt: skip
def test_clamd_gets_the_file_in_chunks(tmp_path: Path, answer: bytes, state: str) -> None:
    """ATT-10: through its Unix socket; only its OK is clean."""
    content = os.urandom(200_000)
    clamd = Clamd(tmp_path / "clamd", answer)
    try:
        found = scan(put(tmp_path, content), Scan(clamd=tmp_path / "clamd"))
        assert found.state == state
    finally:
        clamd.close()
    assert clamd.content == content


def test_clamd_that_is_away_is_an_error(tmp_path: Path) -> None:
    """ATT-10: without its socket a file is not clean."""
    assert scan(put(tmp_path, b"x"), Scan(clamd=tmp_path / "clamd")).state == "error"


def test_a_scanner_is_one_of_both() -> None:
    """ATT-10: neither, or a command and clamd, is a mistake of the configuration."""
    for more in ({}, {"command": ("true",), "clamd": Path("clamd")}):
        with pytest.raises(ValueError, match="one of both"):
            Scan(**more)


# ---- blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    yield Blobs(tmp_path / "state")


def incoming(blobs: Blobs, content: bytes = b"content") -> Path:
    path = blobs.incoming / "tmp"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_bytes_are_kept_under_a_name_of_chance_for_the_portal_alone(blobs: Blobs) -> None:
    """ESP-36: nothing that somebody has typed is part of a path; directories 0700, files 0600."""
    path = incoming(blobs)
    kept = blobs.keep(path)
    path.unlink()
    assert re.fullmatch(r"[0-9a-f]{32}", kept)
    assert blobs.path(kept).read_bytes() == b"content"
    assert blobs.path(kept).stat().st_mode & 0o777 == 0o600
    for directory in (blobs.path(kept).parent, blobs.incoming):
        assert directory.stat().st_mode & 0o777 == 0o700
    for wrong in ("../portal.db", "", kept + "\n", "incoming"):
        with pytest.raises(ValueError, match="name"):
            blobs.path(wrong)
    blobs.remove(kept)
    blobs.remove(kept)
    assert not blobs.path(kept).exists()


def arrives(blobs: Blobs) -> str:
    """As an upload does, and is kept."""
    with contextlib.ExitStack() as stack:
        upload = on_disk(UploadFile(io.BytesIO(b"content")), blobs.incoming, stack)
        return blobs.keep(upload.path)


def is_made(blobs: Blobs) -> str:
    """As what the portal makes itself."""
    return blobs.write(b"content")


@pytest.mark.parametrize("way", [arrives, is_made])
def test_what_is_kept_is_on_the_disk(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, way: Callable[[Blobs], str]
) -> None:
    """All of its bytes before it has its name, and then its name: no row names what a power cut can take away."""
    synced: list[object] = []

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        names_ = sorted(path.name for path in blobs.incoming.parent.iterdir() if path.is_file())
        synced.append((place.name, names_) if place.is_dir() else (place.read_bytes(), names_))

    monkeypatch.setattr(os, "fsync", fsync)
    kept = way(blobs)
    assert synced == [(b"content", []), ("blobs", [kept])]


def test_what_nothing_names_is_swept_once_it_is_old(blobs: Blobs) -> None:
    """ESP-36: what a crash left is removed; a named file, and another's upload of just now, stay."""
    named, orphan, fresh = (blobs.keep(incoming(blobs)) for _ in range(3))
    now = blobs.path(fresh).stat().st_mtime
    for name in (named, orphan):
        blobs.path(name).unlink()
        blobs.path(name).write_bytes(b"old")
        os.utime(blobs.path(name), (now - SWEPT_AFTER_S - 9, now - SWEPT_AFTER_S - 9))
    left = blobs.incoming / "left"
    left.write_bytes(b"left")
    os.utime(left, (now - SWEPT_AFTER_S - 9, now - SWEPT_AFTER_S - 9))
    assert blobs.sweep({named}, now) == 2
    assert blobs.path(named).exists()
    assert blobs.path(fresh).exists()
    assert not blobs.path(orphan).exists()
    assert not left.exists()


def test_a_copy_has_a_name_of_its_own_and_is_not_swept(blobs: Blobs) -> None:
    """ATT-06: the same bytes under two names, of which each goes by itself; a new one of old bytes waits for its row."""
    kept = blobs.keep(incoming(blobs))
    now = blobs.path(kept).stat().st_mtime
    os.utime(blobs.path(kept), (now - SWEPT_AFTER_S - 9, now - SWEPT_AFTER_S - 9))
    copied = blobs.copy(kept)
    assert blobs.sweep({kept}, now) == 0
    blobs.remove(kept)
    assert blobs.path(copied).read_bytes() == b"content"
