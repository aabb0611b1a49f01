"""A person's names as they are compared stand in her row: a renewed product's account is looked up, not searched for."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def folded(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in text if unicodedata.category(c)[0] in {"L", "N"})


def upgrade() -> None:
    op.add_column("accounts", sa.Column("names", sa.String, nullable=False, server_default=""))
    accounts = sa.table("accounts", *(sa.column(name) for name in ("id", "family", "given", "names")))
    connection = op.get_bind()
    for row in connection.execute(sa.select(accounts.c.id, accounts.c.family, accounts.c.given)).all():
        names = f"{folded(row.family)} {folded(row.given)}"
        connection.execute(sa.update(accounts).where(accounts.c.id == row.id).values(names=names))
    op.create_index("ix_accounts_names", "accounts", ["names"])
