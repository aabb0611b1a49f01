"""
How a mail leaves: to a mail server (RFC 5321), or as a file. Both block, and are called in a thread.

What a mail server says is kept as step and code alone: its text repeats addresses, and parts of what it was sent.
"""

import contextlib
import os
import smtplib
import socket
import ssl
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from portal_adapter.settings import Mail

STEP_S = 15.0  # for each answer
WHOLE_S = 60.0  # for the whole dialogue: well within the outbox's lease
# What is refused there is this mail; before, it is our sender or login, for as long as somebody has them wrong.
_OF_MESSAGE = frozenset({"RCPT", "DATA"})


class SendError(Exception):
    """It has not been taken, as far as is known. `is_final`: the same will not be taken later, either."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(message)


class Sender(Protocol):
    def send(self, id_: str, recipient: str, letter: bytes) -> None:
        """Returns when it was taken; raises `SendError`."""


def sender(settings: Mail) -> Sender:
    return Smtp(settings) if settings.server is not None else Files(settings.directory or Path())


@dataclass(frozen=True, slots=True)
class Files:
    """Each mail is a file of its own, for a machine without a mail server."""

    directory: Path

    def send(self, id_: str, recipient: str, letter: bytes) -> None:
        """Under its last name when it is whole; sent again, it takes its own place."""
        del recipient  # stands in it
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.directory, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(letter)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.directory / f"{id_}.eml")
            except OSError:
                Path(name).unlink(missing_ok=True)  # a letter has links that are its receiver's alone
                raise
        except OSError as error:
            raise SendError(f"no file can be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Smtp:
    """
    One dialogue a mail. With STARTTLS the server's certificate is checked for its name, against the system's CAs or those
    of $SSL_CERT_FILE; a server that does not offer it gets nothing.
    """

    settings: Mail

    def send(self, id_: str, recipient: str, letter: bytes) -> None:
        del id_  # stands in it
        host, _, port = (self.settings.server or "").rpartition(":")
        try:
            with contextlib.closing(_Dialogue(host.strip("[]"), int(port), _domain(self.settings))) as smtp:
                self._dialogue(smtp, recipient, letter)
        except SendError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise SendError(f"the mail server's certificate is not good: {error.verify_message}") from None
        except (
            OSError,
            smtplib.SMTPException,
            ValueError,
            AttributeError,
        ) as error:  # closed by `over`: AttributeError
            raise SendError(f"the mail server: {_why(error)}") from None

    def _dialogue(self, smtp: smtplib.SMTP, recipient: str, letter: bytes) -> None:
        _take("EHLO", {250}, smtp.ehlo())
        if self.settings.starttls:
            if not smtp.has_extn("starttls"):
                raise SendError("the mail server does not offer STARTTLS")
            _take("STARTTLS", {220}, smtp.starttls(context=ssl.create_default_context()))
            _take("EHLO", {250}, smtp.ehlo())
        if self.settings.login_file is not None:
            user, password = _login(self.settings.login_file)
            try:
                smtp.login(user, password)
            except smtplib.SMTPAuthenticationError as error:
                raise SendError(f"the mail server answered AUTH with {error.smtp_code}") from None
        _take("MAIL", {250}, smtp.mail(self.settings.sender))
        _take("RCPT", {250, 251}, smtp.rcpt(recipient))
        try:
            _take("DATA", {250}, smtp.data(letter))
        except smtplib.SMTPDataError as error:
            _take("DATA", {250}, (error.smtp_code, b""))
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()  # it was taken already


class _Dialogue(smtplib.SMTP):
    """One that is cut off when its whole time is over, which begins before the greeting: each byte may be within its step."""

    def __init__(self, host: str, port: int, domain: str) -> None:
        self._over = threading.Timer(WHOLE_S, self._cut)
        self._over.daemon = True
        self._over.start()
        try:
            super().__init__(host, port, local_hostname=domain, timeout=STEP_S)
        except BaseException:
            self._over.cancel()
            raise

    def close(self) -> None:
        super().close()
        self._over.cancel()

    def _cut(self) -> None:
        """Below TLS, whose objects are another thread's."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _take(step: str, expected: set[int], answer: tuple[int, bytes]) -> None:
    code = answer[0]
    if code not in expected:
        raise SendError(
            f"the mail server answered {step} with {code}", is_final=step in _OF_MESSAGE and 500 <= code < 600
        )


def _login(file: Path) -> tuple[str, str]:
    """Read for each mail: one that was changed is taken up."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise SendError("the mail server's login cannot be read") from None
    if len(lines) != 2 or not all(lines):
        raise SendError("the mail server's login is two lines: user and password")
    return lines[0], lines[1]


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, UnicodeError):
        return "the login's user or password has other characters than ASCII"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "it takes no login here (no AUTH): only with STARTTLS, or not at all"
    if isinstance(error, smtplib.SMTPServerDisconnected | AttributeError | ConnectionError):
        return (isinstance(error, OSError) and error.strerror) or "it hung up"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code}"
    if isinstance(error, smtplib.SMTPException):
        return "it offers no way of logging in that is known here"
    return (isinstance(error, OSError) and error.strerror) or "what it answered is no answer"


def _domain(settings: Mail) -> str:
    """For the greeting: a host's own name is often none."""
    return settings.sender.rpartition("@")[2]
