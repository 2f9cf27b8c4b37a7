"""Sum costs and charges of calls into legs: one ledger transaction posts for many usage records."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from farebox_collector.ledger.journal.journal import (
    COGS_ACCOUNT,
    EARNED_ACCOUNT,
    PROVIDER,
    Account,
    Leg,
    wallet_account,
)
from farebox_collector.model.money import Commodity


class Charge(NamedTuple):
    """What one call takes from its wallet and costs us; with negative amounts and count, what it gives back."""

    wallet: str
    event: str
    rule_version_id: int | None
    charge_nanocredits: int
    provider: str
    model: str
    cost_nanousd: int
    records: int = 1

    def reversed(self) -> "Charge":
        """Return the same charge, given back."""
        return self._replace(
            charge_nanocredits=-self.charge_nanocredits, cost_nanousd=-self.cost_nanousd, records=-self.records
        )


Charged = tuple[str, str, int | None, int, str, str, int, int]
"""The fields of a Charge: for thousands of charges, building named tuples takes longer than adding them up."""


def legs_of(charges: Iterable[Charged]) -> list[Leg]:
    """Return one CREDIT leg per (wallet, event, rule) and one USD leg per (provider, model), with counterparts.

    Amounts that cancel out produce no leg.
    """
    taken: defaultdict[tuple[str, str, int | None], list[int]] = defaultdict(lambda: [0, 0])
    costs: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for wallet, event, rule_id, charge, provider, model, cost, records in charges:
        credits_taken = taken[wallet, event, rule_id]
        credits_taken[0] += charge
        credits_taken[1] += records
        dollars = costs[provider, model]
        dollars[0] += cost
        dollars[1] += records
    legs = [
        Leg(wallet_account(wallet), -amount, event, rule_id, records)
        for (wallet, event, rule_id), (amount, records) in taken.items()
        if amount or records
    ]
    providers = [
        Leg(Account(PROVIDER, f"{provider}/{model}", Commodity.USD), -amount, records=records)
        for (provider, model), (amount, records) in costs.items()
        if amount or records
    ]
    if legs:
        legs.append(Leg(EARNED_ACCOUNT, -sum(leg.amount_nano for leg in legs)))
    if providers:
        legs += [*providers, Leg(COGS_ACCOUNT, -sum(leg.amount_nano for leg in providers))]
    return legs
