"""
Which request ids may be in the database: a Bloom filter in memory, so that a new one is not looked up there.

Nearly every id is new, and to find nothing costs SQLite three reads and three locks: 35 us of the event loop, 6 % of a
single call. What the filter denies was never written; what it allows is looked up as before. It is right for a database
that one daemon alone writes. After a start it is filled in the background, and knows nothing until then; ids leave it by
filling another one, because those erased meanwhile are not in the database any more.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

BITS = 1 << 26  # 8 MB. With ...
IDS_MOST = 1 << 22  # ... so many ids in it one new id in 400 is looked up for nothing; past that it is filled anew
# So many rows are read in one turn of the event loop, of however many requests: a stream has a row for each document ...
PAGE_ROWS = 500
PAGE_PAUSE_S = 0.02  # ... and then who signs comes first: a million rows take a minute
REST_S = 600.0  # before it is filled again: of a database with more than it is made for it stays too full
_PROBES = 4

Place = tuple[bytes, int]  # of a row: the request's id, and the item
_FIRST: Place = (b"", 0)  # before every row


class Ids:
    """For one event loop's thread. `page_after` gives the places of the next rows in order, none at the end."""

    def __init__(self, page_after: Callable[[Place, int], Awaitable[list[Place]]]) -> None:
        self._page_after = page_after
        self._bits: bytearray | None = None  # what is asked; None until it is filled
        self._filling: bytearray | None = None
        self._undecided: Counter[bytes] = Counter()  # added, and perhaps not committed yet: no page has them
        self._added = 0
        self._full = asyncio.Event()

    def add(self, id_: bytes) -> None:
        """Before it can be in the database."""
        self._undecided[id_] += 1
        is_more = False
        for bits in (self._bits, self._filling):
            if bits is not None:
                is_more = _put(bits, id_)  # documents of one request are one id
        self._count(is_more)

    def decided(self, id_: bytes) -> None:
        """It is in the database now, or does not come there: once for each `add`."""
        self._undecided[id_] -= 1
        if not self._undecided[id_]:
            del self._undecided[id_]

    def may_have(self, id_: bytes) -> bool:
        """False: it is not in the database."""
        bits = self._bits
        if bits is None:
            return True
        spread = hash(id_)  # keyed anew in each process: nobody can choose ids that meet
        place, step = spread & (BITS - 1), spread >> 31 | 1
        for _ in range(_PROBES):
            if not bits[place >> 3] & 1 << (place & 7):
                return False
            place = (place + step) & (BITS - 1)
        return True

    async def keep(self) -> None:
        """Fill it, and again when it is too full; until cancelled. Raises what `page_after` raises."""
        while True:
            await self.fill()
            await asyncio.sleep(REST_S)
            await self._full.wait()

    async def fill(self) -> None:
        """From what is there now, what is on its way there, and what is added meanwhile."""
        bits = self._filling = bytearray(BITS >> 3)
        self._full.clear()
        self._added, last = len(self._undecided), _FIRST
        for id_ in self._undecided:
            _put(bits, id_)
        while page := await self._page_after(last, PAGE_ROWS):
            found = {id_ for id_, _ in page}
            for id_ in found:
                _put(bits, id_)
            self._count(len(found))
            last = page[-1]
            await asyncio.sleep(PAGE_PAUSE_S)
        self._bits, self._filling = bits, None

    def _count(self, more: int) -> None:
        self._added += more
        if self._added > IDS_MOST:
            self._full.set()


def _put(bits: bytearray, id_: bytes) -> bool:
    """Whether it was not in it before."""
    spread, is_new = hash(id_), False
    place, step = spread & (BITS - 1), spread >> 31 | 1
    for _ in range(_PROBES):
        bit = 1 << (place & 7)
        is_new = is_new or not bits[place >> 3] & bit
        bits[place >> 3] |= bit
        place = (place + step) & (BITS - 1)
    return is_new
