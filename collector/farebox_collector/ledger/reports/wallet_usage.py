"""Find the newest usage records of a wallet without an index of records by wallet.

Such an index would be written in as many places as a batch has wallets. Postings show which transactions charged a
wallet, and the records of a transaction are stored together. Records without a posting (calls that were not charged, or
corrected since) have a partial index.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, func, or_, select

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.journal.posting_index import legs_of
from farebox_collector.ledger.tables.books import accounts, usage_records
from farebox_collector.ledger.usage.stored_usage import in_order
from farebox_collector.model.verdicts import Verdict

_TRANSACTIONS = 64
"""Transactions of the wallet to read at a time."""
MAX_ID = 2**63 - 1

_APART = or_(usage_records.c.verdict != Verdict.CHARGED, usage_records.c.corrections > 0)


def newest_of_wallet(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    conditions: Sequence[ColumnElement[bool]],
    limit: int,
    before_transaction: int | None = None,
) -> list[int]:
    """Return the ids of a wallet's newest records that meet the conditions, in descending order.

    The search begins at `before_transaction`: no record of a later transaction meets the conditions.
    """
    table = usage_records.c
    newest = select(table.id).where(table.wallet == wallet, *conditions).order_by(table.id.desc()).limit(limit)
    apart = list(connection.execute(newest.where(table.tenant_id == tenant_id, _APART)).scalars())
    account_ids = _accounts(connection, tenant_id, wallet)
    charged: list[int] = []
    last = before_transaction if before_transaction is not None else MAX_ID
    while len(charged) < limit:
        made = _transactions(connection, account_ids, last)
        if not made:
            break
        batch = newest.where(in_order(tenant_id), table.transaction_id.in_(made))
        charged += connection.execute(batch.where(table.verdict == Verdict.CHARGED, table.corrections == 0)).scalars()
        last = made[-1] - 1
    return sorted([*apart, *charged], reverse=True)[:limit]


def _transactions(connection: Connection, account_ids: Sequence[int], last: int) -> list[int]:
    """Return the newest transactions, up to `last`, that charged a wallet for usage, in descending order."""
    # Records of earlier transactions are past retention.
    first = select(func.min(usage_records.c.transaction_id)).scalar_subquery()
    found: set[int] = set()
    for part in legs_of(connection, account_ids):
        made = part.c.transaction_id
        newest = select(made).distinct().where(made <= last, made >= first).order_by(made.desc()).limit(_TRANSACTIONS)
        found.update(connection.execute(newest).scalars())
    return sorted(found, reverse=True)[:_TRANSACTIONS]


def _accounts(connection: Connection, tenant_id: int, wallet: str) -> list[int]:
    table = accounts.c
    own_rows = select(table.id).where(table.tenant_id == tenant_id, table.kind == WALLET, table.name == wallet)
    return list(connection.execute(own_rows).scalars())
