"""
One daemon to a state directory, and one to a token: two would each count PIN tries, and each sign without the other's
knowledge.

A token is held by the name of a Unix socket in Linux's abstract namespace (unix(7)): the kernel frees it with the
process, however that ends, and tells who listens. The name is made of what the configuration says of the token (module,
label, serial, reader, environment), because it must be held before the token is touched. Anybody on the host may take a name;
so a holder counts only if it is the superuser's or runs as we do.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from signer.config import Token

log = logging.getLogger("signer")

_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


class AlreadyRunning(Exception):
    """Another daemon uses this state directory or one of the tokens; the message names its process."""


def hold_state(state: Path) -> Callable[[], None]:
    """Raises `AlreadyRunning`; answers how to let go."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode().strip()
        os.close(fd)
        raise AlreadyRunning(f"{state} is used by the daemon with process id {holder}") from None
    os.truncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return lambda: os.close(fd)


def hold_tokens(tokens: Iterable[Token]) -> Callable[[], None]:
    """Raises `AlreadyRunning`, and holds none then; answers how to let go of all."""
    with contextlib.ExitStack() as stack:
        for token in tokens:
            stack.callback(_hold(token).close)
        return stack.pop_all().close


def _hold(token: Token) -> socket.socket:
    name = _name(token)
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
        held.listen(8)
    except OSError:
        held.close()
        pid, uid = _holder(name)
        if uid in {0, os.geteuid()}:
            raise AlreadyRunning(
                f"token {token.name} ({token.module}, {token.label}) is used by the daemon with process id {pid}"
            ) from None
        log.warning(
            "somebody else (user %d, process %d) holds the name of token %s; it is not locked", uid, pid, token.name
        )
        return socket.socket(socket.AF_UNIX)
    return held


def _name(token: Token) -> bytes:
    said = [
        str(token.module.resolve()),
        token.label,
        token.serial or "",
        *([token.reader] if token.reader else []),
        *sorted(map("=".join, token.environment.items())),
    ]
    return b"\0paraph-token-" + hashlib.sha256("\0".join(said).encode()).hexdigest().encode()


def _holder(name: bytes) -> tuple[int, int]:
    """The process and user that listen there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(name)
            pid, uid, _ = _CREDENTIALS.unpack(
                asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
        except OSError:  # it let go just now, or does not listen: then it is none of ours
            return 0, -1
    return pid, uid
