"""Usage draws on the lots valid when it happened, however late its report and however often lots are drawn up."""

from collections.abc import Callable
from typing import Any

import pytest
from calls import START_NS
from farebox_collector.background import upkeep
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.ledger.credits.lot_rows import wallets_to_draw
from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, DEFERRED_ACCOUNT, REVENUE_ACCOUNT
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.storage.database import Database
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from living_books import LivingBooks
from sqlalchemy import Connection


@pytest.fixture
def books(database: Database) -> LivingBooks:
    return LivingBooks(database)


def money(books: LivingBooks, wallet: str = "ada") -> tuple[int, int, int]:
    """Balance, revenue and breakage, drawn up."""
    books.draw_up(wallet)
    books.check()
    return books.balance(wallet), -books.balance(REVENUE_ACCOUNT), -books.balance(BREAKAGE_ACCOUNT)


@pytest.mark.parametrize("looked", [False, True])
def test_a_call_from_before_the_expiry_that_is_reported_after_it(books: LivingBooks, looked: bool) -> None:
    """The example of docs/explanation/credits.md: the credits have expired if lots were drawn up in between."""
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    books.wait(65)
    if looked:
        assert money(books) == (0, 0, 10)
    books.use(4, at_ns=books.at(50))
    assert money(books) == (0, 4, 6)
    assert books.balance(DEFERRED_ACCOUNT) == 0


def test_a_call_from_after_the_expiry_never_draws_on_the_lot(books: LivingBooks) -> None:
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    books.wait(65)
    books.use(4, at_ns=books.at(61))
    assert money(books) == (-4, 0, 10)


@pytest.mark.parametrize("looked", [False, True])
def test_one_batch_with_calls_from_both_sides_of_an_expiry(books: LivingBooks, looked: bool) -> None:
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    books.move(Kind.GRANT, 10)
    books.wait(65)
    if looked:
        money(books)
    books.record(
        books.priced(3, at_ns=books.at(61)), books.priced(4, at_ns=books.at(50)), books.priced(5, "ben", at_ns=START_NS)
    )
    assert money(books) == (7, 4, 6)
    assert books.left() == [0, 7]


@pytest.mark.parametrize("looked", [False, True])
def test_what_a_correction_gives_back_of_a_call_from_before_the_expiry_expires(
    books: LivingBooks, looked: bool
) -> None:
    """As if the call had never been charged: another call of the same moment may use it instead."""
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    first = books.use(4, at_ns=books.at(50))
    books.wait(65)
    if looked:
        assert money(books) == (0, 4, 6)
    books.correct(first, None)
    if looked:
        assert money(books) == (0, 0, 10)
    books.use(4, at_ns=books.at(50))
    assert money(books) == (0, 4, 6)


@pytest.mark.parametrize(
    ("uses", "expected"),
    # (seconds, credits) of calls that were overdraft when the lot came, which ended at 60.
    [
        ([(50, 4)], (0, 4, 6)),
        ([(60, 4)], (0, 4, 6)),
        ([(61, 4)], (-4, 0, 10)),
        ([(50, 3), (61, 4)], (-4, 3, 7)),
        ([(61, 4), (50, 12)], (-6, 10, 0)),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_a_lot_that_comes_after_its_end_pays_what_was_used_before_it(
    books: LivingBooks, uses: list[tuple[int, int]], expected: tuple[int, int, int], together: bool
) -> None:
    """As a payment does that is told late: its lot would have expired, and never paid later usage."""
    books.wait(100)
    taken_back = books.use(2, at_ns=books.at(70))
    calls = [books.priced(amount, at_ns=books.at(seconds)) for seconds, amount in uses]
    for batch in [calls] if together else [[made] for made in calls]:
        books.record(*batch)
    books.correct(taken_back, None)
    books.use(5, "ben", at_ns=books.at(50))
    books.wait(10)
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    assert money(books) == expected


def test_a_late_price_draws_on_the_lot_that_lived_when_the_call_was_made(books: LivingBooks) -> None:
    from farebox_collector.ledger.usage.corrections import Cause
    from farebox_collector.model.verdicts import Verdict

    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(60))
    waiting = books.priced(0, at_ns=books.at(50))
    books.record(
        waiting._replace(verdict=Verdict.UNPRICED, reason="no price", cost_nanousd=None, charge_nanocredits=None)
    )
    books.wait(100)
    assert money(books) == (0, 0, 10)
    books.correct(int.from_bytes(waiting.usage.span_id, "big"), 4, Cause.LATE_PRICE)
    assert money(books) == (0, 4, 6)


STEP = st.one_of(
    st.tuples(st.just("use"), st.integers(1, 9), st.integers(0, 30)),
    st.tuples(st.just("take back"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 20), st.just(0)),
    st.tuples(st.just("deposit"), st.integers(1, 12), st.integers(0, 25)),
    st.tuples(st.just("grant"), st.integers(1, 12), st.integers(0, 25)),
    st.tuples(st.just("withdraw"), st.integers(1, 5), st.just(0)),
)
WALLETS = [0]


def live(books: LivingBooks, wallet: str, steps: list[tuple[str, int, int]], look: Callable[[], Any]) -> Any:
    """The state of a wallet after these steps, where lots are drawn up after each."""
    from contextlib import suppress

    from farebox_collector.ledger.credits.movements import NotEnough

    revenue, breakage = books.balance(REVENUE_ACCOUNT), books.balance(BREAKAGE_ACCOUNT)
    calls: list[int] = []
    for what, amount, more in steps:
        if what == "use":
            calls.append(books.use(amount, wallet, at_ns=books.now_ns - more * 10**9))
        elif what == "take back" and calls:
            books.correct(calls.pop(amount % len(calls)), None)
        elif what == "wait":
            books.wait(amount)
        elif what in ("deposit", "grant"):
            facts: dict[str, int] = {"price_nanousd": 7 * amount} if what == "deposit" else {}
            facts |= {"expires_at_ns": books.now_ns + more * 10**9} if more else {}
            books.move(Kind(what), amount, wallet, **facts)
        elif what == "withdraw":
            with suppress(NotEnough):
                books.move(Kind.WITHDRAWAL, amount, wallet)
        look()
    books.draw_up(wallet)
    return (
        books.balance(wallet),
        books.balance(REVENUE_ACCOUNT) - revenue,
        books.balance(BREAKAGE_ACCOUNT) - breakage,
        books.left(wallet),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=2, max_size=14))
@example([("deposit", 9, 10), ("use", 5, 0), ("wait", 11, 0), ("use", 3, 5), ("take back", 0, 0), ("use", 2, 0)])
@example([("deposit", 9, 10), ("grant", 5, 0), ("wait", 12, 0), ("use", 4, 8), ("use", 4, 0), ("take back", 0, 0)])
def test_it_makes_no_difference_how_often_anybody_looks(database: Database, steps: list[tuple[str, int, int]]) -> None:
    books = LivingBooks(database)
    found = []
    for often in (True, False):
        WALLETS[0] += 1
        books.number = WALLETS[0] * 1_000
        wallet, books.now_ns = f"wallet{WALLETS[0]}", START_NS
        found.append(live(books, wallet, steps, lambda: books.draw_up(wallet) if often else None))  # noqa: B023
    assert found[0] == found[1]
    books.check()


def rounds(books: LivingBooks) -> Upkeep:
    return Upkeep(Settings(database_url="sqlite:///unused"), books.database, lambda: books.now_ns)


def test_many_busy_wallets_keep_no_other_from_being_drawn_up(
    books: LivingBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More wallets are behind than a round draws up, every time: the next round goes on where the last one ended."""
    monkeypatch.setattr(upkeep, "_DRAWINGS", 1)
    monkeypatch.setattr(upkeep, "WALLETS_AT_ONCE", 3)
    real = wallets_to_draw
    monkeypatch.setattr(upkeep, "wallets_to_draw", lambda c, now, after: real(c, now, 3, after=after))
    books.move(Kind.DEPOSIT, 10, "zoe", price_nanousd=10, expires_at_ns=books.at(60))
    work = rounds(books)
    for _ in range(4):
        books.wait(60)
        books.record(*(books.priced(1, f"busy{number}") for number in range(7)))
        work._draw_lots_up()
    assert (books.balance("zoe"), -books.balance(BREAKAGE_ACCOUNT)) == (0, 10)
    books.check()


def test_a_wallet_that_cannot_be_drawn_up_keeps_no_other_waiting(
    books: LivingBooks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real: Any = vars(upkeep)["draw_up"]

    def broken(connection: Any, tenant_id: int, wallet: str, at_ns: int) -> None:
        if wallet == "ada":
            raise ValueError("broken")
        real(connection, tenant_id, wallet, at_ns)

    monkeypatch.setattr(upkeep, "draw_up", broken)
    books.record(books.priced(1, "ada"), books.priced(1, "ben"))
    rounds(books)._draw_lots_up()
    with books.database.reading() as connection:
        assert [name for _, name in wallets_to_draw(connection, books.now_ns)] == ["ada"]
    assert "cannot be updated" in caplog.text


def test_wallets_to_draw_of_two_tenants_with_the_same_names(books: LivingBooks) -> None:
    from decimal import Decimal

    from farebox_collector.ledger.access.tenants import create_tenant

    with books.database.transaction() as connection:
        tenant = create_tenant(connection, "other", Decimal(1), START_NS)
    other = LivingBooks(books.database, tenant)
    books.move(Kind.DEPOSIT, 10, price_nanousd=10, expires_at_ns=books.at(5))
    other.number = 100
    other.move(Kind.DEPOSIT, 20, price_nanousd=20, expires_at_ns=other.at(50))
    books.wait(10)
    books.draw_up()
    assert (books.left(), other.left(), books.balance(), other.balance()) == ([0], [20], 0, 20)
    with books.database.reading() as connection:
        assert list(wallets_to_draw(connection, books.now_ns)) == []
        assert list(wallets_to_draw(connection, books.at(60))) == [(tenant, "ada")]
        assert list(wallets_to_draw(connection, books.at(60), after=(tenant, "ada"))) == []
    books.check()


def test_strict_movements_of_wallets_that_are_known_succeed(books: LivingBooks) -> None:
    from farebox_collector.ledger.credits.movements import Movement, NoSuchWallet, move

    books.move(Kind.DEPOSIT, 10)
    books.move(Kind.GRANT, 10)

    def strictly(movement: Movement, key: str) -> int:
        moved = books.run(move, movement=movement, idempotency_key=key, strict=True)
        return int(moved.balance_nanocredits)

    assert strictly(Movement(Kind.WITHDRAWAL, "ada", 3), "a") == 17
    with pytest.raises(NoSuchWallet, match="no such wallet: ben"):
        strictly(Movement(Kind.TRANSFER, "ada", 3, to_wallet="ben"), "b")
    assert strictly(Movement(Kind.GRANT, "ben", 1), "c") == 1, "what comes in makes a wallet"
    assert strictly(Movement(Kind.TRANSFER, "ada", 3, to_wallet="ben"), "d") == 14
    assert books.left() == [4, 10], "lots have the same priority by default: the oldest is drawn first"
    assert Movement(Kind.GRANT, "ada", 1).priority == 100


def test_a_call_that_was_corrected_at_the_same_moment_is_given_back_all_the_same(
    books: LivingBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A better witness takes the place of a record, which `correct` leaves alone the first time."""
    from farebox_collector.ledger.usage import booking

    tries = []

    def late(connection: Any, *rest: Any) -> Any:
        tries.append(1)
        return [] if len(tries) == 1 else real(connection, *rest)

    real: Any = vars(booking)["correct"]
    monkeypatch.setattr(booking, "correct", late)
    first = books.priced(5, "unattributed", response_id="r")
    better = books.priced(7, response_id="r", parent_span_id=b"", at_ns=books.now_ns)
    books.record(first)
    books.record(better)
    assert len(tries) == 2
    assert (books.balance("unattributed"), books.balance()) == (0, -7)
    books.check()


def test_a_wallet_that_cannot_be_drawn_up_is_counted_and_keeps_no_other_waiting(
    books: LivingBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wallet in ("ada", "bob", "cid"):
        books.move(Kind.DEPOSIT, 10, wallet, price_nanousd=10)
        books.record(books.priced(4, wallet))
    real: Any = vars(upkeep)["draw_up"]
    broken = {"bob"}

    def draw(connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> None:
        if wallet in broken:
            raise ValueError("torn")
        real(connection, tenant_id, wallet, at_ns)

    monkeypatch.setattr(upkeep, "draw_up", draw)
    told: list[int] = []
    work = Upkeep(Settings(database_url="sqlite:///unused"), books.database, lambda: books.now_ns, told.append)
    work._draw_lots_up()
    assert (told, books.balance(REVENUE_ACCOUNT)) == ([1], -8)
    broken.clear()
    work._draw_lots_up()
    assert (told, books.balance(REVENUE_ACCOUNT)) == ([1, 0], -12)
