"""Countries by their code of two letters (ISO 3166-1), with their names in our languages, from Babel's copy of the CLDR."""

import unicodedata
from collections.abc import Mapping
from functools import cache

from babel import Locale

# Codes of two letters in the CLDR that are no country: parts of one, groups, and what tests use.
_NO_COUNTRY = frozenset({"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"})


@cache
def names(language: str) -> Mapping[str, str]:
    """Code -> name, in the order of the alphabet."""
    found = Locale.parse(language).territories
    ours = {code: str(name) for code, name in found.items() if len(code) == 2 and code not in _NO_COUNTRY}
    return dict(sorted(ours.items(), key=lambda one: _folded(one[1])))


def _folded(name: str) -> str:
    """É stands beside E."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))


CODES = frozenset(names("en"))
