"""The price books and the charge rules in force, in memory; reloaded when the books on disk change."""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple

from farebox_collector.ledger.access.erased import ErasedNames, erased_edition, erased_names_of
from farebox_collector.ledger.access.tenants import tenant_of
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import book_edition, load_prices, load_versions
from farebox_collector.ledger.tariffs.rules import load_rules, rules_edition
from farebox_collector.ledger.usage.stored_usage import StoredCall
from farebox_collector.model.records import PricedUsage, PriceVersion
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.price import of_pricing, price_at
from farebox_collector.pricing.rules import RuleBook

_LOOK_EVERY_NS = 10**9
_COMMITTED_NS = 250 * 10**6
"""How far the clocks of collectors may be apart, so that a call which started by another one's is looked up again."""
_LOOK_AGAIN_NS = 10**6
"""However far ahead senders' clocks are, nobody looks more often than that."""


class Tariff(NamedTuple):
    """What calls cost one tenant and what it charges for them."""

    book: PriceBook
    rules: RuleBook
    erased: ErasedNames | None = None
    """The names that may not come into the books again; None if there are none."""


class Tariffs:
    """The tariff of every tenant, as `price` needs it.

    `refresh` looks at most once a second whether there is a newer edition, by whichever collector it was recorded, and
    before it prices a call that started since it looked: rules and prices begin when they are recorded or later, so an
    edition says all there is to know of the time before it was looked at. Tenants without negotiated prices share one
    price book.
    """

    def __init__(self, database: Database, clock: Callable[[], int], charge_exposed: Collection[str] = ()) -> None:
        """`charge_exposed` names the tenants that are charged the estimate of calls whose end was not seen."""
        self._charge_exposed = frozenset(charge_exposed)
        self._database = database
        self._clock = clock
        self.edition: tuple[int, ...] = (-1, -1, -1)
        """Of the price book, of the rules and of erased names; grows with every change."""
        self._looked_at_ns = 0
        self.known_until_ns = 0
        """Calls that started before are priced by this edition as by any later one."""
        self._list_book = PriceBook((), ())
        self._negotiated: dict[int, list[PriceVersion]] = {}
        self._tariffs: dict[int, Tariff] = {}
        self.refresh()

    def refresh(self) -> None:
        """Load the newest edition, if it is time to look and there is one."""
        if abs(self._clock() - self._looked_at_ns) >= _LOOK_EVERY_NS:
            self._look()

    def refresh_for(self, started_at_ns: int) -> None:
        """Load the newest edition, if a call started since somebody looked and there is one."""
        if started_at_ns >= self.known_until_ns and abs(self._clock() - self._looked_at_ns) >= _LOOK_AGAIN_NS:
            self._look()

    def _look(self) -> None:
        now_ns = self._clock()
        self._looked_at_ns = now_ns
        with self._database.reading() as connection:
            edition = (book_edition(connection), rules_edition(connection), erased_edition(connection))
            if edition == self.edition:
                self.known_until_ns = now_ns - _COMMITTED_NS
                return
            if edition[0] != self.edition[0]:
                self._list_book = PriceBook(*load_prices(connection))
                negotiated: defaultdict[int, list[PriceVersion]] = defaultdict(list)
                for version in load_versions(connection, negotiated=True):
                    negotiated[version.tenant_id or 0].append(version)
                self._negotiated = dict(negotiated)
            self._tariffs = {}
            self.edition = edition
            self.known_until_ns = now_ns - _COMMITTED_NS

    def of(self, tenant_id: int) -> Tariff:
        """The tariff of one tenant."""
        try:
            return self._tariffs[tenant_id]
        except KeyError:
            with self._database.reading() as connection:
                charges_exposed = bool(self._charge_exposed) and tenant_id in {
                    tenant_of(connection, name) for name in self._charge_exposed
                }
                rules = RuleBook(load_rules(connection, tenant_id), charges_exposed)
                erased = erased_names_of(connection, tenant_id)
            own = self._negotiated.get(tenant_id)
            book = self._list_book.with_own_prices(own) if own else self._list_book
            tariff = self._tariffs[tenant_id] = Tariff(book, rules, erased)
            return tariff


def price_anew(stored: StoredCall, tariff: Tariff) -> PricedUsage:
    """What a record comes to by a tariff as it is now known, at the moment whose prices it had; an agent stands for
    itself."""
    read = tuple(assumption for assumption in stored.call.usage.assumptions if not of_pricing(assumption))
    usage = stored.call.usage._replace(assumptions=read, summary=False)
    return price_at(usage, stored.call.priced_at_ns, tariff.book, tariff.rules)
