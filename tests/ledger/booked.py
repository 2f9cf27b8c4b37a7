"""Calls priced by the books' own tariffs and recorded in them."""

from typing import Any

from calls import START_NS, call
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import DEFAULT_TENANT_ID, PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.price import price_at

WEEK_NS = 7 * 86_400 * 10**9


def used(number: int, model: str = "gpt-4o-mini", provider: str = "openai", **facts: Any) -> UsageRecord:
    """What one call used, by the facts that matter."""
    usage = call(number).usage._replace(provider=provider, request_model=model, response_model=model)
    return usage._replace(**facts)


def book_calls(
    database: Database, usages: list[UsageRecord], tenant_id: int = DEFAULT_TENANT_ID
) -> tuple[list[PricedUsage], list[Verdict]]:
    """Price and record calls as of when they started; what they came to."""
    tariff = Tariffs(database, lambda: START_NS).of(tenant_id)
    priced = [price_at(usage, usage.started_at_ns, tariff.book, tariff.rules) for usage in usages]
    with database.transaction() as connection:
        return priced, record_usage(connection, tenant_id, priced, START_NS, TotalLabels())
