"""
A process of its own that decodes one picture, and may use little: run by `picture.py`, never imported.

    python -I decoding.py PIXELS_MAX < picture      one line: ok, or what is wrong in one word

Limits are set before the library is loaded. It may be killed, run out of memory or be taken over by what it reads: it has
no environment, writes no file, and opens few.
"""

import resource
import sys
import warnings

MEMORY_BYTES = 512 * 1024 * 1024  # 40 million pixels take 160 MB
PROCESSOR_S = 10


def main() -> str:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, PROCESSOR_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    from PIL import Image  # late: under the limits

    pixels = int(sys.argv[1])
    Image.MAX_IMAGE_PIXELS = None  # ours is asked below, before anything is decoded
    warnings.simplefilter("ignore")
    try:
        with Image.open(sys.stdin.buffer, formats=["PNG", "JPEG"]) as picture:
            if picture.width * picture.height > pixels:
                return "too-many-pixels"
            picture.load()
    except Exception:  # noqa: BLE001 -- whatever it is, the picture is not one
        return "unreadable"
    return "ok"


if __name__ == "__main__":
    print(main())
