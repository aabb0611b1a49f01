"""The PIN of a person who signs with `paraph sign` on her own token: asked for when the documents are there."""

import argparse
from collections import Counter
from typing import Any

from rich.console import Console
from rich.status import Status

from signer.cli import prompt, session
from signer.cli.printable import printable
from signer.client import ServiceError
from signer.own_batch import OwnBatch
from signer.v1 import signing_pb2 as pb

# What a person can mend herself, and how.
_AGAIN = {
    "PIN_INCORRECT": "Type it again; a token locks itself after a few wrong ones.",
    "PIN_UNCLEAR": "Make sure of the PIN, then type it again.",
    "TOKEN_ABSENT": "Insert it, then type the PIN again.",
    "TOKEN_REMOVED": "Put it back, then type the PIN again.",
    "TOKEN_BUSY": "Type the PIN again when it is free.",
    "TOKEN_STARTING": "Type the PIN again.",
}
# What she does at the token itself.
_AT_TOKEN = {"pad": "type the PIN at the reader", "touch": "touch the token for each signature"}


class TokenPin:
    """The PIN is kept for the batch that is signed next, until it may have been wrong."""

    def __init__(self, options: argparse.Namespace, credential: Any) -> None:
        self._overrides = options.override_final_try
        self._question = f"PIN of {printable(credential.subject)}'s token: "
        self._pin = ""
        self._at_token = _AT_TOKEN.get(credential.presence, "the token is at work")
        self._has_pad = credential.presence == "pad"

    def __repr__(self) -> str:
        return "TokenPin(***)"

    async def sign(self, batch: OwnBatch) -> list[Any]:
        """An outcome for each document. Raises `ServiceError` where nothing was signed in the last try."""
        left = prompt.TRIES
        while True:
            left -= 1
            if self._has_pad:  # nothing waits there for her before she says so
                prompt.visible("Press Enter, then type the PIN at the reader: ")
            else:
                self._pin = self._pin or prompt.hidden(self._question)
            try:
                outcomes = await self._send(batch)
            except ServiceError as error:
                self._pin = ""
                if error.reason not in _AGAIN or not left:
                    raise
                prompt.tell(f"{session.say(error)} {_AGAIN[error.reason]}")
                continue
            if batch.is_signed or not left:
                return outcomes
            self._pin = ""
            prompt.tell(f"Not all was signed yet: {_why(outcomes)}. Type the PIN again for the rest.")

    async def _send(self, batch: OwnBatch) -> list[Any]:
        """The last try that a token has is hers to give away, and she says so after she was told."""
        try:
            with self._waiting():
                return await batch.sign(self._pin)
        except ServiceError as error:
            if error.reason != "PIN_FINAL_TRY_GUARD":
                raise
            if not self._overrides:
                more = "The PIN was not sent; if you are sure of it: paraph sign --override-final-try"
                raise ServiceError(error.reason, f"{error.message} {more}", error.code) from None
            prompt.tell(session.say(error))
            if prompt.visible("Type 'yes' to send the PIN all the same: ") != "yes":
                raise
        with self._waiting():
            return await batch.sign(self._pin, override_final_try=True)

    def _waiting(self) -> Status:
        """Somebody else may have the token, a card takes its time, and some want to be touched."""
        return Console(stderr=True).status(self._at_token)


def _why(outcomes: list[Any]) -> str:
    reasons = Counter(outcome.reason for outcome in outcomes if outcome.status != pb.SIGNED)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
