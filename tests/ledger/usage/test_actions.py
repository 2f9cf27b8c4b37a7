"""A flat charge and a minimum are paid once an action, in any order, batches and repeats."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import FLAT, RuleTerms
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

FLOOR = 500
RULE = 2
"""The version that asks for the floor: the first after the default."""


def ask_for_floor(database: Database) -> Database:
    terms = RuleTerms(FLAT, flat_credits=Decimal(FLOOR).scaleb(-9))
    with database.transaction() as connection:
        assert set_rule(connection, 1, "chat", terms, RuleAuthorship("eve", "a floor"), START_NS) == RULE
    return database


@pytest.fixture
def database(database: Database) -> Database:
    """Books with a rule that has a floor."""
    return ask_for_floor(database)


def call_of_action(number: int, action: str, share: int, wallet: str = "ada") -> PricedUsage:
    """A call of an action that is charged 500 nanocredits at least; the share is what the call alone comes to."""
    made = call(number, trace=number, wallet=wallet, cost_nanousd=7)
    usage = made.usage._replace(action_id=action)
    floor: dict[str, Any] = {"action_floor_nanocredits": FLOOR, "rule_version_id": RULE}
    return made._replace(usage=usage, charge_nanocredits=share, **floor)


def record(database: Database, calls: Sequence[PricedUsage]) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, START_NS, TotalLabels())


def charges(database: Database) -> dict[tuple[str, str], int]:
    table = usage_records.c
    query = select(table.wallet, table.action_id, func.sum(table.charge_nanocredits)).group_by(
        table.wallet, table.action_id
    )
    with database.reading() as connection:
        assert list(audit(connection)) == []
        return {(wallet, action): int(charge) for wallet, action, charge in connection.execute(query)}


def test_a_flat_action_is_charged_once_however_many_calls_it_makes(database: Database) -> None:
    calls = [call_of_action(number, "run", 0) for number in range(1, 6)]
    assert record(database, calls[:2]) == [Verdict.CHARGED] * 2
    assert record(database, calls) == [Verdict.DUPLICATE] * 2 + [Verdict.CHARGED] * 3
    assert charges(database) == {("ada", "run"): FLOOR}


def test_two_wallets_never_share_a_floor(database: Database) -> None:
    record(database, [call_of_action(1, "run", 0), call_of_action(2, "run", 0, "bob")])
    assert charges(database) == {("ada", "run"): FLOOR, ("bob", "run"): FLOOR}


@pytest.mark.parametrize(("covered", "carried"), [(1, [None, 500, 0]), (2, [500, None, 0]), (3, [500, 0, None])])
def test_when_the_call_that_carried_an_action_is_taken_back_another_carries_it(
    database: Database, covered: int, carried: list[int | None]
) -> None:
    record(database, [call_of_action(number, "run", 0) for number in (1, 2, 3)])
    with database.transaction() as connection:
        (stored,) = stored_calls(connection, usage_query(1).where(usage_records.c.id == covered))
        correct(connection, 1, Cause.TWIN, [cover(stored)], START_NS, TotalLabels())
    assert charges(database) == {("ada", "run"): FLOOR}
    with database.reading() as connection:
        table = usage_records.c
        assert list(connection.scalars(select(table.charge_nanocredits).order_by(table.id))) == carried


def test_the_audit_finds_an_action_that_was_charged_twice(database: Database) -> None:
    record(database, [call_of_action(1, "run", 0), call_of_action(2, "run", 0)])
    with database.transaction() as connection:
        connection.execute(text("UPDATE charged_actions SET floor_nanocredits = 1"))
    with database.reading() as connection:
        assert [mismatch.check for mismatch in audit(connection)] == ["actions", "floors"]


def test_the_same_span_in_another_action_is_a_conflict(database: Database) -> None:
    record(database, [call_of_action(1, "run", 0)])
    assert record(database, [call_of_action(1, "walk", 0)]) == [Verdict.CONFLICT]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    books = f"sqlite:///{tmp_path_factory.mktemp('actions')}/farebox.db"
    database = ask_for_floor(assembly.open_books(Settings(database_url=books), lambda: START_NS))
    yield database
    database.close()


CALL = st.tuples(st.integers(1, 12), st.sampled_from(["a", "b"]), st.integers(0, 400))
BATCHES = st.lists(st.lists(CALL, min_size=1, max_size=6), min_size=1, max_size=5)
Batches = list[list[tuple[int, str, int]]]
EXAMPLES = iter(range(1, 10**6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BATCHES)
def test_any_batches_come_to_the_floor_or_the_shares(shared: Database, batches: Batches) -> None:
    wallet = f"wallet{next(EXAMPLES)}"
    offset = next(EXAMPLES) * 100
    first: dict[int, tuple[str, int]] = {}
    for batch in batches:
        for number, action, share in batch:
            first.setdefault(number, (action, share))
        # A repeated call is unchanged.
        calls = [call_of_action(offset + number, *first[number], wallet) for number, _, _ in batch]
        record(shared, calls)
    shares: defaultdict[str, int] = defaultdict(int)
    for action, share in first.values():
        shares[action] += share
    found = charges(shared)
    assert {action: found[wallet, action] for action in shares} == {a: max(FLOOR, s) for a, s in shares.items()}
