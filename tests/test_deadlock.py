"""
Lanes that start beside new TLS connections do not stop the daemon.

Once they did, for good: the event loop forks with the interpreter's lock held, gRPC's fork handlers wait there for
gRPC's threads, and a TLS handshake on one of those waits for the interpreter's lock, to ask which certificates it may
show. `signer/cli/__init__.py` switches the handlers off; without that, this test fails more often than not.
"""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from signer.sync import SyncClient
from tests.daemon import Rig, Token, running, until

TOKENS, LANES = 4, 2
KILLS = 4  # of each lane: a fifth loss within a minute opens the breaker
DIALLERS = 2
ANSWER_S = 5.0


@contextlib.contextmanager
def dialling(rig: Rig) -> Iterator[list[int]]:
    """Threads that make one new TLS connection after another, with a caller's certificate; yields their counts."""
    context = ssl.create_default_context(cafile=rig.pki.ca_file)
    context.load_cert_chain(*rig.files("portal"))
    context.set_alpn_protocols(["h2"])
    over, counts = threading.Event(), [0] * DIALLERS

    def dial(number: int) -> None:
        while not over.is_set():
            with (
                contextlib.suppress(OSError),  # a daemon that stands still is noticed by who asks it
                socket.create_connection(("127.0.0.1", rig.port), timeout=ANSWER_S) as raw,
                context.wrap_socket(raw, server_hostname="localhost"),
            ):
                counts[number] += 1

    threads = [threading.Thread(target=dial, args=(number,)) for number in range(DIALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ask(client: SyncClient, method: Any, *args: Any, **more: Any) -> Any:
    """What a call of the client answers within `ANSWER_S`: a daemon that stands still gives none."""
    import asyncio

    return client.run(asyncio.wait_for(method(client.client, *args, **more), ANSWER_S))
