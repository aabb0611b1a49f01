"""People, products, sessions, spaces, teams, information, archive, audit, mail."""

from alembic import op

from portal_adapter.store import schema

revision = "0001"
down_revision = None

# The tables of this step by name: a later step adds its own, and never changes this list.
_TABLES = (
    "accounts", "products", "attempts", "tickets", "presented", "sessions", "acceptances", "spaces", "members",
    "invitations", "information", "documents", "nominations", "sharing_rules", "posted", "marks", "audit", "outbox",
)  # fmt: skip


def upgrade() -> None:
    connection = op.get_bind()
    schema.METADATA.create_all(connection, tables=[schema.METADATA.tables[name] for name in _TABLES])
    # The audit is only added to, whatever the program tries.
    if connection.dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{what.lower()} BEFORE {what} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit is only added to'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_kept()"
        )
