"""An authorisation is good for what was allowed, and for nothing that differs from it in anything."""

import base64
import hashlib
import random
import secrets
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import pytest
from google.protobuf import message_factory
from sqlalchemy import Connection

from signer import authorisation
from signer.config import ROLES
from signer.errors import Refusal
from signer.gate import LOGIN, Redemption, Terms
from signer.store import open_store
from signer.v1 import operator_pb2, signing_pb2
from signer.v1 import signing_pb2 as pb
from tests.signer.access.calls import Answer, asked, digest, digests, said, shim_of, signed, statuses
from tests.signer.people.office import NOON, Office, Person
from tests.signer.people.persons import ALGORITHMS, CODE, Town, redeem, seen, stream, terms
from tests.signer.people.test_batches import opened

MUTANTS = 20_000
BASES = 40  # authorisations that they are mutants of
# As gate.py has them: of several faults the first one is told.
ORDER = ("UNKNOWN", "CALLER", "KEY", "OUTPUT", "COUNT", "DIGEST", "USED", "EXPIRED")
LIFETIME_S = 120


@dataclass(frozen=True)
class Try:
    """One attempt to redeem."""

    reference: bytes
    asked: Redemption
    now: float


Mutation = Callable[[random.Random, Try, Terms], Try]


def about(**changes: Callable[[random.Random, Any], Any]) -> Mutation:
    """A mutation of some fields of what is asked."""

    def mutate(chance: random.Random, one: Try, _: Terms) -> Try:
        new = {name: change(chance, getattr(one.asked, name)) for name, change in changes.items()}
        return replace(one, asked=replace(one.asked, **new))

    return mutate


def flipped(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) * 8)
    return bytes(byte ^ (1 << at % 8 if at // 8 == i else 0) for i, byte in enumerate(data))


def other_than(*words: str) -> Callable[[random.Random, str], str]:
    """Another word of these, or the same one spelt a little differently."""

    def change(chance: random.Random, value: str) -> str:
        near = [value.upper(), value.lower(), f"{value} ", f"{value}\0", value[:-1], value * 2, "", f" {value}"]
        return chance.choice([word for word in (*words, *near) if word != value])

    return change


def on_digests(change: Callable[[random.Random, list[bytes]], list[bytes]]) -> Mutation:
    return about(digests=lambda chance, old: tuple(change(chance, list(old))))


def _dropped(chance: random.Random, old: list[bytes]) -> list[bytes]:
    del old[chance.randrange(len(old))]
    return old


def _added(chance: random.Random, old: list[bytes]) -> list[bytes]:
    old.insert(chance.randrange(len(old) + 1), chance.randbytes(32))
    return old


def _duplicated(chance: random.Random, old: list[bytes]) -> list[bytes]:
    old.insert(chance.randrange(len(old) + 1), chance.choice(old))
    return old


def _reordered(chance: random.Random, old: list[bytes]) -> list[bytes]:
    new = old[:]
    while new == old:
        chance.shuffle(new)
    return new


def _one_flipped(chance: random.Random, old: list[bytes]) -> list[bytes]:
    at = chance.randrange(len(old))
    old[at] = flipped(chance, old[at])
    return old


def _one_twice(chance: random.Random, old: list[bytes]) -> list[bytes]:
    """One in the place of another: as many as before, and none of them new."""
    into, of = chance.sample(range(len(old)), 2)
    old[into] = old[of] if old[of] != old[into] else flipped(chance, old[of])
    return old


def _boundary_moved(_: random.Random, old: list[bytes]) -> list[bytes]:
    """The same bytes, cut elsewhere."""
    old[0], old[1] = old[0] + old[1][:1], old[1][1:]
    return old


def _one_empty(chance: random.Random, old: list[bytes]) -> list[bytes]:
    old[chance.randrange(len(old))] = b""
    return old


def _as_a_document(chance: random.Random, one: Try, was: Terms) -> Try:
    """A digest that was allowed, given as that of a document."""
    item = chance.randrange(was.count)
    return replace(one, asked=replace(one.asked, digests=(), item=item, document=was.digests[item]))


def _with_inputs(chance: random.Random, one: Try, was: Terms) -> Try:
    """The digests that were allowed, said to be those of documents that nobody has seen."""
    inputs = tuple(chance.randbytes(32) for _ in was.digests)
    return replace(one, asked=replace(one.asked, inputs=inputs))


def _as_digests(_: random.Random, one: Try, was: Terms) -> Try:
    """The documents that were allowed, given as digests to be signed."""
    return replace(one, asked=replace(one.asked, digests=was.inputs, item=-1, document=b""))


def _other_place(chance: random.Random, one: Try, was: Terms) -> Try:
    places = [place for place in range(was.count) if was.inputs[place] != one.asked.document]
    return replace(one, asked=replace(one.asked, item=chance.choice(places)))


def _place_beyond(chance: random.Random, one: Try, was: Terms) -> Try:
    return replace(one, asked=replace(one.asked, item=was.count + chance.choice([0, 1, 1_000])))


def _late(chance: random.Random, one: Try, _: Terms) -> Try:
    return replace(one, now=NOON + LIFETIME_S + chance.choice([0, 0.001, 1, 5, 3_600, 86_400]))


def _early(chance: random.Random, one: Try, _: Terms) -> Try:
    return replace(one, now=NOON - chance.choice([5.001, 60, 3_600, 86_400]))


def _other_reference(chance: random.Random, one: Try, _: Terms) -> Try:
    """A bit of it, its end, or what the store knows it by."""
    other = [flipped(chance, one.reference), one.reference[:-1], one.reference + b"\0", b""]
    return replace(one, reference=chance.choice([*other, authorisation.name_of(one.reference)]))


# (what it is good for, the reason that belongs to it, the mutation)
ANY: Sequence[tuple[str, Mutation]] = (
    ("UNKNOWN", _other_reference),
    ("CALLER", about(caller=other_than("other", "window", "operator"))),
    ("KEY", about(credential=other_than("ada-seen", "ada-login", "bob"))),
    ("KEY", about(key=other_than("f" * 64))),
    ("OUTPUT", about(output=other_than("RAW", "CADES_B_B", "PADES_B_B", LOGIN))),
    ("OUTPUT", about(algorithm=other_than("ECDSA-SHA384", "RSA_PSS-SHA256", "ED25519"))),
    ("EXPIRED", _late),
    ("EXPIRED", _early),
)
OF_DIGESTS: Sequence[tuple[str, Mutation]] = (
    ("COUNT", on_digests(_dropped)),
    ("COUNT", on_digests(_added)),
    ("COUNT", on_digests(_duplicated)),
    ("COUNT", on_digests(lambda _, old: [b"".join(old)])),
    ("COUNT", on_digests(lambda _, old: [])),
    ("DIGEST", on_digests(_reordered)),
    ("DIGEST", on_digests(_one_flipped)),
    ("DIGEST", on_digests(_one_twice)),
    ("DIGEST", on_digests(_boundary_moved)),
    ("DIGEST", on_digests(_one_empty)),
    ("DIGEST", _as_a_document),
    ("DIGEST", _with_inputs),
)
OF_DOCUMENTS: Sequence[tuple[str, Mutation]] = (
    ("DIGEST", _as_digests),
    ("DIGEST", _other_place),
    ("COUNT", _place_beyond),
    ("DIGEST", about(document=flipped)),
    ("DIGEST", about(document=lambda _, old: b"")),
    ("DIGEST", about(document=lambda _, old: old[:-1])),
)


def base(chance: random.Random, *, of_documents: bool) -> Terms:
    """What somebody allows: two to six items, in some of them one twice."""
    items = [chance.randbytes(32) for _ in range(chance.randint(2, 6))]
    if chance.random() < 0.3:
        items.append(items[0])
    none = tuple(b"" for _ in items)
    inputs, given = (tuple(items), none) if of_documents else (none, tuple(items))
    output = chance.choice(["CADES_B_B", "PADES_B_B"] if of_documents else ["RAW", "CADES_B_B", "PADES_B_B", LOGIN])
    return Terms("portal", "ada", chance.randbytes(32).hex(), output, "ECDSA-SHA256", inputs, given)


def valid(chance: random.Random, reference: bytes, was: Terms) -> Try:
    words = (was.caller, was.credential, was.key, was.output, was.algorithm)
    if any(was.inputs):
        item = chance.randrange(was.count)
        asked = Redemption(chance.randbytes(16), *words, (), item, was.inputs[item])
    else:
        asked = Redemption(chance.randbytes(16), *words, was.digests)
    return Try(reference, asked, NOON + chance.choice([0, 1, LIFETIME_S - 0.001]))


def mutants(chance: random.Random, first: Try, was: Terms, count: int) -> Iterator[tuple[str, Try]]:
    """(the reason that belongs to it, the attempt): one fault, or up to three of different kinds."""
    table = [*ANY, *(OF_DOCUMENTS if any(was.inputs) else OF_DIGESTS)]
    for _ in range(count):
        one, reasons = first, set[str]()
        for reason, mutation in chance.sample(table, chance.choice([1, 1, 1, 2, 3])):
            kind = "content" if reason in {"COUNT", "DIGEST"} else reason
            if kind not in reasons:  # two of one kind may undo one another
                one, reasons = mutation(chance, one, was), reasons | {kind, reason}
        yield f"AUTHZ_{min(reasons - {'content'}, key=ORDER.index)}", one


def refused(connection: Connection, one: Try) -> str:
    """The reason of it; 'OK' where it is redeemed."""
    try:
        authorisation.redeem(connection, one.reference, one.asked, one.now)
    except Refusal as refusal:
        return refusal.reason
    return "OK"


def test_row_1_1_bound_to_everything(tmp_path: Path) -> None:
    """
    Row 1.1: an authorisation is bound to subject, caller certificate, key, algorithm, the exact ordered list of digests,
    their count, and its audience: of 20 000 mutants with any field or digest changed, added, dropped, reordered or
    duplicated, with another key, caller, output or purpose, or with a document in a digest's place, all are refused, each
    with the reason that belongs to it; none spends the authorisation, which is redeemed afterwards.
    """
    seed = random.randrange(2**32)
    chance, told = random.Random(seed), Counter[str]()
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as connection:
        for number in range(BASES):
            was = base(chance, of_documents=number % 2 == 1)
            reference = authorisation.issue(connection, "ada", "window", was, NOON, LIFETIME_S)
            right = valid(chance, reference, was)
            for reason, one in mutants(chance, right, was, MUTANTS // BASES):
                assert refused(connection, one) == reason, (seed, was, one)
                told[reason] += 1
            assert refused(connection, right) == "OK", (seed, was, right)
            later = replace(right, asked=replace(right.asked, request=chance.randbytes(16)))
            assert refused(connection, later) == "AUTHZ_USED", "another request, once it is redeemed"
    engine.dispose()
    assert told.total() == MUTANTS
    assert set(told) == {f"AUTHZ_{reason}" for reason in ORDER} - {"AUTHZ_USED"}


async def test_row_1_1_bound_to_the_subject(tmp_path: Path) -> None:
    """
    Row 1.1: an authorisation is bound to its subject: of a credential that is somebody else's now, under the same name
    and with the same key, it is refused, and not spent.
    """
    office = Office(tmp_path)
    ada, bob = await office.enrol("ada"), await office.enrol("bob")
    reference, _ = await office.authorise(ada)
    bobs = office.credential(bob, name="ada")
    assert await office.reason(office.consent.redeem(office.ask(bobs, reference))) == "AUTHZ_KEY"
    allowed = await office.redeem(ada, reference)
    assert (allowed.subject, allowed.authorisation) == ("ada", authorisation.name_of(reference))


@pytest.mark.parametrize("factor", ["hotp", "totp"])
async def test_row_1_1_bound_to_her_factor(tmp_path: Path, factor: str) -> None:
    """
    Row 1.1: who has a device proves who she is with it: where a credential of hers has the gate of codes that are sent, one
    that was sent and is right allows nothing, and her secret code is not even compared.
    """
    office = Office(tmp_path)
    await office.enrol("ada", factor)
    by_message = Person("ada", "sent")
    otp = await office.otp(by_message)
    assert await office.reason(office.authorise(by_message, otp=otp)) == "GATE_MISMATCH"
    assert office.codes.compared == []


# ---- through the daemon, the shim's log as the oracle


def sent_to(town: Town, message: Any, caller: str = "portal") -> Answer:
    return said(lambda: town[caller].signing.SignDigests(message, timeout=10))


def changed(message: Any, **fields: Any) -> Any:
    """Another request like it; the checksum follows the digests."""
    new = type(message)()
    new.CopyFrom(message)
    new.request_id = str(uuid.uuid4())
    if "digests" in fields:
        new.ClearField("digests")
        new.digests.extend(fields.pop("digests"))
    for name, value in fields.items():
        setattr(new, name, value)
    new.crc32c = google_crc32c.value(b"".join(new.digests))
    return new


def wire_mutants(chance: random.Random, message: Any, count: int) -> Iterator[tuple[str, str, Any]]:
    """(the reason, who sends it, the request)."""
    table: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        ("AUTHZ_CALLER", "other", dict),
        ("AUTHZ_KEY", "portal", lambda: {"credential": chance.choice(["ada-seen", "bob"])}),
        ("AUTHZ_OUTPUT", "portal", lambda: {"output": chance.choice([pb.CADES_B_B, pb.PADES_B_B])}),
        ("AUTHZ_UNKNOWN", "portal", lambda: {"authorisation": flipped(chance, message.authorisation)}),
        ("AUTHZ_MISSING", "portal", lambda: {"authorisation": b""}),
    ]
    lists: list[tuple[str, Callable[[random.Random, list[bytes]], list[bytes]]]] = [
        ("AUTHZ_COUNT", _dropped),
        ("AUTHZ_COUNT", _added),
        ("AUTHZ_COUNT", _duplicated),
        ("AUTHZ_DIGEST", _reordered),
        ("AUTHZ_DIGEST", _one_flipped),
        ("AUTHZ_DIGEST", _one_twice),
    ]
    for _ in range(count):
        if chance.random() < 0.5:
            reason, caller, fields = chance.choice(table)
            yield reason, caller, changed(message, **fields())
        else:
            reason, change = chance.choice(lists)
            yield reason, "portal", changed(message, digests=change(chance, list(message.digests)))


def enrolled(town: Town, name: str, factor: str) -> Any:
    return town.people.get(name) or town.enrol(name, factor)


def test_row_1_1_through_the_daemon(town: Town) -> None:
    """
    Row 1.1: of 300 mutants of a request, sent over mTLS by the caller or by another one, in calls and on a stream, all
    are refused with the reason that belongs to each, and C_Sign is not called once; then the request itself is signed, as
    it was allowed.
    """
    seed = random.randrange(2**32)
    chance, ada = random.Random(seed), town.people["ada"]
    enrolled(town, "bob", "sent")
    wanted = digests(4, 1_100)
    reference = town.reference(ada, terms(wanted))
    message = pb.SignDigestsRequest(
        request_id=str(uuid.uuid4()), credential="ada", output=pb.RAW, digests=wanted, authorisation=reference,
        crc32c=google_crc32c.value(b"".join(wanted)), digest_algorithm=pb.SHA256, signature_algorithm=pb.ECDSA,
    )  # fmt: skip
    before = signed(town.rig)
    for reason, caller, mutant in wire_mutants(chance, message, 200):
        assert sent_to(town, mutant, caller).brief == ("PERMISSION_DENIED", reason), (seed, caller, mutant)
    streamed = [(reason, mutant) for reason, caller, mutant in wire_mutants(chance, message, 130) if caller == "portal"]
    answers = list(town["portal"].signing.StreamDigests((mutant for _, mutant in streamed), timeout=20))
    assert [answer.error.reason for answer in answers] == [reason for reason, _ in streamed], seed
    assert len(streamed) >= 100
    assert signed(town.rig) == before, "C_Sign was called"
    assert statuses(sent_to(town, message)) == ["SIGNED"] * 4
    assert asked(town.rig)[before:] == [one.hex() for one in wanted]


@pytest.mark.parametrize("output", ["RAW", "CADES_B_B"])
@pytest.mark.parametrize("size", [0, 31, 33, 64, 70_000])
def test_no_digest_of_its_algorithm(town: Town, output: str, size: int) -> None:
    """What could not be signed is not asked of a person: DIGEST_LENGTH, with no code looked at and no attempt counted."""
    wanted = [digest(1), bytes(size)]
    answer = town.authorise(town.people["ada"], terms(wanted, output=output), otp="000000")
    assert answer.brief == ("INVALID_ARGUMENT", "DIGEST_LENGTH")

    def messages() -> Iterator[Any]:
        opening = {"request_id": str(uuid.uuid4()), "credential": "ada", "output": output, **ALGORITHMS}
        yield pb.OpenBatchRequest(open=pb.BatchOpening(**opening))
        for one in wanted:
            yield pb.OpenBatchRequest(digest=pb.TermsItem(name="letter", digest=one))

    opening = said(lambda: town["portal"].signing.OpenBatch(messages(), timeout=10))
    assert opening.brief == ("INVALID_ARGUMENT", "DIGEST_LENGTH")


# ---- F32


def others(town: Town, reference: bytes, wanted: Sequence[bytes]) -> dict[str, Answer]:
    """The reason that belongs to it, and what another digest, one more, another key and another caller are answered."""
    return {
        "AUTHZ_DIGEST": redeem(town, reference, [*wanted[:-1], digest(9_999)]),
        "AUTHZ_COUNT": redeem(town, reference, [*wanted, digest(9_999)]),
        "AUTHZ_KEY": redeem(town, reference, wanted, credential="ada-seen"),
        "AUTHZ_CALLER": redeem(town, reference, wanted, "other"),
    }


def test_f32_authorisations(town: Town) -> None:
    """
    F32: an authorisation that is replayed, a digest that is not in its set, the n+1st digest, another key, another caller:
    PERMISSION_DENIED/AUTHZ_USED, _DIGEST, _COUNT, _KEY, _CALLER, before it is redeemed and after, and nothing is signed.
    (AUTHZ_EXPIRED, and what becomes of a batch in the middle of which it expires: the next two.)
    """
    wanted = digests(3, 1_200)
    reference = town.reference(town.people["ada"], terms(wanted))
    for is_redeemed in (False, True):
        before = signed(town.rig)
        answers = others(town, reference, wanted)
        if is_redeemed:
            answers["AUTHZ_USED"] = redeem(town, reference, wanted)
        assert [one.brief for one in answers.values()] == [("PERMISSION_DENIED", reason) for reason in answers]
        assert signed(town.rig) == before
        if not is_redeemed:
            assert statuses(redeem(town, reference, wanted)) == ["SIGNED"] * 3


def test_f32_expiry_in_the_middle_of_a_batch(town: Town) -> None:
    """
    F32: an authorisation expires in the middle of a batch: what is signed by then is answered, the remaining items are
    NOT_ATTEMPTED/AUTHZ_EXPIRED, but for one under C_Sign then (INDETERMINATE), and no C_Sign begins after its end, with
    the same request again neither.
    """
    wanted = digests(40, 1_300)
    message_id, before = str(uuid.uuid4()), signed(town.rig)
    shim_of(town.rig).script("C_Sign * delay 0.15")
    try:
        answer = town.authorise(town.people["ada"], terms(wanted, "ada-brief"))
        ends = datetime.fromisoformat(answer.value.expires).timestamp()
        done = redeem(town, answer.value.authorisation, wanted, credential="ada-brief", request_id=message_id)
    finally:
        shim_of(town.rig).clear()
    told = [(pb.ItemStatus.Name(item.status), item.reason) for item in done.value.items]
    count = told.index(next(one for one in told if one[0] != "SIGNED"))
    assert 1 <= count <= 20, told
    rest = told[count:]
    if rest[0][0] == "INDETERMINATE":  # it was with the token then
        del rest[0]
    assert set(rest) == {("NOT_ATTEMPTED", "AUTHZ_EXPIRED")}
    made = shim_of(town.rig).signs()[before:]
    assert [call.data for call in made] == [one.hex() for one in wanted[: len(wanted) - len(rest)]]
    assert max(monotonic_s(call) for call in made) <= ends - time.time() + time.monotonic() + 0.1
    again = redeem(town, answer.value.authorisation, wanted, credential="ada-brief", request_id=message_id)
    assert again.brief == ("PERMISSION_DENIED", "AUTHZ_EXPIRED")
    assert signed(town.rig) == before + len(made)


def monotonic_s(call: Any) -> float:
    return float(call.t) / 1e9


def test_f32_expiry_between_documents(town: Town) -> None:
    """
    F32: an authorisation expires while documents are being sent: those that were signed stay signed, the remaining ones
    are NOT_ATTEMPTED/AUTHZ_EXPIRED.
    """
    files = [b"first", b"second", b"third"]
    answer = town.authorise(town.people["ada"], seen(files, "ada-brief"))
    ends = datetime.fromisoformat(answer.value.expires).timestamp()
    before = signed(town.rig)

    def late() -> Iterator[Any]:
        for message in stream(files, "ada-brief", authorisation=answer.value.authorisation):
            if message.HasField("begin") and message.begin.index == 1:
                time.sleep(max(0.0, ends - time.time() + 0.05))  # there is nothing to wait for but the time itself
            yield message

    results = [m.result for m in town["portal"].signing.SignDocuments(late(), timeout=20) if m.HasField("result")]
    told = {one.index: (pb.ItemStatus.Name(one.status), one.reason) for one in results}
    expired = ("NOT_ATTEMPTED", "AUTHZ_EXPIRED")
    assert told == {0: ("SIGNED", ""), 1: expired, 2: expired}
    assert signed(town.rig) == before + 1


# ---- what was allowed for one purpose


def test_row_1_1_a_document_as_a_bare_digest(town: Town) -> None:
    """
    Row 1.1: the output is part of what is allowed: the digest of a document, approved for CADES_B_B or PADES_B_B, is not
    signed RAW, where the key would sign anything that has this digest: AUTHZ_OUTPUT, 0 signatures. Nor is the SHA-256 of
    a document that was to be sent signed as a digest, with the same output: AUTHZ_DIGEST.
    """
    ada, before = town.people["ada"], signed(town.rig)
    for output in ("CADES_B_B", "PADES_B_B"):
        reference = town.reference(ada, terms([digest(1)], output=output))
        assert redeem(town, reference, [digest(1)], output="RAW").brief == ("PERMISSION_DENIED", "AUTHZ_OUTPUT")
    letter = b"a letter to be seen"
    sha256 = hashlib.sha256(letter).digest()
    reference = town.reference(ada, seen([letter]))
    for output, reason in (("RAW", "AUTHZ_OUTPUT"), ("CADES_B_B", "AUTHZ_DIGEST")):
        answer = redeem(town, reference, [sha256], credential="ada-seen", output=output)
        assert answer.brief == ("PERMISSION_DENIED", reason)
    assert signed(town.rig) == before
    [result] = [
        m.result
        for m in town["portal"].signing.SignDocuments(stream([letter], authorisation=reference), timeout=20)
        if m.HasField("result")
    ]
    assert pb.ItemStatus.Name(result.status) == "SIGNED"


def login(credential: str) -> Any:
    return pb.Login(credential=credential, audience="https://portal.example", nonce=bytes(16), **ALGORITHMS)


def test_row_1_1_a_login_as_a_signature(town: Town) -> None:
    """
    Row 1.1: the purpose is part of what is allowed: what was approved to log in signs nothing else. A code that was sent
    for a login is OTP_EXPIRED for a signature; an authorisation of a login, were it known, is AUTHZ_OUTPUT; a signing call
    with the authentication credential is refused whatever comes with it: 0 signatures.
    """
    ada, dan = town.people["ada"], enrolled(town, "dan", "sent")
    before = signed(town.rig)
    after = len(town.inbox.messages)
    town["window"].signing.RequestOtp(pb.RequestOtpRequest(login=login("dan-login")), timeout=10)
    told = town.inbox.next("dan", "login-code", after)["text"]
    assert f"\n    {login('dan-login').audience}\n" in told, "a code is typed in where the person wants to be"
    otp = town.inbox.code("dan", "login-code", after)
    answer = town.authorise(dan, terms([digest(1)], "dan"), otp=otp)
    assert answer.brief == ("PERMISSION_DENIED", "OTP_EXPIRED")
    assert town.authorise(ada, terms([digest(1)], "ada-login"), otp="000000").reason == "CERT_USAGE"
    key = town["portal"].signing.GetCredential(pb.GetCredentialRequest(credential="ada"), timeout=10).key_id.hex()
    engine = open_store(town.rig.state / "paraph.sqlite")
    with engine.begin() as connection:  # as Authenticate writes it; its reference never leaves the daemon
        allowed = Terms("portal", "ada", key, LOGIN, "ECDSA-SHA256", (b"",), (digest(1),))
        reference = authorisation.issue(connection, "ada", "window", allowed, time.time(), LIFETIME_S)
    engine.dispose()
    for output in ("RAW", "CADES_B_B", "PADES_B_B"):
        answer = redeem(town, reference, [digest(1)], output=output)
        assert answer.brief == ("PERMISSION_DENIED", "AUTHZ_OUTPUT")
        answer = redeem(town, reference, [digest(1)], credential="ada-login", output=output)
        assert answer.code != "OK"
    assert signed(town.rig) == before
    town.unlock("dan")
    request = pb.AuthenticateRequest(
        request_id=str(uuid.uuid4()), login=login("dan-login"), secret_code=dan.code, otp=otp
    )  # fmt: skip
    statement = town["window"].signing.Authenticate(request, timeout=10).statement
    assert statement.startswith(b"paraph-login-v1\n"), "it was a code that logs in"


def test_row_1_1_the_portals_certificate_alone(town: Town) -> None:
    """
    Row 1.1: with the portal's certificate alone nothing of a person's is signed: every call that would bring codes, look
    at a person's batch or change who she is is RPC_NOT_ALLOWED, and every signing call wants an authorisation.
    """
    enrolled(town, "bob", "sent")
    before, tried = signed(town.rig), 0
    name, link = opened(town, [b"a letter"])
    stubs = {"signing": signing_pb2.DESCRIPTOR.services_by_name["Signing"]}
    stubs["operator"] = operator_pb2.DESCRIPTOR.services_by_name["Operator"]
    for stub, service in stubs.items():
        for method in service.methods:
            if method.name in ROLES["submit"]:
                continue
            request = message_factory.GetMessageClass(method.input_type)()
            for field in ("request_id", "batch"):
                if field in method.input_type.fields_by_name:
                    setattr(request, field, name)
            call = getattr(getattr(town["portal"], stub), method.name)
            answer = said(lambda: drained(call(request, timeout=10)))  # noqa: B023 -- called at once
            assert answer.brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED"), method.name
            tried += 1
    assert tried >= 17
    assert (
        said(lambda: drained(town["portal"].signing.GetBatch(pb.GetBatchRequest(link=link)))).reason == "BATCH_UNKNOWN"
    )
    for credential in ("ada", "ada-seen", "bob"):
        for output in ("RAW", "CADES_B_B", "PADES_B_B"):
            answer = redeem(town, b"", [digest(1)], credential=credential, output=output, request_id=name)
            assert answer.brief == ("PERMISSION_DENIED", "AUTHZ_MISSING")
            guess = redeem(town, secrets.token_bytes(32), [digest(1)], credential=credential, output=output)
            assert guess.brief == ("PERMISSION_DENIED", "AUTHZ_UNKNOWN")
    [result] = [m.result for m in town["portal"].signing.SignDocuments(stream([b"a letter"]), timeout=10)]
    assert (pb.ItemStatus.Name(result.status), result.reason) == ("FAILED", "AUTHZ_MISSING")
    assert signed(town.rig) == before


def drained(answer: Any) -> Any:
    """Also of a call whose answers are a stream, which fails when it is read."""
    return list(answer) if hasattr(answer, "__iter__") else answer


# ---- a stolen database


@dataclass(frozen=True)
class Secrets:
    """What is in nobody's database: what bearers, people and their devices have."""

    reference: bytes
    link: str
    enrolment: str
    sent: str
    seed: bytes


def busy(town: Town) -> Secrets:
    """Everything that can be open is: an authorisation, a one-time code, an enrolment, a batch with its link."""
    ada, bob = town.people["ada"], enrolled(town, "bob", "sent")
    reference = town.reference(ada, terms(digests(2, 1_400)))
    assert statuses(redeem(town, town.reference(ada, terms([digest(1)])), [digest(1)])) == ["SIGNED"]
    sent = town.sent(bob, terms([digest(2)], "bob"))
    after = len(town.inbox.messages)
    town["operator"].operator.EnrolSubject(town.enrolment("eve", "totp"), timeout=10)
    enrolment = town.inbox.code("eve", "enrolment-code", after)
    _, link = opened(town, [b"a letter"])
    seed = base64.b32decode(parse_qs(urlsplit(ada.uri).query)["secret"][0])
    return Secrets(reference, link, enrolment, sent, seed)


def copied(source: Path, to: Path) -> dict[str, list[sqlite3.Row]]:
    """The rows of a copy of the database, table by table."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(to)) as new:
        old.backup(new)
        new.row_factory = sqlite3.Row
        names = [row["name"] for row in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: new.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def test_row_1_1_a_stolen_database(town: Town, tmp_path: Path) -> None:
    """
    Row 1.1: who has a copy of the database, and the callers' certificates besides, can redeem nothing that is in it: it
    holds no reference, link, code, seed or message in clear, and each of its values, given as a reference, a link, an
    enrolment code, a secret code or a one-time code, is refused: 0 signatures.
    """
    known, before = busy(town), signed(town.rig)
    rows = copied(town.rig.state / "paraph.sqlite", tmp_path / "stolen.sqlite")
    content = b"".join(path.read_bytes() for path in (tmp_path / "stolen.sqlite", *town.rig.state.glob("*.sqlite*")))
    code = known.enrolment.replace("-", "")
    texts = [known.link, known.enrolment, code, CODE, base64.b32encode(known.seed).decode(), "Your code to sign"]
    for secret in (known.reference, known.seed, *(text.encode() for text in texts)):
        assert secret not in content
        assert secret.hex().encode() not in content
    people = ("authorisations", "sent_codes", "enrolments", "subjects", "batches", "outbox")
    assert all(rows[name] for name in people), "there is something of each to be stolen"
    values = {value for name in people for row in rows[name] for value in tuple(row) if isinstance(value, bytes | str)}
    raw = {value if isinstance(value, bytes) else value.encode() for value in values} - {b""}
    mine = [row for row in rows["authorisations"] if row["caller"] == "portal" and row["output"] == "RAW"][-2:]
    assert [row["request"] is None for row in mine] == [True, False], "one to be redeemed, one that was"
    for row in mine:
        wanted = digests(row["count"], 1_400)  # the digests are not in it either; the thief may know them
        for value in (row["hash"], row["hash"].hex().encode(), *raw):
            answer = redeem(town, value, wanted, credential=row["credential"], output=row["output"])
            assert answer.code != "OK", (row["credential"], value)
            assert answer.reason in {"AUTHZ_UNKNOWN", "DIGEST_LENGTH"}
    spelt = {value if isinstance(value, str) else value.hex() for value in values} | {
        base64.b32encode(value).decode() for value in raw
    }
    for number, text in enumerate(sorted(spelt)):
        assert said(lambda: drained(town["window"].signing.GetBatch(pb.GetBatchRequest(link=text)))).code != "OK"  # noqa: B023
        completing = pb.CompleteEnrolmentRequest(enrolment=text, source=f"198.51.100.{number // 10}")
        answer = said(lambda: town["window"].signing.CompleteEnrolment(completing, timeout=10))  # noqa: B023
        assert answer.reason == "ENROLMENT_UNKNOWN"
    [bob] = [row for row in rows["subjects"] if row["name"] == "bob"]
    [sent] = [row for row in rows["sent_codes"] if row["subject"] == "bob"]
    digits = f"{int.from_bytes(sent['fingerprint']) % 10**6:06}"
    for secret_code in (bob["code"][:64], bob["code"].rpartition("$")[2], bob["code"][-64:]):
        answer = town.authorise(town.people["bob"], terms([digest(2)], "bob"), code=secret_code, otp=digits)
        assert answer.reason == "OTP_INCORRECT"
    assert signed(town.rig) == before
    town.unlock("bob")
    answer = town.authorise(town.people["bob"], terms([digest(2)], "bob"), otp=known.sent)
    assert answer.code == "OK", "the code was a live one"
    assert statuses(redeem(town, known.reference, digests(2, 1_400))) == ["SIGNED"] * 2
