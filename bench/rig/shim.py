"""
Virtual cards: SoftHSM behind the module that the tests disturb tokens with, for its latency drawn in C.

tests/shim/p11shim.c is compiled as it is, found by its path; nothing of the tests is imported. Its README has the
language of its scripts. Its log is kept where a question needs it: it is written at every call.
"""

import json
import shutil
import subprocess
from pathlib import Path

from bench.rig.daemon import REPOSITORY
from bench.rig.raw import OUTPUT
from bench.rig.softhsm import NotInstalled

SOURCE = REPOSITORY / "tests" / "shim" / "p11shim.c"


class Shim:
    """`environment` is for the processes that load `module`; all that share it follow one script."""

    def __init__(self, directory: Path, real: Path, *, logged: bool = False) -> None:
        directory.mkdir(parents=True)
        self.module = _build()
        self._script, self._log = directory / "script", directory / "log"
        self.environment = {"P11SHIM_MODULE": str(real), "P11SHIM_SCRIPT": str(self._script)}
        if logged:
            self.environment["P11SHIM_LOG"] = str(self._log)

    def script(self, *lines: str) -> None:
        """Follow these rules from the next call on."""
        new = self._script.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self._script)

    def signatures(self) -> list[tuple[float, float]]:
        """When each C_Sign of the log began and ended, in seconds of the machine's monotonic clock, in their order."""
        began: dict[int, int] = {}
        found: list[tuple[float, float]] = []
        for line in self._log.read_text().splitlines():
            event = json.loads(line)
            if event["fn"] != "C_Sign" or event.get("query"):
                continue
            if event["ev"] == "enter":
                began[event["n"]] = event["t"]
            else:
                found.append((began[event["n"]] / 1e9, event["t"] / 1e9))
        return found


def _build() -> Path:
    module = OUTPUT / "p11shim.so"
    if module.exists() and module.stat().st_mtime > SOURCE.stat().st_mtime:
        return module
    if shutil.which("gcc") is None:
        raise NotInstalled("the virtual cards need gcc; on Debian: apt-get install gcc libc6-dev")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    new = module.with_suffix(".new")
    flags = ["-std=c11", "-shared", "-fPIC", "-O2", "-Wl,-z,defs,-z,nodelete"]
    subprocess.run(["gcc", *flags, "-o", new, SOURCE, "-lm"], check=True)
    new.replace(module)
    return module
