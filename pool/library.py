"""
The file of a PKCS#11 module, and whether it may be loaded: only root can have put it there, and only root can change it.

Whoever chooses what a lane loads has the PIN that the lane is given. Which files may be loaded is what the configuration
names, and nothing else names any; here it is seen to that such a name means what an administrator put there:

- The name is absolute, has no '..' and none of the variables that the loader would fill in.
- The walk from '/' goes one name at a time, by descriptors (openat(2)). Each directory, link and file on it is root's.
- Nobody else can write the file, nor a directory on the way; a directory with the sticky bit is as good, because there
  nobody else can remove or rename what is root's (unlink(2), EPERM).
- What is loaded is the name that the walk ended at, without links. After loading it is looked at once more: it is
  still the same file, unchanged, so that what was looked at is what was loaded.
- Where the configuration has the file's SHA-256, that is what it has.

The configuration's check asks this, and each process that loads a module does, just before.
"""

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINKS_MAX = 40  # as the kernel's own walk (path_resolution(7))
_ROOT_UID = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH  # an ACL that lets others write shows in the group's bits (acl(5))
_SEARCH_PATH = "LD_LIBRARY_PATH"


class LibraryRefused(Exception):
    """The file must not be loaded; the message says why, and what to do."""


# From a path and the file's SHA-256, if it is pinned, to what was loaded and the path without links.
Load = Callable[[str, bytes | None], tuple[Any, str]]


def loading(by: Callable[[str], Any]) -> Load:
    """`by` loads only what may be; raises `LibraryRefused`, and what `by` raises."""

    def load(path: str, sha256: bytes | None) -> tuple[Any, str]:
        check_environment(os.environ)
        library = Library.find(path, sha256)
        loaded = by(library.path)
        library.check_again()
        return loaded, library.path

    return load


@dataclass(frozen=True, slots=True)
class Library:
    """A file that may be loaded, by `path`, which has no links."""

    path: str
    sha256: bytes | None
    stamp: tuple[int, ...]  # which file it was, and when it was last changed

    @classmethod
    def find(cls, path: Path | str, sha256: bytes | None = None) -> "Library":
        """Raises `LibraryRefused`."""
        fd, found = _walk(os.fspath(path))
        try:
            status = os.fstat(fd)
            _check_file(found, status)
            if sha256 is not None:
                _check_content(found, fd, sha256)
        finally:
            os.close(fd)
        return cls(found, sha256, _stamp(status))

    def check_again(self) -> None:
        """After loading: that it was this very file that was loaded. Raises `LibraryRefused`."""
        if Library.find(self.path, self.sha256) != self:
            raise LibraryRefused(f"{self.path} was changed while it was being loaded; it is tried again")


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise `LibraryRefused` where these variables let the loader bring in other code than the module and what it names."""
    for name, value in environment.items():
        if name == _SEARCH_PATH:
            for directory in value.replace(";", ":").split(":") if value else ():
                _check_search(directory)
        elif name.startswith("LD_"):
            raise LibraryRefused(f"{name} would have other code loaded beside the module; take it out")


def _check_search(directory: str) -> None:
    try:
        fd, found = _walk(directory)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise LibraryRefused(f"{found} is no directory")
        finally:
            os.close(fd)
    except LibraryRefused as refused:
        said = refused if directory else "an empty place in it is the current directory; take it out"
        raise LibraryRefused(f"{_SEARCH_PATH}: {said}") from None


def _walk(path: str) -> tuple[int, str]:
    """What a path leads to, open, and its name without links; everything on the way is root's."""
    if not path.startswith("/"):
        raise LibraryRefused(f"{path!r} is not absolute; give the whole path")
    if "\0" in path or "$" in path:
        raise LibraryRefused(f"{path!r}: the loader reads '$' and a NUL as something else; give the file a plain name")
    if ".." in path.split("/"):
        raise LibraryRefused(f"{path}: leave out '..'; `realpath {path}` says how it is called")
    names, opened, links = deque(_names(path)), [os.open("/", os.O_PATH | os.O_DIRECTORY)], 0
    places: list[str] = []
    try:
        _check_directory("/", os.fstat(opened[0]))
        while names:
            name, here = names.popleft(), "/" + "/".join(places)
            if name == "..":  # of a link; beside '/' it means '/'
                if places:
                    places.pop()
                    os.close(opened.pop())
                continue
            full = f"{here.rstrip('/')}/{name}"
            status = os.stat(name, dir_fd=opened[-1], follow_symlinks=False)
            _check_owner(full, status)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > LINKS_MAX:
                    raise LibraryRefused(f"{path} goes through more than {LINKS_MAX} links; give the file itself")
                target = os.readlink(name, dir_fd=opened[-1])
                names.extendleft(reversed(_names(target)))
                if target.startswith("/"):
                    places.clear()
                    while len(opened) > 1:
                        os.close(opened.pop())
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            if not is_directory and names:
                raise LibraryRefused(f"{full} is no directory; give the path of the module's file")
            # O_NONBLOCK: a pipe would wait for its other end. Nothing but a file or a directory is opened at all.
            how = os.O_PATH | os.O_DIRECTORY if is_directory else os.O_RDONLY | os.O_NONBLOCK
            if not is_directory and not stat.S_ISREG(status.st_mode):
                raise LibraryRefused(f"{full} is no ordinary file; give the path of the module's file")
            opened.append(os.open(name, how | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1]))
            places.append(name)
            if is_directory:
                _check_directory(full, os.fstat(opened[-1]))
        found = "/" + "/".join(places)
        if "$" in found:
            raise LibraryRefused(f"{path} leads to {found}: the loader reads '$' as something else; rename it")
        return opened.pop(), found
    except OSError as error:
        raise LibraryRefused(f"{path}: {error.strerror}; is it installed, and may this user read it?") from None
    finally:
        for fd in opened:
            os.close(fd)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _check_owner(path: str, status: os.stat_result) -> None:
    if status.st_uid != _ROOT_UID:
        raise LibraryRefused(
            f"{path} belongs to the user {status.st_uid}, who could put anything there; have root install the module "
            "(install -o root -g root -m 0755), in a directory that is root's"
        )


def _check_directory(path: str, status: os.stat_result) -> None:
    _check_owner(path, status)
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise LibraryRefused(_writable(path, status, "the directory"))


def _check_file(path: str, status: os.stat_result) -> None:
    _check_owner(path, status)
    if not stat.S_ISREG(status.st_mode):
        raise LibraryRefused(f"{path} is no ordinary file; give the path of the module's file")
    if status.st_mode & _OTHERS_WRITE:
        raise LibraryRefused(_writable(path, status, "the file"))


def _writable(path: str, status: os.stat_result, what: str) -> str:
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return f"{what} {path} can be written to by others than root (mode {mode}); `chmod go-w {path}`"


def _check_content(path: str, fd: int, sha256: bytes) -> None:
    with open(fd, "rb", closefd=False) as file:
        found = hashlib.file_digest(file, "sha256").digest()
    if found != sha256:
        raise LibraryRefused(
            f"{path} has the SHA-256 {found.hex()}, and not the one in the configuration: it was changed. After an "
            "upgrade that you trust put the new one into module_sha256 and restart; else find out who changed it"
        )


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
