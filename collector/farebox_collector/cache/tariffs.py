"""Keep price books and charge rules in memory; reload them when the database changes."""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple

from farebox_collector.ledger.access.erased import ErasedNames, erased_edition, erased_names_of
from farebox_collector.ledger.access.tenants import tenant_of
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.agent_plans import load_plans, plans_edition
from farebox_collector.ledger.tariffs.prices import book_edition, load_prices, load_versions
from farebox_collector.ledger.tariffs.rules import load_rules, rules_edition
from farebox_collector.ledger.usage.stored_usage import StoredCall
from farebox_collector.model.records import PricedUsage, PriceVersion
from farebox_collector.pricing.agent_plans import PlanBook
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.price import is_from_pricing, price_at
from farebox_collector.pricing.rules import RuleBook

_CHECK_EVERY_NS = 10**9
_CLOCK_SKEW_NS = 250 * 10**6
"""Tolerated difference between the clocks of collectors: a call that started within it is checked again."""
_CHECK_AGAIN_NS = 10**6
"""Shortest time between two checks, for calls from senders whose clocks are ahead."""


class Tariff(NamedTuple):
    """Prices, charge rules and plans of one tenant."""

    book: PriceBook
    rules: RuleBook
    erased: ErasedNames | None = None
    """Erased names, which must not enter the books again; None if there are none."""
    plans: PlanBook | None = None
    """Plans that pay calls of coding agents; None if there are none."""


class Tariffs:
    """The tariff of every tenant, as `price` needs it.

    A newer edition, recorded by any collector, is loaded at most once a second, and before pricing a call that started
    after the last check. Rules and prices begin when they are recorded or later, so an edition is complete for all time
    before its check. Tenants without negotiated prices share one price book.
    """

    def __init__(self, database: Database, clock: Callable[[], int], charge_exposed: Collection[str] = ()) -> None:
        """`charge_exposed` names the tenants that are charged the estimate for calls whose end was not seen."""
        self._charge_exposed = frozenset(charge_exposed)
        self._database = database
        self._clock = clock
        self.edition: tuple[int, ...] = (-1, -1, -1, -1)
        """Editions of the price book, the rules, erased names and plans; each grows with every change."""
        self._checked_at_ns = 0
        self.known_until_ns = 0
        """For calls that started before this moment, later editions give the same price."""
        self._list_book = PriceBook((), ())
        self._negotiated: dict[int, list[PriceVersion]] = {}
        self._tariffs: dict[int, Tariff] = {}
        self.refresh()

    def refresh(self) -> None:
        """Load a newer edition, if a check is due."""
        if abs(self._clock() - self._checked_at_ns) >= _CHECK_EVERY_NS:
            self._check()

    def refresh_for(self, started_at_ns: int) -> None:
        """Load a newer edition, if a call started after the last check."""
        if started_at_ns >= self.known_until_ns and abs(self._clock() - self._checked_at_ns) >= _CHECK_AGAIN_NS:
            self._check()

    def _check(self) -> None:
        now_ns = self._clock()
        self._checked_at_ns = now_ns
        with self._database.snapshot() as connection:
            edition = (
                book_edition(connection),
                rules_edition(connection),
                erased_edition(connection),
                plans_edition(connection),
            )
            if edition == self.edition:
                self.known_until_ns = now_ns - _CLOCK_SKEW_NS
                return
            if edition[0] != self.edition[0]:
                self._list_book = PriceBook(*load_prices(connection))
                negotiated: defaultdict[int, list[PriceVersion]] = defaultdict(list)
                for version in load_versions(connection, negotiated=True):
                    negotiated[version.tenant_id or 0].append(version)
                self._negotiated = dict(negotiated)
            self._tariffs = {}
            self.edition = edition
            self.known_until_ns = now_ns - _CLOCK_SKEW_NS

    def of(self, tenant_id: int) -> Tariff:
        """The tariff of one tenant."""
        try:
            return self._tariffs[tenant_id]
        except KeyError:
            with self._database.snapshot() as connection:
                charges_exposed = bool(self._charge_exposed) and tenant_id in {
                    tenant_of(connection, name) for name in self._charge_exposed
                }
                rules = RuleBook(load_rules(connection, tenant_id), charges_exposed)
                erased = erased_names_of(connection, tenant_id)
                plans = load_plans(connection, tenant_id)
            own = self._negotiated.get(tenant_id)
            book = self._list_book.with_own_prices(own) if own else self._list_book
            tariff = self._tariffs[tenant_id] = Tariff(book, rules, erased, PlanBook(plans) if plans else None)
            return tariff


def reprice(stored: StoredCall, tariff: Tariff) -> PricedUsage:
    """Price a stored record again by the tariff now known, at the moment whose prices it had. An agent's own usage is
    priced as such."""
    read = tuple(assumption for assumption in stored.call.usage.assumptions if not is_from_pricing(assumption))
    usage = stored.call.usage._replace(assumptions=read, summary=False)
    return price_at(usage, stored.call.priced_at_ns, tariff.book, tariff.rules)
