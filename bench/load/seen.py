"""Of what an order got: the first, the last and some at random, kept to be verified once the clock has stopped."""

import random
from collections.abc import Callable
from typing import Any

RANDOM = 20

# How it is verified, what was asked, and what came.
Kept = tuple[Callable[..., Any], Any, Any]


class Seen:
    """Keeps references alone while the clock runs: an answer costs it well under a microsecond."""

    def __init__(self, size: int = RANDOM) -> None:
        self._size = size
        self._first: Kept | None = None
        self._last: Kept | None = None
        self._some: list[Kept] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, judge: Callable[..., Any], asked: Any, got: Any) -> None:
        """Each of all is as likely to be kept."""
        one = self._last = judge, asked, got
        self._count += 1
        if self._first is None:
            self._first = one
        if len(self._some) < self._size:
            self._some.append(one)
        elif (place := random.randrange(self._count)) < self._size:  # noqa: S311 -- a sample
            self._some[place] = one

    def taken(self) -> list[Kept]:
        """What was kept, the first in front and the last behind; none of it is kept any more."""
        assert self._first is not None
        assert self._last is not None
        between = [one for one in self._some if one is not self._first and one is not self._last]
        ends = [self._first] if self._first is self._last else [self._first, self._last]
        self.__init__(self._size)  # type: ignore[misc]
        return [ends[0], *between, *ends[1:]]
