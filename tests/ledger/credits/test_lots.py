"""Lots, holds and postings always reconcile: a state machine against a plain model, and worked cases."""

from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import pytest
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.hold_release import expire_holds, void_hold
from farebox_collector.ledger.credits.holds import Held, HoldRequest, take_holds
from farebox_collector.ledger.credits.lot_rows import lots_of, wallets_to_draw
from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, DEFERRED_ACCOUNT, REVENUE_ACCOUNT, draw_up
from farebox_collector.ledger.credits.movements import (
    RECEIPTS_ACCOUNT,
    IdempotencyConflict,
    Kind,
    Moved,
    Movement,
    NoSuchLot,
    NotEnough,
    move,
)
from farebox_collector.ledger.credits.policies import Authorship, Terms, set_policy
from farebox_collector.ledger.credits.spending import LimitScope, Subject, spent_of
from farebox_collector.ledger.journal.journal import Account, balance, wallet_account
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts, usage_records
from farebox_collector.ledger.tables.credits import lots
from farebox_collector.ledger.tables.limits import spenders
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from harness import Collector
from httpx2 import Response
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

SECOND_NS = 10**9
WALLETS = count(1)


class Books:
    """One wallet's life, a second a step."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ns = START_NS
        self.number = 0

    def pass_seconds(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    def move(self, kind: Kind, amount: int, wallet: str = "ada", key: str = "", **facts: Any) -> Moved:
        self.number += 1
        movement = Movement(kind, wallet, amount, **facts)
        name = key or f"key-{self.number}"
        return self.database.transact(lambda connection: move(connection, 1, movement, name, self.now_ns))

    def use(self, amount: int, wallet: str = "ada", *, action: str = "", user: str = "") -> int:
        self.number += 1
        made = call(self.number, trace=self.number, wallet=wallet, start_ns=self.now_ns)
        usage = made.usage._replace(action_id=action, user_id=user)
        with self.database.transaction() as connection:
            calls = [made._replace(usage=usage, charge_nanocredits=amount)]
            record_usage(connection, 1, calls, self.now_ns, TotalLabels())
        return self.number

    def take_back(self, number: int) -> None:
        with self.database.transaction() as connection:
            span = usage_records.c.span_id == number.to_bytes(8, "big")
            (stored,) = stored_calls(connection, usage_query(1).where(span))
            correct(connection, 1, Cause.TWIN, [cover(stored)], self.now_ns, TotalLabels())

    def draw_up(self, wallet: str = "ada") -> None:
        self.database.transact(lambda connection: draw_up(connection, 1, wallet, self.now_ns))

    def left(self, wallet: str = "ada") -> list[int]:
        """What each lot has left; the books must be clean before and after drawing up."""
        self.check()
        self.draw_up(wallet)
        self.check()
        with self.database.reading() as connection:
            return [row.remaining_nano for row in lots_of(connection, 1, wallet, 0, 1000)]

    def check(self) -> None:
        with self.database.reading() as connection:
            assert [str(mismatch) for mismatch in audit(connection)] == []

    def balance(self, account: Account | str = "ada") -> int:
        with self.database.reading() as connection:
            return balance(connection, 1, wallet_account(account) if isinstance(account, str) else account)


@pytest.fixture
def books(database: Database) -> Books:
    return Books(database)


def test_usage_draws_by_priority_then_expiry_then_promotions_then_age(books: Books) -> None:
    day = START_NS + 86_400 * SECOND_NS
    books.move(Kind.DEPOSIT, 10, price_nanousd=10)
    books.move(Kind.PROMOTION, 10)
    books.move(Kind.GRANT, 10, expires_at_ns=day)
    books.move(Kind.ALLOWANCE, 10, priority=1)
    books.move(Kind.DEPOSIT, 10)
    expected = [[10, 10, 10, 5, 10], [10, 10, 5, 0, 10], [10, 5, 0, 0, 10], [5, 0, 0, 0, 10], [0, 0, 0, 0, 5]]
    for number, left in enumerate(expected):
        books.use(5 if number == 0 else 10)
        assert books.left() == left


def test_revenue_is_what_was_paid_for_the_credits_that_were_used(books: Books) -> None:
    books.move(Kind.DEPOSIT, 3, price_nanousd=10)
    books.move(Kind.GRANT, 3)
    figures = []
    for _ in range(4):
        books.use(1)
        books.draw_up()
        figures.append((-books.balance(REVENUE_ACCOUNT), -books.balance(DEFERRED_ACCOUNT)))
    assert figures == [(3, 7), (7, 3), (10, 0), (10, 0)]
    assert books.balance(RECEIPTS_ACCOUNT) == 10
    books.check()


def test_what_expires_is_posted_and_later_usage_draws_on_what_lives(books: Books) -> None:
    books.move(Kind.DEPOSIT, 10, price_nanousd=100, expires_at_ns=START_NS + 10 * SECOND_NS)
    books.move(Kind.GRANT, 10)
    books.use(4)
    books.pass_seconds(20)
    books.use(3)
    with books.database.reading() as connection:
        assert [tuple(row) for row in wallets_to_draw(connection, books.now_ns)] == [(1, "ada")]
    # Lots are drawn up only now: the four before the expiry came out of the first lot, the three after it did not.
    assert books.left() == [0, 7]
    assert (books.balance(), -books.balance(REVENUE_ACCOUNT), -books.balance(BREAKAGE_ACCOUNT)) == (7, 40, 60)
    with books.database.reading() as connection:
        assert wallets_to_draw(connection, books.now_ns) == []


def test_overdraft_is_paid_by_the_next_lot(books: Books) -> None:
    books.use(7)
    assert books.left() == []
    books.move(Kind.DEPOSIT, 10, price_nanousd=20)
    assert (books.left(), books.balance(), -books.balance(REVENUE_ACCOUNT)) == ([3], 3, 14)


def test_refunds_go_back_to_their_lot_and_no_further_than_it_has_left(books: Books) -> None:
    lot = books.move(Kind.DEPOSIT, 10, price_nanousd=50).lot_id or 0
    other = books.move(Kind.DEPOSIT, 10, price_nanousd=70).lot_id or 0
    books.use(4)
    assert books.move(Kind.REFUND, 2, lot_id=lot).amount_nanocredits == -2
    assert books.balance(RECEIPTS_ACCOUNT) == 110
    with pytest.raises(NotEnough):
        books.move(Kind.REFUND, 5, lot_id=lot)
    with pytest.raises(NoSuchLot):
        books.move(Kind.REFUND, 5, lot_id=10**6)
    assert books.move(Kind.REFUND, 0, lot_id=lot).amount_nanocredits == -4
    assert books.move(Kind.REFUND, 0, lot_id=other).amount_nanocredits == -10
    assert (books.left(), books.balance(), books.balance(RECEIPTS_ACCOUNT)) == ([0, 0], 0, 20)
    assert -books.balance(REVENUE_ACCOUNT) == 20


def test_a_transfer_keeps_price_and_expiry_and_a_withdrawal_gives_the_price_back(books: Books) -> None:
    end_ns = START_NS + 10 * SECOND_NS
    books.move(Kind.DEPOSIT, 10, price_nanousd=50, expires_at_ns=end_ns)
    books.move(Kind.TRANSFER, 4, to_wallet="bob")
    assert (books.left(), books.left("bob"), books.balance("bob")) == ([6], [4], 4)
    books.move(Kind.WITHDRAWAL, 1, "bob")
    assert books.balance(RECEIPTS_ACCOUNT) == 45
    with pytest.raises(NotEnough):
        books.move(Kind.TRANSFER, 4, "bob", to_wallet="ada")
    books.pass_seconds(10)
    assert (books.left(), books.left("bob")) == ([0], [0])


def test_a_movement_happens_once_for_its_key(books: Books) -> None:
    first = books.move(Kind.GRANT, 5, key="k", memo="hello", metadata='{"order": 1}')
    assert books.move(Kind.GRANT, 5, key="k", memo="hello", metadata='{"order": 1}') == first._replace(repeated=True)
    with pytest.raises(IdempotencyConflict):
        books.move(Kind.GRANT, 6, key="k", memo="hello", metadata='{"order": 1}')
    assert books.balance() == 5


def test_what_a_correction_returns_goes_back_where_it_was_drawn_last(books: Books) -> None:
    books.move(Kind.DEPOSIT, 10, price_nanousd=30)
    books.move(Kind.GRANT, 10)
    first = books.use(12)
    assert books.left() == [0, 8]
    second = books.use(20)
    books.take_back(second)
    assert books.left() == [0, 8]
    books.take_back(first)
    assert (books.left(), books.balance(REVENUE_ACCOUNT)) == ([10, 10], 0)


def test_movements_and_lots_over_http(shared_collector: Collector) -> None:
    api = shared_collector.api

    def post(key: str, **body: Any) -> Response:
        return api.post("/v1/wallets/team/a/movements", json=body, headers={"Idempotency-Key": key})

    paid = post("a", type="deposit", amount_credits="10", price_usd="8", metadata={"order": "7"})
    assert (paid.status_code, paid.json()["balance_credits"]) == (201, "10.000000000")
    again = post("a", type="deposit", amount_credits="10", price_usd="8", metadata={"order": "7"})
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (paid.json(), "true")
    assert post("a", type="deposit", amount_credits="10", price_usd="7").status_code == 409
    lot_id = paid.json()["lot_id"]
    refunded = post("b", type="refund", amount_credits="2.5", lot_id=lot_id)
    assert (refunded.status_code, refunded.json()["amount_credits"]) == (201, "-2.500000000")
    assert post("c", type="refund", amount_credits="8", lot_id=lot_id).status_code == 409
    assert post("d", type="refund", lot_id=10**9).status_code == 404
    assert post("e", type="adjustment", amount_credits="-1").json()["balance_credits"] == "6.500000000"
    assert post("f", type="transfer", amount_credits="1", to_wallet="bea").json()["balance_credits"] == "5.500000000"
    (lot,) = api.get("/v1/wallets/team/a/lots").json()["items"]
    figures = ("origin", "remaining_credits", "price_usd", "recognised_usd", "returned_usd")
    assert [lot[name] for name in figures] == ["deposit", "5.500000000", "8.000000000", "0.800000000", "2.800000000"]
    kinds = [row["type"] for row in api.get("/v1/ledger?wallet=team/a").json()["items"]]
    assert kinds == ["transfer", "adjustment", "refund", "deposit"]
    for bad in (
        {"type": "grant", "amount_credits": "-1"},
        {"type": "grant", "amount_credits": "1", "price_usd": "1"},
        {"type": "grant", "amount_credits": "1", "expires_at": "2020-01-01T00:00:00Z"},
        {"type": "deposit", "amount_credits": "1", "price_usd": "NaN"},
        {"type": "transfer", "amount_credits": "1"},
        {"type": "transfer", "amount_credits": "1", "to_wallet": "team/a"},
        {"type": "refund", "amount_credits": "1"},
        {"type": "grant", "amount_credits": "1", "metadata": {"much": "x" * 5000}},
        {"type": "gift", "amount_credits": "1"},
    ):
        assert post("z", **bad).status_code == 422, bad


AMOUNT = st.integers(1, 40)
STEP = st.one_of(
    st.tuples(st.sampled_from(["use", "settle", "hold", "hold for bob"]), AMOUNT, st.just(0)),
    st.tuples(st.sampled_from(["take_back", "void", "refund"]), st.integers(0, 9), st.integers(0, 20)),
    st.tuples(st.just("wait"), st.integers(1, 8), st.just(0)),
    st.tuples(st.sampled_from(["draw_up", "expire", "limit"]), AMOUNT, st.just(0)),
    st.tuples(st.sampled_from([Kind.DEPOSIT, Kind.DEPOSIT, Kind.PROMOTION]), AMOUNT, st.integers(0, 10)),
    st.tuples(st.sampled_from([Kind.WITHDRAWAL, Kind.TRANSFER, Kind.ADJUSTMENT]), AMOUNT, st.just(0)),
)
HOLD_SECONDS = 5


class Life:
    """A wallet to which anything may happen, and what must come of it."""

    def __init__(self, database: Database) -> None:
        self.name = f"wallet-{next(WALLETS)}"
        self.books = Books(database)
        self.books.number = next(WALLETS) * 1_000
        self.calls: list[int] = []
        self.holds: list[tuple[int, str, str]] = []
        self.limit: int | None = None

    def step(self, what: str, amount: int, more: int) -> None:
        books = self.books
        if what == "use":
            self.calls.append(books.use(amount, self.name))
        elif what == "settle" and self.holds:
            _, action, user = self.holds[-1]
            self.calls.append(books.use(amount, self.name, action=action, user=user))
        elif what == "take_back" and self.calls:
            books.take_back(self.calls.pop(amount % len(self.calls)))
        elif what == "wait":
            books.pass_seconds(amount)
        elif what in ("hold", "hold for bob"):
            self.hold(amount, "bob" if what == "hold for bob" else "")
        elif what == "void" and self.holds:
            hold_id = self.holds.pop(amount % len(self.holds))[0]
            books.database.transact(partial(void_hold, tenant_id=1, hold_id=hold_id, at_ns=books.now_ns))
        elif what == "expire":
            books.database.transact(partial(expire_holds, at_ns=books.now_ns))
        elif what == "limit":
            self.limit = amount
            bob = Subject(LimitScope.USER, self.name, "bob")
            terms, why = Terms(day_limit_nano=amount), Authorship("eve", "why")
            books.database.transact(
                partial(set_policy, tenant_id=1, subject=bob, terms=terms, authorship=why, at_ns=books.now_ns)
            )
        elif what == "draw_up" and self.calls:
            books.draw_up(self.name)
        elif what == "refund":
            self.refund(amount, more)
        elif isinstance(what, Kind):
            facts: dict[str, Any] = {"price_nanousd": 7 * amount if what is Kind.DEPOSIT else 0}
            facts |= {"expires_at_ns": books.now_ns + more * SECOND_NS} if more else {}
            signed = -amount if what is Kind.ADJUSTMENT else amount
            with suppress(NotEnough):
                books.move(
                    what, signed, self.name, to_wallet=f"{self.name}-b" if what is Kind.TRANSFER else "", **facts
                )

    def hold(self, amount: int, user: str) -> None:
        books = self.books
        books.number += 1
        key = f"{self.name}-{books.number}"
        request = HoldRequest(self.name, amount, key, "chat", key, HOLD_SECONDS, user)
        before, expired = self.sums(), self.expired()
        (answer,) = books.database.transact(partial(take_holds, tenant_id=1, wanted=[request], at_ns=books.now_ns))
        after = self.sums()
        if isinstance(answer, Held):
            self.holds.append((answer.hold_id, key, user))
            assert after.balance >= after.held
            assert not user or self.limit is None or after.of_bob <= self.limit
        else:
            # What has expired may have been taken, and what was held in vain let go of; nothing else has changed.
            assert before.balance - expired <= after.balance <= before.balance
            assert after.held <= before.held

    def expired(self) -> int:
        """What is left in lots whose time is over."""
        table = lots.c
        over = (table.wallet == self.name) & (table.expires_at_ns <= self.books.now_ns)
        with self.books.database.reading() as connection:
            found = connection.execute(select(func.coalesce(func.sum(table.remaining_nano), 0)).where(over))
            return int(found.scalar_one())

    def refund(self, place: int, amount: int) -> None:
        """Of some lot so much, or all that is left; what is held or used is never refunded."""
        with self.books.database.reading() as connection:
            rows = lots_of(connection, 1, self.name, 0, 100)
        if not rows:
            return
        before = self.sums()
        try:
            self.books.move(Kind.REFUND, amount, self.name, lot_id=rows[place % len(rows)].id)
        except NotEnough:
            assert self.sums() == before
        else:
            assert self.sums().balance >= self.sums().held

    def sums(self) -> "Sums":
        with self.books.database.reading() as connection:
            query = select(accounts.c.balance_nano, accounts.c.held_nano).where(accounts.c.name == self.name)
            balance, held = connection.execute(query).first() or (0, 0)
            bob = Subject(LimitScope.USER, self.name, "bob")
            query = select(spenders.c.held_nano).where(spenders.c.name == self.name)
            of_bob = connection.execute(query).scalar() or 0
            return Sums(balance, held, of_bob + spent_of(connection, 1, [bob], self.books.now_ns)[bob].day)


class Sums(NamedTuple):
    """What a wallet has and holds, and what its user bob spent and holds."""

    balance: int
    held: int
    of_bob: int


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=1, max_size=12))
@example([(Kind.DEPOSIT, 1, 1), ("wait", 1, 0), ("hold", 1, 0)])
def test_lots_holds_and_postings_always_reconcile(database: Database, steps: list[tuple[str, int, int]]) -> None:
    """After every step the audit is clean, and drawn up the wallets have what their lots have, less overdraft."""
    life = Life(database)
    books = life.books
    for step in steps:
        life.step(*step)
        books.check()
    known = books.balance(life.name)
    left = books.left(life.name) if life.calls or known else []
    expired_or_same = books.balance(life.name)
    assert expired_or_same <= known
    assert sum(left) >= expired_or_same
