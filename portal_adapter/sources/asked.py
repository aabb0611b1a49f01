"""
All sources, asked side by side, for at most so long: a page never waits for a source that is down or slow (ESP-37).

Each has a few threads of its own. While all of them hang, it is not asked again and is not available at once; the others
do not notice.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from portal_adapter.settings import Source as SourceSettings
from portal_adapter.sources.file import FileSource
from portal_adapter.sources.source import Source, SourceItem, Subject

log = logging.getLogger("portal.sources")

FETCH_S = 3.0
AT_A_TIME = 4  # questions to one source
PLUG_INS: Mapping[str, Callable[[SourceSettings], Source]] = {"file": lambda one: FileSource(one.file)}


@dataclass(frozen=True, slots=True)
class Fetched:
    """`items` is None where the source is not available; `time` is when it was asked."""

    name: str
    label_fr: str
    label_en: str
    items: Sequence[SourceItem] | None
    time: int


class _Asked:
    def __init__(self, settings: SourceSettings, source: Source) -> None:
        self.settings = settings
        self._source = source
        self._free = threading.BoundedSemaphore(AT_A_TIME)

    def begin(self, subject: Subject) -> SimpleQueue[Sequence[SourceItem] | None]:
        """Where the answer will be."""
        answer: SimpleQueue[Sequence[SourceItem] | None] = SimpleQueue()
        if self._free.acquire(blocking=False):
            # A daemon: one that hangs does not hold up the portal's end.
            threading.Thread(target=self._ask, args=(subject, answer), name="source", daemon=True).start()
        else:
            log.warning("source %s: %d questions are unanswered", self.settings.name, AT_A_TIME)
            answer.put(None)
        return answer

    def _ask(self, subject: Subject, answer: SimpleQueue[Sequence[SourceItem] | None]) -> None:
        try:
            answer.put(self._source.fetch(subject))
        except Exception as error:  # noqa: BLE001 -- a plug-in's error is its own affair; what it read is not for a log
            log.warning("source %s: %s", self.settings.name, type(error).__name__)
            answer.put(None)
        finally:
            self._free.release()


class Sources:
    def __init__(
        self, settings: Sequence[SourceSettings], plug_ins: Mapping[str, Callable[[SourceSettings], Source]] = PLUG_INS
    ) -> None:
        self._all = [_Asked(one, plug_ins[one.kind](one)) for one in settings]

    def fetch(self, subject: Subject, now: int) -> list[Fetched]:
        """One for each configured source, in their order; takes at most `FETCH_S`."""
        end = time.monotonic() + FETCH_S
        begun = [(one.settings, one.begin(subject)) for one in self._all]
        found = []
        for settings, answer in begun:
            try:
                items = answer.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                log.warning("source %s: no answer within %g s", settings.name, FETCH_S)
                items = None
            found.append(Fetched(settings.name, settings.label_fr, settings.label_en, items, now))
        return found
