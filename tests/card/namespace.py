"""
Runs pcscd where nothing of the machine's own is: in mount and network namespaces of its own.

/run is empty there, and /run/pcscd a directory of the tests'. The only network is a loopback of its own, because vpcd
listens on all addresses: so no port of it can be reached from elsewhere, or be taken. Started by `Pcscd` as
`unshare --mount --net python -I namespace.py SOCKET DIRECTORY`; ends, with pcscd, when its socket does.
"""

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

PCSCD = "/usr/sbin/pcscd"
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def enter(run: Path) -> None:
    """The mounts, and the loopback device up."""
    for bundle in Path("/usr/lib/pcsc/drivers").glob("*.bundle"):  # drivers of real readers, which are none of ours
        _mount("-t", "tmpfs", "none", bundle)
    _mount("-t", "tmpfs", "none", "/run")
    Path("/run/pcscd").mkdir()
    _mount("--bind", run, "/run/pcscd")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def command(conf: Path) -> list[str]:
    """Newer ones ask polkit who may use a card, which is nothing that a test's user was granted."""
    said = subprocess.run([PCSCD, "--help"], check=False, text=True, capture_output=True)
    alone = ["--disable-polkit"] if "--disable-polkit" in said.stdout + said.stderr else []
    return [PCSCD, "--foreground", "--config", str(conf), *alone]


def serve(control: socket.socket, directory: Path) -> None:
    """'start': pcscd anew, answered by its process id; a port: a connection to it. Until the other end is closed."""
    run, conf = directory / "run", directory / "conf"
    enter(run)
    words, pcscd = command(conf), None
    try:
        while order := control.recv(64).decode():
            if order == "start":
                if pcscd is not None:
                    pcscd.wait()
                for left in run.iterdir():
                    left.unlink()
                with (directory / "log").open("ab") as log:
                    pcscd = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                control.send(str(pcscd.pid).encode())
                continue
            try:
                with socket.create_connection(("127.0.0.1", int(order))) as made:
                    socket.send_fds(control, [b"connected"], [made.fileno()])
            except OSError as error:
                control.send(str(error).encode())
    finally:
        if pcscd is not None:
            pcscd.kill()
            pcscd.wait()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests, which then close the socket
    serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    os.chdir("/")
    main()
