"""Alembic migrations of the ledger's schema, run by `storage.migrate` at every start."""
