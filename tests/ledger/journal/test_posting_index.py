"""Postings are found by account as a plain scan finds them, however far the index has come; what it lacks is found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.background.posting_index_job import TAIL, PostingIndexJob
from farebox_collector.ledger.audit.books_audit import audit, audit_recent
from farebox_collector.ledger.audit.checkpoints import move_checkpoints
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.journal.posting_index import POSTING_INDEX, legs_of
from farebox_collector.ledger.reports.statements import UsageFilter, ledger, usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

SECOND_NS = 10**9
WALLETS = ("ada", "bob", "cyd")
COLUMNS = "id, transaction_id, account_id, commodity, amount_nano, event, rule_version_id, records"
KINDS = ("use", "use", "fail", "deposit", "audit", "bring up")
STEP = st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 2), min_size=1, max_size=5), st.integers(1, 9))
NUMBERS = count(1)


class Books:
    """Some wallets' books, a second a step."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ns = START_NS
        self.audited = 0

    def step(self, kind: str, wallets: Sequence[int], amount: int) -> None:
        self.now_ns += SECOND_NS
        names = [WALLETS[number] for number in wallets]
        if kind == "deposit":
            self.deposit(names[0], amount)
        elif kind == "audit":
            self.audit_recent()
        elif kind == "bring up":
            self.bring_up(2 * amount, len(wallets))
        else:
            self.use(names, amount, Verdict.CHARGED if kind == "use" else Verdict.UNPRICED)

    def use(self, names: Sequence[str], amount: int, verdict: Verdict = Verdict.CHARGED) -> None:
        facts: Any = {"verdict": verdict, "cost_nanousd": amount, "start_ns": self.now_ns}
        made = [
            call(n, trace=n, wallet=name, event=f"event-{n % 3}", **facts)
            for n, name in zip(NUMBERS, names, strict=False)
        ]
        with self.database.transaction() as connection:
            record_usage(connection, 1, made, self.now_ns, TotalLabels())

    def deposit(self, name: str, amount: int, **facts: Any) -> None:
        movement = Movement(Kind.DEPOSIT, name, amount, **facts)
        key = f"key-{next(NUMBERS)}"
        self.database.transact(lambda connection: move(connection, 1, movement, key, self.now_ns))

    def bring_up(self, most: int = 1_000_000, pieces: int = 1_000_000) -> bool:
        """Take postings in, three a piece, in as many pieces; whether there were any."""
        with self.database.reading() as connection:
            sweep = POSTING_INDEX.plan(connection, most, 3)
        if sweep is None:
            return False
        for piece in range(min(pieces, sweep.pieces)):
            self.database.transact(lambda connection: POSTING_INDEX.take_in(connection, sweep, piece, piece + 1))  # noqa: B023
        return True

    def audit_recent(self) -> None:
        (newest,) = self.scan("SELECT coalesce(max(id), 0) FROM transactions")[0]

        def right(standing: Any, upto: int) -> None:
            self.database.transact(lambda connection: move_checkpoints(connection, standing, upto))

        assert list(audit_recent(self.database.reading, self.audited, newest, right)) == []
        self.audited = newest

    def scan(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def tamper(self, statement: str) -> None:
        with self.database.transaction() as connection:
            assert connection.execute(text(statement)).rowcount

    def found(self) -> set[str]:
        with self.database.reading() as connection:
            return {mismatch.check for mismatch in audit(connection)}

    def compare(self) -> None:
        """Every reading gives what reading through all rows gives."""
        known = self.scan("SELECT id FROM accounts ORDER BY id")
        ids = [row[0] for row in known]
        for some in (ids, ids[::2], ids[:1], []):
            wanted = [row for row in self.scan(f"SELECT {COLUMNS} FROM postings ORDER BY id") if row[2] in some]
            assert self.legs(some) == wanted
        for wallet in (*WALLETS, "missing"):
            self.compare_wallet(wallet)

    def legs(self, account_ids: Sequence[int]) -> list[tuple[Any, ...]]:
        with self.database.reading() as connection:
            parts = legs_of(connection, account_ids)
            chosen = (select(*(part.c[name] for name in COLUMNS.split(", "))) for part in parts)
            return sorted(tuple(row) for query in chosen for row in connection.execute(query))

    def compare_wallet(self, wallet: str) -> None:
        records = self.scan("SELECT id FROM usage_records WHERE wallet = :name ORDER BY id DESC", name=wallet)
        moves = self.scan(
            "SELECT t.id, t.kind, p.id FROM postings p JOIN transactions t ON t.id = p.transaction_id"
            " JOIN accounts a ON a.id = p.account_id WHERE a.kind = 'wallet' AND a.name = :name AND t.kind = 'deposit'"
            " ORDER BY t.id DESC, p.id DESC",
            name=wallet,
        )
        with self.database.reading() as connection:
            newest = usage(connection, 1, UsageFilter(wallet=wallet), limit=3)
            older = usage(connection, 1, UsageFilter(wallet=wallet), newest[-1].id, 3) if newest else []
            assert [row.id for row in (*newest, *older)] == [row[0] for row in records[:6]]
            found: list[tuple[Any, ...]] = []
            while page := ledger(connection, 1, wallet, "deposit", found[-1] if found else None, 2):
                found += [(row.transaction_id, row.type, row.id) for row in page]
            assert found == moves


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=4, max_size=25))
@example([("use", [0, 1], 3), ("bring up", [0], 2), ("use", [0, 0], 1), ("deposit", [0], 5), ("audit", [0], 1)])
def test_every_reading_is_that_of_a_plain_scan(database: Database, steps: list[tuple[str, list[int], int]]) -> None:
    books = Books(database)
    for number, step in enumerate(steps):
        books.step(*step)
        if number % 4 == 0:
            books.compare()
    books.audit_recent()
    books.compare()
    assert books.found() == set()
    books.bring_up()
    books.compare()
    assert books.found() == set()


@pytest.mark.parametrize("when", range(4))
def test_what_was_used_after_a_lot_expired_is_not_drawn_on_it(database: Database, when: int) -> None:
    """Wherever the index ends: before, between or after what was used."""
    books = Books(database)
    books.deposit("ada", 1_000, expires_at_ns=START_NS + 100 * SECOND_NS)
    for moment, seconds in enumerate((50, 60, 150, 160)):
        books.now_ns = START_NS + seconds * SECOND_NS
        if moment == when:
            books.bring_up()
        books.use(["ada"], 10 * (moment + 1))
    with database.transaction() as connection:
        draw_up(connection, 1, "ada", books.now_ns)
        (lot,) = lots_of(connection, 1, "ada", 0, 10)
    # A call of ours charges three times what it costs.
    expired = 1_000 - 3 * (10 + 20)
    assert books.scan("SELECT amount_nano FROM lot_moves WHERE kind = 'expire'") == [(-expired,)]
    assert lot.remaining_nano == 0
    assert books.scan("SELECT overdraft_nano FROM accounts WHERE name = 'ada'") == [(3 * (30 + 40),)]
    assert books.found() == set()


@pytest.fixture
def sqlite_books(new_books: Callable[[str, Path], str], tmp_path: Path) -> Iterator[Books]:
    """Books in SQLite, with usage and a deposit, all of it in the index."""
    with closing(assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))) as database:
        books = Books(database)
        books.use(["ada", "bob"], 3)
        books.deposit("ada", 10)
        books.bring_up()
        assert books.found() == set()
        yield books


@pytest.mark.parametrize(
    ("tampering", "checks"),
    [
        ("DELETE FROM account_postings WHERE posting_id = 1", {"index", "index size"}),
        ("UPDATE account_postings SET transaction_id = transaction_id + 1 WHERE posting_id = 1", {"index"}),
        ("UPDATE account_postings SET account_id = account_id + 1 WHERE posting_id = 1", {"index"}),
        ("INSERT INTO account_postings (account_id, transaction_id, posting_id) VALUES (1, 9, 1)", {"index size"}),
    ],
)
def test_an_index_that_disagrees_with_the_postings_is_found(
    sqlite_books: Books, tampering: str, checks: set[str]
) -> None:
    sqlite_books.tamper(tampering)
    assert checks <= sqlite_books.found()


def test_a_posting_that_the_index_was_said_to_have_is_found_soon(sqlite_books: Books) -> None:
    sqlite_books.use(["ada"], 1)
    sqlite_books.tamper("UPDATE watermarks SET value = value + 1 WHERE name = 'postings by account'")
    with pytest.raises(AssertionError, match="check='index', what='posting"):
        sqlite_books.audit_recent()


def test_what_was_taken_in_already_may_be_taken_in_again(sqlite_books: Books) -> None:
    sqlite_books.tamper("DELETE FROM watermarks WHERE name = 'postings by account'")
    for most in (0, 3, 1_000):
        assert bool(most) == sqlite_books.bring_up(most)
        assert sqlite_books.found() == set()
        sqlite_books.compare()


class Clock:
    """A clock that stands still until it is set."""

    now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


def waiting(books: Books) -> int:
    with books.database.reading() as connection:
        return POSTING_INDEX.behind(connection)


def test_few_postings_wait_a_minute_at_the_most(sqlite_books: Books) -> None:
    clock = Clock()
    indexing = PostingIndexJob(sqlite_books.database, clock)
    sqlite_books.use(["ada"], 1)
    indexing.round()
    assert waiting(sqlite_books)
    clock.now_ns += 60 * SECOND_NS
    indexing.round()
    assert not waiting(sqlite_books)
    sqlite_books.use(["ada"], 1)
    clock.now_ns += 59 * SECOND_NS
    indexing.round()
    assert waiting(sqlite_books), "the minute begins when all was there"


def test_many_postings_are_brought_in_at_once_in_stretches_between_which_it_stops(sqlite_books: Books) -> None:
    sqlite_books.tamper(
        "INSERT INTO postings (transaction_id, account_id, commodity, amount_nano, event, rule_version_id, records)"
        f" WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {TAIL})"
        " SELECT 1, 1 + i % 3, 'CREDIT', 0, '', NULL, 0 FROM n"
    )
    stopped = PostingIndexJob(sqlite_books.database, Clock())
    stopped.stop()
    stopped.round()
    assert waiting(sqlite_books) == TAIL
    (entries,) = sqlite_books.scan("SELECT count(*) FROM account_postings")[0]
    assert 0 < entries < TAIL
    sqlite_books.compare()
    PostingIndexJob(sqlite_books.database, Clock()).round()
    assert not waiting(sqlite_books)
    assert sqlite_books.scan("SELECT count(*) FROM account_postings") == sqlite_books.scan(
        "SELECT max(id) FROM postings"
    )


def test_postgresql_keeps_its_index(database: Database) -> None:
    books = Books(database)
    books.use(["ada"], 1)
    late = isinstance(database, SqliteDatabase)
    assert bool(waiting(books)) == late
    assert books.bring_up() == late
