"""
Verifying in a lane, by the OpenSSL that Python's own `_hashlib` is linked with: EVP_PKEY_verify(3) with a kept context.

Measured beside `cryptography`, which brings another copy of OpenSSL: 12 us less for a P-256 signature, because SoftHSM,
most modules and Python share this one copy, whose code and tables stay in the processor's cache; and 17 MB less in each
lane. Where Python was built so that its OpenSSL cannot be reached, or with one older than 3.0, `verifier` answers None.
"""

import _hashlib
import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from pool.mechanism import DIGEST_BYTES, Algorithm, Hash, Scheme, WrongSignature

_INT, _SIZE, _POINTER, _BYTES = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
# openssl/evp.h, rsa.h, err.h, x509.h of 3.0: name -> result, arguments.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "d2i_PUBKEY": (_POINTER, _POINTER, _POINTER, ctypes.c_long),
    "ERR_clear_error": (None,),
    "EVP_DigestVerify": (_INT, _POINTER, _BYTES, _SIZE, _BYTES, _SIZE),
    "EVP_DigestVerifyInit": (_INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    "EVP_MD_CTX_new": (_POINTER,),
    "EVP_MD_CTX_reset": (_INT, _POINTER),
    "EVP_get_digestbyname": (_POINTER, _BYTES),
    "EVP_PKEY_get_size": (_INT, _POINTER),
    "EVP_PKEY_CTX_new": (_POINTER, _POINTER, _POINTER),
    "EVP_PKEY_CTX_set_rsa_mgf1_md": (_INT, _POINTER, _POINTER),
    "EVP_PKEY_CTX_set_rsa_padding": (_INT, _POINTER, _INT),
    "EVP_PKEY_CTX_set_rsa_pss_saltlen": (_INT, _POINTER, _INT),
    "EVP_PKEY_CTX_set_signature_md": (_INT, _POINTER, _POINTER),
    "EVP_PKEY_verify": (_INT,),  # converting its arguments costs a microsecond a call: it is given C's own values
    "EVP_PKEY_verify_init": (_INT, _POINTER),
}
_RSA_PKCS1_PADDING, _RSA_PKCS1_PSS_PADDING = 1, 6

Verifier = Callable[[bytes, bytes], None]


class NotUsable(Exception):
    """OpenSSL does not take this key or algorithm; the caller verifies in another way."""


class OpenSsl:
    """The functions by their own names. They keep the interpreter's lock: a lane has one thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where a function is missing."""
        for name, (result, *arguments) in _FUNCTIONS.items():
            address = ctypes.cast(getattr(library, name), _POINTER).value or 0
            setattr(self, name, ctypes.PYFUNCTYPE(result, *arguments)(address))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@cache
def _openssl() -> OpenSsl | None:
    try:
        return OpenSsl(ctypes.CDLL(_hashlib.__file__))  # the loader looks into what it is linked with, too
    except (AttributeError, OSError):  # built into the interpreter, without symbols, or older than 3.0
        return None


def verifier(algorithm: Algorithm, spki: bytes) -> Verifier | None:
    """
    For items and signatures in the world's form: raises `WrongSignature` unless the signature is the key's over the
    item, by the same rules as `public.verifier`. None where OpenSSL cannot be used.
    """
    openssl = _openssl()
    if openssl is None:
        return None
    try:
        key = _key(openssl, spki)
        return _of_message(openssl, key) if algorithm.hash is None else _of_digest(openssl, key, algorithm)
    except NotUsable:
        openssl.ERR_clear_error()
        return None


def _key(openssl: OpenSsl, spki: bytes) -> int:
    """An EVP_PKEY; it lives as long as the process, as its lane's keys do."""
    buffer = ctypes.create_string_buffer(spki)
    return _some(openssl.d2i_PUBKEY(None, ctypes.byref(ctypes.c_void_p(ctypes.addressof(buffer))), len(spki)))


def _of_digest(openssl: OpenSsl, key: int, algorithm: Algorithm) -> Verifier:
    assert algorithm.hash is not None
    context = _some(openssl.EVP_PKEY_CTX_new(key, None))
    digest = _digest(openssl, algorithm.hash)
    _good(openssl.EVP_PKEY_verify_init(context))
    if algorithm.scheme is Scheme.RSA_PSS:
        _good(openssl.EVP_PKEY_CTX_set_rsa_padding(context, _RSA_PKCS1_PSS_PADDING))
        _good(openssl.EVP_PKEY_CTX_set_rsa_mgf1_md(context, digest))
        _good(openssl.EVP_PKEY_CTX_set_rsa_pss_saltlen(context, DIGEST_BYTES[algorithm.hash]))
    elif algorithm.scheme is Scheme.RSA_PKCS1_V15:
        _good(openssl.EVP_PKEY_CTX_set_rsa_padding(context, _RSA_PKCS1_PADDING))
    _good(openssl.EVP_PKEY_CTX_set_signature_md(context, digest))
    evp_pkey_verify, clear = openssl.EVP_PKEY_verify, openssl.ERR_clear_error
    is_rsa, key_bytes = algorithm.scheme is not Scheme.ECDSA, openssl.EVP_PKEY_get_size(key)
    # The lengths of signature and item, as C sees them; a view is the quickest way to write them.
    at_context, lengths = ctypes.c_void_p(context), (_SIZE * 2)()
    length = memoryview(lengths).cast("B").cast("L")  # size_t is an unsigned long on Linux
    signature_bytes, item_bytes = (_SIZE.from_buffer(lengths, place * ctypes.sizeof(_SIZE)) for place in range(2))

    def verify(item: bytes, signature: bytes) -> None:
        if is_rsa and len(signature) != key_bytes:  # RFC 8017, 8.1.2 and 8.2.2, step 1; OpenSSL takes a shorter PSS
            raise WrongSignature
        length[0], length[1] = len(signature), len(item)
        if evp_pkey_verify(at_context, signature, signature_bytes, item, item_bytes) != 1:
            clear()  # what it left there would be taken for the module's
            raise WrongSignature

    return verify


def _of_message(openssl: OpenSsl, key: int) -> Verifier:
    """Ed25519: one call for the whole message, and a context that is made ready for each (EVP_DigestVerify(3))."""
    context = _some(openssl.EVP_MD_CTX_new())

    def verify(item: bytes, signature: bytes) -> None:
        openssl.EVP_MD_CTX_reset(context)
        good = openssl.EVP_DigestVerifyInit(context, None, None, None, key) == 1
        if not good or openssl.EVP_DigestVerify(context, signature, len(signature), item, len(item)) != 1:
            openssl.ERR_clear_error()
            raise WrongSignature

    return verify


def _digest(openssl: OpenSsl, hash_: Hash) -> int:
    return _some(openssl.EVP_get_digestbyname(hash_.value.encode()))


def _some(pointer: int | None) -> int:
    if not pointer:
        raise NotUsable
    return pointer


def _good(answer: int) -> None:
    if answer <= 0:
        raise NotUsable
