"""The configuration file: every mistake is named with its path, all at once, and no secret is repeated."""

from collections.abc import Callable
from pathlib import Path

import pytest

from signer.config import ConfigError, load
from signer.policy import Policy
from tests.pki import Pki
from tests.softhsm import MODULE

GOOD = f"""
[server]
state = "/var/lib/paraph"
metrics = "127.0.0.1:7444"
assembly_processes = 2

[trust]
roots = []

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
"""


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
    "unknown key in a token": ("lanes = 1", "lane = 1", "token[0].lane: unknown key"),
    "unknown key in a caller": ("rpcs = [", "rpc = [", "caller[0].rpc: unknown key"),
    "computed key": ("[server]", 'sha256 = ""\n[server]', "sha256: unknown key"),
    "no assembly process": ("assembly_processes = 2", "assembly_processes = 0", "server.assembly_processes: "),
    "metrics without a port": ('"127.0.0.1:7444"', '"127.0.0.1"', "server.metrics: an address is"),
    "metrics by name": ('"127.0.0.1:7444"', '"localhost:7444"', "server.metrics: an address is"),
    "port too high": ('"127.0.0.1:7443"', '"127.0.0.1:70000"', "listener[0]: an address is"),
    "no TLS": ('key = "/etc/paraph/server.key"\n', "", "listener[0]: an address needs certificate, key and client_ca"),
    "no client CA": ('client_ca = "/etc/paraph/ca.pem"\n', "", "listener[0]: an address needs certificate"),
    "address and socket": ('socket = "/run', 'address = "127.0.0.1:1"\nsocket = "/run', "listener[1]: give either"),
    "neither": ('socket = "/run/paraph/desk.sock"\n', "", "listener[1]: give either address or socket"),
    "address with a caller": (
        'client_ca = "/etc/paraph/ca.pem"',
        'client_ca = "/etc/paraph/ca.pem"\ncaller = "desk"',
        "listener[0]: caller belongs to a socket",
    ),
    "socket without a caller": ('caller = "desk"\n', "", "listener[1]: a socket needs the caller"),
    "socket with TLS": ('mode = "0660"', 'key = "/k"', "listener[1]: a socket takes no certificate"),
    "socket of a stranger": ('caller = "desk"', 'caller = "nobody"', "there is no caller 'nobody'"),
    "socket for all": ('mode = "0660"', 'mode = "0666"', "listener[1].mode: "),
    "socket that all may look through": ('mode = "0660"', 'mode = "0661"', "listener[1].mode: "),
    "mode no octal": ('mode = "0660"', 'mode = "rw"', "listener[1].mode: "),
    "mode with sticky bits": ('mode = "0660"', 'mode = "4660"', "listener[1].mode: "),
    "mode a number": ('mode = "0660"', "mode = 660", "listener[1].mode: "),
    "relative module": (f'"{MODULE}"', '"libsofthsm2.so"', "token[0].module: the path must be absolute"),
    "no module": (f'"{MODULE}"', '"/nowhere/p11.so"', "token[0].module: there is no file /nowhere/p11.so"),
    "kind": ('"smartcard"', '"hsm"', "token[0].kind: "),
    "no label": ('"Card of the clerk"', '""', "token[0].label: "),
    "long label": ('"Card of the clerk"', f'"{"x" * 33}"', "token[0].label: "),
    "no lane": ("lanes = 1", "lanes = 0", "token[0].lanes: "),
    "too many lanes": ("lanes = 1", "lanes = 65", "token[0].lanes: "),
    "lanes no number": ("lanes = 1", 'lanes = "many"', "token[0].lanes: "),
    "tries": ("lanes = 1", "pin_tries = 0", "token[0].pin_tries: "),
    "time": ("lanes = 1", "sign_timeout_s = 0", "token[0].sign_timeout_s: "),
    "endless time": ("lanes = 1", "sign_timeout_s = inf", "token[0].sign_timeout_s: "),
    "two PINs": ("lanes = 1", 'pin_credential = "pin"', "token[0]: give pin_file or pin_credential"),
    "PIN of systemd as a path": (
        'pin_file = "/etc/paraph/card.pin"',
        'pin_credential = "../pin"',
        "token[0].pin_credential: ",
    ),
    "caller nobody can be": ("[[caller]]", '[[caller]]\nname="ghost"\nrole="submit"\nrpcs=[]\n[[caller]]', "caller[0]: has no uri and no socket"),
    "token twice": ("[[caller]]", f'[[token]]\nname="card"\nkind="smartcard"\nmodule="{MODULE}"\nlabel="b"\n[[caller]]', "token card is given twice"),
    "name": ('name = "portal"', 'name = "Portal 1"', "caller[0].name: "),
    "role": ('role = "submit"', 'role = "admin"', "caller[0].role: "),
    "unknown RPC": ('"SignDigests"', '"SignAll"', "caller[0]: the role submit has no SignAll"),
    "RPC of another role": ('"SignDigests"', '"DrainToken"', "caller[0]: the role submit has no DrainToken"),
    "star": ('"SignDigests"', '"*"', "caller[0]: the role submit has no *"),
    "no RPCs": ('rpcs = ["SignDigests"]\n', "", "caller[0].rpcs: is missing"),
    "URI": ('"urn:example:portal"', '"portal"', "caller[0].uri: "),
    "URI with a space": ('"urn:example:portal"', '"urn:example:por tal"', "caller[0].uri: "),
    "URI with a NUL": ('"urn:example:portal"', '"urn:example:portal\\u0000"', "caller[0].uri: "),
    "URI with a line": ('"urn:example:portal"', '"urn:example:portal\\n"', "caller[0].uri: "),
    "URI twice": ('name = "desk"\n', 'name = "desk"\nuri = "urn:example:portal"\n', "caller uri urn:example:portal is given twice"),
    "caller twice": ('name = "desk"', 'name = "portal"', "caller portal is given twice"),
    "credential's name": ('"clerk"', '"Clerk"', "caller[0].credentials"),
    "no listener": ("[[listener]]", "[[listeners]]", "listener: is missing"),
    "no token": ("[[token]]", "[[tokens]]", "token: is missing"),
    "not TOML": ("[server]", "[server", "not TOML: "),
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
