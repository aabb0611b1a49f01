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
class Spent:
    """Seconds of CPU of one process, and of its children that ended and were waited for."""

    parent: int
    role: str
    own: float
    children: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What every process of ours and the whole machine had used at one moment."""

    processes: dict[int, Spent]
    machine: float
    wall: float

    @classmethod
    def now(cls) -> "Usage":
        busy = [int(word) for word in _lines("/proc/stat")[0].split()[1:9]]
        machine = (sum(busy) - busy[3] - busy[4]) / _TICK  # without idle and waiting for disks
        return cls(_ours(), machine, time.monotonic())

    def since(self, before: "Usage") -> "Used":
        roles: dict[str, float] = {}
        for pid, spent in self.processes.items():
            old = before.processes.get(pid, Spent(0, "", 0.0, 0.0))
            roles[spent.role] = roles.get(spent.role, 0.0) + spent.own - old.own
            # What children spent that ended meanwhile is now in their parent's account, with what they had spent before.
            gone = [s for p, s in before.processes.items() if s.parent == pid and p not in self.processes]
            ended = spent.children - old.children - sum(s.own + s.children for s in gone)
            role = gone[0].role if gone else spent.role
            roles[role] = roles.get(role, 0.0) + max(0.0, ended)
        wall = max(self.wall - before.wall, 1e-9)
        return Used(roles, max(0.0, self.machine - before.machine - sum(roles.values())) / wall)


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of CPU by role of our processes, and how many cores were busy with what is not ours."""

    roles: dict[str, float]
    others: float


def _ours() -> dict[int, Spent]:
    """Every descendant of this process, and itself."""
    stats: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stats[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
    ours = {}
    for pid, words in stats.items():
        ancestor = pid
        while ancestor > 1 and ancestor != os.getpid():
            ancestor = int(stats[ancestor][1]) if ancestor in stats else 0
        if ancestor == os.getpid():
            user, system, gone_user, gone_system = (int(word) / _TICK for word in words[11:15])
            role = "bench" if pid == ancestor else _role(pid)
            ours[pid] = Spent(int(words[1]), role, user + system, gone_user + gone_system)
    return ours


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
