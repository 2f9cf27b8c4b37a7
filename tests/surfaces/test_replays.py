"""Replay through the API of a collector that holds the books."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.model import credentials
from farebox_collector.model.money import MAX_SUM_NANO
from harness import Collector, farebox
from spans import llm_span, protobuf_body

SPAN = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
DATES = ("--from", "2020-01-01", "--to", "2100-01-01")
CALLS = 5
ADMIN = credentials.new_token()


@pytest.fixture(scope="module")
def repriced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector over five calls of ada's at 0.00027 that cost 0.00012 more since their output is twice as dear."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("replays")), bootstrap_key=ADMIN)
    body = protobuf_body([llm_span(wallet="ada") for _ in range(CALLS)])
    assert collector.export_http(body, x_api_key=ADMIN).status_code == 200
    assert collector.stop() == 0
    price = ("prices", "set", "openai", "gpt-4o-mini", "output", "0.0012", "--from", "2020-01-01")
    assert run(collector, *price).returncode == 0
    collector.start()
    collector.api.headers["X-API-Key"] = ADMIN
    yield collector
    collector.close()


def run(collector: Collector, *arguments: str) -> Any:
    return farebox(*arguments, "--database-url", collector.database_url)


def post(collector: Collector, **fields: Any) -> httpx2.Response:
    return collector.api.post("/v1/replays", json=SPAN | fields)


def test_the_api_shows_first_and_posts_step_by_step(repriced: Collector) -> None:
    shown = post(repriced).raise_for_status().json()
    assert (shown["looked_at"], shown["next_cursor"]) == (CALLS, None)
    assert shown["wallets"] == [
        {
            "name": "ada",
            "records": CALLS,
            "cost_before_usd": "0.001350000",
            "cost_after_usd": "0.001950000",
            "charge_before_credits": "0.001350000",
            "charge_after_credits": "0.001950000",
        }
    ]
    assert repriced.wallet("ada")["spent_credits"] == "0.001350000"
    steps: list[Any] = []
    cursor = None
    while not steps or cursor:
        step = post(repriced, dry_run=False, limit=2, cursor=cursor).raise_for_status().json()
        steps.append(step["total"]["records"])
        cursor = step["next_cursor"]
    assert steps == [2, 2, 1]
    assert repriced.wallet("ada")["spent_credits"] == "0.001950000"
    assert post(repriced, dry_run=False).json()["total"]["records"] == 0
    repriced.audit()


def test_what_the_books_cannot_take_is_a_problem_that_says_why(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    collector.export_http(protobuf_body([llm_span(wallet="ada")]))
    assert collector.stop() == 0
    price = ("prices", "set", "openai", "gpt-4o-mini", "output", "0.0012", "--from", "2020-01-01")
    assert run(collector, *price).returncode == 0
    collector.start()
    with closing(sqlite3.connect(tmp_path / "farebox.db", isolation_level=None)) as books:
        found = "INSERT INTO audits (scope, ended_at_ns, upto_transaction, mismatches) VALUES (?, 1, 1, ?)"
        books.execute(found, ("recent", 3))
        frozen = post(collector, dry_run=False)
        assert post(collector).json()["total"]["records"] == 1, "showing changes nothing, so it may be done"
        books.execute(found, ("full", 0))
        (cost,) = books.execute("SELECT balance_nano FROM accounts WHERE kind = 'cogs'").fetchone()
        spend = "UPDATE accounts SET balance_nano = ? WHERE kind = 'cogs'"
        books.execute(spend, (MAX_SUM_NANO,))
        too_much = post(collector, dry_run=False)
        books.execute(spend, (cost,))
    for response, status, says in ((frozen, 409, "no corrections until"), (too_much, 422, "too large")):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert says in response.json()["detail"]
    assert post(collector, dry_run=False).json()["total"]["records"] == 1, "neither left anything behind"
    collector.audit()
    collector.close()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"to": SPAN["from"]}, 422),
        ({"from": "2020-01-01T00:00:00"}, 422),
        ({"from": "1960-01-01T00:00:00Z"}, 400),
        ({"cursor": "bm9uc2Vuc2U"}, 400),
        ({"limit": 0}, 422),
        ({"limit": 1_000_000}, 422),
        ({"wallet": "a\nb"}, 422),
        ({"dryrun": False}, 422),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(repriced: Collector, fields: dict[str, Any], status: int) -> None:
    response = post(repriced, **fields)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_while_a_collector_holds_the_books_the_command_still_shows(repriced: Collector) -> None:
    assert run(repriced, "replay", *DATES, "--dry-run").returncode == 0


def test_a_replay_takes_the_scope_admin(repriced: Collector) -> None:
    for scopes, status in ((["ingest"], 403), (["read"], 403), (["ingest", "read", "wallets"], 403), (["admin"], 200)):
        key = repriced.api.post("/v1/keys", json={"name": "test", "scopes": scopes}).raise_for_status().json()["key"]
        response = repriced.api.post("/v1/replays", json=SPAN, headers={"X-API-Key": key})
        assert response.status_code == status, scopes
    with httpx2.Client(base_url=repriced.api_url) as stranger:
        assert stranger.post("/v1/replays", json=SPAN).status_code == 401
