"""The terms of money: one meaning each, in every report, answer, metric, dashboard, alert and file.

A surface takes the meaning of a term from here, and computes it with the functions here.
"""

from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType

from sqlalchemy import Connection

from farebox_collector.ledger.access.tenants import usd_per_credit_of
from farebox_collector.model.money import round_half_even


class Term(StrEnum):
    """A figure about money."""

    CHARGE = "charge"
    CHARGE_VALUE = "charge value"
    REVENUE = "revenue"
    GIVEN_AWAY = "given away"
    BREAKAGE = "breakage"
    REFUNDS = "refunds of used credits"
    COST = "cost"
    EXPOSURE = "exposure"
    FEES = "fees"
    PROFIT = "profit"
    MARGIN_AT_LIST = "margin at list"
    MARGIN = "margin"
    CASH_IN = "cash in"
    DEFERRED_REVENUE = "deferred revenue"
    RECEIVABLE = "receivable"


MEANINGS = MappingProxyType(
    {
        Term.CHARGE: "Credits that wallets paid for calls.",
        Term.CHARGE_VALUE: "The charge times what a credit sells for: what was sold, at list.",
        Term.REVENUE: "The price paid for the credits that usage drew, recognised lot by lot.",
        Term.GIVEN_AWAY: "Charge value less revenue: promotional credits, discounts, and overdraft not paid yet.",
        Term.BREAKAGE: "The price of credits that expired.",
        Term.REFUNDS: "The price that went back for credits that were used or had expired.",
        Term.COST: "What providers charge for the calls.",
        Term.EXPOSURE: "What providers may bill for calls whose end was not seen. It is in no other figure.",
        Term.FEES: "What payment providers keep.",
        Term.PROFIT: "Revenue and breakage, less refunds of used credits, cost and fees.",
        Term.MARGIN_AT_LIST: "Charge value less cost, as a share of charge value.",
        Term.MARGIN: "Profit as a share of revenue.",
        Term.CASH_IN: "Payments less refunds and lost disputes.",
        Term.DEFERRED_REVENUE: "The price of credits that are paid for and not used.",
        Term.RECEIVABLE: "Overdraft, at list.",
    }
)
"""What each term means; the glossary has the same sentences."""


class ListPrice:
    """Values credits at what a credit of the tenant sells for.

    A tenant's price is set when the tenant is created and never changes, so it is the price at any moment.
    """

    def __init__(self, usd_per_credit: Fraction) -> None:
        self._rate = usd_per_credit

    def nanousd(self, nanocredits: int) -> int:
        """Return the value of credits, rounded half to even."""
        return round_half_even(nanocredits * self._rate.numerator, self._rate.denominator)

    def parts(self, *nanocredits: int) -> list[int]:
        """Return the value of each part; together they are the value of the sum, to the nano-dollar."""
        values, sum_before, value_before = [], 0, 0
        for part in nanocredits:
            sum_before += part
            value = self.nanousd(sum_before)
            values.append(value - value_before)
            value_before = value
        return values


def list_price(connection: Connection, tenant_id: int) -> ListPrice:
    """Return the list price of a tenant's credit."""
    return ListPrice(Fraction(usd_per_credit_of(connection, tenant_id)))


def profit(revenue: int, breakage: int, refunds: int, cost: int, fees: int) -> int:
    """Return the profit, in the unit of the figures."""
    return revenue + breakage - refunds - cost - fees


def percent(part: int, whole: int) -> str | None:
    """Return a percentage with two decimals; None if the whole is zero."""
    if not whole:
        return None
    sign = -1 if whole < 0 else 1
    hundredths = round_half_even(sign * part * 10_000, sign * whole)
    return f"{'-' if hundredths < 0 else ''}{abs(hundredths) // 100}.{abs(hundredths) % 100:02d}"


def margin_at_list(charge_value: int, cost: int) -> str | None:
    """Return the margin at list in percent, with two decimals; None without a charge value."""
    return percent(charge_value - cost, charge_value)


def margin(of_profit: int, revenue: int) -> str | None:
    """Return the margin in percent, with two decimals; None without revenue."""
    return percent(of_profit, revenue)
