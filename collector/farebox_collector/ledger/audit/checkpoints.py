"""Verify accounts against their postings, incrementally.

An account's checkpoint holds the sums of its postings when they were last verified, up to a transaction before which no
other can appear. Verifying the account again reads only the postings since then.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, FromClause, Select, and_, case, func, select

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.journal.posting_index import legs_of
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts, postings, transactions
from farebox_collector.ledger.tables.corrections import audited_balances
from farebox_collector.model.mismatches import Mismatch, Window

_USAGE = ("usage", "correction")
"""Kinds of transactions that debit wallets for usage."""
CHUNK = 500
"""Accounts per statement; their checkpoints move in one transaction."""


class Sums(NamedTuple):
    """The sums of an account's postings."""

    balance_nano: int
    spent_nano: int
    charged_calls: int

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


class Standing(NamedTuple):
    """The state of an account in one snapshot of the books."""

    account_id: int
    label: str
    stated: Sums
    """The account's own sums."""
    posted: Sums
    """The sums of its postings."""
    settled: Sums
    """The same, up to the transaction where the checkpoint may go."""

    def mismatches(self) -> Iterator[Mismatch]:
        """Yield where the account contradicts its postings."""
        for check, posted, stated in zip(("balances", "spent", "calls"), self.posted, self.stated, strict=True):
            if posted != stated:
                yield Mismatch(check, self.label, str(posted), str(stated))


def touched_accounts(connection: Connection, window: Window) -> list[int]:
    """Return the accounts with postings in a window's transactions."""
    column = postings.c
    touched = select(column.account_id).where(
        column.transaction_id > window.after, column.transaction_id <= window.upto
    )
    return sorted(connection.execute(touched.distinct()).scalars())


def accounts_after(connection: Connection, account_id: int) -> list[int]:
    """Return the next accounts by id."""
    following = select(accounts.c.id).where(accounts.c.id > account_id).order_by(accounts.c.id).limit(CHUNK)
    return list(connection.execute(following).scalars())


def standings(
    connection: Connection, account_ids: Sequence[int], upto: int, *, from_scratch: bool
) -> Iterator[Standing]:
    """Return the state of accounts; `from_scratch` reads every posting, else those after each account's checkpoint."""
    posted, settled = (dict.fromkeys(account_ids, _NOTHING) for _ in range(2))
    for part in legs_of(connection, account_ids):
        for account_id, *figures in connection.execute(_sums(part, upto, from_scratch=from_scratch)):
            sums = [int(figure) for figure in figures]
            posted[account_id] = posted[account_id].plus(Sums(*sums[:3]))
            settled[account_id] = settled[account_id].plus(Sums(*sums[3:]))
    for account_id, kind, name, *figures in connection.execute(_SAID.where(accounts.c.id.in_(account_ids))):
        stated, base = Sums(*figures[:3]), _NOTHING if from_scratch else Sums(*figures[3:])
        yield Standing(
            account_id, f"{kind} {name}", stated, base.plus(posted[account_id]), base.plus(settled[account_id])
        )


def move_checkpoints(connection: Connection, standing: Sequence[Standing], upto: int) -> None:
    """Store verified sums. A checkpoint that is already further stays where it is."""
    rows = [(one.account_id, upto, *one.settled) for one in standing]
    bulk_insert.insert(connection, "audited_balances", _COLUMNS, rows, _ONLY_FORWARD)


_COLUMNS = ("account_id", "upto_transaction", *Sums._fields)
_ONLY_FORWARD = (
    " ON CONFLICT (account_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    + " WHERE excluded.upto_transaction > audited_balances.upto_transaction"
)

_NOTHING = Sums(0, 0, 0)
_KNOWN = audited_balances.c
_SAID = (
    select(
        accounts.c.id,
        accounts.c.kind,
        accounts.c.name,
        *(accounts.c[name] for name in Sums._fields),
        *(func.coalesce(_KNOWN[name], 0) for name in Sums._fields),
    )
    .outerjoin(audited_balances, _KNOWN.account_id == accounts.c.id)
    .order_by(accounts.c.id)
)


def _sums(part: FromClause, upto: int, *, from_scratch: bool) -> Select[Any]:
    """Select one row per account with postings in a part: the sums of all, and of those up to a transaction."""
    leg, account, made = part.c, accounts.c, transactions.c
    used = and_(account.kind == WALLET, made.kind.in_(_USAGE))
    figures = (leg.amount_nano, case((used, -leg.amount_nano), else_=0), leg.records)
    early = leg.transaction_id <= upto
    sums = (*figures, *(case((early, figure), else_=0) for figure in figures))
    joined = accounts.outerjoin(audited_balances, _KNOWN.account_id == account.id)
    after = leg.account_id == account.id
    if not from_scratch:
        after = and_(after, leg.transaction_id > func.coalesce(_KNOWN.upto_transaction, 0))
    joined = joined.join(part, after).outerjoin(transactions, made.id == leg.transaction_id)
    return select(account.id, *map(func.sum, sums)).select_from(joined).group_by(account.id)
