"""Batches when two things happen at one time, or too many, or the disk does not play along."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from pool import Algorithm, Hash, Scheme
from signer import pending
from signer.credential import Output
from signer.errors import Refusal
from signer.pending import Batch, Item, State
from signer.store import open_store
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.hostile import minimal_pdf
from tests.signer.access.calls import Answer, said, signed
from tests.signer.people import test_pin
from tests.signer.people.persons import ALGORITHMS, STICK_PIN, Town, seen

NOW = 1_800_000_000.0


def row(number: int = 0, **more: Any) -> Batch:
    """A batch of one digest, as `pending` is given it."""
    algorithm = Algorithm(Scheme.ECDSA, Hash.SHA256)
    fields: dict[str, Any] = {
        "id": number.to_bytes(16), "caller": "portal", "subject": "ada", "credential": "ada", "key": "f" * 64,
        "output": Output.RAW, "algorithm": algorithm, "claimed": True, "opened": NOW, "ends": NOW + pending.LIFE_S,
        "state": State.OPEN, "consent": "", "items": (Item("letter", 0, b"", bytes(32)),),
    }  # fmt: skip
    return Batch(**(fields | more))


def shown(town: Town, name: str, caller: str = "window") -> Any:
    [message] = town[caller].signing.GetBatch(pb.GetBatchRequest(request_id=name), timeout=10)
    return message.batch


def cancelled(town: Town, name: str, caller: str = "window") -> Answer:
    return said(lambda: town[caller].signing.CancelBatch(pb.CancelBatchRequest(request_id=name), timeout=10))


def test_what_is_being_signed_is_neither_cancelled_nor_signed_again(town: Town) -> None:
    """
    While SignBatch waits, here for the token's answer to the PIN, nobody is told that the batch is cancelled, and a second
    click is refused before its PIN goes anywhere.
    """
    shim = town.rig.shim
    assert shim is not None
    test_pin.waits(town)
    name, before, logins = test_pin.opened(town), signed(town.rig), shim.number("C_Login")
    shim.script(f"C_Login {logins + 1} delay 1")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(test_pin.sign(town, name, STICK_PIN)))
    try:
        thread.start()
        until(lambda: shown(town, name).state == pb.Batch.SIGNING, 10, "SIGNING")
        assert cancelled(town, name).brief == ("FAILED_PRECONDITION", "BATCH_STATE")
        assert test_pin.sign(town, name, STICK_PIN).brief == ("FAILED_PRECONDITION", "BATCH_STATE")
        assert not answers
    finally:
        thread.join()
        shim.clear()
    assert answers[0].code == "OK", answers
    assert answers[0].value.batch.state == pb.Batch.SIGNED
    assert (signed(town.rig) - before, shim.number("C_Login") - logins) == (2, 1)


def test_what_a_crash_left_in_signing(tmp_path: Path) -> None:
    """It is open again for its person: that of the daemon that starts alone, and none that it is still at."""
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number, instance in enumerate(("mine", "mine", "another's")):
            pending.put(connection, row(number))
            pending.begin(connection, row(number).id, instance)
        pending.reopen(connection, "mine", {row(1).id})
        states = [pending.get(connection, row(number).id, NOW).state for number in range(3)]
        assert states == [State.OPEN, State.SIGNING, State.SIGNING]
        with pytest.raises(Refusal, match="BATCH_STATE"):
            pending.end(connection, row(1).id, State.CANCELLED, NOW)
    engine.dispose()


@pytest.mark.parametrize("text", [{"reason": "I owe the portal 10 000 euro"}, {"location": "Nowhere"}])
def test_no_text_that_the_person_was_not_shown(town: Town, text: dict[str, str]) -> None:
    """A reason or a location would be signed with the document and be seen by nobody: refused on both ways to a signature."""
    pdf, before = minimal_pdf(text="A letter."), signed(town.rig)
    opening = {"request_id": str(uuid.uuid4()), "credential": "ada-seen", "output": "PADES_B_B", **ALGORITHMS}
    begin, end = pb.BeginDocument(index=0, name="letter", **text), pb.EndDocument(crc32c=google_crc32c.value(pdf))

    def messages(request: Any, first: Any) -> Iterator[Any]:
        yield request(open=first)
        yield request(begin=begin)
        yield request(chunk=pdf)
        yield request(end=end)

    batch = messages(pb.OpenBatchRequest, pb.BatchOpening(**opening))
    answer = said(lambda: town["portal"].signing.OpenBatch(batch, timeout=20))
    assert answer.brief == ("FAILED_PRECONDITION", "TEXT_NOT_SEEN")
    reference = town.reference(town.people["ada"], seen([pdf], output="PADES_B_B"))
    stream = messages(pb.SignDocumentsRequest, pb.OpenDocuments(authorisation=reference, **opening))
    [result] = town["portal"].signing.SignDocuments(stream, timeout=20)
    assert (pb.ItemStatus.Name(result.result.status), result.result.reason) == ("FAILED", "TEXT_NOT_SEEN")
    assert signed(town.rig) == before
