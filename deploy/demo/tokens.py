"""
Makes the demo's three tokens and their keys in a SoftHSM store, and prints the public keys as JSON.

    python deploy/demo/tokens.py DIRECTORY

It asks the tokens what they have and makes only what is missing, so it may be run again and again. PINs are random and
lie in DIRECTORY/pins, readable by their owner alone; nobody keeps the security officers' PINs. It is run as a process
of its own, because a PKCS#11 module has no place in the process that talks to people or to the network.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
    Path("/usr/lib/pkcs11/libsofthsm2.so"),
)
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
ED25519_OID = bytes.fromhex("06032b6570")  # 1.3.101.112 in DER, what CKA_EC_PARAMS wants (RFC 8410, 3)

# (name in the configuration, label on the token), then its keys: (CKA_LABEL, kind). The CKA_ID is the place in this
# list, so that every key has its own.
TOKENS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("card", "Paraph demo Smartcard"): (
        ("ana-rsa-2048", "RSA-2048"),
        ("ana-p-256", "P-256"),
        ("ana-login", "RSA-3072"),
    ),
    ("stick", "Paraph demo Stick"): (
        ("bo-rsa-3072", "RSA-3072"),
        ("bo-p-384", "P-384"),
        ("bo-login", "P-256"),
    ),
    ("server", "Paraph demo Server"): (
        ("seal-rsa-4096", "RSA-4096"),
        ("cleo-p-521", "P-521"),
        ("cleo-ed25519", "Ed25519"),
        ("cleo-login", "RSA-3072"),
    ),
}


class Store:
    """The SoftHSM store in a directory, and the PINs beside it."""

    def __init__(self, directory: Path) -> None:
        self._pins = directory / "pins"
        tokens = directory / "softhsm" / "tokens"
        for path in (self._pins, tokens):
            path.mkdir(parents=True, exist_ok=True)
        conf = directory / "softhsm" / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        # Before the module is loaded: it reads the variable then, and only then.
        os.environ["SOFTHSM2_CONF"] = str(conf)
        self.module = next((path for path in MODULES if path.exists()), None)
        if self.module is None or shutil.which("softhsm2-util") is None:
            sys.exit("SoftHSM is not installed; `make demo` installs it where apt-get is")
        self._library = pkcs11.lib(str(self.module))

    def open(self, name: str, label: str) -> pkcs11.Session:
        """A session, logged in; the token is made when it is not there, or when nobody knows its PIN any more."""
        pin = self._pins / f"{name}.pin"
        if pin.exists():
            try:
                return self._library.get_token(token_label=label).open(rw=True, user_pin=pin.read_text().strip())
            except pkcs11.NoSuchToken:
                pass
            except (pkcs11.PinIncorrect, pkcs11.exceptions.UserPinNotInitialized):
                say(f"{label}: its PIN is not the one in {pin}; it is made anew")
        self._remove(label)
        return self._make(label, pin)

    def _make(self, label: str, path: Path) -> pkcs11.Session:
        # A command line can be read by others while it runs: the PIN in it lives for the next two lines only.
        first, pin = secrets.token_hex(8), secrets.token_hex(8)
        _util("--init-token", "--free", "--label", label, "--pin", first, "--so-pin", secrets.token_hex(8))
        path.unlink(missing_ok=True)
        path.write_text(pin + "\n")
        path.chmod(0o400)
        self._library.reinitialize()  # the list of slots is made when a module is initialised
        session = self._library.get_token(token_label=label).open(rw=True, user_pin=first)
        session.set_pin(first, pin)
        return session

    def _remove(self, label: str) -> None:
        if any(token.label == label for token in self._library.get_tokens()):
            _util("--delete-token", "--token", label)
            self._library.reinitialize()


def _util(*arguments: str) -> None:
    done = subprocess.run(["softhsm2-util", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"softhsm2-util {arguments[0]}: {(done.stderr or done.stdout).strip()}")


def public_key(session: pkcs11.Session, label: str) -> pkcs11.PublicKey | None:
    """The public half of a key whose private half is there too; halves that an interrupted run left are destroyed."""
    found = {
        what: list(session.get_objects({Attribute.CLASS: what, Attribute.LABEL: label}))
        for what in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
    }
    if all(len(halves) == 1 for halves in found.values()):
        return found[ObjectClass.PUBLIC_KEY][0]
    for half in chain.from_iterable(found.values()):
        half.destroy()
    return None


def generate(session: pkcs11.Session, kind: str, label: str, cka_id: bytes) -> pkcs11.PublicKey:
    where: dict[str, Any] = {
        "id": cka_id,
        "label": label,
        "store": True,
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,  # a key that signs decrypts nothing
    }
    if kind.startswith("RSA-"):
        return session.generate_keypair(KeyType.RSA, int(kind.removeprefix("RSA-")), **where)[0]
    if kind == "Ed25519":
        domain = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519_OID}, local=True)
        return domain.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **where)[0]
    parameters = encode_named_curve_parameters(CURVES[kind].name)
    domain = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: parameters}, local=True)
    return domain.generate_keypair(**where)[0]


def spki(kind: str, public: pkcs11.PublicKey) -> bytes:
    """A token's public key as a DER SubjectPublicKeyInfo."""
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    if kind.startswith("RSA-"):
        exponent, modulus = (int.from_bytes(public[a]) for a in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    else:
        octets = public[Attribute.EC_POINT]  # the point within a DER OCTET STRING
        point = octets[3:] if octets[1] == 0x81 else octets[2:]
        if kind == "Ed25519":
            key = ed25519.Ed25519PublicKey.from_public_bytes(point)
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[kind], point)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(directory: Path) -> None:
    os.umask(0o077)
    store = Store(directory)
    number, total, keys = 0, sum(map(len, TOKENS.values())), []
    for (name, label), wanted in TOKENS.items():
        with store.open(name, label) as session:
            for key_label, kind in wanted:
                number += 1
                public = public_key(session, key_label)
                if public is None:
                    say(f"{number}/{total} {label}: generating {kind}")
                    public = generate(session, kind, key_label, bytes((0xD0, number)))
                keys.append(
                    {
                        "token": name,
                        "kind": kind,
                        "label": key_label,
                        "id": public[Attribute.ID].hex(),
                        "spki": spki(kind, public).hex(),
                    }
                )
    json.dump({"module": str(store.module), "keys": keys}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/demo/tokens.py DIRECTORY")
    main(Path(sys.argv[1]).absolute())
