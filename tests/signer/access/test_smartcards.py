"""The daemon over true smartcards (tests/card): pulled and put back under load, and a pcscd that it may not use."""

import pytest

from signer.cli.exits import CONFIG
from tests import pulls
from tests.card import Card, Pcscd

SEED = 6


def test_a_card_is_pulled_and_pcscd_killed_under_load() -> None:
    """
    Row 2.6: re-plug recovery without restart: a card pulled and put back at random moments, and pcscd killed: it signs
    again within 3 s, nothing is lost, signed twice or with another key, and each PIN that the card hears is right.
    """
    print(pulls.run(5, 2, SEED))


def test_a_pcscd_that_the_daemon_may_not_use() -> None:
    """F49: pcscd's socket denied to the daemon's user is a mistake of the configuration, told at the start; exit code 78."""
    card = Card()
    with Pcscd("desk") as pcscd:
        rig = pulls.card_rig(pcscd, card)
        if rig.user is None:
            pytest.fail("run the tests as root: whoever owns the socket is denied nothing")
        try:
            pcscd["desk"].insert(card)
            pcscd.path.chmod(0o600)
            rig.prepare()
            rig.launch()
            assert rig.process is not None
            assert rig.process.wait(20) == CONFIG
            said = rig.log.read_text()
            assert f"token card: {pcscd.path} may not be used by this user (Permission denied)" in said
        finally:
            rig.close()
    assert not card.seen("verify")
