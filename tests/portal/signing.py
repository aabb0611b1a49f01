"""
The portal's side of a signing, as far as the window's tests need it: a batch is opened as the submitter, and what became of
it is fetched. And a browser's way through the window.
"""

import hashlib
import re
import subprocess
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx

from signer.client import algorithms_for
from signer.sync import SyncClient
from signer.v1 import signing_pb2 as pb
from tests.hostile import minimal_pdf
from tests.portal.real import Browser, Person, Real

DOCUMENT = minimal_pdf(text="I move to 12 Mill Lane.")
FIELD = re.compile(r"<input[^>]*>")


@dataclass(frozen=True)
class Opened:
    """A batch that waits, and where the portal sends the browser."""

    id: str
    address: str


def opens(real: Real, credential: str, document: bytes = DOCUMENT, *, language: str = "en") -> Opened:
    """As a portal does it: with the role submit, a PDF."""
    file = real.directory / "form.pdf"
    file.write_bytes(document)
    with portal(real) as client:
        digest, signature = algorithms_for(client.credential(credential))
        opened = client.open_batch(
            credential, [("Déclaration d’adresse.pdf", file)], output="PADES_B_B", digest_algorithm=digest,
            signature_algorithm=signature,
        )  # fmt: skip
    return Opened(opened.batch.request_id, f"{real.window_origin}/sign?link={opened.link}&language={language}")


def portal(real: Real) -> SyncClient:
    return SyncClient(real.rig.profile("portal"))


def state(real: Real, batch: str) -> str:
    with portal(real) as client:
        return str(pb.Batch.State.Name(client.batch(batch).state))


def fetched(real: Real, batch: str, document: bytes = DOCUMENT) -> str:
    """The signed PDF as the submitter gets it, checked; answers what pdfsig says of it."""
    target = real.directory / f"{batch}.pdf"
    with portal(real) as client:
        [item] = client.result(batch)
        assert item.item.status == pb.SIGNED
        [shown] = client.batch(batch).items
        client.fetch_document(batch, 0, target)
    content = target.read_bytes()
    assert content.startswith(document)
    assert shown.input_sha256 == hashlib.sha256(document).digest()
    assert item.item.signature.hex().encode() in content
    told = subprocess.run(["pdfsig", "-nocert", target], check=False, text=True, capture_output=True, timeout=60).stdout
    assert "Signature is Valid." in told and "Total document signed" in told, told
    return told


def returned(answer: httpx.Response) -> dict[str, str]:
    """What the portal is told, and that it is the portal that is."""
    assert answer.status_code == 303, answer.text
    where = urlsplit(answer.headers["location"])
    assert where.path == "/signings/returned"
    assert answer.headers["location"].startswith(f"{where.scheme}://localhost:")
    return {name: values[0] for name, values in parse_qs(where.query, keep_blank_values=True).items()}


def fields(page: str) -> dict[str, str]:
    """The inputs that people fill in, by their names, and what stands in them."""
    found = [tag for tag in FIELD.findall(page) if "hidden" not in tag]
    return {re.search(r'name="([^"]+)"', tag)[1]: (re.search(r'value="([^"]*)"', tag) or ["", ""])[1] for tag in found}  # type: ignore[index]


@dataclass
class Signer:
    """Somebody with a browser, at the window."""

    real: Real
    browser: Browser
    opened: Opened

    @classmethod
    def at(cls, real: Real, credential: str, **more: Any) -> "Signer":
        return cls(real, real.browser(), opens(real, credential, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.browser.get(self.real.window_origin + path, **more)

    def post(self, path: str, page: str, given: dict[str, str] | None = None) -> httpx.Response:
        return self.browser.post(self.real.window_origin + path, page, given)

    def follows(self) -> str:
        """The link; the page of step 2."""
        answer = self.browser.get(self.opened.address)
        assert answer.status_code == 303, answer.text
        assert "link" not in answer.headers["location"]
        page = self.get(answer.headers["location"])
        assert page.status_code == 200, page.text
        return page.text

    def approves(self) -> str:
        """The page of step 3."""
        self.follows()
        return self.approves_again()

    def approves_again(self) -> str:
        """The same, where the link was followed before."""
        done = self.post("/sign/approve", self.get("/sign/approve").text, {"approved": "yes"})
        assert done.status_code == 303, done.text
        page = self.get(done.headers["location"])
        assert page.status_code == 200, page.text
        return page.text

    def types(self, page: str, **typed: str) -> httpx.Response:
        return self.post("/sign/codes", page, typed)

    def has_sent(self, page: str) -> httpx.Response:
        """A code, by the form of `page`; the page that she is led to."""
        return self.browser.has_sent(f"{self.real.window_origin}/sign/codes", page)

    def codes_of(self, person: Person, page: str) -> dict[str, str]:
        """Hers; a one-time code that is sent is asked for on the page."""
        otp = ""
        if person.factor == "sent":
            after = len(self.real.inbox.messages)
            self.has_sent(page)
            otp = self.real.inbox.code(person.name, "sign-code", after)
        return {"secret_code": person.secret_code, "otp": otp or person.otp()}
