"""The log's lines about refused calls: a few of each, and one that says how many there were besides."""

import asyncio
import signal

import pytest

from signer import refused
from signer.refused import LINES_MAX, LINES_OF_NOBODY_MAX, Refused
from tests.daemon import running
from tests.signer.access.calls import Caller, ask, card_rig, said

CALLS = 200


def test_refusals_do_not_fill_the_log() -> None:
    """
    Of a caller's two hundred refused calls, and of as many of somebody who is no caller, thirty have a line each, on however
    many connections they come; the daemon's log says how many have none, at the minute's end or its own.
    """
    with running(card_rig("P-256")) as rig:
        for name in ("portal", "stranger"):
            for _ in range(4):
                with Caller(rig, name) as caller:
                    calls = [
                        caller.signing.SignDigests.future(ask(credential="none"), timeout=20) for _ in range(CALLS // 4)
                    ]
                    assert {said(call.result).code for call in calls} <= {"NOT_FOUND", "UNAUTHENTICATED"}
        lines = [line for line in rig.log.read_text().splitlines() if " refused: " in line]
        assert sum("caller=portal" in line for line in lines) == LINES_MAX
        assert sum("CALLER_UNKNOWN" in line for line in lines) == LINES_MAX
        assert len(lines) == 2 * LINES_MAX
        assert rig.stop(signal.SIGTERM) == 0
        text = rig.log.read_text()
        for who in ("caller=portal", "peer=ipv4:127.0.0.1"):
            assert f"{who}: {CALLS - LINES_MAX} more calls refused in a minute, which have no line" in text


async def test_all_who_are_no_callers_have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has a thousand addresses has no more lines for it; callers have theirs beside."""
    lines = Refused()
    peers = [f"ipv6:%5B2001:db8::{number:x}%5D:{port}" for number in range(1_000) for port in (1, 2)]
    assert sum(lines.has_line("", peer) for peer in peers) == LINES_OF_NOBODY_MAX
    assert sum(lines.has_line("portal", peers[0]) for _ in range(LINES_MAX + 1)) == LINES_MAX
    assert len(lines._left_out) == 2
    lines.tell()
    assert "others: 1700 more calls refused" in caplog.text
    assert "caller=portal: 1 more calls refused" in caplog.text
    assert lines.has_line("portal", peers[0])


async def test_each_minute_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the first line in it; where nothing was left out there is no word of that."""
    monkeypatch.setattr(refused, "MINUTE_S", 0.0)
    lines, told = Refused(), []
    monkeypatch.setattr(lines, "tell", lambda: told.append(True))
    assert lines.has_line("portal", "ipv4:192.0.2.1:1")
    assert lines.has_line("portal", "ipv4:192.0.2.1:1")
    await asyncio.sleep(0.01)
    assert told == [True]
