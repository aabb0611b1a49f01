"""
A SoftHSM store of the bench's own: tokens with an RSA-2048 and a P-256 key each, or with keys of other kinds.

The module is never loaded into the bench's process: `python -m bench.rig.softhsm` makes the keys and is gone.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PIN = "1234"
SO_PIN = "87654321"
KINDS = {"RSA-2048": "rsa", "P-256": "ec"}  # and what `limit` calls them
MORE_KINDS = {"RSA-4096": "rsa", "P-384": "ec", "P-521": "ec", "Ed25519": "ed"}
_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
_SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)


class NotInstalled(RuntimeError):
    """Something of the system is missing; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Key:
    label: str
    spki: bytes
    spki_file: Path


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its keys, and what a process needs to use it."""

    label: str
    module: Path
    pin_file: Path
    environment: dict[str, str]
    keys: dict[str, Key]


def key_label(token: str, kind: str) -> str:
    """CKA_LABEL and credential at once: 'verified.rsa-2048'. No two tokens share one."""
    return f"{token}.{kind.lower()}"


class Store:
    def __init__(self, directory: Path) -> None:
        found = next((path for path in map(Path, _PLACES) if path.exists()), None)
        if found is None or shutil.which("softhsm2-util") is None:
            raise NotInstalled("SoftHSM is missing; on Debian: apt-get install softhsm2")
        self.module = found
        self._directory = directory
        (directory / "tokens").mkdir(parents=True)
        conf = directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(conf)}
        self.pin_file = directory / "pin"
        self.pin_file.write_text(PIN)
        self.pin_file.chmod(0o400)

    def tokens(self, *labels: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Token]:
        """New tokens with a key of each kind, labelled with it."""
        for label in labels:
            self.util("--init-token", "--free", "--label", label, "--so-pin", SO_PIN)
        environment = os.environ | self.environment
        order = json.dumps({"module": str(self.module), "pin": PIN, "tokens": labels, "kinds": kinds})
        command = [sys.executable, "-m", "bench.rig.softhsm"]
        made = subprocess.run(command, input=order.encode(), env=environment, check=True, stdout=subprocess.PIPE)
        return [self._token(label, keys) for label, keys in json.loads(made.stdout).items()]

    def more(self, label: str) -> Token:
        """A new token with a key of each of `MORE_KINDS`, made here and imported."""
        self.util("--init-token", "--free", "--label", label, "--so-pin", SO_PIN)
        made = {}
        for number, (kind, private) in enumerate(_more().items(), 1):
            pkcs8 = self._directory / f"{label}.{kind}.key"
            pkcs8.write_bytes(private.private_bytes(*_PKCS8))
            self.util("--import", pkcs8, "--token", label, "--label", key_label(label, kind), "--id", f"{number:04x}")
            made[kind] = private.public_key().public_bytes(*_SPKI).hex()
        return self._token(label, made)

    def util(self, *words: object) -> None:
        """softhsm2-util with the user's PIN."""
        command = ["softhsm2-util", *(str(word) for word in words), "--pin", PIN]
        subprocess.run(command, env=os.environ | self.environment, check=True, stdout=subprocess.DEVNULL)

    def _token(self, label: str, made: dict[str, str]) -> Token:
        keys = {}
        for kind, der in made.items():
            path = self._directory / f"{label}.{kind}.spki"
            path.write_bytes(bytes.fromhex(der))
            keys[kind] = Key(key_label(label, kind), bytes.fromhex(der), path)
        return Token(label, self.module, self.pin_file, dict(self.environment), keys)


def cards(directory: Path, count: int) -> list[Token]:
    """So many tokens with one and the same RSA-2048 key, as cards issued for one purpose: each in a store of its own."""
    private = rsa.generate_private_key(65537, 2048)
    directory.mkdir(parents=True)
    pkcs8, path, label = directory / "card.key", directory / "card.spki", key_label("card", "RSA-2048")
    pkcs8.write_bytes(private.private_bytes(*_PKCS8))
    spki = private.public_key().public_bytes(*_SPKI)
    path.write_bytes(spki)
    made = []
    for number in range(count):
        store, name = Store(directory / str(number)), f"card{number}"
        store.util("--init-token", "--free", "--label", name, "--so-pin", SO_PIN)
        store.util("--import", pkcs8, "--token", name, "--label", label, "--id", "a001")
        key = {"RSA-2048": Key(label, spki, path)}
        made.append(Token(name, store.module, store.pin_file, dict(store.environment), key))
    return made


def _more() -> dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]:
    return {
        "RSA-4096": rsa.generate_private_key(65537, 4096),
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "P-521": ec.generate_private_key(ec.SECP521R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


def _generate(order: dict[str, object]) -> dict[str, dict[str, str]]:
    """Make the keys, in a process that ends with it."""
    import pkcs11
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    lib = pkcs11.lib(str(order["module"]))
    kinds, labels = order["kinds"], order["tokens"]
    assert isinstance(kinds, list)
    assert isinstance(labels, list)
    made: dict[str, dict[str, str]] = {}
    number = 0
    for label in labels:
        made[label] = {}
        with lib.get_token(token_label=label).open(user_pin=str(order["pin"]), rw=True) as session:
            for kind in kinds:
                number += 1
                where = {"id": number.to_bytes(2), "label": key_label(label, kind), "store": True}
                key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
                if kind == "RSA-2048":
                    public, _ = session.generate_keypair(KeyType.RSA, 2048, **where)
                    numbers = (int.from_bytes(public[a]) for a in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
                    key = rsa.RSAPublicNumbers(*numbers).public_key()
                else:
                    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
                    parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
                    public, _ = parameters.generate_keypair(**where)
                    point = public[Attribute.EC_POINT][2:]  # an OCTET STRING round the point
                    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
                made[label][kind] = key.public_bytes(*_SPKI).hex()
    return made


if __name__ == "__main__":
    json.dump(_generate(json.load(sys.stdin)), sys.stdout)
