"""Overviews and reports of a real collector: they say what the records say, each call once, to those who may see it."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from arro3.io import read_parquet
from blank import blank_sqlite
from farebox_collector.cli import app
from farebox_collector.commands.terminal import Stop
from harness import Collector
from spans import llm_span, protobuf_body
from typer.testing import CliRunner, Result

DAY_NS = 86_400 * 10**9


def get(collector: Collector, path: str, **query: Any) -> httpx2.Response:
    return collector.api.get(path, params=query)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Collector]:
    """Three calls today, one yesterday, one unpriced; 270 nano-USD each where the tokens are the default."""
    collector = Collector(blank_sqlite(tmp_path), topup_url="https://shop.example/credits?wallet={wallet}")
    now_ns = time.time_ns() - 10**9
    spans = [
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns),
        llm_span(wallet="ada", event="=cmd()", start_ns=now_ns, model="gpt-4o"),
        llm_span(wallet="bob", event="chat.reply", start_ns=now_ns),
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns - DAY_NS),
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns, model="no-such-model"),
    ]
    collector.export_grpc(protobuf_body(spans))
    headers = {"Idempotency-Key": "k"}
    collector.api.post("/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers=headers).raise_for_status()
    yield collector
    collector.close()


def test_an_overview_and_reports_say_what_the_records_say(books: Collector) -> None:
    overview = get(books, "/v1/wallets/ada/overview", days=3).json()
    records = [record for record in books.usage(wallet="ada") if record["verdict"] == "charged"]
    charged = sum(Decimal(record["charge_credits"]) for record in records)
    assert (overview["requests"], overview["tokens"]) == (3, 3 * 1200)
    assert Decimal(overview["charge_credits"]) == Decimal(overview["spent_credits"]) == charged
    assert Decimal(overview["balance_credits"]) == Decimal(overview["available_credits"]) == 10 - charged
    # The wallet came today, so that all it spent is one day's spending.
    assert (Decimal(overview["rate_credits"]), overview["runway_days"]) == (charged, int((10 - charged) / charged))
    assert {row["key"]: row["requests"] for row in overview["by_event"]} == {"chat.reply": 2, "=cmd()": 1}
    assert [row["requests"] for row in overview["by_day"]] == [1, 2]
    assert "cost" not in str(overview)
    (lot,) = overview["lots"]
    (topup,) = overview["topups"]
    assert (lot["origin"], topup["lot_id"], topup["receipt_url"]) == ("deposit", lot["lot_id"], None)
    assert overview["topup_url"] == "https://shop.example/credits?wallet=ada"

    answer = get(books, "/v1/reports/usage", group_by="event").json()
    usage = answer["items"]
    assert {row["event"]: row["requests"] for row in usage} == {"chat.reply": 4, "=cmd()": 1}
    charged_records = books.usage(verdict="charged")
    cost = sum(Decimal(row["cost_usd"]) for row in charged_records)
    assert sum(Decimal(row["cost_usd"]) for row in usage) == Decimal(answer["total"]["cost_usd"]) == cost
    assert (answer["total"]["requests"], answer["total"]["margin_at_list_percent"]) == (5, "0.00")
    first = get(books, "/v1/reports/usage", group_by="event", limit=1).json()
    rest = get(books, "/v1/reports/usage", group_by="event", limit=1, cursor=first["next_cursor"]).json()
    assert (first["items"] + rest["items"], rest["next_cursor"]) == (usage, None)
    today = get(books, "/v1/reports/usage", days=1, compare=True, verdict="charged").json()
    assert (today["total"]["requests"], today["previous_total"]["requests"]) == (3, 1)
    assert [row["requests"] for row in today["previous"]] == [1]
    wallets = get(books, "/v1/reports/wallets", event="chat.reply").json()
    assert [(row["wallet"], row["requests"]) for row in wallets["items"]] == [("ada", 2), ("bob", 1)]
    assert wallets["total"]["requests"] == 3
    rich = get(books, "/v1/reports/wallets", min_balance_credits="1").json()
    assert [row["wallet"] for row in rich["items"]] == ["ada"]
    (summary,) = get(books, "/v1/reports/summary").json()["items"]
    assert (summary["active_wallets"], summary["payers"], summary["new_wallets"]) == (2, 1, 2)
    assert summary["exposure_usd"] == "0.000000000"
    told = run(books, "report", "summary", "--format", "csv").stdout.splitlines()
    assert "exposure_usd" in told[0].split(",")
    moved = get(books, "/v1/reports/credits", group_by="day").json()
    assert [row["source"] for row in moved["items"]] == ["usage", "deposit", "usage"]
    spread = get(books, "/v1/reports/balances").json()["items"]
    assert [row["wallets"] for row in spread] == [1, 0, 0, 1, 0, 0, 0]
    assert books.stop() == 0
    books.audit()


def test_files_have_every_row_exactly_and_no_formulas(books: Collector, tmp_path: Path) -> None:
    query = {"group_by": ["day", "event"], "compare": True, "days": 1}
    expected = get(books, "/v1/reports/usage", **query).json()
    rows = [("current", row) for row in expected["items"]] + [("previous", row) for row in expected["previous"]]
    assert len(rows) == 3
    text = get(books, "/v1/reports/usage", format="csv", limit=1, **query)
    assert text.headers["content-type"].startswith("text/csv")
    found = list(csv.DictReader(io.StringIO(text.text)))
    names = [name for name in found[0] if name != "period"]
    assert names[:2] == ["day", "event"]
    stated = [{"period": period} | {name: str(row[name]) for name in names} for period, row in rows]
    for row in stated:
        row["event"] = row["event"].replace("=cmd()", "'=cmd()")
    assert found == stated

    columns = ["event", "requests", "cost_usd", "day", "margin_at_list_percent"]
    answer = get(books, "/v1/reports/usage", format="parquet", columns=columns, **query)
    assert answer.headers["content-length"] == str(len(answer.content))
    path = tmp_path / "usage.parquet"
    path.write_bytes(answer.content)
    table = read_parquet(path).read_all()
    assert table.column_names == ["period", *columns]
    assert [table[name].to_pylist() for name in ("period", "event", "requests")] == [
        [period for period, _ in rows],
        [row["event"] for _, row in rows],
        [row["requests"] for _, row in rows],
    ]
    assert table["cost_usd"].to_pylist() == [Decimal(row["cost_usd"]) for _, row in rows]
    assert [str(day) for day in table["day"].to_pylist()] == [row["day"] for _, row in rows]

    command = ["report", "usage", "--by", "day", "--by", "event", "--period", "today", "--compare"]
    assert run(books, *command, "--format", "csv").stdout_bytes == text.content
    run(books, *command, "--format", "parquet", "--output", str(tmp_path / "cli.parquet"))
    assert read_parquet(tmp_path / "cli.parquet").read_all().num_rows == 3
    for name in ("usage", "credits", "balances", "wallets", "receivables"):
        assert "all" in run(books, "report", name).stdout
    month = f"{datetime.now(UTC):%Y-%m}"
    chosen = run(books, "report", "wallets", "--period", month, "--filter", "wallets=new", "--format", "json")
    assert [row["wallet"] for row in json.loads(chosen.stdout)["items"]] == ["ada", "bob"]
    for wrong in ("nothing", "usage --period soon", "usage --filter colour=red", "credits --by x", "balances --by day"):
        with pytest.raises(Stop):
            run(books, "report", *wrong.split())


def test_a_first_deposit_earns_revenue_and_the_bridge_leads_from_charge_value_to_cash(books: Collector) -> None:
    get(books, "/v1/wallets/ada/lots").raise_for_status()  # draws it up; bob has no lots and may wait for it
    charged = {wallet: Decimal(books.wallet(wallet)["spent_credits"]) for wallet in ("ada", "bob")}
    bridge = get(books, "/v1/reports/bridge").json()["total"]
    found = {name.removesuffix("_usd"): Decimal(text) for name, text in bridge.items() if name.endswith("_usd")}
    everything = sum(charged.values())
    # A deposit without a price is worth its credits at list; what bob used was paid by no credits.
    unpaid = found["unpaid_overdraft"] + found["timing"]
    assert (found["charge_value"], found["revenue"], unpaid) == (everything, *charged.values())
    given = ("promotional", "discounts", "unpaid_overdraft", "timing", "adjustments")
    assert found["charge_value"] - sum(found[name] for name in given) == found["revenue"]
    assert found["profit"] == found["revenue"] - found["cost"] == -charged["bob"]
    assert found["profit"] + found["cost"] + found["deferred_change"] == found["cash_in"] == 10
    summary = get(books, "/v1/reports/summary").json()["total"]
    assert {name: summary[name] for name in bridge if name in summary} == {
        name: text for name, text in bridge.items() if name in summary
    }
    months = get(books, "/v1/reports/bridge", group_by="month", days=60).json()["items"]
    assert months[-1]["month"] == f"{datetime.now(UTC):%Y-%m}"
    (sold,) = get(books, "/v1/reports/deferred", group_by=["pack", "sold"]).json()["items"]
    assert (sold["pack"], sold["sold"], sold["sold_usd"]) == ("deposit", months[-1]["month"], "10.000000000")
    assert Decimal(sold["closing_usd"]) == 10 - charged["ada"] == found["deferred_closing"]
    (owed,) = get(books, "/v1/reports/receivables").json()["items"]
    assert (owed["wallet"], Decimal(owed["receivable_usd"])) == ("bob", charged["bob"])
    assert owed["to_30_days_usd"] == owed["receivable_usd"]
    told = run(books, "report", "bridge", "--format", "csv").stdout
    (row,) = csv.DictReader(io.StringIO(told))
    assert row == {name: text for name, text in bridge.items() if name != "month"}
    shown = run(books, "report", "bridge", "--compare").stdout
    assert re.search(rf"^ *revenue usd +{bridge['revenue_usd']} +0\.000000000", shown, re.M)
    assert sold["closing_usd"] in run(books, "report", "deferred", "--by", "month").stdout
    assert books.metrics()['farebox_money_usd{term="revenue"}'] == float(found["revenue"])


def run(books: Collector, *arguments: str) -> Result:
    """What a command prints; raises what it stops with."""
    return CliRunner().invoke(app, [*arguments, "--database-url", books.database_url], catch_exceptions=False)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("usage", {"days": 0}),
        ("usage", {"days": 401}),
        ("usage", {"first": "2026-02-30"}),
        ("usage", {"first": "2026-02-02", "last": "2026-02-01"}),
        ("usage", {"first": "1960-01-01", "last": "1960-01-02"}),
        ("usage", {"first": "9999-12-30", "last": "9999-12-31"}),
        ("usage", {"group_by": "wallet"}),
        ("usage", {"days": 400, "first": "1970-01-05", "last": "1970-01-20", "compare": True}),
        ("usage", {"surprise": 1}),
        ("usage", {"cursor": "WyJhIl0"}),
        ("usage", {"cursor": "Wy0xXQ"}),
        ("usage", {"format": "xlsx"}),
        ("wallets", {"min_balance_credits": "much"}),
        ("wallets", {"wallets": "old"}),
        ("credits", {"group_by": "event"}),
        ("balances", {"days": 7}),
        ("bridge", {"group_by": "day"}),
        ("deferred", {"group_by": "event"}),
        ("receivables", {"days": 7}),
        ("usage", {"format": "csv", "columns": "secret"}),
        ("wallets", {"limit": 0}),
        ("wallets", {"event": "a\nb"}),
    ],
)
def test_a_report_that_cannot_be_is_refused(shared_collector: Collector, path: str, query: dict[str, Any]) -> None:
    response = get(shared_collector, f"/v1/reports/{path}", **query)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_the_overview_of_no_wallet_is_not_found(shared_collector: Collector) -> None:
    assert get(shared_collector, "/v1/wallets/missing/overview").status_code == 404
