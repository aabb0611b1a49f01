"""Attachments of procedures, through their pages: slots, the computer, the archive, scans, limits, indicators."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from portal_adapter.domain import attachment, procedure
from portal_adapter.domain.ids import new_id
from portal_adapter.domain.indicators import unmet_to_send
from portal_adapter.rescan import CLAIM_S, rescan_one
from portal_adapter.store import schema
from tests.portal.pictures import jpeg, png
from tests.portal.place import Place, SetClock, Visitor
from tests.portal.team import joins
from tests.portal.test_archive import kept, problem, scanned
from tests.portal.test_procedures import PERMIT, creates, private, row, saves, sets
from tests.portal.town import picture

Response = Any
JSON = {"accept": "application/json"}
SIGNED = {"status": "ready", "entry": "confirmed", "signature": "valid"}
SITE = {
    "place": "1 Mill", "activity": "Milling flour and storing it in sacks.", "people": "4", "waste": "yes",
    "waste_kind": "Oil",
}  # fmt: skip


class Case:
    """A procedure of Ada's business: it asks for a plan and an extract, and for a contract where there is waste."""

    def __init__(self, place: Place, given: str = "Ada") -> None:
        self.place = place
        self.person: Visitor = place.visitor()
        self.person.logs_in(given, "Lovelace")
        self.space = f"/spaces/{self.person.creates_business(f'{given} Works')}"
        self.at = creates(self.person, self.space, PERMIT)
        self.tab = f"{self.at}/attachments"

    def signed(self, waste: str = "no") -> "Case":
        answers = {**SITE, "waste": waste} if waste == "yes" else {**SITE, "waste": waste, "waste_kind": ""}
        sets(self.place, self.at, answers=json.dumps(answers), **SIGNED)
        return self

    def attaches(
        self, slot: str = "", content: bytes = png(), /, *, to: str = "", by: Visitor | None = None, **fields: str
    ) -> Response:
        """From the computer; `to` is an address of its own."""
        page = to or (f"{self.tab}/slots/{slot}" if slot else f"{self.tab}/add")
        person = by or self.person
        SetClock.later(1)  # they are listed by their time
        token = person.json("/terms").json()["csrf"]
        data = {"csrf": token, "form": new_id(), **({} if slot else {"type": "other"}), **fields}
        file = {"file": ("C:\\fakepath\\plan of site.png", content, "image/png")}
        return person.http.post(page, data=data, files=file, headers=JSON)

    def keeps(self, name: str = "Extract", content: bytes = png(9, 9), by: Visitor | None = None) -> str:
        """The id of a new document of the archive."""
        page = f"{self.space}/files"
        file = {"file": ("a.png", content, "image/png")}
        person = by or self.person
        assert person.post(page, {"type": "register", "name": name}, page=page, files=file).status_code == 303
        return next(one["id"] for one in person.json(page).json()["documents"] if one["name"] == name)

    def shows(self, by: Visitor | None = None) -> dict[str, Any]:
        return dict((by or self.person).json(self.tab).json())

    def slots(self) -> dict[str, str]:
        """How each slot stands."""
        return {one["type"]: one["indicator"]["said"] for one in self.shows()["slots"]}

    def others(self) -> list[str]:
        return [one["name"] for one in self.shows()["others"]]

    def of(self, slot: str) -> str:
        """The id of a slot's piece, '' for none."""
        piece = next(one["piece"] for one in self.shows()["slots"] if one["type"] == slot)
        return str(piece["id"]) if piece else ""

    def rows(self) -> list[dict[str, Any]]:
        with self.place.services.engine.connect() as connection:
            found = connection.execute(select(schema.attachments).order_by(schema.attachments.c.added))
            return [dict(one) for one in found.mappings()]

    def removes(self, id_: str, by: Visitor | None = None) -> Response:
        return (by or self.person).json(f"{self.tab}/{id_}/remove", {"confirmed": "yes"})

    def sends_back(self, *targets: str) -> None:
        """As an administration does, with a word on each of these attachments, and one on the form."""
        found, correction = row(self.place, self.at), new_id()
        sets(self.place, self.at, status="to_be_corrected", transmissions=1)
        with self.place.services.engine.begin() as connection:
            connection.execute(
                insert(schema.corrections).values(
                    id=correction, procedure=found["id"], number=1, time=SetClock.at, account=found["author"]
                )
            )
            items = [("field", "place", "Which?"), *(("attachment", one, "Not legible.") for one in targets)]
            for position, (kind, target, comment) in enumerate(items):
                connection.execute(
                    insert(schema.correction_items).values(
                        correction=correction, position=position, kind=kind, target=target, comment=comment
                    )
                )

    def unmet(self) -> list[str]:
        """What stands between this and sending it."""
        found = procedure_of(self.place, self.at)
        definition = self.place.services.catalogue.version(found["definition"], found["definition_version"])
        with self.place.services.engine.connect() as connection:
            pieces, flagged = attachment.of_procedure(connection, found), attachment.flagged(connection, found)
        return [one.code for one in unmet_to_send(definition, found, pieces, flagged, "en", self.at)]


def procedure_of(place: Place, at: str) -> Mapping[str, Any]:
    found = row(place, at)
    with place.services.engine.connect() as connection:
        return procedure.of(connection, found["space"], found["reference"])


@pytest.fixture
def case(place: Place) -> Case:
    return Case(place)


# ---- when


def test_attachments_come_once_the_form_is_signed(case: Case) -> None:
    """ATT-01, SUB-05: not in preparation, not once it was sent; to be corrected always, signed or not. Nothing is kept of a refused one."""
    document = case.keeps()
    ways: Sequence[Callable[[], Response]] = (
        lambda: case.attaches("site_plan"),
        case.attaches,
        lambda: case.person.json(f"{case.tab}/add/archive", {"document": document}),
        lambda: case.person.json(f"{case.tab}/slots/site_plan/archive", {"document": document}),
        lambda: case.person.json(f"{case.tab}/add"),
        lambda: case.person.json(f"{case.tab}/slots/site_plan"),
    )
    for status in ("in_preparation", "sent", "accepted", "closed"):
        sets(case.place, case.at, **{**SIGNED, "status": status})
        for way in ways:
            answer = way()
            assert problem(answer) == (409, "forbidden-transition", "")
            assert (answer.json()["state"], answer.json()["event"]) == (status, "attach")
            assert "attach" not in answer.json()["allowed"]
        assert not case.shows()["may_attach"]
        page = case.person.get(case.tab).text
        assert "Add a supporting document" not in page
        assert ">Attach<" not in page
        assert ("once the form is signed" in page) is (status == "in_preparation")
        assert ("It can be attached once the form is signed." in page) is (status == "in_preparation")
    assert case.rows() == []
    assert len(kept(case.place)) == 1
    with case.place.services.engine.connect() as connection:  # their files were not read: the archive's alone was
        assert len(connection.execute(select(schema.marks.c.id).where(schema.marks.c.kind == "upload")).all()) == 1
    sets(case.place, case.at, status="to_be_corrected", signature="void", entry="open")
    assert case.attaches("site_plan").status_code == 200
    sets(case.place, case.at, **SIGNED)
    assert case.attaches("register_extract").status_code == 200


def test_they_come_before_where_the_setting_says_so(tmp_path: Path) -> None:
    """ATT-01: attachments.before_signature; what was sent is closed all the same."""
    place = Place(tmp_path, extra="[attachments]\nbefore_signature = true")
    case = Case(place)
    assert case.attaches("site_plan").status_code == 200
    assert row(place, case.at)["status"] == "in_preparation"
    assert case.shows()["may_attach"]
    sets(place, case.at, status="sent")
    assert problem(case.attaches("register_extract"))[:2] == (409, "forbidden-transition")
    place.close()


# ---- slots and others


def test_what_the_answers_require_has_a_slot_each(case: Case) -> None:
    """ATT-02, ATT-03, ATT-04, ATT-05, ATT-11, SUB-03: each slot is filled from the computer or the archive; its word, and the sum of all, turn with it."""
    case.signed("yes")
    assert case.slots() == dict.fromkeys(("site_plan", "register_extract", "waste_contract"), "Missing")
    assert case.unmet() == ["attachment-missing"] * 3
    for page in (case.person.get(case.at).text, case.person.get(case.tab).text):
        assert page.count(">Attach<span") == 3
        assert page.count("Add a supporting document") == 1
        assert "Plan of the site" in page
    form = case.person.get(f"{case.tab}/slots/site_plan").text
    assert "Attach: Plan of the site" in form
    assert 'name="type"' not in form
    done = case.attaches("site_plan", name=" The plan ")
    assert (done.status_code, done.json()["location"]) == (200, case.tab)
    document = case.keeps()
    assert case.person.json(f"{case.tab}/slots/register_extract/archive", {"document": document}).status_code == 200
    assert case.slots() == {"site_plan": "Attached", "register_extract": "Attached", "waste_contract": "Missing"}
    assert case.unmet() == ["attachment-missing"]
    (sum_,) = [one for one in case.shows()["indicators"] if one["name"] == "attachments"]
    assert (sum_["is_green"], sum_["said"], len(sum_["unmet"])) == (False, "Not complete", 1)
    assert sum_["unmet"][0]["href"] == f"{case.tab}#slot-waste_contract"
    assert 'id="slot-waste_contract"' in case.person.get(case.tab).text
    case.attaches("waste_contract", jpeg())
    assert case.unmet() == []
    shown = case.shows()
    assert [one["is_green"] for one in shown["indicators"]] == [True, True]
    assert [(one["piece"]["name"], one["piece"]["type"]) for one in shown["slots"]] == [
        ("The plan", "site_plan"), ("Extract", "register_extract"), ("plan of site", "waste_contract"),
    ]  # fmt: skip
    page = case.person.get(case.tab).text
    assert page.count('<span class="sign green"><span class="mark" aria-hidden="true">✓</span>') == 5
    assert page.index("Required documents") < page.index("Other supporting documents")
    french = case.person.get(case.tab, headers={"accept-language": "fr"}).text
    assert all(word in french for word in ("Plan du site", "Ajouter une pièce justificative", "Pièces exigées"))


def test_a_slot_that_there_is_not_is_not_found(case: Case) -> None:
    """ATT-03, 0.1: nor one that the answers do not require."""
    case.signed("no")
    for slot in ("waste_contract", "other", "poem"):
        assert case.person.get(f"{case.tab}/slots/{slot}").status_code == 404
        assert case.attaches(slot).status_code == 404
    assert kept(case.place) == []


def test_other_documents_have_a_type_and_may_have_a_name(case: Case) -> None:
    """ATT-02, ATT-05: a type of the procedure's list; without a name, the file's; each mistake beside its field, and what was typed is kept."""
    case.signed()
    page = f"{case.tab}/add"
    form = case.person.get(page).text
    assert all(one in form for one in ("Plan of the site", "Another document", "of at most 10 MB"))
    assert "0 of 20 attachments used, 20 left." in form
    answer = case.person.post(page, {"name": "x" * 81}, page=page, files={"file": ("", b"")})
    assert answer.status_code == 422
    assert all(f'id="error-{field}"' in answer.text for field in ("type", "name", "file"))
    assert "x" * 81 in answer.text
    for fields, field in (({"type": "poem"}, "type"), ({"name": "a\u202eb"}, "name")):
        answer = case.attaches("", **fields)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert problem(case.attaches("", b"")) == (422, "validation", "empty")
    assert problem(case.person.json(page, {"type": "other"}))[:2] == (422, "validation")
    assert (case.rows(), kept(case.place)) == ([], [])
    case.attaches("", jpeg(), name="Photograph")
    case.attaches("")
    assert case.others() == ["Photograph", "plan of site"]
    assert "2 of 20 attachments used, 18 left." in case.person.get(case.tab).text


def test_a_document_of_a_required_kind_fills_its_slot(case: Case) -> None:
    """ATT-03, ATT-05: whoever chooses its type from the list has attached it; a second one is beside it, until the first is taken out."""
    case.signed()
    case.attaches("", type="site_plan", name="first")
    case.attaches("", type="site_plan", name="second")
    assert case.slots()["site_plan"] == "Attached"
    assert case.others() == ["second"]
    first = case.of("site_plan")
    for scan, beside in (("error", "first"), ("clean", "second")):  # a clean one fills it before one that is not
        with case.place.services.engine.begin() as connection:
            connection.execute(update(schema.attachments).where(schema.attachments.c.id == first).values(scan=scan))
        assert (case.slots()["site_plan"], case.others()) == ("Attached", [beside])
    case.removes(case.of("site_plan"))
    assert (case.slots()["site_plan"], case.others()) == ("Attached", [])


def test_where_nothing_is_required_one_may_still_add(place: Place) -> None:
    """ATT-02, ATT-11: the only control; the attachments' indicator is green, and has a mark of its own while answers decide on it."""
    ada = place.visitor()
    ada.logs_in()
    at = creates(ada, private(ada))
    page = ada.get(f"{at}/attachments").text
    assert "Depends on your answers" in page and "None is required" not in page and "require none" not in page
    assert f'href="{at}/sending"' not in page
    assert re.search(r'"sign open"><span class="mark" aria-hidden="true">\?</span> Depends on your answers', page)
    (undecided,) = [one for one in ada.json(at).json()["indicators"] if one["name"] == "attachments"]
    assert (undecided["is_green"], undecided["is_undecided"], undecided["unmet"]) == (False, True, [])
    sets(place, at, **SIGNED, answers=json.dumps({"tenure": "owner"}))
    page = ada.get(f"{at}/attachments").text
    assert "Add a supporting document" in page
    assert ">Attach<" not in page
    assert re.search(r'"sign green"><span class="mark" aria-hidden="true">✓</span> None is required', page)
    assert f'<a class="action" href="{at}/sending">Send the procedure' in page  # all is green
    assert [one["is_green"] for one in ada.json(at).json()["indicators"]] == [True, True]


def test_from_the_archive_a_copy_is_attached(case: Case) -> None:
    """ATT-04, ATT-06, ATT-05, ESP-36: with the document's name and type, none is asked; deleting the document changes nothing; attached twice, it is two pieces, each with bytes of its own."""
    case.signed()
    content = jpeg()
    document = case.keeps("Old extract", content)
    assert "Old extract" in case.person.get(f"{case.tab}/add").text
    page = f"{case.tab}/add"
    assert case.person.post(f"{page}/archive", {"document": document}, page=page).status_code == 303
    assert "The document is attached." in case.person.get(case.tab).text
    case.person.json(f"{case.tab}/slots/register_extract/archive", {"document": document})
    assert len({one["file"] for one in case.rows()}) == 2
    case.removes(case.of("register_extract"))
    (piece,) = case.shows()["others"]
    assert (piece["name"], piece["type"], piece["type_name"]) == ("Old extract", "register", "Register extract")
    case.person.json(f"{case.space}/files/{document}/delete", {"confirmed": "yes"})
    assert case.person.get(f"{case.tab}/{piece['id']}/download").content == content
    assert len(kept(case.place)) == 1
    case.removes(piece["id"])
    assert kept(case.place) == []


def test_a_document_of_another_space_is_not_found(case: Case, place: Place) -> None:
    """ATT-06, 0.1: another person's, and that of another space of the same person."""
    case.signed()
    bob = Case(place, "Bob")
    own = f"{private(case.person)}/files"
    case.person.post(own, {"type": "other"}, page=own, files={"file": ("a.png", png())})
    mine = case.person.json(own).json()["documents"][0]["id"]
    for document in (bob.keeps(), mine, "0" * 32, "", "../x"):
        for way in ("add", "slots/site_plan"):
            answer = case.person.json(f"{case.tab}/{way}/archive", {"document": document})
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    bob.signed().attaches("site_plan")
    hers = bob.of("site_plan")
    for path in (f"{case.tab}/{hers}", f"{case.tab}/{hers}/download", f"{case.tab}/{hers}/remove", bob.tab):
        assert case.person.get(path).status_code == 404
    assert case.removes(hers).status_code == 404
    assert len(bob.rows()) == 1


def test_a_copy_is_kept_in_the_archive_where_one_wants(case: Case) -> None:
    """ESP-36: the box is off; ticked, the archive has a document of its own."""
    case.signed()
    assert 'name="archive" value="yes">' in case.person.get(f"{case.tab}/add").text
    case.attaches("site_plan", name="not kept")
    case.attaches("register_extract", name="kept", archive="yes")
    assert [one["name"] for one in case.person.json(f"{case.space}/files").json()["documents"]] == ["kept"]
    case.removes(case.of("register_extract"))
    assert len(kept(case.place)) == 2


# ---- looking, and taking out


def test_an_attachment_is_shown_and_downloaded(case: Case) -> None:
    """ESP-34, ATT-09: the same bytes, with the ending of what it is, whatever it was called."""
    case.signed()
    case.attaches("site_plan", jpeg(), name="Plan.exe")
    at = f"{case.tab}/{case.of('site_plan')}"
    shown, saved = case.person.get(at), case.person.get(f"{at}/download")
    assert shown.content == saved.content == jpeg()
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["content-disposition"].startswith('inline; filename="Plan.exe.jpg"')
    assert saved.headers["content-disposition"].startswith("attachment; ")
    assert "no-store" in saved.headers["cache-control"]


def test_attachments_do_not_touch_the_signature(case: Case) -> None:
    """ATT-07: neither adding nor taking out changes answers, form, signature or status."""
    case.signed()
    found = row(case.place, case.at)
    signature = {
        "id": new_id(), "procedure": found["id"], "number": 1, "account": found["author"], "credential": "c",
        "fingerprint": "f", "file": "a" * 32, "sha256": "b", "form_sha256": "c", "approved": 1, "time": 1,
    }  # fmt: skip
    with case.place.services.engine.begin() as connection:
        connection.execute(insert(schema.signatures).values(**signature))
    before = picture(case.place.services.engine)["signatures"]
    case.attaches("site_plan")
    case.attaches("site_plan", replaces=case.of("site_plan"))
    case.removes(case.of("site_plan"))
    assert picture(case.place.services.engine)["signatures"] == before
    now = row(case.place, case.at)
    assert {**now, "version": found["version"]} == found
    assert now["version"] == found["version"] + 3


def test_an_attachment_is_taken_out_until_it_is_sent(case: Case) -> None:
    """ATT-08, SUB-05, 0.1: with its confirmation; its slot is empty again, its bytes are gone; kept from an earlier signature it goes in preparation, too."""
    case.signed()
    case.attaches("site_plan")
    case.attaches("register_extract")
    plan, extract = case.of("site_plan"), case.of("register_extract")
    page = f"{case.tab}/{plan}/remove"
    assert problem(case.person.json(page, {})) == (422, "confirmation-required", "")
    assert "plan of site" in case.person.get(page).text
    asked = case.person.post(page, {}, page=page)
    assert (asked.status_code, f'action="{page}"' in asked.text, "plan of site" in asked.text) == (422, True, True)
    done = case.person.post(page, {"confirmed": "yes"}, page=page)
    assert (done.status_code, done.headers["location"]) == (303, case.tab)
    assert "The attachment is removed." in case.person.get(case.tab).text
    assert (case.slots()["site_plan"], case.unmet()) == ("Missing", ["attachment-missing"])
    assert row(case.place, case.at)["status"] == "ready"
    assert len(kept(case.place)) == 1
    assert case.removes(plan).status_code == 404
    for status in ("sent", "accepted", "closed"):
        sets(case.place, case.at, status=status)
        assert problem(case.removes(extract))[:2] == (409, "forbidden-transition")
        assert case.person.get(f"{case.tab}/{extract}/remove").status_code == 409
        assert "/remove" not in case.person.get(case.tab).text
        assert case.person.get(f"{case.tab}/{extract}").status_code == 200
    sets(case.place, case.at, status="in_preparation")
    assert case.removes(extract).status_code == 200
    with case.place.services.engine.connect() as connection:
        events = connection.execute(select(schema.audit).where(schema.audit.c.event == "procedure-detach")).mappings()
        assert [json.loads(one["detail"])["attachment"] for one in events] == [plan, extract]


def test_other_answers_make_a_piece_optional_and_bring_it_back(case: Case) -> None:
    """ATT-03, ATT-08: slots are computed from the answers; a piece of one that is gone stays, beside the others."""
    case.signed("yes")
    case.attaches("waste_contract", name="Contract")
    contract = case.of("waste_contract")
    done = saves(case.person, case.at, "site", {**SITE, "waste": "no"})
    assert done.status_code == 303
    assert row(case.place, case.at)["status"] == "in_preparation"
    assert set(case.slots()) == {"site_plan", "register_extract"}
    assert case.others() == ["Contract"]
    assert case.person.get(f"{case.tab}/{contract}").status_code == 200
    saves(case.person, case.at, "site", SITE)
    assert (case.of("waste_contract"), case.others()) == (contract, [])


def test_a_deleted_procedure_leaves_no_attachment(case: Case) -> None:
    """PROC-17, ATT-08: neither row nor byte, but for what the archive has."""
    case.signed()
    case.attaches("site_plan")
    case.person.json(f"{case.tab}/slots/register_extract/archive", {"document": case.keeps()})
    seen = case.person.form(f"{case.at}/delete")
    assert case.person.json(f"{case.at}/delete", {"confirmed": "yes", "version": seen["version"]}).status_code == 200
    assert case.rows() == []
    assert len(kept(case.place)) == 1


# ---- what is refused


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello", (415, "bad-type", "")),
        (png() + b"PK\x05\x06" + bytes(18), (422, "rejected-content", "two-kinds")),
        (png()[:-20], (422, "rejected-content", "unreadable")),
        (png(1001, 1001), (422, "rejected-content", "too-many-pixels")),
        (png() + bytes(300_000), (413, "too-large", "")),
    ],
    ids=["text", "polyglot", "cut-off", "pixels", "too-large"],
)
def test_a_file_that_is_refused_leaves_nothing(tmp_path: Path, content: bytes, code: tuple[int, str, str]) -> None:
    """ATT-05, ATT-09, 0.1: by its bytes, whatever it is called; no row, no byte, and the form says why beside the file."""
    place = Place(tmp_path, extra="[limits]\nimage_pixels = 1000000\ndocument_bytes = 100000")
    case = Case(place).signed()
    for slot in ("site_plan", ""):
        assert problem(case.attaches(slot, content)) == code
        page = f"{case.tab}/slots/{slot}" if slot else f"{case.tab}/add"
        answer = case.person.post(page, {"type": "other"}, page=page, files={"file": ("a.pdf", content)})
        assert answer.status_code == code[0]
        assert 'id="error-file"' in answer.text
    assert (case.rows(), kept(place)) == ([], [])
    assert row(place, case.at)["version"] == 1
    place.close()


def test_a_procedure_has_so_many_attachments(tmp_path: Path) -> None:
    """ATT-02, 0.1: inclusive, from both sources; in a full one a piece can still be replaced, and taking one out makes room."""
    place = Place(tmp_path, extra="[limits]\nattachments = 2")
    case = Case(place).signed()
    document = case.keeps()
    case.attaches("site_plan")
    case.attaches("")
    assert "2 of 2 attachments used, 0 left." in case.person.get(case.tab).text
    assert "as many attachments as it may have" in case.person.get(f"{case.tab}/add").text
    for answer in (case.attaches(""), case.person.json(f"{case.tab}/add/archive", {"document": document})):
        assert problem(answer) == (409, "guard-failed", "attachments-full")
        assert answer.json()["unmet"][0]["href"] == case.tab
    assert len(kept(place)) == 3
    assert case.attaches("site_plan", replaces=case.of("site_plan")).status_code == 200
    assert (len(case.rows()), len(kept(place))) == (2, 3)
    case.removes(case.of("site_plan"))
    assert case.attaches("").status_code == 200
    place.close()


def test_what_a_space_has_not_sent_has_a_limit(tmp_path: Path) -> None:
    """
    ATT-02, 0.1: the attachments of a space's unsent procedures have so many bytes together, inclusive, from both sources and
    over all of them; what takes another's place counts without that one, and taking one out makes room. The page says how much is left.
    """
    size = len(png())
    place = Place(tmp_path, extra=f"[limits]\nunsent_bytes = {3 * size - 1}")
    first = Case(place).signed()
    document = first.keeps(content=png())
    second = copy(first)
    second.at = creates(first.person, first.space, PERMIT)
    second.tab = f"{second.at}/attachments"
    second.signed()
    first.attaches("site_plan")
    second.attaches("site_plan")
    page = f"{second.tab}/add"
    told = first.person.json(page).json()
    assert (told["unsent"], told["unsent_most"], told["unsent_left"]) == (2 * size, 3 * size - 1, size - 1)
    assert "What this space has not sent yet uses 1 kB of 1 kB" in first.person.get(page).text
    for answer in (second.attaches(""), second.person.json(f"{second.tab}/add/archive", {"document": document})):
        assert problem(answer) == (409, "guard-failed", "space-full")
        assert answer.json()["unmet"][0]["href"] == second.tab
    assert (len(first.rows()), len(kept(place))) == (2, 3)
    assert second.attaches("site_plan", replaces=second.of("site_plan")).status_code == 200
    first.removes(first.of("site_plan"))
    assert second.attaches("").status_code == 200
    place.close()


def test_a_form_that_is_sent_twice_attaches_once(case: Case) -> None:
    """ATT-05, ATT-06, 0.1: its repetition leads where it led, and keeps nothing."""
    case.signed()
    page, document = f"{case.tab}/add", case.keeps()
    fields = {**case.person.form(page), "type": "other"}
    for _ in range(2):
        done = case.person.http.post(page, data=fields, files={"file": ("a.png", png())})
        assert (done.status_code, done.headers["location"]) == (303, case.tab)
    form = {**fields, "document": document}
    assert {case.person.http.post(f"{page}/archive", data=form).status_code for _ in range(2)} == {303}
    assert (len(case.rows()), len(kept(case.place))) == (2, 3)


def test_who_fills_a_slot_has_seen_what_is_in_it(case: Case) -> None:
    """ATT-03, 0.1: another one that came meanwhile is not put away unseen; the form is shown with it, and says so."""
    case.signed()
    page = f"{case.tab}/slots/site_plan"
    fields = {name: value for name, value in case.person.form(page).items() if name in {"csrf", "form", "replaces"}}
    case.attaches("site_plan", name="of a colleague")
    assert problem(case.attaches("site_plan"))[:2] == (409, "stale")
    answer = case.person.http.post(page, data={**fields, "replaces": ""}, files={"file": ("a.png", png())})
    assert answer.status_code == 409
    assert "It takes the place of: of a colleague" in answer.text
    assert f'name="replaces" value="{case.of("site_plan")}"' in answer.text
    assert len(kept(case.place)) == 1


def test_members_look_and_editors_attach(case: Case) -> None:
    """ATT-02, 0.1: a viewer sees and downloads; every change names the missing right; in a suspended space nothing changes."""
    case.signed()
    case.attaches("site_plan")
    plan, document = case.of("site_plan"), case.keeps()
    eve = joins(case.place, case.person, case.space.rsplit("/", 1)[1], "Eve", "Engineer", "viewer")
    assert eve.get(f"{case.tab}/{plan}").status_code == 200
    assert not case.shows(by=eve)["may_attach"]
    assert "/remove" not in eve.get(case.tab).text

    def tries(by: Visitor) -> list[tuple[int, str, str]]:
        return [
            problem(one)
            for one in (
                case.attaches("", by=by), case.attaches("register_extract", by=by), case.removes(plan, by=by),
                by.json(f"{case.tab}/add/archive", {"document": document}),
            )
        ]  # fmt: skip

    assert set(tries(eve)) == {(403, "forbidden", "missing-right")}
    with case.place.services.engine.begin() as connection:
        connection.execute(update(schema.spaces).values(state="suspended"))
    assert {(status, code) for status, code, _ in tries(case.person)} == {(409, "guard-failed")}
    assert case.person.get(f"{case.tab}/{plan}").status_code == 200
    assert not case.shows()["may_attach"]
    assert (len(case.rows()), len(kept(case.place))) == (1, 2)


# ---- malware


def scans_again(place: Place) -> bool:
    services = place.services
    return rescan_one(services.engine, services.blobs, services.settings.scan, SetClock.at)


def test_an_infected_upload_is_refused_and_set_aside(tmp_path: Path) -> None:
    """ATT-10: no row, the slot stays empty, the bytes are in quarantine."""
    place = scanned(tmp_path, "echo Test.Virus; exit 1")
    case = Case(place).signed()
    assert problem(case.attaches("site_plan")) == (422, "rejected-content", "infected")
    assert (case.rows(), kept(place), case.slots()["site_plan"]) == ([], [], "Missing")
    assert len(list((place.directory / "state" / "quarantine").iterdir())) == 1
    place.close()


def test_what_is_not_scanned_yet_is_neither_others_nor_sent(tmp_path: Path) -> None:
    """ATT-10, ATT-11, SUB-03: tried again later; until then only who added it has it, and its slot is not green; such a document of the archive is not attached."""
    place = scanned(tmp_path, f"test -e {tmp_path / 'up'} && exit 0; echo away; exit 2")
    case = Case(place).signed()
    eve = joins(place, case.person, case.space.rsplit("/", 1)[1], "Eve", "Engineer", "editor")
    for slot in ("site_plan", "register_extract", ""):
        assert case.attaches(slot).status_code == 200
    document = case.keeps()
    answer = case.person.json(f"{case.tab}/add/archive", {"document": document})
    assert problem(answer) == (409, "guard-failed", "not-scanned-yet")
    assert set(case.slots().values()) == {"Being checked for malware"}
    assert case.unmet() == ["attachment-not-scanned"] * 3
    path = f"{case.tab}/{case.of('site_plan')}"
    assert problem(eve.json(path)) == (409, "guard-failed", "not-scanned-yet")
    assert case.person.get(path).status_code == 200
    assert "Being checked for malware" in eve.get(case.tab).text
    assert not scans_again(place)
    with place.services.engine.begin() as connection:  # another portal has claimed one, and ended
        claimed = schema.attachments.c.slot == "site_plan"
        connection.execute(
            update(schema.attachments).where(claimed).values(scan="pending", scan_next=SetClock.at + CLAIM_S)
        )
    (tmp_path / "up").touch()
    SetClock.later(CLAIM_S)
    while scans_again(place):
        pass
    assert case.unmet() == []
    assert eve.get(path).status_code == 200
    assert {one["scan_note"] for one in case.rows()} == {"exit code 0"}
    space = row(place, case.at)["space"]
    with place.services.engine.connect() as connection:
        lines = connection.execute(select(schema.audit).where(schema.audit.c.event == "attachment-scanned")).mappings()
        assert {one["space"] for one in lines} == {space}
    place.close()


def test_malware_that_is_found_later_empties_the_slot(tmp_path: Path) -> None:
    """ATT-10, ATT-11, SUB-03: nobody gets it, it is set aside and counts no more; it stays listed until the slot is filled or somebody takes it out."""
    place = scanned(tmp_path, f"test -e {tmp_path / 'up'} && {{ echo Late.Virus; exit 1; }}; exit 2")
    case = Case(place).signed()
    case.attaches("site_plan")
    case.attaches("", name="beside")
    plan = case.of("site_plan")
    (tmp_path / "up").touch()
    SetClock.later(60)
    while scans_again(place):
        pass
    assert case.slots()["site_plan"] == "Missing"
    assert case.unmet() == ["attachment-missing"] * 2 + ["attachment-infected"] * 2
    for way in ("", "/download"):
        assert problem(case.person.json(f"{case.tab}/{plan}{way}")) == (422, "rejected-content", "infected")
    page = case.person.get(case.tab).text
    assert page.count("Malware found: not available") == 2
    assert "0 of 20 attachments used" in page
    assert (kept(place), len(list((place.directory / "state" / "quarantine").iterdir()))) == ([], 2)
    (tmp_path / "up").unlink()
    assert case.attaches("site_plan").status_code == 200  # the scanner is away again
    assert case.others() == ["beside"]
    assert case.removes(next(one["id"] for one in case.rows() if one["name"] == "beside")).status_code == 200
    assert case.unmet() == ["attachment-not-scanned", "attachment-missing"]
    place.close()


# ---- indicators


def test_what_was_sent_back_is_replaced_or_taken_out(case: Case) -> None:
    """COR-04, SUB-03: each flagged attachment, with the administration's word, stands between the procedure and its sending; a flagged field does not."""
    case.signed()
    for slot in ("site_plan", "register_extract"):
        case.attaches(slot)
    case.attaches("", name="beside")
    beside = case.shows()["others"][0]["id"]
    case.sends_back(case.of("site_plan"), beside)
    assert case.unmet() == ["attachment-flagged"] * 2
    assert case.slots()["site_plan"] == "Sent back: to be replaced or removed"
    page = case.person.get(case.tab).text
    assert page.count("Not legible.") == 2
    assert ">Replace<span" in page
    case.attaches("site_plan", replaces=case.of("site_plan"))
    assert case.unmet() == ["attachment-flagged"]
    case.removes(beside)
    assert case.unmet() == []
    case.attaches("site_plan", replaces=case.of("site_plan"))
    case.sends_back(case.of("site_plan"))
    with case.place.services.engine.begin() as connection:  # sent again
        connection.execute(update(schema.corrections).values(answered=SetClock.at))
    assert case.unmet() == []


ONCE = "Signed once"


@pytest.mark.parametrize(
    ("definition", "values", "codes", "said"),
    [
        ("operating-permit", {}, ["not-confirmed"], "Not confirmed yet"),
        ("operating-permit", {"entry": "confirmed"}, ["not-signed"], "Not signed yet"),
        ("operating-permit", {"entry": "confirmed", "signature": "void"}, ["not-signed"], "Not signed yet"),
        ("operating-permit", {"entry": "confirmed", "signature": "valid"}, [], "Ready"),
        ("transfer-of-lease", {"entry": "confirmed"}, ["not-signed", "second-signature-missing"], "Not signed yet"),
        ("transfer-of-lease", {"entry": "confirmed", "signature": "first"}, ["second-signature-missing"], ONCE),
        (
            "transfer-of-lease", {"entry": "confirmed", "signature": "first", "second_state": "transferred"},
            ["second-signature-missing"], ONCE,
        ),
        ("transfer-of-lease", {"entry": "confirmed", "signature": "valid"}, [], "Ready"),
    ],
)  # fmt: skip
def test_the_declaration_is_ready_once_it_is_signed(
    place: Place, definition: str, values: dict[str, str], codes: list[str], said: str
) -> None:
    """SUB-02, SUB-03, SIG-17: by its signature, whatever its status says; of two signatures the second has an indicator of its own."""
    ada = place.visitor()
    ada.logs_in()
    at = creates(ada, f"/spaces/{ada.creates_business()}", definition)
    for status in ("in_preparation", "to_be_corrected"):
        sets(place, at, status=status, **values)
        found = procedure_of(place, at)
        known = place.services.catalogue.versions[definition, 1].model_copy(update={"piece": ()})
        unmet = unmet_to_send(known, found, [], (), "en", at)
        assert [one.code for one in unmet] == codes
        assert all(one.href.startswith(at) for one in unmet)
        shown = {one["name"]: one for one in ada.json(at).json()["indicators"]}
        assert shown["declaration"]["said"] == said
        assert ("second-signature" in shown) is (known.signatures == 2)
        assert f'href="{shown["attachments"]["href"]}"' in ada.get(at).text
    sets(place, at, status="sent")
    assert ada.json(at).json()["indicators"] == []
