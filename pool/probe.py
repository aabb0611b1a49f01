"""
Lists the tokens of one module, in a process that is thrown away afterwards.

Modules see a plugged token only after a fresh C_Initialize (SoftHSM) or crash while they look (OpenSC in threads), and
python-pkcs11 gives up a listing when one reader vanishes in it: so a look costs a process, and nothing else can be hurt
by it. No PIN is ever sent from here. Started as `python -I -m pool.probe SOCKET MODULE SHA256 READER PARENT`; an empty
SHA256 or READER is none.
"""

import sys
from typing import Any

import pkcs11
from pkcs11.exceptions import PKCS11Error

from pool import opensc, wire
from pool.child import harden, limit, open_socket
from pool.library import LibraryRefused, Load, loading
from pool.pcsc import Pcsc, PcscError
from pool.shown import ckr, flags, publics, text, tokens

_LOAD = loading(pkcs11.lib)
PUBLIC_KEYS_MAX = 200  # a packet's worth


def look(module: str, sha256: bytes | None, reader: str, load: Load = _LOAD) -> dict[str, Any]:
    """Every token, or the reader's: label, serial, model, PIN flags, and the public keys that show without a login."""
    try:
        if reader:
            pcsc = Pcsc()
            pcsc.find(reader)
            opensc.configure(reader, pcsc.readers())
        lib, _ = load(module, sha256)
        found = [_describe(token) for token in tokens(lib)]
    except LibraryRefused as refused:
        return {"t": "failed", "why": "error", "detail": str(refused)}
    except PcscError as error:
        return {"t": "failed", "why": error.why, "detail": error.detail}
    except (PKCS11Error, RuntimeError, OSError) as error:
        return {"t": "failed", "why": "error", "detail": ckr(error)}
    return {"t": "tokens", "tokens": [token for token in found if token["label"]]}


def _describe(token: Any) -> dict[str, Any]:
    try:
        session = token.open()
        try:
            keys = [row for row, _ in zip(publics(session), range(PUBLIC_KEYS_MAX), strict=False)]
        finally:
            session.close()
    except (PKCS11Error, ValueError):
        keys = []
    return {
        "label": text(token.label),
        "serial": text(token.serial),
        "model": f"{text(token.manufacturer_id)} {text(token.model)}",
        "flags": flags(token),
        "publics": keys,
    }


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    sock.send(wire.pack(look(sys.argv[2], bytes.fromhex(sys.argv[3]) or None, sys.argv[4])))


if __name__ == "__main__":
    main()
