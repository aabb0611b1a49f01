"""
A request as it came: its bytes, until it is known whose they are and it is their turn. Then it is parsed, once.

Parsed, a message can be much longer: 1 MiB of items of nothing is 36 MiB, and 20 ms of the loop. So nobody's is parsed who
may not call, those that wait are bytes, and what came as several hundred thousand parts is not kept when it is known.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from signer.errors import Refusal
from signer.limits import MESSAGE_BYTES_MAX

# A longer one is looked at for parts that came and were replaced, as where a oneof has another member each time: parsed, the
# memory of all is held. Of shorter ones that is 2 MiB.
_MEASURED_BYTES = 64 * 1024


class Unparsed:
    """One request; `size` is how many bytes it holds: of one that is too long none are kept."""

    __slots__ = ("_came", "_data", "_parse", "size")

    def __init__(self, parse: Callable[[bytes], Any], data: bytes) -> None:
        """`parse` is `FromString` of the class that protobuf has generated."""
        self._came = self.size = len(data)
        self._parse = parse
        self._data = data
        if self._came > MESSAGE_BYTES_MAX:
            self.drop()

    def parse(self) -> Any:
        """Its message, once: the bytes are gone then. Raises `Refusal` MESSAGE_TOO_LARGE, MESSAGE_MALFORMED."""
        if self._came > MESSAGE_BYTES_MAX:
            raise Refusal("MESSAGE_TOO_LARGE", f"{self._came} bytes")
        data, self._data = self._data, b""
        try:
            message = self._parse(data)
        except DecodeError:
            raise Refusal("MESSAGE_MALFORMED", f"{self._came} bytes") from None
        if self._came > _MEASURED_BYTES and message.ByteSize() < self._came // 2:
            raise Refusal("MESSAGE_MALFORMED", "most of it is replaced by what comes later; send each field once")
        return message

    def drop(self) -> None:
        """It will not be parsed: nothing is held of it any more."""
        self._data, self.size = b"", 0
