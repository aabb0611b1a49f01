"""
Tokens for tests: a SoftHSM store in a directory of its own.

    store = Store(tmp_path / "store")
    store.token("card", pin="1234")
    keys = store.keys("card", ["RSA-2048", "P-256"])     # kind -> (CKA_ID, SubjectPublicKeyInfo)

No PKCS#11 module is ever loaded into the process that runs the tests: keys are made by a child, which is gone when the
call returns. To use a store as another user, put it where that user can get at, and call `give_to`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = ("RSA-2048", "RSA-3072", "RSA-4096", "P-256", "P-384", "P-521", "Ed25519")
PIN = "1234"
SO_PIN = "87654321"


def found(name: str) -> Path:
    """A PKCS#11 module by its path under a library directory; where it is missing, where Debian would have it."""
    places = [
        Path("/usr/lib"),
        *(Path("/usr/lib", f"{cpu}-linux-gnu") for cpu in ("x86_64", "aarch64")),
        Path("/usr/lib64"),
    ]
    paths = [place / name for place in places]
    return next((path for path in paths if path.exists()), paths[1])


MODULE = next(
    (path for path in (found("softhsm/libsofthsm2.so"), found("pkcs11/libsofthsm2.so")) if path.exists()),
    Path("/usr/lib/softhsm/libsofthsm2.so"),
)

# Reads its orders from stdin, so that no PIN stands in a command line.
_GENERATE = """
import json, sys
import pkcs11
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

NAMES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

def point(public):
    value = public[Attribute.EC_POINT]  # an OCTET STRING: tag, length, content
    return value[3:] if value[1] == 0x81 else value[2:]

def generate(session, kind, cka_id, label, private):
    where = {"id": cka_id, "label": label, "store": True, "private_template": private}
    if kind.startswith("RSA-"):
        public, _ = session.generate_keypair(KeyType.RSA, int(kind[4:]), **where)
        exponent, modulus = (int.from_bytes(public[a]) for a in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if kind == "Ed25519":
        curve = {Attribute.EC_PARAMS: bytes.fromhex("06032b6570")}
        public, _ = session.create_domain_parameters(KeyType.EC_EDWARDS, curve, local=True).generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **where)
        return ed25519.Ed25519PublicKey.from_public_bytes(point(public))
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(NAMES[kind])}
    public, _ = session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(**where)
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[kind], point(public))

order = json.load(sys.stdin)
if "token_serial" in order["token"]:
    order["token"]["token_serial"] = order["token"]["token_serial"].encode()
token = pkcs11.lib(order["module"]).get_token(**order["token"])
made = {}
private = {Attribute.ALWAYS_AUTHENTICATE: True} if order["pin_each_time"] else {}
with token.open(user_pin=order["pin"], rw=True) as session:
    for kind, cka_id, label in order["keys"]:
        public = generate(session, kind, bytes.fromhex(cka_id), label, private)
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        made[len(made) if order["each"] else kind] = [cka_id, der.hex()]
json.dump(made, sys.stdout)
"""

# What was made in this run, to be copied where the same is made in another store: the files of tokens without keys, and
# those that keys add. Without this a token and its key take two processes and an eighth of a second.
_TOKENS: dict[tuple[str, str], tuple[str, dict[str, bytes]]] = {}  # by label and PIN; with the directory's name
_KEYS: dict[tuple[Any, ...], tuple[dict[str, bytes], dict[str, tuple[bytes, bytes]]]] = {}


class Store:
    """One SoftHSM token directory with its own configuration file; `environment` points a process at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._tokens = directory / "tokens"
        self._tokens.mkdir(parents=True)
        conf = directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self._tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        for path, mode in ((directory, 0o755), (self._tokens, 0o755), (conf, 0o644)):
            path.chmod(mode)
        self.environment = {"SOFTHSM2_CONF": str(conf)}
        self._pins: dict[str, str] = {}
        self._serials: dict[str, str] = {}
        self._directories: dict[str, Path] = {}
        self._last_id = 0
        self._copies: set[str] = set()  # labels of tokens that are as in `_TOKENS`, and have no key
        self.made: dict[str, dict[str, tuple[bytes, bytes]]] = {}  # by token label, what `keys` has answered

    def token(self, label: str, pin: str = PIN) -> str:
        """Make a token; returns its serial. Of several with one label, the other methods mean the last made."""
        is_first = label not in self._pins  # another one of this label must have another serial
        if is_first and (label, pin) in _TOKENS:
            name, files = _TOKENS[label, pin]
            made = self._tokens / name
            made.mkdir(mode=0o700)
            _write(made, files)
        else:
            before = set(self._tokens.iterdir())
            self._util("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN)
            (made,) = set(self._tokens.iterdir()) - before
            if is_first:
                _TOKENS[label, pin] = made.name, _read(made)
        (self._copies.add if is_first else self._copies.discard)(label)
        self._pins[label] = pin
        self._directories[label] = made
        # SoftHSM names the directory by a UUID that ends with the serial.
        self._serials[label] = made.name.replace("-", "")[-16:]
        return self._serials[label]

    def keys(
        self, label: str, kinds: Sequence[str], names: Sequence[str] | None = None, *, pin_each_time: bool = False
    ) -> dict[str, tuple[bytes, bytes]]:
        """
        Generate a key pair of each kind, CKA_LABEL the kind (or its name in `names`), every CKA_ID its own; with
        `pin_each_time` they are CKA_ALWAYS_AUTHENTICATE.

        Returns kind -> (CKA_ID, DER SubjectPublicKeyInfo).
        """
        wanted = [(kind, self._next_id().hex(), name) for kind, name in zip(kinds, names or kinds, strict=True)]
        same = (label, self._pins[label], pin_each_time, *wanted) if label in self._copies else None
        self._copies.discard(label)
        if same in _KEYS:
            files, pairs = _KEYS[same]
            _write(self._directories[label], files)
        else:
            pairs = self._generate(label, wanted, pin_each_time=pin_each_time)
            if same is not None:
                # The token's own object counts its logins: it is no part of what the keys add.
                files = _read(self._directories[label])
                _KEYS[same] = {name: content for name, content in files.items() if name != "token.object"}, pairs
        self.made.setdefault(label, {}).update(pairs)
        return pairs

    def each(self, label: str, kind: str, names: Sequence[tuple[bytes, str]]) -> list[bytes]:
        """Many of one kind, by CKA_ID and label; the DER SubjectPublicKeyInfo of each."""
        self._copies.discard(label)
        wanted = [(kind, cka_id.hex(), name) for cka_id, name in names]
        token = {"token_serial": self._serials[label]}
        made = generate(MODULE, self.environment, token, self._pins[label], wanted, each=True)
        return [spki for _, spki in made.values()]

    def _generate(
        self, label: str, wanted: list[tuple[str, str, str]], *, pin_each_time: bool
    ) -> dict[str, tuple[bytes, bytes]]:
        token = {"token_serial": self._serials[label]}
        return generate(MODULE, self.environment, token, self._pins[label], wanted, pin_each_time=pin_each_time)

    def add(self, label: str, pkcs8: Path, name: str) -> bytes:
        """Put the key pair of a PKCS#8 PEM file on the token, CKA_LABEL `name`; returns the CKA_ID."""
        cka_id = self._next_id()
        self._copies.discard(label)
        self._util(
            "--import", str(pkcs8), "--token", label, "--label", name, "--id", cka_id.hex(), "--pin", self._pins[label]
        )  # fmt: skip
        return cka_id

    def public_half(self, label: str, name: str) -> Path:
        """The file of the public half of the key with this CKA_LABEL, where that stands in clear."""
        objects = self._directories[label].glob("*.object")
        return next(path for path in objects if name.encode() in path.read_bytes())

    def copy_to(self, other: "Store") -> None:
        """Put the same tokens, with their keys, into another store: quicker than making them."""
        for label, directory in self._directories.items():
            other._directories[label] = other._tokens / directory.name
            shutil.copytree(directory, other._directories[label])
            other.made[label] = dict(self.made.get(label, {}))
        other._pins |= self._pins
        other._serials |= self._serials
        other._last_id = max(other._last_id, self._last_id)

    def take_out(self, label: str) -> None:
        """The token is gone, as a card pulled from its reader."""
        directory = self._directories[label]
        directory.rename(self.directory / directory.name)

    def put_in(self, label: str) -> None:
        """The token that was taken out is back."""
        directory = self._directories[label]
        (self.directory / directory.name).rename(directory)

    def own_object(self, label: str) -> bytes:
        """What `mend` is given: the token's own object, whose size never changes."""
        return (self._directories[label] / "token.object").read_bytes()

    def mend(self, label: str, own_object: bytes) -> None:
        """
        Put the token's own object back where a process was killed while it wrote it: SoftHSM empties the file first, at each
        C_Login, and a token without it is none. A real token does not go with its host.
        """
        path = self._directories[label] / "token.object"
        if path.stat().st_size != len(own_object):
            path.write_bytes(own_object)

    def remove(self, label: str) -> None:
        shutil.rmtree(self._directories.pop(label))

    def give_to(self, uid: int, gid: int) -> None:
        """Make everything that is in the store another user's."""
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, uid, gid)

    def _next_id(self) -> bytes:
        self._last_id += 1
        return b"\xa0" + self._last_id.to_bytes(2)

    def _util(self, *args: str) -> None:
        done = subprocess.run(
            ["softhsm2-util", *args], env=os.environ | self.environment, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"softhsm2-util {args[0]}: {done.stdout.strip()}")


def generate(
    module: Path,
    environment: Mapping[str, str],
    token: Mapping[str, str],
    pin: str,
    keys: Sequence[tuple[str, str, str]],
    *,
    pin_each_time: bool = False,
    each: bool = False,
) -> dict[str, tuple[bytes, bytes]]:
    """
    Key pairs on a token of any module: of each kind, with a CKA_ID in hex and a label; kind (with `each` the number) ->
    (CKA_ID, DER SubjectPublicKeyInfo). `token` is what python-pkcs11 finds it by: `token_label`, `token_serial`.
    """
    order = {
        "module": str(module), "token": dict(token), "pin": pin, "keys": keys, "pin_each_time": pin_each_time, "each": each,
    }  # fmt: skip
    made = subprocess.run(
        [sys.executable, "-c", _GENERATE],
        input=json.dumps(order), env=os.environ | environment, check=False, text=True, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"no keys on {token}: {made.stderr.strip()}")
    return {kind: (bytes.fromhex(i), bytes.fromhex(spki)) for kind, (i, spki) in json.loads(made.stdout).items()}


def _read(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def _write(directory: Path, files: dict[str, bytes]) -> None:
    """With the modes that SoftHSM gives them."""
    for name, content in files.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)
