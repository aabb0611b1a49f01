"""What stands below a page: the help that concerns it, the way to print it, and, where it is nobody's, to send it on (UI-04, UI-05)."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from portal_adapter.web.topics import TOPICS

# Pages that say the same to everybody: only these are sent on.
SAME_TO_ALL = frozenset({"front", "terms", "help", "help-topic"})


@dataclass(frozen=True, slots=True)
class Aids:
    """
    `topic` is empty where no help concerns the page, `address` where it is not sent on. `print_href` leads to the print
    view, and from it back to the page.
    """

    topic: str
    is_print_view: bool
    print_href: str
    address: str

    def mail(self, title: str) -> str:
        """A link that opens the reader's own mail program (RFC 6068)."""
        return f"mailto:?subject={quote(title, safe='')}&body={quote(self.address, safe='')}"


def aids(route: str, origin: str, path: str, query: Mapping[str, str]) -> Aids:
    """Of a page that was shown as it was asked for."""
    rest = {name: value for name, value in query.items() if name != "view"}
    is_print_view = query.get("view") == "print"
    other = urlencode(rest if is_print_view else {**rest, "view": "print"})
    return Aids(
        TOPICS.get(route, ""), is_print_view, f"{path}?{other}" if other else path,
        f"{origin}{path}" if route in SAME_TO_ALL else "",
    )  # fmt: skip
