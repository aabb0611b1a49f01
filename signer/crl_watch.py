"""
One CA's CRL: had from its file or its URL again and again, read by a process of its own, the last good one held.

    file    looked at every 5 s, read when it has changed
    url     asked for each quarter of the list's remaining life, but once an hour at least and once a minute at most

A list that is bad, or older than the one that is held, never takes its place: it is logged and counted, and what is held
goes on until its end: its nextUpdate, or `max_age` after its thisUpdate where that is earlier. It is kept in a file, so
that it goes on over a restart, too; what is in there is believed no more than what comes from elsewhere.
"""

import asyncio
import hashlib
import logging
import math
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from mmap import MAP_SHARED, PROT_READ, mmap
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pool.process import Child, ChildLost
from signer.clock import Clock, rfc3339
from signer.crl import ON_HOLD, CrlRefused, RevocationList, Whose
from signer.durable import put
from signer.errors import Refusal

log = logging.getLogger("signer.revocation")

LOOK_S = 5.0  # between two looks at a file: a revocation counts from then on
URL_MIN_S, URL_MAX_S = 60.0, 3600.0  # between two requests, also after one that failed; the server is the CA's
LIFE_SHARE = 1 / 4  # of the remaining life: three requests may fail before the list ends
RETRY_S = 60.0  # of a file that was bad and has not changed: what was wrong may have been this host
READ_S = 60.0  # from the process's start to its answer: 16 MiB over a slow line, or a million entries on a busy host
AHEAD = timedelta(minutes=5)  # of thisUpdate before this host's clock: clocks differ
_TLS_ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where the CAs are that servers' certificates are checked against

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA whose certificates are looked up, and where its CRL is: a file, or a URL."""

    name: str  # its subject (RFC 4514), for people and metrics
    certificate: x509.Certificate
    file: Path | None
    url: str | None
    max_age: timedelta | None

    @property
    def place(self) -> str:
        return self.url or str(self.file)


def check_takeable(new: RevocationList, held: RevocationList | None, now: datetime) -> None:
    """Raise `CrlRefused` for a list of the future, or one older than the one that is held."""
    if new.this_update > now + AHEAD:
        raise CrlRefused(f"is of {rfc3339(new.this_update)}, which is yet to come; compare this host's clock")
    if held is not None and (new.number < held.number or new.this_update < held.this_update):
        raise CrlRefused(f"{_of(new)} is older than the one that is held {_of(held)}")


def _of(crl: RevocationList) -> str:
    return f"(number {crl.number}, of {rfc3339(crl.this_update)})"


def pause_s(left: timedelta) -> float:
    """Until a URL is asked for again whose list ends in so long."""
    return min(max(left.total_seconds() * LIFE_SHARE, URL_MIN_S), URL_MAX_S)


class Watch:
    """One issuer: its list, and how it is kept. `directory`: where, over a restart; None: it is not."""

    def __init__(self, issuer: Issuer, clock: Clock, sleep: Sleep, directory: Path | None = None) -> None:
        self.issuer = issuer
        self.held: RevocationList | None = None
        self.failures = 0
        self.tried = asyncio.Event()
        self.news: Callable[[], None] = lambda: None  # called when a list is held that may be another
        self._clock = clock
        self._sleep = sleep
        self._problem = ""  # why the last try failed
        self._modified = ""  # Last-Modified of the list that is held
        self._seen: object = None  # the file as it was tried last
        self._tried_at = -math.inf  # when, monotonic seconds
        der = issuer.certificate.public_bytes(Encoding.DER)
        self._file = None if directory is None else directory / f"{hashlib.sha256(der).hexdigest()}.crl"
        self._is_kept = False  # whether the list that is held is in that file

    def check(self, serial: int, points: frozenset[str], now: datetime, *, is_ca: bool) -> None:
        held = self.held
        if held is None:
            raise Refusal("REVOCATION_UNAVAILABLE", "no CRL of its issuer was had yet")
        if now >= (end := self._end(held)):
            raise Refusal("REVOCATION_UNAVAILABLE", f"the CRL of its issuer ended on {rfc3339(end)}")
        if not held.has_in_scope(points, is_ca=is_ca):
            what = "of another distribution point than its own" if held.whose is Whose.ALL else f"of {held.whose} alone"
            raise Refusal("REVOCATION_UNAVAILABLE", f"the CRL is {what}")
        reason = held.reason(serial)
        if reason is not None:
            raise Refusal("CERT_REVOKED", "on hold" if reason == ON_HOLD else reason)

    def said(self, now: datetime) -> str:
        """What a person must see to, or nothing."""
        why = f": {self._problem}" if self._problem else ""
        if self.held is None:
            return f"{self.issuer.name}: no CRL was had yet{why}. Nothing is signed for its certificates."
        end = self._end(self.held)
        if now >= end:
            return f"{self.issuer.name}: the CRL ended on {rfc3339(end)}{why}. Nothing is signed for its certificates."
        return f"{self.issuer.name}{why}. The CRL that is held ends on {rfc3339(end)}." if why else ""

    async def keep(self) -> None:
        """For ever: try, and wait until the next time."""
        try:
            await self._recall()
        except Exception:
            log.exception("what was kept of %s was not read", self.issuer.name)
        while True:
            try:
                wait_s = await (self._look() if self.issuer.file is not None else self._ask())
            except Exception as error:
                log.exception("the CRL of %s was not read", self.issuer.name)
                self._fails(repr(error))
                wait_s = RETRY_S
            self.tried.set()
            await self._sleep(wait_s)

    async def _recall(self) -> None:
        """Hold what an earlier run has kept, if it is this issuer's and has not ended."""
        if self._file is None:
            return
        try:
            fd, _ = await asyncio.to_thread(_opened, self._file)
        except FileNotFoundError:
            return
        except OSError as error:
            self._ignores(str(error.strerror))
            return
        try:
            answer, _, table = await self._read(fd, "")
        except (TimeoutError, ChildLost, OSError) as error:
            self._ignores(f"the process that reads it failed ({error!r})")
            return
        finally:
            os.close(fd)
        if answer["t"] != "list":
            self._ignores(answer["why"])
            return
        kept, now = _list(answer, table), self._clock.wall()
        try:
            check_takeable(kept, None, now)
        except CrlRefused as refused:
            self._ignores(f"the CRL {refused}")
            return
        if now >= (end := self._end(kept)):
            self._ignores(f"the CRL ended on {rfc3339(end)}")
            return
        self._hold(kept)
        self._is_kept = True

    def _ignores(self, why: str) -> None:
        log.warning("%s: what was kept of it is not taken: %s: %s", self.issuer.name, self._file, why)

    async def _look(self) -> float:
        """At the file; it is read when it is another than before, and where the last try failed, once a minute."""
        assert self.issuer.file is not None
        fd: int | None = None
        seen: object
        try:
            fd, seen = await asyncio.to_thread(_opened, self.issuer.file)
        except OSError as error:
            seen = str(error.strerror)
        try:
            now = self._clock.monotonic()
            if seen != self._seen or (self._problem and now >= self._tried_at + RETRY_S):
                self._seen, self._tried_at = seen, now
                if fd is None:
                    self._fails(f"{self.issuer.file}: {seen}")
                else:
                    await self._try(fd)
        finally:
            if fd is not None:
                os.close(fd)
        return LOOK_S

    async def _ask(self) -> float:
        """For what is at the URL."""
        await self._try(None)
        if self._problem or self.held is None:
            return URL_MIN_S
        return pause_s(self._end(self.held) - self._clock.wall())

    async def _try(self, fd: int | None) -> None:
        """Read the list of the open file, or of the URL, and hold it if it is good."""
        try:
            answer, content, table = await self._read(fd, self.issuer.url or "")
            if answer["t"] == "unchanged":
                self._works()
            elif answer["t"] == "list":
                new = _list(answer, table)
                check_takeable(new, self.held, self._clock.wall())
                self._hold(new)
                self._modified = answer["modified"]
                await self._keep(content)
            else:
                self._fails(f"{self.issuer.place}: {answer['why']}")
        except CrlRefused as refused:
            self._fails(f"{self.issuer.place}: the CRL {refused}")
        except TimeoutError:
            self._fails(f"{self.issuer.place}: was not had and read within {READ_S:g} s")
        except (ChildLost, OSError) as error:
            self._fails(f"{self.issuer.place}: the process that reads it failed ({error})")

    async def _keep(self, content: bytes | mmap) -> None:
        """For the next start; where there is no room, what is held goes on without."""
        if self._file is None or self._is_kept:
            return
        try:
            await asyncio.to_thread(put, self._file, content)
        except OSError as error:
            log.warning("the CRL of %s is not kept for the next start: %s", self.issuer.name, error)
        else:
            self._is_kept = True

    async def _read(self, fd: int | None, url: str) -> tuple[dict[str, Any], bytes | mmap, bytes | mmap]:
        """
        The answer of a process of its own, the list as it came, and the table that was made of it. Raises `ChildLost`,
        TimeoutError, OSError.
        """
        message = {
            "t": "read",
            "issuer": self.issuer.certificate.public_bytes(Encoding.DER),
            "url": url,
            "modified": self._modified,
        }
        outputs = [os.memfd_create("paraph-crl", os.MFD_CLOEXEC)]
        try:
            outputs.append(os.memfd_create("paraph-crl", os.MFD_CLOEXEC))
            environment = {name: os.environ[name] for name in _TLS_ENVIRONMENT if name in os.environ}
            child = await Child.start("signer.crl_reader", environment=environment)
            try:
                answer = await child.ask(message, READ_S, outputs if fd is None else [fd, *outputs])
            finally:
                await child.close()
            content, table = (_mapped(output) for output in outputs)
            return answer, content, table
        finally:
            for output in outputs:
                os.close(output)

    def _hold(self, new: RevocationList) -> None:
        if self.held is None or (new.number, new.this_update) != (self.held.number, self.held.this_update):
            end = rfc3339(self._end(new))
            log.info("the CRL of %s %s has %d entries and ends on %s", self.issuer.name, _of(new), len(new), end)
            self._is_kept = False
        self.held = new
        self._works()
        self.news()

    def _end(self, crl: RevocationList) -> datetime:
        if self.issuer.max_age is None:
            return crl.next_update
        return min(crl.next_update, crl.this_update + self.issuer.max_age)

    def _fails(self, why: str) -> None:
        self.failures += 1
        if why != self._problem:
            log.warning("%s: %s", self.issuer.name, why)
        self._problem = why

    def _works(self) -> None:
        if self._problem:
            log.info("the CRL of %s is had again", self.issuer.name)
        self._problem = ""


def _opened(path: Path) -> tuple[int, tuple[int, int, int]]:
    """The open file, and what changes when it does. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)  # not to block on a pipe
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(0, "is not a regular file")
    return fd, (status.st_ino, status.st_mtime_ns, status.st_size)


def _mapped(fd: int) -> bytes | mmap:
    size = os.fstat(fd).st_size
    return mmap(fd, size, MAP_SHARED, PROT_READ) if size else b""


def _list(answer: dict[str, Any], table: bytes | mmap) -> RevocationList:
    return RevocationList(
        int(answer["number"]),
        datetime.fromtimestamp(answer["this_update"], UTC),
        datetime.fromtimestamp(answer["next_update"], UTC),
        frozenset(answer["points"]),
        Whose(answer["whose"]),
        table,
    )
