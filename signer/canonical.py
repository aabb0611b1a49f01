"""
PDF objects (ISO 32000-1, 7.2 and 7.3) as *canonical text*: the form in which they are written back.

In it every name, number and string has one spelling, and any two tokens have the same space between them. A dictionary
is read into a `dict` of canonical names and values, an array into a `list`; what is inside those stays text, because
most of it is only written back.

Read strictly: what this file does not know well raises `Unusual` or `ValueError`, and what it accepts means one thing.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

DEPTH_MAX = 32  # containers in one another: real catalogs and pages have ten at most

Entries = dict[bytes, bytes]
Container = Entries | list[bytes]
Spelling = Mapping[int, Callable[[bytes], bytes]]  # how tokens are respelled that are not canonical, by their group


class Unusual(Exception):
    """What is for a reader that knows all of PDF; it may be right or wrong."""


_BLANK = rb"[ \n\r\t\f\0]"
SPACE = rb"%b*+(?:%%[^\n\r]*+[\n\r]%b*+)*" % (_BLANK, _BLANK)  # and comments
_REGULAR = rb"[!\"$&'*-.0-;=?-Z\\^-z|~]"  # in a name these stand for themselves: 7.3.5
_ESCAPE = rb"\\(?:[nrtbf()\\]|[0-3][0-7][0-7]|[0-7]{1,2}(?![0-9]))"  # table 3
_PIECES = {
    b"space": SPACE,
    b"regular": _REGULAR,
    b"escape": _ESCAPE,
    b"ended": rb"(?=[ \n\r\t\f\0()<>\[\]/%])",
    b"reference": rb"[1-9][0-9]{0,6}[ ](?:0|[1-9][0-9]{0,4})[ ]R",
    b"integer": rb"(?:0|-?[1-9][0-9]{0,9})",
    # Not a whole number, and not so near zero that it would be written with an exponent.
    b"fraction": rb"-?(?:0|[1-9][0-9]{0,9})\.(?=[0-9]{0,5}[1-9])[0-9]{1,15}",
}
# Possessive is only what repeats a single character: about groups Python 3.11 errs (gh-106052).
_TOKEN = re.compile(
    rb"""
    %(space)b (?:
        ( /%(regular)b*+(?!\#) | (?: %(reference)b | %(integer)b | %(fraction)b | true | false | null ) %(ended)b )
      | ( << | \[ )
      | ( >> | \] )
      | ( \( (?: [^()\\]++ | %(escape)b | \( (?: [^()\\]++ | %(escape)b )* \) )* \) )
      | ( <[0-9A-Fa-f]*+> )
      | ( /(?: %(regular)b | \#[0-9A-Fa-f]{2} )* )
      | ( [+-]?(?: [0-9]{1,10}(?:\.[0-9]{0,15})? | \.[0-9]{1,15} ) %(ended)b )
      | ( . | \Z )
    )"""
    % _PIECES,
    re.DOTALL | re.VERBOSE,
)
_CANONICAL, _OPENS, _CLOSES, _LITERAL, _HEXADECIMAL, _NAME, _NUMBER, _ELSE = range(1, 9)  # the groups of a token


def parse(source: bytes, start: int = 0, spelling: Spelling | None = None) -> tuple[Container, int]:
    """The dictionary or array that begins at `start`, and where it ends."""
    spelling = spelling or PLAIN
    around: list[list[bytes]] = []
    inner: list[bytes] = []  # of the container at hand, after how it opens
    for found in _TOKEN.finditer(source, start):
        kind = found.lastindex or _ELSE
        token = found[kind]
        if kind == _CANONICAL:
            inner.append(token)
        elif kind == _OPENS and len(around) < DEPTH_MAX:
            around.append(inner)
            inner = [token]
        elif kind == _CLOSES and around and inner[0] + token in {b"<<>>", b"[]"}:
            whole = inner[1:] if token == b"]" else _dictionary(inner[1:])
            inner = around.pop()
            if not around:
                return whole, found.end()
            inner.append(written(whole))
        elif kind in spelling and around:
            inner.append(spelling[kind](token))
        else:
            break
        if not around:
            break
    raise Unusual("not a plain object")


def _dictionary(inner: list[bytes]) -> Entries:
    names = inner[::2]
    made = dict(zip(names, inner[1::2], strict=True))
    if len(made) != len(names) or [name for name in names if name[:1] != b"/"]:
        raise Unusual("not a plain dictionary")
    return made


def written(whole: Container) -> bytes:
    """The canonical text of a dictionary or an array."""
    if isinstance(whole, dict):
        return b"<<\n%b>>" % b"".join([b"%b %b\n" % entry for entry in whole.items()])
    return b"[%b ]" % b"".join([b" " + item for item in whole])


# --- what a canonical text is ----------------------------------------------------------------------------------------


def items(text: bytes) -> list[bytes]:
    found, _ = parse(text, 0, _AS_IT_IS)
    if not isinstance(found, list):
        raise Unusual("not an array")
    return found


def entries(text: bytes) -> Entries:
    found, _ = parse(text, 0, _AS_IT_IS)
    if not isinstance(found, dict):
        raise Unusual("not a dictionary")
    return found


def natural(text: bytes) -> int:
    if not text.isdigit():
        raise Unusual("not a natural number")
    return int(text)


def referred(text: bytes) -> int:
    """The number of the object; generations other than 0 are not for us."""
    number, _, rest = text.partition(b" ")
    if rest != b"0 R":
        raise Unusual("not a plain reference")
    return int(number)


def text_of(string: bytes) -> str | None:
    """The text that a string is; None for one that is none."""
    if string[:1] == b"(":
        return _decoded(_from_literal(string))
    if string[:1] != b"<" or string[:2] == b"<<":
        raise Unusual("not a string")
    return None


# --- spelling ----------------------------------------------------------------------------------------------

# PDFDocEncoding (annex D.2), in which a text is written if it can be. NUL stands where it has no character.
_PDF_DOC = (
    "\0" * 24 + "˘ˇˆ˙˝˛˚˜" + "".join(map(chr, range(0x20, 0x7F))) + "\0"
    "•†‡…—–ƒ⁄‹›−‰„“”‘’‚™ﬁﬂŁŒŠŸŽıłœšž\0€" + "".join(map(chr, range(0xA1, 0x100))).replace("\xad", "\0")
)
_CODES = {character: code for code, character in enumerate(_PDF_DOC) if character != "\0"}
_MARKS = (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF8)
_NO_TEXT = re.compile(rb"[\0-\x17\x7f\x9f\xad]")
_ESCAPED = re.compile(_ESCAPE)
_CONTROLS = {b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t", b"\\b": b"\b", b"\\f": b"\f"}
_TO_ESCAPE = re.compile(rb"[^A-Za-z0-9 ]")
_ESCAPES = {bytes((code,)): b"\\%03o" % code for code in range(256)}
_NAME_ESCAPED = re.compile(rb"#(..)")
_NAME_TO_ESCAPE = re.compile(rb"(?!%b)." % _REGULAR, re.DOTALL)


def literal(text: str) -> bytes:
    """A text string (7.9.2.2): in PDFDocEncoding, or else in UTF-16."""
    if "\0" in text:
        raise Unusual("a text with NUL")
    try:
        raw = bytes([_CODES[character] for character in text])
    except KeyError:
        return _escaped(codecs.BOM_UTF16_BE + text.encode("utf-16be"))
    if raw.startswith(_MARKS):
        raise Unusual("a text that would be read as another one")
    return _escaped(raw)


def hexadecimal(raw: bytes) -> bytes:
    return b"<%b>" % raw.hex().encode()


def _escaped(raw: bytes) -> bytes:
    return b"(%b)" % _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], raw)


def _decoded(raw: bytes) -> str | None:
    try:
        if raw.startswith(_MARKS):
            return raw.decode("utf-8-sig" if raw.startswith(codecs.BOM_UTF8) else "utf-16")
    except UnicodeDecodeError:
        return None
    return None if _NO_TEXT.search(raw) else "".join([_PDF_DOC[code] for code in raw])


def _string(raw: bytes) -> bytes:
    """A string that is a text is written as one, any other in hexadecimal."""
    if raw.isascii() and not _NO_TEXT.search(raw):
        return _escaped(raw)
    text = _decoded(raw)
    return hexadecimal(raw) if text is None else literal(text)


def _from_literal(token: bytes) -> bytes:
    raw = token[1:-1]
    return _ESCAPED.sub(_unescaped, raw) if b"\\" in raw else raw


def _unescaped(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    return bytes((int(escape[1:], 8),)) if escape[1:].isdigit() else _CONTROLS.get(escape, escape[1:])


def _from_hexadecimal(token: bytes) -> bytes:
    digits = token[1:-1].decode()
    return bytes.fromhex(digits + "0" * (len(digits) % 2))


def _name(token: bytes) -> bytes:
    raw = _NAME_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), token[1:])
    raw.decode()  # a name that is no UTF-8 would be written as another one
    if min(raw) < 0x10:
        raise Unusual("a control character in a name")
    return b"/" + _NAME_TO_ESCAPE.sub(lambda found: b"#%X" % found[0][0], raw)


def _number(token: bytes) -> bytes:
    if b"." not in token:
        return b"%d" % int(token)
    value = Decimal(token.decode())
    spelled = str(value.quantize(Decimal(1)) if value == value.to_integral() else value)
    if "E" in spelled:
        raise Unusual("a number near zero")
    return spelled.encode()


def _exact_number(token: bytes) -> bytes:
    if b"." in token:
        raise Unusual("a whole number that is written as a fraction")
    return _number(token)


_AS_IT_IS: Spelling = dict.fromkeys((_LITERAL, _HEXADECIMAL, _NAME, _NUMBER), bytes)
PLAIN: Spelling = {
    _LITERAL: lambda token: _string(_from_literal(token)),
    _HEXADECIMAL: lambda token: _string(_from_hexadecimal(token)),
    _NAME: _name,
    _NUMBER: _number,
}
# Where numbers count something: 3.0 is not 3.
EXACT: Spelling = {**PLAIN, _NUMBER: _exact_number}
# In trailers: their strings are identifiers, which are not texts even if they look like some.
BINARY: Spelling = {
    **EXACT,
    _LITERAL: lambda token: hexadecimal(_from_literal(token)),
    _HEXADECIMAL: lambda token: hexadecimal(_from_hexadecimal(token)),
}
