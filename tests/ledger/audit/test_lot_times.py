"""The audit's check `lot times`: which usage drew on lots that have ended, however well all else agrees."""

import pytest
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.audit.lot_times import LOTS_BEFORE
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.journal.watermarks import set_watermark
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.credits import lot_moves
from living_books import LivingBooks
from sqlalchemy import insert

MINUTES = 60


@pytest.fixture
def books(database: Database) -> LivingBooks:
    return LivingBooks(database)


def let_pay(books: LivingBooks, payer: int, instead_of: int, amount: int) -> None:
    """Let a lot have paid what another one did, and that one have let as much more expire: all else agrees with it."""
    rows = [(payer, "draw", -amount), (payer, "expire", amount), (instead_of, "draw", amount)]
    with books.database.transaction() as connection:
        for lot, kind, change in [*rows, (instead_of, "expire", -amount)]:
            facts = {"tenant_id": 1, "lot_id": lot, "kind": kind, "amount_nano": change, "recognised_nanousd": 0}
            connection.execute(insert(lot_moves).values(**facts, returned_nanousd=0, recorded_at_ns=books.now_ns))


def mismatches(books: LivingBooks) -> dict[str, str]:
    with books.database.reading() as connection:
        return {found.check: str(found) for found in audit(connection)}


def grants(books: LivingBooks) -> tuple[int, int]:
    """Lots of 10 and 20 that end after 10 and 20 minutes; their ids."""
    first = books.move(Kind.GRANT, 10, expires_at_ns=books.at(10 * MINUTES))
    second = books.move(Kind.GRANT, 20, expires_at_ns=books.at(20 * MINUTES))
    assert first.lot_id
    assert second.lot_id
    return first.lot_id, second.lot_id


def end(books: LivingBooks) -> None:
    """Both lots have ended, and the books are clean."""
    books.wait(30 * MINUTES)
    books.draw_up()
    books.check()


def test_usage_from_after_the_end_that_an_ended_lot_paid_is_found(books: LivingBooks) -> None:
    first, second = grants(books)
    books.wait(5 * MINUTES)
    books.use(4)
    books.wait(10 * MINUTES)
    books.use(5)
    end(books)
    let_pay(books, first, second, 3)
    found = mismatches(books)
    assert set(found) == {"lot times"}
    assert "at most 4 used by then" in found["lot times"]
    assert "7 drawn" in found["lot times"]


@pytest.mark.parametrize("late", [False, True])
def test_usage_from_before_the_end_that_another_lot_paid_is_found(books: LivingBooks, late: bool) -> None:
    """Also where it was reported after the end."""
    first, second = grants(books)
    books.wait(5 * MINUTES)
    books.use(2)
    if late:
        books.wait(10 * MINUTES)
        books.draw_up()
    books.use(4, at_ns=books.at(5 * MINUTES))
    end(books)
    let_pay(books, second, first, 3)
    found = mismatches(books)
    assert set(found) == {"lot times"}
    assert "at most 0 paid by others" in found["lot times"]


@pytest.mark.parametrize("wrong", ["first", "second"])
def test_one_batch_with_calls_from_both_sides_of_the_end_is_told_apart(books: LivingBooks, wrong: str) -> None:
    lots = dict(zip(("first", "second"), grants(books), strict=True))
    books.wait(15 * MINUTES)
    books.record(books.priced(4, at_ns=books.at(9 * MINUTES)), books.priced(5), books.priced(7, "ben"))
    end(books)
    payer = lots.pop(wrong)
    (instead_of,) = lots.values()
    let_pay(books, payer, instead_of, 1)
    assert set(mismatches(books)) == {"lot times"}


def test_what_older_versions_drew_is_passed_over(books: LivingBooks) -> None:
    """They drew late usage on other lots; the migration notes where they ended."""
    first, second = grants(books)
    books.wait(5 * MINUTES)
    books.use(4)
    end(books)
    let_pay(books, second, first, 3)
    assert set(mismatches(books)) == {"lot times"}
    books.database.transact(lambda connection: set_watermark(connection, LOTS_BEFORE, second))
    books.check()
