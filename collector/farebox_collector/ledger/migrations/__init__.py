"""Alembic migrations of the ledger's schema, run by `schema.migrate` at every start."""
