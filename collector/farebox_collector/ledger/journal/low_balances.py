"""Low balances: thresholds per wallet, and messages in the transaction that makes a balance fall below one.

A balance changes under the lock of its account, so exactly one transaction sees each fall, on any number of replicas.
A balance that rises and falls again is another fall.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.journal.outbox import Message, enqueue
from farebox_collector.ledger.tables.outbox import balance_thresholds
from farebox_collector.model.money import MAX_SUM_NANO, format_nano

EACH = "*"
MOST_BOUNDS = 10
"""Most thresholds of one wallet."""
BALANCE_LOW = "wallet.balance_low"
_WALLETS_AT_ONCE = 500


class BadThreshold(ValueError):
    """A threshold that is not allowed; the message gives the reason."""


class Fall(NamedTuple):
    """A wallet's balance before and after a transaction took from it."""

    wallet: str
    before_nano: int
    after_nano: int


def set_thresholds(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    bounds_nano: Iterable[int],
    author: str,
    reason: str,
    at_ns: int,
) -> int:
    """Send a message whenever a wallet's balance falls below one of these; an empty list ends it. Returns the version.

    `*` applies to each wallet without its own thresholds. Raises BadThreshold.
    """
    bounds = sorted(set(bounds_nano), reverse=True)
    if len(bounds) > MOST_BOUNDS:
        raise BadThreshold(f"a wallet can have at most {MOST_BOUNDS} thresholds")
    if not wallet or any(not -MAX_SUM_NANO <= bound <= MAX_SUM_NANO for bound in bounds):
        raise BadThreshold("a threshold must be a balance that fits the books")
    if is_erased(connection, tenant_id, wallet):
        raise BadThreshold(ERASED)
    earlier = thresholds_history(connection, tenant_id, wallet, 1)
    row = insert(balance_thresholds).values(
        tenant_id=tenant_id,
        wallet=wallet,
        bounds=json.dumps(bounds),
        author=author,
        reason=reason,
        recorded_at_ns=at_ns,
    )
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    before = {"bounds_nano": bounds_of(earlier[0])} if earlier else None
    after = {"bounds_nano": bounds, "author": author, "reason": reason, "version": int(key[0])}
    note(connection, tenant_id, "thresholds.set", wallet, at_ns, before=before, after=after)
    return int(key[0])


def notify_falls(
    connection: Connection, tenant_id: int, transaction_id: int, falls: Sequence[Fall], at_ns: int
) -> None:
    """Put messages for crossed thresholds into the outbox. Call it in the transaction that posts the debits."""
    messages = []
    for start in range(0, len(falls), _WALLETS_AT_ONCE):
        chunk = falls[start : start + _WALLETS_AT_ONCE]
        bounds = _bounds(connection, tenant_id, [fall.wallet for fall in chunk])
        for fall in chunk:
            of_wallet = bounds.get(fall.wallet, bounds.get(EACH, ()))
            crossed = [bound for bound in of_wallet if fall.after_nano < bound <= fall.before_nano]
            messages += [_message(transaction_id, fall, bound) for bound in crossed]
    if messages:
        enqueue(connection, tenant_id, messages, at_ns)


def _message(transaction_id: int, fall: Fall, bound: int) -> Message:
    data = {
        "wallet": fall.wallet,
        "threshold_credits": format_nano(bound),
        "balance_credits": format_nano(fall.after_nano),
        "transaction_id": transaction_id,
    }
    return Message(BALANCE_LOW, f"{transaction_id}/{bound}/{fall.wallet}", data)


def _bounds(connection: Connection, tenant_id: int, wallets: Sequence[str]) -> dict[str, tuple[int, ...]]:
    table = balance_thresholds.c
    rows = connection.execute(
        select(table.wallet, table.bounds)
        .where(table.tenant_id == tenant_id, table.wallet.in_([*wallets, EACH]))
        .order_by(table.id)
    )
    # The newest version of each comes last, and is in force.
    return {row.wallet: tuple(json.loads(row.bounds)) for row in rows}


def thresholds_in_force(connection: Connection, tenant_id: int) -> Sequence[Row[Any]]:
    """Return the newest version of each wallet's thresholds, by wallet; ended ones are left out."""
    table = balance_thresholds.c
    newest = select(func.max(table.id)).where(table.tenant_id == tenant_id).group_by(table.wallet)
    query = select(balance_thresholds).where(table.id.in_(newest), table.bounds != "[]")
    return connection.execute(query.order_by(table.wallet)).all()


def thresholds_history(connection: Connection, tenant_id: int, wallet: str, limit: int = 1_000) -> Sequence[Row[Any]]:
    """Return all versions of a wallet's thresholds, newest first."""
    table = balance_thresholds.c
    query = select(balance_thresholds).where(table.tenant_id == tenant_id, table.wallet == wallet)
    return connection.execute(query.order_by(table.id.desc()).limit(limit)).all()


def bounds_of(row: Row[Any]) -> tuple[int, ...]:
    """Return the thresholds of a version, in descending order."""
    return tuple(json.loads(row.bounds))
