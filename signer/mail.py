"""
One e-mail: its bytes, and the dialogue that hands it to a mail server (RFC 5321).

Headers are fixed texts and checked addresses; each is looked at once more before it becomes a line, since the standard
library lets line ends through that hide in an encoded word. What a mail server says is kept as codes alone: its text
repeats addresses, and parts of what it was sent.
"""

import base64
import contextlib
import quopri
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import cast

from signer.config import ConfigError
from signer.contact import Contact, Kind
from signer.line import Line, is_loopback
from signer.message import Message

# RFC 5321, 4.5.3.2, waits minutes for each step; a one-time code lives two. A server that thinks longer than this may get
# a message twice, under one Message-ID.
STEP_S = 10.0
WHOLE_S = 30.0
QUIT_S = 1.0  # the message is taken already
HEADER_CHARACTERS_MAX = 998  # RFC 5322, 2.1.1
_ENCODED_WORD = "=?"  # RFC 2047, 2
_ENHANCED = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}\b")  # RFC 3463, 2
_LOGIN = re.compile("([!-~]+)\n([ -~]+)\n?")
# Steps whose refusal is about the message: it will not be taken later, either. Any other is the operator's to mend.
_OF_MESSAGE = frozenset({"RCPT", "DATA"})

_Reply = tuple[int, bytes]


class MailError(Exception):
    """
    The server has not taken it, as far as is known; the message names the step and the code, no address and nothing that
    the server wrote. `is_final`: it will not take the same later, either.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(message)


class Tls(StrEnum):
    STARTTLS = "starttls"  # RFC 3207; a server that does not offer it gets nothing
    IMPLICIT = "implicit"  # RFC 8314, 3.3
    NONE = "none"  # to a loopback address only


@dataclass(frozen=True, slots=True)
class MailServer:
    """
    Certificates are checked for `host`, against the system's CAs or those of $SSL_CERT_FILE. `login` reads a file with the
    user on its first line and the password on its second, printable ASCII, for each message: one that was changed is
    taken up. It may raise `ConfigError`.

    Raises `ValueError` for what no server can be.
    """

    host: str
    port: int
    tls: Tls
    sender: Contact
    login: Callable[[], bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _is_host(self.host) or not 1 <= self.port <= 65535:
            raise ValueError("a mail server is a name or an IP address (without brackets), and a port from 1 to 65535")
        if self.tls is Tls.NONE and not is_loopback(self.host):
            raise ValueError("without TLS mail goes only to a loopback address, as 127.0.0.1; use starttls or implicit")
        if self.sender.kind is not Kind.EMAIL:
            raise ValueError("the sender is an e-mail address")

    def send(self, to: Contact, letter: bytes) -> None:
        """Returns when the server has taken it; raises `MailError`. Blocks, `WHOLE_S` and the time of a resolver."""
        try:
            line = Line(self.host, self.port, step_s=STEP_S, whole_s=WHOLE_S)
        except OSError as error:
            raise MailError(f"the mail server cannot be reached: {error.strerror or 'timed out'}") from None
        smtp = smtplib.SMTP(local_hostname=_domain(self.sender))
        smtp.sock = cast("socket.socket", line)
        try:
            for step, expected, do in self._steps(smtp, line, to, letter):
                _take(step, expected, do)
            line.end_within(QUIT_S)
            with contextlib.suppress(smtplib.SMTPException):
                smtp.quit()
        except ssl.SSLCertVerificationError as error:
            raise MailError(f"the mail server's certificate is not good: {error.verify_message}") from None
        except OSError as error:
            raise MailError(f"no TLS with the mail server: {error.strerror or 'timed out'}") from None
        finally:
            smtp.close()
            line.close()

    def _steps(
        self, smtp: smtplib.SMTP, line: Line, to: Contact, letter: bytes
    ) -> Iterator[tuple[str, frozenset[int], Callable[[], _Reply]]]:
        """What is done in this order, each once the one before was answered as expected."""
        if self.tls is Tls.IMPLICIT:
            line.encrypt(ssl.create_default_context())  # each time: CAs may have been renewed
        yield "the greeting", frozenset({220}), smtp.getreply
        yield "EHLO", frozenset({250}), smtp.ehlo
        if self.tls is Tls.STARTTLS:
            yield "STARTTLS", frozenset({220}), partial(smtp.docmd, "STARTTLS")
            line.encrypt(ssl.create_default_context())
            smtp.file = None  # and with it whatever was said in the clear
            yield "EHLO", frozenset({250}), smtp.ehlo
        if self.login is not None:
            yield "AUTH", frozenset({235}), partial(_log_in, smtp, *_user_and_password(self.login))
        yield "MAIL", frozenset({250}), partial(smtp.docmd, "MAIL", f"FROM:<{self.sender.address}>")
        yield "RCPT", frozenset({250, 251}), partial(smtp.docmd, "RCPT", f"TO:<{to.address}>")
        yield "DATA", frozenset({250}), partial(smtp.data, letter)


def letter(id_: str, created: datetime, sender: Contact, to: Contact, message: Message) -> bytes:
    """
    The message as RFC 5322 has it: the same bytes each time, so that one that comes twice is seen to be one.

    `id_` is a UUID; `created` has its zone. Raises `ValueError` for what would be more than one line of a header.
    """
    headers = (
        ("From", sender.address),
        ("To", to.address),
        ("Subject", message.subject),
        ("Date", format_datetime(created)),
        ("Message-ID", f"<{id_}@{_domain(sender)}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834, 5: nobody's out-of-office answers it
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "quoted-printable"),
    )
    head = "".join(header_line(name, text) for name, text in headers)
    return head.encode("ascii") + b"\r\n" + quopri.encodestring(message.text.replace("\n", "\r\n").encode())


def header_line(name: str, text: str) -> str:
    """One line and no more; raises `ValueError`, which does not repeat the text."""
    if not text.isprintable() or _ENCODED_WORD in text:
        raise ValueError(f"{name}: a header is printable text without line ends and encoded words")
    value = text if text.isascii() else f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="
    if len(name) + len(value) + 2 > HEADER_CHARACTERS_MAX:
        raise ValueError(f"{name}: a header's line has at most {HEADER_CHARACTERS_MAX} characters")
    return f"{name}: {value}\r\n"


def _take(step: str, expected: frozenset[int], do: Callable[[], _Reply]) -> None:
    """Raises `MailError` unless the step is answered as expected."""
    try:
        code, said = do()
    except (smtplib.SMTPAuthenticationError, smtplib.SMTPDataError) as error:
        code, said = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
    except smtplib.SMTPServerDisconnected as error:
        cause = error.__context__
        why = (cause.strerror or "timed out") if isinstance(cause, OSError) else "it hung up"
        raise MailError(f"the mail server has not answered {step}: {why}") from None
    except (smtplib.SMTPException, ValueError):
        raise MailError(f"the mail server's way of {step} is none that is known here") from None
    if code not in expected:
        enhanced = _ENHANCED.match(said)
        detail = f" {enhanced[0].decode()}" if enhanced else ""
        is_final = step in _OF_MESSAGE and 500 <= code < 600
        raise MailError(f"the mail server answered {step} with {code}{detail}", is_final=is_final)


def _log_in(smtp: smtplib.SMTP, user: str, password: str) -> _Reply:
    """One attempt: smtplib's own `login` goes on with the next mechanism after a refusal, which brings a lock nearer."""
    offered = smtp.esmtp_features.get("auth", "").upper().split()
    smtp.user, smtp.password = user, password
    for mechanism, answer in (("PLAIN", smtp.auth_plain), ("LOGIN", smtp.auth_login)):
        if mechanism in offered:
            return smtp.auth(mechanism, answer)
    raise MailError("the mail server offers neither AUTH PLAIN nor AUTH LOGIN")


def _user_and_password(login: Callable[[], bytes]) -> tuple[str, str]:
    try:
        found = _LOGIN.fullmatch(login().decode("ascii", "replace").replace("\r\n", "\n"))
    except ConfigError as error:
        raise MailError(f"the mail server's login cannot be read: {error}") from None
    if found is None:
        raise MailError("the mail server's login is not a user and a password, a line each, in printable ASCII")
    return found[1], found[2]


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return re.fullmatch("[0-9A-Za-z.-]{1,253}", host) is not None
    return True


def _domain(sender: Contact) -> str:
    """Whom the mail is from: in the Message-ID, and in the greeting, for which a host's own name is often none."""
    return sender.address.rpartition("@")[2]
