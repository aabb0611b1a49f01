"""
What bad documents get, and bad streams of documents: a refusal of their own, while everything else goes on.

The files come from tests/hostile.py; `endless` below is the one that spends its processor time.
"""

import asyncio
import contextlib
import gc
import hashlib
import io
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

from pool import Hash
from signer import documents as streams
from signer import spool as spools
from signer.assembly import Assembly
from signer.client import Client, ServiceError, error_from
from signer.errors import Refusal
from signer.limits import ASSEMBLY_RESTART_S, ASSEMBLY_WORN_BYTES, MEMORY_DOCUMENT_BYTES_MAX, MEMORY_DOCUMENTS_MAX
from signer.spool import Spool, Upload
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, as_user
from tests.hostile import HOSTILE, certified, minimal_pdf, sized_pdf
from tests.signer.outputs.drafts import growing
from tests.signer.outputs.driver import (
    CHUNK,
    CORPUS,
    Answer,
    Stream,
    Verifiers,
    assemblers,
    examine,
    front,
    sha256,
    sign,
    sign_one,
)

MIB = 1024 * 1024
DOCUMENT_BYTES_MAX = 128 * MIB
DOCUMENTS_MAX = 1_000
STREAMS_MAX = 4
PROCESSES = 3  # two at work and one warm: assembly_processes of the configuration, and one
GOOD = minimal_pdf(text="A neighbour.")
KIND = re.compile(r"[a-z]+(-[a-z]+)+|damaged|encrypted|truncated")
# The only ones that are sound documents: what they attack does not matter to a signature.
SIGNED = {"flate_bomb_page_content", "many_objects", "page_parent_loop", "hybrid_reference"}
KINDS = {
    "encrypted": "encrypted",
    "encrypted_empty_password": "encrypted",
    "encrypted_unknown_handler": "encrypted",
    "truncated": "truncated",
    "header_only": "truncated",
    "nested_arrays": "nested-too-deep",
    "nested_dictionaries": "nested-too-deep",
    "nested_page_tree": "nested-too-deep",
    "flate_bomb_object_stream": "too-large-when-decompressed",
    "flate_bomb_stacked_filters": "too-large-when-decompressed",
    "flate_bomb_xref_stream": "too-large-when-decompressed",
    "flate_bomb_xref_stream_declared": "too-large-when-decompressed",
    "flate_bomb_metadata": "too-large-when-decompressed",
    "huge_size": "too-many-objects",
    "absurd_size": "too-many-objects",
    "certified": "changes-forbidden",
    "png_image": "not-pdf-or-cms",
}


def endless() -> bytes:
    """A form whose fields have the same two kids, sixty generations deep: 2**60 ways to the leaf."""
    depth = 60
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [4 0 R] >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << >> >>",
        *(b"<< /T (a) /Kids [%d 0 R %d 0 R] >>" % (number + 1, number + 1) for number in range(4, 4 + depth)),
        b"<< /T (leaf) /FT /Tx >>",
    ]
    out, rows = bytearray(b"%PDF-1.7\n"), [b"0000000000 65535 f \n"]
    for number, body in enumerate(objects, 1):
        rows.append(b"%010d 00000 n \n" % len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n" % len(rows) + b"".join(rows)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(rows), start)
    return bytes(out)


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    """All hostile files, made outside of any event loop: one is signed by pyHanko."""
    return {name: make() for name, make in HOSTILE.items()}


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)
    return answer


def metric(rig: Rig, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return float(re.search(rf"^{name} (.*)$", text, re.MULTILINE)[1])


def uploads(rig: Rig) -> list[tuple[int, str]]:
    """(descriptor, target) of every document that the daemon has open, on the disk or in memory."""
    found = descriptors(rig).items()
    return [(int(number), target) for number, target in found if "/spool/" in target or "paraph-document" in target]


def descriptors(rig: Rig) -> dict[str, str]:
    """What the daemon has open."""
    directory = Path(f"/proc/{front(rig).pid}/fd")
    found = {}
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = str(path.readlink())
    return found


def spool_names(rig: Rig) -> list[str]:
    return [path.name for path in (rig.state / "spool").iterdir()]


def ready(rig: Rig) -> list[psutil.Process]:
    """The assembly processes that have limited themselves, and wait for documents or work on one."""
    found = []
    for each in assemblers(rig):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if re.search(r"Max address space +536870912 ", Path(f"/proc/{each.pid}/limits").read_text()):
                found.append(each)
    return found


@pytest.fixture
async def nothing_stays(rig: Rig) -> AsyncIterator[None]:
    """After the test the daemon holds no upload, no descriptor more than before, no space, and has three assemblers."""
    process = front(rig)
    await until(lambda: not metric(rig, "paraph_calls_in_work"), "an idle daemon")
    await until(lambda: len(ready(rig)) == PROCESSES, "all assembly processes")
    gc.collect()
    before = descriptors(rig)
    yield
    await until(lambda: not metric(rig, "paraph_calls_in_work"), "the end of all calls")
    await until(lambda: not uploads(rig), "uploads are closed")
    await until(lambda: len(ready(rig)) == PROCESSES, "assembly processes are replaced")
    gc.collect()  # here: a cancelled call keeps its connection until then
    await until(lambda: len(descriptors(rig)) <= len(before), f"no descriptors but {before}: {descriptors(rig)}")
    assert metric(rig, "paraph_spool_bytes") == 0
    assert spool_names(rig) == []
    assert front(rig).pid == process.pid
    assert process.is_running()


def check_neighbour(answer: Answer) -> None:
    assert answer.signed, answer.result.message
    assert answer.data.startswith(GOOD)


# --- hostile files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile(client: Client, verifiers: Verifiers, hostile: dict[str, bytes], name: str) -> None:
    """
    F53: a malicious PDF is refused with PDF_REJECTED and a word for what is wrong, or signed so that pdfsig calls it
    good; within two seconds of its last byte. The documents before and behind it on the stream are signed.
    """
    stream = await Stream(client).open()
    check_neighbour(await stream.round(0, GOOD))
    await stream.document(1, hostile[name])
    began = time.monotonic()
    answer = await stream.next()
    assert time.monotonic() - began < 2
    check_neighbour(await stream.round(2, GOOD))
    await stream.close()
    assert answer.result.index == 1
    assert answer.result.input_sha256 == sha256(hostile[name])
    if name in SIGNED:
        assert answer.signed
        assert answer.data.startswith(hostile[name])
        assert verifiers.pdf_good(answer.data)
    elif name == "empty_file":
        assert (answer.result.status, answer.reason) == (pb.FAILED, "DOCUMENT_EMPTY")
    else:
        assert (answer.result.status, answer.reason) == (pb.FAILED, "PDF_REJECTED")
        assert KIND.fullmatch(answer.kind), answer.result.message
        assert answer.kind == KINDS.get(name, answer.kind)


@pytest.mark.usefixtures("nothing_stays")
async def test_hostile_all_at_once(rig: Rig, client: Client, hostile: dict[str, bytes]) -> None:
    """
    F53: all of them on one stream, good ones in between, nobody waiting for anybody: each gets its own answer, and the
    front process is the same and has grown by less than 20 MB.
    """
    process = front(rig)
    await sign(client, [GOOD, hostile["many_objects"]])
    before, born = process.memory_info().rss, process.create_time()
    documents = [document for each in hostile.values() for document in (GOOD, each)]
    answers = await sign(client, [*documents, GOOD])
    for answer in answers[::2]:
        check_neighbour(answer)
    refused = {name for name, answer in zip(hostile, answers[1::2], strict=True) if not answer.signed}
    assert refused == hostile.keys() - SIGNED
    assert front(rig).create_time() == born
    assert process.memory_info().rss - before < 20_000_000


async def test_hostile_to_verify(rig: Rig, client: Client, hostile: dict[str, bytes]) -> None:
    """F53: the same files to VerifyDocument: a report with a stable word, or PDF_REJECTED where a process was lost."""
    born = front(rig).create_time()
    for name, document in hostile.items():
        began = time.monotonic()
        try:
            report = await examine(client, document)
            assert report.readable or KIND.fullmatch(report.problem), name
            assert all(not each.trusted for each in report.signatures)
        except grpc.aio.AioRpcError as error:
            assert error_from(error).reason == "PDF_REJECTED", name
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert time.monotonic() - began < 2, name
    assert front(rig).create_time() == born


@pytest.mark.usefixtures("nothing_stays")
async def test_endless_document(rig: Rig, client: Client) -> None:
    """
    F53: a document that never ends spends ten seconds of processor time, and its process with it. Meanwhile others,
    on this stream and of another caller, are signed.
    """
    pids = {each.pid for each in assemblers(rig)}
    stream = await Stream(client, timeout_s=100).open()
    await stream.document(0, endless())
    victim = await until(lambda: busy(rig), "a process at work")
    for index in range(1, 11):
        check_neighbour(await stream.round(index, GOOD))
    async with rig.client("other") as other:
        assert (await sign_one(other, GOOD)).startswith(GOOD)
    used_s = [0.0]

    async def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                used_s.append(sum(victim.cpu_times()[:2]))
                await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    answer = await stream.next()
    watching.cancel()
    assert (answer.result.index, answer.reason, answer.kind) == (0, "PDF_REJECTED", "needs-too-much-time")
    # Not of the clock on the wall: others may have the machine. A little was used before this document.
    assert 9 < max(used_s) < 14
    check_neighbour(await stream.round(11, GOOD))
    await stream.close()
    await until(lambda: len(ready(rig)) == PROCESSES, "a new process")
    assert pids - {each.pid for each in assemblers(rig)} == {victim.pid}


def busy(rig: Rig) -> psutil.Process | None:
    """The assembly process that works, if one does; one that starts does, too, but for half a second only."""
    for each in ready(rig):
        with contextlib.suppress(psutil.NoSuchProcess):
            if sum(each.cpu_times()[:2]) > 1 and each.cpu_percent(0.05) > 30:
                return each
    return None


@pytest.mark.usefixtures("nothing_stays")
async def test_assembly_process_is_killed(rig: Rig, client: Client) -> None:
    """
    Row 5.4: an assembly process that somebody kills while it works takes its document with it and nothing else: the
    document may be sent again, the stream goes on, and a new process is there.
    """
    stream = await Stream(client).open()
    await stream.document(0, endless())
    victim = await until(lambda: busy(rig), "a process at work")
    victim.send_signal(signal.SIGKILL)
    answer = await stream.next()
    assert (answer.result.index, answer.reason) == (0, "ASSEMBLY_FAILED")
    assert answer.result.retry_after_s == ASSEMBLY_RESTART_S
    check_neighbour(await stream.round(1, GOOD))
    await stream.close()
    await until(lambda: len(assemblers(rig)) == PROCESSES, "a new process")
    assert victim.pid not in {each.pid for each in assemblers(rig)}


@pytest.mark.usefixtures("nothing_stays")
async def test_every_assembly_process_is_killed(rig: Rig, client: Client) -> None:
    """A process that ended while it had nothing to do is no document's fault: all are signed, by new processes."""
    victims = assemblers(rig)
    for each in victims:
        each.kill()
    await until(lambda: not any(each.is_running() for each in victims), "the kernel has taken them back")
    answers = await sign(client, [GOOD] * 8)
    for answer in answers:
        check_neighbour(answer)


async def test_processes_that_were_killed_a_moment_ago() -> None:
    """The same before the daemon can know that they have ended: the document goes to a new one, and is not refused."""
    async with Assembly(1) as assembly:
        await looked_into(assembly, "portal", b"no PDF")
        await until(lambda: len(assembly._places._free) == 2, "both processes")
        for each in assembly._all:
            os.kill(each.child.pid, signal.SIGKILL)
            os.waitid(os.P_PID, each.child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 -- the loop is to stand still
            assert not each.child.ended.done()
        assert (await looked_into(assembly, "portal", b"no PDF"))["problem"] == "not-pdf-or-cms"


@pytest.mark.usefixtures("nothing_stays")
async def test_cancelled_while_a_process_works(rig: Rig, client: Client) -> None:
    """
    A caller who goes away leaves nothing behind but the process that he gave a document: that is not ended, or who resets
    calls would make the daemon start processes and do nothing else.
    """
    stream = await Stream(client).open()
    await stream.document(0, endless())
    victim = await until(lambda: busy(rig), "a process at work")
    stream.call.cancel()
    await until(lambda: not uploads(rig), "his document is gone")
    async with rig.client("other") as other:
        check_neighbour((await sign(other, [GOOD]))[0])
    assert victim.is_running()
    assert victim.pid in {each.pid for each in assemblers(rig)}
    victim.kill()  # which would go on for ten seconds


def may_not_open(path: Path, user: Any) -> bool:
    """Whether the path is closed to this user, without any privilege."""
    code = f"import os; os.open({str(path)!r}, os.O_RDONLY)"
    done = subprocess.run(as_user(["/usr/bin/python3", "-c", code], user), capture_output=True, check=False)
    return b"PermissionError" in done.stderr


@pytest.mark.usefixtures("nothing_stays")
async def test_assembly_has_limits(rig: Rig) -> None:
    """The processes that parse have little memory, few files, no core dump; and cannot be read by their own user."""
    assert len(ready(rig)) == PROCESSES
    for each in ready(rig):
        limits = Path(f"/proc/{each.pid}/limits").read_text()
        assert re.search(r"Max open files +32 ", limits)
        assert re.search(r"Max core file size +0 ", limits)
        assert each.num_fds() < 12
    if os.geteuid():
        return
    for each in ready(rig):
        assert may_not_open(Path(f"/proc/{each.pid}/mem"), rig.user)


# --- documents that must not be signed, or not be believed -------------------------------------------------


async def test_certified_against_changes(client: Client, hostile: dict[str, bytes]) -> None:
    """A document whose author forbade every change (DocMDP 1) is not signed over his head: ISO 32000-2, 12.8.2.2."""
    assert hostile["certified"] == certified()
    (answer,) = await sign(client, [hostile["certified"]])
    assert (answer.reason, answer.kind) == ("PDF_REJECTED", "changes-forbidden")


def replaced(document: bytes) -> bytes:
    """A later revision with other contents on the page: what a shadow attack shows in place of what was signed."""
    from pyhanko.pdf_utils import generic

    writer = IncrementalPdfFileWriter(io.BytesIO(document))
    page = writer.root["/Pages"]["/Kids"][0]
    page["/Contents"] = writer.add_object(generic.StreamObject(stream_data=b"BT (one million) Tj ET"))
    writer.update_container(page)
    return written(writer)


def overlaid(document: bytes) -> bytes:
    """A later revision with a stamp over the page, drawn by an annotation."""
    from pyhanko.pdf_utils import generic

    writer = IncrementalPdfFileWriter(io.BytesIO(document))
    look = generic.StreamObject(stream_data=b"1 1 1 rg 0 0 600 900 re f")
    look.update({generic.pdf_name("/Subtype"): generic.pdf_name("/Form")})
    look[generic.pdf_name("/BBox")] = generic.ArrayObject([generic.NumberObject(n) for n in (0, 0, 600, 900)])
    stamp = generic.DictionaryObject(
        {
            generic.pdf_name("/Type"): generic.pdf_name("/Annot"),
            generic.pdf_name("/Subtype"): generic.pdf_name("/Stamp"),
            generic.pdf_name("/Rect"): generic.ArrayObject([generic.NumberObject(n) for n in (0, 0, 600, 900)]),
            generic.pdf_name("/AP"): generic.DictionaryObject({generic.pdf_name("/N"): writer.add_object(look)}),
        }
    )
    page = writer.root["/Pages"]["/Kids"][0]
    kept = list(page.get("/Annots", []))
    page[generic.pdf_name("/Annots")] = generic.ArrayObject([*kept, writer.add_object(stamp)])
    writer.update_container(page)
    return written(writer)


def written(writer: IncrementalPdfFileWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def shadowed(document: bytes) -> bytes:
    """A later revision that no parser wrote: the page's contents are object 4 again, in a hand-made update."""
    start = len(document)
    body = b"4 0 obj\n<< /Length 22 >>\nstream\nBT (one million) Tj ET\nendstream\nendobj\n"
    table = start + len(body)
    trailer = re.findall(rb"/Size (\d+)", document)[-1], re.findall(rb"startxref\s+(\d+)", document)[-1]
    return (
        document
        + body
        + b"xref\n4 1\n%010d 00000 n \ntrailer\n<< /Size %s /Root 1 0 R /Prev %s >>\n"
        % (
            start,
            *trailer,
        )
        + b"startxref\n%d\n%%%%EOF\n" % table
    )


@pytest.mark.parametrize("change", [replaced, overlaid, shadowed])
async def test_changed_after_the_signature(
    client: Client, verifiers: Verifiers, change: Callable[[bytes], bytes]
) -> None:
    """
    F53: what was put over a signed document is told: NOT_PERMITTED or UNKNOWN. To sign again on top of it does not make
    the first signature look good.
    """
    unknown = (pb.SignatureReport.NOT_PERMITTED, pb.SignatureReport.UNKNOWN)
    signed = await sign_one(client, minimal_pdf(text="one hundred"))
    changed = change(signed)
    assert changed.startswith(signed)
    (first,) = (await examine(client, changed)).signatures
    assert first.covers == pb.SignatureReport.REVISION
    assert first.changes_after in unknown
    (answer,) = await sign(client, [changed])
    if answer.signed:
        first, second = (await examine(client, answer.data)).signatures
        assert first.changes_after in unknown
        assert (second.covers, second.revision_sha256) == (pb.SignatureReport.WHOLE_FILE, sha256(changed))
        assert not await verifiers.pyhanko_pdf(answer.data, 0)
    else:
        assert answer.reason == "PDF_REJECTED"


# --- what is wrong with how a document is sent -------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("CRC_MISMATCH", {"crc": 0}),
        ("SIZE_MISMATCH", {"size": 10}),
        ("SIZE_MISMATCH", {"size": DOCUMENT_BYTES_MAX}),
        ("DOCUMENT_TOO_LARGE", {"size": DOCUMENT_BYTES_MAX + 1}),
        ("DOCUMENT_TOO_LARGE", {"size": 2**64 - 1}),
        ("STRING_TOO_LONG", {"name": "n" * 256}),
        ("STRING_TOO_LONG", {"name": "a\x1b[2Jb"}),
        ("STRING_TOO_LONG", {"name": "a\nb"}),
        ("STRING_TOO_LONG", {"name": "fdp\u202e.exe"}),
        ("STRING_TOO_LONG", {"reason": "r" * 256}),
        ("STRING_TOO_LONG", {"location": "l\0"}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.parametrize("way", ["document", "whole"])
@pytest.mark.usefixtures("nothing_stays")
async def test_refused_for_itself(client: Client, reason: str, more: dict[str, Any], way: str) -> None:
    """A document that is sent wrongly is refused with its reason, and its neighbours on the stream are signed."""
    stream = await Stream(client).open()
    check_neighbour(await stream.round(7, GOOD))
    answer = await stream.round(8, GOOD, way=way, **more)
    assert (answer.result.status, answer.reason) == (pb.FAILED, reason)
    check_neighbour(await stream.round(9, GOOD, name="ä" * 255, reason="r" * 255))
    await stream.close()


@pytest.mark.parametrize("output", ["PADES_B_B", "CADES_B_B"])
async def test_empty_document(client: Client, output: str) -> None:
    """Nothing is not a document, with or without an empty chunk."""
    stream = await Stream(client).open(output)
    assert (await stream.round(0, b"")).reason == "DOCUMENT_EMPTY"
    assert (await stream.round(3, b"", way="whole")).reason == "DOCUMENT_EMPTY"
    await stream.begin(1)
    await stream.send(chunk=b"")
    await stream.end(b"")
    assert (await stream.next()).reason == "DOCUMENT_EMPTY"
    assert (await stream.round(2, GOOD)).signed
    await stream.close()


@pytest.mark.usefixtures("nothing_stays")
async def test_document_that_grows_too_large(rig: Rig, client: Client) -> None:
    """
    A document without an announced size that passes 128 MiB is refused and takes no space from then on; the next one
    is signed.
    """
    before = front(rig).memory_info().rss
    stream = await Stream(client).open("CADES_B_B")
    await stream.begin(0)
    for _ in range(DOCUMENT_BYTES_MAX // CHUNK + 1):
        await stream.send(chunk=bytes(CHUNK))
    await until(lambda: not metric(rig, "paraph_spool_bytes"), "its space is given back before its end")
    for _ in range(2):
        await stream.send(chunk=bytes(CHUNK))
    await stream.end(b"")
    answer = await stream.next()
    assert (answer.result.status, answer.reason) == (pb.FAILED, "DOCUMENT_TOO_LARGE")
    assert (await stream.round(1, GOOD)).signed
    await stream.close()
    assert front(rig).memory_info().rss - before < 32_000_000  # of 128 MiB; what gRPC has read ahead is in it


@pytest.mark.usefixtures("nothing_stays")
async def test_chunk_too_large(client: Client) -> None:
    """A chunk over 256 KiB is its document's fault; a message over 1 MiB ends the stream."""
    document = sized_pdf(CHUNK + 100)
    stream = await Stream(client).open()
    await stream.begin(0)
    await stream.send(chunk=document)
    await stream.end(document)
    assert (await stream.next()).reason == "MESSAGE_TOO_LARGE"
    check_neighbour(await stream.round(1, GOOD))
    assert (await stream.round(2, document, way="whole")).reason == "MESSAGE_TOO_LARGE"
    await stream.begin(3)
    await stream.send(chunk=bytes(MIB + 1))
    assert await stream.refusal() == "MESSAGE_TOO_LARGE"


BEGIN = {"begin": pb.BeginDocument(index=0)}
WHOLE = {"whole": pb.WholeDocument(begin=pb.BeginDocument(index=0), content=b"x")}
END = {"end": pb.EndDocument()}
OPEN = {"open": pb.OpenDocuments(request_id=str(uuid.uuid4()), credential="p-256", output="PADES_B_B")}


@pytest.mark.parametrize(
    "messages",
    [
        [{"chunk": b"x"}],
        [END],
        [{}],
        [BEGIN, BEGIN],
        [BEGIN, OPEN],
        [BEGIN, {}],
        [BEGIN, {"chunk": b"x"}, BEGIN],
        [OPEN],
        [BEGIN, END, BEGIN],
        [BEGIN, WHOLE],
        [WHOLE, WHOLE],
        [WHOLE, END],
    ],
    ids=[
        *("chunk", "end", "nothing", "begin-twice", "open-in", "nothing-in", "begin-in", "open-twice", "index-twice"),
        *("whole-in", "whole-twice", "whole-and-end"),
    ],
)
@pytest.mark.usefixtures("nothing_stays")
async def test_wrong_order(client: Client, messages: list[dict[str, Any]]) -> None:
    """Messages in an order that the contract does not know end the stream with STREAM_ORDER, and only it."""
    stream = await Stream(client).open()
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        for message in messages:
            await stream.send(**message)
    assert await stream.refusal() == "STREAM_ORDER"
    check_neighbour((await sign(client, [GOOD]))[0])


@pytest.mark.usefixtures("nothing_stays")
async def test_wrong_order_in_an_answer(rig: Rig, client: Client) -> None:
    """A stream that breaks the order while an answer waits for its reader is told so behind what is on its way."""
    stream = await Stream(client, timeout_s=20).open("CADES_B_B", enveloping=True)
    await stream.document(0, bytes(8 * MIB))
    assert (await stream.call.read()).result.status == pb.SIGNED
    await stream.send(chunk=b"x")
    await until(lambda: not uploads(rig), "the end of the stream's work")
    assert await stream.refusal() == "STREAM_ORDER"


@pytest.mark.usefixtures("nothing_stays")
async def test_wrong_order_at_the_first_answer(client: Client) -> None:
    """
    The same in the moment in which the first answer is written: gRPC would send no status behind one that was given up
    half-way, and the caller would wait for it until its deadline.
    """
    for _ in range(50):
        stream = await Stream(client, timeout_s=10).open()
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            for message in (BEGIN, END, BEGIN):
                await stream.send(**message)
        assert await stream.refusal() == "STREAM_ORDER"


@pytest.mark.parametrize("first", [BEGIN, END, {"chunk": b"x"}, {}], ids=["begin", "end", "chunk", "nothing"])
async def test_open_comes_first(client: Client, first: dict[str, Any]) -> None:
    """A stream whose first message is not open, or that has none, is refused."""
    stream = Stream(client)
    await stream.send(**first)
    assert await stream.refusal() == "STREAM_ORDER"
    silent = Stream(client)
    await silent.call.done_writing()
    assert await silent.refusal() == "STREAM_ORDER"


async def test_ended_within_a_document(client: Client) -> None:
    """A stream that ends before its document does: STREAM_ORDER, and nothing of the document is signed."""
    stream = await Stream(client).open()
    await stream.begin(0)
    await stream.chunks(GOOD)
    await stream.call.done_writing()
    assert await stream.refusal() == "STREAM_ORDER"


@pytest.mark.parametrize(
    ("reason", "order"),
    [
        ("OUTPUT_NOT_ALLOWED", {"output": "RAW"}),
        ("OUTPUT_MISSING", {"output": 0}),
        ("OUTPUT_MISSING", {"output": 9}),
        ("ALGORITHM_MISSING", {"digest_algorithm": 0}),
        ("ALGORITHM_MISSING", {"signature_algorithm": 0}),
        ("ALGORITHM_MISSING", {"digest_algorithm": 7}),
        ("ALGORITHM_NOT_ALLOWED", {"signature_algorithm": "RSA_PSS"}),
        ("ALGORITHM_NOT_ALLOWED", {"credential": "ed25519", "signature_algorithm": "ED25519"}),
        ("CREDENTIAL_UNKNOWN", {"credential": "nobody"}),
        ("REQUEST_ID_INVALID", {"request_id": "42"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{each}" for each in value.values()),
)
async def test_open_is_refused(client: Client, reason: str, order: dict[str, Any]) -> None:
    """What a stream is opened for is judged before a document is taken; RAW is for digests only."""
    stream = Stream(client)
    await stream.open(order.pop("output", "PADES_B_B"), **order)
    assert await stream.refusal() == reason


async def test_too_many_documents(client: Client) -> None:
    """The 1 001st document of a stream is refused, and the 1 000 before it are answered."""
    answers = await sign(client, [b"no PDF"] * DOCUMENTS_MAX + [GOOD])
    assert [answer.kind for answer in answers[:-1]] == ["not-pdf-or-cms"] * DOCUMENTS_MAX
    assert answers[-1].reason == "TOO_MANY_DOCUMENTS"


@pytest.mark.parametrize("way", ["short", "pyHanko's"])
async def test_a_hundred_megabytes_take_no_memory(rig: Rig, client: Client, tmp_path: Path, way: str) -> None:
    """
    A PDF of 100 MB is hashed while it arrives, prepared and signed in its file: neither the daemon nor the process that
    looks into it grows by more than a few pieces of it, whoever of the two prepares it.
    """
    source, target = tmp_path / "a.pdf", tmp_path / "b.pdf"
    # pyHanko writes this name otherwise than it stands there, so that the short way leaves the document to it.
    source.write_bytes(sized_pdf(100 * MIB, b"" if way == "short" else b"/a#e9 true "))

    async def sign_one(path: Path) -> None:
        await client.sign_file(
            "p-256", path, target, output="PADES_B_B", digest_algorithm="SHA256", signature_algorithm="ECDSA"
        )

    def most_mb() -> float:
        """The most that one of the processes ever held."""
        pids = [front(rig).pid, *(each.pid for each in assemblers(rig))]
        lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return max(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    small = tmp_path / "small.pdf"
    small.write_bytes(sized_pdf(MIB))
    for _ in range(PROCESSES):
        await sign_one(small)
    before = most_mb()
    await sign_one(source)
    assert target.stat().st_size > 100 * MIB
    with target.open("rb") as signed, source.open("rb") as original:
        while piece := original.read(MIB):
            assert signed.read(len(piece)) == piece
    # Of a connection gRPC holds more where its reader is behind, as on a busy machine: 48 MB were seen.
    assert most_mb() - before < 64, f"{before:.0f} MB before, {most_mb():.0f} MB after"


@pytest.mark.parametrize(("limit", "value"), [("ASSEMBLY_DOCUMENTS_MAX", 3), ("ASSEMBLY_WORN_BYTES", 1)])
async def test_assembly_processes_are_replaced(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that has looked into so many documents, or held so much memory at one time, is replaced, so that what
    leaks in parsers goes with it; documents go on meanwhile.
    """
    monkeypatch.setattr(f"signer.assembly.{limit}", value)
    seen: set[int] = set()
    async with Assembly(1) as assembly:
        for _ in range(7):
            with tempfile.TemporaryFile() as file:
                file.write(b"no PDF")
                file.flush()
                report = await assembly.verify("portal", file.fileno(), None, (), datetime.now(UTC), lambda _: None)
            assert report["problem"] == "not-pdf-or-cms"
            seen |= {each.child.pid for each in assembly._all}
            assert len(assembly._all) <= 3
    assert len(seen) >= 4, "one and a spare, and their successors"


async def looked_into(assembly: Assembly, caller: str, content: bytes) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return await assembly.verify(caller, file.fileno(), None, (), datetime.now(UTC), lambda _: None)


async def test_a_large_daemon_wears_no_process_out() -> None:
    """What a process has held is its own, however much its parent holds: it is there for the next document."""
    large = b"x" * (ASSEMBLY_WORN_BYTES + MIB)
    async with Assembly(1) as assembly:
        await looked_into(assembly, "portal", b"no PDF")
        pids = {each.child.pid for each in assembly._all}
        await looked_into(assembly, "portal", b"no PDF")
        assert pids <= {each.child.pid for each in assembly._all}
    del large


async def test_slow_documents_stop_nobody_else() -> None:
    """While one caller has more documents of ten seconds in work than there are processes, another's are looked into."""
    async with Assembly(1) as assembly:
        slow = [asyncio.create_task(looked_into(assembly, "slow", endless())) for _ in range(8)]
        await asyncio.sleep(0)  # they are the first in line
        for _ in range(10):
            async with asyncio.timeout(5):  # the processes start in this time, too
                assert (await looked_into(assembly, "other", b"no PDF"))["problem"] == "not-pdf-or-cms"
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_calls_that_are_reset_cost_no_process() -> None:
    """
    Whoever gives processes slow documents and goes away, again and again, has the one that he had: none is replaced,
    another caller is served, and the assembly's end waits for no document.
    """
    async with Assembly(1) as assembly:
        await until(lambda: len(assembly._all) == 2, "the processes")
        await looked_into(assembly, "other", b"no PDF")
        pids = {each.child.pid for each in assembly._all}
        for _ in range(10):
            reset = asyncio.create_task(looked_into(assembly, "slow", endless()))
            await asyncio.sleep(0.05)
            reset.cancel()
            await asyncio.gather(reset, return_exceptions=True)
            async with asyncio.timeout(5):
                assert (await looked_into(assembly, "other", b"no PDF"))["problem"] == "not-pdf-or-cms"
        assert {each.child.pid for each in assembly._all} == pids
        assert any(task.get_name() == "assembly of a call that is gone" for task in assembly._tasks)
        began = time.monotonic()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("begun", [False, True], ids=["not begun", "begun"])
async def test_closed_while_a_process_is_replaced(*, begun: bool) -> None:
    """An assembly that closes while one of its processes is being replaced leaves none that was not waited for."""
    async with Assembly(1) as assembly:
        with tempfile.TemporaryFile() as file:
            await assembly.verify("portal", file.fileno(), None, (), datetime.now(UTC), lambda _: None)
        replaced = next(iter(assembly._all))
        assembly._replace(replaced)
        if begun:
            await asyncio.sleep(0)
    assert replaced.child.ended.done(), "it was left to the garbage collector"


@pytest.mark.usefixtures("nothing_stays")
async def test_too_many_streams(rig: Rig, client: Client) -> None:
    """A caller's fifth open stream is refused and told when to come again; another caller's first one is not."""
    streams = [await Stream(client).open() for _ in range(STREAMS_MAX)]
    for stream in streams:
        check_neighbour(await stream.round(0, GOOD))
    fifth = Stream(client)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it is refused before it was sent
        await fifth.open()
    with pytest.raises(ServiceError) as caught:
        await client_error(fifth)
    assert (caught.value.reason, caught.value.code) == ("TOO_MANY_STREAMS", "RESOURCE_EXHAUSTED")
    assert caught.value.retry_s
    async with rig.client("other") as other:
        check_neighbour((await sign(other, [GOOD]))[0])
    await streams.pop().close()
    check_neighbour((await sign(client, [GOOD]))[0])
    for stream in streams:
        await stream.close()


async def client_error(stream: Stream) -> None:
    """Raise what the service ended the stream with."""
    try:
        await stream.call.read()
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None


# --- callers who go away -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_stays")
async def test_cancelled_in_an_upload(rig: Rig, client: Client) -> None:
    """A caller who goes away in the middle of an upload leaves nothing behind."""
    for _ in range(5):
        stream = await Stream(client).open()
        await stream.begin(0)
        await stream.send(chunk=bytes(CHUNK))
        await until(lambda: uploads(rig), "the upload")
        stream.call.cancel()
        await until(lambda: not uploads(rig), "it is gone")


@pytest.mark.usefixtures("nothing_stays")
async def test_connection_lost_in_an_upload(rig: Rig) -> None:
    """The same when the connection goes, not only the call."""
    async with rig.client() as client:
        stream = await Stream(client).open()
        await stream.begin(0)
        await stream.send(chunk=bytes(CHUNK))
        await until(lambda: uploads(rig), "the upload")


@pytest.mark.usefixtures("nothing_stays")
async def test_results_are_not_read(rig: Rig, client: Client) -> None:
    """
    A caller who sends and does not read holds a bounded number of documents; others are served meanwhile, and when he
    goes away nothing of his stays.
    """
    document = sized_pdf(2 * MIB)
    stream = await Stream(client).open()
    sent = 0

    async def send() -> None:
        nonlocal sent
        for index in range(40):
            await stream.document(index, document)
            sent += 1

    sending = asyncio.create_task(send())
    await until(lambda: len(uploads(rig)) >= 4, "uploads that wait for their reader")
    async with rig.client("other") as other:
        for _ in range(5):
            check_neighbour((await sign(other, [GOOD]))[0])
    assert len(uploads(rig)) <= 5
    assert sent < 40
    assert metric(rig, "paraph_spool_bytes") <= 5 * len(document)
    stream.call.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await sending


SHORT, LONG = 200 * 1024, 2 * MIB


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("sizes", "way", "announced", "most"),
    [
        ([SHORT] * 20, "document", True, 16),
        ([SHORT] * 20, "whole", True, 16),
        ([SHORT] * 20, "whole", False, 16),  # all of it is there: its size is known
        ([SHORT] * 20, "document", False, 16),
        ([LONG] * 20, "document", True, 4),
        ([LONG] * 20, "document", False, 4),
        ([SHORT] * 15 + [LONG] * 5, "document", False, 16),  # the last of them is known to be long when it is there
        ([SHORT] * 13 + [LONG] * 7, "document", True, 13),  # the next one wants four places, and three are free
        ([LONG] * 3 + [SHORT] * 17, "document", True, 3 + 4),
    ],
    ids=[
        "short",
        "whole",
        "whole and unannounced",
        "of unknown size",
        "on the disk",
        "on the disk as it turns out",
        "short first as it turns out",
        "short first",
        "on the disk first",
    ],
)
async def test_so_many_are_in_work(
    rig: Rig, client: Client, sizes: list[int], way: str, most: int, *, announced: bool
) -> None:
    """
    Of one stream sixteen short documents are in work, or four that are on the disk; the next one is read when an answer was
    made, and in the end all are signed.
    """
    documents = [sized_pdf(size) for size in sizes]
    bound = sum(map(len, documents[:most]))
    stopped = assemblers(rig)
    stream = Stream(client)

    async def send() -> None:
        await stream.open()
        for index, document in enumerate(documents):
            await getattr(stream, way)(index, document, **({} if announced else {"size": 0}))

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        try:
            for process in stopped:
                process.suspend()
            await until(lambda: metric(rig, "paraph_spool_bytes") == bound, "as many as may be in work")
            async with rig.client("other") as other:  # the service is asked, and has had time to read more
                await other.credentials()
            assert metric(rig, "paraph_spool_bytes") == bound
            assert len(uploads(rig)) == most
            in_memory = [target for _, target in uploads(rig) if "paraph-document" in target]
            assert len(in_memory) == sizes[:most].count(SHORT)
        finally:
            for process in stopped:
                process.resume()
        answers = [await stream.next() for _ in documents]
        await sending
    assert sorted(answer.result.index for answer in answers) == list(range(len(documents)))
    assert all(answer.signed for answer in answers)
    await stream.close()


def failed_items(rig: Rig) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(r'^paraph_items_total\{.*status="FAILED"\} (.*)$', text, re.MULTILINE)))


@pytest.mark.usefixtures("nothing_stays")
async def test_what_was_refused_does_not_wait(rig: Rig, client: Client) -> None:
    """Documents that grew too much are gone when they are refused, also while their answers wait for somebody who does not read."""
    stream = await Stream(client).open()
    first = sized_pdf(32 * MIB)  # more than connections hold
    await stream.document(0, first)
    await until(lambda: metric(rig, "paraph_spool_bytes") > len(first), "it is prepared")
    before = failed_items(rig)
    count = 4  # each takes the assembly half a second
    for index in range(1, count + 1):
        await stream.whole(index, growing())
    await until(lambda: failed_items(rig) == before + count, "its refusals", 30)
    assert not [target for target in descriptors(rig).values() if "paraph-document" in target]
    stream.call.cancel()


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("way", ["document", "whole"])
async def test_a_short_document_that_grows(rig: Rig, client: Client, way: str) -> None:
    """
    A catalog in an object stream unpacks to 3 MB and would be written anew into the document, which is in memory: it is
    refused, its neighbour is not. On the disk, where its size is counted, it is signed; one that does not say its size goes
    there.
    """
    document = growing()
    assert len(document) < 16 * 1024
    stream = await Stream(client).open()
    answer = await stream.round(0, document, way=way)
    assert (answer.reason, answer.kind) == ("PDF_REJECTED", "grows-too-much")
    assert metric(rig, "paraph_spool_bytes") == 0
    check_neighbour(await stream.round(1, GOOD, way=way))
    on_disk = await stream.round(2, document, size=0)
    assert on_disk.signed
    assert len(on_disk.data) > 3 * MIB
    await stream.close()


@pytest.mark.usefixtures("nothing_stays")
async def test_what_a_document_grew_by_is_counted(rig: Rig, client: Client) -> None:
    """Documents that nobody takes are counted with what was written into them, until they are gone."""
    document = sized_pdf(LONG)
    stream = await Stream(client).open()
    sent = asyncio.create_task(_send_all(stream, [document] * 8))
    await until(lambda: metric(rig, "paraph_spool_bytes") > 4 * len(document), "four, each with its signature")
    assert metric(rig, "paraph_spool_bytes") < 4 * len(document) + 4 * 100_000
    stream.call.cancel()
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
        await sent


async def _send_all(stream: Stream, documents: list[bytes]) -> None:
    for index, document in enumerate(documents):
        await stream.document(index, document)


@pytest.mark.usefixtures("nothing_stays")
async def test_cancelled_in_a_download(client: Client) -> None:
    """A caller who goes away with half of an answer leaves nothing behind."""
    stream = await Stream(client).open("CADES_B_B", enveloping=True)
    await stream.document(0, bytes(4 * MIB))
    message = await stream.call.read()
    assert message.result.status == pb.SIGNED
    await stream.call.read()
    stream.call.cancel()


@pytest.mark.usefixtures("nothing_stays")
async def test_cancelled_while_verifying(rig: Rig, client: Client) -> None:
    """VerifyDocument that is cancelled in its upload leaves nothing behind."""
    call = client.signing.VerifyDocument(timeout=30)
    await call.write(pb.VerifyDocumentRequest(open=pb.OpenVerify(name="x")))
    await call.write(pb.VerifyDocumentRequest(chunk=bytes(CHUNK)))
    await call.write(pb.VerifyDocumentRequest(content=bytes(CHUNK)))
    await until(lambda: len(uploads(rig)) == 2, "the uploads")
    call.cancel()


# --- the spool ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_stays")
async def test_upload_has_no_name(rig: Rig, client: Client) -> None:
    """
    A document in work that is not in memory is a file without a name that only the daemon's user may read, in a directory that
    only he may enter; another user gets at it by no path.
    """
    secret = b"something secret" + bytes(MEMORY_DOCUMENT_BYTES_MAX)
    stream = await Stream(client).open()
    await stream.begin(0)
    await stream.chunks(secret)
    ((number, target),) = await until(lambda: [each for each in uploads(rig) if "/spool/" in each[1]], "the upload")
    assert target.endswith(" (deleted)")
    path = Path(f"/proc/{front(rig).pid}/fd/{number}")
    found = path.stat()
    assert found.st_nlink == 0
    assert stat.S_IMODE(found.st_mode) & 0o077 == 0
    assert spool_names(rig) == []
    directory = (rig.state / "spool").stat()
    assert stat.S_IMODE(directory.st_mode) & 0o077 == 0
    if rig.user is not None:  # we are root, and may be somebody else
        assert (found.st_uid, directory.st_uid) == (rig.user.pw_uid, rig.user.pw_uid)
        nobody = pwd.getpwnam("nobody")
        assert may_not_open(path, nobody)
        assert may_not_open(rig.state / "spool", nobody)
        assert not may_not_open(Path("/"), nobody)
    await stream.end(secret)
    assert (await stream.next()).kind == "not-pdf-or-cms"
    await stream.close()


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Spool, list[int]]]:
    """A spool with room for 100 bytes, 60 of one caller; and what it said about its use."""
    monkeypatch.setattr(spools, "SPOOL_BYTES_MAX", 100)
    monkeypatch.setattr(spools, "SPOOL_CALLER_BYTES_MAX", 60)
    said: list[int] = []
    return Spool(tmp_path / "spool", said.append, 1024), said


def test_spool_is_shared(spool: tuple[Spool, list[int]]) -> None:
    """One caller cannot take all the space, all callers not more than there is; what is closed is free again."""
    made, said = spool
    one, two, three = made.open("a"), made.open("a"), made.open("b")
    one.write(bytes(40))
    with pytest.raises(Refusal, match="SPOOL_FULL") as caught:
        two.write(bytes(21))
    assert caught.value.retry_s
    two.write(bytes(20))
    three.write(bytes(40))
    with pytest.raises(Refusal, match="SPOOL_FULL"):
        three.write(b"!")
    one.close()
    one.close()
    three.write(bytes(20))
    for each in (two, three):
        each.close()
    assert said[-1] == 0


def test_files_are_shared(tmp_path: Path) -> None:
    """All callers have a share of the descriptors, and each a few for certain; what is closed is free again, once."""
    made = Spool(tmp_path / "spool", lambda _: None, 400)
    mine = [made.open("a", 1) for _ in range(50)]
    with pytest.raises(Refusal, match="SPOOL_FULL") as caught:
        made.open("a", 1)
    assert caught.value.retry_s
    others = [made.open("b", 1) for _ in range(32)]
    with pytest.raises(Refusal, match="SPOOL_FULL"):
        made.open("b", 1)
    for each in mine[:33]:
        each.close()
        each.close()
    others.append(made.open("b", 1))
    for each in (*mine, *others):
        each.close()
    assert not made._files.total()


def test_what_others_wrote_is_counted(spool: tuple[Spool, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, from the caller's room, and given back with the rest; in memory there is a bound."""
    monkeypatch.setattr(spools, "MEMORY_DOCUMENT_GROWTH_MAX", 20)
    made, said = spool
    short = made.open("a", 10)
    short.write(bytes(10))
    with pytest.raises(Refusal, match="PDF_REJECTED"):
        short.holds(31)
    short.holds(20)
    upload = made.open("a")
    upload.write(bytes(10))
    upload.move_to_disk()
    for size in (70, 70, 30):  # it is there, whether it fits or not ...
        upload.holds(size)
        assert said[-1] == 90
    with pytest.raises(Refusal, match="SPOOL_FULL"):  # ... and the next one does not
        upload.write(b"!")
    for each in (upload, short):
        each.close()
    assert said[-1] == 0


def test_what_is_to_be_written_takes_its_room(spool: tuple[Spool, list[int]]) -> None:
    """As an upload does: where there is none it is refused, and nothing is counted; what is written into it is not counted again."""
    made, said = spool
    upload, output = made.open("a"), made.open("a", 30)
    upload.write(bytes(40))
    with pytest.raises(Refusal, match="SPOOL_FULL") as caught:
        output.reserve(21)
    assert caught.value.retry_s
    output.reserve(20)
    output.holds(20)
    output.close()
    upload.close()
    assert said == [40, 60, 60, 40, 0]


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("output", ["PADES_B_B", "CADES_B_B"])
@pytest.mark.usefixtures("nothing_stays")
async def test_signed_without_a_size(client: Client, verifiers: Verifiers, output: str, more: int) -> None:
    """A document of unknown size is signed as one whose size is known, also where it has to leave the memory for that."""
    document = sized_pdf(MEMORY_DOCUMENT_BYTES_MAX + more)
    assert len(document) == MEMORY_DOCUMENT_BYTES_MAX + more
    stream = await Stream(client).open(output)
    for index, size in enumerate((0, len(document))):
        answer = await stream.round(index, document, size=size)
        assert answer.signed, answer.result.message
        assert answer.result.input_sha256 == sha256(document)
        if output == "CADES_B_B":
            assert verifiers.openssl(answer.data, document) == document
        else:
            assert answer.data.startswith(document)
            assert verifiers.pdf_good(answer.data)
    await stream.close()


def target_of(upload: Upload) -> str:
    return str(Path(f"/proc/self/fd/{upload.file.fileno()}").readlink())


def descriptors_here() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_a_document_of_unknown_size_leaves_the_memory(
    spool: tuple[Spool, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has more bytes than such a one may have in memory, and not before; then all of it is on the disk, once."""
    monkeypatch.setattr(spools, "MEMORY_DOCUMENT_BYTES_MAX", 10)
    made, said = spool
    upload = made.open("a")
    for chunk in (b"1234", b"567890"):
        upload.write(chunk)
    assert upload.in_memory
    assert "paraph-document" in target_of(upload)
    before = descriptors_here()
    upload.write(b"!")
    assert not upload.in_memory
    assert "/spool/" in target_of(upload)
    assert descriptors_here() == before
    upload.write(b"?")
    assert os.pread(upload.file.fileno(), 100, 0) == b"1234567890!?"
    assert (upload.size, upload.sha256) == (12, sha256(b"1234567890!?"))
    assert said == [4, 10, 11, 12]
    upload.close()
    assert said[-1] == 0
    assert not made._files.total()
    short = made.open("a", 10)  # it says that it is short: it stays, and what comes then refuses it
    short.write(bytes(10))
    assert short.in_memory
    short.close()


def test_a_document_of_unknown_size_that_grows(spool: tuple[Spool, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What others made longer than one in memory may grow goes to the disk with what they wrote, and is counted once."""
    monkeypatch.setattr(spools, "MEMORY_DOCUMENT_GROWTH_MAX", 20)
    made, said = spool
    upload = made.open("a")
    upload.write(b"12345")
    os.pwrite(upload.file.fileno(), b"x" * 20, 5)
    assert not upload.is_to_move(25)
    upload.holds(25)
    assert upload.in_memory
    os.pwrite(upload.file.fileno(), b"y", 25)
    assert upload.is_to_move(26)
    upload.move_to_disk()
    upload.holds(26)
    assert not upload.in_memory
    assert os.pread(upload.file.fileno(), 100, 0) == b"12345" + b"x" * 20 + b"y"
    assert said == [5, 25, 26]
    upload.close()
    assert said[-1] == 0


def test_no_room_where_a_document_leaves_the_memory(
    spool: tuple[Spool, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full refuses it, and what was in memory is given back with it."""
    monkeypatch.setattr(spools, "MEMORY_DOCUMENT_BYTES_MAX", 10)
    made, said = spool
    upload = made.open("a")
    upload.write(bytes(10))
    before = descriptors_here()
    monkeypatch.setattr(made, "on_disk", lambda: Path("/dev/full").open("w+b", buffering=0))  # noqa: SIM115 -- it is closed
    with pytest.raises(Refusal, match="SPOOL_FULL") as caught:
        upload.write(b"!")
    assert caught.value.retry_s
    assert descriptors_here() == before
    assert (upload.size, said[-1]) == (10, 10)
    upload.close()
    assert said[-1] == 0


def test_so_many_of_unknown_size_are_in_memory(tmp_path: Path) -> None:
    """Of one caller; the next ones begin on the disk, and others' in memory."""
    made = Spool(tmp_path / "spool", lambda _: None, 4096)
    mine = [made.open("a") for _ in range(MEMORY_DOCUMENTS_MAX + 2)]
    assert [each.in_memory for each in mine] == [True] * MEMORY_DOCUMENTS_MAX + [False] * 2
    others = [made.open("b"), made.open("a", 1)]  # who says that it is short has places that bound it
    assert all(each.in_memory for each in others)
    for each in (*mine, *others):
        each.close()


def test_upload_knows_its_bytes(spool: tuple[Spool, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256 and CRC-32C are of what was written; past the limit nothing is written."""
    monkeypatch.setattr(spools, "DOCUMENT_BYTES_MAX", 9)
    upload = spool[0].open("a")
    upload.write(b"12345")
    upload.write(b"6789")
    assert upload.sha256 == sha256(b"123456789")
    assert upload.crc32c == 0xE3069283  # the check value of CRC-32C
    with pytest.raises(Refusal, match="DOCUMENT_TOO_LARGE"):
        upload.write(b"0")
    assert (upload.size, os.fstat(upload.file.fileno()).st_size) == (9, 9)
    upload.close()


async def test_a_document_is_read_no_second_time_for_its_sha256(tmp_path: Path) -> None:
    """What CAdES signs: with SHA-256 what was hashed as the document came, with others the file."""
    upload = Spool(tmp_path / "spool", lambda _: None, 1024).open("a", 9)
    upload.write(b"12345")
    upload.write(b"6789")
    upload.file.seek(0)
    assert await streams._content_digest(upload, Hash.SHA256) == sha256(b"123456789")
    assert upload.file.tell() == 0
    for hash_ in (Hash.SHA384, Hash.SHA512):
        assert await streams._content_digest(upload, hash_) == hashlib.new(hash_.value, b"123456789").digest()
        assert upload.file.tell() == 9
    upload.close()


def test_corpus_is_not_hostile() -> None:
    """The names above are those of the hostile files, and no demo document is among them."""
    assert (SIGNED | KINDS.keys()) <= HOSTILE.keys()
    assert not {path.stem for path in CORPUS.glob("*.pdf")} & HOSTILE.keys()


_WATCH = """
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "grpc":
            print("gRPC is told", os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))

sys.meta_path.insert(0, Watch())
sys.argv = ["paraph", "serve", "--config", "/nonexistent/paraph.toml"]
from signer.__main__ import main
main()
"""


def test_children_start_without_grpc() -> None:
    """
    gRPC is told before its import to leave forked children alone: its handlers crash some of them before their exec,
    and the document that an idle process was to look into was refused for it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-c", _WATCH], env=environment, capture_output=True, check=False, text=True, timeout=60
    )
    assert done.stdout == "gRPC is told 0\n"
    assert "/nonexistent/paraph.toml" in done.stderr
