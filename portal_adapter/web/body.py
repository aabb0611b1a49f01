"""
What comes in a request's body: a form's fields or an object of texts, and files, each on the disk until the request is over.

What is too large is refused while it comes; nothing of it is kept.
"""

import hashlib
import json
import os
import tempfile
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from portal_adapter.files.examine import too_large
from portal_adapter.refusal import Refusal
from portal_adapter.web.ask import Uploaded

FIELDS_MAX = 500  # of a form
FILES_MAX = 1
MARKS_MAX = 30  # on one letter: UAX #15, stream-safe text; to put a longer run in order takes its length squared
MULTIPART_BYTES = 64 * 1024  # of a form with a file, beside the file: boundaries, headers, fields


async def read(
    request: Request, form_bytes: int, file_bytes: int, keep: Callable[[UploadFile], Awaitable[Uploaded]]
) -> tuple[dict[str, str], dict[str, Uploaded]]:
    """Fields and files; `file_bytes` 0 takes no file. Raises `too-large`, `bad-type`, `validation`."""
    most = file_bytes + MULTIPART_BYTES if file_bytes else form_bytes
    _count(request, most, file_bytes or form_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = _fields_of_json(await request.body())
        check_text(*fields, *fields.values())
        return fields, {}
    if kind not in {"application/x-www-form-urlencoded", "multipart/form-data"} or not _is_utf8(request):
        raise Refusal("bad-type", "This is not a form.", accepted=["application/x-www-form-urlencoded"])
    try:
        form = await request.form(max_files=FILES_MAX if file_bytes else 0, max_fields=FIELDS_MAX)
    except HTTPException:  # what Starlette makes of its parser's errors
        raise _unreadable() from None
    fields, files = {}, dict[str, Uploaded]()
    for name, value in form.multi_items():
        check_text(name, (value.filename or "") if isinstance(value, UploadFile) else value)
        if isinstance(value, UploadFile):
            files[name] = await keep(value)
        else:
            fields[name] = value
    await form.close()
    return fields, files


def on_disk(upload: UploadFile, directory: Path, stack: ExitStack) -> Uploaded:
    """In a file of its own, until the request is over."""
    file = stack.enter_context(tempfile.NamedTemporaryFile(dir=directory))  # noqa: SIM115 -- the stack closes it
    size, digest = 0, hashlib.sha256()
    while chunk := upload.file.read(256 * 1024):
        size += len(chunk)
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return Uploaded(Path(file.name), upload.filename or "", size, digest.hexdigest())


def _count(request: Request, most: int, limit: int) -> None:
    """Refuse a body while it comes, once it is longer than `most` bytes. `limit` is what is said."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large(int(length), limit)
    receive, measured = request._receive, 0  # noqa: SLF001 -- Starlette has no other place to count at

    async def counted() -> Any:
        nonlocal measured
        message = await receive()
        measured += len(message.get("body", b""))
        if measured > most:
            raise too_large(measured, limit)
        return message

    request._receive = counted  # noqa: SLF001


def _is_utf8(request: Request) -> bool:
    """Any other of Python's character sets could be asked for: some take long, and some fail in ways of their own."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    return options.get(b"charset", b"utf-8").lower() == b"utf-8"


def check_text(*texts: str) -> None:
    """
    Raise `validation` for what no table or answer takes, half a pair of UTF-16, and for more marks on a letter than any script
    has: normalizing them would hold everybody up.
    """
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise _unreadable() from None
    for text in texts:
        marks = {c for c in set(text) if c > "\u02ff" and unicodedata.combining(unicodedata.normalize("NFKD", c)[0])}
        if marks and any(c and len(list(run)) > MARKS_MAX for c, run in groupby(text, marks.__contains__)):
            raise _unreadable()


def _unreadable() -> Refusal:
    return Refusal("validation", "This form cannot be read.", reason="form-unreadable")


def _fields_of_json(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("validation", "This is not JSON.", reason="form-unreadable") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Refusal("validation", "An object of texts is wanted.", reason="form-unreadable")
    if len(found) > FIELDS_MAX:
        raise _unreadable()
    return found
