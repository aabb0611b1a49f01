"""
The child end of a lane: opens one token, logs in, and signs frames until it is told to stop or its parent is gone.

Started as `python -I -m pool.worker SOCKET PAGES` (two inherited descriptors), never by fork: PKCS#11 modules do not
survive it (OASIS PKCS#11 usage guide, 2.5.2). Exactly one thread calls C_*: python-pkcs11 initialises modules as
single-threaded. Nothing is read from standard input or written to standard output, which belong to the module's noise.
Only this file, `probe.py` and `shown.py` (which both use) import pkcs11.
"""

import contextlib
import ctypes
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from mmap import mmap
from typing import Any

import pkcs11
from pkcs11 import MGF, PROTECTED_AUTH, Attribute, Mechanism, ObjectClass, TokenFlag
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    MultipleObjectsReturned,
    NoSuchKey,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    TokenNotPresent,
)

from pool import libcrypto, opensc, wire
from pool.child import harden, is_at_limit, limit, open_socket
from pool.codes import CARD_GONE, PCSC_DOWN, PIN_NOT_CHECKED, PIN_REFUSED, Meaning, meaning
from pool.cryptoki import Cryptoki, Refused, Sign, Signer, loaded
from pool.library import LibraryRefused, Load, loading
from pool.mechanism import CKM, DIGEST_BYTES, Algorithm, Hash, Scheme, WrongSignature, from_token, to_token
from pool.pcsc import Pcsc, PcscError, Seen, no_token, other_card
from pool.shown import NOT_THERE, SEARCHES_MAX, ckr, flags, named, privates, some, text, tokens

_LOAD = loading(pkcs11.lib)
_PIN_REFUSED = (PinIncorrect, PinInvalid, PinLocked, PinLenRange, PinExpired)

# From an item and an address in the page to the length of what stands there then, verified; raises `Refused` and
# `WrongSignature`.
Make = Callable[[bytes, ctypes.c_void_p], int]
Loaded = Callable[[str], Cryptoki | None]
NOTICE_S = 0.5  # pcscd looks every 0.4 s whether a card is there
CUT = "CUT"  # no return code of PKCS#11


def _hashes(session: Any, names: Sequence[wire.Name]) -> list[bytes]:
    """SHA-256 of the SubjectPublicKeyInfo of each of these that the token has: of thousands they fit a packet."""
    return [hashlib.sha256(spki).digest() for _, _, spki in named(session, [(one[0], one[1]) for one in names])]


class _Privates:
    """All private keys of a session, read once: a search for each of many takes a software token minutes."""

    def __init__(self, session: Any) -> None:
        self._by_id: dict[bytes, list[tuple[str, Any]]] = {}
        self._by_label: dict[str, list[tuple[str, Any]]] = {}
        for cka_id, label, key in privates(session):
            self._by_id.setdefault(cka_id, []).append((label, key))
            self._by_label.setdefault(label, []).append((label, key))

    def one(self, cka_id: bytes | None, label: str | None) -> Any:
        """Raises as `Session.get_key` does."""
        found = self._by_id.get(cka_id, []) if cka_id else self._by_label.get(label or "", [])
        if len(found) > 1 and cka_id and label:
            found = [(called, key) for called, key in found if called == label]
        if not found:
            raise NoSuchKey
        if len(found) > 1:
            raise MultipleObjectsReturned
        return found[0][1]


class Worker:
    """One token, one session, one frame at a time."""

    def __init__(
        self,
        sock: Any,
        memory: mmap,
        load: Load = _LOAD,
        loaded: Loaded = loaded,
    ) -> None:
        self._sock = sock
        self._load, self._loaded = load, loaded  # others, where no module is wanted (fake.py)
        self._pages = [wire.Page(memory, number) for number in range(wire.FRAMES_IN_FLIGHT)]
        self._lib: Any = None
        self._cryptoki: Cryptoki | None = None
        self._token: Any = None
        self._session: Any = None  # in which the token has shown its keys: a PIN is sent in no other
        self._is_logged_in = False
        self._keys: dict[str, tuple[Any, bytes, int]] = {}
        self._each: frozenset[str] = frozenset()
        self._privates: _Privates | None = None  # while many keys are looked for
        self._makers: dict[tuple[str, str, str], Make] = {}
        self._verify = True
        self._named: list[wire.Name] | None = None
        self._signer: Signer = by_library
        self._lease = ""
        self._pcsc: Pcsc | None = None  # for a card, whose reader is known
        self._reader, self._seen = "", Seen(False, False, 0)
        self._pin: str | None = None  # a person's, for keys that want it at each signature; gone with this process

    def serve(self) -> None:
        """Answer messages until told to stop, until the parent is gone, or until the session is lost."""
        handlers = {
            "open": self._open,
            "show": self._show_more,
            "look": self._look,
            "login": self._login,
            "flags": self._flags_now,
            "keys": self._find_keys,
            "frame": self._frame,
            "ping": self._ping,
        }
        inbox = wire.Inbox()
        while (message := inbox.receive(self._sock)) is not None and message["t"] != "stop":
            answer = handlers[message["t"]](message)
            self._sock.send(wire.pack(answer))
            if answer.get("lost"):
                break
        self._leave()

    def _open(self, message: dict[str, Any]) -> dict[str, Any]:
        """Load the module, find the token, and list its public keys: all that can be done without a PIN."""
        self._verify = message["verify"]
        try:
            if message["reader"] is not None:
                self._pcsc, self._reader = Pcsc(), message["reader"]
                self._seen = self._pcsc.find(self._reader)
                opensc.configure(self._reader, self._pcsc.readers())
            self._lib, path = self._load(message["module"], message["sha256"])
            self._cryptoki = self._loaded(path)
            shown = list(tokens(self._lib))
            found = [t for t in shown if text(t.label) == message["label"]]
            if message["serial"] is not None:
                named = [t for t in found if text(t.serial) == message["serial"]]
                if found and not named:
                    return {"t": "failed", "why": "changed", "serial": text(found[0].serial), "detail": ""}
                found = named
            if self._pcsc is not None and not found:
                if shown:
                    return {"t": "failed", "why": "changed", "detail": other_card(self._reader, text(shown[0].label))}
                return {"t": "failed", "why": "absent", "detail": no_token(self._reader)}
            if len(found) != 1:
                why = "absent" if not found else "ambiguous"
                labels = [text(t.label) for t in shown]
                return {"t": "failed", "why": why, "count": len(found), "labels": labels, "detail": ""}
            self._token = found[0]
            # A serial of zeros names nothing (TPM, NSS): there every public key is part of the token's identity.
            is_named = message["keys"] is not None and text(self._token.serial).strip("0")
            self._named = [tuple(one) for one in message["keys"]] if is_named else None
            token, shown_keys = self._show()
            if (token.label, token.serial) != (self._token.label, self._token.serial):
                raise TokenNotPresent  # it was changed for another between the list and the session
        except LibraryRefused as refused:
            return {"t": "failed", "why": "refused", "detail": str(refused)}
        except PcscError as error:
            return {"t": "failed", "why": error.why, "detail": error.detail}
        except NOT_THERE as error:
            return {"t": "failed", "why": "absent", "detail": ckr(error)}
        except PKCS11Error as error:
            return {
                "t": "failed",
                "why": "error",
                "detail": wire.WORKER_LIMIT if is_at_limit() else f"{ckr(error)} {error}".strip(),
            }
        return {
            "t": "opened",
            "serial": text(self._token.serial),
            "model": f"{text(self._token.manufacturer_id)} {text(self._token.model)}",
            "library": str(self._lib.library_description),
            "login": bool(self._token.flags & TokenFlag.LOGIN_REQUIRED),
            "pad": bool(self._token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH),
            "flags": flags(self._token),
            **shown_keys,
        }

    def _look(self, _message: dict[str, Any]) -> dict[str, Any]:
        """What the token shows now: a lane may have waited for hours, and its card may be another one."""
        if gone := self._gone():
            return {"t": "failed", "why": "absent", "detail": gone}
        try:
            token, shown_keys = self._show()
        except PKCS11Error as error:
            return {"t": "failed", "why": "absent", "detail": ckr(error)}
        if "hashes" in shown_keys:
            shown_keys = {"mark": wire.mark_of(shown_keys["hashes"])}
        return {"t": "seen", "serial": text(token.serial), "flags": flags(token), **shown_keys}

    def _show_more(self, message: dict[str, Any]) -> dict[str, Any]:
        """Of more named keys, in the session in which the first ones were shown."""
        try:
            found = _hashes(self._session, message["keys"])
        except PKCS11Error as error:
            return {"t": "failed", "why": "absent" if self._gone() else "error", "detail": ckr(error)}
        assert self._named is not None
        self._named += map(tuple, message["keys"])
        return {"t": "shown", "hashes": found}

    def _show(self) -> tuple[Any, dict[str, Any]]:
        """
        The token as it is now; of the named keys that it has the SHA-256 of each SubjectPublicKeyInfo (thousands of them fit
        a packet), or the public halves of all where none is named: in a session that is kept. It is opened first: what is
        seen after that, and in it, is of the token that hears a PIN sent in it.
        """
        if self._session is not None:
            with contextlib.suppress(PKCS11Error):  # it may have ended with its token
                self._session.close()
        self._session = None
        session = self._session = self._token.open()
        token = self._token.slot.get_token()
        if self._named is None:
            return token, {"publics": some(session)}
        return token, {"hashes": _hashes(session, self._named)}

    def _login(self, message: dict[str, Any]) -> dict[str, Any]:
        """
        Log in, once. Any answer but CKR_OK ends this process: CKR_USER_ALREADY_LOGGED_IN, too, would mean that the PIN was
        not looked at.
        """
        pin, self._lease = message.pop("pin"), message["lease"]
        code = self._send(pin, at_pad=message["pad"]) if pin is not None or message["pad"] else ""
        if code in PIN_REFUSED:
            return {"t": "refused", "detail": code}  # at once: what is asked of the module next may never come back
        if code:
            if code not in PIN_NOT_CHECKED:
                code = self._gone(NOTICE_S) or code
            return {"t": "failed", "why": "error", "detail": code}
        self._is_logged_in = pin is not None or message["pad"]
        self._pin = pin if self._lease else None
        self._signer = by_library if self._cryptoki is None else self._cryptoki.signer(self._session)
        return {"t": "logged-in", "direct": self._cryptoki is not None}

    def _send(self, pin: str | None, *, at_pad: bool) -> str:
        """C_Login: the name of what it answers, '' for CKR_OK."""
        if self._cryptoki is not None:
            return self._cryptoki.log_in(self._session, pin)
        try:  # python-pkcs11 knows no login but in a session of its own
            self._session = self._token.open(user_pin=PROTECTED_AUTH if at_pad else pin)
        except PKCS11Error as error:
            return ckr(error)
        return ""

    def _flags_now(self, _message: dict[str, Any]) -> dict[str, Any]:
        """What the token says of its PIN now (CK_TOKEN_INFO); nothing, where it says nothing."""
        try:
            found = flags(self._token.slot.get_token())
        except PKCS11Error:
            found = [False] * 3
        return {"t": "flags", "flags": found}

    def _find_keys(self, message: dict[str, Any]) -> dict[str, Any]:
        """
        Find the private halves. A key is taken only where exactly one object answers. `each` are those that want a PIN
        at each signature (CKA_ALWAYS_AUTHENTICATE, PKCS#11 v3.1, 4.9): for them the lease's is kept. Any other answer is
        about the session, not about the key. They come in as many messages as they need.
        """
        problems, each = {}, []
        if message["is_first"]:
            self._keys.clear()
            self._each = frozenset()
            self._privates = _Privates(self._session) if message["count"] > SEARCHES_MAX else None
        for ref, cka_id, label, spki, order_bytes in message["keys"]:
            try:
                key = self._private(cka_id, label)
                if wants_pin(key):
                    if self._pin is None:
                        problems[ref] = "it wants its PIN at each signature, which only a lease with a typed PIN gives"
                        continue
                    each.append(ref)
                self._keys[ref] = (key, spki, order_bytes)
            except (NoSuchKey, MultipleObjectsReturned) as error:
                problems[ref] = ckr(error)
            except PKCS11Error as error:
                # It says nothing of the key: a lane would go on without it until its end.
                return {"t": "failed", "detail": wire.WORKER_LIMIT if is_at_limit() else ckr(error), "lost": ckr(error)}
        self._each |= frozenset(each)
        if message["is_last"]:
            self._privates = None
            if not self._each:
                self._pin = None
        asked = {ref for ref, *_ in message["keys"]}
        return {"t": "keys", "found": [ref for ref in self._keys if ref in asked], "problems": problems, "each": each}

    def _private(self, cka_id: bytes | None, label: str | None) -> Any:
        """
        By CKA_ID, which the halves of a pair share (PKCS#11 v3.1, 4.6.2), where there is one; labels are for people, and
        OpenSC calls the halves of a PIV card's pair differently. Where several have one ID, the label decides.
        """
        if self._privates is not None:
            return self._privates.one(cka_id, label)
        try:
            return self._session.get_key(
                object_class=ObjectClass.PRIVATE_KEY, id=cka_id, label=None if cka_id else label
            )
        except MultipleObjectsReturned:
            if not cka_id or not label:
                raise
            return self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=cka_id, label=label)

    def _ping(self, _message: dict[str, Any]) -> dict[str, Any]:
        """Whether the token is still there, without a PIN and without a signature."""
        if gone := self._gone():
            return {"t": "pong", "lost": gone}
        try:
            if self._cryptoki is not None and self._cryptoki.is_empty(self._token.slot.slot_id):
                return {"t": "pong", "lost": "CKR_TOKEN_NOT_PRESENT"}
            token = self._token.slot.get_token()
        except PKCS11Error as error:
            return {"t": "pong", "lost": wire.WORKER_LIMIT if is_at_limit() else ckr(error)}
        return {"t": "pong", "lost": "" if token.serial == self._token.serial else "CKR_DEVICE_REMOVED"}

    def _gone(self, within_s: float = 0.0) -> str:
        """
        What happened to the card since it was opened, '' where it has been there all the time. OpenSC notices neither that
        pcscd has ended nor a card that is back before it looked.
        """
        if self._pcsc is None:
            return ""
        try:
            now = self._pcsc.wait(self._reader, self._seen, within_s)
        except PcscError:
            return PCSC_DOWN
        return "" if now == self._seen else CARD_GONE

    def _frame(self, message: dict[str, Any]) -> dict[str, Any]:
        """The hot loop is `sign_run`; what is the same for all items of a kind was made once, by `_maker`."""
        if message["lease"] != self._lease:
            return {"t": "done", "n": message["n"], "ns": 0, "signed": 0, "lost": wire.FOREIGN_LEASE}
        page, items = self._pages[message["page"]], message["items"]
        if isinstance(items, bytes):
            width = len(items) // sum(count for count, _ in message["runs"])
            items = [items[offset : offset + width] for offset in range(0, len(items), width)]
        make = self._maker(message["key"], message["scheme"], message["hash"])
        began = time.monotonic_ns()
        signed, lost, index = 0, "", 0
        for count, deadline in message["runs"]:
            made, lost = sign_run(page, make, items, range(index, index + count), deadline)
            signed += made
            index += count
            if lost:
                break
        lost = "" if lost == CUT else lost
        page.end()
        return {"t": "done", "n": message["n"], "ns": time.monotonic_ns() - began, "signed": signed, "lost": lost}

    def _maker(self, ref: str, scheme: str, hash_: str) -> Make:
        make = self._makers.get((ref, scheme, hash_))
        if make is None:
            key, spki, order_bytes = self._keys[ref]
            algorithm = Algorithm(Scheme(scheme), Hash(hash_) if hash_ else None)
            to_input, sign = (
                to_token(algorithm, order_bytes),
                self._signer(key, algorithm, self._pin if ref in self._each else None),
            )
            make = signing(to_input, sign)
            if self._verify:
                check = libcrypto.verifier(algorithm, spki) or by_cryptography(algorithm, spki)
                make = verified(make, from_token(algorithm), check)
            if self._pcsc is not None:
                make = self._explained(make)
            self._makers[ref, scheme, hash_] = make
        return make

    def _explained(self, make: Make) -> Make:
        """The same; a card that was pulled, which drivers have many words for, is told by the one that means it."""

        def make_or_explain(item: bytes, address: ctypes.c_void_p) -> int:
            try:
                return make(item, address)
            except Refused as refused:
                what = meaning(refused.code, begun=refused.begun)
                is_clear = what is Meaning.REQUEST or (what is Meaning.SESSION and refused.begun)
                if is_clear or refused.code in PIN_REFUSED:
                    raise
                raise Refused(self._gone(NOTICE_S) or refused.code, begun=refused.begun) from None

        return make_or_explain

    def _leave(self) -> None:
        """Log out and finalise, so that the next process finds the token as it should be."""
        if self._is_logged_in and self._cryptoki is not None:
            self._cryptoki.log_out(self._session)
        with contextlib.suppress(PKCS11Error):  # a logout that fails leaves the more for C_Finalize to do
            if self._session is not None:
                self._session.close()
        if self._lib is not None:
            self._lib.finalize()


def signing(to_input: Callable[[bytes], bytes], sign: Sign) -> Make:
    def make(item: bytes, address: ctypes.c_void_p) -> int:
        return sign(to_input(item), address)

    return sign if to_input is bytes else make  # a call less, where the item itself is signed


def verified(make: Make, from_output: Callable[[bytes], bytes], check: libcrypto.Verifier) -> Make:
    """The same, and the signature that stands there is read back and checked."""

    def make_and_check(item: bytes, address: ctypes.c_void_p) -> int:
        length = make(item, address)
        check(item, from_output(ctypes.string_at(address, length)))
        return length

    return make_and_check


def sign_run(page: wire.Page, make: Make, items: Sequence[bytes], slots: range, deadline: int) -> tuple[int, str]:
    """
    Sign the items of `slots` into the page until `deadline` (monotonic ns): how many were signed, and what ended it
    early: `CUT`, or what the session was lost by ('': nothing).

    This is a signature's whole way through the lane, and therefore does nothing else. C_Sign leaves nothing of it in the
    processor's cache, so that every line costs several times what it costs in a loop of its own.
    """
    under, skips, marks, fence, now = page.under_c_sign, page.skips, page.marks, wire.FENCE, time.monotonic_ns
    addresses, signed = page.addresses, 0
    for index in slots:
        under[0] = index + 1
        with fence:  # see wire.py
            pass
        if skips[index]:
            if skips[index] == wire.CUT:
                return signed, CUT
            page.put_mark(index, wire.MARK_SKIPPED)
        elif now() >= deadline:
            page.put_mark(index, wire.MARK_EXPIRED)
        else:
            try:
                marks[index] = make(items[index], addresses[index])
                signed += 1
            except Refused as refused:
                code, begun = refused.code, refused.begun
                is_request = meaning(code, begun=begun) is Meaning.REQUEST
                if not is_request and is_at_limit():
                    code = wire.WORKER_LIMIT
                page.put_mark(index, wire.MARK_REFUSED if begun else wire.MARK_NOT_BEGUN, code)
                if not is_request:
                    return signed, code
            except WrongSignature:
                page.put_mark(index, wire.MARK_INVALID)
                return signed, "WRONG_SIGNATURE"
    return signed, ""


def wants_pin(key: Any) -> bool:
    """Whether the key wants a login at each signature; a token that has no such attribute wants none."""
    try:
        return bool(key[Attribute.ALWAYS_AUTHENTICATE])
    except (AttributeTypeInvalid, AttributeSensitive):
        return False


def by_library(key: Any, algorithm: Algorithm, pin: str | None = None) -> Sign:
    """Signing by python-pkcs11; with a PIN, by a login for each signature."""
    words: dict[str, Any] = {"mechanism": Mechanism(CKM[algorithm.scheme])}
    if pin is not None:
        words["pin"] = pin
    if algorithm.scheme is Scheme.RSA_PSS:
        assert algorithm.hash is not None
        name = algorithm.hash.value
        words["mechanism_param"] = (Mechanism[name], MGF[name], DIGEST_BYTES[algorithm.hash])

    def sign(data: bytes, address: ctypes.c_void_p) -> int:
        try:
            signature = bytes(key.sign(data, **words))
        except _PIN_REFUSED as error:
            raise Refused(ckr(error), begun=False) from None
        except PKCS11Error as error:
            raise Refused(ckr(error)) from None
        if not 0 < len(signature) <= wire.SIGNATURE_BYTES_MAX:
            raise WrongSignature
        ctypes.memmove(address, signature, len(signature))
        return len(signature)

    return sign


def by_cryptography(algorithm: Algorithm, spki: bytes) -> libcrypto.Verifier:
    """Verifying where Python's OpenSSL cannot be used: slower, and imported only then, because of its size."""
    from cryptography.exceptions import InvalidSignature

    from pool.public import verifier

    verify = verifier(algorithm, spki)

    def check(item: bytes, signature: bytes) -> None:
        try:
            verify(item, signature)
        except InvalidSignature:
            raise WrongSignature from None

    return check


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    try:
        Worker(sock, mmap(int(sys.argv[2]), wire.PAGE_BYTES * wire.FRAMES_IN_FLIGHT)).serve()
    except MemoryError:
        os._exit(wire.EX_LIMIT)  # what an orderly end would want is memory


if __name__ == "__main__":
    main()
