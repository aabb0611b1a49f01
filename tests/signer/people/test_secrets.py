"""
No secret of a person is written down, told or left behind: codes, one-time codes, PINs, seeds, enrolment codes, links and
references are canaries here, and then all is looked through that the processes have written, said and hold.

The order matters: first what is left in memory, then what is provoked, what was written of all that, and the end.
"""

import argparse
import ast
import itertools
import re
import signal
import subprocess
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.protobuf.message import Message

from pool import REASONS, PinError, PinFile
from signer.__main__ import parser
from signer.cli.serve import _forgetful
from signer.config import Caller as Configured
from signer.config import Config, ConfigError
from signer.config import load as load_config
from signer.errors import TABLE as ERRORS
from signer.errors import Refusal
from signer.given import source_of
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import as_user, until
from tests.processes import children, gone
from tests.signer.access.calls import Caller, ask, digests, processes
from tests.signer.people import canaries, provocations
from tests.signer.people.persons import STICK_PIN
from tests.signer.people.stage import CODE, PIN, WRONG_CODE, WRONG_OTP, Stage

SOURCE = Path(__file__).parents[3]
VISITS = 3  # of 200
GONE_S = 5.0  # some seconds after the person has gone
READ_AHEAD_BYTES = 16 * 1024  # gRPC has a buffer of 8 KiB for each connection
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
WINDOW = Configured(name="window", uri="urn:test:window", role="consent", rpcs=frozenset())


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


# ---- row 7.3: what is left in memory


def test_row_7_3_where_people_are_served_memory_is_overwritten(stage: Stage) -> None:
    """
    Row 7.3: the daemon has started itself again with what the C library and Python read for that, whoever started it; what
    somebody has tuned besides stays.
    """
    assert stage.town.rig.process is not None
    running = Path(
        f"/proc/{stage.town.rig.process.pid}/environ"
    ).read_bytes()  # which the C library has cut at each colon
    for word in (b"GLIBC_TUNABLES=glibc.malloc.perturb=1", b"glibc.malloc.tcache_count=0", b"PYTHONMALLOC=malloc"):
        assert word in running.split(b"\0")
    tuned = _forgetful({"GLIBC_TUNABLES": "glibc.malloc.perturb=7:a=b", "PYTHONMALLOC": "pymalloc"})
    assert tuned == {
        "GLIBC_TUNABLES": "glibc.malloc.perturb=7:a=b:glibc.malloc.tcache_count=0",
        "PYTHONMALLOC": "malloc",
    }
    assert _forgetful(tuned) == {}, "or it would start itself for ever"


@pytest.mark.parametrize("number", range(VISITS))
def test_row_7_3_a_person_has_gone(stage: Stage, number: int) -> None:
    """
    Row 7.3: secrets live shortly: some seconds after a person was enrolled, has allowed something and has gone, her code is
    neither in the front process's memory nor in a hasher's nor in any other's (with the environment that the unit sets;
    `soak visits` has the share of 200 runs).
    """
    code = stage.visit()
    until(lambda: not stage.left(code), GONE_S, f"{code} in {stage.left(code)}")


def test_row_7_3_a_wrong_code(stage: Stage) -> None:
    """Row 7.3: the same of a code that was refused: nothing keeps the request alive."""
    with Caller(stage.town.rig, "window") as window:
        answer = stage.call("Authorize", stage.authorize(secret_code="Nearly-right-20931"), window)
        assert answer.reason == "OTP_INCORRECT"
    until(lambda: not stage.left("Nearly-right-20931"), GONE_S)


def test_row_7_3_while_the_caller_stays(stage: Stage) -> None:
    """
    Row 7.3, its limit: on a connection that stays open a code stands once, in the front process, in gRPC's buffer of what
    came in, until as much more has come in as that holds.
    """
    first = "Still-connected-77"
    with Caller(stage.town.rig, "window") as window:
        for code in (first, WRONG_CODE):
            assert stage.call("Authorize", stage.authorize(secret_code=code), window).reason == "OTP_INCORRECT"
        until(lambda: canaries.memory_has(stage.front, first.encode()) <= 1, GONE_S)
        assert len(stage.left(first)) <= 1
        for _ in range(READ_AHEAD_BYTES // 1_000):
            terms = stage.terms(digests(20), credential="nobody")
            assert stage.call("Authorize", stage.authorize(terms), window).reason == "CREDENTIAL_UNKNOWN"
        until(lambda: not stage.left(first), GONE_S, f"{first} in {stage.left(first)}")


def test_row_7_3_the_worker_is_gone(stage: Stage) -> None:
    """
    Row 7.3: the worker that a person's PIN went to is gone within a second after her authorisation has ended, and no other
    process has the PIN then.
    """
    until(stage.stick_waits, 10, "the stick waits for its person")
    name, worker = stage.followed("dora"), psutil.Process(stage.stick().lanes[0].pid)
    with Caller(stage.town.rig, "window") as window:
        request = pb.SignBatchRequest(request_id=name, pin=STICK_PIN, source="192.0.2.7")
        answer = stage.call("SignBatch", request, window)
        assert [pb.ItemStatus.Name(one.status) for one in answer.value.outcomes] == ["SIGNED"] * 2
    until(lambda: gone(worker), 1.0, "the end of the worker")
    until(lambda: not stage.left(STICK_PIN), GONE_S, f"{stage.left(STICK_PIN)}")


# ---- what is provoked


def test_each_refusal_is_here_or_elsewhere() -> None:
    """No refusal of signer/errors.py or of the pool is forgotten below."""
    assert provocations.TABLE.keys() | provocations.ELSEWHERE.keys() == ERRORS.keys() | REASONS.keys()
    assert not provocations.TABLE.keys() & provocations.ELSEWHERE.keys()


@pytest.mark.parametrize("reason", provocations.TABLE)
def test_a_refusal(stage: Stage, reason: str) -> None:
    """It is provoked, with canaries in the fields that it leaves free; they are looked for below."""
    answer = provocations.TABLE[reason](stage)
    stage.look()
    assert answer.reason == reason, answer
    stage.town.unlock("ada")


# What else is raised with more than a constant: (reason, what is said). Each was looked at: none is a caller's word.
REVIEWED = {
    ("STREAM_OVER", "f'nothing came for {idle_s:g} s'"),
    ("STREAM_OVER", "detail"),  # a constant
    ("CONFIG_REJECTED", "str(error)"),  # of the operator's file, which has no secret: row 7.1
    ("TOKEN_STATE", "f'{token} is {state}, and {why}'"),  # the name of a configured token, its state, a constant
    ("CALLER_EXPIRED", "self.steady.why_later()"),  # how far the clock was set
    ("SPOOL_FULL", "os.strerror(error.errno or 0)"),
    ("SPOOL_FULL", "f'{self._files_max} documents are in work'"),  # a number
    ("TOO_MANY_BATCHES", "f'{open_} batches are open, and {items} items are kept'"),  # two numbers
}


def test_refusals_elsewhere_repeat_nobody() -> None:
    """Row 7.2: what is not provoked here is raised with texts that have no word of a caller's."""
    said = set()
    for path in sorted((SOURCE / "signer").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Refusal":
                continue
            reason, *details = node.args
            if isinstance(reason, ast.Constant) and reason.value in provocations.ELSEWHERE:
                said |= {(reason.value, ast.unparse(one)) for one in details if not isinstance(one, ast.Constant)}
    assert said == REVIEWED


# ---- canaries where they do not belong


def fields(message: Message) -> Iterator[tuple[Message, Any]]:
    """Each text and each field of bytes in it, at any depth: (the message that has it, the field)."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type in {field.TYPE_STRING, field.TYPE_BYTES}:
            yield message, field
        elif field.type == field.TYPE_MESSAGE and field.is_repeated:
            for one in value:
                yield from fields(one)
        elif field.type == field.TYPE_MESSAGE and message.HasField(field.name):
            yield from fields(value)


def put(message: Message, place: int, canary: str) -> None:
    """Into the field in this place."""
    owner, field = next(itertools.islice(fields(message), place, None))
    value: Any = canary if field.type == field.TYPE_STRING else canary.encode()
    if field.is_repeated:
        getattr(owner, field.name)[:] = [value]
    else:
        setattr(owner, field.name, value)


ENROLMENT = {"secret_code": WRONG_CODE, "otp": WRONG_OTP, "source": "192.0.2.9"}
# rpc -> (who calls it, a request that is wrong in one way, so that nothing of it is stored as what it says it is).
SWEPT: dict[str, tuple[str, Callable[[Stage], list[Message]]]] = {
    "ListCredentials": ("window", lambda _: [pb.ListCredentialsRequest()]),
    "GetCredential": ("window", lambda _: [pb.GetCredentialRequest(credential="nobody")]),
    "RequestOtp": ("window", lambda stage: [pb.RequestOtpRequest(terms=stage.terms(digests(2)), source="192.0.2.7")]),
    "Authorize": ("window", lambda stage: [stage.authorize(stage.terms(digests(2)))]),
    "Authenticate": ("window", lambda stage: [stage.login()]),
    "CompleteEnrolment": ("window", lambda _: [pb.CompleteEnrolmentRequest(enrolment="no", **ENROLMENT)]),
    "ChangeCode": (
        "window",
        lambda _: [pb.ChangeCodeRequest(credential="ada", new_secret_code=f"{CODE} again", **ENROLMENT)],
    ),
    "GetBatch": ("window", lambda _: [pb.GetBatchRequest(request_id=str(uuid.uuid4()), link="no")]),
    "ListBatches": ("window", lambda _: [pb.ListBatchesRequest()]),
    "SignBatch": ("window", lambda stage: [stage.sign(str(uuid.uuid4()))]),
    "CancelBatch": ("window", lambda _: [pb.CancelBatchRequest(request_id=str(uuid.uuid4()))]),
    "OpenBatch": ("portal", lambda stage: list(stage.document(CODE.encode(), crc32c=1))),
    "SignDigests": ("portal", lambda stage: [ask(credential="ada", authorisation=stage.brief, digests=digests(2))]),
    "GetResult": ("portal", lambda _: [pb.GetResultRequest(request_id=str(uuid.uuid4()))]),
    "EnrolSubject": ("operator", lambda stage: [stage.enrolment(factor="none", language="xx")]),
    "SuspendSubject": ("operator", lambda _: [op.SuspendSubjectRequest(subject="nobody")]),
    "ListSubjects": ("operator", lambda _: [op.ListSubjectsRequest(subject="nobody", after="x")]),
    "UnlockSubject": ("operator", lambda _: [op.UnlockSubjectRequest(subject="nobody")]),
    "ConfirmClock": ("operator", lambda _: [op.ConfirmClockRequest()]),
    "RegisterCredential": ("operator", lambda _: [op.RegisterCredentialRequest(name="x", outputs=["RAW"])]),
    "SetCredentialState": ("operator", lambda _: [op.SetCredentialStateRequest(name="nobody")]),
}


def test_all_calls_of_people_are_swept() -> None:
    """Whatever takes a code, an operator's word about people, or what they have allowed."""
    ours = {
        method.name
        for module, name in ((pb, "Signing"), (op, "Operator"))
        for method in module.DESCRIPTOR.services_by_name[name].methods
    }
    machines = {"StreamDigests", "SignDocuments", "VerifyDocument", "GetServerInfo", "ReloadConfig"}
    machines |= {"ListTokens", "WatchTokens", "UnlockToken", "DrainToken", "ResumeToken"}
    assert SWEPT.keys() == ours - machines


@pytest.mark.parametrize("rpc", SWEPT)
def test_row_7_2_canaries_in_each_field(stage: Stage, rpc: str) -> None:
    """
    Row 7.2: a canary in every single field of every call that people's callers have, one at a time, also where none
    belongs. (They are looked for below.)
    """
    caller, made = SWEPT[rpc]
    texts = dict.fromkeys(itertools.islice(stage.noise(), 12))
    for place, canary in itertools.product(range(sum(1 for message in made(stage) for _ in fields(message))), texts):
        messages, left_over = made(stage), place
        for message in messages:
            count = sum(1 for _ in fields(message))
            if 0 <= left_over < count:
                put(message, left_over, canary)
            left_over -= count
        sent: Any = iter(messages) if rpc == "OpenBatch" else messages[0]
        answer = stage.call(rpc, sent, caller)
        assert answer.code != "OK" or rpc in {"ListCredentials", "ListBatches"}, (place, canary, answer)
    stage.look()
    stage.town.unlock("ada")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", ""),
        ("192.0.2.7", "window 192.0.2.7"),
        ("::ffff:192.0.2.7", "window 192.0.2.7"),
        ("2001:DB8:0:0::7", "window 2001:db8::"),
        ("2001:db8:1:2:3:4:5:6", "window 2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "window 2001:db8:1:2::"),
    ],
)
def test_sources(text: str, source: str) -> None:
    """One address is one source, however it is written."""
    assert source_of(text, WINDOW) == source


@pytest.mark.parametrize(
    "text",
    ["192.0.2.7:4711", "[::1]", "fe80::1%eth0", f"fe80::1%{CODE}", "localhost", WRONG_OTP, " 192.0.2.7", "1" * 70],
)
def test_what_is_no_source(text: str) -> None:
    """What is counted and written down as an address is one: no port, no zone, no name, no code."""
    with pytest.raises(Refusal) as refused:
        source_of(text, WINDOW)
    assert (refused.value.reason, refused.value.detail) == ("SOURCE_INVALID", "")


# ---- rows 7.1 and 7.2: what was written

KEYS = ("[[token]]", "[people]", "[people.mail]", "[ledger]")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("[[token]]", f'pin = "{PIN}"'),
        ("[[token]]", f'so_pin = "{PIN}"'),
        ("[people]", f'seed_key = "{CODE}"'),
        ("[people]", f'code = "{CODE}"'),
        ("[ledger]", f'data_key = "{CODE}"'),
        ("[ledger]", f'database = "postgresql://paraph:{CODE}@localhost/paraph"'),
        ("[server]", f'pin = "{PIN}"'),
    ],
)
def test_row_7_1_no_secret_in_the_configuration(stage: Stage, tmp_path: Path, section: str, line: str) -> None:
    """
    Row 7.1: secrets are never at rest in clear: the configuration has no key that takes one, a URL with a password is
    refused, and the mistake that is told does not repeat it.
    """
    wrong = tmp_path / "paraph.toml"
    wrong.write_text(stage.town.rig.config.read_text().replace(section, f"{section}\n{line}", 1))
    with pytest.raises(ConfigError) as mistake:
        load_config(wrong)
    assert PIN not in str(mistake.value)
    assert CODE not in str(mistake.value)
    load_config(stage.town.rig.config)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o404, 0o644])
def test_row_7_1_sources_of_secrets(stage: Stage, tmp_path: Path, mode: int) -> None:
    """Row 7.1: a PIN or a key comes from a file that is its owner's alone (0400, 0600); any other mode is refused."""
    pin, key = tmp_path / "pin", tmp_path / "key"
    pin.write_text(f"{PIN}\n")
    key.write_bytes(CODE.encode().ljust(32, b"-"))
    for path in (pin, key):
        path.chmod(mode)
    tables = tomllib.loads(stage.town.rig.config.read_text())
    tables["people"]["seed_key_file"] = tables["ledger"]["data_key_file"] = str(key)
    config = Config.model_validate(tables)
    assert config.people is not None
    reads: list[Callable[[], object]] = [PinFile(pin), config.people.seed_key, config.ledger.data_key]
    for read in reads:
        if mode in {0o400, 0o600}:
            assert read()
        else:
            with pytest.raises((PinError, ConfigError)) as refused:
                read()
            assert not {PIN, CODE} & set(re.split(r"\W+", str(refused.value)))


def test_row_7_1_no_secret_on_a_command_line() -> None:
    """Row 7.1: never in argv: no command has an argument that takes a code, a PIN, a one-time code or an enrolment code."""

    def words(of: argparse.ArgumentParser) -> Iterator[str]:
        for action in of._actions:
            yield from (action.dest, *action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    yield from words(each)

    taking = re.compile(r"\b(pin|code|otp|secret|password|passphrase|seed|enrolment|link)\b")
    found = {word for word in words(parser()) if taking.search(word.replace("_", " ").replace("-", " "))}
    assert found == set()


def test_row_7_1_and_7_2_nothing_was_written(stage: Stage) -> None:
    """
    Row 7.1 and row 7.2: after all that was provoked above, at DEBUG, with canaries in every field, no code, one-time code,
    PIN, seed, enrolment code, link or reference is anywhere: 0 hits, in clear, hexadecimal, base32, base64 and UTF-16, in
    the logs, the metrics, the database with its write-ahead log, the export of the ledger, the kept files and everything
    else of the daemon's directory, the anchors, the shim's log, gRPC statuses, messages and details, and the command lines
    and environments of all processes; every message to people was delivered by then, and its row has no text any more.
    """
    kept = stage.document(f"Secret are {CODE} and {PIN}.".encode(), named="letter")
    assert stage.heard("OpenBatch", lambda: stage.town["portal"].signing.OpenBatch(kept, timeout=10)).code == "OK"
    until(lambda: stage.queued() == 0, 15, "the end of the outbox")
    assert stage.outbox() == {(None, None, None)}
    secrets, written = stage.secrets(), stage.written()
    kinds = (
        "/daemon.log",
        "/paraph.sqlite-wal",
        "/metrics",
        "audit export",
        "answer 9 ",
        "'s cmdline",
        "/anchor/",
        "/kept/",
    )
    for kind in kinds:
        assert any(kind in place for place in written), f"{kind} was not looked at"
    assert len(secrets) > 30
    assert canaries.hits(secrets, written) == []
    planted = {**written, "a plant": f"the code is {CODE}".encode()}
    assert canaries.hits(secrets, planted) == ["a plant has the code in clear"], "it would be found"


# ---- row 7.4: nothing is dumped, and nobody looks in; the last ones: they end the daemon

CHILDREN = ("signer.committer", "signer.hasher", "signer.assembler", "pool.worker")
# What a process of the daemon's own user gets at of another one's memory.
LOOK_IN = """
import ctypes, sys
pid, got = int(sys.argv[1]), []
for name in ("mem", "environ", "maps", "auxv"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            got.append(name)
    except PermissionError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
PTRACE_SEIZE = 0x4206
if libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
    got.append("ptrace")
print(*got)
"""
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


def by_module(stage: Stage) -> dict[int, str]:
    """The daemon's processes and what each runs; the front one is 'signer'."""
    found = {}
    for process in processes(stage.town.rig):
        words = process.cmdline()
        found[process.pid] = words[words.index("-m") + 1]
    return found


def test_row_7_4_nobody_looks_in(stage: Stage) -> None:
    """
    Row 7.4: no core dumps and no ptrace: the front process and every child (committer, hashers, assemblers, lanes) has a
    limit of 0 bytes for cores and is not dumpable, so that another process of the same user can neither attach to it nor
    read its memory or environment.
    """
    rig = stage.town.rig
    found = by_module(stage)
    assert {"signer", *CHILDREN} <= set(found.values())
    waiting = as_user([rig.python, "-I", "-c", "input()"], rig.user)
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, cwd="/") as plain:
        until(lambda: "environ" in looked(stage, plain.pid), 5, "what is to be seen of a process without protection")
        plain.kill()
    for pid, module in found.items():
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search("^Max core file size +0 +0 ", limits, re.MULTILINE), (module, limits)
        assert looked(stage, pid) == [], module
        if rig.user is not None:  # what belongs to a process that may not be dumped is root's
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, module
            assert psutil.Process(pid).uids().effective == rig.user.pw_uid, module


def looked(stage: Stage, pid: int) -> list[str]:
    rig = stage.town.rig
    done = subprocess.run(
        as_user([rig.python, "-I", "-c", LOOK_IN, pid], rig.user), check=True, text=True, capture_output=True, cwd="/"
    )
    return done.stdout.split()


def test_row_7_4_a_crash_leaves_nothing(stage: Stage) -> None:
    """
    Row 7.4: kill -SEGV of each kind of child, and of the front process itself, leaves no core: none where they run, and
    none where the kernel was told to put them; a process without protection leaves one there.
    """
    rig, pattern = stage.town.rig, CORE_PATTERN.read_text().strip()
    if pattern.startswith("|"):
        pytest.skip(f"cores go into a pipe here ({pattern}), which nobody can look into")
    there = Path(pattern).parent if pattern.startswith("/") else rig.place

    def cores() -> set[Path]:
        return {path for place in {there, rig.place, rig.state} for path in place.glob("*core*")}

    before = cores()
    plain = ["prlimit", *rig.limits, *as_user([rig.python, "-I", "-c", CRASH], rig.user)]
    subprocess.run(plain, cwd=rig.place, check=False)
    control = cores() - before
    assert control, "this machine leaves no cores at all"
    for path in control:
        path.unlink()

    found = by_module(stage)
    for module in CHILDREN[1:]:
        crashing = psutil.Process(next(pid for pid, name in found.items() if name == module))
        crashing.send_signal(signal.SIGSEGV)
        until(lambda: gone(crashing), 5, f"the end of {module}")  # noqa: B023 -- called at once
    front, [committer] = psutil.Process(stage.front), children(stage.front, CHILDREN[0])
    front.suspend()  # it would end at once without its committer
    committer.send_signal(signal.SIGSEGV)
    until(lambda: gone(committer), 5, "the end of the committer")
    front.send_signal(signal.SIGSEGV)
    front.resume()
    assert rig.process is not None
    assert rig.process.wait(10) == -signal.SIGSEGV
    until(lambda: all(gone(psutil.Process(pid)) for pid in found if psutil.pid_exists(pid)), 5, "the end of all")
    assert cores() == before


def test_row_7_2_after_the_crash(stage: Stage) -> None:
    """Row 7.2: no crash report: what a crash has left of the log, the database and the rest has no canary either."""
    assert stage.front and stage.town.rig.process is not None
    assert canaries.hits(stage.secrets(), stage.written()) == []
