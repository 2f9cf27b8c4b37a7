"""Fees of payments and disputes: booked once each in any order, given back, and waiting where they cannot be booked."""

from contextlib import suppress
from decimal import Decimal
from itertools import permutations
from types import SimpleNamespace
from typing import Any

from farebox_collector.ledger.payments.payment_facts import Fee
from farebox_collector.ledger.payments.payment_fees import book_or_wait, count_waiting, topups_without_fee
from farebox_collector.ledger.payments.topups import topup_by_key
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.exchange_rates import set_rate
from farebox_collector.payments.automatic_topups import AutomaticTopups
from farebox_collector.payments.events import read_event
from farebox_collector.payments.stripe_client import GatewayRefused, PaymentFee
from farebox_collector.pricing.currencies import ExchangeRate
from payments.orders import NOW_NS, USD, OneTransaction, Shop


class Undo(Exception):
    """Takes a life back."""


def test_a_disputes_fee_does_not_stand_for_the_payments_own(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.book(shop.dispute(fee=1_500))
    topup = shop.read(topup_by_key, shop.name("t"))
    asked = [row.key for row in shop.read(topups_without_fee, 0, 50)]
    assert asked == [topup.key]
    assert shop.run(book_or_wait, payment_intent=topup.payment_intent, topup=topup, fee=OWN_FEE, source="payment")
    assert shop.read(topups_without_fee, 0, 50) == []
    assert shop.fees() == 15 * USD + 53 * USD // 100
    assert shop.clean() == []


OWN_FEE = Fee("txn_own", "USD", 53)


def test_fees_are_the_same_in_every_order_also_one_that_is_given_back(database: Database) -> None:
    """The payment, its fee, a dispute with a fee, and the dispute won with that fee back: 24 orders, each twice."""
    found = set()
    for order in permutations(range(4)):
        with suppress(Undo), database.transaction() as connection:
            shop = Shop(OneTransaction(connection))
            shop.order()
            own = Fee(shop.name("own"), "USD", 53)
            out, back = Fee(shop.name("out"), "USD", 1_500), Fee(shop.name("back"), "USD", -1_500)
            dispute = shop.dispute()._replace(fees=(out,))
            won = shop.dispute(won=True)._replace(fees=(out, back))
            for number in (*order, *order):
                if number == 1:
                    topup = shop.read(topup_by_key, shop.name("t"))
                    known = topup if topup.lot_id else None
                    facts = {"payment_intent": shop.name("pi_t"), "topup": known, "fee": own, "source": "payment"}
                    shop.run(book_or_wait, **facts)
                else:
                    shop.book((shop.paid(), None, dispute, won)[number])
            assert count_waiting(connection)["payment_unknown"] == 0
            found.add((shop.fees(), shop.moved()["fees"], shop.moved()["withheld"], shop.left))
            assert shop.clean() == []
            raise Undo
    own_fee = 53 * USD // 100
    assert found == {(own_fee, own_fee, -own_fee, 10 * USD)}


def test_a_won_disputes_event_tells_the_fee_that_comes_back() -> None:
    transactions = '[{"id":"a","currency":"usd","fee":1500},{"id":"b","currency":"usd","fee":-1500}]'
    thing = (
        '{"id":"dp","payment_intent":"pi","amount":800,"currency":"usd","status":"won",'
        f'"created":1767000000,"balance_transactions":{transactions}}}'
    )
    event = (
        '{"id":"evt","type":"charge.dispute.closed","livemode":false,"created":1767300000,'
        f'"data":{{"object":{thing}}}}}'
    )
    fact = read_event(event.encode()).fact
    assert (fact.fees, fact.made_at_ns) == (  # type: ignore[union-attr]
        (Fee("a", "USD", 1500), Fee("b", "USD", -1500)),
        1_767_000_000 * 10**9,
    )


class Stripe:
    """Tells the fees that it is given; of other payments it says nothing, or that it does not know them."""

    livemode = False

    def __init__(self, kept: dict[str, Fee], refused: frozenset[str] = frozenset()) -> None:
        self.fees, self.refused, self.asked = kept, refused, 0

    def kept(self, payment_intent: str) -> PaymentFee | None:
        self.asked += 1
        if payment_intent in self.refused:
            raise GatewayRefused("no such payment")
        fee = self.fees.get(payment_intent)
        return PaymentFee(fee, "") if fee else None


def rounds_of(shop: Shop, stripe: Stripe) -> AutomaticTopups:
    desk: Any = SimpleNamespace(
        database=shop.database, clock=lambda: shop.now_ns, is_open=True, gateway=lambda tenant: stripe
    )
    return AutomaticTopups(desk)


def test_fees_that_stripe_does_not_tell_keep_no_later_fee_waiting(database: Database) -> None:
    shop = Shop(database)
    for number in range(60):
        shop.buy(f"t{number}")
    last = shop.name("pi_t59")
    stripe = Stripe({last: Fee("txn_last", "USD", 53)}, frozenset({shop.name("pi_t1")}))
    rounds = rounds_of(shop, stripe)
    rounds.round()
    assert (stripe.asked, shop.fees("t59")) == (50, None)
    rounds.round()
    assert (stripe.asked, shop.fees("t59")) == (60, 53 * USD // 100)
    # All others are asked for again, for ever: a fee is never given up, not even after a year.
    shop.now_ns += 400 * 86_400 * 10**9
    stripe.fees[shop.name("pi_t0")] = Fee("txn_first", "USD", 53)
    rounds.round()
    assert shop.fees("t0") == 53 * USD // 100
    with database.reading() as connection:
        assert count_waiting(connection)["not_told"] == 58


def test_a_fee_without_a_rate_waits_is_counted_and_is_booked_when_there_is_one(database: Database) -> None:
    shop = Shop(database)
    for name in ("t", "u"):
        shop.buy(name)
    stripe = Stripe({shop.name("pi_t"): Fee("txn_t", "XOF", 300), shop.name("pi_u"): Fee("txn_u", "USD", 53)})
    rounds = rounds_of(shop, stripe)
    shop.book(shop.dispute()._replace(fees=(Fee("txn_d", "XOF", 100),)))
    for _ in range(2):
        rounds.round()
    with database.reading() as connection:
        assert count_waiting(connection) == {"payment_unknown": 0, "no_exchange_rate": 2, "not_told": 0}
    assert (shop.fees("t"), shop.fees("u"), stripe.asked) == (None, 53 * USD // 100, 2)
    with database.transaction() as connection:
        set_rate(connection, ExchangeRate("XOF", Decimal("0.002"), NOW_NS), "test", NOW_NS)
    rounds.round()
    assert shop.fees("t") == 400 * USD // 500
    with database.reading() as connection:
        assert sum(count_waiting(connection).values()) == 0
    assert shop.clean() == []
