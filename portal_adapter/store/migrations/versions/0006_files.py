"""Which rows name a file is looked up at every removal (domain/kept.py)."""

from alembic import op

revision = "0006"
down_revision = "0005"

COLUMNS = (
    *(("documents", "file"), ("procedures", "form_file"), ("signatures", "file"), ("attachments", "file")),
    *(("transmissions", "file"), ("transmission_pieces", "file")),
)


def upgrade() -> None:
    for table, column in COLUMNS:
        op.create_index(f"ix_{table}_{column}", table, [column])
