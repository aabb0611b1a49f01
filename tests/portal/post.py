"""Where tests' mails go: kept in memory, under the same tests as the real ways (test_mail.py)."""

import email
import email.policy
from collections import deque
from email.message import EmailMessage

from portal_adapter.mail.sender import SendError


class Memory:
    """A `Sender`. `answers` are raised first, in their order; None lets one through."""

    def __init__(self) -> None:
        self.letters: dict[str, bytes] = {}  # by id: one that comes again takes its own place, as a file does
        self.recipients: list[str] = []
        self.answers: deque[SendError | None] = deque()

    def send(self, id_: str, recipient: str, letter: bytes) -> None:
        answer = self.answers.popleft() if self.answers else None
        if answer is not None:
            raise answer
        self.letters[id_] = letter
        self.recipients.append(recipient)


def parsed(letter: bytes) -> EmailMessage:
    """As a mail program reads it."""
    found = email.message_from_bytes(letter, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def texts(letter: bytes) -> tuple[str, str]:
    """Its plain text and its HTML."""
    found = parsed(letter)
    plain, html = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None and html is not None
    return plain.get_content(), html.get_content()
