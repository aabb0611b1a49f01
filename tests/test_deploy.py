"""What deploy/ holds works: the example configuration, the systemd unit, the set-up, the demo."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from signer import config as configs
from signer.__main__ import parser
from signer.cli.exits import CONFIG
from signer.config import Config, Listener
from signer.limits import DESCRIPTORS_WANTED, DRAIN_S
from signer.policy import Policy

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
EXAMPLE = DEPLOY / "paraph.toml"
UNIT = DEPLOY / "paraph.service"
EXPOSURE_MAX = 15  # tenths, as systemd-analyze counts: 1.5
SECTIONS = {
    "server": configs.Server,
    "listener": configs.Listener,
    "token": configs.Token,
    "caller": configs.Caller,
    "group": configs.Group,
    "people": configs.People,
    "people.mail": configs.Mail,
    "trust": configs.Trust,
    "trust.crl": configs.Crl,
    "ledger": configs.Ledger,
    "ledger.anchor": configs.LedgerAnchor,
}
OWN_SECTIONS = {"ledger": {"anchor"}, "people": {"mail"}, "trust": {"crl"}}  # fields that are sections of their own


# --- The example configuration ---------------------------------------------------------------------------------------


def test_the_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as shipped, with files in the places of those that a real machine would have."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = EXAMPLE.read_text()
    for number, name in enumerate(re.findall(r'"(/(?:etc|usr)/[^"]+)"', text)):
        file = tmp_path / f"{number}-{Path(name).name}"
        file.touch()
        text = text.replace(f'"{name}"', f'"{file}"')
    path = tmp_path / "paraph.toml"
    path.write_text(text)
    config = configs.load(path)
    assert {token.kind for token in config.token} == {"smartcard", "signing-server"}
    assert {caller.role for caller in config.caller} == {"submit", "consent", "self", "operator"}
    assert [listener.socket is None for listener in config.listener] == [True, False]
    assert config.trust.roots
    assert [anchor.syslog for anchor in config.ledger.anchor] == [None, "/dev/log"]
    with pytest.raises(configs.ConfigError, match=r"trust\.roots"):
        Policy.of(config)  # an empty file is no anchor, and is not taken for one


def keys_of_the_example() -> dict[tuple[str, str], str]:
    """(section, key) -> the comment above it, where it stands first; '#key =' is one that is not given there."""
    section, comment, found = "", "", {}
    for line in re.sub(r"^#(?=[a-z0-9_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE).splitlines():
        if line.startswith("#"):
            comment += line.removeprefix("#") + "\n"
        elif line.startswith("["):
            section, comment = line.strip("[]"), ""
        else:
            if "=" in line:
                found.setdefault((section, line.partition(" =")[0]), comment)
            comment = ""
    return found


def test_every_key_is_explained() -> None:
    """Each field of the configuration's models stands in the example, with a comment above it."""
    explained = keys_of_the_example()
    assert {name for name in SECTIONS if "." not in name} == Config.model_fields.keys() - {"sha256"}
    for name, section in SECTIONS.items():
        for key in section.model_fields.keys() - OWN_SECTIONS.get(name, set()):
            assert explained.get((name, key)), f"{name}.{key}"


@pytest.mark.parametrize("name", SECTIONS)
def test_the_defaults_are_told_as_they_are(name: str) -> None:
    """Where a key may be left out, the comment says what holds then; where it may not, it says 'Required'."""
    explained, section = keys_of_the_example(), SECTIONS[name]
    for key, field in section.model_fields.items():
        if key in OWN_SECTIONS.get(name, set()):
            continue
        comment = explained[name, key]
        if field.is_required():
            assert "Required." in comment, key
        elif isinstance(field.default, bool | int | float | str):
            assert f"Default: {shown(field.default)}" in comment, key
        elif section is not Listener:  # where nothing has a default: an address needs three files, a socket its caller
            assert "Default: none" in comment, key


def shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    return json.dumps(default)


# --- The systemd unit ------------------------------------------------------------------------------------------------


def directives() -> dict[str, str]:
    pairs = [line.partition("=") for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return {key: value for key, _, value in pairs}


def test_every_directive_has_its_reason() -> None:
    """Each line of the unit stands under a comment, alone or with the lines that share it."""
    before = ""
    for number, line in enumerate(UNIT.read_text().splitlines(), 1):
        given = re.match(r"[A-Z]\w+=", line) is not None
        if given and not re.match(r"Description=|ExecStart=", line):
            assert before.startswith("#") or re.match(r"[A-Z]\w+=", before), f"line {number}: {line}"
        before = line


def test_the_unit_fits_the_program() -> None:
    """Its command line parses, and its times, exit codes and directories are those of the daemon and the example."""
    unit, example = directives(), EXAMPLE.read_text()
    program, *arguments = shlex.split(unit["ExecStart"])
    assert Path(program).name == "paraph"
    assert parser().parse_args(arguments).config == Path("/etc/paraph/paraph.toml")
    assert int(unit["TimeoutStopSec"]) > DRAIN_S
    assert int(unit["LimitNOFILE"]) >= DESCRIPTORS_WANTED
    assert unit["KillMode"] == "mixed"  # lanes finish what they have
    assert unit["RestartPreventExitStatus"] == str(CONFIG)
    assert f'state = "/var/lib/{unit["StateDirectory"]}"' in example
    assert f'socket = "/run/{unit["RuntimeDirectory"]}/' in example
    credentials = re.findall(r"^LoadCredential=([^:]+):", UNIT.read_text(), re.MULTILINE)
    assert credentials == re.findall(r'^\w+_credential = "([^"]+)"', example, re.MULTILINE)
    assert f'file = "/var/log/{unit["LogsDirectory"]}/' in example


def test_the_unit_is_shut_in() -> None:
    """By systemd's own count at most 1.5 of 10, where systemd is there to count."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        assert directives()["CapabilityBoundingSet"] == ""
        return
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(UNIT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Set-up ----------------------------------------------------------------------------------------------------------


def test_make_lists_its_targets() -> None:
    """`make` alone prints a line for each target that people call."""
    said = subprocess.run(["make", "-C", str(ROOT)], check=True, capture_output=True, text=True).stdout
    for target in ("demo", "test", "soak", "lint", "proto", "bench", "clean", "help"):
        assert re.search(rf"^  make {target} +\S", said, re.MULTILINE), target


def test_set_up_is_silent_when_all_is_there() -> None:
    """Nothing to do: it says nothing, and is done in under a second."""
    setup = [str(DEPLOY / "setup"), "tests"]
    subprocess.run(setup, check=True)
    began = time.monotonic()
    done = subprocess.run(setup, check=True, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert time.monotonic() - began < 1


def test_no_address_to_download_from() -> None:
    """Where packages come from is the machine's business; the repository names no place."""
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run", DEPLOY / "setup", ROOT / "requirements.lock"):
        assert "://" not in path.read_text(), path


# --- The demo --------------------------------------------------------------------------------------------------------


def demo(directory: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "signer", "demo", "--json", "--directory", str(directory)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.fixture(scope="module")
def shown_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("demo") / "state"
    return directory, demo(directory)


def kept(directory: Path) -> dict[str, bytes]:
    """What a second run must not touch: objects, PINs, keys, certificates. A token object counts its logins."""
    return {
        str(path.relative_to(directory)): b"" if path.name == "token.object" else path.read_bytes()
        for part in ("softhsm", "pins", "pki", "ledger")
        for path in (directory / part).rglob("*")
        if path.is_file()
    }


def test_the_demo_signs_and_others_verify(shown_demo: tuple[Path, list[dict[str, Any]]]) -> None:
    """Every document is verified, all tokens and algorithms take part, and Ed25519 is not said to be pdfsig's."""
    _, rows = shown_demo
    assert len([row for row in rows if row["output"] == "PADES_B_B"]) >= 10
    assert all(not row["problem"] for row in rows)
    assert {row["token"] for row in rows} == {"card", "stick", "server"}
    assert {row["algorithm"].partition("/")[0] for row in rows} == {"RSA_PKCS1_V15", "RSA_PSS", "ECDSA", "ED25519"}
    for row in rows:
        by = {"ED25519/SHA512": ["pyHanko", "cryptography"]}.get(row["algorithm"], ["pdfsig", "openssl"])
        assert row["verified_by"] == (by if row["output"] == "PADES_B_B" else ["openssl"])
    assert max(row["size"] for row in rows) > 5_000_000


def test_a_second_demo_keeps_what_is_there(shown_demo: tuple[Path, list[dict[str, Any]]]) -> None:
    """The same tokens, keys and certificates, and still one row for each document."""
    directory, rows = shown_demo
    before = kept(directory)
    again = demo(directory)
    assert [row["document"] for row in again] == [row["document"] for row in rows]
    assert kept(directory) == before


def test_the_demo_is_its_user_s_alone(shown_demo: tuple[Path, list[dict[str, Any]]]) -> None:
    """PINs are 0400; nothing in the directory can be read by others."""
    directory, _ = shown_demo
    assert {path.stat().st_mode & 0o777 for path in (directory / "pins").iterdir()} == {0o400}
    for path in directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_demo_s_certificates_hold(shown_demo: tuple[Path, list[dict[str, Any]]]) -> None:
    """By openssl's strict reading, each under its issuing CA; signature certificates say contentCommitment alone."""
    pki = shown_demo[0] / "pki"
    leaves = [*(pki / "credentials").iterdir(), *(pki / f"{name}.pem" for name in ("server", "portal", "operator"))]
    for leaf in leaves:
        strict = ["openssl", "verify", "-x509_strict", "-CAfile", pki / "root.pem", "-untrusted", pki / "issuing.pem"]
        subprocess.run([*strict, leaf], check=True, stdout=subprocess.DEVNULL)
        said = subprocess.run(
            ["openssl", "x509", "-in", leaf, "-noout", "-ext", "keyUsage,subjectAltName,extendedKeyUsage"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        signs = leaf.parent.name == "credentials" and not leaf.stem.endswith("-login")
        assert f"X509v3 Key Usage: critical\n    {'Non Repudiation' if signs else 'Digital Signature'}\n" in said
        assert said.count("URI:") == (leaf.stem in {"portal", "operator"})


@pytest.mark.parametrize("name", ["certificate-pdfa2b.pdf", "lettre-du-moulin.pdf", "ORIGIN.md.p7m"])
def test_a_changed_document_is_noticed(
    shown_demo: tuple[Path, list[dict[str, Any]]], tmp_path: Path, name: str
) -> None:
    """The demo's verification is none that says yes to everything: one bit, and it says no."""
    directory, rows = shown_demo
    (row,) = [row for row in rows if row["document"] == name]
    broken = tmp_path / name
    content = bytearray((directory / "signed" / name).read_bytes())
    content[2000] ^= 1
    broken.write_bytes(content)
    text = str(DEPLOY / "demo" / "corpus" / "ORIGIN.md") if name.startswith("ORIGIN") else None
    jobs = [{"file": str(broken), "content": text, "ed25519": row["algorithm"].startswith("ED25519")}]
    done = subprocess.run(
        [sys.executable, DEPLOY / "demo" / "check.py", directory / "pki", tmp_path / "nss"],
        input=json.dumps(jobs), check=True, capture_output=True, text=True,
    )  # fmt: skip
    (answer,) = json.loads(done.stdout)
    assert answer["problem"]
    assert answer["by"] == []


def test_the_demo_needs_its_programs(tmp_path: Path) -> None:
    """Without them it names the packages, and begins nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "signer", "demo", "--directory", str(tmp_path / "none")],
        env=os.environ | {"PATH": str(tmp_path)}, check=False, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "softhsm2" in done.stderr
    assert "poppler-utils" in done.stderr
    assert not (tmp_path / "none").exists()
