"""The register of credentials, as operators change it while the daemon runs: stored, recorded, and in force at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import Engine

from signer import credential as rows
from signer.chain import Kind
from signer.clock import Clock
from signer.credential import Credential, CredentialError, Output, State
from signer.errors import Refusal
from signer.gate import LIFETIME_S, Bounds, Gate
from signer.ledger import Ledger


class Register:
    """
    `refresh` reads all credentials again and puts them in force; `reserved` is the public half of the key that signs
    checkpoints, which no credential may have.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        credentials: Callable[[], Mapping[str, Credential]],
        refresh: Callable[[], Awaitable[None]],
        clock: Clock,
        reserved: bytes,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._credentials = credentials
        self._refresh = refresh
        self._clock = clock
        self._reserved = reserved

    async def store(self, message: Any, who: str) -> Credential:
        """A RegisterCredentialRequest; raises `Refusal` CREDENTIAL_INVALID."""
        try:
            gate, outputs = _gate(message.gate or Gate.CALLER), [_output(word) for word in message.outputs]
            bounds = Bounds(message.digests_max, message.lifetime_s or LIFETIME_S, message.hours, message.claimed)
            await asyncio.to_thread(
                rows.add, self._engine, message.name, message.certificates, cka_id=message.key_id or None,
                key_label=message.key_label or None, outputs=outputs, clock=self._clock, gate=gate,
                subject=message.subject, bounds=bounds, who=who, reserved=self._reserved,
            )  # fmt: skip
        except ValueError as error:  # CredentialError, too
            raise Refusal("CREDENTIAL_INVALID", str(error)) from None
        return await self._changed(message.name, f"stored, gate {gate}", who)

    async def set_state(self, name: str, state: State, who: str) -> Credential:
        """Raises `Refusal` CREDENTIAL_UNKNOWN."""
        if name not in self._credentials():
            raise Refusal("CREDENTIAL_UNKNOWN")
        await asyncio.to_thread(rows.set_state, self._engine, name, state, self._clock, who)
        return await self._changed(name, state.value, who)

    async def _changed(self, name: str, what: str, who: str) -> Credential:
        await self._refresh()
        await self._ledger.note(Kind.REGISTER, {"credential": name, "what": what, "who": who})
        return self._credentials()[name]


def _gate(word: str) -> Gate:
    if word not in set(Gate):
        raise CredentialError(f"gate is one of {', '.join(Gate)}")
    return Gate(word)


def _output(word: str) -> Output:
    """One that a request can name."""
    if word == Output.LOGIN or word not in set(Output):
        raise CredentialError("outputs are RAW, CADES_B_B and PADES_B_B")
    return Output(word)
