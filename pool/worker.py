"""
The child end of a lane: opens one token, logs in, and signs frames until it is told to stop or its parent is gone.

Started as `python -I -m pool.worker SOCKET PAGES` (two inherited descriptors), never by fork: PKCS#11 modules do not
survive it (OASIS PKCS#11 usage guide, 2.5.2). Exactly one thread calls C_*: python-pkcs11 initialises modules as
single-threaded. Nothing is read from standard input or written to standard output, which belong to the module's noise.
Only this file and `probe.py` import pkcs11.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import load_der_x509_certificate
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass, TokenFlag
from pkcs11.exceptions import (
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    SlotIDInvalid,
    TokenNotPresent,
    TokenNotRecognised,
)

from pool import wire
from pool.child import harden, open_socket
from pool.codes import Meaning, meaning, name_of
from pool.cryptoki import Refused, Signer, direct
from pool.mechanism import CKM, DIGEST_BYTES, Algorithm, Hash, Scheme, from_token, to_token, verifier

PUBLIC_KEYS_MAX = (
    200  # a packet holds them; listed when no key is asked for by name; an HSM with more must name its keys
)
_CURVES: dict[bytes, ec.EllipticCurve] = {  # CKA_EC_PARAMS is the DER of the curve's OID (PKCS#11 v3.1, 6.3.3)
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
_PIN_REFUSED = (PinIncorrect, PinInvalid, PinLocked, PinLenRange, PinExpired)
_NOT_THERE = (NoSuchToken, TokenNotPresent, TokenNotRecognised, SlotIDInvalid)


def ckr(error: Exception) -> str:
    """The PKCS#11 name of python-pkcs11's exception: 'DeviceRemoved' is CKR_DEVICE_REMOVED; some it tells by number."""
    if not isinstance(error, PKCS11Error):
        return type(error).__name__
    unmapped = re.fullmatch(r"Unmapped error code (0x[0-9a-f]+)", str(error))
    if unmapped:
        return name_of(int(unmapped[1], 16))
    return "CKR_" + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(error).__name__).upper()


def tokens(lib: Any) -> Iterator[Any]:
    """Every token of a module; a reader that vanishes meanwhile hides itself and nobody else."""
    for slot in lib.get_slots():
        try:
            yield slot.get_token()
        except _NOT_THERE:
            continue


def text(value: Any) -> str:
    """A serial or label as PKCS#11 pads it, for people and comparisons."""
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()


def flags(token: Any) -> list[bool]:
    """The token's words about its PIN: count low, final try, locked."""
    known = (TokenFlag.USER_PIN_COUNT_LOW, TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED)
    return [bool(token.flags & flag) for flag in known]


def spki_of(public: Any) -> bytes | None:
    """The SubjectPublicKeyInfo of a public key object; None for a kind that is not signed with."""
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    if public.key_type == KeyType.RSA:
        exponent, modulus = (int.from_bytes(public[a]) for a in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    elif public.key_type == KeyType.EC and public[Attribute.EC_PARAMS] in _CURVES:
        curve = _CURVES[public[Attribute.EC_PARAMS]]
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(public[Attribute.EC_POINT]))
    elif public.key_type == KeyType.EC_EDWARDS and len(_point(public[Attribute.EC_POINT])) == 32:
        key = ed25519.Ed25519PublicKey.from_public_bytes(_point(public[Attribute.EC_POINT]))
    else:
        return None
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _point(value: bytes) -> bytes:
    """CKA_EC_POINT is an OCTET STRING round the point (PKCS#11 v3.1, 6.3.3); some tokens leave the wrapping out."""
    if value[:1] == b"\x04" and len(value) > 2:
        header = 3 if value[1] == 0x81 else 2
        length = value[2] if header == 3 else value[1]
        if len(value) == header + length:
            return value[header:]
    return value


def publics(session: Any, cka_id: bytes | None = None, label: str | None = None) -> Iterator[tuple[bytes, str, bytes]]:
    """(CKA_ID, label, SPKI) of the public halves that can be seen without a login: key objects, then certificates."""
    where: dict[Attribute, Any] = {}
    if cka_id is not None:
        where[Attribute.ID] = cka_id
    if label is not None:
        where[Attribute.LABEL] = label
    for found in session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **where}):
        spki = spki_of(found)
        if spki is not None:
            yield found.id, found.label, spki
    where.pop(Attribute.LABEL, None)  # certificates carry their own labels; they belong to a key by CKA_ID
    if cka_id is not None or label is None:
        for found in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE, **where}):
            try:
                public = load_der_x509_certificate(found[Attribute.VALUE]).public_key()
            except (ValueError, UnsupportedAlgorithm):
                continue  # somebody's, and nothing to sign with
            spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            yield found[Attribute.ID], label or "", spki


class Worker:
    """One token, one session, one frame at a time."""

    def __init__(self, sock: Any, memory: mmap) -> None:
        self._sock = sock
        self._pages = [wire.Page(memory, number) for number in range(wire.FRAMES_IN_FLIGHT)]
        self._lib: Any = None
        self._token: Any = None
        self._session: Any = None
        self._keys: dict[str, tuple[Any, bytes]] = {}
        self._verify = True
        self._module = ""
        self._signer: Signer = by_library

    def serve(self) -> None:
        """Answer messages until told to stop, until the parent is gone, or until the session is lost."""
        handlers = {
            "open": self._open,
            "login": self._login,
            "keys": self._find_keys,
            "frame": self._frame,
            "ping": self._ping,
        }
        while packet := self._sock.recv(wire.PACKET_BYTES_MAX):
            message = wire.unpack(packet)
            if message["t"] == "stop":
                break
            answer = handlers[message["t"]](message)
            self._sock.send(wire.pack(answer))
            if answer.get("lost"):
                break
        self._leave()

    def _open(self, message: dict[str, Any]) -> dict[str, Any]:
        """Load the module, find the token, and list its public keys: all that can be done without a PIN."""
        self._verify, self._module = message["verify"], message["module"]
        try:
            self._lib = pkcs11.lib(message["module"])
            found = [t for t in tokens(self._lib) if text(t.label) == message["label"]]
            if message["serial"] is not None:
                named = [t for t in found if text(t.serial) == message["serial"]]
                if found and not named:
                    return {"t": "failed", "why": "changed", "detail": f"serial {text(found[0].serial)}"}
                found = named
            if len(found) != 1:
                why = "absent" if not found else "ambiguous"
                return {"t": "failed", "why": why, "detail": f"{len(found)} tokens have this label and serial"}
            self._token = found[0]
            # A serial of zeros names nothing (TPM, NSS): there every public key is part of the token's identity.
            seen = self._see(message["keys"] if text(self._token.serial).strip("0") else None)
        except _NOT_THERE as error:
            return {"t": "failed", "why": "absent", "detail": ckr(error)}
        except PKCS11Error as error:
            return {"t": "failed", "why": "error", "detail": f"{ckr(error)} {error}".strip()}
        return {
            "t": "opened",
            "serial": text(self._token.serial),
            "model": f"{text(self._token.manufacturer_id)} {text(self._token.model)}",
            "login": bool(self._token.flags & TokenFlag.LOGIN_REQUIRED),
            "flags": flags(self._token),
            "publics": seen,
        }

    def _see(self, wanted: list[tuple[bytes | None, str | None]] | None) -> list[tuple[bytes, str, bytes]]:
        """The public halves of the wanted keys, or of all of them where none is named."""
        session = self._token.open()
        try:
            if wanted is None:
                return [row for row, _ in zip(publics(session), range(PUBLIC_KEYS_MAX), strict=False)]
            return [row for cka_id, label in wanted for row in publics(session, cka_id, label)]
        finally:
            session.close()

    def _login(self, message: dict[str, Any]) -> dict[str, Any]:
        """
        Log in, once. Any answer but CKR_OK ends this process: python-pkcs11 leaks a session for each refused PIN, and
        CKR_USER_ALREADY_LOGGED_IN would mean that the PIN was not looked at.
        """
        try:
            self._session = self._token.open(user_pin=message.pop("pin"))
        except _PIN_REFUSED as error:
            return {"t": "refused", "detail": ckr(error)}
        except PKCS11Error as error:
            return {"t": "failed", "why": "error", "detail": ckr(error)}
        straight = direct(self._module, self._session)
        self._signer = straight or by_library
        return {"t": "logged-in", "direct": straight is not None}

    def _find_keys(self, message: dict[str, Any]) -> dict[str, Any]:
        """Find the private halves. A key is taken only where exactly one object answers."""
        problems = {}
        for ref, cka_id, label, spki in message["keys"]:
            try:
                key = self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=cka_id, label=label)
                self._keys[ref] = (key, spki)
            except PKCS11Error as error:
                problems[ref] = ckr(error)
        return {"t": "keys", "found": list(self._keys), "problems": problems}

    def _ping(self, _message: dict[str, Any]) -> dict[str, Any]:
        """Whether the token is still there, without a PIN and without a signature."""
        try:
            self._token.slot.get_token()
        except PKCS11Error as error:
            return {"t": "pong", "lost": ckr(error)}
        return {"t": "pong", "lost": ""}

    def _frame(self, message: dict[str, Any]) -> dict[str, Any]:
        key, spki = self._keys[message["key"]]
        algorithm = Algorithm(Scheme(message["scheme"]), Hash(message["hash"]) if message["hash"] else None)
        page = self._pages[message["page"]]
        kind = _Kind(
            page,
            to_token(algorithm, spki),
            self._signer(key, algorithm),
            algorithm,
            verifier(algorithm, spki) if self._verify else None,
        )
        began = time.monotonic_ns()
        signed, lost, index = 0, "", 0
        for count, deadline in message["runs"]:
            for item in message["items"][index : index + count]:
                if not lost:
                    problem = kind.item(index, item, deadline)
                    if problem is None:
                        signed += 1
                    else:
                        lost = problem
                index += 1
        page.end()
        return {"t": "done", "n": message["n"], "ns": time.monotonic_ns() - began, "signed": signed, "lost": lost}

    def _leave(self) -> None:
        """Log out and finalise, so that the next process finds the token as it should be."""
        if self._session is not None:
            self._session.close()
        if self._lib is not None:
            self._lib.finalize()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is the same for all items of a frame, looked up once."""

    page: wire.Page
    to_input: Callable[[bytes], bytes]
    sign: Callable[[bytes], bytes]
    algorithm: Algorithm
    check: Callable[[bytes, bytes], None] | None

    def item(self, index: int, item: bytes, deadline: int) -> str | None:
        """Sign and verify one item; None when it is in its slot, else what the session is lost by ('': it is not)."""
        page = self.page
        if not page.begin(index):
            page.put_mark(index, wire.MARK_SKIPPED)
            return ""
        if time.monotonic_ns() >= deadline:
            page.put_mark(index, wire.MARK_EXPIRED)
            return ""
        try:
            raw = self.sign(self.to_input(item))
        except Refused as refused:
            page.put_mark(index, wire.MARK_REFUSED if refused.begun else wire.MARK_NOT_BEGUN, refused.code)
            return "" if meaning(refused.code, begun=refused.begun) is Meaning.REQUEST else refused.code
        try:
            signature = from_token(self.algorithm, raw)
            if self.check is not None:
                self.check(item, signature)
            page.put(index, signature)
        except (InvalidSignature, ValueError):
            page.put_mark(index, wire.MARK_INVALID)
            return "WRONG_SIGNATURE"
        return None


def by_library(key: Any, algorithm: Algorithm) -> Callable[[bytes], bytes]:
    """Signing by python-pkcs11."""
    words: dict[str, Any] = {"mechanism": Mechanism(CKM[algorithm.scheme])}
    if algorithm.scheme is Scheme.RSA_PSS:
        assert algorithm.hash is not None
        name = algorithm.hash.value
        words["mechanism_param"] = (Mechanism[name], MGF[name], DIGEST_BYTES[algorithm.hash])

    def sign(data: bytes) -> bytes:
        try:
            return bytes(key.sign(data, **words))
        except PKCS11Error as error:
            raise Refused(ckr(error)) from None

    return sign


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    Worker(sock, mmap(int(sys.argv[2]), wire.PAGE_BYTES * wire.FRAMES_IN_FLIGHT)).serve()


if __name__ == "__main__":
    main()
