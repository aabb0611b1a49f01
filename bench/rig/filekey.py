"""A key in a file with its chain, for peers that have no token."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.rig.pki import Pki


def file_key(directory: Path, pki: Pki) -> tuple[Path, Path, Path]:
    """(certificate file, issuer's file, key file) of a new RSA-2048 key."""
    key = rsa.generate_private_key(65537, 2048)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = directory / "file.key"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)
    return pki.signer("file-key", spki), pki.issuing, path
