"""Revoked, on hold, or not known: lists in files and on servers, read while they change, and a daemon that asks them."""

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, generate_latest

from pool.process import Child
from signer import crl_watch, revocation
from signer.clock import Clock
from signer.config import ConfigError, Trust
from signer.crl_watch import LOOK_S, RETRY_S, URL_MAX_S, URL_MIN_S, pause_s
from signer.errors import Refusal
from signer.metrics import CrlCollector
from signer.revocation import Revocations, issuers
from tests.pki import Authority, pem
from tests.processes import children
from tests.signer.people.crls import BEGIN, HELD, HOUR, crl, long_crl
from tests.signer.people.sites import MONDAY, Site, site
from tests.signer.people.test_crl import URI, point, uri

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
CA = Authority("Issuing")
SIGNER = CA.issue("Signer", KEY, "content_commitment")
DER, SERIAL = SIGNER.public_bytes(Encoding.DER), SIGNER.serial_number
COMPROMISED = x509.ReasonFlags.key_compromise
NAME = "CN=Issuing"


@dataclass
class Hands:
    now: datetime = BEGIN


@dataclass(frozen=True)
class Time(Clock):
    """A clock that a test moves, and the pauses after which lists are had again, which a test ends."""

    hands: Hands = field(default_factory=Hands)
    asked_s: list[float] = field(default_factory=list)  # the pauses so far
    pauses: list[asyncio.Event] = field(default_factory=list)

    def wall(self) -> datetime:
        return self.hands.now

    def monotonic(self) -> float:
        return self.hands.now.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        self.pauses.append(asyncio.Event())
        await self.pauses[-1].wait()

    async def passes(self, by: timedelta = timedelta(seconds=LOOK_S), rounds: int = 1) -> None:
        """The clock goes on, and each list is looked for `rounds` times."""
        self.hands.now += by
        for _ in range(rounds):
            ended = list(self.pauses)
            self.pauses.clear()
            for pause in ended:
                pause.set()
            async with asyncio.timeout(20):
                while len(self.pauses) < len(ended):  # noqa: ASYNC110 -- the work is in other processes
                    await asyncio.sleep(0.002)


@dataclass
class Desk:
    """Revocations over one CA's list, and the time."""

    revocations: Revocations
    time: Time

    def said(self, der: bytes = DER) -> tuple[str, str]:
        """(reason, detail) of the refusal, '' if there is none."""
        return self.said_of([der])

    def said_of(self, chain: list[bytes]) -> tuple[str, str]:
        try:
            self.revocations.check_chain(chain, self.time.wall())
        except Refusal as refusal:
            return refusal.reason, refusal.detail
        return "", ""

    @property
    def failures(self) -> int:
        return sum(self.revocations.failures().values())

    @property
    def problem(self) -> str:
        return "\n".join(self.revocations.problems())


class Files:
    """A directory with the CA's certificate and its list."""

    def __init__(self, directory: Path) -> None:
        self.issuer = directory / "issuing.pem"
        self.issuer.write_bytes(pem(CA.certificate))
        self.list = directory / "issuing.crl"

    def put(self, content: bytes) -> None:
        """In one step, as a timer should."""
        new = self.list.with_suffix(".new")
        new.write_bytes(content)
        new.rename(self.list)

    def trust(self, **section: object) -> Trust:
        place = {} if "url" in section else {"file": self.list}
        return Trust.model_validate({"crl": [{"issuer": self.issuer, **place, **section}]})

    @asynccontextmanager
    async def desk(self, *, kept: Path | None = None, now: datetime = BEGIN, **section: object) -> AsyncIterator[Desk]:
        clock = Time(Hands(now))
        async with Revocations(issuers(self.trust(**section)), clock, clock.sleep, kept) as made:
            yield Desk(made, clock)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# --- the matrix -------------------------------------------------------------------------------------------------------

NEVER = "no CRL of its issuer was had yet"
# what is in the file at the start, and what takes its place; hours that pass; the answer
MATRIX: dict[str, tuple[bytes | None, bytes | None, float, tuple[str, str]]] = {
    "good": (crl(CA, {SERIAL + 1: COMPROMISED}), None, 0, ("", "")),
    "good until its end": (crl(CA), None, 24 - 1 / 3600, ("", "")),
    "revoked": (crl(CA, {SERIAL: COMPROMISED}), None, 0, ("CERT_REVOKED", "keyCompromise")),
    "revoked, nobody says why": (crl(CA, {SERIAL: None}), None, 0, ("CERT_REVOKED", "unspecified")),
    "on hold": (crl(CA, {SERIAL: HELD}), None, 0, ("CERT_REVOKED", "on hold")),
    "hold is over": (crl(CA, {SERIAL: HELD}), crl(CA, number=2), 0, ("", "")),
    "revoked meanwhile": (crl(CA), crl(CA, {SERIAL: None}, number=2), 0, ("CERT_REVOKED", "unspecified")),
    "expired": (crl(CA), None, 24, ("REVOCATION_UNAVAILABLE", "the CRL of its issuer ended on 2026-11-27T12:00:00Z")),
    "expired and revoked": (
        crl(CA, {SERIAL: None}),
        None,
        24,
        ("REVOCATION_UNAVAILABLE", "the CRL of its issuer ended on 2026-11-27T12:00:00Z"),
    ),
    "too old": (
        crl(CA, ends=BEGIN + 900 * HOUR),
        None,
        30,
        ("REVOCATION_UNAVAILABLE", "the CRL of its issuer ended on 2026-11-27T18:00:00Z"),
    ),
    "missing": (None, None, 0, ("REVOCATION_UNAVAILABLE", NEVER)),
    "garbage": (b"no list", None, 0, ("REVOCATION_UNAVAILABLE", NEVER)),
    "wrong signer": (crl(CA, key=Authority("Issuing").key), None, 0, ("REVOCATION_UNAVAILABLE", NEVER)),
    "wrong signer later": (crl(CA, {SERIAL: HELD}), crl(CA, number=2, key=Authority("I").key), 0, ("CERT_REVOKED", "on hold")),
    "rolled back by number": (crl(CA, {SERIAL: HELD}, number=8), crl(CA, number=7), 0, ("CERT_REVOKED", "on hold")),
    "rolled back by time": (
        crl(CA, {SERIAL: HELD}, number=8),
        crl(CA, number=9, begins=BEGIN - HOUR),
        0,
        ("CERT_REVOKED", "on hold"),
    ),
    "of the future": (crl(CA, begins=BEGIN + HOUR / 10), None, 0, ("REVOCATION_UNAVAILABLE", NEVER)),
}  # fmt: skip


@pytest.mark.parametrize("case", MATRIX)
async def test_matrix(files: Files, case: str) -> None:
    """F36: a certificate that is revoked or on hold is refused with CERT_REVOKED, and where nobody knows, for want of a
    good list that is not too old, with REVOCATION_UNAVAILABLE; a bad list never takes the place of a good one."""
    first, second, hours, answer = MATRIX[case]
    if first is not None:
        files.put(first)
    async with files.desk(max_age_h=30) as desk:
        bad = answer == ("REVOCATION_UNAVAILABLE", NEVER)
        assert desk.failures == bad
        if second is not None:
            files.put(second)
            await desk.time.passes()
            assert desk.failures == ("rolled" in case or "wrong" in case)
        desk.time.hands.now += hours * HOUR
        assert [desk.said(), desk.said()] == [answer, answer]
        assert bool(desk.problem) == (bad or bool(desk.failures) or hours >= 24), desk.problem


async def test_who_is_covered(files: Files, tmp_path: Path) -> None:
    """
    A certificate belongs to the list of the CA that has signed it. Another CA's is not looked up; one that this CA has
    signed with a key without a list is refused, for nobody knows which list would name it.
    """
    files.put(crl(CA, {SERIAL: COMPROMISED}))
    next_key = Authority("Issuing")
    theirs = Authority("Other").issue("Signer", KEY, "content_commitment").public_bytes(Encoding.DER)
    later = next_key.issue("Signer", KEY, "content_commitment").public_bytes(Encoding.DER)
    async with files.desk() as desk:
        covered = [desk.revocations.covers(der) for der in (DER, theirs, later)]
        assert covered == [True, False, True]
        assert desk.said() == ("CERT_REVOKED", "keyCompromise")
        assert desk.said(theirs) == ("", "")
        without = ("REVOCATION_UNAVAILABLE", "it is signed with a key of its issuer for which no CRL is configured")
        assert desk.said(later) == without
    (tmp_path / "next.pem").write_bytes(pem(next_key.certificate))
    (tmp_path / "next.crl").write_bytes(crl(next_key, {SERIAL: COMPROMISED}))
    sections = [
        {"issuer": files.issuer, "file": files.list},
        {"issuer": tmp_path / "next.pem", "file": tmp_path / "next.crl"},
    ]
    clock = Time()
    async with Revocations(issuers(Trust.model_validate({"crl": sections})), clock, clock.sleep) as both:
        desk = Desk(both, clock)
        assert [desk.said(), desk.said(later)] == [("CERT_REVOKED", "keyCompromise"), ("", "")]
        assert both.ages() == {NAME: 0.0, f"{NAME} (2)": 0.0}


async def test_a_list_of_one_distribution_point(files: Files) -> None:
    """A list that says nothing of a certificate, because it is of another distribution point, is no pass for it."""
    files.put(crl(CA, more=[(point(full_name=[uri()]), True)]))
    async with files.desk() as desk:
        assert desk.revocations.ages() == {NAME: 0.0}
        assert desk.said() == ("REVOCATION_UNAVAILABLE", "the CRL is of another distribution point than its own")
        crl_point = x509.CRLDistributionPoints([x509.DistributionPoint([uri(URI)], None, None, None)])
        assert desk.said(_with(crl_point)) == ("", "")


ROOT = Authority("Root")
MIDDLE = Authority("Middle", ROOT)
LEAF = MIDDLE.issue("Signer", KEY, "content_commitment")
CHAIN = [one.public_bytes(Encoding.DER) for one in (LEAF, MIDDLE.certificate, ROOT.certificate)]
OF_ISSUER = "a certificate of its issuers: "
# of the root's list: what it revokes, whose it is; the answer
CHAINS: dict[str, tuple[dict[int, x509.ReasonFlags | None], dict[str, object], tuple[str, str]]] = {
    "good": ({LEAF.serial_number: None}, {}, ("", "")),
    "the issuer is revoked": ({MIDDLE.certificate.serial_number: COMPROMISED}, {}, ("CERT_REVOKED", "keyCompromise")),
    "it is, in a list of CAs": (
        {MIDDLE.certificate.serial_number: None},
        {"only_contains_ca_certs": True},
        ("CERT_REVOKED", "unspecified"),
    ),
    "a list of users": (
        {},
        {"only_contains_user_certs": True},
        ("REVOCATION_UNAVAILABLE", "the CRL is of users alone"),
    ),
    "the root is revoked": ({ROOT.certificate.serial_number: COMPROMISED}, {}, ("", "")),
}


@pytest.mark.parametrize("case", CHAINS)
async def test_issuers_are_looked_up(files: Files, case: str) -> None:
    """
    F36: each certificate of a chain but the root is looked up where its issuer has a list: a revoked issuer is CERT_REVOKED,
    and a list of users' certificates alone says nothing of it.
    """
    revoked, whose, (reason, detail) = CHAINS[case]
    files.issuer.write_bytes(pem(ROOT.certificate))
    files.put(crl(ROOT, revoked, more=[(point(**whose), True)] if whose else ()))
    async with files.desk() as desk:
        assert desk.failures == 0
        assert desk.said_of(CHAIN[:2]) == desk.said_of(CHAIN) == (reason, detail and OF_ISSUER + detail)


async def test_a_list_of_cas_is_none_for_a_signer(files: Files) -> None:
    """A list of CAs' certificates alone says nothing of a signer's: it does not pass."""
    files.put(crl(CA, more=[(point(only_contains_ca_certs=True), True)]))
    async with files.desk() as desk:
        assert desk.said() == ("REVOCATION_UNAVAILABLE", "the CRL is of CAs alone")


async def test_a_serial_number_that_no_list_names(files: Files) -> None:
    """A certificate whose serial number is longer than RFC 5280 allows could not be listed, so it does not pass."""
    files.put(crl(CA))
    der = DER.replace(_integer(SERIAL), b"\2\x15" + b"\1" * 21)
    # The lengths round it are those of two or so bytes more; its signature is wrong, and not even looked at.
    shift = len(der) - len(DER)
    der = bytes((*der[:2], *(int.from_bytes(der[2:4], "big") + shift).to_bytes(2, "big"), *der[4:6])) + (
        (int.from_bytes(der[6:8], "big") + shift).to_bytes(2, "big") + der[8:]
    )
    assert x509.load_der_x509_certificate(der).serial_number.bit_length() > 160
    async with files.desk() as desk:
        reason, detail = desk.said(der)
        assert (reason, "no CRL can name its serial number" in detail) == ("REVOCATION_UNAVAILABLE", True)


def _integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(content))) + content


def _with(extension: x509.ExtensionType) -> bytes:
    """The signer's certificate with an extension more."""
    from cryptography.hazmat.primitives import hashes

    builder = x509.CertificateBuilder().subject_name(SIGNER.subject).issuer_name(CA.name).serial_number(SERIAL)
    builder = builder.public_key(KEY).not_valid_before(SIGNER.not_valid_before_utc)
    builder = builder.not_valid_after(SIGNER.not_valid_after_utc).add_extension(extension, critical=False)
    return builder.sign(CA.key, hashes.SHA256()).public_bytes(Encoding.DER)


async def test_a_check_costs_microseconds(files: Files) -> None:
    """From its second time on a certificate costs less than 100 us, measured 8 us: nothing is parsed or verified."""
    files.put(crl(CA, dict.fromkeys(range(1, 500))))
    async with files.desk() as desk:
        desk.revocations.check(DER, BEGIN)
        begin = time.process_time()
        for _ in range(2_000):
            desk.revocations.check(DER, BEGIN)
        assert (time.process_time() - begin) / 2_000 < 100e-6


# --- a file that changes ----------------------------------------------------------------------------------------------


async def test_a_file_is_read_when_it_changes(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at every five seconds and read only when it is another; each read is in a process that is gone after."""
    started: list[int] = []
    start = Child.start

    async def counted(*args: str, **more: object) -> Child:
        child = await start(*args, **more)  # type: ignore[arg-type]
        started.append(child.pid)
        return child

    monkeypatch.setattr(crl_watch.Child, "start", counted)
    files.put(crl(CA))
    async with files.desk() as desk:
        await desk.time.passes(rounds=3)
        assert len(started) == 1
        for revoked in ({SERIAL: HELD}, {}, {SERIAL: None}):
            files.put(crl(CA, revoked, number=len(started) + 1))
            await desk.time.passes(rounds=2)
            assert desk.said()[0] == ("CERT_REVOKED" if revoked else "")
        assert len(started) == 4
        assert set(desk.time.asked_s) == {LOOK_S}
        assert children(os.getpid(), "signer.crl_reader") == []


async def test_bad_files_one_after_the_other(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """While the file is a part of one, gone, a directory, a pipe, empty, or unreadable, the good list goes on."""
    caplog.set_level(logging.INFO, "signer.revocation")
    good = crl(CA, {SERIAL: HELD})
    files.put(good)

    def half() -> None:
        files.list.write_bytes(good[:80])

    def pipe() -> None:
        files.list.rmdir()
        os.mkfifo(files.list)

    def empty() -> None:
        files.list.unlink()
        files.list.touch()

    def huge() -> None:
        with files.list.open("wb") as file:
            file.truncate(64 * 1024 * 1024 + 1)

    steps: list[tuple[Callable[[], object], str]] = [
        (half, "the CRL cannot be read"),
        (files.list.unlink, "No such file or directory"),
        (files.list.mkdir, "is not a regular file"),
        (pipe, "is not a regular file"),
        (empty, "the CRL cannot be read"),
        (huge, "the CRL has more than 67108864 bytes"),
    ]
    async with files.desk() as desk:
        for count, (step, expected) in enumerate(steps, 1):
            step()
            await desk.time.passes(rounds=2)
            # A pipe for a directory is the same problem, told once; the others are each counted when they are seen.
            assert desk.failures == count - (count > 3)
            assert f"{files.list}" in desk.problem
            assert expected in desk.problem
            assert "The CRL that is held ends on 2026-11-27T12:00:00Z." in desk.problem
            assert desk.said() == ("CERT_REVOKED", "on hold")
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == desk.failures == len(steps) - 1
        files.put(crl(CA, number=2))
        await desk.time.passes()
        assert (desk.said(), desk.problem) == (("", ""), "")
        assert f"the CRL of {NAME} is had again" in caplog.text


async def test_a_bad_file_is_tried_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was wrong may have been this host: the same file is tried again, once a minute, and logged once. Five minutes
    of thisUpdate before its clock are let pass, more are not; a process that does not start is a failure, and no end."""
    late = timedelta(minutes=7)
    files.put(crl(CA, begins=BEGIN + late))
    async with files.desk() as desk:
        assert "is of 2026-11-26T12:07:00Z, which is yet to come" in desk.problem
        await desk.time.passes(timedelta(seconds=RETRY_S - 1))
        assert desk.failures == 1
        await desk.time.passes(timedelta(seconds=1))
        assert (desk.failures, caplog.text.count("yet to come")) == (2, 1)
        await desk.time.passes(timedelta(seconds=RETRY_S))
        assert (desk.failures, desk.said(), desk.problem) == (2, ("", ""), "")
        with monkeypatch.context() as patch:
            patch.setattr(crl_watch.Child, "start", _no_process)
            files.put(crl(CA, {SERIAL: HELD}, number=2, begins=BEGIN + late))
            await desk.time.passes()
            assert "the process that reads it failed" in desk.problem
        assert desk.said() == ("", "")
        await desk.time.passes(timedelta(seconds=RETRY_S))
        assert (desk.said(), desk.problem) == (("CERT_REVOKED", "on hold"), "")


async def _no_process(*_: object, **__: object) -> Child:
    raise BlockingIOError(11, "Resource temporarily unavailable")


async def test_the_loop_goes_on(files: Files) -> None:
    """While a list of 60 000 entries (3 MB) is read and looked up, the process that serves computes for no 50 ms on end."""
    files.put(crl(CA))
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.process_time()  # of all threads: it goes on while one of them holds the interpreter
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - before)

    content = long_crl(CA, 60_000)
    async with files.desk() as desk:
        files.put(content)
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        await desk.time.passes()
        assert desk.said() == ("", "")
        assert desk.failures == 0
        ticking.cancel()
    assert 0 < longest < 0.05


# --- a server ---------------------------------------------------------------------------------------------------------


async def test_a_server(files: Files) -> None:
    """The list is asked for again with the date of the one that is held; 304 is an answer, and a newer one takes its place."""
    with site() as server:
        server.content, server.headers = crl(CA), {"Last-Modified": MONDAY}
        async with files.desk(url=f"{server.url}/a.crl") as desk:
            assert desk.said() == ("", "")
            server.status, server.content = 304, b""
            await desk.time.passes()
            assert (desk.failures, desk.problem) == (0, "")
            server.status, server.content, server.headers = 200, crl(CA, {SERIAL: HELD}, number=2), {}
            await desk.time.passes(6 * HOUR, rounds=2)
            assert desk.said() == ("CERT_REVOKED", "on hold")
            assert desk.time.asked_s == [URL_MAX_S] * 4
            desk.time.hands.now = BEGIN + 22 * HOUR
            await desk.time.passes()
            assert desk.time.asked_s[-1] == pause_s(2 * HOUR - timedelta(seconds=LOOK_S))
        assert server.asked == [("/a.crl", None), *[("/a.crl", MONDAY)] * 2, *[("/a.crl", None)] * 2]


def test_how_often_a_server_is_asked() -> None:
    """A quarter of the remaining life of the list, but an hour at most, and a minute at least."""
    lives = {400.0: URL_MAX_S, 4.0: URL_MAX_S, 2.0: 1800.0, 1.0: 900.0, 0.1: 90.0, 0.05: URL_MIN_S, -1.0: URL_MIN_S}
    assert {life_h: pause_s(life_h * HOUR) for life_h in lives} == lives


def _spoil(server: Site, case: str) -> None:
    if case == "500":
        server.status = 500
    elif case == "garbage":
        server.content = b"<html>The list has moved.</html>"
    elif case == "endless":
        server.is_endless = True
    elif case == "silent":
        server.is_silent = True
    elif case == "file":
        server.goes = {"/": "file:///etc/hostname"}
    elif case == "older":
        server.content = crl(CA, number=6)


SPOILT = {
    "500": "the server answered 500",
    "garbage": "the CRL cannot be read",
    "endless": "the server sent more than 16777216 bytes",
    "silent": "was not had and read within 1 s",
    "file": "redirects to what is no http or https URL",
    "older": "the CRL (number 6, of 2026-11-26T12:00:00Z) is older than the one that is held (number 7, of",
}


@pytest.mark.parametrize("case", SPOILT)
async def test_a_server_that_fails(files: Files, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """
    F37: a list that cannot be had, or not in time, or that is a wrong one, is REVOCATION_UNAVAILABLE once the last good
    one has ended, and not before; it is asked for again within a minute, and then all is well.
    """
    with site() as server:
        server.content = crl(CA, {SERIAL: HELD}, number=7)
        async with files.desk(url=f"{server.url}/") as desk:
            with monkeypatch.context() as patch:
                if case == "silent":
                    patch.setattr(crl_watch, "READ_S", 1.0)
                _spoil(server, case)
                await desk.time.passes()
            assert SPOILT[case] in desk.problem
            assert desk.failures == 1
            assert desk.time.asked_s[-1] == URL_MIN_S
            assert desk.said() == ("CERT_REVOKED", "on hold")
            assert children(os.getpid(), "signer.crl_reader") == []
            desk.time.hands.now = BEGIN + 24 * HOUR
            assert desk.said()[0] == "REVOCATION_UNAVAILABLE"
            assert "Nothing is signed for its certificates" in desk.problem
            server.status, server.goes = 200, {}
            server.is_endless = server.is_silent = False
            server.content = crl(CA, number=8, ends=BEGIN + 48 * HOUR)
            await desk.time.passes()
            assert (desk.said(), desk.problem) == (("", ""), "")


async def test_start_and_end_wait_for_no_server(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing holds up neither the daemon's start, past its time for that, nor its end."""
    monkeypatch.setattr(revocation, "START_S", 0.05)
    with site() as server:
        server.is_silent = True
        begin = time.monotonic()
        async with files.desk(url=server.url) as desk:
            assert desk.said() == ("REVOCATION_UNAVAILABLE", NEVER)
            assert desk.revocations.ages() == {NAME: math.inf}
            assert f"{NAME}: no CRL was had yet." in desk.problem
        assert time.monotonic() - begin < 5
        assert children(os.getpid(), "signer.crl_reader") == []


# --- a restart --------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def kept_file(kept: Path) -> Path:
    [file] = kept.iterdir()
    return file


async def test_a_restart_while_the_server_is_away(files: Files, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    F37: the last good list is kept over a restart: while its server is away what it revokes is refused, and the rest is
    signed, until its end; then nobody knows. The file is the daemon's user's alone, and is not written again for the same
    list.
    """
    other = CA.issue("Other", KEY, "content_commitment").public_bytes(Encoding.DER)
    with site() as server:
        server.content = crl(CA, {SERIAL: COMPROMISED}, number=7)
        async with files.desk(kept=kept, url=server.url) as desk:
            file = kept_file(kept)
            assert (file.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o600, 0o700)
            assert file.read_bytes() == server.content
            written = file.stat()
            await desk.time.passes()
            assert file.stat() == written
        server.status = 500
        async with files.desk(kept=kept, now=BEGIN + HOUR, url=server.url) as desk:
            assert [desk.said(), desk.said(other)] == [("CERT_REVOKED", "keyCompromise"), ("", "")]
            assert "the server answered 500. The CRL that is held ends on 2026-11-27T12:00:00Z." in desk.problem
            assert desk.revocations.ages() == {NAME: 3600.0}
            desk.time.hands.now = BEGIN + 24 * HOUR
            assert desk.said(other)[0] == "REVOCATION_UNAVAILABLE"
            server.status, server.content = 200, crl(CA, number=8, ends=BEGIN + 48 * HOUR)
            await desk.time.passes()
            assert desk.said() == ("", "")
            assert kept_file(kept).read_bytes() == server.content
    assert "is not taken" not in caplog.text


KEPT_BAD = {
    "tampered": (crl(CA)[:-1] + bytes([crl(CA)[-1] ^ 1]), 0, ""),
    "foreign": (crl(Authority("Other")), 0, "is of another issuer: CN=Other"),
    "of the same name": (crl(CA, key=Authority("Issuing").key), 0, ""),
    "garbage": (b"no list", 0, "cannot be read"),
    "empty": (b"", 0, "cannot be read"),
    "ended": (crl(CA), 24, "the CRL ended on 2026-11-27T12:00:00Z"),
    "too old": (crl(CA, ends=BEGIN + 900 * HOUR), 30, "the CRL ended on 2026-11-27T18:00:00Z"),
    "of the future": (crl(CA, begins=BEGIN + HOUR), 0, "which is yet to come"),
}


@pytest.mark.parametrize("case", KEPT_BAD)
async def test_what_was_kept_is_not_believed(
    files: Files, kept: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """F37: a kept file that was changed, is another CA's, has ended or is no list at all is ignored, with a line in the log."""
    files.put(crl(CA))
    async with files.desk(kept=kept):
        pass
    files.list.unlink()
    content, hours, why = KEPT_BAD[case]
    kept_file(kept).write_bytes(content)
    async with files.desk(kept=kept, now=BEGIN + hours * HOUR, max_age_h=30) as desk:
        assert desk.said() == ("REVOCATION_UNAVAILABLE", NEVER)
    [line] = [record.getMessage() for record in caplog.records if "what was kept of it is not taken" in record.message]
    assert str(kept_file(kept)) in line
    assert why in line


async def test_what_was_kept_is_no_file(files: Files, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What else has the file's name is ignored, too, and what comes from the CA is held all the same, and told as not kept."""
    files.put(crl(CA))
    async with files.desk(kept=kept):
        pass
    file = kept_file(kept)
    file.unlink()
    file.mkdir()
    async with files.desk(kept=kept) as desk:
        assert desk.said() == ("", "")
    assert "is not taken" in caplog.text
    assert f"the CRL of {NAME} is not kept for the next start" in caplog.text


async def test_older_than_what_was_kept(files: Files, kept: Path) -> None:
    """A restart is no way back to an older list: what was kept is held, and the older one refused."""
    files.put(crl(CA, {SERIAL: HELD}, number=8))
    async with files.desk(kept=kept):
        pass
    files.put(crl(CA, number=7))
    async with files.desk(kept=kept) as desk:
        assert desk.said() == ("CERT_REVOKED", "on hold")
        assert "is older than the one that is held" in desk.problem


async def test_no_room_for_what_is_kept(
    files: Files, kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the list cannot be written down it is held all the same, and written once there is room."""
    with site() as server, monkeypatch.context() as patch:

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        server.content = crl(CA)
        patch.setattr("signer.durable.os.fsync", full)
        async with files.desk(kept=kept, url=server.url) as desk:
            assert (desk.said(), desk.problem) == (("", ""), "")
            assert "is not kept for the next start" in caplog.text
            assert list(kept.glob("*.crl")) == []
            patch.undo()
            await desk.time.passes()
            assert len(list(kept.glob("*.crl"))) == 1


# --- what operators see and write -------------------------------------------------------------------------------------


async def test_metrics(files: Files) -> None:
    """Age and failures are told by issuer; where no list is held, the age has no end."""
    async with files.desk() as desk:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(CrlCollector(desk.revocations))
        assert f'paraph_crl_age_seconds{{issuer="{NAME}"}} +Inf' in generate_latest(registry).decode()
        files.put(crl(CA))
        await desk.time.passes(HOUR)
        text = generate_latest(registry).decode()
        assert f'paraph_crl_age_seconds{{issuer="{NAME}"}} 3600.0' in text
        assert f'paraph_crl_failures_total{{issuer="{NAME}"}} 1.0' in text


def test_issuers_that_cannot_be_used(files: Files, tmp_path: Path) -> None:
    """Each mistake in the CAs' certificates is named with its section, all at once."""
    curve = ec.generate_private_key(ec.SECP256K1()).public_key()
    contents = {
        "good": pem(CA.certificate),
        "no certificate": b"junk",
        "two": pem(CA.certificate, Authority("Root").certificate),
        "no cRLSign": pem(CA.issue("Issuing", KEY, "key_cert_sign")),
        "kind of key": pem(CA.issue("Issuing", curve, "crl_sign")),
        "twice": pem(CA.certificate),
    }
    sections = [{"issuer": tmp_path / "missing.pem", "file": files.list}]
    for name, content in contents.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
        sections.append({"issuer": tmp_path / f"{name}.pem", "file": files.list})
    with pytest.raises(ConfigError) as error:
        issuers(Trust.model_validate({"crl": sections}))
    expected = [
        ("crl 1: issuer", "missing.pem", "No such file"),
        ("crl 3: issuer", "no certificate.pem", ""),
        ("crl 4: issuer", "two.pem", "has 2 certificates; give the one of the CA that signs the CRL"),
        ("crl 5: issuer", "no cRLSign.pem", "its keyUsage does not allow cRLSign"),
        ("crl 6: issuer", "kind of key.pem", "its key is of a kind that is not taken"),
        ("crl 7: issuer", "twice.pem", "is the same CA as another's"),
    ]
    assert len(error.value.mistakes) == len(expected)
    for words, mistake in zip(expected, error.value.mistakes, strict=True):
        assert all(word in mistake for word in words), mistake
    assert issuers(Trust()) == []
