"""Fixtures for all contracts: books on disk, and a real collector over them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.database import Database
from farebox_collector.settings import Settings
from harness import Collector

JANUARY_NS = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """New books, with the default tenant and the bundled price book, opened for writing by this process."""
    database = assembly.open_books(Settings(database_url=f"sqlite:///{tmp_path}/farebox.db"), lambda: JANUARY_NS)
    yield database
    database.close()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector process of its own, over new books."""
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
