"""Automatic top-ups: a wallet that falls below a threshold buys a pack with what its customer let us keep.

What is wanted is append-only; the last version of a wallet holds. At most one top-up of a wallet is in flight, which a
unique index sees to, and what a UTC month may cost is bounded.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.journal import WALLET
from farebox_collector.ledger.packs import pack_in_force
from farebox_collector.ledger.payment_tables import auto_topups, topups
from farebox_collector.ledger.tables import accounts
from farebox_collector.ledger.topups import Order, PaymentMethod, TopupState, order, payment_method
from farebox_collector.moments import to_ns
from farebox_collector.money import MAX_NANO

FAREBOX = "farebox"
"""The author of what was switched off because a payment failed."""


class AutoTerms(NamedTuple):
    """When a wallet is topped up, with what, and how much that may cost a UTC month."""

    wallet: str
    enabled: bool
    pack: str
    below_nano: int
    """A balance under this is too low."""
    currency: str
    month_cap_minor: int


class BadAutoTopup(ValueError):
    """A wallet cannot be topped up on these terms; the message says why."""


class Due(NamedTuple):
    """An automatic top-up that is to be paid."""

    topup: Row[Any]
    method: PaymentMethod


def set_auto_topup(
    connection: Connection, tenant_id: int, terms: AutoTerms, author: str, reason: str, at_ns: int
) -> int:
    """Top a wallet up on these terms from now on; returns the version. Raises BadAutoTopup."""
    if terms.enabled:
        pack = pack_in_force(connection, tenant_id, terms.pack)
        if pack is None:
            raise BadAutoTopup(f"there is no pack {terms.pack!r}")
        if terms.currency != pack.currency or terms.month_cap_minor < pack.amount_minor:
            raise BadAutoTopup("a month's cap is in the pack's currency, and allows for one pack at least")
        if not payment_method(connection, tenant_id, terms.wallet).payment_method:
            raise BadAutoTopup("nothing to pay with is kept: first a checkout with save_payment_method has to be paid")
        if not 0 <= terms.below_nano < MAX_NANO:
            raise BadAutoTopup("the threshold is zero or more")
    return _record(connection, tenant_id, terms, author, reason, at_ns)


def disable(connection: Connection, tenant_id: int, wallet: str, reason: str, at_ns: int) -> None:
    """Top a wallet up no more, because of a failure; the reason is kept for people to see."""
    row = auto_topup(connection, tenant_id, wallet)
    if row is None or not row.enabled:
        return
    terms = AutoTerms(wallet, False, row.pack, row.below_nano, row.currency, row.month_cap_minor)
    _record(connection, tenant_id, terms, FAREBOX, reason[:500], at_ns)


def auto_topup(connection: Connection, tenant_id: int, wallet: str) -> Row[Any] | None:
    """What holds for a wallet; None where nobody ever said anything."""
    columns = auto_topups.c
    query = select(auto_topups).where(columns.tenant_id == tenant_id, columns.wallet == wallet)
    return connection.execute(query.order_by(columns.id.desc()).limit(1)).first()


def wallets_below(connection: Connection, tenant_id: int, limit: int) -> Sequence[Row[Any]]:
    """Terms of the wallets whose balance is too low and that have no top-up in flight."""
    columns, account, topup = auto_topups.c, accounts.c, topups.c
    newest = select(func.max(columns.id)).where(columns.tenant_id == tenant_id).group_by(columns.wallet)
    in_flight = select(topup.id).where(
        topup.tenant_id == columns.tenant_id,
        topup.wallet == columns.wallet,
        topup.automatic == 1,
        topup.state == TopupState.OPEN,
    )
    query = (
        select(auto_topups)
        .join(accounts, (account.tenant_id == columns.tenant_id) & (account.name == columns.wallet))
        .where(columns.id.in_(newest), columns.enabled == 1, account.kind == WALLET)
        .where(account.balance_nano < columns.below_nano, ~in_flight.exists())
    )
    return connection.execute(query.order_by(columns.id).limit(limit)).all()


def in_flight(connection: Connection, tenant_id: int, limit: int) -> list[Due]:
    """Automatic top-ups that are neither paid nor failed, oldest first, with what they are paid with."""
    columns = topups.c
    query = select(topups).where(
        columns.tenant_id == tenant_id, columns.automatic == 1, columns.state == TopupState.OPEN
    )
    rows = connection.execute(query.order_by(columns.id).limit(limit)).all()
    # As of the order: under one idempotency key Stripe takes one request, also after the customer has a new card.
    return [Due(row, payment_method(connection, tenant_id, row.wallet, row.created_at_ns)) for row in rows]


def standing(connection: Connection) -> dict[str, int]:
    """Wallets of all tenants that are topped up (`on`), or no more because a payment failed (`failed`)."""
    columns = auto_topups.c
    newest = select(func.max(columns.id)).group_by(columns.tenant_id, columns.wallet)
    count = func.count()
    query = select(columns.enabled, count).where(columns.id.in_(newest))
    query = query.where((columns.enabled == 1) | (columns.author == FAREBOX)).group_by(columns.enabled)
    return {"on" if enabled else "failed": int(wallets) for enabled, wallets in connection.execute(query)}


def order_automatic(
    connection: Connection, tenant_id: int, terms: Row[Any], key: str, livemode: bool, at_ns: int
) -> bool:
    """Order what a wallet's terms say; False where that is in flight already or over the month's cap.

    Switches the automatic off where it can no longer be paid. Raises NoExchangeRate.
    """
    pack = pack_in_force(connection, tenant_id, terms.pack)
    if pack is None or pack.currency != terms.currency:
        disable(connection, tenant_id, terms.wallet, f"the pack {terms.pack} is no longer sold in that currency", at_ns)
        return False
    spent = spent_this_month(connection, tenant_id, terms.wallet, terms.currency, at_ns)
    if spent + pack.amount_minor > terms.month_cap_minor:
        return False
    return (
        order(connection, tenant_id, Order(key, f"automatic {key}", terms.wallet, pack, livemode, True), at_ns)
        is not None
    )


def spent_this_month(connection: Connection, tenant_id: int, wallet: str, currency: str, at_ns: int) -> int:
    """What automatic top-ups cost a wallet since the UTC month began, those in flight among them, in minor units."""
    columns = topups.c
    today = datetime.fromtimestamp(at_ns // 10**9, UTC)
    start_ns = to_ns(today.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    amount = connection.execute(
        select(func.coalesce(func.sum(columns.amount_minor), 0)).where(
            columns.tenant_id == tenant_id,
            columns.wallet == wallet,
            columns.automatic == 1,
            columns.currency == currency,
            columns.created_at_ns >= start_ns,
            columns.state.in_((TopupState.OPEN, TopupState.PAID)),
        )
    ).scalar_one()
    return int(amount)


def _record(connection: Connection, tenant_id: int, terms: AutoTerms, author: str, reason: str, at_ns: int) -> int:
    values = terms._asdict() | {"enabled": int(terms.enabled)}
    earlier = auto_topup(connection, tenant_id, terms.wallet)
    row = insert(auto_topups).values(tenant_id=tenant_id, author=author, reason=reason, recorded_at_ns=at_ns, **values)
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    before = None if earlier is None else {name: getattr(earlier, name) for name in AutoTerms._fields}
    after = {**values, "author": author, "reason": reason, "version": int(key[0])}
    note(connection, tenant_id, "auto_topup.set", terms.wallet, at_ns, before=before, after=after)
    return int(key[0])
