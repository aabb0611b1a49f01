"""
Forty questions to a PKCS#11 module, each asked in a process of its own: what a pool must know of it before it trusts it.

A case is a function from `Given` to a few words: 'yes', 'no', the names of return codes, or '-' where it cannot be asked of
this token. Rules of this file: nothing is written to the token; a wrong PIN is sent only where that is allowed, and the
right one after it. Started by `profile.py` as `python -I -m pool.cases CASE`, with what is given on its input.
"""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from cryptography.exceptions import InvalidSignature

from pool.functions import Answered, Functions, PssParameters
from pool.mechanism import CKG_MGF1, CKM, CKM_HASH, DIGEST_BYTES, Algorithm, Hash, Scheme, from_token, to_token
from pool.probe import look
from pool.public import KeyRefused, algorithms, key_type, order_bytes, verify
from pool.shown import spki_of_values
from pool.tries import gives_back

OK = "CKR_OK"
NOT_HERE = "-"
_PUBLIC_KEY, _PRIVATE_KEY = 2, 3  # CKO_*
_ID, _KEY_TYPE, _MODULUS, _EXPONENT, _PARAMS, _POINT, _ALWAYS = 0x102, 0x100, 0x120, 0x122, 0x180, 0x181, 0x202  # CKA_*
_LOGIN_REQUIRED = 0x4
_WARNINGS = {0x10000: "COUNT_LOW", 0x20000: "FINAL_TRY", 0x40000: "LOCKED"}
_SESSIONS = 100
_LONG_PIN = "9" * 250  # PKCS#11 gives no limit; cards have 8 to 64
_BESIDE_S = 10.0


@dataclass(frozen=True, slots=True)
class Given:
    """
    Which token, and what may be done to it. `wrong_pins` allows wrong ones; `hands`: somebody is there to pull the token
    and put it back.
    """

    module: str
    label: str
    pin: str
    wrong_pins: bool = False
    hands: bool = False


Case = Callable[[Given], str]
CASES: dict[str, tuple[str, Case]] = {}  # by name: the question, in the order of the table


def case(question: str) -> Callable[[Case], Case]:
    def kept(function: Case) -> Case:
        CASES[function.__name__] = question, function
        return function

    return kept


class Opened:
    """The module, initialised as a lane does it, and a session with the token; logged in, unless without a PIN."""

    def __init__(self, given: Given, *, login: bool = True) -> None:
        self.f = Functions(given.module)
        code = self.f.initialize()
        if code != OK:
            raise Answered("C_Initialize", code)
        self.slot = _slot(self.f, given.label)
        self.session = self.f.session(self.slot)
        if login:
            self.log_in(given.pin)

    def log_in(self, pin: str) -> None:
        code = self.f.login(self.session, pin)
        if code != OK:
            raise Answered("C_Login", code)

    def private_keys(self, session: int = 0) -> list[int]:
        return list(self.f.objects(session or self.session, _PRIVATE_KEY))

    def pairs(self) -> Iterator[tuple[int, bytes]]:
        """Each private key with its public half as a SubjectPublicKeyInfo, those that want a PIN each time left out."""
        f, session = self.f, self.session
        publics = {f.attribute(session, key, _ID): key for key in f.objects(session, _PUBLIC_KEY)}
        for private in self.private_keys():
            public = publics.get(f.attribute(session, private, _ID))
            if public is None or (f.attribute(session, private, _ALWAYS) or b"\0") != b"\0":
                continue
            kinds = (_KEY_TYPE, _MODULUS, _EXPONENT, _PARAMS, _POINT)
            kind, *values = (f.attribute(session, public, each) for each in kinds)
            spki = spki_of_values(int.from_bytes(kind or b"", sys.byteorder), *(value or b"" for value in values))
            if spki is not None:
                yield private, spki

    def pair(self, kind: str) -> tuple[int, bytes] | None:
        """A key of a kind: 'RSA', 'P-256'."""
        for private, spki in self.pairs():
            try:
                if key_type(spki).startswith(kind):
                    return private, spki
            except KeyRefused:
                continue
        return None

    def sign(self, private: int, spki: bytes, algorithm: Algorithm, item: bytes) -> str:
        """'verified', or what was answered instead."""
        pss = None
        if algorithm.scheme is Scheme.RSA_PSS:
            assert algorithm.hash is not None
            pss = PssParameters(CKM_HASH[algorithm.hash], CKG_MGF1[algorithm.hash], DIGEST_BYTES[algorithm.hash])
        code = self.f.sign_init(self.session, private, CKM[algorithm.scheme], pss)
        if code != OK:
            return code
        code, raw = self.f.sign(self.session, to_token(algorithm, order_bytes(spki))(item))
        if code != OK:
            return code
        try:
            verify(algorithm, spki, item, from_token(algorithm)(raw))
        except InvalidSignature:
            return "a wrong signature"
        return "verified"

    def sign_any(self) -> str:
        """A signature by the first key that there is."""
        for private, spki in self.pairs():
            algorithm = algorithms(spki)[0]
            return self.sign(private, spki, algorithm, _item(algorithm))
        return NOT_HERE


def _slot(f: Functions, label: str) -> int:
    for slot in f.slots(with_token=True):
        if f.token_info(slot).label.decode("utf-8", "replace").strip() == label:
            return slot
    raise Answered("C_GetSlotList", "no token has this label")


def _item(algorithm: Algorithm) -> bytes:
    return hashlib.new((algorithm.hash or Hash.SHA256).value, b"paraph").digest()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _beside(given: Given, name: str) -> str:
    """What another process finds, one that is not in the table."""
    return ask(name, given, _BESIDE_S)


# ---- the list, and what it says


@case("a lane's look at the module finds the token")
def listing(given: Given) -> str:
    found = look(given.module, None, None, given.label, None, None)
    if found["t"] != "tokens":
        return str(found["detail"])
    return _yes(any(label == given.label for label, _ in found["tokens"]))


@case("C_Initialize for one thread (what a lane does)")
def initialize_single(given: Given) -> str:
    return Functions(given.module).initialize()


@case("C_Initialize with locks of the system")
def initialize_locking(given: Given) -> str:
    return Functions(given.module).initialize(locking=True)


@case("the function list stays where it is")
def function_list(given: Given) -> str:
    f = Functions(given.module)
    return _yes(f.list() == f.list())


@case("slots with a token, and without")
def slots(given: Given) -> str:
    f = Opened(given, login=False).f
    full = len(f.slots(with_token=True))
    return f"{full} and {len(f.slots(with_token=False)) - full}"


@case("the serial")
def identity(given: Given) -> str:
    opened = Opened(given, login=False)
    serial = opened.f.token_info(opened.slot).serial.decode("ascii", "replace").strip()
    return f"{len(serial)} characters" if serial.strip("0") else "zeros"


@case("it says that it wants a login")
def login_required(given: Given) -> str:
    opened = Opened(given, login=False)
    return _yes(bool(opened.f.token_info(opened.slot).flags & _LOGIN_REQUIRED))


# ---- without a login


@case("public keys are seen without a login")
def public_keys(given: Given) -> str:
    opened = Opened(given, login=False)
    before = len(opened.f.objects(opened.session, _PUBLIC_KEY))
    opened.log_in(given.pin)
    return _yes(0 < before == len(opened.f.objects(opened.session, _PUBLIC_KEY)))


@case("private keys are not seen without a login")
def private_keys(given: Given) -> str:
    return _yes(not Opened(given, login=False).private_keys())


@case("signing after a logout, with a key that was found before")
def signing_logged_out(given: Given) -> str:
    opened = Opened(given)
    pair = next(opened.pairs(), None)
    if pair is None:
        return NOT_HERE
    opened.f.must("C_Logout", opened.session)
    return opened.sign(*pair, algorithms(pair[1])[0], _item(algorithms(pair[1])[0]))


@case("sessions at once")
def sessions(given: Given) -> str:
    opened = Opened(given, login=False)
    for count in range(1, _SESSIONS):
        try:
            opened.f.session(opened.slot)
        except Answered as answered:
            return f"{count}, then {answered.code}"
    return f"{_SESSIONS} or more"


# ---- logins


@case("the right PIN")
def right_pin(given: Given) -> str:
    opened = Opened(given, login=False)
    return opened.f.login(opened.session, given.pin)


@case("the right PIN, while it is logged in")
def right_pin_again(given: Given) -> str:
    opened = Opened(given)
    return opened.f.login(opened.session, given.pin)


@case("a wrong PIN, while it is logged in")
def wrong_pin_again(given: Given) -> str:
    if not given.wrong_pins:
        return NOT_HERE
    opened = Opened(given)
    if not gives_back(opened.f.library()):
        return NOT_HERE
    code = opened.f.login(opened.session, _wrong(given))
    opened.f.call("C_Logout", opened.session)
    opened.log_in(given.pin)
    return code


def _wrong(given: Given) -> str:
    """As long as the right one, and another one."""
    return ("9" if given.pin[:1] != "9" else "8") * len(given.pin)


def _refused(given: Given, pin: str) -> str:
    """What a wrong PIN is answered, what the token warns of then, and whether the right one ends that."""
    if not given.wrong_pins:
        return NOT_HERE
    opened = Opened(given, login=False)
    if pin != _wrong(given) and not gives_back(opened.f.library()):
        return NOT_HERE  # one wrong PIN must do

    def warnings() -> str:
        flags = opened.f.token_info(opened.slot).flags
        return " and ".join(name for bit, name in _WARNINGS.items() if flags & bit)

    before = warnings()
    code, after = opened.f.login(opened.session, pin), warnings()
    if code == OK:
        return code
    opened.log_in(given.pin)
    words = f"{code}, {after}" if after != before else f"{code}, no warning"
    return words if warnings() == before else f"{words}, also after the right one"


@case("a wrong PIN")
def wrong_pin(given: Given) -> str:
    return _refused(given, _wrong(given))


@case("an empty PIN")
def empty_pin(given: Given) -> str:
    return _refused(given, "")


@case("a PIN of 250 bytes")
def long_pin(given: Given) -> str:
    return _refused(given, _LONG_PIN)


@case("a logout in one session ends the login of all")
def logout(given: Given) -> str:
    opened = Opened(given)
    other = opened.f.session(opened.slot)
    opened.f.must("C_Logout", other)
    return _yes(not opened.private_keys())


@case("closing one session leaves the login of another")
def close(given: Given) -> str:
    opened = Opened(given)
    other = opened.f.session(opened.slot)
    opened.f.must("C_CloseSession", opened.session)
    return _yes(bool(opened.private_keys(other)))


@case("a second process is not logged in with the first")
def second_process(given: Given) -> str:
    _kept = Opened(given)
    return _beside(given, "private_keys")


@case("a second process logs in beside the first")
def second_login(given: Given) -> str:
    _kept = Opened(given)
    return _beside(given, "right_pin")


# ---- signatures


def _signs(kind: str, scheme: Scheme, given: Given) -> str:
    opened = Opened(given)
    pair = opened.pair(kind)
    if pair is None:
        return NOT_HERE
    hashes = [a.hash for a in algorithms(pair[1]) if a.scheme is scheme]
    found = {hash_: opened.sign(*pair, a, _item(a)) for hash_ in hashes for a in [Algorithm(scheme, hash_)]}
    words = sorted(set(found.values()))
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{hash_}: {found[hash_]}" for hash_ in hashes)


def _mechanism(name: str, question: str, kind: str, scheme: Scheme) -> None:
    CASES[name] = question, partial(_signs, kind, scheme)


_mechanism("rsa_pkcs", "RSA, PKCS#1 v1.5, SHA-256, 384, 512", "RSA", Scheme.RSA_PKCS1_V15)
_mechanism("rsa_pss", "RSA, PSS, SHA-256, 384, 512", "RSA", Scheme.RSA_PSS)
_mechanism("ecdsa_p256", "ECDSA, P-256, SHA-256, 384, 512", "P-256", Scheme.ECDSA)
_mechanism("ecdsa_p384", "ECDSA, P-384, SHA-256, 384, 512", "P-384", Scheme.ECDSA)
_mechanism("ed25519", "Ed25519", "Ed25519", Scheme.ED25519)


@case("ECDSA, a digest that is longer than the curve's order")
def long_digest(given: Given) -> str:
    opened = Opened(given)
    pair = opened.pair("P-256")
    if pair is None:
        return NOT_HERE
    algorithm = Algorithm(Scheme.ECDSA, Hash.SHA512)
    item = _item(algorithm)
    code = opened.f.sign_init(opened.session, pair[0], CKM[Scheme.ECDSA])
    code, raw = opened.f.sign(opened.session, item) if code == OK else (code, b"")
    if code != OK:
        return code
    try:
        verify(algorithm, pair[1], item, from_token(algorithm)(raw))
    except InvalidSignature:
        return "a wrong signature"
    return "verified"


@case("RSA, PKCS#1 v1.5, more data than the key takes")
def long_data(given: Given) -> str:
    opened = Opened(given)
    pair = opened.pair("RSA")
    if pair is None:
        return NOT_HERE
    code = opened.f.sign_init(opened.session, pair[0], CKM[Scheme.RSA_PKCS1_V15])
    return opened.f.sign(opened.session, bytes(600))[0] if code == OK else code


@case("a buffer that is too short, then one that is not")
def short_buffer(given: Given) -> str:
    opened = Opened(given)
    pair = next(opened.pairs(), None)
    if pair is None:
        return NOT_HERE
    algorithm = algorithms(pair[1])[0]
    data = to_token(algorithm, order_bytes(pair[1]))(_item(algorithm))
    opened.f.sign_init(opened.session, pair[0], CKM[algorithm.scheme])
    first = opened.f.sign(opened.session, data, room=8)[0]
    return f"{first}, {opened.f.sign(opened.session, data)[0]}"


@case("C_SignInit twice")
def sign_init_twice(given: Given) -> str:
    opened = Opened(given)
    pair = next(opened.pairs(), None)
    if pair is None:
        return NOT_HERE
    mechanism = CKM[algorithms(pair[1])[0].scheme]
    opened.f.sign_init(opened.session, pair[0], mechanism)
    return opened.f.sign_init(opened.session, pair[0], mechanism)


@case("a mechanism for another type of key")
def other_mechanism(given: Given) -> str:
    opened = Opened(given)
    pair = opened.pair("RSA") or opened.pair("P-")
    if pair is None:
        return NOT_HERE
    is_rsa = key_type(pair[1]).startswith("RSA")
    code = opened.f.sign_init(opened.session, pair[0], CKM[Scheme.ECDSA if is_rsa else Scheme.RSA_PKCS1_V15])
    return code if code != OK else opened.f.sign(opened.session, bytes(32))[0]


@case("keys that want their PIN each time, of all")
def always_authenticate(given: Given) -> str:
    opened = Opened(given)
    said = [opened.f.attribute(opened.session, key, _ALWAYS) for key in opened.private_keys()]
    if None in said:
        return "it does not say"
    return f"{sum(value != bytes(1) for value in said)} of {len(said)}"


@case("two processes sign at once, 20 signatures each")
def two_lanes(given: Given) -> str:
    with ThreadPoolExecutor() as both:  # threads that only wait: each process has one
        found = {each.result() for each in [both.submit(_beside, given, "twenty") for _ in range(2)]}
    return "; ".join(sorted(found))


def twenty(given: Given) -> str:
    opened = Opened(given)
    found = {opened.sign_any() for _ in range(20)}
    return ", ".join(sorted(found))


# ---- the rest, and the end


@case("C_GenerateRandom")
def random(given: Given) -> str:
    opened = Opened(given, login=False)
    rooms = [ctypes.create_string_buffer(32) for _ in range(2)]
    codes = [opened.f.call("C_GenerateRandom", opened.session, room, 32) for room in rooms]
    if codes == [OK, OK]:
        return _yes(rooms[0].raw != rooms[1].raw)
    return codes[0]


@case("after a fork the child asks for the token")
def fork(given: Given) -> str:
    opened = Opened(given)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = opened.f.call("C_GetTokenInfo", opened.slot, ctypes.create_string_buffer(256))
        os.write(write, code.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        code = pipe.read().decode()
    os.waitpid(child, 0)
    return code or "the child dies"


@case("C_Finalize, and everything once more")
def finalize(given: Given) -> str:
    opened = Opened(given)
    opened.sign_any()
    code = opened.f.call("C_Finalize", None)
    return Opened(given).sign_any() if code == OK else code


@case("a process that ends without C_Finalize")
def no_finalize(given: Given) -> str:
    done = subprocess.run(_command("twenty"), input=_order(given), check=False, capture_output=True)
    code = done.returncode
    return "ends well" if code == 0 else f"dies: {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@case("pulled while nothing is done: the next signature")
def pulled(given: Given) -> str:
    if not given.hands:
        return NOT_HERE
    opened = Opened(given)
    opened.sign_any()
    pair = next(opened.pairs())
    _by_hand("pull")
    algorithm = algorithms(pair[1])[0]
    code = opened.sign(*pair, algorithm, _item(algorithm))
    _by_hand("put back")
    return code


@case("pulled and put back: a new session, without C_Initialize")
def put_back(given: Given) -> str:
    if not given.hands:
        return NOT_HERE
    opened = Opened(given)
    _by_hand("pull")
    _by_hand("put back")
    deadline = time.monotonic() + _BESIDE_S
    while (code := _once_more(opened, given)) != "verified" and time.monotonic() < deadline:
        time.sleep(0.2)  # a reader takes a moment to see its card
    return code


def _once_more(opened: Opened, given: Given) -> str:
    """What comes of another session, and of a signature in it."""
    opened.f.call("C_CloseSession", opened.session)
    try:
        opened.slot = _slot(opened.f, given.label)
        opened.session = opened.f.session(opened.slot)
        code = opened.f.login(opened.session, given.pin)
        return opened.sign_any() if code in {OK, "CKR_USER_ALREADY_LOGGED_IN"} else code
    except Answered as answered:
        return answered.code


@case("a signature by the first key takes")
def speed(given: Given) -> str:
    opened = Opened(given)
    pair = next(opened.pairs(), None)
    if pair is None:
        return NOT_HERE
    algorithm, times = algorithms(pair[1])[0], []
    for _ in range(10):
        began = time.monotonic()
        opened.sign(*pair, algorithm, _item(algorithm))
        times.append(time.monotonic() - began)
    least_s = min(times)  # what else the machine does only adds to it
    return next(
        (f"< {limit} ms" for limit in (3, 10, 30, 100, 300, 1000) if least_s < limit / 1000), "more than a second"
    )


# ---- the process of one case

_MARK = "paraph: "  # what else stands on its output is the module's noise
_OTHERS = {"twenty": twenty}


def _command(name: str) -> list[str]:
    return [sys.executable, "-I", "-m", "pool.cases", name]


def _order(given: Given) -> bytes:
    return json.dumps(asdict(given)).encode() + b"\n"


def _said(line: bytes) -> tuple[str, str]:
    """('answer', words) or ('hands', what they are to do); ('', '') for the module's noise."""
    text = line.decode("utf-8", "replace").rstrip("\n")
    if not text.startswith(_MARK):
        return "", ""
    what, _, words = text.removeprefix(_MARK).partition(" ")
    return what, words


def ask(
    name: str,
    given: Given,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    hands: Callable[[str], None] | None = None,
) -> str:
    """Put one case to the module, in a process of its own. `hands` is called with 'pull' and 'put back'."""
    process = subprocess.Popen(
        _command(name), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        process.stdin.write(_order(given))
        process.stdin.flush()
        for line in process.stdout:
            what, words = _said(line)
            if what == "answer":
                return words
            if what == "hands" and hands is not None:
                hands(words)
                process.stdin.write(b"\n")
                process.stdin.flush()
        code = process.wait()
    except BrokenPipeError:
        code = process.wait()
    finally:
        is_late = not timer.is_alive()
        timer.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    if is_late:
        return f"no answer in {timeout_s:g} s"
    return f"dies: {signal.Signals(-code).name}" if code < 0 else f"dies: exit code {code}"


def _by_hand(what: str) -> None:
    print(f"{_MARK}hands {what}", flush=True)
    sys.stdin.readline()


def main() -> None:
    name, given = sys.argv[1], Given(**json.loads(sys.stdin.readline()))
    function = _OTHERS[name] if name in _OTHERS else CASES[name][1]
    try:
        words = function(given)
    except Answered as answered:
        words = str(answered) if answered.code.startswith("no ") else answered.code
    print(f"{_MARK}answer {words}", flush=True)


if __name__ == "__main__":
    main()
