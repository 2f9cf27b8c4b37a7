"""Deposits: credits put into a wallet, once for each idempotency key."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from farebox_collector.ledger.journal import ISSUED, Account, Leg, open_transaction, post, wallet_account
from farebox_collector.ledger.tables import idempotency_keys
from farebox_collector.money import Commodity

DEPOSIT = "deposit"


class Deposited(NamedTuple):
    """A deposit in the books."""

    transaction_id: int
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
    """Put credits into a wallet. The amount must be positive. Raises IdempotencyConflict."""
    if amount_nanocredits <= 0:
        raise ValueError("a deposit is positive")
    request = json.dumps({"deposit": wallet, "amount_nanocredits": amount_nanocredits, "memo": memo})
    keys = idempotency_keys.c
    earlier = connection.execute(
        select(keys.request, keys.transaction_id).where(keys.tenant_id == tenant_id, keys.key == idempotency_key)
    ).first()
    if earlier is not None:
        if earlier.request != request:
            raise IdempotencyConflict(idempotency_key)
        return Deposited(earlier.transaction_id, repeated=True)
    transaction_id = open_transaction(connection, tenant_id, DEPOSIT, at_ns, memo)
    legs = [
        Leg(wallet_account(wallet), amount_nanocredits),
        Leg(Account(ISSUED, "", Commodity.CREDIT), -amount_nanocredits),
    ]
    post(connection, tenant_id, transaction_id, at_ns, legs, active=frozenset({wallet}))
    connection.execute(
        insert(idempotency_keys).values(
            tenant_id=tenant_id, key=idempotency_key, request=request, transaction_id=transaction_id
        )
    )
    return Deposited(transaction_id, repeated=False)
