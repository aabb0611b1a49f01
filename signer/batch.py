"""
From what a caller asked to what the token signed: the one call site for callers' work.

A digest goes in, a signature or a CMS comes out. With CADES_B_B and PADES_B_B the digest is the document's, and what
the key signs are the signed attributes that are built here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pool import Algorithm, Outcome, Outcomes, Pool, Status
from signer.clock import Clock
from signer.cms import Attributes, Profile, Template
from signer.config import Caller
from signer.credential import Credential, Output
from signer.errors import Refusal
from signer.limits import DIGESTS_MAX


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for signatures, checked as far as it can be without a token."""

    caller: Caller
    request_id: str
    credential: Credential
    output: Output
    algorithm: Algorithm
    digests: Sequence[bytes]  # for Ed25519 with RAW the messages
    deadline: float  # of the monotonic clock, seconds
    accepted: datetime


class Batches:
    """Signs asks. Raises what the pool raises, and `Refusal`, when nothing was attempted."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def check(self, ask: Ask) -> None:
        """Raise unless the credential may make this, of so many and such digests."""
        ask.credential.check(ask.accepted)
        ask.credential.check_request(ask.output, ask.algorithm)
        if not ask.digests:
            raise Refusal("BATCH_EMPTY")
        most = DIGESTS_MAX if ask.output is Output.RAW else ask.credential.cms_digests_max()
        if len(ask.digests) > most:
            raise Refusal("BATCH_TOO_LARGE", f"{len(ask.digests)} digests, at most {most} with {ask.output}")
        if ask.output is not Output.RAW:
            self._check_lengths(ask)

    def _check_lengths(self, ask: Ask) -> None:
        """The pool checks what it signs; here it would be attributes, so the digests are checked before."""
        template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
        for index, digest in enumerate(ask.digests):
            if len(digest) != template.digest_bytes:
                detail = f"item {index} has {len(digest)} bytes, {template.digest} has {template.digest_bytes}"
                raise Refusal("DIGEST_LENGTH", detail)

    async def sign(self, ask: Ask) -> Outcomes:
        """One outcome for each digest, in order; with CADES_B_B and PADES_B_B its `signature` is the CMS."""
        self.check(ask)
        if ask.output is Output.RAW:
            return await self._to_pool(ask, ask.digests)
        template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
        attributes = [template.attributes(digest, ask.accepted) for digest in ask.digests]
        outcomes = await self._to_pool(ask, [template.signed_digest(each) for each in attributes])
        pairs = zip(attributes, outcomes.signatures, strict=True)
        return outcomes.with_values([signature and template.detached(each, signature) for each, signature in pairs])

    async def sign_document(self, ask: Ask) -> tuple[Outcome, Template, Attributes]:
        """The same for one document, whose CMS the caller of this puts together: `signature` is the bare one."""
        self.check(ask)
        template = ask.credential.template(ask.algorithm, Profile(ask.output.value))
        attributes = template.attributes(ask.digests[0], ask.accepted)
        [outcome] = await self._to_pool(ask, [template.signed_digest(attributes)])
        return outcome, template, attributes

    async def _to_pool(self, ask: Ask, digests: Sequence[bytes]) -> Outcomes:
        left_s = ask.deadline - self._clock.monotonic()
        if left_s <= 0:
            raise Refusal("DEADLINE_EXCEEDED")
        key = ask.credential.key.ref
        return await self._pool.sign(key, ask.algorithm, digests, caller=ask.caller.name, timeout_s=left_s)


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
