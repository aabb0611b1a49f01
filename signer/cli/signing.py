"""
The ways in which `paraph sign` has files signed, by the gate of the credential.

    caller       each file is sent and comes back signed (SignDocuments)
    code+...     the person is shown the files and types her codes; then the same, with her authorisation
    token-pin    the person is shown the files; they are sent, she types the PIN of her token, and they are fetched

A word of a person is for files of one output: PDFs, and then the others. She is shown both groups before she is asked for
anything. The first is allowed and signed before the second, so that no authorisation grows old while she waits for her
next one-time code; a PIN is typed once.
"""

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from signer import person
from signer.cli import exits, preview, prompt
from signer.cli.codes import Codes
from signer.cli.job import OUTPUTS, Job
from signer.cli.pin import TokenPin
from signer.cli.session import UsageError
from signer.cli.waiting import Waiting
from signer.client import Client, ServiceError, algorithms_for, not_signed
from signer.own_batch import OwnBatch, opened
from signer.person import Shown
from signer.request_id import new_request_id
from signer.v1 import signing_pb2 as pb

_CODES = frozenset({"code+totp", "code+hotp", "code+sent-otp"})
_NOT_ACTIVE = {
    "PENDING": ("CREDENTIAL_PENDING", "first set your secret code: paraph enrol, with the code that was sent to you"),
    "SUSPENDED": ("CREDENTIAL_SUSPENDED", "the operator has suspended it; ask there"),
}


class Signing:
    """One run of the command; `rows` is what has become of each file so far, `exits` what that is to a script."""

    def __init__(self, client: Client, options: argparse.Namespace, credential: Any) -> None:
        self.rows: dict[Job, dict[str, Any]] = {}
        self.exits: list[int] = []  # of files that were not signed
        self._client = client
        self._options = options
        self._credential = credential
        self._waiting = Waiting()
        self._digest, self._signature = algorithms_for(credential, pss=options.pss)

    async def sign(self, jobs: Sequence[Job]) -> None:
        """Raises `ServiceError` where nothing came of all, and `UsageError`."""
        gate, is_pin = self._credential.gate, self._credential.gate == "token-pin"
        if gate not in _CODES | {"caller", "token-pin"}:
            raise UsageError(f"this program does not know the gate {gate!r}; take a newer one")
        if self._options.override_final_try and not is_pin:
            raise UsageError(f"--override-final-try is for the PIN of a token; {self._credential.name} has none")
        if self._options.enveloping and is_pin:
            raise UsageError("a credential with a token's PIN signs beside the file (.p7s); leave out --enveloping")
        if gate == "caller":
            await self._send(jobs)
            return
        prompt.check()
        if self._credential.state in _NOT_ACTIVE:
            raise ServiceError(*_NOT_ACTIVE[self._credential.state], "FAILED_PRECONDITION")
        groups = [group for output in OUTPUTS if (group := [job for job in jobs if job.output == output])]
        shown = [preview.show(self._credential, group) for group in groups]
        if is_pin:
            allow = functools.partial(self._with_pin, TokenPin(self._options, self._credential))
        else:
            allow = functools.partial(self._with_codes, Codes(self._client, self._credential))
            if len(groups) > 1:
                prompt.tell("You are asked for a one-time code for each of the two.")
        for group, files in zip(groups, shown, strict=True):
            try:
                await allow(group, files)
            except ServiceError as error:
                if not error.reason or not self.rows:
                    raise
                self._refused(group, error)

    async def _with_codes(self, codes: Codes, jobs: Sequence[Job], shown: Sequence[Shown]) -> None:
        wanted = person.terms(
            self._credential.name,
            shown,
            output=jobs[0].output,
            digest_algorithm=self._digest,
            signature_algorithm=self._signature,
        )
        await self._send(jobs, await codes.authorise(wanted))

    async def _send(self, jobs: Sequence[Job], authorisation: bytes = b"") -> None:
        """One call for each file; those of one authorisation are one request."""
        request_id = new_request_id() if authorisation else ""
        with _bar("signing", sum(job.source.stat().st_size for job in jobs)) as bar:
            for index, job in enumerate(jobs):
                bar.name(job.source.name)
                is_pdf = job.output == "PADES_B_B"
                began = time.perf_counter()
                try:
                    signed = await self._client.sign_file(
                        self._credential.name,
                        job.source,
                        job.target,
                        output=job.output,
                        digest_algorithm=self._digest,
                        signature_algorithm=self._signature,
                        enveloping=self._options.enveloping and not is_pdf,
                        reason=self._options.reason if is_pdf else "",
                        location=self._options.location if is_pdf else "",
                        authorisation=authorisation,
                        request_id=request_id,
                        index=index if authorisation else 0,
                        progress=bar.advance,
                        wait=self._waiting,
                    )
                except ServiceError as error:
                    if not error.reason:
                        raise  # the daemon is gone, not this document bad
                    self._refused([job], error)
                else:
                    self._waiting.over()
                    took = round((time.perf_counter() - began) * 1e3, 1)
                    row = {"status": "SIGNED", "token": signed.token, "time": signed.signing_time, "ms": took}
                    self.rows[job] = job.row | row

    async def _with_pin(self, pin: TokenPin, jobs: Sequence[Job], shown: Sequence[Shown]) -> None:
        is_pdf = jobs[0].output == "PADES_B_B"
        files = [(job.source, file) for job, file in zip(jobs, shown, strict=True)]
        async with contextlib.AsyncExitStack() as stack:
            with _bar("sending", sum(file.size for file in shown)) as bar:
                batch = await stack.enter_async_context(
                    opened(
                        self._client,
                        self._credential.name,
                        files,
                        output=jobs[0].output,
                        digest_algorithm=self._digest,
                        signature_algorithm=self._signature,
                        reason=self._options.reason if is_pdf else "",
                        location=self._options.location if is_pdf else "",
                        progress=bar.advance,
                    )
                )
            outcomes = await pin.sign(batch)
            with _bar("fetching", None) as bar:
                for index, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
                    await self._fetch(batch, index, job, outcome, bar)

    async def _fetch(self, batch: OwnBatch, index: int, job: Job, outcome: Any, bar: "_Bar") -> None:
        if outcome.status != pb.SIGNED:
            self._refused([job], not_signed(outcome, "this document was not signed"))
            return
        try:
            await batch.fetch(index, job.target, bar.advance)
        except ServiceError as error:
            if not error.reason:
                raise
            self._refused([job], error)
        else:
            self.rows[job] = job.row | {"status": "SIGNED"}

    def _refused(self, jobs: Sequence[Job], error: ServiceError) -> None:
        for job in jobs:
            status = error.status or error.code
            self.rows[job] = job.row | {"status": status, "reason": error.reason, "message": error.message}
            self.exits.append(exits.of(error.reason, error.code, error.status))


class _Bar:
    """Progress on standard error, where that is a terminal; nobody is asked for anything meanwhile."""

    def __init__(self, progress: Progress, total_bytes: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total_bytes)

    def name(self, what: str) -> None:
        self._progress.update(self._task, description=escape(what))

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)


@contextlib.contextmanager
def _bar(what: str, total_bytes: int | None) -> Iterator[_Bar]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = _Bar(progress, total_bytes)
        bar.name(what)
        yield bar
