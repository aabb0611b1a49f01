"""Reading what a request asks: from proto to our words, refusing what is missing, unknown or over a limit."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import google_crc32c

from pool import Algorithm, Hash, Scheme
from signer.credential import Credential, Output, algorithm_of
from signer.errors import Refusal
from signer.limits import DIGESTS_MAX, STRING_CHARACTERS_MAX
from signer.policy import Policy
from signer.v1 import signing_pb2 as pb

OUTPUTS: Mapping[int, Output] = {
    pb.RAW: Output.RAW,
    pb.CADES_B_B: Output.CADES_B_B,
    pb.PADES_B_B: Output.PADES_B_B,
}
SCHEMES: Mapping[int, Scheme] = {
    pb.RSA_PKCS1_V15: Scheme.RSA_PKCS1_V15,
    pb.RSA_PSS: Scheme.RSA_PSS,
    pb.ECDSA: Scheme.ECDSA,
    pb.ED25519: Scheme.ED25519,
}
_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
HASHES: Mapping[int, Hash] = {pb.SHA256: Hash.SHA256, pb.SHA384: Hash.SHA384, pb.SHA512: Hash.SHA512}


def request_id(text: str) -> str:
    """A UUID in its usual form of 36 characters (RFC 9562, 4)."""
    if not _UUID.fullmatch(text):
        raise Refusal("REQUEST_ID_INVALID")
    return text.lower()


def output(value: int) -> Output:
    if value not in OUTPUTS:
        raise Refusal("OUTPUT_MISSING")
    return OUTPUTS[value]


@lru_cache(maxsize=64)  # one object for each, so that dictionaries know it again by its identity
def algorithm(signature: int, digest: int, *, message: bool = False) -> Algorithm:
    """`message`: an Ed25519 request with RAW, which has no digest algorithm."""
    if signature not in SCHEMES or (digest not in HASHES and not message):
        raise Refusal("ALGORITHM_MISSING")
    if message:
        return Algorithm(Scheme.ED25519, None)
    return algorithm_of(SCHEMES[signature], HASHES[digest])


def items(message: Any, out: Output) -> tuple[Algorithm, list[bytes]]:
    """The algorithm of a SignDigestsRequest and what it gives to sign, checked by count and checksum."""
    raw_ed25519 = message.signature_algorithm == pb.ED25519 and out is Output.RAW
    used, other = (message.messages, message.digests) if raw_ed25519 else (message.digests, message.messages)
    if other:
        field = "messages" if raw_ed25519 else "digests"
        raise Refusal("ALGORITHM_NOT_ALLOWED", f"what {out} signs with this algorithm is given in {field}")
    if raw_ed25519 and message.digest_algorithm:
        raise Refusal("ALGORITHM_NOT_ALLOWED", "ED25519 with RAW takes messages and no digest algorithm")
    if len(used) > DIGESTS_MAX:
        raise Refusal("BATCH_TOO_LARGE", f"{len(used)} digests, at most {DIGESTS_MAX}")
    wanted = algorithm(message.signature_algorithm, message.digest_algorithm, message=raw_ed25519)
    given = list(used)
    if google_crc32c.value(b"".join(given)) != message.crc32c:
        raise Refusal("CRC_MISMATCH")
    return wanted, given


def text(value: str, field: str) -> str:
    """A text for people: short, and without anything that moves a terminal's cursor or a log's line."""
    if len(value) > STRING_CHARACTERS_MAX or not value.isprintable():
        raise Refusal("STRING_TOO_LONG", field)
    return value


def credential_of(name: str, caller: Any, policy: Policy, credentials: Mapping[str, Credential]) -> Credential:
    """
    One answer for a credential that is not there and one that is not this caller's; a person's own certificate has only
    that person's.
    """
    policy.check_credential(caller, name)
    found = credentials.get(name)
    if found is None or (caller.subject is not None and caller.subject != found.subject):
        raise Refusal("CREDENTIAL_UNKNOWN")
    return found
