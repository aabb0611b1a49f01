"""What people need while the daemon runs, opened and closed as one: codes, seeds, messages, and who looks after them."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Engine

from signer.batch import Ask
from signer.code import Codes
from signer.config import ConfigError, People
from signer.consent import Consent
from signer.contact import Contact, Kind
from signer.errors import Refusal
from signer.ledger import Ledger
from signer.mail import MailServer, Tls
from signer.message import ENROL_COMMAND
from signer.notify import Outbox
from signer.otp import Seeds
from signer.steady import Steady


@dataclass(frozen=True, slots=True)
class Served:
    consent: Consent
    outbox: Outbox


@contextlib.asynccontextmanager
async def served(
    config: People, engine: Engine, ledger: Ledger, refresh: Callable[[], Awaitable[None]], steady: Steady
) -> AsyncIterator[Served]:
    """Raises `ConfigError` for its key."""
    key = config.seed_key()
    async with Codes() as codes, Outbox(engine, derived(key, "messages"), mail_server(config)) as outbox:
        consent = Consent(
            engine, ledger, codes, Seeds(derived(key, "seeds")), derived(key, "sent codes"), outbox, refresh, steady,
            config.name, config.tell, config.wait_h * 3600.0, config.enrol_at or ENROL_COMMAND,
        )  # fmt: skip
        await consent.look_around()
        looking = asyncio.create_task(consent.keep_looking_around(), name="people")
        try:
            yield Served(consent, outbox)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


def mail_server(config: People) -> MailServer | None:
    """Raises `ConfigError`."""
    mail = config.mail
    if mail is None:
        return None
    login = mail.login if mail.has_login else None
    try:
        sender = Contact(Kind.EMAIL, mail.sender)
        return MailServer(mail.host, mail.port, Tls(mail.tls), sender, login)
    except ValueError as error:
        raise ConfigError(Path("people.mail"), [str(error)]) from None


def derived(key: bytes, use: str) -> bytes:
    """A key of 32 bytes for one use of the configured one (NIST SP 800-108: HMAC as a PRF, one block)."""
    return hmac.digest(key, f"paraph-people-v1 {use}".encode(), "sha256")


async def nobody_is_served(_ask: Ask) -> NoReturn:
    raise Refusal("PEOPLE_NOT_SERVED")
