"""
How strong the keys and hashes of certificates have to be: nobody has them within 2^128 tries (NIST SP 800-57 part 1, 5.6.1.1).

One table for all that people come with, whatever the way. An operator whose CA still issues shorter RSA keys goes down for
these alone, to 112 bits (`trust.rsa_bits_min`).
"""

from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

# Kind of key -> what it is called, and how many bits it has to have. A kind that is not here is none that anybody may have.
_KEYS: Mapping[type, tuple[str, int]] = {
    rsa.RSAPublicKey: ("RSA", 3072),
    ec.EllipticCurvePublicKey: ("elliptic curve", 256),
    ed25519.Ed25519PublicKey: ("Ed25519", 256),
    ed448.Ed448PublicKey: ("Ed448", 456),
}
RSA_BITS_MIN = _KEYS[rsa.RSAPublicKey][1]
RSA_BITS_LEAST = 2048  # that a setting may go down to: 112 bits of security, and 80 with the next length that there was
HASH_BITS_MIN = 256  # of a certificate's or a list's signature: two contents with one hash are found in half the bits


def fault_of_key(certificate: x509.Certificate, rsa_bits_min: int = RSA_BITS_MIN) -> str:
    """For operators, of a key that is too short: 'an RSA key of 2048 bits, less than 3072'; empty for one that is not."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "a key that cannot be read"
    for kind, (name, least) in _KEYS.items():
        if isinstance(key, kind):
            bits = getattr(key, "key_size", least)  # the Edwards curves have one length each
            wanted = rsa_bits_min if kind is rsa.RSAPublicKey else least
            return "" if bits >= wanted else f"an {name} key of {bits} bits, less than {wanted}"
    return "a key that is neither RSA nor of an elliptic curve"


def is_hash_short(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Of what a CA has signed. Ed25519 and Ed448 have a hash of their own. Raises `UnsupportedAlgorithm`."""
    found = signed.signature_hash_algorithm
    return found is not None and found.digest_size * 8 < HASH_BITS_MIN
