"""
A daemon whose card is pulled and put back at random moments, under load, and whose pcscd is killed (row 2.6).

Everything is held against the card's own log: what it signed, and which PINs it heard.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from signer.v1 import signing_pb2 as pb
from tests.card import Card, Pcscd, has_card
from tests.card.pcscd import OPENSC
from tests.card.piv import PIN, PIN_REF
from tests.daemon import Rig, Token, running, until
from tests.signer.access.calls import Answer, Caller, ask, digests

CALLERS = 3
BATCH = 4  # digests a call
BACK_S = 3.0  # from the insertion to the next signature
PCSCD_BACK_S = 5.0  # from pcscd's start
LABEL = "Virtual Card"


def card_rig(pcscd: Pcscd, card: Card, **more: Any) -> Rig:
    """A daemon with one card, its key the credential 'card'."""
    rig = Rig()
    spki = card.add(0x9A, "p256", LABEL)
    place = {"reader": pcscd["desk"].name} | more
    rig.tokens = [Token("card", LABEL, module=str(OPENSC), pin=PIN, more=place, environment=pcscd.environment)]
    rig.credentials["card"] = (rig.pki.signer("Signer", spki), b"\x01", ["RAW"])
    return rig


class Load:
    """Callers who sign all the time, and write down what they were answered."""

    def __init__(self, rig: Rig, spki: bytes) -> None:
        self._rig = rig
        key = serialization.load_der_public_key(spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self._key = key
        self._lock = threading.Lock()
        self._numbers = iter(range(0, 1 << 40, BATCH))
        self._ending = threading.Event()
        self.told: Counter[str] = Counter()  # by status and reason
        self.unclear: set[bytes] = set()  # digests that may have been signed, and were not answered
        self.signed: set[bytes] = set()
        self.last_at = 0.0  # when a signature came
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.errors: list[BaseException] = []

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            for thread in self._threads:
                thread.join()
        if self.errors:
            raise self.errors[0]

    def _call(self) -> None:
        try:
            with Caller(self._rig) as portal:
                while not self._ending.is_set():
                    with self._lock:
                        number = next(self._numbers)
                    batch = digests(BATCH, number)
                    self._note(batch, portal.sign(ask(credential="card", digests=batch), timeout_s=20.0))
        except BaseException as error:
            self.errors.append(error)
            raise

    def _note(self, batch: list[bytes], answer: Answer) -> None:
        if answer.code != "OK":
            with self._lock:
                self.told[answer.reason] += BATCH
            assert answer.reason in {"TOKEN_ABSENT", "TOKEN_STARTING", "TOKEN_REMOVED", "PCSC_DOWN"}, answer
            self._ending.wait(0.1)
            return
        assert len(answer.value.items) == BATCH, "an item has no answer"
        for digest, item in zip(batch, answer.value.items, strict=True):
            name = pb.ItemStatus.Name(item.status)
            with self._lock:
                self.told[f"{name} {item.reason}".strip()] += 1
            if item.status == pb.SIGNED:
                self._key.verify(item.signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
                with self._lock:
                    self.signed.add(digest)
                    self.last_at = time.monotonic()
            elif item.status == pb.INDETERMINATE:
                with self._lock:
                    self.unclear.add(digest)

    def signs_again(self, since: float, within_s: float, what: str) -> float:
        """Until a signature comes after `since`; answers how long that took."""
        until(lambda: self.errors or self.last_at > since, within_s + 20.0, f"a signature after {what}")
        took = self.last_at - since
        assert self.errors or took <= within_s, f"{took:.2f} s after {what}"
        return took


def run(pulls: int, restarts: int, seed: int) -> str:
    """So many of both in random order; answers what was seen. Raises `AssertionError`."""
    chance = random.Random(seed)
    todo = ["pull"] * pulls + ["restart"] * restarts
    chance.shuffle(todo)
    took: dict[str, list[float]] = {"pull": [], "restart": []}
    card = Card()
    with ExitStack() as stack:
        pcscd = stack.enter_context(Pcscd("desk"))
        rig = card_rig(pcscd, card)
        pcscd["desk"].insert(card)
        stack.enter_context(running(rig))
        assert rig.process is not None
        pid = rig.process.pid
        load = Load(rig, card.spki(0x9A))
        with load.running():
            load.signs_again(time.monotonic(), 20.0, "the start")
            for what in todo:
                time.sleep(chance.uniform(0.0, 0.5))
                if what == "pull":
                    pcscd["desk"].remove()
                    # A hand is slower than pcscd, which looks every 0.4 s.
                    until(lambda: not has_card(pcscd.environment, pcscd["desk"].name), what="pcscd sees it")
                    time.sleep(chance.uniform(0.0, 1.0))
                    pcscd["desk"].insert(card)
                    took[what].append(load.signs_again(time.monotonic(), BACK_S, "an insertion"))
                else:
                    pcscd.kill()
                    time.sleep(chance.uniform(0.0, 1.5))
                    pcscd.start()
                    took[what].append(load.signs_again(time.monotonic(), PCSCD_BACK_S, "pcscd's start"))
        assert rig.process.poll() is None, "the daemon has ended"
        assert rig.process.pid == pid
    made = [event.data for event in card.seen("sign") if event.status == 0x9000]
    assert len(made) == len(set(made)), "a digest was signed twice"
    assert load.signed <= set(made), "signatures that the card knows nothing of"
    assert set(made) - load.signed <= load.unclear, "the card signed what nobody was told of"
    assert {event.status for event in card.seen("verify")} == {0x9000}, "a wrong PIN"
    assert card.tries[PIN_REF] == card.tries_max
    words = ", ".join(f"{count:,} {name}" for name, count in sorted(load.told.items(), key=lambda pair: -pair[1]))
    return "; ".join(
        [
            *(
                f"{len(times)} {name}s: signing again after {sorted(times)[len(times) // 2]:.2f} s, at most {max(times):.2f}"
                for name, times in took.items()
                if times
            ),
            f"{len(card.seen('verify'))} PINs, all right; {words}",
        ]
    )
