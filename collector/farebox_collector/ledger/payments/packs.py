"""Packs of credits with a price. Append-only; the newest version of a name is in force."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.tables.payments import packs
from farebox_collector.ledger.tariffs.exchange_rates import load_rates
from farebox_collector.model.minor_units import MAX_MINOR, minor_in_nanousd
from farebox_collector.model.money import MAX_NANO, NANO
from farebox_collector.pricing.currencies import NoExchangeRate, is_currency

MAX_EXPIRY_DAYS = 3_660


class BadPack(ValueError):
    """The terms of a pack are invalid; the message states the rule."""


class PackTerms(NamedTuple):
    """Credits and price of a pack."""

    name: str
    credits_nano: int
    """0 withdraws the pack from sale."""
    currency: str
    """ISO 4217, in capitals."""
    amount_minor: int
    """The price in minor units of the currency."""
    expires_days: int = 0
    """Days after the payment when the credits expire; 0 for never."""


def set_pack(connection: Connection, tenant_id: int, terms: PackTerms, author: str, reason: str, at_ns: int) -> int:
    """Sell a pack on these terms from now on; returns the version. Raises BadPack, NoExchangeRate.

    Open orders keep the terms on which they were placed.
    """
    if not 0 < terms.credits_nano < MAX_NANO:
        raise BadPack(f"a pack must have more than 0 and at most {MAX_NANO // NANO:,} credits")
    if not is_currency(terms.currency):
        raise BadPack(f"{terms.currency!r} is no currency: three capital letters, such as EUR")
    if not 0 < terms.amount_minor <= MAX_MINOR:
        raise BadPack(f"the price of a pack must be positive and at most {MAX_MINOR:,} minor units")
    if not 0 <= terms.expires_days <= MAX_EXPIRY_DAYS:
        raise BadPack(f"expires_days must be 1 to {MAX_EXPIRY_DAYS}, or 0 for never")
    # Payments are booked in US dollars, which needs a rate.
    usd_per(connection, terms.currency, at_ns)
    return _record(connection, tenant_id, terms, author, reason, at_ns)


def withdraw_pack(connection: Connection, tenant_id: int, name: str, author: str, reason: str, at_ns: int) -> bool:
    """Withdraw a pack from sale; False if it is not sold."""
    row = pack_in_force(connection, tenant_id, name)
    if row is None:
        return False
    terms = PackTerms(name, 0, row.currency, row.amount_minor, row.expires_days)
    _record(connection, tenant_id, terms, author, reason, at_ns)
    return True


def packs_in_force(connection: Connection, tenant_id: int) -> Sequence[Row[Any]]:
    """Return the packs on sale, by currency and price."""
    newest = select(func.max(packs.c.id)).where(packs.c.tenant_id == tenant_id).group_by(packs.c.name)
    query = select(packs).where(packs.c.id.in_(newest), packs.c.credits_nano > 0)
    return connection.execute(query.order_by(packs.c.currency, packs.c.amount_minor, packs.c.name)).all()


def pack_in_force(connection: Connection, tenant_id: int, name: str) -> Row[Any] | None:
    """Return the version on sale of a pack; None if it is not sold."""
    query = select(packs).where(packs.c.tenant_id == tenant_id, packs.c.name == name).order_by(packs.c.id.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None or not row.credits_nano else row


def pack_name(connection: Connection, tenant_id: int, version: int) -> str:
    """Return the name of a version of a pack."""
    query = select(packs.c.name).where(packs.c.tenant_id == tenant_id, packs.c.id == version)
    return str(connection.execute(query).scalar_one())


def pack_versions(connection: Connection, tenant_id: int, name: str = "") -> Sequence[Row[Any]]:
    """Return every version of one pack or of all, oldest first."""
    query = select(packs).where(packs.c.tenant_id == tenant_id)
    if name:
        query = query.where(packs.c.name == name)
    return connection.execute(query.order_by(packs.c.name, packs.c.id)).all()


def price_nanousd(connection: Connection, currency: str, amount_minor: int, at_ns: int) -> int:
    """Return an amount in nano-USD at the rate of a moment. Raises NoExchangeRate."""
    return minor_in_nanousd(amount_minor, currency, usd_per(connection, currency, at_ns))


def has_rate(connection: Connection, currency: str, at_ns: int) -> bool:
    """Return whether a currency has an exchange rate at a moment."""
    try:
        usd_per(connection, currency, at_ns)
    except NoExchangeRate:
        return False
    return True


def usd_per(connection: Connection, currency: str, at_ns: int) -> Fraction:
    """Return US dollars for one unit of a currency at a moment. Raises NoExchangeRate."""
    return Fraction(load_rates(connection).usd_per(currency, at_ns))


def _record(connection: Connection, tenant_id: int, terms: PackTerms, author: str, reason: str, at_ns: int) -> int:
    earlier = pack_in_force(connection, tenant_id, terms.name)
    row = insert(packs).values(
        tenant_id=tenant_id, author=author, reason=reason, recorded_at_ns=at_ns, **terms._asdict()
    )
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    before = None if earlier is None else {name: getattr(earlier, name) for name in PackTerms._fields}
    action = "pack.set" if terms.credits_nano else "pack.withdraw"
    after = {**terms._asdict(), "author": author, "reason": reason, "version": int(key[0])}
    note(connection, tenant_id, action, terms.name, at_ns, before=before, after=after)
    return int(key[0])
