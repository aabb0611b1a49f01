"""The PKCS#11 module of the tests: it stands in front of any other one, logs its calls and follows a script.

README.md, beside this file, has the script language and the format of the log.
"""

import hashlib
import json
import os
import struct
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Call", "Shim", "build"]

SOURCE = Path(__file__).with_name("p11shim.c")
# nodelete: a host may unload and load the module again, and its numbers must go on.
COMPILER = (
    *("gcc", "-std=c11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"),
    "-Wl,-z,defs,-z,nodelete",
)
LOGGED = frozenset(
    {
        *("C_Initialize", "C_Finalize", "C_OpenSession", "C_CloseSession", "C_CloseAllSessions"),
        *("C_Login", "C_Logout", "C_Sign", "C_SignFinal"),
    }
)
COUNTER = struct.Struct("24sQ")  # a function's name, its calls: struct counter in p11shim.c


def build() -> Path:
    """The compiled module; compiled once per source, in a directory that other users can read."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(COMPILER).encode()).hexdigest()
    directory = Path(tempfile.gettempdir()) / f"paraph-shim-{digest}"
    directory.mkdir(exist_ok=True)
    if directory.stat().st_uid not in {0, os.geteuid()}:
        # Code another user put in a place anybody can guess is not loaded.
        directory = directory.with_name(f"{directory.name}-{os.geteuid()}")
        directory.mkdir(exist_ok=True)
        if directory.stat().st_uid != os.geteuid():
            raise PermissionError(f"{directory} belongs to another user")
    module = directory / "p11shim.so"
    if not module.exists():
        directory.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=directory) as work:
            made = Path(work, "p11shim.so")
            subprocess.run([*COMPILER, "-o", made, SOURCE, "-lm"], check=True)
            made.chmod(0o755)
            made.replace(module)  # whole or not at all, for whoever builds or loads at the same time
    return module


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the log; a field that the line does not have is None."""

    t: int
    pid: int
    fn: str
    ev: str
    n: int
    session: int | None = None
    key: str | None = None
    mech: int | None = None
    datalen: int | None = None
    data: str | None = None
    query: bool = False
    user: int | None = None
    pinlen: int | None = None
    token: str | None = None
    act: str | None = None
    child: int | None = None
    rv: int | None = None
    len: int | None = None


class Shim:
    """A shim before one real module: a directory with its script, its log and its numbers.

    Processes share the numbers and the log when they run with the same `env`, as whatever user.
    """

    def __init__(self, directory: Path, module: str, seed: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.module = str(build())
        self._log, self._script, self._state = (directory / name for name in ("log", "script", "state"))
        for path in (self._log, self._state):
            path.touch()
            path.chmod(0o666)  # a daemon under test runs as a user of its own
        self.env = {
            "P11SHIM_MODULE": str(module),
            "P11SHIM_LOG": str(self._log),
            "P11SHIM_SCRIPT": str(self._script),
            "P11SHIM_STATE": str(self._state),
        }
        if seed is not None:
            self.env["P11SHIM_SEED"] = str(seed)

    def script(self, *lines: str) -> None:
        """Follow these rules, and no others, from the next call on."""
        new = self._script.with_suffix(f".{os.getpid()}")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.chmod(0o644)
        # The kernel's clock of files ticks too slowly to tell two scripts apart that follow one another.
        os.utime(new, ns=(now := time.time_ns(), now))
        new.replace(self._script)

    def clear(self) -> None:
        """Follow no rules; log and numbers go on."""
        self._script.unlink(missing_ok=True)

    def log(self) -> list[Call]:
        """Every line so far, in the order of writing."""
        *lines, torn = self._log.read_text().split("\n")
        del torn  # what follows the last newline: nothing, or a line that is being written
        return [_parse(line) for line in lines]

    def signs(self) -> list[Call]:
        """Every signature asked of the module: C_Sign entered, questions for the length left out."""
        return [call for call in self.log() if call.fn == "C_Sign" and call.ev == "enter" and not call.query]

    def logins(self) -> list[Call]:
        return [call for call in self.log() if call.fn == "C_Login" and call.ev == "enter"]

    def count(self, fn: str) -> int:
        """How often a function was entered: by the log, or by the numbers if it is not one of the logged."""
        if fn in LOGGED:
            return sum(call.fn == fn and call.ev == "enter" and not call.query for call in self.log())
        return self.number(fn)

    def number(self, fn: str) -> int:
        """The number of a function's last call, to write rules for the calls after it."""
        numbers = self._numbers()
        if numbers and fn not in numbers:
            raise ValueError(f"{fn} is not wrapped by the shim")
        return numbers.get(fn, 0)

    def functions(self) -> list[str]:
        """All that are wrapped, once a process has loaded the shim."""
        return [name for name in self._numbers() if name.startswith("C_")]

    def _numbers(self) -> dict[str, int]:
        state = self._state.read_bytes()
        return {name.rstrip(b"\0").decode(): calls for name, calls in COUNTER.iter_unpack(state)}

    def wrong_pins(self) -> int:
        """How many PINs the real token has refused since the last right one: the count that `tries` goes by."""
        return self.number("wrong PINs")

    def unfinished(self) -> list[Call]:
        """Calls entered and not left: under way, or those a process died in."""
        log = self.log()
        left = Counter((call.pid, call.fn, call.n) for call in log if call.ev == "leave")
        still = []
        for call in (call for call in log if call.ev == "enter"):
            # Questions have no number of their own: of those of one process it is the last that is not left.
            left[key := (call.pid, call.fn, call.n)] -= 1
            if left[key] < 0:
                still.append(call)
        return still


def _parse(line: str) -> Call:
    try:
        return Call(**json.loads(line))
    except ValueError:
        # A process killed within its write(2) leaves a piece of a line, and the next line follows on it.
        start = line.rfind('{"t":')
        if start <= 0:
            raise
        return Call(**json.loads(line[start:]))
