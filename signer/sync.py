"""
The client for programs without asyncio: the same methods, waiting.

    with SyncClient.from_profile(Path("client.toml")) as client:
        signature = client.sign_digest("clerk", digest, digest_algorithm="SHA256", signature_algorithm="ECDSA")
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from signer.client import Client, Profile

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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paraph client", daemon=True)
        self._thread.start()
        self.client = self.run(self._connect(profile))

    @classmethod
    def from_profile(cls, path: Path) -> "SyncClient":
        return cls(Profile.load(path))

    @staticmethod
    async def _connect(profile: Profile) -> Client:
        return Client(profile)  # gRPC ties a channel to the loop that runs now

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Idempotent."""
        if self._thread.is_alive():
            self.run(self.client.close())
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
