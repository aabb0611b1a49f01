"""
Whose a product number is: the daemon is asked, which alone knows (TOK-15).

A login's statement proves a certificate, and the subject that it belongs to; the number was typed, and somebody else may
have led the window to another one of his.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from portal_adapter.refusal import Refusal
from signer.client import Client, ProfileError, ServiceError

log = logging.getLogger("portal")

ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Numbers:
    """`profile` is the client's, of the portal as a caller: its allow-list has people's authentication credentials."""

    profile: Path

    def certificate_of(self, number: str) -> bytes | None:
        """DER; None for a number that there is not. Raises `signer-unavailable`. For a thread without an event loop."""
        try:
            return asyncio.run(asyncio.wait_for(self._ask(number), ASK_S))
        except ServiceError as error:
            if error.reason == "CREDENTIAL_UNKNOWN":
                log.warning("a product was presented whose number the daemon does not tell the portal of: %s", number)
                return None
            raise _away() from error
        except (ProfileError, TimeoutError) as error:
            raise _away() from error

    async def _ask(self, number: str) -> bytes | None:
        async with Client.from_profile(self.profile) as client:
            found = await client.credential(number)
            return bytes(found.certificates[0]) if found.certificates else None


def _away() -> Refusal:
    message = "Your product cannot be checked just now. Please try again in a few minutes."
    return Refusal("signer-unavailable", message, retry_after_s=60)
