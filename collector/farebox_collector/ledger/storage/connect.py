"""Choose the database by its URL. No other module knows all kinds."""

from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.postgresql import PostgresqlDatabase
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.model.secret_box import SecretBox


def open_database(url: str, *, writable: bool = True, box: SecretBox | None = None) -> Database:
    """Open the database of a SQLAlchemy URL; `box` seals and opens the secrets in it.

    Raises DatabaseInUse, FileNotFoundError, ValueError.
    """
    if url.startswith("postgresql+psycopg://"):
        return PostgresqlDatabase(url, writable=writable, box=box)
    return SqliteDatabase(url, writable=writable, box=box)
