"""
Resets the card in one reader, or waits until something happens in it, in a process that is thrown away afterwards.

A card that was given its PIN stays logged in for whoever speaks to it next, also when the process that gave the PIN was
killed: only a reset or the loss of its power ends that. C_Logout alone depends on the driver's good will, and nobody
calls it for a process that crashed. Started as `python -I -m pool.card SOCKET READER ORDER PARENT`; the order is 'reset',
'look', or 'wait' with what was seen last and for how many seconds.
"""

import json
import os
import sys
from dataclasses import astuple
from typing import Any

from pool import wire
from pool.child import harden, open_socket
from pool.library import LibraryRefused, check_environment
from pool.pcsc import Pcsc, PcscError, Seen


def obey(reader: str, order: list[Any]) -> dict[str, Any]:
    try:
        check_environment(os.environ)
        pcsc = Pcsc()
        match order:
            case ["reset"]:
                pcsc.reset(reader)
                return {"t": "reset"}
            case ["look"]:
                seen = pcsc.look(reader)
            case ["wait", last, seconds]:
                seen = pcsc.wait(reader, None if last is None else Seen(*last), seconds)
            case _:
                raise AssertionError(order)
    except LibraryRefused as refused:
        return {"t": "failed", "why": "fault", "detail": str(refused)}
    except PcscError as error:
        return {"t": "failed", "why": error.why, "detail": error.detail}
    return {"t": "seen", "seen": astuple(seen)}


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    sock.send(wire.pack(obey(sys.argv[2], json.loads(sys.argv[3]))))


if __name__ == "__main__":
    main()
