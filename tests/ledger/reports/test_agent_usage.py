"""The report on coding agents adds up what their records say, whoever paid."""

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from blank import blank_sqlite
from calls import START_NS, agent_call, call, subscribed
from farebox_collector.ledger.reports.agent_usage import AgentGroup, agent_usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from harness import Collector, farebox
from logs import LogSpec, logs_request

DAYS = Days(START_NS // DAY_NS, START_NS // DAY_NS + 1)


def failed(made: PricedUsage) -> PricedUsage:
    """The same call, refused by the provider."""
    usage = made.usage._replace(error_type="529", buckets=None, response_id="")
    return made._replace(usage=usage, verdict=Verdict.FAILED, reason="529", cost_nanousd=None, charge_nanocredits=None)


@pytest.fixture
def books(database: Database) -> Database:
    made = [
        agent_call(1, "ada", "s1"),
        agent_call(2, "ada", "s1"),
        failed(agent_call(3, "ada", "s2")),
        subscribed(agent_call(4, "bob", "s3", tool="codex_cli"), 5_000),
        call(5, trace=5),  # of another application
        agent_call(6, "eve", "s4", start_ns=START_NS + DAY_NS),
    ]
    with database.transaction() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
    return database


def rows(database: Database, *groups: AgentGroup) -> list[tuple[Any, ...]]:
    """Group values, requests, errors, sessions, tokens in, from a cache and out, cost and list price."""
    names = ("requests", "errors", "sessions", "input_tokens", "cache_read_tokens", "output_tokens")
    money = ("cost_nanousd", "list_cost_nanousd")
    with database.reading() as connection:
        return [
            (
                *(getattr(row, group.value) for group in groups),
                *(int(getattr(row, name) or 0) for name in names + money),
            )
            for row in agent_usage(connection, 1, DAYS, groups)
        ]


def test_calls_by_developer_and_in_total(books: Database) -> None:
    cost = agent_call(1, "ada", "s1").cost_nanousd
    assert cost
    ada = ("ada", 3, 1, 2, 200, 120, 14, 2 * cost, 0)
    bob = ("bob", 1, 0, 1, 100, 60, 7, 0, 5_000)
    assert sorted(rows(books, AgentGroup.DEVELOPER)) == [ada, bob]
    (total,) = rows(books)
    assert total == tuple(map(sum, zip(ada[1:], bob[1:], strict=True)))
    assert {row[:2] for row in rows(books, AgentGroup.TOOL, AgentGroup.SESSION)} == {
        ("claude_code", "s1"),
        ("claude_code", "s2"),
        ("codex_cli", "s3"),
    }
    assert rows(books, AgentGroup.DAY, AgentGroup.REPOSITORY)[0][:3] == (DAYS.first, "shop", 4)


def test_a_report_of_nothing(database: Database) -> None:
    assert rows(database, AgentGroup.TEAM) == []
    assert rows(database) == [(0,) * 8]


@pytest.fixture
def collector(tmp_path: Any) -> Iterator[Collector]:
    collector = Collector(blank_sqlite(tmp_path))
    yield collector
    collector.close()


def test_the_report_over_http_and_on_a_terminal(collector: Collector) -> None:
    told = {
        "event.name": "api_request",
        "model": "claude-sonnet-4-5",
        "input_tokens": "1000",
        "output_tokens": "200",
        "cache_read_tokens": "3000",
        "cost_usd": "1",
        "session.id": "s1",
        "user.email": "ada@example.com",
        "request_id": "req_0123456789abcdef01234567",
    }
    record = LogSpec(told, body="claude_code.api_request", time_ns=time.time_ns())
    request = logs_request([record], {"service.name": "claude-code"}, ("com.anthropic.claude_code.events", "2"))
    collector.export_http(request.SerializeToString(), signal="logs").raise_for_status()
    answer = collector.api.get("/v1/reports/agents", params={"group_by": ["developer", "session"]}).json()
    (row,) = answer["items"]
    cost = (1000 * 3_000 + 200 * 15_000 + 3000 * 300) / 10**9
    assert (row["developer"], row["session"], row["requests"]) == ("ada@example.com", "s1", 1)
    assert (Decimal(row["cost_usd"]), row["cache_hit_percent"]) == (Decimal(str(cost)), "75.00")
    assert answer["total"]["sessions"] == 1
    shown = farebox("report", "agents", "--database-url", collector.database_url, "--by", "tool")
    assert "claude_code" in shown.stdout, shown.stdout + shown.stderr
