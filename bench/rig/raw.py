"""The limit's processes: `limit.c`, one for each lane, kept over the rounds."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.rig.child import Child
from bench.rig.rounds import Sample
from bench.rig.softhsm import KINDS, MORE_KINDS, NotInstalled, Token

SOURCE = Path(__file__).parent.parent / "limit.c"
OUTPUT = Path(__file__).parent.parent.parent / "var" / "bench"


def build() -> Path:
    """The compiled program; compiled again when its source is newer."""
    program = OUTPUT / "limit"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/evp.h").exists():
        raise NotInstalled("limit.c needs gcc and OpenSSL's headers; on Debian: apt-get install gcc libssl-dev")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    new = program.with_suffix(".new")
    command: list[str | Path] = [
        "gcc",
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        new,
        SOURCE,
        "-ldl",
        "-lcrypto",
    ]
    subprocess.run(command, check=True)
    new.replace(program)
    return program


class Raw:
    """`lanes` processes on one token, started one after the other, each logged in and waiting for orders."""

    def __init__(self, token: Token, lanes: int, *, environment: Mapping[str, str] | None = None) -> None:
        words = KINDS | MORE_KINDS
        keys = [f"{key.label}={words[kind]}={key.spki_file}" for kind, key in token.keys.items()]
        command = [build(), token.module, token.label, token.pin_file, *keys]
        self._keys = token.keys
        self.directory = token.pin_file.parent
        self._children: list[Child] = []
        try:
            for _ in range(lanes):
                self._children.append(Child(command, environment=token.environment | dict(environment or {})))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, kind: str, seconds: float, *, verify: bool = False) -> Sample:
        """All lanes at once for a time."""
        for child in self._children:
            child.tell(f"run {self._keys[kind].label} {seconds:.3f} {verify:d}")
        answers = [child.answer().split() for child in self._children]
        count = sum(int(answer[0]) for answer in answers)
        rate = sum(int(answer[0]) / float(answer[1]) for answer in answers)
        return Sample(count, count / rate)

    def latency_us(self, kind: str, count: int) -> float:
        """The median time of one C_SignInit and C_Sign, one lane at work."""
        self._children[0].tell(f"time {self._keys[kind].label} {count}")
        return float(self._children[0].answer().split()[0])

    def close(self) -> None:
        for child in self._children:
            child.close()
