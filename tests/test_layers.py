"""Who may import whom: by the source of every file, and by what an import really brings along."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"pool", "signer", "portal_adapter", "bench", "tests"}

# What a package never imports, wherever in it.
NEVER = {
    "pool": {"grpc", "google", "pyhanko", "starlette", "signer", "portal_adapter", "bench", "tests"},
    "signer": {"starlette", "portal_adapter", "bench", "tests"},
    "portal_adapter": {"pkcs11", "pool", "pyhanko", "asn1crypto", "bench", "tests"},
    "bench": {"tests"},
}
# Within the portal: what a part of it (a path's beginning) never imports of the portal itself. The window, where codes
# are typed, and what knows the database know nothing of each other; domain knows no HTTP.
NEVER_OF_PORTAL = {
    "portal_adapter/window/": {"store", "domain", "auth", "mail", "files", "app", "web.frame", "web.views", "web.ask"},
    "portal_adapter/domain/": {"web", "window", "app", "cli"},
    "portal_adapter/store/": {"web", "window", "app", "cli", "domain", "auth"},
    "portal_adapter/auth/": {"web", "window", "app", "cli"},
    "portal_adapter/mail/": {"web", "window", "app", "cli"},
    "portal_adapter/files/": {"web", "window", "app", "cli", "domain", "auth"},
    "portal_adapter/form/": {"web", "window", "app", "cli", "store", "domain", "auth", "mail", "files"},
    "portal_adapter/sources/": {"web", "window", "app", "cli", "store", "auth"},
    "portal_adapter/web/": {"window", "cli"},
    "portal_adapter/app.py": {"window", "cli"},
}
# Where alone a library may be imported in pool and signer; signer/v1 is generated.
ONLY_IN = {
    "greenlet": {"pool/fake.py"},
    "pkcs11": {"pool/worker.py", "pool/probe.py", "pool/shown.py"},
    "pyhanko": {"signer/examine.py", "signer/local.py", "signer/pades.py", "signer/trust.py"},
    "pyhanko_certvalidator": {"signer/local.py", "signer/pades.py", "signer/trust.py"},
    "asn1crypto": {
        "pool/shown.py",  # in a lane and in a probe, where python-pkcs11 has loaded it already
        *("signer/cms.py", "signer/examine.py", "signer/local.py", "signer/pades.py", "signer/trust.py"),
    },
    "argon2": {"signer/hasher.py"},  # hashing holds up whoever does it
    "zxcvbn": {"signer/judge.py"},  # it keeps copies of what it looks at
    "pyotp": {"signer/otp.py"},
    "segno": {"signer/qr.py"},
    "grpc": {
        *("signer/client.py", "signer/errors.py"),
        *("signer/handlers.py", "signer/listener.py", "signer/resets.py", "signer/arrival.py"),
    },
}
# What of ours portal_adapter may import.
PORTAL_ADAPTER_MAY = {"signer.v1", "signer.client", "signer.network", "signer.request_id"}
# What must not be in the process after `import ...`.
KEPT_OUT = {
    "signer.client": {"pyhanko", "pkcs11", "asn1crypto", "sqlalchemy", "cryptography", "pool", "pydantic", "msgpack"},
    "signer.__main__": {"pyhanko", "pkcs11", "asn1crypto", "sqlalchemy", "cryptography", "pool", "pydantic", "msgpack"},
    "signer.server": {"pkcs11", "pyhanko", "starlette"},
    # What starts often, or beside something else, starts with what it needs.
    "signer.committer": {"grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "asyncio"},
    "signer.audit": {"grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "asyncio"},
    "signer.evidence": {"grpc", "google", "pyhanko", "sqlalchemy"},
    "pool": {"grpc", "google", "pkcs11", "pyhanko", "asn1crypto", "sqlalchemy", "pydantic", "signer"},
    # A person's commands draw a QR code, and are in the client's installation; a hasher knows no more than it needs.
    "signer.cli.enrol": {
        "pyhanko",
        "pkcs11",
        "asn1crypto",
        "sqlalchemy",
        "cryptography",
        "pool",
        "pydantic",
        "msgpack",
    },
    "signer.cli.sign": {"pyhanko", "pkcs11", "asn1crypto", "sqlalchemy", "cryptography", "pool", "pydantic", "msgpack"},
    "signer.hasher": {"grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "cryptography", "asyncio", "sqlite3"},
    "signer.judge": {"grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "cryptography", "asyncio", "sqlite3"},
    "signer.code": {"zxcvbn", "grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "cryptography", "argon2", "pyotp"},
    # Where codes are typed there is no database, and nothing that signs.
    "portal_adapter.window.app": {"sqlalchemy", "alembic", "psycopg", "pkcs11", "pyhanko", "asn1crypto", "pool"},
    # What draws documents knows how to, and nothing else; the portal itself has none of it in its memory.
    "portal_adapter.form.drawing": {
        *("grpc", "google", "sqlalchemy", "pydantic", "babel", "starlette", "jinja2"),
        *("portal_adapter.definitions", "portal_adapter.store", "portal_adapter.domain", "portal_adapter.app"),
    },
    "portal_adapter.app": {"fpdf", "fontTools", "PIL", "pyhanko", "pkcs11", "asn1crypto", "pool"},
    # A lane's memory: pkcs11 itself uses asn1crypto.
    "pool.worker": {
        *("grpc", "google", "pyhanko", "sqlalchemy", "pydantic", "signer"),
        *("cryptography", "asyncio", "sqlite3", "pool.pool", "pool.public"),
    },
}


def imports(text: str) -> Iterator[str]:
    """Every module that a source names, in functions and under conditions too; 'a.b' for `from a import b`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def mistakes(path: str, text: str) -> list[str]:
    package = path.partition("/")[0]
    found = []
    for name in imports(text):
        top = name.partition(".")[0]
        if top in NEVER.get(package, set()):
            found.append(f"{path}: {package} never imports {top}")
        if top in ONLY_IN and package in {"pool", "signer"} and path not in ONLY_IN[top]:
            found.append(f"{path}: {top} is imported only in {', '.join(sorted(ONLY_IN[top]))}")
        allowed = any(f"{name}.".startswith(f"{each}.") for each in PORTAL_ADAPTER_MAY)
        if package == "portal_adapter" and top == "signer" and not allowed:
            found.append(f"{path}: portal_adapter imports only {', '.join(sorted(PORTAL_ADAPTER_MAY))} of ours")
        for part, never in NEVER_OF_PORTAL.items():
            inside = f"{name.removeprefix('portal_adapter.')}."
            if path.startswith(part) and any(top == "portal_adapter" and inside.startswith(f"{one}.") for one in never):
                found.append(f"{path}: {part} never imports {name}")
    return found


def sources() -> list[str]:
    packages = [ROOT / name for name in sorted(OURS) if (ROOT / name).is_dir()]
    found = [str(path.relative_to(ROOT)) for package in packages for path in package.rglob("*.py")]
    return [path for path in sorted(found) if not path.startswith(("signer/v1/", "bench/peers/"))]


def test_imports_point_one_way() -> None:
    """No file imports what its place in the design does not allow."""
    paths = sources()
    assert {"pool/pool.py", "signer/service.py", "signer/cli/sign.py"} <= set(paths)
    assert [mistake for path in paths for mistake in mistakes(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pool/pool.py", "import grpc"),
        ("pool/pool.py", "def f():\n    from google.rpc import status_pb2"),
        ("pool/pool.py", "import pkcs11.constants"),
        ("pool/worker.py", "from signer import limits"),
        ("signer/batch.py", "import grpc.aio"),
        ("signer/cades.py", "from pyhanko.sign import signers"),
        ("signer/credential.py", "if True:\n    import asn1crypto"),
        ("signer/cli/sign.py", "import tests.daemon"),
        ("portal_adapter/app.py", "from pool import Pool"),
        ("portal_adapter/app.py", "from signer import server"),
        ("portal_adapter/window/app.py", "from portal_adapter.store import schema"),
        ("portal_adapter/window/app.py", "from portal_adapter.web.frame import endpoint"),
        ("portal_adapter/domain/space.py", "from portal_adapter.web.answer import Page"),
        ("portal_adapter/web/frame.py", "import portal_adapter.window.app"),
        ("portal_adapter/files/sniff.py", "from portal_adapter.domain import archive"),
        ("portal_adapter/sources/file.py", "from portal_adapter.store.schema import accounts"),
        ("bench/run.py", "from tests import soak"),
    ],
)
def test_the_rules_find_what_they_forbid(path: str, text: str) -> None:
    """Each kind of rule refuses an import that breaks it; the files that have a permission have it."""
    assert mistakes(path, text)


def test_the_rules_allow_what_they_name() -> None:
    """A permission that no file uses any more is taken back, and the allowed imports pass."""
    for library, paths in ONLY_IN.items():
        for path in paths:
            assert library in {name.partition(".")[0] for name in imports((ROOT / path).read_text())}, (library, path)
            assert not mistakes(path, f"import {library}")
    assert not mistakes("portal_adapter/app.py", "from signer.client import Client\nfrom signer.v1 import signing_pb2")


@pytest.mark.parametrize("module", KEPT_OUT)
def test_what_an_import_brings_along(module: str) -> None:
    """A fresh interpreter that imports a module has none of the libraries that belong to others' rooms."""
    program = (
        f"import json, sys, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=ROOT, check=True, text=True, capture_output=True)
    assert KEPT_OUT[module] & set(json.loads(done.stdout)) == set()
