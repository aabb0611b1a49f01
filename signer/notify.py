"""
The outbox: what people are told, sent in the background until it is taken or too old.

A message is a row (queued.py), added within the caller's transaction: nothing is sent for what was rolled back, and after
a restart it goes on. Each is sent at least once: when its sender dies between the server's answer and the row's change,
it is sent again, under the same id.

    e-mail     as mail.py says; the id is in its Message-ID
    webhook    a POST of JSON, in UTF-8, with times of RFC 3339; any 2xx means that it has been taken:

    {"id": UUID, "template": "sign-code", "language": "en", "created": TIME, "expires": TIME, "subject": ..., "text": ...}

Nothing logged has an address or a text.
"""

import asyncio
import contextlib
import json
import logging
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, event

from signer import webhook
from signer.checkpoint import Pause, pause
from signer.clock import Clock, rfc3339
from signer.contact import Contact, ContactError, Kind
from signer.mail import WHOLE_S, MailError, MailServer, letter
from signer.message import Message
from signer.queued import RETRY_FIRST_S, Claim, Failure, Queue, RowUnreadable, Settled, State, settled
from signer.thread import apart
from signer.webhook import WebhookError

log = logging.getLogger("signer.notify")

# Tries under way: mail servers allow a client few connections, webhooks are servers of their own. Of one contact there is
# one (queued.py), so that whose server hangs holds up no other.
MAILS_MAX, WEBHOOKS_MAX = 4, 16
TRY_S = WHOLE_S + 5.0  # of one try: the resolver may be slow, too
WEBHOOK_S = 10.0  # from connecting to the answer's head
POLL_S = 15.0  # what another daemon has left behind is looked for
CLOSE_S = 2.0  # at the end, for what is under way
_ADDED = "paraph outbox"  # in a connection's `info`: rows were added in its transaction


class Outbox:
    """
    `async with Outbox(...) as outbox:` sends what `add` has queued, and what an earlier run has left.

    engine   of `open_store`
    key      32 bytes, not in the database; with another one than before what waits is unreadable, and given up
    mail     None: there are no e-mails
    pause    waits for an event or a time, by the clock

    It belongs to one event loop. `add` may be called on any thread, and what metrics read may be read on any.
    """

    def __init__(
        self, engine: Engine, key: bytes, mail: MailServer | None, *, clock: Clock | None = None, pause: Pause = pause
    ) -> None:
        self._engine = engine
        self._queue = Queue(engine, key, clock or Clock())
        self._mail = mail
        self._pause = pause
        self._wake = asyncio.Event()
        self._closing = False
        self._under_way: dict[asyncio.Task[None], Claim] = {}
        self._oldest: int | None = None
        self._is_failing = False  # the database
        self.delivered = 0  # messages, since the start
        self.given_up = 0  # messages, since the start
        self.queued = 0  # messages that wait, at the last look

    @property
    def age_s(self) -> float:
        """How long the oldest message has waited; 0 when none does."""
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, float(self._queue.now() - oldest))

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        event.listen(self._engine, "checkin", self._returned)
        self._keeper = asyncio.create_task(self._keep_delivering(), name="outbox")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What is under way has a moment; what waits is sent by the next start."""
        event.remove(self._engine, "checkin", self._returned)
        self._closing = True
        self._wake.set()
        await self._keeper
        tasks = list(self._under_way)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self, contact: Contact) -> None:
        """Raises `ContactError` for an e-mail address where no mail server is configured."""
        if contact.kind is Kind.EMAIL and self._mail is None:
            raise ContactError("this service sends no e-mail; configure a mail server, or give a webhook")

    def add(self, connection: Connection, contact: Contact, message: Message, expires: datetime) -> str:
        """
        Queue a message within the caller's transaction. Once that has ended it is sent, and until `expires` tried again;
        answers its id, a UUID.

        Raises `OutboxFull`, and `ContactError` as `check` does.
        """
        self.check(contact)
        id_ = self._queue.add(connection, contact, message, expires)
        connection.info[_ADDED] = True
        return id_

    def _returned(self, _connection: object, record: Any) -> None:
        """A connection is back in its pool, so its transaction is over: of a commit SQLAlchemy tells only before it."""
        if record.info.pop(_ADDED, False):
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _keep_delivering(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._pause(self._wake, await self._look())

    async def _look(self) -> float:
        """Begin what is due; answers in how many seconds to look again."""
        ours = list(self._under_way.values())
        mails = sum(claim.kind == Kind.EMAIL for claim in ours)
        try:
            room = MAILS_MAX - mails, WEBHOOKS_MAX - (len(ours) - mails)
            look = await asyncio.to_thread(self._queue.look, *room, ours)
        except Exception as error:  # noqa: BLE001 -- the database is others' code, and it must go on
            self._database_fails(error)
            return RETRY_FIRST_S
        self._database_works()
        self.queued, self._oldest = look.waiting, look.oldest
        if look.given_up:
            self.given_up += look.given_up
            log.error("not taken in time, and given up: %d messages", look.given_up)
        for claim in look.claims:
            task = asyncio.create_task(self._deliver(claim), name=f"outbox {claim.id}")
            self._under_way[task] = claim
            task.add_done_callback(self._ended)
        if look.next is None:  # what waits for one of them is woken by its end
            return POLL_S
        return min(max(0.0, float(look.next - self._queue.now())), POLL_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._wake.set()

    async def _deliver(self, claim: Claim) -> None:
        failure = await self._try(claim)
        what = settled(claim.tries, claim.expires, self._queue.now(), failure)
        while True:
            try:
                await asyncio.to_thread(self._queue.settle, claim, what)
            except Exception as error:  # noqa: BLE001 -- as above; what was sent must not be sent again
                self._database_fails(error)
                await self._pause(asyncio.Event(), RETRY_FIRST_S)
            else:
                break
        self._tell(claim, what)

    async def _try(self, claim: Claim) -> Failure | None:
        try:
            contact, message = self._queue.opened(claim)
        except RowUnreadable as error:
            return Failure(str(error), is_final=True)
        try:
            await apart(partial(self._send, claim, contact, message), f"outbox {claim.id}", TRY_S)
        except WebhookError as error:
            return Failure(f"the webhook: {error}", error.is_final)
        except MailError as error:
            return Failure(str(error), error.is_final)
        except TimeoutError:
            return Failure(f"no answer within {TRY_S:g} s")
        except Exception as error:  # noqa: BLE001 -- what it says may have the address in it
            return Failure(f"a fault of this service ({type(error).__name__})")
        return None

    def _send(self, claim: Claim, contact: Contact, message: Message) -> None:
        """Returns when it was taken; raises `MailError` or `WebhookError`. Blocks."""
        if contact.kind is Kind.WEBHOOK:
            webhook.post(contact.address, _json(claim, message), "application/json", WEBHOOK_S)
            return
        if self._mail is None:
            raise MailError("no mail server is configured any more")
        sender, created = self._mail.sender, datetime.fromtimestamp(claim.created, UTC)
        self._mail.send(contact, letter(claim.id, created, sender, contact, message))

    def _tell(self, claim: Claim, what: Settled) -> None:
        if what.state is State.SENT:
            self.delivered += 1
            log.info("message %s (%s) was sent", claim.id, claim.template)
        elif what.state is State.GIVEN_UP:
            self.given_up += 1
            log.error("message %s (%s) is given up: %s", claim.id, claim.template, what.error)
        else:  # said once; there are as many others as the server is away
            level = logging.WARNING if claim.tries == 1 else logging.DEBUG
            log.log(level, "message %s (%s) waits: %s", claim.id, claim.template, what.error)

    def _database_fails(self, error: Exception) -> None:
        if not self._is_failing:  # its class alone: a statement that is repeated has rows in it
            log.error("the outbox cannot be read or written (%s); it is tried again", type(error).__name__)
        self._is_failing = True

    def _database_works(self) -> None:
        if self._is_failing:
            log.info("the outbox can be read and written again")
        self._is_failing = False


def _json(claim: Claim, message: Message) -> bytes:
    fields = {
        "id": claim.id,
        "template": message.template,
        "language": message.language,
        "created": rfc3339(claim.created),
        "expires": rfc3339(claim.expires),
        "subject": message.subject,
        "text": message.text,
    }
    return json.dumps(fields, ensure_ascii=False).encode()
