"""Lots: where a wallet's credits come from, and which of them its usage has used up.

Recording usage moves the balance alone. Which lot paid is worked out later, under the lock of the wallet's account:
what the lots have more than the balance says was used since they were last drawn on, and is drawn in the documented
order: priority, earliest expiry, promotional before paid, oldest. What no lot is left for is overdraft, and the next
lot pays it first. Hence balance = remaining of all lots − overdraft, whenever a wallet is drawn up.

As credits that were paid for are used, their price becomes revenue. Usage from before a lot's expiry draws on it,
however late it is reported, also when the rest of the lot has expired; usage after it never does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, or_, select, tuple_, update

from farebox_collector.ledger.credits.late_revenue import RevenueOfCalls, day_ends
from farebox_collector.ledger.credits.lot import COLUMNS, Lot, NewLot
from farebox_collector.ledger.credits.lot_usage import (
    Unseen,
    Used,
    first_return,
    may_pay,
)
from farebox_collector.ledger.credits.returned_credits import ReturnedCredits, concerns
from farebox_collector.ledger.credits.spending import LimitScope, Subject, held_in_vain
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
from farebox_collector.ledger.tables.credits import lot_moves, lots
from farebox_collector.model.money import Commodity

DEFERRED_ACCOUNT = Account("deferred", "", Commodity.USD)
"""What was paid for credits that are not used yet, as a negative figure."""
REVENUE_ACCOUNT = Account("revenue", "", Commodity.USD)
"""What was paid for credits that usage used up, as a negative figure."""
BREAKAGE_ACCOUNT = Account("breakage", "", Commodity.USD)
"""What was paid for credits that expired, as a negative figure."""
REFUNDED_ACCOUNT = Account("refunded", "", Commodity.USD)
"""What went back of the price of credits that were used or had expired: revenue, or breakage, that was not to be."""
EXPIRED_ACCOUNT = Account("expired", "", Commodity.CREDIT)
"""Credits that expired."""

EXPIRY, RECOGNITION = "expiry", "recognition"
WALLETS_AT_ONCE = 50
_USED_UP_LOTS = 1_000


class WalletLots:
    """The lots of one wallet, locked and drawn up to now; `close` writes what became of them."""

    def __init__(self, connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> None:
        self._connection = connection
        self.tenant_id, self.wallet, self._at_ns = tenant_id, wallet, at_ns
        self._legs: list[Leg] = []
        self._revenue = 0
        self._of_calls = RevenueOfCalls()
        self._account = self._lock()
        self.balance: int = self._account.balance_nano
        self.held = self._held()
        self.overdraft: int = self._account.overdraft_nano
        self.lots = self._load()
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
            # A wallet that is new gets its account here.
            note_activity(self._connection, self.tenant_id, frozenset({self.wallet}), self._at_ns)
            found = self._connection.execute(query).one()
        return found

    def _held(self) -> int:
        """What open holds set aside; one whose time is up holds nothing, before any sweep comes by."""
        held = int(self._account.held_nano)
        if not held:
            return 0
        subject = Subject(LimitScope.WALLET, self.wallet)
        in_vain = held_in_vain(self._connection, self.tenant_id, [subject], self._at_ns)
        return held - in_vain.get(subject, 0)

    def _load(self) -> list[Lot]:
        """Lots with something left, or with a part in returned payments, in the order of drawing."""
        table = lots.c
        concerned = or_(table.remaining_nano > 0, table.out_nano > 0, table.lent_nano > 0)
        return sorted(map(Lot, self._connection.execute(self._query().where(concerned))), key=Lot.order)

    def _query(self) -> Select[Any]:
        return select(lots).where(lots.c.tenant_id == self.tenant_id, lots.c.wallet == self.wallet)

    def _load_used_up(self, moment_ns: int) -> None:
        """Lots that returned credits may go back to, besides those with something left."""
        known = {lot.row.id for lot in self.lots}
        table = lots.c
        rows = self._connection.execute(
            self._query()
            .where(table.remaining_nano == 0, or_(table.expires_at_ns.is_(None), table.expires_at_ns >= moment_ns))
            .order_by(table.id.desc())
            .limit(_USED_UP_LOTS)
        )
        self.lots = sorted([*self.lots, *(Lot(row) for row in rows if row.id not in known)], key=Lot.order)

    def _draw_up(self) -> None:
        """Draw what was used since the last time on the lots that lived then, and let lots expire."""
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
        # Books from before there were lots have deposits that nobody drew on.
        self._draw(used, self._at_ns)
        self._expire(self._at_ns)

    def _ends_between(self, first_ns: int, last_ns: int) -> list[int]:
        """The ends of lots in a time; what has expired of these is as if it had not, until it does again."""
        table = lots.c
        ending = self._query().where(table.expires_at_ns >= first_ns, table.expires_at_ns <= last_ns)
        rows = self._connection.execute(ending).all()
        known = {lot.row.id for lot in self.lots}
        self.lots = sorted([*self.lots, *(Lot(row) for row in rows if row.id not in known)], key=Lot.order)
        for lot in self.lots:
            expiry = lot.row.expires_at_ns
            if expiry is not None and first_ns <= expiry <= self._at_ns:
                self._reopen(lot)
        with self._nothing_returned(first_ns):
            pass  # What is out of reopened lots is what usage has left of them.
        return sorted({int(row.expires_at_ns) for row in rows})

    def _reopen(self, lot: Lot) -> None:
        """Let what has expired of a lot be as if it had not, and what of that went back as if it were used."""
        self._let_expire(lot, -self.expired_of(lot.row.id))
        if lot.out_expired:
            lot.displaced += lot.out_expired
            self.overdraft += lot.out_expired
            self.balance -= lot.out_expired
            self._legs += [Leg(wallet_account(self.wallet), -lot.out_expired), Leg(ISSUED_ACCOUNT, lot.out_expired)]
            lot.out_expired = 0

    def _draw(self, amount: int, at_ns: int) -> None:
        """Draw on the lots that live at a moment, in order; or give back, to the overdraft and those drawn last."""
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
        """For a while the wallet is as if no payment of it had gone back."""
        if not (changing or concerns(self.lots)):
            yield
            return
        first_return_ns = first_return(self._connection, self._account)
        returned = ReturnedCredits(self.lots, self.overdraft, moment_ns, self._at_ns, first_return_ns)
        self.overdraft = returned.overdraft
        yield
        revenue, unused, gone = returned.drop(self.lots, self.overdraft, self.expired_of)
        self.overdraft = returned.overdraft
        self._recognise(revenue, REVENUE_ACCOUNT)
        if unused:
            self._legs += [Leg(DEFERRED_ACCOUNT, unused), Leg(REFUNDED_ACCOUNT, -unused)]
        if gone:
            self.balance -= gone
            self._legs += [Leg(wallet_account(self.wallet), -gone), Leg(ISSUED_ACCOUNT, gone)]
        # What came back to a lot whose time is up.
        self._expire(moment_ns - 1)

    def _give_back(self, amount: int, moment_ns: int) -> int:
        """Credits of calls of a moment that a correction returned.

        They pay the overdraft, then go back where they were drawn last, of the lots that lived at that moment.
        """
        back = min(self.overdraft, amount)
        self.overdraft -= back
        amount -= back
        if not amount:
            return 0
        self._load_used_up(moment_ns)
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
        """Let credits of a lot expire, or with a negative amount be as if they had not."""
        if amount:
            self._recognise(lot.draw(amount, "expire", self._at_ns), BREAKAGE_ACCOUNT)
            self.balance -= amount
            self._legs += [Leg(wallet_account(self.wallet), -amount), Leg(EXPIRED_ACCOUNT, amount)]

    def _recognise(self, nanousd: int, account: Account) -> None:
        if nanousd:
            self._legs += [Leg(DEFERRED_ACCOUNT, nanousd), Leg(account, -nanousd)]
            self._revenue += nanousd if account == REVENUE_ACCOUNT else 0

    def available(self) -> int:
        """What can be taken out: the balance less what is held."""
        return self.balance - self.held

    def add(self, lot: NewLot, transaction_id: int | None) -> int:
        """Put a lot into the wallet, whose balance its posting moves; it pays the overdraft first. Returns its id."""
        with self._nothing_returned(self._at_ns):
            made = self._insert(lot, transaction_id)
            self.balance += lot.amount_nano
            owed = may_pay(self._connection, self._account, lot, self.overdraft, self._at_ns)
            if owed:
                revenue = made.draw(owed, "draw", self._at_ns)
                self._recognise(revenue, REVENUE_ACCOUNT)
                debt, whose = (self.overdraft, owed), (self._connection, self.tenant_id, self.wallet)
                self._of_calls.add_overdraft(*whose, debt, revenue, self._at_ns)
                self.overdraft -= owed
        return int(made.row.id)

    def take(self, amount: int, kind: str, lot_id: int | None = None) -> list[tuple[Lot, int, int]]:
        """Take unused credits out of lots, in order or out of one; returns (lot, credits, part of the price) of each.

        Raises ValueError where the lots have less.
        """
        parts = []
        for lot in self.lots:
            part = min(lot.remaining, amount)
            if part > 0 and lot_id in (None, lot.row.id):
                parts.append((lot, part, lot.take(part, kind, self._at_ns + bool(lot.out))))
                amount -= part
        if amount:
            raise ValueError("the lots have less than that left")
        self.balance -= sum(part for _, part, _ in parts)
        return parts

    def use(self, amount: int) -> None:
        """Use credits up as usage would, for a posting that takes them out of the wallet."""
        self._draw(amount, self._at_ns)
        self.balance -= amount

    def lot(self, lot_id: int) -> Lot:
        """A lot of the wallet, whether it has anything left or not."""
        for lot in self.lots:
            if lot.row.id == lot_id:
                return lot
        used_up = Lot(self._connection.execute(self._query().where(lots.c.id == lot_id)).one())
        self.lots = sorted([*self.lots, used_up], key=Lot.order)
        return used_up

    def put_out(self, lot: Lot, out_nano: int) -> list[Leg]:
        """Let so many credits of a lot be out, its payment having been returned; returns the legs of that."""
        drawn_up, self._legs = self._legs, []
        with self._nothing_returned(self._at_ns, changing=True):
            lot.out = out_nano
        legs, self._legs = self._legs, drawn_up
        return summed(legs)

    def left_of(self, lot_id: int) -> int | None:
        """What is left of a lot; None if the wallet has no such lot."""
        for lot in self.lots:
            if lot.row.id == lot_id:
                return lot.remaining
        known = self._connection.execute(self._query().where(lots.c.id == lot_id)).first()
        return None if known is None else 0

    def expired_of(self, lot_id: int) -> int:
        """Credits of a lot that expired unused."""
        move = lot_moves.c
        written = self._connection.execute(
            select(func.coalesce(func.sum(move.amount_nano), 0)).where(move.lot_id == lot_id, move.kind == "expire")
        ).scalar_one()
        fresh = (now for lot in self.lots if lot.row.id == lot_id for now in lot.moves if now["kind"] == "expire")
        return -int(written) - sum(int(now["amount_nano"]) for now in fresh)

    def close(self) -> None:
        """Write what became of the lots, post expiry and revenue, and note how far the wallet is drawn up."""
        kind = EXPIRY if any(leg.account == EXPIRED_ACCOUNT for leg in self._legs) else RECOGNITION
        transaction_id = None
        if legs := summed(self._legs):
            transaction = begin(self._connection, self.tenant_id, kind, self._at_ns)
            transaction.post(legs)
            transaction_id = transaction.id
        self._of_calls.keep(self._connection, self.tenant_id, self._at_ns)
        changed = [lot for lot in self.lots if any(lot.row._mapping[name] != it for name, it in lot.values().items())]
        if changed:
            self._connection.execute(_UPDATE, [_changed(lot) for lot in changed])
        moves = [move | {"transaction_id": transaction_id} for lot in self.lots for move in lot.changes()]
        if moves:
            self._connection.execute(insert(lot_moves), moves)
        newest = self._connection.execute(select(func.coalesce(func.max(postings.c.id), 0))).scalar_one()
        self._connection.execute(
            update(accounts)
            .where(accounts.c.id == self._account.id)
            .values(overdraft_nano=self.overdraft, drawn_balance_nano=self.balance, drawn_posting_id=newest)
        )

    def _insert(self, lot: NewLot, transaction_id: int | None) -> Lot:
        row = self._connection.execute(
            insert(lots)
            .values(
                tenant_id=self.tenant_id,
                wallet=self.wallet,
                transaction_id=transaction_id,
                origin=lot.origin,
                amount_nano=lot.amount_nano,
                remaining_nano=lot.amount_nano,
                taken_nano=0,
                price_nanousd=lot.price_nanousd,
                recognised_nanousd=0,
                returned_nanousd=0,
                priority=lot.priority,
                promotional=int(lot.promotional),
                expires_at_ns=lot.expires_at_ns,
                created_at_ns=self._at_ns,
            )
            .returning(lots)
        ).one()
        made = Lot(row)
        self.lots = sorted([*self.lots, made], key=Lot.order)
        return made


def draw_up(connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> None:
    """Bring the lots of a wallet up to its balance."""
    WalletLots(connection, tenant_id, wallet, at_ns).close()


def wallets_with_expired_lots(connection: Connection, tenant_id: int, names: Iterable[str], at_ns: int) -> list[str]:
    """Those of some wallets that have a lot whose time is up, and whose balance does not know it yet."""
    table = lots.c
    query = select(table.wallet).distinct().where(table.tenant_id == tenant_id, table.wallet.in_(sorted(names)))
    found = connection.execute(query.where(table.remaining_nano > 0, table.expires_at_ns <= at_ns))
    return sorted(found.scalars())


def wallets_to_draw(
    connection: Connection, at_ns: int, limit: int = WALLETS_AT_ONCE, after: tuple[int, str] = (0, "")
) -> Sequence[tuple[int, str]]:
    """(tenant_id, name) of wallets whose lots are behind their balance, or have one whose time is up.

    In the order of both, those that come after a wallet.
    """
    columns, table = accounts.c, lots.c
    due = select(table.id).where(
        table.tenant_id == columns.tenant_id,
        table.wallet == columns.name,
        table.remaining_nano > 0,
        table.expires_at_ns <= at_ns,
    )
    behind = or_(columns.balance_nano != columns.drawn_balance_nano, due.exists())
    later = tuple_(columns.tenant_id, columns.name) > tuple_(*after)
    query = select(columns.tenant_id, columns.name).where(columns.kind == WALLET, behind, later)
    found = connection.execute(query.order_by(columns.tenant_id, columns.name).limit(limit))
    return [(tenant_id, name) for tenant_id, name in found]


def lots_of(connection: Connection, tenant_id: int, wallet: str, after_id: int, limit: int) -> Sequence[Row[Any]]:
    """The lots of a wallet, oldest first, as they were when it was last drawn up."""
    table = lots.c
    query = select(lots).where(table.tenant_id == tenant_id, table.wallet == wallet, table.id > after_id)
    return connection.execute(query.order_by(table.id).limit(limit)).all()


def summed(legs: Sequence[Leg]) -> list[Leg]:
    """One leg an account, without those that come to nothing."""
    sums: dict[Account, int] = {}
    for leg in legs:
        sums[leg.account] = sums.get(leg.account, 0) + leg.amount_nano
    return [Leg(account, amount) for account, amount in sums.items() if amount]


_UPDATE = update(lots).where(lots.c.id == bindparam("lot")).values({name: bindparam(f"new_{name}") for name in COLUMNS})


def _changed(lot: Lot) -> dict[str, int]:
    return {"lot": lot.row.id, **{f"new_{name}": figure for name, figure in lot.values().items()}}
