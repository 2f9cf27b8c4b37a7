"""The audit finds every kind of tampering and names it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.access.actors import Actor, acting_as
from farebox_collector.ledger.audit.books_audit import CHECKS, audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from sqlalchemy import Connection, text

TAMPERINGS = {
    "legs": "UPDATE postings SET amount_nano = amount_nano + 1 WHERE id = 1",
    "commodities": "UPDATE postings SET commodity = 'USD' WHERE commodity = 'CREDIT'",
    "origins": "UPDATE postings SET account_id = 99 WHERE id = 1",
    "balances": "UPDATE accounts SET balance_nano = balance_nano + 1 WHERE kind = 'wallet' AND name = 'bob'",
    "spent": "UPDATE accounts SET spent_nano = 0 WHERE name = 'ada'",
    "actions": "INSERT INTO charged_actions (tenant_id, wallet, event, action_id, calls, share_nanocredits,"
    " floor_nanocredits) VALUES (1, 'ada', 'chat', 'walk', 1, 0, 5)",
    "floors": "UPDATE charged_actions SET floor_nanocredits = 1",
    "holds": "UPDATE accounts SET held_nano = 1 WHERE name = 'ada'",
    "hold amounts": "UPDATE holds SET open_nano = open_nano + 1",
    "hold charges": "UPDATE holds SET settled_nano = settled_nano - 1, open_nano = open_nano + 1",
    "lots": "UPDATE lots SET recognised_nanousd = 1",
    "drawn": "UPDATE lots SET remaining_nano = remaining_nano - 1",
    "deferred": "UPDATE lots SET price_nanousd = price_nanousd + 1",
    "top-ups": "UPDATE lots SET origin = 'topup'",
    "payments": "INSERT INTO payment_fees (tenant_id, fee_id, topup_id, currency, fee_minor, fee_nanousd,"
    " transaction_id, recorded_at_ns) VALUES (1, 'txn_1', 1, 'USD', 1, 5, 1, 1)",
    "displaced": "UPDATE lots SET out_nano = 1, displaced_nano = 1",
    "returns": "INSERT INTO topups (tenant_id, key, idempotency_key, request, wallet, automatic, pack_id, amount_nano,"
    " currency, amount_minor, price_nanousd, expires_days, livemode, state, reason, checkout_id, checkout_url,"
    " payment_intent, lot_id, created_at_ns, returned_minor, back_nanousd) VALUES (1, 'k', 'k', '', 'ada', 0, 0, 5,"
    " 'USD', 5, 5, 0, 0, 'paid', '', '', '', 'pi_1', 1, 1, 5, 5)",
    "lot times": "UPDATE lots SET remaining_nano = 0, created_at_ns = 1, expires_at_ns = 1",
    "audit log": "UPDATE audit_log SET actor = 'cli:eve' WHERE number = 2",
    "calls": "UPDATE accounts SET charged_calls = 2 WHERE name = 'bob'",
    "claims": "UPDATE usage_records SET call_key = trace_id WHERE verdict = 'charged'",
    "charges": "UPDATE usage_records SET charge_nanocredits = charge_nanocredits - 1 WHERE wallet = 'ada'",
    "costs": "UPDATE usage_records SET cost_nanousd = cost_nanousd + 1 WHERE wallet = 'ada'",
    "verdicts": "UPDATE usage_records SET cost_nanousd = 0 WHERE verdict = 'unpriced'",
    "corrections": "UPDATE usage_records SET corrections = 1 WHERE wallet = 'bob'",
    "retired": "INSERT INTO retired_spans SELECT tenant_id, trace_id, span_id, trace_id, span_id, 1, 0, 0"
    " FROM usage_records",
    "index": "INSERT INTO watermarks (name, value) VALUES ('postings by account', 2)"
    " ON CONFLICT (name) DO UPDATE SET value = 2",
    "index size": "INSERT INTO account_postings (account_id, transaction_id, posting_id) VALUES (1, 1, 0)",
    "span index": "DELETE FROM record_spans; INSERT INTO watermarks (name, value) VALUES ('records by span', 2)"
    " ON CONFLICT (name) DO UPDATE SET value = 2",
    "span index size": "INSERT INTO record_spans (tenant_id, trace_id, span_id, record_id)"
    " SELECT tenant_id, span_id, span_id, 0 FROM usage_records WHERE wallet = 'bob'",
    "days": "UPDATE usage_days SET errors = errors + 1",
    "wallet days": "UPDATE wallet_days SET charge_nanocredits = charge_nanocredits - 1 WHERE wallet = 'ada'",
    "wallet blocks": "UPDATE wallet_blocks SET requests_0 = requests_0 + 1 WHERE wallet = 'ada'",
    "spending days": "INSERT INTO spending_days (tenant_id, day, scope, name, user_id, charge_nanocredits)"
    f" VALUES (1, {START_NS // DAY_NS}, 'dept', 'sales', '', 1)",
    "spenders": "INSERT INTO spenders (tenant_id, scope, name, user_id, held_nano) VALUES (1, 'dept', 'sales', '', 1)",
    "cost days": "UPDATE cost_days SET cache_read_tokens = cache_read_tokens + 1, input_tokens = input_tokens - 1",
    "money days": "UPDATE money_days SET in_nano = in_nano + 1 WHERE account = 'wallet'",
    "lot days": "UPDATE lot_days SET used_nano = used_nano + 1",
    "overdraft days": "INSERT INTO overdraft_days (tenant_id, day, overdraft_nano, unpaid_nano) VALUES (1, 1, 1, 0)",
    "bridge": "UPDATE lot_days SET sold_nanousd = sold_nanousd + 1",
    "bridge credits": "INSERT INTO overdraft_days (tenant_id, day, overdraft_nano, unpaid_nano) VALUES (1, 1, 0, 1)",
    "totals": "UPDATE usage_totals SET requests = requests + 1",
    "intake": "UPDATE intake_totals SET spans = spans + 1 WHERE outcome = 'accepted'",
}


@pytest.fixture(scope="module", params=("sqlite", "postgresql"))
def books(
    request: pytest.FixtureRequest, new_books: Callable[[str, Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """Books with a deposit, a hold, three charges and an unpriced call. All tests share them and undo what they do."""
    url = new_books(request.param, tmp_path_factory.mktemp("audited"))
    database = assembly.open_books(Settings(database_url=url))
    with database.transaction() as connection, acting_as(Actor("cli:ada")):
        deposit(connection, DEFAULT_TENANT_ID, "ada", 10_000, "k", START_NS)
        calls = [call(1), call(2, trace=2, wallet="bob"), call(3, trace=3, verdict=Verdict.UNPRICED)]
        record_usage(connection, DEFAULT_TENANT_ID, calls, START_NS, TotalLabels())
        take_holds(connection, 1, [HoldRequest("ada", 1_000, "k", "chat", "run", 60)], START_NS - 5 * 10**9)
        of_action = call(4, trace=4)
        of_action = of_action._replace(usage=of_action.usage._replace(action_id="run"), action_floor_nanocredits=0)
        record_usage(connection, DEFAULT_TENANT_ID, [of_action], START_NS, TotalLabels())
    yield database
    database.close()


class _UndoneError(Exception):
    """Ends a transaction without a commit."""


@contextmanager
def tampered(books: Database, statement: str) -> Iterator[Connection]:
    """The books as they are once a statement has changed them behind the collector's back; undone at the end."""
    with suppress(_UndoneError), books.transaction() as connection:
        if connection.dialect.name == "sqlite":
            # SQLite's own shell does not look at foreign keys.
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        assert [connection.execute(text(one)).rowcount for one in statement.split(";")][-1] > 0
        yield connection
        raise _UndoneError


def test_untouched_books_are_clean(books: Database) -> None:
    with books.reading() as connection:
        assert list(audit(connection)) == []


def test_there_is_a_tampering_for_every_check() -> None:
    assert set(TAMPERINGS) == {check.name for check in CHECKS}


@pytest.mark.parametrize("check", TAMPERINGS)
def test_each_check_finds_what_it_is_for(books: Database, check: str) -> None:
    with tampered(books, TAMPERINGS[check]) as connection:
        found = [mismatch for mismatch in audit(connection) if mismatch.check == check]
    assert found
    assert all(str(mismatch).startswith(check) for mismatch in found)


@pytest.mark.parametrize(
    ("deletion", "check"),
    [
        ("DELETE FROM usage_records WHERE wallet = 'bob'", "charges"),
        ("DELETE FROM usage_totals WHERE verdict = 'charged'", "totals"),
        ("DELETE FROM usage_records WHERE verdict = 'unpriced'", "totals"),
        ("DELETE FROM card_totals", "totals"),
        (
            "INSERT INTO correction_totals (tenant_id, cause, corrections, cost_up_nanousd, cost_down_nanousd,"
            " charge_up_nanocredits, charge_down_nanocredits) VALUES (1, 'replay', 1, 0, 5, 0, 0)",
            "totals",
        ),
        ("DELETE FROM audit_log WHERE number = 2", "audit log"),
        ("DELETE FROM audit_log_heads", "audit log"),
        ("DELETE FROM usage_days", "days"),
        ("DELETE FROM wallet_days", "wallet days"),
        ("DELETE FROM wallet_days", "wallet blocks"),
        ("DELETE FROM wallet_blocks", "wallet blocks"),
        ("UPDATE wallet_blocks SET block = block + 1", "wallet blocks"),
        ("DELETE FROM money_days", "money days"),
        ("DELETE FROM cost_days", "cost days"),
        ("DELETE FROM usage_records", "days"),
        ("DELETE FROM usage_records WHERE wallet = 'bob'", "wallet days"),
        ("DELETE FROM usage_records WHERE verdict = 'unpriced'", "intake"),
        ("DELETE FROM intake_totals WHERE outcome = 'charged'", "intake"),
        ("DELETE FROM postings WHERE id > 2", "balances"),
        ("DELETE FROM accounts WHERE name = 'bob'", "origins"),
        ("DELETE FROM transactions WHERE kind = 'usage'", "origins"),
    ],
)
def test_what_is_missing_is_found_too(books: Database, deletion: str, check: str) -> None:
    with tampered(books, deletion) as connection:
        assert check in {mismatch.check for mismatch in audit(connection)}
