"""What a result page says became of each item of a frame: read in one place, whatever ended the frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from cryptography.exceptions import InvalidSignature

from pool.assign import Frame, Run
from pool.codes import PCSC_DOWN, REMOVED, Meaning, meaning, shortage
from pool.mechanism import Algorithm, Scheme, WrongSignature, from_token
from pool.public import verify
from pool.wire import MARK_EXPIRED, MARK_INVALID, MARK_NOT_BEGUN, MARK_REFUSED, MARK_SKIPPED, Page
from pool.work import Outcome, Status

RETURNS_MAX = 1  # so often an item goes back to the line after a token has refused it


def reason_for(problem: str) -> str:
    """The reason (errors.REASONS) for how a lane or a call ended."""
    if problem in REMOVED:
        return "TOKEN_REMOVED"
    if problem in {"TOKEN_TIMEOUT", PCSC_DOWN}:
        return problem
    return shortage(problem) or ("MODULE_CRASH" if problem.startswith(("signal", "exit")) else "TOKEN_FAULT")


@dataclass(frozen=True, slots=True)
class Reading:
    """One frame's page at one moment. `ended` names how the lane's process ended, and is empty while it lives."""

    frame: Frame
    page: Page
    token: str
    ended: str = ""
    first_look: bool = False  # the frame is still with its lane: what is seen is not counted

    def settle_signed(
        self, doubted: Callable[[Sequence[int]], Sequence[int]]
    ) -> tuple[list[bytes | None], list[tuple[Run, int, int]]]:
        """
        Give every signature to its request; answers them, slot by slot, and the items that have none. `doubted` picks, of
        the slots with a signature, those that are verified once more.

        This is each signature's whole way through the parent, and therefore does nothing else.
        """
        frame = self.frame
        signatures = _in_worlds_form(frame.algorithm, self.page.signatures(frame.count))
        slots = [slot for slot, one in enumerate(signatures) if one] if None in signatures else range(frame.count)
        for slot in doubted(slots):
            signature = signatures[slot]
            if signature and not _verifies(frame, slot, signature):
                signatures[slot] = None
        others, slot = [], 0
        for run in frame.runs:
            count = run.stop - run.start
            part = signatures[slot : slot + count]
            if None in part:
                others += self._piecemeal(run, slot, part)
            else:
                run.work.signed(run.start, cast("list[bytes]", part), self.token)
            slot += count
        return signatures, others

    def _piecemeal(self, run: Run, slot: int, signatures: list[bytes | None]) -> list[tuple[Run, int, int]]:
        others = []
        for index, signature in enumerate(signatures):
            if signature is None:
                others.append((run, run.start + index, slot + index))
            elif run.work.left:
                run.work.settle(run.start + index, Outcome(Status.SIGNED, signature, token=self.token))
        return others

    def items(self) -> Iterator[tuple[Run, int, int]]:
        """(run, index in its request, slot) of every item."""
        slot = 0
        for run in self.frame.runs:
            for index in range(run.start, run.stop):
                yield run, index, slot
                slot += 1

    def outcome(self, run: Run, index: int, slot: int) -> Outcome | None:
        """What became of an item; None where no token saw it. A signature is verified here once more."""
        try:
            result = self.page.get(slot)
        except ValueError as error:  # a page that the module wrote over
            return Outcome(Status.INDETERMINATE, reason="TOKEN_FAULT", token=self.token, detail=str(error))
        if isinstance(result, bytes):
            [signature] = _in_worlds_form(self.frame.algorithm, [result])
            if signature is not None and _verifies(self.frame, slot, signature):
                return Outcome(Status.SIGNED, signature, token=self.token)
            result = MARK_INVALID
        if result == MARK_INVALID:
            return Outcome(Status.FAILED, reason="SIGNATURE_INVALID", token=self.token)
        if result in {MARK_REFUSED, MARK_NOT_BEGUN}:
            return self._refused(run, index, self.page.code(slot), begun=result == MARK_REFUSED)
        if result == MARK_EXPIRED:
            return Outcome(Status.NOT_ATTEMPTED, reason="DEADLINE_EXCEEDED", token=self.token)
        if result == MARK_SKIPPED:
            return Outcome(Status.NOT_ATTEMPTED, reason=run.work.revoked or "CANCELLED", token=self.token)
        if self.ended and self.page.under == slot:
            return Outcome(Status.INDETERMINATE, reason=reason_for(self.ended), token=self.token, detail=self.ended)
        return None

    def _refused(self, run: Run, index: int, code: str, *, begun: bool) -> Outcome | None:
        what = meaning(code, begun=begun)
        if what is Meaning.MAYBE_SIGNED:
            return Outcome(Status.INDETERMINATE, reason=reason_for(code), token=self.token, detail=code)
        if what is Meaning.REQUEST:
            return Outcome(Status.FAILED, reason="ALGORITHM_NOT_ALLOWED", token=self.token, detail=code)
        # Another session can do it, once: what costs every lane its session must not cost the token its breaker.
        if not self.ended and not self.first_look and run.work.refused(index) > RETURNS_MAX:
            return Outcome(Status.FAILED, reason=shortage(code) or "TOKEN_FAULT", token=self.token, detail=code)
        return None


def _in_worlds_form(algorithm: Algorithm, given: list[bytes | None]) -> list[bytes | None]:
    """None where there was nothing, or what is no signature at all."""
    if algorithm.scheme is not Scheme.ECDSA:
        return given
    form = from_token(algorithm)
    try:
        return [raw and form(raw) for raw in given]
    except WrongSignature:
        if len(given) == 1:
            return [None]
        return [_in_worlds_form(algorithm, [raw])[0] for raw in given]


def _verifies(frame: Frame, slot: int, signature: bytes) -> bool:
    work, index = frame.item_at(slot)
    try:
        verify(work.algorithm, work.spki, work.items[index], signature)
    except InvalidSignature:
        return False
    return True
