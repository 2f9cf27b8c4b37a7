"""Books with a clock of their own, and what is told of payments; for tests of what order must not matter."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

from calls import call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.hold_release import standing_of
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.journal.journal import Account, balance, wallet_account
from farebox_collector.ledger.payments.packs import PackTerms, pack_in_force, set_pack
from farebox_collector.ledger.payments.payment_facts import Fee, Paid, Returned
from farebox_collector.ledger.payments.payment_fees import fee_of
from farebox_collector.ledger.payments.provider_events import book
from farebox_collector.ledger.payments.topups import Order, order, topup_by_key
from farebox_collector.ledger.reports.money_reports import summaries
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.moments import Days
from farebox_collector.model.money import Commodity
from sqlalchemy import Connection, select

NOW_NS = 1_767_300_000 * 10**9
SECOND_NS, DAY_NS = 10**9, 86_400 * 10**9
CREDIT = USD = 10**9
NUMBERS = count(1)


class Undo(Exception):
    """Takes back what a transaction has done."""


class OneTransaction:
    """Books as one connection sees them; what is done may be taken back at the end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def transact(self, work: Callable[[Connection], Any]) -> Any:
        return work(self.connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        yield self.connection

    transaction = reading

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens within is taken back at its end."""
        with suppress(Undo), self.connection.begin_nested():
            yield
            raise Undo


class Shop:
    """One wallet that buys packs; a `step` after another of what is told and what is used."""

    def __init__(
        self,
        database: Database | OneTransaction,
        *,
        expires_days: int = 0,
        credits: int = 10 * CREDIT,
        of: tuple[int, int] | None = None,
    ) -> None:
        """`of` is a tenant and a number; two shops of one number use the same names."""
        self.database = database
        self.tenant_id, self.number = (1, next(NUMBERS)) if of is None else of
        self.wallet = f"wallet-{self.number}"
        self.now_ns = NOW_NS
        self.steps = count(1)
        self.pack = f"pack-{self.number}"
        self.run(set_pack, terms=PackTerms(self.pack, credits, "USD", 800, expires_days), author="t", reason="r")
        self.before = self.money()

    def undone(self) -> AbstractContextManager[None]:
        """What happens within is taken back at its end; for books in one transaction."""
        assert isinstance(self.database, OneTransaction)
        return self.database.undone()

    def run(self, work: Callable[..., Any], **more: Any) -> Any:
        more.setdefault("at_ns", self.now_ns)
        return self.database.transact(partial(work, tenant_id=self.tenant_id, **more))

    def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with self.database.reading() as connection:
            return work(connection, self.tenant_id, *arguments)

    def name(self, thing: str) -> str:
        """A name that no other shop uses."""
        return f"{thing}-{self.number}"

    def order(self, name: str = "t", expires_days: int | None = None) -> None:
        if expires_days is not None:
            terms = PackTerms(self.pack, 10 * CREDIT, "USD", 800, expires_days)
            self.run(set_pack, terms=terms, author="t", reason="r")
        pack = self.read(pack_in_force, self.pack)
        wanted = Order(self.name(name), self.name(name), self.wallet, pack, livemode=False)
        self.run(order, wanted=wanted)

    def paid(self, name: str = "t", **changes: Any) -> Paid:
        return Paid(self.name(name), self.name(f"pi_{name}"), "USD", 800, self.now_ns)._replace(**changes)

    def refund(self, minor: int = 800, *, of: str = "t", name: str = "re", failed: bool = False) -> Returned:
        facts = (self.name(name), "refund", self.name(f"pi_{of}"), "USD", minor)
        return Returned(*facts, 2 if failed else 1, not failed, self.now_ns)

    def dispute(
        self, minor: int = 800, *, of: str = "t", name: str = "du", won: bool = False, lost: bool = False, fee: int = 0
    ) -> Returned:
        facts = (self.name(name), "dispute", self.name(f"pi_{of}"), "USD", minor)
        fees = (Fee(self.name(f"txn_{name}"), "USD", fee),) if fee else ()
        return Returned(*facts, 2 if won or lost else 1, not won, self.now_ns, fees)

    def book(self, fact: Any) -> str:
        return str(self.run(book, fact=fact))

    def buy(self, name: str = "t") -> None:
        self.order(name)
        self.book(self.paid(name))

    def move(self, kind: Kind, amount: int, **more: Any) -> Any:
        movement = Movement(kind, self.wallet, amount, **more)
        return self.run(move, movement=movement, idempotency_key=self.name(f"move-{next(self.steps)}"))

    def use(self, nano: int, started_at_ns: int | None = None, action_id: str = "") -> None:
        """A call that is charged so many nanocredits; it started now, or at another moment."""
        at_ns = self.now_ns if started_at_ns is None else started_at_ns
        number = self.number * 1_000 + next(self.steps)
        made = call(number, trace=number, wallet=self.wallet)
        usage = made.usage._replace(started_at_ns=at_ns, action_id=action_id or made.usage.action_id)
        made = made._replace(usage=usage, charge_nanocredits=nano, priced_at_ns=at_ns)
        with self.database.transaction() as connection:
            record_usage(connection, self.tenant_id, [made], self.now_ns, TotalLabels())

    def ask(self, nano: int, action_id: str, seconds: int = 600) -> Any:
        """Ask for a hold; returns the answer."""
        wanted = HoldRequest(self.wallet, nano, self.name(f"hold-{next(self.steps)}"), "chat", action_id, seconds)
        return self.run(take_holds, wanted=[wanted])[0]

    @property
    def held(self) -> int:
        """What open holds of the wallet set aside now."""
        with self.database.reading() as connection:
            rows = connection.execute(select(holds).where(holds.c.tenant_id == 1, holds.c.wallet == self.wallet)).all()
        return sum(standing_of(row, self.now_ns).open_nano for row in rows)

    def draw(self) -> None:
        self.database.transact(lambda connection: draw_up(connection, self.tenant_id, self.wallet, self.now_ns))

    @property
    def left(self) -> int:
        return int(self.read(balance, wallet_account(self.wallet)))

    def lot(self, name: str = "t") -> Any:
        topup = self.read(topup_by_key, self.name(name))
        return next(row for row in self.lots() if row.id == topup.lot_id)

    def lots(self) -> Any:
        return self.read(lots_of, self.wallet, 0, 1_000)

    def money(self) -> dict[str, int]:
        """What is in the accounts of money of all wallets."""
        kinds = ("receipts", "deferred", "revenue", "breakage", "refunded", "fees", "withheld")
        return {
            kind: self.read(balance, Account(kind, "stripe" if kind in ("fees", "withheld") else "", Commodity.USD))
            for kind in kinds
        }

    def moved(self) -> dict[str, int]:
        """What came into the accounts of money since this shop opened."""
        return {kind: figure - self.before[kind] for kind, figure in self.money().items()}

    def fees(self, name: str = "t") -> int | None:
        topup = self.read(topup_by_key, self.name(name))
        found: int | None = self.read(fee_of, [topup.id]).get(topup.id)
        return found

    def report(self) -> Any:
        """The summary of all days; figures of calls and of people are left out."""
        with self.database.reading() as connection:
            (summary,) = summaries(connection, self.tenant_id, Days(0, 100_000), by_day=False)
        return summary

    def state(self) -> Any:
        """What must be the same however things were told: balance, lots, money, the fees of the top-up `t`."""
        self.draw()
        figures: tuple[str, ...] = (
            "origin",
            "amount_nano",
            "remaining_nano",
            "taken_nano",
            "recognised_nanousd",
            "returned_nanousd",
        )
        figures += ("out_nano", "out_taken_nano", "displaced_nano", "lent_nano", "expires_at_ns")
        lots = sorted([tuple(row._mapping[name] for name in figures) for row in self.lots()], key=str)
        topup = self.read(topup_by_key, self.name("t"))
        told = (topup.state, topup.returned_minor, topup.back_nanousd) if topup else None
        return self.left, lots, self.moved(), self.fees() if topup else None, told

    def clean(self) -> list[str]:
        with self.database.reading() as connection:
            return [str(mismatch) for mismatch in audit(connection)]
