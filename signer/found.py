"""What GetResult answers: a request's items as they were, or would have been, answered."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pool import Algorithm, Hash, Outcomes, Scheme
from signer.clock import rfc3339
from signer.cms import Profile, Template
from signer.credential import Output
from signer.database import Stored
from signer.errors import Refusal, code_of
from signer.ledger import Ledger
from signer.limits import ANSWER_BYTES_MAX
from signer.pieces import in_pieces
from signer.record import DIGESTS
from signer.results import outcomes
from signer.v1 import signing_pb2 as pb

DOCUMENTS_MOST = 1_000  # a stream's, in one answer
DOCUMENTS_A_TURN = 50  # about 2 ms of the event loop: SQLite answers at once, and is nothing that would let it run
_ITEM_BYTES = 64  # of an item, besides its signature
_ROOM_BYTES = 64 * 1024  # of an answer, besides its items: certificate and names


async def result(
    ledger: Ledger, id_: bytes, name: str, caller: str, first: int, chain_of: Callable[[bytes], Sequence[bytes]]
) -> Any:
    """
    The GetResultResponse, without items where `first` is behind the last; `chain_of` takes certificates that stand one
    behind the other apart.

    Raises `Refusal` REQUEST_UNKNOWN, REQUEST_BURNT.
    """
    item = first if await _is_documents(ledger, id_) else DIGESTS
    stored = await ledger.stored(id_, caller, item, DOCUMENTS_MOST + 1)
    page, more = stored[:DOCUMENTS_MOST], stored[DOCUMENTS_MOST:]
    heads = page[:1] or await ledger.stored(id_, caller, DIGESTS, DOCUMENTS_MOST)
    if not heads:
        raise Refusal("REQUEST_UNKNOWN")
    head = heads[0]
    chains = {chain: chain_of(await ledger.certificates(chain)) for chain in {each.chain for each in (head, *page)}}
    answer = pb.GetResultResponse(request_id=name, output=head.output, certificate=chains[head.chain][0])
    size = _ROOM_BYTES
    for number, each in enumerate(page, 1):
        if number % DOCUMENTS_A_TURN == 0:
            await asyncio.sleep(0)
        known = outcomes(each.count, await ledger.parts(id_, each.item))
        made = await values(ledger.detail(id_, each), each, known, chains[each.chain])
        accepted = rfc3339(each.accepted)
        start = first if each.item == DIGESTS else 0
        for place in range(start, each.count):
            index = place if each.item == DIGESTS else each.item
            size += len(made[place]) + _ITEM_BYTES
            if size > ANSWER_BYTES_MAX:
                answer.next = index
                return answer
            problem = known.problems.get(place)
            signed = pb.SignedItem(status=pb.SIGNED, signature=made[place])
            if problem is not None:
                signed = pb.SignedItem(status=problem.status.value, reason=problem.reason, code=code_of(problem.reason))
            other = b"" if each.chain == head.chain else chains[each.chain][0]
            answer.items.append(pb.ResultItem(index=index, item=signed, accepted=accepted, certificate=other))
            size += len(other)
    if more:
        answer.next = more[0].item
    return answer


async def _is_documents(ledger: Ledger, id_: bytes) -> bool:
    stored = await ledger.any_of(id_)
    if stored is None:
        ledger.check_not_burnt(id_)
    if stored is None or stored.output == Output.LOGIN:  # a signature without its statement, which is kept nowhere
        raise Refusal("REQUEST_UNKNOWN")
    return stored.item != DIGESTS


async def values(detail: Any, stored: Stored, known: Outcomes, certificates: Sequence[bytes]) -> Sequence[bytes]:
    """The signatures, or the CMS made with them: the same bytes as the first time."""
    if stored.output == "RAW":
        return known.signatures
    template, accepted = Template(tuple(certificates), *_kind(detail, stored)), _accepted(stored)

    def cms(item: tuple[bytes, bytes]) -> bytes:
        digest, signature = item
        return signature and template.detached(template.attributes(digest, accepted), signature)

    return await in_pieces(cms, list(zip(detail[2], known.signatures, strict=True)))


def value(
    detail: Any, stored: Stored, known: Outcomes, template_of: Callable[[Algorithm, Profile], Template], place: int
) -> bytes:
    """The same for one item, with a template of the same certificates: to make one costs as much as many a CMS."""
    signature = known.signatures[place]
    if stored.output == "RAW" or not signature:
        return signature
    template = template_of(*_kind(detail, stored))
    return template.detached(template.attributes(detail[2][place], _accepted(stored)), signature)


def _kind(detail: Any, stored: Stored) -> tuple[Algorithm, Profile]:
    scheme, hash_, _ = detail
    return Algorithm(Scheme(scheme), Hash(hash_) if hash_ else None), Profile(stored.output)


def _accepted(stored: Stored) -> datetime:
    return datetime.fromtimestamp(stored.accepted, UTC)
