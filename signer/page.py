"""
A page of a list: so many entries, and no more than fit an answer. Where the next one begins, a token says.

A list is in the order of its names, and a token has the last name of its page. So what comes or goes between two pages
moves nothing: what is there all the time is given once. A part of a hash is in it, too, by which anything else than a
token of this caller's is refused; it keeps no secret, because who makes one himself gets a page of his own list.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from signer.errors import Refusal
from signer.limits import ANSWER_BYTES_MAX

ENTRIES_MAX = (
    1_000  # of one answer, where its caller says how many: 10 ms of the loop, and once after a start half a second
)
_ROOM_BYTES = 1024  # of an answer, for the token and framing
_ENTRY_BYTES = 6  # tag and length of an entry
_CHECK_BYTES = 8


def page(
    names: Sequence[str], caller: str, asked: int, token: str, show: Callable[[str], Any]
) -> tuple[list[Any], str]:
    """
    The entries (messages, made by `show`) of a list whose names are in order, and the token of the next page; empty: that
    was all. `asked` is how many are wanted at most, more than `ENTRIES_MAX` is that; 0: as many as fit. There is always
    one. Raises `Refusal` PAGE_TOKEN_UNKNOWN.
    """
    begin = bisect_right(names, _last(caller, token)) if token else 0
    wanted = names[begin : begin + min(asked, ENTRIES_MAX)] if asked else names[begin:]
    found: list[Any] = []
    room = ANSWER_BYTES_MAX - _ROOM_BYTES
    for name in wanted:
        entry = show(name)
        room -= entry.ByteSize() + _ENTRY_BYTES
        if room < 0 and found:
            break
        found.append(entry)
    end = begin + len(found)
    return found, _token(caller, names[end - 1]) if end < len(names) else ""


def _token(caller: str, last: str) -> str:
    check = hashlib.sha256(f"paraph-page-v1\0{caller}\0{last}".encode()).digest()
    return (check[:_CHECK_BYTES] + last.encode()).hex()


def _last(caller: str, token: str) -> str:
    try:
        last = bytes.fromhex(token)[_CHECK_BYTES:].decode()
    except ValueError:
        last = ""
    if token != _token(caller, last):
        raise Refusal("PAGE_TOKEN_UNKNOWN")
    return last
