"""Exact cost of each kind of token, from sums of tokens under the same prices.

Under the same prices, cost is linear in tokens. So the token sums of a rate card give the exact cost of each kind
without a figure for every call. The rest of the recorded cost is fees, units other than tokens, and less than a
nano-dollar of rounding for each call.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy import Connection, select

from farebox_collector.ledger.reports.costs import versions_by_id
from farebox_collector.ledger.tables.service import card_totals
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.model.money import NANO
from farebox_collector.model.records import STANDARD, Buckets, PriceVersion
from farebox_collector.pricing.cards import rate_card

NEGOTIATED = "negotiated"
LONG_CONTEXT = "long_context"
SOME_HOURS = "some_hours"

_OUTPUT, _REASONING = Buckets._fields.index("output"), Buckets._fields.index("reasoning")
_ALWAYS = frozenset({"input", "output"})

Label = tuple[str, str, str, str]
"""Provider, model, tier, and kind of token."""


class TokenCosts(NamedTuple):
    """Totals of everything ever booked; corrections book again, so that neither figure ever falls."""

    tokens: dict[Label, int]
    usd: dict[Label, Fraction]


class _Rates(NamedTuple):
    """Unit prices of a card, in nano-USD over a denominator."""

    tier: str
    of_buckets: tuple[int, ...]
    """In the order of `Buckets`; the price of reasoning is 0 if it is billed as output."""
    denominator: int

    def disjoint(self, used: Buckets) -> list[int]:
        """Return tokens by disjoint kinds: reasoning is subtracted from output if it has a separate price."""
        counts = list(used)
        if self.of_buckets[_REASONING]:
            counts[_OUTPUT] -= used.reasoning
        else:
            counts[_REASONING] = 0
        return counts


class Cards:
    """Cache of cards by their price versions, which never change: each is read from the books once."""

    def __init__(self) -> None:
        self._known: dict[str, _Rates] = {}

    def token_costs(self, connection: Connection) -> TokenCosts:
        """Return tokens and costs of all tenants, by provider, model, tier and kind."""
        names = (card_totals.c.provider, card_totals.c.model, card_totals.c.price_version_ids)
        counts_of = [card_totals.c[name] for name in TOKEN_COLUMNS]
        # By tenant: a sum over all tenants may exceed the database's integers.
        rows = connection.execute(select(*names, *counts_of).where(card_totals.c.reversed == 0)).all()
        self._learn(connection, {row.price_version_ids for row in rows})
        tokens: Counter[Label] = Counter()
        exact: defaultdict[Label, Counter[int]] = defaultdict(Counter)
        for provider, model, version_ids, *counts in rows:
            rates = self._known[version_ids]
            used = rates.disjoint(Buckets._make(map(int, counts)))
            for kind, count, rate in zip(Buckets._fields, used, rates.of_buckets, strict=True):
                if count or kind in _ALWAYS:
                    label = provider, model, rates.tier, kind
                    tokens[label] += count
                    exact[label][rates.denominator] += count * rate
        usd = {
            label: sum((Fraction(amount, denominator * NANO) for denominator, amount in parts.items()), Fraction(0))
            for label, parts in exact.items()
        }
        return TokenCosts(tokens, usd)

    def _learn(self, connection: Connection, wanted: set[str]) -> None:
        new = wanted - self._known.keys()
        numbers = {ids: json.loads(ids) for ids in new}
        versions = versions_by_id(connection, {number for ids in numbers.values() for number in ids})
        for ids in new:
            own = [versions[number] for number in numbers[ids] if number in versions]
            card = rate_card(own)
            rates = (*card.bucket_rates[:_REASONING], card.rates.get("output_reasoning", 0))
            self._known[ids] = _Rates(_tier(own), rates, card.denominator)


def _tier(versions: Sequence[PriceVersion]) -> str:
    """Return how these prices differ from the standard ones; `standard` if they do not."""
    if any(version.tenant_id is not None for version in versions):
        return NEGOTIATED
    conditions = sorted({version.condition for version in versions} - {STANDARD})
    if conditions:
        return conditions[0]
    if any(version.over_input_tokens for version in versions):
        return LONG_CONTEXT
    if any(version.daily_from_s != version.daily_to_s or version.weekdays for version in versions):
        return SOME_HOURS
    return STANDARD
