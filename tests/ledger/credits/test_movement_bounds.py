"""What a movement may be: amounts by kind, the most of each, and what a wallet has to give."""

from typing import Any

import pytest
from farebox_collector.ledger.credits.movements import (
    Kind,
    Movement,
    NoSuchLot,
    NotEnough,
    metadata_text,
    move,
)
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import MAX_MOVEMENT_NANO, AmountError

NOW_NS = 1_767_300_000 * 10**9

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def make(database: Database, movement: Movement, key: str = "k") -> Any:
    return database.transact(lambda connection: move(connection, 1, movement, key, NOW_NS))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TOPUP])
@pytest.mark.parametrize("amount", [-1, 0])
def test_only_adjustments_are_negative_and_only_refunds_are_of_all_that_is_left(
    database: Database, kind: Kind, amount: int
) -> None:
    made = make(database, Movement(Kind.GRANT, "ada", 10), "first")
    movement = Movement(kind, "ada", amount, lot_id=made.lot_id if kind is Kind.REFUND else 0, to_wallet="")
    if (kind, amount) in ((Kind.ADJUSTMENT, -1), (Kind.REFUND, 0)):
        assert make(database, movement).amount_nanocredits == (-1 if amount else -10)
    else:
        with pytest.raises(ValueError, match="must be positive" if amount else "must not be 0"):
            make(database, movement)


@pytest.mark.parametrize("kind", [Kind.GRANT, Kind.ADJUSTMENT, Kind.DEPOSIT])
def test_a_movement_has_at_most_so_many_credits_and_dollars(database: Database, kind: Kind) -> None:
    most = MAX_MOVEMENT_NANO
    for amount, price in ((most + 1, 0), (1, most + 1), *([(-most - 1, 0)] if kind is Kind.ADJUSTMENT else [])):
        with pytest.raises(AmountError, match="a movement has at most"):
            make(database, Movement(kind, "ada", amount, price))
    assert make(database, Movement(kind, "ada", most, most if kind is Kind.DEPOSIT else 0)).amount_nanocredits == most


def test_a_wallet_gives_what_it_has_and_a_lot_what_is_left_of_it(database: Database) -> None:
    first, second = (make(database, Movement(Kind.GRANT, "ada", 10), key).lot_id for key in ("a", "b"))
    for movement, error in (
        (Movement(Kind.WITHDRAWAL, "ada", 21), NotEnough),
        (Movement(Kind.REFUND, "ada", 11, lot_id=first), NotEnough),
        (Movement(Kind.REFUND, "ada", 1, lot_id=second + 99), NoSuchLot),
        (Movement(Kind.REFUND, "bob", 1, lot_id=first), NoSuchLot),
    ):
        with pytest.raises(error):
            make(database, movement)
    assert make(database, Movement(Kind.REFUND, "ada", 10, lot_id=second), "c").amount_nanocredits == -10
    with pytest.raises(NotEnough, match="the lot has less"):
        make(database, Movement(Kind.REFUND, "ada", 0, lot_id=second), "d")
    assert make(database, Movement(Kind.TRANSFER, "ada", 10, to_wallet="bob"), "d").balance_nanocredits == 0
    with database.reading() as connection:
        assert [balance(connection, 1, wallet_account(name)) for name in ("ada", "bob")] == [0, 10]


def test_metadata_is_bounded(database: Database) -> None:
    assert metadata_text({}) == ""
    assert len(metadata_text({"a": "x" * 3_991})) == 4_000
    with pytest.raises(ValueError, match="4,000"):
        metadata_text({"a": "x" * 3_992})
