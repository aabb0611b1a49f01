"""
A PKCS#11 module that is another one in another process's mount and IPC namespaces (door.c): a lane that loads it enters
the house, whoever started the lane stays outside.
"""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

__all__ = ["build", "environment"]

SOURCE = Path(__file__).with_name("door.c")
COMPILER = ("gcc", "-std=gnu11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


def build() -> Path:
    """The compiled module; once per source, in a directory that nobody else can write to."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(COMPILER).encode()).hexdigest()
    directory = Path(tempfile.gettempdir()) / f"paraph-door-{digest}-{os.geteuid()}"
    directory.mkdir(exist_ok=True, mode=0o755)
    if directory.stat().st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
    module = directory / "door.so"
    if not module.exists():
        made = directory / f"{os.getpid()}.so"
        subprocess.run([*COMPILER, "-o", made, SOURCE, "-ldl"], check=True)
        made.chmod(0o755)
        made.replace(module)
    return module


def environment(pid: int, module: Path) -> dict[str, str]:
    """What the door needs to know: whose house, and which module is in it."""
    return {"DOOR_PID": str(pid), "DOOR_MODULE": str(module)}
