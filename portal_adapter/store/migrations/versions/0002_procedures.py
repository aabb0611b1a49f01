"""Procedures: their forms, signatures, attachments, transmissions, corrections and messages; agents."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "procedures",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("space", sa.String(32), nullable=False),
        sa.Column("reference", sa.String, nullable=False),
        sa.Column("definition", sa.String, nullable=False),
        sa.Column("definition_version", sa.Integer, nullable=False),
        sa.Column("author", sa.String(32), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("entry", sa.String, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("answers", sa.String, nullable=False),
        sa.Column("origins", sa.String, nullable=False),
        sa.Column("form_file", sa.String(32), nullable=False, server_default=""),
        sa.Column("form_sha256", sa.String(64), nullable=False, server_default=""),
        sa.Column("transmissions", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("sent_by", sa.String(32)),
        sa.Column("second", sa.String(32)),
        sa.Column("second_state", sa.String, nullable=False, server_default=""),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["author"], ["accounts.id"], name="fk_procedures_author"),
        sa.ForeignKeyConstraint(["second"], ["spaces.id"], name="fk_procedures_second"),
        sa.ForeignKeyConstraint(["sent_by"], ["accounts.id"], name="fk_procedures_sent_by"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_procedures_space"),
        sa.UniqueConstraint("reference", name="uq_procedures_reference"),
    )
    op.create_index("ix_procedures_second", "procedures", ["second"])
    op.create_index("ix_procedures_space_updated", "procedures", ["space", "updated"])
    op.create_table(
        "procedure_history",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_procedure_history_account"),
        sa.ForeignKeyConstraint(
            ["procedure"], ["procedures.id"], name="fk_procedure_history_procedure", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_procedure_history_procedure", "procedure_history", ["procedure"])
    op.create_table(
        "signatures",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("form_sha256", sa.String(64), nullable=False),
        sa.Column("approved", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("voided", sa.BigInteger),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_signatures_account"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_signatures_procedure", ondelete="CASCADE"),
    )
    op.create_index("ix_signatures_procedure", "signatures", ["procedure"])
    op.create_table(
        "signings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("open", sa.String(32)),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("space", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False, server_default=""),
        sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""),
        sa.Column("batch", sa.String, nullable=False, server_default=""),
        sa.Column("form_sha256", sa.String(64), nullable=False, server_default=""),
        sa.Column("approved", sa.BigInteger),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_signings_account"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_signings_procedure", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_signings_space"),
        sa.UniqueConstraint("open", name="uq_signings_open"),
    )
    op.create_index("ix_signings_procedure", "signings", ["procedure"])
    op.create_table(
        "attachments",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("slot", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("scan", sa.String, nullable=False),
        sa.Column("scan_note", sa.String, nullable=False),
        sa.Column("scan_tries", sa.Integer, nullable=False),
        sa.Column("scan_next", sa.BigInteger, nullable=False),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.Column("added_by", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.ForeignKeyConstraint(["added_by"], ["accounts.id"], name="fk_attachments_added_by"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_attachments_procedure", ondelete="CASCADE"),
    )
    op.create_index("ix_attachments_procedure", "attachments", ["procedure"])
    op.create_table(
        "transmissions",
        sa.Column("procedure", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("answers", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_transmissions_account"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_transmissions_procedure"),
    )
    op.create_table(
        "transmission_pieces",
        sa.Column("procedure", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["procedure", "number"],
            ["transmissions.procedure", "transmissions.number"],
            name="fk_transmission_pieces_procedure_number",
        ),
    )
    op.create_table(
        "corrections",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("answered", sa.BigInteger),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_corrections_account"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_corrections_procedure"),
    )
    op.create_index("ix_corrections_procedure", "corrections", ["procedure"])
    op.create_table(
        "correction_items",
        sa.Column("correction", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["correction"], ["corrections.id"], name="fk_correction_items_correction"),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("procedure", sa.String(32), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("read", sa.BigInteger),
        sa.Column("read_by", sa.String(32)),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_messages_account"),
        sa.ForeignKeyConstraint(["procedure"], ["procedures.id"], name="fk_messages_procedure"),
        sa.ForeignKeyConstraint(["read_by"], ["accounts.id"], name="fk_messages_read_by"),
    )
    op.create_index("ix_messages_procedure", "messages", ["procedure"])
    op.create_table(
        "agents",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("administration", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_agents_account"),
    )
