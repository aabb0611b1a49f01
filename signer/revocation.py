"""
Whether a certificate is revoked: for each configured CA the last good CRL is held (crl_watch.py) and asked.

Fails hard: where the status cannot be known, nothing is signed (ETSI TS 119 431-1, SIG-6.3.1-08). What issued a
certificate is the CA of that name *and* key, because a CA's next key may have a CRL of its own. A certificate whose
issuer has no CRL configured is not looked up. Of a chain each is looked up but the root, which could only revoke itself.

All of it belongs to one event loop; only what metrics read (`ages`, `failures`) is read from other threads.
"""

import asyncio
import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pool.public import KeyRefused, load_public_key
from signer.clock import Clock
from signer.config import ConfigError, Crl, Trust
from signer.crl import is_ca, is_listable, points_of
from signer.crl_watch import Issuer, Sleep, Watch
from signer.errors import Refusal

START_S = 10.0  # for the first lists at the daemon's start; past it, it serves without those that are not there yet
CERTIFICATES_KEPT = 10_000  # whose issuer is known: it costs a signature's verification to find out; 1 kB each


def issuers(trust: Trust) -> list[Issuer]:
    """Read the CAs' certificates that the configuration names; raises `ConfigError`."""
    found: list[Issuer] = []
    mistakes: list[str] = []
    names: Counter[str] = Counter()
    spkis: list[tuple[x509.Name, bytes]] = []
    for number, section in enumerate(trust.crl, 1):
        try:
            certificate, spki = _issuing(section)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            mistakes.append(f"crl {number}: issuer: {section.issuer}: {said}")
            continue
        if (certificate.subject, spki) in spkis:
            mistakes.append(f"crl {number}: issuer: {section.issuer}: is the same CA as another's; give each one list")
        spkis.append((certificate.subject, spki))
        name = certificate.subject.rfc4514_string()
        names[name] += 1  # a CA has the same name with its next key
        name = name if names[name] == 1 else f"{name} ({names[name]})"
        max_age = None if section.max_age_h is None else timedelta(hours=section.max_age_h)
        found.append(Issuer(name, certificate, section.file, section.url, max_age))
    if mistakes:
        raise ConfigError(Path("trust"), mistakes)
    return found


def _issuing(section: Crl) -> tuple[x509.Certificate, bytes]:
    """The one certificate of the file, whose key may sign CRLs, and that key; raises ValueError."""
    certificates = x509.load_pem_x509_certificates(section.issuer.read_bytes())
    if len(certificates) != 1:
        raise ValueError(f"has {len(certificates)} certificates; give the one of the CA that signs the CRL")
    (certificate,) = certificates
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:  # it restricts nothing: RFC 5280, 4.2.1.3
        usage = None
    if usage is not None and not usage.crl_sign:
        raise ValueError("its keyUsage does not allow cRLSign; give the certificate of the CA that signs the CRL")
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        load_public_key(spki)
    except KeyRefused as error:
        raise ValueError(f"its key is of a kind that is not taken: {error}") from None
    return certificate, spki


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a certificate is looked up, or why it cannot be."""

    watch: Watch | None
    problem: str = ""
    serial: int = 0
    points: frozenset[str] = frozenset()
    is_ca: bool = False


class Revocations:
    """
    `async with Revocations(...) as revocations:` holds the lists until the end.

    It is entered when each was tried once, or after `START_S`. sleep: waits so many seconds, by the clock. directory: where
    they are kept over a restart; it is made, and is this user's alone. Raises `OSError`.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        directory: Path | None = None,
    ) -> None:
        self._clock = clock or Clock()
        if directory is not None:
            directory.mkdir(mode=0o700, exist_ok=True)
        self._watches = [Watch(issuer, self._clock, sleep, directory) for issuer in issuers]
        self._found = functools.lru_cache(CERTIFICATES_KEPT)(self._find)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(watch.keep(), name="revocation") for watch in self._watches]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                for watch in self._watches:
                    await watch.tried.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, news: Callable[[], None]) -> None:
        """`news` is called when a list is held from now on that may say something else."""
        for watch in self._watches:
            watch.news = news

    def covers(self, certificate: bytes) -> bool:
        """Whether the CA that this certificate (DER) names as its issuer has a list here."""
        return self._found(certificate).watch is not None

    def check(self, certificate: bytes, now: datetime) -> None:
        """
        Raise `Refusal` CERT_REVOKED, or REVOCATION_UNAVAILABLE where that cannot be known; what is not covered passes.

        Costs some microseconds from a certificate's second time on.
        """
        found = self._found(certificate)
        if found.watch is None:
            return
        if found.problem:
            raise Refusal("REVOCATION_UNAVAILABLE", found.problem)
        found.watch.check(found.serial, found.points, now, is_ca=found.is_ca)

    def check_chain(self, chain: Sequence[bytes], now: datetime) -> None:
        """The same for the signer's certificate and those of its issuers behind it."""
        signer, *issuers = chain
        self.check(signer, now)
        for one in issuers:
            try:
                self.check(one, now)
            except Refusal as refusal:
                raise Refusal(refusal.reason, f"a certificate of its issuers: {refusal.detail}") from None

    def ages(self) -> dict[str, float]:
        """By issuer: seconds since thisUpdate of the list that is held; infinite where there is none."""
        now = self._clock.wall()
        return {
            watch.issuer.name: math.inf if watch.held is None else (now - watch.held.this_update).total_seconds()
            for watch in self._watches
        }

    def failures(self) -> dict[str, int]:
        """By issuer: how often no list was had, or a bad one."""
        return {watch.issuer.name: watch.failures for watch in self._watches}

    def problems(self) -> list[str]:
        """What a person must see to, a sentence each."""
        now = self._clock.wall()
        return [problem for watch in self._watches if (problem := watch.said(now))]

    def _find(self, certificate: bytes) -> _Found:
        parsed = x509.load_der_x509_certificate(certificate)
        named = [watch for watch in self._watches if watch.issuer.certificate.subject == parsed.issuer]
        if not named:
            return _Found(None)
        if not is_listable(parsed.serial_number):
            return _Found(named[0], "no CRL can name its serial number, which is negative or longer than 20 bytes")
        for watch in named:
            try:
                parsed.verify_directly_issued_by(watch.issuer.certificate)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
                continue
            if parsed.subject == parsed.issuer and parsed.public_key() == watch.issuer.certificate.public_key():
                return _Found(None)  # a root: it says nothing of itself
            return _Found(watch, "", parsed.serial_number, points_of(parsed), is_ca(parsed))
        return _Found(named[0], "it is signed with a key of its issuer for which no CRL is configured")
