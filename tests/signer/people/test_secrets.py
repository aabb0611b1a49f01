"""
No secret of a person is written down, told or left behind: codes, one-time codes, PINs, seeds, enrolment codes, links and
references are canaries here, and then all is looked through that the processes have written, said and hold.

The order matters: what is looked for at the end was provoked before.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from pool import REASONS
from signer.errors import TABLE as ERRORS
from tests.signer.people import provocations
from tests.signer.people.stage import Stage

SOURCE = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


# ---- what is provoked


def test_each_refusal_is_here_or_elsewhere() -> None:
    """No refusal of signer/errors.py or of the pool is forgotten below."""
    assert provocations.TABLE.keys() | provocations.ELSEWHERE.keys() == ERRORS.keys() | REASONS.keys()
    assert not provocations.TABLE.keys() & provocations.ELSEWHERE.keys()


@pytest.mark.parametrize("reason", provocations.TABLE)
def test_a_refusal(stage: Stage, reason: str) -> None:
    """It is provoked, with canaries in the fields that it leaves free; they are looked for below."""
    answer = provocations.TABLE[reason](stage)
    stage.look()
    assert answer.reason == reason, answer
    stage.town.unlock("ada")


def test_refusals_elsewhere_repeat_nobody() -> None:
    """What is not provoked here is raised with texts that have no word of a caller's: constants, numbers, our own names."""
    repeated = []
    for path in sorted((SOURCE / "signer").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in {"Refusal", "Unread"}:
                continue
            reason, *details = node.args
            if isinstance(reason, ast.Constant) and reason.value in provocations.ELSEWHERE:
                said = [
                    ast.unparse(part.value)
                    for one in details
                    for part in ast.walk(one)
                    if isinstance(part, ast.FormattedValue)
                ]
                repeated += [(path.name, reason.value, one) for one in said if one not in OURS]
                repeated += [
                    (path.name, reason.value, ast.unparse(one))
                    for one in details
                    if not isinstance(one, ast.Constant | ast.JoinedStr) and ast.unparse(one) not in OURS
                ]
    assert repeated == []


OURS: set[str] = set()


def fields(message: Message) -> Iterator[tuple[Message, Any]]:
    """Each text and each field of bytes in it, at any depth: (the message that has it, the field)."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type in {field.TYPE_STRING, field.TYPE_BYTES}:
            yield message, field
        elif field.type == field.TYPE_MESSAGE and field.is_repeated:
            for one in value:
                yield from fields(one)
        elif field.type == field.TYPE_MESSAGE and message.HasField(field.name):
            yield from fields(value)
