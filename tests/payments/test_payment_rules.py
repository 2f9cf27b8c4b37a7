"""What the pages on payments and credits say of refunds, disputes and bad input, each by an example."""

import json
from typing import Any

import pytest
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import (
    Kind,
    Movement,
    NotEnough,
    move,
)
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.payments.packs import pack_in_force
from farebox_collector.ledger.payments.topups import (
    Order,
    TopupState,
    note_receipt,
    open_checkout,
    order,
    topup_by_key,
)
from farebox_collector.ledger.payments.topups import note_checkout as keep_checkout
from farebox_collector.ledger.payments.unmatched import count_unmatched, unmatched_between
from farebox_collector.ledger.reports.wallet_reports import paid_lots
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import (
    MAX_MOVEMENT_NANO,
    MAX_NANO,
    MAX_SUM_NANO,
    AmountError,
)
from farebox_collector.payments.reconciliation import Side, differences
from farebox_collector.payments.stripe_client import Listed
from payments.orders import CREDIT, DAY_NS, NOW_NS, USD, Shop

ALL_DAYS = (0, 2**62)


def money(shop: Shop, *kinds: str) -> tuple[float, ...]:
    """Accounts of money in dollars, revenue and deferred as positive figures."""
    moved = shop.moved()
    signs = {"revenue": -1, "deferred": -1, "breakage": -1}
    return tuple(signs.get(kind, 1) * moved[kind] / USD for kind in kinds)


def test_unused_credits_go_back_with_their_part_of_the_price(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.use(3 * CREDIT)
    shop.book(shop.refund(400))
    assert shop.left == 2 * CREDIT
    assert money(shop, "receipts", "revenue", "deferred", "refunded") == (4.0, 2.4, 1.6, 0.0)


def test_used_credits_that_go_back_are_a_debt_and_their_price_is_refunded(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.use(8 * CREDIT)
    shop.book(shop.refund(400))
    assert shop.left == -3 * CREDIT
    assert money(shop, "receipts", "revenue", "deferred", "refunded") == (4.0, 6.4, 0.0, 2.4)
    # A purchase that pays the debt is what was used: the returned credits are no revenue any more.
    shop.buy("u")
    assert shop.left == 7 * CREDIT
    assert money(shop, "receipts", "revenue", "deferred", "refunded") == (12.0, 6.4, 5.6, 0.0)
    assert shop.clean() == []


def test_what_was_bought_later_is_no_revenue_twice(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.book(shop.refund())
    shop.buy("u")
    shop.use(4 * CREDIT)
    shop.draw()
    assert money(shop, "receipts", "revenue", "deferred", "refunded") == (8.0, 3.2, 4.8, 0.0)
    shop.book(shop.refund(failed=True))
    assert shop.left == 16 * CREDIT
    assert (shop.lot("t").remaining_nano, shop.lot("u").remaining_nano) == (6 * CREDIT, 10 * CREDIT)
    assert shop.clean() == []


def test_credits_come_back_into_the_lot_they_left(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.move(Kind.PROMOTION, 10 * CREDIT, priority=200)
    shop.use(6 * CREDIT)
    shop.book(shop.dispute())
    assert [row.remaining_nano // CREDIT for row in shop.lots()] == [0, 4]
    shop.now_ns += 40 * DAY_NS
    shop.book(shop.dispute(won=True))
    shop.draw()
    assert [row.remaining_nano // CREDIT for row in shop.lots()] == [4, 10]
    assert money(shop, "receipts", "revenue", "deferred", "refunded") == (8.0, 4.8, 3.2, 0.0)
    assert len(shop.read(paid_lots, shop.wallet, 10)) == 1


@pytest.mark.parametrize("days", [0, 30])
def test_credits_that_come_back_keep_the_expiry_of_their_lot(database: Database, days: int) -> None:
    """Those that never expire still never do; those whose time was up meanwhile expire at once, as breakage."""
    shop = Shop(database, expires_days=days)
    shop.buy()
    expiry = shop.lot().expires_at_ns
    shop.book(shop.dispute())
    shop.now_ns += 31 * DAY_NS
    shop.book(shop.dispute(won=True))
    shop.now_ns += 400 * DAY_NS
    shop.draw()
    assert shop.lot().expires_at_ns == expiry
    assert shop.left == (0 if days else 10 * CREDIT)
    assert money(shop, "breakage", "deferred") == ((8.0, 0.0) if days else (0.0, 8.0))
    assert shop.clean() == []


def test_credits_that_expired_before_the_refund_are_refunded_breakage(database: Database) -> None:
    shop = Shop(database, expires_days=30)
    shop.buy()
    shop.use(2 * CREDIT)
    shop.draw()
    shop.now_ns += 31 * DAY_NS
    shop.book(shop.refund(640))
    assert shop.left == 0
    assert money(shop, "receipts", "revenue", "breakage", "refunded") == (1.6, 1.6, 6.4, 6.4)
    shop.book(shop.refund(160, name="re2"))
    assert shop.left == -2 * CREDIT
    shop.book(shop.refund(640, failed=True))
    assert shop.left == 0
    assert money(shop, "receipts", "refunded") == (6.4, 1.6)
    assert shop.clean() == []


def test_giving_credits_back_by_hand_and_then_the_money_at_stripe_is_one_refund(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    lot_id = shop.lot().id
    shop.move(Kind.REFUND, 5 * CREDIT, lot_id=lot_id)
    shop.book(shop.refund(400))
    assert (shop.left, *money(shop, "receipts")) == (5 * CREDIT, 4.0)
    # The rest is refunded at Stripe alone.
    shop.now_ns += DAY_NS
    shop.book(shop.refund(400, name="re2"))
    assert (shop.left, *money(shop, "receipts")) == (0, 0.0)
    # What people gave back stays back when a refund fails.
    for name in ("re", "re2"):
        shop.book(shop.refund(400, name=name, failed=True))
    assert (shop.left, *money(shop, "receipts")) == (5 * CREDIT, 4.0)
    assert shop.clean() == []


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.WITHDRAWAL])
def test_a_refund_at_stripe_takes_no_more_than_people_left(database: Database, kind: Kind) -> None:
    shop = Shop(database)
    shop.buy()
    lot_id = shop.lot().id if kind is Kind.REFUND else 0
    shop.book(shop.refund(200))
    shop.now_ns += DAY_NS
    shop.move(kind, 75 * CREDIT // 10, lot_id=lot_id)
    assert (shop.left, *money(shop, "receipts")) == (0, 0.0)
    with pytest.raises(NotEnough):
        shop.move(kind, CREDIT, lot_id=lot_id)
    shop.now_ns += DAY_NS
    shop.book(shop.dispute())
    assert (shop.left, *money(shop, "receipts", "deferred", "refunded")) == (0, 0.0, 0.0, 0.0)
    assert shop.clean() == []


def test_after_a_transfer_the_wallet_that_paid_owes_the_refund(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    friend = shop.name("friend")
    shop.move(Kind.TRANSFER, 6 * CREDIT, to_wallet=friend)
    shop.book(shop.refund())
    assert (shop.left, shop.read(balance, wallet_account(friend))) == (-6 * CREDIT, 6 * CREDIT)
    # What the friend has is still to be used: its price is deferred, and refunded once.
    assert money(shop, "receipts", "deferred", "refunded") == (0.0, 4.8, 4.8)
    shop.book(shop.refund(failed=True))
    assert (shop.left, *money(shop, "receipts", "deferred", "refunded")) == (4 * CREDIT, 8.0, 8.0, 0.0)
    assert shop.clean() == []


def test_cash_in_falls_no_lower_than_nothing_when_more_goes_back_than_was_paid(database: Database) -> None:
    shop = Shop(database)
    before = shop.report().cash_in_nanousd
    shop.buy()
    shop.book(shop.refund(400))
    shop.book(shop.dispute(900))
    assert shop.report().cash_in_nanousd - before == 0
    assert (shop.left, *money(shop, "receipts", "refunded")) == (0, 0.0, 0.0)
    (over,) = [one for one in shop.read(unmatched_between, *ALL_DAYS) if one.id == shop.name("du")]
    assert (over.kind, over.amount_minor, over.reason) == ("dispute", 900, "it is more than was paid")
    shop.book(shop.dispute(900, won=True))
    assert shop.report().cash_in_nanousd - before == 4 * USD
    assert not [one for one in shop.read(unmatched_between, *ALL_DAYS) if one.id == shop.name("du")]


def test_a_deposit_without_a_price_has_no_revenue_to_give_back(database: Database) -> None:
    shop = Shop(database)
    moved = shop.move(Kind.DEPOSIT, 5 * CREDIT)
    shop.use(2 * CREDIT)
    shop.move(Kind.REFUND, 0, lot_id=moved.lot_id)
    assert (shop.left, *money(shop, "receipts", "revenue", "refunded")) == (0, 0.0, 0.0, 0.0)


def test_amounts_that_change_move_credits_in_both_directions(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    dispute = shop.dispute(200)
    left = []
    for amount in (200, 800, 400):
        shop.now_ns += DAY_NS
        shop.book(dispute._replace(amount_minor=amount, created_at_ns=shop.now_ns))
        left.append(shop.left / CREDIT)
    # An event from before that comes late changes nothing.
    shop.book(dispute._replace(amount_minor=800, created_at_ns=shop.now_ns - DAY_NS))
    assert (left, shop.left / CREDIT) == ([7.5, 0.0, 5.0], 5.0)


BAD_RETURNS: dict[str, tuple[dict[str, Any], str]] = {
    "of a payment that is not known": ({"payment_intent": "pi_nobody"}, "its payment is not known"),
    "in another currency": ({"currency": "EUR"}, "it is in another currency than its payment"),
}


@pytest.mark.parametrize("what", BAD_RETURNS)
def test_returns_that_fit_nothing_are_kept_as_unmatched_and_change_nothing(database: Database, what: str) -> None:
    changes, reason = BAD_RETURNS[what]
    shop = Shop(database)
    shop.buy()
    before = (shop.state(), count_in(database)["refund"])
    bad = shop.refund(name="bad")._replace(**changes)
    for _ in range(2):
        shop.book(bad)
    assert shop.state() == before[0]
    assert count_in(database)["refund"] == before[1] + 1
    listed = shop.read(differences, [], NOW_NS - DAY_NS, NOW_NS + DAY_NS)
    (found,) = [one for one in listed if one.side is Side.UNMATCHED and one.id == bad.return_id]
    assert found.why == reason
    # It failed: nothing is left to match.
    shop.book(bad._replace(progress=2, taken=False))
    assert (shop.state(), count_in(database)["refund"]) == before
    assert shop.clean() == []


def test_one_payment_of_two_top_ups_pays_the_first_and_is_kept_for_people(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.order("u")
    again = shop.paid("u")._replace(payment_intent=shop.name("pi_t"))
    for _ in range(2):
        assert shop.book(again).startswith("unmatched: the payment already paid top-up")
    assert shop.left == 10 * CREDIT
    assert shop.read(topup_by_key, shop.name("u")).state == TopupState.OPEN
    kept = [one for one in shop.read(unmatched_between, *ALL_DAYS) if one.kind == "payment"]
    assert [(one.id, one.amount_minor) for one in kept if one.id == shop.name("pi_t")] == [(shop.name("pi_t"), 800)]
    shop.book(shop.refund())
    assert shop.left == 0
    # The second order can still be paid by a payment of its own.
    shop.book(shop.paid("u"))
    assert (shop.left, shop.clean()) == (10 * CREDIT, [])


def test_an_event_of_last_year_is_booked_today_and_changes_no_day_of_last_year(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.draw()
    past = shop.report()
    shop.now_ns += 370 * DAY_NS
    shop.book(shop.refund()._replace(created_at_ns=NOW_NS, made_at_ns=NOW_NS))
    assert shop.left == 0
    made = [row for row in shop.read(days_of_money) if row.source == "refund" and row.day < shop.now_ns // DAY_NS]
    assert made == []
    assert shop.report().cash_in_nanousd == past.cash_in_nanousd - 8 * USD


def days_of_money(connection: Any, _tenant_id: int) -> Any:
    from farebox_collector.ledger.tables.rollups import money_days
    from sqlalchemy import select

    return connection.execute(select(money_days)).all()


def count_in(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return count_unmatched(connection)


def test_an_open_checkout_is_the_wallets_own(database: Database) -> None:
    """Two wallets, one pack: neither is led to the page of the other, nor to one whose time is up."""
    ada, bob = Shop(database), Shop(database)
    pack = ada.read(pack_in_force, ada.pack)
    ada.order()
    topup = ada.read(topup_by_key, ada.name("t"))
    database.transact(lambda connection: keep_checkout(connection, topup.id, "cs", "https://s.example", NOW_NS + 10))
    assert ada.read(open_checkout, ada.wallet, pack.id, NOW_NS + 9).id == topup.id
    assert ada.read(open_checkout, ada.wallet, pack.id, NOW_NS + 10) is None
    assert bob.read(open_checkout, bob.wallet, pack.id, NOW_NS + 9) is None
    assert ada.read(open_checkout, ada.wallet, pack.id + 1, NOW_NS + 9) is None
    with database.reading() as connection:
        assert open_checkout(connection, 2, ada.wallet, pack.id, NOW_NS + 9) is None


def test_a_pack_that_would_not_fit_the_books_is_refused_before_it_is_paid(database: Database) -> None:
    shop = Shop(database, credits=CREDIT)
    room = MAX_SUM_NANO - CREDIT
    shop.move(Kind.DEPOSIT, MAX_MOVEMENT_NANO)
    shop.move(Kind.DEPOSIT, room - MAX_MOVEMENT_NANO)
    shop.order()
    shop.move(Kind.DEPOSIT, 1)
    pack = shop.read(pack_in_force, shop.pack)
    with pytest.raises(AmountError, match="out of range"):
        shop.run(order, wanted=Order(shop.name("u"), shop.name("u"), shop.wallet, pack, livemode=False))


def test_reconciling_names_what_is_out_that_should_not_be_and_fees(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    at_s = NOW_NS // 10**9
    intent, key = shop.name("pi_t"), shop.name("t")
    payment = Listed("payment", intent, intent, key, "USD", 800, at_s)
    fee = Listed("fee", "txn_missing", intent, key, "USD", 53, at_s)

    def found(*listed: Listed, **more: Any) -> list[tuple[str, str, str]]:
        days = (NOW_NS - DAY_NS, NOW_NS + DAY_NS)
        with database.reading() as connection:
            every = differences(connection, 1, listed, *days, **more)
        return [(str(one.side), one.kind, one.why) for one in every if one.payment_intent == intent]

    assert found(payment) == []
    assert found(payment, fee) == [("only at Stripe", "fee", f"the fee of top-up {key} is not booked")]
    assert found(payment, fee, fees_until_ns=NOW_NS) == []
    shop.book(shop.dispute(won=True)._replace(fees=()))
    shop.book(shop.refund(400))
    refund = Listed("refund", shop.name("re"), intent, "", "USD", 400, at_s)
    assert found(payment, refund) == []
    with database.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE topups SET returned_minor = 300 WHERE key = '{key}'")
    ((side, kind, why),) = found(payment, refund)
    assert (side, kind) == ("different", "payment")
    assert "400 minor units of it were returned" in why
    assert any(line.startswith("returns") for line in shop.clean())


def test_a_lot_that_is_out_by_other_figures_than_its_returns_turns_the_audit_red(database: Database) -> None:
    shop = Shop(database)
    shop.buy()
    shop.book(shop.refund(400))
    assert shop.clean() == []
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE payment_returns SET wanted = 0")
    (mismatch,) = [line for line in shop.clean() if line.startswith("returns")]
    assert shop.name("t") in mismatch
    database.transact(lambda connection: draw_up(connection, 1, shop.wallet, shop.now_ns))


@pytest.mark.parametrize(("length", "kept"), [(2_000, True), (2_001, False), (0, False)])
def test_a_receipts_address_is_kept_up_to_2000_characters(database: Database, length: int, kept: bool) -> None:
    shop = Shop(database)
    shop.buy()
    topup = shop.read(topup_by_key, shop.name("t"))
    address = ("https://r.example/" + "x" * length)[:length]
    database.transact(lambda connection: note_receipt(connection, topup, address))
    (row,) = shop.read(paid_lots, shop.wallet, 1)
    metadata = json.loads(row.metadata)
    assert metadata["topup"] == topup.key
    assert metadata.get("receipt_url") == (address if kept else None)


def test_a_deposit_without_a_price_is_worth_its_credits_at_list(database: Database) -> None:
    """By the API and the command line; the same key again is the same deposit, also at another price of a credit."""
    shop = Shop(database)
    wanted = Movement(Kind.DEPOSIT, shop.wallet, 5 * CREDIT, at_list=True)
    for price in ("0.8", "2"):
        with database.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE tenants SET usd_per_credit = '{price}' WHERE id = 1")
        made = shop.run(move, movement=wanted, idempotency_key=shop.name("d"))
    assert made.repeated
    assert money(shop, "receipts", "deferred") == (4.0, 4.0)
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE tenants SET usd_per_credit = '1000000000' WHERE id = 1")
    with pytest.raises(AmountError, match="state price_usd"):
        shop.run(move, movement=wanted._replace(amount_nanocredits=MAX_NANO // 2), idempotency_key=shop.name("e"))


@pytest.mark.parametrize("first", ["refund", "dispute"])
def test_of_two_returns_that_come_to_more_than_was_paid_the_later_is_unmatched(database: Database, first: str) -> None:
    """Whichever is told first; as soon as the other stands no more, it is matched."""
    shop = Shop(database)
    shop.buy()
    facts = {"refund": shop.refund(400), "dispute": shop.dispute(name="du")}
    facts["dispute"] = facts["dispute"]._replace(made_at_ns=shop.now_ns + 10**9)
    for kind in sorted(facts, key=lambda kind: kind != first):
        shop.book(facts[kind])
    ours = {shop.name("re"), shop.name("du")}
    assert [one.id for one in shop.read(unmatched_between, *ALL_DAYS) if one.id in ours] == [shop.name("du")]
    shop.book(shop.refund(400, failed=True))
    assert not [one for one in shop.read(unmatched_between, *ALL_DAYS) if one.id in ours]
