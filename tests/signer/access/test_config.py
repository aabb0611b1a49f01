"""The configuration file: every mistake is named with its path, all at once, and no secret is repeated."""

import asyncio
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519

from signer import anchor, checkpoint_key
from signer import credential as rows
from signer.checkpoint_key import KeyFile, spki_of
from signer.clock import Clock
from signer.config import NAME, ConfigError, Ledger, NoCredentials, load
from signer.database import DATABASE as DATABASE_FILE
from signer.note import NOTHING, Checkpoint, Head, sign
from signer.policy import Policy
from signer.store import open_store
from tests.pki import Pki
from tests.signer.access.calls import Paraph
from tests.softhsm import MODULE

GOOD = f"""
[server]
state = "/var/lib/paraph"
metrics = "127.0.0.1:7444"
assembly_processes = 2

[trust]
roots = []

[[trust.crl]]
issuer = "/etc/paraph/issuing.pem"
url = "http://pki.example/issuing.crl"
max_age_h = 48

[[listener]]
address = "127.0.0.1:7443"
certificate = "/etc/paraph/server.pem"
key = "/etc/paraph/server.key"
client_ca = "/etc/paraph/ca.pem"

[[listener]]
socket = "/run/paraph/desk.sock"
mode = "0660"
caller = "desk"

[[token]]
name = "card"
kind = "smartcard"
module = "{MODULE}"
label = "Card of the clerk"
pin_file = "/etc/paraph/card.pin"
lanes = 1
[token.environment]
SOFTHSM2_CONF = "/etc/softhsm2.conf"

[[caller]]
name = "portal"
uri = "urn:example:portal"
role = "submit"
rpcs = ["SignDigests"]
credentials = ["clerk"]

[[caller]]
name = "desk"
role = "operator"
rpcs = ["ListTokens"]

[ledger]
checkpoint_key = "/etc/paraph/ledger/checkpoint.key"
data_key_credential = "data-key"
database = "postgresql://paraph@db.example/paraph"

[[ledger.anchor]]
file = "/var/log/paraph/checkpoints"

[[ledger.anchor]]
syslog = "/dev/log"

[[ledger.anchor]]
webhook = "https://auditor.example/notes"
"""
CHECKPOINT_KEY = 'checkpoint_key = "/etc/paraph/ledger/checkpoint.key"\n'
ON_TOKEN = """checkpoint_token = "card"
checkpoint_key_label = "seal"
checkpoint_public_key = "/etc/paraph/ledger/checkpoint.pub"
"""
DATABASE = '"postgresql://paraph@db.example/paraph"'
WEBHOOK = '"https://auditor.example/notes"'
CRL = '"http://pki.example/issuing.crl"'
LONG_SOCKET = f'"/run/{"x" * 103}"'  # 108 bytes: one more than unix(7) has room for


def mistakes(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "paraph.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert error.value.path == path
    return error.value.mistakes


def test_the_good_file(tmp_path: Path) -> None:
    """The file that the tests below spoil is good."""
    path = tmp_path / "paraph.toml"
    path.write_text(GOOD)
    config = load(path)
    assert [listener.caller for listener in config.listener] == [None, "desk"]
    assert config.token[0].for_pool().label == "Card of the clerk"
    with pytest.raises(Exception, match="frozen"):
        config.server.state = Path("/elsewhere")  # type: ignore[misc]


# (what is replaced, by what, the mistake's path and some of its words)
SPOILED: dict[str, tuple[str, str, str]] = {
    "no server": ('[server]\nstate = "/var/lib/paraph"', "[other]\nx = 1", "server: is missing"),
    "no state": ('state = "/var/lib/paraph"\n', "", "server.state: is missing"),
    "state not absolute": ('"/var/lib/paraph"', '"lib"', "server.state: the path must be absolute"),
    "unknown key at the top": ("[trust]", "[trusts]", "trusts: unknown key"),
    "unknown key in a section": ("assembly_processes", "assembly_process", "server.assembly_process: unknown key"),
    "unknown key in a token": ("lanes = 1", "lane = 1", 'token "card": lane: unknown key'),
    "unknown key in a caller": ("rpcs = [", "rpc = [", 'caller "portal": rpc: unknown key'),
    "computed key": ("[server]", 'sha256 = ""\n[server]', "sha256: unknown key"),
    "no assembly process": ("assembly_processes = 2", "assembly_processes = 0", "server.assembly_processes: "),
    "metrics without a port": ('"127.0.0.1:7444"', '"127.0.0.1"', "server.metrics: an address is"),
    "metrics by name": ('"127.0.0.1:7444"', '"localhost:7444"', "server.metrics: an address is"),
    "port too high": ('"127.0.0.1:7443"', '"127.0.0.1:70000"', "listener 1: an address is"),
    "metrics at a listener": (
        '"127.0.0.1:7444"',
        '"127.0.0.1:7443"',
        "file: server.metrics: is the port of the listener 127.0.0.1:7443",
    ),
    "metrics at a listener, of all addresses": (
        '"127.0.0.1:7444"',
        '"0.0.0.0:7443"',
        "file: server.metrics: is the port of the listener",
    ),
    "no TLS": ('key = "/etc/paraph/server.key"\n', "", "listener 1: an address needs certificate, key and client_ca"),
    "no client CA": ('client_ca = "/etc/paraph/ca.pem"\n', "", "listener 1: an address needs certificate"),
    "address and socket": ('socket = "/run', 'address = "127.0.0.1:1"\nsocket = "/run', "listener 2: give either"),
    "neither": ('socket = "/run/paraph/desk.sock"\n', "", "listener 2: give either address or socket"),
    "address with a caller": (
        'client_ca = "/etc/paraph/ca.pem"',
        'client_ca = "/etc/paraph/ca.pem"\ncaller = "desk"',
        "listener 1: caller belongs to a socket",
    ),
    "socket without a caller": ('caller = "desk"\n', "", "listener 2: a socket needs the caller"),
    "socket with TLS": ('mode = "0660"', 'key = "/k"', "listener 2: a socket takes no certificate"),
    "socket of a stranger": ('caller = "desk"', 'caller = "nobody"', "there is no caller 'nobody'"),
    "socket for all": ('mode = "0660"', 'mode = "0666"', "listener 2: mode: "),
    "socket that all may look through": ('mode = "0660"', 'mode = "0661"', "listener 2: mode: "),
    "mode no octal": ('mode = "0660"', 'mode = "rw"', "listener 2: mode: "),
    "mode with sticky bits": ('mode = "0660"', 'mode = "4660"', "listener 2: mode: "),
    "mode a number": ('mode = "0660"', "mode = 660", "listener 2: mode: "),
    "relative module": (f'"{MODULE}"', '"libsofthsm2.so"', 'token "card": module: \'libsofthsm2.so\' is not absolute'),
    "no module": (f'"{MODULE}"', '"/nowhere/p11.so"', 'token "card": module: /nowhere/p11.so: No such file or directory'),
    "pin of a module": ("lanes = 1", f'module_sha256 = "{"0" * 64}"', 'token "card": module_sha256: '),
    "two pins of a module": (
        "[[caller]]",
        f'[[token]]\nname="b"\nkind="smartcard"\nmodule="{MODULE}"\nmodule_sha256="{sha256(MODULE.read_bytes()).hexdigest()}"\nlabel="b"\n[[caller]]',
        "has one module_sha256, the same in each token",
    ),
    "loader's variable": ("SOFTHSM2_CONF =", "LD_PRELOAD =", "LD_PRELOAD would have other code loaded"),
    "kind": ('"smartcard"', '"hsm"', 'token "card": kind: '),
    "no label": ('"Card of the clerk"', '""', 'token "card": label: '),
    "long label": ('"Card of the clerk"', f'"{"x" * 33}"', 'token "card": label: '),
    "no lane": ("lanes = 1", "lanes = 0", 'token "card": lanes: '),
    "too many lanes": ("lanes = 1", "lanes = 65", 'token "card": lanes: '),
    "lanes no number": ("lanes = 1", 'lanes = "many"', 'token "card": lanes: '),
    "two lanes in a reader": ("lanes = 1", "lanes = 2\nreader = 'Reader 0'", 'token "card": a token with a reader is a card'),
    "tries": ("lanes = 1", "pin_tries = 0", 'token "card": pin_tries: '),
    "time": ("lanes = 1", "sign_timeout_s = 0", 'token "card": sign_timeout_s: '),
    "endless time": ("lanes = 1", "sign_timeout_s = inf", 'token "card": sign_timeout_s: '),
    "two PINs": ("lanes = 1", 'pin_credential = "pin"', 'token "card": give pin_file or pin_credential'),
    "PIN of systemd as a path": (
        'pin_file = "/etc/paraph/card.pin"',
        'pin_credential = "../pin"',
        'token "card": pin_credential: ',
    ),
    "caller nobody can be": ("[[caller]]", '[[caller]]\nname="ghost"\nrole="submit"\nrpcs=[]\n[[caller]]', 'caller "ghost": has no uri and no socket'),
    "token twice": ("[[caller]]", f'[[token]]\nname="card"\nkind="smartcard"\nmodule="{MODULE}"\nlabel="b"\n[[caller]]', "token card is given twice"),
    "name": ('name = "portal"', 'name = "Portal 1"', 'caller "Portal 1": name: begins with a small letter or a digit'),
    "role": ('role = "submit"', 'role = "admin"', 'caller "portal": role: '),
    "unknown RPC": ('"SignDigests"', '"SignAll"', 'caller "portal": the role submit has no SignAll'),
    "RPC of another role": ('"SignDigests"', '"DrainToken"', 'caller "portal": the role submit has no DrainToken'),
    "star": ('"SignDigests"', '"*"', 'caller "portal": the role submit has no *'),
    "no RPCs": ('rpcs = ["SignDigests"]\n', "", 'caller "portal": rpcs: is missing'),
    "URI": ('"urn:example:portal"', '"portal"', 'caller "portal": uri: '),
    "URI with a space": ('"urn:example:portal"', '"urn:example:por tal"', 'caller "portal": uri: '),
    "URI with a NUL": ('"urn:example:portal"', '"urn:example:portal\\u0000"', 'caller "portal": uri: '),
    "URI with a line": ('"urn:example:portal"', '"urn:example:portal\\n"', 'caller "portal": uri: '),
    "URI twice": ('name = "desk"\n', 'name = "desk"\nuri = "urn:example:portal"\n', "caller uri urn:example:portal is given twice"),
    "caller twice": ('name = "desk"', 'name = "portal"', "caller portal is given twice"),
    "credential's name": ('"clerk"', '"Clerk"', 'caller "portal": credentials'),
    "no listener": ("[[listener]]", "[[listeners]]", "listener: is missing"),
    "no token": ("[[token]]", "[[tokens]]", "token: is missing"),
    "not TOML": ("[server]", "[server", "not TOML: "),
    "ledger left out": (GOOD[GOOD.index("[ledger]") :], "", "ledger: is missing: the daemon signs nothing without a ledger. `paraph audit keys DIRECTORY` makes both keys"),
    "anchor left out": (GOOD[GOOD.index("[[ledger.anchor]]") :], "", "ledger.anchor: is missing: give at least one [[ledger.anchor]]"),
    "anchor empty": (GOOD[GOOD.index("[[ledger.anchor]]") :], "anchor = []", "ledger.anchor: is missing: give at least one [[ledger.anchor]]"),
    "unknown key of the ledger": ("database =", "databases =", "ledger.databases: unknown key"),
    "checkpoint key left out": (CHECKPOINT_KEY, "", "ledger: give checkpoint_key, checkpoint_key_credential or checkpoint_token; `paraph audit keys DIRECTORY`"),
    "two checkpoint keys": (CHECKPOINT_KEY, f'{CHECKPOINT_KEY}checkpoint_key_credential = "k"\n', "ledger: give checkpoint_key, checkpoint_key_credential or checkpoint_token, and only one of them"),
    "checkpoint key in a file and on a token": (CHECKPOINT_KEY, CHECKPOINT_KEY + ON_TOKEN, "ledger: give checkpoint_key, checkpoint_key_credential or checkpoint_token, and only one of them"),
    "checkpoint key on a token that is none": (CHECKPOINT_KEY, ON_TOKEN.replace('"card"', '"stick"'), "ledger.checkpoint_token: there is no token 'stick'"),
    "checkpoint key on a token without a place": (CHECKPOINT_KEY, ON_TOKEN.replace("checkpoint_key_label", "#"), "ledger: checkpoint_token needs checkpoint_key_label or checkpoint_key_id"),
    "checkpoint key on a token without a public half": (CHECKPOINT_KEY, ON_TOKEN.replace("checkpoint_public_key", "#"), "ledger: checkpoint_token needs checkpoint_public_key"),
    "checkpoint key with no id": (CHECKPOINT_KEY, f'{ON_TOKEN}checkpoint_key_id = "a00"\n', "ledger.checkpoint_key_id: "),
    "checkpoint key with an empty label": (CHECKPOINT_KEY, ON_TOKEN.replace('"seal"', '""'), "ledger.checkpoint_key_label: "),
    "public half without a token": (CHECKPOINT_KEY, f'{CHECKPOINT_KEY}checkpoint_public_key = "/k"\n', "ledger: checkpoint_public_key belongs to checkpoint_token"),
    "label without a token": (CHECKPOINT_KEY, f'{CHECKPOINT_KEY}checkpoint_key_label = "seal"\n', "ledger: checkpoint_key_label belongs to checkpoint_token"),
    "id without a token": (CHECKPOINT_KEY, f'{CHECKPOINT_KEY}checkpoint_key_id = "a001"\n', "ledger: checkpoint_key_id belongs to checkpoint_token"),
    "relative public half": (CHECKPOINT_KEY, ON_TOKEN.replace("/etc/paraph/ledger/", ""), "ledger.checkpoint_public_key: the path must be absolute"),
    "data key left out": ('data_key_credential = "data-key"\n', "", "ledger: give data_key_file or data_key_credential; `paraph audit keys DIRECTORY`"),
    "two data keys": ("data_key_credential", 'data_key_file = "/k"\ndata_key_credential', "ledger: give data_key_file or data_key_credential, and only one of them"),
    "relative checkpoint key": ('"/etc/paraph/ledger/checkpoint.key"', '"checkpoint.key"', "ledger.checkpoint_key: the path must be absolute"),
    "relative data key": ('data_key_credential = "data-key"', 'data_key_file = "data.key"', "ledger.data_key_file: the path must be absolute"),
    "credential as a path": ('"data-key"', '"../data-key"', "ledger.data_key_credential: "),
    "database of another kind": ("postgresql:", "mysql:", "ledger.database: a database is a URL as postgresql://"),
    "database without a name": ("example/paraph", "example/", "ledger.database: a database is a URL as postgresql://"),
    "database with a space": ("example/paraph", "example/par aph", "ledger.database: a database is a URL as postgresql://"),
    "database with a password": ("paraph@", "paraph:canary@", "ledger.database: no secret stands in this file"),
    "database with a password behind it": ("db.example/paraph", "db.example/paraph?password=canary", "ledger.database: no secret stands in this file"),
    "database no URL": (DATABASE, '"postgresql://[::1/paraph"', "ledger.database: the database is no URL"),
    "anchor of no kind": ('syslog = "/dev/log"', "", "ledger.anchor 2: give one of file, syslog and webhook"),
    "anchor of two kinds": ('syslog = "/dev/log"', 'syslog = "/dev/log"\nfile = "/a"', "ledger.anchor 2: give one of file, syslog and webhook"),
    "anchor twice": ('syslog = "/dev/log"', f"webhook = {WEBHOOK}", "ledger: anchor 3: is the same place as anchor 2"),
    "relative anchor": ('"/var/log/paraph/checkpoints"', '"checkpoints"', "ledger.anchor 1: file: the path must be absolute"),
    "anchor in the state": ("/var/log/paraph/", "/var/lib/paraph/", "ledger.anchor 1: file: lies inside server.state"),
    "anchor in the state by a detour": ("/var/log/paraph/", "/var/log/../lib/paraph/a/", "ledger.anchor 1: file: lies inside server.state"),
    "syslog without a port": ('"/dev/log"', '"192.0.2.1"', "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "syslog's port too high": ('"/dev/log"', '"192.0.2.1:65536"', "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "syslog's port nought": ('"/dev/log"', '"192.0.2.1:0"', "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "syslog's port no number": ('"/dev/log"', '"192.0.2.1:syslog"', "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "syslog's host": ('"/dev/log"', '"a host:514"', "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "syslog's socket too long": ('"/dev/log"', LONG_SOCKET, "ledger.anchor 2: syslog: syslog is a Unix socket"),
    "CRL's issuer left out": ('issuer = "/etc/paraph/issuing.pem"\n', "", "trust.crl 1: issuer: is missing"),
    "relative issuer": ('"/etc/paraph/issuing.pem"', '"issuing.pem"', "trust.crl 1: issuer: the path must be absolute"),
    "unknown key of a CRL": ("max_age_h = 48", "max_age = 48", "trust.crl 1: max_age: unknown key"),
    "CRL nowhere": (f"url = {CRL}", "", "trust.crl 1: give one of file and url"),
    "CRL at two places": (f"url = {CRL}", f'url = {CRL}\nfile = "/a.crl"', "trust.crl 1: give one of file and url"),
    "relative CRL": (f"url = {CRL}", 'file = "a.crl"', "trust.crl 1: file: the path must be absolute"),
    "CRL of another kind": ("http://pki", "ldap://pki", "trust.crl 1: url: a URL is http://host/path or https://host/path here"),
    "CRL in a file by a URL": (CRL, '"file:///a.crl"', "trust.crl 1: url: a URL is http://host/path or https://host/path here"),
    "CRL with a space": ("issuing.crl", "iss uing.crl", "trust.crl 1: url: a URL is http://host/path or https://host/path here"),
    "CRL with a password": ("http://pki", "http://me:canary@pki", "trust.crl 1: url: a URL has no user, password"),
    "CRL's port": ("pki.example", "pki.example:70000", "trust.crl 1: url: is no URL"),
    "CRL never too old": ("max_age_h = 48", "max_age_h = 1e9", "trust.crl 1: max_age_h: "),
    "CRL always too old": ("max_age_h = 48", "max_age_h = 0", "trust.crl 1: max_age_h: "),
    "webhook in the clear": ("https://auditor", "http://auditor", "ledger.anchor 3: webhook: http goes only to a loopback address"),
    "webhook in the clear to a name": ("https://auditor.example", "http://localhost", "ledger.anchor 3: webhook: http goes only to a loopback address"),
    "webhook in the clear to all addresses": ("https://auditor.example", "http://0.0.0.0", "ledger.anchor 3: webhook: http goes only to a loopback address"),
    "webhook of another kind": ("https://auditor", "ftp://auditor", "ledger.anchor 3: webhook: a webhook is a URL as https://"),
    "webhook without a host": (WEBHOOK, '"https:///notes"', "ledger.anchor 3: webhook: a webhook is a URL as https://"),
    "webhook with a space": ("example/notes", "example/no tes", "ledger.anchor 3: webhook: a webhook is a URL as https://"),
    "webhook with a line": ("example/notes", "example/no\\ntes", "ledger.anchor 3: webhook: a webhook is a URL as https://"),
    "webhook with a password": ("https://auditor", "https://me:canary@auditor", "ledger.anchor 3: webhook: a webhook's URL has no user"),
    "webhook with a fragment": ("example/notes", "example/notes#1", "ledger.anchor 3: webhook: a webhook's URL has no user"),
    "webhook's port": ("auditor.example", "auditor.example:70000", "ledger.anchor 3: webhook: the webhook is no URL"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Each rule of the file, broken alone, is named with the path of what breaks it."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    old, new, expected = SPOILED[case]
    assert old in GOOD
    text = GOOD.replace(old, new) if case.startswith("no ") else GOOD.replace(old, new, 1)
    found = mistakes(
        tmp_path, text.replace("[token.environment]", "[tokens.environment]") if case == "no token" else text
    )
    assert any(expected in mistake for mistake in found), found
    assert all("\n" not in mistake for mistake in found), "a line each"


def test_all_at_once(tmp_path: Path) -> None:
    """All mistakes are named at once, each once, and none that only follows from another."""
    text = GOOD
    broken = ["state not absolute", "kind", "role", "no TLS", "mode no octal", "unknown key in a caller"]
    for case in broken:
        old, new, _ = SPOILED[case]
        text = text.replace(old, new, 1)
    found = mistakes(tmp_path, text)
    for case in broken:
        assert sum(SPOILED[case][2] in mistake for mistake in found) == 1, (case, found)
    assert len(found) == len(broken) + 1, "and the RPCs that are missing for the one misspelt"


SECRETS: list[Callable[[str], str]] = [
    lambda text: text.replace('pin_file = "/etc/paraph/card.pin"', 'pin = "canary-4711"'),
    lambda text: text.replace("lanes = 1", 'pin_tries = "canary-4711"'),
    lambda text: text.replace('"smartcard"', '"canary-4711"'),
    lambda text: text.replace('pin_file = "/etc/paraph/card.pin"', 'pin_file = ["canary-4711"]'),
    lambda text: text.replace('pin_file = "/etc/paraph/card.pin"', 'pin_credential = "canary 4711"'),
    lambda text: text.replace('pin_file = "/etc/paraph/card.pin"', "pin_file = canary-4711"),
    lambda text: text.replace("paraph@db", "paraph:canary-4711@db"),
    lambda text: text.replace("https://auditor.example", "http://auditor.example/canary-4711"),
    lambda text: text.replace("https://auditor.example", "https://auditor.example:canary-4711"),
    lambda text: text.replace(
        'syslog = "/dev/log"',
        'webhook = "https://a.example/canary-4711"\n[[ledger.anchor]]\nwebhook = "https://a.example/canary-4711"',
    ),
    lambda text: text.replace('checkpoint_key = "/etc', 'checkpoint_pem = "canary-4711"\ncheckpoint_key = "/etc'),
    lambda text: text.replace('"data-key"', '"canary 4711"'),
]


@pytest.mark.parametrize("spoil", SECRETS)
def test_secrets_are_not_repeated(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    """Who writes a PIN into the file by mistake does not find it in the answer, which may go into a log."""
    assert spoil(GOOD) != GOOD
    found = mistakes(tmp_path, spoil(GOOD))
    assert not any("canary" in mistake for mistake in found), found


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, is a directory, or is not text, is one mistake."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", ".", "binary"):
        with pytest.raises(ConfigError) as error:
            load(tmp_path / name)
        assert len(error.value.mistakes) == 1


def test_pin_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pin_credential` is a file in the directory that systemd gives the daemon."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    pin = tmp_path / "card-pin"
    pin.write_text("1234\n")
    pin.chmod(0o400)
    path = tmp_path / "paraph.toml"
    path.write_text(GOOD.replace('pin_file = "/etc/paraph/card.pin"', 'pin_credential = "card-pin"'))
    token = load(path).token[0].for_pool()
    assert token.pin is not None
    assert "1234" not in f"{token!r} {token.pin!r} {load(path)!r}"
    # A command beside the daemon reads the same file without systemd's directory; only the daemon needs the PIN.
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match="token card: pin_credential needs systemd"):
        load(path).token[0].for_pool()


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("00" * 32 + "\n", None),
        (":".join(["AB"] * 32) + "  # lost in May\n\n# more\n", None),
        ("00" * 31, "denied:1: not a SHA-256"),
        ("# ok\nzz" + "00" * 31, "denied:2: not a SHA-256"),
        ("00" * 32 + " " + "11" * 32, "denied:1: not a SHA-256"),
    ],
)
def test_deny_list(tmp_path: Path, content: str, mistake: str | None) -> None:
    """The deny-list has one SHA-256 a line; a line that is none is named by its number."""
    denied, path = tmp_path / "denied", tmp_path / "paraph.toml"
    denied.write_text(content)
    path.write_text(GOOD.replace("roots = []", f'denied_certificates = "{denied}"'))
    if mistake is None:
        assert len(Policy.of(load(path)).denied) == 1
    else:
        with pytest.raises(ConfigError, match=mistake):
            Policy.of(load(path))


def test_trust_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Every file of the trust section that cannot be used is named, all at once; a missing deny-list is a mistake."""
    pki = Pki(tmp_path / "pki")
    (tmp_path / "junk.pem").write_text("junk")
    path = tmp_path / "paraph.toml"
    roots = [str(pki.root_file), str(tmp_path / "junk.pem"), str(tmp_path / "missing.pem")]
    path.write_text(GOOD.replace("roots = []", f'roots = {roots}\ndenied_certificates = "{tmp_path}/missing"'))
    with pytest.raises(ConfigError) as error:
        Policy.of(load(path))
    assert len(error.value.mistakes) == 3
    for name, mistake in zip(("junk.pem", "missing.pem", "missing"), error.value.mistakes, strict=True):
        assert name in mistake


# ---- the ledger's files


def loaded(tmp_path: Path, *changes: tuple[str, str]) -> Ledger:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "paraph.toml"
    path.write_text(text)
    return load(path).ledger


def test_the_good_ledger(tmp_path: Path) -> None:
    """What the section says arrives; a database in the state directory is none, and loopback takes http."""
    ledger = loaded(tmp_path, (WEBHOOK, '"http://[::1]:8080/notes?for=me"'), ('"/dev/log"', '"[2001:db8::1]:514"'))
    assert ledger.checkpoint_key == Path("/etc/paraph/ledger/checkpoint.key")
    assert (ledger.data_key_file, ledger.data_key_credential) == (None, "data-key")
    assert ledger.database == "postgresql://paraph@db.example/paraph"
    assert [(each.file, each.syslog, each.webhook) for each in ledger.anchor] == [
        (Path("/var/log/paraph/checkpoints"), None, None),
        (None, "[2001:db8::1]:514", None),
        (None, None, "http://[::1]:8080/notes?for=me"),
    ]
    assert loaded(tmp_path, (f"database = {DATABASE}\n", "")).database is None
    for address in ("log.example:514", "127.0.0.1:1514"):
        assert loaded(tmp_path, ('"/dev/log"', f'"{address}"')).anchor[1].syslog == address


def test_an_anchor_that_leads_into_the_state(tmp_path: Path) -> None:
    """A link from elsewhere is followed; a neighbour whose name begins alike is none."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "elsewhere").symlink_to(state)
    text = GOOD.replace("/var/lib/paraph", str(state))
    for place, inside in (("elsewhere/a", True), ("state", True), ("state-of-others/a", False), ("state/../a", False)):
        path = tmp_path / "paraph.toml"
        path.write_text(text.replace("/var/log/paraph/checkpoints", f"{tmp_path}/{place}"))
        if inside:
            with pytest.raises(ConfigError, match=r"lies inside server\.state"):
                load(path)
        else:
            load(path)


def pem(key: Any, password: bytes | None = None) -> bytes:
    forms = serialization
    secret = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
    content: bytes = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, secret)
    return content


KEYS = {
    "ED25519": ed25519.Ed25519PrivateKey.generate,
    "ECDSA-SHA256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECDSA-SHA384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECDSA-SHA512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA-SHA256": lambda: rsa.generate_private_key(65537, 2048),
}
NO_KEYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "junk": (lambda: b"junk", "holds no private key in PEM; `paraph audit keys DIRECTORY` makes one"),
    "empty": (lambda: b"", "holds no private key in PEM"),
    "public": (
        lambda: ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "holds no private key in PEM",
    ),
    "encrypted": (lambda: pem(ed25519.Ed25519PrivateKey.generate(), b"canary-4711"), "is encrypted; store it as it is"),
    "short": (lambda: pem(rsa.generate_private_key(65537, 1024)), "is of a kind that is not taken: keys are RSA of at least"),
    "curve": (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "is of a kind that is not taken"),
    "agreement": (lambda: pem(x25519.X25519PrivateKey.generate()), "is of a kind that is not taken"),
    "dsa": (lambda: pem(dsa.generate_private_key(2048)), "is of a kind that is not taken"),
    "too long": (lambda: pem(ed25519.Ed25519PrivateKey.generate()).rjust(70_000, b"\n"), "holds no private key in PEM"),
}  # fmt: skip


@pytest.mark.parametrize("algorithm", KEYS)
def test_kinds_of_checkpoint_keys(tmp_path: Path, algorithm: str) -> None:
    """Each kind has its algorithm, and what it makes is verified with its public half by the note's own check."""
    file = tmp_path / "key"
    file.write_bytes(pem(KEYS[algorithm]()))
    file.chmod(0o400)
    key = KeyFile.of(loaded(tmp_path, ("/etc/paraph/ledger/checkpoint.key", str(file))))
    assert key.algorithm == algorithm
    assert "PRIVATE" not in f"{key!r}"
    checkpoint = Checkpoint(1, datetime(2026, 11, 26, tzinfo=UTC), NOTHING, Head("ab" * 16, 1, 1, bytes(32)))
    note = sign(checkpoint, key.spki, key.algorithm, lambda message: asyncio.run(key.make(message)).signature)
    note.check(key.spki)


def public_pem(key: Any) -> bytes:
    forms = serialization
    content: bytes = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return content


@pytest.mark.parametrize("algorithm", KEYS)
def test_kinds_of_checkpoint_keys_on_a_token(tmp_path: Path, algorithm: str) -> None:
    """What is known of one without its token: its public half, its algorithm, and where it will be looked for."""
    file = tmp_path / "pub"
    file.write_bytes(public_pem(KEYS[algorithm]()))
    place = (CHECKPOINT_KEY, f'{ON_TOKEN}checkpoint_key_id = "A0ff"\n')
    ledger = loaded(tmp_path, place, ("/etc/paraph/ledger/checkpoint.pub", str(file)))
    key = checkpoint_key.of(ledger, lambda: pytest.fail("no token is asked"))
    assert (key.spki, key.algorithm) == (spki_of(ledger), algorithm)
    assert key.on_token is not None
    assert (key.on_token.spki, key.on_token.cka_id, key.on_token.label) == (key.spki, b"\xa0\xff", "seal")


NO_PUBLIC_HALVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "junk": (lambda: b"junk", "holds no public key in PEM"),
    "private": (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "holds no public key in PEM"),
    "short": (lambda: public_pem(rsa.generate_private_key(65537, 1024)), "is of a kind that is not taken: keys are RSA"),
    "curve": (lambda: public_pem(ec.generate_private_key(ec.SECP256K1())), "is of a kind that is not taken"),
    "agreement": (lambda: public_pem(x25519.X25519PrivateKey.generate()), "is of a kind that is not taken"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_PUBLIC_HALVES)
def test_public_half_that_is_none(tmp_path: Path, case: str) -> None:
    """It is named, with what is wrong; and so is a file that is not there."""
    content, said = NO_PUBLIC_HALVES[case]
    file = tmp_path / "pub"
    ledger = loaded(tmp_path, (CHECKPOINT_KEY, ON_TOKEN), ("/etc/paraph/ledger/checkpoint.pub", str(file)))
    with pytest.raises(ConfigError) as error:
        spki_of(ledger)
    assert error.value.mistakes == [f"checkpoint_public_key: {file}: No such file or directory"]
    file.write_bytes(content())
    with pytest.raises(ConfigError) as error:
        spki_of(ledger)
    assert error.value.mistakes[0].startswith(f"checkpoint_public_key: {file} {said}")
    assert "PRIVATE" not in str(error.value)


def test_a_person_s_token_signs_no_checkpoints(tmp_path: Path) -> None:
    """There is nobody to give its PIN each minute."""
    personal = GOOD.replace('pin_file = "/etc/paraph/card.pin"', "personal = true\nreader = 'Reader 0'")
    [mistake] = mistakes(tmp_path, personal.replace(CHECKPOINT_KEY, ON_TOKEN))
    assert mistake.startswith("file: ledger.checkpoint_token: card is a person's")


def test_the_name_of_checkpoints_in_the_pool() -> None:
    """No caller of a configuration can have it: his share of the tokens' time is not taken for the daemon's own."""
    assert re.fullmatch(NAME, checkpoint_key.CALLER) is None


@pytest.mark.parametrize("case", NO_KEYS)
def test_checkpoint_key_that_is_none(tmp_path: Path, case: str) -> None:
    """A file that holds no key, or one that checkpoints are not signed with, is named, and nothing of it is repeated."""
    content, said = NO_KEYS[case]
    file = tmp_path / "key"
    file.write_bytes(content())
    file.chmod(0o400)
    with pytest.raises(ConfigError) as error:
        KeyFile.of(loaded(tmp_path, ("/etc/paraph/ledger/checkpoint.key", str(file))))
    assert len(error.value.mistakes) == 1
    assert error.value.mistakes[0].startswith(f"checkpoint_key: {file} {said}")
    assert "canary" not in str(error.value)
    assert "PRIVATE" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "mode", "said"),
    [
        (32, 0o400, None),
        (32, 0o600, None),
        (32, 0o440, "can be read by others (mode 0440); give it mode 0400"),
        (32, 0o404, "can be read by others (mode 0404); give it mode 0400"),
        (32, 0o420, "can be read by others (mode 0420); give it mode 0400"),
        (31, 0o400, "does not have 32 bytes"),
        (33, 0o400, "does not have 32 bytes"),
        (0, 0o400, "does not have 32 bytes"),
        (None, 0, "No such file or directory; `paraph audit keys DIRECTORY` makes both keys"),
    ],
)
@pytest.mark.parametrize("credential", [False, True])
def test_secret_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, mode: int, said: str | None, credential: bool
) -> None:
    """A key file is its owner's alone; of a systemd credential the group's read bit is an ACL's mask, and no more."""
    file = tmp_path / "data-key"
    if size is not None:
        file.write_bytes(b"x" * size)
        file.chmod(mode)
    if credential:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        ledger = loaded(tmp_path)
    else:
        ledger = loaded(tmp_path, ('data_key_credential = "data-key"', f'data_key_file = "{file}"'))
    if said is None or (credential and mode == 0o440):
        assert ledger.data_key() == b"x" * 32
    else:
        with pytest.raises(ConfigError, match=re.escape(said)) as error:
            ledger.data_key()
        assert error.value.mistakes[0].startswith("data_key: the ")
        assert "xxx" not in str(error.value)


def test_a_secret_is_a_regular_file(tmp_path: Path) -> None:
    """A pipe does not hold up the start; a directory is none either."""
    os.mkfifo(tmp_path / "pipe", 0o400)
    (tmp_path / "directory").mkdir(mode=0o500)
    for name in ("pipe", "directory"):
        ledger = loaded(tmp_path, ('data_key_credential = "data-key"', f'data_key_file = "{tmp_path / name}"'))
        with pytest.raises(ConfigError, match="is not a regular file"):
            ledger.data_key()


def test_keys_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd gives no credentials, that is said, and told apart from a mistake in the file."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ledger = loaded(tmp_path, (CHECKPOINT_KEY, 'checkpoint_key_credential = "checkpoint-key"\n'))
    for read in (lambda: KeyFile.of(ledger), ledger.data_key):
        with pytest.raises(NoCredentials, match="LoadCredential"):
            read()
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "checkpoint-key").write_bytes(pem(key))
    (tmp_path / "checkpoint-key").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert KeyFile.of(ledger).algorithm == "ED25519"


def test_check_of_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose directory is missing, or where this user may not write, is named; all at once."""
    locked, there = tmp_path / "locked", tmp_path / "there"
    locked.mkdir()
    there.touch()
    refused = {locked, there}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in refused)  # as root, modes prove nothing
    anchors = "".join(f'[[ledger.anchor]]\nfile = "{tmp_path}/{name}"\n' for name in ("a/b", "locked/a", "there"))
    ledger = loaded(tmp_path, (GOOD[GOOD.index("[[ledger.anchor]]") :], anchors))
    with pytest.raises(ConfigError) as error:
        anchor.check(ledger)
    assert error.value.mistakes == [
        f"anchor 1: file: there is no directory {tmp_path}/a; make it, and let the daemon's user write there",
        f"anchor 2: file: this user cannot make a file in {locked}",
        f"anchor 3: file: {there} cannot be read and written by this user",
    ]
    refused.clear()
    (tmp_path / "a").mkdir()
    anchor.check(ledger)


# (what is replaced, by what, all that is said)
WORDS: list[tuple[str, str, str]] = [
    ("[[token]]", "[token]", "token: write [[token]], in two pairs of brackets"),
    ("[[ledger.anchor]]\nfile", "[ledger.anchor]\nfile", "not TOML: "),
    ("[trust]\nroots = []\n\n[[trust.crl]]", "[[trust]]", "trust: write [trust], in one pair of brackets"),
    ("lanes = 1", 'lanes = "many"', 'token "card": lanes: a whole number'),
    ("lanes = 1", "lanes = 1.5", 'token "card": lanes: a whole number'),
    ("lanes = 1", "lanes = 0", 'token "card": lanes: at least 1'),
    ("lanes = 1", "lanes = 65", 'token "card": lanes: at most 64'),
    ("lanes = 1", 'verify = "perhaps"', 'token "card": verify: true or false'),
    ("lanes = 1", 'sign_timeout_s = "long"', 'token "card": sign_timeout_s: a number'),
    ("lanes = 1", "sign_timeout_s = 0", 'token "card": sign_timeout_s: more than 0'),
    ('"Card of the clerk"', "7", 'token "card": label: a text in quotes'),
    ('"Card of the clerk"', f'"{"x" * 33}"', 'token "card": label: at most 32 characters'),
    ('"smartcard"', '"hsm"', "token \"card\": kind: one of 'smartcard', 'signing-stick' or 'signing-server'"),
    ('"/etc/paraph/card.pin"', "4", 'token "card": pin_file: the path of a file, in quotes'),
    ('["SignDigests"]', '"SignDigests"', 'caller "portal": rpcs: a list in brackets'),
    ('name = "card"\n', "", "token 1: name: is missing"),
]


@pytest.mark.parametrize(("old", "new", "said"), WORDS)
def test_a_mistake_is_told_in_our_words(tmp_path: Path, old: str, new: str, said: str) -> None:
    """What to write instead, and where: a section by its name, or counted from 1; none of the library's sentences."""
    [mistake] = [each for each in mistakes(tmp_path, GOOD.replace(old, new, 1)) if "there is no token" not in each]
    assert mistake == said or (said.endswith(": ") and mistake.startswith(said))
    assert "Input should be" not in mistake


def test_files_are_told_in_our_words(tmp_path: Path, paraph: Paraph) -> None:
    """Roots and lists that cannot be read: their path and why, and no address of a library's questions and answers."""
    config, junk = tmp_path / "paraph.toml", tmp_path / "junk.pem"
    junk.write_text("junk")
    for path, why in (
        (junk, "holds no certificate in PEM that can be read"),
        (tmp_path / "no", "No such file or directory"),
    ):
        config.write_text(GOOD.replace("roots = []", f'roots = ["{path}"]'))
        with pytest.raises(ConfigError) as error:
            Policy.of(load(config))
        assert error.value.mistakes == [f"trust.roots: {path}: {why}"]
    config.write_text(GOOD.replace(f"database = {DATABASE}\n", "").replace("/var/lib/paraph", f"{tmp_path}/state"))
    done = paraph("credential", "--config", config, "add", "x", "--certificate", tmp_path / "no", "--output", "RAW")
    assert done.err == f"paraph credential: {tmp_path}/no: No such file or directory\n"


SERVABLE = GOOD.replace(
    GOOD[GOOD.index("[[trust.crl]]") : GOOD.index('[[listener]]\nsocket = "')], ""
)  # needs no files of TLS and of a CA


def test_the_check_reads_the_issuers_of_crls(paraph: Paraph, tmp_path: Path) -> None:
    """`paraph serve`, with and without --check, names the section of a CRL whose issuer's certificate cannot be used."""
    config = tmp_path / "paraph.toml"
    config.write_text(GOOD)
    for words in (["--check"], []):
        done = paraph("serve", "--config", config, *words)
        assert done.code == 78
        assert "trust: crl 1: issuer: /etc/paraph/issuing.pem: No such file or directory\n" in done.err


def test_the_check_reads_the_ledger_s_files(paraph: Paraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `paraph serve --check` names every mistake of keys and anchors at once, and `serve` does not start with those of keys.

    A systemd credential, which such a command cannot read, is said not to have been looked at; without --check it is
    a mistake. An anchor that is away is none then: signing goes on without.
    """
    config, key, data = tmp_path / "paraph.toml", tmp_path / "checkpoint.key", tmp_path / "data.key"
    text = SERVABLE.replace("/etc/paraph/ledger/checkpoint.key", str(key)).replace("/var/log", f"{tmp_path}/log")
    text = text.replace("/var/lib/paraph", f"{tmp_path}/state").replace('pin_file = "/etc/paraph/card.pin"', "")
    text = text.replace('["clerk"]', "[]")
    config.write_text(text.replace('data_key_credential = "data-key"', f'data_key_file = "{data}"'))
    key.write_bytes(b"junk")
    key.chmod(0o400)
    data.write_bytes(b"x" * 32)
    data.chmod(0o644)
    junk, open_ = (
        f"ledger: checkpoint_key: {key} holds no private key",
        f"ledger: data_key: the file {data} can be read",
    )
    away = f"ledger: anchor 1: file: there is no directory {tmp_path}/log/paraph"
    for words, mistakes in ((["--check"], [junk, open_, away]), ([], [junk, open_])):
        done = paraph("serve", "--config", config, *words)
        assert done.code == 78
        found = done.err.splitlines()
        assert [line.startswith(mistake) for line, mistake in zip(found, mistakes, strict=True)] == [True] * len(
            mistakes
        )
    key.chmod(0o600)
    key.write_bytes(pem(KEYS["ED25519"]()))
    data.chmod(0o400)
    (tmp_path / "log" / "paraph").mkdir(parents=True)
    assert paraph("serve", "--config", config, "--check").code == 0
    config.write_text(text)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    done = paraph("serve", "--config", config, "--check")
    assert (done.code, done.err.count("not looked at")) == (0, 1)
    assert "data_key: the credential data-key" in done.err
    done = paraph("serve", "--config", config)
    assert (done.code, "data_key: the credential data-key" in done.err, "not looked at" in done.err) == (
        78,
        True,
        False,
    )


def test_the_check_names_both_stages_at_once(paraph: Paraph, tmp_path: Path) -> None:
    """What the file says wrong hides nothing of what is wrong in the files that its other sections name."""
    config, pin = tmp_path / "paraph.toml", tmp_path / "card.pin"
    text = GOOD.replace("/etc/paraph/card.pin", str(pin)).replace("/var/lib/paraph", f"{tmp_path}/state")
    config.write_text(text.replace("assembly_processes = 2", "assembly_processes = 0"))
    wanted = [
        f"{config}: server.assembly_processes: ",
        "trust: crl 1: issuer: /etc/paraph/issuing.pem: ",
        "listener: listener.certificate: /etc/paraph/server.pem: ",
        "ledger: checkpoint_key: ",
        f"token: card: PIN file {pin}: No such file or directory",
        "ledger: anchor 1: file: ",
    ]
    found = paraph("serve", "--config", config, "--check")
    assert found.code == 78
    assert [each for each in wanted if each not in found.err] == []
    pin.write_text("1234")
    pin.chmod(0o644)
    assert (
        f"token: card: PIN file {pin} can be read by others (mode 0644); give it mode 0400"
        in paraph("serve", "--config", config, "--check").err
    )
    pin.chmod(0o400)
    assert "PIN file" not in paraph("serve", "--config", config, "--check").err
    config.write_text("[")
    assert len(paraph("serve", "--config", config, "--check").err.splitlines()) == 1


def test_the_check_looks_for_callers_credentials(paraph: Paraph, tmp_path: Path) -> None:
    """One that is nowhere is a mistake: only a check finds out, and then the call is refused; a group is one, too."""
    config = tmp_path / "paraph.toml"
    text = SERVABLE.replace("/var/lib/paraph", f"{tmp_path}/state").replace(f"database = {DATABASE}\n", "")
    group = '[[group]]\nname = "seals"\nmembers = ["clerk"]\n'
    config.write_text(text.replace('["clerk"]', '["clerk", "seals", "clark"]') + group)
    said = "caller: portal: there is no credential 'clark'; `paraph credential add clark` first, or take it out\n"
    assert said in paraph("serve", "--config", config, "--check").err
    chain = Pki(tmp_path / "pki").signer(
        "Clerk",
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    engine = open_store(tmp_path / "state" / DATABASE_FILE)
    rows.add(engine, "clerk", chain, cka_id=None, key_label="k", outputs=[rows.Output.RAW], clock=Clock())
    engine.dispose()
    found = paraph("serve", "--config", config, "--check").err
    assert said in found
    assert "'clerk'" not in found and "'seals'" not in found
