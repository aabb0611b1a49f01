"""What was taken away while something went on: between two members of a group, and while a person's codes were looked at."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pool import Unavailable
from signer.batch import Allowed, Ask, Batches
from signer.config import Trust, load
from signer.credential import Output
from signer.database import StoreError
from signer.errors import Refusal
from signer.gate import Gate
from signer.policy import Policy
from signer.server import Daemon
from tests.signer.access.test_config import GOOD

NOTHING: Any = None


@dataclass(frozen=True)
class Named:
    """As much of an ask as says who is to sign."""

    group: str
    credential: str
    others: tuple[str, ...] = ()


def batches(redeem: Callable[[Any], Awaitable[Allowed]], *suspended: str) -> Batches:
    """Whose credentials of these names may not go on."""

    def still(ask: Any) -> None:
        if ask.credential in suspended:
            raise Refusal("CREDENTIAL_SUSPENDED")

    pool: Any = SimpleNamespace(revoke=lambda: None)
    return Batches(pool, NOTHING, NOTHING, redeem, NOTHING, NOTHING, still, NOTHING)


async def nobody(_: Any) -> Allowed:
    raise AssertionError


async def test_a_member_that_was_suspended_while_another_was_asked() -> None:
    """The next member of a group is looked at again where something was taken away meanwhile."""
    made, asked = batches(nobody, "b"), []

    async def sign(one: Any) -> str:
        asked.append(one.credential)
        if one.credential == "a":
            made.revoke()
            raise Unavailable("TOKEN_ABSENT")
        return "signed"

    ask: Any = Named("seals", "a", ("b", "c"))
    assert await made.by_who_can(ask, sign) == "signed"
    assert asked == ["a", "c"]


async def test_taken_away_while_her_codes_were_looked_at() -> None:
    """What was redeemed is not signed where the credential is her caller's no more."""

    async def redeem(_: Ask) -> Allowed:
        return Allowed("ada", b"", math.inf)

    class Hers:
        gate = Gate.CODE_TOTP

        def __eq__(self, other: object) -> bool:
            return other == "suspended"

        __hash__ = None  # type: ignore[assignment]

    ask: Any = SimpleNamespace(output=Output.RAW, credential=Hers(), digests=[b""], inputs=(), document=b"")
    record: Any = SimpleNamespace(known=None, todo=None, revoked="")
    with pytest.raises(Refusal, match="CREDENTIAL_SUSPENDED"):
        await batches(redeem, "suspended")._to_pool(ask, record, [b""])


async def test_a_denial_waits_for_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store does not answer, what a denied caller has in work stops all the same."""
    (config := tmp_path / "paraph.toml").write_text(GOOD)
    (denied := tmp_path / "denied").write_text("ab" * 32 + "\n")
    daemon, looked = Daemon(config, load(config)), []
    daemon._policy = Policy({}, {}, frozenset(), ())
    daemon._batches = SimpleNamespace(revoke=lambda: looked.append(daemon._policy.denied))  # type: ignore[assignment]

    async def away() -> Any:
        raise StoreError("the store is away")

    monkeypatch.setattr(daemon, "_use_stored", away)
    with pytest.raises(StoreError):
        await daemon._take_away(Trust(denied_certificates=denied))
    assert looked == [frozenset({bytes.fromhex("ab" * 32)})]
