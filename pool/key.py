"""A signing key as the pool knows it: its public half, and how to find it on a token."""

import hashlib
from dataclasses import dataclass, field

from pool.public import load_public_key


@dataclass(frozen=True, slots=True)
class Key:
    """
    `spki` is the DER SubjectPublicKeyInfo: the key's identity, whatever token it sits on. `cka_id` and `label` say
    where to look for it on a token; at least one is given, and what is found there must have this public half.
    """

    spki: bytes
    cka_id: bytes | None = None
    label: str | None = None
    ref: str = field(init=False)

    def __post_init__(self) -> None:
        load_public_key(self.spki)
        if self.cka_id is None and self.label is None:
            raise ValueError("a key is found by its CKA_ID, its label or both; neither was given")
        object.__setattr__(self, "ref", hashlib.sha256(self.spki).hexdigest())
