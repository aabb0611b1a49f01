"""Which of a procedure's messages is before which: by a number, since two can be of one second."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("messages", sa.Column("number", sa.Integer, nullable=False, server_default=sa.text("0")))
    # Those that are there keep the order in which they were shown.
    op.execute(
        "UPDATE messages SET number = (SELECT count(*) FROM messages AS earlier WHERE earlier.procedure = messages.procedure"
        " AND (earlier.time < messages.time OR (earlier.time = messages.time AND earlier.id >= messages.id)))"
    )
    op.drop_index("ix_messages_procedure", "messages")
    op.create_index("ix_messages_procedure_number", "messages", ["procedure", "number"], unique=True)
