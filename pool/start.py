"""
How a lane comes up: the token is opened and recognised, the PIN sent if it may be, the keys found.

Nothing here starts a process or decides what a failure means for the pool; `StartFailed` carries it up.
"""

import asyncio
from typing import Any

from pool.keeper import ABLE, StartFailed, TokenKeeper, how_many, other_serial
from pool.pin import PinError
from pool.process import Child, NotSent
from pool.public import order_bytes
from pool.token import EVENTS, Event
from pool.tries import Flags, TryRefused, check_machine, gives_back
from pool.wire import mark_of, name_bytes, parts_of

# ref, CKA_ID, label, SubjectPublicKeyInfo, length of the order
_Asked = tuple[str, bytes | None, str | None, bytes, int]


async def open_token(child: Child, token: TokenKeeper) -> dict[str, Any]:
    """Have the token opened and compare its public keys, before anything else is sent to it."""
    config, wanted = token.config, token.wanted()
    question = {
        "t": "open",
        "module": str(config.module),
        "sha256": config.module_sha256,
        "reader": config.reader,
        "label": config.label,
        "serial": config.serial,
        "verify": config.verify,
        "keys": None,
    }
    parts = [] if wanted is None else list(parts_of([(key.cka_id, key.label) for key in wanted], name_bytes))
    answer = await child.ask(question | ({"keys": parts[0]} if parts else {}), config.start_timeout_s)
    if answer["t"] == "failed":
        detail = answer["detail"]
        if "serial" in answer:
            detail = other_serial(answer["serial"])
        elif "count" in answer:
            detail = how_many(answer["count"], config.label, answer["labels"])
        raise StartFailed(detail, EVENTS.get(answer["why"]))
    if "hashes" in answer:
        hashes = answer["hashes"]
        for part in parts[1:]:
            more = await child.ask({"t": "show", "keys": part}, config.start_timeout_s)
            if more["t"] == "failed":
                raise StartFailed(more["detail"], EVENTS.get(more["why"]))
            hashes += more["hashes"]
        answer["mark"] = mark_of(hashes)
    token.recognise(answer["serial"], answer.get("publics", ()), answer.get("hashes"))
    token.model = answer["model"]
    token.gives_back = gives_back(answer["library"])
    assert token.identity is not None
    if token.tries.count(token.identity).quarantined:
        raise StartFailed("it made a wrong signature and was not seen to since", Event.WRONG_SIGNATURE)
    return answer


async def log_in(child: Child, token: TokenKeeper, opened: dict[str, Any]) -> bool:
    """
    Send the PIN if the rules of `tries.py` allow it; the try is on disk before the PIN is on its way.

    Answers whether the lane calls the module's functions directly (`cryptoki.py`).
    """
    config, tries, identity = token.config, token.tries, token.identity
    assert identity is not None
    if config.pin is None:
        if opened["login"]:
            raise StartFailed(
                "it asks for a PIN and none is configured: give it a pin_file, then unlock it", Event.PIN_REFUSED
            )
        answer = await child.ask({"t": "login", "pin": None, "pad": False, "lease": ""}, config.start_timeout_s)
        if answer["t"] != "logged-in":
            raise StartFailed(f"it cannot be used without a PIN ({answer['detail']}): give it a pin_file")
        return bool(answer["direct"])
    try:
        check_machine(tries.count(identity), Flags(*opened["flags"]), config.pin_tries)
        pin = config.pin()
    except (TryRefused, PinError) as error:
        raise StartFailed(str(error), Event.PIN_REFUSED) from None
    if tries.count(identity).open:  # perhaps by a login beside it: now it is alone
        await token.module.quiet.wait()
    if token.state not in ABLE:
        raise StartFailed("an operator has taken it out of service meanwhile")
    await asyncio.to_thread(tries.begin, identity)
    if token.state not in ABLE:  # another lane of it has made a wrong signature while that was written
        await asyncio.to_thread(tries.not_sent, identity)
        raise StartFailed("it was taken out of service meanwhile")
    try:
        answer = await child.ask({"t": "login", "pin": pin.reveal(), "pad": False, "lease": ""}, config.start_timeout_s)
    except NotSent:
        await asyncio.to_thread(tries.not_sent, identity)
        raise
    if answer["t"] == "logged-in":
        await asyncio.to_thread(tries.accepted, identity, gives_back=token.gives_back)
    elif answer["t"] == "refused":
        await asyncio.to_thread(tries.refused, identity)
        raise StartFailed(
            f"the token refused the PIN ({answer['detail']}): check its PIN file, then unlock it", Event.PIN_REFUSED
        )
    else:
        raise StartFailed(
            f"login failed ({answer['detail']}), which may have cost a try"
        )  # the try stays open: it may have been spent
    return bool(answer["direct"])


async def find_keys(child: Child, token: TokenKeeper) -> tuple[frozenset[str], dict[str, str], frozenset[str]]:
    """
    The keys whose private halves the lane found; what went wrong with the others; and those of the found that want a PIN
    at each signature. Raises `StartFailed` where the token or the session fails, which is no key's fault.
    """
    keys = [(key.ref, key.cka_id, key.label, key.spki, order_bytes(key.spki)) for key in (token.keys or {}).values()]
    found: set[str] = set()
    problems: dict[str, str] = {}
    each: set[str] = set()
    for part in (parts := list(parts_of(keys, _key_bytes))):
        place = {"is_first": part is parts[0], "is_last": part is parts[-1], "count": len(keys)}
        answer = await child.ask({"t": "keys", "keys": part} | place, token.config.start_timeout_s)
        if answer["t"] == "failed":
            raise StartFailed(f"its keys cannot be looked for ({answer['detail']})")
        found.update(answer["found"])
        problems |= answer["problems"]
        each.update(answer["each"])
    return frozenset(found), problems, frozenset(each)


def _key_bytes(key: _Asked) -> int:
    ref, cka_id, label, spki, _ = key
    return len(ref) + len(spki) + name_bytes((cka_id, label))
