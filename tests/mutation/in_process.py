"""A plugin of pytest that leaves out tests which cannot tell more about a mutation than others do.

A test that talks to a collector in another process takes long, and the lines that it reaches are not recorded. Of a
test on both databases the one on SQLite is kept: it reaches the same lines sooner.
"""

import pytest

PROCESSES = frozenset({"collector", "shared_collector", "house"})
"""Fixtures that start a collector."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect them."""
    ids = {item.nodeid for item in items}
    left_out = [item for item in items if _starts_process(item) or _has_twin(item.nodeid, ids)]
    config.hook.pytest_deselected(items=left_out)
    gone = {item.nodeid for item in left_out}
    items[:] = [item for item in items if item.nodeid not in gone]


def _starts_process(item: pytest.Item) -> bool:
    return not PROCESSES.isdisjoint(getattr(item, "fixturenames", ()))


def _has_twin(name: str, names: set[str]) -> bool:
    return "postgresql" in name and name.replace("postgresql", "sqlite") in names
