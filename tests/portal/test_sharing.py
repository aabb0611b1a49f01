"""Sharing rules, as an operator notes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from sqlalchemy import select

from portal_adapter.clock import Clock
from portal_adapter.store.schema import audit, sharing_rules
from tests.portal.commands import Done, command
from tests.portal.place import Place, SetClock

WORDS = {
    "source": "population",
    "target": "tax-office",
    "item": "address.street",
    "basis": "Act of 19 June 2013, art. 4",
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with mock.patch.object(Clock, "now", lambda _: SetClock.at):
        yield made
    made.close()


def adds(place: Place, *more: str, **changed: str) -> Done:
    words = [word for name, value in {**WORDS, **changed}.items() for word in (f"--{name}", value)]
    return command(place, "sharing", "add", *words, *more)


def listed(place: Place) -> list[dict[str, object]]:
    return list(json.loads(command(place, "sharing", "list", "--json").stdout))


def test_a_rule_is_noted_listed_and_ended(place: Place) -> None:
    """ESP-28: source, target, item, legal basis, from and until; ended at once; each with the operator in the audit."""
    done = adds(place, "--json")
    assert done.returncode == 0, done.stderr
    rule = json.loads(done.stdout)["id"]
    (one,) = listed(place)
    assert {name: one[name] for name in WORDS} == WORDS
    assert (one["id"], one["state"], one["begins"], one["ends"]) == (rule, "in force", SetClock.at, None)
    shown = command(place, "sharing", "list").stdout
    assert "address.street of population for tax-office: Act of 19 June 2013, art. 4" in shown
    ended = command(place, "sharing", "end", rule)
    assert (ended.returncode, ended.stdout) == (0, f"{rule}\n")
    assert listed(place)[0]["state"] == "over"
    with place.services.engine.connect() as connection:
        lines = connection.execute(select(audit).where(audit.c.event.like("sharing-%"))).mappings().all()
    assert [one["event"] for one in lines] == ["sharing-rule-added", "sharing-rule-ended"]
    assert all(json.loads(one["detail"])["operator"] and json.loads(one["detail"])["rule"] == rule for one in lines)


def test_a_rule_has_its_time(place: Place) -> None:
    """ESP-28: days begin at midnight where the portal is; before, it is to come, and from the last day on it is over."""
    assert adds(place, "--from", "2026-11-28", "--until", "2026-11-30").returncode == 0
    midnight = 1795820400  # 2026-11-28T00:00+01:00
    assert (listed(place)[0]["begins"], listed(place)[0]["ends"]) == (midnight, midnight + 2 * 86400)
    begun = SetClock.at
    try:
        for at, state in (
            (midnight - 1, "to come"), (midnight, "in force"), (midnight + 172799, "in force"), (midnight + 172800, "over"),
        ):  # fmt: skip
            SetClock.at = at
            assert listed(place)[0]["state"] == state
    finally:
        SetClock.at = begun


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        ({"target": "population"}, (), "One institution needs no rule"),
        ({"source": "Population Office"}, (), "Use small letters"),
        ({"item": "../x"}, (), "Use small letters"),
        ({"basis": " "}, (), "mandatory"),
        ({"basis": "x" * 301}, (), "at most 300"),
        ({}, ("--until", "2026-11-01"), "The end comes after the beginning"),
        ({"target": "population", "basis": ""}, (), "mandatory"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(
    place: Place, changed: dict[str, str], more: tuple[str, ...], said: str
) -> None:
    """ESP-28, 0.1: nothing is noted, and the command ends with 1."""
    done = adds(place, *more, **changed)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    with place.services.engine.connect() as connection:
        assert connection.execute(select(sharing_rules)).all() == []


def test_what_is_not_there_or_over_is_not_ended(place: Place) -> None:
    """ESP-28, 0.1: an id that there is not, and a rule that was ended."""
    assert command(place, "sharing", "end", "0" * 32).returncode == 1
    rule = json.loads(adds(place, "--json").stdout)["id"]
    assert command(place, "sharing", "end", rule).returncode == 0
    again = command(place, "sharing", "end", rule)
    assert (again.returncode, "over already" in again.stderr) == (1, True)
