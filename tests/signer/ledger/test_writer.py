"""How many commits a request costs, and what the ledger can take in a second."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from signer.chain import Kind, Row
from signer.database import Epochs
from signer.entry import Entry
from signer.errors import Refusal
from signer.ledger import Ledger
from signer.record import Record
from tests.daemon import running, until
from tests.disk import Disk
from tests.processes import children
from tests.signer.access.calls import Caller, card_rig, digest, digests, statuses
from tests.signer.ledger.book import kinds, request
from tests.signer.ledger.entries import asked, ledger_on

CHUNK = 256


class Counting:
    """A backend that counts its commits."""

    def __init__(self, backend: Epochs) -> None:
        self._backend = backend
        self.commits = 0

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        self.commits += 1
        self._backend.write(entries, rows)

    def pulse(self) -> None:
        self._backend.pulse()

    def close(self) -> None:
        self._backend.close()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[tuple[Ledger, Counting]]:
    async with ledger_on(tmp_path / "paraph.sqlite", Counting) as made:
        yield made


async def chunk(record: Record, start: int) -> None:
    intent = record.intend(start, start + CHUNK, "card")
    await intent.durable
    intent.settled([os.urandom(70) for _ in range(CHUNK)], {})


async def test_row_4_6_two_commits_a_chunk(ledger: tuple[Ledger, Counting]) -> None:
    """
    Row 4.6: what durability costs is known: two commits for a chunk of a batch and not for a digest, and at least 2 000
    digests a second can be recorded.
    """
    book, counting = ledger
    chunks = 40
    record = await book.enter(asked(chunks * CHUNK), time.monotonic() + 60)
    record.signed = [os.urandom(32) for _ in range(chunks * CHUNK)]
    before, began = counting.commits, time.monotonic()
    for number in range(chunks):
        await chunk(record, number * CHUNK)
    await record.finish(time.monotonic() + 60)
    took = time.monotonic() - began
    record.leave()
    assert counting.commits - before <= 2 * chunks
    assert chunks * CHUNK / took >= 2_000


def test_row_4_6_two_fsyncs_a_chunk() -> None:
    """
    Row 4.6: the fsyncs of a real daemon's committer, counted where they are made: two for a single digest, and at most two
    for each chunk of a batch, not for each digest.
    """
    rig = card_rig("RSA-2048")
    disk = Disk(rig.directory / "disk", "paraph.sqlite", counted=True)
    rig.environment = disk.environment
    with running(rig), Caller(rig) as portal:
        assert rig.process is not None
        [committer] = children(rig.process.pid, "signer.committer")

        def fsyncs(items: list[bytes]) -> tuple[int, int]:
            """How many the request has cost when it was answered; and of how many chunks it was."""
            message = request(digests=items, credential="rsa-2048", signature_algorithm="RSA_PKCS1_V15")
            before = disk.syncs(committer.pid)
            assert set(statuses(portal.sign(message, timeout_s=60))) == {"SIGNED"}
            made = disk.syncs(committer.pid) - before
            until(lambda: kinds(rig, message.request_id)[Kind.RELEASED], 5, "nothing left to be written")
            return made, kinds(rig, message.request_id)[Kind.INTENT]

        fsyncs([digest(0)])
        assert fsyncs([digest(1)]) == (2, 1)
        made, chunks = fsyncs(digests(2_000))
        assert chunks / 2 <= made <= 2 * chunks  # two frames are with a lane: a commit has two INTENTs at the most
        assert chunks < 2_000 / 8


async def test_requests_at_one_time_share_commits(ledger: tuple[Ledger, Counting]) -> None:
    """Of 300 single requests at one time each has its INTENT and OUTCOME on the disk, with far fewer commits."""
    book, counting = ledger

    async def one() -> None:
        record = await book.enter(asked(1), time.monotonic() + 60)
        record.signed = [os.urandom(32)]
        intent = record.intend(0, 1, "card")
        await intent.durable
        intent.settled([os.urandom(70)], {})
        await record.finish(time.monotonic() + 60)
        record.leave()

    await asyncio.gather(*(one() for _ in range(300)))
    assert counting.commits < 60
    assert book.writer.written >= 600


async def test_f56_no_anchor_for_a_day(ledger: tuple[Ledger, Counting]) -> None:
    """
    F56: after 24 h without an anchor nothing is signed: a request is refused before anything of it is written, and the
    ledger is in trouble, which health makes NOT_SERVING (test_storage.py has health following that).
    """
    book, counting = ledger
    book.may_sign = lambda: False
    with pytest.raises(Refusal) as refused:
        await book.enter(asked(1), time.monotonic() + 5)
    assert refused.value.reason == book.trouble == "CHECKPOINT_OVERDUE"
    book.may_sign = lambda: True
    (await book.enter(asked(1), time.monotonic() + 5)).leave()
    assert (book.trouble, counting.commits) == ("", 0)
