"""
Signing a procedure: choosing the certificate and saving are our pages, reading, approving and signing are the window's
(SIG-01 to SIG-16). The same steps are taken for the second signature, in the space that a procedure was transferred to.

    POST .../signing                    begin, or take over from another window
    GET  .../signing/{signing}          step 1, or 4: what is next
    POST .../signing/{signing}/certificate   a batch at the daemon, and on to the window by its link
    GET  /signings/returned             where the window leads back to: a page with one button
    POST .../signing/{signing}/returned how the batch stands
    POST .../signing/{signing}/save     what was signed is checked, and kept
    POST .../signing/{signing}/cancel   from any of them
"""

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from portal_adapter.domain import procedure, product, signing, transfer
from portal_adapter.domain.actor import SIGN
from portal_adapter.domain.procedure import Row
from portal_adapter.domain.signing import Choice, Task
from portal_adapter.refusal import Refusal, guard, stale
from portal_adapter.store.database import reading
from portal_adapter.unsaved import destroy_now
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ahead, Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.procedures import title_of
from signer.request_id import new_request_id

if TYPE_CHECKING:
    from portal_adapter.app import Services

log = logging.getLogger("portal")

BATCH_CHARACTERS_MAX = 64
_OUTCOMES = frozenset({"signed", "failed", "cancelled", "over"})


# ---- what is to be signed


def task_of(
    connection: Connection, services: "Services", space: Mapping[str, Any], parts: Mapping[str, str], *, hold: bool = False
) -> Task:  # fmt: skip
    """Of the procedure that a path names: one of this space, or one that was transferred to it."""
    if "transferred" in parts:
        at = f"/spaces/{space['identifier']}/signatures/{parts['transferred']}"
        return transfer.of(connection, space["id"], parts["transferred"], at, hold=hold)
    row = (procedure.held if hold else procedure.of)(connection, space["id"], parts["reference"])
    definition = services.catalogue.version(row["definition"], row["definition_version"])
    return signing.own_task(row, definition, procedure.path(space, row))


def _task(ask: Ask, *, hold: bool = False) -> Task:
    assert ask.space is not None
    return task_of(ask.connection, ask.services, ask.space, ask.parts, hold=hold)


def _step(task: Task, id_: str) -> str:
    return f"{task.at}/signing/{id_}"


# ---- beginning


def begin(ask: Ask) -> Answer:
    """With `take_over`, the attempt that the person has seen, and ends by this."""
    task = _task(ask, hold=True)
    instead_of = ask.form.get("take_over", "")
    id_ = signing.begin(ask.connection, ask.actor, task, ask.settings.limits, instead_of=instead_of)
    return Redirect(f"{task.at}/signing" if id_ is None else _step(task, id_))


def show_other(ask: Ask) -> Answer:
    """What another window is at, and whether to go on with it, where that was this session's, or to take it over."""
    task = _task(ask)
    found = signing.opened(ask.connection, task.row, ask.now, ask.settings.limits)
    if found is None or signing.is_signed(task.row, task.number):
        return Redirect(task.at)
    data = {
        **_about(ask, task),
        "open": {name: found[name] for name in ("id", "given", "family", "created")},
        "is_mine": found["account"] == ask.actor.account,
        "go_on_at": _step(task, found["id"]) if signing.is_this_sessions(found, ask.actor, task) else "",
        "is_signed": found["state"] == "save",
    }
    return Page("signing_other.html", data)


# ---- steps 1 and 4


@dataclass(frozen=True, slots=True)
class Looked:
    """What the daemon has said before the transaction: whose certificates there are, and what came of a batch for one."""

    choices: tuple[Choice, ...] = ()
    choice: Choice | None = None
    batch: str = ""
    link: str = ""
    sha256: str = ""  # of what it is to sign
    refusal: Refusal | None = None


def look(ahead: Ahead) -> Looked | None:
    """The certificates, for the page that shows them; None for one that shows none."""
    found = _ahead(ahead)
    if found is None or found[1]["state"] not in {"select", "approve"}:
        return None
    return Looked(_choices(ahead))


def show(ask: Ask) -> Answer:
    task = _task(ask)
    attempt = signing.of(ask.connection, task, ask.parts["signing"])
    found = signing.opened(ask.connection, task.row, ask.now, ask.settings.limits)
    if found is None or signing.is_signed(task.row, task.number):
        return Redirect(task.at)
    if found["id"] != attempt["id"] or found["session"] != ask.actor.session:
        return Redirect(f"{task.at}/signing")
    looked: Looked | None = ask.found
    data = {
        **_about(ask, task),
        "step_at": _step(task, attempt["id"]),
        "state": attempt["state"],
        "credential": attempt["credential"],
        "ends": attempt["seen"] + ask.settings.limits.idle_s,
        "left_min": max(1, (attempt["seen"] + ask.settings.limits.idle_s - ask.now) // 60),
        "now": ask.now,
        "choices": [_shown(ask, one) for one in looked.choices] if looked is not None else [],
    }
    template = "signing_save.html" if attempt["state"] == "save" else "signing_select.html"
    return Page(template, data, is_framing=True)


def _about(ask: Ask, task: Task) -> dict[str, Any]:
    """What every page of a signing says of it."""
    return {
        "reference": task.row["reference"],
        "title": title_of(ask.services.catalogue, task.row, ask.language),
        "number": task.number,
        "at": task.at,
        "document": f"{task.at}/{'form' if task.number == 1 else 'document'}",
        "sha256": task.sha256,
    }


def _shown(ask: Ask, one: Choice) -> dict[str, Any]:
    return {
        "credential": one.credential.name, "name": one.name, "issuer": one.issuer, "ends": one.ends,
        "is_preselected": one.is_preselected, "is_available": not one.credential.trouble,
    }  # fmt: skip


def _choices(ahead: Ahead) -> tuple[Choice, ...]:
    """Revoked ones and those with short keys are not offered, and in a business space none that is not good enough for it."""
    assert ahead.space is not None
    business, issuers = ahead.services.settings.business, ahead.services.issuers
    with reading(ahead.services.engine) as connection:
        hers = signing.products_of(connection, ahead.actor.account)
    credentials = ahead.services.daemon.credentials([one["certificate"] for one in hers])
    return tuple(
        one
        for one in signing.choices(credentials, hers, ahead.actor.fingerprint, ahead.now)
        if not issuers.is_revoked(one.credential.certificate)
        and issuers.is_strong(one.credential.certificate)
        and product.may_sign(one.credential.certificate, ahead.space, business)
    )


def _firsts(ahead: Ahead, task: Task) -> frozenset[str]:
    """Those of whoever has signed first, which sign no second time."""
    if task.first is None:
        return frozenset()
    with reading(ahead.services.engine) as connection:
        theirs = signing.products_of(connection, task.first["account"])
    used = bytes.fromhex(task.first["fingerprint"])
    credentials = ahead.services.daemon.credentials([used, *(one["certificate"] for one in theirs)])
    return signing.of_first(credentials, task.first, theirs, ahead.now)


def _ahead(ahead: Ahead) -> tuple[Task, Row] | None:
    """The task and its attempt, where that is open and this window's; None where the view has something else to say."""
    assert ahead.space is not None
    limits = ahead.services.settings.limits
    with reading(ahead.services.engine) as connection:
        task = task_of(connection, ahead.services, ahead.space, ahead.parts)
        attempt = signing.of(connection, task, ahead.parts["signing"])
        found = signing.opened(connection, task.row, ahead.now, limits)
    is_mine = found is not None and found["id"] == attempt["id"] and found["session"] == ahead.actor.session
    return (task, attempt) if is_mine else None


# ---- from step 1 to the window


def open_batch(ahead: Ahead) -> Looked | None:
    """The daemon is asked for a batch with what is to be signed, for the certificate that was chosen."""
    found = _ahead(ahead)
    if found is None or found[1]["state"] not in {"select", "approve"}:
        return None
    task, _ = found
    looked = Looked(_choices(ahead), sha256=task.sha256)
    try:
        signing.check(task)
        choice = signing.chosen(looked.choices, ahead.form.get("credential", ""))
        firsts = _firsts(ahead, task)
        signing.check_person(task, ahead.actor.account, choice.credential.name, firsts)
        batch = new_request_id()
        name = f"{title_of(ahead.services.catalogue, task.row, ahead.language)} {task.row['reference']}.pdf"
        document = ahead.services.blobs.path(task.file)
        link = ahead.services.daemon.open(batch, choice.credential.name, name, document, task.sha256)
    except Refusal as refusal:
        if refusal.code == "signer-unavailable":
            raise
        return replace(looked, refusal=refusal)
    return replace(looked, choice=choice, batch=batch, link=link)


def choose(ask: Ask) -> Answer:
    looked: Looked | None = ask.found
    if looked is not None and looked.batch:  # whatever comes of this, nobody is to sign what no attempt names
        ask.undo.append(partial(ask.services.daemon.cancel_quietly, looked.batch))
    task = _task(ask, hold=True)
    attempt = signing.current(ask.connection, ask.actor, task, ask.parts["signing"], "choose", ask.settings.limits)
    if looked is None or looked.sha256 != task.sha256:
        raise stale(attempt["version"])
    if looked.refusal is not None:
        raise looked.refusal
    assert looked.choice is not None
    signing.choose(ask.connection, ask.actor, task, attempt, looked.choice, looked.batch)
    if attempt["batch"]:
        ask.after.append(partial(destroy_now, ask.services.engine, ask.services.daemon, attempt["batch"]))
    query = f"link={looked.link}&language={ask.language.code}"
    return Redirect(f"{ask.settings.window.origin}/sign?{query}", outside=True)


# ---- from the window to step 4


def returned(ask: Ask) -> Answer:
    """A page whose one button posts what the window gave, so that a GET changes nothing."""
    attempt = signing.by_batch(ask.connection, ask.actor.account, ask.query.get("batch", "")[:BATCH_CHARACTERS_MAX])
    at = None if attempt is None else signing.address(ask.connection, attempt)
    if attempt is None or at is None:
        return Redirect("/home", notice="signing-over")
    outcome = ask.query.get("outcome", "")
    given = {
        "outcome": outcome if outcome in _OUTCOMES else "",
        "approved": ask.query.get("approved", "")[:BATCH_CHARACTERS_MAX],
    }
    return Page("signing_returned.html", {"step_at": f"{at}/signing/{attempt['id']}", "given": given})


def look_at_batch(ahead: Ahead) -> str | None:
    """How it stands; None for an attempt that is at no window."""
    assert ahead.space is not None
    with reading(ahead.services.engine) as connection:
        task = task_of(connection, ahead.services, ahead.space, ahead.parts)
        attempt = signing.of(connection, task, ahead.parts["signing"])
    return ahead.services.daemon.state(attempt["batch"]) if attempt["state"] == "approve" else None


def back_from_window(ask: Ask) -> Answer:
    """What is true the daemon says; the window, by way of the browser, when she approved, and that she left."""
    task = _task(ask, hold=True)
    attempt = signing.of(ask.connection, task, ask.parts["signing"])
    outcome, state = ask.form.get("outcome", ""), ask.found
    if attempt["state"] in {"done", "cancelled"}:
        return Redirect(task.at, notice="" if attempt["state"] == "done" else "signing-over")
    if attempt["state"] != "save":
        attempt = signing.current(ask.connection, ask.actor, task, attempt["id"], "sign", ask.settings.limits)
        if outcome in {"cancelled", "failed"} or state not in {"OPEN", "SIGNING", "SIGNED"}:
            _end(ask, task, attempt)
            return Redirect(task.at, notice="signing-failed" if outcome == "failed" else "signing-cancelled")
        if state != "SIGNED":
            return Redirect(_step(task, attempt["id"]), notice="signing-not-yet")
        signing.signed(ask.connection, ask.actor, task, attempt, _moment(ask.form.get("approved", ""), ask.now))
    return Redirect(_step(task, attempt["id"]))


def _moment(text: str, now: int) -> int:
    """RFC 3339, as the window gives it."""
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return now


# ---- saving


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the daemon has given back for an attempt, and what is wrong with it."""

    batch: str
    sha256: str  # of what was to be signed
    pdf: bytes
    fault: str


def fetch(ahead: Ahead) -> Fetched | None:
    found = _ahead(ahead)
    if found is None or found[1]["state"] != "save":
        return None
    task, attempt = found
    services = ahead.services
    with tempfile.NamedTemporaryFile(dir=services.blobs.incoming) as file:
        target = Path(file.name)
        if not services.daemon.fetch(attempt["batch"], target):
            return Fetched(attempt["batch"], task.sha256, b"", "not-there")
        pdf = target.read_bytes()
        given = services.blobs.path(task.file).read_bytes()
        signatures = services.daemon.signatures(target) if pdf.startswith(given) else []
    fault = signing.fault(pdf, given, signatures, task, attempt["fingerprint"])
    if fault:
        log.error("what came back of the batch %s is not what was to be signed: %s", attempt["batch"], fault)
    return Fetched(attempt["batch"], task.sha256, pdf, fault)


def save(ask: Ask) -> Answer:
    task = _task(ask, hold=True)
    attempt = signing.current(ask.connection, ask.actor, task, ask.parts["signing"], "save", ask.settings.limits)
    signing.check(task)
    found: Fetched | None = ask.found
    if found is None or (found.batch, found.sha256) != (attempt["batch"], task.sha256):
        raise stale(attempt["version"])
    if found.fault == "not-there":
        message = "What was signed is not there any more: it is kept for a quarter of an hour. Cancel, and sign again."
        raise guard("signature-gone", message, _step(task, attempt["id"]))
    if found.fault:
        message = "What came back is not this document with your signature, so that nothing was saved. Cancel, and sign again."
        raise guard("signature-invalid", message, _step(task, attempt["id"]))
    file = ask.services.blobs.write(found.pdf)
    ask.undo.append(partial(ask.services.blobs.remove, file))
    signing.save(ask.connection, ask.actor, task, attempt, file, hashlib.sha256(found.pdf).hexdigest())
    if task.number == 2:
        transfer.tell_signed(ask.connection, ask.actor, task, ask.settings.portal)
        return Redirect(task.at.rsplit("/", 1)[0], notice="signed-second")
    return Redirect(task.at, notice="signed-first" if task.event == "sign_first" else "signed")


# ---- leaving


def cancel(ask: Ask) -> Answer:
    """From any step; what is saved stays (SIG-09)."""
    task = _task(ask, hold=True)
    attempt = signing.of(ask.connection, task, ask.parts["signing"])
    was_open = _end(ask, task, attempt)
    return Redirect(task.at, notice="signing-cancelled" if was_open else "")


def _end(ask: Ask, task: Task, attempt: Row) -> bool:
    """With what is at the daemon, as soon as that is committed."""
    was_open = signing.cancel(ask.connection, ask.actor, task, attempt)
    if was_open and attempt["batch"]:
        ask.after.append(partial(destroy_now, ask.services.engine, ask.services.daemon, attempt["batch"]))
    return was_open


def _routes(base: str, prefix: str, more: tuple[str, ...] = ()) -> tuple[Route, ...]:
    def route(method: str, path: str, name: str, view: Any, *requirements: str, before: Any = None) -> Route:
        wanted = (*requirements, "SIG-16", *more)
        return Route(method, f"{base}/signing{path}", f"{prefix}{name}", view, Level.TERMS, wanted, SIGN, before=before)

    one = "/{signing}"
    return (
        route("POST", "", "sign", begin, "SIG-01", "SIG-02", "SIG-11", "SIG-14"),
        route("GET", "", "sign-elsewhere", show_other, "SIG-14"),
        route("GET", one, "sign-step", show, "SIG-02", "SIG-03", "SIG-13", before=look),
        route(
            "POST", f"{one}/certificate", "sign-certificate", choose, "SIG-04", "SIG-13", "SIG-15", before=open_batch
        ),
        route("POST", f"{one}/returned", "sign-back", back_from_window, "SIG-05", "SIG-09", before=look_at_batch),
        route("POST", f"{one}/save", "sign-save", save, "SIG-08", "SIG-13", "SIG-15", before=fetch),
        route("POST", f"{one}/cancel", "sign-cancel", cancel, "SIG-09", "SIG-10"),
    )


_OWN, _SECOND = "/spaces/{space}/procedures/{reference}", "/spaces/{space}/signatures/{transferred}"
ROUTES = (
    *_routes(_OWN, ""),
    *_routes(_SECOND, "second-", ("SIG-17",)),
    Route("GET", "/signings/returned", "signing-returned", returned, Level.TERMS, ("SIG-05", "SIG-08")),
)
FORMS = {
    f"{prefix}{post}": f"{prefix}{get}"
    for prefix in ("", "second-")
    for post, get in (
        ("sign", "sign-elsewhere"),
        ("sign-certificate", "sign-step"),
        ("sign-back", "sign-step"),
        ("sign-save", "sign-step"),
        ("sign-cancel", "sign-step"),
    )
}
