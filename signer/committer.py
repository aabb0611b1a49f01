"""
The process that writes the ledger: it hashes and encrypts, gives rows their places in the chain, and commits them.

A process of its own, because a thread beside a busy event loop takes the interpreter from it, and waits for it, at each
statement: measured, that cost more than the statements themselves. There is one group at a time on its way, and its
answer is awaited before the next; `writer.py` is the other end.

Each row is told how long after its `time`, which has whole seconds, its commit began (`commit_ms`): those of one commit,
which is one sync of the disk, name the same moment.

    group    [[kind, fields, request, result, items, chain, note, intent's place, closes], ...]; none: write something
    answer   [first place, hash of the last row, indexes of what was another daemon's, problem]

Started as `python -I -m signer.committer CONTROL STREAM PARENT`. Where the database is comes on the control socket: an
URL may hold a password. What is left of a commit when this process is killed is what a database leaves.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pool import wire
from pool.child import harden, open_socket
from signer import randomness
from signer.chain import Row, after
from signer.cipher import Cipher
from signer.database import database_at
from signer.entry import Backend, Entry, Failed, Seal, Taken, Unpacker, packed

log = logging.getLogger("signer.ledger")

_READ_BYTES = 1 << 16  # what the allocator keeps; more comes from the system anew at each read


class Committer:
    """Writes groups of one chain, in its epoch, from `previous` and `sequence` on."""

    def __init__(self, backend: Backend, seal: Seal, instance: str, epoch: int, sequence: int, previous: bytes) -> None:
        self._backend = backend
        self._seal = seal
        self._instance, self._epoch = instance, epoch
        self._sequence, self._hash = sequence, previous

    def serve(self, stream: socket.socket) -> None:
        """Until the other end closes the stream, or nobody knows any more what is on the disk."""
        unpacker, is_sure = Unpacker(), True
        try:
            while is_sure and (data := stream.recv(_READ_BYTES)):
                for group in unpacker.feed(data):
                    answer = self._answer([Entry.came(*fields) for fields in group])
                    is_sure = answer[3] is None or not answer[3][2]
                    stream.sendall(packed(answer))
        except ConnectionError:
            pass  # nobody is there to be answered
        finally:
            self._backend.close()
            stream.close()

    def _answer(self, entries: list[Entry]) -> list[Any]:
        first, taken = self._sequence + 1, []
        problem: tuple[str, str, bool] | None = None
        try:
            randomness.check_again()
            now = time.time()
            for entry in entries:
                entry.complete(self._seal)
                if "time" in entry.fields:
                    entry.fields["commit_ms"] = round((now - _second(entry.fields["time"])) * 1000)
            taken = self._write(entries)
        except Failed as failed:
            problem = (failed.reason, failed.detail, failed.is_fatal)
        except randomness.NoRandomness as error:
            problem = ("AUDIT_UNWRITABLE", str(error), False)
        except Exception as error:
            log.exception("the ledger's writer failed")
            problem = ("AUDIT_UNWRITABLE", str(error), False)
        return [first, self._hash, taken, problem]

    def _write(self, entries: list[Entry]) -> list[int]:
        """Commit them, but for intents for requests that are another daemon's: the indexes of those."""
        if not entries:
            self._backend.pulse()
        names: set[str] = set()
        while left := [entry for entry in entries if not entry.is_intent_for(names)]:
            rows = self._placed(left)
            try:
                self._backend.write(left, rows)
            except Taken as taken:
                names |= taken.names
            else:
                last = rows[-1][0]
                self._sequence, self._hash = last.sequence, last.hash
                break
        return [number for number, entry in enumerate(entries) if entry.is_intent_for(names)]

    def _placed(self, entries: Sequence[Entry]) -> list[tuple[Row, int | None]]:
        """The rows that these make behind the last one, each with the INTENT that it closes."""
        sequence, previous = self._sequence, self._hash
        rows: list[tuple[Row, int | None]] = []
        for entry in entries:
            sequence += 1
            row = after(self._instance, self._epoch, sequence, previous, entry.kind, entry.fields)
            previous = row.hash
            rows.append((row, entry.intent if entry.closes else None))
        return rows


@lru_cache(maxsize=8)
def _second(time_: str) -> float:
    """Kept: rows of one second say the same."""
    return datetime.fromisoformat(time_).timestamp()


def main() -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    control, stream = open_socket(int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))
    harden()
    order = wire.unpack(control.recv(wire.PACKET_BYTES_MAX))
    backend = database_at(order["url"] or Path(order["file"]), Path(order["state"])).backend()
    place = order["instance"], order["epoch"], order["sequence"], order["hash"]
    backend.go_on(*place)
    committer = Committer(backend, Cipher(order["key"]).seal, *place)

    def watch() -> None:
        """The daemon ends: a database that hangs is not waited for."""
        while control.recv(wire.PACKET_BYTES_MAX):
            backend.ending()

    threading.Thread(target=watch, daemon=True).start()
    control.send(wire.pack({"t": "ready"}))
    committer.serve(stream)
    os._exit(0)  # whatever the other thread waits for


if __name__ == "__main__":
    main()
