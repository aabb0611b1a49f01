"""Batches that wait for a person: opened by the portal, shown and signed in the window, fetched by the portal."""

import hashlib
import io
import uuid
from pathlib import Path
from typing import Any

import pytest
from pyhanko.pdf_utils.reader import PdfFileReader

from signer.pending import LIFE_S
from signer.v1 import signing_pb2 as pb
from tests.hostile import minimal_pdf
from tests.signer.access.calls import Answer, ask, digests, said, signed, statuses
from tests.signer.outputs.drafts import growing
from tests.signer.people.persons import Person, Town, batch, terms

PDF = minimal_pdf(text="A letter to be signed.")


def opened(town: Town, documents: list[bytes], **more: Any) -> tuple[str, str]:
    """A new batch: (request id, link)."""
    answer = town["portal"].signing.OpenBatch(batch(documents, **more), timeout=20)
    return answer.batch.request_id, answer.link


def follow(town: Town, link: str, caller: str = "window") -> Any:
    [message] = town[caller].signing.GetBatch(pb.GetBatchRequest(link=link), timeout=10)
    return message.batch


def fetched(town: Town, name: str, index: int, caller: str) -> bytes:
    request = pb.GetBatchRequest(request_id=name, with_document=True, index=index)
    return b"".join(message.chunk for message in town[caller].signing.GetBatch(request, timeout=20))


def sign(town: Town, person: Person, name: str, caller: str = "window", **more: Any) -> Answer:
    given = {"secret_code": person.code, "otp": person.otp(), "source": "192.0.2.7"} | more
    return said(lambda: town[caller].signing.SignBatch(pb.SignBatchRequest(request_id=name, **given), timeout=20))


def files(town: Town) -> list[Path]:
    return sorted((town.rig.state / "kept").iterdir())


def test_from_opening_to_the_signed_file(town: Town) -> None:
    """
    The person sees what came in, byte for byte; what the portal fetches begins with it, and the batch's digest is that of
    the file's first revision.
    """
    ada, documents = town.people["ada"], [PDF, minimal_pdf(text="Another one.")]
    name, link = opened(town, documents, output="PADES_B_B")
    shown = follow(town, link)
    assert [item.input_sha256 for item in shown.items] == [hashlib.sha256(one).digest() for one in documents]
    assert [(item.name, item.size) for item in shown.items] == [
        (f"letter {i}.pdf", len(one)) for i, one in enumerate(documents)
    ]
    assert (shown.subject, shown.caller, shown.as_claimed) == ("ada", "portal", False)
    assert [fetched(town, name, index, "window") for index in range(2)] == documents
    answer = sign(town, ada, name)
    assert answer.code == "OK", answer
    assert [pb.ItemStatus.Name(one.status) for one in answer.value.outcomes] == ["SIGNED"] * 2
    for index, document in enumerate(documents):
        got = fetched(town, name, index, "portal")
        assert got.startswith(document)
        [signature] = PdfFileReader(io.BytesIO(got)).embedded_signatures
        assert signature.compute_integrity_info() is None
        assert signature.compute_digest() == shown.items[index].digest
    result = town["portal"].signing.GetResult(pb.GetResultRequest(request_id=name), timeout=10)
    assert len(result.items) == 2


def test_nothing_of_it_is_readable_on_the_disk(town: Town) -> None:
    """Documents that wait are encrypted, for the daemon's user alone, and gone when the batch is cancelled."""
    secret = b"the price is 4 711 euro and nobody else's business " * 20
    before = files(town)
    name, _ = opened(town, [secret])
    [file] = sorted(set(files(town)) - set(before))
    assert secret[:32] not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (
        town["portal"].signing.CancelBatch(pb.CancelBatchRequest(request_id=name), timeout=10).batch.state
        == pb.Batch.CANCELLED
    )
    assert files(town) == before
    answer = sign_as(town, name, "window")
    assert answer.brief == ("NOT_FOUND", "BATCH_UNKNOWN")


def test_what_is_signed_is_taken_back_by_its_submitter(town: Town) -> None:
    """Whoever has sent it does not want it any more: its documents are erased, once; the window cancels nothing that is signed."""
    before, unknown = files(town), ("FAILED_PRECONDITION", "BATCH_STATE")
    name, link = opened(town, [b"a letter that nobody wants after all"])
    list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=link), timeout=10))
    assert sign(town, town.people["ada"], name).code == "OK"

    def cancel(caller: str) -> Answer:
        return said(lambda: town[caller].signing.CancelBatch(pb.CancelBatchRequest(request_id=name), timeout=10))

    assert cancel("window").brief == unknown
    assert files(town) != before
    assert cancel("portal").value.batch.state == pb.Batch.CANCELLED
    assert files(town) == before
    request = pb.GetBatchRequest(request_id=name, with_document=True)
    assert said(lambda: list(town["portal"].signing.GetBatch(request, timeout=10))).brief == unknown
    assert cancel("portal").brief == unknown


def sign_as(town: Town, name: str, caller: str) -> Answer:
    """Without being able to: no code is spent."""
    request = pb.SignBatchRequest(request_id=name, secret_code="some code", otp="123456")
    return said(lambda: town[caller].signing.SignBatch(request, timeout=10))


def test_who_sees_a_batch(town: Town) -> None:
    """Its submitter, and the consent caller that has followed its link, once; nobody else learns that there is one."""
    name, link = opened(town, [b"a letter"])
    unknown = ("NOT_FOUND", "BATCH_UNKNOWN")

    def get(caller: str, **request: Any) -> tuple[str, str]:
        return said(lambda: list(town[caller].signing.GetBatch(pb.GetBatchRequest(**request), timeout=10))).brief

    for caller in ("other", "window", "ada-laptop"):
        assert get(caller, request_id=name) == unknown
    assert get("portal", request_id=name) == ("OK", "")
    for caller in ("portal", "other", "ada-laptop"):
        assert get(caller, link=link) == unknown
    assert get("window", link=link) == ("OK", "")
    assert get("window", link=link) == unknown
    assert get("window", request_id=name) == ("OK", "")
    listed = town["window"].signing.ListBatches(pb.ListBatchesRequest(), timeout=10).batches
    assert name in [one.request_id for one in listed]
    assert name not in [
        one.request_id for one in town["other"].signing.ListBatches(pb.ListBatchesRequest(), timeout=10).batches
    ]


def test_the_portal_alone_signs_nothing(town: Town) -> None:
    """The submitter's certificate cannot consent, whatever it knows."""
    name, link = opened(town, [b"a letter"])
    follow(town, link)
    before = signed(town.rig)
    assert sign_as(town, name, "portal").brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
    assert sign_as(town, name, "other").brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
    assert signed(town.rig) == before


def test_signed_once(town: Town) -> None:
    """A second SignBatch is refused, and spends nothing."""
    ada = town.people["ada"]
    name, link = opened(town, [b"a letter"])
    follow(town, link)
    assert sign(town, ada, name).code == "OK"
    before = signed(town.rig)
    assert sign_as(town, name, "window").brief == ("FAILED_PRECONDITION", "BATCH_STATE")
    assert signed(town.rig) == before
    assert fetched(town, name, 0, "portal")[:1] == b"0"  # the CMS


def test_an_id_that_is_another_s_by_now(town: Town) -> None:
    """
    Another caller has signed with the batch's request id since it was opened, so that the batch cannot be signed any more: told
    before her codes are looked at, and the one-time code is good for something else.
    """
    ada = town.people["ada"]
    name, link = opened(town, [PDF], output="PADES_B_B")
    follow(town, link)
    assert statuses(town["other"].sign(ask(request_id=name))) == ["SIGNED"]
    otp = ada.otp()
    assert sign(town, ada, name, otp=otp).brief == ("NOT_FOUND", "REQUEST_UNKNOWN")
    assert town.authorise(ada, terms(digests(1)), otp=otp).code == "OK"


def test_a_file_that_was_changed_while_it_waited(town: Town) -> None:
    """F54: one bit of the daemon's own copy was changed between approval and signing: AUTHZ_DIGEST, nothing is signed."""
    ada = town.people["ada"]
    before, kept = signed(town.rig), set(files(town))
    name, link = opened(town, [PDF], output="PADES_B_B")
    follow(town, link)
    [file] = set(files(town)) - kept
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert sign(town, ada, name).brief == ("PERMISSION_DENIED", "AUTHZ_DIGEST")
    assert signed(town.rig) == before


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([b"not a pdf"], "PDF_REJECTED"),
        ([PDF, growing()], "PDF_REJECTED"),
        ([PDF, b""], "DOCUMENT_EMPTY"),
        ([], "BATCH_EMPTY"),
    ],
)
def test_half_a_batch_is_none(town: Town, documents: list[bytes], reason: str) -> None:
    """One document that cannot be signed refuses the whole, and nothing of it stays."""
    before, name = files(town), str(uuid.uuid4())
    answer = said(
        lambda: town["portal"].signing.OpenBatch(batch(documents, output="PADES_B_B", request_id=name), timeout=20)
    )
    assert answer.brief == ("INVALID_ARGUMENT", reason)
    assert files(town) == before
    assert opened(town, [PDF], output="PADES_B_B", request_id=name)[0] == name


def test_an_id_that_is_used(town: Town) -> None:
    """The batch that has it stays as it was."""
    name, link = opened(town, [b"a letter"])
    answer = said(lambda: town["other"].signing.OpenBatch(batch([b"another"], request_id=name), timeout=20))
    assert answer.brief == ("INVALID_ARGUMENT", "IDEMPOTENCY_MISMATCH")
    follow(town, link)
    assert fetched(town, name, 0, "window") == b"a letter"


def test_claimed_digests(town: Town) -> None:
    """Digests of documents that the daemon has not seen are marked so, and refused unless the policy takes them."""

    def messages(credential: str) -> Any:
        opening = {"credential": credential, "output": "CADES_B_B", "digest_algorithm": "SHA256"}
        opening |= {"signature_algorithm": "ECDSA", "request_id": str(uuid.uuid4())}
        yield pb.OpenBatchRequest(open=pb.BatchOpening(**opening))
        for one in digests(2):
            yield pb.OpenBatchRequest(digest=pb.TermsItem(name="somewhere else", digest=one))

    answer = said(lambda: town["portal"].signing.OpenBatch(messages("ada-seen"), timeout=10))
    assert answer.brief == ("FAILED_PRECONDITION", "NOT_SEEN")
    answer = said(lambda: town["portal"].signing.OpenBatch(messages("ada"), timeout=10))
    assert answer.value.batch.as_claimed
    follow(town, answer.value.link)
    done = sign(town, town.people["ada"], answer.value.batch.request_id)
    assert [pb.ItemStatus.Name(one.status) for one in done.value.outcomes] == ["SIGNED"] * 2
    assert LIFE_S == 900


def test_a_code_that_was_sent_for_another_batch(town: Town) -> None:
    """F33: a one-time code is good for what it was sent for: for another batch it is OTP_EXPIRED."""
    bob = town.people.get("bob") or town.enrol("bob", "sent")
    names = []
    for text in (b"one", b"other"):
        name, link = opened(town, [text], credential="bob")
        follow(town, link)
        names.append(name)
    after = len(town.inbox.messages)
    sent = town["window"].signing.RequestOtp(pb.RequestOtpRequest(batch=names[0]), timeout=10)
    message = town.inbox.next("bob", "sign-code", after)["text"]
    assert sent.short_digest in message
    assert "letter 0.pdf" in message
    otp = town.inbox.code("bob", "sign-code", after)
    given = pb.SignBatchRequest(request_id=names[1], secret_code=bob.code, otp=otp)
    assert said(lambda: town["window"].signing.SignBatch(given, timeout=10)).brief == (
        "PERMISSION_DENIED",
        "OTP_EXPIRED",
    )
    given = pb.SignBatchRequest(request_id=names[0], secret_code=bob.code, otp=otp)
    assert said(lambda: town["window"].signing.SignBatch(given, timeout=10)).code == "OK"
