"""Batches when two things happen at one time, or too many, or the disk does not play along."""

import asyncio
import contextlib
import errno
import io
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import pytest

from pool import Algorithm, Hash, Scheme
from signer import approving, found, pending, splice
from signer.approving import ApprovingService
from signer.code import HASHERS, Codes, CodesError
from signer.credential import Output
from signer.errors import Refusal
from signer.kept import PIECE_BYTES, Kept
from signer.pending import Batch, Item, State
from signer.secret import Code
from signer.spool import Spool
from signer.store import open_store, reading
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.hostile import minimal_pdf
from tests.signer.access.calls import Answer, digests, metric, said, signed
from tests.signer.people import test_pin
from tests.signer.people.persons import ALGORITHMS, STICK_PIN, Town, batch, seen
from tests.signer.people.test_batches import fetched, files, follow, opened, sign, sign_as

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
    still: Any = SimpleNamespace(now=lambda: NOW)
    return ApprovingService(
        nothing, open_store(directory / "paraph.sqlite"), ledger, nothing, None,
        Spool(directory / "spool", lambda _: None, 1024), Kept(directory / "kept", bytes(32)), nothing, nothing, nothing,
        nothing, still,
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
        return set(pending.living(connection))


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
def test_no_text_that_the_person_was_not_shown(town: Town, text: dict[str, Any]) -> None:
    """
    A reason or a location would be signed with the document and be seen by nobody: refused on both ways to a signature.
    Her own program sends what she has typed there.
    """
    pdf, before = minimal_pdf(text="A letter."), signed(town.rig)
    opening: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "credential": "ada-seen",
        "output": "PADES_B_B",
        **ALGORITHMS,
    }
    begin, end = pb.BeginDocument(index=0, name="letter", **text), pb.EndDocument(crc32c=google_crc32c.value(pdf))

    def messages(request: Any, first: Any) -> Iterator[Any]:
        yield request(open=first)
        yield request(begin=begin)
        yield request(chunk=pdf)
        yield request(end=end)

    for caller, told in (("portal", ("FAILED_PRECONDITION", "TEXT_NOT_SEEN")), ("ada-laptop", ("OK", ""))):
        sent = messages(pb.OpenBatchRequest, pb.BatchOpening(**opening))
        answer = said(lambda caller=caller, sent=sent: town[caller].signing.OpenBatch(sent, timeout=20))
        assert answer.brief == told
    opening["request_id"] = str(uuid.uuid4())
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


def test_one_person_takes_few_of_a_portals_places(tmp_path: Path) -> None:
    """
    What waits for one person is refused when she has her part, and only hers: the portal goes on for all others, hundreds
    of them at one time, and another caller for her. One that she signs or refuses makes room.
    """
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number in range(pending.PERSON_MAX):
            pending.put(connection, row(number), NOW)
        with pytest.raises(Refusal, match="TOO_MANY_FOR_PERSON"):
            pending.put(connection, row(999), NOW)
        pending.put(connection, row(999, caller="another"), NOW)
        for number in range(1_000, 1_400):
            pending.put(connection, row(number, subject=f"person {number}"), NOW)
        with pytest.raises(Refusal, match="TOO_MANY_FOR_PERSON"):
            pending.put(connection, row(998), NOW)
        pending.end(connection, row(0).id, State.CANCELLED, NOW)
        pending.put(connection, row(998), NOW)
    engine.dispose()


def test_a_caller_fills_the_database_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever cancels is rid of the place, and not of the rows, before they are erased: so many items there are of one caller,
    and of no other one.
    """
    monkeypatch.setattr(pending, "CALLER_ITEMS_MAX", 10_000)
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number in range(2):
            pending.put(connection, row(number, subject=f"person {number}", count=5_000), NOW)
            pending.end(connection, row(number).id, State.CANCELLED, NOW)
        with pytest.raises(Refusal, match="TOO_MANY_BATCHES"):
            pending.put(connection, row(2, count=1), NOW)
        pending.put(connection, row(2, caller="another", count=5_000), NOW)
        pending.put(connection, row(3, count=1, ends=NOW + 2 * pending.LIFE_S), NOW + pending.LIFE_S)
    engine.dispose()


def test_what_waits_is_in_the_account(town: Town) -> None:
    """Documents that wait for people use the disk as long as they wait: their bytes are in the caller's account till then."""
    before = metric(town.rig, "paraph_spool_bytes")
    name, _ = opened(town, [bytes(100_000), bytes(50_000)])
    assert metric(town.rig, "paraph_spool_bytes") == before + 150_000
    assert cancelled(town, name, "portal").code == "OK"
    assert metric(town.rig, "paraph_spool_bytes") == before


async def test_the_account_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is counted again from the files that are there; what no batch names is erased, a half-written one too."""
    Kept(tmp_path / "kept", bytes(32)).put(row(1).id, 0, io.BytesIO(bytes(100_000)))
    Kept(tmp_path / "kept", bytes(32)).put(row(2).id, 0, io.BytesIO(bytes(100_000)))
    (tmp_path / "kept" / f"{row(1).id.hex()}-1.new").write_bytes(bytes(10))
    (tmp_path / "spool").mkdir()
    served = service(tmp_path)
    with served._engine.begin() as connection:
        pending.put(connection, row(1), NOW)
    await served.erase_left_over()
    [file] = (tmp_path / "kept").iterdir()
    assert file.name == f"{row(1).id.hex()}-0"
    assert served._spool._callers == {"portal": file.stat().st_size}
    with served._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET ends = 0")
    await looked(served, monkeypatch, lambda: not served._spool._callers.total())
    assert not list((tmp_path / "kept").iterdir())
    served._engine.dispose()


async def test_files_that_no_batch_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another daemon with the same database has erased the batch, or its caller has left while a file was written: the files
    go at the next look. Those of a batch that is just coming in stay.
    """
    served = service(tmp_path)
    for number in (1, 2, 3):
        served._kept.put(row(number).id, 0, io.BytesIO(b"a letter"))
    (tmp_path / "kept" / f"{row(1).id.hex()}-1.new").write_bytes(b"half")
    served._being_opened.add(row(2).id)
    with served._engine.begin() as connection:
        pending.put(connection, row(3), NOW)
    gone = tmp_path / "kept" / f"{row(1).id.hex()}-0"
    await looked(served, monkeypatch, lambda: not gone.exists())
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {f"{row(n).id.hex()}-0" for n in (2, 3)}
    served._engine.dispose()


def test_no_room_for_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is SPOOL_FULL, to be tried again, and leaves no half of a file."""

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = Kept(tmp_path / "kept", bytes(32))
    with pytest.raises(Refusal, match="SPOOL_FULL"):
        kept.put(row(1).id, 0, Source())
    assert not list((tmp_path / "kept").iterdir())


def test_one_text_for_an_id_that_is_used(town: Town) -> None:
    """Who tries another caller's request ids does not learn from the refusal whether there is a batch behind one."""
    name, _ = opened(town, [b"a letter"])
    answers = [
        said(lambda caller=caller: town[caller].signing.OpenBatch(batch([b"x"], request_id=name), timeout=20))
        for caller in ("other", "portal")
    ]
    assert {(answer.reason, answer.message) for answer in answers} == {
        ("IDEMPOTENCY_MISMATCH", Refusal("IDEMPOTENCY_MISMATCH").message)
    }
    assert [path for path in files(town) if path.name.startswith(uuid.UUID(name).hex)]


async def test_no_hasher_is_lost_to_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are no descriptors, a code is not looked at, and the caller may try again; afterwards all is as before."""
    make = os.memfd_create

    def refused(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with Codes() as codes:
        phc = await codes.hash(Code("correct horse 7"))
        monkeypatch.setattr(os, "memfd_create", refused)
        for _ in range(HASHERS):
            with pytest.raises(CodesError, match="CODES_FAILED"):
                await codes.matches(Code("correct horse 7"), phc)
        monkeypatch.setattr(os, "memfd_create", make)
        assert await codes.matches(Code("correct horse 7"), phc)


def test_codes_before_files(town: Town) -> None:
    """Who has no right code has no file read: reading what waits is dear, and wrong codes are counted."""
    known = set(files(town))
    name, link = opened(town, [b"a letter"])
    follow(town, link)
    [file] = set(files(town)) - known
    file.write_bytes(b"changed")
    assert sign_as(town, name, "window").brief == ("PERMISSION_DENIED", "OTP_INCORRECT")
    town.unlock("ada")


async def test_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls a caller has open, and has left, one of its files is read and hashed at one time."""
    served, at_it, most, go = service(tmp_path), [0], [0], threading.Event()

    def check(*_: object) -> None:
        at_it[0] += 1
        most[0] = max(most[0], at_it[0])
        go.wait(10)
        at_it[0] -= 1

    monkeypatch.setattr(served, "_check_file", check)
    caller: Any = SimpleNamespace(name="window")
    waiting = row(claimed=False)
    left = asyncio.create_task(served._check_files(waiting, caller))
    async with asyncio.timeout(10):
        while not at_it[0]:  # noqa: ASYNC110 -- a thread of its own
            await asyncio.sleep(0)
    left.cancel()
    calls = [asyncio.create_task(served._check_files(waiting, caller)) for _ in range(3)]
    await asyncio.wait([left])
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls)
    assert most == [1]
    served._engine.dispose()


def test_splices() -> None:
    """A range may begin and end in any piece."""
    whole = bytes(range(20))
    for size in (1, 3, 7, 20):
        pieces = [whole[at : at + size] for at in range(0, 20, size)]
        for start in range(20):
            for end in range(start, 20):
                assert b"".join(splice.without(pieces, start, end)) == whole[:start] + whole[end:]
                content = b"x" * (end - start)
                assert b"".join(splice.over(pieces, start, content)) == whole[:start] + content + whole[end:]


def test_documents_are_handed_out_piece_by_piece(town: Town) -> None:
    """Who asks for a document and does not read it has the daemon keep one piece of it in memory, not the whole."""
    document = os.urandom(32 * PIECE_BYTES + 17)
    name, link = opened(town, [document])
    follow(town, link)
    request = pb.GetBatchRequest(request_id=name, with_document=True, index=0)
    calls = [town["window"].signing.GetBatch(request, timeout=20) for _ in range(4)]
    try:
        assert [next(call).WhichOneof("message") for call in calls] == ["batch"] * 4
        assert [next(call).WhichOneof("message") for call in calls] == ["chunk"] * 4
        assert town.rig.process is not None
        held = []
        for path in Path(f"/proc/{town.rig.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed just now
                held.append(str(path.readlink()))
        assert len([path for path in held if f"kept/{uuid.UUID(name).hex}" in path]) == 4
        assert not [path for path in held if "memfd:paraph-kept" in path]
    finally:
        for call in calls:
            call.cancel()
    assert fetched(town, name, 0, "window") == document


def test_one_of_many(town: Town) -> None:
    """What GetBatch hands out of a signed batch, made alone, is what GetResult answers, made with all the others."""
    ada, documents = town.people["ada"], [b"%d" % number for number in range(5)]
    name, link = opened(town, documents)
    follow(town, link)
    assert sign(town, ada, name).code == "OK"
    result = town["portal"].signing.GetResult(pb.GetResultRequest(request_id=name), timeout=10)
    assert [fetched(town, name, index, "portal") for index in range(5)] == [one.item.signature for one in result.items]


def test_one_is_made_alone() -> None:
    """One document of a thousand costs one CMS."""
    made: list[bytes] = []

    class Counted:
        def attributes(self, digest: bytes, _accepted: Any) -> bytes:
            made.append(digest)
            return digest

        def detached(self, attributes: bytes, signature: bytes) -> bytes:
            return attributes + signature

    stored: Any = SimpleNamespace(output="CADES_B_B", accepted=NOW)
    known: Any = SimpleNamespace(signatures=[b"s%d" % number for number in range(1_000)])
    detail = ["ECDSA", "SHA256", [b"d%d" % number for number in range(1_000)]]
    counted: Any = Counted()
    assert found.value(detail, stored, known, lambda *_: counted, 998) == b"d998s998"
    assert made == [b"d998"]


def test_a_batch_that_nobody_could_be_shown(town: Town) -> None:
    """5 000 long names are more than an answer may have: refused when it is opened, not when the person looks at it."""

    def messages(count: int) -> Iterator[Any]:
        opening = {"credential": "ada", "output": "RAW", "request_id": str(uuid.uuid4()), **ALGORITHMS}
        yield pb.OpenBatchRequest(open=pb.BatchOpening(**opening))
        for digest in digests(count):
            yield pb.OpenBatchRequest(digest=pb.TermsItem(name="\U0001d4b3" * 255, digest=digest))

    answer = said(lambda: town["portal"].signing.OpenBatch(messages(5_000), timeout=30))
    assert answer.brief == ("INVALID_ARGUMENT", "BATCH_TOO_LARGE")
    assert said(lambda: town["portal"].signing.OpenBatch(messages(3_000), timeout=30)).code == "OK"
