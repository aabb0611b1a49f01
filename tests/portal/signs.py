"""
A person's way through a signing on the portal's pages, in whatever portal: `person` asks as a `Visitor` does, and what
happens in the window is the test's.
"""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.portal.place import Place, Visitor
from tests.portal.team import account_of
from tests.portal.test_procedures import confirms, creates, private, saves

LEASE = {
    "premises": "12 Mill Lane", "landlord": "Mill Ltd", "on": "2026-11-01", "deposit": "yes",
}  # fmt: skip


def ready_to_sign(place: Place, person: Visitor, name: str = "ada") -> str:
    """Her certificates at the stand-in daemon: one for logging in, one for signing."""
    product = place.numbers[f"{name}-login"]
    place.desk.offers(f"{name}-login", product, subject=name, signs=False)
    certificate = place.issuer.product(name.title(), "Signs", signs=True)
    place.issuer.last = product
    return place.desk.offers(name, certificate.der, subject=name)


def lease(person: Visitor, space: str = "") -> str:
    """A confirmed procedure that wants two signatures."""
    at = creates(person, space or private(person), "transfer-of-lease")
    assert saves(person, at, "lease", LEASE).status_code == 303
    done = confirms(person, at)
    assert done.status_code == 303, done.text
    return at


def begins(person: Visitor, at: str, **fields: str) -> str:
    """The path of the attempt's page."""
    done = person.post(f"{at}/signing", fields, page=at)
    assert done.status_code == 303, done.text
    where = str(done.headers["location"])
    assert re.fullmatch(rf"{re.escape(at)}/signing/[0-9a-f]{{32}}", where), where
    return where


def chooses(person: Visitor, step: str, credential: str = "ada") -> Any:
    return person.post(f"{step}/certificate", {"credential": credential}, page=step)


def window_of(answer: Any) -> dict[str, str]:
    """What the browser is sent to the window with."""
    assert answer.status_code == 303, answer.text
    where = urlsplit(answer.headers["location"])
    assert where.path == "/sign"
    return {name: values[0] for name, values in parse_qs(where.query).items()}


def comes_back(
    person: Visitor, batch: str, outcome: str = "signed", approved: str = "2026-11-27T09:00:00+00:00"
) -> Any:
    """By the window's address and the button there."""
    page = person.get(f"/signings/returned?batch={batch}&outcome={outcome}&approved={approved.replace('+', '%2B')}")
    assert page.status_code == 200, page.text
    action = re.search(r'<form method="post" action="([^"]+)" data-go>', page.text)
    assert action is not None, page.text
    fields = {"outcome": outcome, "approved": approved}
    return person.post(action[1], fields)


def to_save(place: Place, person: Visitor, at: str, credential: str = "ada") -> str:
    """Up to step 4; answers its path."""
    step = begins(person, at)
    window_of(chooses(person, step, credential))
    batch = place.desk.newest()
    place.desk.signs(batch)
    done = comes_back(person, batch)
    assert (done.status_code, done.headers["location"]) == (303, step), done.text
    return step


def signs(place: Place, person: Visitor, at: str, credential: str = "ada") -> Any:
    """All of it."""
    step = to_save(place, person, at, credential)
    return person.post(f"{step}/save", page=step)


def account(place: Place, given: str) -> str:
    return account_of(place.services.engine, given)
