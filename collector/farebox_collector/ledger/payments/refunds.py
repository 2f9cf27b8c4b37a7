"""Refunds and disputes: after each report on a payment, recompute how much of it must be taken back.

That is the share of min(all standing returns, amount paid), in any order of reports. Only the difference to what is
already out is posted, in either direction. `returned_credits` chooses the credits of the wallet.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from sqlalchemy import Connection, Row, select, update

from farebox_collector.ledger.access import audit_log
from farebox_collector.ledger.credits.lots import REFUNDED_ACCOUNT, WalletLots, summed
from farebox_collector.ledger.credits.movements import GIVEN_BACK, RECEIPTS_ACCOUNT
from farebox_collector.ledger.credits.returned_credits import Due, due_of
from farebox_collector.ledger.journal.journal import Leg, begin
from farebox_collector.ledger.payments.payment_facts import Returned
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.locks import PAYMENTS, lock_stripes
from farebox_collector.ledger.tables.credits import lot_moves, lots
from farebox_collector.ledger.tables.payments import payment_returns, topups

__all__ = ["REFUNDED_ACCOUNT"]

REFUND, DISPUTE = "refund", "dispute"
UNDONE = {REFUND: "refund_failed", DISPUTE: "dispute_won"}
"""Kind of a return → kind of the transaction that gives its credits back to the wallet."""

UNKNOWN_PAYMENT = "its payment is not known"
OTHER_CURRENCY = "it is in another currency than its payment"
MORE_THAN_PAID = "it is more than was paid"
_MOST_IDS = 500


def note(connection: Connection, tenant_id: int, fact: Returned, at_ns: int) -> bool:
    """Store the progress of a return; False if the same or more progress was known.

    Of two facts, more progress wins, then the later report, then the larger amount; the order of arrival does not
    matter.
    """
    columns = payment_returns.c
    made_ns = fact.made_at_ns or fact.created_at_ns
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "return_id": fact.return_id,
        "kind": fact.kind,
        "payment_intent": fact.payment_intent,
        "currency": fact.currency,
        "amount_minor": fact.amount_minor,
        "progress": -1,
        "told_at_ns": 0,
        "wanted": 0,
        "unmatched": "",
        "created_at_ns": made_ns,
        "recorded_at_ns": at_ns,
    }
    bulk_insert.insert_ignoring_conflicts(
        connection, "payment_returns", tuple(values), [tuple(values.values())], on=("tenant_id", "return_id")
    )
    this = (columns.tenant_id == tenant_id, columns.return_id == fact.return_id)
    known = connection.execute(select(payment_returns).where(*this).with_for_update()).one()
    change: dict[str, Any] = {}
    if made_ns < known.created_at_ns:
        change["created_at_ns"] = made_ns
    reported = (fact.progress, fact.created_at_ns, fact.amount_minor, int(fact.taken))
    new = reported > (known.progress, known.told_at_ns, known.amount_minor, known.wanted)
    if new:
        names = ("progress", "told_at_ns", "amount_minor", "wanted")
        change |= dict(zip(names, reported, strict=True))
    if change:
        connection.execute(update(payment_returns).where(*this).values(change))
    return bool(change)


def settle(connection: Connection, topup: Row[Any], cause: str, return_id: str, at_ns: int) -> bool:
    """Post the difference between what must be out of a paid top-up and what is; False if there is none.

    `cause` is the kind of the return; it names the kind of the transaction.
    """
    # Locks the wallet: figures read from here on do not change.
    wallet = WalletLots(connection, topup.tenant_id, topup.wallet, at_ns)
    returns = returns_of(connection, topup)
    due = due_of(topup, returns, manual_returns(connection, topup))
    _mark(connection, topup, returns)
    lot = wallet.lot(topup.lot_id)
    before = lot.out
    legs = wallet.put_out(lot, due.out_nano)
    back = due.back_nanousd - topup.back_nanousd
    legs = summed([*legs, Leg(RECEIPTS_ACCOUNT, -back), Leg(REFUNDED_ACCOUNT, back)])
    if legs:
        less = (due.out_nano, due.back_nanousd) < (before, topup.back_nanousd)
        kind = UNDONE[cause] if less else cause
        transaction = begin(connection, topup.tenant_id, kind, at_ns, f"{kind} {return_id} of top-up {topup.key}")
        transaction.post(legs, active=frozenset({topup.wallet}))
        after = {"return_id": return_id, "topup": topup.key, **due._asdict()}
        audit_log.note(connection, topup.tenant_id, f"payment.{kind}", topup.wallet, at_ns, after=after)
    wallet.close()
    row = update(topups).where(topups.c.tenant_id == topup.tenant_id, topups.c.id == topup.id)
    connection.execute(row.values(returned_minor=due.returned_minor, back_nanousd=due.back_nanousd))
    return bool(legs)


def carried_over(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """Return top-ups whose returns an older version booked in the order of events, and that are not recomputed yet."""
    return connection.execute(select(topups).where(topups.c.returned_minor < 0).limit(limit)).all()


def settle_carried(connection: Connection, topup: Row[Any], at_ns: int) -> bool:
    """Settle a top-up whose returns an older version booked."""
    lock_stripes(connection, PAYMENTS, [crc32(topup.payment_intent.encode())])
    now = connection.execute(select(topups).where(topups.c.id == topup.id)).one()
    returns = returns_of(connection, now)
    return bool(now.returned_minor < 0 and settle(connection, now, returns[0].kind, returns[0].return_id, at_ns))


def returns_of(connection: Connection, topup: Row[Any]) -> Sequence[Row[Any]]:
    """Return every refund and dispute of a top-up's payment, in the order of creation."""
    columns = payment_returns.c
    query = select(payment_returns).where(
        columns.tenant_id == topup.tenant_id, columns.payment_intent == topup.payment_intent
    )
    return connection.execute(query.order_by(columns.created_at_ns, columns.return_id)).all()


def manual_returns(connection: Connection, topup: Row[Any]) -> Sequence[Row[Any]]:
    """Return the manual refunds and withdrawals from a top-up's lot."""
    move = lot_moves.c
    query = select(lot_moves).where(
        move.tenant_id == topup.tenant_id, move.lot_id == topup.lot_id, move.kind.in_(GIVEN_BACK)
    )
    return connection.execute(query.order_by(move.id)).all()


def due_now(connection: Connection, topup: Row[Any]) -> Due:
    """Return what must be out of a paid top-up, from its stored returns."""
    return due_of(topup, returns_of(connection, topup), manual_returns(connection, topup))


def out_now(connection: Connection, topup: Row[Any]) -> Due:
    """Return what is out of a paid top-up now."""
    query = select(lots.c.out_nano).where(lots.c.tenant_id == topup.tenant_id, lots.c.id == topup.lot_id)
    return Due(topup.returned_minor, int(connection.execute(query).scalar() or 0), topup.back_nanousd)


def returns_between(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> Sequence[Row[Any]]:
    """Return standing refunds and disputes made in [start, end) whose payment is known."""
    columns = payment_returns.c
    made = (columns.created_at_ns >= start_ns, columns.created_at_ns < end_ns)
    return connection.execute(_standing(tenant_id).where(*made).order_by(columns.id)).all()


def taken_returns(connection: Connection, tenant_id: int, return_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return those of some refunds and disputes that stand and whose payment is known."""
    rows: list[Row[Any]] = []
    for start in range(0, len(return_ids), _MOST_IDS):
        some = payment_returns.c.return_id.in_(return_ids[start : start + _MOST_IDS])
        rows += connection.execute(_standing(tenant_id).where(some))
    return rows


def topups_with_returns(connection: Connection, batch: int = 500) -> Iterator[Row[Any]]:
    """Yield every paid top-up with a reported return, of every tenant."""
    column = topups.c
    reported = select(payment_returns.c.id).where(
        payment_returns.c.tenant_id == column.tenant_id, payment_returns.c.payment_intent == column.payment_intent
    )
    concerned = (column.lot_id.is_not(None), column.second_of_payment == 0, column.payment_intent != "")
    after = 0
    while True:
        query = select(topups).where(*concerned, column.id > after, reported.exists() | (column.back_nanousd != 0))
        rows = connection.execute(query.order_by(column.id).limit(batch)).all()
        yield from rows
        if len(rows) < batch:
            return
        after = rows[-1].id


def _standing(tenant_id: int) -> Any:
    columns = payment_returns.c
    known = select(topups.c.id).where(
        topups.c.tenant_id == columns.tenant_id,
        topups.c.payment_intent == columns.payment_intent,
        topups.c.currency == columns.currency,
        topups.c.lot_id.is_not(None),
    )
    return select(payment_returns).where(columns.tenant_id == tenant_id, columns.wanted == 1, known.exists())


def return_by_id(connection: Connection, tenant_id: int, return_id: str) -> Row[Any]:
    """Return a stored refund or dispute."""
    columns = payment_returns.c
    query = select(payment_returns).where(columns.tenant_id == tenant_id, columns.return_id == return_id)
    return connection.execute(query).one()


def wait_for_payment(connection: Connection, row: Row[Any]) -> None:
    """Keep a return until its payment is known; a standing one counts as unmatched."""
    _write_reason(connection, row.tenant_id, row.return_id, UNKNOWN_PAYMENT if row.wanted else "")


def _write_reason(connection: Connection, tenant_id: int, return_id: str, reason: str) -> None:
    columns = payment_returns.c
    row = update(payment_returns).where(
        columns.tenant_id == tenant_id, columns.return_id == return_id, columns.unmatched != reason
    )
    connection.execute(row.values(unmatched=reason))


def _mark(connection: Connection, topup: Row[Any], returns: Sequence[Row[Any]]) -> None:
    left_minor = topup.amount_minor
    for row in returns:
        reason = ""
        if row.currency != topup.currency:
            reason = OTHER_CURRENCY
        elif row.wanted:
            # In the order of creation, not of reports.
            reason = MORE_THAN_PAID if row.amount_minor > left_minor else ""
            left_minor = max(left_minor - row.amount_minor, 0)
        _write_reason(connection, topup.tenant_id, row.return_id, reason if row.wanted else "")
