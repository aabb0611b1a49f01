"""The count of PIN tries: durable, pessimistic, and what forbids a machine to lock a token."""

import multiprocessing
import os
import re
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.tries import (
    OPEN_MAX,
    Count,
    Flags,
    TokenIdentity,
    Tries,
    TriesSpent,
    TryRefused,
    check_holder,
    check_machine,
    check_person,
    gives_back,
    tries_left,
)

CARD = TokenIdentity("/lib.so", "card", "0001", "aa")
NONE = Flags()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tries.sqlite"


@pytest.fixture
def tries(path: Path) -> Iterator[Tries]:
    made = Tries(path)
    yield made
    made.close()


def reopened(path: Path, token: TokenIdentity = CARD) -> Count:
    other = Tries(path)
    try:
        return other.count(token)
    finally:
        other.close()


def machine_may(count: Count, flags: Flags = NONE, tries: int = 3) -> bool:
    try:
        check_machine(count, flags, tries)
    except TryRefused:
        return False
    return True


def person_may(count: Count, tries: int = 3, *, override: bool = False) -> bool:
    try:
        check_person(count, tries, override=override)
    except TryRefused:
        return False
    return True


def holder_may(count: Count, flags: Flags = NONE, tries: int = 3) -> str:
    """'yes', 'override' where only that helps, 'no' where nothing does."""
    try:
        check_holder(count, flags, tries)
    except TriesSpent:
        return "no"
    except TryRefused:
        return "override"
    return "yes"


def test_every_step_is_on_disk_when_it_returns(tries: Tries, path: Path) -> None:
    """Another process that opens the file sees it, at each step."""
    for change, wanted in (
        (tries.begin, Count(0, 1)),
        (tries.refused, Count(1, 0)),
        (tries.grant, Count(1, 0, granted=True)),
        (tries.begin, Count(1, 1)),
        (tries.not_sent, Count(1, 0)),
        (tries.begin, Count(1, 1)),
        (tries.begin, Count(1, 2)),
        (tries.accepted, Count()),
    ):
        change(CARD)
        assert tries.count(CARD) == reopened(path) == wanted


def test_what_is_known_needs_no_disk(path: Path) -> None:
    """The last count that was read or written is told without the file: an operator's view never waits for a disk."""
    tries = Tries(path)
    assert tries.known(CARD) == Count()
    tries.begin(CARD)
    tries.refused(CARD)
    assert tries.known(CARD) == tries.count(CARD) == Count(refused=1)
    tries.close()
    assert tries.known(CARD) == Count(refused=1)
    again = Tries(path)
    assert again.known(CARD) == Count()
    assert again.count(CARD) == again.known(CARD) == Count(refused=1)
    again.close()


def test_a_login_without_an_answer_stays_open(path: Path) -> None:
    """A crash between sending and hearing counts as a try that may be spent."""

    def crash(path: Path) -> None:
        Tries(path).begin(CARD)
        os._exit(1)

    child = multiprocessing.get_context("fork").Process(target=crash, args=(path,))
    child.start()
    child.join(10)
    assert child.exitcode == 1
    assert reopened(path) == Count(0, 1)


def test_full_synchronisation(tries: Tries, path: Path) -> None:
    """Every commit is an fsync: a power cut does not give a try back. And the file is its owner's alone."""
    database = vars(tries)["_db"]
    assert database.execute("PRAGMA synchronous").fetchone() == (3,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_tokens_are_counted_apart(tries: Tries) -> None:
    """Serials are not unique: module, label, serial and public key together say which token it is."""
    tries.begin(CARD)
    tries.refused(CARD)
    for other in (
        TokenIdentity("/other.so", "card", "0001", "aa"),
        TokenIdentity("/lib.so", "card2", "0001", "aa"),
        TokenIdentity("/lib.so", "card", "0002", "aa"),
        TokenIdentity("/lib.so", "card", "0001", "bb"),
        TokenIdentity("/lib.so", "card0001", "", "aa"),
    ):
        assert tries.count(other) == Count()
    assert tries.count(CARD) == Count(1, 0)


def test_a_token_is_known_by_its_serial() -> None:
    """Which of its keys is configured does not matter; where the serial says nothing, the token's first key stands in."""

    def of(serial: str, *spkis: bytes) -> TokenIdentity:
        return TokenIdentity.of("/lib.so", "card", serial, [(b"", "", spki) for spki in spkis])

    assert of("0001", b"x") == of("0001", b"y") == of("0001")
    assert of("0001", b"x") != of("0002", b"x")
    for zeros in ("", "0000000000000000"):
        assert of(zeros, b"x", b"y") == of(zeros, b"y", b"x") != of(zeros, b"z")


def test_a_quarantine_is_kept_until_it_is_released(tries: Tries, path: Path) -> None:
    """No login, right or wrong, and no grant ends it; a release ends it and nothing else."""
    tries.quarantine(CARD)
    for change in (tries.begin, tries.accepted, tries.begin, tries.refused, tries.grant, tries.begin, tries.not_sent):
        change(CARD)
        assert reopened(path).quarantined
    tries.release(CARD)
    assert reopened(path) == Count(1, 0)
    assert not tries.count(TokenIdentity("/lib.so", "card", "0002", "aa")).quarantined


def test_answers_without_a_begin_do_not_count_below_zero(tries: Tries) -> None:
    """A late or doubled answer makes nothing negative and frees no try."""
    tries.not_sent(CARD)
    tries.refused(CARD)
    tries.refused(CARD)
    assert tries.count(CARD) == Count(2, 0)


def test_threads_of_one_process_share_it(tries: Tries) -> None:
    """Two tokens' lanes may log in at once."""
    threads = [threading.Thread(target=lambda: [tries.begin(CARD) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tries.count(CARD) == Count(0, 40)


def test_two_processes_wait_for_each_other(tries: Tries, path: Path) -> None:
    """A second pool on the same file is no error."""
    other = Tries(path)
    tries.begin(CARD)
    other.begin(CARD)
    assert tries.count(CARD) == other.count(CARD) == Count(0, 2)
    other.close()


def test_a_damaged_file_is_an_error(path: Path) -> None:
    """A count that cannot be read is never taken for zero."""
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Tries(path).count(CARD)


def test_a_machine_tries_a_token_that_nothing_is_known_against() -> None:
    """No refusal, at most one login without an answer, three tries, no warning by the token."""
    assert machine_may(Count())
    assert machine_may(Count(open=OPEN_MAX))


@pytest.mark.parametrize(
    ("count", "flags", "tries"),
    [
        (Count(refused=1), NONE, 3),
        (Count(refused=1, open=1), NONE, 10),
        (Count(open=2), NONE, 3),
        (Count(open=2), NONE, 10),
        (Count(), NONE, 2),
        (Count(), Flags(count_low=True), 3),
        (Count(), Flags(final_try=True), 3),
        (Count(), Flags(locked=True), 3),
    ],
)
def test_a_machine_never_tries_on(count: Count, flags: Flags, tries: int) -> None:
    """After one refusal, after two logins without an answer, near the end of the tries: a person decides."""
    assert not machine_may(count, flags, tries)


def test_a_grant_allows_all_but_a_locked_token() -> None:
    """A person has looked; but a PIN is not sent where the token says it is locked."""
    granted = Count(refused=2, open=2, granted=True)
    assert machine_may(granted, Flags(count_low=True, final_try=True), 1)
    assert not machine_may(granted, Flags(locked=True))


@pytest.mark.parametrize("tries", [1, 2, 3, 5, 10])
def test_a_person_does_not_spend_the_last_try_by_accident(tries: int) -> None:
    """Allowed while two tries are left; beyond only with the override."""
    for refused in range(tries + 1):
        for open_ in range(tries + 1 - refused):
            count = Count(refused, open_)
            assert person_may(count, tries) == (tries - refused - open_ >= 2)
            assert person_may(count, tries, override=True)


def test_a_token_may_keep_its_count_although_the_pin_was_right(tries: Tries, path: Path) -> None:
    """
    Of a TPM what was refused before a right PIN still counts, for the machine and for persons; its operator, who has
    cleared its count, begins anew with an override.
    """
    assert not gives_back("TPM2.0 Cryptoki")
    assert gives_back("Implementation of PKCS11")
    for refused, left in ((1, True), (2, False)):
        tries.begin(CARD)
        tries.refused(CARD)
        tries.begin(CARD)
        tries.accepted(CARD, gives_back=False)
        assert tries.count(CARD) == reopened(path) == Count(kept=refused)
        assert machine_may(tries.count(CARD)) == person_may(tries.count(CARD)) == left
        assert holder_may(tries.count(CARD)) == ("yes" if left else "override")
    tries.begin(CARD)
    tries.begin(CARD)
    tries.accepted(CARD, gives_back=False)
    assert tries.count(CARD) == Count(kept=3), "a login without an answer may have been a wrong PIN"
    for check in (lambda c: check_machine(c, NONE, 3), lambda c: check_person(c, 3, override=False)):
        with pytest.raises(TryRefused, match=r"3 of 3 tries.*--clear-lockout.*override"):
            check(tries.count(CARD))
    tries.grant(CARD, anew=True)
    assert tries.count(CARD) == Count(granted=True)
    tries.begin(CARD)
    tries.accepted(CARD)
    assert tries.count(CARD) == Count(), "a card's tries are back"


def test_refusals_say_what_to_do() -> None:
    """Each names the rule and the way on."""
    for count, flags, words in (
        (Count(refused=2), NONE, r"refused 2 time\(s\); check it, then unlock"),
        (Count(open=2), NONE, "2 logins ended without an answer; check the token"),
        (Count(), Flags(final_try=True), "fewer than 3 PIN tries left"),
        (Count(), Flags(locked=True), "PUK"),
    ):
        with pytest.raises(TryRefused, match=words):
            check_machine(count, flags, 3)
    with pytest.raises(TryRefused, match=r"2 of 3 tries may be spent.*override"):
        check_person(Count(2), 3, override=False)


STEPS = st.lists(
    st.sampled_from(["right", "wrong", "crash", "not sent", "unlock", "unlock with override", "restart"]), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, tries=st.integers(1, 5), gives_back=st.booleans())
def test_whatever_happens_a_machine_never_goes_on_by_itself(steps: list[str], tries: int, gives_back: bool) -> None:
    """
    Over any sequence of logins, crashes, restarts and unlocks: no second PIN after a refusal without a person's grant,
    no third after two crashes, and without an override the token is never driven into its last try; also a token whose
    tries do not come back with a right PIN, of which the operator clears the count before an override.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tries.sqlite"
        counts = Tries(path)
        spent = 0  # on the token, which really counts; a crash may have spent one: here it always has
        refused = crashed = grants = overrides = 0
        for step in steps:
            if step == "restart":
                counts.close()
                counts = Tries(path)
            elif step.startswith("unlock"):
                override = step.endswith("override")
                if person_may(counts.count(CARD), tries, override=override):
                    overrides += override
                    grants = 1
                    counts.grant(CARD, anew=override and not gives_back)
                    if override and not gives_back:  # nothing of before counts any more
                        spent = refused = crashed = 0
            elif machine_may(counts.count(CARD), NONE, tries):
                assert grants or (not refused and crashed <= OPEN_MAX and tries >= 3)
                assert overrides or spent < max(tries - 1, 1)
                grants = 0
                counts.begin(CARD)
                if step == "right":
                    counts.accepted(CARD, gives_back=gives_back)
                    refused = crashed = 0
                    spent, overrides = (0, 0) if gives_back else (spent, overrides)
                elif step == "wrong":
                    counts.refused(CARD)
                    spent, refused = spent + 1, refused + 1
                elif step == "crash":
                    spent, crashed = spent + 1, crashed + 1
                    counts.close()
                    counts = Tries(path)
                else:
                    counts.not_sent(CARD)
            else:
                assert not grants
        counts.close()


# ---- the holder of a personal token


@pytest.mark.parametrize("tries", [2, 3, 5, 10])
def test_a_holder_may_while_two_tries_are_left(tries: int) -> None:
    """Then only with an override; when all may be spent not at all, unless an operator has granted one."""
    for refused in range(tries + 2):
        for open_ in range(tries + 2 - refused):
            left = tries - refused - open_
            wanted = "yes" if left >= 2 else "override" if left == 1 else "no"
            assert holder_may(Count(refused, open_), tries=tries) == wanted
            assert holder_may(Count(refused, open_, granted=True), tries=tries) == "yes"


def test_a_holder_s_token_is_believed_when_it_warns() -> None:
    """Its word for the last try or the end counts, whatever our count says; that a PIN was wrong once does not."""
    for count in (Count(), Count(1), Count(granted=True)):
        assert holder_may(count, Flags(locked=True)) == "no"
        assert holder_may(count, Flags(count_low=True)) == "yes"
    assert holder_may(Count(), Flags(final_try=True)) == "override"
    assert holder_may(Count(granted=True), Flags(final_try=True)) == "yes"


@pytest.mark.parametrize(
    ("count", "flags", "tries", "left"),
    [
        (Count(1), Flags(count_low=True), 3, 2),
        (Count(2), Flags(count_low=True), 5, 3),
        (Count(2), Flags(count_low=True, final_try=True), 3, 1),
        (Count(1), Flags(final_try=True), 3, 1),
        (Count(3), Flags(locked=True), 3, 0),
        (Count(1), NONE, 3, None),  # most cards raise no flag for one wrong PIN
        (Count(2), Flags(count_low=True), 3, None),  # SoftHSM, which has no last try
        (Count(1, 1), Flags(count_low=True), 5, None),  # what became of the open one?
        (Count(0), Flags(count_low=True), 3, None),  # somebody else was wrong
    ],
)
def test_tries_left_are_told_where_the_token_is_believed(
    count: Count, flags: Flags, tries: int, left: int | None
) -> None:
    """Its own word for 0 and 1; more only where its flags and our count agree."""
    assert tries_left(count, flags, tries) == left


def test_an_override_is_kept(tries: Tries, path: Path) -> None:
    """Who, when and at which count: for good, whatever comes after."""
    tries.begin(CARD)
    tries.refused(CARD)
    tries.begin(CARD)
    tries.override(CARD, "ann")
    tries.accepted(CARD)
    database = sqlite3.connect(path)
    ((token, at, *rest),) = database.execute("SELECT * FROM overrides").fetchall()
    database.close()
    assert (token, rest) == (str(CARD), ["ann", 1, 1])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", at)


def test_a_file_of_before_has_room_for_overrides(path: Path) -> None:
    """A count that an earlier version has written is kept, and overrides are written beside it."""
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE tries (token TEXT PRIMARY KEY, refused INTEGER NOT NULL, open INTEGER NOT NULL,"
        " granted INTEGER NOT NULL, quarantined INTEGER NOT NULL DEFAULT 0) STRICT"
    )
    database.execute("INSERT INTO tries VALUES (?, 2, 0, 0, 0)", (str(CARD),))
    database.commit()
    database.close()
    tries = Tries(path)
    tries.override(CARD, "ann")
    assert tries.count(CARD) == Count(2)
    tries.close()


HOLDER_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["right", "wrong", "crash", "general error", "already logged in", "unlock"]), st.booleans()
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=HOLDER_STEPS, tries=st.integers(1, 5), honest=st.booleans(), gives_back=st.booleans())
def test_whatever_happens_a_person_never_burns_the_last_try_unawares(
    steps: list[tuple[str, bool]], tries: int, honest: bool, gives_back: bool
) -> None:
    """
    Row 2.5: over any sequence of right and wrong PINs, crashes between a login and its answer, answers that say nothing,
    overrides and an operator's unlocks, of a token that tells its state or never does: while the person may go on
    without an override the token has two tries left, each override is written down, no more logins are refused than
    persons have acted, and a token is locked only by the try that an override has spent.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tries.sqlite"
        counts = Tries(path)
        spent = sent = overrides = 0  # `spent`: on the token, which counts truly; an unclear login has spent one
        for step, override in steps:
            flags = Flags(final_try=spent == tries - 1, locked=spent >= tries) if honest else NONE
            if step == "unlock":
                if person_may(counts.count(CARD), tries, override=override):
                    counts.grant(CARD, anew=override and not gives_back)
                    spent = 0 if override and not gives_back else spent
                continue
            granted = counts.count(CARD).granted
            may = holder_may(counts.count(CARD), flags, tries)
            if may == "no" or (may == "override" and not override):
                continue
            if may == "override":
                overrides += 1
                counts.override(CARD, "ann")
            assert may == "override" or granted or spent <= tries - 2
            sent += 1
            counts.begin(CARD)
            if step == "right" and spent < tries:
                counts.accepted(CARD, gives_back=gives_back)
                spent = 0 if gives_back else spent
            elif step == "wrong":
                counts.refused(CARD)
                spent += 1
            elif step == "already logged in":
                counts.not_sent(CARD)
            elif step in {"crash", "general error"}:
                spent += 1
                if step == "crash":
                    counts.close()
                    counts = Tries(path)
            else:
                counts.refused(CARD)  # a locked token refuses the right one
            assert counts.count(CARD).spent >= spent, "the token has lost more tries than we know of"
        counts.close()
        database = sqlite3.connect(path)
        assert database.execute("SELECT count(*) FROM overrides").fetchone() == (overrides,)
        database.close()
        assert spent <= sent
