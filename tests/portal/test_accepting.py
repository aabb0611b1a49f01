"""Nobody holds all the connections of a listener, before TLS's handshake or after it."""

import asyncio
import contextlib
import re
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
    (tmp_path / "tls.key").chmod(0o600)
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


# ---- what is said on a connection, and how


async def asked(port: int, sent: bytes, context: ssl.SSLContext | None = None) -> tuple[bytes, ssl.SSLObject]:
    """All that is answered to some bytes, and the TLS that it came by."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="x")
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 20)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return answer, tls


CLOSING = REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def test_answers_that_no_program_makes_have_the_headers_too(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """UI-07: what is no HTTP, and one too many, are answered by the listener: with HSTS, a policy, no sniffing, no frames."""

    async def run() -> None:
        async with listening(files, "127.0.0.1") as port:
            answers = {400: (await asked(port, b"nonsense\r\n\r\n"))[0]}
            monkeypatch.setattr(serving, "CONNECTIONS_MAX", 0)
            answers[503] = (await asked(port, CLOSING))[0]
            for status, answer in answers.items():
                head, _, body = answer.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 %d " % status) and body, answer
                for said in (
                    b"strict-transport-security: max-age=63072000; includeSubDomains", b"x-content-type-options: nosniff",
                    b"frame-ancestors 'none'", b"content-type: text/plain; charset=utf-8", b"cache-control: no-store",
                ):  # fmt: skip
                    assert head.count(said) == 1, (said, head)

    uvloop.run(run())


def test_where_a_request_ends_is_not_in_doubt(files: dict[str, Path]) -> None:
    """UI-07: two lengths, a length beside chunks, or chunks that are none: no second request is read out of the first."""
    second = b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heads = (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
    )

    async def run() -> None:
        async with listening(files, "127.0.0.1") as port:
            for head in heads:
                sent = b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\n" + second
                answer, _ = await asked(port, sent)
                assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 400 "), (head, answer)
            whole = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second
            assert (await asked(port, whole))[0].count(b"HTTP/1.1 200 ") == 2

    uvloop.run(run())


def test_ciphers_are_few(files: dict[str, Path]) -> None:
    """UI-07: TLS 1.3 where the browser has it; with 1.2 forward secret and authenticated ciphers, and no others."""

    async def run() -> None:
        async with listening(files, "127.0.0.1") as port:
            _, tls = await asked(port, CLOSING)
            assert tls.version() == "TLSv1.3"
            old = ssl.create_default_context()
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            _, tls = await asked(port, CLOSING, old)
            cipher = tls.cipher()
            assert cipher is not None and re.fullmatch(r"ECDHE-\w+-(AES\d+-GCM-\w+|CHACHA20-POLY1305)", cipher[0])
            for weak in (
                "ECDHE+AES+SHA384:ECDHE+AES+SHA256:@SECLEVEL=0",
                "ECDHE+AES+SHA1:@SECLEVEL=0",
                "DHE:@SECLEVEL=0",
            ):
                old.set_ciphers(weak)
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await asked(port, CLOSING, old)

    uvloop.run(run())
