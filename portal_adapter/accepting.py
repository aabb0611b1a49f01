"""
How connections are let in: so many of one network, and so many altogether, from before TLS's handshake to their end.

    Accepting(sockets, protocol, tls=..., of_one=128, most=1024)

asyncio's own servers know a connection only after its handshake, of which anybody can begin thousands. One too many is
closed without a word; who has others open has them still.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from portal_adapter.network import network

log = logging.getLogger("portal")

PAUSE_S = 0.1  # where no connection can be taken, for want of descriptors


class Counted(asyncio.Protocol):
    """A protocol that calls `over` when its connection is lost."""

    over: Callable[[], None] = staticmethod(lambda: None)


class Accepting:
    """What uvicorn asks of an `asyncio.Server`: that it can be closed. `of_one` None: of one network as many as come."""

    def __init__(
        self, listening: Sequence[socket.socket], protocol: Callable[[], Counted], *, tls: ssl.SSLContext,
        handshake_s: float, of_one: int | None, most: int,
    ) -> None:  # fmt: skip
        self._protocol, self._tls, self._handshake_s = protocol, tls, handshake_s
        self._of_one, self._most = of_one, most
        self._open: dict[Counted, str] = {}  # and the network that it is of
        self._of: Counter[str] = Counter()
        self._tasks = {asyncio.create_task(self._accept(one), name="accepting") for one in listening}

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    made, peer = await loop.sock_accept(listening)
                except OSError as error:
                    log.error("no connection can be taken: %s", error)  # noqa: TRY400 -- the message says all
                    await asyncio.sleep(PAUSE_S)
                    continue
                who = network(peer[0])
                if self._is_full(who):
                    made.close()
                else:
                    task = asyncio.create_task(self._let_in(made, self._counted(who)), name="handshake")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _is_full(self, who: str) -> bool:
        return len(self._open) >= self._most or (self._of_one is not None and self._of[who] >= self._of_one)

    def _counted(self, who: str) -> Counted:
        protocol = self._protocol()
        self._open[protocol] = who
        self._of[who] += 1
        protocol.over = partial(self._left, protocol)
        return protocol

    def _left(self, protocol: Counted) -> None:
        who = self._open.pop(protocol, "")
        if who:
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]

    async def _let_in(self, made: socket.socket, protocol: Counted) -> None:
        is_in = False
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, made, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
            is_in = True
        except OSError:
            pass  # no handshake, or none in time
        except Exception:  # whatever it is, it is that connection's
            log.exception("a connection was not let in")
        finally:
            if not is_in:
                made.close()
                self._left(protocol)
