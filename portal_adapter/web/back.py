"""The page that was wanted before a login: one of ours, whatever a link says."""

import re

_PATH = re.compile(r"/[A-Za-z0-9._~/*$=-]{0,255}(\?[A-Za-z0-9._~*$=&%+-]{0,500})?")


def inside(path: str) -> str:
    """
    The path, with its query, if it is a plain one of this origin, else the front page: never another site (CWE-601). A
    query has no slash and no colon but in hexadecimal.
    """
    return path if _PATH.fullmatch(path) and not path.startswith("//") else "/"
