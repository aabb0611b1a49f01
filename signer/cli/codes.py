"""The codes of a person who signs with `paraph sign`: asked for when they are needed, and again where they were wrong."""

from typing import Any

from signer import person
from signer.cli import prompt, session
from signer.cli.printable import printable
from signer.client import Client, ServiceError

# What a person can mend herself, and how. The daemon has used up no one-time code for any of these but OTP_USED.
_AGAIN = {
    "OTP_INCORRECT": "Type both again; a device shows another one-time code each time.",
    "OTP_USED": "Type the next one-time code.",
    "OTP_EXPIRED": "Type both again, with the newest one-time code.",
    "CODE_RULES": "Type both again.",
    "CODES_BUSY": "Type both again.",
    "CODES_FAILED": "Type both again.",
}


class Codes:
    """The secret code is kept for what is signed next, until it may have been wrong."""

    def __init__(self, client: Client, credential: Any) -> None:
        self._client = client
        self._credential = credential
        self._secret = ""

    def __repr__(self) -> str:
        return "Codes(***)"

    async def authorise(self, terms: Any) -> bytes:
        """The reference of an authorisation for what she was shown. Raises `ServiceError` after the last try."""
        await self._send(terms)
        left = prompt.TRIES
        while True:
            left -= 1
            self._secret = self._secret or prompt.hidden("Secret code: ")
            otp = prompt.code("One-time code: ")
            try:
                return await person.authorise(self._client, terms, self._secret, otp)
            except ServiceError as error:
                if error.reason not in _AGAIN or not left:
                    raise
                prompt.tell(f"{session.say(error)} {_AGAIN[error.reason]}")
                if error.reason != "OTP_USED":
                    self._secret = ""
                if error.reason == "OTP_EXPIRED":
                    await self._send(terms)

    async def _send(self, terms: Any) -> None:
        if self._credential.gate != "code+sent-otp":
            return
        sent = await person.request_otp(self._client, terms)
        prompt.tell(
            f"A one-time code was sent to {printable(sent.contact)}. "
            f"Its message must name the check code {printable(sent.short_digest)}: "
            "if it names another, do not type it."
        )
