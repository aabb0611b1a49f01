"""
Does the simulation bite? Plausible defects, planted one by one into a copy of the project, and the first seed of
`make test`'s that finds each: `python -m tests.simulation.mutants` prints the table of README.md
(with numbers: of these).

A place that has changed is an error: then the defect is planted anew.
"""

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.test_simulation import KEPT, SEEDS

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = 3  # processes
STRETCH = 20  # seeds in one of them


@dataclass(frozen=True)
class Mutant:
    what: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a lane looks at what its parent withdrew before it writes its counter",
        "pool/worker.py",
        "        under[0] = index + 1\n        with fence:  # see wire.py\n            pass\n        if skips[index]:\n",
        "        skip = skips[index]\n        with fence:\n            pass\n        under[0] = index + 1\n        if skip:\n",
    ),
    Mutant(
        "the parent reads the counter before it withdraws",
        "pool/attendant.py",
        "            for _, _, slot in mine:\n                page.skip(slot)\n            if nobody_waits:\n                continue\n"
        "            with FENCE:\n                pass\n            under = page.under  # read after the skips were written: see wire.py\n",
        "            under = page.under\n            if nobody_waits:\n                continue\n",
    ),
    Mutant(
        "an answer that may hide a signature sends the item to the next lane",
        "pool/settle.py",
        "        if what is Meaning.MAYBE_SIGNED:\n            return Outcome(",
        "        if what is Meaning.MAYBE_SIGNED and self.first_look:\n            return Outcome(",
    ),
    Mutant(
        "what was under C_Sign when the lane died counts as not begun",
        "pool/settle.py",
        "if self.ended and self.page.under == slot:",
        "if self.ended and self.page.under == slot and self.first_look:",
    ),
    Mutant(
        "what is under C_Sign at the deadline is answered NOT_ATTEMPTED",
        "pool/attendant.py",
        "if outcome is None and slot == under:",
        "if outcome is None and slot == under and out.waits:",
    ),
    Mutant(
        "a PIN is sent again after a refusal",
        "pool/tries.py",
        "    if count.refused:\n        raise TryRefused(",
        "    if count.refused > 1:\n        raise TryRefused(",
    ),
    Mutant(
        "a try is not written down before the PIN is sent",
        "pool/start.py",
        "    await asyncio.to_thread(tries.begin, identity)\n",
        "",
    ),
    Mutant(
        "the person's guard of the last try is gone",
        "pool/tries.py",
        "    check_person(count, tries, override=False)\n    if flags.final_try:\n",
        "    if False:\n",
    ),
    Mutant(
        "a wake-up is lost: a lane that has room tells nobody",
        "pool/attendant.py",
        "        if self.lane.state is State.STOPPING:\n            self._wake.set()\n        self._changed()\n\n    def _settle(",
        "        if self.lane.state is State.STOPPING:\n            self._wake.set()\n\n    def _settle(",
    ),
    Mutant(
        "work given back by a lane is not offered again",
        "pool/line.py",
        "        self._backlog.put_back(work, run.stop - run.start, seconds)\n",
        "        work.waiting.clear()\n",
    ),
    Mutant(
        "the end of an authorisation is no deadline of what it allows",
        "signer/batch.py",
        "timeout_s = ask.credential.key.ref, min(left_s, allowed_s, valid_s)",
        "timeout_s = ask.credential.key.ref, min(left_s, valid_s)",
    ),
    Mutant(
        "seconds for nanoseconds in a frame's deadline",
        "pool/attendant.py",
        "int(run.work.deadline * 1e9)",
        "int(run.work.deadline)",
    ),
    Mutant(
        "an answer is given before its OUTCOME is on the disk",
        "signer/batch.py",
        "        await record.finish(ask.deadline)\n",
        "",
    ),
    Mutant(
        "a frame is sent before its INTENT is on the disk",
        "signer/record.py",
        "        return _Intent(self, entry, start, stop, token, ledger.writer.intend(entry, within_s=within_s))\n",
        "        ledger.writer.intend(entry, within_s=within_s)\n"
        "        done = asyncio.get_running_loop().create_future()\n        done.set_result(None)\n"
        "        return _Intent(self, entry, start, stop, token, done)\n",
    ),
    Mutant(
        "what was signed is signed again when the request comes again",
        "signer/ledger.py",
        "        record.todo = places if age_s <= asked.resume_s else []\n",
        "        record.todo = list(range(stored.count)) if places else []\n",
    ),
    Mutant(
        "an authorisation is good for every request",
        "signer/authorisation.py",
        "    check(found, asked, now)\n    mine = or_(table.c.request.is_(None), table.c.request == asked.request)\n"
        "    taken = update(table).where(table.c.hash == row.hash, mine)",
        "    import dataclasses\n    check(dataclasses.replace(found, request=None), asked, now)\n"
        "    taken = update(table).where(table.c.hash == row.hash)",
    ),
    Mutant(
        "an authorisation is good for any digests of that number",
        "signer/gate.py",
        '    ("AUTHZ_DIGEST", _has_content),\n',
        "",
    ),
    Mutant(
        "a lease does not end at its deadline",
        "pool/lease.py",
        'self.end, "DEADLINE_EXCEEDED")',
        'str, "DEADLINE_EXCEEDED")',
    ),
    Mutant(
        "a card is not reset after a lease",
        "pool/personal.py",
        "                self._is_clean = False\n                self.lane.direct",
        "                self.lane.direct",
    ),
    Mutant(
        "the next lane is started before the card was reset",
        "pool/attendant.py",
        "        try:\n            await self._clean()\n        except ResetFailed as failure:\n            event",
        "        try:\n            pass\n        except ResetFailed as failure:\n            event",
    ),
    Mutant(
        "a quarantine is not written down",
        "pool/attendant.py",
        "                self.token.tries.quarantine(self.token.identity)\n",
        "                pass\n",
    ),
    Mutant(
        "a breaker that has opened counts its losses on",
        "pool/attendant.py",
        "                    self.lane.losses.clear()\n",
        "",
    ),
    Mutant(
        "lanes of a module start side by side",
        "pool/attendant.py",
        "        async with self.token.module.lock:\n            if self.token.state not in ABLE",
        "        if True:\n            if self.token.state not in ABLE",
    ),
    Mutant(
        "a card with the right label and another serial than the configured one is taken",
        "pool/worker.py",
        '            if message["serial"] is not None:\n',
        "            if False:\n",
    ),
    Mutant(
        "found by the simulation: a probe that cannot be started ends the lane's task",
        "pool/module.py",
        "            except (ChildLost, OSError, ValueError) as error:",
        "            except (ChildLost, TimeoutError, ValueError) as error:",
    ),
    Mutant(
        "found by the simulation: an error while a key is looked for leaves the lane without it",
        "pool/worker.py",
        '                return {"t": "failed", "detail": wire.WORKER_LIMIT if is_at_limit() else ckr(error), "lost": ckr(error)}\n',
        "                problems[ref] = ckr(error)\n",
    ),
)

_FIRST = """
import sys
from tests.simulation.world import play
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    try:
        play(seed)
    except Exception as error:
        print(seed, f"{type(error).__name__}: {error}".splitlines()[0])
        break
"""


def planted(mutant: Mutant | None, directory: Path) -> None:
    for package in ("pool", "signer", "tests"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is None:
        return
    file = directory / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has no longer what this defect changes, or has it twice: {mutant.what}")
    file.write_text(text.replace(mutant.old, mutant.new))


def found(mutant: Mutant | None) -> str:
    """The first seed that finds it and what it says; empty: none does."""
    stretches = [(start, start + STRETCH) for start in range(0, SEEDS, STRETCH)] + [(seed, seed + 1) for seed in KEPT]
    with tempfile.TemporaryDirectory() as directory:
        planted(mutant, Path(directory))
        for first, end in stretches:
            words = [sys.executable, "-c", _FIRST, str(first), str(end)]
            done = subprocess.run(words, cwd=directory, check=True, stdout=subprocess.PIPE, text=True)
            if done.stdout:
                return done.stdout.strip()
    return ""


def main() -> int:
    print("| defect | in | first seed | what it says |\n|---|---|---|---|")
    missed = 0
    if said := found(None):
        print(f"without any defect: {said}")
        return 1
    chosen = [MUTANTS[int(word)] for word in sys.argv[1:]] or MUTANTS
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for mutant, outcome in zip(chosen, threads.map(found, chosen), strict=True):
            seed, _, said = outcome.partition(" ")
            print(f"| {mutant.what} | `{mutant.file}` | {seed or '**none**'} | {said} |", flush=True)
            missed += not outcome
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
