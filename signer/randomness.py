"""Whether the kernel gives random bytes: without them nothing is served, because nothing else is good enough in their place."""

import os

BYTES = 32


class NoRandomness(Exception):
    """The message says what to do."""


def check() -> None:
    """Raise `NoRandomness` where getrandom(2) fails, or would wait for the system to have gathered enough (GRND_NONBLOCK)."""
    try:
        os.getrandom(BYTES, os.GRND_NONBLOCK)
    except OSError as error:
        raise NoRandomness(
            f"the system gives no random bytes ({error.strerror}), so nothing can be kept secret or signed; "
            "start again when it does: see `dmesg` about crng, and whether a seccomp filter forbids getrandom"
        ) from None
