"""Documents that wait for a person: what is read is what was written, the whole of it, or nothing."""

import io
from pathlib import Path

import pytest

from signer.kept import PIECE_BYTES, Kept, KeptError

BATCH = bytes(16)
PIECE = PIECE_BYTES + 16  # on the disk, with its tag


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path, bytes(32))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_whole_documents(kept: Kept, size: int) -> None:
    """They come back as they were, also where the last piece is a full one or there is nothing in it."""
    document = bytes(number % 251 for number in range(size))
    kept.put(BATCH, 0, io.BytesIO(document))
    assert b"".join(kept.pieces(BATCH, 0)) == document


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_document_that_was_cut_off(kept: Kept, tmp_path: Path, pieces: int) -> None:
    """Cut off behind a whole piece, each piece is as it was written: that the last one is missing is told all the same."""
    kept.put(BATCH, 0, io.BytesIO(bytes(3 * PIECE_BYTES)))
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - (3 - pieces) * PIECE])
    with pytest.raises(KeptError, match="was changed since it was written"):
        list(kept.pieces(BATCH, 0))
