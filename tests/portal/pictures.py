"""Files that people upload, and files that somebody has made to do harm: bytes without a library that decodes them."""

import io
import struct
import zipfile
import zlib

from PIL import Image


def png(width: int = 8, height: int = 8) -> bytes:
    """A sound one: grey, every pixel the same."""
    row = b"\0" + b"\x80" * width
    return png_of(width, height, zlib.compress(row * height, 9))


def png_of(width: int, height: int, data: bytes) -> bytes:
    """A PNG that says it has this size, with `data` for its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")


def part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(*, progressive: bool = False) -> bytes:
    out = io.BytesIO()
    picture = Image.linear_gradient("L").resize((64, 64))
    picture.convert("RGB").save(out, "JPEG", progressive=progressive, quality=70)
    return out.getvalue()


def archive(name: str = "a.txt") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, "other content")
    return out.getvalue()
