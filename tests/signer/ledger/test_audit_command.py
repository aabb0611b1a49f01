"""`paraph audit` as an auditor meets it: exit codes, what it says and in which order, and the keys that it makes."""

import json
import os
import random
import resource
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from signer import chain
from signer.__main__ import main
from signer.anchor import syslog_message
from signer.chain import Kind
from signer.clock import Clock
from signer.note import key_id, parse
from tests.daemon import running
from tests.signer.access.calls import Paraph
from tests.signer.access.test_config import GOOD
from tests.signer.ledger import crashes
from tests.signer.ledger.book import book
from tests.signer.ledger.histories import KEY, Chain, Key, Story
from tests.signer.ledger.test_crashes import crashing_rig

A = "aa" * 16
REQUEST = "0b9c7e6a-1111-4222-8333-444455556666"


@dataclass
class Done:
    code: int
    out: str
    err: str


Audit = Callable[..., Done]


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audit:
    """`paraph audit WORDS...` in this process."""

    def run(*words: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["paraph", "audit", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


@dataclass
class Place:
    """A directory with a ledger of two files, its key and its anchor."""

    directory: Path
    story: Story
    it: Chain

    @property
    def files(self) -> list[Path]:
        return [self.directory / "one", self.directory / "two"]

    @property
    def key(self) -> Path:
        return self.directory / "checkpoint.pub"

    @property
    def anchor(self) -> Path:
        return self.directory / "anchor"

    @property
    def words(self) -> list[Any]:
        return ["verify", *self.files, "--key", self.key, "--anchor", self.anchor]

    def write(self) -> None:
        middle = len(self.it.rows) // 2
        for path, rows in zip(self.files, (self.it.rows[:middle], self.it.rows[middle:]), strict=True):
            path.write_text("".join(chain.write(rows)))
        public = load_der_public_key(KEY.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key.write_bytes(public)
        self.anchor.write_text("".join(map(str, self.story.anchored)))

    def lose(self, reason: str) -> None:
        """The last rows; a daemon that was restored to before declares it."""
        head = self.story.anchored[-1].checkpoint.heads[0]
        self.it.rows = self.it.rows[:3]
        self.it.open.clear()
        self.story.start(self.it)
        said = {"instance": A, "epoch": 1, "from_": 4, "to": head.sequence, "hash": head.hash.hex()}
        self.it.add(Kind.GAP, **said, reason=reason, time=self.story.now)
        self.write()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    story = Story(random.Random(2))
    it = Chain(A)
    story.chains, story.is_shared = [it], False
    story.start(it)
    said = {"caller": "portal", "credential": "clerk", "items": [[0, 3], [5, 6]], "token": "card"}
    it.add(Kind.INTENT, request=REQUEST, **said, time=story.now)
    it.add(Kind.OUTCOME, intent=2, signed=3, failed=[5], closed=True, time=story.now)
    it.add(Kind.INTENT, request=f"{REQUEST}/0", **said, time=story.now)
    story.checkpoint(it, is_anchored=True)
    it.add(Kind.RELEASED, requests=[REQUEST, "another"], time=story.now)
    story.checkpoint(it, is_anchored=True)
    it.add(Kind.MISMATCH, request="another", caller="portal", time=story.now)
    made = Place(tmp_path, story, it)
    made.write()
    return made


# ---- verify


def test_whole(audit: Audit, place: Place) -> None:
    """0, what was checked, up to where it is anchored, and how many rows are not."""
    done = audit(*place.words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("WHOLE\n")
    for words in ("8 rows in 2 files", "2 INTENT", "2 checkpoints signed by the key", A, "1/6", "with its first row"):
        assert words in done.out
    assert "2 rows newer than the newest checkpoint" in done.out
    assert "Whoever can write the files may have cut off others behind them" in done.out


def test_all_is_anchored(audit: Audit, place: Place) -> None:
    """Where no row is newer than the newest checkpoint, there still may have been."""
    del place.it.rows[6:]
    place.write()
    done = audit(*place.words)
    assert done.code == 0
    assert "Every row is anchored. Whether there were more after the newest checkpoint, nobody can say." in done.out


def test_tampered(audit: Audit, place: Place) -> None:
    """1, the findings before all else, with file and line."""
    text = place.files[1].read_text()
    place.files[1].write_text(text.replace("another", "nothing"))
    done = audit(*place.words)
    assert done.code == 1
    first, _, rest = done.out.partition("\n")
    assert first == "NOT WHOLE: 2 findings"
    assert rest.index("EDITED") < rest.index("checked")
    assert f"{place.files[1]}:3" in done.out
    assert f"{A} 1/6" in done.out


def test_fork_names_its_files(audit: Audit, place: Place) -> None:
    """A finding that speaks of a segment by its number comes with a list of them."""
    other = Chain(A, place.it.rows[:6])
    other.add(Kind.RELEASED, requests=[], time=place.story.now)
    (place.directory / "fork").write_text("".join(chain.write(other.rows[4:])))
    done = audit(*place.words, place.directory / "fork")
    assert done.code == 2  # after an option a file belongs to nothing
    done = audit("verify", place.directory / "fork", *place.words[1:])
    assert done.code == 1
    assert "FORK" in done.out
    assert f"segments: 1 {place.directory / 'fork'}, 2 {place.files[0]}" in done.out.replace("\n", " ").replace(
        "  ", " "
    )


def test_json(audit: Audit, place: Place) -> None:
    """The same for programs, hashes in hexadecimal."""
    done = audit(*place.words, "--json")
    report = json.loads(done.out)
    assert (done.code, report["verdict"], report["findings"], report["unanchored"]) == (0, "WHOLE", [], 2)
    (state,) = report["chains"]
    head = place.story.anchored[-1].checkpoint.heads[0]
    assert state["anchored"] == {"instance": A, "epoch": 1, "sequence": 6, "hash": head.hash.hex()}
    assert (state["anchored_by"], state["anchored_time"][-1], state["first"], state["last"]) == (2, "Z", [1, 1], [1, 8])
    assert report["rows"]["INTENT"] == 2
    assert report["files"] == [str(path) for path in place.files]
    place.files[0].write_text(place.files[0].read_text().replace("clerk", "clark"))
    done = audit(*place.words, "--json")
    report = json.loads(done.out)
    assert (done.code, report["verdict"]) == (1, "TAMPERED")
    assert report["findings"][0]["kind"] == "EDITED"
    assert (report["findings"][0]["file"], report["findings"][0]["line"]) == (str(place.files[0]), 3)


def test_a_gap(audit: Audit, place: Place) -> None:
    """3: whole, but for what was declared; by whom, why, and that nothing covers the declaration yet."""
    place.lose("the [bold]disk[/] \x1b[31m")
    done = audit(*place.words)
    assert done.code == 3, done.out
    assert done.out.startswith("WHOLE, but for rows that were declared as lost")
    assert "rows 4 to 6 of epoch 1 of chain" in done.out
    assert "the [bold]disk[/] \ufffd[31m" in done.out
    assert "No checkpoint covers this row" in done.out
    assert "\x1b" not in done.out
    (gap,) = json.loads(audit(*place.words, "--json").out)["gaps"]
    assert (gap["first"], gap["last"], gap["is_anchored"], len(gap["hash"])) == (4, 6, False, 64)
    place.story.checkpoint(place.it, is_anchored=True)
    place.write()
    done = audit(*place.words)
    assert done.code == 3, done.out
    assert "No checkpoint covers" not in done.out


def test_from_the_middle(audit: Audit, place: Place) -> None:
    """4: files that begin in the middle are not all, and it is said what to give; so where nothing of a chain is anchored."""
    words = [place.files[1], *place.words[3:]]
    done = audit("verify", *words)
    assert done.code == 4
    assert done.out.startswith("UNPROVEN: nothing is wrong with what was given, but it may not be all\n")
    assert "in the middle, where checkpoint 1 ends" in done.out
    said = " ".join(done.out.split())
    assert f"what is before row 1/5 of chain {A}: give the archived segments, too. If there are none, rows were" in said
    assert "a checkpoint of chain" not in said
    report = json.loads(audit("verify", *words, "--json").out)
    assert (report["verdict"], report["chains"][0]["from_middle"]) == ("UNPROVEN", True)
    place.anchor.write_text("")
    done = audit("verify", *words)
    assert done.code == 4
    assert "in the middle, and nothing says that this is right" in done.out
    done = audit(*place.words)
    assert done.code == 4
    assert f"a checkpoint of chain {A}: give an anchor that has one" in " ".join(done.out.split())


@pytest.mark.parametrize(
    "change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: text.replace(b"clerk", b"cl\xffrk")]
)
def test_bytes_are_bytes(audit: Audit, place: Place, change: Callable[[bytes], bytes]) -> None:
    """Line ends and bytes that are no text are what they are: a file with others is not whole."""
    place.files[0].write_bytes(change(place.files[0].read_bytes()))
    assert audit(*place.words).code == 1


def test_a_byte_that_reads_the_same(audit: Audit, place: Place) -> None:
    """What a reader shows for bytes that are no text may have stood there: it is not the same."""
    body = '{"requests":["\ufffd"]}'
    last = place.it.rows[-1]
    hash_ = chain.row_hash(A, 1, 9, last.hash, Kind.RELEASED, body)
    place.it.rows.append(chain.Row(A, 1, 9, str(Kind.RELEASED), body, last.hash, hash_))
    place.write()
    assert audit(*place.words).code == 0
    place.files[1].write_bytes(place.files[1].read_bytes().replace("\ufffd".encode(), b"\xff"))
    assert audit(*place.words).code == 1


def test_several_anchors(audit: Audit, place: Place) -> None:
    """Older parts, copies, and a log server's file go together, in any order; what one has missed another has."""
    for _ in range(3):
        place.story.checkpoint(place.it, is_anchored=True)
    place.write()
    notes = place.story.anchored
    older, newer, log = (place.directory / name for name in ("older", "newer", "log"))
    older.write_text("".join(map(str, notes[:2])))
    newer.write_text("".join(map(str, [*notes[1:2], *notes[4:]])))
    lines = [syslog_message(str(note), Clock()).decode() for note in notes[1:4]]
    log.write_text("\n".join(["May  4 03:02:01 host cron: nothing", *lines, ""]))
    base = ["verify", *place.files, "--key", place.key, "--json"]
    for paths in ((older, log, newer), (newer, older, log), (place.anchor, older), (log,)):
        done = audit(*base, *(word for path in paths for word in ("--anchor", path)))
        assert done.code == 0, done.out
    report = json.loads(audit(*base, "--anchor", newer, "--anchor", older, "--anchor", log).out)
    assert (report["checkpoints"], report["absent"]) == (5, 0)
    report = json.loads(audit(*base, "--anchor", newer, "--anchor", older).out)
    assert (report["checkpoints"], report["absent"]) == (3, 2)
    assert list(parse(place.anchor.read_text())) == notes


def test_a_log_of_several_daemons(audit: Audit, place: Place) -> None:
    """Another daemon's checkpoint on a line of a log is named, and no finding; in the anchor's own file it is one."""
    notes = place.story.anchored
    head = replace(notes[0].checkpoint.heads[0], instance="bb" * 16)
    strange = Key(1).sign(replace(notes[0].checkpoint, own=head))
    lines = [syslog_message(str(note), Clock()).decode() for note in (notes[1], strange, notes[0])]
    place.anchor.write_text("\n".join([*lines, ""]))
    done = audit(*place.words)
    assert done.code == 0, done.out
    assert "not ours 1 checkpoint in a log, by other keys and of other chains" in done.out
    assert json.loads(audit(*place.words, "--json").out)["others"] == 1
    place.anchor.write_text("".join(map(str, [*notes, strange])))
    done = audit(*place.words)
    assert done.code == 1
    assert "UNSIGNED" in done.out


def test_files_that_are_not_there(audit: Audit, place: Place) -> None:
    """A ledger's file that cannot be read is a wrong command line: one line, and 2."""
    for path in (place.directory / "none", place.directory):
        done = audit("verify", path, *place.words[3:])
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"paraph audit: {path}: ")
        assert len(done.err.splitlines()) == 1
    assert audit("verify", place.files[0]).code == 2


def test_keys_that_are_none(audit: Audit, place: Place) -> None:
    """78 and one line, for whatever is no public key that signs checkpoints."""
    small = rsa.generate_private_key(65537, 1024)
    private = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    short = small.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content, words in (
        (None, "No such file"),
        (b"junk", "no public key"),
        (private, "no public key"),
        (short, "2048"),
    ):
        place.key.unlink(missing_ok=True)
        if content is not None:
            place.key.write_bytes(content)
        done = audit(*place.words)
        assert (done.code, done.out) == (78, "")
        assert words in done.err
        assert len(done.err.splitlines()) == 1


def test_another_ledger_s_key(audit: Audit, place: Place) -> None:
    """A line says so where the checkpoints are all of one other key; they are findings all the same: somebody may have made
    them anew."""
    mine = place.key.read_bytes()
    other = rsa.generate_private_key(65537, 2048).public_key()
    place.key.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = audit(*place.words)
    assert (done.code, "UNSIGNED" in done.out) == (1, True)
    assert "this is not that ledger's key, or the anchor is another ledger's" in done.err
    assert json.loads(audit(*place.words, "--json").out)["verdict"] == "TAMPERED"
    place.key.write_bytes(mine)
    done = audit(*place.words)
    assert (done.code, "not that ledger's key" in done.err) == (0, False)


def test_anchors_that_are_none(audit: Audit, place: Place) -> None:
    """
    78 and one line, for whatever is no file of checkpoints. An empty one is: a daemon that has just begun has that; it
    proves nothing.
    """
    good = place.anchor.read_bytes()
    for content, words in (
        (None, "No such file"),
        (b"junk\n", "it has no checkpoint"),
        (good[:-1], "in the middle"),
        (good[:-30], "in the middle"),
        (good.replace(b"\n", b"\r\n"), "no checkpoint"),
        (good + b"\xff", "is no text"),
    ):
        place.anchor.unlink(missing_ok=True)
        if content is not None:
            place.anchor.write_bytes(content)
        done = audit(*place.words)
        assert (done.code, done.out) == (78, ""), content
        assert words in done.err
        assert len(done.err.splitlines()) == 1
    place.anchor.write_bytes(b"")
    assert audit(*place.words).code == 4


def test_a_client_alone(audit: Audit, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the daemon's libraries `show` works, and the others say what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"] + ["signer.audit"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert audit("show", place.files[0]).code == 0
    for words in (place.words, ["keys", place.directory / "keys"]):
        done = audit(*words)
        assert done.code == 69
        assert "pip install" in done.err


# ---- show


def test_show(audit: Audit, place: Place) -> None:
    """One line a row: when, which, who, which request, what and how many."""
    done = audit("show", place.files[0])
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 4
    time = place.it.rows[1].fields["time"]
    assert lines[0].split()[1:4] == ["1/1", "EPOCH", "the"]
    assert lines[1].split() == [
        *(time, "1/2", "INTENT", "portal", "(clerk)", REQUEST),
        *("4", "items", "to", "token", "card"),
    ]
    assert lines[2].split()[1:] == ["1/3", "OUTCOME", REQUEST, "3", "signed,", "1", "failed"]
    lines = audit("show", place.files[1]).out.splitlines()
    assert [line.split()[2] for line in lines] == ["CHECKPOINT", "RELEASED", "CHECKPOINT", "IDEMPOTENCY_MISMATCH"]
    assert lines[0].endswith(" checkpoint 1")
    assert " ".join(lines[1].split()[3:]) == f"{REQUEST} the answer was taken, and so with 1 more"


def test_show_of_every_kind(audit: Audit, place: Place) -> None:
    """Each kind of row has words of its own, and rows that say nothing have some."""
    place.it.open[1, 4] = REQUEST
    place.story.start(place.it)
    place.it.add(Kind.NOT_DELIVERED, requests=[REQUEST])
    place.it.add(Kind.OUTCOME, intent=4, signed=1, indeterminate=[2, 3], closed=False)
    place.lose("flood")
    for kind in Kind:
        place.it.add(kind)
    place.it.add(Kind.INTENT, items=[[1]], request=[], caller=7)
    for token in ("", "rack-hsm", 7):
        place.it.add(Kind.CHECKPOINT, number=9, key="0123456789abcdef", token=token)
    place.it.add(Kind.EPOCH, restored={"kept": "Monday"})
    place.it.rows.append(chain.after(A, 2, 13, place.it.rows[-1].hash, Kind.RELEASED, {}))
    path = place.directory / "all"
    path.write_text("".join(chain.write(place.it.rows)))
    out = audit("show", path).out
    assert len(out.splitlines()) == len(place.it.rows)
    assert "rows 4 to 6 of epoch 1 are lost: flood" in out
    assert "? items to token" in out
    places = [line.partition("checkpoint 9")[2] for line in out.splitlines() if "checkpoint 9" in line]
    by = ", signed by key 0123456789abcdef"
    assert places == [f"{by} in a file", f"{by} on token rack-hsm", ""]
    assert "an older state was put back: what came after Monday is not in it" in out


def test_show_one_request(audit: Audit, place: Place) -> None:
    """All that is about a request and its documents: an OUTCOME by its INTENT, a release in its list."""
    path = place.directory / "all"
    path.write_text("".join(chain.write(place.it.rows)))
    for name in (REQUEST, REQUEST.upper()):
        lines = audit("show", path, "--request", name).out.splitlines()
        assert [line.split()[1] for line in lines] == ["1/2", "1/3", "1/4", "1/6"]
    assert audit("show", path, "--request", "0" * 32).out == ""
    done = audit("show", path, "--request", "x")
    assert done.code == 2
    assert "--request" in done.err


def test_show_says_that_nothing_is_about_it(audit: Audit, place: Place) -> None:
    """A request that the file does not have."""
    done = audit("show", place.files[0], "--request", "00000000-1111-4222-8333-444455556666")
    assert (done.code, done.out) == (1, "")
    said = "nothing in it is about this request; another of the ledger's files may have it"
    assert done.err == f"paraph audit: {place.files[0]}: {said}\n"


def test_show_json(audit: Audit, place: Place) -> None:
    """A JSON object for each row, one a line."""
    rows = [json.loads(line) for line in audit("show", place.files[0], "--json").out.splitlines()]
    assert [(row["instance"], row["epoch"], row["sequence"], row["kind"], row["whole"]) for row in rows] == [
        (A, 1, 1, "EPOCH", True),
        (A, 1, 2, "INTENT", True),
        (A, 1, 3, "OUTCOME", True),
        (A, 1, 4, "INTENT", True),
    ]
    assert rows[1]["fields"] == place.it.rows[1].fields
    assert rows[1]["hash"] == place.it.rows[1].hash.hex()


def test_show_what_is_not_whole(audit: Audit, place: Place) -> None:
    """Rows that are not whole are shown, marked, and end with 1; what is no row ends the list."""
    path = place.files[0]
    path.write_text(path.read_text().replace('"caller":"portal"', '"caller":"\\u001b[2J"', 1))
    done = audit("show", path)
    assert done.code == 1
    marked = [line for line in done.out.splitlines() if line.endswith("NOT WHOLE")]
    assert [line.split()[1] for line in marked] == ["1/2"]
    assert "\x1b" not in done.out
    assert "1 row not whole; `paraph audit verify` says what is wrong" in done.err
    assert [json.loads(line)["whole"] for line in audit("show", path, "--json").out.splitlines()] == [
        True,
        False,
        True,
        True,
    ]
    path.write_bytes(path.read_bytes().replace(b"clerk", b"cl\xffrk"))
    assert audit("show", path).code == 1
    path.write_text("".join(path.read_text(errors="replace").splitlines(keepends=True)[:3]) + "junk\n")
    done = audit("show", path)
    assert (done.code, len(done.out.splitlines())) == (1, 2)
    assert f"{path}: line 4: no row" in done.err
    lines = path.read_text().splitlines(keepends=True)
    for kind in (Kind.BATCH, Kind.AUTHORISED):
        path.write_text(f'{lines[0]}1 1 {kind} {"0" * 64} {{"count":"\\u001b[2J\\u202e"}}\n')
        assert "\ufffd[2J\ufffd" in audit("show", path).out
    done = audit("show", place.directory / "none")
    assert (done.code, done.out) == (2, "")
    assert "No such file" in done.err


def test_show_in_a_terminal(audit: Audit, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the kinds have colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    plain = audit("show", place.files[0]).out
    monkeypatch.setattr(sys.stdout.__class__, "isatty", lambda _: True)
    coloured = audit("show", place.files[0]).out
    assert "\x1b[36mINTENT" in coloured
    assert len(coloured.splitlines()) == len(plain.splitlines())


# ---- keys


def test_keys(audit: Audit, place: Place) -> None:
    """Two secrets that only their owner can read, the public key beside them, and what goes where."""
    directory = place.directory / "new" / "keys"
    done = audit("keys", directory)
    assert (done.code, done.err) == (0, "")
    names = {"checkpoint.key": 0o400, "checkpoint.pub": 0o444, "data.key": 0o400}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == names
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(f"{directory}/{name} " in done.out for name in names)
    private = load_pem_private_key((directory / "checkpoint.key").read_bytes(), None)
    public = load_pem_public_key((directory / "checkpoint.pub").read_bytes())
    assert public.public_bytes_raw() == private.public_key().public_bytes_raw()
    assert len((directory / "data.key").read_bytes()) == 32
    other = place.directory / "other"
    other.mkdir()
    before = os.umask(0o777)
    try:
        audit("keys", other)
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in other.iterdir()} == names
    assert (other / "data.key").read_bytes() != (directory / "data.key").read_bytes()
    assert (other / "checkpoint.pub").read_bytes() != (directory / "checkpoint.pub").read_bytes()


@pytest.mark.parametrize("name", ["checkpoint.key", "checkpoint.pub", "data.key"])
def test_keys_are_never_written_over(audit: Audit, place: Place, name: str) -> None:
    """Where one of them is there, none is made; not through a link to nowhere either."""
    directory = place.directory / "keys"
    directory.mkdir()
    for make in (lambda path: path.write_text("mine"), lambda path: path.symlink_to("/nowhere/else")):
        make(directory / name)
        done = audit("keys", directory)
        assert (done.code, done.out) == (2, "")
        assert f"{directory / name} exists and is not written over" in done.err
        assert [path.name for path in directory.iterdir()] == [name]
        (directory / name).unlink()
    done = audit("keys", place.anchor)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("words", [("audit", "keys"), ("otp", "key")])
def test_keys_on_a_full_disk(
    paraph: Paraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    """One line, and nothing is left behind: with room again they are made, and are on the disk with their names."""
    synced = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        fsync(fd)
        synced.append(os.fstat(fd))

    monkeypatch.setattr(os, "fsync", watched)
    place = tmp_path if words[0] == "audit" else tmp_path / "seeds.key"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        done = paraph(*words, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"paraph {words[0]}: {place}: File too large\n"
    assert list(tmp_path.iterdir()) == []
    assert paraph(*words, place).code == 0
    written = [(one.st_dev, one.st_ino) for one in synced]
    for path in (*tmp_path.iterdir(), tmp_path):
        assert (path.stat().st_dev, path.stat().st_ino) in written, path


def test_which_keys_there_are(audit: Audit, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory: the key of checkpoints by its id, kind and place; what only the service can read is said."""
    config, keys = place.directory / "paraph.toml", place.directory / "keys"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    audit("keys", keys)
    file = f'"{keys / "checkpoint.key"}"'
    config.write_text(GOOD.replace('"/etc/paraph/ledger/checkpoint.key"', file))
    done = audit("keys", "--config", config)
    assert (done.code, done.err) == (0, "")
    public = load_pem_public_key((keys / "checkpoint.pub").read_bytes())
    id_ = key_id(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert done.out.splitlines() == [
        f"checkpoints  key {id_}, Ed25519, in the file {keys / 'checkpoint.key'}",
        "results      a key for AES-256-GCM, in the credential data-key",
    ]
    config.write_text(
        GOOD.replace("checkpoint_key = ", "checkpoint_key_credential = ").replace("/etc/paraph/ledger/", "")
    )
    done = audit("keys", "--config", config)
    assert done.code == 0
    said = "a key in the credential checkpoint.key, which is the service's alone: it was not looked at"
    assert done.out.splitlines()[0] == f"checkpoints  {said}"
    assert audit("keys", "--config", place.directory / "none").code == 78


# ---- a real one


def test_a_ledger_of_a_daemon_that_was_killed(audit: Audit, tmp_path: Path) -> None:
    """A daemon under load, killed again and again, the power cut: its ledger is whole, and its rows can be read."""
    with running(crashing_rig()) as rig:
        crashes.run(rig, crashes=3, seed=3)
        rows = book(rig.state)
        middle = len(rows) // 2
        files = [tmp_path / "one", tmp_path / "two"]
        for path, part in zip(files, (rows[middle:], rows[:middle]), strict=True):
            path.write_text("".join(chain.write(part)))
        words = ["verify", *files, "--key", rig.keys / "checkpoint.pub", "--anchor", rig.anchor]
        done = audit(*words)
        assert done.code == 0, done
        report = json.loads(audit(*words, "--json").out)
        assert report["rows"]["INTENT"] > 10
        assert report["epochs"] > 1
        assert report["checkpoints"] > 0
        shown = audit("show", files[0])
        assert (shown.code, shown.err) == (0, "")
        assert len(shown.out.splitlines()) == len(rows) - middle
        assert "? items" not in shown.out
        files[1].write_text(files[1].read_text().replace('"caller":"portal"', '"caller":"Portal"', 1))
        assert audit(*words).code == 1
