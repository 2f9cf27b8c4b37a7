"""Refunds and disputes by what stands: every order of the same events comes to the same books."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.movements import Kind
from farebox_collector.ledger.sqlite import SqliteDatabase
from orders import CREDIT, USD, OneTransaction, Shop


def told(shop: Shop) -> dict[str, Any]:
    """Everything that may be told of the top-up `t`, by name."""
    return {
        "paid": shop.paid(),
        "refund": shop.refund(400),
        "refund failed": shop.refund(400, failed=True),
        "all refunded": shop.refund(800, name="re_all"),
        "dispute": shop.dispute(fee=1_500),
        "dispute won": shop.dispute(won=True, fee=1_500),
        "dispute lost": shop.dispute(lost=True, fee=1_500),
        "part disputed": shop.dispute(200, name="du_part"),
    }


DRAWN_FIRST, DRAWN_LAST = 50, 200
"""Priorities of another lot in the wallet."""
STORIES = (
    ("paid", "refund", "dispute", "dispute won"),
    ("paid", "refund", "refund failed", "dispute"),
    ("paid", "all refunded", "dispute", "dispute lost"),
    ("paid", "refund", "dispute", "dispute won", "refund failed"),
    ("paid", "refund", "part disputed", "dispute", "dispute lost"),
)


class Undo(Exception):
    """Takes a life back."""


def live(
    database: Database, order: Sequence[str], uses: dict[int, int], *, priority: int = 0, audited: bool = False
) -> Any:
    """Tell a story in some order, using so much before the step of a number; the state at the end. Leaves no trace."""
    with suppress(Undo), database.transaction() as connection:
        shop = Shop(OneTransaction(connection))
        if priority:
            shop.move(Kind.DEPOSIT, 5 * CREDIT, price_nanousd=5 * USD, priority=priority)
        shop.order()
        for step, name in enumerate(order):
            if uses.get(step):
                shop.use(uses[step])
                shop.draw()
            shop.book(told(shop)[name])
        if uses.get(len(order)):
            shop.use(uses[len(order)])
        state = shop.state()
        if audited:
            assert shop.clean() == []
        raise Undo
    return state


@pytest.mark.parametrize("story", STORIES, ids=" ".join)
@pytest.mark.parametrize(("used", "priority"), [(0, 0), (8, 0), (8, DRAWN_FIRST), (8, DRAWN_LAST)])
def test_every_order_of_the_same_events_comes_to_the_same_books(
    database: Database, story: tuple[str, ...], used: int, priority: int
) -> None:
    """All orders of up to five events, with usage in the middle and at the end, beside another lot or not.

    Beside a lot that is drawn last the payment comes first: usage never draws on what is not paid yet.
    """
    uses = {len(story) // 2: used * CREDIT // 2, len(story): used * CREDIT // 2}
    first = story[:1] if priority == DRAWN_LAST else ()
    expected = live(database, story, uses, priority=priority, audited=True)
    orders = list(permutations(story[len(first) :]))
    # Of four events every order, on SQLite of five too; elsewhere some of each.
    few = (used, priority) == (8, 0) and isinstance(database, SqliteDatabase)
    some = 1 if few else 5 if len(orders) <= 24 else 23
    for order in orders[::some]:
        found = live(database, (*first, *order), uses, priority=priority, audited=order[0] == story[-1])
        assert found == expected, order


@pytest.mark.parametrize("story", STORIES[:3], ids=" ".join)
def test_events_that_come_again_change_nothing(database: Database, story: tuple[str, ...]) -> None:
    for order in list(permutations(story))[::7]:
        again = (*order, *reversed(order))
        assert live(database, again, {2: 4 * CREDIT}) == live(database, order, {2: 4 * CREDIT}), order
