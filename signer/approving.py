"""
Batches for people on the wire: opened by a submitter, shown to the person and signed by her, fetched by the submitter.

The person sees the daemon's copy: what came in, byte for byte, and what was prepared of it, and nothing that the submitter
says of it beyond names. Items are signed as one request for digests, whose id is the batch's.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar

from sqlalchemy import Connection, Engine

from pool import Outcomes, Pin, PinError, Pool, Status
from signer import found, gap, otp, pending, splice
from signer import requests as read
from signer.arrival import Arrival, next_message
from signer.assembly import Assembly
from signer.batch import Ask, Batches
from signer.chain import Kind
from signer.clock import Clock, rfc3339
from signer.cms import Profile, Template
from signer.config import Caller
from signer.consent import Consent
from signer.credential import Credential, Output, certificates_of
from signer.errors import Refusal, code_of
from signer.gate import FACTORS, Factor
from signer.given import Given, source_of
from signer.handlers import Call
from signer.kept import Kept, KeptError
from signer.ledger import Ledger
from signer.limits import ANSWER_BYTES_MAX, DIGESTS_MAX, DOCUMENTS_MAX
from signer.pending import Batch, Item, State
from signer.policy import Policy
from signer.record import DIGESTS
from signer.results import outcomes
from signer.spool import Holdings, Spool
from signer.steady import Steady
from signer.store import reading
from signer.transaction import transactions
from signer.v1 import signing_pb2 as pb

log = logging.getLogger("signer.approving")

LIST_MAX = 100
LOOK_S = 30.0  # for batches whose time is over
OUTCOME_BYTES = 64  # of an item, besides what is shown of it: SignBatch answers with both
_ROOM_BYTES = 1024  # of an answer, besides the batch: link and framing
FINAL = frozenset({Status.SIGNED, Status.FAILED})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opening:
    """What a batch is opened for."""

    request_id: str
    credential: Credential
    output: Output
    algorithm: Any


@dataclass(slots=True)
class _Signing:
    """What a SignBatch makes of its batch: `ended` is how it stands when every item has its outcome."""

    ended: Batch | None = None


class ApprovingService:
    def __init__(
        self,
        pool: Pool,
        engine: Engine,
        ledger: Ledger,
        batches: Batches,
        consent: Consent | None,
        spool: Spool,
        kept: Kept,
        assembly: Assembly,
        policy: Callable[[], Policy],
        credentials: Callable[[], Mapping[str, Credential]],
        clock: Clock,
        steady: Steady,
    ) -> None:
        self._pool = pool
        self._engine = engine
        self._do = transactions(engine)
        self._ledger = ledger
        self._batches = batches
        self._consent = consent
        self._spool = spool
        self._holdings = Holdings(spool)
        self._kept = kept
        self._assembly = assembly
        self._policy = policy
        self._credentials = credentials
        self._clock = clock
        self._steady = steady
        self._being_opened: set[bytes] = set()
        self._being_signed: set[bytes] = set()
        self._checking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # ---- the submitter's

    async def open_batch(self, context: Any, call: Call) -> Any:
        self._people()
        message = await next_message(context, call)
        if message is None or message.WhichOneof("message") != "open":
            raise Refusal("STREAM_ORDER", "the first message is open")
        opening = await self._opening(message.open, call)
        id_, now = uuid.UUID(call.request_id).bytes, self._steady.now()
        items: list[Item] = []
        if id_ in self._being_opened:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        self._being_opened.add(id_)
        try:
            if await self._look(lambda connection: pending.is_known(connection, id_)):
                raise Refusal("IDEMPOTENCY_MISMATCH")
        except BaseException:
            self._being_opened.discard(id_)
            raise
        try:
            while (message := await next_message(context, call)) is not None:
                kind = message.WhichOneof("message")
                if kind == "begin" and not any(not item.input for item in items):
                    with _numbered(len(items)):
                        items.append(await self._document(message.begin, context, call, opening, id_, len(items), now))
                elif kind == "digest" and not any(item.input for item in items):
                    items.append(self._digest(message.digest, opening, len(items)))
                else:
                    raise Refusal("STREAM_ORDER", "after open come documents, or digests")
            batch = self._batch(opening, call, id_, items, now)
            link = await self._do(lambda connection: pending.put(connection, batch, self._steady.now()))
            self._happened(batch, "opened", call.caller)
        except BaseException:
            await asyncio.shield(asyncio.create_task(self._forget(id_)))
            raise
        finally:
            self._being_opened.discard(id_)
        return pb.OpenBatchResponse(batch=_shown(batch), link=link)

    async def list_batches(self, _request: Any, call: Call) -> Any:
        caller, now = call.caller, self._steady.now()
        names = {"consent" if caller.role == "consent" else "caller": caller.name}
        if caller.subject is not None:  # as `_mine` has it: of her program's batches those that are hers
            names["subject"] = caller.subject
        listed = await self._look(lambda connection: pending.named(connection, names, now, LIST_MAX))
        return pb.ListBatchesResponse(batches=[_shown(one) for one in listed])

    # ---- both sides'

    async def get_batch(self, request: Any, context: Any, call: Call) -> None:
        now = self._steady.now()
        if request.link:
            if call.caller.role != "consent":
                raise Refusal("BATCH_UNKNOWN")
            id_ = await self._do(lambda connection: pending.follow(connection, request.link, call.caller.name, now))
            call.request_id = str(uuid.UUID(bytes=id_))
        batch = await self._mine(request.request_id or call.request_id, call)
        if request.link:
            self._happened(batch, "shown", call.caller)
        await context.write(pb.GetBatchResponse(batch=_shown(batch)))
        if request.with_document:
            async for chunk in self._chunks(batch, request.index, call.caller):
                await context.write(pb.GetBatchResponse(chunk=chunk))

    async def cancel_batch(self, request: Any, call: Call) -> Any:
        batch = await self._mine(request.request_id, call)
        now, is_submitter = self._steady.now(), call.caller.role == "submit"
        if is_submitter:
            await self._do(lambda connection: pending.take_back(connection, batch.id, now))
        else:
            await self._do(lambda connection: pending.end(connection, batch.id, State.CANCELLED, now))
        self._happened(batch, "cancelled", call.caller)
        await self._forget(batch.id)
        return pb.CancelBatchResponse(batch=_shown(replace(batch, state=State.CANCELLED)))

    # ---- the person's

    async def sign_batch(self, request: Any, call: Call) -> Any:
        people = self._people()
        batch = await self._mine(request.request_id, call)
        if batch.state is not State.OPEN:
            raise Refusal("BATCH_STATE")
        await self._ledger.check_owner(batch.id, batch.caller)  # before a code or a PIN is spent
        credential = self._credential_of(batch, call)
        owner = self._policy().by_name.get(batch.caller)
        if owner is None:
            raise Refusal("BATCH_UNKNOWN")
        ask = Ask(
            owner, call.request_id, credential, batch.output, batch.algorithm, [item.digest for item in batch.items],
            call.deadline, self._clock.wall(), inputs=() if batch.claimed else [item.input for item in batch.items],
            resume_s=pending.LIFE_S, identify=call.check_again,
        )  # fmt: skip
        self._batches.check(ask)
        self._batches.check_still(ask)  # before a code or a PIN is spent
        async with self._signing(batch) as signing:
            if Factor.PIN in FACTORS[credential.gate]:
                done = await self._with_pin(people, request, call, ask, batch)
            else:
                given = Given.read(request, call.caller)
                reference, _ = await people.authorise(credential, batch.terms(), given, call.caller.name)
                await self._check_files(batch, call.caller)
                done, record = await self._batches.sign(replace(ask, authorisation=reference))
                call.place.at_end(record.release)
            if all(one.status in FINAL for one in done):
                batch = signing.ended = replace(batch, state=State.SIGNED, ends=self._steady.now() + pending.LIFE_S)
        told = [
            pb.SignBatchOutcome(status=one.status.value, reason=one.reason, code=code_of(one.reason)) for one in done
        ]
        return pb.SignBatchResponse(batch=_shown(batch), outcomes=told)

    @contextlib.asynccontextmanager
    async def _signing(self, batch: Batch) -> AsyncIterator["_Signing"]:
        """
        It is SIGNING meanwhile, before a PIN or a code is looked at: of two at one time the second is refused, and spends
        nothing. Raises `Refusal` BATCH_STATE.
        """
        if batch.id in self._being_signed:
            raise Refusal("BATCH_STATE")
        self._being_signed.add(batch.id)
        signing = _Signing()
        try:
            await self._do(lambda connection: pending.begin(connection, batch.id, self._ledger.writer.instance))
            try:
                yield signing
            finally:
                await asyncio.shield(asyncio.create_task(self._step_out(batch, signing.ended)))
        finally:
            self._being_signed.discard(batch.id)

    async def _step_out(self, batch: Batch, ended: Batch | None) -> None:
        if ended is None:
            await self._do(lambda connection: pending.back(connection, batch.id))
        else:
            now = ended.ends - pending.LIFE_S
            await self._do(lambda connection: pending.end(connection, batch.id, State.SIGNED, now))

    async def _with_pin(self, people: Consent, request: Any, call: Call, ask: Ask, batch: Batch) -> Outcomes:
        """On the person's own token, which takes her PIN for as long as this batch needs it."""
        source = source_of(request.source, call.caller)
        try:
            pin = Pin(request.pin) if request.pin else None  # typed at the token's reader, or missing
        except PinError as error:
            raise Refusal("PIN_INCORRECT", str(error)) from None
        timeout_s = ask.deadline - self._clock.monotonic()
        leased = self._pool.lease(
            ask.credential.key.ref, caller=ask.caller.name, pin=pin, timeout_s=timeout_s,
            override=request.override_final_try,
        )  # fmt: skip
        guarded = people.pin_given(ask.credential, len(batch.items), source, override=request.override_final_try)
        async with guarded, leased as lease:
            await self._check_files(batch, call.caller)
            self._batches.check_still(ask)
            reference, _ = await people.allow_with_pin(ask.credential, batch.terms(), call.caller.name)
            done, record = await self._batches.sign(replace(ask, authorisation=reference), lease)
        call.place.at_end(record.release)
        return done

    async def terms_of(self, name: str, call: Call) -> tuple[Credential, Batch]:
        """For a one-time code that is sent for a batch."""
        batch = await self._mine(name, call)
        if batch.state is not State.OPEN:
            raise Refusal("BATCH_STATE")
        await self._ledger.check_owner(batch.id, batch.caller)
        return self._credential_of(batch, call), batch

    # ---- files

    async def erase_left_over(self) -> None:
        """What a crash has left, and what it has left in use; before the first call."""
        await self._reopen()
        await asyncio.to_thread(self._kept.erase_halves)
        living = await self._look(pending.living)
        for id_, size in (await asyncio.to_thread(self._kept.sizes)).items():
            if id_ in living:
                self._holdings.count_again(id_, living[id_], size)
        await self._sweep()

    async def keep_erasing(self) -> None:
        """What no batch needs any more; whatever goes wrong with it is tried again."""
        while True:
            try:
                await self._reopen()
                await self._erase()
                await self._sweep()
            except Exception:
                log.exception("batches that are over are not erased; again in %g s", LOOK_S)
            await asyncio.sleep(LOOK_S)

    async def _erase(self) -> None:
        now = self._steady.now()
        while over := await self._do(lambda connection: pending.erase(connection, now)):
            for id_ in over:
                await self._forget(id_)

    async def _sweep(self) -> None:
        """
        Files that no batch names: another daemon has erased the batch, or its caller left while one was written. Looked at
        in this order, a batch that is opened meanwhile is in one of the three.
        """
        files = {*await asyncio.to_thread(self._kept.sizes), *self._holdings}
        opening = frozenset(self._being_opened)
        for id_ in files - opening - (await self._look(pending.living)).keys():
            await self._forget(id_)

    async def _forget(self, id_: bytes) -> None:
        await asyncio.to_thread(self._kept.erase, id_)
        self._holdings.give_back(id_)

    async def _reopen(self) -> None:
        """The set itself, not a copy: a SignBatch that begins meanwhile is in it before its row says so."""
        instance, at_it = self._ledger.writer.instance, self._being_signed
        await self._do(lambda connection: pending.reopen(connection, instance, at_it))

    async def _check_files(self, batch: Batch, caller: Caller, numbers: Iterable[int] | None = None) -> None:
        """
        What is about to be signed, or handed out, is what was shown; raises `Refusal` AUTHZ_DIGEST. One file at a time for
        each caller: to read and hash what people may keep takes seconds of the machine, and anybody may ask for it.
        """
        if batch.claimed:
            return
        lock = self._checking[caller.name]

        def checked(done: asyncio.Task[None]) -> None:
            lock.release()  # also when nobody waits for it any more: the thread goes on to its end
            _ = done.cancelled() or done.exception()

        for number in range(len(batch.items)) if numbers is None else numbers:
            await lock.acquire()
            check = asyncio.create_task(asyncio.to_thread(self._check_file, batch, number))
            check.add_done_callback(checked)
            await asyncio.shield(check)

    def _check_file(self, batch: Batch, number: int) -> None:
        item, digest = batch.items[number], hashlib.new(self._hash(batch))
        for piece in splice.without(self._pieces(batch, number), item.gap_start, item.gap_end):
            digest.update(piece)
        if digest.digest() != item.digest:
            raise Refusal("AUTHZ_DIGEST", f"item {number} is not as it was prepared")

    def _pieces(self, batch: Batch, number: int) -> Iterator[bytes]:
        try:
            yield from self._kept.pieces(batch.id, number)
        except KeptError as error:
            raise Refusal("AUTHZ_DIGEST", str(error)) from None

    async def _chunks(self, batch: Batch, number: int, caller: Caller) -> AsyncIterator[bytes]:
        """The document as it came in; to the submitter, once it is signed, the signed one (CADES_B_B: the CMS)."""
        if number >= len(batch.items) or batch.claimed:
            raise Refusal("BATCH_UNKNOWN", "there is no such document")
        if batch.state is State.CANCELLED:
            raise Refusal("BATCH_STATE")
        is_original = caller.role == "consent" or (caller.role == "self" and batch.state in {State.OPEN, State.SIGNING})
        if not is_original and batch.state is not State.SIGNED:
            raise Refusal("BATCH_STATE")
        cms = b"" if is_original else await self._cms(batch, number)
        if cms and batch.output is Output.CADES_B_B:
            yield cms
            return
        await self._check_files(batch, caller, [number])
        item, pieces = batch.items[number], self._pieces(batch, number)
        left = item.size if is_original else sys.maxsize
        if cms:
            pieces = splice.over(pieces, item.gap_start + 1, _in_gap(cms, item))
        while left and (piece := await asyncio.to_thread(next, pieces, b"")):
            yield piece[:left]
            left -= len(piece[:left])

    async def _cms(self, batch: Batch, number: int) -> bytes:
        rows = await self._ledger.stored(batch.id, batch.caller, DIGESTS, 1)
        if not rows:
            raise Refusal("REQUEST_UNKNOWN")
        [stored] = rows
        known = outcomes(stored.count, await self._ledger.parts(batch.id, DIGESTS))
        credential = self._credentials().get(batch.credential)
        if credential is not None and credential.chain_hash == stored.chain:
            template_of = credential.template
        else:  # it has another certificate by now
            chain = certificates_of(await self._ledger.certificates(stored.chain))
            template_of = functools.partial(Template, tuple(chain))
        cms = found.value(self._ledger.detail(batch.id, stored), stored, known, template_of, number)
        if not cms:
            raise Refusal(known.problems[number].reason)
        return cms

    def _happened(self, batch: Batch, what: str, caller: Caller) -> None:
        """Written down with its next commit: what it comes to, an authorisation, waits for its own."""
        fields = {
            "request": str(uuid.UUID(bytes=batch.id)),
            "caller": caller.name,
            "credential": batch.credential,
            "subject": batch.subject,
            "what": what,
            "count": len(batch.items),
            "terms": batch.terms().digest().hex(),
        }
        self._ledger.note_soon(Kind.BATCH, fields)

    # ---- reading

    def _people(self) -> Consent:
        if self._consent is None:
            raise Refusal("PEOPLE_NOT_SERVED")
        return self._consent

    async def _opening(self, message: Any, call: Call) -> Opening:
        call.request_id = read.request_id(message.request_id)
        await self._ledger.check_owner(uuid.UUID(call.request_id).bytes, call.caller.name)
        credential = read.credential_of(message.credential, call.caller, self._policy(), self._credentials())
        if not FACTORS[credential.gate]:
            raise Refusal("GATE_MISMATCH", "a seal needs no person: SignDocuments signs with it at once")
        output = read.output(message.output)
        algorithm = read.algorithm(message.signature_algorithm, message.digest_algorithm)
        credential.check(call.accepted)
        credential.check_request(output, algorithm)
        return Opening(call.request_id, credential, output, algorithm)

    async def _document(
        self, begin: Any, context: Any, call: Call, opening: Opening, id_: bytes, number: int, now: float
    ) -> Item:
        """Receive one document, prepare it and keep it."""
        if begin.index != number:
            raise Refusal("STREAM_ORDER", f"documents are numbered as they come: {number} is next")
        if number >= DOCUMENTS_MAX:
            raise Refusal("TOO_MANY_DOCUMENTS")
        if opening.output is Output.RAW:
            raise Refusal("OUTPUT_NOT_ALLOWED", "documents are signed as CADES_B_B or PADES_B_B")
        arrival = Arrival(begin)
        arrival.check_text(opening.credential.gate, call.caller)
        try:
            arrival.open(self._spool, call.caller.name)
            await arrival.receive(context, call)
            if arrival.refusal is not None:
                raise arrival.refusal
            assert arrival.upload is not None
            size, input_ = arrival.upload.size, arrival.upload.sha256
            template = opening.credential.template(opening.algorithm, Profile(opening.output.value))
            prepared = gap.Prepared(b"", 0, 0)
            if opening.output is Output.PADES_B_B:
                fields = {
                    "certificate": opening.credential.certificates[0],
                    "digest": template.digest.value.lower(),
                    "cms_bytes_max": template.bytes_max,
                    "time": int(now),
                    "file_id": gap.file_id(call.caller.name, opening.request_id, str(number)),
                    "reason": arrival.reason,
                    "location": arrival.location,
                }
                file = arrival.upload.file
                prepared = gap.Prepared(*await self._assembly.prepare(call.caller.name, file.fileno(), fields))
                grown = os.fstat(file.fileno()).st_size
                if arrival.upload.is_to_move(grown):
                    await asyncio.to_thread(arrival.upload.move_to_disk)
                arrival.upload.holds(grown)

            self._holdings.take(id_, call.caller.name, arrival.upload.file.seek(0, os.SEEK_END))

            def keep(file: BinaryIO) -> bytes:
                self._kept.put(id_, number, file)
                return gap.content_digest(file, prepared, template.digest.value)

            digest = await asyncio.to_thread(keep, arrival.upload.file)
            return Item(arrival.name, size, input_, digest, prepared.gap_start, prepared.gap_end)
        finally:
            arrival.close()

    @staticmethod
    def _digest(message: Any, opening: Opening, number: int) -> Item:
        if not opening.credential.bounds.claimed:
            raise Refusal("NOT_SEEN")
        if message.input_sha256 or not message.digest:
            raise Refusal("DIGEST_LENGTH", f"item {number}: give its digest, and no input_sha256")
        if number >= DIGESTS_MAX:
            raise Refusal("BATCH_TOO_LARGE", f"at most {DIGESTS_MAX} digests")
        opening.credential.check_item(opening.output, opening.algorithm, message.digest, number)
        return Item(read.text(message.name, "name"), 0, b"", message.digest)

    def _batch(self, opening: Opening, call: Call, id_: bytes, items: list[Item], now: float) -> Batch:
        credential = opening.credential
        if not items:
            raise Refusal("BATCH_EMPTY")
        credential.bounds.check(len(items), datetime.fromtimestamp(now, UTC).hour)
        batch = Batch(
            id=id_,
            caller=call.caller.name,
            subject=credential.subject,
            credential=credential.name,
            key=credential.key.ref,
            output=opening.output,
            algorithm=opening.algorithm,
            claimed=not items[0].input,
            opened=now,
            ends=self._steady.now() + pending.LIFE_S,
            state=State.OPEN,
            consent="",
            items=tuple(items),
        )
        caller, id_text, digests = call.caller, opening.request_id, [item.digest for item in items]
        ask = (caller, id_text, credential, opening.output, opening.algorithm, digests, call.deadline, call.accepted)
        self._batches.check(Ask(*ask))
        batch = replace(batch, count=len(items), digest=batch.terms().digest())
        size = _shown(batch).ByteSize() + len(items) * OUTCOME_BYTES + _ROOM_BYTES
        if size > ANSWER_BYTES_MAX:  # nobody could be shown it
            raise Refusal("BATCH_TOO_LARGE", f"with its names it has {size} bytes, at most {ANSWER_BYTES_MAX}")
        return batch

    async def _mine(self, name: str, call: Call) -> Batch:
        """One answer for a batch that is not there and one that is not this caller's."""
        call.request_id = read.request_id(name)
        id_, now, caller = uuid.UUID(call.request_id).bytes, self._steady.now(), call.caller
        batch = await self._look(lambda connection: pending.get(connection, id_, now))
        owner = {"submit": batch.caller == caller.name, "consent": batch.consent == caller.name}
        if not owner.get(caller.role, batch.subject == caller.subject and batch.caller == caller.name):
            raise Refusal("BATCH_UNKNOWN")
        return batch

    def _credential_of(self, batch: Batch, call: Call) -> Credential:
        """As it is now; with another key than the batch was opened for it is another."""
        credential = read.credential_of(batch.credential, call.caller, self._policy(), self._credentials())
        if (credential.key.ref, credential.subject) != (batch.key, batch.subject):
            raise Refusal("CREDENTIAL_CHANGED")
        return credential

    def _hash(self, batch: Batch) -> str:
        algorithm = batch.algorithm
        return algorithm.hash.value if algorithm.hash else "SHA512"  # Ed25519: RFC 8419, 3.1

    async def _look(self, act: Callable[[Connection], T]) -> T:
        """In a transaction that only reads."""

        def run() -> T:
            with reading(self._engine) as connection:
                return act(connection)

        return await asyncio.to_thread(run)


@contextlib.contextmanager
def _numbered(index: int) -> Iterator[None]:
    """A refusal says which document it is about, as people count: there may be a thousand."""
    try:
        yield
    except Refusal as refusal:
        detail = f"document number {index + 1}" + (f": {refusal.detail}" if refusal.detail else "")
        raise Refusal(refusal.reason, detail, retry_s=refusal.retry_s) from None


def _shown(batch: Batch) -> Any:
    items = [
        pb.BatchItem(name=item.name, size=item.size, input_sha256=item.input, digest=item.digest)
        for item in batch.items
    ]
    return pb.Batch(
        request_id=str(uuid.UUID(bytes=batch.id)),
        state=batch.state.value,
        caller=batch.caller,
        credential=batch.credential,
        subject=batch.subject,
        output=batch.output.value,
        items=items,
        as_claimed=batch.claimed,
        opened=rfc3339(batch.opened),
        expires=rfc3339(batch.ends),
        short_digest=otp.short_digest(batch.digest),
        count=batch.count,
    )


def _in_gap(cms: bytes, item: Item) -> bytes:
    """As it stands in the gap, behind its angle bracket; the rest stays filled with zeros, which readers ignore."""
    room = (item.gap_end - item.gap_start - 2) // 2
    if len(cms) > room:
        raise ValueError(f"the CMS has {len(cms)} bytes and its gap {room}")
    return cms.hex().encode()
