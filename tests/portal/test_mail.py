"""The portal's mail: what it says, how it leaves, and that one cause is one mail."""

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from portal_adapter.domain.ids import new_id
from portal_adapter.language import LANGUAGES, Language
from portal_adapter.mail import outbox
from portal_adapter.mail.delivery import Delivery
from portal_adapter.mail.letter import encoded, header, letter
from portal_adapter.mail.message import EVENTS, ROLES, TEMPLATES, one_line
from portal_adapter.mail.sender import Files, Sender, SendError, Smtp, sender
from portal_adapter.rescan import Rescan
from portal_adapter.settings import Mail
from portal_adapter.store import schema
from portal_adapter.store.database import open_database, reading, writing
from portal_adapter.store.leased import LEASE_S, LONGEST_WAIT_S
from portal_adapter.upkeep import Upkeep
from tests.daemon import REPOSITORY, _free_port, until
from tests.pki import Pki
from tests.portal.commands import command
from tests.portal.place import Place, SetClock
from tests.portal.post import Memory, parsed, texts
from tests.signer.people.servers import mailbox, rough

NOW = 1_795_000_000
INVITATION = {
    "space": "Engines",
    "role": "editor",
    "link": "https://portal.test/invitations/abc",
    "inviter": "Ada Lovelace",
    "expires": NOW + 14 * 86400,
}
DATA: dict[str, dict[str, Any]] = {
    "invitation": INVITATION,
    "notice": {"event": "address-changed", "about": "new@example.org", "time": NOW},
    "certification-asked": {"space": "Engines", "identifier": "0123456789A", "person": "Ada Lovelace", "time": NOW},
    "signature-asked": {"space": "Engines", "reference": "P-12345-67890", "link": "https://portal.test/spaces/1"},
    "signature-given": {"space": "Engines", "reference": "P-12345-67890", "link": "https://portal.test/spaces/1"},
    "status": {
        "status": "to_be_corrected",
        "reference": "P-12345-67890",
        "link": "https://portal.test/spaces/1/procedures/P-12345-67890",
    },
    "received": {
        "reference": "P-12345-67890",
        "time": NOW,
        "service": "Town Hall",
        "reach": "1 Square, +352 26 43 1",
        "link": "https://portal.test/spaces/1/procedures/P-12345-67890",
    },
    "message": {"link": "https://portal.test/spaces/1/procedures/P-12345-67890/messages"},
    "general": {"space": "Engines", "text": "First line.\nSecond line.", "link": "https://portal.test/spaces/1"},
}


def made(template: str = "invitation", language: str = "en", **more: Any) -> bytes:
    return letter(
        "0" * 32, NOW, "portal@example.org", "charles@example.org", Language(language, "Europe/Luxembourg"), template,
        {**DATA[template], **more}, portal_name="Millbrook",
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The outbox on both databases."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create("portal_mail")
    engine = open_database(tmp_path / "state", url)
    yield engine
    engine.dispose()


def queue(engine: Any, *, now: int = NOW, recipient: str = "charles@example.org", template: str = "invitation") -> str:
    """One mail; its id."""
    with writing(engine) as connection:
        outbox.queue(connection, now, recipient, "en", template, DATA[template])
    with reading(engine) as connection:
        newest = select(schema.outbox.c.id).order_by(schema.outbox.c.created.desc(), schema.outbox.c.next.desc())
        return str(connection.execute(newest).scalars().first())


def rows(engine: Any) -> list[dict[str, Any]]:
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(select(schema.outbox)).mappings()]


def audited(engine: Any, event: str) -> list[tuple[str, dict[str, Any]]]:
    with reading(engine) as connection:
        found = connection.execute(select(schema.audit).where(schema.audit.c.event == event)).mappings()
        return [(row["outcome"], json.loads(row["detail"])) for row in found]


# ---- what it says


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_mail_is_text_and_html_without_attachment(template: str, language: str) -> None:
    """MAIL-08, MAIL-09, MAIL-12: both forms in the receiver's language, marked as automatic, with Date and Message-ID."""
    whole = made(template, language)
    found = parsed(whole)
    assert [part.get_content_type() for part in found.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"] == "<" + "0" * 32 + "@example.org>"
    assert found["Date"].datetime.timestamp() == NOW
    assert (found["To"], found["From"]) == ("charles@example.org", "Millbrook <portal@example.org>")
    assert found["Content-Language"] == language
    assert whole == made(template, language), "a mail that is sent again has the same bytes"
    assert b"\n" not in whole.replace(b"\r\n", b""), "every line ends as RFC 5322 has it"
    assert max(len(line) for line in whole.split(b"\r\n")) <= 998
    for text in texts(whole):
        assert "{" not in text


def test_an_invitation_says_what_it_is_about() -> None:
    """MAIL-09: the space's title, the role, the link, who invites and until when, in both forms."""
    plain, html = texts(made())
    for text in (plain, html):
        for wanted in ("Engines", "Editor", INVITATION["link"], "Ada Lovelace", "2 Dec 2026"):
            assert wanted in text, wanted
    assert f'<a href="{INVITATION["link"]}">' in html


@pytest.mark.parametrize(("language", "status"), [("en", "To be corrected"), ("fr", "À corriger")])
def test_a_status_is_told_with_a_link(language: str, status: str) -> None:
    """MAIL-01: the status as pages call it, the reference, a link; nothing of the person, nor of what the procedure is."""
    for text in texts(made("status", language)):
        for wanted in (status, "P-12345-67890", "https://portal.test/spaces/1/procedures/P-12345-67890"):
            assert wanted in text, wanted


def test_what_was_received_is_told() -> None:
    """MAIL-11, SUB-08: reference, time, the service in charge and how it is reached, a link."""
    for text in texts(made("received")):
        for wanted in (
            "P-12345-67890",
            "Town Hall",
            "1 Square, +352 26 43 1",
            "https://portal.test/spaces/1/procedures/",
        ):
            assert wanted in text, wanted


def test_a_message_is_told_by_its_link_alone() -> None:
    """MAIL-10: that there is one, and where it is read."""
    for text in texts(made("message")):
        assert "https://portal.test/spaces/1/procedures/P-12345-67890/messages" in text


@pytest.mark.parametrize("event", EVENTS)
def test_a_security_notice_says_what_changed(event: str) -> None:
    """MAIL-12: which change it was, of what, and when."""
    plain, html = texts(made("notice", event=event))
    for text in (plain, html):
        assert EVENTS[event] in text and "new@example.org" in text and "Nov 2026" in text


def test_a_general_notification_names_its_space() -> None:
    """MAIL-08: the space, the text with its lines, and where to read on."""
    plain, html = texts(made("general"))
    assert "Engines" in plain and "First line.\nSecond line." in plain.replace("\r\n", "\n")
    assert "First line.<br>Second line." in html


HOSTILE = [
    "x\r\nBcc: all@example.org",
    "x\nBcc: all@example.org",
    "x\r\n\r\n<script>alert(1)</script>",
    "=?utf-8?q?x=0ABcc:_all=40example.org?=",
    "=?utf-8?b?eA0KQmNjOiBhbGxAZXhhbXBsZS5vcmc=?=",
    "x\0Bcc: all@example.org",
    "x\u2028Bcc: all@example.org",
    "x\u2029Bcc: all@example.org",
    "x\x85Bcc: all@example.org",
    "x\x0bBcc: all@example.org",
    "\u202egro.elpmaxe",
    "x\ud800y",
]


def check_whole(whole: bytes) -> None:
    """No header that is not ours, three parts, and nobody else's address."""
    found = parsed(whole)
    ours = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Language", "MIME-Version"]
    assert found.keys() == [*ours, "Content-Type"]
    assert [part.get_content_type() for part in found.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert found["To"] == "charles@example.org"
    assert all(part.keys() == ["Content-Type", "Content-Transfer-Encoding"] for part in found.iter_parts())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_people_type_becomes_a_header_or_a_line(hostile: str) -> None:
    """
    Row 6.5, F55, MAIL-09, 0.1: mail: names and subjects with CR, LF, NUL, line ends in encoded words and Unicode's separators
    add no header, on the oldest Python too: values are filtered here, and stay text on one line of the body. (Addresses:
    below.)
    """
    whole = made(space=hostile, inviter=hostile)
    check_whole(whole)
    plain, html = texts(whole)
    line = next(line for line in plain.splitlines() if line.startswith("    "))
    assert line == f"    {one_line(hostile)}"
    assert "<script>" not in html
    check_whole(
        letter(
            "0" * 32, NOW, "portal@example.org", "charles@example.org", Language("fr", "UTC"), "invitation", INVITATION,
            portal_name=hostile,
        )
    )  # fmt: skip


@given(st.text(), st.text())
def test_whatever_the_text_a_mail_is_whole(space: str, inviter: str) -> None:
    """MAIL-09: any text at all in title and name leaves the headers and parts as they are."""
    check_whole(made(space=space, inviter=inviter))


@given(st.text(max_size=60))
def test_a_phrase_is_read_again_as_it_was(text: str) -> None:
    """MAIL-08: encoded words are of whole characters and at most 75 characters long, and say the same."""
    text = one_line(text) or "x"
    value = encoded(text)
    header("Subject", value)
    assert all(len(word) <= 75 for word in value.split("\r\n ") if word.startswith("=?"))
    assert parsed(header("Subject", value) + b"\r\n\r\n")["Subject"] == text


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0b", "é", "a\x7fb", "a" * 991])
def test_a_header_that_is_no_line_is_refused(value: str) -> None:
    """MAIL-08: the last look is at the line itself, whoever has made it."""
    with pytest.raises(ValueError, match="printable"):
        header("Subject", value)


@pytest.mark.parametrize(
    ("template", "data"),
    [
        ("letter", INVITATION),
        ("invitation", {**INVITATION, "more": "x"}),
        ("invitation", {name: value for name, value in INVITATION.items() if name != "link"}),
        ("invitation", {**INVITATION, "role": "king"}),
        ("invitation", {**INVITATION, "link": "javascript:alert(1)"}),
        ("invitation", {**INVITATION, "link": "https://portal.test/ x"}),
        ("invitation", {**INVITATION, "expires": "soon"}),
        ("invitation", {**INVITATION, "space": 1}),
        ("general", {**DATA["general"], "text": 1}),
        ("notice", {**DATA["notice"], "event": "x"}),
    ],
)
def test_what_no_template_has_is_not_queued(engine: Any, template: str, data: dict[str, Any]) -> None:
    """MAIL-08, MAIL-09, MAIL-12: an unknown mail, field or value is refused where it is made, not when it is sent."""
    with pytest.raises(ValueError, match=template), writing(engine) as connection:
        outbox.queue(connection, NOW, "charles@example.org", "en", template, data)
    assert rows(engine) == []


@pytest.mark.parametrize(
    "recipient", ["", "x", "a@b", "a@example.org\r\nBcc: b@example.org", "a@example.org, b@example.org"]
)
def test_a_mail_goes_to_one_address(engine: Any, recipient: str) -> None:
    """MAIL-08: what is no single address is refused."""
    with pytest.raises(ValueError, match="address"), writing(engine) as connection:
        outbox.queue(connection, NOW, recipient, "en", "invitation", INVITATION)
    with pytest.raises(ValueError, match="address"):
        letter(
            "0" * 32,
            NOW,
            "portal@example.org",
            recipient,
            Language("en", "UTC"),
            "invitation",
            INVITATION,
            portal_name="x",
        )


# ---- how it leaves


class Way:
    """A way mails leave, and what came out at its other end."""

    def __init__(self, way: Sender, came: Callable[[], list[bytes]]) -> None:
        self.way, self.came = way, came


@contextlib.asynccontextmanager
async def a_way(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    if name == "memory":
        memory = Memory()
        yield Way(memory, lambda: list(memory.letters.values()))
    elif name == "files":
        files = directory / "mails"
        yield Way(Files(files), lambda: [path.read_bytes() for path in sorted(files.glob("*.eml"))])
    else:
        pki = Pki(directory)
        monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
        (directory / "login").write_text("portal\ns3cret\n")
        (directory / "login").chmod(0o600)
        async with mailbox(starttls=serving(pki), login=(b"portal", b"s3cret")) as server:
            settings = Mail(
                sender="portal@example.org", server=f"127.0.0.1:{server.port}", login_file=directory / "login"
            )
            yield Way(Smtp(settings), lambda: [bytes(one.original_content or b"") for one in server.letters])


def serving(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.tls("mail", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]))
    return context


@pytest.mark.parametrize("name", ["memory", "files", "smtp"])
async def test_each_way_hands_over_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL-08: by a mail server (STARTTLS, login), as a file or in a test's memory, the mail arrives byte for byte."""
    async with a_way(name, tmp_path, monkeypatch) as way:
        letters = [made(), made("general", text="A line.\n.\n.. dots")]
        for one in letters:
            await asyncio.to_thread(way.way.send, new_id(), "charles@example.org", one)
        assert sorted(one.rstrip() for one in way.came()) == sorted(one.rstrip() for one in letters)


@pytest.mark.parametrize("name", ["memory", "files", "smtp"])
async def test_from_cause_to_delivery(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """MAIL-08, UI-08: what was queued is sent by the task, is marked as sent with an audit line, and keeps nothing of what it said."""
    queue(place.services.engine)
    async with a_way(name, tmp_path / "way", monkeypatch) as way:
        settings = place.services.settings
        delivery = Delivery(place.services.engine, place.services.clock, settings.mail, settings.portal, way=way.way)
        async with delivery, asyncio.timeout(20):
            while not way.came():  # noqa: ASYNC110 -- files have no event
                await asyncio.sleep(0.01)
    assert "Engines" in texts(way.came()[0])[0]
    (row,) = rows(place.services.engine)
    assert (row["state"], row["data"], row["tries"]) == ("sent", "{}", 1)
    assert [outcome for outcome, _ in audited(place.services.engine, "mail")] == ["done"]


def test_files_are_their_owners(tmp_path: Path) -> None:
    """MAIL-08: a mail as a file is whole under its name, and nobody else's to read."""
    Files(tmp_path / "mails").send("a", "x@example.org", b"letter")
    (path,) = (tmp_path / "mails").iterdir()
    assert (path.name, path.stat().st_mode & 0o777, path.read_bytes()) == ("a.eml", 0o600, b"letter")


async def test_without_starttls_nothing_is_said(tmp_path: Path) -> None:
    """MAIL-08: a server that offers no STARTTLS gets neither login nor mail, and it is tried again later."""
    (tmp_path / "login").write_text("portal\ns3cret\n")
    (tmp_path / "login").chmod(0o600)
    async with rough() as server:
        settings = Mail(sender="portal@example.org", server=f"127.0.0.1:{server.port}", login_file=tmp_path / "login")
        with pytest.raises(SendError, match="STARTTLS") as raised:
            await asyncio.to_thread(Smtp(settings).send, "a", "x@example.org", made())
        assert not raised.value.is_final
        assert [line.split()[0].lower() for line in server.commands if line] == [b"ehlo"]


async def test_a_strangers_certificate_gets_nothing(tmp_path: Path) -> None:
    """MAIL-08: TLS with a certificate that no known CA has issued ends before the mail."""
    async with mailbox(starttls=serving(Pki(tmp_path))) as server:
        settings = Mail(sender="portal@example.org", server=f"127.0.0.1:{server.port}")
        with pytest.raises(SendError, match="certificate"):
            await asyncio.to_thread(Smtp(settings).send, "a", "x@example.org", made())
        assert server.letters == []


@pytest.mark.parametrize(
    ("step", "answer", "is_final", "said"),
    [
        ("greeting", b"554 no\r\n", False, "mail server"),
        ("EHLO", b"502 no\r\n", False, "EHLO with 502"),
        ("MAIL", b"451 later x@example.org\r\n", False, "MAIL with 451"),
        ("MAIL", b"530 authentication required\r\n", False, "MAIL with 530"),
        ("MAIL", b"550 no such sender\r\n", False, "MAIL with 550"),
        ("RCPT", b"550 nobody x@example.org\r\n", True, "RCPT with 550"),
        ("RCPT", b"450 later\r\n", False, "RCPT with 450"),
        ("DATA", b"554 no\r\n", True, "DATA with 554"),
        ("content", b"452 full\r\n", False, "DATA with 452"),
        ("content", b"", False, "hung up"),
    ],
)
async def test_what_a_mail_server_refuses(step: str, answer: bytes, is_final: bool, said: str) -> None:
    """MAIL-08, COR-02: a lasting refusal of this receiver or mail is final, any other is tried again; no word of the server's is kept."""
    async with rough(**{step: answer}) as server:
        settings = Mail(sender="portal@example.org", server=f"127.0.0.1:{server.port}", starttls=False)
        with pytest.raises(SendError, match=said) as raised:
            await asyncio.to_thread(Smtp(settings).send, "a", "x@example.org", made())
        assert raised.value.is_final is is_final
        assert "x@example.org" not in str(raised.value)


async def test_a_mail_server_that_is_set_up_wrong_for_a_minute_loses_nothing(place: Place) -> None:
    """COR-02, MAIL-08: what is refused with the sender or the login waits, each mail of it, and goes once that is mended."""
    engine, clock, settings = place.services.engine, place.services.clock, place.services.settings
    for recipient in ("one@example.org", "two@example.org"):
        queue(engine, now=clock.now(), recipient=recipient)
    for answer, state in ({"MAIL": b"530 log in\r\n"}, "queued"), ({}, "sent"):
        async with rough(**answer) as server:
            mail = Mail(sender="portal@example.org", server=f"127.0.0.1:{server.port}", starttls=False)
            delivery = Delivery(engine, clock, mail, settings.portal)
            while await asyncio.to_thread(delivery.once):
                pass
        assert [(one["state"], one["error"]) for one in rows(engine)] == [
            (state, "the mail server answered MAIL with 530" if answer else "")
        ] * 2
        clock.later(60)  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", ["greeting", "MAIL"])
async def test_a_server_that_dribbles_is_cut_off(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL-08: the whole dialogue has an end, well within the lease, however slowly the server answers."""
    monkeypatch.setattr("portal_adapter.mail.sender.WHOLE_S", 0.5)

    async def dribble(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"2")
                await writer.drain()
                await asyncio.sleep(0.05)

    async with rough(**{step: dribble}) as server:
        settings = Mail(sender="portal@example.org", server=f"127.0.0.1:{server.port}", starttls=False)
        with pytest.raises(SendError):
            async with asyncio.timeout(20):
                await asyncio.to_thread(Smtp(settings).send, "a", "x@example.org", made())


async def test_what_cannot_log_in_says_why(tmp_path: Path) -> None:
    """MAIL-08: a server without AUTH, and a password that cannot be sent, are called that."""
    login = tmp_path / "login"
    login.touch(0o600)
    for content, said in (("portal\ns3cret\n", "no AUTH"), ("portal\nclé\n", "no AUTH")):
        login.write_text(content)
        async with rough() as server:
            settings = Mail(sender="a@example.org", server=f"127.0.0.1:{server.port}", starttls=False, login_file=login)
            with pytest.raises(SendError, match=said):
                await asyncio.to_thread(Smtp(settings).send, "a", "x@example.org", made())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL-08: on a disk that is full no part of a letter stays behind; it is tried again."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("portal_adapter.mail.sender.os.fsync", full)
    with pytest.raises(SendError, match="No space left") as raised:
        Files(tmp_path).send("a", "x@example.org", b"letter")
    assert not raised.value.is_final
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_is_later() -> None:
    """MAIL-08: a mail server that is away is tried again."""
    with pytest.raises(SendError, match="refused") as raised:
        Smtp(Mail(sender="a@example.org", server="127.0.0.1:1", starttls=False)).send("a", "x@example.org", made())
    assert not raised.value.is_final


def test_the_settings_choose_the_way(tmp_path: Path) -> None:
    """MAIL-08: a server or a directory, one of both; without TLS to this machine alone."""
    assert isinstance(sender(Mail(sender="a@example.org", directory=tmp_path)), Files)
    assert isinstance(sender(Mail(sender="a@example.org", server="mail.example.org:587")), Smtp)
    for wrong in (
        {},
        {"server": "mail.example.org:587", "directory": tmp_path},
        {"server": "mail.example.org:25", "starttls": False},
        {"server": "mail.example.org"},
        {"server": "a b:25"},
    ):
        with pytest.raises(ValueError, match="Mail"):
            Mail.model_validate({"sender": "a@example.org", **wrong})


# ---- one cause, one mail


def test_a_cause_that_is_taken_back_has_no_mail(engine: Any) -> None:
    """MAIL-08, 0.1: the row is of its cause's transaction."""
    with contextlib.suppress(RuntimeError), writing(engine) as connection:
        outbox.queue(connection, NOW, "a@example.org", "en", "invitation", INVITATION)
        raise RuntimeError
    assert rows(engine) == []


def test_eight_instances_send_each_mail_once(engine: Any) -> None:
    """MAIL-08: whoever claims a mail has it alone, on both databases."""
    for _ in range(12):
        queue(engine)
    start, taken = threading.Barrier(8), []

    def instance(_: int) -> None:
        start.wait()
        while (one := outbox.claim(engine, NOW)) is not None:
            taken.append(one.id)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(instance, range(8)))
    assert sorted(taken) == sorted(row["id"] for row in rows(engine))


def test_a_lease_that_is_over_goes_to_another_and_settles_nothing(engine: Any) -> None:
    """MAIL-08: an instance that died leaves its mail to the next; one that comes back late changes nothing of it."""
    queue(engine)
    late = outbox.claim(engine, NOW)
    assert late is not None and outbox.claim(engine, NOW + LEASE_S - 1) is None
    other = outbox.claim(engine, NOW + LEASE_S)
    assert other is not None and other.id == late.id and other.tries == 2
    with writing(engine) as connection:
        outbox.settle(connection, NOW, late)
    assert rows(engine)[0]["state"] == "queued"
    with writing(engine) as connection:
        outbox.settle(connection, NOW, other)
    assert rows(engine)[0]["state"] == "sent"


def test_waits_become_longer_and_end(place: Place) -> None:
    """MAIL-08: refused for now, it is tried after 1, 2, 4 minutes and so on; after the last try it is given up, and seen."""
    engine, clock, memory = place.services.engine, place.services.clock, Memory()
    settings = place.services.settings
    delivery = Delivery(engine, clock, settings.mail, settings.portal, way=memory)
    queue(engine, now=clock.now())
    memory.answers.extend(SendError("the mail server answered RCPT with 450") for _ in range(outbox.TRIES_MAX))
    waits = []
    for _ in range(outbox.TRIES_MAX):
        assert delivery.once()
        (row,) = rows(engine)
        waits.append(row["next"] - clock.now())
        assert not delivery.once(), "not before its time"
        if row["state"] == "queued":
            clock.later(waits[-1])  # type: ignore[attr-defined]
    assert waits[:4] == [60, 120, 240, 480] and max(waits) == LONGEST_WAIT_S
    assert 4 * 86400 <= sum(waits[:-1]) <= 5 * 86400
    assert (row["state"], row["error"]) == ("failed", "the mail server answered RCPT with 450")
    assert [outcome for outcome, _ in audited(engine, "mail")] == ["given-up"]


def test_a_final_refusal_is_given_up_at_once_and_the_next_mail_goes(place: Place) -> None:
    """MAIL-08: one mail's fault holds no other one up."""
    engine, clock, memory = place.services.engine, place.services.clock, Memory()
    settings = place.services.settings
    queue(engine, now=clock.now())
    queue(engine, now=clock.now(), recipient="second@example.org")
    memory.answers.append(SendError("the mail server answered RCPT with 550", is_final=True))
    delivery = Delivery(engine, clock, settings.mail, settings.portal, way=memory)
    while delivery.once():
        pass
    found = {row["state"]: row["recipient"] for row in rows(engine)}
    assert set(found) == {"failed", "sent"}
    assert "@" in found["failed"] and "***" not in found["failed"]  # an operator may have to see what is wrong with it
    assert "***@" in found["sent"]


def test_what_is_stopped_while_it_is_tried_is_not_tried_again(engine: Any) -> None:
    """MAIL-08: a lease on it settles nothing any more, whatever the mail server has said."""
    queue(engine)
    one = outbox.claim(engine, NOW)
    assert one is not None
    with writing(engine) as connection:
        outbox.stop(connection, NOW, "invitation", lambda data: data["link"] == "https://another")
        outbox.stop(connection, NOW, "invitation", lambda data: data["link"] == INVITATION["link"])
    with writing(engine) as connection:
        outbox.settle(connection, NOW, one, error="later")
    (row,) = rows(engine)
    assert (row["state"], row["data"]) == ("failed", "{}")
    assert outbox.claim(engine, NOW + 10 * 86400) is None
    assert [outcome for outcome, _ in audited(engine, "mail")] == ["stopped"]


def test_a_mail_of_another_version_is_given_up(place: Place) -> None:
    """MAIL-08: a row that no template can be made of is failed with its reason, not tried for ever."""
    engine, settings = place.services.engine, place.services.settings
    queue(engine, now=place.services.clock.now())
    with writing(engine) as connection:
        connection.execute(schema.outbox.update().values(template="of-later"))
    Delivery(engine, place.services.clock, settings.mail, settings.portal, way=Memory()).once()
    assert (rows(engine)[0]["state"], rows(engine)[0]["error"]) == ("failed", "this mail cannot be made")


# ---- what operators see


def test_operators_see_each_mails_state_and_try_again(place: Place) -> None:
    """MAIL-08, UI-08: `mail list` has state, tries and reason but not what a mail says; `mail retry` queues it anew, once, audited."""
    engine, settings, memory = place.services.engine, place.services.settings, Memory()
    id_ = queue(engine, now=place.services.clock.now())
    memory.answers.append(SendError("the mail server answered RCPT with 550", is_final=True))
    Delivery(engine, place.services.clock, settings.mail, settings.portal, way=memory).once()
    listed = command(place, "mail", "list", "--json")
    (one,) = json.loads(listed.stdout)
    assert (one["id"], one["state"], one["tries"]) == (id_, "failed", 1) and "RCPT with 550" in one["error"]
    assert INVITATION["link"] not in listed.stdout
    assert id_ in command(place, "mail", "list", "--state", "failed").stdout
    assert command(place, "mail", "list", "--state", "sent").stdout == ""
    assert command(place, "mail", "retry", id_).returncode == 0
    assert (rows(engine)[0]["state"], rows(engine)[0]["tries"]) == ("queued", 0)
    again = command(place, "mail", "retry", id_, "--json")
    assert (again.returncode, json.loads(again.stdout)) == (1, {id_: False})
    ((outcome, detail),) = audited(engine, "mail-retry")
    assert (outcome, detail["mail"]) == ("done", id_) and detail["operator"]


def test_what_a_given_up_mail_says_is_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL-08: a fortnight later nothing stays of it but when and why not, and to whom masked; it cannot be sent any more."""
    engine, settings, memory = place.services.engine, place.services.settings, Memory()
    monkeypatch.setattr(SetClock, "at", SetClock.at)  # put back afterwards: other tests expect the day
    clock: Any = place.services.clock
    id_ = queue(engine, now=clock.now())
    memory.answers.append(SendError("the mail server answered RCPT with 550", is_final=True))
    Delivery(engine, clock, settings.mail, settings.portal, way=memory).once()
    upkeep = Upkeep(engine, clock, place.services.blobs, settings.limits)
    upkeep.once()
    assert INVITATION["link"] in rows(engine)[0]["data"]
    clock.later(outbox.GIVEN_UP_KEPT_S + 1)
    upkeep.once()
    (row,) = rows(engine)
    assert (row["state"], row["data"], row["error"]) == ("failed", "{}", "the mail server answered RCPT with 550")
    assert row["recipient"] == "c***@example.org"
    assert command(place, "mail", "retry", id_).returncode == 1


def test_no_mistake_ends_the_sending(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL-08: whatever goes wrong with one look into the outbox, there is another; so with the rest that goes by the clock."""
    engine, services = place.services.engine, place.services
    seen: list[str] = []

    def broken(name: str) -> Any:
        return lambda *_: seen.append(name) or 1 / 0

    for task in (Delivery, Upkeep, Rescan):
        monkeypatch.setattr(task, "every_s", 0.01)
    monkeypatch.setattr(Delivery, "once", broken("mail"))
    monkeypatch.setattr(Upkeep, "once", broken("upkeep"))
    monkeypatch.setattr("portal_adapter.rescan.rescan_one", broken("rescan"))

    async def run() -> None:
        settings = services.settings
        async with (
            Delivery(engine, services.clock, settings.mail, settings.portal, way=Memory()),
            Upkeep(engine, services.clock, services.blobs, settings.limits),
            Rescan(engine, services.blobs, None, services.clock),
        ):
            async with asyncio.timeout(10):
                while any(seen.count(name) < 2 for name in ("mail", "upkeep", "rescan")):  # noqa: ASYNC110 -- threads count
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_every_role_that_can_be_given_has_a_name() -> None:
    """MAIL-09: the invitation names each role of the portal."""
    from portal_adapter.domain.actor import ROLES as GIVEN

    assert set(ROLES) == set(GIVEN)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_two_programs_send_each_mail_once_and_end_when_told(tmp_path: Path) -> None:
    """MAIL-08: `paraph-portal serve` sends what waits; two of them on one database send each mail once, and end in order."""
    place = Place(tmp_path / "place")
    pki = Pki(tmp_path)
    certificate, key = pki.tls("portal", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    text = place.config.read_text().replace('certificate = "tls.pem"', f'certificate = "{certificate}"')
    text = text.replace('key = "tls.key"', f'key = "{key}"')
    configs, ports = [place.directory / f"serve-{number}.toml" for number in (1, 2)], []
    for config in configs:
        ports.append(_free_port())
        served = text.replace('"127.0.0.1:1"', f'"127.0.0.1:{ports[-1]}"').replace(
            '"127.0.0.1:2"', f'"127.0.0.1:{_free_port()}"'
        )
        config.write_text(served)
    ids = {queue(place.services.engine, now=number) for number in range(12)}
    programs = [
        subprocess.Popen([sys.executable, "-m", "portal_adapter", "serve", "--config", str(config)], cwd=REPOSITORY)
        for config in configs
    ]
    try:
        settled = until(
            lambda: found if len(found := audited(place.services.engine, "mail")) == len(ids) else None, 60, "all sent"
        )
        for port in ports:  # who is told to end before it listens has nothing to end in order
            until(lambda port=port: _answers(port), 60, "it listens")
    finally:
        for program in programs:
            program.terminate()
        ends = [program.wait(30) for program in programs]
    assert ends == [0, 0]
    assert sorted(detail["mail"] for _, detail in settled) == sorted(ids)
    assert {path.stem for path in (place.directory / "mail").glob("*.eml")} == ids
    assert {(row["state"], row["tries"]) for row in rows(place.services.engine)} == {("sent", 1)}
    place.close()
