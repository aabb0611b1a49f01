"""
Whose a request id is while something of it lives: a request in work, or a stream of documents that was opened with it.

One id is one caller's, for digests or for documents. Where the database had nothing of it when it came to life, what was
begun since is all that there can be, and its other documents are new without being looked up.
"""

from dataclasses import dataclass

BEGUN_MOST = 10_000  # of one id, ten streams' worth, 0.5 MB: past that they are looked up


@dataclass(slots=True)
class Life:
    caller: str
    is_digests: bool
    begun: set[int] | None  # the documents since the database had nothing of it; None: it had, or that is not known
    holders: int = 0

    def begin(self, item: int) -> None:
        if self.begun is not None:
            self.begun.add(item)
            if len(self.begun) > BEGUN_MOST:
                self.begun = None


class Owners:
    """For one event loop's thread."""

    def __init__(self) -> None:
        self._lives: dict[bytes, Life] = {}

    def of(self, id_: bytes) -> Life | None:
        return self._lives.get(id_)

    def enter(self, id_: bytes, caller: str, *, is_digests: bool, is_new: bool) -> Life:
        """One more holder, to leave once; `is_new` where the database has nothing of it."""
        life = self._lives.get(id_)
        if life is None:
            life = self._lives[id_] = Life(caller, is_digests, set() if is_new and not is_digests else None)
        life.holders += 1
        return life

    def leave(self, id_: bytes) -> None:
        life = self._lives[id_]
        life.holders -= 1
        if not life.holders:
            del self._lives[id_]
