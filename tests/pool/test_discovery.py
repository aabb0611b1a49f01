"""Finding tokens among many slots, some of which vanish while they are listed."""

import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pool import Key, wire
from pool.module import Module
from pool.process import Child
from pool.shown import PUBLIC_KEYS_MAX, PUBLICS_BYTES_MAX, SEARCHES_MAX
from tests.pool.rig import ECDSA, config, digests, pids, pool_over, state, statuses, until
from tests.pool.test_mechanism import spki
from tests.shim import Shim
from tests.softhsm import MODULE, Store

LABELS = [f"t{number:02}" for number in range(15)]  # and SoftHSM's place for another one: 16 slots
VANISH = 4
LIST_S = 2.0  # the others are listed
EVENT_S = 3.0  # after a plug


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("many") / "softhsm")
    serial = made.token(LABELS[0]).encode()
    made.keys(LABELS[0], ["P-256"])
    (first,) = (made.directory / "tokens").iterdir()
    for number, label in enumerate(LABELS[1:], 1):
        # The same token and key under another name: softhsm2-util takes a third of a second for each.
        other = b"%016x" % number
        copy = first.with_name(f"{first.name[:-17]}{other[:4].decode()}-{other[4:].decode()}")
        shutil.copytree(first, copy)
        token = copy / "token.object"
        renamed = token.read_bytes().replace(serial, other).replace(LABELS[0].encode(), label.encode())
        token.write_bytes(renamed)
    return made


def foreign_keys(store: Store, label: str) -> None:
    """What another tool may have left on a token: a label in Latin-1, and a key of a type that only its vendor knows."""
    store.keys(label, ["P-384", "RSA-2048"], ["Clue", "vendor's"])
    latin = store.public_half(label, "Clue")
    latin.write_bytes(latin.read_bytes().replace(b"Clue", b"Cl\xe9e"))
    vendor = store.public_half(label, "vendor's")
    key_type = b"".join(number.to_bytes(8) for number in (0x100, 2, 0))  # CKA_KEY_TYPE, a number, CKK_RSA
    assert key_type in vendor.read_bytes()
    vendor.write_bytes(vendor.read_bytes().replace(key_type, key_type[:16] + (0x80000F01).to_bytes(8)))


async def listed(many: Store, shim: Shim) -> list[str]:
    module = Module(Path(shim.module), many.environment | shim.env, Child.start)
    seen = await module.look(LABELS[0], None, None)
    return [label for label, _ in seen.tokens] if seen is not None else []


async def test_slots_vanish_while_they_are_listed(many: Store, shim: Shim) -> None:
    """Row 2.10: of 16 slots 4 vanish between the two calls of a listing: the others are listed within 2 s, each once."""
    order = await listed(many, shim)
    assert sorted(order) == LABELS
    shim.script(f"C_GetSlotList {shim.number('C_GetSlotList') + 2}+ vanish {VANISH}")
    began = time.monotonic()
    assert await listed(many, shim) == order[: 16 - VANISH]
    assert time.monotonic() - began <= LIST_S
    shim.clear()
    assert await listed(many, shim) == order


@pytest.mark.parametrize("code", ["0xe0", "0xe1", "0x30", "0x32"])
async def test_slots_that_answer_with_an_error(many: Store, shim: Shim, code: str) -> None:
    """Row 2.10: a slot whose token is not present, not recognised, failing or removed hides itself and nobody else."""
    shim.script(*(f"C_GetTokenInfo@{label} * return {code}" for label in LABELS[:VANISH]))
    assert sorted(await listed(many, shim)) == LABELS[VANISH:]


@pytest.mark.parametrize("functions", [["C_GetSlotInfo"], ["C_GetSlotInfo", "C_GetTokenInfo"]], ids="+".join)
async def test_slots_that_always_fail(many: Store, shim: Shim, tmp_path: Path, functions: list[str]) -> None:
    """
    Row 2.10: slots of which the module itself can say nothing, over which python-pkcs11 gives up a listing: the others are
    listed within 2 s, are READY and sign; so is and does one that fails only as a slot.
    """
    bad = LABELS[:VANISH]
    shim.script(*(f"{function}@{label} * return 0x30" for label in bad for function in functions))
    began = time.monotonic()
    assert sorted(await listed(many, shim)) == (LABELS if len(functions) == 1 else LABELS[VANISH:])
    assert time.monotonic() - began <= LIST_S
    good = LABELS[0 if len(functions) == 1 else VANISH]
    async with pool_over(config(many, good, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool, good) == "READY"
        outcomes = await pool.sign(pool.key("P-256"), ECDSA, digests(2, 0, ECDSA))
        assert statuses(outcomes) == {("SIGNED", ""): 2}


@pytest.mark.parametrize("function", ["C_OpenSession", "C_FindObjectsInit"])
async def test_tokens_without_sessions(many: Store, shim: Shim, tmp_path: Path, function: str) -> None:
    """Row 2.10: tokens that open no session, or let no object be looked for, are listed; the others are READY."""
    shim.script(*(f"{function}@{label} * return 0x30" for label in LABELS[:VANISH]))
    assert sorted(await listed(many, shim)) == LABELS
    async with pool_over(config(many, LABELS[VANISH], shim=shim), state=tmp_path / "state") as pool:
        assert state(pool, LABELS[VANISH]) == "READY"


async def test_tokens_of_a_pool_while_others_vanish(many: Store, shim: Shim, tmp_path: Path) -> None:
    """
    Row 2.10: a pool over a module of which 4 slots vanish while it starts: the tokens that are there are READY, those that
    are not are ABSENT, and each is READY within 3 s after it is plugged in.
    """
    order = await listed(many, shim)
    there, away = order[0], order[-1]
    shim.script(f"C_GetSlotList {shim.number('C_GetSlotList') + 2}+ vanish {VANISH}")
    configs = [config(many, label, shim=shim) for label in (there, away)]
    async with pool_over(*configs, state=tmp_path / "state", wait=False) as pool:
        await until(lambda: (state(pool, there), state(pool, away)) == ("READY", "ABSENT"), 10)
        shim.clear()
        plugged = time.monotonic()
        await until(lambda: state(pool, away) == "READY", EVENT_S)
        assert time.monotonic() - plugged <= EVENT_S
        assert state(pool, there) == "READY"


async def test_a_token_that_changes_while_it_is_looked_for(many: Store, shim: Shim, tmp_path: Path) -> None:
    """
    F3: a token that shows another serial, or other keys, from one call on: CHANGED, no PIN to it, and READY again when it
    is itself again.
    """
    label = LABELS[3]
    async with pool_over(config(many, label, shim=shim), state=tmp_path / "state") as pool:
        for rule in (f"C_GetTokenInfo@{label} * serial another", f"C_GetAttributeValue@{label} * rekey"):
            logins = len(shim.logins())
            shim.script(rule)
            pool.drain(label)
            await until(lambda: all(not pid for _, pid in pool.snapshot()[0].lanes))
            pool.resume(label)
            await until(lambda: state(pool, label) == "CHANGED", 10)
            assert len(shim.logins()) == logins, "it was sent a PIN"
            shim.clear()
            await until(lambda: state(pool, label) == "READY", EVENT_S + 2)


async def test_keys_that_nobody_can_read(own_store: Store, tmp_path: Path) -> None:
    """
    Objects of another tool's, on one token, are passed over: all tokens of the module are listed, and come back when they
    were away; a key whose label nobody can read is found by its CKA_ID.
    """
    for label in ("good", "bad"):
        own_store.token(label)
        own_store.keys(label, ["P-256"], [f"key of {label}"])
    foreign_keys(own_store, "bad")
    (cka_id, spki), (named_id, named) = (own_store.made["bad"][kind] for kind in ("P-256", "P-384"))

    seen = await Module(MODULE, own_store.environment, Child.start).look("bad", None, None)
    assert sorted(label for label, _ in seen.tokens) == ["bad", "good"]
    assert sorted(map(tuple, seen.publics)) == sorted([(cka_id, "key of bad", spki), (named_id, "Cl\ufffde", named)])

    for keys in (None, [Key(own_store.made["good"]["P-256"][1], label="key of good"), Key(named, named_id)]):
        configs = [config(own_store, label) for label in ("good", "bad")]
        async with pool_over(*configs, state=tmp_path / "state", keys=keys) as pool:
            assert {state(pool, "good"), state(pool, "bad")} == {"READY"}
            if keys is not None:
                assert statuses(await pool.sign(keys[1].ref, ECDSA, digests(2, 0, ECDSA))) == {("SIGNED", ""): 2}
                continue
            own_store.take_out("good")
            pool.drain("good")
            await until(lambda: not any(pids(pool, "good")))
            pool.resume("good")
            await until(lambda: state(pool, "good") == "ABSENT", 10)
            own_store.put_in("good")
            await until(lambda: state(pool, "good") == "READY", 10)


FOREIGN = 210  # more than one token is asked for; and of three of them no packet holds as many


def crowd(store: Store, label: str) -> list[Key]:
    """So many public halves more on a token, of RSA-2048 keys."""
    key = store.keys(label, ["RSA-2048"], ["foreign"])["RSA-2048"][1]
    template = store.public_half(label, "foreign")
    numbers = load_der_public_key(key).public_numbers()
    cka_id = b"".join(number.to_bytes(8) for number in (0x102, 3, 3))  # CKA_ID, bytes, three
    start = template.read_bytes().index(cka_id) + len(cka_id)
    made = []
    for number in range(FOREIGN):
        other, name = rsa.RSAPublicNumbers(65537, numbers.n - 2 * number).public_key(), b"\xb0" + number.to_bytes(2)
        content = bytearray(
            template.read_bytes().replace(numbers.n.to_bytes(256), (numbers.n - 2 * number).to_bytes(256))
        )
        content[start : start + 3] = name
        template.with_name(f"{uuid.UUID(int=number)}.object").write_bytes(content)
        spki = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        made.append(Key(spki, name))
    return made


async def test_more_keys_than_a_packet_holds(own_store: Store, tmp_path: Path) -> None:
    """
    Three tokens of hundreds of keys each: the one that is asked for is seen, whatever else has its name, and a token that
    was away comes back with all that it had. Labels of any length hide nothing but their keys.
    """
    for label in ("card", "second", "third", "words"):
        own_store.token(label)
    own_store.keys("card", ["P-256", "P-384"])
    own_store.keys(
        "words", ["P-256"] * 13, [str(number) + "x" * (12_000 if number else 200_000) for number in range(13)]
    )
    others, *_ = [crowd(own_store, label) for label in ("second", "third", "card")]
    ours, too = [Key(own_store.made["card"][kind][1], label=kind) for kind in ("P-256", "P-384")]
    module = Module(MODULE, own_store.environment, Child.start)

    seen = await module.look("card", None, [*others[:20], ours])  # of which the card has the CKA_IDs
    assert [spki for _, _, spki in seen.publics] == [ours.spki]
    assert len((await module.look("card", None, None)).publics) == PUBLIC_KEYS_MAX
    assert len((await module.look("words", None, None)).publics) == PUBLICS_BYTES_MAX // 12_000
    assert await module.look("card", None, [ours] * 20_000) is None  # more than a question has room for

    async with pool_over(config(own_store), state=tmp_path / "state", keys=[*others[:20], ours, too]) as pool:
        pool.drain("card")
        await until(lambda: not any(pids(pool)))
        own_store.take_out("card")
        pool.resume("card")
        await until(lambda: state(pool) == "ABSENT", 10)
        own_store.put_in("card")
        await until(lambda: state(pool) != "ABSENT", 10)
        assert pool.problem(too.ref) == "TOKEN_STARTING"
        await until(lambda: state(pool) == "READY", 10)


OVERLOOKED = """
import ctypes, sys
from pool import cryptoki
assert cryptoki.overlook_slots(sys.argv[1])
places = [ctypes.c_void_p.from_address(place) for place in cryptoki._KEPT]
before = [place.value for place in places]
for _ in range(3):
    assert cryptoki.overlook_slots(sys.argv[1])
assert len(places) == 1
assert [place.value for place in places] == before
"""


def test_a_function_is_put_in_the_place_of_the_module_s_once() -> None:
    """Listings that fail for another reason, look after look, do not stack one function behind the other."""
    done = subprocess.run([sys.executable, "-c", OVERLOOKED, str(MODULE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_thousands_of_keys_are_named(own_store: Store, tmp_path: Path) -> None:
    """A token is looked through for every credential's key: for five thousand, of which it has two, as quickly as for few."""
    own_store.token("card")
    own_store.keys("card", ["P-256", "P-384"])
    ours, other = (Key(own_store.made["card"][kind][1], label=kind) for kind in ("P-256", "P-384"))
    others = [Key(spki(ec.generate_private_key(ec.SECP256R1())), label=f"key of somebody, {n}") for n in range(5_000)]
    began = time.monotonic()
    async with pool_over(config(own_store), state=tmp_path / "state", keys=[ours, *others, other]) as pool:
        assert state(pool) == "READY"
        assert time.monotonic() - began < 10
        for key in (ours, other):
            assert statuses(await pool.sign(key.ref, ECDSA, digests(2, 0, ECDSA))) == {("SIGNED", ""): 2}
        assert pool.problem(others[-1].ref)


async def test_many_keys_on_one_token(own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    More keys than are searched for one by one, asked for in several messages: each is found, by CKA_ID or by label; of two
    with one CKA_ID the label decides, and two of one label are nobody's.
    """
    monkeypatch.setattr(wire, "KEYS_BYTES_MAX", 2_000)
    own_store.token("card")
    labels = [f"key {number}" for number in range(SEARCHES_MAX + 4)]
    made = own_store.each("card", "P-256", [*((f"{n:04}".encode(), label) for n, label in enumerate(labels)),
        (b"same", "one"), (b"same", "two"), (b"a", "twin"), (b"b", "twin")])  # fmt: skip
    by_id = [Key(made[n], f"{n:04}".encode()) for n in range(0, len(labels), 2)]
    by_label = [Key(made[n], label=labels[n]) for n in range(1, len(labels), 2)]
    same = [Key(made[len(labels) + n], b"same", name) for n, name in enumerate(("one", "two"))]
    twin = Key(made[-1], label="twin")
    keys = [*by_id, *by_label, *same, twin]
    async with pool_over(config(own_store), state=tmp_path / "state", keys=keys) as pool:
        for key in (by_id[0], by_id[-1], by_label[0], by_label[-1], *same):
            assert statuses(await pool.sign(key.ref, ECDSA, digests(1, 0, ECDSA))) == {("SIGNED", ""): 1}
        assert pool.problem(twin.ref)
