"""Books whose clock moves: credits, calls with times of their own, corrections, holds and limits of one tenant."""

from functools import partial
from typing import Any

from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.hold_release import expire_holds, void_hold
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import (
    Kind,
    Moved,
    Movement,
    move,
)
from farebox_collector.ledger.credits.policies import Authorship, Terms, set_policy
from farebox_collector.ledger.credits.spending import Subject
from farebox_collector.ledger.journal.journal import Account, balance, wallet_account
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts, usage_records
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import (
    Cause,
    Correction,
    correct,
    cover,
)
from farebox_collector.ledger.usage.entries import Entry
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from sqlalchemy import select

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS


class LivingBooks:
    """Books of one tenant, at a moment that passes when told to."""

    def __init__(self, database: Database, tenant_id: int = 1) -> None:
        self.database = database
        self.tenant_id = tenant_id
        self.now_ns = START_NS
        self.number = 0

    def run(self, work: Any, **facts: Any) -> Any:
        """Do something in a transaction, now."""
        facts = {"tenant_id": self.tenant_id, "at_ns": self.now_ns} | facts
        return self.database.transact(partial(work, **facts))

    def wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)

    def at(self, seconds: float) -> int:
        """So many seconds after the beginning."""
        return START_NS + int(seconds * SECOND_NS)

    def move(self, kind: Kind, amount: int, wallet: str = "ada", **facts: Any) -> Moved:
        self.number += 1
        moved: Moved = self.run(
            move, movement=Movement(kind, wallet, amount, **facts), idempotency_key=f"{self.tenant_id}-{self.number}"
        )
        return moved

    def priced(self, amount: int, wallet: str = "ada", *, at_ns: int | None = None, **facts: Any) -> PricedUsage:
        """A call that started now, or at another moment, and is charged so much."""
        self.number += 1
        started_ns = self.now_ns if at_ns is None else at_ns
        made = call(self.number, trace=self.number, wallet=wallet, start_ns=started_ns)
        return made._replace(usage=made.usage._replace(**facts), charge_nanocredits=amount)

    def record(self, *calls: PricedUsage) -> list[Verdict]:
        """Record calls in one batch."""
        with self.database.transaction() as connection:
            return record_usage(connection, self.tenant_id, calls, self.now_ns, TotalLabels())

    def use(self, amount: int, wallet: str = "ada", *, at_ns: int | None = None, **facts: Any) -> int:
        """Record one call by itself; returns its number."""
        made = self.priced(amount, wallet, at_ns=at_ns, **facts)
        self.record(made)
        return int.from_bytes(made.usage.span_id, "big")

    def correct(self, number: int, charge: int | None, cause: Cause = Cause.TWIN) -> None:
        """Take a call back, or let it be charged something else."""
        with self.database.transaction() as connection:
            span = usage_records.c.span_id == number.to_bytes(8, "big")
            (stored,) = stored_calls(connection, usage_query(self.tenant_id).where(span))
            if charge is None:
                correction = cover(stored)
            else:
                before = stored.call
                price: dict[str, Any] = {"price_version_ids": "[1]", "rule_version_id": before.rule_version_id or 1}
                money: dict[str, Any] = {"cost_nanousd": before.cost_nanousd or 0, "charge_nanocredits": charge}
                entry = Entry(before._replace(verdict=Verdict.CHARGED, reason="", **price, **money))
                correction = Correction(stored, entry)
            correct(connection, self.tenant_id, cause, [correction], self.now_ns, TotalLabels())

    def ask(
        self, amount: int, wallet: str = "ada", *, key: str = "", action: str = "", seconds: int = 60, **who: str
    ) -> Any:
        """Ask for a hold; returns the answer."""
        self.number += 1
        name = key or f"{self.tenant_id}-hold-{self.number}"
        request = HoldRequest(wallet, amount, name, "chat", action, seconds, **who)
        return self.run(take_holds, wanted=[request])[0]

    def void(self, hold_id: int) -> Any:
        return self.run(void_hold, hold_id=hold_id)

    def sweep(self) -> int:
        """What upkeep does with holds whose time is up."""
        return self.database.transact(lambda connection: expire_holds(connection, self.now_ns))

    def limit(self, subject: Subject, terms: Terms) -> None:
        self.run(set_policy, subject=subject, terms=terms, authorship=Authorship("eve", "because"))

    def draw_up(self, wallet: str = "ada") -> None:
        self.run(draw_up, wallet=wallet)

    def balance(self, account: Account | str = "ada") -> int:
        with self.database.reading() as connection:
            named = wallet_account(account) if isinstance(account, str) else account
            return balance(connection, self.tenant_id, named)

    def held(self, wallet: str = "ada") -> int:
        """What the books count as held of a wallet."""
        table = accounts.c
        mine = (table.tenant_id == self.tenant_id) & (table.kind == "wallet") & (table.name == wallet)
        with self.database.reading() as connection:
            return int(connection.execute(select(table.held_nano).where(mine)).scalar() or 0)

    def hold(self, hold_id: int) -> Any:
        with self.database.reading() as connection:
            return connection.execute(select(holds).where(holds.c.id == hold_id)).one()

    def left(self, wallet: str = "ada") -> list[int]:
        """The remaining amount of each lot, as of the last drawing up."""
        with self.database.reading() as connection:
            return [row.remaining_nano for row in lots_of(connection, self.tenant_id, wallet, 0, 1000)]

    def check(self) -> None:
        """The audit finds nothing."""
        with self.database.reading() as connection:
            assert [str(mismatch) for mismatch in audit(connection)] == []
