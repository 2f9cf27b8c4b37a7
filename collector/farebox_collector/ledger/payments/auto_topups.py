"""Automatic top-ups: a wallet below its threshold buys a pack with the saved payment method of its customer.

Settings are append-only; the newest version of a wallet is in force. A unique index allows one top-up in flight for
each wallet. The cost of a UTC month is capped: top-ups paid in the month plus those in flight.

Wallets and top-ups in flight take turns, least recently checked first, so that a blocked one does not delay others. A
blocked wallet is set aside with a reason, and counted.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.payments.packs import pack_in_force
from farebox_collector.ledger.payments.topups import (
    Order,
    PaymentMethod,
    TopupState,
    order,
    payment_method,
)
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.payments import auto_topup_turns, auto_topups, topups
from farebox_collector.model.moments import to_ns
from farebox_collector.model.money import MAX_NANO, NANO

FAREBOX = "farebox"
"""Author of a version that Farebox wrote: switched off after a failed payment, or paused after a returned one."""
AT_CAP, IN_FLIGHT = "month_cap", "in_flight"
"""Reasons why a wallet below its threshold gets no order."""
_AGAIN_NS = 3_600 * 10**9
"""How long a wallet at its cap is set aside; packs and prices may change meanwhile."""
_TURN = ("tenant_id", "wallet", "looked_at_ns", "reason", "until_ns")


class AutoTerms(NamedTuple):
    """Terms of an automatic top-up: threshold, pack, and cap for a UTC month."""

    wallet: str
    enabled: bool
    pack: str
    below_nano: int
    """A balance below this triggers a top-up."""
    currency: str
    month_cap_minor: int


class BadAutoTopup(ValueError):
    """The terms are invalid; the message states the rule."""


class Due(NamedTuple):
    """An automatic top-up to pay."""

    topup: Row[Any]
    method: PaymentMethod


def set_auto_topup(
    connection: Connection, tenant_id: int, terms: AutoTerms, author: str, reason: str, at_ns: int
) -> int:
    """Set the terms of a wallet from now on; returns the version. Raises BadAutoTopup."""
    if is_erased(connection, tenant_id, terms.wallet):
        raise BadAutoTopup(ERASED)
    if terms.enabled:
        pack = pack_in_force(connection, tenant_id, terms.pack)
        if pack is None:
            raise BadAutoTopup(f"there is no pack {terms.pack!r}")
        if terms.currency != pack.currency or terms.month_cap_minor < pack.amount_minor:
            raise BadAutoTopup("the monthly cap must be in the pack's currency and cover at least one pack")
        if not payment_method(connection, tenant_id, terms.wallet).payment_method:
            raise BadAutoTopup("no payment method is saved: have a checkout with save_payment_method paid first")
        if not 0 <= terms.below_nano < MAX_NANO:
            raise BadAutoTopup(f"the threshold must be 0 to {MAX_NANO // NANO:,} credits")
    number = _record(connection, tenant_id, terms, author, reason, at_ns)
    # The reason for setting the wallet aside may no longer apply.
    _note_turn(connection, tenant_id, terms.wallet, 0, "", 0)
    return number


def pause(connection: Connection, tenant_id: int, wallet: str, reason: str, at_ns: int) -> bool:
    """Pause automatic top-ups after a returned payment, until resumed. Returns False if they are off already."""
    return _switch_off(connection, tenant_id, wallet, reason, at_ns, paused=True)


def resume(connection: Connection, tenant_id: int, wallet: str, author: str, reason: str, at_ns: int) -> int:
    """Resume automatic top-ups on the earlier terms; returns the version. Raises BadAutoTopup."""
    row = auto_topup(connection, tenant_id, wallet)
    if row is None or row.enabled or row.author != FAREBOX:
        raise BadAutoTopup(f"nothing to resume: Farebox did not switch off the automatic top-up of {wallet!r}")
    terms = AutoTerms(wallet, True, row.pack, row.below_nano, row.currency, row.month_cap_minor)
    return set_auto_topup(connection, tenant_id, terms, author, reason, at_ns)


def disable(connection: Connection, tenant_id: int, wallet: str, reason: str, at_ns: int) -> None:
    """Switch automatic top-ups off after a failure; stores the reason."""
    _switch_off(connection, tenant_id, wallet, reason, at_ns, paused=False)


def _switch_off(connection: Connection, tenant_id: int, wallet: str, reason: str, at_ns: int, *, paused: bool) -> bool:
    row = auto_topup(connection, tenant_id, wallet)
    if row is None or not row.enabled:
        return False
    terms = AutoTerms(wallet, False, row.pack, row.below_nano, row.currency, row.month_cap_minor)
    _record(connection, tenant_id, terms, FAREBOX, reason[:500], at_ns, paused=paused)
    return True


def auto_topup(connection: Connection, tenant_id: int, wallet: str) -> Row[Any] | None:
    """Return the version in force for a wallet; None if none was ever set."""
    columns = auto_topups.c
    query = select(auto_topups).where(columns.tenant_id == tenant_id, columns.wallet == wallet)
    return connection.execute(query.order_by(columns.id.desc()).limit(1)).first()


def wallets_below(connection: Connection, tenant_id: int, limit: int, at_ns: int | None = None) -> Sequence[Row[Any]]:
    """Return terms of wallets below their threshold without a top-up in flight, least recently checked first.

    With `at_ns`, wallets set aside until later are left out.
    """
    columns, account, topup, turn = auto_topups.c, accounts.c, topups.c, auto_topup_turns.c
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
        .outerjoin(auto_topup_turns, (turn.tenant_id == columns.tenant_id) & (turn.wallet == columns.wallet))
        .where(columns.id.in_(newest), columns.enabled == 1, account.kind == WALLET)
        .where(account.balance_nano < columns.below_nano, ~in_flight.exists())
    )
    if at_ns is not None:
        query = query.where(func.coalesce(turn.until_ns, 0) <= at_ns)
    return connection.execute(query.order_by(func.coalesce(turn.looked_at_ns, 0), columns.id).limit(limit)).all()


def in_flight(connection: Connection, tenant_id: int, limit: int) -> list[Due]:
    """Return open automatic top-ups with their payment methods, least recently requested first."""
    columns = topups.c
    query = select(topups).where(
        columns.tenant_id == tenant_id, columns.automatic == 1, columns.state == TopupState.OPEN
    )
    rows = connection.execute(query.order_by(columns.asked_at_ns, columns.id).limit(limit)).all()
    # The method as of the order: Stripe accepts one request for an idempotency key, even after a change of card.
    return [Due(row, payment_method(connection, tenant_id, row.wallet, row.created_at_ns)) for row in rows]


def note_asked(connection: Connection, topup: Row[Any], at_ns: int) -> None:
    """Store when the payment provider was last asked about a top-up; others come before it next time."""
    row = update(topups).where(topups.c.tenant_id == topup.tenant_id, topups.c.id == topup.id)
    connection.execute(row.values(asked_at_ns=at_ns))


def set_aside(connection: Connection) -> dict[str, int]:
    """Count the blocked automatic top-ups of all tenants, by reason."""
    columns, account, turn = auto_topups.c, accounts.c, auto_topup_turns.c
    newest = select(func.max(columns.id)).group_by(columns.tenant_id, columns.wallet)
    query = (
        select(turn.reason, func.count())
        .join(auto_topups, (columns.tenant_id == turn.tenant_id) & (columns.wallet == turn.wallet))
        .join(accounts, (account.tenant_id == turn.tenant_id) & (account.name == turn.wallet))
        .where(turn.reason != "", columns.id.in_(newest), columns.enabled == 1, account.kind == WALLET)
        .where(account.balance_nano < columns.below_nano)
    )
    counts = {reason: int(count) for reason, count in connection.execute(query.group_by(turn.reason))}
    waiting = select(func.count()).where(
        topups.c.automatic == 1, topups.c.state == TopupState.OPEN, topups.c.asked_at_ns > 0
    )
    return {AT_CAP: 0} | counts | {"processing": int(connection.execute(waiting).scalar_one())}


def standing(connection: Connection) -> dict[str, int]:
    """Count wallets of all tenants by state: `on`, `failed` (a payment failed) or `paused` (a payment was returned)."""
    columns = auto_topups.c
    newest = select(func.max(columns.id)).group_by(columns.tenant_id, columns.wallet)
    count = func.count()
    query = select(columns.enabled, columns.paused, count).where(columns.id.in_(newest))
    query = query.where((columns.enabled == 1) | (columns.author == FAREBOX)).group_by(columns.enabled, columns.paused)
    states = {(1, 0): "on", (0, 0): "failed", (0, 1): "paused"}
    return {states[enabled, paused]: int(wallets) for enabled, paused, wallets in connection.execute(query)}


def order_automatic(
    connection: Connection, tenant_id: int, terms: Row[Any], key: str, livemode: bool, at_ns: int
) -> bool:
    """Order the pack of a wallet's terms; False if one is in flight already or the monthly cap would be exceeded.

    Switches automatic top-ups off if the pack is no longer sold in the currency. Raises NoExchangeRate.
    """
    wallet = terms.wallet
    pack = pack_in_force(connection, tenant_id, terms.pack)
    if pack is None or pack.currency != terms.currency:
        disable(connection, tenant_id, wallet, f"the pack {terms.pack} is no longer sold in that currency", at_ns)
        return False
    spent = spent_this_month(connection, tenant_id, wallet, terms.currency, at_ns)
    if spent + pack.amount_minor > terms.month_cap_minor:
        _note_turn(connection, tenant_id, wallet, at_ns, AT_CAP, min(_month(at_ns)[1], at_ns + _AGAIN_NS))
        return False
    wanted = Order(key, f"automatic {key}", wallet, pack, livemode, True)
    ordered = order(connection, tenant_id, wanted, at_ns) is not None
    _note_turn(connection, tenant_id, wallet, at_ns, "" if ordered else IN_FLIGHT, 0)
    return ordered


def spent_this_month(connection: Connection, tenant_id: int, wallet: str, currency: str, at_ns: int) -> int:
    """Return what automatic top-ups cost a wallet in the UTC month of a moment, in minor units of one currency.

    Counts top-ups paid in the month, by the time of payment, and those in flight, which may be paid in it.
    """
    columns = topups.c
    start_ns, end_ns = _month(at_ns)
    paid = and_(columns.state == TopupState.PAID, columns.paid_at_ns >= start_ns, columns.paid_at_ns < end_ns)
    amount = connection.execute(
        select(func.coalesce(func.sum(columns.amount_minor), 0)).where(
            columns.tenant_id == tenant_id,
            columns.wallet == wallet,
            columns.automatic == 1,
            columns.currency == currency,
            or_(paid, columns.state == TopupState.OPEN),
        )
    ).scalar_one()
    return int(amount)


def _month(at_ns: int) -> tuple[int, int]:
    """Return the begin of a moment's UTC month and of the next one."""
    start = datetime.fromtimestamp(at_ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return to_ns(start), to_ns((start + timedelta(days=32)).replace(day=1))


def _note_turn(
    connection: Connection, tenant_id: int, wallet: str, looked_at_ns: int, reason: str, until_ns: int
) -> None:
    values = {"looked_at_ns": looked_at_ns, "reason": reason, "until_ns": until_ns}
    columns = auto_topup_turns.c
    bulk_insert.insert_ignoring_conflicts(
        connection,
        auto_topup_turns.name,
        _TURN,
        [(tenant_id, wallet, looked_at_ns, reason, until_ns)],
        on=("tenant_id", "wallet"),
    )
    row = update(auto_topup_turns).where(columns.tenant_id == tenant_id, columns.wallet == wallet)
    connection.execute(row.values(values))


def _record(
    connection: Connection,
    tenant_id: int,
    terms: AutoTerms,
    author: str,
    reason: str,
    at_ns: int,
    *,
    paused: bool = False,
) -> int:
    values = terms._asdict() | {"enabled": int(terms.enabled), "paused": int(paused)}
    earlier = auto_topup(connection, tenant_id, terms.wallet)
    row = insert(auto_topups).values(tenant_id=tenant_id, author=author, reason=reason, recorded_at_ns=at_ns, **values)
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    before = None if earlier is None else {name: getattr(earlier, name) for name in AutoTerms._fields}
    after = {**values, "author": author, "reason": reason, "version": int(key[0])}
    note(connection, tenant_id, "auto_topup.set", terms.wallet, at_ns, before=before, after=after)
    return int(key[0])
