"""
Lists the tokens of one module, in a process that is thrown away afterwards.

Modules see a plugged token only after a fresh C_Initialize (SoftHSM) or crash while they look (OpenSC in threads), and
python-pkcs11 gives up a listing when one reader vanishes in it: so a look costs a process, and nothing else can be hurt
by it. No PIN is ever sent from here. Started as `python -I -m pool.probe SOCKET PARENT`, and asked once, by the words of
`look`.
"""

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import pkcs11
from pkcs11.exceptions import PKCS11Error

from pool import opensc, wire
from pool.child import harden, limit, open_socket
from pool.library import LibraryRefused, Load, loading
from pool.pcsc import Pcsc, PcscError
from pool.shown import Row, ckr, named, some, text, tokens

_LOAD = loading(pkcs11.lib)

# A key that is asked for: CKA_ID, label, and the beginning of its SubjectPublicKeyInfo's SHA-256.
Asked = tuple[bytes | None, str | None, bytes]


def serve(sock: Any, load: Load = _LOAD) -> None:
    """Answer one question."""
    question = wire.Inbox().receive(sock)
    if question is not None:
        del question["t"]
        sock.send(wire.pack(look(**question, load=load)))


def look(
    module: str,
    sha256: bytes | None,
    reader: str | None,
    label: str,
    serial: str | None,
    keys: Sequence[Asked] | None,
    load: Load = _LOAD,
) -> dict[str, Any]:
    """
    Every token, or the reader's: label and serial; and what the one of this label and serial shows without a login. No
    session is opened with the others.
    """
    try:
        if reader is not None:
            pcsc = Pcsc()
            pcsc.find(reader)
            opensc.configure(reader, pcsc.readers())
        lib, _ = load(module, sha256)
        found = [token for token in tokens(lib) if text(token.label)]
        ours = [token for token in found if text(token.label) == label and serial in {None, text(token.serial)}]
        shown = _shown(ours[0], keys) if len(ours) == 1 else []
    except LibraryRefused as refused:
        return {"t": "failed", "why": "error", "detail": str(refused)}
    except PcscError as error:
        return {"t": "failed", "why": error.why, "detail": error.detail}
    except (PKCS11Error, RuntimeError, OSError) as error:
        return {"t": "failed", "why": "error", "detail": ckr(error)}
    return {"t": "tokens", "tokens": [(text(token.label), text(token.serial)) for token in found], "publics": shown}


def _shown(token: Any, keys: Sequence[Asked] | None) -> list[Row]:
    """
    What a token is known by: the first of these keys that is on it, the others being its lane's to find; or some of what
    is on it, where none is asked for.
    """
    try:
        session = token.open()
        try:
            return some(session) if keys is None else _first(session, keys)
        finally:
            session.close()
    except (PKCS11Error, ValueError):
        return []


def _first(session: Any, keys: Sequence[Asked]) -> list[Row]:
    marks = {mark for _, _, mark in keys}
    rows = named(session, [(cka_id, label) for cka_id, label, _ in keys])
    return [row for row in rows if hashlib.sha256(row[2]).digest()[: wire.MARK_BYTES] in marks][:1]


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    serve(sock)


if __name__ == "__main__":
    main()
