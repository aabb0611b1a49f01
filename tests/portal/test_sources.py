"""What the portal's sources have, and what they never have: what no test could ask for from outside."""

import ast
import logging
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from portal_adapter.cli import logs

ROOT = Path(__file__).parent.parent.parent
PORTAL = ROOT / "portal_adapter"
SOURCES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(PORTAL.rglob("*.py"))}
TEMPLATES = sorted(PORTAL.rglob("*.html"))
SCRIPT = (PORTAL / "web" / "static" / "portal.js").read_text()

# Each file that opens a connection, or starts a program, and to whom. `signer.client` is the daemon by gRPC.
CONNECTS: Mapping[str, str] = {
    "portal_adapter/accepting.py": "browsers",
    "portal_adapter/serving.py": "browsers, the front",
    "portal_adapter/auth/daemon.py": "the daemon",
    "portal_adapter/auth/number.py": "the daemon",
    "portal_adapter/files/pdf.py": "the daemon",
    "portal_adapter/window/daemon.py": "the daemon",
    "portal_adapter/files/scan.py": "clamd, a scanner's command",
    "portal_adapter/handing_over.py": "the back end's command",
    "portal_adapter/program.py": "commands of the configuration",
    "portal_adapter/files/picture.py": "a process of ours that decodes",
    "portal_adapter/form/process.py": "a process of ours that draws",
    "portal_adapter/form/press.py": "its parent",
    "portal_adapter/form/frames.py": "its parent",
    "portal_adapter/mail/sender.py": "the mail server",
    "portal_adapter/store/database.py": "the database",
}
_CONNECTING = {
    "socket", "smtplib", "subprocess", "ftplib", "poplib", "imaplib", "telnetlib", "urllib.request", "http.client", "httpx",
    "requests", "aiohttp", "grpc", "psycopg", "multiprocessing", "sqlalchemy.create_engine", "portal_adapter.program.Program",
    "signer.client.Client", "asyncio.open_connection", "asyncio.create_subprocess_exec",
}  # fmt: skip
# What makes programs, or objects of any kind, out of bytes; and what reads XML.
_EVALUATING = {"eval", "exec", "compile", "__import__", "execfile"}
_DESERIALISING = {
    "pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle", "runpy", "xml.etree", "xml.dom", "xml.sax.parse",
    "lxml", "defusedxml", "xml.sax.make_parser", "ldap", "ldap3", "pymemcache",
}  # fmt: skip
_CRYPTOGRAPHY = {"hashlib", "hmac", "secrets", "ssl", "cryptography", "uuid", "base64", "binascii"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the dotted name of what is called, as it stands there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def of_all() -> Iterator[tuple[str, str, ast.Call]]:
    for path, tree in SOURCES.items():
        for name, call in calls(tree):
            yield path, name, call


def named(name: str, *, among: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in among)


def test_nothing_is_evaluated() -> None:
    """UI-07: no text becomes a program or an object of its choice, and no XML is read."""
    assert [(path, name) for path, name, _ in of_all() if name in _EVALUATING] == []
    found = {(path, name) for path, tree in SOURCES.items() for name in imports(tree)}
    assert {(path, name) for path, name in found if named(name, among=_DESERIALISING)} == set()
    assert {name for _, name in found if name.startswith("xml")} == {"xml.sax.saxutils.escape"}


def test_no_shell_is_asked() -> None:
    """UI-07: programs are started by a list of words, which is the configuration's or ours."""
    for path, name, call in of_all():
        assert not re.fullmatch(r"os\.(system|popen|spawn\w*|exec\w*)", name), path
        assert name != "asyncio.create_subprocess_shell", path
        if name.startswith("subprocess."):
            shell = [one.value for one in call.keywords if one.arg == "shell"]
            assert not shell and isinstance(call.args[0], ast.List | ast.Attribute), (path, ast.unparse(call))


def test_few_files_may_connect() -> None:
    """UI-07: who opens a connection, or starts a program, is one of these files; none calls what somebody has typed."""
    found = {path for path, tree in SOURCES.items() if any(named(name, among=_CONNECTING) for name in imports(tree))}
    assert found == set(CONNECTS)


def test_statements_have_parameters() -> None:
    """UI-07: no statement of SQL is put together: SQLAlchemy's own expressions, or a text that stands in the source."""
    asked = 0
    for path, name, call in of_all():
        is_sql = name in {"text", "sa.text", "sqlalchemy.text"} and _is_of_sqlalchemy(path)
        if is_sql or name.endswith(("exec_driver_sql", "literal_column")):
            asked += 1
            assert _is_written_out(call.args[0]), (path, ast.unparse(call))
    assert asked >= 3


def _is_of_sqlalchemy(path: str) -> bool:
    found = set(imports(SOURCES[path]))
    return "sqlalchemy.text" in found or "sqlalchemy" in found


def _is_written_out(node: ast.expr) -> bool:
    """A constant, or the choice between constants."""
    if isinstance(node, ast.IfExp):
        return _is_written_out(node.body) and _is_written_out(node.orelse)
    return isinstance(node, ast.Constant)


def test_the_rule_for_statements_finds_what_it_forbids() -> None:
    """An f-string, a sum and a name are none that is written out."""
    for text in ("f'SELECT {x}'", "'SELECT ' + x", "x", "'SELECT %s' % x"):
        assert not _is_written_out(ast.parse(text, mode="eval").body)


def test_patterns_are_ours() -> None:
    """UI-07: no regular expression is made of what somebody has typed."""
    found = 0
    for path, name, call in of_all():
        if re.fullmatch(r"re\.(compile|search|match|fullmatch|sub|subn|split|findall|finditer)", name):
            found += 1
            parts = [one for one in ast.walk(call.args[0]) if isinstance(one, ast.Name | ast.Call | ast.FormattedValue)]
            assert not parts, (path, ast.unparse(call))
    assert found > 10


def test_templates_are_files() -> None:
    """UI-07: a page is made of a file of ours, and never of a text."""
    assert [path for path, name, _ in of_all() if name.endswith("from_string")] == []
    assert {path for path, tree in SOURCES.items() if any(name.startswith("jinja2") for name in imports(tree))} == {
        "portal_adapter/web/templates.py",
        "portal_adapter/mail/letter.py",
    }


def test_templates_escape() -> None:
    """UI-07: everything that a template shows is escaped; what is markup already is made in one place, of our own texts."""
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), path
    assert {path for path, tree in SOURCES.items() if "markupsafe.Markup" in set(imports(tree))} == {
        "portal_adapter/web/templates.py"
    }
    made = [call for _, name, call in of_all() if name == "Environment"]
    assert made and all(
        any(one.arg == "autoescape" and ast.unparse(one.value) == "True" for one in call.keywords) for call in made
    )


def test_the_script_makes_no_markup() -> None:
    """UI-07: the one script puts no text into a page as markup, evaluates none, stores none, and hears no other window."""
    for never in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "Function(", 'setTimeout("', "localStorage", "sessionStorage",
        "indexedDB", "document.cookie", "JSON.parse", "__proto__", "prototype", "Object.assign",
        "import(", "paste", "caches", "serviceWorker",
    ):  # fmt: skip
        assert never not in SCRIPT, never
    # Pages of this origin tell each other when the session ends, or the one login or signing that they are of, and a number
    # is all that is heard; no other window is.
    assert re.findall(r"(\S+)\.postMessage\(([^;]*)\);", SCRIPT) == [("others", "begun + life * 1000")]
    assert re.findall(r"""(\S+)\.addEventListener\("message", (.*)\);""", SCRIPT) == [
        ("others", "(event) => wait(Number(event.data))")
    ]
    assert re.findall(r"others = ([^;]+);", SCRIPT) == ['new BroadcastChannel(end?.dataset.of ?? "session")']
    assert "onmessage" not in SCRIPT
    # One answer of the server, whole, is written over the page that has asked for it.
    assert re.findall(r"document\.write\([^)]*\)", SCRIPT) == ["document.write(request.responseText)"]
    assert [path.name for path in (PORTAL / "web" / "static").iterdir() if path.suffix == ".js"] == ["portal.js"]


def test_codes_are_masked_and_may_be_pasted() -> None:
    """TOK-14: what only its person knows is masked in every form of the window; a password manager may fill it in."""
    masked = {
        "secret_code": "current-password|new-password",
        "new_code": "new-password",
        "again": "new-password",
        "pin": "off",
    }  # a card's PIN is no password
    found = 0
    for path in (PORTAL / "window" / "templates").glob("*.html"):
        for name, rest in re.findall(r'{{ field\("(\w+)", (.*?)\) }}', path.read_text()):
            if name in masked:
                found += 1
                assert 'type="password"' in rest and re.search(f'autocomplete="({masked[name]})"', rest), (path, name)
    assert found == 8
    assert "maxlength" not in "".join(path.read_text() for path in (PORTAL / "window" / "templates").glob("*.html"))


def test_pages_need_no_plug_in() -> None:
    """UI-07: HTML, a style sheet and a script of ours: nothing embedded, and nothing of anybody else's."""
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"<(object|embed|applet|frame|frameset|marquee|audio|video|base)\b", text), path
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", text), path


def test_chance_is_the_systems() -> None:
    """TOK-12: whatever nobody may guess comes from `secrets`, 32 bytes of it; what only has to differ is a UUID."""
    assert [
        path for path, tree in SOURCES.items() if {"random", "numpy"} & {n.split(".")[0] for n in imports(tree)}
    ] == []
    lengths = {ast.unparse(call.args[0]) for _, name, call in of_all() if re.fullmatch(r"secrets\.token_\w+", name)}
    short = {"4", "16"}  # a reference in a log, and a form's name, which nobody has to guess
    assert lengths - short == {"32", "SECRET_BYTES", "NONCE_BYTES"}
    assert {name for _, name, _ in of_all() if name.startswith("uuid.")} == {"uuid.uuid4"}


def test_cryptography_is_the_libraries() -> None:
    """TOK-14: hashes, MACs, signatures and TLS are the standard library's and `cryptography`'s; no broken hash, no cipher of ours."""
    found = {name.split(".")[0] for tree in SOURCES.values() for name in imports(tree)}
    assert not found & {"Crypto", "Cryptodome", "nacl", "OpenSSL", "jwt", "jose", "rsa", "ecdsa", "crypt", "passlib"}
    hashes = {name for _, name, _ in of_all() if re.fullmatch(r"hashlib\.\w+", name)}
    assert hashes == {"hashlib.sha256"}
    for path, tree in SOURCES.items():
        ours = [name for name in imports(tree) if name.startswith("cryptography")]
        assert not any(re.search(r"ciphers|kdf|Cipher|MD5|SHA1", name) for name in ours), path
        text = ast.unparse(tree)
        assert not re.search(
            r"hashes\.(MD5|SHA1)\b|CERT_NONE(?! if client_ca)|_create_unverified|check_hostname = False", text
        ), path


def test_no_secret_is_in_them() -> None:
    """UI-07: secrets are files that the configuration names; no field of it takes one, and no source has one."""
    settings = [PORTAL / "settings.py", PORTAL / "window" / "settings.py"]
    for path in settings:
        names = {
            node.target.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        assert not {one for one in names if re.search(r"password|secret|token|pin\b", one)}
    for path in (path for path in PORTAL.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        data = path.read_bytes()
        assert b"PRIVATE KEY-----" not in data, path
        assert not re.search(rb"(?i)(password|passwd|api_key|secret_key)\s*=\s*[\"'][^\"'{]+[\"']", data), path


def test_logs_have_utc_and_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """UI-08: both programs write to their standard error alone, by one form, in which nobody makes a line of his own."""
    made = {path for path, name, _ in of_all() if re.search(r"basicConfig|Handler$|addHandler", name)}
    assert made == {"portal_adapter/cli/logs.py"}
    users = {path for path, name, _ in of_all() if name == "write_logs"}
    assert users == {"portal_adapter/cli/serve.py", "portal_adapter/cli/window.py"}
    record = logging.LogRecord("portal", logging.INFO, "", 0, "of %s", ("a\r\n2026\u2028\x1b[2J\u202eb\x00",), None)
    record.created, record.msecs = 1.0, 0.0
    zone = time.tzname
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        first, *more = logs._Lines(logs.FORM, logs.TIME).format(record).split("\n")
    finally:
        monkeypatch.undo()
        time.tzset()  # or the other tests of this process stay in Tokyo
    assert time.tzname == zone
    assert first == "1970-01-01T00:00:01Z INFO portal: of a"
    assert more and all(line.startswith("    ") and line.isprintable() for line in more)


# ---- what is installed


def test_every_part_is_locked() -> None:
    """UI-07: requirements.lock names each part of others in one version with the hashes of its files, and is all that is installed."""
    lock = (ROOT / "requirements.lock").read_text()
    parts = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; [^\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        lock,
        re.MULTILINE,
    )
    named_in_lock = {name.replace("_", "-") for name, _, _ in parts}
    assert len(parts) == len(re.findall(r"^[^\s#-]", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for each in project["optional-dependencies"].values() for one in each)]
    names = {re.split(r"[\[<>=!~ ]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names <= named_in_lock, names - named_in_lock
    assert "--require-hashes -r requirements.lock" in (ROOT / "deploy" / "setup").read_text()


def test_what_is_installed_is_the_program() -> None:
    """UI-07: neither tests nor benchmarks, nor anything of the repository but the three packages, is in what is installed."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["signer", "pool", "portal_adapter"]}
    kinds = {path.suffix for path in PORTAL.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds <= {".py", ".html", ".css", ".js", ".svg", ".po", ".txt", ".toml", ".md", ".mako", ".cnf"}
    assert not [path for path in PORTAL.rglob("*") if path.name.startswith(("test_", ".git", ".env"))]


@pytest.mark.parametrize("text", ["import pickle", "from xml.etree import ElementTree", "import yaml"])
def test_the_rules_find_what_they_forbid(text: str) -> None:
    """An import of what deserialises is found, however it is written."""
    assert any(named(name, among=_DESERIALISING) for name in imports(ast.parse(text)))
