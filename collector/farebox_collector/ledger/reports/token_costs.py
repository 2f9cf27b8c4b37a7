"""What each kind of token has cost, exactly: out of what calls used under the same prices.

A cost is linear in the tokens as long as the prices are the same, so that sums of tokens on one card give the exact
cost of each kind, without a figure of its own for every call. What is left of the recorded cost are fees, units other
than tokens, and less than a nano-dollar of rounding a call.
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
    """What was ever booked; a correction books anew, and neither figure ever falls."""

    tokens: dict[Label, int]
    usd: dict[Label, Fraction]


class _Rates(NamedTuple):
    """What one piece of each kind costs on one card, in nano-USD over a denominator."""

    tier: str
    of_buckets: tuple[int, ...]
    """As `Buckets`; for reasoning its own price, 0 where it has none and is output like any other."""
    denominator: int

    def apart(self, used: Buckets) -> list[int]:
        """The tokens by disjoint kinds: reasoning is taken out of output where it has a price of its own."""
        counts = list(used)
        if self.of_buckets[_REASONING]:
            counts[_OUTPUT] -= used.reasoning
        else:
            counts[_REASONING] = 0
        return counts


class Cards:
    """Cards by their price versions. These never change, so that each is read from the books once."""

    def __init__(self) -> None:
        self._known: dict[str, _Rates] = {}

    def token_costs(self, connection: Connection) -> TokenCosts:
        """The tokens of all tenants and what they cost, by provider, model, tier and kind."""
        names = (card_totals.c.provider, card_totals.c.model, card_totals.c.price_version_ids)
        counts_of = [card_totals.c[name] for name in TOKEN_COLUMNS]
        # Of each tenant apart: the database's sum over all of them need not fit its integers.
        rows = connection.execute(select(*names, *counts_of).where(card_totals.c.reversed == 0)).all()
        self._learn(connection, {row.price_version_ids for row in rows})
        tokens: Counter[Label] = Counter()
        exact: defaultdict[Label, Counter[int]] = defaultdict(Counter)
        for provider, model, version_ids, *counts in rows:
            rates = self._known[version_ids]
            used = rates.apart(Buckets._make(map(int, counts)))
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
    """What sets these prices apart from the standard ones; `standard` for those that the list price is about."""
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
