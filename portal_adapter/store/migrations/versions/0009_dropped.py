"""Batches at the daemon that are to be cancelled, and that no attempt names any more."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table("dropped_batches", sa.Column("batch", sa.String, primary_key=True))
