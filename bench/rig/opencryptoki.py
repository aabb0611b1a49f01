"""
opencryptoki's soft token, asked in a house of its own.

Its state and its daemon belong to the whole machine. So the question runs behind `unshare`: in a mount and IPC namespace
in which /etc/opencryptoki, /var/lib/opencryptoki, its locks and the shared memory are empty file systems, and nothing of
it is left afterwards. That needs root, and Debian's packages opencryptoki and opensc (for pkcs11-tool).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.rig.child import start
from bench.rig.softhsm import PIN, SO_PIN, Key, Token, key_label

REPOSITORY = Path(__file__).parent.parent.parent
_MODULES = (
    Path("/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so"),
    Path("/usr/lib/aarch64-linux-gnu/pkcs11/libopencryptoki.so"),
    Path("/usr/lib64/pkcs11/libopencryptoki.so"),
)
_CONF = "version opencryptoki-3.8\n\nslot 0\n{\nstdll = libpkcs11_sw.so\ntokname = swtok\n}\n"
_EMPTY = ("/etc/opencryptoki", "/var/lib/opencryptoki", "/run/lock/opencryptoki", "/var/log/opencryptoki", "/dev/shm")  # noqa: S108 -- in the house it is empty
_LABEL = "soft"


class Skipped(RuntimeError):
    """The soft token cannot be asked here; the message says why."""


def rows_from_house(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of `bench.soft`, run in its house; raises `Skipped`."""
    if os.geteuid() or shutil.which("unshare") is None:
        raise Skipped("its namespace needs root and util-linux's unshare")
    if shutil.which("pkcsslotd") is None or shutil.which("pkcs11-tool") is None:
        raise Skipped("pkcsslotd or pkcs11-tool is missing; on Debian: apt-get install opencryptoki opensc")
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = ["unshare", "--mount", "--ipc", "--propagation", "private", sys.executable, "-m", "bench.soft"]
        words = [*command, file.name, *(["--quick"] if quick else [])]
        done = subprocess.run(words, cwd=REPOSITORY, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Skipped("it did not work; see above")
        found: list[dict[str, Any]] = json.loads(Path(file.name).read_text())
    return found


@contextmanager
def soft_token(directory: Path) -> Iterator[Token]:
    """A token with an RSA-2048 key; only within the house."""
    module = next((path for path in _MODULES if path.exists()), None)
    if module is None:
        raise Skipped("libopencryptoki.so is missing")
    for place in map(Path, _EMPTY):
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", place], check=True)
    for place in map(Path, ("/var/lib/opencryptoki/swtok/TOK_OBJ", "/run/lock/opencryptoki/swtok")):
        place.mkdir(parents=True)
        for path in (place, place.parent):
            shutil.chown(path, group="pkcs11")
            path.chmod(0o770)
    Path("/etc/opencryptoki/opencryptoki.conf").write_text(_CONF)
    daemon = start(["pkcsslotd", "-f"], environment=os.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield _made(module, directory)
    finally:
        daemon.terminate()
        daemon.wait()


def _made(module: Path, directory: Path) -> Token:
    pin_file = directory / "soft.pin"
    pin_file.write_text(PIN + "5678")  # this token takes no shorter one
    pin_file.chmod(0o400)
    pin = pin_file.read_text()
    deadline = time.monotonic() + 10
    while True:
        tool = ["pkcs11-tool", "--module", str(module)]
        if subprocess.run([*tool, "-L"], check=False, capture_output=True).returncode == 0:
            break
        if time.monotonic() > deadline:
            raise Skipped("pkcsslotd did not come up")
        time.sleep(0.1)
    so = ["--login", "--login-type", "so", "--so-pin", SO_PIN]
    key = rsa.generate_private_key(65537, 2048)
    pkcs8 = directory / "soft.key.der"
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pkcs8.write_bytes(key.private_bytes(*form))
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    spki_file = directory / "soft.spki"
    spki_file.write_bytes(spki)
    label = key_label(_LABEL, "RSA-2048")
    named = ["--label", label, "--id", "a001", "--login", "--pin", pin]
    for words in (
        ["--init-token", "--label", _LABEL, "--so-pin", SO_PIN],
        [*so, "--init-pin", "--pin", pin],
        ["--write-object", str(pkcs8), "--type", "privkey", *named, "--usage-sign"],
        ["--write-object", str(spki_file), "--type", "pubkey", *named, "--usage-sign"],
    ):
        done = subprocess.run([*tool, *words], check=False, capture_output=True, text=True)
        if done.returncode:
            raise Skipped(f"pkcs11-tool {words[0]}: {done.stderr.strip()}")
    return Token(_LABEL, module, pin_file, {}, {"RSA-2048": Key(label, spki, spki_file)})
