"""
What the tests of people share: a daemon with a card, a person who is reached by a webhook on loopback, and the callers
round her: the portal, the window, her own program, an operator.
"""

import hashlib
import http.server
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import google_crc32c
import pyotp

from signer.clock import Clock
from signer.config import ROLES
from signer.credential import Output, add
from signer.gate import Bounds, Gate
from signer.store import open_store
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import Token, until
from tests.signer.access.calls import Answer, Caller, ask, card_rig, said
from tests.softhsm import PIN

CODE = "correct horse 7"
STICK_PIN = "735511"
ALGORITHMS = {"digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}
OUTPUTS = ("RAW", "CADES_B_B", "PADES_B_B")


class Inbox:
    """Where messages arrive: JSON, as the webhook gets it."""

    def __init__(self, port: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.messages.append({**json.loads(body), "to": self.path})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def next(self, name: str, template: str, after: int = 0) -> dict[str, Any]:
        """The first message of a template to this person, behind the first `after` of the inbox."""

        def found() -> dict[str, Any] | None:
            mine = (m for m in self.messages[after:] if m["to"] == f"/{name}" and m["template"] == template)
            return next(mine, None)

        message: dict[str, Any] = until(found, 10, f"a message {template} to {name}; {self.messages}")
        return message

    def code(self, name: str, template: str, after: int = 0) -> str:
        """The code in it, as a person finds it: behind the first colon."""
        text: str = self.next(name, template, after)["text"]
        return text.splitlines()[0].partition(":")[2].strip()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Person:
    """She has a code and a device."""

    name: str
    factor: str
    code: str = CODE
    uri: str = ""
    counter: int = 0
    last: str = field(default="", repr=False)

    def otp(self) -> str:
        """The next one-time code of a device; a TOTP's is waited for, when the last one was of this step."""
        if self.factor == "hotp":
            code = pyotp.parse_uri(self.uri).at(self.counter)  # type: ignore[union-attr]
            self.counter += 1
            return str(code)
        while (code := pyotp.parse_uri(self.uri).now()) == self.last:  # type: ignore[union-attr]
            time.sleep(0.2)
        self.last = code
        return str(code)


class Town:
    """`with Town() as town:` everybody is there, and `ada` (HOTP) is enrolled."""

    def __init__(self, pin: str = PIN, presence: str = "") -> None:
        self.inbox = Inbox()
        self._presence = {"presence": presence} if presence else {}
        self.rig = card_rig("P-256", pin=pin)
        key = self.rig.directory / "seeds.key"
        key.write_bytes(secrets.token_bytes(32))
        key.chmod(0o400)
        self.rig.sections = ["[people]", f'seed_key_file = "{key}"', 'tell = "the help desk"', "wait_h = 24"]
        self.rig.callers = {
            "portal": ("submit", sorted(ROLES["submit"]), None),
            "other": ("submit", sorted(ROLES["submit"]), None),
            "window": ("consent", sorted(ROLES["consent"]), None),
            "ada-laptop": ("self", sorted(ROLES["self"]), None),
            "operator": ("operator", sorted(ROLES["operator"]), ()),
        }
        self.rig.subjects = {"ada-laptop": "ada"}
        self.callers: dict[str, Caller] = {}
        self.people: dict[str, Person] = {}
        self.owned: dict[str, tuple[str, bytes]] = {}  # whose -> label and SPKI of the key: one key, one owner
        self.wanted: dict[str, tuple[Gate, str, Sequence[str], Bounds, str]] = {
            "ada": (Gate.CODE_HOTP, "ada", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "ada-seen": (Gate.CODE_HOTP, "ada", OUTPUTS, Bounds(), "content_commitment"),
            "ada-login": (Gate.CODE_HOTP, "ada", (), Bounds(), "digital_signature"),
            "ada-brief": (Gate.CODE_HOTP, "ada", OUTPUTS, Bounds(claimed=True, lifetime_s=2), "content_commitment"),
            "dan": (Gate.CODE_SENT, "dan", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "dan-login": (Gate.CODE_SENT, "dan", (), Bounds(), "digital_signature"),
            "bob": (Gate.CODE_SENT, "bob", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "fay": (Gate.CODE_HOTP, "fay", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "dora": (Gate.TOKEN_PIN, "dora", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "cleo": (Gate.CODE_TOTP, "cleo", OUTPUTS, Bounds(claimed=True), "content_commitment"),
        }

    def __enter__(self) -> Self:
        rig = self.rig
        assert rig.shim is not None
        if self._presence.get("presence") == "pad":
            rig.shim.script("C_GetTokenInfo@stick * pad")
        rig.store.token("stick", pin=STICK_PIN)
        rig.store.keys("stick", ["P-256"], ["stick-key"])
        rig.tokens.append(
            Token(
                "stick",
                "stick",
                kind="signing-stick",
                module=rig.shim.module,
                pin="",
                more={"personal": True, **self._presence},
            )
        )
        self.owned["dora"] = "stick-key", rig.store.made["stick"]["P-256"][1]
        for person in sorted({wanted[1] for wanted in self.wanted.values()} - {"dora"}):
            self.owned[person] = (f"{person}-key", rig.store.keys("card", ["P-256"], [f"{person}-key"])["P-256"][1])
        engine = open_store(rig.state / "paraph.sqlite")
        for name, (gate, subject, outputs, bounds, usage) in self.wanted.items():
            label, spki = self.owned[subject]
            chain = rig.pki.signer(f"Signer {name}", spki, usage)
            add(
                engine, name, chain, cka_id=None, key_label=label, outputs=[Output(one) for one in outputs],
                clock=Clock(), gate=gate, subject=subject, bounds=bounds,
            )  # fmt: skip
        engine.dispose()
        for caller, (role, rpcs, allowed) in list(rig.callers.items()):
            if allowed is None:
                rig.callers[caller] = (role, rpcs, sorted({*rig.credentials, *self.wanted}))
        rig.start()
        self.callers = {name: Caller(rig, name) for name in rig.callers}
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self.callers.values():
            caller.channel.close()
        self.rig.close()
        self.inbox.close()

    def __getitem__(self, name: str) -> Caller:
        return self.callers[name]

    def enrol(self, name: str, factor: str, code: str = CODE) -> Person:
        """As an operator begins it and the person ends it."""
        after = len(self.inbox.messages)
        answer = said(lambda: self["operator"].operator.EnrolSubject(self.enrolment(name, factor), timeout=10))
        assert answer.code == "OK", answer
        enrolment = self.inbox.code(name, "enrolment-code", after)
        person = self.people[name] = Person(name, factor, code)
        self.finish(person, enrolment)
        return person

    def enrolment(self, name: str, factor: str) -> Any:
        return op.EnrolSubjectRequest(
            subject=name, contact_kind="webhook", contact=self.inbox.url(name), factor=factor, language="en"
        )

    def finish(self, person: Person, enrolment: str) -> None:
        after = len(self.inbox.messages)
        begun = self["window"].signing.CompleteEnrolment(pb.CompleteEnrolmentRequest(enrolment=enrolment), timeout=10)
        assert begun.subject == person.name
        person.uri = begun.otp_uri
        otp = self.inbox.code(person.name, "confirm-code", after) if person.factor == "sent" else person.otp()
        request = pb.CompleteEnrolmentRequest(enrolment=enrolment, secret_code=person.code, otp=otp)
        assert self["window"].signing.CompleteEnrolment(request, timeout=10).complete

    def authorise(
        self, person: Person, terms: Any, caller: str = "window", *, code: str | None = None, otp: str | None = None
    ) -> Answer:
        if otp is None:
            otp = self.sent(person, terms) if person.factor == "sent" else person.otp()
        request = pb.AuthorizeRequest(
            terms=terms, secret_code=person.code if code is None else code, otp=otp, source="192.0.2.7"
        )
        return said(lambda: self[caller].signing.Authorize(request, timeout=10))

    def unlock(self, name: str) -> None:
        answer = said(
            lambda: self["operator"].operator.UnlockSubject(op.UnlockSubjectRequest(subject=name), timeout=10)
        )
        assert answer.code == "OK", answer

    def sent(self, person: Person, terms: Any, caller: str = "window") -> str:
        after = len(self.inbox.messages)
        self[caller].signing.RequestOtp(pb.RequestOtpRequest(terms=terms, source="192.0.2.7"), timeout=10)
        return self.inbox.code(person.name, "sign-code", after)

    def reference(self, person: Person, terms: Any, caller: str = "window") -> bytes:
        answer = self.authorise(person, terms, caller)
        assert answer.code == "OK", answer
        return bytes(answer.value.authorisation)


def terms(digests: Sequence[bytes], credential: str = "ada", output: str = "RAW", **more: Any) -> Any:
    """For the portal, digests of documents that the daemon does not see."""
    items = [pb.TermsItem(name=f"letter {number}.pdf", digest=one) for number, one in enumerate(digests)]
    return pb.Terms(
        **({"credential": credential, "output": output, "caller": "portal", "items": items, **ALGORITHMS} | more)
    )


def seen(documents: Sequence[bytes], credential: str = "ada-seen", output: str = "CADES_B_B", **more: Any) -> Any:
    """For the portal, documents that it will send."""
    items = [
        pb.TermsItem(name=f"letter {number}.txt", input_sha256=hashlib.sha256(one).digest())
        for number, one in enumerate(documents)
    ]
    return pb.Terms(
        **({"credential": credential, "output": output, "caller": "portal", "items": items, **ALGORITHMS} | more)
    )


def redeem(town: Town, reference: bytes, digests: Sequence[bytes], caller: str = "portal", **more: Any) -> Answer:
    return town[caller].sign(
        ask(**({"credential": "ada", "digests": list(digests), "authorisation": reference} | more))
    )


def stream(
    documents: Sequence[bytes], credential: str = "ada-seen", output: str = "CADES_B_B", **more: Any
) -> Iterator[Any]:
    """A SignDocuments stream."""
    opening = {"request_id": str(uuid.uuid4()), "credential": credential, "output": output, **ALGORITHMS} | more
    yield pb.SignDocumentsRequest(open=pb.OpenDocuments(**opening))
    for index, content in enumerate(documents):
        yield pb.SignDocumentsRequest(begin=pb.BeginDocument(index=index, name="letter", size=len(content)))
        yield pb.SignDocumentsRequest(chunk=content)
        yield pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(content)))


def batch(
    documents: Sequence[bytes],
    credential: str = "ada-seen",
    output: str = "CADES_B_B",
    request_id: str = "",
    **more: Any,
) -> Iterator[Any]:
    """An OpenBatch stream."""
    opening = {"credential": credential, "output": output, **ALGORITHMS} | more
    yield pb.OpenBatchRequest(open=pb.BatchOpening(request_id=request_id or str(uuid.uuid4()), **opening))
    for index, content in enumerate(documents):
        yield pb.OpenBatchRequest(begin=pb.BeginDocument(index=index, name=f"letter {index}.pdf", size=len(content)))
        for start in range(0, len(content), 256 * 1024):
            yield pb.OpenBatchRequest(chunk=content[start : start + 256 * 1024])
        yield pb.OpenBatchRequest(end=pb.EndDocument(crc32c=google_crc32c.value(content)))


Do = Callable[[], Any]
