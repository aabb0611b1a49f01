"""The cards' origin of a place, as a browser comes to it after TLS."""

import re

from tests.portal.place import CARDS, Place, Product, Visitor, hidden


def at_cards(place: Place, product: Product | None) -> Visitor:
    """A browser at the cards' origin, after TLS."""

    async def with_certificate(scope, receive, send) -> None:
        scope["state"] = {"peer_certificate": None if product is None else product.der}
        await place.cards(scope, receive, send)

    return Visitor(place, with_certificate, CARDS)


def ticket(place: Place, product: Product, nonce: str) -> dict[str, str]:
    cards = at_cards(place, product)
    page = cards.get("/present", params={"nonce": nonce})
    done = cards.http.post("/present", data=hidden(page.text))
    assert done.status_code == 303, done.text
    found = re.search(r"/login/returned\?ticket=([\w-]+)$", done.headers["location"])
    assert found is not None
    return {"ticket": found[1]}


def nonce_of_card(visitor: Visitor) -> str:
    begun = visitor.post("/login/card", {"back": "/"}, page="/login")
    assert begun.headers["location"].startswith(f"{CARDS}/present?")
    return begun.headers["location"].rpartition("nonce=")[2]
