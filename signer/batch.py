"""
From what a caller asked to what the token signed: the one call site for callers' work.

A digest goes in, a signature or a CMS comes out. With CADES_B_B and PADES_B_B the digest is the document's, and what
the key signs are the signed attributes that are built here. All of it is in the ledger before it happens, and what was
signed before it is answered.
"""

import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import TypeVar

from pool import REASONS, Algorithm, Lease, Outcome, Outcomes, Pool, PoolError, Status, Unavailable
from signer import group
from signer.chain import items_hash
from signer.chained import Chains
from signer.clock import Clock, rfc3339
from signer.cms import Attributes, Profile, Template
from signer.config import Caller
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.gate import FACTORS
from signer.ledger import Ledger
from signer.limits import DIGESTS_MAX
from signer.pieces import in_pieces
from signer.record import DIGESTS, RESUME_S, Asked, Record
from signer.revocation import Revocations
from signer.steady import Steady

T = TypeVar("T")


def _nobody_asks() -> None:
    """Of an ask that no call has brought."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for signatures, or one document of one, checked as far as it can be without a token."""

    caller: Caller
    request_id: str
    credential: Credential
    output: Output
    algorithm: Algorithm
    digests: Sequence[bytes]  # for Ed25519 with RAW the messages; of a document not known before it is prepared
    deadline: float  # of the monotonic clock, seconds
    accepted: datetime
    item: int = DIGESTS  # a document's index
    document: bytes = b""  # its SHA-256 as it came
    more: tuple[str, ...] = field(default=())  # what else makes the answer what it is: reason, location, form
    authorisation: bytes = field(default=b"", repr=False)  # the reference of one; a seal has none
    inputs: Sequence[bytes] = ()  # of documents that were prepared here: each one's SHA-256 as it came
    resume_s: float = RESUME_S  # of a batch that waits for a person: as long as it does
    login: bytes = b""  # of a statement: what the person has allowed, which is all of it but its time
    group: str = ""  # by whose name the caller has asked; then `credential` is one of its members
    others: tuple[Credential, ...] = ()  # who may sign instead, as long as nothing was attempted
    # Raises `Refusal` where the call is its caller's no more.
    identify: Callable[[], object] = field(default=_nobody_asks, repr=False, compare=False)

    @property
    def id(self) -> bytes:
        return bytes.fromhex(self.request_id.replace("-", ""))

    def asked(self) -> Asked:
        """What the ledger knows it by: the same request again is equal to it."""
        what, algorithm, scheme, hash_ = _what(self.group or self.credential.name, self.output, self.algorithm)
        body = what + "".join(f"\0{each}" for each in self.more).encode()
        if self.item == DIGESTS:
            body += b"\0digests\0" + items_hash(self.digests).encode()
        else:
            body += b"\0document\0" + self.document
        digests = [] if self.output.is_bare else self.digests
        return Asked(
            id=self.id,
            item=self.item,
            caller=self.caller.name,
            credential=self.credential.name,
            key=self.credential.key.ref,
            output=self.output.value,
            algorithm=algorithm,
            body=hashlib.sha256(body).digest(),
            certificates=self.credential.chain,
            chain=self.credential.chain_hash,
            detail=[scheme, hash_, digests],
            count=len(self.digests) if self.item == DIGESTS else 1,
            resume_s=self.resume_s,
        )


@lru_cache(maxsize=1024)  # of the credentials that were asked for last
def _what(name: str, output: Output, algorithm: Algorithm) -> tuple[bytes, str, str, str]:
    """What the requests for one thing have in common: their bodies' beginning, and the algorithm as the ledger has it."""
    what = f"{name}\0{output}\0{algorithm}".encode()
    return what, str(algorithm), algorithm.scheme.value, algorithm.hash.value if algorithm.hash else ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who has allowed a request, by which authorisation (its SHA-256; empty for a seal), and for how long still."""

    subject: str
    authorisation: bytes
    left_s: float


class Batches:
    """
    Signs asks. Raises what the pool raises, and `Refusal`, when nothing was attempted. `redeem` gives an authorisation to
    the request that asks with it, or raises `Refusal`; `still` raises one for an ask that would be refused by now.
    """

    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        clock: Clock,
        redeem: Callable[[Ask], Awaitable[Allowed]],
        revocations: Revocations,
        roots: Callable[[], tuple[bytes, ...]],
        still: Callable[[Ask], None],
        steady: Steady,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._clock = clock
        self._redeem = redeem
        self._revocations = revocations
        self._chains, self._roots = Chains(), roots
        self._still = still
        self._steady = steady
        self._at_work: dict[Record, Ask] = {}
        self._revoked = 0  # so often something was taken away

    def revoke(self) -> None:
        """Something was taken away: what has to do with it stops at the next item, and says why."""
        self._revoked += 1
        for record, ask in self._at_work.items():
            try:
                self._still(ask)
            except Refusal as refusal:
                record.revoked = record.revoked or refusal.reason
        self._pool.revoke()

    def check_still(self, ask: Ask) -> None:
        """Raise `Refusal` for one that would be refused by now, after something that took long."""
        self._still(ask)

    async def by_who_can(self, ask: Ask, sign: Callable[[Ask], Awaitable[T]]) -> T:
        """
        What `sign` answers for the first member of a group that can, asked one after the other as long as nothing was
        attempted with any; of a credential by itself, for that one. Raises the first one's error where none can.
        """
        problem: Exception | None = None
        revoked = self._revoked
        for credential in (ask.credential, *ask.others):
            one = replace(ask, credential=credential, others=()) if ask.group else ask
            try:
                if revoked != self._revoked:  # while the member before was asked
                    self._still(one)
                return await sign(one)
            except (PoolError, Refusal) as error:
                if not ask.group or not group.may_go_on(error):
                    raise
                problem = group.worse(problem, error)
        assert problem is not None
        raise problem

    def check(self, ask: Ask) -> None:
        """Raise unless the credential may make this, of so many and such digests."""
        self.check_credential(ask)
        if not ask.digests:
            raise Refusal("BATCH_EMPTY")
        most = DIGESTS_MAX if ask.output.is_bare else ask.credential.cms_digests_max()
        if len(ask.digests) > most:
            raise Refusal("BATCH_TOO_LARGE", f"{len(ask.digests)} digests, at most {most} with {ask.output}")
        if not ask.output.is_bare:
            self._check_lengths(ask)

    def check_credential(self, ask: Ask) -> None:
        """Raise unless the credential may be used for this now."""
        ask.credential.check(ask.accepted, Purpose.AUTHENTICATION if ask.output is Output.LOGIN else Purpose.SIGNATURE)
        now = self._steady.latest()
        if now >= ask.credential.ends:
            said = filter(None, (f"on {rfc3339(ask.credential.ends)}", self._steady.why_later()))
            raise Refusal("CERT_EXPIRED", "; ".join(said))
        self._chains.check(ask.credential, self._roots(), now)
        self._revocations.check_chain(ask.credential.certificates, now)
        ask.credential.check_request(ask.output, ask.algorithm)

    def _check_lengths(self, ask: Ask) -> None:
        """The pool checks what it signs; here it would be attributes, so the digests are checked before."""
        template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
        for index, digest in enumerate(ask.digests):
            if len(digest) != template.digest_bytes:
                detail = f"item {index} has {len(digest)} bytes, {template.digest} has {template.digest_bytes}"
                raise Refusal("DIGEST_LENGTH", detail)

    async def enter(self, ask: Ask) -> Record:
        """The ledger's record of it; the caller of this leaves it. Raises `Refusal`."""
        return await self._ledger.enter(ask.asked(), ask.deadline)

    async def sign(self, ask: Ask, lease: Lease | None = None) -> tuple[Outcomes, Record]:
        """
        With a `lease` on the person's own token, else on whatever token has the key.

        One outcome for each digest, in order, all of them on the disk; with CADES_B_B and PADES_B_B its `signature` is
        the CMS. And the record, which wants to know whether the answer was taken.
        """
        return await self.by_who_can(ask, partial(self._sign, lease=lease))

    async def _sign(self, ask: Ask, lease: Lease | None = None) -> tuple[Outcomes, Record]:
        self.check(ask)
        revoked = self._revoked
        record = await self.enter(ask)
        try:
            self._at_work[record] = ask
            if revoked != self._revoked:
                self._still(ask)
            if ask.output.is_bare:
                return await self._to_pool(ask, record, ask.digests, lease), record
            template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
            attributes = await in_pieces(partial(template.attributes, signing_time=record.accepted), ask.digests)
            signed = await in_pieces(template.signed_digest, attributes)
            outcomes = await self._to_pool(ask, record, signed, lease)
            pairs = list(zip(attributes, outcomes.signatures, strict=True))
            return outcomes.with_values(await in_pieces(partial(_detached, template), pairs)), record
        except BaseException:
            record.release(delivered=False)
            raise
        finally:
            self._at_work.pop(record, None)
            record.leave()

    async def sign_document(self, ask: Ask, record: Record) -> tuple[Outcome, Template, Attributes]:
        """The same for one document, whose CMS the caller of this puts together: `signature` is the bare one."""
        self.check(ask)
        if ask.authorisation:
            ask.identify()  # all else is looked at when it is redeemed, and written down
        else:
            self._still(ask)  # it was prepared since it was asked for
        template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
        attributes = template.attributes(ask.digests[0], record.accepted)
        record.prepared(list(ask.digests))
        self._at_work[record] = ask
        try:
            [outcome] = await self._to_pool(ask, record, [template.signed_digest(attributes)])
        finally:
            del self._at_work[record]
        return outcome, template, attributes

    async def _to_pool(self, ask: Ask, record: Record, signed: Sequence[bytes], lease: Lease | None = None) -> Outcomes:
        """What was signed before is not signed again: only what is still to be done goes to the pool."""
        known, todo = record.known, record.todo
        content: Sequence[bytes] = () if ask.output.is_bare else ask.digests
        if known is not None and todo is not None:
            if not todo:
                return known
            signed = [signed[place] for place in todo]
            content = [content[place] for place in todo] if content else ()
        record.signed, record.content = signed, content
        record.input = ask.inputs or ([ask.document] if ask.document else ())
        allowed_s = math.inf
        if FACTORS[ask.credential.gate]:
            allowed = await self._redeem(ask)
            record.subject, record.authorisation, allowed_s = allowed.subject, allowed.authorisation, allowed.left_s
            self._still(ask)  # codes, and documents, took their time
        if record.revoked:
            raise Refusal(record.revoked)
        left_s = ask.deadline - self._clock.monotonic()
        if left_s <= 0:
            raise Refusal("DEADLINE_EXCEEDED")
        valid_s = (ask.credential.ends - self._steady.latest()).total_seconds()
        key, timeout_s = ask.credential.key.ref, min(left_s, allowed_s, valid_s)
        if lease is not None:
            outcomes = await lease.sign(ask.algorithm, signed, timeout_s=timeout_s, record=record)
        else:
            outcomes = await self._pool.sign(
                key, ask.algorithm, signed, caller=ask.caller.name, timeout_s=timeout_s, record=record
            )
        if record.revoked and not record.has_row:
            raise Refusal(record.revoked)
        if ask.group and not record.has_row:
            _check_begun(outcomes)
        if timeout_s < left_s:
            _over(outcomes, "AUTHZ_EXPIRED" if timeout_s == allowed_s else "CERT_EXPIRED")
        await record.finish(ask.deadline)
        return outcomes if known is None or todo is None else known.completed(todo, outcomes)


def _detached(template: Template, pair: tuple[Attributes, bytes]) -> bytes:
    """The CMS of one item; empty, where it was not signed."""
    attributes, signature = pair
    return signature and template.detached(attributes, signature)


def _check_begun(outcomes: Outcomes) -> None:
    """Raise `Unavailable` where a member's token went away before anything was in writing: another one may be asked."""
    reasons = {problem.reason for problem in outcomes.problems.values()}
    # A ledger that cannot be written is nobody's fault here, nor is a caller who has gone.
    if len(outcomes.problems) == len(outcomes) and reasons <= REASONS.keys() - {"DEADLINE_EXCEEDED", "CANCELLED"}:
        raise Unavailable(outcomes.problems[0].reason)


def _over(outcomes: Outcomes, reason: str) -> None:
    """What the pool's time was over for, it was not the caller's deadline but something else's end."""
    for index, one in outcomes.problems.items():
        if (one.status, one.reason) == (Status.NOT_ATTEMPTED, "DEADLINE_EXCEEDED"):
            outcomes.problems[index] = one._replace(reason=reason)


def whole_call(outcomes: Outcomes) -> None:
    """
    Raise where a call as a whole has failed: nothing was attempted, or its only item came to nothing.

    Anything else is answered item by item.
    """
    problems = outcomes.problems
    if len(problems) < len(outcomes):
        return
    attempted = any(problem.status is not Status.NOT_ATTEMPTED for problem in problems.values())
    if len(outcomes) == 1 or not attempted:
        detail = "the item is INDETERMINATE" if problems[0].status is Status.INDETERMINATE else ""
        raise Refusal(problems[0].reason, detail)
