"""Rows, their hashes, and their files: what is written comes back, and what is no row is refused by its line."""

import hashlib
import json
import random
from dataclasses import replace

import pytest

from signer import chain
from signer.chain import GENESIS, ChainError, Kind, Row, read
from tests.signer.ledger.histories import random_history

INSTANCE = "00112233445566778899aabbccddeeff"


def rows() -> list[Row]:
    """One of each kind, over two epochs."""
    found: list[Row] = []
    for epoch in (1, 7):
        for sequence, kind in enumerate(Kind, 1):
            previous = found[-1].hash if found else GENESIS
            found.append(
                chain.after(INSTANCE, epoch, sequence, previous, kind, {"n": sequence, "text": "a\nb\u2028é\0"})
            )
    return found


# ---- the hash


def test_golden() -> None:
    """The hash of a row is what the file says, computed here by hand; nobody who has old ledgers lives with another."""
    body = '{"time":"2026-05-04T03:02:01Z","n":1}'
    fields = {"time": "2026-05-04T03:02:01Z", "n": 1}
    row = chain.after(INSTANCE, 2, 258, bytes(range(32)), Kind.NOT_DELIVERED, fields)
    covered = (
        b"paraph-ledger-v1\x00"
        b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
        b"\x00\x00\x00\x00\x00\x00\x00\x02"
        b"\x00\x00\x00\x00\x00\x00\x01\x02"
        b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
        b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
        b"SIGNED_NOT_DELIVERED\x00"
        b'{"time":"2026-05-04T03:02:01Z","n":1}'
    )
    assert row.hash == hashlib.sha256(covered).digest()
    assert row.hash.hex() == "6ff36681a40fe9332d9ea20fdf160ae6a9958ff077dbae32d2844c92f7c1591f"
    assert row.line == f"2 258 SIGNED_NOT_DELIVERED {row.hash.hex()} {body}\n"
    assert next(chain.write([row])) == f"paraph-ledger-v1 {INSTANCE} {bytes(range(32)).hex()}\n"


@pytest.mark.parametrize(
    "change",
    [
        {"instance": "ff" * 16},
        {"epoch": 2},
        {"sequence": 2},
        {"previous": bytes(31) + b"\1"},
        {"kind": str(Kind.OUTCOME)},
        {"body": "{ }"},
        {"hash": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_covers_everything(change: dict[str, object]) -> None:
    """A row of which one thing is changed is not whole."""
    row = chain.after(INSTANCE, 1, 1, GENESIS, Kind.INTENT, {})
    assert row.is_whole()
    assert not replace(row, **change).is_whole()


def test_kind_and_body_cannot_be_shifted() -> None:
    """No row has the hash of another whose kind and body, one behind the other, read the same."""
    one = chain.row_hash(INSTANCE, 1, 1, GENESIS, "AB", "C")
    assert one != chain.row_hash(INSTANCE, 1, 1, GENESIS, "A", "BC")


def test_items_hash() -> None:
    """It says how many items there are, and where each ends."""
    assert chain.items_hash([b"ab", b"c"]) == hashlib.sha256(b"\0\0\0\2\0\0\0\1abc").hexdigest()
    assert len({chain.items_hash(items) for items in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""], [])}) == 5


# ---- files


def test_round_trip() -> None:
    """What is written comes back as it was, tied to what was before; each kind, and whatever stands in a body."""
    made = rows()
    lines = list(chain.write(made))
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    assert list(read(lines)) == made
    assert list(read(chain.write(made[5:]))) == made[5:]
    assert all(row.is_whole() for row in read(lines))
    assert [row.fields["n"] for row in read(lines)] == [row.sequence for row in made]
    assert made[0].fields["text"] == "a\nb\u2028é\0"
    assert json.loads(made[0].body) == made[0].fields


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_histories(seed: int) -> None:
    """The same with ledgers as daemons write them."""
    for each in random_history(random.Random(seed)).chains:
        assert list(read(chain.write(each.rows))) == each.rows


def test_a_changed_hash_shows_in_the_next_row() -> None:
    """A row is tied to the line before it: the one after a changed hash is not whole."""
    lines = list(chain.write(rows()[:3]))
    lines[2] = lines[2].replace(rows()[1].hash.hex(), "ab" * 32)
    assert [row.is_whole() for row in read(lines)] == [True, False, False]


HEADER = f"{chain.MAGIC} {INSTANCE} {'0' * 64}\n"
GOOD = rows()[0].line
HASH = rows()[0].hash.hex()


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ([], 1, "empty"),
        (["\n"], 1, "begins with paraph-ledger-v1"),
        ([GOOD], 1, "begins with"),
        ([HEADER.replace("v1", "v2"), GOOD], 1, "begins with"),
        ([HEADER.replace("ff ", "FF "), GOOD], 1, "begins with"),
        ([HEADER.replace("ff ", "f "), GOOD], 1, "begins with"),
        ([HEADER.replace("0\n", "\n"), GOOD], 1, "begins with"),
        ([HEADER.replace("0\n", "g\n"), GOOD], 1, "begins with"),
        ([HEADER.replace("\n", " x\n"), GOOD], 1, "begins with"),
        ([HEADER.replace("\n", "\r\n"), GOOD], 1, "begins with"),
        ([f" {HEADER}", GOOD], 1, "begins with"),
        ([HEADER], 2, "at least one row"),
        ([HEADER.rstrip("\n")], 2, "at least one row"),
        ([HEADER, GOOD, ""], 3, "ends in the middle"),
        ([HEADER, GOOD.rstrip("\n")], 2, "ends in the middle"),
        ([HEADER, GOOD, "\n"], 3, "no row"),
        ([HEADER, GOOD, HEADER], 3, "no row"),
        ([HEADER, f"1 1 EPOCH {HASH}\n"], 2, "no row"),
        ([HEADER, f"0 1 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 0 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"01 1 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 +1 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 1_0 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 -1 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 ١ EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 {10**18} EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1  1 EPOCH {HASH} {{}}\n"], 2, "no row"),
        ([HEADER, f"1 1 epoch {HASH} {{}}\n"], 2, "no kind"),
        ([HEADER, f"1 1 NOT_DELIVERED {HASH} {{}}\n"], 2, "no kind"),
        ([HEADER, f"1 1 EPOCH {HASH.upper()} {{}}\n"], 2, "no hash"),
        ([HEADER, f"1 1 EPOCH {HASH[1:]} {{}}\n"], 2, "no hash"),
        ([HEADER, f"1 1 EPOCH {HASH}0 {{}}\n"], 2, "no hash"),
    ],
)
def test_malformed(lines: list[str], line: int, said: str) -> None:
    """A line that is no row in its one form is refused, with its number and why; the rows before it are read."""
    with pytest.raises(ChainError) as caught:
        list(read(lines))
    assert caught.value.line == line
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"line {line}: ")
