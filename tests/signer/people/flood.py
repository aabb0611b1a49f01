"""
Row 7.2 in its full size: a gigabyte of what the processes write at DEBUG, with canaries in every call: logs, the database
with its write-ahead log, the ledger's export, metrics, answers.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.signer.access.calls import Answer, Caller, ask, digests, said
from tests.signer.people import canaries, provocations
from tests.signer.people.stage import CODE, PIN, Stage

WORKERS = 6
PIECE_BYTES, OVERLAP_BYTES = (
    64 << 20,
    4096,
)  # of a long file, and of what two pieces have in common: longer than any canary
EXPORT = "export.jsonl"


def calls(stage: Stage, callers: dict[str, Caller], words: Iterator[str]) -> list[Callable[[], Answer]]:
    """One of each kind, canaries wherever a text fits."""
    word = next(words)
    terms = stage.terms(digests(3), credential=word.lower())
    name = uuid.uuid4()

    def asked(caller: str, rpc: str, request: Any) -> Callable[[], Answer]:
        holder = callers[caller]
        stub = getattr(holder.signing, rpc, None) or getattr(holder.operator, rpc)
        return lambda: said(lambda: stub(request, timeout=30))

    return [
        *(asked("portal", "SignDigests", ask(digests=digests(20, number * 20))) for number in range(6)),
        asked("portal", "SignDigests", ask(credential=word)),
        asked("portal", "SignDigests", ask(credential="ada", authorisation=word.encode(), digests=digests(2))),
        asked("portal", "GetResult", pb.GetResultRequest(request_id=str(name))),
        asked("window", "Authorize", stage.authorize(terms, secret_code=word, otp=CODE)),
        asked("window", "GetCredential", pb.GetCredentialRequest(credential=word)),
        asked("window", "GetBatch", pb.GetBatchRequest(request_id=str(name), link=word)),
        asked("window", "SignBatch", stage.sign(str(name))),
        asked("operator", "SetCredentialState", op.SetCredentialStateRequest(name=word)),
        asked("operator", "ListSubjects", op.ListSubjectsRequest(subject=word, after=PIN)),
        asked("operator", "UnlockSubject", op.UnlockSubjectRequest(subject=word)),
    ]


def work(stage: Stage, over: threading.Event, secrets: dict[str, bytes]) -> int:
    """Answers to how many calls; none of them has a secret in it."""
    count, told, words = 0, bytearray(), stage.noise()
    with ExitStack() as stack:
        callers = {name: stack.enter_context(Caller(stage.town.rig, name)) for name in ("portal", "window", "operator")}
        while not over.is_set():
            for call in calls(stage, callers, words):
                answer = call()
                count += 1
                told += answer.message.encode() + b"\0" + answer.details + b"\0"
            if len(told) > 1 << 20:
                assert canaries.hits(secrets, {"the answers": bytes(told)}) == []
                told.clear()
    assert canaries.hits(secrets, {"the answers": bytes(told)}) == []
    return count


def size(directory: Path) -> int:
    return sum(one.stat().st_size for one in directory.rglob("*") if one.is_file())


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        kept = b""
        while content := file.read(PIECE_BYTES):
            yield kept + content
            kept = content[-OVERLAP_BYTES:]


def flooded(wanted: int = 1_000_000_000, most_s: float = 1_200.0) -> str:
    """The figures, or AssertionError. The ledger's export comes on top of what is wanted."""
    began = time.monotonic()
    with Stage() as stage:
        rig = stage.town.rig
        for provoke in provocations.TABLE.values():
            provoke(stage)
            stage.town.unlock("ada")
        over, secrets = threading.Event(), stage.secrets()
        with ThreadPoolExecutor(WORKERS) as threads:
            working = [threads.submit(work, stage, over, secrets) for _ in range(WORKERS)]
            while size(rig.directory) < wanted and time.monotonic() - began < most_s:
                time.sleep(1.0)  # what is measured is what they write in it
                assert not any(one.done() for one in working), [one.exception() for one in working if one.done()]
            over.set()
        done = sum(one.result() for one in working)
        assert (
            rig.command("audit", "export", "--config", rig.config, "--output", rig.directory / EXPORT).returncode == 0
        )
        secrets = stage.secrets()
        looked, found = 0, []
        given = {rig.directory / f"{token.name}.pin" for token in rig.tokens}
        for path in sorted(one for one in rig.directory.rglob("*") if one.is_file() and one not in given):
            for content in pieces(path):
                looked += len(content)
                # Rows of the ledger and calls in the shim's log have numbers of six digits, as one-time codes have: in so many
                # of them each code stands. In the small size (test_secrets.py) they are looked for there, too.
                is_counted = path.name in {EXPORT, "paraph.sqlite", "paraph.sqlite-wal"} or path.parent.name == "shim"
                wanted_here = {name: one for name, one in secrets.items() if not (is_counted and one.isdigit())}
                found += canaries.hits(wanted_here, {str(path.relative_to(rig.directory)): content})
        assert found == [], found[:10]
        planted = {"a plant": b" " * PIECE_BYTES + CODE.encode()}
        assert "a plant has the code in clear" in canaries.hits(secrets, planted), "it would be found"
        log = rig.log.stat().st_size
    assert looked >= wanted, f"{looked:,} bytes of {done:,} calls"
    each = len(provocations.TABLE)
    return (
        f"{looked / 1e6:,.0f} MB of {done:,} calls and {each} kinds of refusal, {log / 1e6:,.0f} MB of them the log at DEBUG: "
        f"0 hits of {len(secrets)} secrets; {time.monotonic() - began:.0f} s"
    )
