"""What a result page says became of each item of a frame: read in one place, whatever ended the frame."""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from pool.assign import Frame, Run
from pool.codes import REMOVED, Meaning, meaning
from pool.mechanism import verify
from pool.wire import MARK_EXPIRED, MARK_INVALID, MARK_NOT_BEGUN, MARK_REFUSED, MARK_SKIPPED, Page
from pool.work import Outcome, Status

RETURNS_MAX = 1  # so often an item goes back to the line after a token has refused it


def reason_for(problem: str) -> str:
    """The reason (errors.REASONS) for how a lane or a call ended."""
    if problem in REMOVED:
        return "TOKEN_REMOVED"
    if problem == "TOKEN_TIMEOUT":
        return problem
    return "MODULE_CRASH" if problem.startswith(("signal", "exit")) else "TOKEN_FAULT"


@dataclass(frozen=True, slots=True)
class Reading:
    """One frame's page at one moment. `ended` names how the lane's process ended, and is empty while it lives."""

    frame: Frame
    page: Page
    token: str
    ended: str = ""
    first_look: bool = False  # the frame is still with its lane: what is seen is not counted

    def settle_signed(self, doubted: Container[int]) -> tuple[int, list[tuple[Run, int, int]]]:
        """
        Give every signature that is not in doubt to its request; answers how many, and the other items.

        This is each signature's whole way through the parent, and therefore does nothing else.
        """
        signatures, signed, others, slot = self.page.signatures(self.frame.count), 0, [], 0
        for run in self.frame.runs:
            work = run.work
            outcomes, before = work.outcomes, work.left
            for index in range(run.start, run.stop):
                signature = signatures[slot]
                if signature is None or slot in doubted:
                    others.append((run, index, slot))
                elif outcomes[index] is None:
                    outcomes[index] = Outcome(Status.SIGNED, signature, "", self.token, "")
                    work.left -= 1
                slot += 1
            signed += before - work.left
        return signed, others

    def items(self) -> Iterator[tuple[Run, int, int]]:
        """(run, index in its request, slot) of every item."""
        slot = 0
        for run in self.frame.runs:
            for index in range(run.start, run.stop):
                yield run, index, slot
                slot += 1

    def outcome(self, run: Run, index: int, slot: int, *, doubt: bool) -> Outcome | None:
        """What became of an item; None where no token saw it. With `doubt` a signature is verified here once more."""
        try:
            result = self.page.get(slot)
        except ValueError as error:  # a page that the module wrote over
            return Outcome(Status.INDETERMINATE, reason="TOKEN_FAULT", token=self.token, detail=str(error))
        if isinstance(result, bytes):
            if doubt and not _verifies(run, index, result):
                result = MARK_INVALID
            else:
                return Outcome(Status.SIGNED, result, token=self.token)
        if result == MARK_INVALID:
            return Outcome(Status.FAILED, reason="SIGNATURE_INVALID", token=self.token)
        if result in {MARK_REFUSED, MARK_NOT_BEGUN}:
            return self._refused(run, index, self.page.code(slot), begun=result == MARK_REFUSED)
        if result == MARK_EXPIRED:
            return Outcome(Status.NOT_ATTEMPTED, reason="DEADLINE_EXCEEDED", token=self.token)
        if result == MARK_SKIPPED:
            return Outcome(Status.NOT_ATTEMPTED, reason="CANCELLED", token=self.token)
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
            return Outcome(Status.FAILED, reason="TOKEN_FAULT", token=self.token, detail=code)
        return None


def _verifies(run: Run, index: int, signature: bytes) -> bool:
    try:
        verify(run.work.algorithm, run.work.spki, run.work.items[index], signature)
    except InvalidSignature:
        return False
    return True
