"""What was sent and is to be given to the administration's back end."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "handovers",
        sa.Column("procedure", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("next", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("error", sa.String, nullable=False, server_default=""),
        sa.Column("settled", sa.BigInteger),
        sa.ForeignKeyConstraint(["procedure", "number"], ["transmissions.procedure", "transmissions.number"]),
    )
    op.create_index("ix_handovers_state_next", "handovers", ["state", "next"])
