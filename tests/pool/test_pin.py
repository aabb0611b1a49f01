"""A PIN goes down to a token and nowhere else."""

import copy
import logging
import os
import pickle
from pathlib import Path

import pytest

from pool import Pin, PinError, PinFile
from pool.pin import PIN_BYTES_MAX

SECRET = "73019264-unmistakable"


def pin_file(tmp_path: Path, content: bytes = SECRET.encode(), mode: int = 0o400) -> PinFile:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return PinFile(path)


def test_nothing_prints_it() -> None:
    """repr, str, format and a log line show no PIN."""
    pin = Pin(SECRET)
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s %r", (pin, pin), None)
    for text in (repr(pin), str(pin), f"{pin} {pin!r}", f"{[pin]}", record.getMessage()):
        assert SECRET not in text
    assert pin.reveal() == SECRET


def test_it_is_not_pickled_copied_compared_or_hashed() -> None:
    """A PIN cannot slip into another process, a cache or a set."""
    pin = Pin(SECRET)
    for forbidden in (
        lambda: pickle.dumps(pin),
        lambda: copy.copy(pin),
        lambda: copy.deepcopy(pin),
        lambda: pin == SECRET,
        lambda: pin == Pin(SECRET),
        lambda: hash(pin),
        lambda: vars(pin),
    ):
        with pytest.raises(TypeError):
            forbidden()


@pytest.mark.parametrize("value", ["", "1" * (PIN_BYTES_MAX + 1), "é" * 128])
def test_length_is_1_to_255_bytes(value: str) -> None:
    """The limit counts bytes of UTF-8, and the message does not quote the PIN."""
    with pytest.raises(PinError) as error:
        Pin(value)
    assert not value or value not in str(error.value)
    assert Pin("1" * PIN_BYTES_MAX).reveal()


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_file_of_its_owner_is_read(tmp_path: Path, mode: int) -> None:
    """0400 and 0600 are the modes of a secret."""
    assert pin_file(tmp_path, mode=mode)().reveal() == SECRET


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o440, 0o604, 0o620, 0o601])
def test_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others is refused; the message names the file and what to change."""
    with pytest.raises(PinError, match=rf"can be read by others \(mode {mode:04o}\); give it mode 0400") as error:
        pin_file(tmp_path, mode=mode)()
    assert str(tmp_path / "pin") in str(error.value)
    assert SECRET not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """So is what is no file."""
    with pytest.raises(PinError, match=f"{tmp_path}/none: No such file"):
        PinFile(tmp_path / "none")()
    tmp_path.chmod(0o700)
    with pytest.raises(PinError, match="not a regular file"):
        PinFile(tmp_path)()


@pytest.mark.timeout(10)
def test_a_pipe_does_not_hold_up_the_start(tmp_path: Path) -> None:
    """A FIFO nobody writes to is refused, not waited for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(PinError, match="not a regular file"):
        PinFile(fifo)()


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_trailing_newline_is_not_part_of_it(tmp_path: Path, ending: bytes) -> None:
    """Editors end a file with one; blanks inside and at the ends belong to the PIN."""
    assert pin_file(tmp_path, b" 12 34 " + ending)().reveal() == " 12 34 "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\xfd\xfc", b"9" * 256, b"9" * 70_000])
def test_content_that_is_no_pin_is_refused_unquoted(tmp_path: Path, content: bytes) -> None:
    """Empty, too long, not text: the message names the file and never the content."""
    with pytest.raises(PinError, match="does not hold a PIN of 1 to 255 bytes") as error:
        pin_file(tmp_path, content)()
    assert "9999" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_the_file_is_read_each_time(tmp_path: Path) -> None:
    """A changed PIN is taken up at the next login; a PIN file has no PIN in its repr."""
    file = pin_file(tmp_path, mode=0o600)
    assert file().reveal() == SECRET
    (tmp_path / "pin").write_text("other")
    assert file().reveal() == "other"
    assert repr(file) == f"PinFile('{tmp_path}/pin')"


@pytest.mark.parametrize(("mode", "good"), [(0o400, True), (0o440, True), (0o444, False), (0o460, False)])
def test_a_credential_may_carry_an_acl(tmp_path: Path, mode: int, good: bool) -> None:
    """In systemd's directory an ACL's mask shows as the group's bits: reading is accepted, more is not."""
    path = tmp_path / "pin"
    path.write_text("1234")
    path.chmod(mode)
    source = PinFile(path, group_may_read=True)
    if good:
        assert source().reveal() == "1234"
    else:
        with pytest.raises(PinError, match="0400"):
            source()
