"""A request before it is parsed: it costs nobody but its sender, and its sender not much."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from signer.errors import Refusal
from signer.limits import DIGESTS_MAX, MESSAGE_BYTES_MAX
from signer.unparsed import Unparsed
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, running
from tests.signer.access.calls import (
    Answer,
    Caller,
    answer_of,
    ask,
    digests,
    rss_mb,
    said,
    statuses,
    two_callers_rig,
)

MESSAGES = 100  # sent at one time
GROWTH_MB_MAX = (
    300  # they are 104 MB on the wire, of which gRPC holds what was not read yet; parsed they would be 3.6 GB
)
TAG = 6 << 3 | 2  # SignDigestsRequest.digests
NOTHING = bytes([TAG, 0]) * 520_000  # a MiB of digests of nothing: 36 MiB when it is parsed


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(two_callers_rig()) as made:
        yield made


def grown_mb(rig: Rig, act: Callable[[], object]) -> float:
    """By how much the daemon was larger than before at most, while this was done."""
    assert rig.process is not None
    place = Path(f"/proc/{rig.process.pid}")
    (place / "clear_refs").write_text("5")  # VmHWM is what it is now
    before = rss_mb(rig)
    act()
    line = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6 - before


def sent(rig: Rig, caller: str, count: int, **more: Any) -> list[Answer]:
    """The answers to so many of these messages, which are all under way at one time."""
    channels = [Caller(rig, caller) for _ in range(4)]
    calls = [channel.channel.unary_unary("/signer.v1.Signing/SignDigests") for channel in channels]
    message = ask(digests=[]).SerializeToString() + NOTHING
    under_way = [calls[number % 4].future(message, timeout=60, **more) for number in range(count)]
    answers = [_answer(each) for each in under_way]
    for channel in channels:
        channel.channel.close()
    return answers


def _answer(call: Any) -> Answer:
    error = call.exception()
    return Answer("OK") if error is None else answer_of(error)


def test_nothing_is_unpacked(rig: Rig) -> None:
    """A message of 1 KB that would be 1 MiB is refused by gRPC, whoever sends it, and takes no room; plain ones are read."""
    answers: list[Answer] = []
    grown = grown_mb(rig, lambda: answers.extend(sent(rig, "portal", MESSAGES, compression=grpc.Compression.Gzip)))
    assert Counter(answer.brief for answer in answers) == {("UNIMPLEMENTED", ""): MESSAGES}
    assert grown < 50, grown
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]


@pytest.mark.parametrize("caller", ["portal", "stranger"])
def test_what_waits_is_not_parsed(rig: Rig, caller: str) -> None:
    """
    A hundred messages of half a million parts: who may call is told that there are too many, or to come again; who is not
    known, that. Meanwhile others are served, and the daemon has not grown by what they would be parsed.
    """
    answers: list[Answer] = []
    grown = grown_mb(rig, lambda: answers.extend(sent(rig, caller, MESSAGES)))
    print(f"{grown:.0f} MB more at most")
    found = Counter(answer.brief for answer in answers)
    if caller == "stranger":
        assert found == {("UNAUTHENTICATED", "CALLER_UNKNOWN"): MESSAGES}
    else:
        assert found.keys() <= {("INVALID_ARGUMENT", "BATCH_TOO_LARGE"), ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")}
        assert found["INVALID_ARGUMENT", "BATCH_TOO_LARGE"] > 0
        assert all(answer.retry_s for answer in answers if answer.code == "RESOURCE_EXHAUSTED")
    assert grown < GROWTH_MB_MAX, grown
    with Caller(rig, "other") as other:
        assert statuses(other.sign()) == ["SIGNED"]


def test_too_many_in_a_stream(rig: Rig) -> None:
    """Such a request is answered in its place, and its stream goes on."""
    with Caller(rig) as portal:
        many = ask(digests=[b""] * 300_000, crc32c=0)
        answers = list(portal.signing.StreamDigests(iter([ask(), many, ask()]), timeout=20))
        assert [answer.error.reason for answer in answers] == ["", "BATCH_TOO_LARGE", ""]
        assert [len(answer.items) for answer in answers] == [1, 0, 1]


def test_too_many_certificates(rig: Rig) -> None:
    """Of a person's certificates so many are looked for and no more."""
    with Caller(rig) as portal:
        for count, brief in ((DIGESTS_MAX, ("OK", "")), (DIGESTS_MAX + 1, ("INVALID_ARGUMENT", "CERTIFICATE_INVALID"))):
            request = pb.ListCredentialsRequest(of_person=digests(count))
            answer = said(lambda: portal.signing.ListCredentials(request, timeout=10))  # noqa: B023
            assert answer.brief == brief


# ---- one of them


def refused(request: Unparsed) -> str:
    with pytest.raises(Refusal) as error:
        request.parse()
    return error.value.reason


def test_it_is_parsed_once() -> None:
    """And then its bytes are gone; they are also where it is not parsed any more, and never there where it is too long."""
    request = Unparsed(
        pb.GetCredentialRequest.FromString, pb.GetCredentialRequest(credential="p-256").SerializeToString()
    )
    assert request.size == 7
    assert request.parse().credential == "p-256"
    assert request._data == b""
    dropped, long = Unparsed(bytes, b"x" * 10), Unparsed(bytes, b"x" * (MESSAGE_BYTES_MAX + 1))
    dropped.drop()
    assert (dropped.size, dropped._data) == (long.size, long._data) == (0, b"")
    assert refused(long) == "MESSAGE_TOO_LARGE"


def test_what_is_replaced_is_not_held() -> None:
    """A oneof that changes a quarter of a million times is one part of a message, and hundreds of thousands in memory."""
    changing = b"\x0a\x00\x12\x00" * 250_000  # RequestOtpRequest: terms, login, terms, login ...
    assert refused(Unparsed(pb.RequestOtpRequest.FromString, changing)) == "MESSAGE_MALFORMED"
    whole = pb.SignDocumentsRequest(chunk=b"c" * 262_144).SerializeToString()
    assert len(Unparsed(pb.SignDocumentsRequest.FromString, whole).parse().chunk) == 262_144
