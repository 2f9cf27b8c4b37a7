"""Batches that are appended now and folded later: every reader sees the books as if they had been posted at once."""

import json
import logging
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from blank import JANUARY_NS, blank_postgresql, blank_sqlite
from calls import SECOND_NS, START_NS, call
from farebox_collector.assembly import open_books
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.holds import HoldRequest, Insufficient, take_holds
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database, has_unfolded
from farebox_collector.ledger.usage import folding
from farebox_collector.ledger.usage.arrivals import Arrivals, BookingContext, book
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.folding import Folder, OpenTransactions
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from frozen_books import SEEDS, play, sums
from harness import farebox
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import PostgresServer
from sqlalchemy.exc import OperationalError

CHARGE = 300
"""What one of these calls takes, in nanocredits."""


class Replica:
    """The part of a collector that books, with books of its own or shared ones."""

    def __init__(self, database: Database) -> None:
        self.database = database
        labels = TotalLabels()
        self.folder = Folder(labels)
        database.fold_with(self.folder)
        self._context = BookingContext(labels, 0, OpenTransactions(labels))

    def append(self, *calls: PricedUsage, at_ns: int = START_NS) -> list[Verdict]:
        """Book calls as the pipeline does."""
        arrivals = Arrivals(at_ns, Calls.of(calls), accepted=len(calls))
        return self.database.append(lambda connection: book(connection, 1, arrivals, self._context))


def calls_from(first: int, count: int = 3, wallet: str = "ada") -> list[PricedUsage]:
    """Calls with responses of their own."""
    return [call(n, trace=n, wallet=wallet, response_id=f"r{n}") for n in range(first, first + count)]


def balance_of(database: Database, wallet: str = "ada") -> int:
    """The wallet's balance as every reader sees it, once the books are found clean."""
    with database.reading() as connection:
        assert not has_unfolded(connection)
        assert list(audit(connection)) == []
        return balance(connection, 1, wallet_account(wallet))


def transactions_of_usage(database: Database) -> int:
    """How many ledger transactions charged calls."""
    with database.reading() as connection:
        query = "SELECT count(*) FROM transactions WHERE kind = 'usage'"
        return int(connection.exec_driver_sql(query).scalar_one())


@pytest.fixture
def replica(database: Database) -> Replica:
    """A collector over books in either database."""
    return Replica(database)


def test_a_reader_sees_batches_that_were_not_folded(replica: Replica) -> None:
    for first in (1, 11, 21):
        assert replica.append(*calls_from(first)) == [Verdict.CHARGED] * 3
    with replica.database.snapshot() as connection:
        assert has_unfolded(connection)
        assert balance(connection, 1, wallet_account("ada")) == 0, "no account was written"
    assert balance_of(replica.database) == -9 * CHARGE
    assert transactions_of_usage(replica.database) == 1
    replica.append(*calls_from(31))
    assert balance_of(replica.database) == -12 * CHARGE
    assert transactions_of_usage(replica.database) == 2


def test_a_fold_of_nothing_writes_nothing(replica: Replica) -> None:
    replica.append(*calls_from(1))
    for _ in range(3):
        replica.database.fold()
    assert transactions_of_usage(replica.database) == 1


def test_sums_that_were_prepared_are_folded_with_what_came_after(replica: Replica) -> None:
    def prepare() -> None:
        with replica.database.snapshot() as connection:
            replica.folder.prepare(connection)
        replica.folder.claimed(replica.database.append(replica.folder.claim))

    replica.append(*calls_from(1))
    prepare()
    replica.append(*calls_from(11))
    prepare()
    prepare()
    replica.append(*calls_from(21))
    assert balance_of(replica.database) == -9 * CHARGE
    replica.append(*calls_from(31))
    prepare()
    assert balance_of(replica.database) == -12 * CHARGE


def test_a_hold_sees_what_was_charged_before(replica: Replica) -> None:
    def hold(key: str, amount: int) -> Any:
        request = HoldRequest("ada", amount, key, "chat", key, 60)
        return replica.database.transact(lambda connection: take_holds(connection, 1, [request], START_NS)[0])

    with replica.database.transaction() as connection:
        deposit(connection, 1, "ada", 10 * CHARGE, "given", START_NS)
    replica.append(*calls_from(1, 8))
    assert isinstance(hold("too much", 3 * CHARGE), Insufficient)
    assert not isinstance(hold("enough", 2 * CHARGE), Insufficient)


def test_a_hold_is_settled_by_calls_that_are_folded_later(replica: Replica) -> None:
    with replica.database.transaction() as connection:
        deposit(connection, 1, "ada", 10 * CHARGE, "given", START_NS)
        take_holds(connection, 1, [HoldRequest("ada", 5 * CHARGE, "k", "chat", "act", 60)], START_NS)
    of_action = [one._replace(usage=one.usage._replace(action_id="act")) for one in calls_from(1, 2)]
    replica.append(*of_action, *calls_from(11))
    with replica.database.reading() as connection:
        held = connection.exec_driver_sql("SELECT held_nano FROM accounts WHERE name = 'ada'").scalar_one()
        assert held == 3 * CHARGE
    assert balance_of(replica.database) == 5 * CHARGE


def test_spans_that_come_again_before_the_fold_are_known(replica: Replica) -> None:
    replica.append(*calls_from(1))
    assert replica.append(*calls_from(1)) == [Verdict.DUPLICATE] * 3
    assert replica.append(*calls_from(2)) == [Verdict.DUPLICATE] * 2 + [Verdict.CHARGED]
    first = calls_from(1, 1)[0]
    other = first._replace(usage=first.usage._replace(buckets=Buckets(input=11)))
    assert replica.append(other) == [Verdict.CONFLICT]
    assert balance_of(replica.database) == -4 * CHARGE


def test_another_span_of_a_call_is_found_before_and_after_the_fold(replica: Replica) -> None:
    replica.append(*calls_from(1))
    assert replica.append(call(9, trace=9, response_id="r1")) == [Verdict.COVERED]
    replica.database.fold()
    assert replica.append(call(8, trace=8, response_id="r2")) == [Verdict.COVERED]
    assert balance_of(replica.database) == -3 * CHARGE


def _after_a_crash(database: Database, tmp_path: Path) -> Path:
    """The books as kill -9 leaves them: the process forgets its memory, and an unfolded batch stays."""
    copy = tmp_path / "after" / "farebox.db"
    copy.parent.mkdir()
    with closing(sqlite3.connect(database.files()[0])) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def test_the_audit_of_books_that_wait_says_what_to_do(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    with closing(open_books(Settings(database_url=new_books("sqlite", tmp_path)), lambda: JANUARY_NS)) as database:
        Replica(database).append(*calls_from(1))
        url = f"sqlite:///{_after_a_crash(database, tmp_path)}"
    refused = farebox("audit", "--database-url", url)
    assert refused.returncode == 2
    assert "farebox migrate" in refused.stderr
    assert farebox("migrate", "--database-url", url).returncode == 0
    assert farebox("audit", "--database-url", url).returncode == 0


def test_claims_are_made_again_after_a_crash(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    url = new_books("sqlite", tmp_path)
    database = open_books(Settings(database_url=url), lambda: JANUARY_NS)
    Replica(database).append(*calls_from(1))
    copy = _after_a_crash(database, tmp_path)
    database.close()
    with closing(open_database(f"sqlite:///{copy}")) as again:
        restarted = Replica(again)
        assert restarted.append(call(9, trace=9, response_id="r1")) == [Verdict.COVERED]
        assert balance_of(again) == -3 * CHARGE


def test_a_day_has_transactions_of_its_own(replica: Replica) -> None:
    midnight_ns = (START_NS // (86_400 * SECOND_NS) + 1) * 86_400 * SECOND_NS
    replica.append(*calls_from(1), at_ns=midnight_ns - 1)
    replica.append(*calls_from(11), at_ns=midnight_ns)
    assert transactions_of_usage(replica.database) == 2
    assert balance_of(replica.database) == -6 * CHARGE


def test_a_folder_that_cannot_keep_up_is_helped_by_commits(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST_UNFOLDED", 2)
    for first in range(1, 60, 10):
        replica.append(*calls_from(first))
        with replica.database.snapshot() as connection:
            waiting = connection.exec_driver_sql("SELECT count(*) FROM unfolded_batches").scalar_one()
            assert waiting <= 2
    assert balance_of(replica.database) == -18 * CHARGE


def test_without_room_for_a_fold_readers_get_the_books_before_it(
    new_books: Callable[[str, Path], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = new_books("sqlite", tmp_path)
    with closing(open_books(Settings(database_url=url), lambda: JANUARY_NS)) as database:
        replica = Replica(database)
        replica.append(*calls_from(1))

        def full(_: Any) -> None:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

        folder = Folder(TotalLabels())
        database.fold_with(full)
        with caplog.at_level(logging.WARNING), database.reading() as connection:
            assert balance(connection, 1, wallet_account("ada")) == 0
        assert "cannot be folded" in caplog.text
        assert replica.append(*calls_from(11)) == [Verdict.CHARGED] * 3, "acknowledged, and durable"
        database.fold_with(folder)
        assert balance_of(database) == -6 * CHARGE


def test_replicas_fold_for_each_other(postgres: PostgresServer) -> None:
    url = blank_postgresql(postgres)
    with closing(open_database(url)) as first, closing(open_database(url)) as second:
        one, two = Replica(first), Replica(second)
        for number in range(3):
            one.append(*calls_from(10 * number + 1))
            two.append(*calls_from(10 * number + 101, wallet="bob"))
            assert balance_of(second) == -3 * CHARGE * (number + 1)
        assert balance_of(first, "bob") == -9 * CHARGE


def test_replicas_that_append_and_fold_at_once_charge_everything_once(postgres: PostgresServer) -> None:
    url = blank_postgresql(postgres)
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(open_database(url))) for _ in range(3)]
        replicas = [Replica(database) for database in databases]
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(15):
                    first = 10_000 * (number + 1) + 10 * turn
                    assert replicas[number].append(*calls_from(first)) == [Verdict.CHARGED] * 3
                    if turn % 3 == number:
                        databases[number].fold()
                    # Some that another replica has, too.
                    replicas[number].append(*calls_from(10 * turn + 1))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(replicas))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not failures
        assert balance_of(databases[0]) == -(3 + 1) * 15 * 3 * CHARGE


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30), st.integers(1, 5)),
        st.tuples(st.just("fold"), st.just(0), st.just(0)),
        st.tuples(st.just("deposit"), st.integers(1, 5), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_it_does_not_matter_when_batches_are_folded(
    tmp_path_factory: pytest.TempPathFactory, done: Sequence[tuple[str, int, int]]
) -> None:
    """The sums of accounts, roll-ups and totals are those of calls that are posted at once."""
    found = []
    for name in ("at-once", "later"):
        directory = tmp_path_factory.mktemp(name)
        with closing(open_books(Settings(database_url=blank_sqlite(directory)), lambda: JANUARY_NS)) as database:
            replica = Replica(database)
            verdicts: list[list[Verdict]] = []
            for number, (what, first, count) in enumerate(done):
                calls = calls_from(first, count, "ab"[first % 2])
                if what == "fold":
                    database.fold()
                elif what == "deposit":
                    with database.transaction() as connection:
                        deposit(connection, 1, "a", first, f"given {number}", START_NS)
                elif name == "later":
                    verdicts.append(replica.append(*calls))
                else:
                    with database.transaction() as connection:
                        verdicts.append(record_usage(connection, 1, calls, START_NS, TotalLabels()))
            balance_of(database)
        found.append((verdicts, dict(_sums(directory / "farebox.db"))))
    assert found[0] == found[1]


def _sums(path: Path) -> Iterator[tuple[str, Any]]:
    """The tables of sums, without ids."""
    tables = ("accounts", "wallet_days", "usage_days", "usage_totals", "service_totals", "cost_days", "intake_totals")
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        for table in (*tables, "call_claims", "usage_records"):
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            unlike = {"id", "transaction_id", "usage_record_id", "drawn_posting_id"}
            yield table, sorted([sorted((k, str(v)) for k, v in row.items() if k not in unlike) for row in rows])


FROZEN = json.loads((Path(__file__).parent / "golden/frozen_books.json").read_text(encoding="utf-8"))
"""The sums that these histories had when every commit posted its calls itself."""


@pytest.mark.parametrize("folding", ["at once", "now and then", "by readers only"])
@pytest.mark.parametrize("seed", SEEDS)
def test_books_end_with_the_sums_that_they_had_before_there_were_folds(seed: int, folding: str, tmp_path: Path) -> None:
    with closing(open_books(Settings(database_url=blank_sqlite(tmp_path)), lambda: JANUARY_NS)) as database:
        replica = Replica(database)
        chosen = random.Random(seed)

        def record(calls: list[PricedUsage], at_ns: int) -> None:
            if folding == "at once":
                with database.transaction() as connection:
                    record_usage(connection, 1, calls, at_ns, TotalLabels())
                return
            replica.append(*calls, at_ns=at_ns)
            if folding == "now and then" and chosen.random() < 0.5:
                with database.snapshot() as connection:
                    replica.folder.prepare(connection)
                if chosen.random() < 0.5:
                    replica.folder.claimed(database.append(replica.folder.claim))
                if chosen.random() < 0.5:
                    database.fold()

        play(database, seed, record)
        with database.reading() as connection:
            assert list(audit(connection)) == []
    assert sums(tmp_path / "farebox.db") == FROZEN[str(seed)]
