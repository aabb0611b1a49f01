"""All routes of the portal, and which page shows the form of which POST."""

from collections.abc import Mapping

from portal_adapter.web.route import Route
from portal_adapter.web.views import account, home, login, spaces

ROUTES: tuple[Route, ...] = (*home.ROUTES, *login.ROUTES, *account.ROUTES, *spaces.ROUTES)
FORMS: Mapping[str, str] = {**home.FORMS, **login.FORMS, **account.FORMS, **spaces.FORMS}
