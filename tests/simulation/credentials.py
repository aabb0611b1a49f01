"""Whose keys there are, and the daemon's database with the people in it."""

import functools
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert

from signer.clock import Clock as SignerClock
from signer.credential import Credential, Output, Purpose, State
from signer.gate import Bounds, Gate
from signer.store import credentials, open_store, subjects
from tests.simulation import keys

_ZERO = datetime(2020, 1, 1, tzinfo=UTC)


class WallClock(SignerClock):
    def wall(self) -> datetime:
        return datetime.fromtimestamp(int(time.time()), UTC)


class NothingRevoked:
    """Stands for signer.revocation: no list is configured."""

    def check_chain(self, *_: Any) -> None:
        pass


@functools.cache
def certificate(name: str) -> bytes:
    """Of a key that is played: signed by itself."""
    private = keys.private(name)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(*(index == 1 for index in range(9)))  # contentCommitment
    made = x509.CertificateBuilder(who, who, private.public_key(), 1, _ZERO, _ZERO + timedelta(days=36_500))
    return made.add_extension(usage, critical=True).sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


def credential(name: str, gate: Gate, subject: str, lifetime_s: int = 120) -> Credential:
    bounds = Bounds(lifetime_s=lifetime_s, claimed=True)
    outputs = frozenset({Output.RAW})
    who = (gate, subject, bounds)
    return Credential(name, Purpose.SIGNATURE, (certificate(name),), keys.key(name), outputs, State.ACTIVE, *who)


CREDENTIALS = {
    "seal": credential("seal", Gate.CALLER, ""),
    "stamp": credential("stamp", Gate.CALLER, ""),
    "ada": credential("ada", Gate.CODE_TOTP, "ada", 4),
    "eve": credential("eve", Gate.TOKEN_PIN, "eve"),
}


@functools.cache
def store() -> bytes:
    """The daemon's database as it is before the first start, with the people in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "paraph.sqlite"
        engine = open_store(path)
        with engine.begin() as connection:
            for one in CREDENTIALS.values():
                row = {"name": one.name, "purpose": "SIGNATURE", "certificates": "", "outputs": "RAW"}
                connection.execute(
                    insert(credentials).values(**row, state="ACTIVE", gate=one.gate, subject=one.subject)
                )
            row = {"contact_kind": "webhook", "contact": "", "language": "en", "code": "", "factor": "totp"}
            connection.execute(insert(subjects).values(name="ada", state="ACTIVE", seed=b"", last=0, **row))
        engine.dispose()
        return path.read_bytes()
