"""A checkpoint key on a token: signed there, verified without it, nobody else's, and away now and then."""

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from pool import Key, Pool
from signer.chain import Kind, Row
from signer.checkpoint import Checkpoints
from signer.checkpoint_key import CALLER, KeyOnToken
from signer.credential import Output
from signer.note import Head, Note, key_id, parse
from signer.v1 import operator_pb2 as op
from tests.conftest import Keys, MakePool
from tests.daemon import OPERATOR, Rig, Token, running, until
from tests.signer.access.calls import Caller, card_rig, digest, enrol, reload, said, shim_of, statuses
from tests.signer.ledger.book import book, request
from tests.signer.ledger.test_export import checkpoints, export
from tests.softhsm import KINDS

SERVING, NOT_SERVING = 1, 2
LABEL = "checkpoints"


def vaulted(kind: str = "P-256", place: str = "vault") -> Rig:
    """A rig whose checkpoint key is on a token: one of its own, or the callers' card."""
    rig = card_rig("RSA-2048")
    rig.callers["operator"] = ("operator", [*OPERATOR, "RegisterCredential", "SetCredentialState"], ())
    if place == "vault":
        rig.store.token("vault")
        rig.tokens.append(Token("vault", "vault", module=shim_of(rig).module))
    rig.store.keys(place, [kind], [LABEL])
    public = rig.keys / "vault.pub"
    public.write_bytes(pem_of(rig.store.made[place][kind][1]))
    rig.checkpoint = {"checkpoint_token": place, "checkpoint_key_label": LABEL, "checkpoint_public_key": str(public)}
    return rig


def pem_of(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_of(rig: Rig) -> Path:
    return Path(rig.checkpoint["checkpoint_public_key"])


def verify(rig: Rig, name: str) -> Any:
    return rig.command("audit", "verify", export(rig, name), "--key", public_of(rig), "--anchor", rig.anchor)


def notes(rig: Rig) -> list[Note]:
    return list(parse(rig.anchor.read_text()))


def signed_with(rig: Rig, cka_id: bytes) -> list[str]:
    """What each C_Sign with this key was given."""
    return [call.data or "" for call in shim_of(rig).signs() if call.key == cka_id.hex()]


def rsa(**changes: Any) -> Any:
    return request(**{"credential": "rsa-2048", "signature_algorithm": "RSA_PKCS1_V15"} | changes)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(vaulted()) as made:
        until(lambda: checkpoints(made), 10, "a checkpoint")
        yield made


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_key(make_pool: MakePool, keys: Keys, kind: str) -> None:
    """RSA, the three curves and Ed25519: a checkpoint is signed on the token, and good by the public half alone."""
    cka_id, spki = keys[kind]
    taken: list[Note] = []

    async def heads() -> tuple[Head, list[Head]]:
        return Head(f"{1:032x}", 1, 1, bytes(32)), []

    async def record(note: Note, token: str) -> None:
        assert token == "card"
        taken.append(note)

    async with make_pool(pool_keys=[Key(spki, cka_id=cka_id)]) as pool:
        key = KeyOnToken(Key(spki, cka_id=cka_id), "card", lambda: pool)
        async with Checkpoints(key, heads, record, [], last=None):
            pass
    assert [note.checkpoint.number for note in taken] == [1]
    taken[0].check(spki)


async def test_it_is_none_of_the_callers(make_pool: MakePool, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work stands in the pool's line under a name that no caller of a configuration has, and without an INTENT."""
    cka_id, spki = keys["P-256"]
    seen: list[tuple[str, Any]] = []
    async with make_pool(pool_keys=[Key(spki, cka_id=cka_id)]) as pool:
        real = Pool.sign

        async def sign(self: Pool, *words: Any, **more: Any) -> Any:
            seen.append((more["caller"], more.get("record")))
            return await real(self, *words, **more)

        monkeypatch.setattr(Pool, "sign", sign)
        made = await KeyOnToken(Key(spki, cka_id=cka_id), "card", lambda: pool).make(hashlib.sha256(b"x").digest())
    assert seen == [(CALLER, None)]
    assert (made.token, len(made.signature) > 60) == ("card", True)


def test_signed_there_and_verified_without_it(rig: Rig) -> None:
    """
    Each checkpoint is one C_Sign of that key over the checkpoint's text, and nothing else is; each row says which token has
    signed it; the verifier needs the files alone, and so say the two commands that tell of keys.
    """
    cka_id, spki = rig.store.made["vault"]["P-256"]
    with Caller(rig) as portal:
        assert statuses(portal.sign(rsa())) == ["SIGNED"]
    done = verify(rig, "running")
    assert done.returncode == 0, done.stdout
    made = notes(rig)
    texts = [hashlib.sha256(note.checkpoint.text.encode()).hexdigest() for note in made]
    assert signed_with(rig, cka_id) == texts
    rows = [row.fields for row in book(rig.state) if row.kind == Kind.CHECKPOINT]
    assert {(row["key"], row["token"]) for row in rows} == {(key_id(spki), "vault")}
    assert not [row for row in book(rig.state) if row.kind == Kind.INTENT and row.fields["token"] == "vault"]
    shown = rig.command("audit", "show", rig.directory / "running").stdout
    assert f"checkpoint 1, signed by key {key_id(spki)} on token vault" in shown
    told = rig.command("audit", "keys", "--config", rig.config)
    assert told.stdout.splitlines() == [
        f"checkpoints  key {key_id(spki)}, P-256, on token vault (label '{LABEL}'); its public half is {public_of(rig)}",
        f"results      a key for AES-256-GCM, in the file {rig.keys / 'data.key'}",
    ]
    assert f"checkpoints are signed by the key {key_id(spki)} on token vault" in rig.log.read_text()


def test_no_credential_may_have_it(rig: Rig) -> None:
    """
    `paraph credential add` and RegisterCredential refuse a credential of that key; one that stands in the store all the
    same is refused by a reload and by `serve --check`; nothing but checkpoints is ever signed with it.
    """
    cka_id, spki = rig.store.made["vault"]["P-256"]
    chain = rig.directory / "thief.pem"
    chain.write_bytes(rig.pki.signer("Thief", spki))
    chain.chmod(0o644)
    words = ("credential", "--config", rig.config, "add", "thief", "--certificate", chain, "--key-label", LABEL)
    done = rig.command(*words, "--output", "RAW")
    assert done.returncode == 1
    assert "its key signs the ledger's checkpoints, and nothing else" in done.stderr
    with Caller(rig, "operator") as operator:
        asked = op.RegisterCredentialRequest(
            name="thief", certificates=chain.read_bytes(), key_label=LABEL, outputs=["RAW"]
        )  # fmt: skip
        answer = said(lambda: operator.operator.RegisterCredential(asked, timeout=10))
        assert answer.reason == "CREDENTIAL_INVALID"
        assert "its key signs the ledger's checkpoints" in answer.message
    assert '"thief"' not in rig.command("credential", "--config", rig.config, "list", "--json").stdout
    assert rig.command("serve", "--check", "--config", rig.config).returncode == 0

    role, rpcs, _ = rig.callers["portal"]
    rig.callers["portal"] = (role, rpcs, ["rsa-2048", "thief"])
    rig.write_config()
    assert "signer: reloaded" in reload(rig)
    enrol(rig, "thief", chain.read_bytes(), LABEL, [Output.RAW])
    try:
        assert "credential thief has the key that signs checkpoints" in reload(rig)
        with Caller(rig) as portal:
            assert portal.sign(request(credential="thief")).reason == "CREDENTIAL_UNKNOWN"
            with Caller(rig, "operator") as operator:  # what it changes is in force all the same, and nothing else is
                for is_suspended in (True, False):
                    state = op.SetCredentialStateRequest(name="rsa-2048", suspended=is_suspended)
                    operator.operator.SetCredentialState(state, timeout=10)
                    assert (portal.sign(rsa()).reason == "CREDENTIAL_SUSPENDED") == is_suspended
                    assert portal.sign(request(credential="thief")).reason == "CREDENTIAL_UNKNOWN"
        done = rig.command("serve", "--check", "--config", rig.config)
        assert done.returncode == 78
        assert "credential thief has the key that signs checkpoints, which signs nothing else" in done.stderr
    finally:
        rig.command("credential", "--config", rig.config, "remove", "thief")
    assert len(signed_with(rig, cka_id)) == checkpoints(rig)


def test_the_check_without_a_token(rig: Rig) -> None:
    """`serve --check` reads the public half; a store that cannot be looked into is said, and is no mistake."""
    public = public_of(rig)
    before = public.read_bytes()
    public.write_bytes(b"junk")
    try:
        for words in (("serve", "--check"), ("audit", "keys")):
            done = rig.command(*words, "--config", rig.config)
            assert done.returncode == 78
            assert f"checkpoint_public_key: {public} holds no public key in PEM" in done.stderr
    finally:
        public.write_bytes(before)
    other = rig.directory / "elsewhere.toml"
    nowhere = f'[ledger]\ndatabase = "postgresql://paraph@/none?host={rig.directory}"'
    other.write_text(rig.config.read_text().replace("[ledger]", nowhere))
    other.chmod(0o644)
    done = rig.command("serve", "--check", "--config", other)
    assert done.returncode == 0, done.stderr
    assert "not looked at, whether a credential has the checkpoints' key: postgresql://" in done.stderr


def test_refused_at_the_start() -> None:
    """A store with such a credential is none to start with: exit 78, before any token is touched."""
    rig = vaulted()
    try:
        rig.prepare()
        _, spki = rig.store.made["vault"]["P-256"]
        enrol(rig, "thief", rig.pki.signer("Thief", spki), LABEL, [Output.RAW])
        done = rig.command("serve", "--config", rig.config)
        assert done.returncode == 78
        assert "credential thief has the key that signs checkpoints" in done.stderr
        assert shim_of(rig).log() == []
    finally:
        rig.close()


def test_away_and_back() -> None:
    """
    Its token is away at the start: callers are served, and it is an alarm at once, as for any key that does not sign. When
    it is back, checkpoints are made. The other way round, with the callers' token away, health says that nobody can sign.
    """
    rig = vaulted()
    rig.store.take_out("vault")
    with running(rig):
        with Caller(rig) as portal:
            assert statuses(portal.sign(rsa())) == ["SIGNED"]
        until(lambda: "no checkpoint: The checkpoint key does not sign: token vault: " in rig.log.read_text(), 10)
        assert not checkpoints(rig)
        rig.store.put_in("vault")
        until(lambda: checkpoints(rig), 15, "a checkpoint")
        until(lambda: "checkpoints are made again" in rig.log.read_text(), 5)
        assert rig.stop() == 0
        rig.store.take_out("card")
        rig.launch()
        until(lambda: "token card is ABSENT" in rig.log.read_text() and rig.health() is not None, 10)
        until(lambda: "token vault is READY" in rig.log.read_text().rpartition("stopped")[2], 10)
        assert rig.health() == NOT_SERVING
        rig.store.put_in("card")
        rig.wait_serving()


def test_the_first_one_waits_for_the_token() -> None:
    """The token, here the callers' own, comes up while the first checkpoint is due: it waits, which is no alarm."""
    rig = vaulted(place="card")
    shim_of(rig).script("C_Login * delay 1.2")
    with running(rig):
        until(lambda: checkpoints(rig), 10, "a checkpoint")
        assert "no checkpoint" not in rig.log.read_text()
        with Caller(rig) as portal:
            assert statuses(portal.sign(rsa())) == ["SIGNED"]


def test_another_key_by_this_name() -> None:
    """What is on the token under the label is not the public half that was given: it never signs, nor hears a PIN."""
    rig = vaulted()
    rig.store.keys("card", ["P-384"], ["somebody's"])
    public_of(rig).write_bytes(pem_of(rig.store.made["card"]["P-384"][1]))
    with running(rig):
        until(lambda: "no checkpoint: " in rig.log.read_text(), 10)
        assert "token vault is CHANGED: none of the configured keys is on it" in rig.log.read_text()
        with Caller(rig) as portal:
            assert statuses(portal.sign(rsa())) == ["SIGNED"]
        assert len(shim_of(rig).logins()) == 1, "the card's"
        cka_id, _ = rig.store.made["vault"]["P-256"]
        assert signed_with(rig, cka_id) == []


@pytest.mark.parametrize("place", ["vault", "file"])
def test_the_last_one_covers_what_was_signed(place: str) -> None:
    """
    The daemon is told to end, and to end at once, while a signature is being made: the last checkpoint is made on the
    token, before the pool closes, and covers what became of it.
    """
    rig = card_rig("RSA-2048") if place == "file" else vaulted("Ed25519", place)
    with running(rig):
        until(lambda: checkpoints(rig), 10, "a checkpoint")
        message = rsa(digests=[digest(3)])
        shim_of(rig).script("C_Sign * delay 0.6")
        with Caller(rig) as portal:
            call = portal.signing.SignDigests.future(message, timeout=20)
            until(lambda: of_request(rig, message.request_id), 5, "its INTENT")
            rig.send_signal(signal.SIGTERM)
            until(lambda: "stopping: " in rig.log.read_text(), 5)
            assert rig.stop(signal.SIGTERM) == 0
            assert call.exception() is not None
        [head] = notes(rig)[-1].checkpoint.heads
        outcome = next(row for row in reversed(book(rig.state)) if row.kind == Kind.OUTCOME)
        assert outcome.fields["closed"]
        assert (head.epoch, head.sequence) >= (outcome.epoch, outcome.sequence)


def of_request(rig: Rig, name: str) -> list[Row]:
    return [row for row in book(rig.state) if row.kind == Kind.INTENT and name in row.body]
