"""
python -m bench QUESTION [--quick] [--json FILE]; QUESTION `quick` or `full` asks them all.

Answers go to the terminal and, with their plots, to var/bench. Exit codes: 0 asked and answered, 1 a question failed, 3
the product does not have yet what was asked about, 69 something of the system is missing.
"""

import argparse
import importlib
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType

from bench.rig import report as reports
from bench.rig.raw import OUTPUT
from bench.rig.report import Report
from bench.rig.softhsm import NotInstalled

QUESTIONS = (
    "limit", "digests", "single", "coalesce", "pades", "cades", "latency", "fairness", "cards", "memory", "overload",
    "ledger",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast is it? See bench/README.md.")
    parser.add_argument("question", choices=[*QUESTIONS, "quick", "full"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answer as JSON, too")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, smaller numbers")
    parser.add_argument("--no-plots", action="store_true", help="numbers only")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        if options.question in {"quick", "full"}:
            return every(quick=options.question == "quick" or options.quick, plots=not options.no_plots)
        return one(options.question, options.json, quick=options.quick, plots=not options.no_plots)
    except KeyboardInterrupt:
        return 130


def _end(_number: int, _frame: FrameType | None) -> None:
    """What was started is ended on the way out, and another signal does not disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def one(name: str, file: Path | None, *, quick: bool, plots: bool) -> int:
    try:
        report = asked(name, quick=quick)
    except reports.NotBuilt as missing:
        print(f"{name}: not built yet: {missing}")
        return reports.EXIT_NOT_BUILT
    except NotInstalled as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return 69
    reports.save(report, file)
    print(f"{reports.heading([report])}\n\n{reports.table([report])}")
    if plots:
        _draw(report)
    return 0


def every(*, quick: bool, plots: bool) -> int:
    """All of them; one that fails does not keep the others from being asked."""
    answered, code = [], 0
    for name in QUESTIONS:
        try:
            report = asked(name, quick=quick)
        except reports.NotBuilt as missing:
            print(f"{name}: not built yet: {missing}", flush=True)
            continue
        except Exception:  # noqa: BLE001 -- shown whole, and the exit code says it
            traceback.print_exc()
            code = 1
            continue
        answered.append(report)
        reports.save(report)
        print(f"{reports.table([report])}\n{name}: {report.seconds:.0f} s\n", flush=True)
        if plots:
            _draw(report)
    whole = f"{reports.heading(answered)}\n\n{reports.table(answered)}\n"
    (OUTPUT / ("quick.md" if quick else "full.md")).write_text(whole)
    print(whole)
    return code


def _draw(report: Report) -> None:
    """Late, because only plots need matplotlib; without it there are numbers only."""
    try:
        from bench.rig import plots
    except ModuleNotFoundError:
        print("no plots: matplotlib is in the dependency group 'bench'", file=sys.stderr)
    else:
        plots.draw(report)


def asked(name: str, *, quick: bool) -> Report:
    began = time.monotonic()
    report: Report = importlib.import_module(f"bench.{name}").ask(quick=quick)
    return replace(report, seconds=time.monotonic() - began, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
