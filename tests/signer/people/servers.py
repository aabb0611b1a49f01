"""
Servers that take messages, on loopback and in the test's own loop: `Mailbox` is a real mail server, `Rough` speaks just
enough SMTP to go wrong at a step, `Hook` takes webhooks. Each keeps what it was sent.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope

STEPS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "content")


@dataclass
class Mailbox:
    """Envelopes as aiosmtpd took them; `answers` are given to contents before all others are taken."""

    port: int = 0
    letters: list[Envelope] = field(default_factory=list)
    answers: deque[str] = field(default_factory=deque)
    seen: list[bytes] = field(default_factory=list)  # contents, also of those that were refused
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    over_tls: list[bool] = field(default_factory=list)

    async def handle_DATA(self, server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        self.seen.append(bytes(envelope.original_content or b""))
        if self.answers:
            return self.answers.popleft()
        self.letters.append(envelope)
        self.over_tls.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 2.0.0 taken"


@contextlib.asynccontextmanager
async def mailbox(
    *,
    starttls: ssl.SSLContext | None = None,
    implicit: ssl.SSLContext | None = None,
    login: tuple[bytes, bytes] | None = None,
) -> AsyncIterator[Mailbox]:
    """A real mail server; with `login` it takes nothing from who has not given that."""
    made, loop = Mailbox(), asyncio.get_running_loop()

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        made.logins.append((data.login, data.password))
        return AuthResult(success=(data.login, data.password) == login, handled=False)

    def smtp() -> SMTP:
        more: dict[str, Any] = {}
        if login is not None:
            more = {"auth_required": True, "authenticator": authenticate, "auth_require_tls": implicit is None}
        return SMTP(
            made, hostname="mail.test", loop=loop, tls_context=starttls, require_starttls=starttls is not None, **more
        )

    server = await loop.create_server(smtp, "127.0.0.1", 0, ssl=implicit)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


@dataclass
class Rough:
    """
    A mail server that is good unless told otherwise. `says[step]` is what it answers then: bytes as they are, empty for
    hanging up; `None` hangs. A list gives each connection its own.
    """

    port: int = 0
    says: dict[str, Any] = field(default_factory=dict)
    features: bytes = b""  # more lines of EHLO, each "250-...\r\n"
    wire: list[bytearray] = field(default_factory=list)  # of each connection, what came
    contents: list[bytes] = field(default_factory=list)  # what was between DATA and the dot
    open: int = 0
    open_most: int = 0
    hangs: asyncio.Event = field(default_factory=asyncio.Event)  # when set, who hangs hangs up

    @property
    def commands(self) -> list[bytes]:
        """The lines of the last connection, without the content."""
        head, _, rest = bytes(self.wire[-1]).partition(b"\r\ndata\r\n")
        return [*head.split(b"\r\n"), *([b"data", rest.rpartition(b"\r\n.\r\n")[2].strip()] if rest else [])]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        wire = bytearray()
        self.wire.append(wire)
        says = {
            step: (what.pop(0) if what else ...) if isinstance(what, list) else what for step, what in self.says.items()
        }
        try:
            await self._talk(reader, writer, wire, {step: what for step, what in says.items() if what is not ...})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: bytearray, says: dict[str, Any]
    ) -> None:
        good = {
            "greeting": b"220 rough.test\r\n",
            "EHLO": b"250-rough.test\r\n" + self.features + b"250 8BITMIME\r\n",
            "DATA": b"354 go on\r\n",
            "QUIT": b"221 bye\r\n",
        }
        step = "greeting"
        while True:
            answer = says.get(step, good.get(step, b"250 2.0.0 good\r\n"))
            if callable(answer):
                await answer(writer)
                return
            if answer is None:
                waits = [asyncio.create_task(each) for each in (self.hangs.wait(), reader.read())]  # or he hangs up
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for each in waits:
                    each.cancel()
                return
            if not answer:
                return
            writer.write(answer)
            await writer.drain()
            if step == "QUIT":
                return
            end = b"\r\n.\r\n" if step == "DATA" and answer.startswith(b"354") else b"\r\n"
            line = await reader.readuntil(end)
            wire += line
            if end != b"\r\n":
                self.contents.append(line[: -len(b".\r\n")])
                step = "content"
            else:
                step = line.split()[0].decode("latin-1").upper()


@contextlib.asynccontextmanager
async def rough(**says: Any) -> AsyncIterator[Rough]:
    made = Rough(says=says)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.hangs.set()
        server.close()
        await server.wait_closed()


@dataclass
class Hook:
    """An HTTP server that was posted to. `answers`: status lines, then always 204; `None` hangs."""

    url: str = ""
    answers: deque[str | None] = field(default_factory=deque)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)  # request line, headers, body
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            self.got.append((head[0], headers, await reader.readexactly(int(headers["Content-Length"]))))
            answer = self.answers.popleft() if self.answers else "204 No Content"
            if answer is None:
                await self.hangs.wait()
            else:
                writer.write(
                    f"HTTP/1.1 {answer}\r\nLocation: {self.url}elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
                )
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def hook(context: ssl.SSLContext | None = None) -> AsyncIterator[Hook]:
    made = Hook()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.url = f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/canary-path/"
    try:
        yield made
    finally:
        made.hangs.set()
        server.close()
        await server.wait_closed()
