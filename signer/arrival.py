"""A document as it arrives on a stream: `begin`, chunks, `end`, each checked as it comes; or all of it in one message."""

import asyncio
from typing import Any

import grpc

from signer import requests as read
from signer.config import Caller
from signer.errors import Refusal
from signer.gate import FACTORS, Gate
from signer.handlers import Call
from signer.limits import CHUNK_BYTES_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_IDLE_S
from signer.spool import Spool, Upload
from signer.unparsed import Unparsed


async def next_unparsed(context: Any, idle_s: float = DOCUMENT_IDLE_S) -> Unparsed | None:
    """The stream's next message, None at its end; raises `Refusal` STREAM_OVER where none comes for too long."""
    try:
        async with asyncio.timeout(idle_s):
            message = await context.read()
    except TimeoutError:
        raise Refusal("STREAM_OVER", f"nothing came for {idle_s:g} s") from None
    return None if message is grpc.aio.EOF else message


async def next_message(context: Any, call: Call) -> Any:
    """The same, parsed; raises `Refusal` for one that is too large, or none, and where the caller may not call any more."""
    message = await next_unparsed(context)
    if message is None:
        return None
    call.check_again()
    return message.parse()


class Arrival:
    """One document from its beginning to its end; what is wrong with it is kept in `refusal`, and the rest is read and dropped."""

    def __init__(self, begin: Any) -> None:
        self.index: int = begin.index
        self.name: str = begin.name
        self.announced: int = begin.size  # bytes; 0: not known
        self.reason: str = begin.reason
        self.location: str = begin.location
        self.upload: Upload | None = None
        self.refusal: Refusal | None = None

    def open(self, spool: Spool, caller: str) -> None:
        """Take room for it; raises `Refusal` for what its beginning says."""
        for field, text in (("name", self.name), ("reason", self.reason), ("location", self.location)):
            read.text(text, field)
        if self.announced > DOCUMENT_BYTES_MAX:
            raise Refusal("DOCUMENT_TOO_LARGE", f"{self.announced} bytes")
        self.upload = spool.open(caller, self.announced)

    def check_text(self, gate: Gate, caller: Caller) -> None:
        """
        A person is shown the document alone, so that no text comes into what she signs but her own: that which her own
        program sends. Raises `Refusal` TEXT_NOT_SEEN.
        """
        if (self.reason or self.location) and FACTORS[gate] and caller.subject is None:
            raise Refusal("TEXT_NOT_SEEN")

    async def receive(self, context: Any, call: Call) -> None:
        """Read it to its end, even one that is refused already: its neighbours come after it."""
        try:
            while True:
                message = await next_message(context, call)
                kind = message.WhichOneof("message") if message is not None else None
                if kind == "chunk":
                    self.write(message.chunk)
                elif kind == "end":
                    self.end(message.end.crc32c)
                    return
                else:
                    raise Refusal("STREAM_ORDER", "after begin come chunks and end")
        except BaseException:
            self.close()
            raise

    def take(self, whole: Any) -> None:
        """All of it, out of one message."""
        self.write(whole.content)
        self.end(whole.crc32c)

    def write(self, chunk: bytes) -> None:
        """A refused document's bytes are read and dropped."""
        if self.refusal is not None or self.upload is None:
            return
        try:
            if len(chunk) > CHUNK_BYTES_MAX:
                raise Refusal("MESSAGE_TOO_LARGE", f"a chunk has at most {CHUNK_BYTES_MAX} bytes")
            if self.announced and self.upload.size + len(chunk) > self.announced:
                raise Refusal("SIZE_MISMATCH", f"more than the {self.announced} bytes announced")
            self.upload.write(chunk)
        except Refusal as refusal:
            self.refusal = refusal
            self.upload.close()
            self.upload = None

    def end(self, crc32c: int) -> None:
        if self.refusal is None and self.upload is not None:
            if not self.upload.size:
                self.refusal = Refusal("DOCUMENT_EMPTY")
            elif self.announced and self.upload.size != self.announced:
                detail = f"{self.upload.size} bytes of the {self.announced} announced"
                self.refusal = Refusal("SIZE_MISMATCH", detail)
            elif self.upload.crc32c != crc32c:
                self.refusal = Refusal("CRC_MISMATCH")

    def close(self) -> None:
        if self.upload is not None:
            self.upload.close()
            self.upload = None
