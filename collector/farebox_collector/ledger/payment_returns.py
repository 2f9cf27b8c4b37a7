"""Refunds and disputes: credits of a top-up go back with their money, or come again where it does.

What went back takes its share of the top-up's credits: first those that its lot still has; those that had expired are
gone already; those that were used become the wallet's debt, drawn like usage. Two returns of one payment take no more
than its credits together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from farebox_collector.ledger import bulk
from farebox_collector.ledger.access import audit_log
from farebox_collector.ledger.credit_tables import lots
from farebox_collector.ledger.days import DAY_NS
from farebox_collector.ledger.journal import ISSUED_ACCOUNT, Account, Leg, open_transaction, post, wallet_account
from farebox_collector.ledger.lots import DEFERRED_ACCOUNT, NewLot, WalletLots
from farebox_collector.ledger.movements import RECEIPTS_ACCOUNT, Kind
from farebox_collector.ledger.payment_facts import Returned
from farebox_collector.ledger.payment_tables import payment_returns
from farebox_collector.money import Commodity, round_half_even

REFUNDED_ACCOUNT = Account("refunded", "", Commodity.USD)
"""What went back of the price of credits that were used or had expired: revenue, or breakage, that was not to be."""

REFUND, DISPUTE = "refund", "dispute"
GIVEN_BACK = {REFUND: "refund_failed", DISPUTE: "dispute_won"}
"""What the ledger calls it when the credits come again."""
_MOST_IDS = 500
_EFFECT = ("lot_nano", "expired_nano", "debt_nano", "back_nanousd", "deferred_nanousd")


class _Effect(NamedTuple):
    """What a return did to the books."""

    lot_nano: int
    expired_nano: int
    debt_nano: int
    back_nanousd: int
    deferred_nanousd: int


def note(connection: Connection, tenant_id: int, fact: Returned, at_ns: int) -> bool:
    """Write down how far a return has come; False where that much, or more, was known."""
    columns = payment_returns.c
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "return_id": fact.return_id,
        "kind": fact.kind,
        "payment_intent": fact.payment_intent,
        "currency": fact.currency,
        "amount_minor": fact.amount_minor,
        "progress": -1,
        **dict.fromkeys(("wanted", "taken", *_EFFECT), 0),
        "created_at_ns": fact.created_at_ns,
        "recorded_at_ns": at_ns,
    }
    bulk.insert_ignoring_conflicts(
        connection, "payment_returns", tuple(values), [tuple(values.values())], on=("tenant_id", "return_id")
    )
    row = update(payment_returns).where(
        columns.tenant_id == tenant_id, columns.return_id == fact.return_id, columns.progress < fact.progress
    )
    # The money moves when the top-up is known; `wanted` says whether it should have moved.
    wanted = {"progress": fact.progress, "wanted": int(fact.taken), "amount_minor": fact.amount_minor}
    return bool(connection.execute(row.values(wanted)).rowcount)


def settle(connection: Connection, topup: Row[Any], at_ns: int) -> int:
    """Let credits follow the money of every return of a paid top-up; returns how many of them moved any.

    Returns in another currency than the top-up's are left alone.
    """
    columns = payment_returns.c
    of_topup = (columns.tenant_id == topup.tenant_id, columns.payment_intent == topup.payment_intent)
    due = connection.execute(
        select(payment_returns)
        .where(*of_topup, columns.currency == topup.currency, columns.wanted != columns.taken)
        .order_by(columns.taken.desc(), columns.id)
    ).all()
    for row in due:
        effect = _take(connection, topup, row, at_ns) if row.wanted else _give_back(connection, topup, row, at_ns)
        change = update(payment_returns).where(columns.id == row.id)
        connection.execute(change.values(taken=row.wanted, topup_id=topup.id, **effect._asdict()))
        after = {"return_id": row.return_id, "topup": topup.key, "taken": bool(row.wanted), **effect._asdict()}
        audit_log.note(connection, topup.tenant_id, f"payment.{row.kind}", topup.wallet, at_ns, after=after)
    return len(due)


def returns_between(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> Sequence[Row[Any]]:
    """Refunds and disputes made in [start, end) whose credits are out of their wallets."""
    columns = payment_returns.c
    made = (columns.tenant_id == tenant_id, columns.created_at_ns >= start_ns, columns.created_at_ns < end_ns)
    return connection.execute(select(payment_returns).where(*made, columns.taken == 1).order_by(columns.id)).all()


def taken_returns(connection: Connection, tenant_id: int, return_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Those of some refunds and disputes whose credits are out of their wallets."""
    columns = payment_returns.c
    rows: list[Row[Any]] = []
    for start in range(0, len(return_ids), _MOST_IDS):
        some = columns.return_id.in_(return_ids[start : start + _MOST_IDS])
        query = select(payment_returns).where(columns.tenant_id == tenant_id, columns.taken == 1, some)
        rows += connection.execute(query)
    return rows


def _take(connection: Connection, topup: Row[Any], row: Row[Any], at_ns: int) -> _Effect:
    before = _taken_before(connection, topup)
    returned_minor = min(before["amount_minor"] + row.amount_minor, topup.amount_minor)
    due = round_half_even(topup.amount_nano * returned_minor, topup.amount_minor)
    credits = max(due - before["lot_nano"] - before["expired_nano"] - before["debt_nano"], 0)
    price = round_half_even(topup.price_nanousd * returned_minor, topup.amount_minor)
    back = max(price - before["back_nanousd"], 0)

    wallet = WalletLots(connection, topup.tenant_id, topup.wallet, at_ns)
    from_lot = min(wallet.left_of(topup.lot_id) or 0, credits)
    deferred = sum(part for _, _, part in wallet.take(from_lot, row.kind, topup.lot_id)) if from_lot else 0
    expired = min(max(wallet.expired_of(topup.lot_id) - before["expired_nano"], 0), credits - from_lot)
    debt = credits - from_lot - expired
    if debt:
        wallet.use(debt)
    gone = from_lot + debt
    legs = [Leg(wallet_account(topup.wallet), -gone), Leg(ISSUED_ACCOUNT, gone)]
    legs += [Leg(DEFERRED_ACCOUNT, deferred), Leg(RECEIPTS_ACCOUNT, -back), Leg(REFUNDED_ACCOUNT, back - deferred)]
    _post(connection, topup, row.kind, f"{row.kind} {row.return_id} of top-up {topup.key}", legs, at_ns)
    wallet.close()
    return _Effect(from_lot, expired, debt, back, deferred)


def _give_back(connection: Connection, topup: Row[Any], row: Row[Any], at_ns: int) -> _Effect:
    credits = row.lot_nano + row.debt_nano
    wallet = WalletLots(connection, topup.tenant_id, topup.wallet, at_ns)
    kind = GIVEN_BACK[row.kind]
    transaction_id = open_transaction(
        connection, topup.tenant_id, kind, at_ns, f"{kind} {row.return_id} of top-up {topup.key}"
    )
    if credits:
        ends_ns = _expiry(connection, topup, at_ns)
        lot = NewLot(Kind.TOPUP, credits, row.deferred_nanousd, expires_at_ns=ends_ns)
        wallet.add(lot, transaction_id)
    deferred, back = row.deferred_nanousd, row.back_nanousd
    legs = [Leg(wallet_account(topup.wallet), credits), Leg(ISSUED_ACCOUNT, -credits)]
    legs += [Leg(DEFERRED_ACCOUNT, -deferred), Leg(RECEIPTS_ACCOUNT, back), Leg(REFUNDED_ACCOUNT, deferred - back)]
    _write(connection, topup, transaction_id, legs, at_ns)
    wallet.close()
    return _Effect(0, 0, 0, 0, 0)


def _expiry(connection: Connection, topup: Row[Any], at_ns: int) -> int | None:
    """When credits that come again expire: with those of their lot, or anew where that is over."""
    ends_ns = connection.execute(select(lots.c.expires_at_ns).where(lots.c.id == topup.lot_id)).scalar()
    return ends_ns if ends_ns is None or ends_ns > at_ns else at_ns + topup.expires_days * DAY_NS


def _taken_before(connection: Connection, topup: Row[Any]) -> dict[str, int]:
    columns = payment_returns.c
    names = ("amount_minor", *_EFFECT)
    sums = (func.coalesce(func.sum(columns[name]), 0).label(name) for name in names)
    found = connection.execute(select(*sums).where(columns.topup_id == topup.id, columns.taken == 1)).one()
    return {name: int(value) for name, value in found._mapping.items()}


def _post(connection: Connection, topup: Row[Any], kind: str, memo: str, legs: list[Leg], at_ns: int) -> None:
    _write(connection, topup, open_transaction(connection, topup.tenant_id, kind, at_ns, memo), legs, at_ns)


def _write(connection: Connection, topup: Row[Any], transaction_id: int, legs: list[Leg], at_ns: int) -> None:
    moving = [leg for leg in legs if leg.amount_nano]
    post(connection, topup.tenant_id, transaction_id, at_ns, moving, active=frozenset({topup.wallet}))
