"""Accounts against their postings: the sums that an account carries, compared bit by bit and never lost sight of.

An account's checkpoint says what its postings summed up to when they were last found right, up to a transaction that
nothing can come before any more. What came since is all that must be read to compare it again.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, text

from farebox_collector.ledger import bulk
from farebox_collector.ledger.mismatches import Mismatch, Window
from farebox_collector.ledger.tables import accounts, postings

CHUNK = 500
"""Accounts that are compared by one statement, and whose checkpoints are moved in one transaction."""


class Sums(NamedTuple):
    """What an account's postings come to."""

    balance_nano: int
    spent_nano: int
    charged_calls: int

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


class Standing(NamedTuple):
    """How an account stands in one snapshot of the books."""

    account_id: int
    label: str
    said: Sums
    """What the account says of itself."""
    posted: Sums
    """What its postings say."""
    settled: Sums
    """The same, up to the transaction where the checkpoint may go."""

    def mismatches(self) -> Iterator[Mismatch]:
        """Where the account contradicts its postings."""
        for check, posted, said in zip(("balances", "spent", "calls"), self.posted, self.said, strict=True):
            if posted != said:
                yield Mismatch(check, self.label, str(posted), str(said))


def touched_accounts(connection: Connection, window: Window) -> list[int]:
    """The accounts with postings in a window's transactions."""
    column = postings.c
    touched = select(column.account_id).where(
        column.transaction_id > window.after, column.transaction_id <= window.upto
    )
    return sorted(connection.execute(touched.distinct()).scalars())


def accounts_after(connection: Connection, account_id: int) -> list[int]:
    """The next accounts by id."""
    following = select(accounts.c.id).where(accounts.c.id > account_id).order_by(accounts.c.id).limit(CHUNK)
    return list(connection.execute(following).scalars())


def standings(
    connection: Connection, account_ids: Sequence[int], upto: int, *, from_scratch: bool
) -> Iterator[Standing]:
    """How accounts stand; `from_scratch` reads every posting, else those after each account's checkpoint."""
    statement = _FROM_SCRATCH if from_scratch else _FROM_CHECKPOINT
    for row in connection.execute(statement, {"ids": list(account_ids), "upto": upto}):
        figures = [int(figure) for figure in row[3:]]
        said, posted, settled, base = (Sums(*figures[start : start + 3]) for start in range(0, 12, 3))
        yield Standing(row[0], f"{row[1]} {row[2]}", said, base.plus(posted), base.plus(settled))


def move_checkpoints(connection: Connection, standing: Sequence[Standing], upto: int) -> None:
    """Remember what was found right. A checkpoint that is further already stays where it is."""
    rows = [(one.account_id, upto, *one.settled) for one in standing]
    bulk.insert(connection, "audited_balances", _COLUMNS, rows, _ONLY_FORWARD)


_COLUMNS = ("account_id", "upto_transaction", *Sums._fields)
_ONLY_FORWARD = (
    " ON CONFLICT (account_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    + " WHERE excluded.upto_transaction > audited_balances.upto_transaction"
)

_POSTED = {
    "balance_nano": "p.amount_nano",
    "spent_nano": "CASE WHEN a.kind = 'wallet' AND t.kind IN ('usage', 'correction') THEN -p.amount_nano ELSE 0 END",
    "charged_calls": "p.records",
}


def _statement(base: str, checkpoint: str) -> str:
    """One row an account. `base` is its column's value at the checkpoint, `checkpoint` the join that finds it."""
    sums = [
        *(f"a.{name}" for name in Sums._fields),
        *(f"coalesce(sum({_POSTED[name]}), 0)" for name in Sums._fields),
        *(
            f"coalesce(sum(CASE WHEN p.transaction_id <= :upto THEN {_POSTED[name]} ELSE 0 END), 0)"
            for name in Sums._fields
        ),
        # Of one row each; an aggregate, so that accounts are grouped by their key alone, in whose order they come.
        *(base.format(name) for name in Sums._fields),
    ]
    return f"""
        SELECT a.id, a.kind, a.name, {", ".join(sums)}
        FROM accounts a {checkpoint}
        LEFT JOIN transactions t ON t.id = p.transaction_id
        WHERE a.id IN :ids GROUP BY a.id
    """


_FROM_SCRATCH = text(_statement("0", "LEFT JOIN postings p ON p.account_id = a.id")).bindparams(
    bindparam("ids", expanding=True)
)
_FROM_CHECKPOINT = text(
    _statement(
        "coalesce(max(c.{}), 0)",
        "LEFT JOIN audited_balances c ON c.account_id = a.id"
        " LEFT JOIN postings p ON p.account_id = a.id AND p.transaction_id > coalesce(c.upto_transaction, 0)",
    )
).bindparams(bindparam("ids", expanding=True))
