"""The bounds of top-ups: until when a checkout is handed out, what ends a top-up, what is paid in a time."""

from itertools import islice
from typing import Any

import pytest
from farebox_collector.ledger.credits.movements import IdempotencyConflict, Kind
from farebox_collector.ledger.payments import (
    auto_topups,
    packs,
    payment_fees,
    topups,
)
from farebox_collector.ledger.payments.auto_topups import AutoTerms
from farebox_collector.ledger.payments.packs import PackTerms
from farebox_collector.ledger.payments.payment_facts import NotPaid
from farebox_collector.ledger.payments.refunds import topups_with_returns
from farebox_collector.ledger.payments.topups import Order, PaymentMethod, TopupState
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.minor_units import MAX_MINOR
from farebox_collector.model.money import MAX_MOVEMENT_NANO, MAX_NANO, AmountError
from payments.orders import CREDIT, DAY_NS, NOW_NS, Shop

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


def order(shop: Shop, name: str, *, automatic: bool = False, wallet: str = "", key: str = "") -> topups.Ordered | None:
    pack = shop.read(packs.pack_in_force, shop.pack)
    wanted = Order(shop.name(name), key or shop.name(name), wallet or shop.wallet, pack, False, automatic)
    made: topups.Ordered | None = shop.run(topups.order, wanted=wanted)
    return made


def state(shop: Shop, name: str) -> str:
    return str(shop.read(topups.topup_by_key, shop.name(name)).state)


def test_a_checkout_is_handed_out_to_its_wallet_for_its_pack_until_it_is_over(shop: Shop) -> None:
    made = order(shop, "a")
    assert made is not None
    with shop.database.transaction() as connection:
        topups.note_checkout(connection, made.row.id, "cs", "https://a.example", NOW_NS + 10)
    pack_id = made.row.pack_id

    def found(wallet: str = "", pack: int = pack_id, after_ns: int = 0) -> tuple[int | None, int]:
        asked = (wallet or shop.wallet, pack, NOW_NS + after_ns)
        checkout = shop.read(topups.open_checkout, *asked)
        return checkout and checkout.id, shop.read(topups.checkouts_over, *asked)

    assert (found(), found(after_ns=9)) == ((made.row.id, 0), (made.row.id, 0))
    assert found(after_ns=10) == (None, made.row.id)
    assert (found("other"), found(pack=pack_id + 1)) == ((None, 0), (None, 0))
    assert (found("other", after_ns=10), found(pack=pack_id + 1, after_ns=10)) == ((None, 0), (None, 0))
    order(shop, "auto", automatic=True)
    assert found(after_ns=10) == (None, made.row.id)
    shop.book(shop.paid("a"))
    assert found() == (None, made.row.id)


def test_a_top_up_ends_once(shop: Shop) -> None:
    for name in ("a", "b"):
        order(shop, name)
    rows = [shop.read(topups.topup_by_key, shop.name(name)) for name in ("a", "b")]
    shop.book(shop.paid("a"))

    def end(row: Any, state: TopupState) -> bool:
        return shop.database.transact(lambda connection: topups.end(connection, row, state, "x" * 501, NOW_NS))

    assert [end(rows[0], TopupState.FAILED), end(rows[1], TopupState.EXPIRED), end(rows[1], TopupState.FAILED)] == [
        False, True, False,
    ]  # fmt: skip
    assert (state(shop, "a"), state(shop, "b")) == (TopupState.PAID, TopupState.EXPIRED)
    assert len(shop.read(topups.topup_by_key, shop.name("b")).reason) == 500
    # What was paid all the same is booked, once.
    assert [shop.book(shop.paid("b")) for _ in range(2)] == ["paid", "known"]
    assert shop.left == 20 * CREDIT


@pytest.mark.parametrize(("late_ns", "expired"), [(0, 0), (1, 1)])
def test_checkouts_that_nobody_can_pay_expire_and_automatic_top_ups_do_not(
    shop: Shop, late_ns: int, expired: int
) -> None:
    for name, automatic in (("a", False), ("auto", True)):
        order(shop, name, automatic=automatic)
    shop.buy()
    assert shop.run(topups.let_expire, at_ns=NOW_NS + 15 * DAY_NS + late_ns) == expired
    assert [state(shop, name) for name in ("a", "auto", "t")] == ["expired" if expired else "open", "open", "paid"]


def test_a_failed_payment_ends_what_is_automatic_and_lets_a_customer_try_again(shop: Shop) -> None:
    for name, automatic in (("a", False), ("auto", True)):
        order(shop, name, automatic=automatic)
    assert shop.book(NotPaid(shop.name("a"), "declined")) == "the customer may try again"
    assert [shop.book(NotPaid(shop.name("auto"), "declined")) for _ in range(2)] == ["failed", "known"]
    assert [state(shop, name) for name in ("a", "auto")] == ["open", "failed"]


def test_an_order_is_the_same_under_its_key_and_another_is_refused(shop: Shop) -> None:
    first = order(shop, "a")
    again = order(shop, "b", key=shop.name("a"))
    assert first is not None
    assert again is not None
    assert (first.repeated, again.repeated, again.row.key) == (False, True, shop.name("a"))
    with pytest.raises(IdempotencyConflict):
        order(shop, "c", wallet="other", key=shop.name("a"))
    assert order(shop, "auto", automatic=True) is not None
    assert order(shop, "second", automatic=True) is None
    assert order(shop, "third", automatic=True, wallet="other") is not None


@pytest.mark.parametrize(("from_ns", "to_ns", "found"), [(0, 0, 0), (0, 1, 1), (-1, 0, 0), (1, 2, 0), (-9, 9, 1)])
def test_what_was_paid_in_a_time_is_half_open(shop: Shop, from_ns: int, to_ns: int, found: int) -> None:
    shop.buy()
    assert len(shop.read(topups.paid_between, NOW_NS + from_ns, NOW_NS + to_ns)) == found
    assert len(shop.read(payment_fees.topups_without_fee, NOW_NS + from_ns, 9)) == (from_ns <= 0)


def test_credits_of_a_pack_expire_by_the_time_of_the_payment(shop: Shop) -> None:
    shop.order(expires_days=3)
    shop.now_ns += DAY_NS
    shop.book(shop.paid(paid_at_ns=NOW_NS))
    assert shop.lot().expires_at_ns == NOW_NS + 3 * DAY_NS


def test_a_card_is_that_of_the_moment(shop: Shop) -> None:
    for number in range(2):
        method = PaymentMethod("cus", f"pm_{number}")
        for _ in range(2):
            shop.run(topups.keep_payment_method, wallet=shop.wallet, method=method, at_ns=NOW_NS + 10 * number)

    def card(at_ns: int | None = None, wallet: str = "") -> str:
        return str(shop.read(topups.payment_method, wallet or shop.wallet, at_ns).payment_method)

    cards = [card(NOW_NS - 1), card(NOW_NS), card(NOW_NS + 9), card(NOW_NS + 10), card(), card(wallet="other")]
    assert cards == ["", "pm_0", "pm_0", "pm_1", "pm_1", ""]
    # A payment without a card that may be kept changes nothing.
    shop.buy()
    assert card() == "pm_1"


@pytest.mark.parametrize(("balance", "below"), [(9, True), (10, False), (11, False)])
def test_a_wallet_is_topped_up_below_its_threshold_and_within_its_cap(shop: Shop, balance: int, below: bool) -> None:
    shop.move(Kind.GRANT, balance * CREDIT)
    shop.run(topups.keep_payment_method, wallet=shop.wallet, method=PaymentMethod("cus", "pm"))
    terms = AutoTerms(shop.wallet, True, shop.pack, 10 * CREDIT, "USD", 1_600)
    shop.run(auto_topups.set_auto_topup, terms=terms, author="t", reason="r")
    found = [row for row in shop.read(auto_topups.wallets_below, 9) if row.wallet == shop.wallet]
    assert bool(found) is below
    # An order of a person is no automatic one, and does not count.
    order(shop, "a")
    rows = [row for row in shop.read(auto_topups.wallets_below, 9) if row.wallet == shop.wallet]
    assert bool(rows) is below
    for number, ordered in ((1, True), (2, True), (3, False)) if below else ():
        key = shop.name(f"auto-{number}")
        assert shop.run(auto_topups.order_automatic, terms=rows[0], key=key, livemode=False) is ordered
        if ordered:
            assert shop.book(shop.paid(f"auto-{number}")) == "paid"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"credits_nano": 0}, "a pack must have more than 0"),
        ({"credits_nano": MAX_NANO}, "a pack must have more than 0"),
        ({"currency": "usd"}, "no currency"),
        ({"amount_minor": 0}, "price of a pack must be positive"),
        ({"amount_minor": MAX_MINOR + 1}, "price of a pack must be positive"),
        ({"expires_days": -1}, "expires_days must be"),
        ({"expires_days": packs.MAX_EXPIRY_DAYS + 1}, "expires_days must be"),
        ({"credits_nano": 1, "amount_minor": 1}, ""),
        ({"credits_nano": MAX_NANO - 1, "amount_minor": MAX_MINOR, "expires_days": packs.MAX_EXPIRY_DAYS}, ""),
    ],
)
def test_the_terms_of_a_pack_are_bounded(shop: Shop, changes: dict[str, Any], why: str) -> None:
    terms = PackTerms("bounded", 10 * CREDIT, "USD", 800)._replace(**changes)
    if not why:
        shop.run(packs.set_pack, terms=terms, author="t", reason="r")
        assert shop.read(packs.pack_in_force, "bounded").credits_nano == terms.credits_nano
        return
    with pytest.raises(packs.BadPack, match=why):
        shop.run(packs.set_pack, terms=terms, author="t", reason="r")


@pytest.mark.parametrize(("credits", "fits"), [(MAX_MOVEMENT_NANO - 1, True), (MAX_MOVEMENT_NANO, False)])
def test_a_top_up_has_at_most_what_a_movement_may_have(shop: Shop, credits: int, fits: bool) -> None:
    pack = shop.read(packs.pack_in_force, shop.pack)
    stated = PackTerms(shop.pack, MAX_NANO - 1, "USD", 800)
    shop.run(packs.set_pack, terms=stated, author="t", reason="r")
    assert pack is not None
    if not fits:
        shop.move(Kind.GRANT, MAX_NANO - 1)
        shop.move(Kind.GRANT, 2)
        with pytest.raises(AmountError, match="too large: total credits"):
            order(shop, "a")
        return
    assert order(shop, "a") is not None


def test_top_ups_with_returns_come_once_each_in_steps(shop: Shop) -> None:
    for name in ("a", "b", "c"):
        shop.buy(name)
    for name in ("a", "c"):
        shop.book(shop.refund(of=name, name=f"re_{name}"))
    with shop.database.reading() as connection:
        keys = [row.key for row in islice(topups_with_returns(connection, batch=1), 9)]
    assert keys == [shop.name("a"), shop.name("c")]
