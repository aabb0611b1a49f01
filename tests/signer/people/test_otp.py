"""One-time codes: which counts, when, and once; and seeds that open in one place only."""

import base64
import copy
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from signer import otp
from signer.otp import GRACE_S, Kind, Sealed, SeedError, Seeds, hotp_counter, totp_step

SEED = b"12345678901234567890"  # of both RFCs
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)  # where a step begins
STEP = int(NOW.timestamp()) // 30
TWINS = (1304164).to_bytes(20, "big")  # the first that makes the same code for STEP and the one before
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
# RFC 4226, appendix D.
HOTP = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
# RFC 6238, appendix B: the rows of SHA-1, of 8 digits.
TOTP = {
    59: "94287082",
    1111111109: "07081804",
    1111111111: "14050471",
    1234567890: "89005924",
    2000000000: "69279037",
    20000000000: "65353130",
}


@cache
def code_of(counter: int, seed: bytes = SEED) -> str:
    return pyotp.HOTP(base64.b32encode(seed).decode()).at(counter)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


# --- Vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "code"), list(enumerate(HOTP)))
def test_hotp_vectors(counter: int, code: str) -> None:
    """RFC 4226, appendix D: each value is its counter's, and one further the counter goes."""
    assert hotp_counter(SEED, code, counter) == counter + 1


@pytest.mark.parametrize(("seconds", "code"), TOTP.items())
def test_totp_vectors(seconds: int, code: str) -> None:
    """RFC 6238, appendix B, SHA-1: the last 6 of the 8 digits, which is what truncation to 6 gives."""
    now = datetime.fromtimestamp(seconds, UTC)
    assert totp_step(SEED, code[-6:], now, 0) == seconds // 30
    assert totp_step(SEED, code, now, 0) is None


# --- Codes of a device -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whose", "seconds", "last", "accepted"),
    [
        # the present step, from its first moment to its last
        (0, 0, -9, True),
        (0, 29.999999, -9, True),
        # the step before: for 5 s, the last microsecond of them included
        (-1, 0, -9, True),
        (-1, 4.999999, -9, True),
        (-1, GRACE_S, -9, False),
        (-1, 29.999999, -9, False),
        # no other
        (-2, 0, -9, False),
        (-2, 4.999999, -9, False),
        (1, 0, -9, False),
        (1, 29.999999, -9, False),
        # one time each, and none before one that was used
        (0, 1, -1, True),
        (0, 1, 0, False),
        (-1, 1, -2, True),
        (-1, 1, -1, False),
        (-1, 1, 0, False),
        # a clock that was set back: what is used up stays used up
        (0, 1, 1, False),
        (0, 1, 5, False),
    ],
)
def test_steps(whose: int, seconds: float, last: int, accepted: bool) -> None:
    """Every edge of step, grace and single use; steps are counted from the present one."""
    found = totp_step(SEED, code_of(STEP + whose), at(seconds), STEP + last)
    assert found == (STEP + whose if accepted else None)


def test_a_step_at_the_beginning_of_time() -> None:
    """The step before the first one is none, and neither is one of a clock that stands before 1970."""
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    assert totp_step(SEED, code_of(0), begin, 0) is None
    assert totp_step(SEED, code_of(1), begin + timedelta(seconds=30), 0) == 1
    assert totp_step(SEED, code_of(1), begin - timedelta(days=1), 0) is None


def test_time_zones() -> None:
    """A moment is the same in every zone; one without a zone is refused, or it would be taken for local time."""
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert totp_step(SEED, code_of(STEP), east, 0) == STEP
    with pytest.raises(TypeError):
        totp_step(SEED, code_of(STEP), NOW.replace(tzinfo=None), 0)


@pytest.mark.parametrize(("whose", "accepted"), [(-2, False), (-1, False), (0, True), (1, True), (2, False)])
def test_look_ahead(whose: int, accepted: bool) -> None:
    """The counter and one more; the counter goes behind the one that was used."""
    assert hotp_counter(SEED, code_of(100 + whose), 100) == (101 + whose if accepted else None)
    assert hotp_counter(SEED, HOTP[1], 0) == 2
    assert hotp_counter(SEED, HOTP[2], 0) is None


def test_twins() -> None:
    """Where two counters have the same code, as happens once in a million, both are used up: it counts once as well."""
    code = code_of(STEP, TWINS)
    assert code == code_of(STEP - 1, TWINS)
    assert totp_step(TWINS, code, at(1), 0) == STEP
    assert totp_step(TWINS, code, at(2), STEP) is None
    assert hotp_counter(TWINS, code, STEP - 1) == STEP + 1


@pytest.mark.parametrize(
    "code",
    [
        *("", "12345", "1234567", " 755224", "755224 ", "755224\n", "755 224", "+75522", "-75522", "7552.4", "0x1234"),
        *("٧٥٥٢٢٤", "７５５２２４", "755²24", "755224é", "75522a", "\0" * 6, "\ud800" * 6, "755224" * 100_000),
    ],
)
def test_what_is_no_code(code: str) -> None:
    """Six ASCII digits or nothing: also where Unicode's compatibility forms would make the right digits of it."""
    assert hotp_counter(SEED, code, 0) is None
    assert totp_step(SEED, code, NOW, 0) is None
    assert not otp.matches(KEY, code, b"", otp.fingerprint(KEY, "755224", b""))


@pytest.mark.parametrize("seed", [b"", SEED[:-1], SEED + b"1"])
def test_what_is_no_seed(seed: bytes) -> None:
    """20 bytes; another length is refused unshown, whatever is asked of it."""
    for use in (
        lambda: hotp_counter(seed, "123456", 0),
        lambda: totp_step(seed, "nothing", NOW, 0),
        lambda: otp.uri(Kind.TOTP, seed, "s", "i"),
        lambda: Seeds(KEY).seal("s", Kind.TOTP, "1", seed),
    ):
        with pytest.raises(ValueError, match="a seed has 20 bytes") as error:
            use()
        assert "1234" not in str(error.value)


_MOMENTS = st.integers(0, 20 * 30_000_000).map(lambda micro: NOW + timedelta(microseconds=micro))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_MOMENTS, st.integers(-2, 1)), max_size=40))
@example([(at(31), -1), (at(31), 0), (at(32), 0), (at(31), -1), (at(61), -1)])
def test_no_code_counts_twice(schedule: list[tuple[datetime, int]]) -> None:
    """Whatever the clock does between tries, forth and back, a code that was accepted is never accepted again."""
    assert len({code_of(STEP + step) for step in range(-3, 24)}) == 27
    last, used = 0, set[str]()
    for now, offset in schedule:
        step = int(now.timestamp() // 30) + offset
        code = code_of(step)
        found = totp_step(SEED, code, now, last)
        into_s = (now - NOW).total_seconds() % 30
        in_time = offset == 0 or (offset == -1 and into_s < GRACE_S)
        assert (found is not None) == (in_time and step > last)
        if found is not None:
            assert found == step
            assert code not in used
            used.add(code)
            last = found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_no_counter_counts_twice(presses: list[tuple[int, bool]]) -> None:
    """However often the button is pressed in vain, and old codes are shown again: each code counts once."""
    assert len({code_of(counter) for counter in range(200)}) == 200
    counter, device, used = 0, 0, list[str]()
    for times, is_replay in presses:
        device += times
        code = used[times % len(used)] if is_replay and used else code_of(device)
        found = hotp_counter(SEED, code, counter)
        assert (found is not None) == (code in {code_of(counter), code_of(counter + 1)})
        if found is not None:
            assert code not in used
            used.append(code)
            counter = found
            device = max(device, counter)


def test_seeds_are_new() -> None:
    assert len({otp.new_seed() for _ in range(100)}) == 100
    assert {len(otp.new_seed()) for _ in range(10)} == {20}


# --- The address of an authenticator ---------------------------------------------------------------------------------

NAMES = ["erika", "a b&c=d?e#f%g+h", "Ärztin 医", "a/b/../c", "a:b", "erika@example.org", "&secret=AAAA"]


@pytest.mark.parametrize("subject", NAMES)
@pytest.mark.parametrize("issuer", [name for name in NAMES if ":" not in name])
@pytest.mark.parametrize("kind", Kind)
def test_address(kind: Kind, subject: str, issuer: str) -> None:
    """Two readers find in it what was put in, whatever stands in the names."""
    address = otp.uri(kind, SEED, subject, issuer, 7)
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("otpauth", kind.lower(), "")
    assert unquote(parts.path) == f"/{issuer}:{subject}"
    expected = {"secret": [base64.b32encode(SEED).decode()], "issuer": [issuer]}
    assert parse_qs(parts.query) == expected | ({"counter": ["7"]} if kind is Kind.HOTP else {})
    assert address.isascii()
    read = pyotp.parse_uri(address)
    assert (read.name, read.issuer, read.byte_secret(), read.digits) == (subject, issuer, SEED, 6)
    if isinstance(read, pyotp.TOTP):
        assert totp_step(SEED, read.at(NOW), NOW, 0) == STEP
    else:
        assert isinstance(read, pyotp.HOTP)
        assert read.at(0) == code_of(7)


@pytest.mark.parametrize(("subject", "issuer"), [("", "Paraph"), ("erika", ""), ("erika", "Paraph: Berlin")])
def test_address_that_would_be_read_otherwise(subject: str, issuer: str) -> None:
    """Empty names, and an issuer that could not be told from the subject, are refused."""
    with pytest.raises(ValueError, match="issuer without a colon") as error:
        otp.uri(Kind.TOTP, SEED, subject, issuer)
    assert base64.b32encode(SEED).decode() not in str(error.value)


# --- Codes that are sent ---------------------------------------------------------------------------------------------


def test_sent_codes() -> None:
    """Six digits, zeros in front kept; a code fits its own fingerprint, and no other code does."""
    codes = [otp.new_code() for _ in range(2000)]
    assert all(len(code) == 6 and code.isascii() and code.isdigit() for code in codes)
    assert any(code.startswith("0") for code in codes)
    assert len(set(codes)) > 1900
    bound = otp.binding("sign", "erika", bytes(32))
    stored = otp.fingerprint(KEY, codes[0], bound)
    assert len(stored) == 32
    assert otp.matches(KEY, codes[0], bound, stored)
    assert not otp.matches(KEY, f"{(int(codes[0]) + 1) % 10**6:06}", bound, stored)
    assert not otp.matches(OTHER_KEY, codes[0], bound, stored)
    assert not otp.matches(KEY, codes[0], bound, stored[:-1])


def test_fingerprint_needs_its_key() -> None:
    """A key of another length is refused, an empty one too: then everybody could try all codes."""
    for key in (b"", KEY[:-1], KEY + b"0"):
        with pytest.raises(ValueError, match="has 32 bytes"):
            otp.fingerprint(key, "123456", b"")


_BINDINGS = st.tuples(st.text(max_size=4), st.text(max_size=4), st.binary(max_size=4))


@given(st.sampled_from(["000000", "000001"]), _BINDINGS, st.sampled_from(["000000", "000001"]), _BINDINGS)
@example("000000", ("log", "in", b""), "000000", ("login", "", b""))
@example("000000", ("sign", "a", b"b"), "000000", ("sign", "ab", b""))
def test_a_code_is_good_for_one_thing(
    code: str, bound: tuple[str, str, bytes], other_code: str, other: tuple[str, str, bytes]
) -> None:
    """For another purpose, subject or batch it does not match, however the bytes of these are shifted."""
    stored = otp.fingerprint(KEY, code, otp.binding(*bound))
    assert otp.matches(KEY, other_code, otp.binding(*other), stored) == ((code, bound) == (other_code, other))


def test_short_digest() -> None:
    """RFC 4648, 10: the test vector of 5 bytes; the rest of the digest is not looked at."""
    assert otp.short_digest(b"fooba") == "MZXW6YTB"
    assert otp.short_digest(b"fooba" + bytes(27)) == "MZXW6YTB"
    assert otp.short_digest(bytes(32)) == "AAAAAAAA"
    with pytest.raises(ValueError, match="at least 5"):
        otp.short_digest(b"foob")


# --- Seeds at rest ---------------------------------------------------------------------------------------------------

_PLACES = st.tuples(st.text(max_size=4), st.sampled_from(Kind), st.text(max_size=4))


@given(_PLACES, _PLACES)
@example(("erika", Kind.TOTP, "1"), ("erik", Kind.TOTP, "a1"))
@example(("a", Kind.TOTP, "1"), ("a", Kind.HOTP, "1"))
@example(("aTOTP", Kind.TOTP, ""), ("a", Kind.TOTP, "TOTP"))
def test_a_seed_opens_in_its_place_only(place: tuple[str, Kind, str], other: tuple[str, Kind, str]) -> None:
    """Another's row, another kind, another id: none opens it, however their bytes are shifted."""
    assume(place != other)
    seeds = Seeds(KEY)
    sealed = seeds.seal(*place, SEED)
    assert seeds.open(*place, sealed) == SEED
    with pytest.raises(SeedError):
        seeds.open(*other, sealed)


def test_a_sealed_seed_tells_nothing() -> None:
    """The same seed is sealed otherwise each time, and stands nowhere in it."""
    sealed = [Seeds(KEY).seal("erika", Kind.TOTP, "1", SEED) for _ in range(50)]
    assert len(set(sealed)) == len({each[:12] for each in sealed}) == 50
    assert {len(each) for each in sealed} == {48}
    assert not any(SEED[:8] in each for each in sealed)


@pytest.mark.parametrize("damage", ["other key", "bit", "cut", "empty", "longer"])
def test_what_does_not_open(damage: str) -> None:
    """Another key, one bit, a byte less or more: the message says whose it is and what to do, and shows no seed."""
    sealed = Seeds(KEY).seal("erika", Kind.TOTP, "1", SEED)
    data = {
        "bit": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut": sealed[:-1],
        "empty": b"",
        "longer": sealed + b"\0",
    }.get(damage, sealed)
    with pytest.raises(SeedError, match=r"'1' of 'erika' .* enrol") as error:
        Seeds(OTHER_KEY if damage == "other key" else KEY).open("erika", Kind.TOTP, "1", data)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("key", [b"", KEY[:16], KEY[:24], KEY + b"0"])
def test_a_key_of_another_length(key: bytes) -> None:
    """AES-256 and nothing shorter."""
    with pytest.raises(ValueError, match="has 32 bytes"):
        Seeds(key)


def rows() -> list[Sealed]:
    seeds = Seeds(KEY)
    places = [("erika", Kind.TOTP, "1"), ("erika", Kind.HOTP, "2"), ("max", Kind.TOTP, "3")]
    return [Sealed(*place, seeds.seal(*place, bytes([number]) * 20)) for number, place in enumerate(places)]


def test_another_key() -> None:
    """Every row opens under the new key as it did under the old, and no longer under the old."""
    old, new = Seeds(KEY), Seeds(OTHER_KEY)
    before = rows()
    after = list(otp.rekey(old, new, before))
    assert [replace(row, data=b"") for row in after] == [replace(row, data=b"") for row in before]
    for number, row in enumerate(after):
        place = (row.subject, row.kind, row.seed_id)
        assert new.open(*place, row.data) == bytes([number]) * 20
        with pytest.raises(SeedError):
            old.open(*place, row.data)


def test_another_key_stops_at_what_does_not_open() -> None:
    """The row that does not open is named, where it stands: who writes them in one transaction writes none."""
    before = rows()
    before[1] = replace(before[1], subject="max")
    done = []
    with pytest.raises(SeedError, match="HOTP seed '2' of 'max'"):
        done.extend(otp.rekey(Seeds(KEY), Seeds(OTHER_KEY), before))
    assert next(otp.rekey(Seeds(KEY), Seeds(OTHER_KEY), before)).seed_id == "1", "row by row, not all in memory"


# --- Canaries --------------------------------------------------------------------------------------------------------


def test_nothing_shows_a_seed_or_a_key() -> None:
    """repr, str and format of what holds or held them; a keeper of seeds goes into no pickle, copy or dictionary."""
    seed, key = b"canary-seed-73019264", b"canary-key-of-thirty-two-bytes-0"
    seeds = Seeds(key)
    sealed = Sealed("erika", Kind.TOTP, "1", seeds.seal("erika", Kind.TOTP, "1", seed))
    with pytest.raises(SeedError) as error:
        seeds.open("max", Kind.TOTP, "1", sealed.data)
    texts = [f"{each!r} {each!s} {each}" for each in (seeds, sealed, error.value, [seeds])]
    texts += ["".join(traceback.format_exception(error.value)), repr(error.value.args), repr(vars(error.value))]
    for secret in (seed, key):
        for form in (secret.decode(), secret.hex(), base64.b32encode(secret).decode(), repr(secret)[2:-1]):
            assert not any(form in text for text in texts)
    assert seed not in pickle.dumps(sealed)
    forbidden: list[Callable[[], object]] = [
        lambda: pickle.dumps(seeds),
        lambda: copy.copy(seeds),
        lambda: copy.deepcopy(seeds),
        lambda: vars(seeds),
    ]
    for each in forbidden:
        with pytest.raises(TypeError):
            each()
