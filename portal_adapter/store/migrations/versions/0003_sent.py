"""The administration that a procedure was sent to; what an attachment that is to be corrected was called."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("procedures", sa.Column("administration", sa.String, nullable=False, server_default=""))
    op.add_column("correction_items", sa.Column("name", sa.String, nullable=False, server_default=""))
    op.create_index("ix_procedures_administration_updated", "procedures", ["administration", "updated"])
