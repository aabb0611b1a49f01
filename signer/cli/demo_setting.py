"""What the demo's daemon needs: tokens, certificates, keys, a configuration, credentials. What is there is kept."""

import contextlib
import fcntl
import json
import os
import socket
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from signer.appearing import appearing
from signer.cli.demo_steps import SCRIPTS, DemoFailed, Steps, script


async def prepare(steps: Steps, directory: Path) -> None:
    """Tokens, certificates, the ledger's keys, the daemon's configuration and credentials; what is there is kept."""
    with contextlib.ExitStack() as stack:
        (directory / "state").mkdir(exist_ok=True)
        lock(stack, directory / "state" / "lock", "a daemon still runs with the demo's state; stop it first")
    with steps("tokens and keys", 10) as advance:
        keys = json.loads(await script("tokens.py", directory, advance=advance))
    with steps("certificates") as advance:
        await script("pki.py", directory / "pki", text=json.dumps(keys), advance=advance)
    with steps("configuration"):
        _make_ledger_keys(directory / "ledger")
        _make_anchor(directory / "anchor" / "checkpoints")
        labels = [key["label"] for key in keys["keys"]]
        _write_configuration(directory, keys["module"], [label for label in labels if not label.endswith("-login")])
        _store_credentials(directory, keys["keys"])
    big = directory / "ledger-of-the-mill.pdf"
    if not big.exists():
        with steps("a document of 6 MB") as advance:
            await script("big.py", big, advance=advance)


def _make_ledger_keys(directory: Path) -> None:
    """What `paraph audit keys` makes, in this process; a key that is there is the ledger's, and is kept."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    directory.mkdir(exist_ok=True)
    if not (directory / "checkpoint.key").exists():
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
        (directory / "checkpoint.pub").write_bytes(public)
        private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        with appearing(directory / "checkpoint.key", 0o400) as draft:
            draft.write_bytes(private)
    if not (directory / "data.key").exists():
        with appearing(directory / "data.key", 0o400) as draft:
            draft.write_bytes(os.urandom(32))


def _make_anchor(file: Path) -> None:
    """The file is there before the daemon makes it, so that nobody else may read it, as nothing in the demo."""
    file.parent.mkdir(exist_ok=True)
    file.touch()


def _write_configuration(directory: Path, module: str, credentials: Sequence[str]) -> None:
    port, metrics_port = _free_ports()
    template = string.Template((SCRIPTS / "paraph.toml.in").read_text())
    values = {"directory": str(directory), "module": module, "port": str(port), "metrics_port": str(metrics_port)}
    # JSON's escapes are those of TOML's strings.
    values = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()}
    values["credentials"] = ", ".join(json.dumps(name) for name in credentials)
    (directory / "paraph.toml").write_text(template.substitute(values))
    for name, caller in (("client", "portal"), ("operator-client", "operator")):
        (directory / f"{name}.toml").write_text(
            f'server = "127.0.0.1:{port}"\nca = "pki/root.pem"\n'
            f'certificate = "pki/{caller}.pem"\nkey = "pki/{caller}.key"\n'
        )


def _store_credentials(directory: Path, keys: Sequence[dict[str, str]]) -> None:
    """What `paraph credential add` does, in this process: ten commands would take ten seconds."""
    from signer import credential as stored
    from signer.clock import Clock
    from signer.database import DATABASE
    from signer.store import open_store

    engine, clock = open_store(directory / "state" / DATABASE), Clock()
    there = stored.read(engine)
    for key in keys:
        name, cka_id = key["label"], bytes.fromhex(key["id"])
        outputs = [] if name.endswith("-login") else [stored.Output.CADES_B_B, stored.Output.PADES_B_B]
        pem = (directory / "pki" / "credentials" / f"{name}.pem").read_bytes()

        def add(name: str = name, pem: bytes = pem, cka_id: bytes = cka_id, outputs: Any = outputs) -> None:
            stored.add(engine, name, pem, cka_id=cka_id, key_label=name, outputs=outputs, clock=clock)

        try:
            add()
        except stored.CredentialError:
            if name not in there:
                raise
            stored.remove(engine, name, clock)  # its certificate was renewed, or its token made anew
            add()
    engine.dispose()


def lock(stack: contextlib.ExitStack, path: Path, taken: str) -> None:
    """Held until the stack ends; raises `DemoFailed` when somebody else has it."""
    file = stack.enter_context(path.open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoFailed(f"{taken} ({path})") from None


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody uses now. Never a fixed one: another demo's daemon would answer there."""
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
