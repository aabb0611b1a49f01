"""A person's account: her names, address and language, her products (TOK-06, TOK-07, TOK-15, MAIL-12)."""

from portal_adapter.auth import certificate as certificates
from portal_adapter.auth import session as sessions
from portal_adapter.domain import account, login
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.login import look_at_number


def show(ask: Ask) -> Answer:
    actor = ask.actor
    products = []
    for one in login.products_of(ask.connection, actor.account):
        found = certificates.read(bytes(one["certificate"]))  # type: ignore[call-overload]
        products.append(
            {
                "id": one["id"], "kind": one["kind"], "number": one["number"], "issuer": found.issuer,
                "not_after": found.not_after, "in_use": one["fingerprint"] == actor.fingerprint,
            }
        )  # fmt: skip
    data = {
        "given": actor.given, "family": actor.family, "email": actor.email, "products": products,
        "mail_language": account.language_of(ask.connection, actor.account),
        "sessions": _sessions(ask), "is_fresh": ask.session is not None and sessions.is_fresh(ask.now, ask.session),
    }  # fmt: skip
    return Page("account.html", data)


def change(ask: Ask) -> Answer:
    account.change(ask.connection, ask.actor, ask.form, ask.settings.limits)
    return Redirect("/account", notice="account-changed")


def show_new(ask: Ask) -> Answer:
    proof = login.presented_in(ask.connection, ask.now, ask.visitor)
    if proof is None:
        return Redirect("/account")
    found = proof.certificate
    data = {
        "family": found.family, "given": found.given, "issuer": found.issuer, "not_after": found.not_after,
        "kind": "server" if proof.number else "",
    }  # fmt: skip
    return Page("product.html", data)


def add(ask: Ask) -> Answer:
    login.add_product(ask.connection, ask.now, ask.actor.account, ask.visitor, dict(ask.form), ask.address, ask.found)
    return Redirect("/account", notice="product-added")


def remove(ask: Ask) -> Answer:
    login.remove_product(ask.connection, ask.now, ask.actor.account, ask.parts["product"], ask.address)
    return Redirect("/account", notice="product-removed")


def end_others(ask: Ask) -> Answer:
    login.logout_elsewhere(ask.connection, ask.actor)
    return Redirect("/account", notice="sessions-ended")


def _sessions(ask: Ask) -> list[dict[str, object]]:
    found = sessions.open_of(ask.connection, ask.now, ask.settings.limits, ask.actor.account)
    return [
        {**{name: one[name] for name in ("created", "seen", "kind", "number")}, "is_this": one["token"] == ask.actor.session}
        for one in found
    ]  # fmt: skip


ROUTES = (
    Route("GET", "/account", "account", show, Level.SESSION, ("TOK-07", "TOK-15")),
    Route("POST", "/account", "change-account", change, Level.SESSION, ("MAIL-12", "TOK-07"), fresh=True),
    Route("GET", "/account/products/new", "new-product", show_new, Level.SESSION, ("TOK-15",)),
    Route(
        "POST",
        "/account/products",
        "add-product",
        add,
        Level.SESSION,
        ("TOK-06", "TOK-07", "TOK-15"),
        before=look_at_number,
        fresh=True,
    ),
    Route(
        "POST", "/account/products/{product}/remove", "remove-product", remove, Level.SESSION, ("TOK-15",), fresh=True
    ),
    Route("POST", "/account/sessions/end", "end-other-sessions", end_others, Level.SESSION, ("TOK-12",), fresh=True),
)
FORMS = {"change-account": "account", "add-product": "new-product"}
