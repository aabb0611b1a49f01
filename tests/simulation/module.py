"""
A PKCS#11 module made of Python objects, as far as the worker and the probe use python-pkcs11: slots, cards in them, PINs
that lock, sessions that are lost. It logs each call and is disturbed as the shim does it (tests/shim/README.md).

The log of a card (`signs`, `logins`) is the witness of what was really done with it.
"""

import ctypes
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag
from pkcs11.exceptions import PKCS11Error

from pool.codes import NAMES
from pool.cryptoki import Refused, Sign
from pool.fake import Process
from pool.mechanism import Algorithm, WrongSignature
from pool.shown import ckr
from pool.wire import SIGNATURE_BYTES_MAX
from tests.simulation import keys

OK, GENERAL_ERROR, DEVICE_ERROR, DEVICE_REMOVED, PIN_INCORRECT, PIN_LOCKED = 0, 0x5, 0x30, 0x32, 0xA0, 0xA4
MECHANISM_INVALID = 0x70
SESSION_INVALID, TOKEN_NOT_PRESENT, ALREADY_LOGGED_IN, NOT_LOGGED_IN = 0xB3, 0xE0, 0x100, 0x101
CONTEXT_SPECIFIC = 2
_P256 = bytes.fromhex("06082a8648ce3d030107")
_ERRORS = {ckr(kind()): kind for kind in PKCS11Error.__subclasses__()}

# (action, argument) of each rule that matches this call, in the order of the script.
Rules = Callable[[str, int], Sequence[tuple[str, str]]]


class Code(Exception):
    """A return code that is not CKR_OK."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(NAMES.get(code, hex(code)))


def error(code: int) -> PKCS11Error:
    """As python-pkcs11 raises it."""
    kind = _ERRORS.get(NAMES.get(code, ""))
    return kind() if kind else PKCS11Error(f"Unmapped error code {code:#x}")


@dataclass(slots=True)
class Signed:
    """One C_Sign. `made` is the signature in the world's form, empty where there is none; `code` None: no answer came."""

    at: float
    pid: int
    key: str
    data: bytes
    made: bytes = b""
    code: int | None = None


@dataclass(slots=True)
class Login:
    """One C_Login; `is_right` None where the card was not asked."""

    at: float
    pid: int
    pin: str
    is_right: bool | None = None
    is_context: bool = False


@dataclass(eq=False)
class Card:
    """A token as it lies in a slot. `lies`: its flags say nothing, and a wrong PIN is CKR_GENERAL_ERROR."""

    label: str
    serial: str
    pin: str
    keys: Sequence[str]
    tries: int = 3
    lies: bool = False
    asks_each_time: bool = False
    sign_s: Callable[[], float] = lambda: 0.0
    wrong: int = 0  # refused PINs since the last right one
    is_open: bool = False  # the card itself: to whoever speaks to it, until it is reset or loses its power
    open_for: int = 0  # the process that gave the PIN
    inserted: int = 0  # sessions of an earlier insertion are worth nothing
    signs: list[Signed] = field(default_factory=list)
    logins: list[Login] = field(default_factory=list)
    made: Counter[bytes] = field(default_factory=Counter)

    def flags(self) -> TokenFlag:
        found = TokenFlag.LOGIN_REQUIRED | TokenFlag.TOKEN_INITIALIZED
        if self.lies:
            return found
        if self.wrong >= self.tries:
            return found | TokenFlag.USER_PIN_LOCKED
        if self.wrong == self.tries - 1:
            return found | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_COUNT_LOW
        return found | TokenFlag.USER_PIN_COUNT_LOW if self.wrong else found

    def power_lost(self) -> None:
        self.is_open = False
        self.inserted += 1


@dataclass(eq=False)
class Slot:
    card: Card | None = None
    is_card: bool = False  # a login belongs to the card, not to the process


class Module:
    """`now` in seconds of the monotonic clock. `rules` says what disturbs a call; `seen` is told of each."""

    def __init__(
        self,
        slots: Sequence[Slot],
        now: Callable[[], float],
        rules: Rules,
        seen: Callable[..., None] = lambda *_, **__: None,
        *,
        is_direct: bool = True,
    ) -> None:
        self.slots = slots
        self.now = now
        self.rules = rules
        self.seen = seen
        self.is_direct = is_direct
        self.numbers: Counter[str] = Counter()

    def load(self, _path: str, process: Process) -> "Library":
        return Library(self, process)


class Library:
    """The module in one process: `pkcs11.lib`."""

    def __init__(self, module: Module, process: Process) -> None:
        self.module, self.process = module, process
        self.logged_in: set[int] = set()  # cards, by id: all sessions of a process share it
        self.asked("C_Initialize", lambda: None)

    def call(self, fn: str, act: Callable[[], Any], twist: Any = None, **said: Any) -> Any:
        """One C_* with what the rules do to it; raises `Code`."""
        process, module = self.process, self.module
        process.live()
        module.numbers[fn] += 1
        number = module.numbers[fn]
        what = said.get("said")
        if what is not None:
            (said["card"].signs if isinstance(what, Signed) else said["card"].logins).append(what)
        rules = module.rules(fn, number)
        action, argument = next((rule for rule in rules if rule[0] != "delay"), ("", ""))
        module.seen(process, fn, "enter", number, act=action or None, **said)
        for each, seconds in rules:
            if each == "delay":
                process.sleep(float(seconds))
        code, answer = OK, None
        try:
            match action:
                case "return":
                    raise Code(int(argument, 16))
                case "crash":
                    process.die(-signal.SIGSEGV)
                case "exit":
                    process.die(int(argument))
                case "hang":
                    if argument:
                        process.sleep(float(argument))
                    else:
                        process.hang()
                case "" | "after" | "crash-after" | "corrupt" | "zero" | "short" | "long" | "absent":
                    pass
                case _:
                    raise ValueError(f"this module cannot {action}")
            answer = act()
            if action == "crash-after":
                process.die(-signal.SIGSEGV)
            if action == "after":
                raise Code(int(argument, 16))
            if action in {"corrupt", "zero", "short", "absent"}:
                answer = twist(action, answer)
            if action == "long":
                answer = twist(argument, answer)
        except Code as raised:
            code = raised.code
        module.seen(process, fn, "leave", number, rv=code)
        if code:
            raise Code(code)
        return answer

    def asked(self, fn: str, act: Callable[[], Any], twist: Any = None, **said: Any) -> Any:
        """The same as python-pkcs11 has it: raises its exceptions."""
        try:
            return self.call(fn, act, twist, **said)
        except Code as code:
            raise error(code.code) from None

    library_description = "simulated"

    def get_slots(self, token_present: bool) -> list["LibrarySlot"]:
        def slots() -> list[LibrarySlot]:
            return [LibrarySlot(self, slot) for slot in self.module.slots if slot.card is not None or not token_present]

        found: list[LibrarySlot] = self.asked("C_GetSlotList", slots, lambda _action, _answer: [])
        return found

    def finalize(self) -> None:
        self.logged_in.clear()
        self.asked("C_Finalize", lambda: None)

    @property
    def cryptoki(self) -> "LibraryCryptoki | None":
        return LibraryCryptoki() if self.module.is_direct else None


class LibraryCryptoki:
    """`cryptoki.Cryptoki`: each function with its own return code."""

    def is_empty(self, _slot: int) -> bool:
        return False

    def log_in(self, session: "Session", pin: str | None) -> str:
        assert pin is not None
        try:
            session.login(pin)
        except PKCS11Error as error:
            return ckr(error)
        return ""

    def log_out(self, session: "Session") -> None:
        session.log_out()

    def signer(self, session: "Session") -> Any:
        def signer(key: "PrivateKey", _algorithm: Algorithm, pin: str | None = None) -> Sign:
            def sign(data: bytes, address: ctypes.c_void_p) -> int:
                try:
                    session.sign_init(key, pin)
                except Code as code:
                    raise Refused(NAMES.get(code.code, hex(code.code)), begun=False) from None
                try:
                    made = session.sign(key, data)
                except Code as code:
                    raise Refused(NAMES.get(code.code, hex(code.code))) from None
                if not 0 < len(made) <= SIGNATURE_BYTES_MAX:
                    raise WrongSignature
                ctypes.memmove(address, made, len(made))
                return len(made)

            return sign

        return signer


class LibrarySlot:
    def __init__(self, library: Library, slot: Slot) -> None:
        self.library, self.slot = library, slot
        self.slot_id = library.module.slots.index(slot)

    def get_token(self) -> "Token":
        def look() -> Card:
            if self.slot.card is None:
                raise Code(TOKEN_NOT_PRESENT)
            return self.slot.card

        return Token(self, self.library.asked("C_GetTokenInfo", look))


class Token:
    """As it was when it was looked at."""

    def __init__(self, slot: LibrarySlot, card: Card) -> None:
        self.slot = slot
        self.label, self.serial = card.label, card.serial.encode()
        self.manufacturer_id, self.model = "Simulated", "card"
        self.flags = card.flags()

    def open(self, user_pin: str | None = None) -> "Session":
        library, slot = self.slot.library, self.slot.slot

        def opened() -> Session:
            if slot.card is None:
                raise Code(TOKEN_NOT_PRESENT)
            return Session(library, slot, slot.card)

        session: Session = library.asked("C_OpenSession", opened, card=slot.card)
        if user_pin is not None:
            session.login(user_pin)
        return session


class Session:
    def __init__(self, library: Library, slot: Slot, card: Card) -> None:
        self.library, self.slot, self.card = library, slot, card
        self.inserted = card.inserted

    def check(self) -> None:
        """Raises `Code` where the card is not in its slot any more, or was meanwhile."""
        if self.slot.card is None:
            raise Code(DEVICE_REMOVED)
        if (self.slot.card, self.card.inserted) != (self.card, self.inserted):
            raise Code(SESSION_INVALID)

    def close(self) -> None:
        if id(self.card) in self.library.logged_in:
            self.log_out()
        self.library.asked("C_CloseSession", lambda: None)

    def log_out(self) -> None:
        def logout() -> None:
            self.library.logged_in.discard(id(self.card))  # what the card makes of it is up to its driver

        self.library.asked("C_Logout", logout)

    def login(self, pin: str) -> None:
        said = Login(self.library.module.now(), self.library.process.pid, pin)
        self.library.asked("C_Login", lambda: self._login(said), user=1, card=self.card, said=said)

    def _login(self, said: Login) -> None:
        self.check()
        card = self.card
        if not said.is_context and id(card) in self.library.logged_in:
            raise Code(ALREADY_LOGGED_IN)
        if card.wrong >= card.tries:
            said.is_right = False
            raise Code(GENERAL_ERROR if card.lies else PIN_LOCKED)
        said.is_right = said.pin == card.pin
        if not said.is_right:
            card.wrong += 1
            raise Code(GENERAL_ERROR if card.lies else PIN_INCORRECT)
        card.wrong = 0
        card.is_open, card.open_for = True, self.library.process.pid
        self.library.logged_in.add(id(card))

    def get_objects(self, where: dict[Attribute, Any]) -> list["PublicKey"]:
        def found() -> list[PublicKey]:
            self.check()
            if where[Attribute.CLASS] is not ObjectClass.PUBLIC_KEY:
                return []
            ids, label = where.get(Attribute.ID), where.get(Attribute.LABEL)
            return [PublicKey(n) for n in self.card.keys if ids in {None, n.encode()} and label in {None, n}]

        self.library.asked("C_FindObjectsInit", lambda: None)
        objects: list[PublicKey] = self.library.asked("C_FindObjects", found)
        return objects

    def get_key(self, *, object_class: ObjectClass, id: bytes | None, label: str | None) -> "PrivateKey":  # noqa: A002
        def found() -> PrivateKey:
            self.check()
            assert object_class is ObjectClass.PRIVATE_KEY
            names = [n for n in self.card.keys if id in {None, n.encode()} and label in {None, n}]
            if len(names) != 1 or id_of(self) not in self.library.logged_in:
                raise pkcs11.exceptions.NoSuchKey
            return PrivateKey(self, names[0])

        key: PrivateKey = self.library.asked("C_FindObjectsInit", found)
        return key

    def sign_init(self, key: "PrivateKey", pin: str | None) -> None:
        def act() -> None:
            self.check()
            if id_of(self) not in self.library.logged_in:
                raise Code(NOT_LOGGED_IN)

        self.library.call("C_SignInit", act)
        if pin is not None:
            said = Login(self.library.module.now(), self.library.process.pid, pin, is_context=True)
            self.library.call("C_Login", lambda: self._login(said), user=CONTEXT_SPECIFIC, card=self.card, said=said)

    def sign(self, key: "PrivateKey", data: bytes) -> bytes:
        said = Signed(self.library.module.now(), self.library.process.pid, key.name, data)

        def act() -> bytes:
            card = self.card
            self.library.process.sleep(card.sign_s())
            self.check()
            if id_of(self) not in self.library.logged_in:
                raise Code(NOT_LOGGED_IN)
            raw, said.made = made = keys.signature(key.name, data, card.made[data])
            if not made[0]:
                raise Code(MECHANISM_INVALID)
            card.made[data] += 1
            return raw

        def twist(action: str, made: bytes) -> bytes:
            said.made = b""  # what it hands over is none
            if action.isdigit():  # so many bytes more
                return made + bytes(int(action))
            if action == "short":
                return made[:-1]
            return bytes(len(made)) if action == "zero" else made[:-1] + bytes([made[-1] ^ 1])

        try:
            made: bytes = self.library.call("C_Sign", act, twist, card=self.card, data=data, said=said)
            said.code = OK
        except Code as code:
            said.code = code.code
            raise
        return made


def id_of(session: Session) -> int:
    return id(session.card)


class PublicKey:
    def __init__(self, name: str) -> None:
        self.id, self.label = name.encode(), name
        self.key_type = KeyType.RSA if keys.is_rsa(name) else KeyType.EC

    def __getitem__(self, attribute: Attribute) -> bytes:
        if self.key_type is KeyType.RSA:
            modulus, exponent = keys.numbers(self.label)
            return {Attribute.MODULUS: modulus, Attribute.PUBLIC_EXPONENT: exponent}[attribute]
        point = keys.point(self.label)
        return {Attribute.EC_PARAMS: _P256, Attribute.EC_POINT: b"\x04" + bytes([len(point)]) + point}[attribute]


class PrivateKey:
    def __init__(self, session: Session, name: str) -> None:
        self.session, self.name = session, name

    def __getitem__(self, attribute: Attribute) -> bool:
        assert attribute is Attribute.ALWAYS_AUTHENTICATE
        return self.session.card.asks_each_time

    def sign(self, data: bytes, *, mechanism: Any, pin: str | None = None) -> bytes:
        """As python-pkcs11 does it, whose exceptions do not say which of the functions answered."""
        del mechanism
        try:
            self.session.sign_init(self, pin)
            return self.session.sign(self, data)
        except Code as code:
            raise error(code.code) from None
