"""The audit without end: what is wrong in recent transactions is found by the next round, the rest by the daily one."""

import pytest
from calls import START_NS, call
from farebox_collector.ledger import dead_letters
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.metrics.meters import Meters
from farebox_collector.records import DEFAULT_TENANT_ID, DeadLetter, Span
from farebox_collector.rounds import Round
from farebox_collector.settings import Settings
from farebox_collector.upkeep import Upkeep
from prometheus_client import CollectorRegistry
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
    """Upkeep of these books, and what it said last."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.database = database
        settings = Settings(database_url="sqlite:///unused.db", full_audit_hours=24)
        upkeep = Upkeep(settings, database, Meters(self.registry, 0), self.clock)
        self._round = Round("upkeep", 60, upkeep.round)

    def round(self, after_ns: int = MINUTE_NS) -> tuple[float | None, float | None]:
        """Make a round; (mismatches of the last recent audit, of the last full one)."""
        self.clock.now_ns += after_ns
        self._round.make()
        found = [
            self.registry.get_sample_value("farebox_audit_mismatches", {"scope": scope}) for scope in ("recent", "full")
        ]
        return found[0], found[1]

    def charge(self, number: int) -> None:
        """Record a call now."""
        with self.database.transaction() as connection:
            calls = [call(number, trace=number)]
            record_usage(connection, DEFAULT_TENANT_ID, calls, self.clock.now_ns, TotalLabels())

    def tamper(self, statement: str) -> None:
        with self.database.transaction() as connection:
            assert connection.execute(text(statement)).rowcount


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
    rounds.tamper("UPDATE postings SET amount_nano = amount_nano - 1 WHERE records = 0")
    recent, full = rounds.round()
    assert recent is None, "a transaction that others may still come before is not looked at yet"
    recent, full = rounds.round(5 * MINUTE_NS)
    assert (bool(recent), full) == (True, 0)
    rounds.charge(2)
    assert rounds.round(5 * MINUTE_NS) == (0, 0), "each transaction is looked at once"
    recent, full = rounds.round(24 * HOUR_NS)
    assert full


def test_a_tampered_balance_is_found_by_the_full_audit(rounds: Rounds) -> None:
    rounds.charge(1)
    rounds.round()
    rounds.tamper("UPDATE accounts SET balance_nano = 0 WHERE kind = 'wallet'")
    assert rounds.round(23 * HOUR_NS)[1] == 0
    assert rounds.round(2 * HOUR_NS)[1] == 1


def test_a_round_that_fails_is_not_the_last(rounds: Rounds, caplog: pytest.LogCaptureFixture) -> None:
    rounds.tamper("UPDATE tenants SET name = 'moved'")
    with rounds.database.transaction() as connection:
        connection.execute(text("ALTER TABLE usage_totals RENAME TO elsewhere"))
    assert rounds.round() == (None, None)
    assert "a round failed" in caplog.text
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
