"""Which database keeps the books: the one place that knows all kinds."""

from farebox_collector.ledger.database import Database
from farebox_collector.ledger.postgresql import PostgresqlDatabase
from farebox_collector.ledger.sqlite import SqliteDatabase


def open_database(url: str, *, writable: bool = True) -> Database:
    """Open the database behind a SQLAlchemy URL. Raises DatabaseInUse, FileNotFoundError, ValueError."""
    if url.startswith("postgresql+psycopg://"):
        return PostgresqlDatabase(url, writable=writable)
    return SqliteDatabase(url, writable=writable)
