"""The outbox: rows that become messages, once each, over refusals, restarts, rollbacks and a second daemon."""

import asyncio
import contextlib
import itertools
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.exc import OperationalError

from signer import mail, notify, queued
from signer.checkpoint import pause
from signer.clock import Clock
from signer.contact import Contact, ContactError, Kind
from signer.mail import MailServer, Tls
from signer.message import Language, Message, Template, compose
from signer.notify import MAILS_MAX, Outbox
from signer.queued import (
    CLAIM_S,
    CONTACT_ROWS_MAX,
    KEEP_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    Failure,
    OutboxFull,
    Queue,
    RowUnreadable,
    Settled,
    State,
    settled,
)
from signer.store import open_store, outbox
from tests.pki import Pki
from tests.postgres import Postgres
from tests.signer.people.servers import hook, mailbox, rough

KEY = bytes(range(32))
RATE = 100  # the tests' seconds are so much shorter
SENDER = Contact(Kind.EMAIL, "paraph@sign.example.org")
ALICE = Contact(Kind.EMAIL, "alice.canary@canary.example.com")
LIFE_S = 10_000  # longer than any test, however busy the machine
_databases = itertools.count()


class Fast(Clock):
    """Begins now, and is RATE times as fast; `ahead_s` is put to it."""

    def __init__(self) -> None:
        object.__setattr__(self, "_began", (time.monotonic(), datetime.now(UTC)))
        self.put(0)

    def put(self, ahead_s: float) -> None:
        object.__setattr__(self, "ahead_s", ahead_s)

    def wall(self) -> datetime:
        at, began = self._began  # type: ignore[attr-defined]
        moment = began + timedelta(seconds=(time.monotonic() - at) * RATE + self.ahead_s)  # type: ignore[attr-defined]
        return moment.replace(microsecond=0)


async def hurried(event: asyncio.Event, seconds: float) -> None:
    await pause(event, seconds / RATE)


def message(code: str = "code-canary-4711") -> Message:
    return compose(
        Template.SIGN_CODE,
        Language.FR,
        tell="le support",
        code=code,
        document="bail.pdf",
        count=1,
        digest_code="K7QX29AB",
        until=datetime(2026, 11, 26, tzinfo=UTC),
    )


def box_of(engine: Engine, port: int, clock: Clock, key: bytes = KEY) -> Outbox:
    return Outbox(engine, key, MailServer("127.0.0.1", port, Tls.NONE, SENDER), clock=clock, pause=hurried)


def add(box: Outbox, engine: Engine, clock: Clock, contact: Contact = ALICE, *, life_s: float = LIFE_S) -> str:
    with engine.begin() as connection:
        return box.add(connection, contact, message(), clock.wall() + timedelta(seconds=life_s))


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox).order_by(outbox.c.created, outbox.c.id)))


def states(engine: Engine) -> list[str]:
    return [row.state for row in rows(engine)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- it is another thread's
            await asyncio.sleep(0.002)


@pytest.fixture
def clock() -> Fast:
    return Fast()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "paraph.sqlite"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = open_store(path)
    yield made
    made.dispose()


# ---- another key


def test_what_waits_gets_another_key(engine: Engine, clock: Fast) -> None:
    """
    What waits is sealed with the new key, address, text and what it is counted by; the old key opens none of it. With a
    wrong old key nothing is changed.
    """
    new = bytes(32)
    old_queue, new_queue = Queue(engine, KEY, clock), Queue(engine, new, clock)

    def put(queue: Queue) -> None:
        with engine.begin() as connection:
            queue.add(connection, ALICE, message(), clock.wall() + timedelta(seconds=LIFE_S))

    for _ in range(CONTACT_ROWS_MAX):
        put(old_queue)
    [sent] = old_queue.look(4, 4, []).claims
    old_queue.settle(sent, Settled(State.SENT, old_queue.now(), ""))
    before = rows(engine)
    with pytest.raises(RowUnreadable, match="waits, and was not sealed with the old key"), engine.begin() as connection:
        queued.rekey(connection, new, KEY)
    assert rows(engine) == before
    with engine.begin() as connection:
        assert queued.rekey(connection, KEY, new) == CONTACT_ROWS_MAX - 1
    put(new_queue)
    with pytest.raises(OutboxFull):
        put(new_queue)
    claims = [claim for _ in range(CONTACT_ROWS_MAX) for claim in new_queue.look(4, 4, []).claims]
    assert len({claim.id for claim in claims}) == CONTACT_ROWS_MAX
    assert {new_queue.opened(claim) for claim in claims} == {(ALICE, message())}
    for claim in claims:
        with pytest.raises(RowUnreadable):
            old_queue.opened(claim)


# ---- what becomes of a row


@pytest.mark.parametrize(
    ("tries", "now", "failure", "wanted"),
    [
        (1, 1_000, None, Settled(State.SENT, 1_000, "")),
        (9, 9_999, None, Settled(State.SENT, 9_999, "")),
        (1, 1_000, Failure("no"), Settled(State.QUEUED, 1_002, "no")),
        (2, 1_000, Failure("no"), Settled(State.QUEUED, 1_004, "no")),
        (5, 1_000, Failure("no"), Settled(State.QUEUED, 1_032, "no")),
        (8, 1_000, Failure("no"), Settled(State.QUEUED, 1_256, "no")),
        (9, 1_000, Failure("no"), Settled(State.QUEUED, 1_300, "no")),
        (5_000, 1_000, Failure("no"), Settled(State.QUEUED, 1_300, "no")),
        (5, 1_990, Failure("no"), Settled(State.QUEUED, 2_000, "no")),
        (5, 2_000, Failure("no"), Settled(State.GIVEN_UP, 2_000, "no")),
        (1, 1_000, Failure("never", is_final=True), Settled(State.GIVEN_UP, 1_000, "never")),
    ],
)
def test_what_becomes_of_a_row(tries: int, now: int, failure: Failure | None, wanted: Settled) -> None:
    """Tried again after 2 s, twice as long each time up to five minutes, and not after its own end, which is at 2 000."""
    assert settled(tries, 2_000, now, failure) == wanted


def test_a_try_ends_before_its_claim_does() -> None:
    """Else another daemon would send it meanwhile; and what is claimed looks like nothing that a clock has put off."""
    assert notify.TRY_S < CLAIM_S < RETRY_MAX_S
    assert notify.WEBHOOK_S < notify.TRY_S


# ---- sent


async def test_sent(engine: Engine, clock: Fast) -> None:
    """What was committed is sent at once, with its id as Message-ID; nothing secret stays in its row."""
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        id_ = add(sends, engine, clock)
        await until(lambda: sends.delivered == 1 and sends.queued == 0)
        assert sends.given_up == 0
    (taken,) = box.letters
    assert taken.rcpt_tos == [ALICE.address]
    parsed = message_from_bytes(bytes(taken.original_content or b""))
    assert parsed["Message-ID"] == f"<{id_}@sign.example.org>"
    assert message().text.splitlines()[0].encode() in bytes(taken.original_content or b"")
    (row,) = rows(engine)
    assert (row.id, row.state, row.tries, row.error) == (id_, State.SENT, 1, "")
    assert (row.contact, row.address, row.body) == (None, None, None)


async def test_woken_at_the_commit(engine: Engine) -> None:
    """By the right clock, and without waiting for the next look: the row is seen right after the commit, not before."""
    async with mailbox() as box:
        sends = Outbox(engine, KEY, MailServer("127.0.0.1", box.port, Tls.NONE, SENDER))
        async with sends:
            await until(lambda: sends._keeper.get_coro().cr_await is not None and not sends._wake.is_set())  # type: ignore[union-attr]
            for number in range(1, 4):
                began = time.monotonic()
                await asyncio.to_thread(add, sends, engine, Clock())
                await until(lambda wanted=number: sends.delivered == wanted)  # type: ignore[misc]
                assert time.monotonic() - began < 5, f"looks are {notify.POLL_S:g} s apart"


async def test_a_rollback_sends_nothing(engine: Engine, clock: Fast) -> None:
    """What was rolled back was never there; what is not committed yet is not sent yet."""
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        with contextlib.suppress(ZeroDivisionError), engine.begin() as connection:
            sends.add(connection, ALICE, message(), clock.wall() + timedelta(seconds=LIFE_S))
            raise ZeroDivisionError
        with engine.connect() as connection:
            sends.add(connection, ALICE, message(), clock.wall() + timedelta(seconds=LIFE_S))
            await asyncio.sleep(0.1)
            assert box.letters == [], "not committed yet"
            connection.rollback()
        id_ = add(sends, engine, clock)
        await until(lambda: sends.delivered == 1)
    assert [row.id for row in rows(engine)] == [id_]
    assert len(box.letters) == 1


async def test_a_webhook(engine: Engine, clock: Fast) -> None:
    """It is posted as JSON with the fields that the docstring names; no mail server is needed for it."""
    async with hook() as there:
        sends = Outbox(engine, KEY, None, clock=clock, pause=hurried)
        async with sends:
            began = clock.wall()
            id_ = add(sends, engine, clock, Contact(Kind.WEBHOOK, f"{there.url}?key=canary"))
            await until(lambda: sends.delivered == 1)
            with engine.begin() as connection, pytest.raises(ContactError, match="sends no e-mail; configure"):
                sends.add(connection, ALICE, message(), clock.wall())
    ((request, headers, body),) = there.got
    assert request == "POST /canary-path/?key=canary HTTP/1.1"
    assert headers["Content-Type"] == "application/json"
    got = json.loads(body)
    assert list(got) == ["id", "template", "language", "created", "expires", "subject", "text"]
    assert (got["id"], got["template"], got["language"]) == (id_, "sign-code", "fr")
    assert (got["subject"], got["text"]) == (message().subject, message().text)
    created, expires = (datetime.fromisoformat(got[name]) for name in ("created", "expires"))
    assert abs(created - began) < timedelta(seconds=RATE), "a second of the machine's"
    assert abs(expires - began - timedelta(seconds=LIFE_S)) < timedelta(seconds=RATE)


async def test_a_webhook_over_tls(engine: Engine, clock: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is nobody's gets nothing; it is tried again, and taken when the CA is known."""
    pki = Pki(tmp_path / "pki")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.server())
    async with hook(context) as there, box_of(engine, 1, clock) as sends:
        add(sends, engine, clock, Contact(Kind.WEBHOOK, there.url))
        await until(lambda: any(row.error for row in rows(engine)))
        assert (
            rows(engine)[0].error == "the webhook: its certificate is not good: unable to get local issuer certificate"
        )
        assert there.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
        await until(lambda: sends.delivered == 1)


# ---- not taken


async def test_tried_again(engine: Engine, clock: Fast) -> None:
    """4xx, then 250: the same bytes each time, so that the server can tell that they are one message."""
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        box.answers.extend(["451 4.7.1 later", "452 4.3.1 later"])
        add(sends, engine, clock)
        await until(lambda: sends.delivered == 1)
    assert len(box.seen) == 3
    assert len(set(box.seen)) == 1
    assert [row.tries for row in rows(engine)] == [3]


async def test_refused_for_good(engine: Engine, clock: Fast, caplog: pytest.LogCaptureFixture) -> None:
    """5xx: given up at once, with the code in the row and in the log, and nothing secret in either."""
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        box.answers.append("554 5.7.1 <alice.canary@canary.example.com> has code-canary-4711")
        id_ = add(sends, engine, clock)
        await until(lambda: sends.given_up == 1)
    (row,) = rows(engine)
    assert (row.state, row.tries) == (State.GIVEN_UP, 1)
    assert row.error == "the mail server answered DATA with 554 5.7.1"
    assert (row.contact, row.address, row.body) == (None, None, None)
    assert caplog.messages == [f"message {id_} (sign-code) is given up: {row.error}"]


@pytest.mark.parametrize(
    ("answers", "state", "error"),
    [
        (["500 Oh", "503 Busy", "429 Slowly", "408 Late", "425 Early"], State.SENT, ""),
        (["404 Not Found"], State.GIVEN_UP, "the webhook: answered 404; look at its log"),
        (["403 No"], State.GIVEN_UP, "the webhook: answered 403; look at its log"),
        (["301 Elsewhere"], State.GIVEN_UP, "the webhook: answered 301; give the URL that it redirects to"),
        (["307 Elsewhere"], State.GIVEN_UP, "the webhook: answered 307; give the URL that it redirects to"),
        (["junk"], State.SENT, ""),
    ],
)
async def test_what_a_webhook_answers(
    engine: Engine, clock: Fast, answers: list[str], state: State, error: str
) -> None:
    """5xx and what says that it is for now are tried again; other 4xx are not, and redirects are not followed."""
    async with hook() as there, box_of(engine, 1, clock) as sends:
        there.answers.extend(answers)
        add(sends, engine, clock, Contact(Kind.WEBHOOK, there.url))
        await until(lambda: sends.delivered + sends.given_up == 1)
    (row,) = rows(engine)
    assert (row.state, row.error) == (state, error)
    assert len(there.got) == len(answers) + (state is State.SENT)
    assert {request for request, _, _ in there.got} == {"POST /canary-path/ HTTP/1.1"}
    assert len({body for _, _, body in there.got}) == 1


async def test_a_code_that_is_too_old(engine: Engine, clock: Fast, caplog: pytest.LogCaptureFixture) -> None:
    """
    F33: a one-time code is not delivered late. Once it has expired it is not sent any more, although the server is back;
    the last error is kept, and is said at the first try and at the end.
    """
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        box.answers.extend(["451 4.7.1 later"] * 1000)
        add(sends, engine, clock)
        await until(lambda: any(row.tries > 1 for row in rows(engine)))
        clock.put(LIFE_S)
        await until(lambda: sends.given_up == 1)
        box.answers.clear()
        await asyncio.sleep(0.1)
        assert box.letters == []
    (row,) = rows(engine)
    assert (row.state, row.error) == (State.GIVEN_UP, "the mail server answered DATA with 451 4.7.1")
    assert (row.contact, row.address, row.body) == (None, None, None)
    assert [record.levelname for record in caplog.records if record.name == "signer.notify"] == ["WARNING", "ERROR"]


async def test_a_code_that_was_too_old_at_the_start(engine: Engine, clock: Fast) -> None:
    """A daemon that was away for longer sends none of it."""
    async with mailbox() as box:
        sends = box_of(engine, box.port, clock)
        add(sends, engine, clock, life_s=10)
        clock.put(11)
        async with sends:
            await until(lambda: sends.given_up == 1)
        assert box.seen == []
    assert [(row.state, row.tries, row.error) for row in rows(engine)] == [
        (State.GIVEN_UP, 0, "its time was over before it was tried")
    ]


async def test_a_clock_that_is_put_back(engine: Engine, clock: Fast) -> None:
    """F34: the clock jumps an hour back. What waits for its next try does not wait for that hour."""
    async with mailbox() as box:
        sends = box_of(engine, box.port, clock)
        clock.put(3600)
        add(sends, engine, clock)
        clock.put(0)
        async with sends:
            await until(lambda: sends.delivered == 1)


# ---- a server that hangs


async def test_four_at_a_time(engine: Engine, clock: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs has four connections and no more, and when it is back everything arrives, each once."""
    monkeypatch.setattr(mail, "STEP_S", 0.1)
    async with rough(content=[None] * 6) as there, box_of(engine, there.port, clock) as sends:
        people = [Contact(Kind.EMAIL, f"p{number}@canary.example.com") for number in range(10)]
        ids = {add(sends, engine, clock, each) for each in people}
        await until(lambda: sends.delivered == 10)
        assert there.open_most == MAILS_MAX
        there.hangs.set()
    assert {row.id for row in rows(engine)} == ids
    assert states(engine) == [State.SENT] * 10
    named = [bytes(content).partition(b"Message-ID: <")[2][:36].decode() for content in there.contents]
    assert len(named) == 10 + 6
    assert set(named) == ids


async def test_one_that_hangs_holds_up_no_other(engine: Engine, clock: Fast) -> None:
    """A webhook that says nothing, and mail meanwhile."""
    async with hook() as there, mailbox() as box, box_of(engine, box.port, clock) as sends:
        there.answers.append(None)
        add(sends, engine, clock, Contact(Kind.WEBHOOK, there.url))
        await until(lambda: len(there.got) == 1)
        for _ in range(8):
            add(sends, engine, clock)
        await until(lambda: sends.delivered == 8)
        there.hangs.set()
        await until(lambda: sends.delivered == 9)
    assert len(there.got) == 2


async def test_one_contact_has_one_try(engine: Engine, clock: Fast) -> None:
    """
    However much waits for whose server hangs, and for a mail server that does: others' webhooks are posted meanwhile, and
    afterwards what has waited. Nobody looks at the database all the time for that.
    """
    async with (
        hook() as hers,
        hook() as others,
        rough(content=[None] * 4) as there,
        box_of(engine, there.port, clock) as sends,
    ):
        hers.answers.append(None)
        for number in range(CONTACT_ROWS_MAX):
            add(sends, engine, clock, Contact(Kind.WEBHOOK, hers.url))
            add(sends, engine, clock, Contact(Kind.EMAIL, f"p{number}@canary.example.com"))
        await until(lambda: len(hers.got) == 1 and len(there.contents) == 4)
        for number in range(CONTACT_ROWS_MAX):
            add(sends, engine, clock, Contact(Kind.WEBHOOK, f"{others.url}{number}"))
        await until(lambda: sends.delivered == CONTACT_ROWS_MAX)
        assert (len(others.got), len(hers.got), len(there.contents)) == (CONTACT_ROWS_MAX, 1, 4)
        assert await sends._look() > 1, "the end of a try wakes"
        hers.hangs.set()
        there.hangs.set()
        await until(lambda: sends.delivered == 3 * CONTACT_ROWS_MAX)
    assert len(hers.got) == CONTACT_ROWS_MAX + 1


async def test_an_end_does_not_wait(engine: Engine, clock: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon ends while a server hangs: after two seconds at most (here less), and the message is not lost."""
    monkeypatch.setattr(notify, "CLOSE_S", 0.05)
    async with rough(content=[None]) as there:
        async with box_of(engine, there.port, clock) as sends:
            id_ = add(sends, engine, clock)
            await until(lambda: len(there.contents) == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 2
        assert states(engine) == [State.QUEUED]
        there.hangs.set()
        async with box_of(engine, there.port, clock) as sends:
            await until(lambda: sends.delivered == 1)
    assert [content.count(id_.encode()) for content in there.contents] == [1, 1], "sent again under its id"


# ---- restarts, and a second daemon


async def test_a_restart_goes_on(engine: Engine, clock: Fast) -> None:
    """What was queued while nothing ran, or while the server was away, is sent by the next run."""
    async with mailbox() as box:
        first = box_of(engine, 1, clock)
        add(first, engine, clock)
        async with first:
            await until(lambda: rows(engine)[0].error != "")
            add(first, engine, clock)
        add(first, engine, clock)
        async with box_of(engine, box.port, clock) as sends:
            await until(lambda: sends.delivered == 3)
    assert len(box.letters) == 3
    assert states(engine) == [State.SENT] * 3


async def test_a_daemon_that_died_while_sending(engine: Engine, clock: Fast) -> None:
    """Its claim is respected until it must be gone, and then the message is sent, perhaps again, under the same id."""
    async with mailbox() as box:
        dead = Queue(engine, KEY, clock)
        with engine.begin() as connection:
            id_ = dead.add(connection, ALICE, message(), clock.wall() + timedelta(seconds=1000))
        claimed = clock.wall()
        assert [claim.id for claim in dead.look(4, 4, []).claims] == [id_]
        async with box_of(engine, box.port, clock) as sends:
            await until(lambda: sends.delivered == 1)
        assert clock.wall() - claimed >= timedelta(seconds=CLAIM_S)
    assert [row.tries for row in rows(engine)] == [2]


async def test_a_database_that_fails_after_the_server_has_taken_it(
    engine: Engine, clock: Fast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was sent is not sent again while the daemon lives: it is written down when that works."""
    real, fails = Queue.settle, iter(range(30))

    def settle(*arguments: Any) -> None:
        if next(fails, None) is not None:
            raise OperationalError("UPDATE canary", {"address": "canary"}, Exception("disk I/O error"))
        real(*arguments)

    monkeypatch.setattr(Queue, "settle", settle)
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        add(sends, engine, clock)
        await until(lambda: sends.delivered == 1)
    assert len(box.seen) == 1
    assert next(fails, None) is None
    assert "the outbox cannot be read or written (OperationalError); it is tried again" in caplog.messages
    assert "canary" not in caplog.text


async def test_a_database_that_is_away(
    engine: Engine, clock: Fast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again, and said once that it fails and once that it works."""
    caplog.set_level(logging.INFO)
    real, fails = Queue.look, iter(range(5))

    def look(*arguments: Any) -> Any:
        if next(fails, None) is not None:
            raise OperationalError("SELECT canary", {}, Exception("database is locked"))
        return real(*arguments)

    monkeypatch.setattr(Queue, "look", look)
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        id_ = add(sends, engine, clock)
        await until(lambda: sends.delivered == 1)
    assert [record.getMessage() for record in caplog.records if record.name == "signer.notify"] == [
        "the outbox cannot be read or written (OperationalError); it is tried again",
        "the outbox can be read and written again",
        f"message {id_} (sign-code) was sent",
    ]


async def share(engines: list[Engine], count: int) -> None:
    """As many daemons as engines, on one database: every message arrives once. By the right clock: claims are long."""
    clock = Clock()
    async with mailbox() as box:
        boxes = [box_of(engine, box.port, clock) for engine in engines]
        contacts = [Contact(Kind.EMAIL, f"person{number}@example.com") for number in range(count)]
        for contact in contacts:
            add(boxes[0], engines[0], clock, contact)
        async with contextlib.AsyncExitStack() as stack:
            for each in boxes:
                await stack.enter_async_context(each)
            await until(lambda: sum(each.delivered for each in boxes) == count)
    assert sorted(letter.rcpt_tos[0] for letter in box.letters) == sorted(contact.address for contact in contacts)
    assert states(engines[0]) == [State.SENT] * count
    assert all(each.delivered for each in boxes), "else this shows nothing"


async def test_two_daemons(path: Path) -> None:
    """Two on one SQLite file send nothing twice."""
    engines = [open_store(path) for _ in range(2)]
    await share(engines, 40)
    for engine in engines:
        engine.dispose()


async def test_two_daemons_on_postgresql(postgres: Postgres) -> None:
    """Three on one PostgreSQL database send nothing twice; and what one adds is erased by whoever sends it."""
    url = postgres.create(f"outbox {next(_databases)}")
    engines = [open_store(url) for _ in range(3)]
    await share(engines, 40)
    assert {(row.contact, row.address, row.body) for row in rows(engines[0])} == {(None, None, None)}
    for engine in engines:
        engine.dispose()


def test_a_claim_is_one_daemon_s(engine: Engine, clock: Fast) -> None:
    """Of two that saw the same row one gets it; who is too late changes nothing, unless it was sent."""
    queue = Queue(engine, KEY, clock)
    with engine.begin() as connection:
        queue.add(connection, ALICE, message(), clock.wall() + timedelta(seconds=LIFE_S))
        row = connection.execute(select(outbox)).one()
        now = queue.now()
        first, second = (queued._claimed(connection, row, now) for _ in range(2))
    assert first is not None
    assert second is None
    with engine.begin() as connection:
        connection.execute(update(outbox).values(tries=2))  # another daemon's claim, after this one's time
    queue.settle(first, Settled(State.GIVEN_UP, now, "too late"))
    assert states(engine) == [State.QUEUED]
    queue.settle(first, Settled(State.SENT, now, ""))
    assert states(engine) == [State.SENT]
    queue.settle(first, Settled(State.QUEUED, now, "too late"))
    assert states(engine) == [State.SENT]


# ---- bounds, and what is kept


async def test_bounds(engine: Engine, clock: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many wait for a contact, and so many in all; the error says what to do, and masks the contact. Then there is room."""
    monkeypatch.setattr(queued, "ROWS_MAX", CONTACT_ROWS_MAX + 2)
    bob = Contact(Kind.EMAIL, "bob@example.com")
    async with mailbox() as box:
        sends = box_of(engine, box.port, clock)
        for _ in range(CONTACT_ROWS_MAX):
            add(sends, engine, clock)
        with pytest.raises(OutboxFull, match=r"10 messages wait for a\*\*\*@canary.example.com; ask again"):
            add(sends, engine, clock)
        for _ in range(2):
            add(sends, engine, clock, bob)
        with pytest.raises(OutboxFull, match="12 messages wait; see to the mail server"):
            add(sends, engine, clock, Contact(Kind.WEBHOOK, "https://hook.example/canary"))
        assert len(rows(engine)) == CONTACT_ROWS_MAX + 2
        async with sends:
            await until(lambda: sends.queued == CONTACT_ROWS_MAX + 2 or sends.delivered > 0)
            await until(lambda: sends.delivered == CONTACT_ROWS_MAX + 2)
            add(sends, engine, clock)
            await until(lambda: sends.delivered == CONTACT_ROWS_MAX + 3)


async def test_what_metrics_read(engine: Engine, clock: Fast) -> None:
    """How many wait, and for how long the oldest has; both are nothing once they are sent."""
    async with mailbox() as box:
        box.answers.extend(["451 later"] * 4)
        async with box_of(engine, box.port, clock) as sends:
            assert (sends.queued, sends.age_s, sends.delivered, sends.given_up) == (0, 0.0, 0, 0)
            add(sends, engine, clock)
            add(sends, engine, clock)
            await until(lambda: sends.queued == 2 and sends.age_s >= 2)
            await until(lambda: sends.delivered == 2 and sends.queued == 0)
            assert sends.age_s == 0.0


async def test_settled_rows_are_kept_for_a_week(engine: Engine, clock: Fast) -> None:
    """For whoever asks why nothing came; then they are gone."""
    async with mailbox() as box, box_of(engine, box.port, clock) as sends:
        old = add(sends, engine, clock)
        await until(lambda: sends.delivered == 1)
        clock.put(KEEP_S - 3600)
        new = add(sends, engine, clock)
        await until(lambda: sends.delivered == 2)
        assert {row.id for row in rows(engine)} == {old, new}
        clock.put(KEEP_S + 3600)
        await until(lambda: {row.id for row in rows(engine)} == {new})


# ---- secrets


def written(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.iterdir())


async def test_nothing_is_in_the_clear(path: Path, clock: Fast, caplog: pytest.LogCaptureFixture) -> None:
    """
    Row 7.1: one-time codes are never at rest in the clear. Row 7.2: nor in logs. While a message waits and after it was
    sent, refused or expired, the database's files have neither code nor address, and nor has the log at DEBUG, with the
    statements of every transaction in it.
    """
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    engine = open_store(path)
    hooked = Contact(Kind.WEBHOOK, "http://127.0.0.1:1/path-canary")
    async with mailbox() as box:
        sends = box_of(engine, box.port, clock)
        for contact in (ALICE, hooked):
            add(sends, engine, clock, contact)
        while_waiting = written(path)
        sealed = [part for row in rows(engine) for part in (row.address, row.body, row.contact)]
        assert all(part in while_waiting for part in sealed), "what is looked for would be found"
        box.answers.extend(["451 4.7.1 <alice.canary@canary.example.com> code-canary-4711"])
        async with sends:
            add(sends, engine, clock)
            await until(lambda: sends.delivered == 2)
            clock.put(LIFE_S)
            await until(lambda: sends.given_up == 1)
            box.answers.append("550 5.1.1 <alice.canary@canary.example.com> code-canary-4711")
            add(sends, engine, clock)
            await until(lambda: sends.given_up == 2)
    assert sorted(states(engine)) == [State.GIVEN_UP, State.GIVEN_UP, State.SENT, State.SENT]
    engine.dispose()  # what was in the write-ahead log is in the file now
    afterwards = written(path)
    assert "UPDATE outbox" in caplog.text, "statements are in the log"
    assert "canary" in caplog.text, "what the server was sent"
    ours = [
        record.getMessage() for record in caplog.records if record.name != "mail.log"
    ]  # the test's server has one, too
    for place in (while_waiting, afterwards, "\n".join(ours).encode()):
        assert b"canary" not in place
        assert b"4711" not in place
    assert not any(part in afterwards for part in sealed), "erased means overwritten"


@pytest.mark.parametrize("key", [bytes(32), None], ids=["another key", "changed"])
async def test_a_row_that_was_changed(engine: Engine, clock: Fast, key: bytes | None) -> None:
    """Sealed with another key, or a part of it put elsewhere or changed beside the seal: not sent, given up."""
    changes = ["UPDATE outbox SET address = (SELECT address FROM outbox WHERE kind = 'webhook') WHERE kind = 'email'", "UPDATE outbox SET template = 'login-code'", "UPDATE outbox SET expires = expires + 1", "UPDATE outbox SET kind = 'x'", "UPDATE outbox SET body = address", "UPDATE outbox SET body = x''"]  # fmt: skip
    async with mailbox() as box:
        for change in changes if key is None else [""]:
            sends = box_of(engine, box.port, clock)
            add(sends, engine, clock)
            add(sends, engine, clock, Contact(Kind.WEBHOOK, "http://127.0.0.1:1/"))
            with engine.begin() as connection:
                if change:
                    connection.execute(text(change))
            async with box_of(engine, box.port, clock, key or KEY) as sends:
                await until(lambda sends=sends: sends.given_up >= 1)  # type: ignore[misc]
            given_up = [row.error for row in rows(engine) if row.state == State.GIVEN_UP]
            assert set(given_up) == {"the row was sealed with another key, or changed"}
            with engine.begin() as connection:
                connection.execute(outbox.delete())
        assert box.seen == []


def test_retries_begin_soon() -> None:
    """A code that lives 120 s is tried six times."""
    tries, at = 1, 0
    while (next_ := settled(tries, 120, at, Failure("no"))).next < 120:
        tries, at = tries + 1, next_.next
    assert (tries, at) == (6, 2 * (2**5 - 1))
    assert RETRY_FIRST_S == 2
