"""The postings of accounts, by whatever way they are found.

PostgreSQL has an index over them. In SQLite it would cost more than the postings themselves: each wallet of a batch has
a page of its own there, and each commit writes whole pages. So `account_postings` stands in its place, which `bring_up`
brings up to date in bulk, in the order of accounts. SQLite has one writer and gives out ids in the order of commits, so
that a watermark says exactly what is in it; what came since, the tail, is read through.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, FromClause, func, select, text

from farebox_collector.ledger.correction_tables import account_postings
from farebox_collector.ledger.tables import postings
from farebox_collector.ledger.watermarks import set_watermark, watermark

_UPTO = "postings by account"
"""The watermark: the last posting that is in `account_postings`."""
_REST = ("commodity", "amount_nano", "event", "rule_version_id", "records")

# In the order of accounts, so that each page is found once. Taking a posting in again changes nothing.
_TAKE_IN = text(
    "INSERT INTO account_postings (account_id, transaction_id, posting_id)"
    " SELECT account_id, transaction_id, id FROM postings WHERE id > :after AND id <= :upto ORDER BY 1, 2, 3"
    " ON CONFLICT DO NOTHING"
)
_COME_TO = f"(SELECT coalesce(max(value), 0) FROM watermarks WHERE name = '{_UPTO}')"

INDEX_CHECKS = (
    (
        "index",
        "every posting that the index by account has come to is in it",
        "SELECT 'posting ' || p.id, 'account ' || p.account_id || ', transaction ' || p.transaction_id, 'none'"
        " FROM postings p LEFT JOIN account_postings i ON i.account_id = p.account_id"
        " AND i.transaction_id = p.transaction_id AND i.posting_id = p.id"
        f" WHERE p.id <= {_COME_TO} AND i.posting_id IS NULL AND [[p.transaction_id]]",
    ),
    (
        "index size",
        "the index by account has nothing but the postings that it has come to",
        "SELECT 'the index of postings by account', there, found"
        f" FROM (SELECT (SELECT count(*) FROM postings WHERE id <= {_COME_TO}) AS there,"
        " (SELECT count(*) FROM account_postings) AS found) both_sides WHERE there <> found",
    ),
)
"""What the audit looks at here; see `audit` for how a check is written."""


def legs_of(connection: Connection, account_ids: Sequence[int]) -> tuple[FromClause, ...]:
    """The postings of some accounts, each in one of one or more parts that have the columns of `postings`."""
    of_accounts = postings.c.account_id.in_(account_ids)
    if not _is_late(connection):
        return (select(postings).where(of_accounts).subquery("leg"),)
    entry = account_postings.c
    indexed = (
        select(postings.c.id, entry.transaction_id, entry.account_id, *(postings.c[name] for name in _REST))
        .join_from(account_postings, postings, postings.c.id == entry.posting_id)
        .where(entry.account_id.in_(account_ids))
    )
    tail = select(postings).where(postings.c.id > watermark(connection, _UPTO), of_accounts)
    # Read once, by its ids: never looked for by each of a history of transactions.
    return indexed.subquery("leg"), tail.cte("tail").prefix_with("MATERIALIZED")


def behind(connection: Connection) -> int:
    """How many postings have come since the index was brought up to date."""
    if not _is_late(connection):
        return 0
    return max(0, _newest(connection) - watermark(connection, _UPTO))


def bring_up(connection: Connection, most: int) -> int:
    """Take some of the postings that came since into the index, the oldest first; returns how many."""
    after = watermark(connection, _UPTO)
    upto = min(_newest(connection), after + most)
    if not _is_late(connection) or upto <= after:
        return 0
    connection.execute(_TAKE_IN, {"after": after, "upto": upto})
    set_watermark(connection, _UPTO, upto)
    return upto - after


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(postings.c.id), 0))).scalar_one())


def _is_late(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
