"""The two ways to call C_Sign, held against each other: directly, and by python-pkcs11."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pool import Algorithm, Scheme
from pool.codes import NAMES, TABLE
from pool.public import algorithms
from tests.conftest import Keys
from tests.pool.rig import RSA, check, digests, token_input, worlds_form
from tests.shim import Shim
from tests.softhsm import KINDS, PIN, Store

# Modules are never loaded into the process of the tests: this child signs both ways what it is told, line by line.
BOTH = """
import ctypes, json, sys
import pkcs11
from pkcs11 import ObjectClass
from pool.cryptoki import Refused, loaded
from pool.mechanism import Algorithm, Hash, Scheme
from pool.wire import SIGNATURE_BYTES_MAX
from pool.worker import by_library

order = json.loads(sys.stdin.readline())
session = pkcs11.lib(order["module"]).get_token(token_label="card").open(user_pin=order["pin"])
ways = {"direct": loaded(order["module"]).signer(session), "library": by_library}
room = ctypes.create_string_buffer(SIGNATURE_BYTES_MAX)

def answer(way, key, algorithm, data):
    try:
        length = ways[way](key, algorithm, pin)(data, ctypes.c_void_p(ctypes.addressof(room)))
        return room.raw[:length].hex()
    except Refused as refused:
        return refused.code if refused.begun or pin is None else refused.code + " before C_Sign"

for line in sys.stdin:
    label, scheme, hash_, data, pin = json.loads(line)
    key = session.get_key(ObjectClass.PRIVATE_KEY, label=label)
    algorithm = Algorithm(Scheme(scheme), Hash(hash_) if hash_ else None)
    print(json.dumps({way: answer(way, key, algorithm, bytes.fromhex(data)) for way in ways}), flush=True)
"""


class Child:
    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOTH],
            env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._say({"module": module, "pin": PIN})

    def _say(self, message: Any) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def sign(self, label: str, algorithm: Algorithm, data: bytes, pin: str | None = None) -> dict[str, str]:
        self._say([label, algorithm.scheme.value, algorithm.hash.value if algorithm.hash else "", data.hex(), pin])
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def child(store: Store, shim: Shim) -> Any:
    made = Child(shim.module, store.environment | shim.env)
    yield made
    made.close()


def test_both_sign_alike(child: Child, keys: Keys) -> None:
    """Every kind of key in every way: equal where signatures have one value, and both right where they have many."""
    for kind in KINDS:
        spki = keys[kind][1]
        for algorithm in algorithms(spki):
            item = digests(1, 7, algorithm)[0]
            answers = child.sign(kind, algorithm, token_input(algorithm, spki, item))
            for raw in answers.values():
                check(algorithm, spki, item, worlds_form(algorithm, bytes.fromhex(raw)))
            if algorithm.scheme in {Scheme.RSA_PKCS1_V15, Scheme.ED25519}:
                assert len(set(answers.values())) == 1


def test_both_name_a_refusal_alike(child: Child, shim: Shim, keys: Keys) -> None:
    """Each return code that means something has one name, whichever way it came; and the session is good afterwards."""
    numbers = {name: number for number, name in NAMES.items()}
    data = token_input(RSA, keys["RSA-2048"][1], digests(1)[0])
    for code in TABLE:
        for function in ("C_SignInit", "C_Sign"):
            if code in {"CKR_BUFFER_TOO_SMALL", "CKR_CRYPTOKI_NOT_INITIALIZED"}:
                continue  # python-pkcs11 asks for more room by the one, and has no word for the other
            shim.script(f"{function} * return {numbers[code]:#x}")
            assert child.sign("RSA-2048", RSA, data) == {"direct": code, "library": code}, (function, code)
            shim.clear()
    assert len(set(child.sign("RSA-2048", RSA, data).values())) == 1


def test_a_code_without_a_name_is_told_by_its_number(child: Child, shim: Shim, keys: Keys) -> None:
    """A vendor's own code: the number, for whoever has the vendor's manual."""
    shim.script("C_Sign * return 0x80000042")
    answers = child.sign("RSA-2048", RSA, token_input(RSA, keys["RSA-2048"][1], digests(1)[0]))
    assert answers == {"direct": "CKR_0x80000042", "library": "CKR_0x80000042"}


@pytest.mark.parametrize(("way", "place"), [("direct", 1), ("library", 2)])
def test_both_log_in_for_each_signature(own_store: Store, shim: Shim, way: str, place: int) -> None:
    """A key that wants its PIN each time: one context-specific login before each C_Sign; a refusal signs nothing."""
    own_store.token("card")
    spki = own_store.keys("card", ["RSA-2048"], pin_each_time=True)["RSA-2048"][1]
    child = Child(shim.module, own_store.environment | shim.env)
    try:
        data = token_input(RSA, spki, digests(1)[0])
        for _ in range(3):
            answers = child.sign("RSA-2048", RSA, data, PIN)
            check(RSA, spki, digests(1)[0], bytes.fromhex(answers["direct"]))
            assert answers["direct"] == answers["library"]
        assert [call.user for call in shim.logins()] == [1] + [2] * 6
        assert len(shim.signs()) == 6
        shim.script(f"C_Login {shim.number('C_Login') + place} return 0xA0")
        assert child.sign("RSA-2048", RSA, data, PIN)[way] == "CKR_PIN_INCORRECT before C_Sign"
        assert len(shim.signs()) == 5 + place
    finally:
        child.close()
