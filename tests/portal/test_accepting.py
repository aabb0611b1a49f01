"""Nobody holds all the connections of a listener, before TLS's handshake or after it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import PlainTextResponse

from portal_adapter import serving
from portal_adapter.serving import Server
from portal_adapter.settings import Listener

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "tls.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "tls.key").write_bytes(private)
    return {"certificate": tmp_path / "tls.pem", "key": tmp_path / "tls.key"}


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.asynccontextmanager
async def listening(files: dict[str, Path], host: str) -> AsyncIterator[int]:
    port = free_port()
    async with Server(PlainTextResponse("here"), Listener(address=f"{host}:{port}", **files)):
        yield port


async def plain(port: int, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


async def answers(port: int, address: str, held: list[asyncio.StreamWriter]) -> bool:
    """Whether a new TLS connection is answered; it is held open."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, local_addr=(address, 0), server_hostname="x"
        )
        held.append(writer)
        writer.write(REQUEST)
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


async def is_ended(reader: asyncio.StreamReader, within_s: float = 0.2) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), within_s) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def soon(true: object, port: int, address: str, held: list[asyncio.StreamWriter]) -> None:
    for _ in range(50):
        if await answers(port, address, held) is true:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{address}: never {true}")


def close(held: list[asyncio.StreamWriter]) -> None:
    while held:
        held.pop().transport.abort()


def test_one_network_has_so_many_connections(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-07, row 6.1: one too many is closed, others come in, and what is closed makes room again."""
    monkeypatch.setattr(serving, "CONNECTIONS_OF_ONE", 3)

    async def run() -> None:
        async with listening(files, "0.0.0.0") as port:
            held: list[asyncio.StreamWriter] = []
            assert [await answers(port, "127.0.0.2", held) for _ in range(4)] == [True, True, True, False]
            others: list[asyncio.StreamWriter] = []
            assert await answers(port, "127.0.0.3", others)
            close(held)
            await soon(True, port, "127.0.0.2", held)
            close(held + others)

    uvloop.run(run())


def test_handshakes_count_too(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-07, row 6.1: who connects and says nothing, or nonsense, has as few; those that came to nothing are forgotten."""
    monkeypatch.setattr(serving, "CONNECTIONS_OF_ONE", 3)
    monkeypatch.setattr(serving, "HANDSHAKE_S", 1.0)

    async def run() -> None:
        async with listening(files, "0.0.0.0") as port:
            before = descriptors()
            silent = [await plain(port, "127.0.0.2") for _ in range(4)]
            assert [await is_ended(reader) for reader, _ in silent] == [False, False, False, True]
            held: list[asyncio.StreamWriter] = []
            assert not await answers(port, "127.0.0.2", held)
            for _, writer in silent[:2]:
                writer.write(b"nonsense\n")
            await soon(True, port, "127.0.0.2", held)
            assert await is_ended(silent[2][0], 5)
            close(held + [writer for _, writer in silent])
            await asyncio.sleep(0.1)
            assert descriptors() <= before + 1

    uvloop.run(run())


def test_behind_a_front_nobody_is_counted(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-07: at a loopback address all connections are the front's, and as many come in as there may be altogether."""
    monkeypatch.setattr(serving, "CONNECTIONS_OF_ONE", 2)
    monkeypatch.setattr(serving, "ACCEPTED_MAX", 6)

    async def run() -> None:
        async with listening(files, "127.0.0.1") as port:
            held: list[asyncio.StreamWriter] = []
            found = [await answers(port, "127.0.0.1", held) for _ in range(7)]
            assert found == [True] * 6 + [False]
            close(held)

    uvloop.run(run())
