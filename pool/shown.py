"""
What a token shows without a login: itself, and the public halves of its keys.

asn1crypto reads and writes the few structures; python-pkcs11 has loaded it already, and a library for keys would make
each lane 17 MB larger.
"""

import contextlib
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
from asn1crypto.x509 import Certificate
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag
from pkcs11._pkcs11 import SearchIter, Session  # type: ignore[attr-defined]  # its stubs lack them
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    AttributeValueInvalid,
    NoSuchToken,
    PKCS11Error,
    SlotIDInvalid,
    TokenNotPresent,
    TokenNotRecognised,
)

from pool.codes import name_of
from pool.cryptoki import overlook_slots
from pool.wire import Name

PUBLIC_KEYS_MAX = 200  # listed where no key is asked for by name: an HSM with more must name its keys
PUBLICS_BYTES_MAX = 128 * 1024  # ... and of these as many as a packet holds beside the rest (wire.PACKET_BYTES_MAX)
ROW_BYTES_MAX = 16 * 1024  # of one, with its names: somebody's label may be as long as it likes
SEARCHES_MAX = 32  # names that are searched for one by one
LISTING_PAUSE_S = 0.1  # several readers go at once when a hub is pulled
NOT_THERE = (NoSuchToken, TokenNotPresent, TokenNotRecognised, SlotIDInvalid)
# Of one object: it lacks an attribute, does not show it, or has it in a form that python-pkcs11 does not know, as a key type
# of the vendor's. Any other error is the token's or the session's: a key that is passed over because of one would make the
# token look like another one (tries.TokenIdentity).
_UNREADABLE = (AttributeTypeInvalid, AttributeSensitive, AttributeValueInvalid, ValueError, struct.error)
Row = tuple[bytes, str, bytes]  # of a public key: CKA_ID, label, SPKI
# CKA_EC_PARAMS is the DER of the curve's OID (PKCS#11 v3.1, 6.3.3): the head of its SubjectPublicKeyInfo (RFC 5480, 2),
# up to an uncompressed point of so many bytes.
_CURVES: Mapping[bytes, tuple[bytes, int]] = {
    bytes.fromhex("06082a8648ce3d030107"): (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), 65),
    bytes.fromhex("06052b81040022"): (bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"), 97),
    bytes.fromhex("06052b81040023"): (bytes.fromhex("30819b301006072a8648ce3d020106052b8104002303818600"), 133),
}
_ED25519, _ED25519_BYTES = bytes.fromhex("302a300506032b6570032100"), 32  # RFC 8410, 4


def ckr(error: Exception) -> str:
    """The PKCS#11 name of python-pkcs11's exception: 'DeviceRemoved' is CKR_DEVICE_REMOVED; some it tells by number."""
    if not isinstance(error, PKCS11Error):
        return type(error).__name__
    unmapped = re.fullmatch(r"Unmapped error code (0x[0-9a-f]+)", str(error))
    if unmapped:
        return name_of(int(unmapped[1], 16))
    return "CKR_" + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(error).__name__).upper()


def tokens(lib: Any) -> Iterator[Any]:
    """Every token of a module; a reader that vanishes meanwhile, or fails, hides itself and nobody else."""
    for slot in _slots(lib):
        try:
            yield slot.get_token()
        except PKCS11Error:
            continue


def _slots(lib: Any) -> list[Any]:
    """
    Every slot, once. python-pkcs11 reads as many as a first call has counted, whatever the second one answers: where
    slots have vanished in between, that is memory nobody wrote to, and mostly an error. So it is done again, and then
    without the readers that are empty, one of which may answer nothing but errors; at last with those that have a token,
    and of which the module can say nothing else.
    """
    for present in (False, False, True):
        with contextlib.suppress(PKCS11Error):
            return list({slot.slot_id: slot for slot in lib.get_slots(token_present=present)}.values())
        time.sleep(LISTING_PAUSE_S)
    if (module := getattr(lib, "so", None)) is not None:  # not where none is wanted (fake.py)
        overlook_slots(module)
    return list({slot.slot_id: slot for slot in lib.get_slots(token_present=True)}.values())


def text(value: Any) -> str:
    """A serial or label as PKCS#11 pads it, for people and comparisons."""
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()


def flags(token: Any) -> list[bool]:
    """The token's words about its PIN: count low, final try, locked."""
    known = (TokenFlag.USER_PIN_COUNT_LOW, TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED)
    return [bool(token.flags & flag) for flag in known]


def spki_of(public: Any) -> bytes | None:
    """The DER SubjectPublicKeyInfo of a public key object; None for a kind that is not signed with."""
    if public.key_type == KeyType.RSA:
        return spki_of_values(KeyType.RSA, public[Attribute.MODULUS], public[Attribute.PUBLIC_EXPONENT])
    if public.key_type == KeyType.EC:
        return spki_of_values(KeyType.EC, params=public[Attribute.EC_PARAMS], point=public[Attribute.EC_POINT])
    if public.key_type == KeyType.EC_EDWARDS:
        return spki_of_values(KeyType.EC_EDWARDS, point=public[Attribute.EC_POINT])
    return None


def spki_of_values(
    kind: int, modulus: bytes = b"", exponent: bytes = b"", params: bytes = b"", point: bytes = b""
) -> bytes | None:
    """The same of the values of its attributes: CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_EC_PARAMS, CKA_EC_POINT."""
    if kind == KeyType.RSA:
        numbers = {"modulus": int.from_bytes(modulus), "public_exponent": int.from_bytes(exponent)}
        spki: bytes = PublicKeyInfo.wrap(RSAPublicKey(numbers), "rsa").dump()
        return spki
    if kind == KeyType.EC and params in _CURVES:
        head, length = _CURVES[params]
        point = _point(point, length)
        return head + point if len(point) == length else None
    if kind == KeyType.EC_EDWARDS:
        point = _point(point, _ED25519_BYTES)
        return _ED25519 + point if len(point) == _ED25519_BYTES else None
    return None


def _point(value: bytes, length: int) -> bytes:
    """
    CKA_EC_POINT is an OCTET STRING round the point (PKCS#11 v3.1, 6.3.3); some tokens leave the wrapping out, and then
    one point in 256 looks as if it had one: its length says.
    """
    if len(value) == length:
        return value
    if value[:1] == b"\x04" and len(value) > 2:
        header = 3 if value[1] == 0x81 else 2
        inside = value[2] if header == 3 else value[1]
        if len(value) == header + inside:
            return value[header:]
    return value


def some(session: Any) -> list[Row]:
    """The public halves of the first keys: as many as a packet holds."""
    found: list[Row] = []
    size = 0
    for row in islice(publics(session), PUBLIC_KEYS_MAX):
        size += _bytes(row)
        if size > PUBLICS_BYTES_MAX:
            break
        found.append(row)
    return found


def _bytes(row: Row) -> int:
    cka_id, label, spki = row
    return len(cka_id) + len(label.encode()) + len(spki) + 16  # what a message has around it


def publics(session: Any, cka_id: bytes | None = None, label: str | None = None) -> Iterator[Row]:
    """The public halves that can be seen without a login: key objects, then certificates."""
    where: dict[Attribute, Any] = {}
    if cka_id is not None:
        where[Attribute.ID] = cka_id
    if label is not None:
        where[Attribute.LABEL] = label
    for found in _objects(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, **where}):
        try:
            spki = spki_of(found)
            if spki is None:
                continue
            row = found.id, _label(found), spki
        except _UNREADABLE:
            continue  # somebody's, and nothing to sign with
        if _bytes(row) <= ROW_BYTES_MAX:
            yield row
    where.pop(Attribute.LABEL, None)  # certificates carry their own labels; they belong to a key by CKA_ID
    if cka_id is not None or label is None:
        for found in _objects(session, {Attribute.CLASS: ObjectClass.CERTIFICATE, **where}):
            try:
                spki = Certificate.load(found[Attribute.VALUE]).public_key.dump()
                row = found[Attribute.ID], label or "", spki
            except (*_UNREADABLE, TypeError):
                continue
            if _bytes(row) <= ROW_BYTES_MAX:
                yield row


def named(session: Any, names: Sequence[Name]) -> Iterator[Row]:
    """
    The same of each of these. A name costs the token two searches, which a software token makes through all its objects:
    for many names all are read once instead.
    """
    if len(names) <= SEARCHES_MAX:
        for cka_id, label in names:
            yield from publics(session, cka_id, label)
        return
    wanted = set(names)
    ids = {cka_id for cka_id, _ in names if cka_id is not None}
    for row in publics(session):
        cka_id, label, _ = row
        # A certificate has no label here, and belongs to a key by CKA_ID.
        if not wanted.isdisjoint({(cka_id, label), (cka_id, None), (None, label)}) or (not label and cka_id in ids):
            yield row


def privates(session: Any) -> Iterator[tuple[bytes, str, Any]]:
    """Every private key that the session shows: (CKA_ID, label, object)."""
    for found in _objects(session, {Attribute.CLASS: ObjectClass.PRIVATE_KEY}):
        try:
            row = found.id, _label(found), found
        except _UNREADABLE:
            continue
        yield row


def _objects(session: Any, where: Mapping[Attribute, Any]) -> Iterator[Any]:
    """
    As `session.get_objects`, which gives up its search over an object that cannot be read: here each is asked for alone,
    and such a one passed over.
    """
    if not isinstance(session, Session):  # where no module is wanted (fake.py)
        yield from session.get_objects(where)
        return
    with SearchIter(session, where, 1) as search:
        for batch in search:
            try:
                found = next(batch)
            except _UNREADABLE:
                continue
            yield found


def _label(public: Any) -> str:
    """CKA_LABEL, which should be UTF-8 (PKCS#11 v3.1, 4.4), and is not where a tool has written Latin-1."""
    try:
        label: str = public.label
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "replace")
    return label
