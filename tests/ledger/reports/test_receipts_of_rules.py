"""Every kind of rule has a receipt that can be worked out again, and a figure that was changed is noticed."""

from decimal import Decimal

from booked import book_calls, used
from calls import START_NS
from farebox_collector.ledger.reports.charges import ChargedBy, charges_by
from farebox_collector.ledger.reports.simulation import simulate
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.model.moments import Days
from farebox_collector.model.records import DEFAULT_TENANT_ID, Buckets
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import (
    COST_PLUS,
    FLAT,
    PER_1K_TOKENS,
    RuleTerms,
)
from farebox_collector.surfaces.api.receipt_check import mismatches
from farebox_collector.surfaces.api.receipts import receipt

RULES = {
    "flat": RuleTerms(FLAT, flat_credits=Decimal("0.5")),
    "tokens": RuleTerms(
        PER_1K_TOKENS,
        input_credits_per_1k=Decimal("0.1"),
        cached_credits_per_1k=Decimal("0.01"),
        output_credits_per_1k=Decimal("0.3"),
    ),
    "least": RuleTerms(COST_PLUS, multiplier=Decimal(3), minimum_credits=Decimal("0.001")),
}
BUCKETS = Buckets(input=1000, cache_read=400, output=200, reasoning=50)
DAY_NS = 86_400 * 10**9


def test_rules_charge_as_their_receipts_say_and_simulations_foretell(database: Database) -> None:
    with database.transaction() as connection:
        for event, terms in RULES.items():
            set_rule(connection, DEFAULT_TENANT_ID, event, terms, RuleAuthorship("ada", "test"), START_NS - DAY_NS)
    events = [event for event in RULES for _ in range(3)]
    usages = [
        used(number, buckets=BUCKETS, event=event, action_id="" if number % 3 == 0 else f"run-{event}")
        for number, event in enumerate(events, start=1)
    ]
    _, verdicts = book_calls(database, usages)
    assert verdicts == [Verdict.CHARGED] * 9
    with database.reading() as connection:
        receipts = [receipt(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id) for usage in usages]
        charges = {
            row.name: int(row.charge_nanocredits)
            for row in charges_by(connection, 1, ChargedBy.EVENT, Days(0, 10**5), 10)
        }
        everything = (0, START_NS + DAY_NS)
        foretold = {e: simulate(connection, 1, e, terms, *everything).by_event[e] for e, terms in RULES.items()}
    # Cost is $0.000300: 1000 × 150 + 400 × 75 + 200 × 600 nano-USD; three times that is under the minimum, twice over.
    assert [found.charge.charge_credits for found in receipts if found and found.charge] == [
        *("0.500000000", "0.000000000", "0.500000000"),
        *["0.164000000"] * 3,
        *("0.001000000", "0.000800000", "0.001000000"),
    ]
    assert [mismatches(found) for found in receipts if found] == [[]] * 9
    assert charges == {"flat": 10**9, "tokens": 492_000_000, "least": 2_800_000}
    assert {event: outcome.proposed_nanocredits for event, outcome in foretold.items()} == charges
    first = receipts[0]
    assert first is not None
    assert first.charge is not None
    forged = first.model_copy(update={"charge": first.charge.model_copy(update={"charge_credits": "0.400000000"})})
    assert mismatches(forged)
