"""People, products, sessions, spaces, teams, information, archive, audit, mail."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("given", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_products_account"),
        sa.UniqueConstraint("fingerprint", name="uq_products_fingerprint"),
    )
    op.create_index("ix_products_account", "products", ["account"])
    op.create_table(
        "attempts",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("visitor", sa.String(64), nullable=False),
        sa.Column("back", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger),
    )
    op.create_table(
        "tickets",
        sa.Column("ticket", sa.String(64), primary_key=True),
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "presented",
        sa.Column("visitor", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("back", sa.String, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_sessions_account"),
    )
    op.create_index("ix_sessions_account", "sessions", ["account"])
    op.create_table(
        "acceptances",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_acceptances_account"),
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("identifier", sa.String(11), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("owner", sa.String(32)),
        sa.Column("form", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("company", sa.String, nullable=False),
        sa.Column("registration", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("sole", sa.String),
        sa.Column("profiles", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("certification", sa.String, nullable=False),
        sa.Column("certified", sa.BigInteger),
        sa.Column("certified_by", sa.String, nullable=False, server_default=""),
        sa.Column("certification_asked", sa.BigInteger),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.UniqueConstraint("identifier", name="uq_spaces_identifier"),
        sa.UniqueConstraint("owner", name="uq_spaces_owner"),
        sa.UniqueConstraint("sole", name="uq_spaces_sole"),
    )
    op.create_table(
        "members",
        sa.Column("space", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_members_account"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_members_space"),
    )
    op.create_index("ix_members_account", "members", ["account"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("space", sa.String(32), nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("given", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("serial", sa.String, nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("inviter", sa.String(32), nullable=False),
        sa.Column("invitee", sa.String(32)),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["invitee"], ["accounts.id"], name="fk_invitations_invitee"),
        sa.ForeignKeyConstraint(["inviter"], ["accounts.id"], name="fk_invitations_inviter"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_invitations_space"),
        sa.UniqueConstraint("token", name="uq_invitations_token"),
    )
    op.create_index("ix_invitations_space", "invitations", ["space"])
    op.create_table(
        "information",
        sa.Column("space", sa.String(32), primary_key=True),
        sa.Column("item", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("changed_by", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["changed_by"], ["accounts.id"], name="fk_information_changed_by"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_information_space"),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("space", sa.String(32), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("scan", sa.String, nullable=False),
        sa.Column("scan_note", sa.String, nullable=False),
        sa.Column("scan_tries", sa.Integer, nullable=False),
        sa.Column("scan_next", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.Column("added_by", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["added_by"], ["accounts.id"], name="fk_documents_added_by"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_documents_space"),
    )
    op.create_index("ix_documents_space", "documents", ["space"])
    op.create_table(
        "nominations",
        sa.Column("serial", sa.String, primary_key=True),
        sa.Column("noted", sa.BigInteger, nullable=False),
        sa.Column("operator", sa.String, nullable=False),
    )
    op.create_table(
        "sharing_rules",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("item", sa.String, nullable=False),
        sa.Column("basis", sa.String, nullable=False),
        sa.Column("begins", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.BigInteger),
        sa.Column("operator", sa.String, nullable=False),
    )
    op.create_table(
        "posted",
        sa.Column("form", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("location", sa.String, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_posted_time", "posted", ["time"])
    op.create_table(
        "marks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_marks_kind_who_time", "marks", ["kind", "who", "time"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("space", sa.String, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("address", sa.String, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("data", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("next", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("error", sa.String, nullable=False, server_default=""),
        sa.Column("settled", sa.BigInteger),
    )
    op.create_index("ix_outbox_state_next", "outbox", ["state", "next"])
    # The audit is only added to, whatever the program tries.
    if op.get_bind().dialect.name == "sqlite":
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
