"""The database's form: what the migrations make, and who may open what."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from portal_adapter.domain.renewal import names
from portal_adapter.store import database
from portal_adapter.store.database import StoreError, open_database, reading, writing
from portal_adapter.store.schema import METADATA
from tests.daemon import REPOSITORY
from tests.portal.commands import command
from tests.portal.place import Place, _empty_database
from tests.postgres import Postgres

NEXT = '''
"""A step of a later version."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
'''

# An account, a space, and two procedures.
TWO_PROCEDURES = (
    "INSERT INTO accounts (id, family, given, email, language, created) VALUES ('a', 'L', 'A', 'a@example.org', 'en', 1)",
    (
        "INSERT INTO spaces (id, identifier, kind, form, title, company, registration, email, profiles, state, certification, created)"
        " VALUES ('s', 'S', 'private', '', 't', '', '', 'e', '', 'active', 'no', 1)"
    ),
    *(
        "INSERT INTO procedures (id, space, reference, definition, definition_version, author, created, updated, status, entry,"
        f" signature, step, answers, origins) VALUES ('{id_}', 's', '{id_}', 'd', 1, 'a', 1, 1, 'x', 'open', 'none', '', '{{}}', '{{}}')"
        for id_ in ("draft", "sent")
    ),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Engine]:
    """Opens the same, at first empty, database each time."""
    server: Postgres | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    url = server.create("portal_store") if server else None
    return lambda: open_database(tmp_path / "state", url)


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The migrations of a later version: the present ones and one more."""
    directory = tmp_path / "migrations"
    shutil.copytree(database._MIGRATIONS, directory)
    head = max(path.name.split("_")[0] for path in (directory / "versions").glob("[0-9]*.py"))
    (directory / "versions" / "9999_later.py").write_text(NEXT.format(head=head))
    return directory


def of_step(last: str, opens: Callable[[], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The database as a version made it whose last step this was."""
    before = tmp_path / "before"
    shutil.copytree(database._MIGRATIONS, before)
    for path in (before / "versions").glob("[0-9]*.py"):
        if path.name.partition("_")[0] > last:
            path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(database, "_MIGRATIONS", before)
        patched.setattr(database, "NEWEST", last)
        return opens()


def revision(engine: Engine) -> str | None:
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def test_the_migrations_make_what_the_schema_says(opens: Callable[[], Engine]) -> None:
    """Tables, columns with their types, keys and indexes are those of schema.py, on both databases."""
    engine = opens()
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    assert set(inspect(engine).get_table_names()) == {*METADATA.tables, "alembic_version"}
    engine.dispose()


def test_names_of_before_are_compared_as_later_ones(
    opens: Callable[[], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOK-06: who had an account before names were kept as they are compared has them after the step, as one made now."""
    engine = of_step("0006", opens, tmp_path, monkeypatch)
    people = [("LÉVY-STRAUSS", "Jean\u2019s"), ("Ångström", "Bo")]
    with writing(engine) as connection:
        for number, (family, given) in enumerate(people):
            values = {"id": str(number), "family": family, "given": given}
            connection.execute(text("INSERT INTO accounts VALUES (:id, :family, :given, 'e', 'en', 1)"), values)
    engine.dispose()
    engine = opens()
    with reading(engine) as connection:
        found = connection.execute(text("SELECT names FROM accounts ORDER BY id")).scalars().all()
    assert found == [names(*one) for one in people]
    engine.dispose()


def test_signatures_of_before_know_their_space(
    opens: Callable[[], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    SIG-17: the first one is its procedure's; the second is where its attempt was, also where the procedure has gone to
    another space since, and without an attempt where that is now.
    """
    engine = of_step("0007", opens, tmp_path, monkeypatch)
    spaces = "INSERT INTO spaces (id, identifier, kind, form, title, company, registration, email, profiles, state, certification, created)"
    common = "'a', 'ada', 'f', 'file', 'hash', 'hash', 1"
    rows = [
        *TWO_PROCEDURES,
        *(
            f"{spaces} VALUES ('{id_}', '{id_}', 'business', '', 't', '', '', 'e', '', 'active', 'no', 1)"
            for id_ in "tu"
        ),
        "UPDATE procedures SET second = 'u'",
        *(
            "INSERT INTO signatures (id, procedure, number, account, credential, fingerprint, file, sha256, form_sha256,"
            f" approved, time) VALUES ('{id_}', '{procedure}', {number}, {common}, {time})"
            for id_, procedure, number, time in (("one", "sent", 1, 5), ("two", "sent", 2, 6), ("old", "draft", 2, 6))
        ),
        (
            "INSERT INTO signings (id, procedure, account, session, space, number, state, created, seen)"
            " VALUES ('x', 'sent', 'a', '', 't', 2, 'done', 1, 6)"
        ),
    ]
    with writing(engine) as connection:
        for row in rows:
            connection.execute(text(row))
    engine.dispose()
    engine = opens()
    with reading(engine) as connection:
        found = connection.execute(text("SELECT id, space FROM signatures ORDER BY id")).all()
    assert [tuple(one) for one in found] == [("old", "u"), ("one", "s"), ("two", "t")]
    engine.dispose()


def test_a_step_is_what_it_was() -> None:
    """0.1: the steps are written out and import nothing of the program, whose schema goes on changing."""
    for path in (database._MIGRATIONS / "versions").glob("[0-9]*.py"):
        assert "portal_adapter" not in path.read_text(), path


def test_the_database_keeps_what_was_sent(opens: Callable[[], Engine]) -> None:
    """PROC-17, SUB-07: deleting a procedure takes its history, signatures and attachments along; with a transmission it cannot go."""
    engine = opens()
    rows = [
        *TWO_PROCEDURES,
        "INSERT INTO procedure_history (id, procedure, time, status, side, account, comment) VALUES (1, 'draft', 1, 'x', 'y', 'a', '')",
        "INSERT INTO transmissions VALUES ('sent', 1, 1, 'a', 'f', 'h', '{}')",
    ]
    with writing(engine) as connection:
        for row in rows:
            connection.execute(text(row))
        connection.execute(text("DELETE FROM procedures WHERE id = 'draft'"))
        assert connection.execute(text("SELECT count(*) FROM procedure_history")).scalar_one() == 0
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(text("DELETE FROM procedures WHERE id = 'sent'"))
    engine.dispose()


def test_an_older_database_is_brought_up_and_keeps_its_rows(
    opens: Callable[[], Engine], later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start takes the database to the program's version; what is in it stays."""
    old = opens()
    with writing(old) as connection:
        connection.execute(text("INSERT INTO nominations VALUES ('serial-1', 1, 'root')"))
    before = revision(old)
    old.dispose()
    monkeypatch.setattr(database, "_MIGRATIONS", later)
    monkeypatch.setattr(database, "NEWEST", "9999")
    new = opens()
    assert (before, revision(new)) != (None, before) and revision(new) == "9999"
    assert "later" in inspect(new).get_table_names()
    with reading(new) as connection:
        assert connection.execute(text("SELECT serial FROM nominations")).scalars().all() == ["serial-1"]
    new.dispose()


def test_messages_of_before_keep_their_order(
    opens: Callable[[], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MSG-02: those that were written before they had numbers get them as they were shown, each procedure's for itself."""
    old = of_step("0003", opens, tmp_path, monkeypatch)
    written = [("a", "sent", 5), ("b", "sent", 5), ("c", "sent", 4), ("d", "draft", 3)]
    with writing(old) as connection:
        for row in TWO_PROCEDURES:
            connection.execute(text(row))
        for id_, procedure, time in written:
            values = f"('{id_}', '{procedure}', {time}, 'applicant', 'a', '', '')"
            connection.execute(
                text(f"INSERT INTO messages (id, procedure, time, side, account, subject, body) VALUES {values}")
            )
    old.dispose()
    new = opens()
    with reading(new) as connection:
        found = connection.execute(text("SELECT id, number FROM messages ORDER BY procedure DESC, number DESC")).all()
    assert [tuple(one) for one in found] == [("a", 3), ("b", 2), ("c", 1), ("d", 1)]
    new.dispose()


def test_the_database_is_its_portals_alone(tmp_path: Path) -> None:
    """UI-08: names, addresses and the audit are in it: nobody else may read its directory, nor its file where that is moved."""
    engine = open_database(tmp_path / "state", None)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE one (x)"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    engine.dispose()
    assert "portal.db" in modes and set(modes.values()) == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    """Every commit is an fsync, on each connection: what was answered as done is not undone by a power cut."""
    engine = open_database(tmp_path / "state", None)
    with reading(engine) as one, reading(engine) as other:
        for connection in (one, other):
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()


def test_a_newer_database_is_refused_and_left_alone(
    opens: Callable[[], Engine], later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older program does not touch what a newer one has made, and says what to do."""
    with monkeypatch.context() as patched:
        patched.setattr(database, "_MIGRATIONS", later)
        patched.setattr(database, "NEWEST", "9999")
        opens().dispose()
    with pytest.raises(StoreError, match="newer paraph-portal"):
        opens()
    monkeypatch.setattr(database, "_MIGRATIONS", later)
    monkeypatch.setattr(database, "NEWEST", "9999")
    engine = opens()
    assert revision(engine) == "9999"
    engine.dispose()


def test_a_command_says_so_and_ends_with_its_code(tmp_path: Path, later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a newer database a command ends with 69 and one line."""
    _empty_database()  # as it is kept for other tests: of the present form
    with monkeypatch.context() as patched:
        patched.setattr(database, "_MIGRATIONS", later)
        patched.setattr(database, "NEWEST", "9999")
        place = Place(tmp_path / "place")
        place.close()
    done = command(place, "user", "list")
    assert done.returncode == 69 and "newer paraph-portal" in done.stderr and done.stdout == ""


def test_instances_that_start_together(opens: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs that start on an empty database make its form once, and all of them run."""
    start, upgrade = threading.Barrier(4), database.upgrade

    def together(engine: Engine) -> None:
        start.wait()
        upgrade(engine)

    monkeypatch.setattr(database, "upgrade", together)
    with ThreadPoolExecutor(4) as threads:
        engines = list(threads.map(lambda _: opens(), range(4)))
    assert len({revision(engine) for engine in engines}) == 1
    for engine in engines:
        engine.dispose()


def test_the_newest_step_is_known_without_alembic(tmp_path: Path) -> None:
    """0.1: a database that is up to date is opened without reading the steps; the number it is compared with is the last step's."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == database.NEWEST
    open_database(tmp_path, None).dispose()
    script = "import sys; from pathlib import Path; from portal_adapter.store.database import open_database as o; "
    script += "o(Path(sys.argv[1]), None); sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=REPOSITORY, check=True)
