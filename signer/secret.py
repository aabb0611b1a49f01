"""
A person's own secret code, on its way to a hasher (code.py) and nowhere else: it promises what `pool.Pin` promises.

Her own program looks at it, too, before it asks for more: so this file needs the standard library alone.
"""

import unicodedata
from typing import NoReturn

# Of one that is chosen (ASVS 5.0, 6.2.1); digits alone are enough: tries are counted, and a one-time code goes with it.
CHARACTERS_MIN = 8
TYPED_CHARACTERS_MIN = 6  # of one that was chosen before that was the least; its person still has to change it
CHARACTERS_MAX = 64  # what a person may want to type (NIST SP 800-63B-3, 5.1.1.2: at least that much is allowed)
GIVEN_CHARACTERS_MAX = 4 * CHARACTERS_MAX  # before normalising: a letter and three accents; and it takes time


class CodeError(ValueError):
    """It cannot be a secret code; the message names the rule, never the code."""


class Code:
    """
    One secret code, in Unicode's form NFKC: keyboards write the same letter as one character or as two, and digits in
    full width or not, and the bytes that are hashed must be the same from all of them (NIST SP 800-63B-3, 5.1.1.2).

    `reveal()` is called where a question to a hasher is made (code.py), where a new one is compared with the present one
    (consent.py), and nowhere else.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        if len(value) > GIVEN_CHARACTERS_MAX:
            raise CodeError(f"a secret code has at most {CHARACTERS_MAX} characters")
        value = unicodedata.normalize("NFKC", value)
        if not TYPED_CHARACTERS_MIN <= len(value) <= CHARACTERS_MAX:
            raise CodeError(f"a secret code has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters")
        if not value.isprintable():  # neither is what this Unicode does not know: its normal form may still change
            raise CodeError("a secret code has printable characters only")
        if len(set(value)) == 1:
            raise CodeError("a secret code is not one character all through")
        self._value = value

    @classmethod
    def chosen(cls, value: str) -> "Code":
        """One that is to be set; as `Code`, which is one that is compared."""
        code = cls(value)
        if len(code.reveal()) < CHARACTERS_MIN:
            raise CodeError(f"a secret code has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters")
        return code

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Code(***)"

    def __eq__(self, other: object) -> bool:
        raise TypeError("codes are compared by their hashes, not here")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a code is not pickled")
