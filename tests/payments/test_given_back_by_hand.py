"""Credits that people gave back and refunds at the provider: one refund or two, independent of the two clocks."""

import pytest
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.storage.database import Database
from payments.orders import CREDIT, SECOND_NS, USD, Shop

HALF = 400
MS_NS = 10**6


def half_refunded(shop: Shop, made_ns: int, name: str = "re") -> None:
    """A refund of half that the provider made at a moment of its clock, which tells whole seconds."""
    made_ns = made_ns // SECOND_NS * SECOND_NS
    shop.book(shop.refund(HALF, name=name)._replace(created_at_ns=made_ns, made_at_ns=made_ns))


def figures(shop: Shop) -> tuple[float, float]:
    """Credits left and USD received."""
    assert shop.clean() == []
    return shop.left / CREDIT, shop.moved()["receipts"] / USD


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.WITHDRAWAL])
@pytest.mark.parametrize(
    ("behind_ms", "expected"),
    # Made in the same second, by a clock that is behind, by one that is ahead; and long before.
    [(0, (5, 4)), (200, (5, 4)), (290_000, (5, 4)), (-60_000, (5, 4)), (301_000, (0, 0)), (86_400_000, (0, 0))],
)
def test_a_refund_that_comes_after_credits_were_given_back_is_the_same_refund(
    database: Database, kind: Kind, behind_ms: int, expected: tuple[float, float]
) -> None:
    shop = Shop(database)
    shop.buy()
    shop.now_ns += 600 * MS_NS
    shop.move(kind, 5 * CREDIT, **({"lot_id": shop.lot().id} if kind is Kind.REFUND else {}))
    shop.now_ns += 300 * MS_NS
    for _ in range(2):
        half_refunded(shop, shop.now_ns - behind_ms * MS_NS)
    assert figures(shop) == expected


@pytest.mark.parametrize("ahead_s", [0, 3, 100])
@pytest.mark.parametrize("later_ns", [0, SECOND_NS])
def test_credits_that_are_given_back_after_a_refund_came_are_another_refund(
    database: Database, ahead_s: int, later_ns: int
) -> None:
    """Also where the provider's clock is ahead, so that it made the refund later, and at one and the same moment."""
    shop = Shop(database)
    shop.buy()
    made_ns = shop.now_ns + ahead_s * SECOND_NS
    half_refunded(shop, made_ns)
    shop.now_ns += later_ns
    shop.move(Kind.REFUND, 3 * CREDIT, lot_id=shop.lot().id)
    assert figures(shop) == (2, 1.6)
    shop.now_ns += SECOND_NS
    half_refunded(shop, made_ns)
    assert figures(shop) == (2, 1.6)
    shop.book(shop.refund(HALF, failed=True))
    assert figures(shop) == (7, 5.6)
