"""
A TPM as a token: swtpm (a TPM 2.0 in software) behind tpm2-pkcs11. It locks for real, by the TPM's own protection against
dictionary attacks; and it can be lost so that only a signature shows it, because tokens are listed from a file.

    with Tpm() as tpm:                               # swtpm runs
        tpm.token("chip", pin="1234")
        keys = tpm.keys(["RSA-2048", "P-256"])       # two at most: kind -> (CKA_ID, SubjectPublicKeyInfo)
        TokenConfig(..., module=MODULE, environment=tpm.environment)

Each has a loopback address and a directory of its own, so that there may be several. swtpm ends with the process of the
tests, however that ends.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.softhsm import PIN, SO_PIN, found

MODULE = found("pkcs11/libtpm2_pkcs11.so")
TRIES = 3
KINDS = {"RSA-2048": "rsa:2048", "P-256": "EC:secp256r1", "P-384": "EC:secp384r1"}  # with pkcs11-tool's names
START_S = 10.0
_PORT = 2321  # and the next one, for control: the client takes it for granted


class Tpm:
    """A running swtpm; what it holds outlives `kill` and `start`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-tpm-"))
        for name in ("state", "store"):
            (self.directory / name).mkdir(mode=0o700)
        # Of a /8 that is this machine's own: 127.0.0.1 is left to those who have no choice.
        self._address = "127." + ".".join(str(1 + byte % 254) for byte in secrets.token_bytes(3))
        tcti = f"swtpm:host={self._address},port={_PORT}"
        self.module = MODULE
        self.environment = {
            "TPM2_PKCS11_TCTI": tcti,
            "TPM2_PKCS11_STORE": str(self.directory / "store"),
            "TSS2_LOG": "all+none",
        }
        self._tools = os.environ | self.environment | {"TPM2TOOLS_TCTI": tcti}
        self.made: dict[str, tuple[bytes, bytes]] = {}
        self.label = self.pin = ""
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the TPM, after `kill` with what it held, and wait until it answers."""
        log = self.directory / "swtpm.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2"),
                    *("--tpmstate", f"dir={self.directory / 'state'}", "--flags", "not-need-init,startup-clear"),
                    *("--server", f"type=tcp,port={_PORT},bindaddr={self._address}"),
                    *("--ctrl", f"type=tcp,port={_PORT + 1},bindaddr={self._address}"),
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while self._run("tpm2_getcap", "properties-fixed").returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"swtpm does not answer: {log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: whoever asks the TPM for something gets an error, whoever lists tokens does not."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def token(self, label: str = "chip", pin: str = PIN) -> None:
        self.label, self.pin = label, pin
        self._module("--init-token", "--slot-index", "0", "--label", label, "--so-pin", SO_PIN)
        so = ("--login", "--login-type", "so", "--so-pin", SO_PIN)
        self._module("--token-label", label, *so, "--init-pin", "--new-pin", pin)

    def keys(self, kinds: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """Generate a key pair of each kind, CKA_LABEL the kind; kind -> (CKA_ID, DER SubjectPublicKeyInfo)."""
        for kind in kinds:
            cka_id = b"\xa0" + (len(self.made) + 1).to_bytes(2)
            user = ("--token-label", self.label, "--login", "--pin", self.pin)
            named = ("--label", kind, "--id", cka_id.hex())
            self._module(*user, "--keypairgen", "--key-type", KINDS[kind], *named)
            file = self.directory / "public.der"
            self._module(
                "--token-label", self.label, "--read-object", "--type", "pubkey", *named, "--output-file", str(file)
            )
            self.made[kind] = cka_id, file.read_bytes()
        return {kind: self.made[kind] for kind in kinds}

    def failed_tries(self) -> int:
        """How many wrong PINs the TPM counts; at `TRIES` it is locked."""
        said = self._run("tpm2_getcap", "properties-variable").stdout
        return int(next(line for line in said.splitlines() if "TPM2_PT_LOCKOUT_COUNTER" in line).split(":")[1], 0)

    def tidy(self) -> None:
        """What a resource manager does when a process is gone: its objects and sessions are flushed."""
        for what in ("--transient-object", "--loaded-session"):
            self._must("tpm2_flushcontext", what)

    def unblock(self) -> None:
        """The TPM's owner clears its lockout: all tries are back. What killed lanes have left there would leave it no room."""
        self.tidy()
        self._must("tpm2_dictionarylockout", "--clear-lockout")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _module(self, *words: str) -> None:
        self._must("pkcs11-tool", "--module", str(MODULE), *words)
        self._flush()

    def _flush(self) -> None:
        """A TPM has room for three objects, and without a resource manager nobody tidies up."""
        self._must("tpm2_flushcontext", "--transient-object")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self._tools, check=False, text=True, capture_output=True)

    def _must(self, *command: str) -> None:
        done = self._run(*command)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:4])}: {done.stderr.strip()}")
