"""Credentials as rows: what can be added, that each change is recorded, and whose file it is."""

import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, event, select, text

from signer import credential as rows
from signer.clock import Clock
from signer.credential import CredentialError, Output, State
from signer.database import StoreError, Where
from signer.gate import Gate
from signer.store import VERSION, changes, open_store
from tests.pki import Pki
from tests.postgres import Postgres


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_store(tmp_path / "state" / "paraph.sqlite")
    yield made
    made.dispose()


def spki(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


@pytest.fixture(scope="module")
def chain(pki: Pki) -> bytes:
    return pki.signer("Clerk", spki(ec.generate_private_key(ec.SECP256R1())))


def add(engine: Engine, pem: bytes, name: str = "clerk", **more: Any) -> rows.Credential:
    given: dict[str, Any] = {"cka_id": None, "key_label": "key", "outputs": [Output.RAW], "clock": Clock()} | more
    return rows.add(engine, name, pem, **given)


def recorded(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(changes.c.what).order_by(changes.c.id)).scalars())


def test_added_once(engine: Engine, chain: bytes) -> None:
    """The same credential added again changes nothing, and records nothing."""
    added = add(engine, chain)
    assert rows.read(engine) == {"clerk": added} == {"clerk": add(engine, chain)}
    assert recorded(engine) == ["credential clerk added: RAW"]


def test_outputs_may_change(engine: Engine, chain: bytes) -> None:
    """The same name, certificate and key with other outputs changes the outputs, and is recorded."""
    add(engine, chain)
    changed = add(engine, chain, outputs=[Output.PADES_B_B, Output.CADES_B_B])
    assert rows.read(engine)["clerk"] == changed
    assert recorded(engine)[1:] == ["credential clerk changed: CADES_B_B PADES_B_B"]


def test_suspended_stays_suspended(engine: Engine, chain: bytes) -> None:
    """Adding a suspended credential again, with the same or other outputs, does not resume it: only resume does."""
    add(engine, chain)
    rows.set_state(engine, "clerk", State.SUSPENDED, Clock())
    assert add(engine, chain).state is State.SUSPENDED
    add(engine, chain, outputs=[Output.CADES_B_B])
    assert rows.read(engine)["clerk"].state is State.SUSPENDED
    rows.set_state(engine, "clerk", State.ACTIVE, Clock())
    assert rows.read(engine)["clerk"].state is State.ACTIVE
    assert [line.split()[-1] for line in recorded(engine)] == ["RAW", "SUSPENDED", "CADES_B_B", "ACTIVE"]


def test_conflict(engine: Engine, chain: bytes, pki: Pki) -> None:
    """The same name with another certificate or another place of the key is refused, and nothing is changed."""
    before = add(engine, chain)
    other = pki.signer("Clerk", spki(ec.generate_private_key(ec.SECP256R1())))
    for change in ({"pem": other}, {"key_label": "other"}, {"cka_id": b"\x01"}):
        with pytest.raises(CredentialError, match="clerk exists with another certificate or key"):
            add(engine, **({"pem": chain} | change))  # type: ignore[arg-type]
    assert rows.read(engine) == {"clerk": before}
    assert len(recorded(engine)) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_key_for_two_at_one_time(request: pytest.FixtureRequest, tmp_path: Path, chain: bytes, kind: str) -> None:
    """
    One key, stored as a seal and as a person's: what comes while the other is judged waits for it, and is refused. So does a
    resumption while the credential is removed: nothing is recorded of what is not there.
    """
    where: Where = tmp_path / "paraph.sqlite"
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        where = server.create("one key")
    one, other = open_store(where), open_store(where)
    try:
        with ThreadPoolExecutor(1) as beside:
            with interrupted(
                one, lambda: beside.submit(add, other, chain, "x", gate=Gate.TOKEN_PIN, subject="ana")
            ) as it:
                add(one, chain, "seal")
            with pytest.raises(CredentialError, match="one key, one owner"):
                it[0].result()
            with interrupted(one, lambda: beside.submit(rows.remove, other, "seal", Clock())) as it:
                rows.set_state(one, "seal", State.ACTIVE, Clock())
            it[0].result()
        assert rows.read(one) == {}
        assert [line.split()[2] for line in recorded(one)] == ["added:", "ACTIVE", "removed"]
    finally:
        one.dispose()
        other.dispose()


@contextmanager
def interrupted(engine: Engine, begin: Callable[[], Future[Any]]) -> Iterator[list[Future[Any]]]:
    """Once credentials were read with this engine, something else begins; then, and after a transaction, it has a second."""
    begun: list[Future[Any]] = []

    def read(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM credentials" in statement and not begun:
            begun.append(begin())
            wait(begun, 1)

    def ended(*_: Any) -> None:
        wait(begun, 1)

    event.listen(engine, "after_cursor_execute", read)
    event.listen(engine, "checkin", ended)
    yield begun
    event.remove(engine, "after_cursor_execute", read)
    event.remove(engine, "checkin", ended)


def test_every_change_is_recorded(engine: Engine, chain: bytes) -> None:
    """Who, when and what of each change; the record is only added to."""
    add(engine, chain)
    rows.set_state(engine, "clerk", State.SUSPENDED, Clock())
    rows.remove(engine, "clerk", Clock())
    add(engine, chain)
    assert recorded(engine) == [
        "credential clerk added: RAW",
        "credential clerk SUSPENDED",
        "credential clerk removed",
        "credential clerk added: RAW",
    ]
    with engine.connect() as connection:
        for row in connection.execute(select(changes)):
            assert row.who
            assert row.time.endswith("Z")


def test_unknown_name(engine: Engine) -> None:
    """Removing or suspending what is not there is refused and not recorded."""
    with pytest.raises(CredentialError, match="there is no credential ghost"):
        rows.remove(engine, "ghost", Clock())
    with pytest.raises(CredentialError, match="there is no credential ghost"):
        rows.set_state(engine, "ghost", State.SUSPENDED, Clock())
    assert recorded(engine) == []


@pytest.mark.parametrize("name", ["", "Clerk", "a b", "-clerk", "../clerk", "clerk\n", "x" * 64])
def test_names_that_no_caller_could_be_allowed(engine: Engine, chain: bytes, name: str) -> None:
    """A name that the configuration's allow-lists could not hold is refused."""
    with pytest.raises(CredentialError, match="name"):
        add(engine, chain, name=name)
    assert not rows.read(engine)


def test_what_is_no_credential(engine: Engine, pki: Pki) -> None:
    """Junk, a certificate without contentCommitment but with outputs, a short RSA key, a key without a place."""
    p256 = spki(ec.generate_private_key(ec.SECP256R1()))
    login = pki.signer("Login", p256, "digital_signature")
    short = pki.signer("Short", spki(rsa.generate_private_key(65537, 1024)))
    cases: list[tuple[bytes, dict[str, Any], str]] = [
        (b"junk", {}, "PEM"),
        (b"", {}, "PEM"),
        (login, {}, "contentCommitment"),
        (short, {}, "2048"),
        (pki.signer("Nowhere", p256), {"key_label": None}, "CKA_ID"),
    ]
    for pem, more, words in cases:
        with pytest.raises(CredentialError, match=words):
            add(engine, pem, **more)
    assert add(engine, login, outputs=[]).purpose is rows.Purpose.AUTHENTICATION
    with pytest.raises(CredentialError, match="it could make nothing: give it at least one output"):
        add(engine, pki.signer("Seal", p256), name="seal", outputs=[])
    assert recorded(engine) == ["credential clerk added: "]


def test_expired_certificate_can_be_added(engine: Engine, pki: Pki) -> None:
    """Validity is looked at when somebody wants to sign, not when the row is made."""
    key = spki(ec.generate_private_key(ec.SECP256R1()))
    add(engine, pki.signer("Old", key, begins=timedelta(days=-9), ends=timedelta(days=-1)))


def test_whose_file_it_is(engine: Engine, chain: bytes, tmp_path: Path) -> None:
    """The database and what SQLite keeps beside it are readable by their owner alone, in a directory of its own."""
    add(engine, chain)
    files = list((tmp_path / "state").iterdir())
    assert tmp_path / "state" / "paraph.sqlite" in files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_newer_schema_is_refused(tmp_path: Path, chain: bytes) -> None:
    """F58: a database of a newer program is refused with its version, and left as it is."""
    path = tmp_path / "paraph.sqlite"
    engine = open_store(path)
    add(engine, chain)
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = version + 1"))
    engine.dispose()
    with pytest.raises(StoreError, match=f"has schema {VERSION + 1}, this program knows {VERSION}"):
        open_store(path)
    with pytest.raises(StoreError):
        open_store(path)


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like a file of one" * 40, b"\0" * 4096])
def test_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    """A file that is not SQLite's is refused by name, and not written over."""
    path = tmp_path / "paraph.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)):
        open_store(path)
    assert path.read_bytes() == content


def test_durable(engine: Engine) -> None:
    """Each commit is on the disk before it is acknowledged (SQLite: synchronous FULL, in a write-ahead log)."""
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


def test_whoever_reads_credentials_holds_up_nobody(
    engine: Engine, chain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands are parsed in tenths of a second: the ledger is written meanwhile."""
    add(engine, chain)
    stored = rows._stored

    def written_beside(connection: Any) -> dict[str, rows.Credential]:
        found = stored(connection)
        with closing(sqlite3.connect(str(engine.url.database), timeout=0.1, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
        return found

    monkeypatch.setattr(rows, "_stored", written_beside)
    assert list(rows.read(engine)) == ["clerk"]
