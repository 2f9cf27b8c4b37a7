"""Blank books, with schema and price book, made once and copied: the import at a first start is not what is tried."""

import functools
import itertools
import tempfile
from contextlib import closing
from pathlib import Path

from farebox_collector import assembly
from farebox_collector.settings import Settings
from postgres import PostgresServer

JANUARY_NS = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z, when blank books were opened."""

_numbers = itertools.count(1)


def blank_sqlite(directory: Path) -> str:
    """The URL of new books in a file of this directory."""
    path = directory / "farebox.db"
    path.write_bytes(_sqlite_file())
    return f"sqlite:///{path}"


def blank_postgresql(server: PostgresServer) -> str:
    """The URL of new books in a database of this server."""
    template = _postgresql_template(server)
    name = f"blank_{next(_numbers)}"
    server.sql(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2]}")
    return f"{template.rpartition('/')[0]}/{name}"


@functools.cache
def _sqlite_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "farebox.db"
        with closing(assembly.open_books(Settings(database_url=f"sqlite:///{path}"), lambda: JANUARY_NS)):
            pass
        return path.read_bytes()


@functools.cache
def _postgresql_template(server: PostgresServer) -> str:
    url = server.new_database()
    with closing(assembly.open_books(Settings(database_url=url), lambda: JANUARY_NS)):
        pass
    return url
