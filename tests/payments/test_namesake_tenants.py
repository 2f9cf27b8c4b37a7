"""Two tenants with the same names for everything: wallets, packs, top-ups, payments, refunds, fees, keys.

What happens to one must leave the other as it was; and must happen to the first as if it were alone.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.credits import holds, lot_rows, movements
from farebox_collector.ledger.credits.movements import Kind, Movement
from farebox_collector.ledger.credits.policies import (
    Authorship,
    Terms,
    policies_of,
    set_policy,
)
from farebox_collector.ledger.credits.spending import (
    LimitScope,
    Subject,
    held_of,
    spent_of,
)
from farebox_collector.ledger.payments import (
    auto_topups,
    packs,
    payment_fees,
    refunds,
    topups,
)
from farebox_collector.ledger.payments.auto_topups import AutoTerms
from farebox_collector.ledger.payments.payment_facts import Event, Fee
from farebox_collector.ledger.payments.provider_events import EventConflict, book_event
from farebox_collector.ledger.payments.topups import PaymentMethod
from farebox_collector.ledger.payments.unmatched import keep_payment, unmatched_between
from farebox_collector.ledger.storage.database import Database
from payments.orders import CREDIT, DAY_NS, NOW_NS, NUMBERS, SECOND_NS, Shop

ALWAYS = (0, 2**62)
# Which rows a question is about does not depend on the database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def twins(database: Database) -> tuple[Shop, Shop]:
    """A shop of the first tenant, and its namesake of another."""
    number = next(NUMBERS)
    other: int = database.transact(lambda connection: create_tenant(connection, f"other-{number}", Decimal(1), NOW_NS))
    made = [Shop(database, of=(tenant_id, number), expires_days=10) for tenant_id in (1, other)]
    for shop in made:
        shop.order("v")
    return made[0], made[1]


def subject_of(shop: Shop) -> Subject:
    return Subject(LimitScope.WALLET, shop.wallet)


def told_of(shop: Shop) -> Any:
    """All that a tenant may read of its shop."""
    topup = shop.read(topups.topup_by_key, shop.name("t"))
    pack = shop.read(packs.pack_in_force, shop.pack)
    mine = subject_of(shop)
    return [
        shop.left,
        [tuple(row) for row in shop.lots()],
        shop.moved(),
        topup and tuple(topup),
        pack and tuple(pack),
        [tuple(row) for row in shop.read(packs.packs_in_force)],
        [tuple(row) for row in shop.read(packs.pack_versions, shop.pack)],
        [tuple(row) for row in shop.read(topups.topups_of, shop.wallet)],
        [tuple(row) for row in shop.read(topups.all_topups)],
        [row.id for row in shop.read(topups.paid_between, *ALWAYS)],
        shop.read(topups.payment_method, shop.wallet),
        shop.read(topups.checkouts_over, shop.wallet, pack.id if pack else 0, shop.now_ns),
        shop.read(auto_topups.spent_this_month, shop.wallet, "USD", shop.now_ns),
        [row.wallet for row in shop.read(auto_topups.wallets_below, 9)],
        [due.topup.id for due in shop.read(auto_topups.in_flight, 9)],
        shop.read(payment_fees.currencies_waited_for),
        [row.id for row in shop.read(payment_fees.topups_without_fee, 0, 9)],
        [row.return_id for row in shop.read(refunds.returns_between, *ALWAYS)],
        shop.read(unmatched_between, *ALWAYS),
        [tuple(row) for row in shop.read(holds.holds_of, shop.wallet, "", None, 9)],
        shop.read(held_of, [mine], shop.now_ns),
        shop.read(spent_of, [mine], shop.now_ns),
        shop.read(policies_of, [mine], shop.now_ns),
        shop.read(lot_rows.wallets_with_expired_lots, [shop.wallet], shop.now_ns),
    ]


def hold_and_let_expire(shop: Shop) -> None:
    wanted = [holds.HoldRequest(shop.wallet, CREDIT, shop.name("hold"), "chat", "run", 5)]
    (held,) = shop.run(holds.take_holds, wanted=wanted)
    assert isinstance(held, holds.Held), held
    shop.now_ns += 5 * SECOND_NS


def dispute_with_fee(shop: Shop) -> None:
    shop.book(shop.dispute(fee=15))


def fee_before_payment(shop: Shop) -> None:
    shop.book(shop.dispute(of="v", name="early", fee=25))
    assert shop.book(shop.paid("v")) == "paid"
    assert shop.fees("v") == 250_000_000


def fee_without_rate(shop: Shop) -> None:
    fact = shop.dispute(name="foreign")._replace(fees=(Fee(shop.name("txn_x"), "XXX", 15),))
    shop.book(fact)


def fee_of_payment(shop: Shop) -> None:
    topup = shop.read(topups.topup_by_key, shop.name("t"))
    shop.database.transact(
        lambda connection: payment_fees.book_fee(connection, topup, Fee(shop.name("txn"), "USD", 30), shop.now_ns)
    )
    assert shop.fees() == 300_000_000


def give_back_by_hand_then_refund(shop: Shop) -> None:
    shop.move(Kind.REFUND, 5 * CREDIT, lot_id=shop.lot().id)
    shop.now_ns += SECOND_NS
    shop.book(shop.refund(400))
    assert shop.left == 5 * CREDIT


def let_expire(shop: Shop) -> None:
    shop.now_ns += 10 * DAY_NS
    shop.draw()
    assert shop.left == 0


def buy_automatically(shop: Shop) -> None:
    terms = AutoTerms(shop.wallet, True, shop.pack, 20 * CREDIT, "USD", 10_000)
    shop.run(topups.keep_payment_method, wallet=shop.wallet, method=PaymentMethod("cus", "pm"))
    shop.run(auto_topups.set_auto_topup, terms=terms, author="t", reason="r")
    (row,) = shop.read(auto_topups.wallets_below, 9)
    assert shop.run(auto_topups.order_automatic, terms=row, key=shop.name("auto"), livemode=False)


def sell_for_another_price(shop: Shop) -> None:
    terms = packs.PackTerms(shop.pack, 10 * CREDIT, "USD", 900, 10)
    shop.run(packs.set_pack, terms=terms, author="t", reason="r")


def sell_no_more(shop: Shop) -> None:
    assert shop.run(packs.withdraw_pack, name=shop.pack, author="t", reason="r")


def keep_unmatched(shop: Shop) -> None:
    assert shop.run(keep_payment, fact=shop.paid(topup_key=shop.name("none")), reason="r")


def note_the_payment(shop: Shop) -> None:
    waiting = shop.read(topups.topup_by_key, shop.name("v"))
    shop.database.transact(lambda connection: topups.note_payment_intent(connection, waiting.id, shop.name("pi_v")))
    assert shop.read(topups.topup_by_payment, shop.name("pi_v")).id == waiting.id


def limit(shop: Shop) -> None:
    terms = Terms(day_limit_nano=CREDIT)
    shop.run(set_policy, subject=subject_of(shop), terms=terms, authorship=Authorship("t", "r"))


STEPS: list[Callable[[Shop], Any]] = [
    lambda shop: shop.book(shop.refund(400)),
    dispute_with_fee,
    fee_before_payment,
    fee_without_rate,
    fee_of_payment,
    give_back_by_hand_then_refund,
    let_expire,
    hold_and_let_expire,
    buy_automatically,
    sell_for_another_price,
    sell_no_more,
    keep_unmatched,
    note_the_payment,
    limit,
    lambda shop: shop.use(3 * CREDIT),
    lambda shop: shop.move(Kind.WITHDRAWAL, CREDIT),
    lambda shop: shop.run(topups.let_expire, at_ns=shop.now_ns + 16 * DAY_NS),
]


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_what_one_tenant_does_is_nothing_to_its_namesake(twins: tuple[Shop, Shop], number: int) -> None:
    for shop in twins:
        shop.buy()
    states: list[Any] = []
    for shop, other in (twins, twins[::-1]):
        before, mine = told_of(other), told_of(shop)
        STEPS[number](shop)
        other.now_ns, now_ns = NOW_NS, other.now_ns
        if not states:
            assert told_of(other) == before
        other.now_ns = now_ns
        assert told_of(shop) != mine
        states.append(told_of(shop)[0])
    assert states[0] == states[1]
    assert twins[0].clean() == []


def test_the_same_event_keys_and_movements_are_anothers_own(twins: tuple[Shop, Shop]) -> None:
    for shop in twins:
        shop.order()
        event = Event(shop.name("evt"), "payment", False, NOW_NS, bytes([shop.tenant_id % 256]) * 32, shop.paid())
        assert shop.run(book_event, event=event, livemode=False) == "paid"
        assert shop.run(book_event, event=event, livemode=False) == "repeated"
        with pytest.raises(EventConflict):
            shop.run(book_event, event=event._replace(digest=bytes(32)), livemode=False)
        moved = shop.run(
            movements.move, movement=Movement(Kind.GRANT, shop.wallet, CREDIT), idempotency_key=shop.name("key")
        )
        again = shop.run(
            movements.move, movement=Movement(Kind.GRANT, shop.wallet, CREDIT), idempotency_key=shop.name("key")
        )
        assert (moved.repeated, again) == (False, moved._replace(repeated=True))
        assert shop.left == 11 * CREDIT


def test_in_strict_mode_a_namesakes_wallet_is_not_known(twins: tuple[Shop, Shop]) -> None:
    mine, other = twins
    mine.buy()
    movement = Movement(Kind.WITHDRAWAL, mine.wallet, CREDIT)
    with pytest.raises(movements.NoSuchWallet):
        other.run(movements.move, movement=movement, idempotency_key="k", strict=True)
    assert mine.run(movements.move, movement=movement, idempotency_key="k", strict=True).amount_nanocredits == -CREDIT
