"""
What an assembly process does with a file: prepare a PDF for its signature, or look into one. Other people's files are
parsed here and nowhere else.
"""

import os
from datetime import UTC, datetime
from typing import Any

import msgpack

from signer import pades
from signer.examine import examine
from signer.limits import NO_ROOM
from signer.trust import PdfProblem

FDS_MAX = 3


def prepare(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    wishes = pades.Wishes(
        certificate=message["certificate"],
        digest=message["digest"],
        cms_bytes_max=message["cms_bytes_max"],
        time=datetime.fromtimestamp(message["time"], UTC),
        file_id=message["file_id"],
        reason=message["reason"],
        location=message["location"],
    )
    with os.fdopen(fds[0], "r+b", closefd=False) as document:
        try:
            prepared = pades.prepare(document, wishes)
        except PdfProblem as problem:
            if isinstance(problem.__cause__, OSError) and problem.__cause__.errno in NO_ROOM:
                return {"t": "no-room"}
            return {"t": "rejected", "kind": problem.kind}
    return {
        "t": "prepared",
        "digest": prepared.content_digest,
        "start": prepared.gap_start,
        "end": prepared.gap_end,
    }


def verify(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """The report goes into the last descriptor: with all its certificates it may be longer than a packet."""
    with os.fdopen(fds[0], "rb", closefd=False) as document, os.fdopen(fds[-1], "wb", closefd=False) as output:
        now = datetime.fromtimestamp(message["time"], UTC)
        content = os.fdopen(fds[1], "rb", closefd=False) if len(fds) == FDS_MAX else None
        report = examine(document, message["roots"], now, content)
        output.write(msgpack.packb(report.to_dict()))
    return {"t": "report"}


ACTIONS = {"prepare": prepare, "verify": verify}
