"""Smartcards for tests: a virtual PIV card, and a private pcscd with readers to put it in. README.md says how."""

from tests.card.client import has_card, is_logged_in, transmit
from tests.card.pcscd import Pcscd
from tests.card.piv import Card, Event
from tests.card.reader import Reader

__all__ = ["Card", "Event", "Pcscd", "Reader", "has_card", "is_logged_in", "transmit"]
