"""Reports on one wallet: spending by day and event, holds, and lots."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from farebox_collector.ledger.credits.movements import PAID_IN
from farebox_collector.ledger.credits.spending import LimitScope, Subject, held_of
from farebox_collector.ledger.reports.reports import day_sums
from farebox_collector.ledger.tables.books import transactions
from farebox_collector.ledger.tables.credits import lots
from farebox_collector.ledger.tables.rollups import wallet_days
from farebox_collector.model.moments import Days


class WalletGroup(StrEnum):
    """What the usage of a wallet can be grouped by."""

    DAY = "day"
    EVENT = "event"


def wallet_by(
    connection: Connection, tenant_id: int, wallet: str, days: Days, group: WalletGroup
) -> Sequence[Row[Any]]:
    """Return the charged calls of a wallet (`DAY_SUMS`) by day or event; one index look-up for each day."""
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
    """Return what holds reserve of a wallet at a moment."""
    subject = Subject(LimitScope.WALLET, wallet)
    return held_of(connection, tenant_id, [subject], at_ns)[subject]


def living_lots(connection: Connection, tenant_id: int, wallet: str, limit: int) -> Sequence[Row[Any]]:
    """Return the lots of a wallet with remaining credits, in the order of drawing, as of its last update."""
    table = lots.c
    # Read by the index of the wallet: it may have had thousands of lots, of which a few are open.
    query = select(lots).where(table.tenant_id == tenant_id, table.wallet == wallet, table.remaining_nano > 0)
    order = (table.priority, table.expires_at_ns.is_(None), table.expires_at_ns, table.promotional.desc(), table.id)
    return connection.execute(query.order_by(*order).limit(limit)).all()


def paid_lots(connection: Connection, tenant_id: int, wallet: str, limit: int) -> Sequence[Row[Any]]:
    """Return the paid lots of a wallet, newest first, with memo and metadata of their transactions."""
    table, made = lots.c, transactions.c
    return connection.execute(
        select(lots, made.memo, made.metadata)
        .outerjoin(transactions, made.id == table.transaction_id)
        .where(table.tenant_id == tenant_id, table.wallet == wallet, table.origin.in_(PAID_IN))
        .order_by(table.id.desc())
        .limit(limit)
    ).all()
