"""The encoded answer to SignDigests, held against the message that protobuf puts together field by field."""

from hypothesis import given
from hypothesis import strategies as st

from pool import Outcome, Outcomes, Status
from signer.answer import encoded
from signer.errors import code_of
from signer.v1 import signing_pb2 as pb

ITEMS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=600),
        st.builds(
            Outcome,
            st.sampled_from([Status.FAILED, Status.INDETERMINATE, Status.NOT_ATTEMPTED]),
            reason=st.sampled_from(["", "TOKEN_REMOVED", "DEADLINE_EXCEEDED"]),
        ),
    ),
    max_size=40,
)


@given(request_id=st.sampled_from(["", "2d7c3a3e-6a0e-4b8e-9d0c-0d6a5e0f1a2b"]), items=ITEMS, size=st.integers(0, 5000))
def test_the_splice_is_what_protobuf_encodes(request_id: str, items: list[bytes | Outcome], size: int) -> None:
    """Byte for byte, with signatures of every length and problems between them."""
    outcomes, certificate = Outcomes(len(items)), bytes(size)
    wanted = pb.SignDigestsResponse(request_id=request_id, certificate=certificate)
    for index, item in enumerate(items):
        if isinstance(item, Outcome):
            outcomes.problems[index] = item
            wanted.items.add(status=item.status.value, reason=item.reason, code=code_of(item.reason))
        else:
            outcomes.signed(index, [item], "card")
            wanted.items.add(status=pb.SIGNED, signature=item)
    assert encoded(request_id, outcomes, certificate) == wanted.SerializeToString()
