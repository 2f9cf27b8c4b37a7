"""Plans of coding agents: whose calls a subscription pays, and what the report on seats says of them."""

import csv
import io
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from blank import blank_sqlite
from calls import START_NS, agent_call, subscribed
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.reports.seats import Seat, seats, sum_of
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.agent_plans import BadPlan, plan_history, plans_in_force, set_plan
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.moments import DAY_NS, Days, month_of, whole_months
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.records import PricedUsage, Span
from farebox_collector.pricing.agent_plans import AgentPlan, PlanBook
from farebox_collector.settings import Settings
from harness import Collector, farebox
from hypothesis import given
from hypothesis import strategies as st
from logs import LogSpec, logs_request

SECOND_NS = 10**9
ADA = "ada@example.com"
NO_MORE: Mapping[str, str] = {}


def plan(tool: str, account: str, name: str = "max", seat: int = 100, from_ns: int = START_NS) -> AgentPlan:
    return AgentPlan(0, tool, account, name, seat * 10**9, from_ns)


def put(database: Database, *plans: AgentPlan, tenant: int = 1, at_ns: int = START_NS) -> list[int]:
    """Set these plans; returns their versions."""
    with database.transaction() as connection:
        return [set_plan(connection, tenant, one, "eve", "why", at_ns) for one in plans]


def told(
    account: str = "ada@example.com", at_ns: int = START_NS + SECOND_NS, more: Mapping[str, str] = NO_MORE
) -> Span:
    """A call of Claude Code."""
    attributes: dict[str, str] = {
        "event.name": "claude_code.api_request",
        "model": "claude-sonnet-4-5",
        "input_tokens": "10",
        "output_tokens": "2",
        "user.email": account,
        **more,
    }
    named = {key: value for key, value in attributes.items() if value}
    return Span(b"", b"", b"", at_ns, at_ns, False, named, {}, "com.anthropic.claude_code.events", "2")


def of_codex(auth: str, account: str) -> Span:
    """A call of Codex CLI."""
    attributes = {
        "event.name": "codex.sse_event",
        "event.kind": "response.completed",
        "model": "gpt-5",
        "input_token_count": "10",
        "output_token_count": "2",
        "auth_mode": auth,
        "user.email": account,
    }
    at_ns = START_NS + SECOND_NS
    return Span(b"", b"", b"", at_ns, at_ns, False, attributes, {}, "codex_cli_rs", "1")


def is_paid_by_a_plan(database: Database, span: Span, tenant: int = 1) -> bool:
    reader = SpanReader(Settings(), Tariffs(database, lambda: START_NS + 2 * SECOND_NS))
    read = reader.read(span, tenant, START_NS + 2 * SECOND_NS)
    assert isinstance(read, PricedUsage), read
    paid = "under_subscription" in read.assumptions
    assert (read.cost_nanousd == 0) is paid
    listed = read.particulars and read.particulars.list_cost_nanousd
    assert (listed or 0) > 0 if paid else not listed
    return paid


def test_a_plan_pays_its_account_from_its_moment_on(database: Database) -> None:
    put(database, plan("claude_code", "ada@example.com"))
    assert is_paid_by_a_plan(database, told())
    assert not is_paid_by_a_plan(database, told(at_ns=START_NS - 1))
    assert not is_paid_by_a_plan(database, told("bob@example.com"))
    with database.transaction() as connection:
        other = create_tenant(connection, "other", Decimal("0.01"), START_NS)
    assert not is_paid_by_a_plan(database, told(), tenant=other)
    put(database, plan("claude_code", "ada@example.com", "", 0, START_NS + 5))
    assert not is_paid_by_a_plan(database, told())


def test_a_plan_of_each_account_pays_those_who_are_logged_in(database: Database) -> None:
    put(database, plan("*", "*"))
    assert is_paid_by_a_plan(database, told())
    assert not is_paid_by_a_plan(database, told("", more={"user.id": "an installation"}))
    assert is_paid_by_a_plan(database, of_codex("Chatgpt", "ada@example.com"))
    assert not is_paid_by_a_plan(database, of_codex("ApiKey", "ada@example.com"))
    put(database, plan("codex_cli", "ada@example.com"))
    assert is_paid_by_a_plan(database, of_codex("ApiKey", "ada@example.com")), "the plan names the account"
    put(database, plan("claude_code", "ada@example.com", "", 0))
    assert not is_paid_by_a_plan(database, told()), "an end holds against the plan of each account"


def test_a_wallet_that_stands_for_a_developer_can_have_a_plan(database: Database) -> None:
    put(database, plan("claude_code", "ada"))
    assert is_paid_by_a_plan(database, told("", more={"farebox.wallet": "ada"}))


def test_a_running_collector_learns_of_a_plan(database: Database) -> None:
    now = [START_NS]
    tariffs = Tariffs(database, lambda: now[0])
    assert tariffs.of(1).plans is None
    put(database, plan("claude_code", "ada@example.com"))
    now[0] += 2 * SECOND_NS
    tariffs.refresh()
    found = tariffs.of(1).plans
    assert found is not None
    assert found.closest("claude_code", "ada@example.com", START_NS)


def test_versions_are_kept_and_invalid_ones_refused(database: Database) -> None:
    (first, second, ended) = put(database, plan("*", "ada"), plan("*", "ada", "pro", 20), plan("*", "bob", "", 0))
    assert ended
    with database.reading() as connection:
        assert [row.id for row in plans_in_force(connection, 1, START_NS)] == [second]
        assert plans_in_force(connection, 1, START_NS - 1) == []
        assert [row.id for row in plan_history(connection, 1, "*", "ada")] == [second, first]
    for bad, message in (
        (plan("cursor", "ada"), "choose from claude_code"),
        (plan("*", ""), "account is required"),
        (plan("*", "ada", seat=-1), "a seat must cost"),
        (plan("*", "ada")._replace(seat_nanousd_per_month=MAX_SUM_NANO + 1), "a seat must cost"),
        (plan("*", "ada", from_ns=START_NS - 1), "now or later"),
    ):
        with pytest.raises(BadPlan, match=message):
            put(database, bad)


NAMES = st.sampled_from(["a", "b", "*"])
VERSIONS = st.lists(st.tuples(NAMES, NAMES, st.sampled_from(["", "p", "q"]), st.integers(0, 9)), max_size=8)


@given(VERSIONS, st.integers(0, 8), st.integers(1, 9))
def test_the_seat_of_a_period_is_the_last_plan_of_any_moment_in_it(
    stated: list[tuple[str, str, str, int]], first: int, length: int
) -> None:
    versions = [AgentPlan(number, *one[:3], number, one[3]) for number, one in enumerate(stated)]
    book = PlanBook(versions)

    def at(moment: int) -> AgentPlan | None:
        for pair in (("a", "a"), ("*", "a"), ("a", "*"), ("*", "*")):
            begun = [one for one in versions if (one.tool, one.account) == pair and one.valid_from_ns <= moment]
            if begun:
                return begun[-1]
        return None

    held = [found for moment in range(first, first + length) if (found := at(moment)) and found.plan]
    assert book.seat("a", "a", first, first + length) == (held[-1] if held else None)
    assert book.closest("a", "a", first) == at(first)


MONTH = month_of(START_NS)
MONTH_DAYS = whole_months(Days(START_NS // DAY_NS, START_NS // DAY_NS + 1))


def test_seats_of_a_month(database: Database) -> None:
    put(database, plan("claude_code", "ada", "max", 100), plan("codex_cli", "*", "plus", 20), plan("*", "cy"))
    put(database, plan("codex_cli", "idle", "pro", 200), plan("codex_cli", "gone", "", 0))
    made = [
        subscribed(agent_call(1, "ada", "s"), 60 * 10**9),
        subscribed(agent_call(2, "ada", "s"), 40 * 10**9),
        agent_call(3, "ada", "s"),  # paid by the call
        subscribed(agent_call(4, "bob", "s", tool="codex_cli"), 20 * 10**9 - 1),
        subscribed(agent_call(5, "eve", "s"), 7),
        subscribed(agent_call(6, "ada", "s", start_ns=START_NS - 60 * DAY_NS), 7),
    ]
    with database.transaction() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
    with database.reading() as connection:
        found = list(seats(connection, 1, MONTH_DAYS))
    assert found == [
        Seat(MONTH, "claude_code", "ada", "max", 2, 200, 14, 100 * 10**9, 100 * 10**9),
        Seat(MONTH, "codex_cli", "bob", "plus", 1, 100, 7, 20 * 10**9 - 1, 20 * 10**9),
        Seat(MONTH, "claude_code", "eve", "", 1, 100, 7, 7, None),
        Seat(MONTH, "codex_cli", "idle", "pro", 0, 0, 0, 0, 200 * 10**9),
    ]
    assert sum_of(found)[4:] == (4, 400, 28, 120 * 10**9 + 6, 320 * 10**9)
    assert sum_of([])[4:] == (0, 0, 0, 0, None)


@pytest.fixture
def collector(tmp_path: Any) -> Iterator[Collector]:
    collector = Collector(blank_sqlite(tmp_path))
    yield collector
    collector.close()


def send(collector: Collector, account: str) -> None:
    attributes = {key: str(value) for key, value in told(account).attributes.items()} | {
        "request_id": f"req_{account}",
        "session.id": "s",
    }
    record = LogSpec(attributes, body="claude_code.api_request", time_ns=time.time_ns())
    request = logs_request([record], {"service.name": "claude-code"}, ("com.anthropic.claude_code.events", "2"))
    collector.export_http(request.SerializeToString(), signal="logs").raise_for_status()


def test_plans_and_seats_over_http_and_on_a_terminal(collector: Collector) -> None:
    api, books = collector.api, ("--database-url", collector.database_url)
    send(collector, "before@example.com")
    stated = {"tool": "claude_code", "account": "ada@example.com", "plan": "tiny", "reason": "a trial"}
    answer = api.put("/v1/agent-plans", json={**stated, "seat_usd_per_month": "0.00006"})
    answer.raise_for_status()
    assert (answer.json()["plan"], answer.json()["seat_usd_per_month"]) == ("tiny", "0.000060000")
    assert api.get("/v1/agent-plans").json()["items"] == [answer.json()]
    send(collector, "ada@example.com")
    page = api.get("/v1/reports/seats").json()
    (row,) = page["items"]
    assert (row["account"], row["requests"], row["list_equivalent_usd"]) == ("ada@example.com", 1, "0.000060000")
    assert (row["plan_pays"], page["total"]["plan_pays"], page["total"]["seat_usd"]) == ("yes", None, "0.000060000")
    assert page["first_day"].endswith("-01")
    (of_file,) = csv.DictReader(io.StringIO(api.get("/v1/reports/seats", params={"format": "csv"}).text))
    assert (of_file["plan"], of_file["plan_pays"], of_file["list_equivalent_usd"]) == ("tiny", "yes", "0.000060000")
    assert api.put("/v1/agent-plans", json={**stated, "tool": "cursor"}).status_code == 422
    assert api.put("/v1/agent-plans", json={**stated, "seat_usd_per_month": "much"}).status_code == 422
    collector.close()
    assert farebox("agent-plans", "set", "*", "bob", "pro", "--seat", "20", "--reason", "r", *books).returncode == 0
    assert farebox("agent-plans", "end", "claude_code", "ada@example.com", "--reason", "r", *books).returncode == 0
    listed = farebox("agent-plans", "list", *books).stdout
    assert "bob" in listed
    assert "ada" not in listed
    shown = farebox("report", "seats", *books)
    assert "tiny" in shown.stdout, shown.stdout + shown.stderr
    assert farebox("report", "seats", "--compare", *books).returncode == 2
