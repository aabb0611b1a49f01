"""Small libraries in C that tests put before or into other programs: compiled when they are first wanted."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

COMPILER = ("gcc", "-std=gnu11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


def compiled(source: Path) -> Path:
    """The library of a C file; once per source, in a directory that other users can read and not write to."""
    digest = hashlib.sha256(source.read_bytes() + repr(COMPILER).encode()).hexdigest()
    directory = Path(tempfile.gettempdir()) / f"paraph-{source.stem}-{digest}-{os.geteuid()}"
    directory.mkdir(exist_ok=True, mode=0o755)
    if directory.stat().st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
    library = directory / f"{source.stem}.so"
    if not library.exists():
        made = directory / f"{os.getpid()}.so"
        subprocess.run([*COMPILER, "-o", made, source, "-ldl"], check=True)
        made.chmod(0o755)
        made.replace(library)
    return library
