"""
What signs checkpoints: a private key in a file, or one on a token.

A key on a token is there for an internal purpose. No caller can name it, no credential may have it, and all that it
signs is built by the daemon itself and begins with a word of its own (note.py). The pool gives such work its turn as
everybody's, under a name that no configured caller can have; each CHECKPOINT row says which token has signed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pool import REASONS, Pool, PoolError, Status
from pool import Key as PoolKey
from pool.public import KeyRefused, key_type, load_public_key, spki_of_pem
from signer.config import PEM_BYTES_MAX, ConfigError, Ledger
from signer.credential import Credential
from signer.note import ALGORITHMS

KEY_S = 30.0  # for one signature: a token that is busy or comes up
CALLER = "internal:checkpoint"  # in the pool's line; config.NAME has no colon

_HASHES = {"ECDSA-SHA256": hashes.SHA256(), "ECDSA-SHA384": hashes.SHA384(), "ECDSA-SHA512": hashes.SHA512()}


class Made(NamedTuple):
    signature: bytes
    token: str  # the one that made it; empty for a key in a file


class NotMade(Exception):
    """No token has signed; the message names the configured one, and says why."""


class Key(Protocol):
    """A checkpoint key."""

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""

    @property
    def algorithm(self) -> str:
        """One of signer.note.ALGORITHMS."""

    @property
    def on_token(self) -> PoolKey | None:
        """What the pool must know; None for a key in a file."""

    async def make(self, message: bytes) -> Made:
        """Sign a digest, or for Ed25519 the text itself. May raise whatever it likes."""


def of(ledger: Ledger, pool: Callable[[], Pool]) -> Key:
    """The configured key; raises `ConfigError`. `pool` is asked for when a key on a token is first used."""
    if ledger.checkpoint_token is None:
        return KeyFile.of(ledger)
    return KeyOnToken(_on_token(ledger), ledger.checkpoint_token, pool)


def spki_of(ledger: Ledger) -> bytes:
    """The public half of the configured key; raises `ConfigError`, `NoCredentials` where only systemd can read it."""
    return KeyFile.of(ledger).spki if ledger.checkpoint_token is None else _on_token(ledger).spki


def check_apart(spki: bytes, credentials: Iterable[Credential]) -> None:
    """Raise `ConfigError` where a credential has this key: what signs checkpoints signs nothing else."""
    same = sorted(credential.name for credential in credentials if credential.key.spki == spki)
    if same:
        said = f"credential {', '.join(same)} has the key that signs checkpoints, which signs nothing else"
        raise ConfigError(Path("ledger"), [f"{said}: make another for one of them"])


@dataclass(frozen=True, slots=True, repr=False)
class KeyFile:
    """A private key in a PEM file, used in this process: once a minute, 5 ms for RSA-4096, 50 us for the others."""

    spki: bytes
    algorithm: str
    _sign: Callable[[bytes], bytes]
    on_token: None = None

    @classmethod
    def of(cls, ledger: Ledger) -> "KeyFile":
        """Read the configured key; raises `ConfigError`."""
        where = ledger.checkpoint_key or f"the credential {ledger.checkpoint_key_credential}"
        try:
            key = load_pem_private_key(ledger.checkpoint_pem(), None)
            spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            load_public_key(spki)  # of a kind and length that notes are verified with
        except TypeError:
            said = "is encrypted; store it as it is, in a file of mode 0400 or a systemd credential"
        except KeyRefused as error:
            said = f"is of a kind that is not taken: {error}; `paraph audit keys DIRECTORY` makes one"
        except (ValueError, UnsupportedAlgorithm):
            said = "holds no private key in PEM; `paraph audit keys DIRECTORY` makes one"
        else:
            algorithm = _algorithm(spki)
            return cls(spki, algorithm, _signer(key, algorithm))
        raise ConfigError(Path("ledger"), [f"checkpoint_key: {where} {said}"])

    async def make(self, message: bytes) -> Made:
        return Made(self._sign(message), "")


@dataclass(frozen=True, slots=True)
class KeyOnToken:
    """A key on a configured token, and on each other that has the same: any of them signs."""

    on_token: PoolKey
    token: str  # the configured one
    pool: Callable[[], Pool]

    @property
    def spki(self) -> bytes:
        return self.on_token.spki

    @property
    def algorithm(self) -> str:
        return _algorithm(self.spki)

    async def make(self, message: bytes) -> Made:
        """
        No INTENT stands before it: of a checkpoint that was lost nothing is released, and the next one takes its place.
        An Ed25519 key gets the text itself, which is far below the pool's 4 096 bytes: it has one head.
        """
        try:
            algorithm = ALGORITHMS[self.algorithm]
            [outcome] = await self.pool().sign(
                self.on_token.ref, algorithm, [message], caller=CALLER, timeout_s=KEY_S
            )  # fmt: skip
        except PoolError as error:
            raise NotMade(f"token {self.token}: {error}") from None
        if outcome.status is not Status.SIGNED:
            said = outcome.detail or REASONS.get(outcome.reason, "")
            raise NotMade(f"token {outcome.token or self.token}: {outcome.reason}: {said}")
        return Made(outcome.signature, outcome.token)


def _on_token(ledger: Ledger) -> PoolKey:
    """Where it is, and what its public half must be; raises `ConfigError`."""
    path = ledger.checkpoint_public_key
    assert path is not None
    try:
        with path.open("rb") as file:
            return PoolKey(spki_of_pem(file.read(PEM_BYTES_MAX)), ledger.checkpoint_cka_id, ledger.checkpoint_key_label)
    except OSError as error:
        said = f"{path}: {error.strerror}"
    except KeyRefused as error:
        said = f"{path} is of a kind that is not taken: {error}"
    except ValueError:
        said = f"{path} holds no public key in PEM; read it from the token, whose private half does not leave it"
    raise ConfigError(Path("ledger"), [f"checkpoint_public_key: {said}"])


def _algorithm(spki: bytes) -> str:
    """What a key of this kind makes."""
    names = {"P-256": "ECDSA-SHA256", "P-384": "ECDSA-SHA384", "P-521": "ECDSA-SHA512", "Ed25519": "ED25519"}
    return names.get(key_type(spki), "RSA-SHA256")


def _signer(key: object, algorithm: str) -> Callable[[bytes], bytes]:
    if isinstance(key, rsa.RSAPrivateKey):
        sha256 = utils.Prehashed(hashes.SHA256())
        return lambda digest: key.sign(digest, padding.PKCS1v15(), sha256)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        ecdsa = ec.ECDSA(utils.Prehashed(_HASHES[algorithm]))
        return lambda digest: key.sign(digest, ecdsa)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign
