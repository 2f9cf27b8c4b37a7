"""Reports show which revenue is of calls of other days, and what calls of some days earn on others."""

from dataclasses import dataclass

from farebox_collector.ledger.credits.late_revenue import OVERDRAFT_DAYS
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.reports.money_reports import Summary, summaries
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.moments import Days, day_of
from payments.orders import CREDIT, DAY_NS, NOW_NS, USD, Shop


@dataclass
class Books:
    """A shop on days that no other test uses, the first of them at noon."""

    shop: Shop

    def __post_init__(self) -> None:
        self.shop.now_ns = (day_of(NOW_NS) + 1_000 * self.shop.number) * DAY_NS + DAY_NS // 2
        self.first = day_of(self.shop.now_ns)

    def on(self, day: int, days: int = 1) -> tuple[int, int, int]:
        """Revenue of some days, counted from the first; from other days, on others: in cents."""
        with self.shop.database.reading() as connection:
            (row,) = summaries(connection, 1, Days(self.first + day, self.first + day + days), by_day=False)
            by_day = summaries(connection, 1, Days(self.first + day, self.first + day + days), by_day=True)
        if days == 1 and by_day:
            assert figures(by_day[0]) == figures(row)
        return figures(row)


def figures(row: Summary) -> tuple[int, int, int]:
    found = (row.revenue_nanousd, row.from_other_days_nanousd, row.on_other_days_nanousd)
    return tuple(figure * 100 // USD for figure in found)  # type: ignore[return-value]


def test_revenue_of_a_call_of_the_day_before_is_shown_on_both_days(database: Database) -> None:
    books = Books(Shop(database))
    shop = books.shop
    shop.move(Kind.DEPOSIT, 10 * CREDIT, price_nanousd=8 * USD)
    shop.now_ns += DAY_NS
    shop.use(1 * CREDIT)
    shop.use(2 * CREDIT, shop.now_ns - DAY_NS)
    shop.draw()
    assert books.on(0) == (0, 0, 160)
    assert books.on(1) == (240, 160, 0)
    # Days that have both sides have moved nothing.
    assert books.on(0, days=2) == (240, 0, 0)
    assert books.on(-30, days=31) == (0, 0, 160)


def test_a_call_just_before_midnight_is_of_its_day_when_lots_are_drawn_up_after_it(database: Database) -> None:
    books = Books(Shop(database))
    shop = books.shop
    shop.move(Kind.DEPOSIT, 10 * CREDIT, price_nanousd=8 * USD)
    midnight_ns = (books.first + 1) * DAY_NS
    for started_at_ns, credits in ((midnight_ns - 1, 2), (midnight_ns, 3)):
        shop.now_ns = started_at_ns
        shop.use(credits * CREDIT)
    shop.now_ns = midnight_ns + 30 * 10**9
    shop.draw()
    assert (books.on(0), books.on(1)) == ((0, 0, 160), (400, 160, 0))
    assert shop.clean() == []


def test_overdraft_earns_when_it_is_paid_the_oldest_of_it_first(database: Database) -> None:
    books = Books(Shop(database))
    shop = books.shop
    shop.move(Kind.DEPOSIT, 2 * CREDIT, price_nanousd=2 * USD)
    shop.use(5 * CREDIT)
    shop.draw()
    shop.now_ns += DAY_NS
    shop.use(4 * CREDIT)
    shop.now_ns += DAY_NS
    shop.use(1 * CREDIT)
    # 3 credits of the first day, 4 of the second, 1 of the third are overdraft: 5 of them are paid, then the rest.
    shop.move(Kind.DEPOSIT, 5 * CREDIT, price_nanousd=10 * USD)
    assert [books.on(day) for day in range(3)] == [
        (200, 0, 600),
        (0, 0, 400),
        (1000, 1000, 0),
    ]
    shop.now_ns += DAY_NS
    shop.move(Kind.DEPOSIT, 10 * CREDIT, price_nanousd=10 * USD)
    assert [books.on(day) for day in range(4)] == [(200, 0, 600), (0, 0, 600), (1000, 1000, 100), (300, 300, 0)]
    assert books.on(0, days=4) == (1500, 0, 0)
    assert shop.clean() == []


def test_overdraft_of_the_same_day_moves_nothing_and_old_overdraft_is_on_the_first_day(database: Database) -> None:
    books = Books(Shop(database))
    shop = books.shop
    shop.use(3 * CREDIT)
    shop.move(Kind.DEPOSIT, 2 * CREDIT, price_nanousd=2 * USD)
    assert books.on(0) == (200, 0, 0)
    shop.now_ns += 100 * DAY_NS
    shop.move(Kind.DEPOSIT, 2 * CREDIT, price_nanousd=2 * USD)
    assert books.on(100) == (100, 100, 0)
    assert books.on(100 - OVERDRAFT_DAYS) == (0, 0, 100)
