"""Usage that is reported after the end of its lot, and a payment that goes back: the order makes no difference."""

from itertools import permutations

import pytest
from farebox_collector.ledger.storage.database import Database
from payments.orders import CREDIT, DAY_NS, NOW_NS, USD, Shop


def live(database: Database, steps: tuple[str, ...], minor: int, *, look: bool) -> tuple[float, float, float]:
    """Balance, receipts and profit of a wallet with these steps; all its usage is of the first day."""
    shop = Shop(database)
    shop.order(expires_days=30)
    shop.book(shop.paid())
    for step in steps:
        if step in ("use", "use more"):
            shop.use((3 if step == "use" else 4) * CREDIT, NOW_NS)
        elif step == "refund":
            shop.book(shop.refund(minor))
        elif step == "fail":
            shop.book(shop.refund(minor, failed=True))
        else:
            shop.now_ns += 31 * DAY_NS
        if look:
            shop.draw()
    shop.draw()
    assert shop.clean() == [], steps
    moved = shop.moved()
    assert moved["deferred"] == 0
    profit = -moved["revenue"] - moved["breakage"] - moved["refunded"]
    return shop.left / CREDIT, moved["receipts"] / USD, profit / USD


@pytest.mark.parametrize(
    ("minor", "expected"),
    # 7 of 10 credits are used, for 8.00: what goes back beyond the other three is overdraft.
    [(200, (0, 6, 6)), (400, (-2, 4, 4)), (800, (-7, 0, 0))],
)
def test_late_usage_of_a_returned_lot_in_any_order(
    database: Database, minor: int, expected: tuple[float, float, float]
) -> None:
    for steps in permutations(("use", "use more", "refund", "wait")):
        for look in (True, False):
            assert live(database, steps, minor, look=look) == expected, (steps, look)


def test_a_refund_that_failed_leaves_no_trace_in_late_usage(database: Database) -> None:
    for steps in permutations(("use", "refund", "fail", "wait")):
        assert live(database, steps, 400, look=True) == (0, 8, 8), steps


@pytest.mark.parametrize(("minor", "expected"), [(400, (-8, 12, 12)), (800, (-13, 8, 8))])
def test_lots_that_ended_pay_nothing_for_a_return_that_came_after_their_end(
    database: Database, minor: int, expected: tuple[float, float, float]
) -> None:
    """Usage that is reported late opens both lots again. It draws on them itself; the return and later usage do not.

    Of the first lot 9 credits are used in the end and 1 has expired; 4 are used when both have ended.
    """
    for number, steps in enumerate(permutations(("late", "refund", "use"))):
        shop = Shop(database)
        for name in ("t", "second"):
            shop.order(name, expires_days=30)
            shop.book(shop.paid(name))
        shop.use(7 * CREDIT)
        shop.now_ns += 31 * DAY_NS
        shop.draw()
        for step in steps:
            if step == "refund":
                shop.book(shop.refund(minor))
            elif step == "late":
                shop.use(2 * CREDIT, NOW_NS)
            else:
                shop.use(4 * CREDIT)
            if number % 2:
                shop.draw()
        shop.draw()
        moved = shop.moved()
        profit = -moved["revenue"] - moved["breakage"] - moved["refunded"]
        assert (shop.left / CREDIT, moved["receipts"] / USD, profit / USD) == expected, steps
        assert moved["deferred"] == 0
    assert shop.clean() == []


@pytest.mark.parametrize("look", [True, False])
def test_a_lot_that_lived_when_the_other_went_back_pays_usage_of_before_its_end(database: Database, look: bool) -> None:
    """The first was refunded on the first day; the call of the 30th day is reported when the second has ended."""
    shop = Shop(database)
    shop.order(expires_days=30)
    shop.book(shop.paid())
    shop.book(shop.refund())
    shop.order("second", expires_days=30)
    shop.book(shop.paid("second"))
    shop.use(3 * CREDIT)
    shop.now_ns += 31 * DAY_NS
    if look:
        shop.draw()
    shop.use(4 * CREDIT, NOW_NS + 29 * DAY_NS)
    shop.draw()
    assert shop.clean() == []
    moved = shop.moved()
    assert (shop.left, moved["revenue"] / USD, moved["breakage"] / USD) == (0, -5.6, -2.4)
