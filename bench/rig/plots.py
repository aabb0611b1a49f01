"""Plots of a report: the ratios as bars with what is wanted as a mark, and where a signature's CPU time goes."""

import re

import matplotlib as mpl

mpl.use("Agg")  # files, no screen

import matplotlib.pyplot as plt

from bench.rig.raw import OUTPUT
from bench.rig.report import Report, Row

_MET = {None: "#8a8f98", True: "#3b7a57", False: "#b4453c"}


def draw(report: Report) -> None:
    rows = list(reversed(report.rows))
    figure, (ratios, costs) = plt.subplots(1, 2, figsize=(15, 1.6 + 0.45 * len(rows)), layout="constrained")
    names = [row.case for row in rows]
    ratios.barh(names, [row.ratio for row in rows], color=[_MET[row.met()] for row in rows])
    for position, row in enumerate(rows):
        ratios.annotate(f" {row.ratio:.3g}", (row.ratio, position), va="center", fontsize=8)
        if (wanted := _wanted(row)) is not None:
            ratios.plot([wanted, wanted], [position - 0.45, position + 0.45], color="black", linewidth=1.5)
    ratios.set_title(f"{report.bench}: ours by the limit (black: wanted)")
    roles = dict.fromkeys(role for row in rows for role in row.cpu_us)
    left = [0.0] * len(rows)
    for role in roles:
        widths = [row.cpu_us.get(role, 0.0) for row in rows]
        costs.barh(names, widths, left=left, label=role)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    costs.set_yticklabels([])
    costs.set_title("CPU time for one, in microseconds")
    if roles:
        costs.legend(fontsize=8)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUTPUT / f"{report.bench}.png", dpi=110)
    plt.close(figure)


def _wanted(row: Row) -> float | None:
    """The figure for the row's own ratio."""
    for part in row.goal.split(","):
        if found := re.fullmatch(r"\s*(?:>=|<=)\s*([\d.]+)\s*", part):
            return float(found[1])
    return None
