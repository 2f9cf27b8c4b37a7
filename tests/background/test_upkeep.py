"""The audit without end: what is wrong in recent transactions is found by the next round, the rest by the daily one."""

import pytest
from calls import START_NS, call
from farebox_collector.background.periodic import PeriodicJob
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.ledger.audit.audit_runs import last_audit
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.locks import AUDITING
from farebox_collector.ledger.storage.postgresql import PostgresqlDatabase
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import DEFAULT_TENANT_ID, DeadLetter, Span
from farebox_collector.settings import Settings
from sqlalchemy import text

MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


class Rounds:
    """Upkeep of these books, and what their log of audits says."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.database = database
        self.restart()

    def restart(self) -> None:
        """As if the collector had been started anew."""
        settings = Settings(database_url="sqlite:///unused.db", full_audit_hours=24)
        self._round = PeriodicJob("upkeep", 60, Upkeep(settings, self.database, self.clock).round)

    def round(self, after_ns: int = MINUTE_NS) -> tuple[int | None, int | None]:
        """Make a round; (mismatches of the last recent audit, of the last full one)."""
        self.clock.now_ns += after_ns
        self._round.run()
        with self.database.reading() as connection:
            recent, full = (last_audit(connection, scope) for scope in ("recent", "full"))
        return recent and recent.mismatches, full and full.mismatches

    def number(self, statement: str) -> int:
        with self.database.reading() as connection:
            return int(connection.execute(text(statement)).scalar_one())

    def charge(self, number: int, wallet: str = "ada") -> None:
        """Record a call now."""
        with self.database.transaction() as connection:
            calls = [call(number, trace=number, wallet=wallet)]
            record_usage(connection, DEFAULT_TENANT_ID, calls, self.clock.now_ns, TotalLabels())

    def tamper(self, statement: str) -> None:
        with self.database.transaction() as connection:
            assert connection.execute(text(statement)).rowcount

    @property
    def frozen(self) -> bool:
        with self.database.reading() as connection:
            return are_frozen(connection)


@pytest.fixture
def rounds(database: Database) -> Rounds:
    return Rounds(database)


def test_the_first_round_audits_everything_and_later_ones_what_is_new(rounds: Rounds) -> None:
    rounds.charge(1)
    assert rounds.round() == (None, 0)
    rounds.charge(2)
    assert rounds.round(5 * MINUTE_NS) == (0, 0)


def test_a_recent_mismatch_is_found_by_the_next_round_that_may_see_it(rounds: Rounds) -> None:
    rounds.round()
    rounds.charge(1)
    rounds.tamper("UPDATE usage_records SET cost_nanousd = cost_nanousd + 1")
    recent, full = rounds.round()
    assert recent == 0, "a transaction that others may still come before is not looked at yet"
    recent, full = rounds.round(5 * MINUTE_NS)
    assert (bool(recent), full) == (True, 0)
    rounds.charge(2)
    assert rounds.round(5 * MINUTE_NS) == (0, 0), "each transaction is looked at once"
    recent, full = rounds.round(24 * HOUR_NS)
    assert full


@pytest.mark.parametrize("column", ["balance_nano", "spent_nano", "charged_calls"])
def test_a_tampered_account_is_found_when_it_is_used_and_by_the_full_audit(rounds: Rounds, column: str) -> None:
    rounds.charge(1)
    rounds.charge(2, wallet="bob")
    rounds.round(5 * MINUTE_NS)
    rounds.round(5 * MINUTE_NS)
    rounds.tamper(f"UPDATE accounts SET {column} = {column} + 1 WHERE kind = 'wallet'")
    rounds.charge(3)
    assert rounds.round(5 * MINUTE_NS) == (1, 0), "bob was not seen, and the full audit is not due"
    rounds.charge(4, wallet="bob")
    assert rounds.round(5 * MINUTE_NS) == (1, 0)
    # The bridge compares what wallets hold as well.
    assert rounds.round(HOUR_NS)[1] == (3 if column == "balance_nano" else 2)


def test_recent_audits_read_only_what_came_since_the_checkpoint(rounds: Rounds) -> None:
    rounds.round()
    for number in range(1, 7):
        rounds.charge(number, wallet=f"wallet-{number % 2}")
        assert rounds.round(5 * MINUTE_NS)[0] == 0
        sums = "SELECT count(*) FROM audited_balances c JOIN accounts a ON a.id = c.account_id WHERE {} = ({})"
        for said, posted in (("c.balance_nano", "sum(p.amount_nano)"), ("c.charged_calls", "sum(p.records)")):
            of_postings = f"SELECT {posted} FROM postings p WHERE p.account_id = a.id"
            of_checkpoint = sums.format(said, f"{of_postings} AND p.transaction_id <= c.upto_transaction")
            assert rounds.number(of_checkpoint) == min(number, 2) + 3
        assert rounds.number("SELECT max(upto_transaction) FROM audited_balances") == number
    # What is before the checkpoint is not read again until the full audit.
    rounds.tamper("UPDATE postings SET amount_nano = amount_nano - 1 WHERE transaction_id = 1")
    rounds.charge(8)
    assert rounds.round(5 * MINUTE_NS) == (0, 0)
    assert rounds.round(24 * HOUR_NS)[1]


def test_a_mismatch_freezes_corrections_until_a_full_audit_is_clean_which_comes_each_hour(rounds: Rounds) -> None:
    rounds.round()
    rounds.charge(1)
    rounds.tamper("UPDATE accounts SET balance_nano = balance_nano + 1 WHERE kind = 'wallet'")
    assert not rounds.frozen
    assert rounds.round(5 * MINUTE_NS) == (1, 0)
    assert rounds.frozen
    assert rounds.round(5 * MINUTE_NS)[1] == 0, "the last full audit is not an hour ago"
    assert rounds.round(HOUR_NS)[1] == 2, "the account, and the bridge"
    rounds.tamper("UPDATE accounts SET balance_nano = balance_nano - 1 WHERE kind = 'wallet'")
    assert rounds.round(5 * MINUTE_NS) == (0, 2)
    assert rounds.frozen, "a clean recent audit says nothing of what was found before"
    assert rounds.round(HOUR_NS)[1] == 0
    assert not rounds.frozen


def test_a_restart_goes_on_where_the_log_of_audits_ends(rounds: Rounds) -> None:
    rounds.round()
    rounds.charge(1)
    rounds.restart()
    rounds.round(5 * MINUTE_NS)
    assert rounds.number("SELECT count(*) FROM audits WHERE scope = 'full'") == 1
    assert rounds.number("SELECT max(upto_transaction) FROM audits WHERE scope = 'recent'") == 1
    rounds.restart()
    rounds.round(24 * HOUR_NS)
    assert rounds.number("SELECT count(*) FROM audits WHERE scope = 'full'") == 2


def test_an_audit_of_the_future_counts_for_nothing(rounds: Rounds) -> None:
    rounds.clock.now_ns += 400 * 24 * HOUR_NS
    rounds.round()
    rounds.clock.now_ns -= 400 * 24 * HOUR_NS
    rounds.round()
    assert rounds.number("SELECT count(*) FROM audits WHERE scope = 'full'") == 2


def test_several_collectors_take_turns(rounds: Rounds) -> None:
    other = Rounds(rounds.database)
    for _ in range(3):
        rounds.round()
        other.round()
    assert rounds.number("SELECT count(*) FROM audits") == 3
    if isinstance(rounds.database, PostgresqlDatabase):
        with rounds.database.turn(AUDITING) as mine:
            assert mine
            rounds.round()
        assert rounds.number("SELECT count(*) FROM audits") == 3, "another process holds the lock"
    rounds.round()
    assert rounds.number("SELECT count(*) FROM audits") == 4


def test_a_round_that_fails_is_not_the_last(rounds: Rounds, caplog: pytest.LogCaptureFixture) -> None:
    rounds.tamper("UPDATE tenants SET name = 'moved'")
    with rounds.database.transaction() as connection:
        connection.execute(text("ALTER TABLE usage_totals RENAME TO elsewhere"))
    assert rounds.round() == (None, None)
    assert "a periodic job failed" in caplog.text
    with rounds.database.transaction() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO usage_totals"))
    assert rounds.round() == (None, 0)


def test_dead_letters_go_when_their_time_is_up(rounds: Rounds) -> None:
    span = Span(b"t" * 16, b"s" * 8, b"", 0, 0, False, {}, {}, "", "")
    with rounds.database.transaction() as connection:
        letters = [DeadLetter(span, "a reason")]
        dead_letters.keep(connection, DEFAULT_TENANT_ID, letters, rounds.clock.now_ns, HOUR_NS)
    for wait_ns, left in ((30 * MINUTE_NS, 1), (31 * MINUTE_NS, 0)):
        rounds.round(wait_ns)
        with rounds.database.reading() as connection:
            assert dead_letters.count(connection) == left
