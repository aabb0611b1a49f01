"""Whether the kernel gives random bytes: without them nothing is kept secret, because nothing else is good enough in their place."""

import os
from collections.abc import Callable

BYTES = 32


class NoRandomness(Exception):
    """The message says what to do."""


def check() -> None:
    """Raise `NoRandomness` where getrandom(2) fails, or would wait for the system to have gathered enough (GRND_NONBLOCK)."""
    _ask(lambda: os.getrandom(BYTES, os.GRND_NONBLOCK))


def check_again() -> None:
    """
    The same in a process that has had some, by the call that all of it uses. The kernel does not stop once it has begun;
    what stands before it may.
    """
    _ask(lambda: os.urandom(1))


def _ask(call: Callable[[], bytes]) -> None:
    try:
        call()
    except OSError as error:
        raise NoRandomness(
            f"the system gives no random bytes ({error.strerror}), so nothing can be kept secret or signed: "
            "see `dmesg` about crng, and whether a seccomp filter forbids getrandom"
        ) from None
