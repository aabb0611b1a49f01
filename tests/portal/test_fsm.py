"""State machines as tables: what is in one happens, what is not is refused, and the diagrams are theirs."""

from pathlib import Path

import pytest
from sqlalchemy import delete, update

from portal_adapter.diagram import DESIGN, MACHINES, draw, drawn
from portal_adapter.domain import space
from portal_adapter.domain.space import CERTIFICATION, SPACE, create_business
from portal_adapter.fsm import Machine
from portal_adapter.refusal import Refusal
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from tests.portal.team import Bare, business_form


@pytest.fixture
def bare(tmp_path: Path):
    made = Bare(tmp_path)
    ada = made.person("Ada").actor()
    with writing(made.engine) as connection:
        create_business(connection, ada, business_form(), made.business, made.limits)
    yield made
    made.close()


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_is_whole(name: str) -> None:
    """11.5: every state is reached from the first one, and says what it is; no step leads to an unknown state."""
    machine = MACHINES[name]
    states = {machine.first, *(state for state, _ in machine.steps), *machine.steps.values()}
    assert states == set(machine.said)
    reached = {machine.first}
    for _ in states:
        reached |= {target for (state, _), target in machine.steps.items() if state in reached}
    assert reached == states


def test_the_diagrams_are_the_tables() -> None:
    """11.5: DESIGN.md draws the machines as they are; `python -m portal_adapter.diagram` writes it anew."""
    text = DESIGN.read_text()
    assert drawn(text) == text
    assert all(draw(machine) in text for machine in MACHINES.values())
    assert drawn(text.replace("sent --> accepted", "sent --> nowhere")) == text
    with pytest.raises(ValueError, match="no single place"):
        drawn(text.replace("<!-- diagram: space -->", ""))


def test_a_step_names_the_state_and_the_version_that_were_seen(bare: Bare) -> None:
    """0.1: what was changed meanwhile is stale with its version, or forbidden with its state; what is gone does not exist."""
    (seen,) = bare.rows(schema.spaces)
    with writing(bare.engine) as connection:
        assert SPACE.fire(connection, seen, "suspend") == "suspended"
    (row,) = bare.rows(schema.spaces)
    assert (row["state"], row["version"]) == ("suspended", 2)
    with writing(bare.engine) as connection, pytest.raises(Refusal) as refused:
        SPACE.fire(connection, seen, "suspend")
    assert refused.value.code == "forbidden-transition"
    assert refused.value.details == {"state": "suspended", "event": "suspend", "allowed": ["resume"]}
    with writing(bare.engine) as connection, pytest.raises(Refusal) as refused:
        CERTIFICATION.fire(connection, seen, "ask")  # its own column is as it was seen, the row is not
    assert (refused.value.code, refused.value.details) == ("stale", {"version": 2})
    with writing(bare.engine) as connection, pytest.raises(Refusal) as refused:
        SPACE.fire(connection, {**seen, "version": 2}, "suspend")  # the present version of another state
    assert refused.value.code == "forbidden-transition"
    assert bare.rows(schema.spaces) == [row]
    with writing(bare.engine) as connection:
        connection.execute(delete(schema.members))
        connection.execute(delete(schema.spaces))
    with writing(bare.engine) as connection, pytest.raises(Refusal) as refused:
        SPACE.fire(connection, row, "resume")
    assert refused.value.code == "not-found"


@pytest.mark.parametrize("name", ["space", "certification"])
def test_every_step_that_is_not_in_the_table_is_refused(bare: Bare, name: str) -> None:
    """0.1, 11.5: each event in each state: its target, or forbidden with what is allowed, and nothing changed."""
    machine: Machine = MACHINES[name]
    for state in machine.said:
        for event in sorted({event for _, event in machine.steps}):
            with writing(bare.engine) as connection:
                connection.execute(update(schema.spaces).values({machine.column: state}))
            (seen,) = bare.rows(schema.spaces)
            with writing(bare.engine) as connection:
                if (state, event) in machine.steps:
                    machine.fire(connection, seen, event)
                    continue
                with pytest.raises(Refusal) as refused:
                    machine.fire(connection, seen, event)
            assert refused.value.details["allowed"] == machine.allowed(state)
            assert bare.rows(schema.spaces) == [seen]


def test_a_space_begins_at_the_first_states(bare: Bare) -> None:
    """11.5: active and not certified."""
    (row,) = bare.rows(schema.spaces)
    assert (row["state"], row["certification"]) == (space.SPACE.first, space.CERTIFICATION.first)
