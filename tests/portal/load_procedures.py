"""
A space with a thousand procedures, at twenty requests a second: python -m tests.portal.load_procedures SECONDS.

Half of them are drafts, half are signed and not sent. List, open, save and send take turns; of the last two the form's page
is fetched before, and only what is posted is measured.
"""

import http.client
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlencode

from sqlalchemy import insert, select

from portal_adapter.clock import Clock
from portal_adapter.domain.ids import new_id, new_reference
from portal_adapter.store import schema
from tests.portal.load import CLIENTS, PACE, Served, p95, started
from tests.portal.place import ORIGIN, Place, Visitor, hidden
from tests.portal.sent import ready
from tests.portal.test_procedures import PERSON, creates, private

PROCEDURES = 1_000
DONE = ("list", "open", "save", "send")


def measured(seconds: float) -> str:
    """The figures of 1 000 procedures, or AssertionError."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory), clock=Clock())
        person = place.visitor()
        person.logs_in("Ada", "Lovelace")
        space = private(person)
        drafts, signed = _many(place, person, creates(person, space)), _many(place, person, ready(place, person))
        with started(place, person, {}) as served:
            tasks = _tasks(space, drafts, signed)
            _times(served, tasks, 2)
            found = _times(served, tasks, seconds)
            rss_mb = served.process.memory_info().rss / 1e6
    said = f"{2 * len(drafts):,} procedures, {PACE} requests a second: " + ", ".join(
        f"{name} p95 {p95(found[name]):.0f} ms" for name in DONE
    )
    said += f"; {rss_mb:.0f} MB"
    assert all(p95(found[name]) <= 50 for name in DONE), said
    assert rss_mb <= 120, said
    return said


def _many(place: Place, person: Visitor, at: str) -> list[str]:
    """The procedure, and copies of it in its space; their addresses."""
    base, _, reference = at.rpartition("/")
    with place.services.engine.begin() as connection:
        row = (
            connection.execute(select(schema.procedures).where(schema.procedures.c.reference == reference))
            .mappings()
            .one()
        )
        by = select(schema.signatures).where(schema.signatures.c.procedure == row["id"])
        signatures = connection.execute(by).mappings().all()
        references = []
        for _ in range(PROCEDURES // 2 - 1):
            id_ = new_id()
            references.append(new_reference())
            connection.execute(insert(schema.procedures).values({**row, "id": id_, "reference": references[-1]}))
            for one in signatures:
                connection.execute(insert(schema.signatures).values({**one, "id": new_id(), "procedure": id_}))
    return [at, *(f"{base}/{one}" for one in references)]


def _tasks(space: str, drafts: list[str], signed: list[str]) -> SimpleQueue[tuple[str, str]]:
    """What is done, in turns: a signed one is sent once."""
    tasks: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for draft, one in zip(drafts, signed, strict=True):
        for name, path in (("list", f"{space}/procedures"), ("open", one), ("save", draft), ("send", one)):
            tasks.put((name, path))
    return tasks


def _times(served: Served, tasks: SimpleQueue[tuple[str, str]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each kind, from the moment that it was due."""
    found: dict[str, list[float]] = {name: [] for name in DONE}
    wrong: list[BaseException] = []
    due: SimpleQueue[float | None] = SimpleQueue()
    begin = time.monotonic() + 0.5
    for number in range(int(seconds * PACE)):
        due.put(begin + number / PACE)

    def work() -> None:
        try:
            with served.client() as client:
                client.connect()
                while (moment := due.get()) is not None:
                    name, path = tasks.get()
                    fields = _fields(served, client, name, path)
                    time.sleep(max(0.0, moment - time.monotonic()))
                    since = time.monotonic()
                    if fields is None:
                        served.get(client, path)
                    else:
                        _posts(served, client, *fields)
                    found[name].append((time.monotonic() - since) * 1e3)
        except BaseException as error:  # noqa: BLE001 -- told by whoever waits
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        due.put(None)
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, str(wrong[0])
    return found


def _fields(
    served: Served, client: http.client.HTTPSConnection, name: str, path: str
) -> tuple[str, dict[str, str]] | None:
    """What is posted where; None for what is only looked at."""
    if name == "save":
        page = f"{path}/steps/person"
        return page, {
            **_hidden(served, client, page),
            **PERSON,
            "given": f"Ada {new_id()[:6]}",
            "go": "later",
        }
    if name == "send":
        page = f"{path}/sending"
        return page, _hidden(served, client, page)
    return None


def _hidden(served: Served, client: http.client.HTTPSConnection, page: str) -> dict[str, str]:
    found = hidden(served.get(client, page).decode())
    return {name: found[name] for name in ("csrf", "form", "version")}


def _posts(served: Served, client: http.client.HTTPSConnection, path: str, fields: dict[str, str]) -> None:
    headers = {
        "host": ORIGIN[8:], "cookie": served.cookie, "origin": ORIGIN, "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    client.request("POST", path, urlencode(fields), headers)
    answer = client.getresponse()
    said = answer.read()
    assert answer.status == 303, (path, answer.status, said[:2000])


if __name__ == "__main__":
    print(measured(float(sys.argv[1]) if len(sys.argv) > 1 else 20))
