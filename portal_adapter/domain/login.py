"""
Logging in and registering, whatever the product: begun here, proven elsewhere, finished here in the same browser.

    begin      a nonce for one browser, two minutes long
    proven     by a statement of the window (Signing Server), or a ticket of the cards' origin (card, stick)
    finish     the product's account has a session; a product without one may be registered, or is somebody's renewed one

Whoever proves something for another browser's nonce helps nobody: the proof travels through his own browser, which has not
the cookie that the nonce is bound to.
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from portal_adapter.auth import certificate as certificates
from portal_adapter.auth import session as sessions
from portal_adapter.auth.certificate import Certificate
from portal_adapter.domain import account as account_of
from portal_adapter.domain import audit, marks, renewal
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields, folded
from portal_adapter.domain.ids import hashed, new_id, new_secret
from portal_adapter.domain.renewal import Renewed
from portal_adapter.network import network
from portal_adapter.refusal import Refusal, guard, invalid
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, attempts, presented, products, tickets

NONCE_BYTES = 32
REGISTER_S = 15 * 60  # a presented product waits so long for its registration
AGAIN_S = 60  # the same form, clicked twice, leads to the same account
_REGISTERED = "registered"  # a presented product's kind, once it belongs to somebody
ATTEMPT_KEPT_S = 3600  # one that is over is told from one that never was


@dataclass(frozen=True, slots=True)
class Proof:
    """A product that its holder has just used, for an attempt of this browser."""

    certificate: Certificate
    number: str  # of a Signing Server product; empty for a card or stick
    back: str

    @property
    def key(self) -> str:
        """Of the certificate with the number."""
        return f"{self.certificate.fingerprint} {self.number}"


@dataclass(frozen=True, slots=True)
class LoggedIn:
    token: str  # for the cookie
    back: str


def begin(connection: Connection, now: int, visitor: str, back: str, number: str, limits: Limits, address: str) -> str:
    """Answers the nonce in hexadecimal; raises `rate-limited`."""
    who = network(address)
    marks.check(connection, now, "login", who, limits.login_a_minute, 60)
    marks.mark(connection, now, "login", who)
    nonce = secrets.token_hex(NONCE_BYTES)
    connection.execute(
        insert(attempts).values(nonce=hashed(nonce), visitor=hashed(visitor), back=back, number=number, created=now)
    )
    connection.execute(delete(attempts).where(attempts.c.created < now - ATTEMPT_KEPT_S))
    return nonce


def issue_ticket(connection: Connection, now: int, nonce: str, certificate: bytes, limits: Limits) -> str:
    """For the cards' origin: a certificate was presented for this nonce. The ticket goes back through the same browser."""
    row = connection.execute(select(attempts).where(attempts.c.nonce == hashed(nonce))).mappings().first()
    if row is None or row["used"] is not None or now - row["created"] > limits.challenge_s:
        raise _begin_again("attempt-over")
    ticket = new_secret()
    connection.execute(
        insert(tickets).values(ticket=hashed(ticket), nonce=hashed(nonce), certificate=certificate, created=now)
    )
    return ticket


def take_ticket(connection: Connection, now: int, ticket: str, limits: Limits) -> tuple[str, bytes]:
    """The hashed nonce and the certificate; a ticket is taken once."""
    row = connection.execute(select(tickets).where(tickets.c.ticket == hashed(ticket))).mappings().first()
    gone = connection.execute(delete(tickets).where(tickets.c.ticket == hashed(ticket))).rowcount
    connection.execute(delete(tickets).where(tickets.c.created < now - limits.challenge_s))
    if row is None or not gone or now - row["created"] > limits.challenge_s:
        raise _begin_again("ticket-over")
    return row["nonce"], row["certificate"]


def use_attempt(connection: Connection, now: int, nonce: str, visitor: str, limits: Limits) -> tuple[str, str]:
    """Of a hashed nonce: the page that was wanted, and the number that was named. Once, in the browser that began."""
    row = connection.execute(select(attempts).where(attempts.c.nonce == nonce)).mappings().first()
    if row is None or row["visitor"] != hashed(visitor):
        raise _begin_again("attempt-unknown")
    if now - row["created"] > limits.challenge_s:
        raise _begin_again("attempt-over")
    used = (
        update(attempts).where(attempts.c.nonce == nonce, attempts.c.used.is_(None)).values(used=now, back="")
    )  # it may be a personal link
    if not connection.execute(used).rowcount:
        raise _begin_again("attempt-used")
    return row["back"], row["number"]


def finish(connection: Connection, now: int, proof: Proof, visitor: str, address: str) -> LoggedIn | None:
    """A session; None where the product is nobody's yet: it may be registered from this browser."""
    owner = owner_of(connection, proof)
    if owner is None:
        present(connection, now, proof, visitor)
        return None
    forget(connection, visitor)
    token = sessions.open_session(connection, now, owner, proof.certificate.fingerprint)
    _note_login(connection, now, owner, proof, address)
    return LoggedIn(token, proof.back)


def owner_of(connection: Connection, proof: Proof) -> str | None:
    """The account that its product belongs to."""
    found = products.c.fingerprint == proof.certificate.fingerprint
    owner: str | None = connection.execute(select(products.c.account).where(found)).scalar()
    return owner


def forget(connection: Connection, visitor: str) -> None:
    """What was presented in this browser and not registered."""
    connection.execute(delete(presented).where(presented.c.visitor == hashed(visitor)))


def forget_old(connection: Connection, now: int) -> None:
    """What was begun or presented and is over: it names people, and where they wanted to go."""
    connection.execute(delete(attempts).where(attempts.c.created < now - ATTEMPT_KEPT_S))
    connection.execute(delete(tickets).where(tickets.c.created < now - ATTEMPT_KEPT_S))
    connection.execute(delete(presented).where(presented.c.created < now - REGISTER_S))


def present(connection: Connection, now: int, proof: Proof, visitor: str) -> None:
    connection.execute(
        delete(presented).where((presented.c.visitor == hashed(visitor)) | (presented.c.created < now - REGISTER_S))
    )
    connection.execute(
        insert(presented).values(
            visitor=hashed(visitor), kind="server" if proof.number else "", number=proof.number,
            certificate=proof.certificate.der, created=now, back=proof.back,
        )
    )  # fmt: skip


def presented_in(connection: Connection, now: int, visitor: str) -> Proof | None:
    """What this browser may register; its certificate was accepted when it was presented."""
    row = connection.execute(select(presented).where(presented.c.visitor == hashed(visitor))).mappings().first()
    if row is None or row["kind"] == _REGISTERED or now - row["created"] > REGISTER_S:
        return None
    return Proof(certificates.read(row["certificate"]), row["number"], row["back"])


def renewed(connection: Connection, proof: Proof) -> Renewed | None:
    """Whose product was renewed by the one that was presented."""
    return renewal.of(connection, proof.certificate, is_server=bool(proof.number))


def register(
    connection: Connection, now: int, visitor: str, form: dict[str, str], language: str, limits: Limits, address: str,
    checked: str,
) -> LoggedIn:  # fmt: skip
    """A new account with the presented product (TOK-15), and its session; `checked` is the proof whose number is right."""
    proof = _presented(connection, now, visitor)
    certificate = proof.certificate
    fields = Fields(form)
    fields.read_only("family", certificate.family)
    fields.read_only("given", certificate.given)
    email = fields.email("email", most=limits.email)
    kind = "server" if proof.number else fields.choice("kind", ("smartcard", "stick"))
    fields.check()
    account = new_id()
    connection.execute(
        insert(accounts).values(
            id=account,
            family=certificate.family,
            given=certificate.given,
            email=email,
            language=language,
            created=now,
            names=renewal.names(certificate.family, certificate.given),
        )
    )
    _add(connection, now, account, kind, proof, checked)
    audit.note(connection, now, "register", account=account, address=address, fingerprint=certificate.fingerprint)
    return _entered(connection, now, account, proof, visitor)


def renew(connection: Connection, now: int, visitor: str, address: str, checked: str) -> LoggedIn:
    """The presented product is added to the account whose product it renews, by who has just used it; her address is told."""
    proof = _presented(connection, now, visitor)
    old = renewed(connection, proof)
    if old is None:
        raise _begin_again("nothing-renewed")
    _add(connection, now, old.account, old.kind, proof, checked)
    account_of.notice(connection, now, old.account, "product-renewed", proof.certificate.issuer)
    audit.note(
        connection, now, "product-renewed", account=old.account, address=address,
        fingerprint=proof.certificate.fingerprint, renews=old.fingerprint,
    )  # fmt: skip
    return _entered(connection, now, old.account, proof, visitor)


def again(connection: Connection, now: int, visitor: str, account: str, address: str) -> LoggedIn | None:
    """
    Where the form of `register` or `renew` leads when it is posted once more, by a second click: to the same account. The
    answer to the first one, with its cookie, may not have reached the browser, so there is another session, unless it is
    there already (`account`).
    """
    row = connection.execute(select(presented).where(presented.c.visitor == hashed(visitor))).mappings().first()
    if row is None or row["kind"] != _REGISTERED or now - row["created"] > AGAIN_S:
        return None
    proof = Proof(certificates.read(row["certificate"]), row["number"], row["back"])
    owner = owner_of(connection, proof)
    if owner is None:
        return None
    if owner == account:
        return LoggedIn("", proof.back)
    _note_login(connection, now, owner, proof, address)
    return LoggedIn(sessions.open_session(connection, now, owner, proof.certificate.fingerprint), proof.back)


def add_product(
    connection: Connection, now: int, account: str, visitor: str, form: dict[str, str], address: str, checked: str
) -> None:
    """Another product of a logged-in person; names must be hers. `checked` as for `register`."""
    proof = _presented(connection, now, visitor)
    check_names(connection, account, proof.certificate)
    fields = Fields(form)
    fields.read_only("family", proof.certificate.family)
    fields.read_only("given", proof.certificate.given)
    kind = "server" if proof.number else fields.choice("kind", ("smartcard", "stick"))
    fields.check()
    _add(connection, now, account, kind, proof, checked)
    forget(connection, visitor)
    account_of.notice(connection, now, account, "product-added", proof.certificate.issuer)
    audit.note(
        connection, now, "product-added", account=account, address=address, fingerprint=proof.certificate.fingerprint
    )


def bind_product(
    connection: Connection, now: int, account: str, kind: str, certificate: Certificate, number: str
) -> None:
    """By an operator, for a person who has lost her other ones: names must be hers, and her address is told."""
    check_names(connection, account, certificate)
    proof = Proof(certificate, number, "")
    _add(connection, now, account, kind, proof, proof.key)
    account_of.notice(connection, now, account, "product-added", certificate.issuer)


def check_names(connection: Connection, account: str, certificate: Certificate) -> None:
    """Raise `guard-failed` `other-person` unless the certificate has the account's names."""
    own = connection.execute(select(accounts).where(accounts.c.id == account)).mappings().one()
    names = (folded(certificate.family), folded(certificate.given))
    if names != (folded(own["family"]), folded(own["given"])):
        raise guard("other-person", "This product has another person's names.")


def remove_product(connection: Connection, now: int, account: str, product: str, address: str) -> None:
    """All but the last; its sessions end at once."""
    mine = connection.execute(select(products).where(products.c.account == account).with_for_update()).mappings().all()
    found = next((one for one in mine if one["id"] == product), None)
    if found is None:
        raise Refusal("not-found")
    if len(mine) == 1:
        raise guard("last-product", "This is your only product: register another one before you remove it.")
    connection.execute(delete(products).where(products.c.id == product))
    sessions.end_all(connection, now, account, fingerprint=found["fingerprint"])
    issuer = certificates.read(found["certificate"]).issuer
    account_of.notice(connection, now, account, "product-removed", issuer)
    audit.note(connection, now, "product-removed", account=account, address=address, fingerprint=found["fingerprint"])


def products_of(connection: Connection, account: str) -> list[dict[str, object]]:
    rows = connection.execute(select(products).where(products.c.account == account).order_by(products.c.added))
    return [dict(row) for row in rows.mappings()]


def _add(connection: Connection, now: int, account: str, kind: str, proof: Proof, checked: str) -> None:
    if proof.number and proof.key != checked:  # another one was presented meanwhile
        raise _begin_again("nothing-presented")
    fingerprint = proof.certificate.fingerprint
    if connection.execute(select(products.c.id).where(products.c.fingerprint == fingerprint)).first() is not None:
        raise invalid("product", "product-taken", "This product belongs to an account already.")
    connection.execute(
        insert(products).values(
            id=new_id(), account=account, kind=kind, number=proof.number, fingerprint=fingerprint,
            certificate=proof.certificate.der, added=now,
        )
    )  # fmt: skip


def _presented(connection: Connection, now: int, visitor: str) -> Proof:
    proof = presented_in(connection, now, visitor)
    if proof is None:
        raise _begin_again("nothing-presented")
    return proof


def _entered(connection: Connection, now: int, account: str, proof: Proof, visitor: str) -> LoggedIn:
    """A session with the product that has just become the account's."""
    mine = presented.c.visitor == hashed(visitor)
    connection.execute(update(presented).where(mine).values(kind=_REGISTERED, created=now))
    return LoggedIn(sessions.open_session(connection, now, account, proof.certificate.fingerprint), proof.back)


def logout(connection: Connection, now: int, account: str, token: str, address: str) -> None:
    """`token` is the hashed one."""
    sessions.end(connection, now, token)
    audit.note(connection, now, "logout", account=account, address=address)


def _note_login(connection: Connection, now: int, owner: str, proof: Proof, address: str) -> None:
    """With how it was proven: by codes in the window, or by TLS with a card or stick."""
    by = "codes" if proof.number else "tls"
    audit.note(
        connection, now, "login", account=owner, address=address, by=by, fingerprint=proof.certificate.fingerprint
    )  # fmt: skip


def logout_elsewhere(connection: Connection, actor: Actor) -> None:
    """Her other sessions, of whatever product, end at once."""
    ended = sessions.end_others(connection, actor.now, actor.account, actor.session)
    audit.note(
        connection, actor.now, "sessions-ended", account=actor.account, address=actor.address, sessions=ended
    )  # fmt: skip


def _begin_again(reason: str) -> Refusal:
    return Refusal("unauthenticated", "This login is over. Please begin again.", reason=reason)
