"""Whether a PDF opens and is not encrypted: the daemon looks into it, in its own limited process (ATT-09)."""

import asyncio
from pathlib import Path
from typing import Any

from portal_adapter.files.sniff import rejected
from portal_adapter.refusal import Refusal
from signer.client import Client, ProfileError, ServiceError

LOOK_S = 20.0  # the daemon's own limit for one is 10 s of a processor
RETRY_S = 60
_LOST_BY_IT = "PDF_REJECTED"  # the process that looked into it has ended by it: the next one would, too


def check(path: Path, profile: Path) -> None:
    """
    Raise `rejected-content` for what does not open or is encrypted, `signer-unavailable` while nobody can say. For a
    thread without an event loop.
    """
    try:
        report = asyncio.run(_report(path, profile))
    except (ProfileError, ServiceError) as error:
        if isinstance(error, ServiceError) and error.reason == _LOST_BY_IT:
            raise _unreadable() from error
        message = "Documents cannot be checked just now. Nothing was kept; please send it again in a few minutes."
        raise Refusal("signer-unavailable", message, retry_after_s=RETRY_S) from error
    if report.problem == "encrypted":
        raise rejected("encrypted", "This PDF is protected by a password. Save it without one.")
    if not report.readable or report.kind != report.PDF:
        raise _unreadable()


def _unreadable() -> Refusal:
    return rejected("unreadable", "This file cannot be read: it is damaged or not complete.")


async def _report(path: Path, profile: Path) -> Any:
    """A client for each: uploads are few, and a renewed certificate is used at once."""
    async with Client.from_profile(profile) as client:
        return await client.verify(path, timeout_s=LOOK_S)
