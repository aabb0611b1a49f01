"""A document in pieces, one behind the other: what stands in a range left out of it, or written over."""

from collections.abc import Iterable, Iterator


def without(pieces: Iterable[bytes], start: int, end: int) -> Iterator[bytes]:
    """Everything but the bytes from `start` to `end`."""
    place = 0
    for piece in pieces:
        yield piece[: max(0, start - place)]
        yield piece[max(0, end - place) :]
        place += len(piece)


def over(pieces: Iterable[bytes], start: int, content: bytes) -> Iterator[bytes]:
    """Everything, with `content` in place of what stands at `start`; pieces are as long as they were."""
    place, end = 0, start + len(content)
    for piece in pieces:
        first, last = max(start, place), min(end, place + len(piece))
        if first < last:
            yield piece[: first - place] + content[first - start : last - start] + piece[last - place :]
        else:
            yield piece
        place += len(piece)
