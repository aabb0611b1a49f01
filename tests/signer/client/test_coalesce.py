"""What waits while a message is away goes out with the next one; each call has its own answer."""

import asyncio
from collections.abc import Hashable, Sequence

import pytest

from signer.coalesce import AWAY_MAX, BATCH_MAX, PART_LEAST, Coalescer, TooMany


class Service:
    """Answers each message when it is told to."""

    def __init__(self) -> None:
        self.messages: list[Sequence[bytes]] = []
        self.gate = asyncio.Event()
        self.error: BaseException | None = None
        self.most = BATCH_MAX
        self.forgets = 0  # answers

    async def send(self, _kind: Hashable, digests: Sequence[bytes]) -> list[bytes | Exception]:
        self.messages.append(digests)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if len(digests) > self.most:
            raise TooMany
        return [ValueError(digest.decode()) if digest == b"bad" else digest + b"!" for digest in digests][
            self.forgets :
        ]


async def turns(count: int = 5) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_call_leaves_at_once() -> None:
    """Nothing waits by the clock: one call is one message, in the next turn of the loop."""
    service = Service()
    coalescer = Coalescer(service.send)
    task = coalescer.ask("k", b"a")
    await turns()
    assert service.messages == [[b"a"]]
    service.gate.set()
    assert await task == b"a!"


async def test_calls_made_together_leave_together() -> None:
    """Up to `AWAY_MAX` messages are away; what comes meanwhile waits and shares the next."""
    service = Service()
    coalescer = Coalescer(service.send)
    first = [coalescer.ask("k", b"%d" % i) for i in range(10)]
    await turns()
    assert [len(message) for message in service.messages] == [10]
    second = [coalescer.ask("k", b"%d" % i) for i in range(10, 15)]
    await turns()
    assert [len(message) for message in service.messages] == [10, 5]
    third = [coalescer.ask("k", b"%d" % i) for i in range(15, 40)]
    await turns()
    assert len(service.messages) == AWAY_MAX
    service.gate.set()
    assert await asyncio.gather(*first, *second, *third) == [b"%d!" % i for i in range(40)]
    assert [len(message) for message in service.messages] == [10, 5, 25]


async def test_a_message_has_a_limit() -> None:
    """More than `BATCH_MAX` digests are several messages."""
    service = Service()
    coalescer = Coalescer(service.send)
    service.gate.set()
    count = 2 * BATCH_MAX + 1
    answers = await asyncio.gather(*(coalescer.ask("k", b"%d" % i) for i in range(count)))
    assert answers == [b"%d!" % i for i in range(count)]
    assert [len(message) for message in service.messages] == [BATCH_MAX, BATCH_MAX, 1]


async def test_many_calls_share_the_messages_that_may_leave() -> None:
    """Whoever asks again as soon as he is answered keeps both messages under way, and not one with everybody in it."""
    service = Service()
    coalescer = Coalescer(service.send)
    tasks = [coalescer.ask("k", b"%d" % i) for i in range(8 * PART_LEAST)]
    await turns()
    assert [len(message) for message in service.messages] == [4 * PART_LEAST, 4 * PART_LEAST]
    service.gate.set()
    assert await asyncio.gather(*tasks) == [b"%d!" % i for i in range(8 * PART_LEAST)]


async def test_kinds_do_not_mix() -> None:
    """Another credential or algorithm is another message."""
    service = Service()
    coalescer = Coalescer(service.send)
    service.gate.set()
    await asyncio.gather(*(coalescer.ask(kind, kind.encode()) for kind in ("a", "b", "a")))
    assert sorted(map(list, service.messages)) == [[b"a", b"a"], [b"b"]]


async def test_one_bad_digest_fails_alone() -> None:
    """The others of its message have their answers."""
    service = Service()
    coalescer = Coalescer(service.send)
    service.gate.set()
    asked = (coalescer.ask("k", digest) for digest in (b"a", b"bad", b"b"))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers[0] == b"a!"
    assert isinstance(answers[1], ValueError)
    assert answers[2] == b"b!"


async def test_a_failed_message_fails_its_calls_and_the_next_goes_on() -> None:
    """Every call of it is told; the line is not stuck."""
    service = Service()
    coalescer = Coalescer(service.send)
    service.gate.set()
    service.error = ConnectionError("gone")
    for answer in await asyncio.gather(*(coalescer.ask("k", b"x") for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, ConnectionError)
    service.error = None
    assert await coalescer.ask("k", b"y") == b"y!"


async def test_a_message_that_is_too_long_is_sent_in_halves() -> None:
    """Until it is short enough; those that come after it are as short from the beginning."""
    service = Service()
    service.most = 300
    coalescer = Coalescer(service.send)
    service.gate.set()
    answers = await asyncio.gather(*(coalescer.ask("k", b"%d" % i) for i in range(BATCH_MAX + 500)))
    assert answers == [b"%d!" % i for i in range(BATCH_MAX + 500)]
    lengths = [len(message) for message in service.messages]
    assert len([length for length in lengths if length > service.most]) <= 2 * AWAY_MAX
    service.most = 0
    with pytest.raises(TooMany):
        await coalescer.ask("k", b"a")


@pytest.mark.parametrize("forgets", [1, 3])
async def test_an_answer_that_is_too_short_fails_its_calls(forgets: int) -> None:
    """All of them, because nobody knows which is missing; none waits for ever."""
    service = Service()
    service.forgets = forgets
    coalescer = Coalescer(service.send)
    service.gate.set()
    for answer in await asyncio.gather(*(coalescer.ask("k", b"x") for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, ValueError)


async def test_a_message_that_is_cancelled_cancels_its_calls() -> None:
    """As when the loop ends: whoever waits is not left waiting."""
    service = Service()
    service.error = asyncio.CancelledError()
    coalescer = Coalescer(service.send)
    service.gate.set()
    asked = [coalescer.ask("k", b"x") for _ in range(3)]
    _, waiting = await asyncio.wait(asked, timeout=5)
    assert not waiting
    assert all(each.cancelled() for each in asked)


async def test_a_cancelled_call_stays_home() -> None:
    """What was cancelled before it left is not sent; what was cancelled later harms nobody."""
    service = Service()
    coalescer = Coalescer(service.send)
    tasks = [coalescer.ask("k", b"%d" % i) for i in range(2)]
    await turns()
    waiting = [coalescer.ask("k", b"%d" % i) for i in range(2, 4)]
    await turns()
    late = coalescer.ask("k", b"late")
    await turns()
    late.cancel()
    tasks[0].cancel()
    await turns()
    service.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert await asyncio.gather(tasks[1], *waiting) == [b"1!", b"2!", b"3!"]
    assert all(b"late" not in message for message in service.messages)


async def test_nothing_is_kept() -> None:
    """A line that has carried its last call is forgotten."""
    service = Service()
    coalescer = Coalescer(service.send)
    service.gate.set()
    await asyncio.gather(*(coalescer.ask(i, b"a") for i in range(50)))
    await turns()
    await coalescer.ask("last", b"a")
    assert len(coalescer._lines) <= 51
