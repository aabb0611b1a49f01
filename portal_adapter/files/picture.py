"""Whether a picture can be decoded within limits: in a process of its own (ATT-09)."""

import subprocess
import sys
from pathlib import Path

from portal_adapter.files.sniff import rejected

WAIT_S = 15.0  # for the process, which has 10 s of a processor
_DECODING = Path(__file__).with_name("decoding.py")


def check(path: Path, pixels_max: int) -> None:
    """Raise `rejected-content` for a picture that is none, is damaged or cut off, or has too many pixels."""
    with path.open("rb") as file:
        try:
            done = subprocess.run(
                [sys.executable, "-I", _DECODING, str(pixels_max)],
                stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/", check=False,
                timeout=WAIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise rejected("too-complex", "This picture takes too long to look at. Save it anew.") from None
    said = done.stdout.decode("ascii", "replace").strip()
    if said == "too-many-pixels":
        raise rejected(said, "This picture has too many pixels. Make it smaller.")
    if said != "ok":  # killed by a limit, too
        raise rejected("unreadable", "This file cannot be read: it is damaged or not complete.")
