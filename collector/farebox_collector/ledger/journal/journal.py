"""The journal: the only code that writes transactions and postings, and the balances that project them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select

from farebox_collector.ledger.journal.low_balances import Fall, tell_of_falls
from farebox_collector.ledger.journal.money_rollups import add_money_days
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts, transactions
from farebox_collector.model.money import Commodity

WALLET = "wallet"
"""CREDIT: what an end customer, a user or a team pays from. Positive is what it has left."""
ISSUED = "issued"
"""CREDIT: the other side of deposits; minus what was ever put in."""
EARNED = "earned"
"""CREDIT: what usage took from wallets."""
PROVIDER = "provider"
"""USD: what is owed to a provider for one of its models, as a negative figure."""
COGS = "cogs"
"""USD: what usage cost us."""

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


# Made once: every batch uses them, and building such a statement takes longer than running it.
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
    """One posting to be: positive adds to the account, negative takes from it."""

    account: Account
    amount_nano: int
    event: str = ""
    rule_version_id: int | None = None
    records: int = 0
    """How many usage records this leg sums up."""


class Unbalanced(ValueError):
    """The legs of a transaction do not sum to zero in each commodity: a bug, and nothing was written."""


@lru_cache(maxsize=10_000)
def wallet_account(name: str) -> Account:
    """The account behind a wallet."""
    return Account(WALLET, name, _CREDIT)


def balance(connection: Connection, tenant_id: int, account: Account) -> int:
    """What an account holds, in nano units of its commodity; 0 for one that does not exist yet."""
    return int(connection.execute(_BALANCE, {"tenant": tenant_id, **account._asdict()}).scalar() or 0)


def open_transaction(
    connection: Connection,
    tenant_id: int,
    kind: str,
    at_ns: int,
    memo: str = "",
    calls_ns: tuple[int | None, int | None] = (None, None),
) -> int:
    """Begin a ledger transaction and return its id; `post` gives it its legs.

    `calls_ns` are the first and the last moment whose prices its calls have.
    """
    row = {"tenant_id": tenant_id, "kind": kind, "recorded_at_ns": at_ns, "memo": memo}
    row |= {"calls_from_ns": calls_ns[0], "calls_to_ns": calls_ns[1]}
    key = connection.execute(_OPEN, row).inserted_primary_key
    assert key is not None
    return int(key[0])


def post(
    connection: Connection,
    tenant_id: int,
    transaction_id: int,
    at_ns: int,
    legs: Sequence[Leg],
    *,
    active: frozenset[str] = frozenset(),
    spending: bool = False,
) -> frozenset[str]:
    """Write the legs of a transaction and move the balances.

    `active` names wallets whose last activity is now, with or without a leg; with `spending`, what leaves a wallet
    counts as spent. Returns those of the wallets of which a hold may not have ended yet. Raises Unbalanced.
    """
    _require_balance(legs)
    movements: dict[Account, tuple[int, int]] = {}
    for account, amount_nano, _, _, records in legs:
        amount, calls = movements.get(account, _NOTHING)
        movements[account] = (amount + amount_nano, calls + records)
    for name in active:
        movements.setdefault(wallet_account(name), _NOTHING)
    # One order for all writers, so that two of them never wait for each other crosswise.
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
    ids = {(row[1], row[2], row[3]): row[0] for row in returned}
    postings = [
        (
            transaction_id,
            # An account is what its row says of it.
            ids[account],
            account.commodity,
            amount_nano,
            event,
            rule_version_id,
            records,
        )
        for account, amount_nano, event, rule_version_id, records in legs
    ]
    bulk_insert.insert(connection, "postings", _POSTING_COLUMNS, postings)
    if postings and not spending:
        add_money_days(
            connection, tenant_id, transaction_id, at_ns, [(leg.account.kind, leg.amount_nano) for leg in legs]
        )
    wallets = [row for row in returned if row[1] == WALLET]
    if wallets and wallets[0][6] is not None:
        # Somebody, of some tenant, wants to know of low balances.
        amounts = {account.name: amount for account, (amount, _) in movements.items() if account.kind == WALLET}
        falls = [Fall(row[2], row[5] - amounts[row[2]], row[5]) for row in wallets if amounts[row[2]] < 0]
        tell_of_falls(connection, tenant_id, transaction_id, falls, at_ns)
    return frozenset(row[2] for row in wallets if row[4] > at_ns)


def _require_balance(legs: Sequence[Leg]) -> None:
    sums: dict[Commodity, int] = {}
    for leg in legs:
        sums[leg.account.commodity] = sums.get(leg.account.commodity, 0) + leg.amount_nano
    if any(sums.values()):
        raise Unbalanced(f"legs sum to {sums}")
