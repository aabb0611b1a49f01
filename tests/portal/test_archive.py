"""The document archive of a space, through its pages; PDFs are looked into by a real daemon."""

import asyncio
import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from portal_adapter.domain import archive
from portal_adapter.domain.actor import Actor
from portal_adapter.files import blobs
from portal_adapter.files.blobs import SWEPT_AFTER_S
from portal_adapter.files.examined import Examined
from portal_adapter.refusal import Refusal
from portal_adapter.rescan import CLAIM_S, rescan_one
from portal_adapter.settings import Limits
from portal_adapter.store.database import writing
from portal_adapter.store.schema import accounts, audit, documents, members, posted, spaces
from portal_adapter.upkeep import Upkeep
from tests import hostile
from tests.daemon import Rig, running
from tests.portal.pictures import jpeg, png
from tests.portal.place import Place, SetClock, Visitor
from tests.portal.test_procedures import creates
from tests.postgres import Postgres
from tests.signer.access.calls import card_rig

Response = Any


class Member:
    """A person in a business space, and its archive."""

    def __init__(self, place: Place, given: str = "Ada", family: str = "Lovelace") -> None:
        self.place, self.given = place, given
        self.browser: Visitor = place.visitor()
        self.product = self.browser.logs_in(given, family)
        self.space = self.browser.creates_business(f"{given} Works")
        self.page = f"/spaces/{self.space}/files"

    def joins(self, other: "Member", role: str) -> None:
        """Becomes a member of the other's space."""
        with self.place.services.engine.begin() as connection:
            account = connection.execute(select(accounts.c.id).where(accounts.c.given == self.given)).scalar_one()
            space = connection.execute(select(spaces.c.id).where(spaces.c.identifier == other.space)).scalar_one()
            connection.execute(members.insert().values(space=space, account=account, role=role, since=SetClock.at))
        self.space, self.page = other.space, other.page

    def adds(self, content: bytes, file_name: str = "drawing.png", /, *, json: bool = False, **fields: str) -> Response:
        file = {"file": (file_name, content, "image/png")}  # what a browser says of it is not believed
        headers = {"accept": "application/json"} if json else {}
        return self.browser.post(self.page, {"type": "other", **fields}, page=self.page, files=file, headers=headers)

    def lists(self) -> list[dict[str, Any]]:
        return list(self.browser.json(self.page).json()["documents"])

    def deletes(self, document: str) -> Response:
        page = f"{self.page}/{document}/delete"
        return self.browser.post(page, {"confirmed": "yes"}, page=page)


def kept(place: Place) -> list[Path]:
    """Every file of the archive's on the disk, on its way or kept."""
    return sorted(path for path in (place.directory / "state" / "blobs").rglob("*") if path.is_file())


def nothing_kept(place: Place) -> bool:
    with place.services.engine.connect() as connection:
        return not kept(place) and not connection.execute(select(func.count(documents.c.id))).scalar_one()


def problem(answer: Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["reason"]


# ---- in, out, away


def test_a_picture_is_added_seen_downloaded_and_deleted(place: Place) -> None:
    """ESP-36: name, type, date and size are listed; the same bytes come back; after the deletion no byte of them is left."""
    ada = Member(place)
    content = jpeg()
    done = ada.adds(content, "C:\\fakepath\\Grüße aus Köln.jpg", type="identity")
    assert (done.status_code, done.headers["location"]) == (303, ada.page)
    page = ada.browser.get(ada.page).text
    assert "The document is in the archive." in page
    assert "Identity document" in page
    assert "27 Nov 2026" in page
    assert "Ada Lovelace" in page
    (listed,) = ada.lists()
    assert (listed["name"], listed["type"], listed["size"]) == ("Grüße aus Köln", "identity", len(content))
    assert (listed["media_type"], listed["scan"]) == ("image/jpeg", "clean")
    seen = ada.browser.get(f"{ada.page}/{listed['id']}")
    assert seen.content == content
    assert seen.headers["content-type"] == "image/jpeg"
    assert seen.headers["content-disposition"] == (
        "inline; filename=\"Gr__e_aus_K_ln.jpg\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20aus%20K%C3%B6ln.jpg"
    )
    got = ada.browser.get(f"{ada.page}/{listed['id']}/download")
    assert got.content == content
    assert got.headers["content-disposition"].startswith("attachment; ")
    assert "no-store" in got.headers["cache-control"]
    with place.services.engine.connect() as connection:
        note = connection.execute(select(documents.c.scan_note)).scalar_one()
    assert note == "not scanned"
    assert len(kept(place)) == 1
    assert "Grüße aus Köln" in ada.browser.get(f"{ada.page}/{listed['id']}/delete").text
    done = ada.deletes(listed["id"])
    assert (done.status_code, done.headers["location"]) == (303, ada.page)
    assert nothing_kept(place)
    for path in (place.directory / "state").rglob("*"):
        assert not path.is_file() or content[:64] not in path.read_bytes()


def test_a_name_is_optional_and_one_given_is_kept(place: Place) -> None:
    """ESP-36: without one it is the file's; a given one is trimmed; both stand in the download's name."""
    ada = Member(place)
    ada.adds(png(), "scan.png", name="  Passport, page 2 ")
    ada.adds(png(), "....png")
    names = {one["name"]: one["id"] for one in ada.lists()}
    assert set(names) == {"Passport, page 2", "document"}
    got = ada.browser.get(f"{ada.page}/{names['Passport, page 2']}/download")
    assert "Passport%2C%20page%202.png" in got.headers["content-disposition"]


def test_what_is_wrong_in_the_form_is_said_at_once_and_what_was_typed_is_kept(place: Place) -> None:
    """ESP-36, 0.1: no type, a type that there is not, a name too long, no file: each beside its field."""
    ada = Member(place)
    answer = ada.browser.post(ada.page, {"name": "x" * 81}, page=ada.page, files={"file": ("", b"")})
    assert answer.status_code == 422
    for field in ("type", "name", "file"):
        assert f'id="error-{field}"' in answer.text
    assert "x" * 81 in answer.text
    assert answer.text.index("Choose a file.") < answer.text.index("<form method")
    assert "Choose one of those offered." in ada.adds(png(), type="poem").text
    assert "cannot be seen" in ada.adds(png(), name="a\u202eb").text
    assert "This file is empty." in ada.adds(b"").text
    assert problem(ada.browser.json(ada.page, {"type": "other"}))[:2] == (422, "validation")
    assert nothing_kept(place)


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"hello", "hello.pdf", (415, "bad-type", "")),
        (png() + b"PK\x05\x06" + bytes(18), "a.png", (422, "rejected-content", "two-kinds")),
        (png()[:-20], "a.png", (422, "rejected-content", "unreadable")),
        (png(1001, 1001), "a.png", (422, "rejected-content", "too-many-pixels")),
        (b"", "a.png", (422, "validation", "empty")),
    ],
    ids=["text", "polyglot", "cut-off", "pixels", "empty"],
)
def test_a_file_that_is_refused_leaves_nothing(
    tmp_path: Path, content: bytes, name: str, code: tuple[int, str, str]
) -> None:
    """ESP-36, 0.1: no row, no byte, one line of audit; the form says why beside the file."""
    place = Place(tmp_path, extra="[limits]\nimage_pixels = 1000000")
    ada = Member(place)
    assert problem(ada.adds(content, name, json=True)) == code
    page = ada.adds(content, name, name="My name")
    assert page.status_code == code[0]
    assert 'id="error-file"' in page.text
    assert 'value="My name"' in page.text
    assert nothing_kept(place)
    with place.services.engine.connect() as connection:
        lines = connection.execute(select(audit.c.outcome).where(audit.c.event == "add-document")).scalars().all()
    assert lines == [code[1]] * 2
    place.close()


def test_a_deletion_wants_its_confirmation(place: Place) -> None:
    """ESP-36, 0.1: a bare POST deletes nothing, and is answered by the page that asks for it."""
    ada = Member(place)
    ada.adds(png())
    (listed,) = ada.lists()
    page = f"{ada.page}/{listed['id']}/delete"
    assert problem(ada.browser.json(page, {})) == (422, "confirmation-required", "")
    asked = ada.browser.post(page, {}, page=page)
    assert (asked.status_code, f'action="{page}"' in asked.text, listed["name"] in asked.text) == (422, True, True)
    assert len(kept(place)) == len(ada.lists()) == 1


def test_a_document_is_deleted_once(place: Place) -> None:
    """ESP-36: the second is told that there is none; the same form again leads where it led."""
    ada = Member(place)
    ada.adds(png())
    (listed,) = ada.lists()
    page = f"{ada.page}/{listed['id']}/delete"
    first, second = (ada.browser.form(page) for _ in range(2))
    for form, expected in ((first, 303), (first, 303), (second, 404)):
        answer = ada.browser.http.post(page, data={**form, "confirmed": "yes"})
        assert answer.status_code == expected


def test_a_form_that_is_sent_twice_adds_one_document(place: Place) -> None:
    """ESP-36: its repetition leads where it led, and keeps nothing."""
    ada = Member(place)
    form = {**ada.browser.form(ada.page), "type": "other"}
    for _ in range(2):
        assert ada.browser.http.post(ada.page, data=form, files={"file": ("a.png", png())}).status_code == 303
    assert len(ada.lists()) == len(kept(place)) == 1


def test_what_is_taken_back_leaves_no_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """ESP-36: whatever goes wrong after the bytes have their name, they go with the row."""
    ada = Member(place)

    def fails(*_: object, **__: object) -> None:
        assert kept(place)
        raise RuntimeError

    monkeypatch.setattr(archive, "add", fails)
    with contextlib.suppress(RuntimeError):  # the test's client shows what went wrong
        assert ada.adds(png()).status_code == 500
    assert nothing_kept(place)


def test_the_archive_has_a_limit(tmp_path: Path) -> None:
    """ESP-36, 0.1: inclusive, for each space; deleting makes room."""
    place = Place(tmp_path, extra="[limits]\narchive_documents = 2")
    ada = Member(place)
    for _ in range(2):
        assert ada.adds(png()).status_code == 303
    assert problem(ada.adds(png(), json=True)) == (409, "guard-failed", "archive-full")
    assert len(kept(place)) == 2
    assert Member(place, "Bob", "Babbage").adds(png()).status_code == 303
    assert ada.deletes(ada.lists()[0]["id"]).status_code == 303
    assert ada.adds(png()).status_code == 303
    place.close()


@pytest.mark.parametrize("limit", [f"person_bytes = {3 * len(png())}", "person_files = 3"])
def test_one_person_keeps_so_many_bytes(tmp_path: Path, limit: str) -> None:
    """ESP-36, 0.1: inclusive, in all her spaces and in attachments together; deleting makes room, and others have their own."""
    place = Place(tmp_path, extra=f"[limits]\n{limit}\n[attachments]\nbefore_signature = true")
    ada = Member(place)
    assert ada.adds(png()).status_code == 303
    at = ada.browser.post(f"/spaces/{ada.space}/catalogue/transfer-of-lease", page=f"/spaces/{ada.space}/catalogue/transfer-of-lease")  # fmt: skip
    slot = at.headers["location"].rsplit("/steps/", 1)[0] + "/attachments/slots/lease"
    lease = {"file": ("lease.png", png())}
    assert ada.browser.post(slot, page=slot, files=lease).status_code == 303
    space, other = ada.browser.creates_business("Looms"), copy(ada)
    other.space, other.page = space, f"/spaces/{space}/files"
    assert other.adds(png()).status_code == 303
    for full in (ada, other):
        assert problem(full.adds(png(), json=True)) == (409, "guard-failed", "person-full")
    add = slot.replace("/slots/lease", "/add")
    more = ada.browser.post(add, {"type": "other", "name": "x"}, page=slot, files=lease, headers={"accept": "application/json"})  # fmt: skip
    assert problem(more) == (409, "guard-failed", "person-full")
    assert len(kept(place)) == 3
    assert Member(place, "Bob", "Babbage").adds(png()).status_code == 303
    assert ada.deletes(ada.lists()[0]["id"]).status_code == 303
    assert other.adds(png()).status_code == 303
    place.close()


def test_the_quarantine_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ESP-36, ATT-10: whoever sends malware again and again does not fill the disk; it is refused all the same."""
    monkeypatch.setattr(blobs, "QUARANTINED_MAX", 2)
    place = scanned(tmp_path, "echo Test.Virus; exit 1")
    ada = Member(place)
    for _ in range(3):
        assert problem(ada.adds(png(), json=True)) == (422, "rejected-content", "infected")
    assert len(list((place.directory / "state" / "quarantine").iterdir())) == 2 and nothing_kept(place)
    place.close()


def test_many_documents_have_pages(tmp_path: Path) -> None:
    """ESP-36: fifty on each, the newest first; a page that there is not is not found."""
    place = Place(tmp_path, extra="[limits]\nuploads_a_minute = 100")
    ada = Member(place)
    ada.adds(png(), name="first")
    with place.services.engine.begin() as connection:
        row = dict(connection.execute(select(documents)).mappings().one())
        more = [
            {**row, "id": f"{n:032x}", "file": f"{n:032x}", "name": f"n{n}", "added": row["added"] + n}
            for n in range(1, 61)
        ]
        connection.execute(documents.insert(), more)
    pages = [ada.browser.json(f"{ada.page}?page={number}").json() for number in (1, 2)]
    assert [len(one["documents"]) for one in pages] == [50, 11]
    assert (pages[0]["count"], pages[0]["documents"][0]["name"], pages[1]["documents"][-1]["name"]) == (
        61,
        "n60",
        "first",
    )
    first, second = (ada.browser.get(f"{ada.page}?page={number}").text for number in (1, 2))
    assert "Next page" in first and "Previous page" not in first
    assert "Previous page" in second and "Page 2 of 2" in second
    for wrong in ("1" * 5000, "0", "3", "x", "-1", "²"):
        assert ada.browser.get(f"{ada.page}?page={wrong}").status_code == 404
    place.close()


def test_the_page_has_a_place_for_procedures(place: Place) -> None:
    """ESP-31, ESP-20: My files lists procedures, drafts and sent ones, before the archive; there is none yet, and it says so."""
    ada = Member(place)
    page = ada.browser.get(ada.page).text
    places = [
        page.index(one) for one in (">Procedures<", "There is no procedure in this space yet.", "Document archive")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("language", "files", "procedures"), [("en", "My files", "Procedures"), ("fr", "Mes dossiers", "Démarches")]
)
def test_what_the_parts_of_a_space_are_called(place: Place, language: str, files: str, procedures: str) -> None:
    """ESP-20, ESP-31: the section has one name, and the list in it has one, on every page that has or leads to either."""
    ada = Member(place)
    ada.browser.http.headers["accept-language"] = language
    space = ada.page.removesuffix("/files")
    at = creates(ada.browser, space, "operating-permit")
    home, section, listed, one = (ada.browser.get(path).text for path in (space, ada.page, f"{space}/procedures", at))
    assert f"<h1>{files}</h1>" in section and f"<h1>{procedures}</h1>" in listed
    assert f"<h2>{procedures}</h2>" in home and f"<h2>{procedures}</h2>" in section
    assert f'<p class="crumb"><a href="{space}/procedures">{procedures}</a></p>' in one
    choose = f'<p><a class="action" href="{space}/catalogue">'
    for page in (home, section, listed):
        assert page.index(choose) < page.index(f'aria-label="{procedures}"')  # at the same place on each
        assert f'aria-label="{procedures}"' in page


def test_a_private_space_has_an_archive(place: Place) -> None:
    """ESP-36: every space has one."""
    ada = Member(place)
    made = ada.browser.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    private = Member.__new__(Member)
    private.place, private.browser, private.page = place, ada.browser, f"{made.headers['location']}/files"
    assert private.adds(png(), name="Private drawing").status_code == 303
    assert [one["name"] for one in private.lists()] == ["Private drawing"]
    assert ada.lists() == []


# ---- who may


def test_reading_is_every_members_adding_and_deleting_an_editors(place: Place) -> None:
    """ESP-36, 0.1: a viewer sees, downloads, and is offered and allowed nothing else; the missing right is named."""
    ada, eve = Member(place), Member(place, "Eve", "Editor")
    vic = Member(place, "Vic", "Viewer")
    ada.adds(png(), name="drawing")
    eve.joins(ada, "editor")
    vic.joins(ada, "viewer")
    (listed,) = vic.lists()
    assert vic.browser.get(f"{vic.page}/{listed['id']}/download").status_code == 200
    page = vic.browser.get(vic.page).text
    assert "Add a document" not in page
    assert "/delete" not in page
    token = vic.browser.json("/terms").json()["csrf"]
    headers = {"accept": "application/json", "x-csrf-token": token}
    for path in (vic.page, f"{vic.page}/{listed['id']}/delete"):
        answer = vic.browser.http.post(path, data={"confirmed": "yes", "type": "other"}, headers=headers)
        assert (answer.status_code, answer.json()["right"]) == (403, "fill")
    assert vic.browser.get(f"{vic.page}/{listed['id']}/delete").status_code == 403
    assert eve.adds(png()).status_code == 303
    assert eve.deletes(listed["id"]).status_code == 303


def test_two_spaces_never_see_each_others_documents(place: Place) -> None:
    """ESP-36, 0.1: by the other's space, and by the other's document in one's own space, on every route."""
    ada, bob = Member(place), Member(place, "Bob", "Babbage")
    ada.adds(png(), name="Adas secret drawing")
    bob.adds(png(), name="Bobs own")
    (hers,) = ada.lists()
    assert "secret" not in bob.browser.get(bob.page).text
    token = bob.browser.json("/terms").json()["csrf"]
    for base in (ada.page, bob.page):
        for path in (f"{base}/{hers['id']}", f"{base}/{hers['id']}/download", f"{base}/{hers['id']}/delete"):
            answer = bob.browser.get(path)
            assert answer.status_code == 404
            assert "secret" not in answer.text
        answer = bob.browser.http.post(f"{base}/{hers['id']}/delete", data={"csrf": token, "confirmed": "yes"})
        assert answer.status_code == 404
    answer = bob.browser.http.post(
        ada.page, data={"csrf": token, "type": "other"}, files={"file": ("a.png", png(), "image/png")}
    )
    assert answer.status_code == 404
    assert len(ada.lists()) == len(bob.lists()) == 1
    assert len(kept(place)) == 2


# ---- how much, how often


def test_a_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    """ESP-36, 0.1: inclusive; both numbers are said, on the form too."""
    content = png(30, 30)
    place = Place(tmp_path, extra=f"[limits]\ndocument_bytes = {len(content)}")
    ada = Member(place)
    assert ada.adds(content).status_code == 303
    answer = ada.adds(content + b"\0", json=True)
    assert problem(answer)[:2] == (413, "too-large")
    assert (answer.json()["limit"], answer.json()["measured"]) == (len(content), len(content) + 1)
    assert 'id="error-file"' in ada.adds(content + b"\0").text
    much = ada.adds(content + bytes(200_000))  # refused by its stated length already
    assert much.status_code == 413
    assert 'id="error-file"' in much.text
    assert len(kept(place)) == 1
    place.close()


def test_uploads_are_limited_for_each_account(tmp_path: Path) -> None:
    """ESP-36, 0.1: whatever comes of them; it is said when to come back, and another person does not notice."""
    place = Place(tmp_path, extra="[limits]\nuploads_a_minute = 3")
    ada, bob = Member(place), Member(place, "Bob", "Babbage")
    for content in (png(), b"no picture", png()):
        ada.adds(content)
    refused = ada.adds(png(), json=True)
    assert problem(refused)[:2] == (429, "rate-limited")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert bob.adds(png()).status_code == 303
    SetClock.later(61)
    assert ada.adds(png()).status_code == 303
    assert len(ada.lists()) == 3
    place.close()


def test_uploads_that_are_being_read_count_too(tmp_path: Path) -> None:
    """ESP-36, 0.1: many at once are no more than one after another; those that came to nothing make room again."""
    place = Place(tmp_path, extra="[limits]\nuploads_a_minute = 3")
    ada = Member(place)
    cookies = "; ".join(f"{name}={value}" for name, value in ada.browser.http.cookies.items())
    headers = [(b"cookie", cookies.encode()), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https",
        "path": ada.page, "raw_path": ada.page.encode(), "query_string": b"", "root_path": "", "state": {},
        "headers": [(b"host", b"portal.test"), *headers], "client": ("127.0.0.1", 1), "server": ("portal.test", 443),
    }  # fmt: skip

    async def several() -> list[int]:
        over, reading, answers = asyncio.Event(), asyncio.Semaphore(0), []

        async def receive() -> dict[str, object]:
            reading.release()
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        def one() -> asyncio.Task[None]:
            return asyncio.create_task(place.app({**scope, "state": {}}, receive, send))

        held = [one() for _ in range(3)]
        for _ in held:
            await reading.acquire()
        await one()
        found = list(answers)
        over.set()
        await asyncio.gather(*held)
        return found

    assert asyncio.run(several()) == [429]
    assert [ada.adds(png()).status_code for _ in range(4)] == [303, 303, 303, 429]
    place.close()


# ---- PDFs


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(card_rig("P-256")) as made:
        yield made


def profile(rig: Rig, directory: Path) -> None:
    """The portal's `client.toml`."""
    certificate, key = rig.files("portal")
    (directory / "client.toml").write_text(
        f'server = "127.0.0.1:{rig.port}"\nca = "{rig.pki.ca_file}"\ncertificate = "{certificate}"\nkey = "{key}"\n'
    )


def test_a_pdf_is_looked_into_by_the_daemon(place: Place, rig: Rig) -> None:
    """ESP-36, ATT-09, 0.1: a sound one is kept; an encrypted, a damaged and a dishonest one is not."""
    profile(rig, place.directory)
    ada = Member(place)
    sound = hostile.minimal_pdf(3)
    assert ada.adds(sound, "letter.pdf").status_code == 303
    (listed,) = ada.lists()
    seen = ada.browser.get(f"{ada.page}/{listed['id']}")
    assert (seen.content, seen.headers["content-type"]) == (sound, "application/pdf")
    for make, reason in (
        (hostile.encrypted, "encrypted"),
        (hostile.encrypted_empty_password, "encrypted"),
        (hostile.garbage_before_eof, "unreadable"),
        (hostile.flate_bomb_object_stream, "unreadable"),
    ):
        answer = ada.adds(make(), "letter.pdf", json=True)
        assert problem(answer) == (422, "rejected-content", reason), make
    assert "protected by a password" in ada.adds(hostile.encrypted(), "letter.pdf").text
    assert len(ada.lists()) == len(kept(place)) == 1


def test_an_attached_pdf_is_looked_into_as_well(tmp_path: Path, rig: Rig) -> None:
    """ATT-05, ATT-09: by the daemon, too: the sound one alone is attached."""
    place = Place(tmp_path, extra="[attachments]\nbefore_signature = true")
    profile(rig, place.directory)
    ada = Member(place)
    page = f"/spaces/{ada.space}/catalogue/transfer-of-lease"
    begun = ada.browser.post(page, page=page).headers["location"].rsplit("/steps/", 1)[0]
    page = f"{begun}/attachments/slots/lease"
    for make, status in ((hostile.encrypted, 422), (hostile.flate_bomb_object_stream, 422), (hostile.minimal_pdf, 303)):
        answer = ada.browser.post(page, page=page, files={"file": ("lease.png", make())})
        assert answer.status_code == status, make
        assert len(kept(place)) == (status == 303)
    (slot,) = ada.browser.json(f"{begun}/attachments").json()["slots"]
    seen = ada.browser.get(f"{begun}/attachments/{slot['piece']['id']}")
    assert (seen.content, seen.headers["content-type"]) == (hostile.minimal_pdf(), "application/pdf")
    place.close()


def test_without_the_daemon_a_pdf_is_not_kept(place: Place) -> None:
    """ESP-36, ATT-09, 0.1: nothing is kept, it is said when to come back; pictures go on, and so does the archive."""
    ada = Member(place)
    for text in ("", 'server = "unix:/nowhere"'):
        (place.directory / "client.toml").write_text(text)
        answer = ada.adds(hostile.minimal_pdf(), "a.pdf", json=True)
        assert problem(answer)[:2] == (503, "signer-unavailable")
        assert int(answer.headers["retry-after"]) > 0
    page = ada.adds(hostile.minimal_pdf(), "a.pdf")
    assert page.status_code == 503
    assert "Nothing was kept" in page.text
    assert nothing_kept(place)
    assert ada.adds(png()).status_code == 303


# ---- malware


def scanned(tmp_path: Path, script: str) -> Place:
    return Place(tmp_path, extra=f"[scan]\ncommand = {json.dumps(['sh', '-c', script])}")


def test_malware_is_refused_and_set_aside(tmp_path: Path) -> None:
    """ESP-36, ATT-10, 0.1: no row; the bytes wait in quarantine for the operator, for the portal's user alone."""
    place = scanned(tmp_path, "echo Test.Virus; exit 1")
    ada = Member(place)
    assert problem(ada.adds(png(), json=True)) == (422, "rejected-content", "infected")
    assert nothing_kept(place)
    (found,) = (place.directory / "state" / "quarantine").iterdir()
    assert found.read_bytes() == png()
    assert found.stat().st_mode & 0o777 == 0o600
    place.close()


def test_while_the_scanner_is_away_only_who_added_it_may_have_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ESP-36, ATT-10: tried again, later each time, and operators read why; others are told that it is being checked; clean afterwards, it is everybody's."""
    place = scanned(tmp_path, "test -e " + str(tmp_path / "up") + " && exit 0; echo away; exit 2")
    ada, eve = Member(place), Member(place, "Eve", "Editor")
    eve.joins(ada, "editor")
    assert ada.adds(png()).status_code == 303
    (listed,) = eve.lists()
    path = f"{ada.page}/{listed['id']}/download"
    assert (listed["scan"], listed["readable"]) == ("error", False)
    assert "Being checked for malware" in eve.browser.get(eve.page).text
    assert problem(eve.browser.json(path)) == (409, "guard-failed", "not-scanned-yet")
    assert ada.browser.get(path).status_code == 200

    def again() -> bool:
        services = place.services
        return rescan_one(services.engine, services.blobs, services.settings.scan, SetClock.at)

    assert not again()  # not before a minute is over
    waits = []
    for _ in range(4):
        with place.services.engine.connect() as connection:
            due = connection.execute(select(documents.c.scan_next)).scalar_one()
        waits.append(due - SetClock.at)
        SetClock.later(due - SetClock.at)
        assert again()
        assert not again()
    assert waits == sorted(waits)
    assert waits[0] < waits[-1]
    assert f"document {listed['id']}, try 5: the scanner could not say: away" in caplog.messages
    (tmp_path / "up").touch()
    SetClock.later(3600)
    assert again()
    eve.browser.logs_in("Eve", "Editor", eve.product)  # her session is over by now
    assert eve.lists()[0]["scan"] == "clean"
    assert eve.browser.get(path).status_code == 200
    SetClock.later(9999)
    assert not again()
    place.close()


def test_malware_that_is_found_later_is_nobodys(tmp_path: Path) -> None:
    """ESP-36, ATT-10, 0.1: not even who added it gets it; it is set aside, and its row can be deleted."""
    place = scanned(tmp_path, "test -e " + str(tmp_path / "up") + " && { echo Late.Virus; exit 1; }; exit 2")
    ada = Member(place)
    ada.adds(png())
    (listed,) = ada.lists()
    (tmp_path / "up").touch()
    SetClock.later(60)
    assert rescan_one(place.services.engine, place.services.blobs, place.services.settings.scan, SetClock.at)
    for way in ("", "/download"):
        assert problem(ada.browser.json(f"{ada.page}/{listed['id']}{way}")) == (422, "rejected-content", "infected")
    page = ada.browser.get(ada.page).text
    assert "Malware found" in page
    assert "/download" not in page
    assert not kept(place)
    assert len(list((place.directory / "state" / "quarantine").iterdir())) == 1
    with place.services.engine.connect() as connection:
        line = connection.execute(select(audit).where(audit.c.event == "document-scanned")).mappings().one()
    assert (line["outcome"], json.loads(line["detail"])["note"]) == ("infected", "Late.Virus")
    assert ada.deletes(listed["id"]).status_code == 303
    assert ada.lists() == []
    place.close()


def test_one_of_several_portals_scans(tmp_path: Path) -> None:
    """ESP-36, ATT-10: who has claimed a file scans it; a claim that nobody ended is another's after a while."""
    place = scanned(tmp_path, "exit 2")
    ada = Member(place)
    ada.adds(png())
    engine, blobs, settings = place.services.engine, place.services.blobs, place.services.settings.scan
    with engine.begin() as connection:  # another has claimed it, and ended
        connection.execute(update(documents).values(scan="pending", scan_next=SetClock.at + CLAIM_S))
    SetClock.later(CLAIM_S - 1)
    assert not rescan_one(engine, blobs, settings, SetClock.at)
    SetClock.later(1)
    assert rescan_one(engine, blobs, settings, SetClock.at)
    place.close()


# ---- afterwards


def test_what_a_crash_has_left_is_swept_at_the_start(place: Place) -> None:
    """ESP-36: bytes without a row go; those of a row stay."""
    ada = Member(place)
    ada.adds(png())
    (named,) = kept(place)
    orphan = named.with_name("f" * 32)
    orphan.write_bytes(b"left")
    for path in (named, orphan):
        os.utime(path, (SetClock.at - SWEPT_AFTER_S - 1,) * 2)
    Upkeep(place.services.engine, place.services.clock, place.services.blobs, Limits()).once()
    assert kept(place) == [named]


def test_a_file_that_goes_while_it_is_looked_for_ends_no_sweep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """ESP-36: a request's own files come and go meanwhile."""
    blobs = place.services.blobs
    monkeypatch.setattr(Path, "iterdir", lambda directory: iter([directory / "gone"]))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert blobs.sweep(set(), SetClock.at) == 0


def test_what_was_done_is_in_the_audit_without_the_names(place: Place) -> None:
    """ESP-36: a line for adding and one for deleting, with the document's hash; what it is called is nobody's business there."""
    ada = Member(place)
    ada.adds(png(), name="Very private")
    ada.deletes(ada.lists()[0]["id"])
    with place.services.engine.connect() as connection:
        lines = connection.execute(select(audit).where(audit.c.event.like("document-%"))).mappings().all()
        assert [one["event"] for one in lines] == ["document-added", "document-removed"]
        assert all(re.search(r'"sha256": "[0-9a-f]{64}"', one["detail"]) for one in lines)
        assert "private" not in str(connection.execute(select(audit)).all())
        assert "private" not in str(connection.execute(select(posted)).all())


# ---- at the same time


def test_of_many_at_once_no_more_are_kept_than_may_be(tmp_path: Path) -> None:
    """ESP-36, 0.1: the archive's limit and a deletion's one winner, on SQLite."""
    _races(Place(tmp_path, extra="[limits]\narchive_documents = 3"))


def test_of_many_at_once_no_more_are_kept_than_may_be_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    """ESP-36, 0.1: the same on PostgreSQL."""
    database = postgres.create("archive_races")
    _races(Place(tmp_path, extra="[limits]\narchive_documents = 3", database=database))


def _races(place: Place) -> None:
    ada = Member(place)
    engine = place.services.engine
    with engine.connect() as connection:
        space = dict(connection.execute(select(spaces)).mappings().one())
        account = connection.execute(select(accounts.c.id)).scalar_one()
    actor = Actor(account, "Lovelace", "Ada", "ada@example.org", "", "", SetClock.at)
    found, limits = Examined("image/png", "clean", "not scanned"), place.services.settings.limits

    def all_at_once(work: Callable[[Connection], object]) -> list[str]:
        gate, said = threading.Barrier(8), []

        def one() -> None:
            gate.wait()
            try:
                with writing(engine) as connection:
                    work(connection)
                said.append("done")
            except Refusal as refusal:
                said.append(refusal.code)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(said)

    def adds(connection: Connection) -> None:
        archive.add(connection, actor, space, {"type": "other"}, "a.png", "f" * 32, 1, "0" * 64, found, limits)

    assert all_at_once(adds) == ["done"] * 3 + ["guard-failed"] * 5
    document = ada.lists()[0]["id"]

    def removes(connection: Connection) -> None:
        archive.remove(connection, actor, space, document, {"confirmed": "yes"})

    assert all_at_once(removes) == ["done"] + ["not-found"] * 7
    assert len(ada.lists()) == 2
    place.close()
