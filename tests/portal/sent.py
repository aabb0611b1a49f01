"""
Procedures that are signed, sent and processed, as browsers do it; the signature itself is put into the database, for whoever
signs is the business of other tests.
"""

import hashlib
import json
from typing import Any

from sqlalchemy import insert, select, update

from portal_adapter.domain.ids import new_id
from portal_adapter.store import schema
from tests.portal.commands import command
from tests.portal.place import Place, SetClock, Visitor
from tests.portal.team import account_of
from tests.portal.test_procedures import confirmed, row, version

TOWN_HALL, ENVIRONMENT = "millbrook-town-hall", "millbrook-environment"


def signs(place: Place, at: str) -> str:
    """The form that is confirmed gets a signature; answers the SHA-256 of what is signed."""
    found = row(place, at)
    signed = b"%PDF-1.7\n% signed " + new_id().encode()
    file, sha256 = place.services.blobs.write(signed), hashlib.sha256(signed).hexdigest()
    with place.services.engine.begin() as connection:
        connection.execute(
            insert(schema.signatures).values(
                id=new_id(), procedure=found["id"], number=1, account=found["author"], credential="ada",
                fingerprint="0" * 64, file=file, sha256=sha256, form_sha256=found["form_sha256"], approved=SetClock.at,
                time=SetClock.at,
            )
        )  # fmt: skip
        status = "ready" if found["status"] == "in_preparation" else found["status"]
        connection.execute(
            update(schema.procedures)
            .where(schema.procedures.c.id == found["id"])
            .values(status=status, signature="valid", version=found["version"] + 1)
        )
    return sha256


def attaches(place: Place, at: str, name: str, slot: str = "", **more: Any) -> str:
    """The id of the attachment."""
    found, id_, content = row(place, at), new_id(), f"bytes of {name}".encode()
    with place.services.engine.begin() as connection:
        connection.execute(
            insert(schema.attachments).values(
                **{
                    "id": id_, "procedure": found["id"], "slot": slot, "type": slot or "other", "name": name,
                    "media_type": "application/pdf", "size": len(content), "file": place.services.blobs.write(content),
                    "sha256": hashlib.sha256(content).hexdigest(), "scan": "clean", "scan_note": "", "scan_tries": 0,
                    "scan_next": 0, "added": SetClock.at, "added_by": found["author"], **more,
                },
            )
        )  # fmt: skip
    return id_


def ready(place: Place, person: Visitor) -> str:
    """A private procedure that is signed, and not sent."""
    at = confirmed(person)
    signs(place, at)
    return at


def sends(person: Visitor, at: str) -> Any:
    return person.post(f"{at}/sending", {"version": version(person, at)}, page=f"{at}/sending")


def sent(place: Place, person: Visitor) -> str:
    """One that is with its administration."""
    at = ready(place, person)
    done = sends(person, at)
    assert (done.status_code, done.headers["location"]) == (303, f"{at}/transmissions/1"), done.text
    return at


def agent(place: Place, given: str = "Grace", administration: str = TOWN_HALL) -> Visitor:
    """Somebody who works for an administration."""
    person = place.visitor()
    person.logs_in(given, "Hopper")
    done = command(place, "agent", "add", account_of(place.services.engine, given), administration)
    assert done.returncode == 0, done.stderr
    return person


def desk_of(at: str) -> str:
    """Where an agent has what a space has at `at`."""
    return f"/desk/{at.rsplit('/', 1)[1]}"


def seen(grace: Visitor, at: str, number: int = 1) -> dict[str, str]:
    """What an agent's forms say of the procedure that he looks at."""
    return {"transmission": str(number), "status": row(grace.place, at)["status"]}


def accepts(grace: Visitor, at: str, number: int = 1) -> Any:
    desk = desk_of(at)
    return grace.post(f"{desk}/accept", seen(grace, at, number), page=desk)


def returns(grace: Visitor, at: str, number: int = 1, **comments: str) -> Any:
    """`field_street="Which one?"`, `piece_1=...`, `general=...`."""
    page = f"{desk_of(at)}/correction"
    fields = {name.replace("_", ".", 1): comment for name, comment in comments.items()}
    return grace.post(page, {**seen(grace, at, number), **(fields or {"general": "Once more."})}, page=page)


def closes(grace: Visitor, at: str, number: int = 1, reason: str = "") -> Any:
    page = f"{desk_of(at)}/closing"
    return grace.post(page, {**seen(grace, at, number), "reason": reason}, page=page)


def writes(person: Visitor, at: str, subject: str = "A question", body: str = "How long?") -> Any:
    """On the page of a space or of the desk."""
    page = f"{at}/messages/new"
    return person.post(page, {"subject": subject, "body": body}, page=page)


def rows(place: Place, table: Any) -> list[dict[str, Any]]:
    with place.services.engine.connect() as connection:
        return [dict(one) for one in connection.execute(select(table)).mappings()]


def mails(place: Place, template: str) -> list[dict[str, Any]]:
    """What waits in the outbox: `recipient`, `language`, and the data."""
    found = [one for one in rows(place, schema.outbox) if one["template"] == template]
    return [
        {"recipient": one["recipient"], "language": one["language"], **json.loads(one["data"])}
        for one in sorted(found, key=lambda one: one["created"])
    ]
