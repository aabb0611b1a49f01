"""What the tests of the ledger share: its rows as they stand in the database, requests by id, and documents."""

import contextlib
import tomllib
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c

from signer.chain import Kind, Row, items_hash
from signer.cipher import Cipher
from signer.database import DATABASE, Past, database_at
from signer.recovery import Found, items_of, look, rows
from signer.results import Part
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig
from tests.signer.access.calls import Answer, Caller, ask, said


@contextlib.contextmanager
def past(state: Path) -> Iterator[Past]:
    """The database of the rig whose state this is, as a start reads it."""
    ledger = tomllib.loads((state.parent / "paraph.toml").read_text())["ledger"]
    with contextlib.closing(database_at(ledger.get("database") or state / DATABASE, state).past()) as opened:
        yield opened


def book(state: Path) -> list[Row]:
    """Every row of the chain."""
    with past(state) as there:
        return [row for row, _ in rows(there, there.instance()[0])]


def found(state: Path) -> Found:
    """What a start would find: raises what it would raise."""
    with past(state) as there:
        return look(there)


def kinds(rig: Rig, request: str = "") -> Counter[str]:
    """How many rows of each kind name this request."""
    return Counter(row.kind for row in book(rig.state) if request in row.body)


def of(rig: Rig, request: str, kind: Kind) -> list[dict[str, Any]]:
    """What the rows of a kind say that name this request."""
    return [row.fields for row in book(rig.state) if row.kind == kind and request in row.body]


def recorded(rig: Rig) -> dict[str, dict[int, set[bytes]]]:
    """
    By request and place: the signatures of which the chain knows, which are those kept ones whose hash an OUTCOME of this
    request names.
    """
    intents: dict[tuple[int, int], dict[str, Any]] = {}
    hashes: dict[str, set[str]] = defaultdict(set)
    for row in book(rig.state):
        if row.kind == Kind.INTENT:
            intents[row.epoch, row.sequence] = row.fields
        elif row.kind == Kind.OUTCOME:
            hashes[intents[row.epoch, row.fields["intent"]]["request"]].add(row.fields["signatures"])
    cipher = Cipher((rig.keys / "data.key").read_bytes())
    known: dict[str, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    with past(rig.state) as there:
        for id_, item, name in {(*items_of(fields)[:2], fields["request"]) for fields in intents.values()}:
            for data in there.results(id_, item):
                part = Part.of(cipher.open(id_, item, data))
                if items_hash([one for one in part.signatures if one]) in hashes[name]:
                    places = (place for start, stop in part.ranges for place in range(start, stop))
                    for place, one in zip(places, part.signatures, strict=True):
                        if one:
                            known[name][place].add(one)
    return known


def result(caller: Caller, request: str, first: int = 0) -> Answer:
    return said(lambda: caller.signing.GetResult(pb.GetResultRequest(request_id=request, first=first), timeout=10))


def request(**changes: Any) -> Any:
    return ask(request_id=str(uuid.uuid4()), **changes)


def signatures(answer: Answer) -> list[bytes]:
    """Of SignDigests or of GetResult: empty where there is none."""
    assert answer.code == "OK", answer
    items = answer.value.items
    return [each.item.signature if isinstance(each, pb.ResultItem) else each.signature for each in items]


def statuses_of(answer: Answer) -> list[str]:
    assert answer.code == "OK", answer
    return [pb.ItemStatus.Name(each.item.status) for each in answer.value.items]


def documents(caller: Caller, request: str, contents: dict[int, bytes], output: str = "PADES_B_B") -> Any:
    """Sign documents by their indexes; answers index -> (result, the signed bytes), or the call's answer if it failed."""
    opening = pb.OpenDocuments(
        request_id=request,
        credential="p-256",
        output=output,
        digest_algorithm="SHA256",
        signature_algorithm="ECDSA",
    )
    messages = [pb.SignDocumentsRequest(open=opening)]
    for index, content in contents.items():
        messages += [
            pb.SignDocumentsRequest(begin=pb.BeginDocument(index=index, name="a.pdf", size=len(content))),
            pb.SignDocumentsRequest(chunk=content),
            pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(content))),
        ]
    answer = said(lambda: list(caller.signing.SignDocuments(iter(messages), timeout=30)))
    if answer.code != "OK":
        return answer
    found: dict[int, tuple[Any, bytes]] = {}
    index = -1
    for message in answer.value:
        if message.WhichOneof("message") == "result":
            index = message.result.index
            found[index] = (message.result, b"")
        else:
            found[index] = (found[index][0], found[index][1] + message.chunk)
    return found
