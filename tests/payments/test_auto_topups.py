"""Automatic top-ups against the double: bought once in spite of crashes, bounded, and off after a failure."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.payments.auto_topups import (
    AutoTerms,
    BadAutoTopup,
    auto_topup,
    resume,
    set_aside,
    set_auto_topup,
    spent_this_month,
    standing,
)
from farebox_collector.ledger.payments.packs import PackTerms, set_pack
from farebox_collector.ledger.payments.payment_facts import Fee, Paid
from farebox_collector.ledger.payments.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.payments.topups import (
    PaymentMethod,
    keep_payment_method,
    payment_method,
    topups_of,
)
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import NANO
from farebox_collector.payments.automatic_topups import AutomaticTopups
from farebox_collector.payments.desk import (
    Account,
    CheckoutWanted,
    PaymentDesk,
    charge_of,
)
from farebox_collector.payments.stripe_client import GatewayUnavailable, Payment, PaymentFee
from farebox_collector.settings import Settings
from farebox_collector.stripe_double.delivery import sign
from payments.orders import NOW_NS
from payments.orders import Shop as Books
from pydantic import SecretStr
from stripe_double import StripeDouble

CARD_THAT_FAILS_LATER = "4000 0000 0000 0341"


class Shop:
    """A desk over new books, whose customers saved a card."""

    def __init__(self, database: Database, double: StripeDouble, api_base: str = "") -> None:
        account = Account(SecretStr(double.key), SecretStr(double.secret), api_base or double.url)
        self.database, self.double = database, double
        self.desk = PaymentDesk(database, time.time_ns, account)
        self.rounds = AutomaticTopups(self.desk)

    def write(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return self.database.transact(lambda connection: work(connection, 1, *arguments, time.time_ns()))

    def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with self.database.reading() as connection:
            return work(connection, 1, *arguments)

    def save_card(self, card: str = "4242 4242 4242 4242") -> None:
        """Buy a pack with a card that may be kept, and hear of it."""
        self.write(set_pack, PackTerms("starter", 10 * NANO, "USD", 800), "test", "")
        wanted = CheckoutWanted("ada", "starter", "https://a.example", "https://a.example", keep_method=True)
        seen = len(self.double.events())
        self.double.pay(self.desk.checkout(1, wanted, f"order-{time.time_ns()}").topup.checkout_url, card)
        for event in self.double.events()[seen:]:
            body = json.dumps(event).encode()
            self.desk.receive(body, sign(body, self.double.secret, int(time.time())))

    def want(self, cap_minor: int = 2_000) -> None:
        self.desk.set_auto_topup(1, AutoTerms("ada", True, "starter", 2 * NANO, "USD", cap_minor), "test", "")

    def use(self, credits: int) -> None:
        movement = Movement(Kind.ADJUSTMENT, "ada", -credits * NANO)
        self.write(move, movement, f"use-{time.time_ns()}")

    @property
    def left(self) -> int:
        """Whole credits in the wallet; the books must be clean."""
        with self.database.reading() as connection:
            assert [str(mismatch) for mismatch in audit(connection)] == []
        return int(self.read(balance, wallet_account("ada"))) // NANO

    def states(self) -> list[str]:
        """The automatic top-ups, oldest first."""
        return [row.state for row in self.read(topups_of, "ada")[::-1] if row.automatic]

    def payments(self) -> int:
        """How often the wallet's customer was charged."""
        listed = self.double.client.get("/v1/payment_intents?limit=100").json()["data"]
        keys = {row.key for row in self.read(topups_of, "ada")}
        return len([one for one in listed if one["metadata"]["farebox_topup"] in keys and one["status"] == "succeeded"])


@pytest.fixture
def auto_shop(database: Database, double: StripeDouble) -> Shop:
    return Shop(database, double)


def test_a_wallet_that_falls_below_its_threshold_buys_a_pack(auto_shop: Shop) -> None:
    auto_shop.save_card()
    auto_shop.want()
    auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states()) == (10, [])
    auto_shop.use(9)
    for _ in range(2):
        auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states(), auto_shop.payments()) == (11, ["paid"], 2)
    # 2.9 % and 30 cents of each of the two payments.
    assert auto_shop.read(balance, FEES_ACCOUNT) == 2 * 53 * NANO // 100
    auto_shop.use(20)
    auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states()) == (1, ["paid", "paid"])
    # A third would go over the cap of the month.
    auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.payments()) == (1, 3)


def test_a_payment_that_fails_switches_it_off_for_people_to_see(auto_shop: Shop) -> None:
    auto_shop.save_card(CARD_THAT_FAILS_LATER)
    auto_shop.want()
    auto_shop.use(9)
    for _ in range(2):
        auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states()) == (1, ["failed"])
    row = auto_shop.read(auto_topup, "ada")
    assert (row.enabled, row.author) == (0, "farebox")
    assert "declined" in row.reason
    auto_shop.save_card()
    auto_shop.use(10)
    auto_shop.want()
    auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states()) == (11, ["failed", "paid"])


def test_a_crash_after_the_payment_charges_nobody_twice(auto_shop: Shop) -> None:
    auto_shop.save_card()
    auto_shop.want()
    auto_shop.use(9)
    nowhere = Shop(auto_shop.database, auto_shop.double, "http://127.0.0.1:9")
    with pytest.raises(GatewayUnavailable):
        nowhere.rounds.round()
    assert (auto_shop.left, auto_shop.states()) == (1, ["open"])
    # Stripe takes the payment, and the collector dies before the answer arrives.
    topup = auto_shop.read(topups_of, "ada")[0]

    auto_shop.desk.gateway(1).charge_kept_method(charge_of(topup), auto_shop.read(payment_method, "ada"))
    assert (auto_shop.left, auto_shop.states(), auto_shop.payments()) == (1, ["open"], 2)
    auto_shop.rounds.round()
    assert (auto_shop.left, auto_shop.states(), auto_shop.payments()) == (11, ["paid"], 2)


def test_replicas_buy_one_pack_together(auto_shop: Shop) -> None:
    auto_shop.save_card()
    auto_shop.want()
    auto_shop.use(9)
    replicas = [auto_shop]
    if type(auto_shop.database).__name__ == "PostgresqlDatabase":
        url = auto_shop.database._engine.url.render_as_string(hide_password=False)  # type: ignore[attr-defined]
        replicas.append(Shop(assembly.open_books(Settings(database_url=url)), auto_shop.double))
    threads = [threading.Thread(target=replicas[n % len(replicas)].rounds.round) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (auto_shop.left, auto_shop.states(), auto_shop.payments()) == (11, ["paid"], 2)
    for other in replicas[1:]:
        other.database.close()


class QuietStripe:
    """Takes every payment at once, but those of some wallets, which stay on their way."""

    livemode = False

    def __init__(self, shop: Books) -> None:
        self.shop = shop
        self.slow: set[str] = set()
        self.broken: set[str] = set()
        """Wallets about which it never answers."""
        self.tells_fees = False
        self.wallets: dict[str, str] = {}

    def charge_kept_method(self, charge: Any, _method: Any) -> Payment:
        self.wallets[charge.key] = charge.wallet
        self._answer(charge.key)
        return self.payment(f"pi_{charge.key}")

    def payment(self, payment_intent: str) -> Payment:
        key = payment_intent.removeprefix("pi_")
        status = "processing" if self.wallets[key] in self.slow else "succeeded"
        return Payment(payment_intent, status, Paid(key, payment_intent, "USD", 800, self.shop.now_ns))

    def kept(self, payment_intent: str) -> PaymentFee | None:
        key = payment_intent.removeprefix("pi_")
        if key not in self.wallets:
            return None  # Another shop's, of the same books.
        self._answer(key)
        return PaymentFee(Fee(f"txn_{payment_intent}", "USD", 30), "") if self.tells_fees else None

    def _answer(self, key: str) -> None:
        if self.wallets[key] in self.broken:
            raise GatewayUnavailable("answered 500")


class Street:
    """Many wallets that are topped up by themselves, by a Stripe of their own."""

    def __init__(self, database: Database, wallets: int, cap_minor: int = 800) -> None:
        self.shop = Books(database)
        self.stripe = QuietStripe(self.shop)
        self.names = [self.shop.name(f"w{number}") for number in range(wallets)]
        desk: Any = SimpleNamespace(
            database=database, clock=lambda: self.shop.now_ns, is_open=True, gateway=lambda tenant: self.stripe
        )
        self.rounds = AutomaticTopups(desk)

        def ready(connection: Any) -> None:
            for name in self.names:
                keep_payment_method(connection, 1, name, PaymentMethod("cus", "pm"), NOW_NS)
                terms = AutoTerms(name, True, self.shop.pack, 2 * NANO, "USD", cap_minor)
                set_auto_topup(connection, 1, terms, "test", "", NOW_NS)

        database.transact(ready)

    def owe(self, *numbers: int) -> None:
        """Let wallets use eleven credits."""
        for number in numbers:
            movement = Movement(Kind.ADJUSTMENT, self.names[number], -11 * NANO)
            key = f"{self.names[number]}-{next(self.shop.steps)}"
            self.shop.run(move, movement=movement, idempotency_key=key)

    def round(self, times: int = 1) -> None:
        for _ in range(times):
            self.shop.now_ns += 60 * NANO
            self.rounds.round()

    def paid(self, number: int) -> int:
        rows = self.shop.read(topups_of, self.names[number])
        return len([row for row in rows if row.state == "paid"])


def test_wallets_at_their_cap_keep_no_other_wallet_waiting(database: Database) -> None:
    street = Street(database, 55)
    street.owe(*range(54))
    street.round(3)
    assert {street.paid(number) for number in range(54)} == {1}
    street.owe(*range(54))
    street.round(3)
    with database.reading() as connection:
        assert set_aside(connection) == {"month_cap": 54, "processing": 0}
    street.owe(54)
    street.round()
    assert (street.paid(54), street.paid(0)) == (1, 1)
    # A higher cap is looked at in the next round, not in the next month.
    terms = AutoTerms(street.names[7], True, street.shop.pack, 2 * NANO, "USD", 1_600)
    street.shop.run(set_auto_topup, terms=terms, author="test", reason="")
    street.round()
    assert (street.paid(7), street.paid(8)) == (2, 1)
    street.shop.now_ns += 32 * 86_400 * NANO
    street.round(3)
    assert street.paid(8) == 2


def test_payments_on_their_way_keep_no_other_payment_waiting(database: Database) -> None:
    street = Street(database, 55)
    street.stripe.slow = set(street.names[:54])
    street.owe(*range(54))
    street.round(2)
    street.owe(54)
    street.round(3)
    assert street.paid(54) == 1
    with database.reading() as connection:
        assert set_aside(connection)["processing"] == 54
    street.stripe.slow = set()
    street.round(2)
    assert {street.paid(number) for number in range(55)} == {1}


def test_payments_that_stripe_never_answers_for_keep_no_other_payment_and_no_fee_waiting(database: Database) -> None:
    """Five of them, more than a round tries, and the first by number."""
    street = Street(database, 8)
    street.stripe.broken, street.stripe.tells_fees = set(street.names[:5]), True
    street.owe(*range(8))
    with pytest.raises(GatewayUnavailable, match="answered 500"):
        street.round()
    for _ in range(3):
        with suppress(GatewayUnavailable):
            street.round()
    assert [street.paid(number) for number in range(8)] == [0] * 5 + [1] * 3
    assert street.shop.moved()["fees"] == 90 * NANO // 100
    street.stripe.broken = set()
    street.round(2)
    assert {street.paid(number) for number in range(8)} == {1}
    # The same for fees alone, which are asked for once a payment is booked.
    street.owe(*range(8))
    for name in street.names:
        street.shop.run(
            set_auto_topup,
            terms=AutoTerms(name, True, street.shop.pack, 2 * NANO, "USD", 8_000),
            author="test",
            reason="",
        )
    street.stripe.tells_fees = False
    street.round(2)
    street.stripe.tells_fees, street.stripe.broken = True, set(street.names[:5])
    for _ in range(4):
        with suppress(GatewayUnavailable):
            street.round()
    # The five have the fee of their first payment.
    told = 5 + sum(street.paid(number) for number in range(5, 8))
    assert street.shop.moved()["fees"] == told * 30 * NANO // 100


def test_a_pack_that_is_too_large_for_the_books_switches_it_off(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so and keeps no other wallet waiting."""
    street = Street(database, 2)
    monkeypatch.setattr("farebox_collector.ledger.payments.topups.MAX_MOVEMENT_NANO", 20 * NANO)
    terms = PackTerms(street.shop.name("huge"), 30 * NANO, "USD", 800)
    street.shop.run(set_pack, terms=terms, author="t", reason="r")
    wanted = AutoTerms(street.names[0], True, terms.name, 2 * NANO, "USD", 800)
    street.shop.run(set_auto_topup, terms=wanted, author="test", reason="")
    street.owe(0, 1)
    street.round(2)
    row = street.shop.read(auto_topup, street.names[0])
    assert (row.enabled, row.author, street.paid(0), street.paid(1)) == (0, "farebox", 0, 1)
    assert "too large" in row.reason


@pytest.mark.parametrize("kind", ["refund", "dispute"])
def test_it_pauses_when_a_payment_goes_back_until_it_is_resumed(database: Database, kind: str) -> None:
    """Also where the return comes before its payment, or once more after it was resumed."""
    street = Street(database, 1)
    shop = street.shop
    shop.wallet = street.names[0]
    gone = getattr(shop, kind)()
    shop.order()
    shop.book(gone)
    shop.book(shop.paid())
    street.round(2)
    row = shop.read(auto_topup, shop.wallet)
    assert (row.enabled, row.paused, row.author, street.paid(0)) == (0, 1, "farebox", 1)
    assert gone.return_id in row.reason
    with database.reading() as connection:
        assert standing(connection)["paused"] >= 1
    shop.run(resume, wallet=shop.wallet, author="ann", reason="settled")
    row = shop.read(auto_topup, shop.wallet)
    assert (row.enabled, row.paused, row.author) == (1, 0, "ann")
    shop.book(gone)
    street.round(2)
    assert (shop.read(auto_topup, shop.wallet).enabled, street.paid(0)) == (1, 2)
    with pytest.raises(BadAutoTopup, match="nothing to resume"):
        shop.run(resume, wallet=shop.wallet, author="ann", reason="")


def test_a_months_cap_counts_payments_by_their_own_time_and_currency(database: Database) -> None:
    """Ordered in January and paid in February is February's; what another currency cost counts for itself."""
    street = Street(database, 1)
    shop, wallet = street.shop, street.names[0]
    february = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * NANO
    shop.now_ns = february - 65 * NANO
    street.stripe.slow = {wallet}
    street.owe(0)
    street.round()
    assert shop.read(spent_this_month, wallet, "USD", shop.now_ns) == 800
    street.stripe.slow = set()
    street.round()
    assert (street.paid(0), shop.read(spent_this_month, wallet, "USD", shop.now_ns)) == (1, 800)
    assert shop.read(spent_this_month, wallet, "USD", february - 1) == 0
    assert shop.read(spent_this_month, wallet, "EUR", shop.now_ns) == 0
    street.owe(0)
    street.round(3)
    assert street.paid(0) == 1
    shop.now_ns += 28 * 86_400 * NANO
    street.round(2)
    assert street.paid(0) == 2
