"""Alembic's environment: always online, on the connection that `database.upgrade` hands in."""

from alembic import context

from portal_adapter.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
