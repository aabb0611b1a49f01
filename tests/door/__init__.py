"""
A PKCS#11 module that is another one in another process's mount and IPC namespaces (door.c): a lane that loads it enters
the house, whoever started the lane stays outside.
"""

from pathlib import Path

from tests.compiled import compiled

__all__ = ["build", "environment"]

SOURCE = Path(__file__).with_name("door.c")


def build() -> Path:
    """The compiled module."""
    return compiled(SOURCE)


def environment(pid: int, module: Path) -> dict[str, str]:
    """What the door needs to know: whose house, and which module is in it."""
    return {"DOOR_PID": str(pid), "DOOR_MODULE": str(module)}
