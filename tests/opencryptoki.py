"""
opencryptoki's soft token, in a house of its own: real PIN flags and a real lock after three wrong PINs.

    with Opencryptoki() as house:                    # pkcsslotd runs
        house.token("soft", pin="12345678")
        keys = house.keys(["RSA-2048"])              # kind -> (CKA_ID, SubjectPublicKeyInfo)
        TokenConfig(..., module=house.module, environment=house.environment)

Its state and its daemon belong to the whole machine. So they live in mount and IPC namespaces in which /etc/opencryptoki,
/var/lib/opencryptoki, /run and the shared memory are empty file systems; a process comes in by `tests/door`. There may be
several houses. Each is gone when it is closed, or with the process of the tests, however that ends. Needs root.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests import door
from tests.softhsm import SO_PIN, found, generate

PIN = "12345678"  # it takes 4 to 8
TRIES = 3  # then it is locked, until its security officer gives another PIN
START_S = 10.0
MODULE = found("pkcs11/libopencryptoki.so")

# `cat` ends when the process of the tests does: its end of the pipe is closed then.
_HOUSE = """
set -e
for place in /etc/opencryptoki /var/lib/opencryptoki /var/log/opencryptoki /run /dev/shm; do
    mkdir -p $place
    mount -t tmpfs -o mode=0755 tmpfs $place
done
chmod 1777 /dev/shm
mkdir -m 1777 /run/lock
mkdir -p /run/lock/opencryptoki/swtok /var/lib/opencryptoki/swtok/TOK_OBJ
chgrp -R pkcs11 /run/lock/opencryptoki /var/lib/opencryptoki
chmod -R 770 /run/lock/opencryptoki /var/lib/opencryptoki
printf 'version opencryptoki-3.8\\nslot 0\\n{\\nstdll = libpkcs11_sw.so\\ntokname = swtok\\n}\\n' \
    >/etc/opencryptoki/opencryptoki.conf
echo ready
exec cat >/dev/null
"""


class Opencryptoki:
    """A house with a running daemon and one slot. `module` and `environment` are for whoever comes in by the door."""

    def __init__(self) -> None:
        if os.geteuid():
            raise RuntimeError("opencryptoki's house is a mount namespace: run the tests as root")
        self.module = door.build()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-opencryptoki-"))
        self.daemon: subprocess.Popen[bytes] | None = None
        self.made: dict[str, tuple[bytes, bytes]] = {}
        self.label = self.pin = ""
        self._last_id = 0
        self._house = subprocess.Popen(
            ["unshare", "--mount", "--ipc", "--propagation", "private", "sh", "-c", _HOUSE],
            cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.environment = door.environment(self._house.pid, MODULE)
        try:
            assert self._house.stdout is not None
            if self._house.stdout.readline() != b"ready\n":
                raise RuntimeError("no house for opencryptoki; is Debian's package opencryptoki installed?")
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._house.pid

    def start(self) -> None:
        """Start the daemon, and wait until a module can be initialised."""
        log = self.directory / "pkcsslotd.log"
        with log.open("ab") as out:
            self.daemon = subprocess.Popen(
                self._inside("setpriv", "--pdeathsig", "KILL", "pkcsslotd", "-f"), stdout=out, stderr=out
            )
        deadline = time.monotonic() + START_S
        while self._tool("-L").returncode:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pkcsslotd does not answer: {log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to the daemon; who has the module loaded goes on, who loads it finds nothing."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def token(self, label: str = "soft", pin: str = PIN) -> None:
        """Initialise the token, which ends all that was on it."""
        self.label, self.pin = label, pin
        self.made.clear()
        self._must("--init-token", "--label", label, "--so-pin", SO_PIN)
        self.unblock(pin)

    def unblock(self, pin: str = "") -> None:
        """
        The security officer gives the user a PIN (the same one without an argument), and the user logs in: all tries are
        back. The first alone would unlock it, and leave the warnings of a token that is not locked.
        """
        self.pin = pin or self.pin
        self._must("--login", "--login-type", "so", "--so-pin", SO_PIN, "--init-pin", "--pin", self.pin)
        self._must("--login", "--pin", self.pin, "--list-objects")

    def keys(self, kinds: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """Generate a key pair of each kind, CKA_LABEL the kind; kind -> (CKA_ID, DER SubjectPublicKeyInfo)."""
        wanted = []
        for kind in kinds:
            self._last_id += 1
            wanted.append((kind, (b"\xa0" + self._last_id.to_bytes(2)).hex(), kind))
        pairs = generate(self.module, self.environment, {"token_label": self.label}, self.pin, wanted)
        self.made |= pairs
        return pairs

    def wrong_pin(self) -> None:
        """Somebody else's wrong PIN."""
        if not self._tool("--login", "--pin", "9" * len(self.pin), "--list-objects").returncode:
            raise RuntimeError("a wrong PIN was right")

    def flags(self) -> set[str]:
        """What the token says of the user's PIN: of 'count low', 'final try', 'locked'."""
        said = self._tool("-L").stdout
        words = {"user PIN count low": "count low", "final user PIN try": "final try", "user PIN locked": "locked"}
        return {short for long, short in words.items() if long in said}

    def close(self) -> None:
        for process in (self.daemon, self._house):
            if process is not None:
                process.kill()
                process.wait()
        for pipe in (self._house.stdin, self._house.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self._house.pid), "--mount", "--ipc", *command]

    def _tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = self._inside("pkcs11-tool", "--module", str(MODULE), *words)
        return subprocess.run(command, check=False, text=True, capture_output=True)

    def _must(self, *words: str) -> None:
        done = self._tool(*words)
        if done.returncode:
            raise RuntimeError(f"pkcs11-tool {words[0]}: {done.stderr.strip()}")


def main() -> None:
    """A house with a token, until the input ends: for trying things by hand."""
    with Opencryptoki() as house:
        house.token()
        house.keys(["RSA-2048"])
        print(house.module, house.environment, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
