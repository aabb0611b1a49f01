"""The daemon of the demo: started, waited for until every token can sign, and stopped in every case."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from signer.cli import session
from signer.cli.demo_steps import REPOSITORY, Advance, DemoFailed, Steps
from signer.client import Client, Profile, ServiceError
from signer.v1 import operator_pb2 as op

READY_S = 30.0  # three tokens with four lanes log in one after the other: 0.1 s each on an idle machine
STOP_S = 40.0  # the daemon gives calls in work 30 s


@contextlib.asynccontextmanager
async def running(steps: Steps, directory: Path) -> AsyncIterator[None]:
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
                for token in seen.tokens:
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
        raise DemoFailed(f"the daemon does not answer: {said}\n{log_tail(directory)}") from error
    why = f"ended with {process.returncode}" if ended in done else f"is not ready after {READY_S:.0f} s {tokens or ''}"
    raise DemoFailed(f"the daemon {why}\n{log_tail(directory)}")


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
        raise DemoFailed(f"the daemon had not ended after {STOP_S:.0f} s\n{log_tail(directory)}") from None


def log_tail(directory: Path) -> str:
    try:
        lines = (directory / "daemon.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([f"the end of {directory / 'daemon.log'}:", *(f"  {line}" for line in lines[-15:])])
