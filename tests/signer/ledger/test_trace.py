"""The life of a request: its lines and its picture, over a real daemon's ledger."""

import json
import signal
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from signer.chain import Kind
from signer.picture import svg
from signer.trace import Event
from tests.daemon import Rig, running, until
from tests.hostile import minimal_pdf
from tests.portal.street import CHROMIUM, QUIET
from tests.postgres import Postgres
from tests.signer.access.calls import Caller, card_rig, digest, shim_of, statuses
from tests.signer.ledger.book import documents, kinds, request
from tests.signer.ledger.test_export import change
from tests.signer.ledger.test_restore import again, new_checkpoint

SVG = "{http://www.w3.org/2000/svg}"
BOXES = """() => {
    const page = document.documentElement.viewBox.baseVal, boxes = [...document.querySelectorAll("text")].map(one => one.getBBox());
    return [page.width, page.height, boxes.map(box => [box.x + box.width, box.y + box.height])];
}"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """It runs after each test but the last, which spoils its ledger."""
    with running(card_rig("P-256")) as made:
        yield made


def trace(rig: Rig, name: str) -> list[dict[str, Any]]:
    done = rig.command("audit", "trace", "--config", rig.config, name, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def moment(event: dict[str, Any]) -> datetime:
    """Of a commit: with milliseconds."""
    assert "." in event["time"]
    return datetime.fromisoformat(event["time"])


def test_a_life(rig: Rig) -> None:
    """Accepted, intended, signed, released, and covered by a checkpoint: in this order, no row of another request."""
    message, other = request(digests=[digest(3)]), request(digests=[digest(5)])
    began = time.time() - 0.001  # rows have whole milliseconds
    with Caller(rig) as portal:
        portal.sign(message)
        portal.sign(other)
    until(lambda: kinds(rig, message.request_id)[Kind.RELEASED], 5, "RELEASED")
    ended = time.time() + 0.001
    before = trace(rig, message.request_id)
    assert [each["kind"] for each in before] == ["ACCEPTED", "INTENT", "OUTCOME", "RELEASED"]
    assert "no checkpoint covers 3" in rig.command("audit", "trace", "--config", rig.config, message.request_id).stdout
    new_checkpoint(rig)
    file = rig.directory / "life.svg"
    done = rig.command("audit", "trace", "--config", rig.config, message.request_id.upper(), "-o", file)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()][1:3] == ["card", "INTENT"]
    assert done.stdout.splitlines()[-1].split()[3] == "CHECKPOINT"
    root = ET.fromstring(file.read_text())
    assert root.find(f"{SVG}title").text == f"Request {message.request_id}"  # type: ignore[union-attr]
    said = [element.text for element in root.iter(f"{SVG}text")]
    for words in ("1 item about to go to token card", "the answer was taken"):
        assert words in said
    intended, signed, released = (moment(each) for each in before[1:])
    took_ms = round((signed - intended).total_seconds() * 1000)
    assert f"1 signed, {took_ms} ms after its INTENT" in said
    assert f"{took_ms:+} ms" in said, "from one commit to the next"
    assert began <= intended.timestamp() < signed.timestamp() < released.timestamp() <= ended, (
        "each commit at its moment"
    )
    assert "Distances are no durations" in " ".join(text or "" for text in said)
    assert "prefers-color-scheme: dark" in file.read_text()
    assert rig.command("audit", "trace", "--config", rig.config, message.request_id, "-o", file).returncode == 2


@pytest.mark.parametrize("count", [1, 5, 15])
def test_nothing_is_cut_off_the_picture(count: int, tmp_path: Path) -> None:
    """However many events there are, a browser draws every text within the picture."""
    kinds = (Kind.INTENT, Kind.OUTCOME, Kind.RELEASED)
    events = [Event(kind, "2026-11-28T09:00:00.001Z", (1, number), "1 item") for number, kind in enumerate(kinds * 5)]
    (tmp_path / "life.svg").write_text(svg(str(uuid.uuid4()), events[:count]))
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET]) as browser,
    ):
        page = browser.new_page()
        page.goto((tmp_path / "life.svg").as_uri())
        *page_size, boxes = page.evaluate(BOXES)
    assert len(boxes) > 5
    assert [box for box in boxes if box[0] > page_size[0] or box[1] > page_size[1]] == []


def test_after_a_crash(rig: Rig) -> None:
    """What may have been signed is a lane of its own, beside the INTENT that it belongs to."""
    message = request(digests=[digest(1)])
    shim_of(rig).script("C_Sign * hang 60")
    with Caller(rig) as portal:
        call = portal.signing.SignDigests.future(message, timeout=30)
        until(lambda: shim_of(rig).unfinished(), 5, "C_Sign")
        shim_of(rig).clear()
        rig.stop(signal.SIGKILL)
        again(rig)
        assert call.exception() is not None
        assert statuses(portal.sign(message)) == ["SIGNED"]
    lives = trace(rig, message.request_id)
    assert [each["kind"] for each in lives if each["kind"] not in {"CHECKPOINT", "RELEASED"}] == [
        *("ACCEPTED", "INTENT", "POSSIBLE_UNRELEASED_SIGNATURE", "INTENT", "OUTCOME")
    ]
    assert "attempt 2" in next(each["what"] for each in lives[3:] if each["kind"] == "INTENT")


def test_one_document(rig: Rig) -> None:
    """A document is one of its request, and has a life of its own."""
    name = str(uuid.uuid4())
    with Caller(rig) as portal:
        documents(portal, name, {0: minimal_pdf(text="One."), 7: minimal_pdf(text="Two.")})
    assert sum(each["kind"] == "INTENT" for each in trace(rig, name)) == 2
    assert sum(each["kind"] == "INTENT" for each in trace(rig, f"{name}/7")) == 1


@pytest.mark.parametrize(("name", "code"), [("6f1b7a52-0d0c-4f6e-9a3b-2f6f0f5d8a11", 1), ("nothing", 2)])
def test_no_such_request(rig: Rig, name: str, code: int) -> None:
    done = rig.command("audit", "trace", "--config", rig.config, name)
    assert (done.returncode, done.stdout) == (code, "")
    assert name in done.stderr


def test_an_edited_row(rig: Rig) -> None:
    """What somebody has changed is shown, and that it was changed."""
    message = request(digests=[digest(3)])
    with Caller(rig) as portal:
        portal.sign(message)
    rig.stop()
    change(rig, "UPDATE ledger_rows SET body = replace(body, '\"items\":[[0,1]]', '\"items\":7') WHERE kind = 'INTENT'")
    edited = next(each for each in trace(rig, message.request_id) if each["kind"] == "INTENT")
    assert edited["what"] == "? items about to go to token card -- this row is NOT WHOLE"
    for time_ in ("2026.x", "2026-11-28T12:00:00"):  # no time, and one that does not say where
        change(rig, f"UPDATE ledger_rows SET body = json_set(body, '$.time', '{time_}') WHERE kind = 'INTENT'")
        lives = trace(rig, message.request_id)
        assert next(each for each in lives if each["kind"] == "INTENT")["time"].startswith(time_[:6])
        assert rig.command("audit", "trace", "--config", rig.config, message.request_id, "-o",
                           rig.directory / f"{time_[5]}.svg").returncode == 0  # fmt: skip
    wild = "'a' || char(27, 91, 50, 74, 10, 1, 65534, 8238)"
    fields = f"'$.token', {wild}, '$.time', '2026-11-28T12:00:00Z' || {wild}"
    change(rig, f"UPDATE ledger_rows SET body = json_set(body, {fields}) WHERE kind = 'INTENT'")
    file = rig.directory / "wild.svg"
    done = rig.command("audit", "trace", "--config", rig.config, message.request_id, "-o", file)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.split("\n")), "nothing of a row moves the cursor"
    said = [element.text for element in ET.fromstring(file.read_text()).iter(f"{SVG}text")]
    assert any(text and "token a\ufffd[2J\n\ufffd\ufffd" in text for text in said), "the picture can be opened"


def test_in_postgresql(postgres: Postgres) -> None:
    """The same over PostgreSQL."""
    made = card_rig("P-256")
    made.database = postgres.create("trace")
    message = request(digests=[digest(3)])
    with running(made), Caller(made) as portal:
        portal.sign(message)
        until(lambda: kinds(made, message.request_id)[Kind.RELEASED], 5, "RELEASED")
        assert [each["kind"] for each in trace(made, message.request_id)][:4] == [
            *("ACCEPTED", "INTENT", "OUTCOME", "RELEASED")
        ]
