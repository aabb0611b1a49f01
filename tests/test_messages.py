"""What an operator reads is listed, names its token or lane, and says what to do."""

from pool.token import ADVICE, IN_USE, REFUSAL, State
from tests.messages import listed, locking, log_lines, spoken


def test_the_list_has_every_message() -> None:
    """pool/MESSAGES.md has each message of the source and no other: whoever adds one writes what to do about it."""
    assert set(listed()) == set(spoken())


def test_a_log_line_says_whose_it_is() -> None:
    """Each line at WARNING or above names its token, lane or module, or says that it is a fault of ours to report."""
    lines = log_lines()
    assert len(lines) > 10
    for line in lines:
        assert any(f"{what} …" in line for what in ("token", "lane", "module")) or "report it" in line, line


def test_a_log_line_says_what_to_do() -> None:
    """A next step, or that none is needed; the line of a state has them in what is put in, and an override needs none."""
    steps = ("by itself", "see to", "put it", "drain it", "report it")
    without = {line for line in log_lines() if not any(step in line for step in steps)}
    assert without == {"token … is ……", "token …: … overrides the guard of the last tries: …"}


def test_every_state_that_refuses_has_advice() -> None:
    """A state in which a token is not used by somebody's fault says what to do; OPEN and a person's own pass by themselves."""
    assert set(ADVICE) == set(REFUSAL) - {State.OPEN} - IN_USE


def test_what_locks_a_token_says_how_to_unlock_it() -> None:
    """LOCKED is left only by a person, so each of its reasons has a next step; so has a PIN that is not sent."""
    reasons = locking()
    assert len(reasons) >= 8
    for reason in reasons:
        assert "unlock" in reason or "override" in reason, reason
