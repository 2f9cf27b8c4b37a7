"""Find the postings of accounts.

PostgreSQL has an index. In SQLite an index would cost more than the postings themselves: each wallet of a batch has its
own page in it, and each commit writes whole pages. Instead the table `account_postings` is filled in bulk: in sweeps,
in the order of accounts, in transactions of any length. SQLite has one writer and assigns ids in the order of commits,
so a watermark states exactly which postings the table holds; later postings, the tail, are scanned.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, FromClause, func, select, text

from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.differences import indexes_postings_late
from farebox_collector.ledger.tables.books import postings
from farebox_collector.ledger.tables.corrections import account_postings

MAX_ID = 2**63 - 1
_UPTO = "postings by account"
"""The watermark: the last posting in `account_postings`."""
Key = tuple[int, int, int]
_FIRST, _LAST = (0, 0, 0), (MAX_ID, MAX_ID, MAX_ID)
_REST = ("commodity", "amount_nano", "event", "rule_version_id", "records")

# An interrupted sweep has inserted some of the postings already.
_TAKE_IN = text(
    "INSERT INTO account_postings (account_id, transaction_id, posting_id)"
    " SELECT account_id, transaction_id, id FROM postings WHERE id > :after AND id <= :upto"
    " AND (account_id, transaction_id, id) > (:low_account, :low_transaction, :low_id)"
    " AND (account_id, transaction_id, id) <= (:high_account, :high_transaction, :high_id)"
    " ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING"
)
_BOUNDS = text(
    "SELECT account_id, transaction_id, id FROM (SELECT account_id, transaction_id, id,"
    " row_number() OVER (ORDER BY account_id, transaction_id, id) AS number"
    " FROM postings WHERE id > :after AND id <= :upto) numbered WHERE number % :piece = 0 ORDER BY number"
)
_COME_TO = f"(SELECT coalesce(max(value), 0) FROM watermarks WHERE name = '{_UPTO}')"

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


class Sweep(NamedTuple):
    """Postings to add to the index in the order of accounts, so that each of its pages is written once."""

    after: int
    upto: int
    """The range of ids: after the first, up to the second."""
    bounds: list[Key]
    """The boundaries between pieces, and both ends."""

    @property
    def pieces(self) -> int:
        """Return the number of pieces."""
        return len(self.bounds) - 1


def legs_of(connection: Connection, account_ids: Sequence[int]) -> tuple[FromClause, ...]:
    """Return the postings of some accounts as one or more tables with the columns of `postings`."""
    of_accounts = postings.c.account_id.in_(account_ids)
    if not indexes_postings_late(connection):
        return (select(postings).where(of_accounts).subquery("leg"),)
    entry, mark = account_postings.c, watermark(connection, _UPTO)
    indexed = (
        select(postings.c.id, entry.transaction_id, entry.account_id, *(postings.c[name] for name in _REST))
        .join_from(account_postings, postings, postings.c.id == entry.posting_id)
        # Rows after the watermark belong to an unfinished sweep.
        .where(entry.account_id.in_(account_ids), entry.posting_id <= mark)
    )
    tail = select(postings).where(postings.c.id > mark, of_accounts)
    # Read once, by id; not looked up for each transaction of a history.
    return indexed.subquery("leg"), tail.cte("tail").prefix_with("MATERIALIZED")


def behind(connection: Connection) -> int:
    """Return the number of postings that are not indexed yet."""
    if not indexes_postings_late(connection):
        return 0
    return max(0, _newest(connection) - watermark(connection, _UPTO))


def plan(connection: Connection, most: int, piece: int) -> Sweep | None:
    """Plan the next sweep over the oldest postings that are not indexed; None if there are none."""
    after = watermark(connection, _UPTO)
    upto = min(_newest(connection), after + most)
    if not indexes_postings_late(connection) or upto <= after:
        return None
    found = connection.execute(_BOUNDS, {"after": after, "upto": upto, "piece": piece})
    return Sweep(after, upto, [_FIRST, *((row[0], row[1], row[2]) for row in found), _LAST])


def index_pieces(connection: Connection, sweep: Sweep, start: int, stop: int) -> None:
    """Add pieces of a sweep to the index, in order from the first; the last piece moves the watermark."""
    stop = min(stop, sweep.pieces)
    values = {"after": sweep.after, "upto": sweep.upto}
    for side, bound in (("low", sweep.bounds[start]), ("high", sweep.bounds[stop])):
        values |= {f"{side}_{name}": part for name, part in zip(("account", "transaction", "id"), bound, strict=True)}
    connection.execute(_TAKE_IN, values)
    if stop == sweep.pieces:
        set_watermark(connection, _UPTO, sweep.upto)


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(postings.c.id), 0))).scalar_one())
