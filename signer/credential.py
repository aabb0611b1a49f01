"""
A credential: a certificate, where its key is on a token, and what may be made with it.

Rows in the store, changed only by commands and operators' calls; each change is recorded with who made it.
"""

import contextlib
import getpass
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, Engine, delete, func, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from pool import Algorithm, Hash, Key, Scheme
from pool.mechanism import EDDSA_MESSAGE_BYTES_MAX
from pool.public import algorithms, key_type, signature_bytes_max
from signer.clock import Clock, rfc3339
from signer.cms import Profile, Template
from signer.config import NAME
from signer.database import StoreError, Where
from signer.errors import Refusal
from signer.gate import FACTORS, LIFETIME_S_MAX, Bounds, Factor, Gate
from signer.limits import ANSWER_BYTES_MAX, DIGESTS_MAX
from signer.store import as_it_is, changes, credentials, reading, subjects

IN_FORCE = "credentials"  # in the state directory: the `fingerprint` of those that the daemon has put in force
# Whoever changes credentials in PostgreSQL has this advisory lock: what is judged is still so when it is written.
_LOCK = int.from_bytes(b"creds")
_ITEM_OVERHEAD_BYTES = 16  # protobuf's tags and lengths round a CMS in an answer


class Purpose(StrEnum):
    SIGNATURE = "SIGNATURE"  # keyUsage contentCommitment
    AUTHENTICATION = "AUTHENTICATION"  # never signs through the signing calls


class Output(StrEnum):
    RAW = "RAW"
    CADES_B_B = "CADES_B_B"
    PADES_B_B = "PADES_B_B"
    LOGIN = "LOGIN"  # a statement of the daemon's own (Authenticate); no request can name it

    @property
    def is_bare(self) -> bool:
        """Whether the digest is what the key signs."""
        return self in {Output.RAW, Output.LOGIN}


class State(StrEnum):
    PENDING = "PENDING"  # a person's, who is not enrolled yet
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


class CredentialError(ValueError):
    """What a command asked cannot be stored; the message says why."""


@dataclass(frozen=True)
class Credential:
    name: str
    purpose: Purpose
    certificates: tuple[bytes, ...]  # DER, the signer's first, then its issuers
    key: Key
    outputs: frozenset[Output]
    state: State = State.ACTIVE
    gate: Gate = Gate.CALLER
    subject: str = ""  # whose it is
    bounds: Bounds = field(default_factory=Bounds)
    _templates: dict[tuple[Algorithm, Profile], Template] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def x509(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.certificates[0])

    @cached_property
    def chain(self) -> bytes:
        """All certificates, one behind the other."""
        return b"".join(self.certificates)

    @cached_property
    def chain_hash(self) -> bytes:
        return hashlib.sha256(self.chain).digest()

    @property
    def key_type(self) -> str:
        return key_type(self.key.spki)

    def algorithms(self) -> tuple[Algorithm, ...]:
        return algorithms(self.key.spki)

    def check(self, now: datetime, purpose: Purpose = Purpose.SIGNATURE) -> None:
        """Raise `Refusal` unless the certificate may be used for this purpose now: state, usage, validity."""
        for_signatures, begin, end = self._limits
        if self.purpose is not purpose or for_signatures is not (purpose is Purpose.SIGNATURE):
            raise Refusal("CERT_USAGE")
        if self.state is State.PENDING:
            raise Refusal("CREDENTIAL_PENDING")
        if self.state is not State.ACTIVE:
            raise Refusal("CREDENTIAL_SUSPENDED")
        if now < begin:
            raise Refusal("CERT_NOT_YET_VALID", f"from {rfc3339(begin)}")
        if now >= end:
            raise Refusal("CERT_EXPIRED", f"on {rfc3339(end)}")

    @property
    def ends(self) -> datetime:
        """Of the certificate."""
        return self._limits[2]

    @cached_property
    def _limits(self) -> tuple[bool, datetime, datetime]:
        """What is asked of the certificate at every call, read from it once: its usage, beginning and end."""
        certificate = self.x509
        return _for_signatures(certificate), certificate.not_valid_before_utc, certificate.not_valid_after_utc

    def check_request(self, output: Output, algorithm: Algorithm) -> None:
        if output not in self.outputs and (output, self.purpose) != (Output.LOGIN, Purpose.AUTHENTICATION):
            raise Refusal("OUTPUT_NOT_ALLOWED", output)
        if algorithm not in self.algorithms():
            raise Refusal("ALGORITHM_NOT_ALLOWED", f"a {self.key_type} key makes no {algorithm}")

    def check_item(self, output: Output, algorithm: Algorithm, item: bytes, number: int) -> None:
        """Raise `Refusal` DIGEST_LENGTH for what no token would sign: a person is not asked for it."""
        exact = algorithm.item_bytes if output.is_bare else self.template(algorithm, Profile(output.value)).digest_bytes
        if len(item) != exact and (exact is not None or not 0 < len(item) <= EDDSA_MESSAGE_BYTES_MAX):
            wanted = f"{exact} bytes" if exact else f"1 to {EDDSA_MESSAGE_BYTES_MAX} bytes"
            raise Refusal("DIGEST_LENGTH", f"item {number} has {len(item)} bytes, {algorithm} takes {wanted}")

    def template(self, algorithm: Algorithm, profile: Profile) -> Template:
        """The CMS template for an algorithm and profile; made once."""
        known = self._templates.get((algorithm, profile))
        if known is None:
            known = self._templates[algorithm, profile] = Template(self.certificates, algorithm, profile)
        return known

    @cached_property
    def cms_bytes_max(self) -> int:
        """The longest CMS of this credential, whatever the algorithm."""
        return max(self.template(a, p).bytes_max for a in self.algorithms() for p in Profile)

    def answer_bytes_max(self, output: Output, count: int) -> int:
        """The longest answer with so many signatures or CMS of this credential."""
        item = signature_bytes_max(self.key.spki) if output.is_bare else self.cms_bytes_max
        return count * (item + _ITEM_OVERHEAD_BYTES) + len(self.certificates[0])

    def cms_digests_max(self) -> int:
        """How many CMS of this credential fit one answer."""
        return min(DIGESTS_MAX, ANSWER_BYTES_MAX // (self.cms_bytes_max + _ITEM_OVERHEAD_BYTES))


def algorithm_of(scheme: Scheme, digest: Hash) -> Algorithm:
    """The pool's algorithm for a request; Ed25519 hashes by itself and takes SHA-512 alone (RFC 8419, 3.1)."""
    if scheme is Scheme.ED25519:
        if digest is not Hash.SHA512:
            raise Refusal("ALGORITHM_NOT_ALLOWED", "ED25519 goes with SHA512")
        return Algorithm(scheme, None)
    return Algorithm(scheme, digest)


def _for_signatures(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.content_commitment


def read(engine: Engine) -> dict[str, Credential]:
    """All credentials, by name."""
    with reading(engine) as connection:
        return _stored(connection)


def _stored(connection: Connection) -> dict[str, Credential]:
    rows = connection.execute(select(credentials).order_by(credentials.c.name)).all()
    found = {}
    for row in rows:
        chain = _chain(row.certificates.encode())
        found[row.name] = Credential(
            row.name,
            Purpose(row.purpose),
            chain,
            Key(_spki(chain[0]), row.cka_id, row.key_label),
            frozenset(Output(word) for word in row.outputs.split()),
            State(row.state),
            Gate(row.gate),
            row.subject,
            Bounds(row.digests_max, row.lifetime_s, row.hours, bool(row.claimed)),
        )
    return found


def fingerprint(credentials: Mapping[str, Credential]) -> bytes:
    """Equal where all are: what the daemon has put in force is compared with what is stored."""
    parts = [
        (c.name, c.purpose, c.chain_hash, c.key.ref, c.key.cka_id, c.key.label, sorted(c.outputs), c.state, c.gate,
         c.subject, astuple(c.bounds))
        for c in credentials.values()
    ]  # fmt: skip
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest().encode()


def look(where: Where) -> dict[str, Credential]:
    """All credentials of a database that is only looked at; none where it is not there yet. Raises `StoreError`."""
    if isinstance(where, Path) and not where.exists():
        return {}
    engine = as_it_is(where)
    try:
        return read(engine) if inspect(engine).has_table(credentials.name) else {}
    except DBAPIError as error:
        raise StoreError(f"{where}: {' '.join(str(error.orig).split())}") from None
    finally:
        engine.dispose()


def add(
    engine: Engine,
    name: str,
    pem: bytes,
    *,
    cka_id: bytes | None,
    key_label: str | None,
    outputs: Sequence[Output],
    clock: Clock,
    gate: Gate = Gate.CALLER,
    subject: str = "",
    bounds: Bounds | None = None,
    who: str = "",
    reserved: bytes = b"",
) -> Credential:
    """
    Store a credential. Its purpose is the certificate's: contentCommitment signs, without it it authenticates. `reserved`
    is the public half of the key that signs checkpoints, which no credential may have.

    The same name with the same certificate, key, gate and subject changes only its outputs and bounds, not its state;
    with others it is refused. A person's begins PENDING, unless the person is enrolled. `who` is the operator; empty: the
    user who runs the command.
    """
    if not re.fullmatch(NAME, name):
        raise CredentialError("a credential's name has small letters, digits, '.', '_' and '-', at most 63")
    chain = _chain(pem)
    purpose = Purpose.SIGNATURE if _for_signatures(x509.load_der_x509_certificate(chain[0])) else Purpose.AUTHENTICATION
    if purpose is Purpose.AUTHENTICATION and outputs:
        raise CredentialError("the certificate has no keyUsage contentCommitment: it authenticates, and has no outputs")
    if purpose is Purpose.SIGNATURE and not outputs:
        raise CredentialError("it could make nothing: give it at least one output, RAW, CADES_B_B or PADES_B_B")
    try:
        key = Key(_spki(chain[0]), cka_id, key_label)
        Template(chain, algorithms(key.spki)[0], Profile.PADES_B_B)
    except ValueError as error:
        raise CredentialError(str(error)) from None
    if key.spki == reserved:
        raise CredentialError("its key signs the ledger's checkpoints, and nothing else: make another for it")
    if bool(FACTORS[gate]) != bool(subject):
        raise CredentialError(f"the gate {gate} goes {'with' if FACTORS[gate] else 'without'} a subject")
    bounds = bounds or Bounds()
    _check_bounds(bounds)
    new = Credential(name, purpose, chain, key, frozenset(outputs), State.PENDING, gate, subject, bounds)
    values = {
        "purpose": purpose.value,
        "certificates": pem.decode("ascii"),
        "cka_id": cka_id,
        "key_label": key_label,
        "outputs": " ".join(sorted(outputs)),
        "gate": gate.value,
        "subject": subject,
        "digests_max": bounds.digests_max,
        "lifetime_s": bounds.lifetime_s,
        "hours": bounds.hours,
        "claimed": int(bounds.claimed),
    }
    with _changing(engine) as connection:
        stored = _stored(connection)
        _check_against(stored, new)
        old = stored.get(name)
        new = replace(new, state=old.state if old else _first_state(connection, gate, subject))
        if new != old:
            statement = update(credentials).where(credentials.c.name == name) if old else insert(credentials)
            connection.execute(statement.values(name=name, state=new.state.value, **values))
            said = f"credential {name} {'changed' if old else 'added'}: {' '.join(sorted(outputs))}"
            _record(connection, clock, said, who)
    return new


@contextlib.contextmanager
def _changing(engine: Engine) -> Iterator[Connection]:
    """A transaction beside which nobody adds, changes or removes credentials."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        yield connection


def _check_against(stored: Mapping[str, Credential], new: Credential) -> None:
    """Raise `CredentialError` where it cannot stand beside what is stored, or in the place of what has its name."""
    mine = (new.gate, new.subject)
    for other in stored.values():
        if other.key.ref == new.key.ref and other.name != new.name and (other.gate, other.subject) != mine:
            raise CredentialError(
                f"its key is that of {other.name}, which has another gate or person: one key, one owner"
            )
    old = stored.get(new.name, new)
    if (old.certificates, old.key) != (new.certificates, new.key):
        raise CredentialError(
            f"{new.name} exists with another certificate or key; remove it first, or choose another name"
        )
    if (old.gate, old.subject) != mine:
        raise CredentialError(
            f"{new.name} exists with another gate or subject; remove it first, or choose another name"
        )


def _first_state(connection: Connection, gate: Gate, subject: str) -> State:
    """
    Of a new credential: a card's PIN is the card's own, everybody else's code is set by the person first. Until the end of
    the transaction the person stays what she is.
    """
    if Factor.CODE not in FACTORS[gate]:
        return State.ACTIVE
    asked = select(subjects.c.state).where(subjects.c.name == subject).with_for_update()
    found = connection.execute(asked).scalar_one_or_none()
    return State.ACTIVE if found == "ACTIVE" else State.PENDING


def _check_bounds(bounds: Bounds) -> None:
    if not 1 <= bounds.lifetime_s <= LIFETIME_S_MAX:
        raise CredentialError(f"an authorisation lives 1 to {LIFETIME_S_MAX} s")
    if not 0 <= bounds.digests_max <= DIGESTS_MAX:
        raise CredentialError(f"an authorisation is for at most {DIGESTS_MAX} digests")
    if bounds.hours and not re.fullmatch("([01][0-9]|2[0-3])-([01][0-9]|2[0-3])", bounds.hours):
        raise CredentialError("hours are two hours of the day, UTC, as 08-18: the second one is not included")


def check_active(connection: Connection, name: str) -> None:
    """As it is stored now; raises `Refusal`."""
    state = connection.execute(select(credentials.c.state).where(credentials.c.name == name)).scalar_one_or_none()
    if state != State.ACTIVE.value:
        raise Refusal("CREDENTIAL_PENDING" if state == State.PENDING.value else "CREDENTIAL_SUSPENDED")


def texts_of(connection: Connection, subject: str) -> list[str]:
    """Of this person's credentials: their names, and what their certificates say of her (RFC 5280, 4.1.2.6)."""
    columns = credentials.c.name, credentials.c.certificates
    found = []
    for name, pem in connection.execute(select(*columns).where(credentials.c.subject == subject)):
        certificate = x509.load_der_x509_certificate(_chain(pem.encode())[0])
        found += [name, *(str(one.value) for one in certificate.subject)]
    return found


def activate(connection: Connection, subject: str) -> None:
    """The person is enrolled."""
    mine = (credentials.c.subject == subject) & (credentials.c.state == State.PENDING.value)
    connection.execute(update(credentials).where(mine).values(state=State.ACTIVE.value))


def hold(connection: Connection, subject: str) -> None:
    """The person is to be enrolled again."""
    mine = (credentials.c.subject == subject) & (credentials.c.state == State.ACTIVE.value)
    mine &= credentials.c.gate != Gate.TOKEN_PIN.value
    connection.execute(update(credentials).where(mine).values(state=State.PENDING.value))


def remove(engine: Engine, name: str, clock: Clock) -> None:
    with _changing(engine) as connection:
        if not connection.execute(delete(credentials).where(credentials.c.name == name)).rowcount:
            raise CredentialError(f"there is no credential {name}")
        _record(connection, clock, f"credential {name} removed")


def set_state(engine: Engine, name: str, state: State, clock: Clock, who: str = "") -> None:
    """Suspend it, or take that back (ACTIVE): a person's is PENDING then, unless she is enrolled."""
    with _changing(engine) as connection:
        mine = select(credentials.c.gate, credentials.c.subject).where(credentials.c.name == name)
        found = connection.execute(mine).one_or_none()
        if found is None:
            raise CredentialError(f"there is no credential {name}")
        if state is not State.SUSPENDED:
            state = _first_state(connection, Gate(found.gate), found.subject)
        connection.execute(update(credentials).where(credentials.c.name == name).values(state=state.value))
        _record(connection, clock, f"credential {name} {state.value}", who)


def _record(connection: Connection, clock: Clock, what: str, who: str = "") -> None:
    connection.execute(insert(changes).values(time=rfc3339(clock.wall()), who=who or getpass.getuser(), what=what))


def _chain(pem: bytes) -> tuple[bytes, ...]:
    try:
        return tuple(c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise CredentialError(f"not a chain of PEM certificates: {error}") from None


def certificates_of(chain: bytes) -> list[bytes]:
    """The certificates that stand one behind the other: each says its own length (X.690, 8.1.3.5)."""
    found, start = [], 0
    while start < len(chain):
        octets = chain[start + 1] & 0x7F  # a certificate is longer than 127 bytes
        length = 2 + octets + int.from_bytes(chain[start + 2 : start + 2 + octets], "big")
        found.append(chain[start : start + length])
        start += length
    return found


def _spki(der: bytes) -> bytes:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
