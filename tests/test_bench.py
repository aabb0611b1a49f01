"""What the bench reckons by itself, and what it takes for an answer, where a mistake would flatter us."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from pyhanko.keys import load_certs_from_pemder, load_private_key_from_pemder
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, SimpleSigner, sign_pdf
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko_certvalidator.registry import SimpleCertificateStore

from bench.latency import added_ms
from bench.load import verdict
from bench.load.interactive import quantiles
from bench.load.seen import RANDOM, Seen
from bench.load.target import Target
from bench.rig import child
from bench.rig.child import ChildError, Client
from bench.rig.pdf import minimal_pdf
from bench.rig.pki import Pki
from bench.rig.report import compare
from bench.rig.rounds import Series
from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc

LANE = [(0.0, 0.2), (0.2, 0.4), (0.4, 0.6)]  # three signatures, one after the other
CREDENTIAL = "one.p-256"


@pytest.mark.parametrize(
    ("case", "call", "expected"),
    [
        ("the rest of the first and its own are the token's", (0.01, 0.405), 5.0),
        ("its own alone, where none was under way", (0.2, 0.41), 10.0),
        ("one more that it had to wait for is ours", (0.01, 0.605), 205.0),
        ("the time before the first is ours", (-0.1, 0.205), 105.0),
    ],
)
def test_a_card_s_signatures_are_no_time_of_ours(case: str, call: tuple[float, float], expected: float) -> None:
    assert added_ms([call], LANE) == pytest.approx([expected]), case


def test_by_cpu_counts_what_is_too_little_to_be_shown() -> None:
    """Of ours everything; of the limit's raw C alone, and not our daemon, which starts something meanwhile."""
    ours = Series([1.0], 1000, {"lanes": 0.5, "client": 0.004, "other": 0.004, "bench": 1.0}, [0.0])
    raw = Series([1.0], 1000, {"raw": 0.4, "assembly": 0.1}, [0.0])
    row = compare("", {"ours": ours, "raw": raw}, "ours", "raw")
    assert (row.cpu_us, row.cpu_ratio) == ({"lanes": 500.0}, round(0.4 / 0.508, 3))


def test_no_call_has_no_time() -> None:
    with pytest.raises(RuntimeError, match="no call"):
        quantiles([])


def test_the_first_the_last_and_some_between_are_kept() -> None:
    seen = Seen()
    for number in range(1000):
        seen.add(print, number, None)
    numbers = [asked for _, asked, _ in seen.taken()]
    assert (numbers[0], numbers[-1]) == (0, 999)
    assert RANDOM <= len(set(numbers)) == len(numbers) <= RANDOM + 2
    assert not seen
    seen.add(print, 1, None)
    assert [asked for _, asked, _ in seen.taken()] == [1]


class Service(signing_pb2_grpc.SigningServicer):
    """Signs as a service would, unless `answer` makes something else of it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: bytes) -> None:
        self._key, self._certificate = key, certificate
        self.answer: Callable[[pb.SignDigestsResponse, grpc.ServicerContext], None] = lambda _answer, _context: None
        self._lock = threading.Lock()

    def GetCredential(self, _request: Any, _context: Any) -> pb.Credential:  # noqa: N802 -- gRPC's name
        return pb.Credential(certificates=[self._certificate])

    def SignDigests(self, request: Any, context: grpc.ServicerContext) -> pb.SignDigestsResponse:  # noqa: N802
        scheme = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
        items = [pb.SignedItem(status=pb.SIGNED, signature=self._key.sign(one, scheme)) for one in request.digests]
        answer = pb.SignDigestsResponse(items=items, certificate=self._certificate)
        with self._lock:
            self.answer(answer, context)
        return answer


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("bench") / "pki")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def chain(pki: Pki, key: ec.EllipticCurvePrivateKey) -> Path:
    return pki.signer(CREDENTIAL, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def served(
    pki: Pki, key: ec.EllipticCurvePrivateKey, chain: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Service, Client]]:
    """A service that is told what to answer, and a client of the bench."""

    def start(command: Sequence[Any], *, environment: Mapping[str, str], **more: Any) -> subprocess.Popen[bytes]:
        """As the bench does, but with nothing between fork and exec: this process has gRPC's threads."""
        return subprocess.Popen([str(word) for word in command], env=dict(environment), **more)

    monkeypatch.setattr(child, "start", start)
    service = Service(key, load_pem_x509_certificate(chain.read_bytes()).public_bytes(Encoding.DER))
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    signing_pb2_grpc.add_SigningServicer_to_server(service, server)
    certificate, private = (path.read_bytes() for path in pki.server())
    credentials = grpc.ssl_server_credentials([(private, certificate)], pki.ca.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    words = [sys.executable, "-m", "bench.load", f"127.0.0.1:{port}", pki.ca, *pki.caller("portal")]
    with Client(words, environment={"PATH": os.environ["PATH"]}, cwd=Path(__file__).parent.parent) as client:
        yield service, client
    server.stop(None).wait()


FLOOD = {"do": "flood", "credential": CREDENTIAL, "batch": 2, "seconds": 0.3, "in_flight": 2, "channels": 1}
ORDERS = [
    FLOOD,
    {"do": "offer", "credential": CREDENTIAL, "batch": 2, "rate": 20, "seconds": 0.3, "channels": 1},
    {"do": "batches", "credential": CREDENTIAL, "batch": 2, "total": 6, "in_flight": 2},
    {"do": "single", "credential": CREDENTIAL, "seconds": 0.2, "in_flight": 2},
    {"do": "latency", "credential": CREDENTIAL, "count": 3},
]


def test_what_was_not_verified_ends_the_question(served: tuple[Service, Client]) -> None:
    """Each order is followed by its verification, and a wrong signature is found by it."""
    service, client = served
    for order in ORDERS:
        assert client.got(order)["count"] > 0, order

    client.ask(ORDERS[2])
    with pytest.raises(ChildError, match="was not verified"):
        client.ask(ORDERS[2])
    client.verify()

    def another(answer: pb.SignDigestsResponse, _context: grpc.ServicerContext) -> None:
        answer.items[0].signature, answer.items[-1].signature = answer.items[-1].signature, answer.items[0].signature

    service.answer = another
    for order in ORDERS[:3]:
        assert client.ask(order)["count"] > 0
        with pytest.raises(ChildError, match="InvalidSignature"):
            client.verify()


def refused(_answer: pb.SignDigestsResponse, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "there is no room")


def broken(_answer: pb.SignDigestsResponse, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.INTERNAL, "it broke")


def unsigned(answer: pb.SignDigestsResponse, _context: grpc.ServicerContext) -> None:
    answer.items[-1].CopyFrom(pb.SignedItem(status=pb.FAILED, reason="KEY_GONE"))


@pytest.mark.parametrize("order", ORDERS[:2], ids=["flood", "offer"])
@pytest.mark.parametrize(
    ("answer", "says"), [(refused, "nothing was signed"), (broken, "it broke"), (unsigned, "KEY_GONE")]
)
def test_a_flood_that_gets_nothing_or_loses_something_is_an_error(
    served: tuple[Service, Client], order: dict[str, Any], answer: Callable[..., None], says: str
) -> None:
    service, client = served
    service.answer = answer
    with pytest.raises(ChildError, match=says):
        client.ask(order)


def test_what_was_refused_is_told(served: tuple[Service, Client]) -> None:
    """Two of three calls are refused; where none is, nothing was shed."""
    service, client = served
    assert client.got(ORDERS[1])["shed"] is None
    calls = 0

    def every_other(answer: pb.SignDigestsResponse, context: grpc.ServicerContext) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            refused(answer, context)

    service.answer = every_other
    assert client.got(ORDERS[1])["codes"] == {"RESOURCE_EXHAUSTED": 2, "OK": 1}
    assert client.got(FLOOD)["refused"]["RESOURCE_EXHAUSTED"] > 0


@pytest.fixture(scope="module")
def signed(chain: Path, key: ec.EllipticCurvePrivateKey, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The minimal PDF, signed by pyHanko."""
    file = tmp_path_factory.mktemp("signed") / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate, *issuers = load_certs_from_pemder([chain])
    store = SimpleCertificateStore()
    store.register_multiple(issuers)
    signer = SimpleSigner(certificate, load_private_key_from_pemder(file, None), store)
    fields = PdfSignatureMetadata(field_name="Bench", md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES)
    return sign_pdf(IncrementalPdfFileWriter(BytesIO(minimal_pdf())), fields, signer).getvalue()


@pytest.fixture
def target(pki: Pki, chain: Path) -> Target:
    """That asks nobody: it knows the credential's certificate."""
    made = Target("127.0.0.1:1", pki.ca, *pki.caller("portal"))
    made.certificates[CREDENTIAL] = load_pem_x509_certificate(chain.read_bytes()).public_bytes(Encoding.DER)
    return made


async def test_a_good_document_is_taken(target: Target, signed: bytes) -> None:
    await verdict.document(target, (CREDENTIAL, minimal_pdf()), bytearray(signed), 0)
    assert target.documents


@pytest.mark.parametrize(
    ("case", "change", "says"),
    [
        ("the document itself", lambda pdf: minimal_pdf(), "does not begin"),
        ("another document", lambda pdf: pdf.replace(b"(Paraph)", b"(Forged)"), "does not begin"),
        ("a byte changed behind it", lambda pdf: pdf.replace(b"/Bench", b"/Bunch").replace(b"(Bench", b"(Bunch"), "over something else"),
        ("something appended", lambda pdf: pdf + b"\n", "does not cover"),
    ],
)  # fmt: skip
async def test_a_bad_document_is_not(
    target: Target, signed: bytes, case: str, change: Callable[[bytes], bytes], says: str
) -> None:
    with pytest.raises(verdict.NotGood, match=says):
        await verdict.document(target, (CREDENTIAL, minimal_pdf()), bytearray(change(signed)), 0)
    assert not target.documents, case


async def test_a_document_of_another_certificate_is_not(target: Target, signed: bytes) -> None:
    target.certificates[CREDENTIAL] = b"another"
    with pytest.raises(verdict.NotGood, match="another certificate"):
        await verdict.document(target, (CREDENTIAL, minimal_pdf()), bytearray(signed), 0)
