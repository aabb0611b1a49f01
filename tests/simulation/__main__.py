"""`python -m tests.simulation SEED`: one run, told step by step. `python -m tests.simulation FIRST COUNT`: so many."""

import sys
import time
import traceback
from collections import Counter

from tests.simulation.loop import START_S
from tests.simulation.many import spread
from tests.simulation.world import World, play


def tell(world: World) -> None:
    for at, who, what in world.story:
        print(f"{at - START_S:10.6f}  {who:12} {what}")


def main(words: list[str]) -> int:
    if len(words) == 1:
        try:
            world = play(int(words[0]))
        except BaseException as error:  # noqa: BLE001 -- told, whatever it is
            tell(error.world)  # type: ignore[attr-defined]
            traceback.print_exception(error)
            return 1
        tell(world)
        return 0
    first, count = map(int, words)
    counts: Counter[str] = Counter()
    bad, began = 0, time.perf_counter()
    for some, broken in spread(first, count):
        counts += some
        bad += len(broken)
        for seed, said in broken.items():
            print(f"seed {seed}: {said}", flush=True)
    for name, number in sorted(counts.items()):
        print(f"{number:10,}  {name}")
    print(f"{count} seeds, {bad} failed, {time.perf_counter() - began:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
