"""What deploy/ has for the portal and the window: the commented examples, the systemd units, and `check`."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import BaseModel

from portal_adapter import settings as portal
from portal_adapter.__main__ import COMMANDS, EX_CONFIG
from portal_adapter.cli import check
from portal_adapter.serving import ACCEPTED_MAX, STOP_S
from portal_adapter.settings import SettingsError
from portal_adapter.window import settings as window
from tests.daemon import REPOSITORY
from tests.portal.real import Real

DEPLOY = REPOSITORY / "deploy"
KINDS: Mapping[str, tuple[Any, type[BaseModel]]] = {
    "portal": (portal, portal.Settings),
    "window": (window, window.Settings),
}
EXPOSURE_MAX = 15  # tenths, as systemd-analyze counts: 1.5
each = pytest.mark.parametrize("name", KINDS)


def example(name: str) -> str:
    return (DEPLOY / f"{name}.toml").read_text()


def sections(name: str) -> dict[str, type[BaseModel]]:
    """Section -> its model."""
    return {key: _model(field.annotation) for key, field in KINDS[name][1].model_fields.items()}


def _model(annotation: Any) -> type[BaseModel]:
    """The model in `Model | None` or `tuple[Model, ...]`."""
    if get_origin(annotation) in {Union, UnionType, tuple}:
        return next(one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel))
    assert issubclass(annotation, BaseModel)
    return annotation


def keys(name: str) -> dict[tuple[str, str], str]:
    """(section, key) -> the comment above it; '#key =' and '#[section]' are what is not given there."""
    section, comment, found = "", "", {}
    text = re.sub(r"^#(?=[a-z0-9_]+ = |\[)", "", example(name), flags=re.MULTILINE)
    for line in text.splitlines():
        if line.startswith("#"):
            comment += line.removeprefix("#") + "\n"
        elif line.startswith("["):
            section, comment = line.strip("[]"), ""
        else:
            if "=" in line:
                found[section, line.partition(" =")[0]] = comment
            comment = ""
    return found


@each
def test_the_example_loads(name: str, tmp_path: Path) -> None:
    """UI-07: the example is a configuration, and with every key that it only mentions in the other's place, too."""
    module, _ = KINDS[name]
    settings = module.load(DEPLOY / f"{name}.toml")
    assert settings.window.origin == "https://sign.millbrook.example"
    assert settings.portal.origin == "https://portal.millbrook.example"
    other = tmp_path / "other.toml"
    text = re.sub(r"^\[cards\]\n(?:(?!\n\n).)*", "", example(name), flags=re.MULTILINE | re.DOTALL)
    for key in ("server", "clamd"):
        text = re.sub(rf"^{key} = .*$", "", text, flags=re.MULTILINE)
    other.write_text(re.sub(r"^#(?=[a-z0-9_]+ = |\[)", "", text, flags=re.MULTILINE))
    assert module.load(other)


def test_the_two_examples_fit() -> None:
    """TOK-14: portal and window name each other, and no file of one is the other's."""
    one, other = portal.load(DEPLOY / "portal.toml"), window.load(DEPLOY / "window.toml")
    assert (one.window.origin, one.portal.origin) == (other.window.origin, other.portal.origin)
    assert f'name = "{one.window.caller}"' in (DEPLOY / "paraph.toml").read_text()
    files = [set(re.findall(r'"(/etc/[^"]+)"', example(name))) for name in KINDS]
    assert not files[0] & files[1]


@each
def test_every_key_is_explained_with_its_default(name: str) -> None:
    """UI-07: each setting stands in the example under a comment, which says its default, or that it is required; no other does."""
    explained = keys(name)
    for section, model in sections(name).items():
        for key, field in model.model_fields.items():
            comment = explained.pop((section, key), None)
            assert comment, f"{section}.{key} is not explained"
            if field.is_required():
                assert "Required." in comment, f"{section}.{key}"
            elif isinstance(field.default, tuple) and field.default:
                assert f"Default: {json.dumps(list(field.default))}" in comment, f"{section}.{key}"
            elif isinstance(field.default, bool | int | str):
                assert f"Default: {json.dumps(field.default)}" in comment, f"{section}.{key}"
            else:
                assert "Default: none" in comment, f"{section}.{key}"
    assert not explained


@each
def test_the_unit_fits_the_program(name: str) -> None:
    """UI-07: its command is one of ours, its times and exit codes are the program's, and its user is its own."""
    text = (DEPLOY / f"paraph-{name}.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    program, command, flag, config = shlex.split(unit["ExecStart"])
    assert (Path(program).name, flag, config) == ("paraph-portal", "--config", f"/etc/paraph-{name}/{name}.toml")
    assert command == {"portal": "serve", "window": "window"}[name]
    assert command in COMMANDS
    assert unit["User"] == unit["Group"] == f"paraph-{name}"
    assert unit["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert int(unit["TimeoutStopSec"]) > STOP_S
    assert int(unit["LimitNOFILE"]) > 3 * ACCEPTED_MAX  # two listeners, and as much for files
    if name == "portal":
        assert f'state = "/var/lib/{unit["StateDirectory"]}"' in example(name)
        assert f'socket = "/run/{unit["RuntimeDirectory"]}/' in example(name)
    else:
        assert "StateDirectory" not in unit
    before = ""
    for line in text.splitlines():
        if re.match(r"(?!Description=|ExecStart=)[A-Z]\w+=", line):
            assert before.startswith("#") or re.match(r"[A-Z]\w+=", before), f"no reason: {line}"
        before = line


@each
def test_the_unit_is_shut_in(name: str) -> None:
    """UI-07, row 7.5: by systemd's own count at most 1.5 of 10, where systemd is there to count."""
    analyze = shutil.which("systemd-analyze")
    unit = DEPLOY / f"paraph-{name}.service"
    if analyze is None:
        assert "\nCapabilityBoundingSet=\n" in unit.read_text()
        return
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- check


@each
def test_check_passes_what_can_be_served(real: Real, name: str) -> None:
    """UI-07: `check` says so of either file, makes nothing, and looks at no database."""
    done = real.run("check", name)
    origin = {"portal": real.portal_origin, "window": real.window_origin}[name]
    assert (done.returncode, done.stderr) == (0, "")
    assert f"can be served as {origin}" in done.stdout


@pytest.mark.parametrize(
    ("name", "line", "changed", "said"),
    [
        ("portal", r"^key_file = .*$", 'key_file = "gone"', ["gone: No such file"]),
        ("portal", r"^key_file = .*$", 'key_file = "short.key"', ["has 5 bytes; 32 random bytes"]),
        ("portal", r"^issuers = .*$", 'issuers = ["key"]', ["key: "]),
        ("portal", r"^issuers = ", "rsa_bits_min = 2047\nissuers = ", ["trust.rsa_bits_min: ", "2048"]),
        ("portal", r"^fr = .*$", 'fr = "gone-fr"', ["gone-fr: No such file"]),
        ("portal", r"^profile = .*$", 'profile = "key"', ["key: not TOML"]),
        ("portal", r"^caller = .*$", "coller = 1", ["window.caller: is missing", "window.coller: is unknown"]),
        ("portal", r"^origin = .*$", 'origin = "http://x"', ["portal.origin: ", "cards.origin: ", "window.origin: "]),
        ("portal", r"^sender = .*$", 'sender = "portal@localhost"', ["mail.sender: is an e-mail address"]),
        ("portal", r"^name = .*$", 'name = "x"\nhelp_email = "the desk"', ["portal.help_email: is an e-mail address"]),
        ("portal", r"^address = .*$", 'address = "127.0.0.1:70000"', ["listener.address: a port is"]),
        (
            "portal",
            r'^origin = "https://127.0.0.1:',
            'origin = "https://localhost:',
            ["the window has a host name of its own"],
        ),
        (
            "window",
            r'^origin = "https://127.0.0.1:',
            'origin = "https://localhost:',
            ["the window has a host name of its own"],
        ),
        ("window", r"^profile = .*$", 'profile = "gone"', ["gone: No such file"]),
        ("window", r"^profile = .*$", 'profile = "no-certificate.toml"', ["short.key: "]),
        ("window", r"^certificate = .*$", 'certificate = "key"', ["key, "]),
        ("window", r"^name = .*$", "", ["portal.name: is missing"]),
        ("window", r"^\[listener\]$", "[listner]", ["listener: is missing", "listner: is unknown"]),
    ],
)
def test_check_names_what_is_wrong(real: Real, name: str, line: str, changed: str, said: list[str]) -> None:
    """UI-07: a mistake in either file, or a file that it names and that cannot be used, is named."""
    (real.directory / "short.key").write_bytes(b"short")
    (real.directory / "short.key").chmod(0o600)
    text = (real.directory / "window.client.toml").read_text()
    (real.directory / "no-certificate.toml").write_text(re.sub(r'(\ncertificate = )".*"', r'\1"short.key"', text))
    good = real.directory / f"{name}.toml"
    bad = real.directory / f"bad-{name}.toml"
    bad.write_text(re.sub(line, changed, good.read_text(), flags=re.MULTILINE))
    with pytest.raises(SettingsError) as refused:
        check.run(argparse.Namespace(config=bad))
    for one in said:
        assert one in str(refused.value)


def test_check_names_every_file_at_once(real: Real) -> None:
    """UI-07: several files that cannot be used are all named, a line each, and it ends with 78."""
    text = (real.directory / "portal.toml").read_text()
    for key in ("key_file", "profile", "fr", "en"):
        text = re.sub(rf"^{key} = .*$", f'{key} = "gone-{key}"', text, flags=re.MULTILINE)
    (real.directory / "worse-portal.toml").write_text(text)
    done = real.run("check", "worse-portal")
    assert done.returncode == EX_CONFIG
    said = done.stderr.splitlines()
    assert [key for key in ("key_file", "profile", "fr", "en") if any(f"gone-{key}:" in line for line in said)] == [
        "key_file", "profile", "fr", "en"
    ]  # fmt: skip


def short_tls(real: Real, name: str, key: Any) -> tuple[Path, Path]:
    """Certificate and key in PEM; who has issued it does not matter."""
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate, private = (real.directory / f"{name}.{end}" for end in ("pem", "key"))
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    return certificate, private


@each
def test_check_warns_of_short_keys(real: Real, name: str) -> None:
    """UI-07: the keys by which the program shows itself to browsers and to the daemon: a warning each, and it can be served."""
    text = (real.directory / f"{name}.toml").read_text()
    profile = (real.directory / f"{name}.client.toml").read_text()
    files = {
        f"[{section}]": short_tls(real, f"short-{name}-{section}", rsa.generate_private_key(65537, 2048))
        for section in ("listener", "cards", "client")
    }
    for section, (certificate, key) in files.items():
        given = rf'\1certificate = "{certificate}"\nkey = "{key}"'
        wanted = rf"({re.escape(section)}\n(?:(?!\[).*\n)*?)certificate = .*\nkey = .*"
        text = re.sub(wanted, given, text)
    certificate, key = files["[client]"]
    (real.directory / "short.client.toml").write_text(
        re.sub(r"certificate = .*\nkey = .*", f'certificate = "{certificate}"\nkey = "{key}"', profile)
    )
    text = text.replace(f'profile = "{name}.client.toml"', 'profile = "short.client.toml"')
    (real.directory / f"short-{name}.toml").write_text(text)
    done = real.run("check", f"short-{name}")
    assert done.returncode == 0 and "can be served as " in done.stdout, done.stderr
    which = ["[listener]", "[client]"] if name == "window" else list(files)
    fault = "has an RSA key of 2048 bits, less than 3072: renew it with a longer key"
    config = real.directory / f"short-{name}.toml"
    assert sorted(done.stderr.splitlines()) == sorted(f"{config}: warning: {files[one][0]} {fault}" for one in which)


def test_check_warns_of_a_lower_setting(real: Real) -> None:
    """UI-07, TOK-08: who goes down to 2048 bits for people's keys is told by the setting's name; 3072 says nothing."""
    text = (real.directory / "portal.toml").read_text()
    for bits, said in ((2048, "warning: trust.rsa_bits_min is 2048: "), (3071, "rsa_bits_min is 3071"), (3072, "")):
        config = real.directory / "lower-portal.toml"
        config.write_text(text.replace("\nissuers = ", f"\nrsa_bits_min = {bits}\nissuers = "))
        done = real.run("check", "lower-portal")
        assert done.returncode == 0 and "can be served as " in done.stdout
        assert (said in done.stderr) if said else done.stderr == ""


def test_portal_and_window_have_origins_of_their_own(tmp_path: Path) -> None:
    """TOK-14: a window at the portal's origin is refused: its cookies and pages would be the portal's."""
    text = example("window").replace("https://sign.millbrook.example", "https://portal.millbrook.example")
    (tmp_path / "window.toml").write_text(text)
    with pytest.raises(SettingsError, match="a host name of its own"):
        window.load(tmp_path / "window.toml")
    text = example("portal").replace("https://cards.millbrook.example", "https://sign.millbrook.example")
    (tmp_path / "portal.toml").write_text(text)
    with pytest.raises(SettingsError, match="an origin of their own"):
        portal.load(tmp_path / "portal.toml")


@each
def test_a_key_that_others_can_read_is_refused(name: str, tmp_path: Path) -> None:
    """UI-07: each secret's file is its program's alone, or its group's to read; what others can read is named at the start."""
    module, _ = KINDS[name]
    text, secrets = example(name), {"key", "key_file", "login_file"}
    for key, path in re.findall(r'^(\w+) = "(/etc/[^"]+)"$', text, re.MULTILINE):
        if key not in secrets:
            continue
        file = tmp_path / Path(path).name
        file.touch()
        (tmp_path / "changed.toml").write_text(text.replace(f'"{path}"', f'"{file}"'))
        for mode in (0o644, 0o604, 0o602, 0o660):
            file.chmod(mode)
            with pytest.raises(SettingsError, match=f"{key}: others can read or change"):
                module.load(tmp_path / "changed.toml")
        for mode in (0o400, 0o600, 0o640, 0o440):
            file.chmod(mode)
            module.load(tmp_path / "changed.toml")


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("postgresql:///portal", True),
        ("postgresql://paraph-portal@/portal?host=/run/postgresql", True),
        ("postgresql://paraph-portal@127.0.0.1:5433/portal", True),
        ("postgresql://paraph-portal@db.example/portal?sslmode=verify-full&sslrootcert=ca.pem", True),
        ("postgresql://paraph-portal@db.example/portal", False),
        ("postgresql://paraph-portal@db.example/portal?sslmode=require", False),  # with whosever certificate
        ("postgresql://paraph-portal@db.example/portal?sslmode=verify-full&sslmode=disable", False),
        ("postgresql://paraph-portal@/portal?host=db.example", False),
        ("postgresql://paraph-portal@localhost/portal?host=/run/postgresql,db.example", False),
        ("mysql://paraph-portal@db.example/portal", False),
        ("http://[", False),
    ],
)
def test_a_database_elsewhere_is_reached_by_tls(url: str, is_taken: bool, tmp_path: Path) -> None:
    """UI-07: one on this host by its socket or loopback; any other with its certificate checked, or not at all."""
    text = re.sub(r"^#(database = ).*$", rf'\1"{url}"', example("portal"), flags=re.MULTILINE)
    (tmp_path / "portal.toml").write_text(text)
    if is_taken:
        assert portal.load(tmp_path / "portal.toml").portal.database == url
    else:
        with pytest.raises(SettingsError, match=r"portal\.database: "):
            portal.load(tmp_path / "portal.toml")
