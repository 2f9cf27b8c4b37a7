"""Books in which refunds and disputes were booked by the order of events are carried over and put right."""

from functools import partial
from typing import Any

from alembic import command
from farebox_collector.ledger.credits.lots import REFUNDED_ACCOUNT, REVENUE_ACCOUNT
from farebox_collector.ledger.journal.journal import Leg, begin
from farebox_collector.ledger.payments.payment_fees import topups_without_fee
from farebox_collector.ledger.payments.refunds import carried_over, settle_carried
from farebox_collector.ledger.payments.topups import topup_by_key, topup_by_payment
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from payments.orders import CREDIT, USD, Shop
from sqlalchemy import Connection, text

BEFORE = "0031"


def downgraded(database: Database, work: Any) -> None:
    """Let books be of the version before, do some work there, and carry them over."""
    with database.transaction() as connection:
        command.downgrade(alembic_config(connection), BEFORE)
        work(connection)
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")


def as_before(connection: Connection, return_id: str, **effect: int) -> None:
    """What the version before wrote of a return that it had booked."""
    effect |= {"taken": 1}
    columns = ", ".join(f"{name} = {value}" for name, value in effect.items())
    connection.execute(
        text(
            f"UPDATE payment_returns SET {columns}, topup_id = (SELECT id FROM topups t WHERE"
            " t.payment_intent = payment_returns.payment_intent) WHERE return_id = :id"
        ),
        {"id": return_id},
    )
    connection.execute(text("UPDATE lot_moves SET kind = 'refund' WHERE kind = 'payment_return'"))


def settled(shop: Shop) -> int:
    with shop.database.reading() as connection:
        carried = carried_over(connection, 100)
    works = [partial(settle_carried, topup=row, at_ns=shop.now_ns) for row in carried]
    return sum(bool(shop.database.transact(work)) for work in works)


def test_a_refund_of_used_credits_is_carried_over_as_it_is(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.use(8 * CREDIT)
    shop.book(shop.refund(400))
    before = shop.state()
    effect = {"lot_nano": 2 * CREDIT, "debt_nano": 3 * CREDIT, "back_nanousd": 4 * USD}
    effect["deferred_nanousd"] = 16 * USD // 10
    downgraded(database, lambda connection: as_before(connection, shop.name("re"), **effect))
    assert shop.clean() == []
    assert (settled(shop), shop.state()) == (0, before)
    shop.book(shop.refund(400, failed=True))
    assert (shop.left, shop.moved()["refunded"], shop.clean()) == (2 * CREDIT, 0, [])


def test_a_debt_that_another_lot_paid_comes_back_to_that_lot(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.buy("u")
    shop.use(8 * CREDIT)
    shop.draw()
    shop.book(shop.refund(800))

    first = {"lot": shop.lot().id}

    def old(connection: Connection) -> None:
        """There the debt of 8 was drawn on the second lot like usage, and the first stayed used."""
        as_before(connection, shop.name("re"), lot_nano=2 * CREDIT, debt_nano=8 * CREDIT, back_nanousd=8 * USD)
        connection.execute(text("UPDATE payment_returns SET deferred_nanousd = 1600000000"))
        used = "taken_nano = 2000000000, recognised_nanousd = 6400000000, returned_nanousd = 1600000000"
        connection.execute(text(f"UPDATE lots SET {used} WHERE id = :lot"), first)
        moves = "INSERT INTO lot_moves (tenant_id, lot_id, transaction_id, kind, amount_nano, recognised_nanousd,"
        moves += " returned_nanousd, recorded_at_ns) VALUES (1, :lot, NULL, 'draw', 0, 6400000000, -6400000000, :now)"
        connection.execute(text(moves), first | {"now": shop.now_ns})
        legs = [Leg(REVENUE_ACCOUNT, -6_400_000_000), Leg(REFUNDED_ACCOUNT, 6_400_000_000)]
        begin(connection, 1, "recognition", shop.now_ns).post(legs)

    downgraded(database, old)
    assert shop.clean() == []
    settled(shop)
    shop.book(shop.refund(800, failed=True))
    assert [row.remaining_nano // CREDIT for row in shop.lots()] == [2, 10]
    assert shop.left == 12 * CREDIT
    assert shop.clean() == []


def test_a_dispute_that_was_forgotten_is_booked_after_the_upgrade(database: Database) -> None:
    """A refund failed beside a dispute that stands: the version before gave everything back."""
    shop = Shop(database)
    shop.buy()
    shop.book(shop.dispute())
    shop.book(shop.dispute(won=True))

    def forget(connection: Connection) -> None:
        connection.execute(text("UPDATE payment_returns SET wanted = 1, taken = 1"))

    downgraded(database, forget)
    assert (shop.left, shop.clean()) == (10 * CREDIT, [])
    assert (settled(shop), shop.left, shop.clean()) == (1, 0, [])
    assert settled(shop) == 0


def test_of_two_top_ups_with_one_payment_the_paid_one_keeps_it(database: Database) -> None:
    shop = Shop(database)
    shop.order("u")
    shop.buy()
    shop.book(shop.dispute(fee=1_500))
    intent = shop.name("pi_t")

    def twice(connection: Connection) -> None:
        connection.execute(text("UPDATE topups SET payment_intent = :pi WHERE state = 'open'"), {"pi": intent})

    downgraded(database, twice)
    assert shop.read(topup_by_payment, intent).key == shop.name("t")
    assert shop.read(topup_by_key, shop.name("u")).second_of_payment == 1
    # Whether its one fee is the dispute's or its own was not written down: Stripe is asked again.
    assert [row.key for row in shop.read(topups_without_fee, 0, 10)] == [shop.name("t")]
    assert shop.fees() == 15 * USD
    shop.book(shop.paid("u"))
    assert (shop.left, shop.clean()) == (10 * CREDIT, [])
