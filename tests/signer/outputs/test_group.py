"""
Groups: seals with their own keys and certificates behind one name, on unlike hardware. The member that will have done it
soonest signs, its certificate is in the answer; where one cannot, the next does, but never after something was attempted.
"""

import asyncio
import concurrent.futures
import json
import re
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from pool import Busy, Key, Unavailable
from signer import group
from signer.config import ConfigError, Group
from signer.credential import Credential, Output, Purpose, State
from signer.errors import Refusal
from signer.gate import Gate
from signer.local import sign_pdf
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, Token, running, until
from tests.hostile import minimal_pdf
from tests.shim import Shim
from tests.signer.access.calls import Answer, Caller, ask, digest, digests, reload, shim_of, statuses
from tests.signer.outputs.driver import Stream, Verifiers, sign
from tests.softhsm import MODULE

SLOW_S = 0.185  # a signature of a national identity card
MEMBERS = ("slow", "fast-1", "fast-2")
CONTENT = b"the minutes of the meeting"
IN_GROUP = {"credential": "seals", "digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A slow card behind the shim and two fast tokens, a seal on each; "seals" are the three, "portal" may name only them."""
    made = Rig()
    made.shim = Shim(made.directory / "shim", str(MODULE))
    made.shim.script(f"C_Sign * delay {SLOW_S}")
    for name in MEMBERS:
        made.store.token(name)
        made.store.keys(name, ["P-256"], [name])
        _, spki = made.store.made[name]["P-256"]
        made.credentials[name] = (made.pki.signer(f"Seal {name}", spki), name, ["RAW", "CADES_B_B", "PADES_B_B"])
    made.tokens = [Token(name, name, **({"module": made.shim.module} if name == "slow" else {})) for name in MEMBERS]
    made.sections = [f'[[group]]\nname = "seals"\nmembers = {json.dumps(MEMBERS)}']
    made.callers["portal"] = ("submit", made.callers["portal"][1], ["seals"])
    role, rpcs, _ = made.callers["operator"]
    made.callers["operator"] = (role, [*rpcs, "SetCredentialState"], ())
    made.callers["other"] = ("submit", made.callers["portal"][1], ["fast-1"])
    with running(made):
        until(lambda: set(states(made).values()) == {"READY"}, 20)
        with Caller(made, "operator") as operator:
            for name in MEMBERS[1:]:  # the card is measured, so that it is known for slow
                operator.operator.DrainToken(op.DrainTokenRequest(token=name), timeout=5)
            with Caller(made) as portal:
                assert signed_by(portal.sign(credential="seals")) == "slow"
            for name in MEMBERS[1:]:
                operator.operator.ResumeToken(op.ResumeTokenRequest(token=name), timeout=5)
        until(lambda: set(states(made).values()) == {"READY"}, 20)
        yield made


@pytest.fixture
def portal(rig: Rig) -> Iterator[Caller]:
    with Caller(rig) as made:
        yield made


@pytest.fixture
def only(rig: Rig) -> Iterator[Callable[..., None]]:
    """`only("slow")`: the others are drained; all are back afterwards, and the card is as slow as it was."""
    with Caller(rig, "operator") as operator:

        def leave(*names: str) -> None:
            for name, state in states(rig).items():
                if (state == "DRAINED") is (name in names):
                    step = operator.operator.ResumeToken if name in names else operator.operator.DrainToken
                    request = op.ResumeTokenRequest if name in names else op.DrainTokenRequest
                    step(request(token=name), timeout=5)
            until(lambda: all(states(rig)[name] == "READY" for name in names), 15)

        yield leave
        shim_of(rig).script(f"C_Sign * delay {SLOW_S}")
        leave(*MEMBERS)


def states(rig: Rig) -> dict[str, str]:
    with Caller(rig, "operator") as operator:
        found = operator.operator.ListTokens(op.ListTokensRequest(), timeout=5).tokens
    return {token.name: op.Token.State.Name(token.state) for token in found}


def signatures(rig: Rig) -> dict[str, int]:
    with Caller(rig, "operator") as operator:
        found = operator.operator.ListTokens(op.ListTokensRequest(), timeout=5).tokens
    return {token.name: sum(lane.signatures for lane in token.lanes) for token in found}


def member_of(certificate: bytes) -> str:
    [name] = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name.value).removeprefix("Seal ")


def signed_by(answer: Answer, items: Sequence[bytes] = (digest(0),)) -> str:
    """The member whose certificate is in a RAW answer, whose key has signed all of it."""
    assert statuses(answer) == ["SIGNED"] * len(items)
    key = x509.load_der_x509_certificate(answer.value.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for item, one in zip(items, answer.value.items, strict=True):
        key.verify(one.signature, item, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    return member_of(answer.value.certificate)


# ---- who signs


def test_the_soonest_signs(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """
    Many at one time, the fast ones warm: each is signed by one member, with that one's certificate in the answer; the slow card does what it
    can and holds up nobody: all are done in a small part of the time that the card would need.
    """
    for name in MEMBERS[1:]:
        only(name)
        for n in range(3):
            assert signed_by(portal.sign(credential="seals", digests=digests(40, 40 * n)), digests(40, 40 * n)) == name
    only(*MEMBERS)
    began, before, count = (
        time.monotonic(),
        signatures(rig),
        400,
    )  # some 20 ms of a fast one: they come more often than that
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(portal.sign, credential="seals", digests=digests(count, 1000 * n)) for n in range(24)]
        members = Counter(signed_by(call.result(), digests(count, 1000 * n)) for n, call in enumerate(calls))
    assert set(members) <= set(MEMBERS)
    assert min(members["fast-1"], members["fast-2"]) >= 5, members
    assert time.monotonic() - began < count * SLOW_S / 10
    made = {name: signed - before[name] for name, signed in signatures(rig).items()}
    assert made == {name: count * members[name] for name in MEMBERS}


def test_a_slow_member_takes_its_part(portal: Caller, only: Callable[..., None]) -> None:
    """When it is the only one that can, the slow one signs; a locked or drained one is passed over at once."""
    only("slow")
    assert signed_by(portal.sign(credential="seals")) == "slow"
    only("fast-2")
    assert signed_by(portal.sign(credential="seals")) == "fast-2"
    only()
    refused = portal.sign(credential="seals")
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "TOKEN_DRAINED")


def test_cms_has_the_member_s_certificate(rig: Rig, portal: Caller, tmp_path: Path) -> None:
    """The signed attributes carry the certificate of who signs: openssl finds the CMS good, with the answer's certificate."""
    verifiers = Verifiers(rig.pki.root_file, tmp_path)
    content = hashes.Hash(hashes.SHA256())
    content.update(CONTENT)
    answer = portal.sign(credential="seals", output="CADES_B_B", digests=[content.finalize()])
    [item] = answer.value.items
    verifiers.openssl(item.signature, CONTENT)
    assert certificate_in(item.signature) == answer.value.certificate
    assert member_of(answer.value.certificate) in MEMBERS


def certificate_in(signature: bytes) -> bytes:
    return bytes(cms.ContentInfo.load(signature)["content"]["certificates"][0].dump())


@pytest.mark.parametrize("output", ["RAW", "CADES_B_B"])
def test_a_repeat_is_the_same_member_s(output: str, portal: Caller, only: Callable[..., None]) -> None:
    """Asked again with the same id it is answered with the same bytes, also when that member would not be chosen any more."""
    request = ask(credential="seals", output=output)
    only("fast-1")
    first = portal.sign(request)
    assert member_of(first.value.certificate) == "fast-1"
    only("slow")
    again = portal.sign(request)
    assert again.value.SerializeToString() == first.value.SerializeToString()
    found = portal.signing.GetResult(pb.GetResultRequest(request_id=request.request_id), timeout=5)
    assert found.certificate == first.value.certificate
    assert [one.item.signature for one in found.items] == [one.signature for one in first.value.items]
    other = portal.sign(ask(credential="seals", output=output, request_id=request.request_id, digests=[digest(1)]))
    assert other.reason == "IDEMPOTENCY_MISMATCH"


def test_on_a_stream(portal: Caller, only: Callable[..., None]) -> None:
    """StreamDigests, too: each request of a stream has a member, whose certificate is in its answer."""
    only("fast-1", "fast-2")
    requests = [ask(credential="seals", digests=digests(5, 10 * number)) for number in range(4)]
    answers = list(portal.signing.StreamDigests(iter(requests), timeout=10))
    found = [signed_by(Answer("OK", value=each), digests(5, 10 * n)) for n, each in enumerate(answers)]
    assert len(found) == len(requests)
    assert set(found) <= {"fast-1", "fast-2"}


async def test_a_local_document_names_a_member(rig: Rig, portal: Caller, tmp_path: Path) -> None:
    """What the client prepares itself is for one certificate: of a group it is told so, before anything is written."""
    shown = portal.signing.GetCredential(pb.GetCredentialRequest(credential="seals"), timeout=5)
    async with rig.client() as client:
        with pytest.raises(ValueError, match="seals is a group: name one of its members"):
            await sign_pdf(client, shown, tmp_path / "none.pdf", tmp_path / "signed.pdf")
    assert not list(tmp_path.iterdir())


# ---- a member that fails


def held(rig: Rig, portal: Caller, pool: concurrent.futures.ThreadPoolExecutor) -> concurrent.futures.Future[Answer]:
    """A request that the slow card is just signing, and goes on signing until its script is another one."""
    shim = shim_of(rig)
    number = shim.number("C_Sign") + 1
    shim.script(f"C_Sign {number} hold 30")
    call = pool.submit(portal.sign, credential="seals")
    until(lambda: shim.number("C_Sign") == number, 5)
    return call


def test_before_anything_was_attempted_the_next_signs(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """A request that waits for a member whose token goes away is signed by another one; who has it under C_Sign keeps it."""
    only("slow")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = held(rig, portal, pool)
        with Caller(rig) as own:
            waiting = pool.submit(own.sign, credential="seals", output="RAW", digests=digests(3))
            until(lambda: waiting_for(rig, "slow") == 3, 5)
            only("fast-1", "slow")
            assert not waiting.done()
            only("fast-1")
            assert signed_by(waiting.result(5), digests(3)) == "fast-1"
        shim_of(rig).clear()
        assert signed_by(first.result(10)) == "slow"


def waiting_for(rig: Rig, name: str) -> int:
    with Caller(rig, "operator") as operator:
        found = operator.operator.ListTokens(op.ListTokensRequest(), timeout=5).tokens
    return next(token.waiting for token in found if token.name == name)


async def test_a_document_is_prepared_again_for_the_next(
    rig: Rig, portal: Caller, only: Callable[..., None], tmp_path: Path
) -> None:
    """The same for a PDF: what was prepared for the member that went away is taken back, and pdfsig finds one good signature."""
    verifiers = Verifiers(rig.pki.root_file, tmp_path)
    await asyncio.to_thread(only, "slow")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = await asyncio.to_thread(held, rig, portal, pool)
        async with rig.client() as client:
            signing = asyncio.create_task(sign(client, [minimal_pdf()], **IN_GROUP))
            await asyncio.to_thread(until, lambda: waiting_for(rig, "slow") == 1, 10)
            await asyncio.to_thread(only, "fast-2", "slow")
            await asyncio.to_thread(only, "fast-2")
            [answer] = await signing
        shim_of(rig).clear()
        await asyncio.to_thread(first.result, 10)
    assert answer.signed, answer.result.message
    assert answer.result.token == member_of(answer.result.certificate) == "fast-2"
    assert verifiers.pdf_good(answer.data)
    assert b"Seal slow" not in answer.data


def test_after_something_was_attempted_nobody_else_signs(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """
    The member crashes under C_Sign: the item is INDETERMINATE, and no other member signs it, neither then nor when it is
    asked for again: only the same one goes on with it.
    """
    shim = shim_of(rig)
    only("slow")
    shim.script(f"C_Sign {shim.number('C_Sign') + 1} crash")
    request = ask(credential="seals")
    answer = portal.sign(request)
    assert answer.reason == "MODULE_CRASH"
    assert "INDETERMINATE" in answer.message
    shim.clear()
    only("fast-1", "fast-2")
    before = signatures(rig)
    again = portal.sign(request)
    assert (again.code, again.reason) == ("UNAVAILABLE", "TOKEN_DRAINED")
    assert signatures(rig) == before
    only("slow")
    assert signed_by(portal.sign(request)) == "slow"


def test_what_is_wrong_with_one_is_passed_over(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """A suspended member does not sign, and the group does; with all suspended it says so."""
    only(*MEMBERS)
    with Caller(rig, "operator") as operator:

        def suspend(*names: str) -> None:
            for name in MEMBERS:
                request = op.SetCredentialStateRequest(name=name, suspended=name in names)
                operator.operator.SetCredentialState(request, timeout=5)

        try:
            for alone in MEMBERS:
                suspend(*(set(MEMBERS) - {alone}))
                assert signed_by(portal.sign(credential="seals")) == alone
            suspend(*MEMBERS)
            assert portal.sign(credential="seals").reason == "CREDENTIAL_SUSPENDED"
            shown = portal.signing.GetCredential(pb.GetCredentialRequest(credential="seals"), timeout=5)
            assert (shown.available, shown.state) == (False, "SUSPENDED")
        finally:
            suspend()


async def test_documents_of_a_stream_have_their_own(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """Each document of a stream has a member of its own: its result, and later GetResult, say whose certificate it is."""
    request_id = str(uuid.uuid4())
    async with rig.client() as client:
        stream = await Stream(client).open("CADES_B_B", request_id=request_id, **IN_GROUP)
        results = []
        for index, name in enumerate(("fast-1", "fast-2")):
            await asyncio.to_thread(only, name)
            results.append((await stream.round(index, CONTENT)).result)
        await stream.close()
    assert [member_of(result.certificate) for result in results] == ["fast-1", "fast-2"]
    found = portal.signing.GetResult(pb.GetResultRequest(request_id=request_id), timeout=5)
    assert [member_of(item.certificate or found.certificate) for item in found.items] == ["fast-1", "fast-2"]
    assert [certificate_in(item.item.signature) for item in found.items] == [one.certificate for one in results]


# ---- who may, and what is shown


def test_only_who_is_allowed_the_group(rig: Rig, portal: Caller) -> None:
    """The allow-list names the group: its members alone do not give it, nor does it give them; one answer for all of that."""
    assert portal.sign(credential="fast-1").reason == "CREDENTIAL_UNKNOWN"
    with Caller(rig, "other") as other:
        refused = other.sign(credential="seals")
        assert refused.reason == "CREDENTIAL_UNKNOWN"
        assert refused == other.sign(credential="no-such")
        assert signed_by(other.sign(credential="fast-1")) == "fast-1"
        assert [
            one.name for one in other.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=5).credentials
        ] == ["fast-1"]


def test_the_group_is_shown_with_its_members(rig: Rig, portal: Caller) -> None:
    """ListCredentials and GetCredential show the group, and each member with its certificate."""
    [shown] = portal.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=5).credentials
    assert shown == portal.signing.GetCredential(pb.GetCredentialRequest(credential="seals"), timeout=5)
    assert (shown.name, shown.key_type, shown.available, shown.gate) == ("seals", "P-256", True, "caller")
    assert not shown.certificates
    assert {pb.Output.Name(output) for output in shown.outputs} == {"RAW", "CADES_B_B", "PADES_B_B"}
    assert [member.name for member in shown.members] == sorted(MEMBERS)
    assert {member_of(member.certificates[0]) for member in shown.members} == set(MEMBERS)
    assert shown.cms_bytes_max == max(member.cms_bytes_max for member in shown.members)


def test_the_ledger_names_the_member(rig: Rig, portal: Caller, only: Callable[..., None]) -> None:
    """What was intended and signed stands in the ledger under the member's credential, key and token."""
    only("fast-2")
    request = ask(credential="seals")
    portal.sign(request)
    with sqlite3.connect(f"file:{rig.state}/paraph.sqlite?mode=ro", uri=True) as database:
        bodies = [
            json.loads(body) for (body,) in database.execute("SELECT body FROM ledger_rows WHERE kind = 'INTENT'")
        ]
    [row] = [body for body in bodies if request.request_id in json.dumps(body)]
    text = json.dumps(row)
    assert '"credential": "fast-2"' in text
    assert '"token": "fast-2"' in text
    assert "seals" not in text


# ---- the configuration


def test_an_unknown_member_is_a_mistake(rig: Rig) -> None:
    """At --check and at a reload, which leaves what was in force; and who is a member is not removed."""
    good = rig.config.read_text()
    try:
        rig.config.write_text(good.replace(f"members = {json.dumps(MEMBERS)}", 'members = ["slow", "ghost"]'))
        said = (
            'group "seals": members: there is no credential '
            "'ghost'; `paraph credential add ghost` first, or take it out"
        )
        checked = rig.command("serve", "--check", "--config", rig.config)
        assert (checked.returncode, said in checked.stderr) == (78, True), checked.stderr
        assert said in reload(rig)
        with Caller(rig) as portal:
            assert (
                len(portal.signing.GetCredential(pb.GetCredentialRequest(credential="seals"), timeout=5).members) == 3
            )
    finally:
        rig.config.write_text(good)
    removed = rig.command("credential", "--config", rig.config, "remove", "slow")
    assert (removed.returncode, "is a member of seals" in removed.stderr) == (1, True)
    assert "reloaded" in reload(rig)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "g", "members": []}, "members"),
        ({"name": "g", "members": ["a", "a"]}, "each member is named once"),
        ({"name": "g", "members": ["a"], "weight": 1}, "weight"),
        ({"name": "a", "members": ["b"]}, 'group "a": it is the name of a credential'),
        ({"name": "g", "members": ["a", "g"]}, "there is no credential 'g'"),
    ],
)
def test_mistakes_in_a_group(table: dict[str, Any], said: str) -> None:
    """What is no group is named with its place; a group is no member of a group."""
    with pytest.raises(ValueError, match=re.escape(said)):
        found = Group.model_validate(table)
        try:
            group.check([found], {name: a_seal(name) for name in "ab"})
        except ConfigError as error:
            raise ValueError(str(error)) from None


def a_seal(name: str, **more: Any) -> Credential:
    key = ec.generate_private_key(more.pop("curve", ec.SECP256R1())).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return replace(
        Credential(name, Purpose.SIGNATURE, (b"",), Key(spki, None, name), frozenset({Output.RAW}), State.ACTIVE),
        **more,
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"gate": Gate.TOKEN_PIN, "subject": "ada"}, "b is no seal"),
        ({"purpose": Purpose.AUTHENTICATION}, "b is no seal"),
        ({"curve": ec.SECP384R1()}, "keys of several types (P-256, P-384)"),
    ],
)
def test_members_are_seals_alike(other: dict[str, Any], said: str) -> None:
    """A person's key signs in nobody's place, and requests name one kind of signature."""
    credentials = {"a": a_seal("a"), "b": a_seal("b", **other)}
    with pytest.raises(ConfigError) as refused:
        group.check([Group(name="g", members=("a", "b"))], credentials)
    assert said in str(refused.value)
    group.check([Group(name="g", members=("a",))], credentials)


def test_which_errors_lead_to_the_next() -> None:
    """What is wrong with the request is told at once, and not once for each member."""
    assert group.may_go_on(Refusal("CERT_EXPIRED"))
    assert group.may_go_on(Busy("BACKLOG_FULL", 1.0))
    assert group.may_go_on(Unavailable("TOKEN_ABSENT"))
    for reason in ("IDEMPOTENCY_MISMATCH", "DIGEST_LENGTH", "DEADLINE_EXCEEDED", "AUDIT_UNWRITABLE", "PDF_REJECTED"):
        assert not group.may_go_on(Refusal(reason))
    first, second = Refusal("CREDENTIAL_CHANGED"), Refusal("CERT_EXPIRED")
    assert group.worse(None, first) is first
    assert group.worse(first, second) is second
    assert group.worse(second, first) is second
