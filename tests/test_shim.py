"""The shim counts and disturbs what it says it does: it is what the other tests take their numbers from."""

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pkcs11
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.shim import SOURCE, Call, Shim, build
from tests.softhsm import Store

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "73019264-unmistakable"
DIGEST = bytes(range(32))
CKM_RSA_PKCS, CKM_ECDSA = 0x1, 0x1041

# Evaluates a line of stdin at a time, so that a test decides what happens between two calls.
DRIVER = """
import os, signal, sys, time
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

lib = token = session = None

def load():
    global lib
    lib = pkcs11.lib(os.environ["MODULE"])

def login():
    global token, session
    token = lib.get_token(token_label="card")
    session = token.open(user_pin=os.environ["PIN"], rw=True)

def sign(data=bytes(range(32)), label="rsa"):
    key = session.get_key(ObjectClass.PRIVATE_KEY, label=label)
    return key.sign(data, mechanism=Mechanism.ECDSA if label == "ec" else Mechanism.RSA_PKCS).hex()

def times(count, label):
    key = session.get_key(ObjectClass.PRIVATE_KEY, label=label)
    mechanism = Mechanism.ECDSA if label == "ec" else Mechanism.RSA_PKCS
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        key.sign(bytes(32), mechanism=mechanism)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[count // 2]

def objects(label):
    return list(session.get_objects({Attribute.LABEL: label, Attribute.CLASS: ObjectClass.DATA}))

for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except pkcs11.PKCS11Error as error:
        print(type(error).__name__, flush=True)
"""


class Driver:
    """A process that uses a module as it is told, call by call."""

    def __init__(self, module: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env=os.environ | env | {"MODULE": module, "PIN": PIN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def ask(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def __call__(self, line: str) -> str:
        self.ask(line)
        return self.answer()

    def ended(self) -> int:
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("softhsm")
    directory.joinpath("tokens").mkdir()
    conf = directory / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
    env = {"SOFTHSM2_CONF": str(conf)}
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "card", "--pin", PIN, "--so-pin", "87654321"],
        env=os.environ | env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    driver = Driver(SOFTHSM, env)
    driver("load()")
    driver("login()")
    driver('session.generate_keypair(KeyType.RSA, 2048, store=True, label="rsa", id=b"\\x01\\xa1")')
    driver(
        "session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS:"
        ' __import__("pkcs11.util.ec").util.ec.encode_named_curve_parameters("secp256r1")}, local=True)'
        '.generate_keypair(store=True, label="ec", id=b"\\x02\\xec")'
    )
    modulus, exponent = (
        int(driver(f'session.get_key(ObjectClass.PUBLIC_KEY, label="rsa")[Attribute.{name}].hex()'), 16)
        for name in ("MODULUS", "PUBLIC_EXPONENT")
    )
    driver.close()
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    directory.joinpath("rsa.pem").write_bytes(pem)
    return env


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(tmp_path / "shim", SOFTHSM)


Start = Callable[..., Driver]


@pytest.fixture
def start(shim: Shim, softhsm: dict[str, str]) -> Iterator[Start]:
    """Starts a process behind the shim, its library loaded and its session logged in unless not `ready`."""
    drivers = []

    def started(*, ready: bool = True, drop: tuple[str, ...] = (), **env: str) -> Driver:
        given = {name: value for name, value in (softhsm | shim.env | env).items() if name not in drop}
        drivers.append(driver := Driver(shim.module, given))
        if ready:
            assert driver("load()") == "None"
            assert driver("login()") == "None"
        return driver

    yield started
    for driver in drivers:
        driver.close()


def verified(signature: str, softhsm: dict[str, str]) -> bool:
    pem = Path(softhsm["SOFTHSM2_CONF"]).with_name("rsa.pem").read_bytes()
    key = serialization.load_pem_public_key(pem)
    try:
        recovered = key.recover_data_from_signature(bytes.fromhex(signature), padding.PKCS1v15(), None)
    except InvalidSignature:
        return False
    return recovered == DIGEST


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 20 s"
        select.select([], [], [], 0.002)


def durations(shim: Shim, fn: str = "C_Sign") -> list[float]:
    """Seconds from enter to leave of each numbered call, by number."""
    calls = [call for call in shim.log() if call.fn == fn and not call.query]
    entered = {call.n: call.t for call in calls if call.ev == "enter"}
    return [(call.t - entered[call.n]) / 1e9 for call in calls if call.ev == "leave"]


def leaves(shim: Shim, fn: str) -> list[Call]:
    return [call for call in shim.log() if call.fn == fn and call.ev == "leave" and not call.query]


# ---- log


def test_a_signature_is_logged_in_full(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """Enter and leave of C_Sign name session, key by CKA_ID, mechanism, data; leave has answer and length."""
    driver = start()
    before = time.monotonic_ns()
    assert verified(driver("sign()"), softhsm)
    assert len(bytes.fromhex(driver('sign(label="ec")'))) == 64
    after = time.monotonic_ns()
    (first, second), (left, _) = shim.signs(), leaves(shim, "C_Sign")
    assert (first.key, first.mech, first.n) == ("01a1", CKM_RSA_PKCS, 1)
    assert (first.data, first.datalen) == (DIGEST.hex(), 32)
    assert (second.key, second.mech, second.n) == ("02ec", CKM_ECDSA, 2)
    assert (left.rv, left.len, left.key, left.data, left.n) == (0, 256, "01a1", DIGEST.hex(), 1)
    assert first.pid == driver.pid
    assert first.session == leaves(shim, "C_OpenSession")[0].session
    assert before < first.t < left.t < after
    assert shim.unfinished() == []


def test_a_question_for_the_length_is_no_signature(shim: Shim, start: Start) -> None:
    """C_Sign without an output buffer is logged as a query: no number, no rules, not among the signatures."""
    shim.script("C_Sign 2+ return 0x30")
    assert start()("sign()") not in {"DeviceError", ""}
    queries = [call for call in shim.log() if call.query]
    assert [(call.ev, call.n) for call in queries] == [("enter", 0), ("leave", 0)]
    assert len(shim.signs()) == shim.count("C_Sign") == shim.number("C_Sign") == 1


def test_each_key_is_told_apart_after_everything_that_renumbers_handles(shim: Shim, start: Start) -> None:
    """The key in the log is the one that signed, also when handles changed their meaning since."""
    driver = start()
    for _ in range(2):
        driver("sign()")
        driver('sign(label="ec")')
        driver("session.close()")
        assert driver("lib.reinitialize()") == "None"
        assert driver("login()") == "None"
        driver('sign(label="ec")')
        driver("sign()")
    assert [call.key for call in shim.signs()] == ["01a1", "02ec", "02ec", "01a1"] * 2
    assert shim.count("C_Initialize") == 3
    assert shim.count("C_Finalize") == 2


def test_long_data_are_logged_by_their_beginning(shim: Shim, start: Start) -> None:
    """Of data longer than 4096 bytes the log has the first 4096 and the whole length."""
    start()("sign(bytes(5000))")  # refused by the token, logged all the same
    (call,) = [call for call in shim.log() if call.fn == "C_Sign" and call.ev == "enter"][:1]
    assert (len(call.data), call.datalen) == (8192, 5000)


def test_the_pin_is_nowhere(shim: Shim, start: Start) -> None:
    """C_Login is logged with user type and length of the PIN; the PIN is in no file and on no stream."""
    shim.script("C_Login 2 return 0xa0")
    driver = start()
    driver("session.close()")
    assert driver("login()") == "PinIncorrect"
    driver.process.stdin.close()
    assert driver.ended() == 0
    assert [(call.n, call.user, call.pinlen) for call in shim.logins()] == [(n, 1, len(PIN)) for n in (1, 2)]
    assert [call.rv for call in leaves(shim, "C_Login")] == [0, 0xA0]
    written = [path.read_bytes() for path in shim.directory.iterdir()]
    written += [driver.process.stdout.read().encode(), driver.process.stderr.read().encode()]
    for text in written:
        assert PIN.encode() not in text
        assert PIN.encode().hex().encode() not in text


def test_functions_that_are_not_logged_are_counted(shim: Shim, start: Start) -> None:
    """Every wrapped function has a number; `log` puts it into the log; other names are refused."""
    driver = start()
    assert shim.count("C_SignInit") == 0
    driver("sign()")
    shim.script("C_SignInit * log")
    driver("sign()")
    assert shim.count("C_SignInit") == 2
    logged = [(call.n, call.ev) for call in shim.log() if call.fn == "C_SignInit"]
    assert logged == [(2, "enter"), (2, "leave")]
    with pytest.raises(ValueError, match="C_SignRecover"):
        shim.count("C_SignRecover")


def test_a_killed_process_leaves_an_enter(shim: Shim, start: Start) -> None:
    """The enter line is written before the real call: a kill within it leaves an enter without its leave."""
    shim.script("C_Sign 1 hang 60")
    driver = start()
    driver.ask("sign()")
    until(shim.unfinished)
    driver.process.kill()
    assert driver.ended() == -signal.SIGKILL
    (call,) = shim.unfinished()
    assert (call.fn, call.n, call.pid) == ("C_Sign", 1, driver.pid)
    assert leaves(shim, "C_Sign") == []


def test_unfinished_calls_are_those_without_a_leave(shim: Shim) -> None:
    """A leave ends the enter before it of the same process, function and number."""
    rows = [
        (1, 7, "enter", 0),
        (2, 7, "leave", 0),
        (3, 7, "enter", 1),
        (4, 8, "enter", 2),
        (5, 7, "leave", 1),
        (6, 7, "enter", 0),
    ]
    lines = [json.dumps({"t": t, "pid": pid, "fn": "C_Sign", "ev": ev, "n": n}) for t, pid, ev, n in rows]
    Path(shim.env["P11SHIM_LOG"]).write_text("".join(f"{line}\n" for line in lines))
    assert [call.t for call in shim.unfinished()] == [4, 6]


def test_the_log_survives_a_host_that_closes_descriptors(shim: Shim, start: Start, tmp_path: Path) -> None:
    """A descriptor closed by the host is opened again, and no file that got its number is written to."""
    driver = start()
    driver("sign()")
    other = tmp_path / "other"
    driver(f"os.closerange(3, 64), [os.open({str(other)!r}, os.O_CREAT | os.O_WRONLY) for _ in range(40)]")
    driver("sign()")
    assert len(shim.signs()) == 2
    assert other.read_bytes() == b""


def test_a_forked_process_logs_under_its_own_pid(shim: Shim, start: Start) -> None:
    """After fork() the child's calls carry the child's pid, and go on in the same numbers."""
    driver = start()
    driver("sign()")
    driver(
        "(pid := os.fork()) or (lib.get_slots(), lib.finalize(), load(), login(), sign(), os._exit(0)),"
        " os.waitpid(pid, 0)"
    )
    driver("sign()")
    pids = [call.pid for call in shim.signs()]
    assert pids[0] == pids[2] == driver.pid
    assert pids[1] != driver.pid
    assert [call.n for call in shim.signs()] == [1, 2, 3]


def test_torn_lines(shim: Shim) -> None:
    """A line being written is left out, a piece before another line dropped; other damage is an error."""
    whole = {"t": 1, "pid": 2, "fn": "C_Sign", "ev": "enter", "n": 1}
    line = json.dumps(whole).replace(" ", "")
    log = Path(shim.env["P11SHIM_LOG"])
    log.write_text(f"{line}\n{line[:20]}{line}\n{line[:30]}")
    assert shim.log() == [Call(**whole)] * 2
    log.write_text(f"{line[:20]}\n{line}\n")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        shim.log()


def test_the_overhead_of_a_signature(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """Log, script and numbers cost a signature less than 300 µs (about a tenth of it on an idle machine)."""
    shim.script("C_Sign 100000 crash", "C_Sign %99999 delay 1")
    direct = Driver(SOFTHSM, softhsm)
    try:
        direct("load()")
        direct("login()")
        through = start()
        overhead = min(float(through('times(300, "ec")')) - float(direct('times(300, "ec")')) for _ in range(3))
    finally:
        direct.close()
    print(f"overhead of a signature: {overhead * 1e6:.0f} µs")
    assert overhead < 300e-6


# ---- script


def test_delays_add_up_before_the_real_call(shim: Shim, start: Start) -> None:
    """`delay` sleeps that long and goes on; several add up, also beside a terminal action."""
    shim.script("C_Sign 1-2 delay 0.04", "C_Sign 2 delay 0.05", "C_Sign 2 return 0x30", "C_Logout * delay 3")
    driver = start()
    assert len(driver("sign()")) == 512
    assert driver("sign()") == "DeviceError"
    assert len(driver("sign()")) == 512
    first, second, third = durations(shim)
    assert 0.04 <= first < 1
    assert 0.09 <= second < 1
    assert third < 0.04


def test_a_signal_does_not_shorten_a_delay(shim: Shim, start: Start) -> None:
    """A pause ends by the clock, whatever signals the process handles meanwhile."""
    shim.script("C_Sign * delay 0.2")
    driver = start()
    driver("signal.signal(signal.SIGUSR1, lambda *_: None)")
    driver.ask("sign()")
    until(shim.unfinished)
    for _ in range(3):
        driver.process.send_signal(signal.SIGUSR1)
    assert len(driver.answer()) == 512
    assert durations(shim)[0] >= 0.2


def test_normal_delays(shim: Shim, start: Start, tmp_path: Path, softhsm: dict[str, str]) -> None:
    """`delay-normal` draws around its median; a seed makes the draws of a run those of another."""
    runs = []
    for name in ("a", "b"):
        seeded = Shim(tmp_path / name, SOFTHSM, seed=7)
        seeded.script("C_Sign * delay-normal 0.012 0.004")
        driver = Driver(seeded.module, softhsm | seeded.env)
        driver("load(), login(), [sign() for _ in range(40)]")
        driver.close()
        runs.append(durations(seeded))
    one, two = runs
    assert len(one) == 40
    calm = [
        min(pair) for pair in zip(one, two, strict=True)
    ]  # the same draws; what else the machine did only adds to them
    assert 0.010 < statistics.median(calm) < 0.020
    assert 0.002 < statistics.stdev(calm) < 0.012
    assert statistics.median(abs(a - b) for a, b in zip(one, two, strict=True)) < 0.003


def test_hang_goes_on(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """`hang` sleeps within the call, then makes it."""
    shim.script("C_Sign 1 hang 0.1")
    assert verified(start()("sign()"), softhsm)
    assert 0.1 <= durations(shim)[0] < 2


@pytest.mark.parametrize("ends", ["another script", "no script", "its time"])
def test_hold_goes_on(shim: Shim, start: Start, softhsm: dict[str, str], ends: str) -> None:
    """`hold` waits within the call until the script is another one, or gone, at most so long; then makes it."""
    shim.script(f"C_Sign 1 hold {0.1 if ends == 'its time' else 60}")
    driver = start()
    driver.ask("sign()")
    until(shim.unfinished)
    if ends == "another script":
        shim.script("C_Sign 1 return 0x30")  # it is too late for that
    elif ends == "no script":
        shim.clear()
    assert verified(driver.answer(), softhsm)
    assert durations(shim)[0] < 2


def test_return_is_without_the_real_call(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """`return` answers itself; nothing of the real module changes, and the session can sign again."""
    shim.script("C_Login 1 return 0xa0", "C_Sign 1-2 return 0x30", "C_SignInit 4 return 0x60")
    driver = start(ready=False)
    driver("load()")
    assert driver("login()") == "PinIncorrect"
    assert driver("login()") == "None"  # the real one would say that the user is logged in
    assert [driver("sign()") for _ in range(2)] == ["DeviceError"] * 2
    assert verified(driver("sign()"), softhsm)
    assert driver("sign()") == "KeyHandleInvalid"
    assert verified(driver("sign()"), softhsm)
    answers = [(call.rv, call.act) for call in leaves(shim, "C_Sign")]
    assert answers == [(0x30, "return")] * 2 + [(0, None)] * 2


def test_after_is_behind_the_real_call(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """`after` makes the real call and answers something else."""
    shim.script("C_Login 1 after 0xa0", "C_SignInit 1 after 0x60", "C_Sign 1 after 0x30")
    driver = start(ready=False)
    driver("load()")
    assert driver("login()") == "PinIncorrect"
    assert driver("login()") == "UserAlreadyLoggedIn"
    driver("globals().update(session=token.open())")
    assert driver("sign()") == "KeyHandleInvalid"
    assert driver("sign()") == "DeviceError"
    assert verified(driver("sign()"), softhsm)


@pytest.mark.parametrize(
    ("action", "gone"), [("crash", False), ("crash-after", True), ("abort", False), ("exit 7", False)]
)
def test_deaths(action: str, gone: bool, shim: Shim, start: Start) -> None:
    """`crash`, `abort` and `exit` end the process before the real call, `crash-after` behind it; there is no leave."""
    label = action.split(maxsplit=1)[0]
    shim.script(f"C_DestroyObject 1 {action}", "C_DestroyObject * log")
    driver = start()
    driver(
        f'session.create_object({{Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: "{label}",'
        ' Attribute.TOKEN: True, Attribute.VALUE: b"x"})'
    )
    driver.ask(f'objects("{label}")[0].destroy()')
    assert driver.ended() == {"exit": 7, "abort": -signal.SIGABRT}.get(label, -signal.SIGSEGV)
    (call,) = shim.unfinished()
    assert (call.fn, call.ev, call.act) == ("C_DestroyObject", "enter", label)
    assert start()(f'len(objects("{label}"))') == ("0" if gone else "1")


def test_a_crash_cannot_be_handled(shim: Shim, start: Start) -> None:
    """A handler for SIGSEGV in the host does not save it."""
    shim.script("C_Sign 1 crash")
    driver = start()
    driver("signal.signal(signal.SIGSEGV, lambda *_: None)")
    driver.ask("sign()")
    assert driver.ended() == -signal.SIGSEGV


def test_bad_outputs(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """
    `corrupt` flips one bit, `short` takes off one byte, `zero` leaves only zeros, `long` claims more and writes no more
    than there is room for; the answer stays OK.
    """
    shim.script("C_Sign 2 corrupt", "C_Sign 3 short", "C_Sign 4 zero", "C_Sign 5 long 9", "C_GenerateRandom 2 zero")
    driver = start()
    good, corrupt, short, zero = (bytes.fromhex(driver("sign()")) for _ in range(4))
    driver("sign()")  # python-pkcs11 believes the length, and reads past its buffer
    assert verified(good.hex(), softhsm)
    assert not verified(corrupt.hex(), softhsm)
    assert (int.from_bytes(good) ^ int.from_bytes(corrupt)).bit_count() == 1
    assert short == good[:-1]
    assert zero == bytes(256)
    assert [call.rv for call in leaves(shim, "C_Sign")] == [0] * 5
    assert [call.len for call in leaves(shim, "C_Sign")] == [256, 256, 255, 256, 265]
    randoms = [driver("session.generate_random(128)") for _ in range(2)]
    assert randoms[0] != randoms[1] == str(bytes(16))


def test_another_key(shim: Shim, start: Start, softhsm: dict[str, str]) -> None:
    """`other-key`: the signature is of another key of the token than the one asked for, and the log says so."""
    shim.script("C_SignInit 2 other-key 02ec")
    driver = start()
    assert verified(driver("sign()"), softhsm)
    assert driver("sign(label='rsa')") in {"KeyTypeInconsistent", "MechanismInvalid", "GeneralError"}
    shim.script("C_SignInit * other-key 01a1")
    assert verified(driver("session.get_key(ObjectClass.PRIVATE_KEY, label='rsa') and sign()"), softhsm)
    assert shim.signs()[-1].key == "01a1"


def test_noise(shim: Shim, start: Start) -> None:
    """`noise` writes the rest of its line to stdout, a `#` included, and goes on."""
    shim.script("C_Sign 1 noise  card says: #1 & hello  # all of it")
    driver = start()
    assert driver("sign()") == "card says: #1 & hello  # all of it"
    assert len(driver.answer()) == 512


def test_absent(shim: Shim, start: Start) -> None:
    """`absent` hides every slot for as long as the rule says so."""
    driver = start()
    there = int(driver("len(lib.get_slots())"))
    assert there > 0
    shim.script("C_GetSlotList * absent")
    assert driver("len(lib.get_slots())") == "0"
    shim.clear()
    assert driver("len(lib.get_slots())") == str(there)


def test_no_objects(shim: Shim, start: Start) -> None:
    """`absent` of C_FindObjects: the keys are not there, for as long as the rule says so."""
    driver = start()
    shim.script("C_FindObjects * absent")
    assert driver("sign()") == "NoSuchKey"
    shim.clear()
    assert len(driver("sign()")) == 512


def test_slots_vanish_between_two_calls(shim: Shim, start: Start, softhsm: dict[str, str], tmp_path: Path) -> None:
    """`vanish` in the second call of a listing: fewer than were counted, and nothing answers to the others any more."""
    driver = start(ready=False)
    driver("load()")
    slots = "[slot.slot_id for slot in lib.get_slots()]"
    there = eval(driver(slots))
    assert len(there) == 2  # the card, and the place for another token
    shim.script(f"C_GetSlotList {shim.number('C_GetSlotList') + 2}+ vanish 1")
    driver("globals().update(last=lib.get_slots)")
    assert driver("last()") == "SlotIDInvalid"  # python-pkcs11 reads as many as the first call has counted
    assert eval(driver(slots)) == there[:1]
    shim.clear()
    assert driver(f"[slot.get_token() for slot in lib.get_slots() if slot.slot_id == {there[1]}]") == "SlotIDInvalid"
    driver("lib.reinitialize()")
    assert eval(driver(slots)) == there


def test_a_token_becomes_another(shim: Shim, start: Start) -> None:
    """`label`, `serial` and `rekey`, from a call on, for a token that is named by its real label: and back again."""
    driver = start()
    ask = (
        "(lambda t: (t.label, t.serial))(token.slot.get_token())",
        'session.get_key(ObjectClass.PUBLIC_KEY, label="rsa")[Attribute.MODULUS].hex()',
        'session.get_key(ObjectClass.PUBLIC_KEY, label="ec")[Attribute.EC_POINT].hex()',
    )
    before = [driver(question) for question in ask]
    number = shim.number("C_GetTokenInfo")
    shim.script(
        f"C_GetTokenInfo@card {number + 2}+ label other",
        f"C_GetTokenInfo@card {number + 2}+ serial 0123456789abcdef",
        "C_GetTokenInfo@other * return 0x5",
        "C_GetAttributeValue@card * rekey",
        "C_GetAttributeValue@other * return 0x5",
    )
    assert driver(ask[0]) == before[0]
    assert driver(ask[0]) == "('other', b'0123456789abcdef')"
    for question, was in zip(ask[1:], before[1:], strict=True):
        assert (int(driver(question), 16) ^ int(was, 16)).bit_count() == 1
    shim.clear()
    assert [driver(question) for question in ask] == before


def test_a_token_is_swapped(shim: Shim, start: Start, tmp_path: Path) -> None:
    """
    `swap`, from a call on: another token is in the slot, whose login is logged as its own, and the sessions from before
    have ended; one that is nowhere ends the process.
    """
    store = Store(tmp_path / "two")
    for label in ("card", "other"):
        store.token(label, pin=PIN)
    driver = start(**store.environment)
    shim.script("C_GetTokenInfo@card * swap other")
    assert driver("token.slot.get_token().label") == "other"
    assert driver("objects('x')") == "SessionHandleInvalid"
    assert driver('str(token.open(user_pin=os.environ["PIN"]))').startswith("<")
    assert [(call.token, call.rv) for call in shim.log() if call.fn == "C_Login"] == [
        ("card", None),
        ("card", 0),
        ("other", None),
        ("other", 0),
    ]
    shim.clear()
    driver = start(**store.environment)
    shim.script("C_GetTokenInfo@card * swap nobody")
    driver.ask("token.slot.get_token()")
    assert driver.ended() == -signal.SIGABRT


FLAGS = '",".join(f.name for f in pkcs11.TokenFlag if f.value & 0x70000 and f in token.slot.get_token().flags)'
WRONG = '(lambda s: s)(token.open(user_pin="wrong"))'


@pytest.mark.parametrize("lies", [False, True])
def test_a_count_of_tries_of_its_own(shim: Shim, start: Start, lies: bool) -> None:
    """`tries` locks by the count of PINs that the real token refused; `pin-flags` and `wrong` tell of it, or lie."""
    honest = ("C_Login@card * tries 3", "C_GetTokenInfo@card * pin-flags 3")
    shim.script(*(("C_Login * tries 3", "C_Login * wrong 0x5", "C_GetTokenInfo * pin-flags 0x0") if lies else honest))
    driver = start(ready=False)
    driver("load()")
    driver('globals().update(token=lib.get_token(token_label="card"))')
    told = []
    for _ in range(2):
        told += [driver(WRONG), driver(FLAGS)]
    assert shim.wrong_pins() == 2
    assert driver("login()") == "None"
    assert shim.wrong_pins() == 0
    driver("session.close()")
    for _ in range(3):
        told += [driver(WRONG), driver(FLAGS)]
    real = shim.logins()
    assert driver("login()") == "PinLocked"
    driver("lib.reinitialize()")  # each refused PIN has left a session
    driver('globals().update(token=lib.get_token(token_label="card"))')
    assert driver(f'token.open(so_pin="87654321", rw=True).init_pin("{PIN}")') == "None"
    assert shim.wrong_pins() == 0
    low, final, locked = "USER_PIN_COUNT_LOW", "USER_PIN_COUNT_LOW,USER_PIN_FINAL_TRY", "USER_PIN_LOCKED"
    said = ["GeneralError" if lies else "PinIncorrect"]
    if lies:
        assert told == [*said, ""] * 5
    else:
        assert told == [*said, low, *said, final, *said, low, *said, final, *said, locked]
    assert len(real) == 6
    shim.script("C_GetTokenInfo * pin-flags 0x60000")
    assert driver(FLAGS) == "USER_PIN_FINAL_TRY,USER_PIN_LOCKED"


def test_every_function_that_python_pkcs11_calls_is_wrapped(shim: Shim, start: Start) -> None:
    """Each of its calls can crash or hang: whatever stands behind `funclist.` in its source has a number here."""
    source = Path(pkcs11.__file__).with_name("_pkcs11.pyx").read_text()
    called = set(re.findall(r"funclist\.(C_\w+)", source))
    assert len(called) > 45
    start(ready=False)("load()")
    assert [name for name in called if shim.number(name) < 0] == []


PASSED_ON = {
    "C_GetSlotInfo": "lib.get_slots()",
    "C_GetMechanismList": "token.slot.get_mechanisms()",
    "C_GetMechanismInfo": "repr(token.slot.get_mechanism_info(Mechanism.RSA_PKCS))",
    "C_FindObjects": "sign()",
    "C_FindObjectsFinal": "sign()",
    "C_GetAttributeValue": 'session.get_key(ObjectClass.PUBLIC_KEY, label="rsa").key_length',
    "C_Digest": 'session.digest(b"x", mechanism=Mechanism.SHA256)',
    "C_GenerateKey": "globals().update(aes=session.generate_key(KeyType.AES, 256, template={Attribute.EXTRACTABLE: True}))",
    "C_EncryptFinal": 'globals().update(secret=b"".join(aes.encrypt([bytes(16)] * 2, mechanism_param=bytes(16))))',
    "C_Decrypt": "aes.decrypt(secret, mechanism_param=bytes(16))",
    "C_WrapKey": "globals().update(wrapped=aes.wrap_key(aes, mechanism=Mechanism.AES_KEY_WRAP))",
    "C_UnwrapKey": "aes.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, wrapped, mechanism=Mechanism.AES_KEY_WRAP)",
    "C_Verify": 'session.get_key(ObjectClass.PUBLIC_KEY, label="rsa").verify(bytes(32), bytes(256))',
    "C_SeedRandom": "session.seed_random(bytes(8))",
    "C_SetPIN": 'session.set_pin(os.environ["PIN"], os.environ["PIN"])',
}


def test_what_is_only_passed_on(shim: Shim, start: Start) -> None:
    """Functions without a part in the log are called with the parameters they have, and counted."""
    driver = start()
    for function, line in PASSED_ON.items():
        before = shim.number(function)
        answer = driver(line)
        assert not re.fullmatch(r"(?!None|False)[A-Z]\w+", answer), (function, answer)  # an error's name
        assert shim.number(function) > before, function


@pytest.mark.parametrize(
    "function", ["C_GetSlotInfo", "C_GetMechanismList", "C_FindObjectsFinal", "C_GetAttributeValue"]
)
def test_what_is_only_passed_on_can_crash(function: str, shim: Shim, start: Start) -> None:
    """The script rules all functions alike."""
    driver = start()
    shim.script(f"{function} {shim.number(function) + 1} crash")
    driver.ask(PASSED_ON[function])
    assert driver.ended() == -signal.SIGSEGV


def test_leaks(shim: Shim, start: Start) -> None:
    """`leak-memory` and `leak-files` keep what they take; where nothing is left they answer as a driver would."""
    shim.script("C_Sign 1-2 leak-memory 50000000", "C_Sign 3 leak-memory 900000000000000", "C_Sign 4 leak-files 20")
    driver = start()
    sizes, files = ["open('/proc/self/statm').read().split()[0]", "len(os.listdir('/proc/self/fd'))"]
    before = int(driver(sizes))
    assert [len(driver("sign()")) for _ in range(2)] == [512] * 2
    assert int(driver(sizes)) - before >= 2 * 50_000_000 // 4096
    assert driver("sign()") == "HostMemory"
    opened = int(driver(files))
    assert len(driver("sign()")) == 512
    assert int(driver(files)) == opened + 20
    shim.script("C_Sign 5 leak-files 2000000")
    assert driver("sign()") == "FunctionFailed"


def test_fork(shim: Shim, start: Start) -> None:
    """`fork` leaves a child that outlives the call; the log has its pid; the call goes on at once."""
    shim.script("C_Sign 1 fork")
    driver = start()
    assert len(driver("sign()")) == 512
    (call,) = shim.signs()
    try:
        status = Path(f"/proc/{call.child}/status")
        assert f"PPid:\t{driver.pid}\n" in status.read_text()
        until(lambda: "State:\tS" in status.read_text())  # it sleeps
    finally:
        os.kill(call.child, signal.SIGKILL)
    assert [call.pid for call in shim.signs()] == [driver.pid]


def test_which(shim: Shim, start: Start) -> None:
    """n, n-m, n+, * and %k choose calls by number; of several terminal rules the first line wins."""
    shim.script(
        "# errors that tell the rules apart",
        "",
        "C_Sign 2 return 0x30   # one call",
        "C_Sign 4-5 return 0x31",
        "  C_Sign\t%7   return 0x32",
        "C_Sign 9+ return 0x30",
        "C_Sign 2-4 return 0x6",
        "C_Login * delay 0",
    )
    driver = start()
    wanted = [0, 0x30, 0x6, 0x31, 0x31, 0, 0x32, 0, 0x30, 0x30]
    for _ in wanted:
        driver("sign()")
    assert [call.rv for call in leaves(shim, "C_Sign")] == wanted


def test_a_script_changes_under_a_running_process(shim: Shim, start: Start) -> None:
    """Each call follows the script of that moment, however fast scripts of one size follow each other."""
    driver = start()
    assert len(driver("sign()")) == 512
    for _ in range(20):
        shim.script("C_Sign * return 0x30")
        assert driver("sign()") == "DeviceError"
        shim.script("C_Sign * return 0x31")
        assert driver("sign()") == "DeviceMemory"
    shim.script()
    assert len(driver("sign()")) == 512
    shim.script("C_Sign * return 0x30")
    assert driver("sign()") == "DeviceError"
    shim.clear()
    assert len(driver("sign()")) == 512


@pytest.mark.parametrize(
    "line",
    [
        "C_Sing 1 crash",
        "C_SignRecover 1 crash",
        "C_GetSlotList@card 1 crash",
        "C_Sign@ 1 crash",
        "C_Sign",
        "C_Sign 1",
        "C_Sign 0 crash",
        "C_Sign 3-2 crash",
        "C_Sign -2 crash",
        "C_Sign 2x crash",
        "C_Sign %0 crash",
        "C_Sign 1 crush",
        "C_Sign 1 crash now",
        "C_Sign 1 delay",
        "C_Sign 1 delay 0,5",
        "C_Sign 1 delay -1",
        "C_Sign 1 delay-normal 0.5",
        "C_Sign 1 return 48",
        "C_Sign 1 return 0x",
        "C_Sign 1 exit 256",
        "C_Sign 1 noise",
        "C_Sign 1 absent",
        "C_Sign 1 tries 3",
        "C_Sign 1 long 0",
        "C_Sign 1 leak-files 0",
        "C_Login 1 tries 0",
        "C_GetTokenInfo 1 pin-flags 0x4",
        "C_GetTokenInfo 1 serial 12345678901234567",
        "C_GetTokenInfo 1 rekey",
        "C_Login 1 swap other",
        "C_Login@card 1 swap",
        "C_Login 1 corrupt",
        "C_GenerateRandom 1 short",
    ],
)
def test_a_malformed_line_aborts(line: str, shim: Shim, start: Start) -> None:
    """A line that is no rule ends the process at its next call, with one line that says which."""
    shim.script("C_Sign 1 delay 0.1", line)
    driver = start(ready=False)
    driver.ask("load()")
    assert driver.ended() == -signal.SIGABRT
    assert driver.process.stderr.read().splitlines() == [
        f"p11shim: {shim.env['P11SHIM_SCRIPT']}, line 2 is not a rule: {line}"
    ]
    assert shim.log() == []


def test_what_cannot_be_read_or_written_aborts(shim: Shim, start: Start, tmp_path: Path) -> None:
    """A script that is there but unreadable ends the process, and so does a log that cannot be written."""
    for name in ("P11SHIM_SCRIPT", "P11SHIM_LOG"):
        driver = start(ready=False, **{name: str(tmp_path)})  # a directory
        driver.ask("load()")
        assert driver.ended() == -signal.SIGABRT
    driver = start(ready=False, P11SHIM_LOG="/dev/full")
    driver.ask("load()")
    assert driver.ended() == -signal.SIGABRT
    assert start(drop=("P11SHIM_LOG", "P11SHIM_SCRIPT", "P11SHIM_STATE"))("sign()")


# ---- numbers


def test_numbers_go_on_from_process_to_process(shim: Shim, start: Start) -> None:
    """Calls are numbered across processes, also after one is killed in the middle of a call."""
    shim.script("C_Sign 4 hang 60", "C_Sign 6 return 0x30")
    one, two = start(), start()
    for driver in (one, two, one):
        assert len(driver("sign()")) == 512
    one.ask("sign()")
    until(shim.unfinished)
    one.process.kill()
    assert len(two("sign()")) == 512
    three = start()
    assert three("sign()") == "DeviceError"
    assert [(call.n, call.pid) for call in shim.signs()] == [
        (1, one.pid),
        (2, two.pid),
        (3, one.pid),
        (4, one.pid),
        (5, two.pid),
        (6, three.pid),
    ]
    assert [call.n for call in shim.logins()] == [1, 2, 3]


def test_numbers_of_processes_at_once(shim: Shim, start: Start) -> None:
    """Several processes at once: each number is given once, no line is lost or mixed with another."""
    drivers = [start() for _ in range(4)]
    for driver in drivers:
        driver.ask("len([sign(os.urandom(32), 'ec') for _ in range(100)])")
    assert [driver.answer() for driver in drivers] == ["100"] * 4
    signs = shim.signs()
    assert sorted(call.n for call in signs) == list(range(1, 401))
    assert len({call.data for call in signs}) == 400
    assert len(leaves(shim, "C_Sign")) == 400
    assert shim.unfinished() == []


def test_numbers_without_a_state_are_of_the_process(shim: Shim, start: Start) -> None:
    """Without P11SHIM_STATE each process counts for itself."""
    for _ in range(2):
        driver = start(drop=("P11SHIM_STATE",))
        driver("sign(), sign()")
        driver.close()
    assert [call.n for call in shim.signs()] == [1, 2, 1, 2]


def test_numbers_survive_unloading(shim: Shim, softhsm: dict[str, str]) -> None:
    """A module that its host unloads and loads again goes on counting, with or without P11SHIM_STATE."""
    code = """
import _ctypes, ctypes, sys
for _ in range(2):
    shim, list = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p()
    assert shim.C_GetFunctionList(ctypes.byref(list)) == 0
    for place in (0, 1):
        function = ctypes.cast(list.value + 8, ctypes.POINTER(ctypes.c_void_p))[place]
        assert ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(function)(None) == 0
    _ctypes.dlclose(shim._handle)
"""
    env = os.environ | softhsm | {name: value for name, value in shim.env.items() if name != "P11SHIM_STATE"}
    subprocess.run([sys.executable, "-c", code, shim.module], env=env, check=True)
    assert [call.n for call in shim.log() if call.ev == "leave"] == [1, 1, 2, 2]


# ---- module


def test_one_function_list(shim: Shim, softhsm: dict[str, str]) -> None:
    """C_GetFunctionList gives the same list on every call, which names itself; without a module it fails."""
    code = """
import ctypes, sys
shim = ctypes.CDLL(sys.argv[1])
lists = [ctypes.c_void_p(), ctypes.c_void_p()]
print([shim.C_GetFunctionList(ctypes.byref(list)) for list in lists], lists[0].value == lists[1].value)
if lists[0].value:
    itself = ctypes.cast(lists[0].value + 8, ctypes.POINTER(ctypes.c_void_p))[3]
    print(itself == ctypes.cast(shim.C_GetFunctionList, ctypes.c_void_p).value)
"""
    for module, answer in ((SOFTHSM, "[0, 0] True\nTrue\n"), ("/nowhere.so", "[5, 5] True\n")):
        env = os.environ | softhsm | shim.env | {"P11SHIM_MODULE": module}
        done = subprocess.run(
            [sys.executable, "-c", code, shim.module], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout == answer
        assert done.stderr.startswith("p11shim: P11SHIM_MODULE: ") == (module != SOFTHSM)


def test_the_build_is_made_once_and_for_everybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The module is compiled once per source, in a place that every user can read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = os.umask(0o077)
    try:
        module = build()
    finally:
        os.umask(old)
    made = module.stat()
    assert (made.st_mode & 0o777, module.parent.stat().st_mode & 0o777) == (0o755, 0o755)
    assert build() == module
    assert module.stat() == made
    assert [path.name for path in module.parent.iterdir()] == ["p11shim.so"]
    ctypes.CDLL(str(module))


def test_the_source_stands_alone(tmp_path: Path) -> None:
    """The source compiles without warnings by the plain command, whatever the default standard is."""
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *options, SOURCE, "-o", tmp_path / "x.so"], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_can_log() -> None:
    """A process of another user writes the same log and numbers."""
    with tempfile.TemporaryDirectory() as name:  # pytest keeps its own directories to their owner
        _log_as_another_user(Path(name))


def _log_as_another_user(directory: Path) -> None:
    directory.chmod(0o755)
    shim = Shim(directory / "shim", SOFTHSM)
    tokens = directory / "tokens"
    tokens.mkdir()
    tokens.chmod(0o777)
    conf = directory / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {tokens}\n")
    code = """
import ctypes, sys
list = ctypes.c_void_p()
assert ctypes.CDLL(sys.argv[1]).C_GetFunctionList(ctypes.byref(list)) == 0
initialize = ctypes.cast(list.value + 8, ctypes.POINTER(ctypes.c_void_p))[0]
assert ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(initialize)(None) == 0
"""
    interpreter = Path(sys.executable).resolve()
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", interpreter, "-I", "-c", code]
    env = {"PATH": os.environ["PATH"], "SOFTHSM2_CONF": str(conf)} | shim.env
    shim.script("C_Initialize 1 delay 0.01")
    for _ in range(2):
        subprocess.run([*command, shim.module], env=env, check=True, cwd="/")
    assert [call.n for call in shim.log() if call.ev == "enter"] == [1, 2]
    assert durations(shim, "C_Initialize")[0] >= 0.01
