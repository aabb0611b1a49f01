"""A person's secret code goes to a hasher and nowhere else; what is stored of it is verified within limits."""

import copy
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.phc import OURS, PhcError, Setting, setting_of, written
from signer.secret import Code, CodeError
from signer.store import subjects

SECRET = "73019264-unmistakable"
SALT, HASH = "c2FsdHNhbHRzYWx0c2FsdA", "A" * 43


def test_nothing_prints_it() -> None:
    """repr, str, format and a log line show no code."""
    code = Code(SECRET)
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s %r", (code, code), None)
    for text in (repr(code), str(code), f"{code} {code!r}", f"{[code]}", record.getMessage()):
        assert SECRET not in text
        assert "Code(***)" in text
    assert code.reveal() == SECRET


def test_it_is_not_pickled_copied_compared_or_hashed() -> None:
    """A code cannot slip into another process, a cache or a set."""
    code = Code(SECRET)
    forbidden: list[Callable[[], object]] = [
        lambda: pickle.dumps(code),
        lambda: copy.copy(code),
        lambda: copy.deepcopy(code),
        lambda: code == SECRET,
        lambda: code == Code(SECRET),
        lambda: code != Code(SECRET),
        lambda: hash(code),
        lambda: vars(code),
    ]
    for each in forbidden:
        with pytest.raises(TypeError) as error:
            each()
        assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "8 to 64 characters"),
        ("1234567", "8 to 64 characters"),
        ("1" + "2" * 64, "8 to 64 characters"),
        ("e\u0301f" * 3 + "e\u0301", "8 to 64 characters"),  # seven letters, typed as eleven characters
        ("ﷺ" * 4, "8 to 64 characters"),  # one character that stands for 18
        ("1234567" * 1_000_000, "at most 64 characters"),
        ("1234567\n", "printable"),
        ("1234567\0", "printable"),
        ("12345\x1b[2J", "printable"),
        ("1234567\u200b8", "printable"),  # a space of no width
        ("1234567\u202e8", "printable"),  # turns the direction of writing
        ("1234567\ud8008", "printable"),  # half a character
        ("1234567\uffff8", "printable"),  # none
        ("1234567\ue0008", "printable"),  # whatever the font makes of it
        ("11111111", "one character"),
        ("\u3000" * 8, "one character"),
        ("éééé" + "e\u0301" * 4, "one character"),
        ("1１1１1１1１", "one character"),
    ],
)
def test_what_is_no_code(value: str, rule: str) -> None:
    """The message names the rule and never the code, and nothing hangs on the exception that does."""
    with pytest.raises(CodeError, match=rule) as error:
        Code.chosen(value)
    texts = "".join(traceback.format_exception(error.value)), repr(error.value), repr(vars(error.value))
    assert not value or not any(value in text or "12345" in text for text in texts)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    "value", ["12345678", "11111112", "a" * 63 + "b", " 12 34  ", "пароль-1", "密码密码密码密甲", 'Ab!"§$%&/()=?']
)
def test_what_is_a_code(value: str) -> None:
    """From 8 to 64 characters of any script; blanks belong to it."""
    assert Code(value).reveal() == Code.chosen(value).reveal() == value


def test_what_was_chosen_before() -> None:
    """Six characters were enough once: they are compared, and not taken for a new one."""
    assert Code("390257").reveal() == "390257"
    with pytest.raises(CodeError, match="8 to 64"):
        Code.chosen("390257")


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        ("cafe\u0301 678", "café 678"),  # a keyboard that sends letter and accent
        ("１２３４５６７８", "12345678"),  # digits of full width
        ("ﬁnances", "finances"),  # a ligature
        ("Ⅳ.klasse", "IV.klasse"),
        ("12\u00a034 56", "12 34 56"),  # a blank that does not break
        ("o\u0302\u0323" * 60 + "1234", "ộ" * 60 + "1234"),  # in another order; too many before, and not after
    ],
)
def test_one_code_from_all_keyboards(typed: str, same: str) -> None:
    """What looks alike and is the same to Unicode (NFKC) has the same bytes."""
    assert Code(typed).reveal() == Code(same).reveal() == same


@given(st.text(max_size=80))
def test_a_code_stays_what_it_is(value: str) -> None:
    """What was normalised once does not change again, and can be encoded; the limits hold for that."""
    try:
        code = Code.chosen(value)
    except CodeError:
        return
    assert Code(code.reveal()).reveal() == code.reveal()
    assert 8 <= len(code.reveal()) <= 64
    assert code.reveal().encode()


# --- What is stored --------------------------------------------------------------------------------------------------


def phc(parameters: str = "m=19456,t=2,p=1", salt: str = SALT, hash_: str = HASH, head: str = "$argon2id$v=19$") -> str:
    return f"{head}{parameters}${salt}${hash_}"


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (phc(), OURS),
        (phc("m=65536,t=3,p=4"), Setting(65536, 3, 4, 16, 32)),
        (phc("m=8,t=1,p=1"), Setting(8, 1, 1, 16, 32)),
        (phc("m=65536,t=10,p=1"), Setting(65536, 10, 1, 16, 32)),
        (phc(salt="c2FsdHNhbHQ"), Setting(19456, 2, 1, 8, 32)),
        (phc(hash_="A" * 22), Setting(19456, 2, 1, 16, 16)),
    ],
)
def test_settings(text: str, setting: Setting) -> None:
    """Read from the string."""
    assert setting_of(text) == setting


def test_what_is_written_is_read() -> None:
    assert written(OURS, b"saltsaltsaltsalt", bytes(32)) == phc()


@pytest.mark.parametrize(
    "text",
    [
        *("", "$argon2id$", "secret", phc() + "\n", " " + phc(), phc() + "$", phc(head="$argon2id$v=16$")),
        *(phc(head="$argon2i$v=19$"), phc(head="$argon2d$v=19$"), phc(head="$argon2id$"), phc(head="$2b$12$")),
        # more than is verified, or less than makes sense
        *(phc("m=65537,t=2,p=1"), phc("m=4194304,t=2,p=1"), phc("m=99999999,t=2,p=1"), phc("m=7,t=2,p=1")),
        *(phc("m=19456,t=11,p=1"), phc("m=19456,t=0,p=1"), phc("m=19456,t=2,p=5"), phc("m=19456,t=2,p=0")),
        *(phc("m=16,t=2,p=4"), phc(salt="c2FsdHNhbA"), phc(hash_="A" * 20), phc(hash_="A" * 88)),
        # what no encoder writes, and argon2 does not read
        *(
            phc("m=019456,t=2,p=1"),
            phc("m=19456,t=+2,p=1"),
            phc("t=2,m=19456,p=1"),
            phc("m=19456,t=2"),
            phc("m=١,t=2,p=1"),
        ),
        *(
            phc(salt=SALT + "=="),
            phc(salt=SALT[:-1]),
            phc(salt=SALT[:-1] + "B"),
            phc(hash_="A" * 42 + "B"),
            phc(hash_=""),
        ),
        *(phc(hash_="A" * 42 + "-"), phc(hash_="A" * 45), phc(hash_="A" * 1_000_000)),
    ],
)
def test_what_is_not_verified(text: str) -> None:
    """Another function, a setting past the limits, anything that is not the one form: refused, and not shown."""
    with pytest.raises(PhcError, match="enrol the person again") as error:
        setting_of(text)
    assert not text or text not in str(error.value)
    assert HASH not in str(error.value)


def test_a_secret_code_has_no_end() -> None:
    """NIST SP 800-63B, 3.1.1.2: nobody has to change it by the clock: when it was set is not even kept."""
    assert set(subjects.c.keys()) == {
        "name", "state", "contact_kind", "contact", "language", "code", "factor", "seed", "last"
    }  # fmt: skip
