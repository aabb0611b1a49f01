"""
Give freed memory back to the system.

A burst of large messages leaves the C library's heaps full of holes that it keeps: after 100 messages of 1 MiB at one
time the process was 70 MB larger, for good, and 6 MB larger once they were trimmed. A trim costs milliseconds and is
done only when there is something to win.
"""

import asyncio
import ctypes
import os
from pathlib import Path

LOOK_EVERY_S = 2.0
WORTH_BYTES = 8 * 1024 * 1024
OWN_MAP_BYTES = 64 * 1024  # from this size on a block is a mapping of its own, and goes back when it is freed
_M_MMAP_THRESHOLD = -3  # mallopt(3)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def keep_trimmed() -> None:
    """For ever: trim when the process has grown, and again while that wins. No malloc_trim, no trimming."""
    library = ctypes.CDLL(None)
    trim = getattr(library, "malloc_trim", None)
    if trim is None:
        return
    library.mallopt(_M_MMAP_THRESHOLD, OWN_MAP_BYTES)
    lowest, wins = resident_bytes(), False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        before = resident_bytes()
        if wins or before > lowest + WORTH_BYTES:
            await asyncio.to_thread(trim, 0)
            lowest = resident_bytes()
            wins = before - lowest > WORTH_BYTES // 8  # a burst may have been under way: there is more to come
        lowest = min(lowest, before)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
