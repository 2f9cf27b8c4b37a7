"""Deposits: credits put into a wallet, once for each idempotency key."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from farebox_collector.ledger import bulk
from farebox_collector.ledger.credit_tables import idempotency_keys
from farebox_collector.ledger.journal import ISSUED_ACCOUNT, Leg, balance, open_transaction, post, wallet_account
from farebox_collector.ledger.tables import transactions
from farebox_collector.ledger.totals import add_credits
from farebox_collector.money import MAX_SUM_NANO, AmountError

DEPOSIT = "deposit"

_KEY_COLUMNS = ("tenant_id", "key", "request", "transaction_id")


class Deposited(NamedTuple):
    """A deposit in the books."""

    transaction_id: int
    balance_nanocredits: int
    """What the wallet has now."""
    repeated: bool
    """True when this key had been used for this very deposit before, and nothing changed."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before, for another request."""


def deposit(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    amount_nanocredits: int,
    idempotency_key: str,
    at_ns: int,
    memo: str = "",
) -> Deposited:
    """Put credits into a wallet. The amount must be positive. Raises IdempotencyConflict, and AmountError when the
    tenant's deposits would no longer fit the books.

    The key is claimed before anything is posted, so that of two at once one waits and then finds it taken.
    """
    if amount_nanocredits <= 0:
        raise ValueError("a deposit is positive")
    if balance(connection, tenant_id, ISSUED_ACCOUNT) - amount_nanocredits < -MAX_SUM_NANO:
        raise AmountError("too large: all deposits together would be out of range")
    request = json.dumps({"deposit": wallet, "amount_nanocredits": amount_nanocredits, "memo": memo})
    transaction_id = open_transaction(connection, tenant_id, DEPOSIT, at_ns, memo)
    claim = (tenant_id, idempotency_key, request, transaction_id)
    repeated = not bulk.insert_ignoring_conflicts(connection, "idempotency_keys", _KEY_COLUMNS, [claim])
    if repeated:
        connection.execute(delete(transactions).where(transactions.c.id == transaction_id))
        transaction_id = _earlier(connection, tenant_id, idempotency_key, request)
    else:
        legs = [
            Leg(wallet_account(wallet), amount_nanocredits),
            Leg(ISSUED_ACCOUNT, -amount_nanocredits),
        ]
        post(connection, tenant_id, transaction_id, at_ns, legs, active=frozenset({wallet}))
        add_credits(connection, tenant_id, DEPOSIT, amount_nanocredits)
    return Deposited(transaction_id, balance(connection, tenant_id, wallet_account(wallet)), repeated)


def _earlier(connection: Connection, tenant_id: int, idempotency_key: str, request: str) -> int:
    keys = idempotency_keys.c
    earlier = connection.execute(
        select(keys.request, keys.transaction_id).where(keys.tenant_id == tenant_id, keys.key == idempotency_key)
    ).one()
    if earlier.request != request:
        raise IdempotencyConflict(idempotency_key)
    return int(earlier.transaction_id)
