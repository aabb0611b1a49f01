"""
What a daemon has really done since the last look: the shim's C_Sign and C_Login, the ledger's rows, the log. Each is read
on from where it was left, so that a look costs the same after 20 000 steps.
"""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from signer.chain import Kind, items_hash
from tests.daemon import Rig
from tests.signer.access.calls import shim_of


@dataclass
class Seen:
    """Since the last look."""

    signed: list[bytes] = field(default_factory=list)  # what each C_Sign was given
    logins: int = 0
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # (kind, what it says)
    log: str = ""

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        return [said for one, said in self.rows if one == kind]

    def check_intents(self) -> None:
        """I4: each C_Sign stands under an INTENT, in order, and none was intended that was not tried."""
        left = list(self.signed)
        for intent in self.of(Kind.INTENT):
            count = sum(stop - start for start, stop in intent["items"])
            mine, left = left[:count], left[count:]
            assert intent["signed"] == items_hash(mine), (intent, [one.hex() for one in mine])
        assert not left, f"C_Sign without an INTENT: {[one.hex() for one in left]}"


class Witnesses:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._shim = (shim_of(rig).directory / "log").open("rb")
        self._log = rig.log.open("rb")
        self._database = sqlite3.connect(f"file:{rig.state / 'paraph.sqlite'}?mode=ro", uri=True)
        self._place = (0, 0)
        self._torn = b""

    def close(self) -> None:
        self._shim.close()
        self._log.close()
        self._database.close()

    def look(self) -> Seen:
        seen = Seen()
        *lines, self._torn = (self._torn + self._shim.read()).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said["ev"] == "enter" and not said.get("query"):
                if said["fn"] == "C_Sign":
                    seen.signed.append(bytes.fromhex(said["data"]))
                seen.logins += said["fn"] == "C_Login"
        query = "SELECT epoch, sequence, kind, body FROM ledger_rows WHERE (epoch, sequence) > (?, ?) ORDER BY 1, 2"
        for epoch, sequence, kind, body in self._database.execute(query, self._place):
            self._place = epoch, sequence
            seen.rows.append((kind, json.loads(body)))
        seen.log = self._log.read().decode()
        return seen
