"""
A PIN on its way down to a token, and nowhere else.

Python cannot wipe a `str` or `bytes`: copies stay in the heap until it is reused. What is promised here is less and is
kept: a PIN has no repr, cannot be pickled or compared, and is read from its file only when a login is about to happen.
In a worker it dies with the process, which is the only dependable wipe. A person's PIN is good for one lease: the
parent forgets it when it has gone down, and the lease's worker is gone a second after the lease.
"""

from pathlib import Path
from typing import NoReturn

from pool.secret_file import SecretFileError, read_secret

PIN_BYTES_MAX = 255  # PKCS#11 gives a length in bytes and no limit; no token known takes more


class PinError(ValueError):
    """The PIN cannot be had; the message names the file and what to change, never the content."""


class Pin:
    """
    One PIN. `reveal()` is called where a login message to a worker is made (start.py, login.py), where somebody tries a
    module (profile.py), and nowhere else.
    `forget()` is what a lease does with it then: whoever still holds the object holds nothing.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        if not value or len(value.encode()) > PIN_BYTES_MAX:
            msg = f"a PIN has 1 to {PIN_BYTES_MAX} bytes"
            raise PinError(msg)
        self._value = value

    def reveal(self) -> str:
        """Raises `PinError` once it is forgotten: an empty PIN is never sent."""
        if not self._value:
            raise PinError("this PIN was used up by a lease; ask for it again")
        return self._value

    def forget(self) -> None:
        self._value = ""

    def __repr__(self) -> str:
        return "Pin(***)"

    def __eq__(self, other: object) -> bool:
        raise TypeError("PINs are compared by tokens, not here")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PIN is not pickled")


class PinFile:
    """
    A PIN kept in a file of mode 0400 or 0600; read at each login, so that a changed PIN is taken up. A trailing newline
    is not part of the PIN. `group_may_read`: as of `read_secret`.
    """

    def __init__(self, path: Path, *, group_may_read: bool = False) -> None:
        self.path = path
        self._group_may_read = group_may_read

    def __call__(self) -> Pin:
        try:
            content = read_secret(self.path, PIN_BYTES_MAX + 2, group_may_read=self._group_may_read)
        except OSError as error:
            raise PinError(f"PIN file {self.path}: {error.strerror}") from None
        except SecretFileError as error:
            raise PinError(f"PIN file {self.path} {error}") from None
        try:
            return Pin(content.decode().rstrip("\r\n"))
        except (UnicodeDecodeError, PinError):
            raise PinError(f"PIN file {self.path} does not hold a PIN of 1 to {PIN_BYTES_MAX} bytes") from None

    def __repr__(self) -> str:
        return f"PinFile({str(self.path)!r})"
