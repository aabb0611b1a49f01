"""
The state diagrams of DESIGN.md, drawn from the tables themselves: `python -m pool.diagram` writes them into the file.

Mermaid's text, because the places where people read this repository draw it.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pool import lane, token

DESIGN = Path(__file__).with_name("DESIGN.md")


def draw(table: Mapping[Any, Mapping[Any, Any]], first: StrEnum) -> str:
    """A table as a Mermaid state diagram; events that lead to the same state share an arrow."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for state, steps in table.items():
        arrows: dict[Any, list[str]] = {}
        for event, target in steps.items():
            arrows.setdefault(target, []).append(event.value)
        lines += [f"    {state} --> {target}: {', '.join(events)}" for target, events in arrows.items()]
    return "\n".join([*lines, "```"])


def drawn(text: str) -> str:
    """DESIGN.md's text with both diagrams as the tables are now."""
    for name, diagram in (
        ("token", draw(token.TRANSITIONS, token.State.OPEN)),
        ("lane", draw(lane.TRANSITIONS, lane.State.RESTING)),
    ):
        mark = rf"(<!-- diagram: {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(mark, lambda match, d=diagram: f"{match[1]}{d}\n{match[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"DESIGN.md has no single place for the {name}'s diagram")
    return text


if __name__ == "__main__":
    DESIGN.write_text(drawn(DESIGN.read_text()))
