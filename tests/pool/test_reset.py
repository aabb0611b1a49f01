"""The reset of a card: the calls that PC/SC gets, by a library that only writes them down, and what its answers mean."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pool import Pin, TokenConfig
from pool.keeper import TokenKeeper
from pool.module import Listing
from pool.pcsc import Seen
from pool.reader import ReaderError, ResetFailed, look, reset_card
from pool.token import Event
from pool.tries import Tries
from tests.pool.persons import leased, log_of, waits
from tests.pool.rig import children, config, gone, pids, pool_over, state, until, view
from tests.shim import Shim
from tests.softhsm import MODULE, Store

READER = "Reader of the tests 00 00"
DONE = "SCardDisconnect"
# A libpcsclite that writes its calls into a file, and answers what another file says.
LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static long answer(const char *name) {
  FILE *file = fopen(getenv("PCSC_ANSWERS"), "r");
  char known[64]; unsigned long code, found = 0;
  while (file && fscanf(file, "%63s %lx", known, &code) == 2) if (!strcmp(known, name)) found = code;
  if (file) fclose(file);
  return (long)found;
}
static long say(const char *name, const char *what) {
  FILE *file = fopen(getenv("PCSC_LOG"), "a");
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  fprintf(file, "%lld %s %s\n", now.tv_sec * 1000000000LL + now.tv_nsec, name, what);
  fclose(file);
  return answer(name);
}
long SCardEstablishContext(unsigned long scope, const void *a, const void *b, long *context) {
  char text[64]; sprintf(text, "%lu %d", scope, a || b); *context = 0x1234567890;
  return say("SCardEstablishContext", text);
}
long SCardConnect(long context, const char *reader, unsigned long mode, unsigned long protocols, long *card,
                  unsigned long *active) {
  char text[256]; sprintf(text, "%lx %s %lu %lu", context, reader, mode, protocols); *card = 0x2345678901; *active = 2;
  return say("SCardConnect", text);
}
long SCardListReaders(long context, const char *groups, char *names, unsigned long *length) {
  const char all[] = READER "\0Another reader 00 00\0";
  if (names) memcpy(names, all, sizeof all);
  *length = sizeof all;
  return answer("SCardListReaders");
}
struct state { const char *reader; void *data; unsigned long current, event, atr_bytes; unsigned char atr[33]; };
long SCardGetStatusChange(long context, unsigned long timeout, struct state *states, unsigned long count) {
  states[0].event = strcmp(states[0].reader, READER) ? 0x4 : 0x10020;
  return answer("SCardGetStatusChange");
}
long SCardDisconnect(long card, unsigned long disposition) {
  char text[64]; sprintf(text, "%lx %lu", card, disposition);
  return say("SCardDisconnect", text);
}
"""


class Pcsc:
    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        source = directory / "pcsc.c"
        source.write_text(LIBRARY)
        made = directory / "libpcsclite.so.1"
        subprocess.run(["gcc", f'-DREADER="{READER}"', "-shared", "-fPIC", "-O1", "-o", made, source], check=True)
        self._answers, self._log = directory / "answers", directory / "log"
        self.environment = {
            "LD_LIBRARY_PATH": str(directory), "PCSC_ANSWERS": str(self._answers), "PCSC_LOG": str(self._log),
        }  # fmt: skip

    def answer(self, *lines: str) -> None:
        self._answers.write_text("\n".join(lines))

    def log(self) -> list[list[str]]:
        """Time in ns, function, arguments."""
        return [line.split(" ", 2) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def resets(self) -> list[tuple[int, int]]:
        """When each reset began and ended, in ns."""
        times = {name: [int(at) for at, called, _ in self.log() if called == name] for name in ("SCardConnect", DONE)}
        return list(zip(times["SCardConnect"], times[DONE], strict=True))


@pytest.fixture
def pcsc(tmp_path: Path) -> Iterator[Pcsc]:
    return Pcsc(tmp_path / "pcsc")


def token(pcsc: Pcsc, **more: object) -> TokenConfig:
    return TokenConfig(
        "card", MODULE, "card", personal=True, **{"reader": READER, "environment": pcsc.environment} | more
    )


async def test_a_card_is_reset(pcsc: Pcsc) -> None:
    """Connected to, shared, by whatever protocol it speaks, and left with SCARD_RESET_CARD; no process stays."""
    await reset_card(token(pcsc))
    assert [call[1:] for call in pcsc.log()] == [
        ["SCardEstablishContext", "2 0"],
        ["SCardConnect", f"1234567890 {READER} 2 3"],
        ["SCardDisconnect", "2345678901 1"],
    ]
    assert children() == []


async def test_a_token_without_a_reader_is_not_reset(pcsc: Pcsc) -> None:
    """Most tokens are no cards: nothing is started for them."""
    await reset_card(token(pcsc, reader=None))
    assert pcsc.log() == []


@pytest.mark.parametrize("code", ["8010000c", "80100009", "80100017", "80100069", "8010002e"])
async def test_no_card_is_a_clean_card(pcsc: Pcsc, code: str) -> None:
    """No card in the reader, or no reader: no power, and so nobody is logged in."""
    pcsc.answer(f"SCardConnect {code}")
    await reset_card(token(pcsc))
    assert [call[1] for call in pcsc.log()] == ["SCardEstablishContext", "SCardConnect"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("SCardEstablishContext 8010001d", "pcscd does not answer at .* start it"),
        ("SCardConnect 8010000f", "SCardConnect: 0x8010000f"),
        ("SCardDisconnect 80100004", "SCardDisconnect: 0x80100004"),
    ],
)
async def test_a_reset_that_fails_is_told(pcsc: Pcsc, answer: str, words: str) -> None:
    """The card may still be logged in: which call said what."""
    pcsc.answer(answer)
    with pytest.raises(ResetFailed, match=words):
        await reset_card(token(pcsc))
    assert children() == []


async def test_a_service_that_refuses_us(pcsc: Pcsc) -> None:
    """F49: pcscd refuses the daemon's user (polkit): it is told apart from one that is down, with what to do."""
    pcsc.answer("SCardEstablishContext 8010006a")
    with pytest.raises(ReaderError, match="allow this user by a polkit rule") as error:
        await look(token(pcsc))
    assert error.value.why == "denied"
    pcsc.answer("SCardEstablishContext 8010001d")
    with pytest.raises(ReaderError) as error:
        await look(token(pcsc, environment=pcsc.environment | {"PCSCLITE_CSOCK_NAME": "/nowhere"}))
    assert error.value.why == "down"
    pcsc.answer("SCardGetStatusChange 8010000a")  # nothing has happened
    assert await look(token(pcsc)) == Seen(is_known=True, has_card=True, count=1)
    assert not (await look(token(pcsc, reader="Another 00 00"))).is_known


async def test_a_library_that_is_not_there(pcsc: Pcsc, tmp_path: Path) -> None:
    """The message names it."""
    (Path(pcsc.environment["LD_LIBRARY_PATH"]) / "libpcsclite.so.1").write_text("no library")
    with pytest.raises(ResetFailed, match="libpcsclite"):
        await reset_card(token(pcsc))


async def test_a_reader_that_hangs_is_not_waited_for(pcsc: Pcsc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is ended; the card counts as not reset."""
    monkeypatch.setattr("pool.reader.ANSWER_S", 0.3)
    os.mkfifo(pcsc.environment["PCSC_ANSWERS"])  # which nobody writes to
    with pytest.raises(ResetFailed, match="no answer in time"):
        await reset_card(token(pcsc))
    assert children() == []


async def test_a_lease_s_card_is_reset_by_the_pool_itself(
    people: Store, shim: Shim, pcsc: Pcsc, tmp_path: Path
) -> None:
    """A pool that is told nothing of resets makes them where a reader is named: after each lease, before the next."""
    one = config(people, shim=shim, pin=None, personal=True, reader=READER)
    one = TokenConfig(
        one.name, one.module, one.label, personal=True, reader=READER,
        environment=dict(one.environment) | pcsc.environment,
    )  # fmt: skip
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert len(pcsc.resets()) == 1
        async with leased(pool):
            (pid,) = pids(pool)
        await until(lambda: gone(pid))
        await waits(pool)
        _, (began, ended) = pcsc.resets()
        assert log_of(shim, pid)[-1].t < began
        assert ended < log_of(shim, pids(pool)[0])[0].t
        pcsc.answer("SCardConnect 8010000f")
        async with leased(pool):
            pass
        await until(lambda: "0x8010000f" in view(pool).lanes[0][0].problem)
        pcsc.answer()
        async with pool.lease("card", caller="bob", pin=Pin("1234"), timeout_s=5):
            pass


async def test_a_service_s_card_is_reset_after_each_end(people: Store, pcsc: Pcsc, tmp_path: Path) -> None:
    """A card that no person comes to is reset before its first lane, and again after each that has ended: it may be logged in."""
    one = config(people, reader=READER)
    one = replace(one, environment=dict(one.environment) | pcsc.environment)
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert (state(pool), len(pcsc.resets())) == ("READY", 1)
        for count in (2, 3):
            os.kill(pids(pool)[0], signal.SIGKILL)
            await until(lambda: len(pcsc.resets()) == count)  # noqa: B023 -- called at once
            await until(lambda: state(pool) == "READY")


async def test_a_card_that_answers_nobody_is_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F2: PC/SC has a card and the module shows none: it has no power, and is looked at again after a reset; one each look."""
    resets: list[str | None] = []

    async def reset_card(config: TokenConfig) -> None:
        resets.append(config.reader)

    async def change(_config: TokenConfig, _last: Seen | None) -> Seen:
        return Seen(is_known=True, has_card=True, count=3)

    class Unpowered:
        lock = asyncio.Lock()

        async def look(self, *_of: Any) -> Listing:
            key = (b"\1", "seal", ec.generate_private_key(ec.SECP256R1()).public_key())
            spki = key[2].public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return Listing([("card", "1")], [(key[0], key[1], spki)]) if resets else Listing([], [])

    monkeypatch.setattr("pool.reader.change", change)
    monkeypatch.setattr("pool.reader.reset_card", reset_card)
    config = TokenConfig("card", MODULE, "card", reader="desk 00 00")
    module: Any = Unpowered()
    keeper = TokenKeeper(config, module, Tries(tmp_path / "tries.sqlite"), lambda: None, lambda _keeper: None)
    keeper.on(Event.GONE)
    assert await keeper._news() == (Event.FOUND, "")
    assert resets == ["desk 00 00"]
