"""
A request's life as a picture: SVG, written by hand, for a light and for a dark page. Pure.

One lane an event, from the top down; from left to right the order of writing, with a band for each commit, which is one
sync of the disk, and how much later it began than the one before. Distances are no durations, and the picture says so.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from xml.sax.saxutils import escape

from signer.chain import Kind
from signer.trace import ACCEPTED, CHECKPOINT, Event, uncovered

LABEL = 330  # of the lanes: their names
STEP = 100  # from one event to the next
LANE = 26
TOP = 92
TEXT = 470  # behind the last event: what it says
NOTE_LINE = 16
NOTE_LETTER = 7  # of the note's 12 px, a little more than the widest of the usual fonts has for each on average
NOTE = (
    "A band is one commit, one sync of the disk, at the moment it began; what has no milliseconds is known by the second. "
    "A line leads from what was about to go to a token, a frame, to what became of it. Distances are no durations."
)
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
.title { font-size: 17px; font-weight: 600 } .quiet { fill: #57606a; font-size: 12px }
.page { fill: #ffffff } .band { fill: #f2f4f7 } .lane { stroke: #d5dae1 } .tick { stroke: #8c959f }
.plain { fill: #57606a; stroke: #57606a } .asked { fill: #0a5bd3; stroke: #0a5bd3 }
.good { fill: #0f7a3c; stroke: #0f7a3c } .bad { fill: #b3261e; stroke: #b3261e }
.fixed { fill: #7a3fb5; stroke: #7a3fb5 } .span { stroke-width: 3; opacity: .55 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .quiet { fill: #9aa5b1 } .page { fill: #0e1116 } .band { fill: #171c23 }
.lane { stroke: #2d343d } .tick { stroke: #6b7683 } .plain { fill: #9aa5b1; stroke: #9aa5b1 }
.asked { fill: #6cb0ff; stroke: #6cb0ff } .good { fill: #56d384; stroke: #56d384 }
.bad { fill: #ff8a80; stroke: #ff8a80 } .fixed { fill: #c79bff; stroke: #c79bff }
}
"""
_CLASSES = {
    ACCEPTED: "plain",
    CHECKPOINT: "fixed",
    Kind.INTENT: "asked",
    Kind.OUTCOME: "good",
    Kind.RELEASED: "good",
    Kind.NOT_DELIVERED: "bad",
    Kind.POSSIBLE: "bad",
    Kind.MISMATCH: "bad",
    Kind.AUTHORISED: "good",
    Kind.REFUSED: "bad",
    Kind.REGISTER: "plain",
    Kind.BATCH: "plain",
}


_NO_CHAR = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def svg(request: str, events: Sequence[Event]) -> str:
    return "\n".join(_lines(request, events)) + "\n"


def _lines(request: str, events: Sequence[Event]) -> Iterator[str]:
    width = LABEL + STEP * len(events) + TEXT
    note = textwrap.wrap(NOTE, (width - 40) // NOTE_LETTER)
    foot = TOP + LANE * len(events) + 28  # of what stands below the lanes
    height = foot + NOTE_LINE * len(note) + 18
    title = f"Request {request}"
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    yield f"<title>{_text(title)}</title>"
    yield f"<desc>{_text('; '.join(f'{event.time} {event.kind} {event.what}' for event in events))}</desc>"
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{width}" height="{height}"/>'
    yield f'<text class="title" x="20" y="30">{_text(title)}</text>'
    yield from _axis(events)
    for number, event in enumerate(events):
        yield from _lane(number, event, events)
    loose = uncovered(events)
    if loose:
        said = f"No checkpoint covers {'one row' if loose == 1 else f'{loose} rows'} of it yet."
        yield f'<text x="20" y="{foot}">{said}</text>'
    for number, line in enumerate(note, 1):
        yield f'<text class="quiet" x="20" y="{foot + 4 + NOTE_LINE * number}">{line}</text>'
    yield "</svg>"


def _text(text: str) -> str:
    """Whatever a row has: no XML can hold a control character or half a pair, not even as a reference."""
    return escape(_NO_CHAR.sub("\N{REPLACEMENT CHARACTER}", text))


def _x(number: int) -> int:
    return LABEL + STEP * number + STEP // 2


def _axis(events: Sequence[Event]) -> Iterator[str]:
    """A band for each commit, with its time, and how much later it is than the one before."""
    bottom = LANE * len(events)
    yield f'<text class="quiet" x="20" y="{TOP - 14}">{_day(events)}</text>'
    first, index = 0, 0
    for last, event in enumerate(events):
        if last + 1 < len(events) and events[last + 1].time == event.time:
            continue
        left, wide = LABEL + STEP * first, STEP * (last + 1 - first)
        if index % 2 == 0:
            yield f'<rect class="band" x="{left}" y="{TOP - 6}" width="{wide}" height="{bottom + 6}"/>'
        yield f'<line class="tick" x1="{left}" x2="{left}" y1="{TOP - 40}" y2="{TOP - 6 + bottom + 6}"/>'
        yield f'<text x="{left + 4}" y="{TOP - 28}">{_text(event.time[11:].removesuffix("Z"))}</text>'
        later = _later(events[first - 1].time, event.time) if first else ""
        yield f'<text class="quiet" x="{left + 4}" y="{TOP - 14}">{later}</text>'
        first, index = last + 1, index + 1


def _day(events: Sequence[Event]) -> str:
    return f"{_text(events[0].time[:10])}, UTC"


def _later(before: str, now: str) -> str:
    try:
        seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(before)).total_seconds()
    except (ValueError, TypeError):  # what somebody has changed: no time, or one without its zone
        return ""
    if "." in before and "." in now and abs(seconds) < 10:
        return f"{seconds * 1000:+,.0f} ms"
    if abs(seconds) < 1:
        return ""  # one of them is only known by the second
    return f"{seconds:+.0f} s" if abs(seconds) < 600 else f"{seconds / 60:+.0f} min"


def _lane(number: int, event: Event, events: Sequence[Event]) -> Iterator[str]:
    y, x = TOP + LANE * number + LANE // 2, _x(number)
    name = event.kind if event.place is None or event.kind == CHECKPOINT else f"{event.kind}  {_place(event)}"
    colour = _CLASSES.get(event.kind, "plain")
    yield f'<line class="lane" x1="20" x2="{_x(len(events)) - STEP // 2}" y1="{y}" y2="{y}"/>'
    yield f'<text class="quiet" x="20" y="{y - 3}">{_text(name)}</text>'
    began = next((i for i, each in enumerate(events) if event.intent and each.place == event.intent), None)
    if began is not None:  # how long it was with the token, as far as that is known
        yield f'<line class="span {colour}" x1="{_x(began)}" x2="{x}" y1="{y}" y2="{y}"/>'
    shape = f'<circle class="{colour}" cx="{x}" cy="{y}" r="6"/>'
    if colour == "bad":
        shape = f'<path class="{colour}" d="M{x - 6} {y + 6}h12l-6 -12z"/>'
    elif colour == "fixed":
        shape = f'<rect class="{colour}" x="{x - 5}" y="{y - 5}" width="10" height="10"/>'
    yield shape
    yield f'<text x="{_x(len(events))}" y="{y + 4}">{_text(event.what)}</text>'


def _place(event: Event) -> str:
    assert event.place is not None
    return f"{event.place[0]}/{event.place[1]}"
