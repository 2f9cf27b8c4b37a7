"""Fixtures for all contracts: books in either database, and a real collector over them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blank import blank_postgresql, blank_sqlite
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.settings import Settings
from harness import Collector
from postgres import PostgresServer, find_binaries

BOTH = ("sqlite", "postgresql")
LONG = (
    "crash/test_backup.py",
    "crash",
    "alerts",
    "torture",
    "surfaces/test_openapi_fuzz.py",
    "sdk",
    "payments",
    "background",
    "ledger/credits",
)
"""Where tests take seconds, most of them waiting, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: workers take from the end of what others have left, and no long one shall be last."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent)
        return next((number for number, long in enumerate(LONG) if path.is_relative_to(long)), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests; each test takes a database of its own. Missing in CI, it is an error."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("CI installs PostgreSQL, but no initdb was found")
        pytest.skip("PostgreSQL's server is not installed here")
    server = PostgresServer(binaries)
    yield server
    server.close()


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes the URL of new books of a kind: `sqlite` or `postgresql`."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/farebox.db"
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database()

    return make


@pytest.fixture(scope="session")
def new_books(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    """Makes new books of a kind, with the default tenant and the bundled price book; returns their URL."""

    def make(kind: str, tmp_path: Path) -> str:
        if kind == "sqlite":
            return blank_sqlite(tmp_path)
        return blank_postgresql(request.getfixturevalue("postgres"))

    return make


@pytest.fixture(params=BOTH)
def database(
    request: pytest.FixtureRequest, new_books: Callable[[str, Path], str], tmp_path: Path
) -> Iterator[Database]:
    """New books in either database, opened for writing."""
    database = assembly.open_books(Settings(database_url=new_books(request.param, tmp_path)))
    yield database
    database.close()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector process of its own, over new books in SQLite."""
    collector = Collector(blank_sqlite(tmp_path))
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def shared_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for all tests of a module that don't mind each other; the books must be clean at the end."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("shared")))
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()
