"""The map from a PKCS#11 return code to what is done about it: a test for each row, and real modules where they give it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool import Pool, Status
from pool.codes import (
    CARD_GONE,
    INIT_REQUEST,
    NAMES,
    PIN_NOT_CHECKED,
    PIN_REFUSED,
    REMOVED,
    REMOVED_BEFORE,
    TABLE,
    Meaning,
)
from tests.conftest import Keys, MakePool
from tests.opencryptoki import Opencryptoki
from tests.pool.conftest import MakePersonal
from tests.pool.persons import count, leased, refused, waits
from tests.pool.rig import ECDSA, PSS, RSA, audit, config, digests, pids, pool_over, state, statuses, until, view
from tests.pool.stacks import Stack, token
from tests.shim import Shim
from tests.softhsm import MODULE, PIN, Store, generate

NUMBERS = {name: number for number, name in NAMES.items()}
# By the name that the function list gives it; python-pkcs11's own names are not of the standard.
NOT_CHECKED = sorted(PIN_NOT_CHECKED & NUMBERS.keys())


def rows(what: Meaning) -> list[str]:
    return [code for code, meaning in TABLE.items() if meaning is what]


def healed(pool: Pool) -> None:
    """A breaker counts a lane's losses; here each row is a case of its own."""
    view(pool).lanes[0][0].losses.clear()


@pytest.mark.parametrize("what", Meaning)
async def test_an_answer_of_c_sign(what: Meaning, make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    F5, F6: for each code of the table: the third of six signatures is answered with it. About the request: this item FAILED,
    and the lane stays. The session is lost: another one signs it, and all of it. It may be signed: INDETERMINATE, and
    never given to a token again. In each case the other five are signed, and the token is READY again.
    """
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("P-256"), keys["P-256"][1]
        for number, code in enumerate(rows(what)):
            old, before = pids(pool), len(shim.signs())
            shim.script(f"C_Sign {before + 3} {('return', 'after')[number % 2]} {NUMBERS[code]:#x}")
            items = digests(6, 10 * number)
            outcomes = await pool.sign(key, ECDSA, items)
            await until(lambda: state(pool) == "READY" and all(pids(pool)))
            if what is Meaning.SESSION:
                assert statuses(outcomes) == {("SIGNED", ""): 6}, code
                assert len(shim.signs()) == before + 7, "the third by a second session"
            else:
                wanted = Status.FAILED if what is Meaning.REQUEST else Status.INDETERMINATE
                assert (outcomes[2].status, outcomes[2].detail) == (wanted, code)
                assert statuses(outcomes)["SIGNED", ""] == 5, code
                assert audit(shim, spki, ECDSA, items, outcomes) == ([] if wanted is Status.FAILED else [2])
                assert (outcomes[2].reason == "TOKEN_REMOVED") == (code in REMOVED)
            assert (pids(pool) == old) == (what is Meaning.REQUEST), code
            healed(pool)


async def test_an_answer_of_c_sign_init(make_pool: MakePool, shim: Shim) -> None:
    """F6: nothing is signed by C_SignInit: its answer is about the request, or another session signs all of it."""
    lost = ("CKR_DEVICE_REMOVED", "CKR_GENERAL_ERROR", "CKR_SESSION_CLOSED", "CKR_USER_NOT_LOGGED_IN")
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        for code in (*sorted(INIT_REQUEST), *lost):
            old, before = pids(pool), len(shim.signs())
            shim.script(f"C_SignInit {shim.number('C_SignInit') + 2} return {NUMBERS[code]:#x}")
            outcomes = await pool.sign(key, ECDSA, digests(4))
            await until(lambda: state(pool) == "READY" and all(pids(pool)))
            if code in INIT_REQUEST:
                assert statuses(outcomes) == {("SIGNED", ""): 3, ("FAILED", "ALGORITHM_NOT_ALLOWED"): 1}
                assert outcomes[1].detail == code
            else:
                assert statuses(outcomes) == {("SIGNED", ""): 4}, code
            assert (pids(pool) == old) == (code in INIT_REQUEST), code
            assert len(shim.signs()) - before == (3 if code in INIT_REQUEST else 4)
            healed(pool)


PIN_UNCLEAR = ("CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED", "CKR_DEVICE_ERROR", "CKR_USER_NOT_LOGGED_IN")


async def test_an_answer_of_c_login(make_personal: MakePersonal, shim: Shim, tmp_path: Path) -> None:
    """
    F15, F17, F18: what each code says of a person's PIN, and what it costs by our count: refused, or not looked at, or
    nobody knows, which leaves the try open until the right PIN takes it off.
    """
    before = (0, 0)
    async with make_personal(pin_tries=15) as pool:
        gone = sorted(REMOVED - {CARD_GONE} | REMOVED_BEFORE)
        for code in (*NOT_CHECKED, *sorted(PIN_REFUSED), *gone, *PIN_UNCLEAR):
            shim.script(f"C_Login {shim.number('C_Login') + 1} return {NUMBERS[code]:#x}")
            await waits(pool)
            error, cost = await refused(pool), count(tmp_path / "state")
            assert code in error.detail
            if code in PIN_NOT_CHECKED:
                assert (error.reason, cost) == ("TOKEN_BUSY", before), code
            elif code in PIN_REFUSED:
                assert error.reason == ("PIN_LOCKED" if code == "CKR_PIN_LOCKED" else "PIN_INCORRECT")
                assert cost == (before[0] + 1, 0), code
            else:
                assert error.reason == ("TOKEN_REMOVED" if code in gone else "PIN_UNCLEAR")
                assert cost == (before[0], 1), code
                healed(pool)
                await waits(pool)
                async with leased(pool):
                    cost = count(tmp_path / "state")
                assert cost == (0, 0)
            if code == "CKR_PIN_LOCKED":
                await until(lambda: state(pool) == "LOCKED")
                pool.unlock("card", override=True)
            before = cost
            healed(pool)


@pytest.mark.parametrize("code", sorted([*PIN_REFUSED, *NOT_CHECKED, "CKR_GENERAL_ERROR"]))
async def test_an_answer_to_a_service_s_pin(code: str, make_pool: MakePool, shim: Shim, tmp_path: Path) -> None:
    """
    F21: what says that the PIN was refused ends the machine's tries at once; anything else is tried once more, because
    two answers that say nothing may have cost two tries.
    """
    shim.script(f"C_Login * return {NUMBERS[code]:#x}")
    async with make_pool(shim=shim, wait=False) as pool:
        await until(lambda: state(pool) == "LOCKED", 10)
        assert len(shim.logins()) == (1 if code in PIN_REFUSED else 2)
        assert count(tmp_path / "state") == ((1, 0) if code in PIN_REFUSED else (0, 2))


# ---- real modules that give these codes


@pytest.fixture(scope="module")
def house() -> Iterator[Opencryptoki]:
    with Opencryptoki() as made:
        made.token("card")
        yield made


_NO_SIGNING = """
import sys, pkcs11
from pkcs11 import KeyType, MechanismFlag
module, pin = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="card")
may = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
with token.open(user_pin=pin, rw=True) as session:
    session.generate_keypair(KeyType.RSA, 2048, id=b"no", label="no", store=True, capabilities=may)
"""
_DESTROY = """
import sys, pkcs11
module, pin = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="card")
with token.open(user_pin=pin, rw=True) as session:
    for found in list(session.get_objects({pkcs11.Attribute.LABEL: "RSA-2048"})):
        found.destroy()
"""


class Soft:
    """SoftHSM as one of the stacks."""

    def __init__(self, store: Store) -> None:
        self.module, self.environment, self.label, self.pin = MODULE, store.environment, "card", PIN


@pytest.fixture(params=["SoftHSM", "opencryptoki"])
def stack(request: pytest.FixtureRequest, own_store: Store) -> Stack | Soft:
    """A token "card" that may be changed."""
    if request.param == "SoftHSM":
        own_store.token("card")
        return Soft(own_store)
    return request.getfixturevalue("house")


def run(program: str, stack: Stack | Soft) -> None:
    command = [sys.executable, "-c", program, str(stack.module), stack.pin]
    subprocess.run(command, env=stack.environment, check=True)


async def test_a_key_that_must_not_sign(stack: Stack | Soft, tmp_path: Path) -> None:
    """F6: CKR_KEY_FUNCTION_NOT_PERMITTED by the module itself: FAILED, and the lane stays."""
    run(_NO_SIGNING, stack)
    async with pool_over(token(stack), state=tmp_path) as pool:
        old = pids(pool)
        outcomes = await pool.sign(pool.key("no"), RSA, digests(2))
        assert statuses(outcomes) == {("FAILED", "ALGORITHM_NOT_ALLOWED"): 2}
        assert outcomes[0].detail == "CKR_KEY_FUNCTION_NOT_PERMITTED"
        assert pids(pool) == old


async def test_a_key_that_somebody_destroys(stack: Stack | Soft, tmp_path: Path) -> None:
    """F6: the key is gone from the token while a lane has it: its handle is invalid, no item was attempted, no PIN spent."""
    generate(stack.module, stack.environment, {"token_label": "card"}, stack.pin, [("RSA-2048", "77", "RSA-2048")])
    async with pool_over(token(stack), state=tmp_path) as pool:
        key = pool.key("RSA-2048")
        assert statuses(await pool.sign(key, RSA, digests(2))) == {("SIGNED", ""): 2}
        run(_DESTROY, stack)
        outcomes = await pool.sign(key, RSA, digests(2, 10))
        # Whether it has another key of the pool's says which of the two it is now.
        assert {outcome.status for outcome in outcomes} == {Status.NOT_ATTEMPTED}
        assert {outcome.reason for outcome in outcomes} <= {"KEY_UNKNOWN", "TOKEN_CHANGED"}
    assert count(tmp_path) == (0, 0)


async def test_a_mechanism_that_a_poor_token_has_not(own_store: Store, tmp_path: Path) -> None:
    """F6: CKR_MECHANISM_INVALID by SoftHSM, whose configuration has a list: FAILED, the other mechanism signs, one lane."""
    own_store.token("card")
    own_store.keys("card", ["RSA-2048"])
    with (own_store.directory / "softhsm2.conf").open("a") as conf:
        conf.write("slots.mechanisms = CKM_RSA_PKCS\n")
    async with pool_over(config(own_store), state=tmp_path / "state") as pool:
        key, old = pool.key("RSA-2048"), pids(pool)
        outcomes = await pool.sign(key, PSS, digests(1))
        assert (outcomes[0].status, outcomes[0].detail) == (Status.FAILED, "CKR_MECHANISM_INVALID")
        assert statuses(await pool.sign(key, RSA, digests(1))) == {("SIGNED", ""): 1}
        assert pids(pool) == old


@pytest.mark.parametrize("pin", ["1", "123456789"])
async def test_a_pin_of_a_wrong_length(house: Opencryptoki, tmp_path: Path, pin: str) -> None:
    """F15: a service PIN that is shorter or longer than opencryptoki has any: refused once, LOCKED, and it costs a try."""
    house.unblock()
    if not house.made:
        house.keys(["RSA-2048"])
    async with Pool([token(house, pin)], state=tmp_path) as pool:
        await pool.ready()
        assert state(pool) == "LOCKED"
    assert count(tmp_path) == (1, 0)
    assert house.flags() == {"count low"}
