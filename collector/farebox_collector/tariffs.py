"""The price book and the charge rules in force, in memory; reloaded when the books on disk change."""

from collections.abc import Callable
from typing import NamedTuple

from farebox_collector.ledger.database import Database
from farebox_collector.ledger.prices import book_edition, load_prices
from farebox_collector.ledger.rules import load_rules, rules_edition
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.rules import RuleBook

_LOOK_EVERY_NS = 10**9


class Tariff(NamedTuple):
    """What calls of one tenant cost and what they are charged."""

    book: PriceBook
    rules: RuleBook


class Tariffs:
    """The tariff of each tenant, as `price` needs it.

    `refresh` looks at most once a second whether there is a newer edition, whoever recorded it.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._edition = (-1, -1)
        self._looked_at_ns = 0
        self._book = PriceBook((), ())
        self._tariffs: dict[int, Tariff] = {}
        self.refresh()

    def of(self, tenant_id: int) -> Tariff:
        """The tariff of a tenant."""
        if tenant_id not in self._tariffs:
            with self._database.reading() as connection:
                rules = RuleBook(load_rules(connection, tenant_id))
            self._tariffs[tenant_id] = Tariff(self._book, rules)
        return self._tariffs[tenant_id]

    def refresh(self) -> None:
        """Load the newest edition, if it is time to look and there is one."""
        now_ns = self._clock()
        if abs(now_ns - self._looked_at_ns) < _LOOK_EVERY_NS:
            return
        self._looked_at_ns = now_ns
        with self._database.reading() as connection:
            edition = (book_edition(connection), rules_edition(connection))
            if edition != self._edition:
                self._book = PriceBook(*load_prices(connection))
                # Tenants are read again when their first call comes.
                self._tariffs = {}
                self._edition = edition
