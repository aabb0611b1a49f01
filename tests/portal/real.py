"""
Everything for real: a daemon with a card, the portal and the window as processes, all over TLS on loopback.

    with Real() as real:
        ada = real.people["ada"]
        browser = real.browser()
        browser.logs_in(ada)                   # through the window, with her codes
        browser.get("/account")

The portal is at `https://localhost:...`, the window at `https://127.0.0.1:...`, the cards' origin at
`https://127.0.0.2:...`: three hosts, so that no cookie of one is another's. `real.ca` is who issued their certificates.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import httpx2 as httpx
import pyotp
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import Engine

from signer.clock import Clock
from signer.config import ROLES
from signer.credential import Output, add
from signer.gate import Bounds, Gate
from signer.store import open_store
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.card import Card, Pcscd
from tests.card.pcscd import OPENSC
from tests.daemon import REPOSITORY, Token, until
from tests.pki import Authority, pem
from tests.portal.place import hidden
from tests.signer.access.calls import Caller, card_rig
from tests.signer.people.persons import Inbox

GATES = {"totp": Gate.CODE_TOTP, "hotp": Gate.CODE_HOTP, "sent": Gate.CODE_SENT}
ENROL_AT = "https://sign.example/enrol"  # as messages say it
TRIES_A_MINUTE = 20  # of one address at the window
CARD_PIN, PAD_PIN = "40271836", "735511"
_ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)}


@dataclass
class Person:
    """She has a product number, a secret code and a device, or a code is sent to her."""

    given: str
    family: str
    factor: str
    is_enrolled: bool = True
    secret_code: str = "correct horse 7"
    uri: str = field(default="", repr=False)
    counter: int = 0
    last: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        return self.given.lower()

    @property
    def subject(self) -> x509.Name:
        return subject(self.given, self.family, serial=f"{self.name}-1")

    @property
    def number(self) -> str:
        return f"{self.name}-login"

    def otp(self) -> str:
        """
        The one-time code that her device shows now. A TOTP is good once, so it may be half a minute until there is
        another; a HOTP is there at once.
        """
        device: Any = pyotp.parse_uri(self.uri)
        if self.factor == "hotp":
            self.counter += 1
            return str(device.at(self.counter - 1))
        self.last = until(lambda: code if (code := device.now()) != self.last else "", 40, "a new one-time code")
        return self.last


class Real:
    """
    `people` are ada (HOTP), bob (TOTP), dan (a code is sent); eve (HOTP) whose codes tests may get wrong, fay (HOTP) who may
    be suspended; gil, ivy (TOTP) and hal (a code is sent) are not
    enrolled. `portal` and `window` are TOML that is added; with `front`, a header's name, cards come by a front's socket.
    With `tokens` there are people who sign with a token of their own at the daemon: cleo with a virtual smartcard in the
    reader 'desk' (`card`, `pcscd`), pia with a stick whose PIN is typed at its reader (`pad`).
    """

    def __init__(self, *, portal: str = "", window: str = "", front: str = "", tokens: bool = False) -> None:
        self.inbox = Inbox()
        self.rig = card_rig("P-256")
        self.own_card, self.pcscd = Card(CARD_PIN), Pcscd("desk") if tokens else None
        self.directory = self.rig.directory / "web"
        self.directory.mkdir()
        self.people = {
            one.name: one
            for one in (
                Person("Ada", "Lovelace", "hotp"),
                Person("Bob", "Boole", "totp"),
                Person("Dan", "Dantzig", "sent"),
                Person("Eve", "Euler", "hotp"),
                Person("Fay", "Fermat", "hotp"),
                Person("Gil", "Gauss", "totp", is_enrolled=False),
                Person("Hal", "Hilbert", "sent", is_enrolled=False),
                Person("Ivy", "Ingham", "totp", is_enrolled=False),
            )
        }
        self.ports = dict(zip(("portal", "window", "cards"), _free_ports(3), strict=True))
        self.portal_origin = f"https://localhost:{self.ports['portal']}"
        self.window_origin = f"https://127.0.0.1:{self.ports['window']}"
        self.cards_origin = f"https://127.0.0.2:{self.ports['cards']}"
        self.ca = self.rig.pki.ca_file
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._browsers: list[Browser] = []
        self.front = self.directory / "front.sock"
        self._header = front
        self._more = {"portal": portal, "window": window}
        self._set_up_people()

    # ---- setting up

    def _set_up_people(self) -> None:
        rig = self.rig
        key = rig.directory / "seeds.key"
        key.write_bytes(secrets.token_bytes(32))
        key.chmod(0o400)
        rig.sections = [
            "[people]",
            f'seed_key_file = "{key}"',
            'tell = "the help desk"',
            "wait_h = 24",
            f'enrol_at = "{ENROL_AT}"',
        ]
        engine = open_store(rig.state / "paraph.sqlite")
        names = []
        for person in self.people.values():
            label = f"{person.name}-key"
            spki = rig.store.keys("card", ["P-256"], [label])["P-256"][1]
            for name, usage in ((person.number, "digital_signature"), (person.name, "content_commitment")):
                chain = rig.pki.signer(name, spki, usage, subject=person.subject)
                outputs = [] if usage == "digital_signature" else ["RAW", "CADES_B_B", "PADES_B_B"]
                add(
                    engine, name, chain, cka_id=None, key_label=label, outputs=outputs,  # type: ignore[arg-type]
                    clock=Clock(), gate=GATES[person.factor], subject=person.name, bounds=Bounds(),
                )  # fmt: skip
                names.append(name)
        names += self._set_up_tokens(engine) if self.pcscd is not None else []
        engine.dispose()
        rig.callers = {
            "portal": ("submit", sorted(ROLES["submit"]), names),
            "window": ("consent", sorted(ROLES["consent"]), names),
            "operator": ("operator", sorted(ROLES["operator"]), ()),
        }

    def _set_up_tokens(self, engine: Engine) -> list[str]:
        """The names of the credentials that are on tokens of their people."""
        rig, pcscd = self.rig, self.pcscd
        assert rig.shim is not None and pcscd is not None
        keys = {"cleo": (self.own_card.add(0x9A, "p256", "Virtual Card"), b"\x01", None)}
        pcscd["desk"].insert(self.own_card)
        rig.store.token("stick", pin=PAD_PIN)
        rig.store.keys("stick", ["P-256"], ["pia-key"])
        keys["pia"] = (rig.store.made["stick"]["P-256"][1], None, "pia-key")
        self.pad()
        rig.tokens += [
            Token(
                "desk", "Virtual Card", module=str(OPENSC), pin="", environment=pcscd.environment,
                more={"personal": True, "reader": pcscd["desk"].name},
            ),
            Token(
                "stick", "stick", kind="signing-stick", module=rig.shim.module, pin="",
                more={"personal": True, "presence": "pad"},
            ),
        ]  # fmt: skip
        for name, (spki, cka_id, label) in keys.items():
            person = subject(name.title(), "Token", serial=f"{name}-1")
            chain = rig.pki.signer(name, spki, "content_commitment", subject=person)
            add(
                engine, name, chain, cka_id=cka_id, key_label=label, outputs=[Output.PADES_B_B], clock=Clock(),
                gate=Gate.TOKEN_PIN, subject=name, bounds=Bounds(),
            )  # fmt: skip
        return list(keys)

    def pad(self, *rules: str) -> None:
        """What happens at the stick's reader; nobody types anything there without rules."""
        assert self.rig.shim is not None
        self.rig.shim.script("C_GetTokenInfo@stick * pad", *rules)

    def _write(self) -> None:
        """The configurations, and what they name."""
        directory, rig = self.directory, self.rig
        hosts: list[x509.GeneralName] = [x509.DNSName("localhost")]
        hosts += [x509.IPAddress(ip_address(one)) for one in ("127.0.0.1", "127.0.0.2")]
        for name in ("portal", "window"):
            certificate, key = rig.pki.tls(f"{name}-web", hosts)
            (directory / f"{name}.tls").write_text(f'certificate = "{certificate}"\nkey = "{key}"')
            certificate, key = rig.files(name)
            (directory / f"{name}.client.toml").write_text(
                f'server = "127.0.0.1:{rig.port}"\nca = "{self.ca}"\ncertificate = "{certificate}"\nkey = "{key}"\n'
            )
        (directory / "key").write_bytes(secrets.token_bytes(32))
        (directory / "key").chmod(0o400)
        for language, text in (("en", "Be honest."), ("fr", "Soyez honnête.")):
            (directory / f"terms-{language}.txt").write_text(text)
        portal_tls, window_tls = ((directory / f"{name}.tls").read_text() for name in ("portal", "window"))
        (directory / "portal.toml").write_text(f"""
[portal]
name = "Millbrook"
origin = "{self.portal_origin}"
state = "state"
key_file = "key"
[listener]
address = "127.0.0.1:{self.ports["portal"]}"
{portal_tls}
{self._cards(portal_tls)}
[window]
origin = "{self.window_origin}"
caller = "window"
[daemon]
profile = "portal.client.toml"
[trust]
issuers = ["{self.ca}"]
[mail]
sender = "portal@example.org"
directory = "mail"
[terms]
version = "1"
fr = "terms-fr.txt"
en = "terms-en.txt"
{self._more["portal"]}
""")
        (directory / "window.toml").write_text(f"""
[window]
origin = "{self.window_origin}"
[listener]
address = "127.0.0.1:{self.ports["window"]}"
{window_tls}
[portal]
name = "Millbrook"
origin = "{self.portal_origin}"
[daemon]
profile = "window.client.toml"
{self._more["window"]}
""")

    def _cards(self, tls: str) -> str:
        """How cards come in."""
        if self._header:
            return f'[front]\nsocket = "front.sock"\nheader = "{self._header}"\norigin = "{self.cards_origin}"'
        address = f'address = "127.0.0.2:{self.ports["cards"]}"\nclient_ca = "{self.ca}"'
        return f'[cards]\n{address}\n{tls}\norigin = "{self.cards_origin}"'

    def __enter__(self) -> Self:
        try:
            self.rig.start()
            self._write()
            self.start("window")
            self.start("portal")
            for person in self.people.values():
                if person.is_enrolled:
                    self._enrol(person)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for browser in self._browsers:
            browser.http.close()
        for name in list(self.processes):
            self.stop(name)
        self.rig.close()
        if self.pcscd is not None:
            self.pcscd.close()
        self.inbox.close()

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def proc(self, name: str) -> Path:
        """What the kernel says of a process."""
        return Path(f"/proc/{self.processes[name].pid}")

    def start(self, name: str) -> None:
        """'portal' or 'window'; returns when it answers."""
        command = {"portal": "serve", "window": "window"}[name]
        config = self.directory / f"{name}.toml"
        with self.log(name).open("ab") as log:
            process = self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "portal_adapter", command, "--config", config],
                cwd=self.directory, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

        def answers() -> bool:
            assert process.poll() is None, self.log(name).read_text()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
                return True
            return False

        until(answers, 30, f"{name} listens; {self.log(name).read_text()}")

    def run(self, command: str, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`paraph-portal COMMAND --config` the file of 'portal' or 'window', and `words`, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "portal_adapter", command, "--config", self.directory / f"{name}.toml", *words],
            cwd=self.directory, env=_ENVIRONMENT, check=False, text=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(30)
        finally:
            process.kill()

    # ---- people

    def _enrol(self, person: Person) -> None:
        """As an operator begins it and she ends it."""
        enrolment = self.begins_enrolment(person)
        after = len(self.inbox.messages)
        with Caller(self.rig, "window") as window:
            begun = window.signing.CompleteEnrolment(pb.CompleteEnrolmentRequest(enrolment=enrolment), timeout=10)
            person.uri = begun.otp_uri
            otp = self.inbox.code(person.name, "confirm-code", after) if person.factor == "sent" else person.otp()
            request = pb.CompleteEnrolmentRequest(enrolment=enrolment, secret_code=person.secret_code, otp=otp)
            assert window.signing.CompleteEnrolment(request, timeout=10).complete

    def begins_enrolment(self, person: Person) -> str:
        """The enrolment code that she was sent."""
        after = len(self.inbox.messages)
        request = op.EnrolSubjectRequest(
            subject=person.name, contact_kind="webhook", contact=self.inbox.url(person.name), factor=person.factor,
            language="en",
        )  # fmt: skip
        with Caller(self.rig, "operator") as operator:
            operator.operator.EnrolSubject(request, timeout=10)
        return self.inbox.code(person.name, "enrolment-code", after)

    def unlocks(self, name: str) -> None:
        """As an operator does it: what tests have typed wrong for a person is forgotten."""
        with Caller(self.rig, "operator") as operator:
            operator.operator.UnlockSubject(op.UnlockSubjectRequest(subject=name), timeout=10)

    def card(
        self,
        given: str,
        family: str,
        *,
        usage: str = "digital_signature",
        issuer: Authority | None = None,
        ends: timedelta = timedelta(days=365),
        serial: str = "",
        key: Any = None,
    ) -> tuple[Path, Path]:
        """A product with a key in a file, on P-256 or another one: (certificate, key) in PEM, as a browser would present it."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        made = (issuer or self.rig.pki.issuing).issue(
            given, key.public_key(), usage, subject=subject(given, family, serial=serial), ends=ends,
            begins=timedelta(days=-400), extended=[ExtendedKeyUsageOID.CLIENT_AUTH],
        )  # fmt: skip
        files = (self.directory / f"card-{secrets.token_hex(4)}.{end}" for end in ("pem", "key"))
        certificate, private = files
        certificate.write_bytes(pem(made))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def browser(self, card: tuple[Path, Path] | None = None, address: str = "") -> "Browser":
        """At an address of its own, as the limits of addresses are counted."""
        self._browsers.append(Browser(self, card, address or f"127.0.1.{len(self._browsers) + 1}"))
        return self._browsers[-1]


class Browser:
    """A browser without a window: its cookies, a card that it presents where TLS asks, and no redirect by itself."""

    def __init__(self, real: Real, card: tuple[Path, Path] | None, address: str) -> None:
        self.real, self.address = real, address
        tls = ssl.create_default_context(cafile=str(real.ca))
        if card is not None:
            tls.load_cert_chain(*card)
        wire = httpx.HTTPTransport(verify=tls, local_address=address)
        headers = {"accept-language": "en"}
        self.http = httpx.Client(transport=wire, base_url=real.portal_origin, headers=headers, timeout=30)

    def get(self, address: str, **more: Any) -> httpx.Response:
        """Of the portal, or of a whole address."""
        return self.http.get(address, **more)

    def post(self, address: str, page: str, fields: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        """With the hidden fields of `page` (HTML), which is the one that shows the form."""
        return self.http.post(address, data={**hidden(page), **(fields or {})}, **more)

    def asks_for_window(self, number: str, back: str = "/") -> str:
        """The window's address to which the portal sends her."""
        page = self.get("/login").text
        begun = self.post("/login/server", page, {"number": number, "back": back})
        assert begun.status_code == 303, begun.text
        address = begun.headers["location"]
        assert address.startswith(f"{self.real.window_origin}/login?"), address
        return str(address)

    def types(self, address: str, secret_code: str, otp: str) -> httpx.Response:
        """The window's answer to her codes, or to being asked for one."""
        page = self.get(address)
        assert page.status_code == 200, page.text
        return self.post(address, page.text, {"secret_code": secret_code, "otp": otp})

    def has_sent(self, address: str, page: str, fields: Mapping[str, str] | None = None) -> httpx.Response:
        """A code, by the form of `page`; the page that she is led to."""
        done = self.post(address, page, {**(fields or {}), "do": "send"})
        assert done.status_code == 303, done.text
        return self.get(urljoin(address, done.headers["location"]))

    def codes_of(self, person: Person, address: str) -> str:
        """Her one-time code; one that is sent is asked for on the window's page."""
        if person.factor != "sent":
            return person.otp()
        after = len(self.real.inbox.messages)
        self.has_sent(address, self.get(address).text)
        return self.real.inbox.code(person.name, "login-code", after)

    def returns(self, answer: httpx.Response) -> httpx.Response:
        """From the window or the cards' origin to the portal, and its button pressed."""
        assert answer.status_code == 303, answer.text
        page = self.get(answer.headers["location"])
        assert page.status_code == 200, page.text
        action = re.search(r'<form method="post" action="(/login/(?:statement|ticket))"', page.text)
        assert action is not None, page.text
        return self.post(action[1], page.text)

    def logs_in(self, person: Person, *, terms: bool = True) -> None:
        """Through the window; an unknown product is registered first."""
        address = self.asks_for_window(person.number)
        self.opens(self.returns(self.types(address, person.secret_code, self.codes_of(person, address))), terms=terms)

    def presents(self) -> httpx.Response:
        """The cards' origin's answer to the card that this browser has."""
        page = self.get("/login").text
        begun = self.post("/login/card", page, {"back": "/"})
        assert begun.status_code == 303, begun.text
        shown = self.get(begun.headers["location"])
        if 'action="/present' not in shown.text:
            return shown
        return self.post(f"{self.real.cards_origin}/present", shown.text)

    def logs_in_with_card(self, *, terms: bool = True) -> None:
        self.opens(self.returns(self.presents()), terms=terms)

    def opens(self, done: httpx.Response, *, terms: bool = True) -> None:
        """What follows the portal's answer to a proof: an unknown product is registered, the terms are accepted."""
        if done.headers.get("location") == "/register":
            fields = {"email": "somebody@example.org", "kind": "smartcard"}
            done = self.post("/register", self.get("/register").text, fields)
        assert done.status_code == 303, done.text
        if terms:
            self.post("/terms", self.get("/terms").text, {"accepted": "yes"})


def subject(given: str, family: str, *, serial: str = "") -> x509.Name:
    names = [
        x509.NameAttribute(NameOID.GIVEN_NAME, given),
        x509.NameAttribute(NameOID.SURNAME, family),
        x509.NameAttribute(NameOID.COMMON_NAME, f"{given} {family}"),
    ]
    return x509.Name([*names, x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)] if serial else names)


def _free_ports(count: int) -> Iterator[int]:
    """All different: they are taken at the same time."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            yield int(probe.getsockname()[1])
