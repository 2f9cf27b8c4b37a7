"""The price book and the charge rules in force, in memory; reloaded when the books on disk change."""

from collections.abc import Callable

from farebox_collector.ledger.database import Database
from farebox_collector.ledger.prices import book_edition, load_prices
from farebox_collector.ledger.rules import load_rules, rules_edition
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.rules import RuleBook
from farebox_collector.records import DEFAULT_TENANT_ID

_LOOK_EVERY_NS = 10**9


class Tariffs:
    """What calls cost and what they are charged, as `price` needs it.

    `refresh` looks at most once a second whether there is a newer edition, whoever recorded it.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._edition = (-1, -1)
        self._looked_at_ns = 0
        self.book = PriceBook((), ())
        self.rules = RuleBook(())
        self.refresh()

    def refresh(self) -> None:
        """Load the newest edition, if it is time to look and there is one."""
        now_ns = self._clock()
        if abs(now_ns - self._looked_at_ns) < _LOOK_EVERY_NS:
            return
        self._looked_at_ns = now_ns
        with self._database.reading() as connection:
            edition = (book_edition(connection), rules_edition(connection))
            if edition != self._edition:
                self.book = PriceBook(*load_prices(connection))
                self.rules = RuleBook(load_rules(connection, DEFAULT_TENANT_ID))
                self._edition = edition
