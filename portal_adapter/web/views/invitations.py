"""Inviting people into a business space, and what the invited one sees (ESP-22, ESP-23)."""

from portal_adapter.domain import invitation, terms
from portal_adapter.domain.actor import MANAGE, ROLES
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.team import business_space


def show_new(ask: Ask) -> Answer:
    business_space(ask)
    days = ask.settings.limits.invitation_s // 86400
    return Page("invite.html", {"roles": ROLES, "days": days})


def invite(ask: Ask) -> Answer:
    space = business_space(ask)
    settings = ask.settings
    invitation.invite(ask.connection, ask.actor, space["id"], ask.form, settings.portal.origin, settings.limits)
    return Redirect(f"/spaces/{space['identifier']}/team", notice="invitation-sent")


def withdraw(ask: Ask) -> Answer:
    space = business_space(ask)
    invitation.withdraw(ask.connection, ask.actor, space["id"], ask.parts["invitation"], ask.form)
    return Redirect(f"/spaces/{space['identifier']}/team", notice="invitation-withdrawn")


def resend(ask: Ask) -> Answer:
    space = business_space(ask)
    settings = ask.settings
    invitation.resend(
        ask.connection, ask.actor, space["id"], ask.parts["invitation"], ask.form, settings.portal.origin, settings.limits
    )  # fmt: skip
    return Redirect(f"/spaces/{space['identifier']}/team", notice="invitation-sent")


def show(ask: Ask) -> Answer:
    """Anybody who has the link sees to what it invites; whoever is logged in, only if she is the invited one."""
    found = invitation.opened(ask.connection, ask.now, ask.parts["token"])
    accepted = False
    if ask.session is not None:
        invitation.check_person(ask.connection, ask.actor, found)
        accepted = terms.are_accepted(ask.connection, ask.actor.account, ask.settings.terms.version)
    names = ("title", "role", "given", "family", "inviter_name", "expires")
    return Page(
        "invitation.html",
        {
            **{name: found[name] for name in names},
            "link": f"/invitations/{ask.parts['token']}",
            "terms_accepted": accepted,
        },
    )


def accept(ask: Ask) -> Answer:
    identifier = invitation.accept(ask.connection, ask.actor, ask.parts["token"], ask.settings.business)
    return Redirect(f"/spaces/{identifier}", notice="invitation-accepted")


def refuse(ask: Ask) -> Answer:
    invitation.refuse(ask.connection, ask.actor, ask.parts["token"])
    return Redirect("/spaces", notice="invitation-refused")


ROUTES = (
    Route("GET", "/spaces/{space}/team/invite", "new-invitation", show_new, Level.TERMS, ("ESP-22",), right=MANAGE),
    Route("POST", "/spaces/{space}/team/invite", "invite", invite, Level.TERMS, ("ESP-22", "ESP-23"), right=MANAGE),
    Route(
        "POST", "/spaces/{space}/team/invitations/{invitation}/withdraw", "withdraw-invitation", withdraw, Level.TERMS,
        ("ESP-23",), right=MANAGE,
    ),
    Route(
        "POST", "/spaces/{space}/team/invitations/{invitation}/resend", "resend-invitation", resend, Level.TERMS,
        ("ESP-23",), right=MANAGE,
    ),
    Route("GET", "/invitations/{token}", "invitation", show, Level.OPEN, ("ESP-23",)),
    Route("POST", "/invitations/{token}/accept", "accept-invitation", accept, Level.TERMS, ("ESP-23",)),
    Route("POST", "/invitations/{token}/refuse", "refuse-invitation", refuse, Level.TERMS, ("ESP-23",)),
)  # fmt: skip
FORMS = {
    "invite": "new-invitation",
    "withdraw-invitation": "team",
    "resend-invitation": "team",
    "accept-invitation": "invitation",
    "refuse-invitation": "invitation",
}
