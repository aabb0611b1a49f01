"""
A stand-in for the daemon where people sign, for tests of what the portal makes of its answers; the real one is asked in
test_signing_for_real.py.

    desk = Desk()
    desk.offers("ada", certificate, subject="ada")
    desk.signs(batch)                   as the person does it in the window
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography import x509

from portal_adapter.auth.daemon import Credential, Found
from portal_adapter.refusal import Refusal, invalid
from signer.holder import Holders

_LINE = re.compile(rb"\n%signed ([0-9a-f]{64}) ([0-9a-f]{64})\n")


@dataclass
class Held:
    """A batch: OPEN, SIGNING, SIGNED or CANCELLED."""

    credential: str
    document: bytes
    state: str = "OPEN"
    signed: bytes = b""


class Desk:
    """
    A document that is signed here is the one that came in and a line that names the certificate. `is_away`: nobody
    answers; `refused`: reasons for which a credential is refused; `meanwhile` happens while a batch is opened.
    """

    def __init__(self) -> None:
        self.offered: list[Credential] = []
        self.held: dict[str, Held] = {}
        self.is_away = False
        self.refused: dict[str, str] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    def offers(self, name: str, certificate: bytes, *, subject: str, signs: bool = True, trouble: str = "") -> str:
        """Answers the certificate's fingerprint."""
        fingerprint = hashlib.sha256(certificate).hexdigest()
        self.offered.append(Credential(name, subject, certificate, fingerprint, signs, trouble))
        return fingerprint

    def signs(self, batch: str, *, by: str = "", document: bytes | None = None) -> None:
        """By the certificate of the batch, or another one; of the batch's document, or another one."""
        one = self.held[batch]
        fingerprint = by or next(each.fingerprint for each in self.offered if each.name == one.credential)
        before = one.document if document is None else document
        added = f"\n%signed {fingerprint} {hashlib.sha256(before).hexdigest()}\n"
        one.state, one.signed = "SIGNED", before + added.encode()

    def newest(self) -> str:
        return list(self.held)[-1]

    # ---- what the portal asks

    def credentials(self, of_person: Sequence[bytes]) -> list[Credential]:
        """As the daemon finds them."""
        self._answers()
        by_name = {one.name: one for one in self.offered}
        stored: Any = {
            name: SimpleNamespace(
                certificates=(one.certificate,),
                x509=x509.load_der_x509_certificate(one.certificate),
                subject=one.subject,
            )
            for name, one in by_name.items()
        }
        names = Holders(stored).of(of_person)
        return [by_name[name] for name in sorted(names)]

    def open(self, batch: str, credential: str, name: str, document: Path, sha256: str) -> str:
        self._answers()
        if (reason := self.refused.get(credential)) is not None:
            raise invalid("credential", reason, "This certificate was revoked. Choose another one.")
        content = document.read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        self.held[batch] = Held(credential, content)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return f"link-to-{batch}"

    def state(self, batch: str) -> str:
        self._answers()
        return self.held[batch].state if batch in self.held else ""

    def fetch(self, batch: str, target: Path) -> bool:
        self._answers()
        if batch not in self.held or self.held[batch].state != "SIGNED":
            return False
        target.write_bytes(self.held[batch].signed)
        return True

    def signatures(self, document: Path) -> list[Found]:
        self._answers()
        content = document.read_bytes()
        lines = list(_LINE.finditer(content))
        return [
            Found(True, one[1].decode(), one.end() == len(content), one[2].decode(), is_undisturbed=True)
            for one in lines
        ]

    def cancel(self, batch: str) -> bool:
        self._answers()
        if batch in self.held:
            self.held[batch].state, self.held[batch].signed = "CANCELLED", b""
        return True

    def cancel_quietly(self, batch: str) -> None:
        if not self.is_away:
            self.cancel(batch)

    def _answers(self) -> None:
        if self.is_away:
            raise Refusal("signer-unavailable", "The signing service cannot be reached just now.", retry_after_s=30)
