"""An authorisation is redeemed by one request, whoever comes at the same time and whatever happens in between."""

import secrets
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from signer import authorisation
from signer.chain import Kind
from signer.errors import Refusal
from signer.gate import Redemption, Terms
from signer.store import authorisations, open_store
from tests.daemon import until
from tests.postgres import Postgres
from tests.signer.access.calls import ask, asked, digests, shim_of, signed, statuses
from tests.signer.ledger.book import of, result, statuses_of
from tests.signer.people.office import NOON
from tests.signer.people.persons import Town, redeem, terms

REDEEMERS = 64
ROUNDS = 8
DIGESTS = tuple(digests(3))
TERMS = Terms("portal", "ada", "f" * 64, "RAW", "ECDSA-SHA256", (b"", b"", b""), DIGESTS)


def attempt(engine: Engine, reference: bytes, request: bytes) -> str:
    """One redeemer, in a transaction of its own: 'OK', or the reason."""
    words = (TERMS.caller, TERMS.credential, TERMS.key, TERMS.output, TERMS.algorithm)
    try:
        with engine.begin() as connection:
            authorisation.redeem(connection, reference, Redemption(request, *words, DIGESTS), NOON + 1)
    except Refusal as refusal:
        return refusal.reason
    return "OK"


def race(engines: list[Engine], rounds: int) -> Counter[str]:
    """
    So many rounds of 64 parallel redeemers of one authorisation, each for a request of its own, by turns over these
    engines. Answers how each of them ended; AssertionError where a round had another number of winners than one.
    """
    told = Counter[str]()
    barrier = threading.Barrier(REDEEMERS)

    def one(number: int, reference: bytes, request: bytes) -> str:
        barrier.wait(30)
        return attempt(engines[number % len(engines)], reference, request)

    with ThreadPoolExecutor(REDEEMERS) as threads:
        for _ in range(rounds):
            with engines[0].begin() as connection:
                reference = authorisation.issue(connection, "ada", "window", TERMS, NOON, 120)
            requests = [secrets.token_bytes(16) for _ in range(REDEEMERS)]
            ends = list(threads.map(one, range(REDEEMERS), [reference] * REDEEMERS, requests))
            assert Counter(ends) == {"OK": 1, "AUTHZ_USED": REDEEMERS - 1}, Counter(ends)
            winner = requests[ends.index("OK")]
            assert attempt(engines[-1], reference, winner) == "OK", "the winner may come again"
            assert attempt(engines[-1], reference, secrets.token_bytes(16)) == "AUTHZ_USED"
            told.update(ends)
    return told


@pytest.fixture(params=["sqlite", "postgresql"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Engine]]:
    """Two of one database, as two daemons have them."""
    where: Path | str = tmp_path / "paraph.sqlite"
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        where = server.create("once")
    made = [open_store(where) for _ in range(2)]
    yield made
    for engine in made:
        engine.dispose()


def test_row_1_2_one_winner(engines: list[Engine]) -> None:
    """
    Row 1.2: an authorisation is for one time: of 64 parallel redeemers in each round exactly one wins, over two daemons'
    connections to one database, SQLite or PostgreSQL; all others are AUTHZ_USED, and 0 are redeemed again.
    """
    assert race(engines, ROUNDS) == {"OK": ROUNDS, "AUTHZ_USED": ROUNDS * (REDEEMERS - 1)}


@pytest.fixture(scope="module")
def own() -> Iterator[Town]:
    """For tests that kill the daemon."""
    with Town() as made:
        made.enrol("ada", "hotp")
        yield made


def killed(town: Town) -> None:
    """Kill -9 of the daemon, and its next start."""
    town.rig.stop(signal.SIGKILL)
    town.rig.launch()
    town.rig.wait_serving()


def test_row_1_2_over_a_crash(own: Town) -> None:
    """
    Row 1.2: an authorisation is crash-safe: redeemed, and the daemon killed with kill -9 while the token signs, it belongs
    to the request that has redeemed it. Another request is AUTHZ_USED, before and after; the same one goes on, to
    signatures for all its items, each item in the ledger under this authorisation and no other; 0 reuse. One that nobody
    has redeemed is still good after the crash, once.
    """
    ada, wanted, later = own.people["ada"], digests(3), digests(2, 50)
    reference, unused = own.reference(ada, terms(wanted)), own.reference(ada, terms(later))
    first = ask(request_id=str(uuid.uuid4()), credential="ada", digests=wanted, authorisation=reference)
    shim_of(own.rig).script(f"C_Sign {signed(own.rig) + 2}+ hold 60")
    call = own["portal"].signing.SignDigests.future(first, timeout=60)
    until(lambda: signed(own.rig) >= 2, 10, "the second C_Sign")
    assert redeem(own, reference, wanted).brief == ("PERMISSION_DENIED", "AUTHZ_USED")
    killed(own)
    shim_of(own.rig).clear()
    assert call.exception() is not None
    before = signed(own.rig)
    assert redeem(own, reference, wanted).brief == ("PERMISSION_DENIED", "AUTHZ_USED")
    mixed = redeem(own, reference, wanted, request_id=first.request_id, output="CADES_B_B")
    assert mixed.brief == ("INVALID_ARGUMENT", "IDEMPOTENCY_MISMATCH")
    assert signed(own.rig) == before
    assert "INDETERMINATE" in statuses_of(result(own["portal"], first.request_id))
    resumed = own["portal"].sign(first)
    assert statuses(resumed) == ["SIGNED"] * 3
    assert own["portal"].sign(first).value == resumed.value
    assert redeem(own, reference, wanted).brief == ("PERMISSION_DENIED", "AUTHZ_USED")
    intents = of(own.rig, first.request_id, Kind.INTENT)
    assert {row["authorisation"] for row in intents} == {authorisation.name_of(reference).hex()}
    assert {row["subject"] for row in intents} == {"ada"}
    assert set(asked(own.rig)) == {one.hex() for one in wanted}, "nothing else was signed"
    assert statuses(redeem(own, unused, later)) == ["SIGNED"] * 2
    assert redeem(own, unused, later).brief == ("PERMISSION_DENIED", "AUTHZ_USED")


def test_row_1_2_killed_before_anything_is_intended(own: Town) -> None:
    """
    Row 1.2: redeem, kill -9, redeem again, with nothing in between: an authorisation that a dead daemon has given to a
    request, and no more than that, is this request's still: it is signed, another one is AUTHZ_USED.
    """
    wanted, mine = digests(2, 90), str(uuid.uuid4())
    reference = own.reference(own.people["ada"], terms(wanted))
    own.rig.stop(signal.SIGKILL)
    engine = open_store(own.rig.state / "paraph.sqlite")
    with engine.begin() as connection:
        row = connection.execute(
            select(authorisations).where(authorisations.c.hash == authorisation.name_of(reference))
        ).one()
        words = (row.caller, row.credential, row.key, row.output, row.algorithm)
        redemption = Redemption(uuid.UUID(mine).bytes, *words, wanted)
        authorisation.redeem(connection, reference, redemption, row.issued)
    engine.dispose()
    own.rig.launch()
    own.rig.wait_serving()
    before = signed(own.rig)
    assert redeem(own, reference, wanted).brief == ("PERMISSION_DENIED", "AUTHZ_USED")
    assert signed(own.rig) == before
    assert statuses(redeem(own, reference, wanted, request_id=mine)) == ["SIGNED"] * 2
