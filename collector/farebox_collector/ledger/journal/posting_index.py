"""Find the postings of accounts.

PostgreSQL has an index. In SQLite an index would cost more than the postings themselves: each wallet of a batch has its
own page in it, and each commit writes whole pages. The table `account_postings` is a late index instead.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, FromClause, select

from farebox_collector.ledger.journal.late_index import LateIndex
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import postings
from farebox_collector.ledger.tables.corrections import account_postings

POSTING_INDEX = LateIndex(
    "postings by account",
    account_postings.name,
    postings.name,
    {"account_id": "account_id", "transaction_id": "transaction_id", "posting_id": "id"},
    key=3,
)
_REST = ("commodity", "amount_nano", "event", "rule_version_id", "records")
_COME_TO = f"(SELECT coalesce(max(value), 0) FROM watermarks WHERE name = '{POSTING_INDEX.name}')"

INDEX_CHECKS = (
    (
        "index",
        "the index by account has every posting up to its watermark",
        "SELECT 'posting ' || p.id, 'account ' || p.account_id || ', transaction ' || p.transaction_id, 'none'"
        " FROM postings p LEFT JOIN account_postings i ON i.account_id = p.account_id"
        " AND i.transaction_id = p.transaction_id AND i.posting_id = p.id"
        f" WHERE p.id <= {_COME_TO} AND i.posting_id IS NULL AND [[p.transaction_id]]",
    ),
    (
        "index size",
        "the index by account has only postings up to its watermark",
        "SELECT 'the index of postings by account', there, found"
        f" FROM (SELECT (SELECT count(*) FROM postings WHERE id <= {_COME_TO}) AS there,"
        f" (SELECT count(*) FROM account_postings WHERE posting_id <= {_COME_TO}) AS found) both_sides"
        " WHERE there <> found",
    ),
)
"""The audit's checks of this index; see `books_audit` for how a check is written."""


def legs_of(connection: Connection, account_ids: Sequence[int]) -> tuple[FromClause, ...]:
    """Return the postings of some accounts as one or more tables with the columns of `postings`."""
    of_accounts = postings.c.account_id.in_(account_ids)
    if not has_one_writer(connection):
        return (select(postings).where(of_accounts).subquery("leg"),)
    entry, mark = account_postings.c, POSTING_INDEX.mark(connection)
    indexed = (
        select(postings.c.id, entry.transaction_id, entry.account_id, *(postings.c[name] for name in _REST))
        .join_from(account_postings, postings, postings.c.id == entry.posting_id)
        # Rows after the watermark belong to an unfinished sweep.
        .where(entry.account_id.in_(account_ids), entry.posting_id <= mark)
    )
    tail = select(postings).where(postings.c.id > mark, of_accounts)
    # Read once, by id; not looked up for each transaction of a history.
    return indexed.subquery("leg"), tail.cte("tail").prefix_with("MATERIALIZED")
