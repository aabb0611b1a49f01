"""The machine: what it is, who on it used its processors, and how much memory a process holds."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
# By which word of its command line a process of ours is told.
_ROLES = {
    "pool.worker": "lanes",
    "signer.assembler": "assembly",
    "serve": "front",
    "bench.load": "client",
    "bench.peers": "peer",
    "limit": "raw",
}


def describe() -> dict[str, object]:
    """What a number is worth nothing without."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "cpu": model,
        "cores": cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
    }


def cores() -> int:
    return len(os.sched_getaffinity(0))


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU: of each role of our processes, and of the whole machine; `wall` the clock."""

    roles: dict[str, float]
    machine: float
    wall: float

    @classmethod
    def now(cls) -> "Usage":
        busy = [int(word) for word in _lines("/proc/stat")[0].split()[1:9]]
        machine = (sum(busy) - busy[3] - busy[4]) / _TICK  # without idle and waiting for disks
        return cls(_ours(), machine, time.monotonic())

    def __sub__(self, before: "Usage") -> "Usage":
        roles = {role: max(0.0, spent - before.roles.get(role, 0.0)) for role, spent in self.roles.items()}
        return Usage(roles, self.machine - before.machine, self.wall - before.wall)

    @property
    def others(self) -> float:
        """Cores busy with what is not ours."""
        return max(0.0, self.machine - sum(self.roles.values())) / max(self.wall, 1e-9)


def _ours() -> dict[str, float]:
    """CPU seconds of every descendant of this process (and of itself), by role."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
            # A reaped child's time counts with its parent's, so that processes for one document are not lost.
            spent[int(entry.name)] = sum(int(word) for word in words[11:15]) / _TICK
    roles: dict[str, float] = {}
    for pid, seconds in spent.items():
        ancestor = pid
        while ancestor > 1 and ancestor != os.getpid():
            ancestor = parents.get(ancestor, 0)
        if ancestor == os.getpid():
            role = "bench" if pid == ancestor else _role(pid)
            roles[role] = roles.get(role, 0.0) + seconds
    return roles


def _role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "gone"
    for word in words:
        for mark, role in _ROLES.items():
            if word == mark or word.startswith(f"{mark}.") or word.endswith(f"/{mark}"):
                return role
    return "other"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
