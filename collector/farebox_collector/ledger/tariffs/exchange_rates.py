"""Stored exchange rates: append-only. A rate changes no recorded price; the next import uses it."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.tables.prices import exchange_rates
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.pricing.currencies import (
    USD,
    ExchangeRate,
    ExchangeRates,
    is_currency,
)

_MAX_RATE = Decimal(10**9)
_MAX_DIGITS = 20


def set_rate(connection: Connection, rate: ExchangeRate, author: str, at_ns: int) -> None:
    """Record the rate of a currency from a moment on. Raises ValueError for an invalid rate."""
    if not is_currency(rate.currency) or rate.currency == USD:
        raise ValueError(f"{rate.currency!r} is no currency other than {USD}: three capital letters, such as EUR")
    value = rate.usd_per_currency
    if not value.is_finite() or not 0 < value < _MAX_RATE or len(value.as_tuple().digits) > _MAX_DIGITS:
        raise ValueError("an exchange rate must be positive, below a billion US dollars, with at most 20 digits")
    connection.execute(
        insert(exchange_rates).values(
            currency=rate.currency,
            usd_per_currency=format(value.normalize(), "f"),
            valid_from_ns=rate.valid_from_ns,
            author=author,
            recorded_at_ns=at_ns,
        )
    )
    after = {"usd_per_currency": value, "valid_from_ns": rate.valid_from_ns, "author": author}
    note(connection, DEFAULT_TENANT_ID, "exchange_rate.set", rate.currency, at_ns, after=after)


def rates(connection: Connection) -> Sequence[Row[Any]]:
    """Return every recorded rate, by currency and start."""
    table = exchange_rates.c
    return connection.execute(select(exchange_rates).order_by(table.currency, table.valid_from_ns, table.id)).all()


def load_rates(connection: Connection) -> ExchangeRates:
    """Return all exchange rates."""
    rows = connection.execute(select(exchange_rates).order_by(exchange_rates.c.id))
    return ExchangeRates(ExchangeRate(row.currency, Decimal(row.usd_per_currency), row.valid_from_ns) for row in rows)
