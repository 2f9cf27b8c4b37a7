"""Lots: where a wallet's credits come from, and which of them its usage has used up.

Recording usage changes the balance only. Lots are drawn up to the balance later, under the lock of the wallet's
account: the excess of the lots over the balance is usage since the last draw. It is drawn in the documented order:
priority, earliest expiry, promotional before paid, oldest. What no lot can pay is overdraft; the next lot pays it.
Hence balance = remaining of all lots − overdraft, whenever a wallet is drawn up.

As paid credits are used, their price becomes revenue. Usage from before a lot's expiry draws on it, however late it is
reported, even if the rest of the lot has expired. Usage from after it never does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from farebox_collector.ledger.credits.late_revenue import RevenueOfCalls, day_ends
from farebox_collector.ledger.credits.lot import Lot, NewLot
from farebox_collector.ledger.credits.lot_rollups import add_overdraft
from farebox_collector.ledger.credits.lot_rows import LotRows
from farebox_collector.ledger.credits.lot_usage import (
    Unseen,
    Used,
    first_return,
    may_pay,
)
from farebox_collector.ledger.credits.returned_credits import ReturnedCredits, concerns
from farebox_collector.ledger.credits.spending import LimitScope, Subject, held_by_expired
from farebox_collector.ledger.journal.journal import (
    ISSUED_ACCOUNT,
    WALLET,
    Account,
    Leg,
    begin,
    note_activity,
    wallet_account,
)
from farebox_collector.ledger.tables.books import accounts, postings
from farebox_collector.model.money import Commodity

DEFERRED_ACCOUNT = Account("deferred", "", Commodity.USD)
"""The price of unused credits: deferred revenue, as a negative figure."""
REVENUE_ACCOUNT = Account("revenue", "", Commodity.USD)
"""The price of used credits, as a negative figure."""
BREAKAGE_ACCOUNT = Account("breakage", "", Commodity.USD)
"""The price of expired credits, as a negative figure."""
REFUNDED_ACCOUNT = Account("refunded", "", Commodity.USD)
"""Refunds of the price of used or expired credits: they offset revenue and breakage."""
EXPIRED_ACCOUNT = Account("expired", "", Commodity.CREDIT)
"""Credits that expired."""

EXPIRY, RECOGNITION = "expiry", "recognition"


class WalletLots:
    """The lots of one wallet, locked and drawn up to now; `close` writes the changes."""

    def __init__(self, connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> None:
        self._connection = connection
        self._rows = LotRows(connection, tenant_id, wallet)
        self.tenant_id, self.wallet, self._at_ns = tenant_id, wallet, at_ns
        self._legs: list[Leg] = []
        self._revenue = 0
        self._of_calls = RevenueOfCalls()
        self._account = self._lock()
        self.balance: int = self._account.balance_nano
        self.held = self._held()
        self.overdraft: int = self._account.overdraft_nano
        self.lots = sorted(self._rows.open(), key=Lot.order)
        self._owed = self._owed_now()
        self._draw_up()

    def _lock(self) -> Row[Any]:
        columns = accounts.c
        query = (
            select(accounts)
            .where(columns.tenant_id == self.tenant_id, columns.kind == WALLET, columns.name == self.wallet)
            .with_for_update()
        )
        found = self._connection.execute(query).first()
        if found is None:
            # Create the account of a new wallet.
            note_activity(self._connection, self.tenant_id, frozenset({self.wallet}), self._at_ns)
            found = self._connection.execute(query).one()
        return found

    def _held(self) -> int:
        """Return what open holds reserve; an expired hold reserves nothing, even before the sweep closes it."""
        held = int(self._account.held_nano)
        if not held:
            return 0
        subject = Subject(LimitScope.WALLET, self.wallet)
        expired = held_by_expired(self._connection, self.tenant_id, [subject], self._at_ns)
        return held - expired.get(subject, 0)

    def _owed_now(self) -> tuple[int, int]:
        """Return the overdraft, and the part of it that was never paid for: not displaced by a returned payment."""
        return self.overdraft, self.overdraft - sum(lot.displaced - lot.lent for lot in self.lots)

    def _include(self, found: Iterable[Lot]) -> None:
        known = {lot.row.id for lot in self.lots}
        self.lots = sorted([*self.lots, *(lot for lot in found if lot.row.id not in known)], key=Lot.order)

    def _draw_up(self) -> None:
        """Draw usage since the last update on the lots that were valid then, and expire lots."""
        used = sum(lot.remaining for lot in self.lots) - self.overdraft - self.balance
        unseen = Unseen(self._connection, self._account)
        if unseen.first_ns is not None and unseen.last_ns is not None:
            ends = self._ends_between(unseen.first_ns, max(unseen.last_ns, self._at_ns))
            ends = sorted([*ends, *day_ends(unseen.first_ns, unseen.last_ns)])
            parts = unseen.parts(ends) if ends or unseen.gives_back else [Used(used, unseen.first_ns)]
            for amount, at_ns in parts:
                before = self._revenue
                self._draw(amount, at_ns)
                self._of_calls.add(at_ns, self._revenue - before)
                used -= amount
        # Deposits from before lots existed were never drawn on.
        self._draw(used, self._at_ns)
        self._expire(self._at_ns)

    def _ends_between(self, first_ns: int, last_ns: int) -> list[int]:
        """Return the expiries of lots within a period; reopen those that have expired, so that they can be drawn on."""
        ending = self._rows.ending(first_ns, last_ns)
        self._include(ending)
        for lot in self.lots:
            expiry = lot.row.expires_at_ns
            if expiry is not None and first_ns <= expiry <= self._at_ns:
                self._reopen(lot)
        with self._nothing_returned(first_ns):
            pass  # Reopened lots return only the credits that usage has left.
        return sorted({int(lot.row.expires_at_ns) for lot in ending})

    def _reopen(self, lot: Lot) -> None:
        """Undo the expiry of a lot; count the expired credits that were returned as displaced usage."""
        self._let_expire(lot, -self.expired_of(lot.row.id))
        if lot.out_expired:
            lot.displaced += lot.out_expired
            self.overdraft += lot.out_expired
            self.balance -= lot.out_expired
            self._legs += [Leg(wallet_account(self.wallet), -lot.out_expired), Leg(ISSUED_ACCOUNT, lot.out_expired)]
            lot.out_expired = 0

    def _draw(self, amount: int, at_ns: int) -> None:
        """Draw on the lots valid at a moment, in order; a negative amount repays overdraft, then lots drawn last."""
        if not amount:
            return
        with self._nothing_returned(at_ns):
            revenue = self._give_back(-amount, at_ns) if amount < 0 else 0
            for lot in self.lots:
                part = min(lot.remaining, amount)
                if part > 0 and lot.lives_at(at_ns):
                    revenue += lot.draw(part, "draw", self._at_ns)
                    amount -= part
            self.overdraft += max(amount, 0)
            self._recognise(revenue, REVENUE_ACCOUNT)

    @contextmanager
    def _nothing_returned(self, moment_ns: int, *, changing: bool = False) -> Iterator[None]:
        """Undo the returned payments of the wallet for the duration of the block."""
        if not (changing or concerns(self.lots)):
            yield
            return
        first_return_ns = first_return(self._connection, self._account)
        returned = ReturnedCredits(self.lots, self.overdraft, moment_ns, self._at_ns, first_return_ns)
        self.overdraft = returned.overdraft
        yield
        revenue, unused, removed = returned.drop(self.lots, self.overdraft, self.expired_of)
        self.overdraft = returned.overdraft
        self._recognise(revenue, REVENUE_ACCOUNT)
        if unused:
            self._legs += [Leg(DEFERRED_ACCOUNT, unused), Leg(REFUNDED_ACCOUNT, -unused)]
        if removed:
            self.balance -= removed
            self._legs += [Leg(wallet_account(self.wallet), -removed), Leg(ISSUED_ACCOUNT, removed)]
        # Credits that came back to an expired lot expire at once.
        self._expire(moment_ns - 1)

    def _give_back(self, amount: int, moment_ns: int) -> int:
        """Return credits that a correction gave back for calls of a moment; returns the change of revenue.

        They repay the overdraft, then the lots valid at that moment, last drawn first.
        """
        back = min(self.overdraft, amount)
        self.overdraft -= back
        amount -= back
        if not amount:
            return 0
        self._include(self._rows.used_up(moment_ns))
        revenue = 0
        for lot in reversed(self.lots):
            part = min(lot.used, amount)
            if part > 0 and lot.lives_at(moment_ns):
                revenue += lot.draw(-part, "return", self._at_ns)
                amount -= part
        if amount:
            self._insert(NewLot("returned", amount), None)
        return revenue

    def _expire(self, end_ns: int) -> None:
        for lot in self.lots:
            if lot.row.expires_at_ns is not None and lot.row.expires_at_ns <= end_ns:
                self._let_expire(lot, lot.remaining)

    def _let_expire(self, lot: Lot, amount: int) -> None:
        """Expire credits of a lot; a negative amount undoes an expiry."""
        if amount:
            self._recognise(lot.draw(amount, "expire", self._at_ns), BREAKAGE_ACCOUNT)
            self.balance -= amount
            self._legs += [Leg(wallet_account(self.wallet), -amount), Leg(EXPIRED_ACCOUNT, amount)]

    def _recognise(self, nanousd: int, account: Account) -> None:
        if nanousd:
            self._legs += [Leg(DEFERRED_ACCOUNT, nanousd), Leg(account, -nanousd)]
            self._revenue += nanousd if account == REVENUE_ACCOUNT else 0

    def available(self) -> int:
        """Return what can be taken out: the balance less what holds reserve."""
        return self.balance - self.held

    def add(self, lot: NewLot, transaction_id: int | None) -> int:
        """Add a lot, which pays the overdraft first; returns its id. The caller posts its credits."""
        with self._nothing_returned(self._at_ns):
            made = self._insert(lot, transaction_id)
            self.balance += lot.amount_nano
            owed = may_pay(self._connection, self._account, lot, self.overdraft, self._at_ns)
            if owed:
                revenue = made.draw(owed, "draw", self._at_ns)
                self._recognise(revenue, REVENUE_ACCOUNT)
                debt, subject = (self.overdraft, owed), (self._connection, self.tenant_id, self.wallet)
                self._of_calls.add_overdraft(*subject, debt, revenue, self._at_ns)
                self.overdraft -= owed
        return int(made.row.id)

    def take(self, amount: int, kind: str, lot_id: int | None = None) -> list[tuple[Lot, int, int]]:
        """Take unused credits out of lots in order, or out of one; returns (lot, credits, part of the price) of each.

        Raises ValueError if the lots have less.
        """
        parts = []
        for lot in self.lots:
            part = min(lot.remaining, amount)
            if part > 0 and lot_id in (None, lot.row.id):
                parts.append((lot, part, lot.take(part, kind, self._at_ns + bool(lot.out))))
                amount -= part
        if amount:
            raise ValueError("the lots have fewer credits left")
        self.balance -= sum(part for _, part, _ in parts)
        return parts

    def use(self, amount: int) -> None:
        """Use credits as usage would. The caller posts them."""
        self._draw(amount, self._at_ns)
        self.balance -= amount

    def lot(self, lot_id: int) -> Lot:
        """Return a lot of the wallet, used up or not. Raises KeyError if the wallet has no such lot."""
        for lot in self.lots:
            if lot.row.id == lot_id:
                return lot
        used_up = self._rows.lot(lot_id)
        if used_up is None:
            raise KeyError(lot_id)
        self._include([used_up])
        return used_up

    def put_out(self, lot: Lot, out_nano: int) -> list[Leg]:
        """Set how many credits of a lot its returned payment takes back; returns the legs of the change."""
        drawn_up, self._legs = self._legs, []
        with self._nothing_returned(self._at_ns, changing=True):
            lot.out = out_nano
        legs, self._legs = self._legs, drawn_up
        return summed(legs)

    def left_of(self, lot_id: int) -> int | None:
        """Return the remaining credits of a lot; None if the wallet has no such lot."""
        for lot in self.lots:
            if lot.row.id == lot_id:
                return lot.remaining
        return None if self._rows.lot(lot_id) is None else 0

    def expired_of(self, lot_id: int) -> int:
        """Return the credits of a lot that expired unused."""
        unwritten = (
            move for lot in self.lots if lot.row.id == lot_id for move in lot.moves if move["kind"] == "expire"
        )
        return self._rows.expired_of(lot_id) - sum(int(move["amount_nano"]) for move in unwritten)

    def close(self) -> None:
        """Write the lots, post expiry and revenue, and store the posting up to which the wallet is drawn."""
        kind = EXPIRY if any(leg.account == EXPIRED_ACCOUNT for leg in self._legs) else RECOGNITION
        transaction_id = None
        if legs := summed(self._legs):
            transaction = begin(self._connection, self.tenant_id, kind, self._at_ns)
            transaction.post(legs)
            transaction_id = transaction.id
        self._of_calls.keep(self._connection, self.tenant_id, self._at_ns)
        self._rows.write(self.lots, transaction_id)
        changes = [now - before for now, before in zip(self._owed_now(), self._owed, strict=True)]
        add_overdraft(self._connection, self.tenant_id, changes, self._at_ns)
        newest = self._connection.execute(select(func.coalesce(func.max(postings.c.id), 0))).scalar_one()
        self._connection.execute(
            update(accounts)
            .where(accounts.c.id == self._account.id)
            .values(overdraft_nano=self.overdraft, drawn_balance_nano=self.balance, drawn_posting_id=newest)
        )

    def _insert(self, lot: NewLot, transaction_id: int | None) -> Lot:
        made = self._rows.insert(lot, transaction_id, self._at_ns)
        self._include([made])
        return made


def draw_up(connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> None:
    """Draw the lots of a wallet up to its balance."""
    WalletLots(connection, tenant_id, wallet, at_ns).close()


def summed(legs: Sequence[Leg]) -> list[Leg]:
    """Return one leg for each account; omit sums of 0."""
    sums: dict[Account, int] = {}
    for leg in legs:
        sums[leg.account] = sums.get(leg.account, 0) + leg.amount_nano
    return [Leg(account, amount) for account, amount in sums.items() if amount]
