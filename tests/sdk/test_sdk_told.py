"""What an application tells about its calls, and what is told about it: holds, quality, baggage, logs, redaction."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import farebox
import farebox.testing
import httpx
import pytest
from farebox.exporters import NoExporter, exporter_maker
from farebox.instrumentor import FareboxInstrumentor
from farebox.request_log import FIELDS
from opentelemetry import baggage, context, propagate
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk.sdk_support import Metered

MESSAGES: Any = [{"role": "user", "content": "a secret question"}]


def call(metered: Metered) -> None:
    metered.openai().chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)


@contextmanager
def metering(metered: Metered, **settings: Any) -> Iterator[InMemorySpanExporter]:
    """The same process with other settings."""
    farebox.uninstrument()
    exporter = InMemorySpanExporter()
    urls = [f"{metered.model_url}/v1"]
    farebox.instrument(model_urls=urls, tracer_provider=metered.provider, exporter=exporter, **settings)
    yield exporter
    assert farebox.flush(10)


@contextmanager
def holds_api(status: int, **answer: Any) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    """A collector's API that answers every hold like this; yields its URL and what it was asked."""
    asked: list[tuple[str, Any, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body, dict(self.headers)))
            content = json.dumps(answer).encode()
            self.send_response(200 if self.path.endswith("/void") else status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_hold_is_taken_before_the_call_and_what_is_left_is_voided(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAREBOX_API_KEY", "key-1")
    with holds_api(201, hold_id="h1") as (url, asked):
        monkeypatch.setenv("FAREBOX_API_URL", url)
        with farebox.action("agent.run", wallet="ada", hold=5) as run:
            call(metered)
        assert farebox.flush(10)
        (path, body, headers), (void, _, _) = asked
        assert (path, void) == ("/v1/holds", "/v1/holds/h1/void")
        assert len(metered.exporter.get_finished_spans()) == 1, "it was delivered before"
        assert body == {
            "wallet": "ada",
            "amount_credits": "5",
            "event": "agent.run",
            "action_id": run.action_id,
            "expires_in_seconds": 600,
        }
        assert headers["Idempotency-Key"]
        assert headers["Authorization"] == "Bearer key-1"

        @farebox.action("agent.run", wallet="ada", hold="0.5")
        async def idle() -> None:
            """Makes no call."""

        asyncio.run(idle())
        assert farebox.flush(10)
        assert [path for path, _, _ in asked] == ["/v1/holds", "/v1/holds/h1/void"] * 2


def test_too_few_credits_raise_before_anything_is_spent(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    with holds_api(402, detail="2 credits are left") as (url, _):
        monkeypatch.setenv("FAREBOX_API_URL", url)
        with (
            pytest.raises(farebox.InsufficientCredits, match="2 credits are left"),
            farebox.action("agent.run", wallet="ada", hold=5),
        ):
            call(metered)
    assert metered.spans() == []


def test_a_collector_that_cannot_be_asked_is_passed_by_or_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAREBOX_API_URL", "http://127.0.0.1:9")
    with farebox.action("agent.run", wallet="ada", hold=5):
        pass
    assert "goes on without a hold" in caplog.text
    with (
        pytest.raises(farebox.HoldUnavailable),
        farebox.action("agent.run", wallet="ada", hold=5, hold_unreachable="refuse"),
    ):
        pass


def test_quality_is_noted_on_an_open_span_and_sent_later_as_one_of_its_own(metered: Metered) -> None:
    tracer = metered.provider.get_tracer("application")
    with tracer.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}) as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        assert farebox.report_quality(citation_rate=0.75)
    with farebox.action("chat.reply", wallet="ada"):
        assert farebox.report_quality(human_reviewed=True, approved=False, trace_id=trace_id.upper())
    assert not farebox.report_quality(approved=True), "of which trace?"
    assert not farebox.report_quality(approved=True, trace_id="nonsense")
    during, later = metered.spans()
    assert (during.attributes or {})["farebox.citation_rate"] == 0.75
    assert later.name == "farebox.quality"
    attributes = dict(later.attributes or {})
    assert attributes.pop("farebox.action.id")
    assert attributes == {
        "farebox.quality.trace_id": trace_id,
        "farebox.human_reviewed": True,
        "farebox.review.approved": False,
        "farebox.wallet": "ada",
        "farebox.event": "chat.reply",
    }


@pytest.mark.parametrize("trusted", [False, True])
def test_tags_come_with_baggage_and_the_wallet_only_if_it_is_trusted(metered: Metered, trusted: bool) -> None:
    with metering(metered, trust_baggage=trusted, propagate_tags=True) as exporter:
        with farebox.action("chat.reply", wallet="ada", dept="support"):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            assert farebox.outgoing_headers()["baggage"] == headers["baggage"]
        token = context.attach(propagate.extract(headers))
        try:
            assert baggage.get_baggage("farebox.dept") == "support"
            call(metered)
            with farebox.tags(dept="sales"):
                call(metered)
        finally:
            context.detach(token)
        with farebox.incoming({"Baggage": headers["baggage"]}, trusted=trusted):
            call(metered)
    carried, nearer, read = exporter.get_finished_spans()
    wallet = "ada" if trusted else None
    for span, dept in ((carried, "support"), (nearer, "sales"), (read, "support")):
        attributes = span.attributes or {}
        assert (attributes["farebox.dept"], attributes.get("farebox.wallet")) == (dept, wallet)


def test_tags_of_the_environment_hold_for_the_process(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAREBOX_TAGS", "dept=support, project=help")
    with metering(metered) as exporter, farebox.tags(project="shop"):
        call(metered)
    attributes = exporter.get_finished_spans()[0].attributes or {}
    assert (attributes["farebox.dept"], attributes["farebox.project"]) == ("support", "shop")


def test_threads_and_pools_carry_the_action(metered: Metered) -> None:
    with ThreadPoolExecutor(1) as pool:
        with farebox.action("chat.reply", wallet="ada"):
            thread = threading.Thread(target=call, args=(metered,))
            thread.start()
            pool.submit(call, metered).result()
            thread.join()
        pool.submit(call, metered).result()
    wallets = [(span.attributes or {}).get("farebox.wallet") for span in metered.spans()]
    assert sorted(map(str, wallets)) == ["None", "ada", "ada"]


def test_content_stays_at_home_and_a_hook_may_keep_more(metered: Metered) -> None:
    def redact(key: str, value: Any) -> Any:
        if key == "farebox.task":
            raise ValueError("cannot")
        return "***" if key == "farebox.wallet" else value

    content = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": "secret", "farebox.task": "secret"}
    content["gen_ai.headers"] = "secret"
    with metering(metered, redact=redact) as exporter, farebox.tags(wallet="ada@example.com"):
        metered.provider.get_tracer("other").start_span("chat", attributes=content).end()
    attributes = dict(exporter.get_finished_spans()[0].attributes or {})
    assert attributes["farebox.wallet"] == "***"
    assert "secret" not in attributes.values()


def test_headers_stay_at_home_also_where_content_is_wanted(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenLLMetry records all headers that a caller adds, keys among them."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    told = {"gen_ai.operation.name": "chat", "gen_ai.headers": "{'x-key': 'secret'}", "gen_ai.input.messages": "Hello"}
    with metering(metered) as exporter:
        metered.provider.get_tracer("other").start_span("chat", attributes=told).end()
    attributes = exporter.get_finished_spans()[0].attributes or {}
    assert "gen_ai.headers" not in attributes
    assert attributes["gen_ai.input.messages"] == "Hello"


def test_a_line_of_json_for_each_call(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "farebox.requests")
    with metering(metered, request_log=True), farebox.action("chat.reply", wallet="ada", dept="support"):
        metered.openai().chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, extra_headers={"x-usage": "input=1000,output=200,cache_read=400"}
        )
    (record,) = [record for record in caplog.records if record.name == "farebox.requests"]
    line = json.loads(record.getMessage())
    assert tuple(line) == tuple(FIELDS)
    assert (line["tags.dept"], line["model"], line["provider"]) == ("support", "gpt-4o-mini", "openai")
    assert (line["input_tokens"], line["output_tokens"], line["total_tokens"]) == (1000, 200, 1200)
    assert line["cache_hit"] is True
    assert line["cost_actual"] == pytest.approx((600 * 0.15 + 400 * 0.075 + 200 * 0.6) / 1e6)
    assert len(line["trace_id"]) == 32


def test_streams_are_asked_for_usage_and_callers_do_not_see_the_answer(metered: Metered) -> None:
    usage = {"x-usage": "input=70,output=30"}
    ask: Any = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}

    def chunks() -> list[Any]:
        stream = metered.openai().chat.completions.create(**ask, extra_headers=usage)
        return [chunk.choices for chunk in stream]

    def lines() -> list[str]:
        url = f"{metered.model_url}/v1/chat/completions"
        with httpx.stream("POST", url, json=ask, headers=usage) as response:
            return [line for line in response.iter_lines() if line]

    without = chunks(), lines()
    assert not any("gen_ai.usage.input_tokens" in (span.attributes or {}) for span in metered.spans())
    assert [(span.attributes or {})["farebox.usage.missing"] for span in metered.spans()] == ["stream", "stream"]
    with metering(metered, request_stream_usage=True) as exporter:
        asked = chunks(), lines()
    assert len(asked[0]) == len(without[0])
    assert all(asked[0]), "every chunk has a choice"
    assert len(asked[1]) == len(without[1])
    for span in exporter.get_finished_spans():
        attributes = span.attributes or {}
        assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (70, 30)


def test_captured_calls_with_metering_on_and_off(metered: Metered) -> None:
    for _ in range(2):
        with farebox.testing.captured_calls() as calls, farebox.action("chat.reply", wallet="ada"):
            call(metered)
            assert [(captured.wallet, captured.model) for captured in calls] == [("ada", "gpt-4o-mini")]
            assert calls[0].input_tokens
            assert calls[0].cost_usd
        assert metered.exporter.get_finished_spans() == ()
        farebox.uninstrument()


def test_the_clients_metrics_are_recorded(metered: Metered) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    with metering(metered, meter_provider=provider):
        call(metered)
        ask = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
        httpx.post(f"{metered.model_url}/v1/chat/completions", json=ask)
    data: Any = reader.get_metrics_data()
    found = {
        (scope.scope.name, metric.name)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    for scope_name in ("farebox", "opentelemetry.instrumentation.genai.openai"):
        assert (scope_name, "gen_ai.client.operation.duration") in found
    assert ("opentelemetry.instrumentation.genai.openai", "gen_ai.client.token.usage") in found
    provider.shutdown()


def test_the_entry_point_turns_it_on_and_off(metered: Metered) -> None:
    from importlib.metadata import entry_points

    farebox.uninstrument()
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="farebox")
    instrumentor = entry.load()()
    assert isinstance(instrumentor, FareboxInstrumentor)
    exporter = InMemorySpanExporter()
    before = httpx.Client.__dict__["send"]
    instrumentor.instrument(tracer_provider=metered.provider, exporter=exporter, skip_dep_check=True)
    call(metered)
    instrumentor.uninstrument()
    assert len(exporter.get_finished_spans()) == 1
    assert httpx.Client.__dict__["send"] is before


def test_a_summary_of_two_calls_is_not_sent_and_they_are(metered: Metered) -> None:
    tracer = metered.provider.get_tracer("other")
    usage: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}
    with tracer.start_as_current_span("summary", attributes=usage):
        for name in ("one", "two"):
            tracer.start_span(name, attributes=usage).end()
    with tracer.start_as_current_span("outer", attributes={"gen_ai.operation.name": "chat"}):
        tracer.start_span("embed", attributes={**usage, "gen_ai.operation.name": "embeddings"}).end()
    assert [span.name for span in metered.spans()] == ["one", "two", "embed", "outer"]


def test_the_account_with_usage_is_sent_whichever_span_ends_first(metered: Metered) -> None:
    tracer = metered.provider.get_tracer("other")
    chat = {"gen_ai.operation.name": "chat"}
    with tracer.start_as_current_span("outer", attributes=chat) as outer:
        inner = tracer.start_span("inner", attributes={**chat, "gen_ai.usage.input_tokens": 1})
        outer.end()
        inner.end()
    assert metered.span().name == "inner"


def test_the_exporter_and_the_key_are_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAREBOX_API_KEY", "key-1")
    made: Any = exporter_maker()
    assert made.keywords == {"headers": {"authorization": "Bearer key-1"}}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20theirs")
    assert not hasattr(exporter_maker(), "keywords")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert exporter_maker() is NoExporter


def test_a_provider_of_its_own_is_left_as_it_was_found() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    with farebox.testing.captured_calls(tracer_provider=provider) as calls:
        assert len(calls) == 0
    assert not farebox.flush(0)


def test_a_span_that_another_instrumentation_opens_after_the_call_is_of_the_same_call(metered: Metered) -> None:
    first, second = metered.provider.get_tracer("one"), metered.provider.get_tracer("two")
    usage: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.response.id": "r1",
    }
    first.start_span("one", attributes=usage, start_time=10).end(30)
    late = second.start_span("two", start_time=10)
    # OpenLLMetry says of responses only when they end what they are, and not which operation.
    late.set_attributes({key: value for key, value in usage.items() if key != "gen_ai.operation.name"})
    late.end(30)
    # A server that gives every answer the same id does not make two calls one.
    first.start_span("later", attributes=usage, start_time=40).end(50)
    second.start_span("other time", attributes=usage, start_time=60).end(70)
    assert [span.name for span in metered.spans()] == ["one", "later", "other time"]
