"""Attributes are kept beside a span where only Farebox reads it, and stand on it where others do."""

from __future__ import annotations

from typing import Any

import farebox
import httpx
import pytest
from farebox import span_notes, span_processor
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk.sdk_support import Metered

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
HEADERS = {"x-usage": "input=1000,output=200", "x-response-id": "r"}
TAGS = {"farebox.wallet": "ada", "farebox.event": "chat.reply"}
USAGE = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200}


def call_httpx(metered: Metered) -> None:
    httpx.post(f"{metered.model_url}/v1/chat/completions", json=CHAT, headers=HEADERS)


def call_openai(metered: Metered) -> None:
    messages: Any = CHAT["messages"]
    metered.openai().chat.completions.create(model="gpt-4o-mini", messages=messages, extra_headers=HEADERS)


@pytest.mark.parametrize("call", [call_httpx, call_openai])
def test_exporters_of_the_application_see_all_that_is_sent(metered: Metered, call: Any) -> None:
    own = InMemorySpanExporter()
    with farebox.action("chat.reply", wallet="ada"):
        call(metered)
        metered.provider.add_span_processor(SimpleSpanProcessor(own))
        call(metered)
    alone, together = (dict(span.attributes or {}) for span in metered.spans())
    calls = [dict(span.attributes or {}) for span in own.get_finished_spans()]
    (seen,) = [attributes for attributes in calls if "gen_ai.operation.name" in attributes]  # the other is of HTTP
    assert seen.items() >= {**TAGS, **USAGE}.items()
    # What was kept beside the span of the first call went out with it.
    assert alone.keys() == together.keys()
    assert alone.items() >= {**TAGS, **USAGE}.items()


def test_what_a_span_says_itself_wins_over_the_tags(metered: Metered) -> None:
    tracer = trace.get_tracer("app", tracer_provider=metered.provider)
    with farebox.action("chat.reply", wallet="ada"):
        span = tracer.start_span("chat", attributes={"gen_ai.operation.name": "chat"})
        span.set_attribute("farebox.wallet", "grace")
        span.end()
    assert metered.attributes().items() >= {"farebox.wallet": "grace", "farebox.event": "chat.reply"}.items()


def test_a_span_that_is_open_for_too_long_keeps_its_tags(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_processor, "OPEN_MAX", 1)
    tracer = trace.get_tracer("app", tracer_provider=metered.provider)
    with farebox.action("chat.reply", wallet="ada"):
        first, second = (tracer.start_span("chat", attributes={"gen_ai.operation.name": "chat"}) for _ in range(2))
    first.end()
    second.end()
    assert all(dict(span.attributes or {}).items() >= TAGS.items() for span in metered.spans())


def test_a_span_that_ends_while_metering_is_off_leaves_nothing_behind(model_url: str) -> None:
    before = len(span_notes._kept)
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(tracer_provider=provider, exporter=InMemorySpanExporter())
    try:
        with farebox.action("chat.reply", wallet="ada"):
            span = provider.get_tracer("app").start_span("chat", attributes={"gen_ai.operation.name": "chat"})
        assert len(span_notes._kept) == before + 1
    finally:
        farebox.uninstrument()
    span.end()
    assert len(span_notes._kept) == before
