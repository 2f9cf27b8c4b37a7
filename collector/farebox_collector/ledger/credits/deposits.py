"""Deposits: credits put into a wallet, once for each idempotency key."""

from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.credits.movements import (
    IdempotencyConflict,
    Kind,
    Movement,
    move,
)

__all__ = ["Deposited", "IdempotencyConflict", "deposit"]


class Deposited(NamedTuple):
    """A deposit in the books."""

    transaction_id: int
    balance_nanocredits: int
    """What the wallet has now."""
    repeated: bool
    """True when this key had been used for this very deposit before, and nothing changed."""


def deposit(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    amount_nanocredits: int,
    idempotency_key: str,
    at_ns: int,
    memo: str = "",
) -> Deposited:
    """Put credits into a wallet that were paid for at list. Raises what `movements.move` raises."""
    if amount_nanocredits <= 0:
        raise ValueError("a deposit is positive")
    movement = Movement(Kind.DEPOSIT, wallet, amount_nanocredits, memo=memo, at_list=True)
    made = move(connection, tenant_id, movement, idempotency_key, at_ns)
    return Deposited(made.transaction_id, made.balance_nanocredits, made.repeated)
