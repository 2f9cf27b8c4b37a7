"""The import paths before the move find the same modules, and the names that a package once had as a module."""

import importlib

import pytest
from farebox_collector import moved

OLD = [
    (".".join(filter(None, (before, name.partition(">")[0]))), f"{now}.{name.partition('>')[2] or name}")
    for before, now, names in moved._MOVED
    for name in names.split()
]


@pytest.mark.parametrize(("before", "now"), OLD)
def test_an_old_path_finds_the_module(before: str, now: str) -> None:
    module = importlib.import_module(f"farebox_collector.{now}")
    assert importlib.import_module(f"farebox_collector.{before}") is module
    assert module.__spec__ is not None
    assert module.__spec__.name == module.__name__ == f"farebox_collector.{now}"


def test_a_package_has_the_names_that_it_had_as_a_module() -> None:
    from farebox_collector.cache.tariffs import reprice
    from farebox_collector.ledger.audit import audit  # type: ignore[attr-defined]
    from farebox_collector.ledger.audit.books_audit import audit as now
    from farebox_collector.ledger.credits.lot_rows import lots_of
    from farebox_collector.ledger.journal import Account, balance, wallet_account  # type: ignore[attr-defined]

    assert audit is now
    assert vars(importlib.import_module("farebox_collector.tariffs"))["__getattr__"]("price_anew") is reprice
    assert importlib.import_module("farebox_collector.ledger.lots").__dict__["__getattr__"]("lots_of") is lots_of
    assert {thing.__module__ for thing in (Account, balance, wallet_account)} == {
        "farebox_collector.ledger.journal.journal"
    }
    with pytest.raises(ImportError):
        from farebox_collector.ledger.audit import no_such_name  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in moved._RENAMED.items() for name in names])
def test_a_renamed_function_is_found_under_its_old_name(module: str, name: str) -> None:
    lender, its_name = moved._RENAMED[module][name]
    found = getattr(importlib.import_module(f"farebox_collector.{module}"), name)
    assert found is getattr(importlib.import_module(f"farebox_collector.{lender}"), its_name)
