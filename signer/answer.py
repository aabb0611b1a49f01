"""
The encoded answer to a SignDigests request, spliced.

A message object for each signature costs 0.7 us, and this 0.04. The constant bytes before a signature come from protobuf
itself; what makes the splice right is protobuf's own rule that the encodings of two parts of a message, one after the
other, are the encoding of both together (protobuf.dev, "Encoding", Last One Wins). A test compares it with the message put together
field by field.
"""

from functools import lru_cache

from pool import Outcome, Outcomes, Status
from signer.errors import code_of
from signer.v1 import signing_pb2 as pb


def encoded(request_id: str, outcomes: Outcomes, certificate: bytes) -> bytes:
    """A SignDigestsResponse: one item for each outcome, in order."""
    signatures, problems = outcomes.signatures, outcomes.problems
    parts = [b""] * (2 * len(signatures))
    parts[::2] = map(_head, map(len, signatures))
    parts[1::2] = signatures
    for index, problem in problems.items():
        parts[2 * index] = _problem(problem)
    request = pb.SignDigestsResponse(request_id=request_id).SerializeToString()
    return b"".join((request, *parts, _end(certificate)))


@lru_cache(maxsize=4096)  # lengths that occur: a few for each kind of key
def _head(signature_bytes: int) -> bytes:
    """What stands before a signature of this length."""
    item = pb.SignedItem(status=pb.SIGNED, signature=bytes(signature_bytes))
    whole = pb.SignDigestsResponse(items=[item]).SerializeToString()
    return whole[: len(whole) - signature_bytes]


@lru_cache(maxsize=256)
def _end(certificate: bytes) -> bytes:
    return pb.SignDigestsResponse(certificate=certificate).SerializeToString()


def _problem(outcome: Outcome) -> bytes:
    assert outcome.status is not Status.SIGNED
    item = pb.SignedItem(status=outcome.status.value, reason=outcome.reason, code=code_of(outcome.reason))
    return pb.SignDigestsResponse(items=[item]).SerializeToString()
