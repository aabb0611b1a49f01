"""
Rows: a case, its answer beside the limit, and the peers. Ratios come first, because the machine cancels in them.

`ratio` is ours by the limit, the median of the rounds' ratios; `peers` is ours by each peer, likewise. Rows of a time
or of memory have the allowed value as their limit.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.rig.machine import describe
from bench.rig.raw import OUTPUT
from bench.rig.rounds import Series

EXIT_NOT_BUILT = 3


class NotBuilt(Exception):
    """The product does not have yet what is asked about."""


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    ours: float
    limit: float
    ratio: float
    peers: dict[str, float] = field(default_factory=dict)
    goal: str = ""  # what the ratio is to be; 'pyhanko >= 15' for a peer's
    unit: str = "/s"
    cpu_us: dict[str, float] = field(default_factory=dict)  # for one signature of ours, by role
    limit_cpu_us: dict[str, float] = field(default_factory=dict)  # the limit's own
    cpu_ratio: float = 0.0  # the limit's CPU time for one by ours: the ratio on a machine with nothing else to do
    others: float = 0.0  # cores that something else used meanwhile, of the worse side
    note: str = ""

    def met(self) -> bool | None:
        """Whether every figure of `goal` is reached; None where there is none."""
        if not self.goal:
            return None
        verdicts = []
        for part in self.goal.split(","):
            found = re.fullmatch(r"\s*(.*?)\s*(>=|<=)\s*([\d.]+)\s*", part)
            assert found is not None, self.goal
            value = self.peers[found[1]] if found[1] else self.ratio
            verdicts.append(value >= float(found[3]) if found[2] == ">=" else value <= float(found[3]))
        return all(verdicts)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question. `figures` are series for its plot: name -> points (x, y)."""

    bench: str
    rows: list[Row]
    rounds: int
    seconds: float = 0.0
    quick: bool = False

    def as_json(self) -> dict[str, object]:
        rows = [{**asdict(row), "met": row.met()} for row in self.rows]
        about = {"rounds": self.rounds, "quick": self.quick, "seconds": round(self.seconds, 1)}
        return {"bench": self.bench, "machine": describe(), **about, "rows": rows}


def compare(
    case: str, series: Mapping[str, Series], ours: str, limit: str, peers: Mapping[str, str] | None = None,
    *, goal: str = "", note: str = "",
) -> Row:  # fmt: skip
    """The row of contestants that ran together; `peers` names them: shown name -> contestant."""
    mine, bound = series[ours], series[limit]
    ratios = {name: round(mine.over(series[key]), 3) for name, key in (peers or {}).items()}
    others = round(max(_mean(mine.others), _mean(bound.others)), 2)
    ratio = round(mine.over(bound), 3)
    return Row(
        case,
        round(mine.rate, 1),
        round(bound.rate, 1),
        ratio,
        ratios,
        goal,
        "/s",
        mine.cpu,
        bound.cpu,
        _by_cpu(mine, bound),
        others,
        note,
    )


def bounded(case: str, value: float, limit: float, unit: str, *, note: str = "", goal: str = "<= 1") -> Row:
    """A row of a time or a size that is to stay under a limit."""
    return Row(case, round(value, 3), limit, round(value / limit, 3), goal=goal, unit=unit, note=note)


def table(reports: list[Report]) -> str:
    """Markdown."""
    lines = [
        "| question | case | ratio | by CPU | wanted | | ours | limit | peers (ours by theirs) | us of CPU each | others |",
        "|---|---|---:|---:|---|---|---:|---:|---|---|---:|",
    ]
    for report in reports:
        for row in report.rows:
            mark = {None: "", True: "yes", False: "**no**"}[row.met()]
            peers = ", ".join(f"{name} {ratio:g}" for name, ratio in row.peers.items())
            cpu, bare = (", ".join(f"{role} {value:.3g}" for role, value in each.items()) for each in _cpus(row))
            cpu += f"; limit: {bare}" if bare else ""
            ours, limit = f"{row.ours:,.5g} {row.unit}", f"{row.limit:,.5g} {row.unit}"
            by_cpu = f"{row.cpu_ratio:.3g}" if row.cpu_ratio else ""
            case = f"{row.case} ({row.note})" if row.note else row.case
            words = [
                report.bench,
                case,
                f"**{row.ratio:.3g}**",
                by_cpu,
                row.goal,
                mark,
                ours,
                limit,
                peers,
                cpu,
                row.others,
            ]
            lines.append("| " + " | ".join(str(word) for word in words) + " |")
    return "\n".join(lines)


def _by_cpu(mine: Series, bound: Series) -> float:
    """Of ours all that was used; of the limit's what is shown, of raw C only its own: the rest is our daemon, idle meanwhile."""
    limit = bound.cpu.get("raw") or sum(bound.cpu.values())
    return round(limit / mine.whole_cpu, 3) if mine.whole_cpu else 0.0


def _cpus(row: Row) -> tuple[dict[str, float], dict[str, float]]:
    return row.cpu_us, row.limit_cpu_us


def heading(reports: list[Report]) -> str:
    machine = describe()
    rounds = ", ".join(sorted({str(report.rounds) for report in reports}, key=int))
    form = "quick form" if any(report.quick for report in reports) else "full form"
    took = sum(report.seconds for report in reports)
    return (
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {form}, medians of {rounds} rounds, {took:.0f} s in all."
    )


def save(report: Report, extra: Path | None = None) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.as_json(), indent=1) + "\n"
    (OUTPUT / f"{report.bench}.json").write_text(text)
    (OUTPUT / f"{report.bench}.md").write_text(f"{heading([report])}\n\n{table([report])}\n")
    if extra is not None:
        extra.write_text(text)


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))
