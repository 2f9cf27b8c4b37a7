"""The journal: the only code that writes transactions, postings, and the balances that project them.

`begin` creates a `LedgerTransaction`; `post` writes its legs, and `abandon` deletes it. Other columns of `accounts`
project other things, and are written by their owners: `held_nano` by holds, `overdraft_nano` and `drawn_…` by lots.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from farebox_collector.ledger.journal.low_balances import Fall, notify_falls
from farebox_collector.ledger.journal.money_rollups import add_money_days
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts, transactions
from farebox_collector.model.money import Commodity

WALLET = "wallet"
"""CREDIT: what an end customer, a user or a team pays from. A positive balance is what it has left."""
ISSUED = "issued"
"""CREDIT: the counterpart of deposits; minus the sum of all deposits."""
EARNED = "earned"
"""CREDIT: what usage took from wallets."""
PROVIDER = "provider"
"""USD: debt to a provider for one of its models, as a negative figure."""
COGS = "cogs"
"""USD: the cost of usage."""

_ACCOUNT_KEY = ("tenant_id", "kind", "name", "commodity")
_ACCOUNT_SUMS = ("balance_nano", "spent_nano", "charged_calls")
_ACCOUNT_COLUMNS = (*_ACCOUNT_KEY, *_ACCOUNT_SUMS, "last_activity_ns", "created_at_ns")
_ACCOUNT_TAIL = (
    f" ON CONFLICT ({', '.join(_ACCOUNT_KEY)}) DO UPDATE SET {bulk_insert.additions('accounts', _ACCOUNT_SUMS)},"
    " last_activity_ns = coalesce(excluded.last_activity_ns, accounts.last_activity_ns)"
    " RETURNING id, kind, name, commodity, holds_until_ns, balance_nano, (SELECT max(id) FROM balance_thresholds)"
)
_POSTING_COLUMNS = (
    "transaction_id",
    "account_id",
    "commodity",
    "amount_nano",
    "event",
    "rule_version_id",
    "records",
)


# Built once: every batch uses them, and building such a statement takes longer than running it.
_OPEN = insert(transactions)
_BALANCE = select(accounts.c.balance_nano).where(
    accounts.c.tenant_id == bindparam("tenant"),
    *(accounts.c[name] == bindparam(name) for name in ("kind", "name", "commodity")),
)
_CREDIT = Commodity.CREDIT
_NOTHING = (0, 0)


class Account(NamedTuple):
    """An account of one tenant by its name."""

    kind: str
    name: str
    commodity: Commodity


EARNED_ACCOUNT = Account(EARNED, "", Commodity.CREDIT)
ISSUED_ACCOUNT = Account(ISSUED, "", Commodity.CREDIT)
COGS_ACCOUNT = Account(COGS, "", Commodity.USD)


class Leg(NamedTuple):
    """A posting to write: a positive amount adds to the account, a negative one takes from it."""

    account: Account
    amount_nano: int
    event: str = ""
    rule_version_id: int | None = None
    records: int = 0
    """How many usage records this leg sums up."""


class Unbalanced(ValueError):
    """The legs of a transaction do not sum to zero in each commodity: a bug. Nothing was written."""


class LedgerTransaction(NamedTuple):
    """A ledger transaction within a database transaction."""

    connection: Connection
    tenant_id: int
    id: int
    kind: str
    at_ns: int

    def post(
        self, legs: Sequence[Leg], *, active: frozenset[str] = frozenset(), spending: bool = False
    ) -> frozenset[str]:
        """Write the legs and update the balances.

        `active` names wallets whose last activity is now, with or without a leg; with `spending`, debits of a wallet
        count as spent. Returns those of the wallets that may have an open hold. Raises Unbalanced.
        """
        return _post(self, legs, active, spending)

    def close(self, calls_ns: tuple[int, int]) -> None:
        """Accept no more batches. `calls_ns` are the first and the last time of pricing among the calls."""
        self.connection.execute(
            update(transactions)
            .where(transactions.c.id == self.id)
            .values(is_open=0, calls_from_ns=calls_ns[0], calls_to_ns=calls_ns[1])
        )

    def describe(self, metadata: str) -> None:
        """Store business metadata, as JSON."""
        describe(self.connection, self.id, metadata)

    def abandon(self) -> None:
        """Delete the transaction: nothing is posted, and its id was not visible outside this database transaction."""
        self.connection.execute(delete(transactions).where(transactions.c.id == self.id))


class _Moved(NamedTuple):
    """An account after its balance was updated, as `_ACCOUNT_TAIL` returns it."""

    id: int
    kind: str
    name: str
    commodity: str
    holds_until_ns: int
    balance_nano: int
    newest_threshold: int | None
    """The id of the newest low-balance threshold of any tenant; None if there is none."""


@lru_cache(maxsize=10_000)
def wallet_account(name: str) -> Account:
    """Return the account of a wallet."""
    return Account(WALLET, name, _CREDIT)


def balance(connection: Connection, tenant_id: int, account: Account) -> int:
    """Return the balance of an account in nano units of its commodity; 0 if it does not exist yet."""
    return int(connection.execute(_BALANCE, {"tenant": tenant_id, **account._asdict()}).scalar() or 0)


def begin(
    connection: Connection,
    tenant_id: int,
    kind: str,
    at_ns: int,
    memo: str = "",
    calls_ns: tuple[int | None, int | None] = (None, None),
    is_open: bool = False,
) -> LedgerTransaction:
    """Begin a ledger transaction. `calls_ns` are the first and the last time of pricing among its calls.

    An open one is posted after its database transaction, when it is closed.
    """
    row = {"tenant_id": tenant_id, "kind": kind, "recorded_at_ns": at_ns, "memo": memo}
    row |= {"calls_from_ns": calls_ns[0], "calls_to_ns": calls_ns[1], **({"is_open": 1} if is_open else {})}
    key = connection.execute(_OPEN, row).inserted_primary_key
    assert key is not None
    return LedgerTransaction(connection, tenant_id, int(key[0]), kind, at_ns)


def post_together(
    posted: Sequence[tuple[LedgerTransaction, Sequence[Leg]]], active: frozenset[str], at_ns: int
) -> frozenset[str]:
    """Write the legs of usage of several transactions of one tenant and update each balance once.

    `active` names wallets whose last activity is now, beside those of the legs. Returns the wallets that may have an
    open hold. Raises Unbalanced.
    """
    legs = [leg for _, own in posted for leg in own]
    for _, own in posted:
        _require_balance(own)
    newest = posted[-1][0]._replace(at_ns=at_ns)
    active |= frozenset(leg.account.name for leg in legs if leg.account.kind == WALLET)
    moved, amounts = _move_balances(newest.connection, newest.tenant_id, at_ns, legs, active, spending=True)
    for transaction, own in posted:
        _insert_postings(transaction, own, moved)
    return _notify(newest, moved, amounts)


def describe(connection: Connection, transaction_id: int, metadata: str) -> None:
    """Replace the business metadata of a transaction, as JSON."""
    connection.execute(update(transactions).where(transactions.c.id == transaction_id).values(metadata=metadata))


def note_activity(connection: Connection, tenant_id: int, wallets: frozenset[str], at_ns: int) -> None:
    """Mark wallets as active now; create the accounts of new ones."""
    _move_balances(connection, tenant_id, at_ns, [], wallets, spending=False)


def _post(
    transaction: LedgerTransaction, legs: Sequence[Leg], active: frozenset[str], spending: bool
) -> frozenset[str]:
    connection, tenant_id, _, kind, at_ns = transaction
    _require_balance(legs)
    moved, amounts = _move_balances(connection, tenant_id, at_ns, legs, active, spending=spending)
    _insert_postings(transaction, legs, moved)
    if legs and not spending:
        add_money_days(connection, tenant_id, kind, at_ns, [(leg.account.kind, leg.amount_nano) for leg in legs])
    return _notify(transaction, moved, amounts)


def _insert_postings(transaction: LedgerTransaction, legs: Sequence[Leg], moved: Sequence[_Moved]) -> None:
    ids = {row[1:4]: row[0] for row in moved}
    postings = [
        (transaction.id, ids[account], account.commodity, amount_nano, event, rule_version_id, records)
        for account, amount_nano, event, rule_version_id, records in legs
    ]
    bulk_insert.insert(transaction.connection, "postings", _POSTING_COLUMNS, postings)


def _notify(transaction: LedgerTransaction, moved: Sequence[_Moved], amounts: Mapping[str, int]) -> frozenset[str]:
    """Notify of balances that fell below a threshold. Return the wallets that may have an open hold."""
    wallets = [row for row in moved if row.kind == WALLET]
    if wallets and wallets[0].newest_threshold is not None:
        # A tenant has a low-balance threshold.
        falls = [
            Fall(row.name, row.balance_nano - amounts[row.name], row.balance_nano)
            for row in wallets
            if amounts[row.name] < 0
        ]
        notify_falls(transaction.connection, transaction.tenant_id, transaction.id, falls, transaction.at_ns)
    return frozenset(row.name for row in wallets if row.holds_until_ns > transaction.at_ns)


def _move_balances(
    connection: Connection,
    tenant_id: int,
    at_ns: int,
    legs: Sequence[Leg],
    active: frozenset[str],
    *,
    spending: bool,
) -> tuple[list[_Moved], dict[str, int]]:
    """Add legs to their accounts. Returns the updated accounts, and the net change of each wallet."""
    movements: dict[Account, tuple[int, int]] = {}
    for account, amount_nano, _, _, records in legs:
        amount, calls = movements.get(account, _NOTHING)
        movements[account] = (amount + amount_nano, calls + records)
    for name in active:
        movements.setdefault(wallet_account(name), _NOTHING)
    # All writers use one order, so that they cannot deadlock.
    rows = [
        (
            tenant_id,
            kind,
            name,
            commodity,
            amount,
            -amount if spending and kind == WALLET else 0,
            calls,
            at_ns if kind == WALLET and name in active else None,
            at_ns,
        )
        for (kind, name, commodity), (amount, calls) in sorted(movements.items())
    ]
    returned = bulk_insert.upsert_returning(connection, "accounts", _ACCOUNT_COLUMNS, _ACCOUNT_TAIL, rows)
    amounts = {account.name: amount for account, (amount, _) in movements.items() if account.kind == WALLET}
    return [_Moved(*row) for row in returned], amounts


def _require_balance(legs: Sequence[Leg]) -> None:
    sums: dict[Commodity, int] = {}
    for leg in legs:
        sums[leg.account.commodity] = sums.get(leg.account.commodity, 0) + leg.amount_nano
    if any(sums.values()):
        raise Unbalanced(f"legs sum to {sums}")
