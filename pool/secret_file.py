"""A secret's file is read: one that nobody but its owner can have read, and nothing that holds up who reads it."""

import os
import stat
from pathlib import Path


class SecretFileError(ValueError):
    """It is no file for a secret; the message goes behind its name, and says what to change."""


def read_secret(path: Path, bytes_max: int, *, group_may_read: bool = False) -> bytes:
    """
    Its content, at most one byte over the limit. Raises `OSError` where it cannot be opened, or `SecretFileError`.

    `group_may_read` is for systemd's credentials directory, which nobody else can enter: there a file may carry an ACL
    for the service's user, and an ACL's mask shows as the group's bits (acl(5)).
    """
    # Not to block on a pipe; of a regular file it means nothing.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SecretFileError("is not a regular file")
        if status.st_mode & (0o037 if group_may_read else 0o077):
            raise SecretFileError(
                f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); give it mode 0400, or make a new "
                "secret if others may have read it"
            )
        return os.read(fd, bytes_max + 1)
    finally:
        os.close(fd)
