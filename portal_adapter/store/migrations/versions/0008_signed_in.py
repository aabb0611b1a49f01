"""In which space a signature was given: it is that one's to read, whichever the procedure is transferred to later."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("signatures", sa.Column("space", sa.String(32), nullable=False, server_default=""))
    # By the attempt that it was saved from; for what has none any more, by where the procedure was transferred to last.
    op.execute(
        "UPDATE signatures SET space = CASE number WHEN 1"
        " THEN (SELECT p.space FROM procedures AS p WHERE p.id = signatures.procedure)"
        " ELSE COALESCE((SELECT max(a.space) FROM signings AS a WHERE a.procedure = signatures.procedure AND a.number = 2"
        " AND a.state = 'done' AND a.account = signatures.account AND a.seen = signatures.time),"
        " (SELECT p.second FROM procedures AS p WHERE p.id = signatures.procedure), '') END"
    )
    op.create_index("ix_signatures_space", "signatures", ["space"])
