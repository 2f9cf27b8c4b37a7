"""Deposit credits into a wallet, once for each idempotency key."""

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
    """Balance of the wallet after the deposit."""
    repeated: bool
    """True if the same deposit was made before under this key; nothing changed."""


def deposit(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    amount_nanocredits: int,
    idempotency_key: str,
    at_ns: int,
    memo: str = "",
) -> Deposited:
    """Deposit credits at their list price. Raises the errors of `movements.move`."""
    if amount_nanocredits <= 0:
        raise ValueError("the amount of a deposit must be positive")
    movement = Movement(Kind.DEPOSIT, wallet, amount_nanocredits, memo=memo, at_list=True)
    made = move(connection, tenant_id, movement, idempotency_key, at_ns)
    return Deposited(made.transaction_id, made.balance_nanocredits, made.repeated)
