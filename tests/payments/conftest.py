"""A double of Stripe, and collectors that use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from blank import blank_sqlite
from harness import Collector
from stripe_double import StripeDouble

RETURN_URL = "https://shop.example/wallet"
PACKS = {"starter": ("10", "8.00", "USD"), "euro": ("5", "4.50", "EUR")}


@pytest.fixture(scope="module")
def double() -> Iterator[StripeDouble]:
    """One double for all tests of a module."""
    double = StripeDouble()
    yield double
    double.close()


@pytest.fixture(scope="module")
def shop(double: StripeDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that sells a pack and is told of everything; the books must be clean at the end."""
    shop = new_shop(double, tmp_path_factory.mktemp("shop"))
    double.send_to(shop)
    yield shop
    assert shop.stop() == 0
    shop.audit()
    shop.close()


def new_shop(double: StripeDouble, directory: Path, **settings: object) -> Collector:
    """A collector over new books that sells a pack; the double does not know its webhook yet."""
    defaults: dict[str, object] = {"topup_return_url": RETURN_URL, "topup_seconds": 0.2}
    collector = Collector(blank_sqlite(directory), **(double.collector_settings() | defaults | settings))
    credits, price, currency = PACKS["starter"]
    body = {"credits": credits, "price": {"value": price, "currency": currency}, "reason": "the first pack"}
    collector.api.put("/v1/packs/starter", json=body).raise_for_status()
    return collector
