"""
One daemon to a state directory, and one to a token: two would each count PIN tries, and each sign without the other's
knowledge.

A token is held by the name of a Unix socket in Linux's abstract namespace (unix(7)): the kernel frees it with the
process, however that ends, and tells who listens. The name is made of what the configuration says of the token (module,
label and environment, behind them the serial, and the reader), because it must be held before the token is touched.
Anybody on the host may take a name; so a holder counts only if it is the superuser's or runs as we do.

Whoever names no serial means the token whatever its serial is, and who names no reader means it in any of them: so each
looks at all names that begin like his own. Two readers are two tokens, because two cards may be alike in all else. The
environment is in the name because it says which tokens a module has (SOFTHSM2_CONF), and only the module knows by which
of its variables: a token that two configurations reach with different ones is not seen to be one.

Abstract names are those of a network namespace: daemons in two containers do not see each other.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
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
    named = [(_name(token), token) for token in tokens]
    with contextlib.ExitStack() as stack:
        for name, token in named:
            stack.callback(_hold(name, token).close)
        # Only now: of two who come at once at least one finds the other.
        for name, token in named:
            for other in set(_alike(name)) - {name for name, _ in named}:
                pid, uid = _holder(other)
                if uid in {0, os.geteuid()}:
                    raise _used(token, pid)
        return stack.pop_all().close


def _hold(name: bytes, token: Token) -> socket.socket:
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
        held.listen(8)
    except OSError:
        held.close()
        pid, uid = _holder(name)
        if uid in {0, os.geteuid()}:
            raise _used(token, pid) from None
        log.warning(
            "somebody else (user %d, process %d) holds the name of token %s; it is not locked", uid, pid, token.name
        )
        return socket.socket(socket.AF_UNIX)
    return held


def _used(token: Token, pid: int) -> AlreadyRunning:
    return AlreadyRunning(
        f"token {token.name} ({token.module}, {token.label}) is used by the daemon with process id {pid}"
    )


def _name(token: Token) -> bytes:
    """With two parts behind it, its serial and its reader, each empty where it may be any."""
    said = [str(token.module.resolve()), token.label, *sorted(map("=".join, token.environment.items()))]
    narrower = (_short(part) if part else b"" for part in (token.serial, token.reader))
    return b"-".join((b"\0paraph-token", _short("\0".join(said)), *narrower))


def _short(text: str) -> bytes:
    """Of such a length that three of them stand in a socket's name (108 bytes)."""
    return hashlib.sha256(text.encode()).hexdigest()[:24].encode()


def _alike(name: bytes) -> Iterator[bytes]:
    """The names that are held of what may be the same token: with the same serial and reader, or with any."""
    base, *ours = name.rsplit(b"-", 2)
    for line in Path("/proc/self/net/unix").read_bytes().splitlines():
        other = b"\0" + line.rpartition(b" @")[2]  # an abstract name begins with '@' there
        other_base, *theirs = other.rsplit(b"-", 2)
        if other_base == base and all(a == b or not a or not b for a, b in zip(ours, theirs, strict=True)):
            yield other


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
