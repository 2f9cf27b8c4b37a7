"""Automatic top-ups against the double: bought once whatever happens in between, bounded, and off after a failure."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.audit import audit
from farebox_collector.ledger.auto_topups import AutoTerms, auto_topup
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.journal import balance, wallet_account
from farebox_collector.ledger.movements import Kind, Movement, move
from farebox_collector.ledger.packs import PackTerms, set_pack
from farebox_collector.ledger.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.topups import payment_method, topups_of
from farebox_collector.money import NANO
from farebox_collector.payments.automatic import AutomaticTopups
from farebox_collector.payments.desk import Account, CheckoutWanted, PaymentDesk, charge_of
from farebox_collector.payments.gateway import GatewayUnavailable
from farebox_collector.settings import Settings
from farebox_collector.stripe_double.delivery import sign
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
        return self.read(balance, wallet_account("ada")) // NANO

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
    # Stripe takes the payment, and whoever asked dies before it hears of it.
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
