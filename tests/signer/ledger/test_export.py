"""What an auditor gets of a running, a stopped and a broken daemon, and says of it; and a request's life."""

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.daemon import Rig, running, until
from tests.signer.access.calls import Caller, card_rig, statuses
from tests.signer.ledger.book import book, request
from tests.signer.ledger.kept import Kept


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    with running(card_rig("P-256")) as made:
        with Caller(made) as portal:
            assert statuses(portal.sign()) == ["SIGNED"]
        until(lambda: checkpoints(made), 5, "a checkpoint")
        yield Kept(made)


@pytest.fixture
def rig(kept: Kept) -> Rig:
    """Stopped, with one request, and anchored."""
    return kept.put_back()


def checkpoints(rig: Rig) -> int:
    return rig.anchor.read_text().count("paraph-checkpoint-v1\n") if rig.anchor.exists() else 0


def export(rig: Rig, name: str) -> Path:
    file = rig.directory / name
    done = rig.command("audit", "export", "--config", rig.config, "-o", file)
    assert done.returncode == 0, done.stderr
    return file


def verify(rig: Rig, *files: Path) -> CompletedProcess[str]:
    return rig.command("audit", "verify", *files, "--key", rig.keys / "checkpoint.pub", "--anchor", rig.anchor)


def change(rig: Rig, statement: str) -> None:
    db = sqlite3.connect(rig.state / "paraph.sqlite")
    db.execute(statement)
    db.commit()
    db.close()


def test_export_and_verify(rig: Rig) -> None:
    """
    The chain of a daemon that runs, and of the same daemon when it is stopped, is whole; each row is in it once, and a
    request by its id.
    """
    before, message = checkpoints(rig), request()
    rig.launch()
    rig.wait_serving()
    with Caller(rig) as portal:
        assert statuses(portal.sign(message)) == ["SIGNED"]
        until(lambda: checkpoints(rig) > before, 5, "a checkpoint")
        while_it_runs = export(rig, "while it runs")
        assert message.request_id in while_it_runs.read_text()
        done = verify(rig, while_it_runs)
        assert done.returncode == 0, done.stdout
    rig.stop()
    file = export(rig, "stopped")
    done = verify(rig, file)
    assert done.returncode == 0, done.stdout
    assert len(file.read_text().splitlines()) == 1 + len(book(rig.state))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    printed = rig.command("audit", "export", "--config", rig.config)
    assert (printed.returncode, printed.stdout) == (0, file.read_text())


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE ledger_rows SET body = replace(body, 'portal', 'nobody') WHERE kind = 'INTENT'",
        "UPDATE ledger_rows SET body = CAST(x'7bff0a7d' AS TEXT) WHERE kind = 'INTENT'",
        "UPDATE ledger_rows SET hash = 'none' WHERE kind = 'INTENT'",
        "DELETE FROM ledger_rows WHERE kind = 'INTENT'",
        "DELETE FROM ledger_instances",
    ],
    ids=["edited", "no text", "no hash", "missing", "no instance"],
)
def test_evidence(rig: Rig, harm: str) -> None:
    """What the daemon refuses to start with is written out as it stands, and the verifier sees what was done to it."""
    change(rig, harm)
    before = (rig.state / "paraph.sqlite").read_bytes()
    done = verify(rig, export(rig, "broken"))
    whole = "ledger_instances" in harm  # that is no part of the chain
    assert done.returncode == (0 if whole else 1), done.stdout
    assert (rig.state / "paraph.sqlite").read_bytes() == before, "evidence is not touched"


def test_nothing_is_written_over(rig: Rig) -> None:
    """A file that is there stays, and nothing half-written is left beside it."""
    file = rig.directory / "there"
    file.write_text("mine")
    done = rig.command("audit", "export", "--config", rig.config, "-o", file)
    assert (done.returncode, file.read_text()) == (2, "mine")
    assert "not written over" in done.stderr
    assert not list(rig.directory.glob(".there*"))


def test_no_database(rig: Rig) -> None:
    """Where there is none the command says where it looked."""
    (rig.state / "paraph.sqlite").unlink()
    done = rig.command("audit", "export", "--config", rig.config)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no database {rig.state / 'paraph.sqlite'}" in done.stderr


def test_an_empty_ledger(rig: Rig) -> None:
    """A ledger without rows is no segment."""
    change(rig, "DELETE FROM ledger_rows")
    done = rig.command("audit", "export", "--config", rig.config, "-o", rig.directory / "empty")
    assert done.returncode == 1
    assert not (rig.directory / "empty").exists()
