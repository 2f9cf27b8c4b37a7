"""Refunds and disputes by what stands: every order of the same events comes to the same books."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import permutations
from typing import Any, NamedTuple

import pytest
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.storage.database import Database
from payments.orders import CREDIT, USD, OneTransaction, Shop, Undo

USES = {"use 4": 4 * CREDIT, "use 7": 7 * CREDIT}
DRAWN_FIRST, DRAWN_LAST = 50, 200
"""Priorities of another lot in the wallet, of 5 credits for 5.00."""
STORIES = (
    ("paid", "refund", "dispute", "dispute won", "use 7"),
    ("paid", "refund", "refund failed", "use 4", "use 7"),
    ("paid", "all refunded", "dispute lost", "use 4", "use 7"),
    ("paid", "refund", "part disputed", "dispute", "use 7"),
)
RETURNS = (
    ("paid", "refund", "dispute", "dispute won"),
    ("paid", "refund", "refund failed", "dispute"),
    ("paid", "all refunded", "dispute", "dispute lost"),
)


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


def happen(shop: Shop, name: str) -> None:
    """One event of a story; the lots are drawn up after usage, so that each way of drawing them is tried."""
    if name in USES:
        shop.use(USES[name])
        shop.draw()
    else:
        shop.book(told(shop)[name])


class State(NamedTuple):
    """What a story comes to."""

    always: Any
    """What no order may change: balance, receipts, fees, the top-up, and profit with deferred revenue."""
    lots: Any
    """Which lot paid, with what follows: revenue, deferred revenue, the report."""


def state(shop: Shop) -> State:
    left, lots, moved, *told = shop.state()
    earned = moved["revenue"] + moved["breakage"] + moved["refunded"] + moved["deferred"]
    return State((left, moved["receipts"], moved["fees"], earned, told), (lots, moved, shop.report()))


def every_order(
    shop: Shop, names: Sequence[str], done: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], State]]:
    """Each order of the events and what it comes to. What orders begin with alike happens once."""
    if not names:
        yield done, state(shop)
    for name in names:
        with shop.undone():
            happen(shop, name)
            yield from every_order(shop, [other for other in names if other != name], (*done, name))


@contextmanager
def opened(database: Database, priority: int = 0) -> Iterator[Shop]:
    """A shop that leaves no trace, with another lot in its wallet where a priority is given."""
    with suppress(Undo), database.transaction() as connection:
        shop = Shop(OneTransaction(connection))
        if priority:
            shop.move(Kind.DEPOSIT, 5 * CREDIT, price_nanousd=5 * USD, priority=priority)
        shop.order()
        yield shop
        raise Undo


PLACES = {"alone": (0, STORIES[:2]), "drawn first": (DRAWN_FIRST, STORIES[2:]), "drawn last": (DRAWN_LAST, STORIES)}


@pytest.mark.parametrize(
    ("priority", "story"),
    [
        pytest.param(priority, story, id=f"{place}: {' '.join(story)}")
        for place, (priority, stories) in PLACES.items()
        for story in stories
    ],
)
def test_every_order_of_the_same_events_comes_to_the_same_books(
    database: Database, story: tuple[str, ...], priority: int
) -> None:
    """All orders of five events, usage among them: alone, beside a lot that is drawn first, and one that is drawn last.

    A lot pays for usage from the moment it is booked. So beside a lot that is drawn last, what was used before the
    payment was booked makes a difference to which lot paid, and nothing else does.
    """
    with opened(database, priority) as shop:
        found = list(every_order(shop, story))
        for name in reversed(story):
            happen(shop, name)
        assert shop.clean() == []
    assert len(found) == 120
    assert {repr(one.always) for _, one in found} == {repr(found[0][1].always)}
    by_usage: defaultdict[frozenset[str], set[str]] = defaultdict(set)
    for order, one in found:
        before = frozenset(order[: order.index("paid")]) & frozenset(USES) if priority == DRAWN_LAST else frozenset()
        by_usage[before].add(repr(one.lots))
    assert {len(states) for states in by_usage.values()} == {1}
    if priority == DRAWN_LAST:
        assert len({repr(states) for states in by_usage.values()}) > 1, "usage before the payment makes no difference"


@pytest.mark.parametrize("story", RETURNS, ids=" ".join)
def test_events_that_come_again_change_nothing(database: Database, story: tuple[str, ...]) -> None:
    for order in list(permutations(story))[::7]:
        found = []
        for again in ((), tuple(reversed(order))):
            with opened(database) as shop:
                for name in (*order[:2], "use 4", *order[2:], *again):
                    happen(shop, name)
                found.append(state(shop))
        assert found[0] == found[1], order
