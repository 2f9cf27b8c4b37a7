"""The examples of the pages on payments and credits, run as they are written there."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from farebox_collector.ledger.credits.holds import Held
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.credits.policies import Authorship, Terms, set_policy
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.payments.payment_facts import Paid
from farebox_collector.ledger.storage.database import Database
from payments.orders import CREDIT, DAY_NS, USD, Shop

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("how-to/payments.md", "explanation/credits.md")
_BLOCK = re.compile(r"^```example\n(.*?)^```$", re.M | re.S)
EXAMPLES = [(page, block) for page in PAGES for block in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))]
ACCOUNTS = {"received": ("receipts", 1), "revenue": ("revenue", -1), "deferred": ("deferred", -1)}
ACCOUNTS |= {"refunded": ("refunded", 1), "breakage": ("breakage", -1)}


def nano(text: str) -> int:
    return int(Decimal(text) * CREDIT)


def minor(text: str) -> int:
    return int(Decimal(text) * 100)


class Reader:
    """Does what the lines of one example say."""

    def __init__(self, database: Database) -> None:
        self.shop = Shop(database)
        self.checked = 0

    def line(self, text: str) -> None:
        for pattern, work in self.words().items():
            found = re.fullmatch(pattern, text)
            if found:
                work(**found.groupdict())
                return
        raise ValueError(f"an example says {text!r}")

    def words(self) -> dict[str, Callable[..., Any]]:
        amount, money = r"(?P<amount>[0-9.]+)", r"(?P<money>[0-9.]+)"
        shop = self.shop
        return {
            rf"buy {amount} credits for {money}( for (?P<days>\d+) days)?( as (?P<name>\w+))?": self.buy,
            rf"use {amount}": self.use,
            rf"use {amount} of (?P<days>\d+) days ago": self.use_late,
            rf"refund {money}": lambda money: shop.book(shop.refund(minor(money))),
            rf"refund of {money} fails": lambda money: shop.book(shop.refund(minor(money), failed=True)),
            rf"dispute {money}": lambda money: shop.book(shop.dispute(minor(money))),
            rf"dispute of {money} is won": lambda money: shop.book(shop.dispute(minor(money), won=True)),
            rf"give back {amount}": lambda amount: shop.move(Kind.REFUND, nano(amount), lot_id=shop.lot().id),
            rf"transfer {amount}": lambda amount: shop.move(Kind.TRANSFER, nano(amount), to_wallet=shop.name("friend")),
            rf"grant {amount}": lambda amount: shop.move(Kind.GRANT, nano(amount)),
            rf"deposit {amount} credits( for {money})?(?P<last> drawn last)?": self.deposit,
            rf"hold {amount} for (?P<action>\w+)( for (?P<seconds>\d+) seconds)?(?P<refused> is refused)?": self.hold,
            rf"use {amount} for (?P<action>\w+)": lambda amount, action: shop.use(nano(amount), action_id=action),
            rf"limit {amount} a (?P<span>day|month)": self.limit,
            r"wait (?P<days>\d+) days": self.wait,
            r"wait (?P<seconds>\d+) seconds": self.wait_seconds,
            r"= (?P<figures>.*)": self.check,
        }

    def buy(self, amount: str, money: str, days: str | None, name: str | None) -> None:
        assert (amount, money) == ("10", "8.00"), "the pack of the examples"
        self.shop.order(name or "t", expires_days=int(days or 0))
        fact: Paid = self.shop.paid(name or "t")
        self.shop.book(fact)

    def use(self, amount: str) -> None:
        self.shop.use(nano(amount))
        self.shop.draw()

    def use_late(self, amount: str, days: str) -> None:
        self.shop.use(nano(amount), self.shop.now_ns - int(days) * DAY_NS)

    def deposit(self, amount: str, money: str | None, last: str | None) -> None:
        price = int(Decimal(money or 0) * USD)
        more = {"price_nanousd": price, "at_list": money is None, "priority": 200 if last else 100}
        self.shop.move(Kind.DEPOSIT, nano(amount), **more)

    def hold(self, amount: str, action: str, seconds: str | None, refused: str | None) -> None:
        answer = self.shop.ask(nano(amount), action, int(seconds or 600))
        assert isinstance(answer, Held) is not bool(refused), answer

    def limit(self, amount: str, span: str) -> None:
        terms = Terms(day_limit_nano=nano(amount)) if span == "day" else Terms(month_limit_nano=nano(amount))
        subject = Subject(LimitScope.WALLET, self.shop.wallet)
        self.shop.run(set_policy, subject=subject, terms=terms, authorship=Authorship("eve", "because"))

    def wait_seconds(self, seconds: str) -> None:
        self.shop.now_ns += int(seconds) * 10**9

    def wait(self, days: str) -> None:
        self.shop.draw()
        self.shop.now_ns += int(days) * DAY_NS

    def check(self, figures: str) -> None:
        self.shop.draw()
        moved = self.shop.moved()
        found = {"balance": Decimal(self.shop.left) / CREDIT, "held": Decimal(self.shop.held) / CREDIT}
        found |= {word: Decimal(sign * moved[kind]) / USD for word, (kind, sign) in ACCOUNTS.items()}
        told = dict(part.rsplit(" ", 1) for part in figures.split(", "))
        assert {word: found[word] for word in told} == {word: Decimal(figure) for word, figure in told.items()}
        self.checked += 1


@pytest.mark.parametrize(("page", "block"), EXAMPLES)
def test_the_examples_of_the_documentation_hold(database: Database, page: str, block: str) -> None:
    reader = Reader(database)
    for line in block.splitlines():
        reader.line(line)
    assert reader.checked, f"an example of {page} checks nothing"
    assert reader.shop.clean() == []


def test_there_are_examples_on_both_pages() -> None:
    assert {page for page, _ in EXAMPLES} == set(PAGES)
    assert len(EXAMPLES) >= 10
