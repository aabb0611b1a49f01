"""
The client for programs without asyncio: the same methods, waiting.

    with SyncClient.from_profile(Path("var/demo/client.toml")) as client:
        cms = client.sign_digest(
            "ana-p-256", digest, output="CADES_B_B", digest_algorithm="SHA256", signature_algorithm="ECDSA"
        )
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from signer.client import Client, Profile, ServiceError

P = ParamSpec("P")
R = TypeVar("R")


def _sync(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["SyncClient", P], R]:
    """The same method for callers without an event loop."""

    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(method(self.client, *args, **kwargs))

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class SyncClient:
    """`Client` for programs without asyncio; may be shared by threads, whose single digests then travel together."""

    def __init__(self, profile: Profile) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()  # what is given to the loop is given before it ends
        self._is_open = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paraph client", daemon=True)
        self._thread.start()
        try:
            self.client = self.run(self._connect(profile))
        except BaseException:
            self._is_open = False
            self._stop()
            raise

    @classmethod
    def from_profile(cls, path: Path) -> "SyncClient":
        return cls(Profile.load(path))

    @staticmethod
    async def _connect(profile: Profile) -> Client:
        return Client(profile)  # gRPC ties a channel to the loop that runs now

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Raises `RuntimeError` on a client that is closed, or that another process made: it has no thread here."""
        with self._lock:
            if self._is_open and self._process == os.getpid():
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            else:
                coroutine.close()
                why = "is closed" if not self._is_open else "was made before a fork: make one in each process"
                raise RuntimeError(f"the client {why}")
        try:
            return future.result()
        except futures.CancelledError:
            raise ServiceError("", "the client was closed", "CANCELLED") from None

    def close(self) -> None:
        """What is under way in other threads fails with CANCELLED. Idempotent."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
        if was_open and self._process == os.getpid():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._stop()

    async def _end(self) -> None:
        await self.client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def sign_pdf(self, credential: str, source: Path, target: Path, **wishes: Any) -> None:
        """
        A local PDF, of which only the digest travels: `local.sign_pdf`, with its `pss`, `reason` and `location`, and
        its errors. Needs the extra `pdf`.
        """
        from signer import local  # late: it brings pyHanko along

        self.run(local.sign_pdf(self.client, self.credential(credential), source, target, **wishes))

    credentials = _sync(Client.credentials)
    credential = _sync(Client.credential)
    sign_digests = _sync(Client.sign_digests)
    sign_digest = _sync(Client.sign_digest)
    sign_file = _sync(Client.sign_file)
    verify = _sync(Client.verify)
    open_batch = _sync(Client.open_batch)
    batch = _sync(Client.batch)
    batches = _sync(Client.batches)
    fetch_document = _sync(Client.fetch_document)
    request_otp = _sync(Client.request_otp)
    sign_batch = _sync(Client.sign_batch)
    cancel_batch = _sync(Client.cancel_batch)
    result = _sync(Client.result)
