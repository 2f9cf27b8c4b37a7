"""The price book on disk: append-only, the past stays, hand-set prices stay."""

from decimal import Decimal

import pytest
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import import_prices, load_prices, set_price
from farebox_collector.model.records import CatalogueRow, PricedModel
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.revision import PriceList
from sqlalchemy import text

DAY_NS = 86_400 * 10**9
TODAY_NS = 20_500 * DAY_NS
MODELS = [PricedModel("p", "m", 0, '{"starts_with":"m"}')]


def row(usd: str, start_ns: int = 0, end_ns: int | None = None, unit: str = "input") -> CatalogueRow:
    return CatalogueRow("p", "m", unit, 0, 0, 0, Decimal(usd), start_ns, end_ns)


def bring_up(database: Database, rows: list[CatalogueRow], at_ns: int) -> tuple[int, int]:
    with database.transaction() as connection:
        stated = PriceList(rows, "list", "1", whole=True, dated=False)
        return tuple(import_prices(connection, stated, MODELS, at_ns, at_ns))  # type: ignore[return-value]


def rate(database: Database, at_ns: int, unit: str = "input") -> Decimal | None:
    """USD per 1k of model m at a moment."""
    with database.reading() as connection:
        card = PriceBook(*load_prices(connection)).rate_for("p", "m-1", at_ns)
    if card is None or unit not in card.rates:
        return None
    return Decimal(card.rates[unit]) / card.denominator / 10**6


def test_a_first_import_takes_the_past_over_and_a_second_changes_nothing(database: Database) -> None:
    rows = [row("0.002", 0, TODAY_NS - DAY_NS), row("0.001", TODAY_NS - DAY_NS)]
    assert bring_up(database, rows, TODAY_NS) == (2, 0)
    assert bring_up(database, rows, TODAY_NS + DAY_NS) == (0, 0)
    assert rate(database, TODAY_NS - DAY_NS - 1) == Decimal("0.002")
    assert rate(database, TODAY_NS - DAY_NS) == Decimal("0.001")


def test_a_changed_price_holds_from_the_import_on_and_the_past_stays(database: Database) -> None:
    bring_up(database, [row("0.002")], TODAY_NS)
    assert bring_up(database, [row("0.005")], TODAY_NS + DAY_NS) == (1, 1)
    assert rate(database, TODAY_NS + DAY_NS - 1) == Decimal("0.002")
    assert rate(database, TODAY_NS + DAY_NS) == Decimal("0.005")


def test_an_announced_price_holds_from_its_day(database: Database) -> None:
    bring_up(database, [row("0.002")], TODAY_NS)
    later = TODAY_NS + 9 * DAY_NS
    assert bring_up(database, [row("0.002", 0, later), row("0.003", later)], TODAY_NS + DAY_NS) == (2, 1)
    assert rate(database, later - 1) == Decimal("0.002")
    assert rate(database, later) == Decimal("0.003")


def test_a_price_that_the_list_drops_ends_and_does_not_become_zero(database: Database) -> None:
    bring_up(database, [row("0.002"), row("0.004", unit="output")], TODAY_NS)
    assert bring_up(database, [row("0.002")], TODAY_NS + DAY_NS) == (0, 1)
    assert rate(database, TODAY_NS + DAY_NS, "output") is None
    assert rate(database, TODAY_NS, "output") == Decimal("0.004")


def test_a_price_set_by_hand_survives_imports(database: Database) -> None:
    bring_up(database, [row("0.002")], TODAY_NS)
    with database.transaction() as connection:
        set_price(connection, row("0.0015", TODAY_NS + DAY_NS), "ada", TODAY_NS)
    assert bring_up(database, [row("0.009")], TODAY_NS + 2 * DAY_NS) == (0, 0)
    assert rate(database, TODAY_NS + DAY_NS - 1) == Decimal("0.002")
    assert rate(database, TODAY_NS + 3 * DAY_NS) == Decimal("0.0015")


def test_a_price_can_be_set_for_a_model_that_no_list_knows(database: Database) -> None:
    new = CatalogueRow("house", "llama-ours", "input", 0, 0, 0, Decimal("0.0001"), 0, None)
    with database.transaction() as connection:
        set_price(connection, new, "ada", TODAY_NS)
    with database.reading() as connection:
        book = PriceBook(*load_prices(connection))
    assert book.rate_for("house", "llama-ours", TODAY_NS)
    assert book.rate_for("house", "llama-ours-2", TODAY_NS) is None


@pytest.mark.parametrize("usd", ["0", "-1"])
def test_a_price_that_is_not_positive_is_refused(database: Database, usd: str) -> None:
    with pytest.raises(ValueError, match="positive"), database.transaction() as connection:
        set_price(connection, row(usd), "ada", TODAY_NS)


def test_versions_are_only_ever_added_or_closed(database: Database) -> None:
    def versions() -> list[tuple[object, ...]]:
        with database.reading() as connection:
            columns = "id, provider, model, unit, usd_per_1k, valid_from_ns, source, source_version"
            return [
                tuple(found) for found in connection.execute(text(f"SELECT {columns} FROM price_versions ORDER BY id"))
            ]

    bring_up(database, [row("0.002")], TODAY_NS)
    before = versions()
    bring_up(database, [row("0.003")], TODAY_NS + DAY_NS)
    with database.transaction() as connection:
        set_price(connection, row("0.004", TODAY_NS + 2 * DAY_NS), "ada", TODAY_NS + DAY_NS)
    assert versions()[: len(before)] == before
