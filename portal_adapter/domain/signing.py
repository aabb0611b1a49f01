"""
Signing a procedure: the portal's side of it (SIG-01 to SIG-16).

    select    the person chooses one of her certificates; the daemon is asked for a batch with the confirmed PDF
    approve   she is at the window, where she reads, approves and types her codes; the daemon signs
    save      it is signed, and not the procedure's yet: what came back is checked, and kept by "Save"

An attempt is open for one procedure at a time. It belongs to one session, and is over once that has ended, or a quarter of
an hour after its last step. What it leaves at the daemon is destroyed (`unsaved.py`): a cancelled attempt that still names
a batch is one whose batch is still to be cancelled, and so is every one that was dropped: of which no attempt tells.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, Select, delete, insert, select, update

from portal_adapter.auth.daemon import Credential, Found
from portal_adapter.auth.renewal import is_same_person
from portal_adapter.auth.session import is_open
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import audit, marks, procedure
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.ids import is_id, new_id
from portal_adapter.domain.procedure import PROCEDURE, Row
from portal_adapter.fsm import Machine
from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, Unmet, guard, invalid, not_found, unmet
from portal_adapter.settings import Limits
from portal_adapter.store.schema import (
    accounts,
    dropped_batches,
    procedures,
    products,
    sessions,
    signatures,
    signings,
    spaces,
)

SIGNING = Machine(
    signings, "state", "select",
    {
        ("select", "choose"): "approve",
        ("approve", "choose"): "approve",
        ("approve", "sign"): "save",
        ("save", "save"): "done",
        ("select", "cancel"): "cancelled",
        ("approve", "cancel"): "cancelled",
        ("save", "cancel"): "cancelled",
    },
    {
        "select": msgid("Select the certificate first."),
        "approve": msgid("This is read, approved and signed in the signing window first."),
        "save": msgid("It is signed: save it, or cancel."),
        "done": msgid("This signing is finished: the signed document is saved."),
        "cancelled": msgid("This signing is over. On the page of the procedure you can begin again."),
    },
)  # fmt: skip
_BATCH = re.compile(r"[0-9a-f-]{36}")  # a UUID, as they are opened (views/signing.py)
KEPT_S = 86400  # an attempt that is over, for a window that comes back late


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be signed: the procedure's confirmed PDF, or, for the second of two signatures, the first-signed one."""

    row: Row
    number: int  # of the signature
    event: str  # of the procedure, when it is saved
    space: str  # in which it is signed
    at: str  # the procedure's page there
    file: str
    sha256: str
    first: Row | None = None  # the first signature, where this is the second
    is_suspended: bool = False  # the procedure's own space, in which nothing becomes ready then


# ---- whose certificate it is: pure


@dataclass(frozen=True, slots=True)
class Choice:
    """A certificate that somebody may sign with."""

    credential: Credential
    name: str  # of its holder
    issuer: str
    ends: int
    is_preselected: bool = False


def choices(credentials: Sequence[Credential], hers: Sequence[Row], login: str, now: int) -> list[Choice]:
    """
    Those of a person whose registered products are `hers`, valid now; `login` is the fingerprint that she has logged in
    with. A credential is hers whose certificate is a product's, or is by its CA's word of the same person, or belongs to
    the daemon's subject that one of her products is of (SIG-03, TOK-03).
    """
    known = {one["fingerprint"] for one in hers}
    subjects = {one.subject for one in credentials if one.fingerprint in known and one.subject}
    found = [
        one
        for one in credentials
        if one.signs_pdf
        and (
            one.fingerprint in known
            or one.subject in subjects
            or any(is_same_person(one.certificate, product["certificate"]) for product in hers)
        )
    ]
    offered = [choice for one in found if (choice := _choice(one, now)) is not None]
    first = _of_login(offered, credentials, hers, login)
    return [
        Choice(one.credential, one.name, one.issuer, one.ends, is_preselected=one is first)
        for one in sorted(offered, key=lambda one: (one is not first, one.credential.name))
    ]


def _choice(one: Credential, now: int) -> Choice | None:
    certificate = x509.load_der_x509_certificate(one.certificate)
    ends = int(certificate.not_valid_after_utc.timestamp())
    if not certificate.not_valid_before_utc.timestamp() <= now < ends:
        return None
    return Choice(one, _common_name(certificate.subject), _common_name(certificate.issuer), ends)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _of_login(
    offered: Sequence[Choice], credentials: Sequence[Credential], hers: Sequence[Row], login: str
) -> Choice | None:
    """The certificate of the login itself, or the one for signing of the same product: of its person, and as old."""
    for one in offered:
        if one.credential.fingerprint == login:
            return one
    product = next((one["certificate"] for one in hers if one["fingerprint"] == login), None)
    if product is None:
        return None
    subject = next((one.subject for one in credentials if one.fingerprint == login), "")
    same = [
        one
        for one in offered
        if (subject and one.credential.subject == subject) or is_same_person(one.credential.certificate, product)
    ]
    return min(same, key=lambda one: _apart_s(one.credential.certificate, product), default=None)


def _apart_s(one: bytes, other: bytes) -> float:
    begins = (x509.load_der_x509_certificate(der).not_valid_before_utc for der in (one, other))
    return abs((next(begins) - next(begins)).total_seconds())


def products_of(connection: Connection, account: str) -> list[Row]:
    query = select(products.c.fingerprint, products.c.certificate).where(products.c.account == account)
    return [dict(row) for row in connection.execute(query).mappings()]


# ---- whether what came back is what was to be signed: pure


def fault(signed: bytes, given: bytes, found: Sequence[Found], task: Task, fingerprint: str) -> str:
    """
    Why a PDF is not `given` with one more signature, by that certificate and over all of it; empty where it is. What was
    signed before has to be as good as it was (SIG-08).
    """
    if not signed.startswith(given) or len(signed) == len(given):
        return "not-this-document"
    if len(found) != task.number:
        return "other-signatures"
    *before, newest = found
    if not newest.is_valid:
        return "not-valid"
    if newest.fingerprint != fingerprint:
        return "another-certificate"
    if not newest.covers_all:
        return "not-all-of-it"
    if newest.before_sha256 != task.sha256:
        return "another-revision"
    if not all(one.is_valid and one.is_undisturbed for one in before):
        return "earlier-signature"
    return ""


# ---- whether it may be signed


def own_task(row: Row, definition: Definition, at: str) -> Task:
    """The only, or the first, signature: in the procedure's own space."""
    event = "sign" if definition.signatures == 1 else "sign_first"
    return Task(row, 1, event, row["space"], at, row["form_file"], row["form_sha256"])


def is_signed(row: Row, number: int) -> bool:
    return row["signature"] in ({"first", "valid"} if number == 1 else {"valid"})


def check(task: Task) -> None:
    """Raise unless it may be signed as it is now (SIG-01, SIG-11, SIG-17)."""
    row = task.row
    if task.is_suspended:
        message = "The space that this procedure is of is suspended: it cannot be signed until that is over."
        raise guard("space-suspended", message, task.at)
    if is_signed(row, task.number) and "save" in PROCEDURE.allowed(row["status"]):
        raise Refusal(
            "forbidden-transition", "This is signed already. It is signed again once the declaration is modified.",
            reason="already-signed", state=row["status"], event=task.event, allowed=PROCEDURE.allowed(row["status"]),
        )  # fmt: skip
    PROCEDURE.target(row["status"], task.event)
    if row["entry"] != "confirmed":
        message = "Check the entry and confirm it first: then it can be signed."
        unmet([Unmet("entry-not-confirmed", message, f"{task.at}/check")])


def check_person(task: Task, account: str, credential: str = "", firsts: Collection[str] = ()) -> None:
    """Of two signatures each is another person's, also where one person has two accounts (SIG-17); `firsts` is `of_first`."""
    if task.first is not None and (task.first["account"] == account or credential in firsts):
        raise guard("same-signer", "You have given the first signature: the second one is somebody else’s.", task.at)


def of_first(credentials: Sequence[Credential], first: Row, theirs: Sequence[Row], now: int) -> frozenset[str]:
    """The credentials that whoever has given the first signature, and whose products are `theirs`, may sign with."""
    used = [one for one in credentials if one.fingerprint == first["fingerprint"]]
    known = [*theirs, *({"fingerprint": one.fingerprint, "certificate": one.certificate} for one in used)]
    return frozenset(one.credential.name for one in choices(credentials, known, "", now))


def offers(row: Row) -> bool:
    """Whether "Sign" is offered in the procedure's own space: only while it is unsigned (SIG-11)."""
    allowed = PROCEDURE.allowed(row["status"])
    return "sign" in allowed and row["entry"] == "confirmed" and not is_signed(row, 1)


# ---- the attempt


def opened(connection: Connection, task_row: Row, now: int, limits: Limits) -> Row | None:
    """The attempt that is open, with `given` and `family` of whose it is; None where there is none, or it is over."""
    query = (
        select(signings, accounts.c.given, accounts.c.family, is_open(now, limits).label("has_session"))
        .join(accounts, accounts.c.id == signings.c.account)
        .outerjoin(sessions, sessions.c.token == signings.c.session)
        .where(signings.c.open == task_row["id"])
    )
    row = connection.execute(query).mappings().first()
    return None if row is None or is_over(dict(row), now, limits) else dict(row)


def is_over(row: Row, now: int, limits: Limits) -> bool:
    """By the clock, or with its session (SIG-14)."""
    return now >= row["seen"] + limits.idle_s or not row["has_session"]


def begin(connection: Connection, actor: Actor, task: Task, limits: Limits, *, instead_of: str = "") -> str | None:
    """
    A new attempt, and its id; the same one again where this session has begun it and nothing of it is at the window yet.
    None where another one is open, which is not the one that the person has agreed to end (`instead_of`).
    """
    check(task)
    check_person(task, actor.account)
    marks.check(connection, actor.now, "sign-start", actor.account, limits.signings_a_minute, 60)
    other = opened(connection, task.row, actor.now, limits)
    if other is not None and other["id"] != instead_of:
        if not _is_barely_begun(other, actor, task):
            return None
        connection.execute(update(signings).where(signings.c.id == other["id"]).values(seen=actor.now))
        return str(other["id"])
    marks.mark(connection, actor.now, "sign-start", actor.account)
    procedure.end_signing(connection, actor, task.row, "begin")
    id_ = new_id()
    connection.execute(
        insert(signings).values(
            id=id_, procedure=task.row["id"], open=task.row["id"], account=actor.account, session=actor.session,
            space=task.space, number=task.number, state=SIGNING.first, form_sha256=task.sha256, created=actor.now,
            seen=actor.now,
        )
    )  # fmt: skip
    _note(connection, actor, task, "begin", instead_of="" if other is None else other["id"])
    return id_


def _is_barely_begun(attempt: Row, actor: Actor, task: Task) -> bool:
    """Nothing is lost by going on with it here: it is what a page that failed, or was left, has left behind."""
    return bool(attempt["state"] == SIGNING.first) and is_this_sessions(attempt, actor, task)


def is_this_sessions(attempt: Row, actor: Actor, task: Task) -> bool:
    """Whoever asks may go on with it, whichever window it was begun in."""
    mine = (attempt["session"], attempt["space"], attempt["number"])
    return bool(mine == (actor.session, task.space, task.number))


def of(connection: Connection, task: Task, id_: str) -> Row:
    """One of this procedure's attempts in this space, whatever became of it; raises `not-found`."""
    mine = (signings.c.procedure == task.row["id"]) & (signings.c.space == task.space)
    query = select(signings).where(mine, signings.c.id == id_)
    row = connection.execute(query).mappings().first() if is_id(id_) else None
    if row is None:
        raise not_found()
    return dict(row)


def current(connection: Connection, actor: Actor, task: Task, id_: str, event: str, limits: Limits) -> Row:
    """
    The attempt for its next step. Raises `stale` where it was taken over, or is over; `forbidden-transition` where the
    step is not the next one (SIG-13, SIG-14).
    """
    row = of(connection, task, id_)
    found = opened(connection, task.row, actor.now, limits)
    if row["state"] != "done" and (found is None or found["id"] != id_ or found["session"] != actor.session):
        message = (
            "This signing is over, or goes on in another window. On the page of the procedure you see how it stands."
        )
        raise Refusal("stale", message, reason="signing-over", version=row["version"])
    SIGNING.target(row["state"], event)
    return row


def by_batch(connection: Connection, account: str, batch: str) -> Row | None:
    """The attempt that a batch was opened for, if it is this person's."""
    mine = (signings.c.batch == batch) & (signings.c.account == account)
    row = connection.execute(select(signings).where(mine)).mappings().first() if _BATCH.fullmatch(batch) else None
    return None if row is None else dict(row)


def address(connection: Connection, attempt: Row) -> str | None:
    """The path of the page that it was begun on; None where that is no longer there."""
    query = (
        select(procedures.c.reference, spaces.c.identifier)
        .select_from(signings)
        .join(procedures, procedures.c.id == signings.c.procedure)
        .join(spaces, spaces.c.id == signings.c.space)
        .where(signings.c.id == attempt["id"])
    )
    found = connection.execute(query).first()
    part = "procedures" if attempt["number"] == 1 else "signatures"
    return None if found is None else f"/spaces/{found.identifier}/{part}/{found.reference}"


def chosen(found: Sequence[Choice], credential: str) -> Choice:
    """Raises `validation` for what is none of them (SIG-04)."""
    if not credential:
        raise invalid("credential", "required", "Select the certificate that you sign with.")
    one = next((one for one in found if one.credential.name == credential), None)
    if one is None:
        raise invalid("credential", "unknown", "This certificate is not one of yours. Choose one of those offered.")
    return one


def choose(connection: Connection, actor: Actor, task: Task, attempt: Row, choice: Choice, batch: str) -> None:
    """`batch` waits for her at the daemon; one of before is dropped."""
    credential = choice.credential
    if attempt["batch"]:
        connection.execute(insert(dropped_batches).values(batch=attempt["batch"]))
    SIGNING.fire(
        connection, attempt, "choose", credential=credential.name, fingerprint=credential.fingerprint, batch=batch,
        form_sha256=task.sha256, seen=actor.now,
    )  # fmt: skip
    _note(connection, actor, task, "choose", credential=credential.name, batch=batch, sha256=task.sha256)


def signed(connection: Connection, actor: Actor, task: Task, attempt: Row, approved: int) -> None:
    """
    The daemon says that it is; `approved` is when she ticked the box, as the window has told it by her browser. Nobody else
    knows: the window shares no secret with us, and the daemon has no part in it. So it is held within what we know, between
    the opening of this batch, at the last step, and now.
    """
    approved = min(max(approved, attempt["seen"]), actor.now)
    SIGNING.fire(connection, attempt, "sign", approved=approved, seen=actor.now)
    _note(connection, actor, task, "sign", credential=attempt["credential"], batch=attempt["batch"], approved=approved)


def save(connection: Connection, actor: Actor, task: Task, attempt: Row, file: str, sha256: str) -> str:
    """`file` names the signed PDF, which was checked. Answers the procedure's new status (SIG-08)."""
    SIGNING.fire(connection, attempt, "save", open=None, seen=actor.now)
    connection.execute(
        insert(signatures).values(
            id=new_id(), procedure=task.row["id"], number=task.number, account=actor.account,
            credential=attempt["credential"], fingerprint=attempt["fingerprint"], file=file, sha256=sha256,
            form_sha256=task.row["form_sha256"], approved=attempt["approved"], time=actor.now, space=task.space,
        )
    )  # fmt: skip
    values: dict[str, Any] = {"second_state": ""} if task.number == 2 else {}
    return procedure.fire(
        connection, actor, task.row, task.event, signature="first" if task.event == "sign_first" else "valid", **values
    )


def cancel(connection: Connection, actor: Actor, task: Task, attempt: Row) -> bool:
    """Whether there was anything to cancel: what is saved stays saved (SIG-09)."""
    if attempt["open"] is None:
        return False
    SIGNING.fire(connection, attempt, "cancel", open=None)
    _note(connection, actor, task, "cancel")
    return True


# ---- what was signed


def counting(connection: Connection, row: Row) -> Row | None:
    """The newest signature that is not void, with `given` and `family` of whose it is."""
    found = all_counting(connection, row)
    return found[-1] if found else None


def _counting(row: Row) -> Select[Any]:
    return (
        select(signatures, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == signatures.c.account)
        .where(signatures.c.procedure == row["id"], signatures.c.voided.is_(None))
        .order_by(signatures.c.number, signatures.c.time)
    )


def all_counting(connection: Connection, row: Row) -> list[Row]:
    """The first and the second one, as far as they are there and not void."""
    return [dict(one) for one in connection.execute(_counting(row)).mappings()]


# ---- what is over


def over(connection: Connection, now: int, limits: Limits) -> list[Row]:
    """Open attempts whose time is over, or whose session is, with the `reference` of their procedure (SIG-14)."""
    query = (
        select(signings, procedures.c.reference, is_open(now, limits).label("has_session"))
        .join(procedures, procedures.c.id == signings.c.procedure)
        .outerjoin(sessions, sessions.c.token == signings.c.session)
        .where(signings.c.open.is_not(None))
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return [row for row in rows if is_over(row, now, limits)]


def end_over(connection: Connection, now: int, limits: Limits) -> None:
    for row in over(connection, now, limits):
        mine = (signings.c.id == row["id"]) & (signings.c.version == row["version"]) & signings.c.open.is_not(None)
        if connection.execute(update(signings).where(mine).values(open=None, state="cancelled")).rowcount:
            audit.note(
                connection, now, "signing-over", account=row["account"], space=row["space"],
                procedure=row["reference"], number=row["number"], batch=row["batch"],
            )  # fmt: skip


def unsaved(connection: Connection) -> list[str]:
    """The batches of cancelled attempts and those that were dropped, which the daemon is still to be told of."""
    query = select(signings.c.batch).where(signings.c.state == "cancelled", signings.c.batch != "")
    return list(connection.execute(query.union_all(select(dropped_batches.c.batch))).scalars())


def drop(connection: Connection, row: Row) -> list[str]:
    """Before a procedure is deleted: what of its signing is at the daemon and never saved, which outlives its attempts."""
    query = select(signings.c.batch).where(
        signings.c.procedure == row["id"], signings.c.state != "done", signings.c.batch != ""
    )
    found = list(connection.execute(query).scalars())
    for batch in found:
        connection.execute(insert(dropped_batches).values(batch=batch))
    return found


def destroyed(connection: Connection, batch: str) -> None:
    """Nothing of it is to be had any more."""
    mine = (signings.c.batch == batch) & (signings.c.state == "cancelled")
    connection.execute(update(signings).where(mine).values(batch=""))
    connection.execute(delete(dropped_batches).where(dropped_batches.c.batch == batch))


def forget(connection: Connection, now: int) -> None:
    """What ended a day ago, and has left nothing at the daemon."""
    is_over = (signings.c.state == "done") | ((signings.c.state == "cancelled") & (signings.c.batch == ""))
    connection.execute(delete(signings).where(is_over, signings.c.seen < now - KEPT_S))


def _note(connection: Connection, actor: Actor, task: Task, what: str, **detail: Any) -> None:
    given: Mapping[str, Any] = {name: value for name, value in detail.items() if value}
    audit.note(
        connection, actor.now, f"signing-{what}", account=actor.account, space=task.space, address=actor.address,
        procedure=task.row["reference"], number=task.number, **given,
    )  # fmt: skip
