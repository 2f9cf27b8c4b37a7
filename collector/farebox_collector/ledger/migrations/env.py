"""Run by Alembic: upgrade on the connection that `schema.migrate` hands over."""

from alembic import context

from farebox_collector.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
