"""Which page of a long list is asked for."""

from portal_adapter.refusal import not_found
from portal_adapter.web.ask import Ask

DIGITS_MAX = 9


def page_of(ask: Ask, count: int, most: int) -> tuple[int, int]:
    """The page, counted from 1, and how many there are, of `count` things, `most` on each; raises `not-found`."""
    pages = max(1, -(-count // most))
    page = ask.query.get("page", "1")
    if not page.isascii() or not page.isdigit() or len(page) > DIGITS_MAX or not 1 <= int(page) <= pages:
        raise not_found()
    return int(page), pages
