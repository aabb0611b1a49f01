"""
The daemon without its ledger, to measure what that costs: `python -m bench.rig.unrecorded serve ...` is `paraph serve`
with one difference, that nothing of a request is written down. Not a way to run it: nothing is exactly once then.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pool import Outcomes
from signer import server
from signer.__main__ import main
from signer.batch import Ask, Batches


class Nothing:
    """Stands for a request's record."""

    known = todo = None

    def __init__(self, accepted: datetime) -> None:
        self.accepted = accepted

    def prepared(self, content: list[bytes]) -> None:
        pass

    def leave(self) -> None:
        pass

    def release(self, *, delivered: bool) -> None:
        pass


class Unrecorded(Batches):
    async def enter(self, ask: Ask) -> Any:
        return Nothing(ask.accepted)

    async def _to_pool(self, ask: Ask, record: Any, signed: Sequence[bytes], lease: Any = None) -> Outcomes:
        left_s = ask.deadline - self._clock.monotonic()
        key = ask.credential.key.ref
        return await self._pool.sign(key, ask.algorithm, signed, caller=ask.caller.name, timeout_s=left_s)


if __name__ == "__main__":
    vars(server)["Batches"] = Unrecorded
    main()
