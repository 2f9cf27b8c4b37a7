"""A double of Stripe, and collectors that use it."""

from collections.abc import Iterator

import pytest
from harness import Collector
from stripe_double import StripeDouble, new_shop


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
