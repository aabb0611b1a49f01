"""All routes of the portal, and which page shows the form of which POST."""

from collections.abc import Mapping

from portal_adapter.web.route import Route
from portal_adapter.web.views import (
    account,
    attachments,
    catalogue,
    desk,
    files,
    home,
    information,
    invitations,
    login,
    messages,
    procedures,
    sending,
    signing,
    spaces,
    team,
    topics,
    transferred,
)

_PARTS = (
    home,
    topics,
    login,
    account,
    spaces,
    team,
    invitations,
    information,
    files,
    catalogue,
    procedures,
    sending,
    messages,
    desk,
    attachments,
    signing,
    transferred,
)
ROUTES: tuple[Route, ...] = tuple(route for part in _PARTS for route in part.ROUTES)
FORMS: Mapping[str, str] = {post: get for part in _PARTS for post, get in part.FORMS.items()}
