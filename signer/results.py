"""What became of a request's items: as it is kept for a day, and as it is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pool import Outcome, Outcomes, Status
from pool.work import hides

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """
    What became of some items of a request in one attempt: `ranges` of their places, their signatures in that order, None
    where there is none, and for those that a token saw or that were given up, why.
    """

    attempt: int
    token: str
    ranges: Sequence[Range]
    signatures: Sequence[bytes | None]
    problems: Mapping[int, tuple[str, str]]  # place -> status, reason

    def value(self) -> list[Any]:
        problems = [[place, *problem] for place, problem in self.problems.items()]
        return [self.attempt, self.token, list(self.ranges), list(self.signatures), problems]

    @classmethod
    def of(cls, value: Any) -> "Part":
        attempt, token, ranges, signatures, problems = value
        found = {place: (status, reason) for place, status, reason in problems}
        return cls(attempt, token, [(start, stop) for start, stop in ranges], signatures, found)


def outcomes(count: int, parts: Sequence[Part]) -> Outcomes:
    """What is known of a request of so many items, in the order of writing: what was signed once stays signed."""
    found = Outcomes(count)
    for part in parts:
        places = [place for start, stop in part.ranges for place in range(start, stop)]
        for place, signature in zip(places, part.signatures, strict=True):
            if signature and not found.signatures[place]:
                found.signed(place, [signature], part.token)
                found.problems.pop(place, None)
        for place, (status, reason) in part.problems.items():
            if not found.signatures[place] and not hides(found.problems.get(place), Status(status)):
                found.problems[place] = Outcome(Status(status), reason=reason, token=part.token)
    for place, signature in enumerate(found.signatures):
        if not signature:
            found.problems.setdefault(place, Outcome(Status.NOT_ATTEMPTED, reason="INTERRUPTED"))
    return found
