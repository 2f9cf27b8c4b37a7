"""Alembic's entry point: upgrade on the connection that `storage.migrate` passes."""

from alembic import context

from farebox_collector.ledger.tables import metadata
from farebox_collector.ledger.tables.columns import is_on

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
    include_object=lambda item, *_: is_on(connection.dialect.name, item),
)
context.run_migrations()
