"""What people ask of one wallet: what it spent on what and when, what it holds, where its credits come from."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from farebox_collector.ledger.credits.spending import LimitScope, Subject, held_of
from farebox_collector.ledger.reports.money_reports import PAID_IN
from farebox_collector.ledger.reports.reports import day_sums
from farebox_collector.ledger.tables.books import transactions
from farebox_collector.ledger.tables.credits import lots
from farebox_collector.ledger.tables.rollups import wallet_days
from farebox_collector.model.moments import Days


class WalletGroup(StrEnum):
    """What the usage of one wallet can be told apart by."""

    DAY = "day"
    EVENT = "event"


def wallet_by(
    connection: Connection, tenant_id: int, wallet: str, days: Days, group: WalletGroup
) -> Sequence[Row[Any]]:
    """The charged calls of one wallet (`DAY_SUMS`) by day or event, in that order: one look-up a day."""
    table = wallet_days.c
    column = table[group]
    one_by_one = table.day.in_(range(days.first, days.end))
    return connection.execute(
        select(column, *day_sums(wallet_days))
        .where(table.tenant_id == tenant_id, one_by_one, table.wallet == wallet)
        .group_by(column)
        .order_by(column)
    ).all()


def held_nanocredits(connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> int:
    """What a wallet has set aside in holds at a moment."""
    subject = Subject(LimitScope.WALLET, wallet)
    return held_of(connection, tenant_id, [subject], at_ns)[subject]


def living_lots(connection: Connection, tenant_id: int, wallet: str, limit: int) -> Sequence[Row[Any]]:
    """The lots of a wallet with something left in the order of drawing, as they were when it was last drawn up."""
    table = lots.c
    # Read from the index of the wallet: it may have had thousands of lots, a few live.
    query = select(lots).where(table.tenant_id == tenant_id, table.wallet == wallet, table.remaining_nano > 0)
    order = (table.priority, table.expires_at_ns.is_(None), table.expires_at_ns, table.promotional.desc(), table.id)
    return connection.execute(query.order_by(*order).limit(limit)).all()


def paid_lots(connection: Connection, tenant_id: int, wallet: str, limit: int) -> Sequence[Row[Any]]:
    """The lots of a wallet that were paid in, newest first, with memo and metadata of their transaction."""
    table, made = lots.c, transactions.c
    return connection.execute(
        select(lots, made.memo, made.metadata)
        .outerjoin(transactions, made.id == table.transaction_id)
        .where(table.tenant_id == tenant_id, table.wallet == wallet, table.origin.in_(PAID_IN))
        .order_by(table.id.desc())
        .limit(limit)
    ).all()
