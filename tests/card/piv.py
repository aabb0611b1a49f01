"""
A PIV card (NIST SP 800-73-4, part 2): its keys, its PIN and PUK with their counters, and how it fails when told to.

What a card does is in `Card.transmit`: one command APDU in, one answer out, and the line that it leaves in `events`. The
card outlives its insertions, as a plastic one does: `reset` takes away what only a powered card has, its login.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

AID = bytes.fromhex("a000000308000010000100")  # the PIV application, SP 800-73-4, part 1, 2.2
PIN, PUK = "123456", "12345678"
PIN_REF, PUK_REF = 0x80, 0x81
_LENGTH = 8  # of a PIN and a PUK, filled up with FF
_SIGNATURE, _CARD_AUTHENTICATION = 0x9C, 0x9E  # wants its PIN each time; wants none

# Key reference -> the data object with its certificate (SP 800-73-4, part 1, table 3).
CERTIFICATES: Mapping[int, int] = {
    **dict(zip((0x9A, 0x9C, 0x9D, 0x9E), (0x5FC105, 0x5FC10A, 0x5FC10B, 0x5FC101), strict=True)),
    **{0x82 + n: 0x5FC10D + n for n in range(20)},
}
_RETIRED = range(0x82, 0x96)
# Algorithm identifier -> the keys it is for (SP 800-78-4, table 6-2).
ALGORITHMS: Mapping[int, str] = {
    0x06: "rsa1024",
    0x07: "rsa2048",
    0x05: "rsa3072",
    0x16: "rsa4096",
    0x11: "p256",
    0x14: "p384",
}
_HASHES = {kind.digest_size: kind for kind in (hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())}

OK = 0x9000
WRONG_LENGTH, NOT_VERIFIED, BLOCKED, NO_CONDITION = 0x6700, 0x6982, 0x6983, 0x6985
BAD_DATA, NOT_FOUND, BAD_P1_P2, NO_REFERENCE = 0x6A80, 0x6A82, 0x6A86, 0x6A88
NO_INSTRUCTION, NO_CLASS, INTERNAL = 0x6D00, 0x6E00, 0x6F00
TRIES_LEFT, MORE = 0x63C0, 0x6100

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Died(Exception):
    """The card has lost its power in the middle of a command: there is no answer."""


class _Status(Exception):
    def __init__(self, word: int) -> None:
        self.word = word


@dataclass(frozen=True, slots=True)
class Event:
    """One command that matters: 'verify' (with a PIN), 'ask' (whether one is needed), 'change', 'unblock', 'sign'."""

    at: float  # of the monotonic clock, seconds
    what: str
    reference: int  # of a key, or of PIN or PUK
    status: int  # the word that was answered; 0 where the card died
    data: bytes = b""  # of 'sign': what was signed, as the host padded it. Never a PIN.


class Card:
    """`add` gives it keys. Every attribute may be read and set at any time, from another thread too."""

    def __init__(self, pin: str = PIN, puk: str = PUK, *, tries: int = 3, guid: bytes | None = None) -> None:
        self.codes = {PIN_REF: pin.encode(), PUK_REF: puk.encode()}
        self.tries = {PIN_REF: tries, PUK_REF: tries}
        self.tries_max = tries
        self.guid = guid or secrets.token_bytes(16)  # OpenSC makes the token's serial of it
        self.keys: dict[int, Key] = {}
        self.certificates: dict[int, bytes] = {}
        self.events: list[Event] = []
        self.resets = 0
        # Faults: each signature takes longer; the next, or a PIN, is late; the next ones answer with these words; so many more
        # signatures, and the card dies in the last of them.
        self.latency_s = 0.0
        self.hang_s = 0.0
        self.words: list[int] = []
        self.dies_in = 0
        self.pulled = threading.Event()  # ends the wait of a card that was pulled
        self.reset()

    def __repr__(self) -> str:
        return f"Card({self.guid.hex()}, keys {', '.join(f'{slot:02X}' for slot in self.keys)})"

    # ---- what it has

    def add(self, reference: int, kind: str, name: str = "Virtual Card", key: Key | None = None) -> bytes:
        """Give it a key of a kind (`ALGORITHMS`), with a certificate of its own; answers the SubjectPublicKeyInfo."""
        key = key or make_key(kind)
        assert kind_of(key) == kind
        return self.put(reference, key, _certificate(key, name, is_signature=reference == _SIGNATURE))

    def put(self, reference: int, key: Key, certificate: bytes) -> bytes:
        """Give it a key with this certificate (DER)."""
        assert reference in CERTIFICATES
        self.keys[reference], self.certificates[reference] = key, certificate
        return self.spki(reference)

    def spki(self, reference: int) -> bytes:
        """The SubjectPublicKeyInfo (DER) of a key."""
        return self.keys[reference].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def serial(self) -> str:
        """The serial of the token that OpenSC makes of the card: the end of the GUID, as CK_TOKEN_INFO has room for it."""
        return self.guid.hex()[-16:]

    def seen(self, what: str) -> list[Event]:
        """The events of one kind, oldest first."""
        return [event for event in self.events if event.what == what]

    def unblock(self) -> None:
        """What no card can do: all its tries are back."""
        self.tries = dict.fromkeys(self.tries, self.tries_max)

    def reset(self) -> None:
        """Its power is gone, or its reader has reset it: nobody is logged in."""
        self.resets += 1
        self.is_selected = self.is_verified = self.is_fresh = False  # fresh: the PIN was the last command but reading
        self._chained = self._left = b""

    # ---- one command

    def transmit(self, command: bytes) -> bytes:
        """The answer to a command APDU. Raises `Died`."""
        try:
            return self._answer(command)
        except _Status as status:
            return status.word.to_bytes(2)
        except (ValueError, IndexError):
            return INTERNAL.to_bytes(2)

    def _answer(self, command: bytes) -> bytes:
        cla, ins, p1, p2, data, expected = _parse(command)
        if ins == 0xC0:
            return self._page(expected)
        self._left = b""
        if cla & 0xEF:
            raise _Status(NO_CLASS)
        if cla & 0x10:  # there is more to come of this command
            self._chained += data
            return OK.to_bytes(2)
        data, self._chained = self._chained + data, b""
        if ins != 0xA4 and not self.is_selected:
            raise _Status(NO_CONDITION)
        commands: dict[int, Callable[[int, int, bytes], bytes]] = {
            0xA4: self._select,
            0xCB: self._get_data,
            0x87: self._authenticate,
            0x20: self._verify,
            0x24: self._change,
            0x2C: self._unblock,
        }
        if ins not in commands:
            raise _Status(NO_INSTRUCTION)
        self.is_fresh = self.is_fresh and ins in {0xCB, 0x87}
        self._left = commands[ins](p1, p2, data)
        return self._page(expected)

    def _page(self, expected: int) -> bytes:
        """So much of the answer; the status says how much is left, 00 for 256 and more."""
        page, self._left = self._left[:expected], self._left[expected:]
        left = len(self._left)
        return page + ((MORE | (left if left < 256 else 0)) if left else OK).to_bytes(2)

    def _select(self, p1: int, _p2: int, data: bytes) -> bytes:
        if p1 != 4 or not data or not (AID.startswith(data) or data.startswith(AID[:9])):
            raise _Status(NOT_FOUND)
        if not self.is_selected:
            self.is_selected, self.is_verified = True, False
        return tlv(0x61, tlv(0x4F, AID[5:]) + tlv(0x79, tlv(0x4F, AID[:5])))

    def _get_data(self, p1: int, p2: int, data: bytes) -> bytes:
        if (p1, p2) != (0x3F, 0xFF):
            raise _Status(BAD_P1_P2)
        tag = int.from_bytes(read_tlv(data)[0x5C])
        if tag == 0x7E:  # discovery: the PIV PIN, and nothing else, is to be verified
            return tlv(0x7E, tlv(0x4F, AID) + tlv(0x5F2F, b"\x40\x00"))
        end = tlv(0xFE, b"")
        if tag == 0x5FC102:  # CHUID; a FASC-N of an issuer who is no federal agency, so that the GUID counts
            fasc_n = bytes.fromhex("d4e739da739ced39ce739d836858210842108421c84210c3eb")
            return tlv(0x53, tlv(0x30, fasc_n) + tlv(0x34, self.guid) + tlv(0x35, b"20991231") + tlv(0x3E, b"") + end)
        retired = [reference for reference in self.keys if reference in _RETIRED]
        if tag == 0x5FC10C and retired:  # how many of the retired keys have their certificate on the card
            return tlv(0x53, tlv(0xC1, bytes([len(retired)])) + tlv(0xC2, b"\0") + end)
        for reference, certificate in self.certificates.items():
            if CERTIFICATES[reference] == tag:
                return tlv(0x53, tlv(0x70, certificate) + tlv(0x71, b"\0") + end)
        raise _Status(NOT_FOUND)

    # ---- PIN and PUK

    def _verify(self, p1: int, reference: int, data: bytes) -> bytes:
        if reference != PIN_REF:
            raise _Status(NO_REFERENCE)
        if p1 == 0xFF:  # log out
            self.is_verified = False
            return b""
        if not data:
            with self._event("ask", reference):
                if not self.is_verified:
                    raise _Status(self._tries_left(reference))
            return b""
        if len(data) != _LENGTH:
            raise _Status(WRONG_LENGTH)
        with self._event("verify", reference):
            self._wait(0.0)
            self._check(reference, data)
        self.is_verified = self.is_fresh = True
        return b""

    def _change(self, _p1: int, reference: int, data: bytes) -> bytes:
        if reference not in self.codes:
            raise _Status(NO_REFERENCE)
        if len(data) != 2 * _LENGTH:
            raise _Status(WRONG_LENGTH)
        with self._event("change", reference):
            self._check(reference, data[:_LENGTH])
        self.codes[reference] = data[_LENGTH:].rstrip(b"\xff")
        return b""

    def _unblock(self, _p1: int, reference: int, data: bytes) -> bytes:
        if reference != PIN_REF:
            raise _Status(NO_REFERENCE)
        if len(data) != 2 * _LENGTH:
            raise _Status(WRONG_LENGTH)
        with self._event("unblock", PUK_REF):
            self._check(PUK_REF, data[:_LENGTH])
        self.codes[PIN_REF], self.tries[PIN_REF] = data[_LENGTH:].rstrip(b"\xff"), self.tries_max
        return b""

    def _check(self, reference: int, given: bytes) -> None:
        """A wrong code costs a try and the login; at none left the right one does not help either."""
        if not self.tries[reference]:
            raise _Status(BLOCKED)
        if given != self.codes[reference].ljust(_LENGTH, b"\xff"):
            self.tries[reference] -= 1
            self.is_verified = False
            raise _Status(self._tries_left(reference))
        self.tries[reference] = self.tries_max

    def _tries_left(self, reference: int) -> int:
        left = self.tries[reference]
        return TRIES_LEFT | left if left else BLOCKED

    # ---- signatures

    def _authenticate(self, algorithm: int, reference: int, data: bytes) -> bytes:
        """GENERAL AUTHENTICATE, which signs: what RSA keys get is padded by the host, what EC keys get is a digest."""
        is_fresh, self.is_fresh = self.is_fresh, False
        key, challenge = self.keys.get(reference), read_tlv(read_tlv(data).get(0x7C, b"")).get(0x81, b"")
        with self._event("sign", reference, challenge):
            if key is None or ALGORITHMS.get(algorithm) != kind_of(key):
                raise _Status(BAD_P1_P2)
            if reference != _CARD_AUTHENTICATION and not self.is_verified:
                raise _Status(NOT_VERIFIED)
            if reference == _SIGNATURE and not is_fresh:
                raise _Status(NOT_VERIFIED)
            self._fail_as_told()
            return tlv(0x7C, tlv(0x82, _sign(key, challenge)))

    def _fail_as_told(self) -> None:
        self._wait(self.latency_s)
        if self.dies_in:
            self.dies_in -= 1
            if not self.dies_in:
                raise Died
        if self.words:
            raise _Status(self.words.pop(0))

    def _wait(self, latency_s: float) -> None:
        wait_s, self.hang_s = latency_s + self.hang_s, 0.0
        if wait_s and self.pulled.wait(wait_s):
            raise Died

    @contextlib.contextmanager
    def _event(self, what: str, reference: int, data: bytes = b"") -> Iterator[None]:
        """Writes a command down with the status that the block ends with."""
        status = INTERNAL
        try:
            yield
            status = OK
        except _Status as error:
            status = error.word
            raise
        except Died:
            status = 0
            raise
        finally:
            self.events.append(Event(time.monotonic(), what, reference, status, data))


def _parse(command: bytes) -> tuple[int, int, int, int, bytes, int]:
    """CLA, INS, P1, P2, data, and how much is expected (ISO/IEC 7816-4, 5.1): short commands, longer ones are chained."""
    if len(command) < 4:
        raise _Status(WRONG_LENGTH)
    body, data, expected = command[4:], b"", 256
    if len(body) > 1:
        data, body = body[1 : 1 + body[0]], body[1 + body[0] :]
        if len(data) != command[4] or not data:
            raise _Status(WRONG_LENGTH)
    if body:
        expected = body[0] or 256
    return command[0], command[1], command[2], command[3], data, expected


def _sign(key: Key, challenge: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if len(challenge) not in _HASHES:
            raise _Status(BAD_DATA)
        return key.sign(challenge, ec.ECDSA(utils.Prehashed(_HASHES[len(challenge)])))
    numbers, size = key.private_numbers(), key.key_size // 8
    if len(challenge) != size:
        raise _Status(BAD_DATA)
    message = int.from_bytes(challenge)
    # By the Chinese remainder theorem (RFC 8017, 5.1.2): a quarter of the time.
    by_p, by_q = pow(message, numbers.dmp1, numbers.p), pow(message, numbers.dmq1, numbers.q)
    return (by_q + numbers.q * (numbers.iqmp * (by_p - by_q) % numbers.p)).to_bytes(size)


def tlv(tag: int, value: bytes) -> bytes:
    """BER-TLV, lengths up to 65535."""
    length = len(value)
    size = (
        bytes([length])
        if length < 0x80
        else b"\x81" + bytes([length])
        if length < 0x100
        else b"\x82" + length.to_bytes(2)
    )
    return tag.to_bytes((tag.bit_length() + 7) // 8) + size + value


def read_tlv(data: bytes) -> dict[int, bytes]:
    """The elements of one level, with tags of one byte, which is all that commands have."""
    found = {}
    while data:
        tag, length, data = data[0], data[1], data[2:]
        if length & 0x80:
            count = length & 0x7F
            length, data = int.from_bytes(data[:count]), data[count:]
        found[tag], data = data[:length], data[length:]
    return found


def make_key(kind: str) -> Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[kind])


def kind_of(key: Key) -> str:
    return f"{'rsa' if isinstance(key, rsa.RSAPrivateKey) else 'p'}{key.key_size}"


def _certificate(key: Key, name: str, *, is_signature: bool) -> bytes:
    """Its own issuer; the key usage is what makes OpenSC offer a key for signing."""
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=is_signature, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=3650))
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
