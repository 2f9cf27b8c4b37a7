"""The control room, live: a collector on PostgreSQL under the demo's traffic, scraped by a real Prometheus with the
repository's own rules, which tells a real Alertmanager, which tells the collector. Durations are divided, nothing else.
"""

import html
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import observe
import preview
import psycopg
import pytest
from harness import Collector, clean_environment
from postgres import PostgresServer
from render import BOARDS, rendered
from spans import llm_span, protobuf_body

SPEED = 240
DEMO = Path(__file__).parents[2] / "instrumentation/demo"
DEPT = "growth"
MACROS = {
    "$__rate_interval": "20s",
    "$__range": "10m",
    "$job": ".*",
    "$instance": ".*",
    "$__unixEpochNanoFrom()": "1700000000000000000",
    "$__unixEpochNanoTo()": "4000000000000000000",
}


class Traffic:
    """Calls of one department at a steady pace, which can be changed; what a busy machine delays is caught up with."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.calls_a_s = 10
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        owed, last = 0.0, time.monotonic()
        while not self._ended.wait(0.2):
            owed += self.calls_a_s * (time.monotonic() - last)
            last = time.monotonic()
            spans = [
                llm_span(
                    wallet="acme",
                    farebox__dept=DEPT,
                    gen_ai__usage__cache_read__input_tokens=200,
                )
                for _ in range(int(owed))
            ]
            owed -= len(spans)
            self._collector.export_http(protobuf_body(spans))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


class Room:
    """What is running, and how to ask Prometheus."""

    def __init__(self, collector: Collector, traffic: Traffic, prometheus: str) -> None:
        self.collector = collector
        self.traffic = traffic
        self.address = f"http://{prometheus}"
        self._client = httpx2.Client(base_url=self.address, timeout=30)

    def close(self) -> None:
        self._client.close()

    def ask(self, path: str, **query: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        return self.ask("query", query=expr)["result"]  # type: ignore[no-any-return]

    def await_result(self, expr: str, seconds: float = 60) -> list[dict[str, Any]]:
        """What a query answers once it answers something."""
        found: list[dict[str, Any]] = eventually(lambda: self.query(expr), seconds, expr)
        return found


def eventually(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first answer that is not empty."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.25)
    raise AssertionError(f"nothing within {seconds} s: {what}")


@pytest.fixture(scope="module")
def room(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    directory = tmp_path_factory.mktemp("room")
    url = postgres.new_database()
    collector = Collector(url, directory / "collector.log", audit_seconds=1)
    collector.api.put("/v1/budgets/growth", json={"usd_per_month": "20000"}).raise_for_status()
    collector.api.put("/v1/budgets/support", json={"usd_per_month": "1000"}).raise_for_status()
    prometheus, alertmanager = observe.free_address(), observe.free_address()
    metrics, api = (url.split("/")[2] for url in (collector.metrics_url, collector.api_url))
    observe.write_configuration(directory, [metrics], api, alertmanager, speed=SPEED)
    with observe.running(directory, prometheus, alertmanager):
        traffic = Traffic(collector)
        room = Room(collector, traffic, prometheus)
        room.await_result("farebox_cost_usd_total")
        _run_the_demo(collector)
        yield room
        traffic.end()
        room.close()
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def _run_the_demo(collector: Collector) -> None:
    """The example application makes its calls against the bundled model server, and a deposit is made."""
    for number in range(2):
        collector.api.post(
            "/v1/wallets/ada/deposits", json={"amount_credits": "5"}, headers={"Idempotency-Key": str(number)}
        ).raise_for_status()
        time.sleep(0.6)
    server = subprocess.Popen(
        [sys.executable, DEMO / "model_server.py", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        command = [sys.executable, str(DEMO / "application.py"), "--model-url", f"http://127.0.0.1:{port}"]
        telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.grpc_target}",
            "OTEL_RESOURCE_ATTRIBUTES": "cloud.region=eu-central-1",
        }
        application = [*command, "--calls", "60", "--rate", "15"]
        subprocess.run(application, env=clean_environment() | telemetry, check=True, timeout=90, capture_output=True)
    finally:
        server.terminate()
        server.wait(timeout=30)
        assert server.stdout is not None
        server.stdout.close()


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(rendered(name))["panels"] if panel["type"] != "row"]


def filled_in(text: str) -> str:
    for macro, value in MACROS.items():
        text = text.replace(macro, value)
    return re.sub(r"\$(event|dept|provider|model|route|region)\b", ".*", text)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_data(room: Room, name: str) -> None:
    empty = [panel["title"] for panel in panels(name) if not _has_data(room, panel)]
    assert not empty


def _has_data(room: Room, panel: dict[str, Any]) -> bool:
    """Each query must run; together they must show something that is a number."""
    found = False
    for target in panel["targets"]:
        if "rawSql" in target:
            with psycopg.connect(room.collector.database_url.replace("+psycopg", "")) as books:
                found |= bool(books.execute(filled_in(target["rawSql"]).encode()).fetchall())
        else:
            result = room.query(filled_in(target["expr"]))
            found |= any(sample["value"][1] != "NaN" for sample in result)
    return found


def test_the_preview_shows_what_the_panels_do(room: Room, tmp_path: Path) -> None:
    now = time.time()
    sources = preview.Sources(room.address, room.collector.database_url, now - 60, now)
    for path, _ in preview.write_pages(tmp_path, sources):
        page = path.read_text(encoding="utf-8")
        for panel in panels(f"{path.stem}.json"):
            assert f">{html.escape(panel['title'])}</h2>" in page
    assert re.search(r"\$\d+\.\d{6}</div><center>books</center>", page), "the books themselves were asked"
    assert re.search(r"<td>gpt-4o-mini</td><td>openai</td>(<td class=\"number\">\$[\d.]+</td>){3}", page)


def test_every_variable_has_values(room: Room) -> None:
    for name in BOARDS:
        for variable in json.loads(rendered(name))["templating"]["list"]:
            if variable["type"] != "query":
                continue
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            values = {sample["metric"].get(label) for sample in room.query(filled_in(selector))}
            assert values - {None}, variable["query"]


def test_graphs_and_books_agree_to_the_last_digit(room: Room) -> None:
    """Read the counters in the middle of traffic, then the books as they were when they were read."""
    with psycopg.connect(room.collector.database_url.replace("+psycopg", "")) as books:
        before = _booked(books)
        counted = sum(v for k, v in room.collector.metrics().items() if k.startswith("farebox_cost_usd_total"))
        after = _booked(books)
    assert before - 1e-9 <= counted <= after + 1e-9
    assert before > 0


def _booked(books: psycopg.Connection[Any]) -> float:
    row = books.execute("SELECT sum(cost_nanousd) FROM usage_records WHERE verdict = 'charged'").fetchone()
    books.rollback()
    assert row is not None
    return float(row[0]) / 1e9


def test_exemplars_lead_from_a_latency_to_a_trace_in_the_books(room: Room) -> None:
    now = time.time()
    found = room.ask("query_exemplars", query="farebox_call_seconds_bucket", start=str(now - 120), end=str(now))
    trace_ids = [exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]]
    assert trace_ids
    assert room.collector.usage(trace_id=trace_ids[-1])


def test_tripled_cost_becomes_an_incident(room: Room) -> None:
    of_dept = f'{{dept="{DEPT}", event="chat.reply"}}'
    room.await_result(f"farebox:cost_usd:usual{of_dept}")
    spike = f'ALERTS{{alertname="FareboxCostSpike", dept="{DEPT}", alertstate="%s"}}'
    assert room.query(spike % "firing") == []
    assert [i for i in room.collector.pages("/v1/incidents") if _is_the_spike(i)] == []

    room.traffic.calls_a_s *= 3
    room.await_result(f"last_over_time({spike % 'pending'}[1m])")
    room.await_result(spike % "firing")
    found = lambda: [i for i in room.collector.pages("/v1/incidents") if _is_the_spike(i)]  # noqa: E731
    (incident,) = eventually(found, 30, "an incident")
    report = room.collector.api.get(f"/v1/incidents/{incident['id']}").json()
    assert incident["severity"] == "critical"
    assert re.search(r"costs \d+\.\d\d USD an hour", report["description"])
    assert report["annotations"]["runbook_url"].endswith("runbook.md#fareboxcostspike")
    assert f"var-dept={DEPT}" in report["annotations"]["dashboard_url"]
    snapshot = report["snapshot"]
    assert [line["dept"] for line in snapshot["contributors"]] == [DEPT]
    assert [line["wallet"] for line in snapshot["wallets"]] == ["acme"]
    assert snapshot["charge_rules"]
    assert room.collector.usage(trace_id=snapshot["calls"][0]["trace_id"])


def _is_the_spike(incident: dict[str, Any]) -> bool:
    return bool(incident["alert"] == "FareboxCostSpike") and incident["labels"].get("dept") == DEPT
