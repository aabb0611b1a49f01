"""
paraph demo: tokens, a CA, a daemon, real documents signed and verified by others' programs; all of it under var/demo.

What touches PKCS#11, the CA's keys or the verifying programs are scripts in deploy/demo, each in a process of its own;
this file puts them in order, starts the daemon, signs as any caller would, and shows what came of it.
"""

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import string
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from signer.cli import session
from signer.cli.exits import FAILED, OK, USAGE
from signer.client import Client, Profile, ServiceError, algorithms_for
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb

HELP = "sign real documents with three software tokens, and have others verify them"
EXAMPLE = "paraph demo"

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "deploy" / "demo"
PROGRAMS = {"softhsm2-util": "softhsm2", "pdfsig": "poppler-utils", "certutil": "libnss3-tools", "openssl": "openssl"}
PORT, METRICS_PORT = 7443, 7444  # where they are free, so that a second terminal finds them again
READY_S = 30.0  # three tokens with four lanes log in one after the other: 0.1 s each on an idle machine
STOP_S = 40.0  # the daemon gives calls in work 30 s
AT_ONCE = 3  # documents: the daemon's two assembly processes, and one on its way
BURST_CREDENTIAL, BURST_DIGESTS = "ana-p-256", 2_000
SCHEMES = {"RSA_PKCS1_V15": "v1.5", "RSA_PSS": "PSS", "ECDSA": "", "ED25519": ""}  # what the key's name does not say

Advance = Callable[[str], None]


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, and what to do where something can be done."""


@dataclass
class Row:
    """A document in the table."""

    document: str
    size: int  # bytes, before it was signed
    credential: str
    algorithm: str
    output: str
    source: Path = field(repr=False)
    signed: Path = field(repr=False)
    token: str = ""
    verified_by: list[str] = field(default_factory=list)
    ms: float = 0.0  # from the request to the signed file on the disk
    problem: str = ""


@dataclass(frozen=True)
class Burst:
    count: int
    seconds: float
    first: Path  # its first CMS, which is verified like the documents


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        type=Path,
        default=REPOSITORY / "var" / "demo",
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(options: argparse.Namespace) -> int:
    if not SCRIPTS.is_dir():
        print("paraph demo: runs from a clone of the repository: it needs deploy/demo", file=sys.stderr)
        return USAGE
    missing = sorted(PROGRAMS[program] for program in PROGRAMS if shutil.which(program) is None)
    if missing:
        print(f"paraph demo: install {', '.join(missing)} first; `make demo` does it with apt-get", file=sys.stderr)
        return USAGE
    os.umask(0o077)  # PINs, keys and documents are for the user who runs this
    options.directory = options.directory.absolute()
    try:
        return asyncio.run(_main(options))
    except DemoFailed as error:
        print(f"paraph demo: {error}", file=sys.stderr)
    except ServiceError as error:
        print(f"paraph demo: {session.say(error)}\n{_log_tail(options.directory)}", file=sys.stderr)
    except asyncio.CancelledError:
        print("paraph demo: stopped", file=sys.stderr)
    return FAILED


async def _main(options: argparse.Namespace) -> int:
    # SIGTERM and a closed terminal end the demo as Ctrl-C does: the daemon is stopped first.
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    began = time.perf_counter()
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        _lock(stack, directory / "demo.lock", "another demo is at work")
        steps = stack.enter_context(Steps())
        await _prepare(steps, directory)
        async with _daemon(steps, directory):
            rows, burst = await _sign(steps, directory)
            await _verify_by_daemon(steps, directory, rows)
        await _verify(steps, directory, rows, burst)
    if options.json:
        hidden = {"source", "signed"}
        print(json.dumps([{k: v for k, v in asdict(row).items() if k not in hidden} for row in rows], indent=2))
    else:
        _show(directory, rows, burst, time.perf_counter() - began)
    return FAILED if any(row.problem for row in rows) else OK


async def _prepare(steps: "Steps", directory: Path) -> None:
    """Tokens, certificates, the daemon's configuration and credentials; what is there is kept."""
    with contextlib.ExitStack() as stack:
        (directory / "state").mkdir(exist_ok=True)
        _lock(stack, directory / "state" / "lock", "a daemon still runs with the demo's state; stop it first")
    with steps("tokens and keys", 10) as advance:
        keys = json.loads(await _script("tokens.py", directory, advance=advance))
    with steps("certificates") as advance:
        await _script("pki.py", directory / "pki", text=json.dumps(keys), advance=advance)
    with steps("configuration"):
        labels = [key["label"] for key in keys["keys"]]
        _write_configuration(directory, keys["module"], [label for label in labels if not label.endswith("-login")])
        _store_credentials(directory, keys["keys"])
    big = directory / "ledger-of-the-mill.pdf"
    if not big.exists():
        with steps("a document of 6 MB") as advance:
            await _script("big.py", big, advance=advance)


def _write_configuration(directory: Path, module: str, credentials: Sequence[str]) -> None:
    port, metrics_port = _free_port(PORT), _free_port(METRICS_PORT)
    template = string.Template((SCRIPTS / "paraph.toml.in").read_text())
    values = {"directory": str(directory), "module": module, "port": str(port), "metrics_port": str(metrics_port)}
    # JSON's escapes are those of TOML's strings.
    values = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()}
    values["credentials"] = ", ".join(json.dumps(name) for name in credentials)
    (directory / "paraph.toml").write_text(template.substitute(values))
    for name, caller in (("client", "portal"), ("operator-client", "operator")):
        (directory / f"{name}.toml").write_text(
            f'server = "127.0.0.1:{port}"\nca = "pki/root.pem"\n'
            f'certificate = "pki/{caller}.pem"\nkey = "pki/{caller}.key"\n'
        )


def _store_credentials(directory: Path, keys: Sequence[dict[str, str]]) -> None:
    """What `paraph credential add` does, in this process: ten commands would take ten seconds."""
    from signer import credential as stored
    from signer.clock import Clock
    from signer.server import DATABASE
    from signer.store import open_store

    engine, clock = open_store(directory / "state" / DATABASE), Clock()
    there = stored.read(engine)
    for key in keys:
        name, cka_id = key["label"], bytes.fromhex(key["id"])
        outputs = [] if name.endswith("-login") else [stored.Output.CADES_B_B, stored.Output.PADES_B_B]
        pem = (directory / "pki" / "credentials" / f"{name}.pem").read_bytes()

        def add(name: str = name, pem: bytes = pem, cka_id: bytes = cka_id, outputs: Any = outputs) -> None:
            stored.add(engine, name, pem, cka_id=cka_id, key_label=name, outputs=outputs, clock=clock)

        try:
            add()
        except stored.CredentialError:
            if name not in there:
                raise
            stored.remove(engine, name, clock)  # its certificate was renewed, or its token made anew
            add()
    engine.dispose()


@contextlib.asynccontextmanager
async def _daemon(steps: "Steps", directory: Path) -> AsyncIterator[None]:
    """The daemon, ready to sign with all three tokens; stopped in every case."""
    config = directory / "paraph.toml"
    with (directory / "daemon.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "signer", "serve", "--config", config,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPOSITORY,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
        )  # fmt: skip
    try:
        with steps("the daemon and its tokens", 3) as advance:
            await _ready(process, directory, advance)
        yield
    finally:
        with steps("stopping the daemon"):
            await _stop(process, directory)


async def _ready(process: asyncio.subprocess.Process, directory: Path, advance: Advance) -> None:
    """Raise `DemoFailed` with the end of the log unless the daemon serves and every token is READY in time."""
    profile = Profile.load(directory / "operator-client.toml")
    tokens: dict[str, str] = {}

    async def wait() -> None:
        await _reachable(profile)
        async with Client(profile) as client:
            async for seen in client.watch_tokens():
                for token in seen:
                    state = op.Token.State.Name(token.state)
                    if state == "READY" and tokens.get(token.name) != "READY":
                        advance(token.name)
                    tokens[token.name] = state if state == "READY" else f"{state} ({token.detail})"
                if all(state == "READY" for state in tokens.values()):
                    break
        await _serving(profile)

    waiting, ended = asyncio.create_task(wait()), asyncio.create_task(process.wait())
    try:
        done, _ = await asyncio.wait({waiting, ended}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (waiting, ended):
            task.cancel()
    if waiting in done:
        error = waiting.exception()
        if error is None:
            return
        said = session.say(error) if isinstance(error, ServiceError) else error
        raise DemoFailed(f"the daemon does not answer: {said}\n{_log_tail(directory)}") from error
    why = f"ended with {process.returncode}" if ended in done else f"is not ready after {READY_S:.0f} s {tokens or ''}"
    raise DemoFailed(f"the daemon {why}\n{_log_tail(directory)}")


async def _reachable(profile: Profile) -> None:
    """Wait until something listens: a gRPC channel that was refused once waits a second before it tries again."""
    host, _, port = profile.server.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def _serving(profile: Profile) -> None:
    """Wait until the health service says SERVING."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    channel = profile.channel()
    try:
        while True:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=READY_S)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.05)
    finally:
        await channel.close()


async def _stop(process: asyncio.subprocess.Process, directory: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DemoFailed(f"the daemon had not ended after {STOP_S:.0f} s\n{_log_tail(directory)}") from None


async def _sign(steps: "Steps", directory: Path) -> tuple[list[Row], Burst]:
    """Every document, a few at once, by every credential and algorithm in turn; then one burst of digests."""
    (directory / "signed").mkdir(exist_ok=True)
    async with Client.from_profile(directory / "client.toml") as client:
        credentials = {credential.name: credential for credential in await client.credentials()}
        rows = _plan(directory, list(credentials.values()))
        turns = asyncio.Semaphore(AT_ONCE)

        async def sign(row: Row, advance: Advance) -> None:
            async with turns:
                await _sign_one(client, row)
            advance(row.document)

        with steps("signing", len(rows)) as advance:
            await asyncio.gather(*(sign(row, advance) for row in rows))
        with steps(f"{BURST_DIGESTS:,} digests", BURST_DIGESTS) as advance:
            burst = await _burst(client, credentials[BURST_CREDENTIAL], directory, advance)
    return rows, burst


def _plan(directory: Path, credentials: Sequence[Any]) -> list[Row]:
    """Which document is signed by whom: the credentials take turns, RSA keys with both of their schemes."""
    ways = [
        (credential.name, *algorithms_for(credential, pss=pss))
        for credential in credentials
        for pss in ((False, True) if credential.key_type.startswith("RSA") else (False,))
    ]
    documents = [*sorted((SCRIPTS / "corpus").glob("*.pdf")), directory / "ledger-of-the-mill.pdf"]
    targets = [(path, directory / "signed" / path.name, "PADES_B_B") for path in documents]
    text = SCRIPTS / "corpus" / "ORIGIN.md"
    targets += [(text, directory / "signed" / f"{text.name}{ending}", "CADES_B_B") for ending in (".p7s", ".p7m")]
    # Ed25519 is left to PDFs, so that each CMS file is one that openssl can verify.
    ways.sort(key=lambda way: way[2] == "ED25519", reverse=True)
    rows = []
    for number, (source, signed, output) in enumerate(targets):
        credential, digest, scheme = ways[number % len(ways)]
        size = source.stat().st_size
        rows.append(Row(signed.name, size, credential, f"{scheme}/{digest}", output, source, signed))
    return rows


async def _sign_one(client: Client, row: Row) -> None:
    scheme, digest = row.algorithm.split("/")
    began = time.perf_counter()
    try:
        signed = await client.sign_file(
            row.credential,
            row.source,
            row.signed,
            output=row.output,
            digest_algorithm=digest,
            signature_algorithm=scheme,
            enveloping=row.signed.suffix == ".p7m",
            reason="Paraph demo" if row.output == "PADES_B_B" else "",
        )
    except ServiceError as error:
        row.problem = str(error)
        return
    row.ms = round((time.perf_counter() - began) * 1e3, 1)
    row.token = signed.token


async def _burst(client: Client, credential: Any, directory: Path, advance: Advance) -> Burst:
    """Digests as a portal sends them that keeps its documents to itself, as many a message as their CMS allow."""
    text = (SCRIPTS / "corpus" / "ORIGIN.md").read_bytes()
    digests = [hashlib.sha256(text if number == 0 else b"%d" % number).digest() for number in range(BURST_DIGESTS)]
    digest, scheme = algorithms_for(credential)
    size = min(credential.cms_digests_max, BURST_DIGESTS // 4)
    began = time.perf_counter()

    async def part(start: int) -> list[Any]:
        answer = await client.sign_digests(
            credential.name,
            digests[start : start + size],
            output="CADES_B_B",
            digest_algorithm=digest,
            signature_algorithm=scheme,
        )
        for item in answer.items:
            advance("")
            if item.status != pb.SIGNED:
                raise DemoFailed(f"a digest of the burst was not signed: {item.reason}")
        return list(answer.items)

    parts = await asyncio.gather(*(part(start) for start in range(0, len(digests), size)))
    seconds = time.perf_counter() - began
    first = directory / "signed" / "burst-first.p7s"
    first.write_bytes(parts[0][0].signature)
    return Burst(sum(map(len, parts)), seconds, first)


async def _verify_by_daemon(steps: "Steps", directory: Path, rows: Sequence[Row]) -> None:
    """Ed25519, which neither pdfsig nor openssl's cms knows: pyHanko reads it, in the daemon's assembly process."""
    chosen = [row for row in rows if row.algorithm.startswith("ED25519") and not row.problem]
    async with Client.from_profile(directory / "client.toml") as client:
        with steps("verifying by pyHanko", len(chosen)) as advance:
            for row in chosen:
                report = await client.verify(row.signed)
                last = report.signatures[-1] if report.signatures else pb.SignatureReport()
                if last.valid and last.trusted and last.covers == pb.SignatureReport.WHOLE_FILE:
                    row.verified_by.append("pyHanko")
                else:
                    row.problem = f"pyHanko: {report.problem or last.reason or last.trust_reason}"
                advance(row.document)


async def _verify(steps: "Steps", directory: Path, rows: Sequence[Row], burst: Burst) -> None:
    """Everything else by programs that are not ours (check.py)."""
    chosen = [row for row in rows if not row.problem]
    text = str(SCRIPTS / "corpus" / "ORIGIN.md")
    jobs: list[dict[str, Any]] = [
        {
            "file": str(row.signed),
            "content": None if row.output == "PADES_B_B" else str(row.source),
            "ed25519": row.algorithm.startswith("ED25519"),
        }
        for row in chosen
    ]
    jobs.append({"file": str(burst.first), "content": text, "ed25519": False})
    with steps("verifying", len(jobs)) as advance:
        said = await _script("check.py", directory / "pki", directory / "nss", text=json.dumps(jobs), advance=advance)
    *answers, of_burst = json.loads(said)
    for row, answer in zip(chosen, answers, strict=True):
        row.verified_by += answer["by"]
        row.problem = answer["problem"]
    if of_burst["problem"]:
        raise DemoFailed(f"the burst's first signature: {of_burst['problem']}")


def _show(directory: Path, rows: Sequence[Row], burst: Burst, seconds: float) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=100)
    table = Table(box=None, padding=(0, 1, 0, 0))
    lines = [_line(row) for row in rows]
    names = ("document", "size", "credential", "token", "verified by", "ms")
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    # On a narrow terminal it is the names of documents that are cut.
    widths[0] = max(12, min(widths[0], console.width - sum(widths[1:]) - len(widths)))
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, no_wrap=True, width=width, justify="right" if name in {"size", "ms"} else "left")
    for row, line in zip(rows, lines, strict=True):
        table.add_row(*line, style="red" if row.problem else "")
    print()
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"[red]{row.document}: {escape(row.problem)}[/]", soft_wrap=True)
    shown = Path(os.path.relpath(directory))
    paraph = Path(os.path.relpath(Path(sys.executable).with_name("paraph")))
    good = sum(not row.problem for row in rows)
    print(
        f"""
{good} of {len(rows)} documents signed and verified; {burst.count:,} digests more with {BURST_CREDENTIAL}: \
{burst.count / burst.seconds:,.0f} a second.
{seconds:.1f} s in all. Signed files: {shown / "signed"}   the daemon's log: {shown / "daemon.log"}
pdfsig and openssl's cms do not know Ed25519: pyHanko read it in the daemon, and cryptography in deploy/demo/check.py.

The "card" here is software, and sits in the server's reader. Until gates come, every allowed caller
signs with it: nobody is asked for a PIN. Nothing here is a legal signature.

Once more by hand, in two terminals:
  {paraph} serve --config {shown / "paraph.toml"}
  {paraph} sign FILE --credential {BURST_CREDENTIAL} --profile {shown / "client.toml"}"""
    )


def _line(row: Row) -> tuple[str, ...]:
    way = f"{row.credential} {SCHEMES[row.algorithm.split('/')[0]]}"
    verdict = "NOT VERIFIED" if row.problem else ", ".join(row.verified_by)
    return row.document.removesuffix(".pdf"), _size(row.size), way.rstrip(), row.token, verdict, f"{row.ms:.0f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


class Steps:
    """What is being done, on stderr: bars on a terminal, elsewhere a line for each step."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:26}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = sys.stderr.isatty()
        self._progress = Progress(
            *columns, TextColumn("[dim]{task.fields[now]}"), console=Console(stderr=True), disable=not self._bars
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def __call__(self, what: str, total: int = 1) -> Iterator[Advance]:
        """`advance(text)` counts one up; a text '3/10 ...' says itself how far it is."""
        task = self._progress.add_task(what, total=total, now="")
        began = time.perf_counter()

        def advance(text: str) -> None:
            place = re.match(r"(\d+)/\d+ ", text)
            if place:
                self._progress.update(task, completed=int(place[1]) - 1, now=text[place.end() :])
            else:
                self._progress.update(task, advance=1, now=text)

        try:
            yield advance
        except BaseException:
            if not self._bars:
                print(f"{what:26} failed", file=sys.stderr, flush=True)
            raise
        self._progress.update(task, completed=total, now="")
        if not self._bars:
            print(f"{what:26} {time.perf_counter() - began:5.1f} s", file=sys.stderr, flush=True)


async def _script(name: str, *arguments: Path, text: str = "", advance: Advance) -> str:
    """The output of a script of deploy/demo; its stderr has a line for each thing it begins, and at the end why not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPTS / name, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    try:
        output = asyncio.create_task(process.stdout.read())
        process.stdin.write(text.encode())
        process.stdin.close()
        async for line in process.stderr:
            said.append(line.decode(errors="replace").rstrip())
            advance(said[-1])
        if await process.wait():
            raise DemoFailed("\n".join([f"deploy/demo/{name} failed:", *said[-10:]]))
        return (await output).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _lock(stack: contextlib.ExitStack, path: Path, taken: str) -> None:
    """Held until the stack ends; raises `DemoFailed` when somebody else has it."""
    file = stack.enter_context(path.open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoFailed(f"{taken} ({path})") from None


def _free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any other."""
    for port in (wanted, 0):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])
    raise DemoFailed("no free port on 127.0.0.1")


def _log_tail(directory: Path) -> str:
    try:
        lines = (directory / "daemon.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([f"the end of {directory / 'daemon.log'}:", *(f"  {line}" for line in lines[-15:])])
