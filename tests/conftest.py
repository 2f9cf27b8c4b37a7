"""Fixtures for all contracts: books in either database, and a real collector over them."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.database import Database
from farebox_collector.settings import Settings
from harness import Collector
from postgres import PostgresServer, find_binaries

JANUARY_NS = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z."""

BOTH = ("sqlite", "postgresql")


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
def new_books(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], str]:
    """Makes new books of a kind as `assembly.open_books` does, once, and then copies of those; returns their URL."""
    templates: dict[str, str] = {}

    def template(kind: str) -> str:
        if kind not in templates:
            if kind == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('template')}/farebox.db"
            else:
                url = request.getfixturevalue("postgres").new_database()
            assembly.open_books(Settings(database_url=url), lambda: JANUARY_NS).close()
            templates[kind] = url
        return templates[kind]

    def make(kind: str, tmp_path: Path) -> str:
        if kind == "sqlite":
            shutil.copy(template(kind).removeprefix("sqlite:///"), tmp_path / "farebox.db")
            return f"sqlite:///{tmp_path}/farebox.db"
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database(copy_of=template(kind))

    return make


@pytest.fixture(params=BOTH)
def database(
    request: pytest.FixtureRequest, new_books: Callable[[str, Path], str], tmp_path: Path
) -> Iterator[Database]:
    """New books in either database, with the default tenant and the bundled price book, opened for writing."""
    database = assembly.open_books(Settings(database_url=new_books(request.param, tmp_path)), lambda: JANUARY_NS)
    yield database
    database.close()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector process of its own, over new books in SQLite."""
    collector = Collector(tmp_path / "farebox.db")
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def shared_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for all tests of a module that don't mind each other; the books must be clean at the end."""
    collector = Collector(tmp_path_factory.mktemp("shared") / "farebox.db")
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()
