"""What the daemon holds does not grow; the full size is `make soak PART=leaks`."""

from tests import soak


def test_nothing_grows() -> None:
    """
    20 000 signatures and 300 cancelled calls leave as many descriptors, sessions and processes as there were, and the
    front under 150 MB and no larger after the second half than after the first.
    """
    print(soak.leaks(signatures=20_000, cancels=300))
