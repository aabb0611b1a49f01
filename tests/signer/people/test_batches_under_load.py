"""Batches when two things happen at one time, or too many, or the disk does not play along."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import pytest

from pool import Algorithm, Hash, Scheme
from signer import approving, pending
from signer.approving import ApprovingService
from signer.credential import Output
from signer.errors import Refusal
from signer.kept import Kept
from signer.pending import Batch, Item, State
from signer.spool import Spool
from signer.store import open_store, reading
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.hostile import minimal_pdf
from tests.signer.access.calls import Answer, said, signed
from tests.signer.people import test_pin
from tests.signer.people.persons import ALGORITHMS, STICK_PIN, Town, batch, seen
from tests.signer.people.test_batches import opened

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


def listed(town: Town, caller: str) -> list[Any]:
    return list(town[caller].signing.ListBatches(pb.ListBatchesRequest(), timeout=10).batches)


def service(directory: Path) -> ApprovingService:
    """What looks after batches and files, with nobody who calls and nothing that signs."""
    nothing: Any = None
    ledger: Any = SimpleNamespace(writer=SimpleNamespace(instance="mine"))
    return ApprovingService(
        nothing, open_store(directory / "paraph.sqlite"), ledger, nothing, None,
        Spool(directory / "spool", lambda _: None), Kept(directory / "kept", bytes(32)), nothing, nothing, nothing,
        nothing, SimpleNamespace(now=lambda: NOW),
    )  # fmt: skip


async def looked(service: ApprovingService, monkeypatch: pytest.MonkeyPatch, until: Callable[[], bool]) -> None:
    """It looks round again and again, as it does while the daemon runs, until this holds."""
    monkeypatch.setattr(approving, "LOOK_S", 0.01)
    looking = asyncio.create_task(service.keep_erasing())
    async with asyncio.timeout(10):
        while not until():
            assert not looking.done(), looking
            await asyncio.sleep(0.01)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


def ids(service: ApprovingService) -> set[bytes]:
    with reading(service._engine) as connection:
        return pending.living(connection)


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
            pending.put(connection, row(number), NOW)
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

    sent = messages(pb.OpenBatchRequest, pb.BatchOpening(**opening))
    answer = said(lambda: town["portal"].signing.OpenBatch(sent, timeout=20))
    assert answer.brief == ("FAILED_PRECONDITION", "TEXT_NOT_SEEN")
    reference = town.reference(town.people["ada"], seen([pdf], output="PADES_B_B"))
    stream = messages(pb.SignDocumentsRequest, pb.OpenDocuments(authorisation=reference, **opening))
    [result] = town["portal"].signing.SignDocuments(stream, timeout=20)
    assert (pb.ItemStatus.Name(result.result.status), result.result.reason) == ("FAILED", "TEXT_NOT_SEEN")
    assert signed(town.rig) == before


def test_a_list_holds_up_nobody(tmp_path: Path) -> None:
    """Who reads batches does so while another one writes, and waits for no write of another one."""
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        pending.put(connection, row(1, count=1, digest=b"d" * 32), NOW)
    with engine.begin() as writing:
        pending.begin(writing, row(1).id, "mine")
        with reading(engine) as connection:
            [short] = pending.named(connection, {"caller": "portal"}, NOW, 100)
    assert (short.state, short.items, short.count, short.digest) == (State.OPEN, (), 1, b"d" * 32)
    with reading(engine) as connection:
        pending.living(connection)
        with engine.begin() as writing:  # and what reads lets another one write
            pending.back(writing, row(1).id)
    engine.dispose()


def test_a_list_says_what_the_batch_says(town: Town) -> None:
    """Without items, a batch in a list is known by the same count and the same short digest."""
    name, _ = opened(town, [b"one", b"two"])
    whole = shown(town, name, "portal")
    [short] = [one for one in listed(town, "portal") if one.request_id == name]
    assert not short.items
    assert (short.count, short.short_digest) == (2, whole.short_digest)


def test_her_own_program_lists_what_it_may_look_at(town: Town) -> None:
    """A portal's batch is shown to its person by the consent caller; her own program's list has her program's."""
    portals, _ = opened(town, [b"the portal's"])
    own = str(uuid.uuid4())
    town["ada-laptop"].signing.OpenBatch(batch([b"my own"], request_id=own), timeout=20)
    names = [one.request_id for one in listed(town, "ada-laptop")]
    assert own in names
    assert portals not in names
    assert {shown(town, name, "ada-laptop").request_id for name in names} == set(names)


async def test_erasing_goes_on_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that refuses once is asked again; otherwise nothing would be erased any more until a restart."""
    served = service(tmp_path)
    with served._engine.begin() as connection:
        for number in range(9):
            pending.put(connection, row(number, ends=NOW - 1), NOW - 900)
        pending.put(connection, row(9), NOW)
        connection.exec_driver_sql("CREATE TRIGGER t BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'no'); END")
    await looked(served, monkeypatch, lambda: "not erased" in caplog.text)
    assert len(ids(served)) == 10
    with served._engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER t")
    await looked(served, monkeypatch, lambda: ids(served) == {row(9).id})
    served._engine.dispose()


def test_erased_a_few_at_a_time(tmp_path: Path) -> None:
    """A transaction that erases is a short one: others write between two of them."""
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number in range(pending.ERASED_MAX + 1):
            pending.put(connection, row(number, ends=NOW - 1), NOW - 900)
        assert [len(pending.erase(connection, NOW)) for _ in range(3)] == [pending.ERASED_MAX, 1, 0]
    engine.dispose()


def test_what_is_over_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches whose time is over do not count among those that a caller may have open, erased or not."""
    monkeypatch.setattr(pending, "CALLER_MAX", 2)
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number in range(2):
            pending.put(connection, row(number), NOW)
        with pytest.raises(Refusal, match="TOO_MANY_BATCHES"):
            pending.put(connection, row(2), NOW)
        pending.put(connection, row(2, ends=NOW + 2 * pending.LIFE_S), NOW + pending.LIFE_S)
        assert len(pending.living(connection)) == 3
    engine.dispose()
