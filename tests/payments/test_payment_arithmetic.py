"""Refunds, disputes, usage and payments in any order: nothing is lost, nothing comes twice, and it all adds up."""

from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.movements import (
    RECEIPTS_ACCOUNT,
    Kind,
    Movement,
    move,
)
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.payments.packs import PackTerms, pack_in_force, set_pack
from farebox_collector.ledger.payments.payment_facts import Paid, Returned
from farebox_collector.ledger.payments.provider_events import book
from farebox_collector.ledger.payments.topups import Order, order
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import round_half_even
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from payments.orders import OneTransaction

NOW_NS = 1_767_300_000 * 10**9
CREDITS, PRICE_MINOR, NANOUSD_A_MINOR = 1_001, 777, 10**7
NUMBERS = count(1)

AMOUNT = st.integers(1, PRICE_MINOR)
FACT = st.one_of(
    st.tuples(st.just("paid"), st.just(0), st.just(0), st.just(True)),
    st.tuples(st.sampled_from(["refund", "dispute"]), st.integers(0, 2), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("use"), st.integers(1, 400), st.just(0), st.just(True)),
)


class Wallet:
    """One wallet that buys one pack, and what is known of it."""

    def __init__(self, database: OneTransaction, amounts: list[int]) -> None:
        self.database, self.amounts = database, amounts
        self.number = next(NUMBERS)
        self.name, self.intent, self.key = (f"{kind}-{self.number}" for kind in ("wallet", "pi", "topup"))
        self.paid, self.used, self.step = False, 0, 0
        self.returns: dict[str, tuple[int, bool, int]] = {}
        self.receipts_before = self._read(RECEIPTS_ACCOUNT)
        self._write(self._order)

    def _order(self, connection: Any) -> None:
        if pack_in_force(connection, 1, "odd") is None:
            set_pack(connection, 1, PackTerms("odd", CREDITS, "USD", PRICE_MINOR), "test", "", NOW_NS)
        pack = pack_in_force(connection, 1, "odd")
        assert pack is not None
        order(connection, 1, Order(self.key, self.key, self.name, pack, livemode=False), NOW_NS)

    def happens(self, what: str, which: int, progress: int, taken: bool) -> None:
        self.step += 1
        if what == "paid":
            self.paid = True
            self._book(Paid(self.key, self.intent, "USD", PRICE_MINOR, NOW_NS))
        elif what == "use":
            self.used += which
            usage = Movement(Kind.ADJUSTMENT, self.name, -which)
            self._write(
                partial(move, tenant_id=1, movement=usage, idempotency_key=f"{self.key}-{self.step}", at_ns=NOW_NS)
            )
        else:
            # As Stripe tells: what has not begun, is not decided, or was given back holds no money.
            taken = progress == 1 or (taken and progress == 2)
            name, amount = f"{what}-{which}-{self.number}", self.amounts[which]
            known = self.returns.get(name, (-1, False, 0))
            if progress > known[0]:
                self.returns[name] = (progress, taken, amount)
            self._book(Returned(name, what, self.intent, "USD", amount, progress, taken, NOW_NS))

    def check(self) -> None:
        gone = CREDITS - self.used - self._read(wallet_account(self.name)) if self.paid else 0
        receipts = self._read(RECEIPTS_ACCOUNT) - self.receipts_before
        if not self.paid:
            assert (self._read(wallet_account(self.name)), receipts) == (-self.used, 0)
            return
        wanted_minor = min(sum(amount for _, taken, amount in self.returns.values() if taken), PRICE_MINOR)
        back_minor, rest = divmod(PRICE_MINOR * NANOUSD_A_MINOR - receipts, NANOUSD_A_MINOR)
        assert rest == 0
        # Credits went with the money, independent of earlier returns.
        assert (back_minor, gone) == (wanted_minor, round_half_even(CREDITS * wanted_minor, PRICE_MINOR))

    def _book(self, fact: Any) -> None:
        self._write(partial(book, tenant_id=1, fact=fact, at_ns=NOW_NS))

    def _write(self, work: Any) -> Any:
        return self.database.transact(work)

    def _read(self, account: Any) -> int:
        with self.database.reading() as connection:
            return balance(connection, 1, account)


class Undo(Exception):
    """Takes an example back."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(AMOUNT, min_size=3, max_size=3), st.lists(FACT, min_size=2, max_size=9))
def test_what_is_told_of_a_payment_adds_up_in_any_order(
    database: OneTransaction, amounts: list[int], facts: list[tuple[str, int, int, bool]]
) -> None:
    with suppress(Undo), database.transaction() as connection:
        wallet = Wallet(OneTransaction(connection), amounts)
        for fact in facts:
            wallet.happens(*fact)
            wallet.check()
        for what, which in ((what, which) for what in ("refund", "dispute") for which in range(3)):
            if wallet.returns.get(f"{what}-{which}-{wallet.number}", (-1, False, 0))[0] < 2:
                wallet.happens(what, which, 2, False)
        wallet.happens("paid", 0, 0, True)
        wallet.check()
        assert [str(mismatch) for mismatch in audit(connection)] == []
        raise Undo


def test_credits_that_had_expired_are_refunded_without_becoming_a_debt(database: Database) -> None:
    day_ns = 86_400 * 10**9

    def run(work: Any, **more: Any) -> Any:
        return database.transact(partial(work, tenant_id=1, **more))

    with database.transaction() as connection:
        set_pack(connection, 1, PackTerms("short", 1_000, "USD", 800, expires_days=1), "test", "", NOW_NS)
        pack = pack_in_force(connection, 1, "short")
        assert pack is not None
        order(connection, 1, Order("topup_s", "s", "sam", pack, livemode=False), NOW_NS)
    run(book, fact=Paid("topup_s", "pi_s", "USD", 800, NOW_NS), at_ns=NOW_NS)
    run(move, movement=Movement(Kind.ADJUSTMENT, "sam", -200), idempotency_key="use", at_ns=NOW_NS)
    refund = Returned("re_s", "refund", "pi_s", "USD", 600, 1, True, NOW_NS)
    run(book, fact=refund, at_ns=NOW_NS + 2 * day_ns)
    with database.reading() as connection:
        assert [str(mismatch) for mismatch in audit(connection)] == []
        # 750 credits were refunded: all of them are among the 800 that had expired.
        assert balance(connection, 1, wallet_account("sam")) == 0
    run(book, fact=refund._replace(return_id="re_t", amount_minor=200), at_ns=NOW_NS + 2 * day_ns)
    with database.reading() as connection:
        assert [str(mismatch) for mismatch in audit(connection)] == []
        # 50 more had expired; the 200 that were used are owed.
        assert balance(connection, 1, wallet_account("sam")) == -200
