"""Bad events of coding agents through a real collector: charged once, or quarantined with a reason."""

import json
import time
from decimal import Decimal
from pathlib import Path

import pytest
from blank import blank_sqlite
from harness import Collector, farebox
from logs import LogSpec, logs_request
from spans import Value

pytestmark = pytest.mark.timeout(120)
SCOPE = ("com.anthropic.claude_code.events", "2.1.197")
COST_USD = Decimal(100 * 3000 + 20 * 15_000).scaleb(-9)
DAY_NS = 86_400 * 10**9


def call(at_ns: int, **told: Value) -> LogSpec:
    """An event of a call of `COST_USD`; `__` for a dot."""
    attributes: dict[str, Value] = {
        "event.name": "api_request",
        "farebox.wallet": "ada",
        "session.id": "s",
        "model": "claude-sonnet-4-5",
        "input_tokens": 100,
        "output_tokens": 20,
    }
    attributes |= {key.replace("__", "."): value for key, value in told.items()}
    return LogSpec(attributes, "", "claude_code.api_request", at_ns, at_ns)


def test_bad_events_are_charged_once_or_quarantined(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    good = [
        call(now_ns, event__sequence=0, input_tokens="100", output_tokens="20"),
        call(now_ns + 1, event__sequence=0),
        call(now_ns + 2, event__sequence="", session__id="", request_id=""),
        call(now_ns + 3, request_id="req_1", prompt="words " * 200_000),
        call(now_ns - 400 * DAY_NS, event__sequence=1),
        call(now_ns + 400 * DAY_NS, event__sequence=2),
    ]
    # The same response again, from a session that went on at another machine: its ids are those of the request.
    again = call(now_ns + 4, request_id="req_1", session__id="elsewhere")
    refused = [call(now_ns + place, event__sequence=place, input_tokens=-1) for place in (5, 6)]
    unmetered = call(now_ns + 7, input_tokens=0, output_tokens=0)
    collector = Collector(blank_sqlite(tmp_path))
    body = logs_request([*good, again, *refused, unmetered], scope=SCOPE).SerializeToString()
    for _ in range(3):
        collector.export_http(body, signal="logs").raise_for_status()
    rows = collector.usage(limit=100)
    charged = [row for row in rows if row["verdict"] == "charged"]
    assert [Decimal(row["cost_usd"]) for row in charged] == [COST_USD] * len(good)
    assert sum("start_time_out_of_range" in row["assumptions"] for row in charged) == 2
    others = sorted(row["verdict"] for row in rows if row["verdict"] != "charged")
    assert others == ["unmetered"]
    assert Decimal(collector.wallet("ada")["spent_credits"]) == COST_USD * len(good)
    assert collector.stop() == 0
    collector.audit()
    letters = farebox("deadletters", "list", "--database-url", collector.database_url, "--json")
    reasons = [letter["reason"] for letter in json.loads(letters.stdout)]
    collector.close()
    assert reasons == ["input_tokens is negative"] * 2
