"""
A town where every secret is a canary: who types what, what was answered, and all that may have been written down.

Its callers put canaries wherever a text or bytes fit: into names of documents, sources, audiences, credentials.
"""

import base64
import contextlib
import itertools
import os
import secrets
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import google_crc32c
import pyotp
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from signer.code import HASHERS
from signer.gate import Bounds, Gate
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.jump import Jump
from tests.pki import Authority, pem
from tests.processes import children
from tests.signer.access.calls import Answer, Caller, ask, digests, processes, said, scrape
from tests.signer.people import canaries
from tests.signer.people.persons import ALGORITHMS, OUTPUTS, STICK_PIN, Town
from tests.signer.people.test_invalid_certificate import Lists

PIN, WRONG_PIN = "Haselnuss-90417-Boje", "735512"
CODE, WRONG_CODE = "Zimtstern-58213-Kanu", "Zimtstern-58214-Kanu"
WRONG_OTP = "908172"
MINE = {"AuthorizeResponse": "authorisation", "OpenBatchResponse": "link", "CompleteEnrolmentResponse": "otp_uri"}


class Stage:
    """
    `with Stage() as stage:` ada (HOTP), bob (sent codes), cleo (TOTP) and dora (a stick) are there. All at DEBUG, and where a
    crash could leave a core.
    """

    def __init__(self) -> None:
        town = self.town = Town(pin=PIN)
        rig = town.rig
        rig.sections = [line.replace("wait_h = 24", "wait_h = 0") for line in rig.sections]  # guests follow each other
        self.jump = Jump(rig.directory)
        rig.environment = self.jump.environment
        rig.log_level = "DEBUG"
        rig.place, rig.limits = rig.directory / "place", ["--core=unlimited:unlimited"]
        rig.place.mkdir()
        town.wanted |= {
            "eve": (Gate.CODE_HOTP, "eve", OUTPUTS, Bounds(claimed=True), "content_commitment"),
            "ada-cms": (Gate.CODE_HOTP, "ada", OUTPUTS[1:], Bounds(claimed=True), "content_commitment"),
            "guest": (Gate.CODE_HOTP, "guest", OUTPUTS, Bounds(claimed=True), "content_commitment"),
        }
        self.registered = ["expired", "future", "hours", "strange", "revoked", "unlisted", "absent", "two"]
        for name in ("portal", "other", "window"):
            role, rpcs, _ = town.rig.callers[name]
            known = ["p-256", *town.wanted, *self.registered]
            town.rig.callers[name] = (role, rpcs, known)
        self.lists = Lists(town.rig)
        self.revoking, self.unlisted = self.lists.ca("revoking"), self.lists.ca("unlisted")
        self.lists.put(self.revoking, "revoking")
        self.answers: dict[str, bytes] = {}
        self.seen: dict[str, bytes] = {}  # command lines and environments of processes that may be gone
        self.typed: set[str] = set()  # one-time codes
        self.references: list[bytes] = []
        self.links: list[str] = []
        self.serials: dict[str, int] = {}  # of certificates that were registered

    def __enter__(self) -> Self:
        town = self.town
        town.__enter__()
        try:
            for name, factor in (("ada", "hotp"), ("bob", "sent"), ("cleo", "totp"), ("eve", "hotp")):
                town.enrol(name, factor, CODE)
            self.brief = self.allowed("ada-brief", digests(1))
            self.brief_ends = time.monotonic() + 2.0
            self.opened("bob")
            assert self.register("revoked", ca=self.revoking).code == "OK"
            listed = {self.serials["revoked"]: x509.ReasonFlags.key_compromise}
            self.lists.put(self.revoking, "revoking", listed, number=2)
        except BaseException:
            town.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.town.__exit__()

    # ---- what is said

    def call(
        self, rpc: str, request: Any, caller: str | Caller = "window", timeout_s: float = 15.0, **more: Any
    ) -> Answer:
        """Any RPC, unary or not; what was answered is kept, but for the secrets that the answer is there to bring."""
        holder = self.town[caller] if isinstance(caller, str) else caller
        stub = getattr(holder.signing, rpc, None) or getattr(holder.operator, rpc)
        return self.heard(rpc, lambda: stub(request, timeout=timeout_s, **more))

    def heard(self, rpc: str, do: Any) -> Answer:
        def call() -> Any:
            answer = do()
            return answer if hasattr(answer, "SerializeToString") else list(answer)

        answer = said(call)
        told = answer.value if isinstance(answer.value, list) else [answer.value] if answer.code == "OK" else []
        whole = answer.message.encode() + b"\0" + answer.details
        for message in told:
            copy = type(message)()
            copy.CopyFrom(message)
            if (field := MINE.get(type(message).__name__)) is not None:
                copy.ClearField(field)
            whole += b"\0" + copy.SerializeToString()
        self.answers[f"answer {len(self.answers)} ({rpc} {answer.reason or answer.code})"] = whole
        return answer

    # ---- what is asked

    def noise(self) -> Iterator[str]:
        """Canaries, for ever."""
        texts = [CODE, WRONG_CODE, PIN, STICK_PIN, WRONG_PIN, WRONG_OTP, self.seed("ada"), *self.links[:1]]
        return itertools.cycle([*texts, *(reference.hex() for reference in self.references[:1])])

    def seed(self, name: str) -> str:
        """In base32, as an app has it."""
        return str(pyotp.parse_uri(self.town.people[name].uri).secret)

    def items(self, given: Sequence[bytes], field: str = "digest") -> list[Any]:
        """Named by canaries."""
        return [pb.TermsItem(name=name, **{field: one}) for name, one in zip(self.noise(), given, strict=False)]  # type: ignore[arg-type]

    def terms(self, given: Sequence[bytes], credential: str = "ada", **more: Any) -> Any:
        wanted = {"credential": credential, "output": "RAW", "caller": "portal", "items": self.items(given)}
        return pb.Terms(**(wanted | ALGORITHMS | more))

    def authorize(self, terms: Any = None, **more: Any) -> Any:
        """With the right code and a wrong one-time code, where nothing else is said."""
        given = {"secret_code": CODE, "otp": WRONG_OTP, "source": "192.0.2.7"} | more
        self.typed.add(given["otp"])
        return pb.AuthorizeRequest(terms=terms if terms is not None else self.terms(digests(1)), **given)

    def login(self, **more: Any) -> Any:
        wanted = {"credential": "ada-login", "audience": f"https://{CODE}.example", "nonce": self.brief} | ALGORITHMS
        given = {"request_id": str(uuid.uuid4()), "secret_code": WRONG_CODE, "otp": WRONG_OTP}
        return pb.AuthenticateRequest(login=pb.Login(**(wanted | more)), **given)

    def allowed(self, credential: str, given: Sequence[bytes], name: str = "ada", **more: Any) -> bytes:
        """The reference of a new authorisation."""
        answer = self.call("Authorize", self.authorize(self.terms(given, credential, **more), otp=self.otp(name)))
        assert answer.code == "OK", answer
        self.references.append(answer.value.authorisation)
        return bytes(answer.value.authorisation)

    def otp(self, name: str) -> str:
        code = self.town.people[name].otp()
        self.typed.add(code)
        return code

    def redeem(self, reference: bytes, given: Sequence[bytes], caller: str = "portal", **more: Any) -> Answer:
        wanted = {"credential": "ada", "digests": list(given), "authorisation": reference} | more
        return self.call("SignDigests", ask(**wanted), caller)

    def batch(self, credential: str, output: str = "CADES_B_B", **more: Any) -> Iterator[Any]:
        """Of digests as claimed, named by canaries."""
        wanted = {"credential": credential, "output": output, "request_id": str(uuid.uuid4())} | ALGORITHMS | more
        yield pb.OpenBatchRequest(open=pb.BatchOpening(**wanted))
        for item in self.items(digests(2)):
            yield pb.OpenBatchRequest(digest=item)

    def document(
        self,
        content: bytes,
        size: int = 0,
        crc32c: int | None = None,
        named: str = CODE,
        texts: Any = None,
        **more: Any,
    ) -> Iterator[Any]:
        """A batch of one document, with canaries round it."""
        wanted = {"credential": "ada-seen", "output": "CADES_B_B", "request_id": str(uuid.uuid4())} | ALGORITHMS | more
        yield pb.OpenBatchRequest(open=pb.BatchOpening(**wanted))
        begin = pb.BeginDocument(index=0, name=named, size=size, **texts or {})
        yield pb.OpenBatchRequest(begin=begin)
        yield pb.OpenBatchRequest(chunk=content)
        yield pb.OpenBatchRequest(end=pb.EndDocument(crc32c=google_crc32c.value(content) if crc32c is None else crc32c))

    def opened(self, credential: str, output: str = "CADES_B_B") -> str:
        """A link to a new batch; its documents have names that are nobody's secret: while it waits they are stored."""
        messages = list(self.batch_named(credential, output))
        answer = self.heard("OpenBatch", lambda: self.town["portal"].signing.OpenBatch(iter(messages), timeout=15))
        assert answer.code == "OK", answer
        self.links.append(answer.value.link)
        return str(answer.value.link)

    def batch_named(self, credential: str, output: str) -> Iterator[Any]:
        for message in self.batch(credential, output):
            if message.HasField("digest"):
                message.digest.name = "letter"
            yield message

    def followed(self, credential: str, output: str = "CADES_B_B") -> str:
        """The request id of a new batch that the window may show."""
        [first] = self.call("GetBatch", pb.GetBatchRequest(link=self.opened(credential, output))).value
        return str(first.batch.request_id)

    def register(self, name: str, ca: Authority | None = None, key: Any = None, **more: Any) -> Answer:
        """A credential of ada's, by an operator, over her key."""
        validity = {word: more.pop(word) for word in ("begins", "ends") if word in more}
        label, spki = self.town.owned["ada"]
        ca = ca or self.town.rig.pki.issuing
        public = key or serialization.load_der_public_key(spki)
        certificate = ca.issue(f"Signer {name}", public, "content_commitment", **validity)
        self.serials[name], chain = certificate.serial_number, pem(certificate, ca.certificate)
        wanted = {"gate": "code+hotp", "subject": "ada", "outputs": OUTPUTS, "key_label": label, "claimed": True}
        request = op.RegisterCredentialRequest(name=name, certificates=chain, **(wanted | more))
        return self.call("RegisterCredential", request, "operator")

    def sign(self, name: str) -> Any:
        """A batch, with a wrong one-time code."""
        return pb.SignBatchRequest(request_id=name, secret_code=CODE, otp=WRONG_OTP, source="192.0.2.7", pin=STICK_PIN)

    def enrolment(self, **more: Any) -> Any:
        wanted = {"subject": "gil", "contact_kind": "webhook", "contact": self.town.inbox.url("gil"), "factor": "hotp"}
        return op.EnrolSubjectRequest(**(wanted | more))

    def not_now(self) -> str:
        """Hours of the day that are over or to come."""
        hour = (datetime.now(UTC) + timedelta(hours=3)).hour
        return f"{hour:02}-{(hour + 1) % 24:02}"

    def visit(self) -> str:
        """A guest is enrolled, allows something, and has gone: the code, which nobody else has."""
        code, town = f"Guest-{secrets.token_hex(8)}", self.town
        with Caller(town.rig, "window") as window:
            held, town.callers["window"] = town.callers["window"], window
            try:
                town.enrol("guest", "hotp", code)
                request = self.authorize(self.terms(digests(1), "guest"), secret_code=code, otp=self.otp("guest"))
                answer = self.call("Authorize", request)
            finally:
                town.callers["window"] = held
        assert answer.code == "OK", answer
        assert self.redeem(answer.value.authorisation, digests(1), credential="guest").code == "OK"
        return code

    # ---- what happens

    @contextlib.contextmanager
    def hashers_die(self) -> Iterator[None]:
        """As often as they are started."""
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.002):
                for hasher in children(self.front, "signer.hasher"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(hasher.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()

    @contextlib.contextmanager
    def hashers_stand_still(self) -> Iterator[None]:
        while (
            len(stopped := children(self.front, "signer.hasher")) < HASHERS
        ):  # one that has died is started when asked
            with ThreadPoolExecutor(HASHERS) as threads:
                for _ in range(HASHERS):
                    threads.submit(self.call, "Authorize", self.authorize())
            self.town.unlock("ada")
        for hasher in stopped:
            hasher.suspend()
        try:
            yield
        finally:
            for hasher in stopped:
                hasher.resume()

    @property
    def front(self) -> int:
        assert self.town.rig.process is not None
        return self.town.rig.process.pid

    def rows(self, query: str) -> list[Any]:
        """Of the daemon's database."""
        with closing(sqlite3.connect(f"file:{self.town.rig.state / 'paraph.sqlite'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def guesses(self) -> int:
        """How many are counted now."""
        return int(self.rows("SELECT count(*) FROM guesses")[0][0])

    def queued(self) -> int:
        """Messages that wait."""
        return int(self.rows("SELECT count(*) FROM outbox WHERE state = 'QUEUED'")[0][0])

    def outbox(self) -> set[Any]:
        """What the rows of messages still have."""
        return set(self.rows("SELECT contact, address, body FROM outbox"))

    def stick(self) -> Any:
        tokens = self.town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
        return next(token for token in tokens if token.name == "stick")

    def stick_waits(self) -> bool:
        return bool(self.stick().state == op.Token.OPEN)

    # ---- what there is to find, and where

    def secrets(self) -> dict[str, bytes]:
        inbox = self.town.inbox.messages
        sent = {str(message["text"]).splitlines()[0].partition(":")[2].strip() for message in inbox}
        found = {"the code": CODE, "a wrong code": WRONG_CODE, "the card's PIN": PIN, "the stick's PIN": STICK_PIN}
        found |= {"a wrong PIN": WRONG_PIN}
        found |= {f"a one-time code ({one})": one for one in self.typed}
        for name in ("ada", "cleo", "eve"):
            found[f"{name}'s seed in base32"] = self.seed(name)
        for number, one in enumerate(sorted(sent - {""})):
            found[f"what was sent, {number}"] = one
            found[f"what was sent, {number}, as typed"] = one.replace("-", "")
        found |= {f"link {number}": link for number, link in enumerate(self.links[:3])}
        values = {name: text.encode() for name, text in found.items()}
        values |= {f"{name}'s seed": base64.b32decode(self.seed(name)) for name in ("ada", "cleo", "eve")}
        return values | {f"reference {number}": one for number, one in enumerate(self.references[:5])}

    def written(self) -> dict[str, bytes]:
        """Everything that the processes have written and answered so far, but for what the operator gave them."""
        rig = self.town.rig
        given = [rig.directory / f"{token.name}.pin" for token in rig.tokens]
        found = canaries.files(rig.directory, leave_out=given)
        if rig.process is not None and rig.process.poll() is None:
            found["/metrics"] = scrape(rig)[1].encode()
            self.look()
        exported = rig.command("audit", "export", "--config", rig.config)
        assert exported.returncode == 0, exported.stderr
        found["audit export"] = exported.stdout.encode()
        return found | self.answers | self.seen

    def left(self, secret: str) -> dict[int, int]:
        """
        How often a secret stands in the memory of each process that has it, by their ids; one that ends meanwhile has
        nothing.
        """
        found = {}
        for process in processes(self.town.rig):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[process.pid] = canaries.memory_has(process.pid, secret.encode())
        return {pid: count for pid, count in found.items() if count}

    def look(self) -> None:
        """At the processes that run now."""
        self.seen |= canaries.processes()
