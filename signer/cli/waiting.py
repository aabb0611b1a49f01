"""How long `paraph sign` waits for a service that refuses for now, and the line that says so."""

import sys
import time

from signer.client import ServiceError

WAIT_S = 30.0  # from the first refusal on, whatever is asked meanwhile
QUIET_S = 2.0  # a wait that is over by then needs no word


class Waiting:
    """What the client asks before each pause. After files that waited in vain the next are sent once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_told = False

    def __call__(self, error: ServiceError, pause_s: float) -> bool:
        """Whether it may wait so long and send the same again."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        end = self._since + WAIT_S
        if now + pause_s > end:
            return False
        if not self._is_told and now + pause_s >= self._since + QUIET_S:
            self._is_told = True
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + end - now))
            print(f"paraph: waiting until {until}: {error.reason}: {error.message}", file=sys.stderr)
        return True

    def over(self) -> None:
        """It was signed."""
        self._since, self._is_told = None, False
