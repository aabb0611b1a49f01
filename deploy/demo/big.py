"""Writes a PDF of about six megabytes for the demo and the load tests, with the standard library alone.

The weight lies in raster images of noise, the way a scanned contract is heavy: they hardly compress, so what
is sent, hashed and stored is the real size. The same file comes out on every machine.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

PAGES = 6
WIDTH = 1000
HEIGHT = 1000


def _noise(page: int) -> bytes:
    """Grey paper with grain and darker rules: hardly compressible, yet recognisably a written page."""
    grain = random.Random(f"paraph page {page}").randbytes(WIDTH * HEIGHT)
    paper = bytes(192 + value // 4 for value in range(256))
    ink = bytes(value // 3 for value in range(256))
    rows = []
    for row in range(HEIGHT):
        line = grain[row * WIDTH : (row + 1) * WIDTH]
        written = row % 40 < 6 and 80 <= row < HEIGHT - 80
        end = WIDTH - 90 - (row // 40 * 97 + page * 53) % 260
        rows.append(
            line[:90].translate(paper) + line[90:end].translate(ink) + line[end:].translate(paper)
            if written
            else line.translate(paper)
        )
    return b"".join(rows)


def _stream(entries: str, data: bytes) -> bytes:
    return f"<< {entries} /Length {len(data)} >>\nstream\n".encode("ascii") + data + b"\nendstream"


def big_pdf(path: str | Path) -> Path:
    """Write the document, replacing what was there, and return its path."""
    bodies: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        4: b"<< /Title (Ledger of the mill) /Producer (Paraph demo) /CreationDate (D:20260101120000Z) >>",
    }
    kids = []
    for page in range(1, PAGES + 1):
        leaf, content, image = 3 * page + 2, 3 * page + 3, 3 * page + 4
        kids.append(f"{leaf} 0 R")
        bodies[leaf] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> /XObject << /Im1 {image} 0 R >> >> >>"
        ).encode("ascii")
        words = (
            f"BT /F1 14 Tf 47 780 Td (Ledger of the mill, sheet {page} of {PAGES}) Tj ET\n"
            "q 500 0 0 700 47 60 cm /Im1 Do Q"
        )
        bodies[content] = _stream("", words.encode("ascii"))
        bodies[image] = _stream(
            f"/Type /XObject /Subtype /Image /Width {WIDTH} /Height {HEIGHT} "
            "/ColorSpace /DeviceGray /BitsPerComponent 8",
            _noise(page),
        )
    bodies[2] = f"<< /Type /Pages /Count {PAGES} /Kids [{' '.join(kids)}] >>".encode("ascii")

    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    table = [b"0000000000 65535 f \n"]
    for number in sorted(bodies):
        table.append(b"%010d 00000 n \n" % len(out))
        out += b"%d 0 obj\n" % number + bodies[number] + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n" % len(table) + b"".join(table)
    ident = b"<7061726170682d64656d6f2d62696721>"
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R /ID [%s %s] >>\n" % (len(table), ident, ident)
    out += b"startxref\n%d\n%%%%EOF\n" % start
    target = Path(path)
    target.write_bytes(out)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python big.py FILE")
    written = big_pdf(sys.argv[1])
    print(f"{written}: {written.stat().st_size:,} bytes")
