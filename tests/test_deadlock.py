"""
Lanes that start beside new TLS connections do not stop the daemon.

Once they did, for good: the event loop forks with the interpreter's lock held, gRPC's fork handlers wait there for
gRPC's threads, and a TLS handshake on one of those waits for the interpreter's lock, to ask for certificates.
`signer/cli/__init__.py` switches the handlers off; without that, this test fails after a few lanes.
"""

import asyncio
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

from signer.client import Client
from signer.v1 import operator_pb2 as op
from tests.daemon import Rig, Token, running

TOKENS = ("one", "two", "three", "four")
LANES = 2
KILLS = 4  # of each lane: a fifth loss within a minute opens the breaker
KILLING_S, KILLED_LEAST = 4.0, 8
ANSWER_S = 5.0
LANES_UP_S = 40.0  # lanes start one after the other, after rests that double
DIALLERS = 2
UP = {op.Lane.IDLE, op.Lane.SIGNING}


def rig_of_lanes() -> Rig:
    rig = Rig()
    for name in TOKENS:
        rig.store.token(name)
        _, spki = rig.store.keys(name, ["P-256"], [name])["P-256"]
        rig.tokens.append(Token(name, name, more={"lanes": LANES}))
        rig.credentials[name] = (rig.pki.signer(f"Signer {name}", spki), name, ("RAW",))
    return rig


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
                contextlib.suppress(OSError),  # a daemon that stands still is noticed by who asks it something
                socket.create_connection(("127.0.0.1", rig.port), timeout=1) as raw,
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


async def kill_lanes(rig: Rig) -> None:
    """Kill each lane as soon as it is up, at most `KILLS` times; returns when each token has one again."""
    killed: Counter[tuple[str, int]] = Counter()
    dead: set[int] = set()
    end = time.monotonic() + KILLING_S

    def killing() -> bool:
        return time.monotonic() < end or killed.total() < KILLED_LEAST

    async with rig.client("operator") as client:
        while True:
            living = set()
            for token in await asyncio.wait_for(client.tokens(), ANSWER_S):
                for lane in token.lanes:
                    if lane.state not in UP or lane.pid in dead:
                        continue
                    if killing() and killed[token.name, lane.index] < KILLS:
                        os.kill(lane.pid, signal.SIGKILL)
                        dead.add(lane.pid)
                        killed[token.name, lane.index] += 1
                    else:
                        living.add(token.name)
            if not killing() and living == set(TOKENS):
                return
            await asyncio.sleep(0.02)


async def sign(client: Client, credential: str) -> bytes:
    digest = hashlib.sha256(credential.encode()).digest()
    return await client.sign_digest(credential, digest, digest_algorithm="SHA256", signature_algorithm="ECDSA")


async def test_lanes_start_beside_new_connections() -> None:
    """While connections are made without pause and lanes are killed, the daemon answers; then it signs and ends."""
    with running(rig_of_lanes()) as rig:
        try:
            with dialling(rig) as counts:
                await asyncio.wait_for(kill_lanes(rig), LANES_UP_S)
            assert min(counts) > KILLS
            async with rig.client() as client:
                for credential in TOKENS:
                    assert await asyncio.wait_for(sign(client, credential), ANSWER_S)
        finally:
            code = rig.stop(timeout_s=10)
        assert code == 0
