"""The machine of `chained_machine` with payments: top-ups, refunds, disputes, fees and automatic top-ups."""

import operator
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.hold_release import standing_of
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.journal.journal import Account, balance, wallet_account
from farebox_collector.ledger.payments import auto_topups
from farebox_collector.ledger.payments.packs import pack_in_force
from farebox_collector.ledger.payments.payment_facts import (
    Fee,
    NotPaid,
    Paid,
    Returned,
)
from farebox_collector.ledger.payments.payment_fees import book_or_wait
from farebox_collector.ledger.payments.provider_events import book
from farebox_collector.ledger.payments.topups import (
    Order,
    PaymentMethod,
    order,
    topup_by_key,
)
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.model.money import Commodity
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import select
from torture.chained_machine import ChainedMachine
from torture.money_machine import BEGIN_NS, CLUB, HOUR_NS, LATE, MS_NS, SHOP, UNKNOWN, credit_amounts, tenants
from torture.money_model import PACK_CREDITS, PACK_MINOR, Automatic, Lot, Return, Topup, month_of, spent_in_month
from torture.money_surfaces import Expected, assert_metrics_agree, assert_surfaces_agree

CENT = 10**7
DISPUTE_FEE, PAYMENT_FEE = 1_500, 59
CARD = PaymentMethod("cus", "pm")
shares = st.one_of(st.integers(1, 1_200), st.sampled_from((400, PACK_MINOR)))


class ShopMachine(ChainedMachine):
    """Payments beside all that moves credits."""

    # Orders and payments

    @rule(tenant=tenants, at_once=st.sampled_from((True, True, False)))
    def buy(self, tenant: int, at_once: bool) -> None:
        number = self._number()
        topup = Topup(f"top-{self.ids[tenant]}-{number}", f"pi-{number}", SHOP)
        with self.database.reading() as connection:
            pack = pack_in_force(connection, self.ids[tenant], "pack")
        assert pack is not None
        self._run(tenant, order, wanted=Order(topup.key, topup.key, SHOP, pack, livemode=False))
        self.models[tenant].topups[topup.payment] = topup
        if at_once:
            self._pay(tenant, topup)

    @precondition(lambda self: any(model.topups for model in self.models))
    @rule(data=st.data(), fails=st.booleans())
    def pay(self, data: st.DataObject, fails: bool) -> None:
        """A payment is told, for the first time or again; an automatic one may fail."""
        tenant, topup = self._some_topup(data)
        if fails and topup.automatic and topup.state == "open":
            self._book(tenant, NotPaid(topup.key, "declined"))
            topup.state = "failed"
            automatic = self.models[tenant].automatic
            assert automatic is not None
            if automatic.enabled:
                automatic.enabled = automatic.paused = False
        elif topup.state != "failed":
            self._pay(tenant, topup)

    def _pay(self, tenant: int, topup: Topup) -> None:
        model = self.models[tenant]
        told = self._book(tenant, Paid(topup.key, topup.payment, "USD", PACK_MINOR, self.now_ns, CARD))
        assert told == ("known" if topup.state == "paid" else "paid")
        if topup.state == "paid":
            return
        topup.state, topup.paid_ns = "paid", self.now_ns
        wallet = model.wallets[SHOP]
        price_each = PACK_MINOR * CENT // PACK_CREDITS
        wallet.add(Lot(len(wallet.lots), PACK_CREDITS, price_each, payment=topup.payment))
        if any(one.stands for one in model.returns.values() if one.payment == topup.payment):
            self._pause(tenant)

    def _some_topup(self, data: st.DataObject) -> tuple[int, Topup]:
        tenant = data.draw(st.sampled_from([place for place, model in enumerate(self.models) if model.topups]))
        topups = self.models[tenant].topups
        return tenant, topups[data.draw(st.sampled_from(sorted(topups)))]

    def _book(self, tenant: int, fact: Any) -> str:
        return str(self._run(tenant, book, fact=fact))

    # Refunds, disputes and fees

    @precondition(lambda self: any(model.topups for model in self.models))
    @rule(data=st.data(), kind=st.sampled_from(("refund", "dispute")), minor=shares)
    def give_back(self, data: st.DataObject, kind: str, minor: int) -> None:
        """A refund or a dispute begins, also of a payment that is not told yet."""
        tenant, topup = self._some_topup(data)
        return_id = f"{kind}-{self._number()}"
        self.models[tenant].returns[return_id] = Return(kind, topup.payment, minor, self.now_ns)
        self._tell(tenant, return_id)

    @precondition(lambda self: any(model.returns for model in self.models))
    @rule(data=st.data(), how=st.sampled_from(("won", "lost", "amount", "again", "late")), minor=shares)
    def go_on(self, data: st.DataObject, how: str, minor: int) -> None:
        """A refund fails or has come through, a dispute is won or lost, an amount changes, or old news come again."""
        tenant = data.draw(st.sampled_from([place for place, model in enumerate(self.models) if model.returns]))
        returns = self.models[tenant].returns
        return_id = data.draw(st.sampled_from(sorted(returns)))
        one = returns[return_id]
        if how == "late":
            # The first event is sent again after later ones: nothing changes.
            if one.ended:
                self._book(tenant, self._fact(return_id, one, progress=1, taken=True, minor=one.minor + 1))
            return
        if how == "again" or one.ended:
            self._tell(tenant, return_id, new=False)
            return
        self.now_ns += MS_NS
        one.created_ns = self.now_ns
        if how == "amount":
            one.minor = minor
        else:
            one.ended, one.stands = True, how == "lost"
        self._tell(tenant, return_id)

    def _tell(self, tenant: int, return_id: str, *, new: bool = True) -> None:
        model = self.models[tenant]
        one = model.returns[return_id]
        fees = {f"fee-{return_id}": DISPUTE_FEE} if one.kind == "dispute" else {}
        if one.kind == "dispute" and one.ended and not one.stands:
            fees[f"back-{return_id}"] = -DISPUTE_FEE
        model.fees |= fees
        model.fee_payments |= dict.fromkeys(fees, one.payment)
        told = tuple(Fee(name, "USD", minor) for name, minor in fees.items())
        fact = self._fact(return_id, one, progress=2 if one.ended else 1, taken=one.stands, minor=one.minor)
        self._book(tenant, fact._replace(fees=told))
        if new and one.stands and model.topups[one.payment].state == "paid":
            self._pause(tenant)

    @staticmethod
    def _fact(return_id: str, one: Return, *, progress: int, taken: bool, minor: int) -> Returned:
        return Returned(return_id, one.kind, one.payment, "USD", minor, progress, taken, one.created_ns)

    @precondition(lambda self: any(model.topups for model in self.models))
    @rule(data=st.data())
    def fee_of_payment(self, data: st.DataObject) -> None:
        """Stripe tells what it kept of a payment, before the payment is known or after it, once or again."""
        tenant, topup = self._some_topup(data)
        fee = Fee(f"fee-{topup.payment}", "USD", PAYMENT_FEE)
        with self.database.transaction() as connection:
            known = topup_by_key(connection, self.ids[tenant], topup.key) if topup.state == "paid" else None
            facts = topup.payment, known, fee, "payment", self.now_ns
            book_or_wait(connection, self.ids[tenant], *facts)
        self.models[tenant].fees[fee.fee_id] = fee.fee_minor
        self.models[tenant].fee_payments[fee.fee_id] = topup.payment

    # Automatic top-ups

    @rule(tenant=tenants, below=credit_amounts, packs=st.integers(1, 3))
    def set_automatic(self, tenant: int, below: int, packs: int) -> None:
        model = self.models[tenant]
        terms = auto_topups.AutoTerms(SHOP, True, "pack", below, "USD", packs * PACK_MINOR)
        try:
            self._run(tenant, auto_topups.set_auto_topup, terms=terms, author="t", reason="r")
        except auto_topups.BadAutoTopup:
            assert not any(topup.state == "paid" for topup in model.topups.values())
            return
        model.automatic = Automatic(below, packs * PACK_MINOR)

    @rule(tenant=tenants)
    def resume(self, tenant: int) -> None:
        automatic = self.models[tenant].automatic
        try:
            self._run(tenant, auto_topups.resume, wallet=SHOP, author="t", reason="r")
        except auto_topups.BadAutoTopup:
            assert automatic is None or automatic.enabled
            return
        assert automatic is not None
        automatic.enabled, automatic.paused, automatic.set_aside_until_ns = True, False, 0

    @rule(tenant=tenants)
    def top_up(self, tenant: int) -> None:
        """A round that orders what is wanted: only below the threshold, one in flight, and never above the cap."""
        model = self.models[tenant]
        automatic, topups = model.automatic, list(model.topups.values())
        in_flight = any(topup.automatic and topup.state == "open" for topup in topups)
        balance_nano = model.figures(SHOP, self.now_ns).balance
        due = automatic is not None and automatic.enabled and not in_flight and balance_nano < automatic.below
        due = due and automatic is not None and automatic.set_aside_until_ns <= self.now_ns
        with self.database.reading() as connection:
            found = auto_topups.wallets_below(connection, self.ids[tenant], 10, self.now_ns)
        assert [row.wallet for row in found] == ([SHOP] if due else [])
        if not due or automatic is None:
            return
        number = self._number()
        topup = Topup(f"auto-{self.ids[tenant]}-{number}", f"pi-{number}", SHOP, automatic=True)
        facts = {"terms": found[0], "key": topup.key, "livemode": False}
        ordered = self._run(tenant, auto_topups.order_automatic, **facts)
        fits = spent_in_month(topups, SHOP, self.now_ns) + PACK_MINOR <= automatic.cap_minor
        assert ordered == fits
        if fits:
            model.topups[topup.payment] = topup
            automatic.set_aside_until_ns = 0
        else:
            automatic.set_aside_until_ns = min(self.now_ns + HOUR_NS, _next_month_ns(self.now_ns))

    def _pause(self, tenant: int) -> None:
        automatic = self.models[tenant].automatic
        if automatic is not None and automatic.enabled:
            automatic.enabled, automatic.paused = False, True

    # What must hold

    @rule()
    def look(self) -> None:
        """The lots, balances, money, holds and automatic top-ups of all wallets equal the model."""
        everything = []
        for tenant, model in enumerate(self.models):
            tenant_id = self.ids[tenant]
            names = sorted(name for name in (SHOP, LATE, CLUB, UNKNOWN) if name in model.wallets)
            for name in names:
                self._run(tenant, draw_up, wallet=name)
            figures = {name: model.figures(name, self.now_ns) for name in names}
            with self.database.reading() as connection:
                for name, expected in figures.items():
                    left = [row.remaining_nano for row in lots_of(connection, tenant_id, name, 0, 10_000)]
                    assert left == expected.left, (tenant, name)
                    assert balance(connection, tenant_id, wallet_account(name)) == expected.balance, (tenant, name)
                for kind in ("receipts", "revenue", "deferred", "breakage", "refunded"):
                    field = "received" if kind == "receipts" else kind
                    sign = 1 if kind in ("receipts", "refunded") else -1
                    found = sign * balance(connection, tenant_id, Account(kind, "", Commodity.USD))
                    assert found == sum(map(operator.attrgetter(field), figures.values())), (tenant, kind)
                fees = balance(connection, tenant_id, Account("fees", "stripe", Commodity.USD))
                assert fees == model.booked_fees() * CENT
                calls = model.calls.values()
                charge = sum(model.action_charge(*key) for key in {(call.wallet, call.action) for call in calls})
                money = Expected.of(figures.values(), charge, sum(call.cost for call in calls), fees)
                everything.append(money)
                assert_surfaces_agree(connection, tenant_id, money, BEGIN_NS, self.now_ns)
                rows = {row.id: row for row in connection.execute(select(holds).where(holds.c.tenant_id == tenant_id))}
                for one in model.holds.values():
                    held = one.open(model.action_charge(one.wallet, one.action), self.now_ns)
                    assert standing_of(rows[one.hold_id], self.now_ns).open_nano == held, one
                row = auto_topups.auto_topup(connection, tenant_id, SHOP)
                automatic = model.automatic
                wanted = None if automatic is None else (automatic.enabled, automatic.paused)
                assert (None if row is None else (bool(row.enabled), bool(row.paused))) == wanted
        with self.database.reading() as connection:
            assert_metrics_agree(connection, everything)

    def teardown(self) -> None:
        try:
            self.look()
            with closing(self.database), self.database.reading() as connection:
                assert [str(mismatch) for mismatch in audit(connection)] == []
        finally:
            self._directory.cleanup()


def _next_month_ns(now_ns: int) -> int:
    year, month = month_of(now_ns)
    return int(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()) * 10**9


def try_money(
    new_books: Callable[[Path], str], chosen_by: int, examples: int, steps: int, *, shrink: bool = True
) -> None:
    """So many random histories of money, each on new books; raises what a history ends with that is wrong.

    It is made as short as possible, unless that is not wanted.
    """

    @seed(chosen_by)
    def machine() -> ShopMachine:
        return ShopMachine(new_books)

    phases = [phase for phase in Phase if shrink or phase in (Phase.explicit, Phase.generate)]
    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None, phases=phases)
    run_state_machine_as_test(machine, settings=limits)  # type: ignore[arg-type]  # a factory will do
