"""Mail: the bytes of one, and the dialogue with a server, by a real one and by one that goes wrong at every step."""

import asyncio
import email.policy
import re
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from signer import line as lines
from signer import mail
from signer.config import ConfigError
from signer.contact import Contact, Kind
from signer.mail import MailError, MailServer, Tls, header_line, letter
from signer.message import TEXTS, Language, Message, Template, compose
from tests.pki import Pki
from tests.signer.people.servers import STEPS, mailbox, rough

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SENDER = Contact(Kind.EMAIL, "paraph@sign.example.org")
ALICE = Contact(Kind.EMAIL, "alice.canary@example.com")
ID = "6c1f3d8e-54a1-4c1f-9c1e-0f2d7c5b9a10"
HEADERS = [
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
]


def message(document: str = "lease.pdf", language: Language = Language.EN) -> Message:
    return compose(
        Template.SIGN_CODE,
        language,
        tell="the help desk",
        code="canary-4711",
        document=document,
        count=2,
        digest_code="K7QX29AB",
        until=NOON,
    )


def server(port: int, tls: Tls = Tls.NONE, **more: Any) -> MailServer:
    return MailServer("127.0.0.1", port, tls, SENDER, **more)


async def send(to: MailServer, content: bytes | None = None) -> None:
    content = letter(ID, NOON, SENDER, ALICE, message()) if content is None else content
    await asyncio.to_thread(to.send, ALICE, content)


# ---- the bytes


def test_the_bytes_of_one() -> None:
    """Headers are nine, each one line; the body is quoted-printable UTF-8; the same message has the same bytes each time."""
    made = letter(ID, NOON, SENDER, ALICE, message("été.pdf", Language.FR))
    assert made == letter(ID, NOON, SENDER, ALICE, message("été.pdf", Language.FR))
    head, _, body = made.partition(b"\r\n\r\n")
    assert head.decode("ascii").split("\r\n") == [
        "From: paraph@sign.example.org",
        "To: alice.canary@example.com",
        "Subject: Votre code pour signer",
        "Date: Thu, 26 Nov 2026 12:00:00 +0000",
        f"Message-ID: <{ID}@sign.example.org>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
    ]
    assert body.isascii()
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert max(map(len, body.split(b"\r\n"))) <= 76
    parsed = message_from_bytes(made, policy=email.policy.default)
    assert parsed.get_content().replace("\r\n", "\n") == message("été.pdf", Language.FR).text  # type: ignore[attr-defined]


@pytest.mark.parametrize(("template", "language"), list(product(Template, Language)))
def test_every_subject(template: Template, language: Language) -> None:
    """A line of at most 78 characters, in ASCII, out of which a mail program makes the text of the table again."""
    subject, _ = TEXTS[template, language]
    made = letter(ID, NOON, SENDER, ALICE, Message(template, language, subject, "x\n"))
    (line,) = re.findall(rb"^Subject: .*\r\n", made, re.MULTILINE)
    assert len(line) <= 80
    assert message_from_bytes(made, policy=email.policy.default)["Subject"] == subject


ENDS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\u202e"]
WORDS = ["=?UTF-8?Q?=0A?=", "=?utf-8?q?=0D=0A?=", "=?UTF-8?B?Cg==?=", "=?ascii?Q?=00?=", "=?UTF-8?Q?=E2=80=A8?="]


@pytest.mark.parametrize("injection", [*ENDS, *WORDS], ids=ascii)
@pytest.mark.parametrize("place", ["{}Bcc: eve@example.net", "x{}Bcc: eve@example.net", "x{}"])
@pytest.mark.parametrize("name", ["From", "To", "Subject", "Message-ID"])
def test_what_no_header_has(injection: str, place: str, name: str) -> None:
    """
    Row 6.5: values with CR, LF, NUL, encoded-word newlines and Unicode separators are filtered by us, not by the
    standard library: 0 injected headers. Each header, whoever filled it.
    """
    with pytest.raises(ValueError, match=f"{name}: a header is printable text") as refused:
        header_line(name, place.format(injection))
    assert "eve" not in str(refused.value)


def test_a_header_s_length() -> None:
    assert len(header_line("Subject", "x" * 989)) == 998 + 2
    for text in ("x" * 990, "é" * 400):
        with pytest.raises(ValueError, match="at most 998"):
            header_line("Subject", text)


@pytest.mark.parametrize("injection", [*ENDS, *WORDS], ids=ascii)
async def test_nothing_is_injected_on_the_wire(injection: str) -> None:
    """
    Row 6.5: values with CR, LF, NUL, encoded-word newlines and Unicode separators are filtered by us, not by the
    standard library: 0 injected headers. Here what a document is called, in the bytes that a server is sent.
    """
    for name in (
        f"x{injection}Bcc: eve@example.net",
        f"x{injection}.{injection}MAIL FROM:<eve@example.net>",
        injection,
    ):
        async with rough() as there:
            await send(server(there.port), letter(ID, NOON, SENDER, ALICE, message(name)))
        (content,) = there.contents
        head, _, body = content.partition(b"\r\n\r\n")
        assert [line.partition(b": ")[0].decode() for line in head.split(b"\r\n")] == HEADERS
        assert not {0, 0x0B, 0x0C, 0x1C, 0x85} & set(content)
        assert b"\r" not in content.replace(b"\r\n", b"")
        assert b"\n" not in content.replace(b"\r\n", b"")
        usual = letter(ID, NOON, SENDER, ALICE, message()).partition(b"\r\n\r\n")[2]
        assert body.count(b"\r\n") <= usual.count(b"\r\n") + 3, "a long line is folded, and none begun"
        assert there.commands == [
            b"ehlo sign.example.org",
            b"MAIL FROM:<paraph@sign.example.org>",
            b"RCPT TO:<alice.canary@example.com>",
            b"data",
            b"quit",
        ]


async def test_dots(tmp_path: Path) -> None:
    """A line that begins with a dot arrives with that dot, and ends nothing (RFC 5321, 4.5.2)."""
    text = ".\n..\n.x\n\n.\r.\n"
    async with mailbox() as box:
        await send(server(box.port), letter(ID, NOON, SENDER, ALICE, Message(Template.LOCKED, Language.EN, "x", text)))
    (taken,) = box.letters
    parsed = message_from_bytes(bytes(taken.content or b""), policy=email.policy.default)
    assert parsed.get_content().replace("\r\n", "\n") == text  # type: ignore[attr-defined]


# ---- a real server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def trusted(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A mail server's TLS, by a CA that counts as the system's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
    return serving(pki)


def serving(pki: Pki, name: str = "127.0.0.1") -> ssl.SSLContext:
    import ipaddress

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.tls("mail", [x509.IPAddress(ipaddress.ip_address(name))]))
    return context


async def test_a_mail_server() -> None:
    """Envelope and content arrive as they were made."""
    content = letter(ID, NOON, SENDER, ALICE, message())
    async with mailbox() as box:
        await send(server(box.port), content)
    (taken,) = box.letters
    assert (taken.mail_from, taken.rcpt_tos) == (SENDER.address, [ALICE.address])
    assert taken.original_content == content


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_tls(trusted: ssl.SSLContext, tls: Tls) -> None:
    """Both ways; the message goes over TLS only."""
    async with mailbox(**{tls.value: trusted}) as box:
        await send(server(box.port, tls))
    assert box.over_tls == [True]


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_a_certificate_of_nobody(pki: Pki, tls: Tls) -> None:
    """By the system's CAs this one is nobody's: nothing is sent, and it is not given up."""
    async with mailbox(**{tls.value: serving(pki)}) as box:
        with pytest.raises(MailError, match="the mail server's certificate is not good: unable to get") as error:
            await send(server(box.port, tls))
    assert (box.seen, error.value.is_final) == ([], False)


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_a_certificate_of_another(pki: Pki, trusted: ssl.SSLContext, tls: Tls) -> None:
    """A good certificate for another host is none for this one."""
    async with mailbox(**{tls.value: serving(pki, "127.0.0.2")}) as box:
        with pytest.raises(MailError, match="the mail server's certificate is not good: IP address mismatch"):
            await send(server(box.port, tls))
    assert box.seen == []


async def test_no_starttls_no_mail() -> None:
    """A server that does not offer TLS, or has its offer cut out on the way, gets no login, no address and no message."""
    for answer in (b"502 5.5.1 no such command\r\n", b"454 4.7.0 not now\r\n", b"250 why not\r\n"):
        async with rough(STARTTLS=answer) as there:
            with pytest.raises(MailError, match="answered STARTTLS with") as error:
                await send(server(there.port, Tls.STARTTLS, login=lambda: b"paraph\ncanary-password\n"))
        assert bytes(there.wire[0]) == b"ehlo sign.example.org\r\nSTARTTLS\r\n"
        assert not error.value.is_final


async def test_what_was_said_before_tls_counts_for_nothing(trusted: ssl.SSLContext) -> None:
    """Answers that somebody put behind the one to STARTTLS, in the clear, are not taken for the server's."""
    heard: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        await reader.readline()
        writer.write(b"250-mail.test\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go on\r\n250 forged\r\n250 forged\r\n250 forged\r\n354 forged\r\n250 forged\r\n")
        await writer.start_tls(trusted)
        heard.append(await reader.readline())
        writer.write(b"421 4.3.2 the true answer\r\n")
        heard.append(await reader.read())
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        with pytest.raises(MailError, match=r"answered EHLO with 421 4\.3\.2"):
            await send(server(listening.sockets[0].getsockname()[1], Tls.STARTTLS))
        await over.wait()
    assert heard == [b"ehlo sign.example.org\r\n", b""]


# ---- a login


async def test_a_login(trusted: ssl.SSLContext) -> None:
    """It is read for each message, so that a password that was changed is taken up; one that is wrong ends nothing."""
    file = [b"paraph\nwrong-canary\n"]
    async with mailbox(starttls=trusted, login=(b"paraph", b"right canary")) as box:
        sends = server(box.port, Tls.STARTTLS, login=lambda: file[0])
        with pytest.raises(MailError, match=r"answered AUTH with 535 5\.7\.8$") as error:
            await send(sends)
        assert not error.value.is_final
        file[0] = b"paraph\r\nright canary"
        await send(sends)
    assert len(box.letters) == 1
    assert box.logins[-1] == (b"paraph", b"right canary")
    assert "canary" not in repr(sends)


@pytest.mark.parametrize(
    "content", [b"", b"paraph\n", b"paraph canary\n", b"\ncanary\n", b"paraph\ncanary\nmore\n", b"paraph\ncan\xe9\n", b"pa\0\nc\n"]
)  # fmt: skip
async def test_what_is_no_login(content: bytes) -> None:
    """Said without repeating it, before anything is sent."""
    async with rough(EHLO=b"250-rough.test\r\n250 AUTH PLAIN\r\n") as there:
        with pytest.raises(MailError, match="is not a user and a password, a line each") as error:
            await send(server(there.port, login=lambda: content))
    assert "canary" not in str(error.value)
    assert bytes(there.wire[0]) == b"ehlo sign.example.org\r\n"


async def test_a_login_that_cannot_be_read() -> None:
    """The configuration's own words say which file and what to do."""

    def login() -> bytes:
        raise ConfigError(Path("notify"), ["login_file: can be read by others (mode 0644); give it mode 0400"])

    async with rough() as there:
        with pytest.raises(MailError, match=r"the mail server's login cannot be read: .*give it mode 0400"):
            await send(server(there.port, login=login))


@pytest.mark.parametrize("auth", [b"", b"250-AUTH GSSAPI CRAM-MD5\r\n", b"250-AUTHPLAIN\r\n"])
async def test_a_server_without_our_ways_of_login(auth: bytes) -> None:
    """Nothing of the login is sent."""
    async with rough() as there:
        there.features = auth
        with pytest.raises(MailError, match="offers neither AUTH PLAIN nor AUTH LOGIN"):
            await send(server(there.port, login=lambda: b"paraph\ncanary\n"))
    assert bytes(there.wire[0]) == b"ehlo sign.example.org\r\n"


async def test_one_attempt_a_message() -> None:
    """A refusal is not followed by another mechanism with the same password: an account may be near its lock."""
    async with rough(AUTH=b"535 5.7.8 canary\r\n") as there:
        there.features = b"250-AUTH LOGIN PLAIN\r\n"
        with pytest.raises(MailError, match=r"answered AUTH with 535 5\.7\.8$"):
            await send(server(there.port, login=lambda: b"paraph\ncanary\n"))
    assert bytes(there.wire[0]).count(b"AUTH") == 1


@pytest.mark.parametrize("challenge", [b"334 !\r\n", b"334 \xff\r\n"])
async def test_a_challenge_that_is_none(challenge: bytes) -> None:
    """An error like others, and no endless talk."""
    async with rough(AUTH=challenge) as there:
        there.features = b"250-AUTH PLAIN\r\n"
        with pytest.raises(MailError, match=r"way of AUTH is none that is known here|answered AUTH with"):
            await send(server(there.port, login=lambda: b"paraph\ncanary\n"))


# ---- a server that goes wrong


REFUSALS = [  # (what is answered, what is kept of it)
    (b"421 4.3.2 going down for alice.canary\r\n", "421 4.3.2"),
    (b"451 later, alice.canary\r\n", "451"),
    (b"550 5.1.1 <alice.canary@example.com>: unknown\r\n", "550 5.1.1"),
    (b"554-canary\r\n554 5.7.1 canary\r\n", "554"),
]


@pytest.mark.parametrize(("step", "refusal"), list(product(STEPS, REFUSALS)))
async def test_a_refusal_at_every_step(step: str, refusal: tuple[bytes, str]) -> None:
    """
    Of 4xx nothing is ever final; of 5xx what is about the recipient or the content, while others are for the operator to
    mend. The error has the step and the codes, and no word of what the server wrote.
    """
    answer, kept = refusal
    async with rough(**{step: answer}) as there:
        with pytest.raises(MailError) as error:
            await send(server(there.port))
    named = {"greeting": "the greeting", "content": "DATA"}.get(step, step)
    assert str(error.value) == f"the mail server answered {named} with {kept}"
    assert error.value.is_final == (kept.startswith("5") and step in {"RCPT", "DATA", "content"})
    assert bool(there.contents) == (step == "content")


@pytest.mark.parametrize("step", STEPS)
async def test_a_hang_up_at_every_step(step: str) -> None:
    """Nobody knows whether it was taken, so it is not final."""
    async with rough(**{step: b""}) as there:
        with pytest.raises(MailError, match=r"has not answered .*: (it hung up|Connection reset by peer)") as error:
            await send(server(there.port))
    assert not error.value.is_final


@pytest.mark.parametrize("step", STEPS)
async def test_a_hang_at_every_step(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step has its time."""
    monkeypatch.setattr(mail, "STEP_S", 0.05)
    async with rough(**{step: None}) as there:
        began = time.monotonic()
        with pytest.raises(MailError, match=r"has not answered .*: timed out"):
            await send(server(there.port))
        assert 0.05 <= time.monotonic() - began < 5


@pytest.mark.parametrize("step", STEPS)
async def test_a_hang_with_little_time_left(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps together have a time, too: the last of them gets what is left of it."""
    monkeypatch.setattr(mail, "WHOLE_S", 0.1)
    async with rough(**{step: None}) as there:
        began = time.monotonic()
        with pytest.raises(MailError, match=r"has not answered .*: timed out"):
            await send(server(there.port))
        assert time.monotonic() - began < 5


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.01)


async def chatter(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"250-and another thing\r\n" * 100)
        await writer.drain()


async def junk(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\x00" * 50 + b"\r\n")
    await writer.drain()


async def long(writer: asyncio.StreamWriter) -> None:
    writer.write(b"2" * 20_000 + b"\r\n")
    await writer.drain()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("way", "said"),
    [
        (drip, "the time for all of it is over|timed out"),
        (chatter, f"the answer is longer than {lines.ANSWER_BYTES_MAX} bytes"),
        (junk, "with -1"),
        (long, "is none that is known here"),
    ],
)
async def test_a_server_that_does_not_come_to_an_end(
    step: str, way: Callable[..., Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte by byte, line after line without a last one, no SMTP, one line for ever: each ends, and none is final."""
    monkeypatch.setattr(mail, "WHOLE_S", 0.2)
    async with rough(**{step: way}) as there:
        began = time.monotonic()
        with pytest.raises(MailError, match=said) as error:
            await send(server(there.port))
        assert time.monotonic() - began < 5
    assert not error.value.is_final


async def test_a_hang_after_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is taken by then, whatever becomes of QUIT, which is not waited for long."""
    monkeypatch.setattr(mail, "QUIT_S", 0.05)
    for answer in (None, b"", b"421 4.3.2 no\r\n", drip):
        async with rough(QUIT=answer) as there:
            began = time.monotonic()
            await send(server(there.port))
            assert time.monotonic() - began < 5
        assert len(there.contents) == 1


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal at once; a handshake that does not come to an end, or is none."""
    async with rough() as there:
        port = there.port
    with pytest.raises(MailError, match="cannot be reached: Connection refused"):
        await send(server(port))
    monkeypatch.setattr(mail, "STEP_S", 0.05)
    async with rough(greeting=None) as there:
        with pytest.raises(MailError, match="no TLS with the mail server: "):
            await send(server(there.port, Tls.IMPLICIT))
    async with rough(greeting=b"220 in the clear\r\n") as there:
        with pytest.raises(MailError, match="no TLS with the mail server: "):
            await send(server(there.port, Tls.IMPLICIT))


@pytest.mark.parametrize(
    ("host", "port", "tls", "sender", "said"),
    [
        ("192.0.2.1", 25, Tls.NONE, SENDER, "only to a loopback address"),
        ("localhost", 25, Tls.NONE, SENDER, "only to a loopback address"),
        ("mail.example.org", 25, Tls.NONE, SENDER, "only to a loopback address"),
        ("0.0.0.0", 25, Tls.NONE, SENDER, "only to a loopback address"),
        ("mail.example.org\r\n", 25, Tls.STARTTLS, SENDER, "a name or an IP address"),
        ("", 25, Tls.STARTTLS, SENDER, "a name or an IP address"),
        ("[::1]", 25, Tls.STARTTLS, SENDER, "a name or an IP address"),
        ("mail.example.org", 0, Tls.STARTTLS, SENDER, "a port from 1 to 65535"),
        ("mail.example.org", 65536, Tls.STARTTLS, SENDER, "a port from 1 to 65535"),
        ("mail.example.org", 25, Tls.STARTTLS, Contact(Kind.WEBHOOK, "https://hook.example/"), "an e-mail address"),
    ],
)
def test_what_is_no_mail_server(host: str, port: int, tls: Tls, sender: Contact, said: str) -> None:
    """Nothing goes in the clear beyond this host."""
    with pytest.raises(ValueError, match=said):
        MailServer(host, port, tls, sender)
    assert MailServer("::1", 25, Tls.NONE, SENDER)
