"""Keys and hashes of certificates have 128 bits of security, by whatever way somebody comes (ASVS 11.2.3)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from sqlalchemy import func, select

from portal_adapter import app as portal
from portal_adapter.auth import strength
from portal_adapter.auth.session import SESSION_COOKIE
from portal_adapter.domain import login
from portal_adapter.refusal import Refusal
from portal_adapter.serving import Fronted
from portal_adapter.settings import SettingsError, load
from portal_adapter.store.schema import accounts, presented, products
from tests.portal.cards import at_cards, nonce_of_card
from tests.portal.commands import command
from tests.portal.place import CARDS, Issuer, Place, Product, SetClock, Visitor, hidden
from tests.portal.signs import begins
from tests.portal.test_procedures import confirmed
from tests.portal.test_session import begins as begins_login
from tests.portal.test_session import certificate_of, outcomes, revoked
from tests.portal.test_signing import offered

HEADER = "X-Client-Certificate"
SERIAL = "PNOLU-19151210"
JSON = {"accept": "application/json"}
TOO_SHORT = "The key of this product is too short to be safe. Ask its issuer for a certificate with a longer key."
TOO_SHORT_FR = "Demandez à son émetteur un certificat avec une clé plus longue."
MADE: Mapping[str, Callable[[], Any]] = {
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-3071": lambda: rsa.generate_private_key(65537, 3071),
    "RSA-3072": lambda: rsa.generate_private_key(65537, 3072),
    "P-192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "DSA-3072": lambda: dsa.generate_private_key(3072),
}
STRONG = ("RSA-3072", "P-256", "Ed25519")
WEAK = ("RSA-1024", "P-192", "P-224")


@cache
def key(kind: str) -> Any:
    """One of each kind for all tests: long ones take a second."""
    return MADE[kind]()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where one address may try many products."""
    made = Place(tmp_path, extra="[limits]\nlogin_a_minute = 1000")
    yield made
    made.close()


def sets(place: Place, line: str) -> None:
    """A line of [trust], and a start with it."""
    before, _, rest = place.config.read_text().partition("[trust]")
    rest = rest[rest.index("[mail]") :]
    place.config.write_text(f'{before}[trust]\nissuers = ["issuers.pem"]\n{line}\n{rest}')
    old, made = place.services, portal.services(load(place.config), clock=SetClock())
    place.services = replace(made, numbers=old.numbers, daemon=old.daemon, printer=old.printer)
    made.printer.close()
    old.close()
    place.app, place.cards = portal.app(place.services), portal.cards_app(place.services)


def product(place: Place, kind: str, **more: Any) -> Product:
    return place.issuer.product("Ada", "Lovelace", key=key(kind), **more)


def count(place: Place, table: Any) -> int:
    with place.services.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


# ---- the ways, each with the reason for which a product is refused, or nothing where it is taken


def reason(answer: Any, refused: tuple[int, str] = (409, "guard-failed")) -> str:
    if answer.status_code in {200, 303}:
        return ""
    assert (answer.status_code, answer.json()["code"]) == refused, answer.text
    return str(answer.json()["reason"])


def by_statement(place: Place, shown: Product) -> str:
    visitor = place.visitor()
    return reason(visitor.post("/login/statement", shown.statement(begins_login(visitor)), headers=JSON))


def by_card(place: Place, shown: Product) -> str:
    return _presented(place, shown, at_cards)


def by_front(place: Place, shown: Product) -> str:
    return _presented(place, shown, at_front)


def at_front(place: Place, shown: Product) -> Visitor:
    """A browser at the cards' origin, after a front that has ended TLS."""
    visitor = Visitor(place, Fronted(place.cards, HEADER), CARDS)
    visitor.http.headers[HEADER] = quote(shown.certificate.public_bytes(serialization.Encoding.PEM))
    return visitor


def _presented(place: Place, shown: Product, at: Callable[[Place, Product], Visitor]) -> str:
    """The page and its button say the same; the button's token is of a page that was shown for a good card."""
    nonce = nonce_of_card(place.visitor())
    good = at(place, product(place, "P-256"))
    form = hidden(good.get("/present", params={"nonce": nonce}).text)
    visitor = at(place, shown)
    visitor.http.cookies = good.http.cookies
    page = visitor.get("/present", params={"nonce": nonce}, headers=JSON)
    done = visitor.http.post("/present", data=form, headers=JSON)
    refused = (403, "forbidden")
    assert reason(page, refused) == reason(done, refused)
    return reason(done, refused)


def by_ticket(place: Place, shown: Product) -> str:
    """The portal looks once more at what the cards' origin has accepted."""
    visitor = place.visitor()
    nonce = nonce_of_card(visitor)
    with place.services.engine.begin() as connection:
        given = login.issue_ticket(connection, SetClock.at, nonce, shown.der, place.services.settings.limits)
    return reason(visitor.post("/login/ticket", {"ticket": given}, headers=JSON))


def by_operator(place: Place, shown: Product) -> str:
    """`paraph-portal user add-product`, for who has an account."""
    if not count(place, accounts):
        place.visitor().logs_in()
    (person,) = json.loads(command(place, "user", "list", "--json").stdout)
    file = place.directory / "shown.der"
    file.write_bytes(shown.der)
    done = command(place, "user", "add-product", person["id"], "--smartcard", str(file))
    if done.returncode == 0:
        return ""
    assert done.stderr == f"paraph-portal: guard-failed: {TOO_SHORT}\n"
    return "key-too-short"


@pytest.mark.parametrize("way", [by_statement, by_card, by_front, by_ticket, by_operator])
def test_every_way_wants_128_bits(place: Place, way: Callable[[Place, Product], str]) -> None:
    """
    TOK-08: RSA keys of 3072 bits and curves of 256; by the setting RSA keys of 2048 bits come, too, and what is shorter never
    does.
    """

    def refused(kinds: Sequence[str]) -> list[str]:
        reasons = {kind: way(place, product(place, kind)) for kind in kinds}
        assert set(reasons.values()) <= {"", "key-too-short"}
        return [kind for kind, said in reasons.items() if said]

    assert refused([*STRONG, "RSA-2048", *WEAK]) == ["RSA-2048", *WEAK]
    sets(place, "rsa_bits_min = 2048")
    assert refused([*STRONG, "RSA-2048", *WEAK]) == [*WEAK]


def test_a_short_key_is_registered_nowhere(place: Place) -> None:
    """TOK-06, TOK-15: neither as an account's first product, nor as another one or a renewed one; by the setting it is."""
    ada = place.visitor()
    hers = ada.logs_in(product=product(place, "P-256", serial=SERIAL))

    def tries() -> list[Any]:
        """A new account's, a renewed one of Ada's, another one of hers: where each leads to."""
        new = place.visitor()
        first = new.proves(place.issuer.product("Bob", "Boole", key=key("RSA-2048")), "bob-login")
        renewed = place.visitor()
        second = renewed.proves(product(place, "RSA-2048", serial=SERIAL, begins=-1), "ada-new")
        third = ada.proves(product(place, "RSA-2048"), "ada-2")
        pages = [new.get("/register"), renewed.get("/register"), ada.get("/account/products/new")]
        leads = [page.headers.get("location", page.status_code) for page in pages]
        return [(one.status_code, lead) for one, lead in zip((first, second, third), leads, strict=True)]

    before = [count(place, table) for table in (accounts, products, presented)]
    assert [status for status, _ in tries()] == [409] * 3
    assert [lead for _, lead in tries()][:2] == ["/login"] * 2
    assert [count(place, table) for table in (accounts, products, presented)] == before
    sets(place, "rsa_bits_min = 2048")
    ada = place.visitor()
    ada.logs_in(product=hers)
    assert tries() == [(303, 200), (303, "/renewal"), (303, 200)]


@pytest.mark.parametrize(("language", "said"), [("en", TOO_SHORT), ("fr", TOO_SHORT_FR)])
def test_who_has_a_short_key_reads_what_to_do(place: Place, language: str, said: str) -> None:
    """TOK-08, UI-02: a person whose product did before is told to ask for a longer key; the audit has the refusal."""
    sets(place, "rsa_bits_min = 2048")
    old = product(place, "RSA-2048")
    place.visitor().logs_in(product=old)
    sets(place, "")
    ada = place.visitor()
    ada.http.headers["accept-language"] = language
    answer = ada.proves(old)
    assert answer.status_code == 409 and said in answer.text
    assert SESSION_COOKIE not in ada.http.cookies
    assert outcomes(place, "login-statement")[-1] == "guard-failed"


@pytest.mark.parametrize("kind", MADE)
def test_the_table_of_keys(kind: str) -> None:
    """TOK-08: each kind of key by its bits; one of another kind is refused, whatever its length."""
    certificate = x509.load_der_x509_certificate(certificate_of(key(kind)))
    strong = {*STRONG, "P-521", "Ed448"}
    assert (strength.fault_of_key(certificate) == "") == (kind in strong)
    assert (strength.fault_of_key(certificate, 2048) == "") == (kind in strong | {"RSA-2048", "RSA-3071"})


# ---- who has signed it


@pytest.mark.parametrize("kind", ["RSA-2048", "RSA-1024", "P-224"])
def test_an_issuers_key_is_as_long(place: Place, kind: str) -> None:
    """TOK-08, UI-07: a CA whose key is shorter is named at the start, with the setting; the setting counts for CAs, too."""
    (place.directory / "issuers.pem").write_bytes(
        Issuer("Short CA", key=key(kind)).certificate.public_bytes(serialization.Encoding.PEM)
    )
    with pytest.raises(SettingsError, match=r"issuers\.pem: CN=Short CA,O=Short CA has an .* trust\.rsa_bits_min"):
        portal.read_files(load(place.config))
    if kind == "RSA-2048":
        sets(place, "rsa_bits_min = 2048")
    else:
        with pytest.raises(SettingsError, match=r"issuers\.pem: "):
            sets(place, "rsa_bits_min = 2048")


def test_a_short_hash_signs_nothing(place: Place) -> None:
    """TOK-08: a certificate whose CA has signed less than 256 bits of hash is refused, and a revocation list is none."""
    assert by_statement(place, product(place, "P-256", signed_with=hashes.SHA224())) == "hash-too-short"
    assert by_statement(place, product(place, "P-256", signed_with=hashes.SHA384())) == ""
    revoked(place, "list.crl", signed_with=hashes.SHA224())
    with pytest.raises(SettingsError, match=r"list\.crl: is signed with a hash"):
        sets(place, 'crls = ["list.crl"]')
    revoked(place, "list.crl")
    sets(place, 'crls = ["list.crl"]')
    card = product(place, "P-256")
    assert place.services.issuers.accept(card.der, SetClock.at)
    revoked(place, "list.crl", card, signed_with=hashes.SHA224())
    with pytest.raises(Refusal, match="no-revocation-list"):
        place.services.issuers.accept(card.der, SetClock.at)


def test_sha1_is_short() -> None:
    """TOK-08: of what is signed with it nothing is believed; a key that hashes by itself names none."""
    for algorithm, is_short in ((hashes.SHA1(), True), (hashes.SHA256(), False), (None, False)):
        signed: Any = SimpleNamespace(signature_hash_algorithm=algorithm)
        assert strength.is_hash_short(signed) is is_short


# ---- signing


def test_a_short_key_is_not_offered_to_sign_with(place: Place) -> None:
    """SIG-03, SIG-04: the same rule as for a login, whoever has issued the certificate; the page says what is wanted."""
    ada = place.visitor()
    place.desk.offers("ada-login", ada.logs_in().der, subject="ada", signs=False)
    for name, kind in (("short", "RSA-2048"), ("weak", "P-224")):
        place.desk.offers(name, Issuer().product("Ada", "Lovelace", signs=True, key=key(kind)).der, subject="ada")
    step = begins(ada, confirmed(ada))
    assert offered(ada, step) == []
    assert "has a key that is long enough" in ada.get(step).text
    done = ada.json(f"{step}/certificate", {"credential": "short"})
    assert (done.status_code, done.json()["errors"][0]["code"]) == (422, "unknown")
    place.desk.offers("long", product(place, "RSA-3072", signs=True).der, subject="ada")
    assert [one["credential"] for one in offered(ada, step)] == ["long"]
    place.services = replace(place.services, issuers=replace(place.services.issuers, rsa_bits_min=2048))
    place.app = portal.app(place.services)
    again = place.visitor()
    again.http.cookies = ada.http.cookies
    assert [one["credential"] for one in offered(again, step)] == ["long", "short"]
