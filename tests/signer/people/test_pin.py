"""A person's own token on the daemon's machine: it takes her PIN for one batch, and is clean again afterwards."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from pool import lane as lanes
from pool import token as tokens
from signer.gate import Gate
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.signer.access.calls import Answer, ask, said, signed, statuses
from tests.signer.people.office import Office, Person
from tests.signer.people.persons import STICK_PIN, Town, batch
from tests.signer.people.test_batches import files


def opened(town: Town) -> str:
    answer = town["portal"].signing.OpenBatch(batch([b"one", b"two"], credential="dora"), timeout=20)
    list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=answer.link), timeout=10))
    return str(answer.batch.request_id)


def sign(town: Town, name: str, pin: str, **more: Any) -> Answer:
    request = pb.SignBatchRequest(request_id=name, pin=pin, source="192.0.2.7", **more)
    return said(lambda: town["window"].signing.SignBatch(request, timeout=20))


def stick(town: Town) -> Any:
    tokens = town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
    return next(token for token in tokens if token.name == "stick")


def waits(town: Town) -> None:
    until(lambda: stick(town).state == op.Token.OPEN, 10, "the stick waits for its person")


def test_with_her_pin(town: Town) -> None:
    """Both documents are signed on her own token, once; afterwards it waits again, logged out."""
    waits(town)
    name = opened(town)
    answer = sign(town, name, STICK_PIN)
    assert answer.code == "OK", answer
    assert [pb.ItemStatus.Name(one.status) for one in answer.value.outcomes] == ["SIGNED"] * 2
    waits(town)
    assert sign(town, name, STICK_PIN).brief == ("FAILED_PRECONDITION", "BATCH_STATE")


def test_a_wrong_pin(town: Town) -> None:
    """
    F15: a wrong PIN: PERMISSION_DENIED/PIN_INCORRECT, with the tries that are left where they are known, and not to be tried
    again by itself; nothing is signed, and with the right one afterwards it is.
    """
    waits(town)
    name, before = opened(town), signed(town.rig)
    answer = sign(town, name, "000000")
    assert answer.brief == ("PERMISSION_DENIED", "PIN_INCORRECT")
    assert "tries left" in answer.message
    assert answer.retry_s is None
    assert signed(town.rig) == before
    waits(town)
    assert sign(town, name, STICK_PIN).code == "OK"
    assert "000000" not in town.rig.log.read_text()


def test_no_pin_and_no_code_will_do(town: Town) -> None:
    """An empty PIN is never sent, and a code opens nothing that a PIN guards."""
    waits(town)
    name = opened(town)
    assert town.rig.shim is not None
    logins = town.rig.shim.number("C_Login")
    assert sign(town, name, "").brief == ("PERMISSION_DENIED", "PIN_INCORRECT")
    given = {"secret_code": "correct horse 7", "otp": "123456"}
    assert sign(town, name, "", **given).brief == ("PERMISSION_DENIED", "PIN_INCORRECT")
    assert town.rig.shim.number("C_Login") == logins


async def test_a_ledger_that_cannot_be_written(tmp_path: Path) -> None:
    """What is wrong with the ledger is told before her PIN goes anywhere: no try of it is spent where nothing can be signed."""
    office, tries = Office(tmp_path), []
    dora = replace(office.credential(Person("dora", "hotp")), gate=Gate.TOKEN_PIN)
    office.ask(dora, b"")  # so that the store has it

    async def tried() -> None:
        async with office.consent.pin_given(dora, 1, "192.0.2.7", override=False):
            tries.append(office.book.trouble)

    office.book.trouble = "CHECKPOINT_OVERDUE"
    assert await office.reason(tried()) == "CHECKPOINT_OVERDUE"
    office.book.trouble = ""
    assert await office.reason(tried()) == "OK"
    assert tries == [""]


def test_a_file_that_was_changed_while_it_waited(town: Town) -> None:
    """One bit of the daemon's own copy was changed before her PIN was given: AUTHZ_DIGEST, nothing is signed."""
    waits(town)
    before, kept = signed(town.rig), set(files(town))
    name = opened(town)
    file = max(set(files(town)) - kept)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert sign(town, name, STICK_PIN).brief == ("PERMISSION_DENIED", "AUTHZ_DIGEST")
    assert signed(town.rig) == before


def test_an_id_that_is_another_s_by_now(town: Town) -> None:
    """
    Another caller has signed with the batch's request id since it was opened, so that the batch cannot be signed any more: told
    before her PIN goes anywhere.
    """
    waits(town)
    assert town.rig.shim is not None
    name, logins = opened(town), town.rig.shim.number("C_Login")
    assert statuses(town["other"].sign(ask(request_id=name))) == ["SIGNED"]
    assert sign(town, name, STICK_PIN).brief == ("NOT_FOUND", "REQUEST_UNKNOWN")
    assert town.rig.shim.number("C_Login") == logins


def test_at_the_readers_pad() -> None:
    """
    F12: the PIN is typed at the reader: her credential says so, the operator sees WAITING and for what, the batch is
    signed without a PIN in the request, and one that brings a PIN is refused before anything is sent.
    """
    with Town(presence="pad") as town, ThreadPoolExecutor(1) as pool:
        shim = town.rig.shim
        assert shim is not None
        ask = pb.GetCredentialRequest(credential="dora")
        until(lambda: town["portal"].signing.GetCredential(ask, timeout=10).available, 10, "her stick is recognised")
        dora = town["portal"].signing.GetCredential(ask, timeout=10)
        assert (dora.gate, dora.presence) == ("token-pin", "pad")
        name, logins = opened(town), shim.number("C_Login")
        assert sign(town, name, STICK_PIN).brief == ("INVALID_ARGUMENT", "PIN_AT_PAD")
        assert shim.number("C_Login") == logins
        shim.script("C_GetTokenInfo@stick * pad", f"C_Login@stick * typed {STICK_PIN}", "C_Login@stick * hold 20")
        signing = pool.submit(sign, town, name, "")
        until(lambda: stick(town).state == op.Token.WAITING, 10, "the reader asks for the PIN")
        assert "typed at the reader" in stick(town).detail
        shim.script("C_GetTokenInfo@stick * pad", f"C_Login@stick * typed {STICK_PIN}")
        answer = signing.result(20)
        assert answer.code == "OK", answer
        assert [pb.ItemStatus.Name(one.status) for one in answer.value.outcomes] == ["SIGNED"] * 2


def test_every_state_can_be_told() -> None:
    """What the pool calls its tokens and lanes has a name on the wire."""
    assert {state.value for state in tokens.State} == set(op.Token.State.keys()) - {"STATE_UNSPECIFIED"}
    assert {state.value for state in lanes.State} == set(op.Lane.State.keys()) - {"STATE_UNSPECIFIED"}
