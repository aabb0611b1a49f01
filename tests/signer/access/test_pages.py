"""Credentials are listed page by page: more of them than fit one answer, and while they come and go."""

import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pool import Key
from signer import page
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.limits import ANSWER_BYTES_MAX
from signer.service import SigningService
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig
from tests.signer.access.calls import Caller, said
from tests.signer.outputs.certificates import chain

MANY = 2_500


class Register:
    """The service with so many credentials, and callers that may use all that there are or will be."""

    def __init__(self, count: int, *, ballast: int = 0) -> None:
        made = chain("P-256", ballast=ballast)
        self.one = Credential(
            "one", Purpose.SIGNATURE, made.ders, Key(made.spki, label="key"), frozenset({Output.RAW, Output.PADES_B_B})
        )
        self.credentials: dict[str, Credential] = {}
        self.allowed: frozenset[str] = frozenset()
        self.promised: list[int] = []  # bytes of answers
        self.put(*(f"signer-{number:04}" for number in range(count)))
        nothing: Any = None
        pool: Any = SimpleNamespace(problem=lambda _: "", presence=lambda _: None)
        policy: Any = SimpleNamespace(groups={}, check_credential=lambda *_: None)
        self.service = SigningService(
            pool, nothing, nothing, nothing, nothing, lambda: policy, lambda: self.credentials, nothing, nothing
        )

    def put(self, *names: str) -> None:
        self.credentials |= {name: replace(self.one, name=name) for name in names}  # with the same templates
        self.allowed |= frozenset(names)

    async def asked(self, size: int = 0, token: str = "", caller: str = "portal") -> Any:
        who = SimpleNamespace(name=caller, credentials=self.allowed, subject=None)
        call: Any = SimpleNamespace(caller=who, promise=self.promised.append)
        return await self.service.list_credentials(pb.ListCredentialsRequest(page_size=size, page_token=token), call)

    async def all(self, size: int) -> list[list[str]]:
        """The names of each page, until there is none behind it."""
        pages, token = [], ""
        while not pages or token:
            answer = await self.asked(size, token)
            assert answer.ByteSize() == self.promised.pop() <= ANSWER_BYTES_MAX, "it counts until it is read"
            pages.append([one.name for one in answer.credentials])
            token = answer.next_page_token
        return pages


@pytest.fixture(scope="module")
def many() -> Register:
    """More than one answer can hold."""
    return Register(MANY, ballast=1_500)


@pytest.mark.parametrize(
    ("size", "longest"), [(0, MANY), (700, 700), (page.ENTRIES_MAX, page.ENTRIES_MAX), (2**32 - 1, page.ENTRIES_MAX)]
)
async def test_more_than_one_answer_holds(many: Register, size: int, longest: int) -> None:
    """All are listed, each once and by name; no page is longer than was asked for, or than an answer may be."""
    pages = await many.all(size)
    assert [name for names in pages for name in names] == sorted(many.credentials)
    assert max(map(len, pages)) <= longest
    assert len(pages) > 1


async def test_who_asks_for_no_pages() -> None:
    """A caller that knows of no pages has all of them, as before, while they fit one answer."""
    few = Register(MANY // 2)
    answer = await few.asked()
    assert [one.name for one in answer.credentials] == sorted(few.credentials)
    assert not answer.next_page_token


async def test_what_is_longer_than_an_answer() -> None:
    """A page is never empty: one that nobody could be sent would be asked for for ever."""
    long = Register(2, ballast=ANSWER_BYTES_MAX)
    answer = await long.asked(2)
    assert [one.name for one in answer.credentials] == ["signer-0000"]
    assert answer.next_page_token


async def test_they_come_and_go_meanwhile() -> None:
    """
    What is there all the time is listed once, whatever goes or comes before, at and behind the place where a page ended;
    also where nothing is left behind it.
    """
    few = Register(6)
    first = await few.asked(3)
    assert [one.name for one in first.credentials] == ["signer-0000", "signer-0001", "signer-0002"]
    for name in ("signer-0000", "signer-0002", "signer-0004"):  # the last one that was given, too
        del few.credentials[name]
    few.put("a-new-one", "signer-0002-new")
    second = await few.asked(10, first.next_page_token)
    assert [one.name for one in second.credentials] == ["signer-0002-new", "signer-0003", "signer-0005"]
    assert not second.next_page_token
    few.credentials.clear()
    assert not (await few.asked(10, first.next_page_token)).credentials


async def test_a_token_that_is_none() -> None:
    """Anything but a token that this caller was given is refused, and not taken for a beginning."""
    few = Register(6)
    token = (await few.asked(3)).next_page_token
    for wrong in ("signer-0002", token[:-2], token + "00", token.upper(), f" {token}", "00" * 8, "\N{DIGIT ONE}ä"):
        with pytest.raises(Refusal, match="PAGE_TOKEN_UNKNOWN"):
            await few.asked(3, wrong)
    with pytest.raises(Refusal, match="PAGE_TOKEN_UNKNOWN"):
        await few.asked(3, token, caller="another")
    assert (await few.asked(3, token)).credentials


async def test_a_result_counts_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What GetResult answers is as long, and counts like a page among what its caller has not read."""
    answer = pb.GetResultResponse(certificate=bytes(1_000))

    async def result(*_: Any) -> Any:
        return answer

    monkeypatch.setattr("signer.found.result", result)
    few = Register(0)
    call: Any = SimpleNamespace(caller=SimpleNamespace(name="portal"), promise=few.promised.append)
    asked = pb.GetResultRequest(request_id=str(uuid.uuid4()))
    assert await few.service.get_result(asked, call) is answer
    assert few.promised == [answer.ByteSize()]


def test_through_the_daemon(shared: Rig) -> None:
    """Two pages make what one answer has; the refusal has its code."""
    with Caller(shared) as caller:

        def asked(**more: Any) -> Any:
            return caller.signing.ListCredentials(pb.ListCredentialsRequest(**more), timeout=10)

        whole, first = asked(), asked(page_size=2)
        second = asked(page_size=100, page_token=first.next_page_token)
        assert (len(first.credentials), second.next_page_token, whole.next_page_token) == (2, "", "")
        assert [*first.credentials, *second.credentials] == list(whole.credentials)
        answer = said(lambda: asked(page_token="unknown"))
        assert answer.brief == ("INVALID_ARGUMENT", "PAGE_TOKEN_UNKNOWN")
        one = first.credentials[1].certificates[0]
        assert [each.name for each in asked(of_person=[one]).credentials] == [first.credentials[1].name]
        assert not asked(of_person=[bytes(32)]).credentials
        answer = said(lambda: asked(of_person=[one[:-1]]))
        assert answer.brief == ("INVALID_ARGUMENT", "CERTIFICATE_INVALID")
