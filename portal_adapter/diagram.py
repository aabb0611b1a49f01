"""
The state diagrams of DESIGN.md, drawn from the tables themselves: `python -m portal_adapter.diagram` writes them into it.

Mermaid's text, because the places where people read this repository draw it.
"""

from collections.abc import Mapping
from pathlib import Path

from portal_adapter import rescan
from portal_adapter.domain import invitation, procedure, signing, space
from portal_adapter.fsm import Machine

DESIGN = Path(__file__).with_name("DESIGN.md")
MACHINES: Mapping[str, Machine] = {
    "invitation": invitation.INVITATION,
    "space": space.SPACE,
    "certification": space.CERTIFICATION,
    "scan": rescan.SCAN,
    "procedure": procedure.PROCEDURE,
    "signing": signing.SIGNING,
}


def draw(machine: Machine) -> str:
    """A table as a Mermaid state diagram; events that lead from one state to the same other share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in machine.steps.items():
        arrows.setdefault((state, target), []).append(event)
    lines = [f"    {state} --> {target}: {', '.join(events)}" for (state, target), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {machine.first}", *lines, "```"])


def drawn(text: str) -> str:
    """DESIGN.md's text with the diagrams as the tables are now."""
    for name, machine in MACHINES.items():
        begins, ends = f"<!-- diagram: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begins)
        _, also_found, after = rest.partition(ends)
        if not found or not also_found or begins in after:
            raise ValueError(f"DESIGN.md has no single place for the diagram {name}")
        text = f"{before}{begins}{draw(machine)}\n{ends}{after}"
    return text


if __name__ == "__main__":
    DESIGN.write_text(drawn(DESIGN.read_text()))
