"""
How the tokens look to the people who run them: for each what moves, what it is, and, where it does not sign, why and what
to do.

Rules of this file: pure, it knows neither clock nor terminal. What came from a token (model, serial, its driver's words)
may be anything, and never moves the cursor. No meaning is in a colour alone. What a person must see to is marked '!'.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from signer.cli.printable import printable
from signer.v1 import operator_pb2 as pb

RATE_S = 3.0  # signatures of the last seconds: long enough for a card, short enough to see it stop
_COLOURS = {
    "READY": "green",
    "LEASED": "green",
    "OPEN": "yellow",
    "WAITING": "yellow",
    "TRIPPED": "yellow",
    "UNREACHABLE": "yellow",
    "DRAINED": "cyan",
}
# Somebody has to do something about it.
_WANTS_SOMEBODY = frozenset({"ABSENT", "CHANGED", "UNREACHABLE", "LOCKED", "QUARANTINED"})
_SIGNING = ("READY", "LEASED", "WAITING")
# Why nothing is signed although tokens could, and what to do about it.
_LEDGER = {
    "AUDIT_UNWRITABLE": "it cannot be written; make room on its disk, or see to it or the database: it goes on by itself",
    "STORE_BUSY": "its disk or database does not answer; see to it: it goes on by itself",
    "CHECKPOINT_OVERDUE": "no checkpoint could be anchored for a day; see to the anchors, the log says what is wrong",
}
_UP = frozenset({pb.Lane.State.IDLE, pb.Lane.State.SIGNING})
# Columns of a token's first line, behind its name: heading, width, to the right.
_COLUMNS = (
    ("STATE", 13, False), ("SINCE", 8, False), ("LANES", 15, False),
    ("NOW/S", 6, True), ("CAN/S", 7, True), ("WAITING", 8, True), ("PIN TRIES", 10, True),
)  # fmt: skip
_INDENT = 4


@dataclass(slots=True)
class Rates:
    """How many signatures a second each token has made of late."""

    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def look(self, tokens: Sequence[Any], now_s: float) -> dict[str, float]:
        """`now_s` of a monotonic clock; a token that was seen once has no rate yet."""
        for token in tokens:
            signed = sum(lane.signatures for lane in token.lanes)
            seen = self._seen.setdefault(token.name, deque())
            if seen and signed < seen[-1][1]:  # the daemon was started again, and counts anew
                seen.clear()
            seen.append((now_s, signed))
            while len(seen) > 2 and seen[1][0] <= now_s - RATE_S:
                seen.popleft()
        spans = {token.name: (self._seen[token.name][0], self._seen[token.name][-1]) for token in tokens}
        return {name: (b[1] - a[1]) / (b[0] - a[0]) for name, (a, b) in spans.items() if b[0] > a[0]}


def state_of(token: Any) -> str:
    return str(pb.Token.State.Name(token.state))


def waits_for_pin(token: Any) -> bool:
    """Whether it is in order, and a person's who is not there."""
    return bool(token.personal) and any(lane.state == pb.Lane.State.OPEN for lane in token.lanes)


def wants_somebody(token: Any) -> bool:
    return state_of(token) in _WANTS_SOMEBODY


def advice(token: Any) -> str:
    """The command for it, beside what the service says of it; empty where there is none."""
    state, name = state_of(token), token.name
    if state == "LOCKED" and token.pin_tries_used > token.pin_tries - 2:
        return f"one more refusal may lock it for good; when you are sure: paraph tokens --unlock {name} --override-final-try"
    if state in {"LOCKED", "QUARANTINED", "TRIPPED"}:
        return f"when it is seen to: paraph tokens --unlock {name}"
    return f"when it may sign again: paraph tokens --resume {name}" if state == "DRAINED" else ""


def stopped(ledger: str) -> str:
    """That nothing is signed for this reason, and what to do; empty where there is none."""
    return f"the ledger is stopped: {printable(ledger)}: {_LEDGER.get(ledger, 'see the log')}" if ledger else ""


def can_sign(tokens: Sequence[Any]) -> bool:
    """Whether one of them signs, or would for its person."""
    return any(state_of(token) in _SIGNING or waits_for_pin(token) for token in tokens)


def summary(tokens: Sequence[Any], rates: Mapping[str, float] | None, ledger: str = "") -> Text:
    """All of them in a line; above it, where the `ledger` is stopped for a reason, that nothing is signed at all."""
    states = Counter("for its person" if waits_for_pin(token) else state_of(token) for token in tokens)
    signing = sum(states[state] for state in _SIGNING)
    parts = [f"{len(tokens)} token{'s' * (len(tokens) != 1)}, {signing} ready"]
    if states["for its person"]:
        parts.append(f"{states['for its person']} waiting for a person's PIN")
    if rates is not None:
        parts.append(f"{_number(sum(rates.values()))} signatures/s")
    text = Text(", ".join(parts))
    if ledger:
        text = Text.assemble((f"{stopped(ledger)}\n", "bold red"), text)
    needing = [token.name for token in tokens if wants_somebody(token)]
    if needing:
        text.append(f"; ! needs you: {', '.join(needing)}", style="bold red")
    return text


def board(
    tokens: Sequence[Any], rates: Mapping[str, float] | None, now_s: float, columns: int, *, brief: bool = False
) -> Group:
    """
    `rates` None: not measured, it is a single look. `now_s`: seconds since the epoch. `brief`: where there is no room, what
    a token is has none, and why and what to do stay.
    """
    name_width = max((len(token.name) for token in tokens), default=0) + 2
    name_width = max(name_width, len("TOKEN") + 2)
    shown = [column for column in _COLUMNS if rates is not None or column[0] != "NOW/S"]
    in_columns = columns >= name_width + sum(width for _, width, _ in shown)
    lines: list[Text | Padding] = []
    if in_columns:
        heads = "".join(_cell(head, width, right=right) for head, width, right in shown)
        lines.append(Text(f"{'TOKEN':{name_width}}{heads}", style="bold", no_wrap=True))
    for token in tokens:
        cells = _cells(token, rates, now_s)
        if in_columns:
            first = Text(f"{token.name:{name_width}}", no_wrap=True)
            for head, width, right in shown:
                first.append(_cell(cells[head], width, right=right), style=_style(token) if head == "STATE" else "")
            lines.append(first)
        else:
            lines.append(Text.assemble(f"{token.name} ", (cells["STATE"], _style(token)), f" since {cells['SINCE']}"))
            facts = [(f"lanes {cells['LANES']}", "")]
            facts += [("now {}/s", cells.get("NOW/S", "-")), ("at most {}/s", cells["CAN/S"])]
            facts += [("{} waiting", cells["WAITING"]), ("{} PIN tries used", cells["PIN TRIES"])]
            lines.append(_below(", ".join(text.format(value) for text, value in facts if value != "-")))
        lines += [_below(line, style) for line, style in _notes(token) if not brief or style != "dim"]
    return Group(*lines)


def age(since: str, now_s: float) -> str:
    """How long ago: '12 s', '3 min', '5 h', '40 d'. The two machines' clocks may differ: never less than nothing."""
    try:
        seconds = max(0.0, now_s - datetime.fromisoformat(since).timestamp())
    except ValueError:
        return "?"
    for unit, length_s, until_s in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800), ("d", 86400, None)):
        if until_s is None or seconds < until_s:
            return f"{int(seconds // length_s)} {unit}"
    raise AssertionError


def _style(token: Any) -> str:
    return _COLOURS.get(state_of(token), "bold red")


def _cells(token: Any, rates: Mapping[str, float] | None, now_s: float) -> dict[str, str]:
    up = sum(lane.state in _UP for lane in token.lanes)
    busy = sum(lane.state == pb.Lane.State.SIGNING for lane in token.lanes)
    can = sum(lane.per_second for lane in token.lanes)
    rate = (rates or {}).get(token.name)
    return {
        "STATE": f"{'! ' if wants_somebody(token) else ''}{state_of(token)}",
        "SINCE": age(token.since, now_s),
        "LANES": f"{up} of {len(token.lanes)}{f', {busy} busy' if busy else ''}",
        "NOW/S": "-" if rate is None or not (up or rate) else _number(rate),
        "CAN/S": _number(can) if can else "-",
        "WAITING": f"{token.waiting:,}" if token.waiting else "-",
        "PIN TRIES": f"{token.pin_tries_used} of {token.pin_tries}",
    }


def _notes(token: Any) -> Iterator[tuple[str, str]]:
    """The lines below a token's first, each with its style."""
    signed = sum(lane.signatures for lane in token.lanes)
    errors = sum((Counter(dict(lane.errors)) for lane in token.lanes), Counter())
    what = [token.kind, *([printable(token.model)] if token.model else [])]
    what += [f"serial {printable(token.serial)}"] if token.serial else []
    keys = f"signs for {', '.join(token.credentials)}" if token.credentials else "no credential's key seen on it"
    done = f"{signed:,} signed"
    if errors:
        done += f", {errors.total():,} errors ({', '.join(f'{n:,} {printable(code)}' for code, n in errors.most_common(3))})"
    yield f"{', '.join(what)}; {keys}; {done}", "dim"
    if token.detail:
        yield f"why: {printable(token.detail)}", ""
    elif state_of(token) == "OPEN":
        yield "it waits for its person's PIN" if waits_for_pin(token) else "it is being opened", ""
    for lane in token.lanes:
        if lane.state == pb.Lane.State.RESTING and lane.problem and lane.problem not in token.detail:
            lost = f", lost {lane.losses} times" if lane.losses else ""
            yield f"lane {lane.index} rests{lost}: {printable(lane.problem)}", ""
        if not lane.direct and lane.state in _UP:
            yield f"lane {lane.index}: slower than it could be: its module's function list does not stay", ""
    if to_do := advice(token):
        yield f"next: {to_do}", "bold" if wants_somebody(token) else ""


def _below(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, _INDENT), expand=False)


def _cell(text: str, width: int, *, right: bool) -> str:
    return f"{text:>{width}}" if right else f"{text:{width}}"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"
