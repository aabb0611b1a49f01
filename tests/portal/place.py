"""
A portal in this process, asked as a browser would ask it: cookies, forms with their tokens, redirects.

    place = Place(tmp_path)
    ada = place.visitor()
    ada.logs_in("Ada", "Lovelace")       # registers her product, too
"""

import base64
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx2 as httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from starlette.testclient import TestClient

from portal_adapter import app as portal
from portal_adapter.auth.number import Numbers
from portal_adapter.clock import Clock
from portal_adapter.form.paper import Paper
from portal_adapter.form.process import Printer
from portal_adapter.settings import load
from portal_adapter.store.database import open_database
from tests.portal.desk import Desk

ORIGIN, WINDOW, CARDS = "https://portal.test", "https://window.test", "https://cards.test"


class SetClock(Clock):
    """Stands still until it is moved; each file of tests begins at the same time (conftest.py)."""

    BEGIN = int(datetime(2026, 11, 27, 9, 0, tzinfo=UTC).timestamp())
    at = BEGIN

    def now(self) -> int:
        return SetClock.at

    @staticmethod
    def later(seconds: int) -> None:
        SetClock.at += seconds


class Issuer:
    """A CA that makes products."""

    def __init__(self, name: str = "Test Products CA", *, key: Any = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=900))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(self.key, hashes.SHA256())
        )  # fmt: skip

    def product(
        self,
        given: str,
        family: str,
        *,
        signs: bool = False,
        both: bool = False,
        days: int = 365,
        serial: str = "",
        policies: tuple[str, ...] = (),
        begins: int = -800,
        key: Any = None,
        signed_with: hashes.HashAlgorithm | None = None,
    ) -> "Product":
        """Valid from `begins` to `days` from now on; its own key is on P-256, its signature with SHA-256."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.NameAttribute(NameOID.GIVEN_NAME, given),
            x509.NameAttribute(NameOID.SURNAME, family),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{given} {family}"),
        ]
        if serial:
            names.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
        now = datetime.fromtimestamp(SetClock.at, UTC)
        usage = x509.KeyUsage(not signs, signs or both, False, False, False, False, False, False, False)
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name(names)).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now + timedelta(days=begins))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(usage, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )  # fmt: skip
        if not signs:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        if policies:
            found = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in policies]
            builder = builder.add_extension(x509.CertificatePolicies(found), critical=False)
        made = Product(key, builder.sign(self.key, signed_with or hashes.SHA256()))
        self.last = made.der
        return made


class Product:
    def __init__(self, key: Any, certificate: x509.Certificate) -> None:
        self.key, self.certificate = key, certificate
        self.der = certificate.public_bytes(serialization.Encoding.DER)

    def statement(
        self, nonce: str, *, caller: str = "window", audience: str = ORIGIN, subject: str = "ada"
    ) -> dict[str, str]:
        """What the window brings back, as the daemon would have made it."""
        text = f"paraph-login-v1\n{caller}\n{audience}\n{nonce}\n{subject}\n2026-11-27T09:00:00Z\n".encode()
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(text)
        else:
            signature = self.key.sign(text, ec.ECDSA(hashes.SHA256()))
        return {"statement": b64(text), "signature": b64(signature), "certificate": b64(self.der)}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Known(Numbers):
    """Whose a number is, without a daemon."""

    def __init__(self, place: "Place") -> None:
        object.__setattr__(self, "place", place)

    def certificate_of(self, number: str) -> bytes | None:
        place: Place = self.place  # type: ignore[attr-defined]
        return place.numbers.get(number, place.issuer.last)


class Visitor:
    """One browser: `get` and `post` do not follow redirects, `follow` does one."""

    def __init__(self, place: "Place", app: Any, origin: str) -> None:
        self.place = place
        self.http = TestClient(app, base_url=origin, follow_redirects=False, raise_server_exceptions=True)
        self.http.headers["accept-language"] = "en"

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.http.get(path, **more)

    def form(self, path: str) -> dict[str, str]:
        """The hidden fields of a page's forms, those of the last one first wins."""
        page = self.get(path)
        assert page.status_code == 200, f"{path}: {page.status_code} {page.text[:500]}"
        return hidden(page.text)

    def post(
        self, path: str, fields: Mapping[str, str] | None = None, *, page: str = "/terms", **more: Any
    ) -> httpx.Response:
        """With the tokens of `page`, which is the one that shows the form."""
        given = {name: value for name, value in self.form(page).items() if name in {"csrf", "form"}}
        return self.http.post(path, data={**given, **(fields or {})}, **more)

    def json(self, path: str, fields: Mapping[str, str] | None = None) -> httpx.Response:
        """As a program would: GET without fields, POST with them."""
        headers = {"accept": "application/json"}
        if fields is None:
            return self.http.get(path, headers=headers)
        token = self.http.get("/terms", headers=headers).json()["csrf"]
        return self.http.post(path, json=dict(fields), headers={**headers, "x-csrf-token": token})

    def proves(self, product: Product, number: str = "ada-login", back: str = "/") -> httpx.Response:
        """A login by the Signing Server up to the portal's answer to its statement."""
        self.place.numbers[number] = product.der
        begun = self.post("/login/server", {"number": number, "back": back}, page="/login")
        assert begun.status_code == 303, begun.text
        nonce = re.search(r"nonce=([0-9a-f]+)", begun.headers["location"])
        assert nonce is not None
        return self.post("/login/statement", product.statement(nonce[1]))

    def logs_in(
        self, given: str = "Ada", family: str = "Lovelace", product: Product | None = None, *, terms: bool = True
    ) -> Product:
        """With a new product it is registered first, and the terms are accepted."""
        product = product or self.place.issuer.product(given, family)
        done = self.proves(product, f"{given.lower()}-login")
        if done.headers.get("location") == "/register":
            done = self.post("/register", {"email": f"{given.lower()}@example.org"}, page="/register")
        assert done.status_code == 303, done.text
        if terms:
            self.post("/terms", {"accepted": "yes"})
        return product

    def creates_business(self, title: str = "Engines", **more: str) -> str:
        """The identifier of a new business space."""
        fields = {
            "kind": "legal_person",
            "title": title,
            "company": f"{title} Ltd",
            "email": "office@example.org",
            **more,
        }
        done = self.post("/spaces/new/business", fields, page="/spaces/new/business")
        assert done.status_code == 303, done.text
        return done.headers["location"].rsplit("/", 1)[1]


def hidden(html: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', html))


class Quick(Printer):
    """Stands in for the process that draws, which test_form_process.py and the demo's tests ask: it says the same of the same."""

    def draw(self, paper: Paper) -> bytes:
        return b"%PDF-1.7\n%" + paper.encoded() + b"\n%%EOF\n"


@cache
def _empty_database() -> bytes:
    """What the migrations make, made once: they take as long as most tests."""
    with tempfile.TemporaryDirectory() as directory:
        open_database(Path(directory), None).dispose()
        return (Path(directory) / "portal.db").read_bytes()


class Place:
    """`settings` are TOML lines that are added; `sections` replace or add whole sections."""

    def __init__(
        self, directory: Path, *, extra: str = "", database: str | None = None, clock: Clock | None = None
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.issuer = Issuer()
        pem = self.issuer.certificate.public_bytes(serialization.Encoding.PEM)
        (directory / "issuers.pem").write_bytes(pem)
        (directory / "key").write_bytes(bytes(range(32)))
        (directory / "key").chmod(0o600)
        for language, text in (("en", "Be honest.\n\nBe kind."), ("fr", "Soyez honnête.\n\nSoyez aimable.")):
            (directory / f"terms-{language}.txt").write_text(text)
        url = f'database = "{database}"' if database else ""
        self.config = directory / "portal.toml"
        self.config.write_text(f"""
[portal]
name = "Millbrook"
origin = "{ORIGIN}"
state = "state"
key_file = "key"
{url}
[listener]
address = "127.0.0.1:1"
certificate = "tls.pem"
key = "tls.key"
[cards]
address = "127.0.0.1:2"
certificate = "tls.pem"
key = "tls.key"
origin = "{CARDS}"
client_ca = "issuers.pem"
[window]
origin = "{WINDOW}"
caller = "window"
[daemon]
profile = "client.toml"
[trust]
issuers = ["issuers.pem"]
[mail]
sender = "portal@example.org"
directory = "mail"
[terms]
version = "1"
fr = "terms-fr.txt"
en = "terms-en.txt"
{extra}
""")
        if database is None and not (directory / "state" / "portal.db").exists():
            (directory / "state").mkdir(mode=0o700)
            (directory / "state" / "portal.db").write_bytes(_empty_database())
        # What the daemon would say; of other numbers, that they are the last product's.
        self.numbers: dict[str, bytes] = {}
        made = portal.services(load(self.config), clock=clock or SetClock())
        self.desk = Desk()
        asked: Any = self.desk
        self.services = replace(made, numbers=Known(self), printer=Quick(), daemon=asked)
        self.app = portal.app(self.services)
        self.cards = portal.cards_app(self.services)

    def visitor(self) -> Visitor:
        return Visitor(self, self.app, ORIGIN)

    def close(self) -> None:
        self.services.close()
