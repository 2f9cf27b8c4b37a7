"""The worked month of the page on money: the ledger, and arithmetic that knows nothing of it, give its figures."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from calls import call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.payments.packs import PackTerms, pack_in_force, set_pack
from farebox_collector.ledger.payments.payment_facts import Fee, Paid, Returned
from farebox_collector.ledger.payments.payment_fees import book_fee
from farebox_collector.ledger.payments.provider_events import book
from farebox_collector.ledger.payments.topups import Order, order, topup_by_key
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.moments import DAY_NS, Days, day_of
from farebox_collector.surfaces.api.report_catalogue import REPORTS, Question

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "finance.md"
MONTH = "## A worked month"
FIRST = day_of(int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 10**9)
OCTOBER = Days(FIRST, FIRST + 31)
NANO = 10**9
WORDS = {
    r"(?P<wallet>\w+) buys (?P<amount>[\d.]+) credits for \$(?P<price>[\d.]+), and the payment provider keeps"
    r" \$(?P<fee>[\d.]+)": "buy",
    r"(?P<wallet>\w+) deposits (?P<amount>[\d.]+) credits(?: that expire on day (?P<ends>\d+))?"
    r"(?: for \$(?P<price>[\d.]+))?": "deposit",
    r"(?P<wallet>\w+) gets a promotion of (?P<amount>[\d.]+) credits": "promote",
    r"(?P<wallet>\w+) uses (?P<amount>[\d.]+) credits, at a cost of \$(?P<cost>[\d.]+)": "use",
    r"what (?P<wallet>\w+) has left expires": "expire",
    r"(?P<wallet>\w+) gets \$(?P<price>[\d.]+) back": "refund",
}


def steps() -> Iterator[tuple[str, int, dict[str, str | None]]]:
    """What happens, by the page: the word for it, the day, and its figures."""
    for day, what in re.findall(r"^\| (\d+) \| (.+) \|$", _section(), re.M):
        name, found = next((name, found) for words, name in WORDS.items() if (found := re.fullmatch(words, what)))
        yield name, int(day), found.groupdict()


def stated() -> dict[str, Fraction]:
    """The figures of the page, by their line without its sign."""
    rows = re.findall(r"^\| (?:[−+=] )?([a-z ]+) \| ([\d.]+) \|$", _section(), re.M)
    return {name: Fraction(figure) for name, figure in rows}


def _section() -> str:
    return PAGE.read_text(encoding="utf-8").partition(MONTH)[2]


class Arithmetic:
    """The month on paper: each wallet has one paid lot at a time, which it uses up before the next."""

    def __init__(self) -> None:
        self.sums: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.paid: dict[str, list[Fraction]] = {}
        """Wallet → unused credits, used credits, price of one."""
        self.free: defaultdict[str, Fraction] = defaultdict(Fraction)

    def buy(self, wallet: str, amount: Fraction, price: Fraction, fee: Fraction) -> None:
        self.deposit(wallet, amount, price)
        self.sums["fees"] += fee

    def deposit(self, wallet: str, amount: Fraction, price: Fraction | None = None, ends: Any = None) -> None:
        price = amount if price is None else price
        self.paid[wallet] = [amount, Fraction(0), price / amount]
        self.sums["sold"] += price

    def promote(self, wallet: str, amount: Fraction) -> None:
        self.free[wallet] += amount

    def use(self, wallet: str, amount: Fraction, cost: Fraction) -> None:
        self.sums["charge value"] += amount
        self.sums["cost"] += cost
        given = min(self.free[wallet], amount)
        lot = self.paid.setdefault(wallet, [Fraction(0)] * 3)
        drawn = min(lot[0], amount - given)
        lot[0], lot[1] = lot[0] - drawn, lot[1] + drawn
        self.sums["promotional credits"] += given
        self.sums["revenue"] += drawn * lot[2]
        self.sums["discounts"] += drawn * (1 - lot[2])
        self.sums["overdraft not paid yet"] += amount - given - drawn

    def expire(self, wallet: str) -> None:
        self.sums["breakage"] += self.paid[wallet][0] * self.paid[wallet][2]
        self.paid[wallet][0] = Fraction(0)

    def refund(self, wallet: str, price: Fraction) -> None:
        unused, used, each = self.paid[wallet]
        unused_back = min(unused, price / each)
        self.sums["returned"] += unused_back * each
        self.sums["refunds of used credits"] += price - unused_back * each
        self.paid[wallet] = [unused - unused_back, used, each]

    def figures(self) -> dict[str, Fraction]:
        found = dict(self.sums)
        costs = found["cost"] + found["fees"]
        found["profit"] = found["revenue"] + found["breakage"] - found["refunds of used credits"] - costs
        closing = sum((lot[0] * lot[2] for lot in self.paid.values()), Fraction(0))
        found |= {"opening": Fraction(0), "closing": closing, "change of deferred revenue": closing}
        found["cash in"] = found["sold"] - found["returned"] - found["refunds of used credits"]
        return found | {"used": found["revenue"], "expired": found["breakage"]}


class Books:
    """The same month in the ledger."""

    def __init__(self, database: Database) -> None:
        self.database, self.number = database, 0
        self.at_ns = FIRST * DAY_NS
        self.names: set[str] = set()

    def run(self, work: Callable[..., Any], **facts: Any) -> Any:
        return self.database.transact(lambda connection: work(connection, 1, at_ns=self.at_ns, **facts))

    def _move(self, kind: Kind, wallet: str, amount: str, **more: Any) -> None:
        self.number += 1
        movement = Movement(kind, wallet, _nano(amount), **more)
        self.run(move, movement=movement, idempotency_key=f"k{self.number}")

    def buy(self, wallet: str, amount: str, price: str, fee: str) -> None:
        self.run(set_pack, terms=PackTerms("hundred", _nano(amount), "USD", _minor(price)), author="t", reason="r")
        pack = self.run(lambda connection, tenant, at_ns: pack_in_force(connection, tenant, "hundred"))
        self.run(order, wanted=Order("t", "t", wallet, pack, livemode=False))
        self.run(book, fact=Paid("t", "pi", "USD", _minor(price), self.at_ns))

        def withhold(connection: Any, tenant_id: int, at_ns: int) -> None:
            topup = topup_by_key(connection, tenant_id, "t")
            assert topup is not None
            assert book_fee(connection, topup, Fee("txn", "USD", _minor(fee)), at_ns)

        self.run(withhold)

    def deposit(self, wallet: str, amount: str, price: str | None, ends: str | None) -> None:
        expires_ns = (FIRST + int(ends) - 1) * DAY_NS if ends else None
        nanousd = _nano(price) if price else 0
        self._move(Kind.DEPOSIT, wallet, amount, price_nanousd=nanousd, at_list=not price, expires_at_ns=expires_ns)

    def promote(self, wallet: str, amount: str) -> None:
        self._move(Kind.PROMOTION, wallet, amount)

    def use(self, wallet: str, amount: str, cost: str) -> None:
        self.number += 1
        made = call(self.number, trace=self.number, wallet=wallet, cost_nanousd=_nano(cost), start_ns=self.at_ns)
        made = made._replace(charge_nanocredits=_nano(amount))
        with self.database.transaction() as connection:
            record_usage(connection, 1, [made], self.at_ns, TotalLabels())
        self.names.add(wallet)

    def expire(self, wallet: str) -> None:
        self.run(draw_up, wallet=wallet)

    def refund(self, wallet: str, price: str) -> None:
        self.run(book, fact=Returned("re", "refund", "pi", "USD", _minor(price), 1, True, self.at_ns))

    def end(self) -> None:
        for wallet in sorted(self.names):
            self.run(draw_up, wallet=wallet)


def _nano(text: str) -> int:
    return int(Decimal(text) * NANO)


def _minor(text: str) -> int:
    return int(Decimal(text) * 100)


def test_the_page_has_the_figures_of_plain_arithmetic() -> None:
    paper = Arithmetic()
    for name, _, facts in steps():
        given = {key: text if key == "wallet" else text and Fraction(text) for key, text in facts.items()}
        getattr(paper, name)(**given)
    found, said = paper.figures(), stated()
    assert len(said) > 15
    assert {name: found[name] for name in said} == said
    margins = re.findall(r"([\d.]+) %", _section())
    expected = (found["profit"] / found["revenue"], 1 - found["cost"] / found["charge value"])
    assert margins == [f"{float(round(share * 100, 2)):.2f}" for share in expected]


@pytest.mark.parametrize("by_month", [False, True])
def test_the_ledger_has_the_figures_of_the_page(database: Database, by_month: bool) -> None:
    books, said = Books(database), stated()
    for name, day, facts in steps():
        books.at_ns = (FIRST + day - 1) * DAY_NS + (DAY_NS // 2 if name != "expire" else 1)
        getattr(books, name)(**facts)
    books.end()
    days = Days(FIRST - 20, FIRST + 45) if by_month else OCTOBER
    with database.reading() as connection:

        def report(name: str) -> Any:
            groups = REPORTS[name].groups[:1] if by_month else ()
            rows: list[Any] = list(REPORTS[name].rows(connection, 1, Question(days, groups)))
            return next(row for row in rows if row.month == ("2026-10" if by_month else None))

        bridge, deferred = report("bridge"), report("deferred")
        owed: Any = REPORTS["receivables"].total(connection, 1, Question(Days(FIRST + 30, FIRST + 31)))
        assert [str(mismatch) for mismatch in audit(connection)] == []
    lines = {
        "promotional credits": "promotional",
        "overdraft not paid yet": "unpaid_overdraft",
        "refunds of used credits": "refunds",
        "change of deferred revenue": "deferred_change",
    }
    for name, figure in said.items():
        row = deferred if name in ("opening", "sold", "used", "expired", "returned", "closing") else bridge
        column = lines.get(name, name.replace(" ", "_"))
        assert Fraction(getattr(row, f"{column}_usd")) == figure, name
    assert (bridge.margin_percent, bridge.margin_at_list_percent) == ("49.00", "52.33")
    assert Decimal(owed.receivable_usd) == Decimal(bridge.timing_usd) + 16
