"""The commands as a person or a script meets them: exit codes, one-line errors, JSON, and files written whole."""

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from signer.__main__ import COMMANDS, parser
from signer.cli.exits import MEANINGS
from tests.daemon import REPOSITORY, Rig
from tests.signer.access.calls import Paraph

PDF = REPOSITORY / "deploy" / "demo" / "corpus" / "lease-of-workshop.pdf"


@pytest.fixture(scope="module")
def profiles(shared: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Client profiles of callers, and of a place where no daemon is."""
    directory = tmp_path_factory.mktemp("profiles")
    made = {}
    for name in ("portal", "operator", "stranger"):
        certificate, key = shared.files(name)
        made[name] = directory / f"{name}.toml"
        made[name].write_text(
            f'server = "127.0.0.1:{shared.port}"\nca = "{shared.pki.ca_file}"\n'
            f'certificate = "{certificate}"\nkey = "{key}"\n'
        )
    made["nowhere"] = directory / "nowhere.toml"
    made["nowhere"].write_text(f'server = "unix:{directory}/no.sock"\n')
    made["missing"] = directory / "missing.toml"
    for name, text in (("junk", "["), ("unknown", 'server = "unix:/x"\nserve = 1\n'), ("poor", 'server = "h:1"\n')):
        made[name] = directory / f"{name}.toml"
        made[name].write_text(text)
    certificate, key = shared.files("portal")
    made["number"] = directory / "number.toml"
    made["number"].write_text(f'server = "h:1"\nca = 3\ncertificate = "{certificate}"\nkey = "{key}"\n')
    for name, ca, private in (("no-pem", made["junk"], key), ("no-key", shared.pki.ca_file, made["junk"])):
        made[name] = directory / f"{name}.toml"
        made[name].write_text(f'server = "h:1"\nca = "{ca}"\ncertificate = "{certificate}"\nkey = "{private}"\n')
    yield made


# ---- help


def test_help_of_the_program(paraph: Paraph) -> None:
    """`paraph --help` lists every command and what every exit code means."""
    done = paraph("--help")
    assert done.code == 0
    for word in (*COMMANDS, *(f"{code:3d}  {meaning}" for code, meaning in MEANINGS.items())):
        assert word in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(paraph: Paraph, command: str) -> None:
    """Each command's help says what it does and gives an example that the command itself understands."""
    done = paraph(command, "--help")
    assert done.code == 0
    _, found, example = done.out.partition("example:\n")
    assert found
    words = example.split()
    assert words[:2] == ["paraph", command]
    assert parser().parse_args(words[1:]).run
    for action in _options(command):
        assert action.help, f"{action.dest} is not explained"


def _options(command: str) -> list[argparse.Action]:
    """The options of a command; its positional arguments are explained by their names."""
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return [
        action for action in commands.choices[command]._actions if action.option_strings and action.dest != "log_level"
    ]


def test_version(paraph: Paraph) -> None:
    """As the package says it."""
    done = paraph("--version")
    assert (done.code, done.out) == (0, f"paraph {version('paraph')}\n")


def test_the_configuration_before_and_behind_the_action(paraph: Paraph, shared: Rig) -> None:
    """`paraph credential` takes it in both places."""
    before = paraph("credential", "--config", shared.config, "list", "--json")
    behind = paraph("credential", "list", "--json", "--config", shared.config)
    assert (behind.code, behind.out) == (0, before.out)


def test_who_reads_no_further_ends_it_quietly(profiles: dict[str, Path]) -> None:
    """`| head`: no word on standard error, and no 0 where nobody has read what it said."""
    command = [sys.executable, "-m", "signer", "verify", PDF, "--json", "--profile", profiles["portal"]]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, cwd=REPOSITORY, text=True, check=False)
    os.close(theirs)
    assert (done.returncode != 1, done.stderr) == (True, "")


# ---- exit codes and errors


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param([], 2, "usage", id="nothing"),
        pytest.param(["swear"], 2, "swear", id="unknown-command"),
        pytest.param(["sign", "--credential", "c"], 2, "FILE", id="no-file"),
        pytest.param(["tokens", "--drain", "a", "--resume", "b"], 2, "not allowed", id="two-wishes"),
        pytest.param(["credential", "add", "x"], 2, "--certificate", id="no-certificate"),
    ],
)
def test_wrong_command_line(paraph: Paraph, words: list[str], code: int, said: str) -> None:
    """A command line that cannot be understood ends with 2, and the usage."""
    done = paraph(*words)
    assert done.code == code
    assert said in done.err
    assert "usage: paraph" in done.err


@pytest.mark.parametrize(
    ("profile", "words", "code", "said"),
    [
        ("portal", ["tokens"], 77, "RPC_NOT_ALLOWED"),
        ("stranger", ["tokens"], 77, "CALLER_UNKNOWN"),
        ("nowhere", ["tokens"], 69, "cannot be reached"),
        ("missing", ["tokens"], 78, "No such file"),
        ("junk", ["tokens"], 78, "not TOML"),
        ("unknown", ["tokens"], 78, "unknown key serve"),
        ("poor", ["tokens"], 78, "needs ca, certificate and key"),
        ("number", ["tokens"], 78, "ca is a text in quotes"),
        ("no-pem", ["tokens"], 78, "no certificate in PEM"),
        ("no-key", ["tokens"], 78, "certificate and key cannot be used"),
        ("operator", ["tokens", "--drain", "ghost"], 1, "TOKEN_UNKNOWN"),
        ("operator", ["tokens", "--resume", "card"], 1, "(card is READY, and only one that is DRAINED is resumed)"),
        ("operator", ["verify", "{pdf}"], 77, "RPC_NOT_ALLOWED"),
        ("portal", ["verify", "/nowhere/a.pdf"], 2, "there is no file /nowhere/a.pdf"),
        ("portal", ["verify", "{tmp}/a.csv.p7s"], 2, "there is no file"),
        ("portal", ["sign", "/nowhere/a.pdf", "--credential", "p-256"], 2, "No such file"),
        ("portal", ["sign", "{csv}", "--credential", "ghost"], 1, "CREDENTIAL_UNKNOWN"),
        ("portal", ["sign", "{csv}", "--credential", "expired"], 1, "CERT_EXPIRED"),
        ("portal", ["sign", "{csv}", "--credential", "suspended"], 1, "CREDENTIAL_SUSPENDED"),
        ("nowhere", ["sign", "{csv}", "--credential", "p-256"], 69, "cannot be reached"),
        ("portal", ["sign", "{csv}", "{csv}", "--credential", "p-256"], 2, "two files would both be written"),
    ],
)
def test_errors_are_one_line(
    paraph: Paraph, profiles: dict[str, Path], tmp_path: Path, profile: str, words: list[str], code: int, said: str
) -> None:
    """Each failure has its exit code and one line that says what is wrong; nothing is written."""
    csv = tmp_path / "a.csv"
    csv.write_text("a,b\n")
    places = {"pdf": PDF, "csv": csv, "tmp": tmp_path}
    done = paraph(*(word.format_map(places) for word in words), "--profile", profiles[profile])
    assert done.code == code, done
    assert said in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert not done.out
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("words", [["serve", "--check"], ["serve"], ["credential", "list"]])
def test_bad_configuration(paraph: Paraph, tmp_path: Path, words: list[str]) -> None:
    """A configuration with mistakes ends every command that reads it with 78, a line for each mistake."""
    bad = tmp_path / "bad.toml"
    bad.write_text('[server]\nstate = "x"\nlove = 1\n')
    for config, lines in ((bad, 5), (tmp_path / "missing.toml", 1)):
        done = paraph(words[0], "--config", config, *words[1:])
        assert done.code == 78
        assert len(done.err.splitlines()) == lines, done.err
        assert all(line.startswith(f"{config}: ") for line in done.err.splitlines())


def test_store_that_cannot_be_used(paraph: Paraph, shared: Rig, tmp_path: Path) -> None:
    """A state directory whose database is none is one line, not a traceback, for the daemon and for the commands."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "paraph.sqlite").write_text("junk " * 1000)
    config = tmp_path / "paraph.toml"
    config.write_text(shared.config.read_text().replace(f'"{shared.state}"', f'"{state}"'))
    for words, code in (("serve", 78), ("credential list", 1)):
        command, *rest = words.split()
        done = paraph(command, "--config", config, *rest)
        assert done.code == code
        lines = [line for line in done.err.splitlines() if " INFO " not in line]
        assert len(lines) == 1, done.err
        assert "paraph.sqlite: file is not a database" in lines[0]


def test_a_credential_that_is_added_again(paraph: Paraph, shared: Rig, tmp_path: Path) -> None:
    """It says that it was there before, and what is another one now; one without an output is refused."""
    config = tmp_path / "paraph.toml"
    config.write_text(shared.config.read_text().replace(f'"{shared.state}"', f'"{tmp_path}/state"'))
    add = ("credential", "--config", config, "add", "x", "--certificate", shared.directory / "p-256.chain.pem")
    add += ("--key-label", "P-256")
    done = paraph(*add)
    assert (done.code, "it could make nothing: give it at least one output" in done.err) == (1, True)
    assert paraph(*add, "--output", "RAW").out == "x: signature, P-256\n"
    assert paraph(*add, "--output", "RAW").out == "x: signature, P-256 (as before)\n"
    assert paraph(*add, "--output", "CADES_B_B").out == "x: signature, P-256 (replaced: outputs and bounds)\n"


def test_credential_errors(paraph: Paraph, shared: Rig, tmp_path: Path) -> None:
    """What cannot be stored is one line that says why, and 1."""
    config = tmp_path / "paraph.toml"
    config.write_text(shared.config.read_text().replace(f'"{shared.state}"', f'"{tmp_path}/state"'))
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    chain = shared.directory / "p-256.chain.pem"
    add = ["add", "x", "--certificate"]
    for words, said in (
        ([*add, junk], "not a chain of PEM certificates"),
        ([*add, tmp_path / "missing.pem"], "No such file"),
        ([*add, chain, "--key-id", "xyz"], "--key-id is hexadecimal"),
        (["add", "Big Name", "--certificate", chain, "--key-label", "k"], "name"),
        (["remove", "ghost"], "there is no credential ghost"),
        (["suspend", "ghost"], "there is no credential ghost"),
    ):
        done = paraph("credential", "--config", config, *words)
        assert (done.code, done.out) == (1, ""), done
        assert said in done.err
        assert len(done.err.splitlines()) == 1


# ---- what they print


def test_json(paraph: Paraph, shared: Rig, profiles: dict[str, Path], tmp_path: Path) -> None:
    """Whatever prints data prints it as JSON too, and nothing else on standard output."""
    csv = tmp_path / "a.csv"
    csv.write_text("a,b\n")
    done = paraph("tokens", "--json", "--profile", profiles["operator"])
    assert (done.code, done.json[0]["name"], done.json[0]["state"]) == (0, "card", "READY")
    done = paraph("sign", csv, PDF, "--credential", "p-256", "-o", tmp_path, "--json", "--profile", profiles["portal"])
    assert done.code == 0
    assert [row["status"] for row in done.json] == ["SIGNED", "SIGNED"]
    assert [Path(row["output"]).name for row in done.json] == ["a.csv.p7s", PDF.name]
    outputs = [row["output"] for row in done.json]
    done = paraph("verify", *outputs, "--json", "--profile", profiles["portal"])
    assert done.code == 0, done
    assert [report["good"] for report in done.json] == [True, True]
    assert done.json[1]["input_sha256"] == hashlib.sha256((tmp_path / PDF.name).read_bytes()).hexdigest()
    assert [len(each["revision_sha256"]) for each in done.json[1]["signatures"]] == [64]
    done = paraph("verify", PDF, csv, "--json", "--profile", profiles["portal"])
    assert done.code == 1
    assert [report["good"] for report in done.json] == [False, False]
    done = paraph("credential", "--config", shared.config, "list", "--json")
    assert done.code == 0
    assert {row["name"]: row["state"] for row in done.json}["suspended"] == "SUSPENDED"
    done = paraph("serve", "--check", "--json", "--config", shared.config)
    assert done.json == {"config": str(shared.config), "mistakes": []}


def test_tables(paraph: Paraph, shared: Rig, profiles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """For people the same is a table, and progress never mixes with it."""
    monkeypatch.setenv("COLUMNS", "200")
    done = paraph("tokens", "--profile", profiles["operator"])
    assert done.code == 0
    assert {"card", "READY", "1"} <= set(done.out.split())
    assert "signs for " in done.out
    assert not done.err
    done = paraph("credential", "--config", shared.config, "list")
    assert {"p-256", "suspended", "AUTHENTICATION"} <= set(done.out.split())


def test_a_certificates_name_is_text(
    paraph: Paraph, shared: Rig, profiles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a certificate chooses its name: printed, it moves no cursor, is no line of its own and no markup."""
    wild = "Mallory\x1b[1A\x1b[2K/x.pdf: good\n  CN=Bank\u202e[/bold]"
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = shared.pki.issuing.issue(wild, key.public_key(), "content_commitment")
    content = tmp_path / "a.csv"
    content.write_text("a,b\n")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content.read_bytes())
    cms = builder.add_signer(certificate, key, hashes.SHA256()).sign(
        Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    )
    (tmp_path / "a.csv.p7s").write_bytes(cms)
    done = paraph("verify", tmp_path / "a.csv.p7s", "--profile", profiles["portal"])
    assert all(line.isprintable() for line in done.out.split("\n")), done.out
    assert [line.startswith(space) for line, space in zip(done.out.splitlines(), ("/", "  CN=M", "    "), strict=True)]
    assert "Mallory" in done.out
    (tmp_path / "wild.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    monkeypatch.setenv("COLUMNS", "400")
    credential = ("credential", "--config", shared.config)
    try:
        add = ("add", "wild", "--certificate", tmp_path / "wild.pem", "--key-label", "w", "--output", "RAW")
        assert paraph(*credential, *add).code == 0
        done = paraph(*credential, "list")
    finally:
        paraph(*credential, "remove", "wild")
    assert all(line.isprintable() for line in done.out.split("\n")), done.out
    assert "CN=Bank\ufffd[/bold]" in done.out


# ---- files


def test_sign_never_writes_over(paraph: Paraph, profiles: dict[str, Path], tmp_path: Path) -> None:
    """A file that exists is left alone unless --force is given, and then it is whole in one step."""
    csv, target = tmp_path / "a.csv", tmp_path / "a.csv.p7s"
    csv.write_text("a,b\n")
    target.write_text("mine")
    before = target.stat().st_ino
    sign = ["sign", csv, "--credential", "p-256", "--profile", profiles["portal"]]
    done = paraph(*sign)
    assert done.code == 2
    assert "exists; --force writes over it" in done.err
    assert (target.read_text(), target.stat().st_ino) == ("mine", before)
    assert paraph(*sign, "--force").code == 0
    assert target.read_bytes()[:1] == b"\x30"
    assert target.stat().st_ino != before, "put in place by a rename"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.csv.p7s"]


def test_a_failed_signature_leaves_nothing(paraph: Paraph, profiles: dict[str, Path], tmp_path: Path) -> None:
    """With --force too, a signature that fails leaves what was there; a bad document does not stop its neighbours."""
    broken, good = tmp_path / "broken.pdf", tmp_path / "good.csv"
    broken.write_bytes(b"%PDF-1.7\nnothing more")
    good.write_text("a,b\n")
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / "broken.pdf"
    old.write_text("mine")
    profile = ("--profile", profiles["portal"])
    done = paraph("sign", broken, good, "--credential", "p-256", "-o", tmp_path / "out", "--force", *profile)
    assert done.code == 1
    assert f"{broken}: not signed: PDF_REJECTED" in done.err
    assert len(done.err.splitlines()) == 1
    assert old.read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["broken.pdf", "good.csv.p7s"]


def test_a_document_is_never_its_own_target(paraph: Paraph, profiles: dict[str, Path], tmp_path: Path) -> None:
    """With -o as the document's own directory the signed file gets a name of its own."""
    source = tmp_path / "a.pdf"
    source.write_bytes(PDF.read_bytes())
    profile = ("--profile", profiles["portal"])
    done = paraph("sign", source, "--credential", "p-256", "-o", tmp_path, "--force", *profile)
    assert done.code == 0
    assert source.read_bytes() == PDF.read_bytes()
    assert (tmp_path / "a-signed.pdf").exists()
