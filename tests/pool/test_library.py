"""What may be loaded as a PKCS#11 module: only what root alone can have put there. Run as root, who alone can give files away."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pool import LibraryRefused, TokenConfig
from pool.library import LINKS_MAX, Library, check_environment
from pool.process import Child
from signer.config import ConfigError, load
from signer.v1 import operator_pb2, signing_pb2
from tests.pool.rig import MODULE, config, pool_over, state, until, view
from tests.shim import Shim
from tests.softhsm import Store

SOMEBODY = 65534  # a user who is not root: Debian's nobody
# Loaded, it leaves a trace, whatever is called in it afterwards.
SOURCE = """
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    const char *trace = getenv("TRACE");
    if (trace) close(open(trace, O_CREAT | O_WRONLY, 0600));
}
unsigned long C_GetFunctionList(void **list) { *list = 0; return 5; }
"""


@dataclass(frozen=True, slots=True)
class Lure:
    """A directory of root's for one attack, and the module that it would have loaded."""

    place: Path
    module: Path

    def directory(self, *names: str, owner: int = 0, mode: int = 0o755) -> Path:
        made = self.place.joinpath(*names)
        made.mkdir(parents=True)
        os.chown(made, owner, owner)
        made.chmod(mode)
        return made

    def copy(self, directory: Path | None = None, *, owner: int = 0, mode: int = 0o755, name: str = "m.so") -> Path:
        made = (directory or self.place) / name
        shutil.copyfile(self.module, made)
        os.chown(made, owner, owner)
        made.chmod(mode)
        return made

    def link(self, target: Path | str, *, owner: int = 0, name: str = "link.so") -> Path:
        made = self.place / name
        made.symlink_to(target)
        os.chown(made, owner, owner, follow_symlinks=False)
        return made


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("module")
    (place / "m.c").write_text(SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", place / "m.so", place / "m.c"], check=True)
    return place / "m.so"


@pytest.fixture
def lure(tmp_path: Path, module: Path) -> Lure:
    place = tmp_path / "lure"
    place.mkdir()
    return Lure(place, module)


def _acl(lure: Lure) -> Path:
    """An ACL by which one more user may write: owner, that user, group, mask, others (acl(5), its form in xattr(7))."""
    made, anyone = lure.copy(), 0xFFFFFFFF
    entries = [(0x01, 6, anyone), (0x02, 6, SOMEBODY), (0x04, 4, anyone), (0x10, 6, anyone), (0x20, 4, anyone)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(made, "system.posix_acl_access", packed)
    return made


def _hard_link(lure: Lure) -> Path:
    made = lure.directory("theirs", owner=SOMEBODY) / "m.so"
    made.hardlink_to(lure.copy())
    return made


def _fifo(lure: Lure) -> Path:
    made = lure.place / "m.so"
    os.mkfifo(made)
    return made


def _socket(lure: Lure) -> Path:
    made = lure.place / "m.so"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(made))
    return made


def _memory(lure: Lure) -> str:
    """A file without a name, which whoever has the descriptor goes on writing."""
    fd = os.memfd_create("m.so")
    os.write(fd, lure.module.read_bytes())
    return f"/proc/{os.getpid()}/fd/{fd}"


def _loop(lure: Lure) -> Path:
    lure.link("b.so", name="a.so")
    return lure.link("a.so", name="b.so")


def _long_chain(lure: Lure) -> Path:
    lure.copy(name="0.so")
    for number in range(LINKS_MAX + 1):
        lure.link(f"{number}.so", name=f"{number + 1}.so")
    return lure.place / f"{LINKS_MAX + 1}.so"


def _chain_out(lure: Lure) -> Path:
    """Two links of root's; what they lead to in the end is somebody's."""
    lure.link(lure.copy(lure.directory("theirs", owner=SOMEBODY)), name="first.so")
    return lure.link("first.so")


def _linked_directory(lure: Lure, target: Path) -> Path:
    lure.copy(target)
    return lure.link(target, name="linked") / "m.so"


Attack = tuple[Callable[[Lure], Path | str], str]
# What is named as the module, and what is said to whoever named it.
ATTACKS: dict[str, Attack] = {
    "bare name": (lambda _: "libsofthsm2.so", "is not absolute; give the whole path"),
    "relative": (lambda _: "./m.so", "is not absolute; give the whole path"),
    "empty": (lambda _: "", "is not absolute; give the whole path"),
    "home": (lambda _: "~/m.so", "is not absolute; give the whole path"),
    "dots": (lambda lure: f"{lure.directory('a')}/../{lure.copy().name}", "leave out '..'"),
    "loader's variable": (lambda lure: lure.copy(lure.directory("$LIB")), "the loader reads '$'"),
    "loader's variable behind a link": (lambda lure: lure.link(lure.copy(lure.directory("$ORIGIN"))), "the loader reads '$'"),
    "cut by a NUL": (lambda lure: f"{lure.copy()}\0.so", "give the file a plain name"),
    "nothing there": (lambda lure: lure.place / "m.so", "No such file or directory; is it installed"),
    "dangling link": (lambda lure: lure.link("gone.so"), "No such file or directory; is it installed"),
    "circle of links": (_loop, "more than 40 links; give the file itself"),
    "endless links": (_long_chain, "more than 40 links; give the file itself"),
    "name too long": (lambda lure: lure.place / ("m" * 300), "File name too long"),
    "through a file": (lambda lure: lure.copy() / "m.so", "is no directory"),
    "a directory": (lambda lure: lure.directory("m.so"), "is no ordinary file"),
    "a pipe": (_fifo, "is no ordinary file"),
    "a socket": (_socket, "is no ordinary file"),
    "a device": (lambda _: "/dev/zero", "is no ordinary file"),
    "a file in memory": (_memory, "No such file or directory"),
    "somebody's file": (lambda lure: lure.copy(owner=SOMEBODY), "belongs to the user 65534"),
    "somebody's hard link": (_hard_link, "belongs to the user 65534"),
    "group may write": (lambda lure: lure.copy(mode=0o775), "the file {path} can be written to by others than root (mode 0775)"),
    "all may write": (lambda lure: lure.copy(mode=0o757), "the file {path} can be written to by others than root (mode 0757)"),
    "one more may write": (_acl, "the file {path} can be written to by others than root (mode 0664)"),
    "somebody's directory": (lambda lure: lure.copy(lure.directory("theirs", owner=SOMEBODY)), "belongs to the user 65534"),
    "group's directory": (lambda lure: lure.copy(lure.directory("d", mode=0o775)), "the directory {parent} can be written to"),
    "everybody's directory": (lambda lure: lure.copy(lure.directory("d", mode=0o777)), "`chmod go-w {parent}`"),
    "somebody's directory far above": (
        lambda lure: lure.copy(lure.directory("a", owner=SOMEBODY) and lure.directory("a", "b", "c")), "belongs to the user 65534",
    ),
    "everybody's directory far above": (
        lambda lure: lure.copy(lure.directory("a", mode=0o777) and lure.directory("a", "b", "c")), "`chmod go-w ",
    ),
    "somebody's file in a shared directory": (
        lambda lure: lure.copy(lure.directory("tmp", mode=0o1777), owner=SOMEBODY), "have root install the module",
    ),
    "somebody's directory in a shared one": (
        lambda lure: lure.copy(lure.directory("tmp", mode=0o1777) and lure.directory("tmp", "x", owner=SOMEBODY)), "have root install the module",
    ),
    "somebody's link": (lambda lure: lure.link(lure.copy(), owner=SOMEBODY), "belongs to the user 65534"),
    "link to somebody's": (lambda lure: lure.link(lure.copy(owner=SOMEBODY)), "belongs to the user 65534"),
    "link into somebody's": (lambda lure: lure.link(lure.copy(lure.directory("t", owner=SOMEBODY))), "belongs to the user 65534"),
    "link to a link into somebody's": (_chain_out, "belongs to the user 65534"),
    "linked directory of somebody's": (lambda lure: _linked_directory(lure, lure.directory("t", owner=SOMEBODY)), "belongs to the user 65534"),
    "linked directory that all write": (lambda lure: _linked_directory(lure, lure.directory("t", mode=0o777)), "`chmod go-w "),
    "link with dots into somebody's": (
        lambda lure: lure.link(f"{lure.directory('x').name}/../{lure.copy(lure.directory('t', owner=SOMEBODY)).relative_to(lure.place)}"), "belongs to the user 65534",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusals:
    """Every attack's path, with what must be said of it."""

    said: dict[str, str]
    trace: Path


@pytest.fixture
def attacked(tmp_path: Path, module: Path) -> Refusals:
    said: dict[str, str] = {}
    for number, (make, message) in enumerate(ATTACKS.values()):
        place = tmp_path / str(number)
        place.mkdir()
        path = os.fspath(make(Lure(place, module)))
        said[path] = message.format(path=path, parent=Path(path).parent)
    assert len(said) == len(ATTACKS) >= 30
    return Refusals(said, tmp_path / "trace")


@pytest.mark.parametrize("name", ATTACKS)
def test_row_7_6_a_module_that_is_not_roots_is_refused(name: str, lure: Lure) -> None:
    """
    Row 7.6: modules only by absolute paths of the configuration, root's along the whole way; each of more than 30 ways
    round it is refused, with what is wrong and what to do.
    """
    make, said = ATTACKS[name]
    path = make(lure)
    with pytest.raises(LibraryRefused) as refused:
        Library.find(path)
    assert said.format(path=path, parent=Path(path).parent) in str(refused.value)


def test_row_7_6_what_is_roots_is_taken(lure: Lure) -> None:
    """Row 7.6: the same walk lets through what root has installed: plain, by links, in a shared directory; else it would be useless."""
    plain = lure.copy()
    assert Library.find(plain).path == os.fspath(plain)
    assert Library.find(lure.link("m.so")).path == os.fspath(plain)
    assert Library.find(lure.link(lure.place, name="all") / "m.so").path == os.fspath(plain)
    inside = lure.directory("inside")
    assert Library.find(lure.link(inside / "../m.so", name="up.so")).path == os.fspath(plain)
    shared = lure.copy(lure.directory("tmp", mode=0o1777))
    assert Library.find(shared).path == os.fspath(shared)
    assert Library.find(MODULE).path == os.path.realpath(MODULE)
    digest = hashlib.sha256(plain.read_bytes()).digest()
    assert Library.find(plain, digest).sha256 == digest


def test_row_7_6_a_pinned_module_is_refused_when_it_changes(lure: Lure) -> None:
    """Row 7.6: optionally pinned by SHA-256: one changed bit of the file, and it is not loaded any more."""
    path = lure.copy()
    pinned = Library.find(path, hashlib.sha256(path.read_bytes()).digest())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LibraryRefused, match="put the new one into module_sha256"):
        Library.find(path, pinned.sha256)


@pytest.mark.parametrize("how", ["replaced", "written", "moved", "given away"])
def test_row_7_6_what_is_looked_at_is_what_is_loaded(how: str, lure: Lure) -> None:
    """Row 7.6: a file that becomes another one between the look and the loading, even by root, is noticed before any use."""
    path = lure.copy()
    found = Library.find(path)
    found.check_again()
    if how == "replaced":
        lure.copy(name="other.so").replace(path)
    elif how == "written":
        with path.open("ab") as file:
            file.write(b"\0")
    elif how == "moved":
        path.rename(path.with_name("elsewhere.so"))
    else:
        os.chown(path, SOMEBODY, SOMEBODY)
    with pytest.raises(LibraryRefused):
        found.check_again()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LD_PRELOAD": "/usr/lib/x.so"}, "LD_PRELOAD would have other code loaded"),
        ({"LD_AUDIT": "/usr/lib/x.so"}, "LD_AUDIT would have other code loaded"),
        ({"LD_LIBRARY_PATH": "lib"}, "LD_LIBRARY_PATH: 'lib' is not absolute"),
        ({"LD_LIBRARY_PATH": "/usr/lib:"}, "LD_LIBRARY_PATH: an empty place in it is the current directory"),
        ({"LD_LIBRARY_PATH": "/usr/lib;{theirs}"}, "LD_LIBRARY_PATH: {theirs} belongs to the user 65534"),
        ({"LD_LIBRARY_PATH": "/usr/$LIB"}, "the loader reads '$'"),
        ({"LD_LIBRARY_PATH": str(MODULE)}, "is no directory"),
    ],
)
def test_row_7_6_no_other_code_beside_the_module(environment: dict[str, str], said: str, lure: Lure) -> None:
    """Row 7.6: what the loader would bring in beside the module is refused, too."""
    theirs = str(lure.directory("theirs", owner=SOMEBODY))
    with pytest.raises(LibraryRefused) as refused:
        check_environment({name: value.replace("{theirs}", theirs) for name, value in environment.items()})
    assert said.replace("{theirs}", theirs) in str(refused.value)
    check_environment({"LD_LIBRARY_PATH": "/usr/lib", "SOFTHSM2_CONF": theirs, "LANG": "C"})
    check_environment({"LD_LIBRARY_PATH": ""})


async def _told(program: str, path: str, environment: dict[str, str]) -> dict[str, Any]:
    """What a lane's process or a probe answers that is to load this module."""
    words = [] if program == "pool.probe" else [str(os.memfd_create("pages"))]
    fds = () if program == "pool.probe" else (int(words[0]),)
    for fd in fds:
        os.ftruncate(fd, 1 << 24)
    child = await Child.start(program, *words, environment=environment, fds=fds)
    question = {"t": "open", "module": path, "sha256": None, "reader": None, "label": "", "serial": None, "keys": None}
    if program == "pool.worker":
        question["verify"] = True
    try:
        return await child.ask(question, 10)
    finally:
        await child.close()
        for fd in fds:
            os.close(fd)


async def test_row_7_6_each_process_that_loads_a_module_looks(attacked: Refusals) -> None:
    """Row 7.6: a lane's process and a probe look themselves, just before they load: of no attack is anything run."""
    environment = {"TRACE": str(attacked.trace)}
    paths = [path for path in attacked.said if "\0" not in path]  # no argument of a process can have one
    for program, some in (("pool.worker", paths), ("pool.probe", paths[::6])):
        answers = await asyncio.gather(*(_told(program, path, environment) for path in some))
        for path, answer in zip(some, answers, strict=True):
            assert answer["t"] == "failed"
            assert attacked.said[path] in answer["detail"], (program, path)
    assert not attacked.trace.exists()


@pytest.mark.parametrize("program", ["pool.worker", "pool.probe"])
async def test_row_7_6_the_trace_would_show_it(program: str, lure: Lure, tmp_path: Path) -> None:
    """The test above sees what is loaded: a module of root's own leaves the trace; beside LD_LIBRARY_PATH of somebody's none does."""
    path, trace = os.fspath(lure.copy()), tmp_path / "trace"
    theirs = str(lure.directory("theirs", owner=SOMEBODY))
    answer = await _told(program, path, {"TRACE": str(trace), "LD_LIBRARY_PATH": theirs})
    assert "LD_LIBRARY_PATH" in answer["detail"]
    assert not trace.exists()
    await _told(program, path, {"TRACE": str(trace)})
    assert trace.exists()


async def test_row_7_6_a_token_says_why_and_comes_back(
    store: Store, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Row 7.6: a module that somebody may write is not loaded at a lane's start either: its token is TRIPPED and says what to
    do; no PIN was sent; when that is done it comes back by itself.
    """
    monkeypatch.setattr("pool.keeper.TRIPPED_S", 0.2)
    place = tmp_path / "lib"
    place.mkdir()
    path = Path(shutil.copy(shim.module, place / "p11.so"))
    path.chmod(0o777)
    given: TokenConfig = config(store, shim=shim, module=path)
    async with pool_over(given, state=tmp_path / "pool", wait=False) as pool:
        await until(lambda: state(pool) == "TRIPPED", 10)
        assert view(pool).detail.startswith(f"the file {path} can be written to")
        assert f"`chmod go-w {path}`" in view(pool).detail
        await asyncio.sleep(0.5)  # a look or two
        assert state(pool) == "TRIPPED"
        assert shim.log() == []
        path.chmod(0o755)
        await until(lambda: state(pool) == "READY", 15)


def test_row_7_6_the_configuration_is_checked(attacked: Refusals, tmp_path: Path) -> None:
    """Row 7.6: `paraph serve --check` names each of them, with the token."""
    wrong = [path for path in attacked.said if "\0" not in path]
    tokens = "".join(
        f'[[token]]\nname = "t{number}"\nkind = "smartcard"\nlabel = "x"\nmodule = "{path}"\n'
        for number, path in enumerate(wrong)
    )
    pin = "[[token]]\nname = 'pinned'\nkind = 'smartcard'\nlabel = 'x'\nmodule = '{}'\nmodule_sha256 = '{}'\n"
    preload = f"[[token]]\nname='e'\nkind='smartcard'\nlabel='x'\nmodule='{MODULE}'\nenvironment={{LD_PRELOAD='/x'}}\n"
    file = tmp_path / "paraph.toml"
    file.write_text(tokens + pin.format(MODULE, "00" * 32) + pin.format(MODULE, "xyz") + preload)
    with pytest.raises(ConfigError) as refused:
        load(file)
    mistakes = refused.value.mistakes
    for number, path in enumerate(wrong):
        [said] = [mistake for mistake in mistakes if mistake.startswith(f'token "t{number}": module: ')]
        assert attacked.said[path] in said or not path.startswith("/")
    assert any("module_sha256: " in mistake and "find out who changed it" in mistake for mistake in mistakes)
    assert any(mistake.startswith('token "pinned": module_sha256: ') for mistake in mistakes)
    assert any("LD_PRELOAD would have other code loaded" in mistake for mistake in mistakes)


def test_row_7_6_a_path_never_comes_from_a_request() -> None:
    """Row 7.6: no request of either service has a field for a module: only the answer about tokens names one."""
    asked = set()
    for proto in (signing_pb2, operator_pb2):
        for service in proto.DESCRIPTOR.services_by_name.values():
            asked |= {field for method in service.methods for field in _fields(method.input_type, set())}
    assert {"credential", "token", "request_id"} <= asked
    assert not {
        name for name in asked if any(word in name for word in ("module", "path", "library", "file", "label"))
    } - {"key_label"}


def _fields(message: Any, seen: set[str]) -> set[str]:
    if message.full_name in seen:
        return set()
    seen.add(message.full_name)
    inside = (_fields(field.message_type, seen) for field in message.fields if field.message_type)
    return {field.name for field in message.fields}.union(*inside)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_the_walk_leaves_no_descriptor(attacked: Refusals) -> None:
    """A look, good or refused, closes what it has opened: lanes start for years."""
    before = _descriptors()
    for path in [*attacked.said, str(MODULE)]:
        with contextlib.suppress(LibraryRefused):
            Library.find(path)
    assert _descriptors() == before
