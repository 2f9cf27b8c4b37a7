"""Turning the metering on and off: what it changes in the process, and that it changes it back."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import farebox
import httpx
import httpx2
import openai
import pytest
from anthropic.resources.messages import AsyncMessages, Messages
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.resources.embeddings import Embeddings
from openai.resources.responses.responses import Responses
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from sdk.sdk_support import ANTHROPIC_CLIENT_SCOPE, Metered, OtlpReceiver, scope, spans_of

HOOKED = [
    (httpx.Client, "send"),
    (httpx.AsyncClient, "send"),
    (httpx2.Client, "send"),
    (httpx2.AsyncClient, "send"),
    (httpx.HTTPTransport, "handle_request"),
    (httpx.AsyncHTTPTransport, "handle_async_request"),
    (httpx2.HTTPTransport, "handle_request"),
    (httpx2.AsyncHTTPTransport, "handle_async_request"),
    (Completions, "create"),
    (AsyncCompletions, "create"),
    (Responses, "create"),
    (Embeddings, "create"),
    (Messages, "create"),
    (AsyncMessages, "create"),
    (Messages, "stream"),
]


def hooks() -> list[Any]:
    return [owner.__dict__[name] for owner, name in HOOKED]


def test_turning_it_off_restores_everything() -> None:
    before = hooks()
    for _ in range(2):
        farebox.instrument(tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=InMemorySpanExporter())
        assert all(now is not then for now, then in zip(hooks(), before, strict=True))
        farebox.uninstrument()
        assert all(now is then for now, then in zip(hooks(), before, strict=True))


def test_turning_it_on_twice_is_turning_it_on_once(metered: Metered) -> None:
    before = hooks()
    farebox.instrument(exporter=InMemorySpanExporter())
    assert all(now is then for now, then in zip(hooks(), before, strict=True))
    metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert metered.span()


def test_turning_it_off_twice_or_never_on_does_nothing() -> None:
    farebox.uninstrument()
    farebox.uninstrument()
    assert not farebox.flush(0), "nothing is delivered where nothing is metered"


def test_a_hook_that_somebody_wrapped_since_stays_and_is_idle(metered: Metered) -> None:
    ours = httpx.Client.__dict__["send"]
    called = []

    def theirs(self: httpx.Client, *args: Any, **kwargs: Any) -> httpx.Response:
        called.append(True)
        return ours.__get__(self)(*args, **kwargs)  # type: ignore[no-any-return]

    httpx.Client.send = theirs  # type: ignore[method-assign]
    try:
        farebox.uninstrument()
        assert httpx.Client.__dict__["send"] is theirs
        assert httpx.post(f"{metered.model_url}/v1/chat/completions", json={"model": "gpt-4o"}).is_success
    finally:
        httpx.Client.send = ours.__wrapped__  # type: ignore[method-assign]
    assert called
    assert metered.exporter.get_finished_spans() == ()


def test_it_can_be_turned_on_again_with_the_same_provider(metered: Metered) -> None:
    farebox.uninstrument()
    exporter = InMemorySpanExporter()
    farebox.instrument(tracer_provider=metered.provider, exporter=exporter)
    metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert farebox.flush(5)
    assert len(exporter.get_finished_spans()) == 1


def test_an_instrumentation_of_the_applications_own_is_left_to_it(model_url: str) -> None:
    theirs = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    try:
        ours = InMemorySpanExporter()
        farebox.instrument(tracer_provider=provider, exporter=ours, http_spans=False)
        with openai.OpenAI(base_url=f"{model_url}/v1", api_key="none") as client, farebox.action("chat.reply"):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
        farebox.uninstrument()
        assert OpenAIInstrumentor().is_instrumented_by_opentelemetry
    finally:
        OpenAIInstrumentor().uninstrument()
    (in_theirs,), (in_ours,) = theirs.get_finished_spans(), ours.get_finished_spans()
    assert in_theirs.context == in_ours.context
    # The application's own exporters see the tags as well; the estimate is made after them.
    assert (in_theirs.attributes or {})["farebox.event"] == "chat.reply"
    assert "farebox.cost_actual" not in (in_theirs.attributes or {})
    assert "farebox.cost_actual" in (in_ours.attributes or {})


def test_other_spans_of_the_application_are_not_sent(metered: Metered) -> None:
    tracer = metered.provider.get_tracer("application")
    with farebox.action("chat.reply"), tracer.start_as_current_span("request", attributes={"http.route": "/"}):
        tracer.start_span("SELECT").end()
        tracer.start_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}).end()
    assert metered.span().name == "invoke_agent"


def test_spans_that_are_recorded_and_not_sampled_are_charged_all_the_same(metered: Metered) -> None:
    class RecordOnly(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "record only"

    farebox.uninstrument()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
    farebox.instrument(tracer_provider=provider, exporter=exporter)
    metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert farebox.flush(5)
    assert len(exporter.get_finished_spans()) == 1


def test_shutting_the_provider_down_delivers(metered: Metered) -> None:
    metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    assert metered.provider.force_flush()
    metered.provider.shutdown()
    assert len(metered.exporter.get_finished_spans()) == 1


def test_the_sdk_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    before = hooks()
    farebox.instrument()
    assert all(now is then for now, then in zip(hooks(), before, strict=True))


def test_a_library_that_cannot_be_metered_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, model_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ImportError("of the wrong version")

    monkeypatch.setattr(OpenAIInstrumentor, "_instrument", fail)
    exporter = InMemorySpanExporter()
    farebox.instrument(
        model_urls=[f"{model_url}/v1"], tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=exporter
    )
    assert "turning on the metering of openai" in caplog.text
    with openai.OpenAI(base_url=f"{model_url}/v1", api_key="none") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    farebox.uninstrument()
    (span,) = exporter.get_finished_spans()
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "farebox", "then the call is metered over HTTP"


def test_a_client_that_opens_a_genai_span_itself_is_not_metered_again_over_http(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the anthropic client does, here without its official instrumentation."""
    farebox.uninstrument()
    monkeypatch.setattr(AnthropicInstrumentor, "_instrument", lambda *_, **__: 1 / 0)
    exporter = InMemorySpanExporter()
    farebox.instrument(model_urls=[f"{metered.model_url}/v1"], tracer_provider=metered.provider, exporter=exporter)
    metered.anthropic().messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
    )
    assert farebox.flush(5)
    (span,) = exporter.get_finished_spans()
    assert scope(span) == ANTHROPIC_CLIENT_SCOPE


def test_a_provider_that_samples_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sampler = ParentBased(TraceIdRatioBased(0.1))
    farebox.instrument(
        tracer_provider=TracerProvider(sampler=sampler, shutdown_on_exit=False), exporter=InMemorySpanExporter()
    )
    farebox.uninstrument()
    assert "samples" in caplog.text


def test_the_global_entry_points_are_what_they_were(metered: Metered) -> None:
    """A wrapper that is no function would break code that inspects the client."""
    assert inspect.iscoroutinefunction(httpx.AsyncClient.send)
    assert inspect.signature(httpx.Client.send).parameters["request"]
    assert Completions.create.__name__ == "create"


# In a process of its own: the global tracer provider, imports, and the end of the process.


def run(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={"PATH": "", "PYTHONWARNINGS": "ignore", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_sdk_brings_no_server_and_imports_no_client(tmp_path: Path) -> None:
    code = (
        "import sys, farebox; farebox.instrument()\n"
        "print(*sorted({'fastapi', 'sqlalchemy', 'uvicorn', 'starlette', 'farebox_collector', 'alembic',\n"
        "    'prometheus_client', 'openai', 'anthropic', 'httpx', 'httpx2', 'pydantic'} & set(sys.modules)))"
    )
    process = run(code, tmp_path)
    assert (process.stdout.strip(), process.returncode) == ("", 0), process.stderr


THREE_LINES = """
import farebox
farebox.instrument()
import anthropic, openai
client = openai.OpenAI(base_url={url!r} + "/v1", api_key="none")
with farebox.action("chat.reply", wallet="ada"):
    client.chat.completions.create(model="gpt-4o-mini", messages=[{{"role": "user", "content": "Hello"}}])
    anthropic.Anthropic(base_url={url!r}, api_key="none").messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=[{{"role": "user", "content": "Hello"}}]
    )
"""


@pytest.mark.parametrize("early", [True, False], ids=["clients imported first", "clients imported later"])
def test_three_lines_and_the_end_of_the_process(
    model_url: str, receiver: OtlpReceiver, tmp_path: Path, early: bool
) -> None:
    code = THREE_LINES.format(url=model_url)
    process = run(
        f"import anthropic, openai\n{code}" if early else code,
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_SERVICE_NAME="shop",
    )
    assert (process.returncode, process.stderr) == (0, "")
    spans = receiver.spans()
    assert sorted(span["scope"] for span in spans) == [
        "opentelemetry.instrumentation.genai.anthropic",
        "opentelemetry.instrumentation.genai.openai",
    ]
    for span in spans:
        assert span["service"] == "shop"
        assert span["farebox.wallet"] == "ada"
        assert span["farebox.event"] == "chat.reply"
        assert span["farebox.currency"] == "USD"
        assert not any("messages" in key for key in span), "prompts and completions stay at home"


def test_otlp_over_http(model_url: str, tmp_path: Path) -> None:
    requests = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.append((self.path, self.headers["x-key"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server, futures.ThreadPoolExecutor(1) as pool:
        serving = pool.submit(server.serve_forever)
        process = run(
            THREE_LINES.format(url=model_url),
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_HEADERS="x-key=secret",
        )
        server.shutdown()
        serving.result()
    assert (process.returncode, process.stderr) == (0, "")
    assert {(path, key) for path, key, _ in requests} == {("/v1/traces", "secret")}
    spans = [
        span
        for _, _, body in requests
        for span in spans_of(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
    ]
    assert len(spans) == 2


def test_without_a_collector_the_application_does_its_work_and_ends(model_url: str, tmp_path: Path) -> None:
    code = THREE_LINES.format(url=model_url) + "print('done', farebox.flush(0.2))\nfarebox.uninstrument(0.2)"
    process = run(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (process.stdout, process.returncode) == ("done False\n", 0)
    assert "2 spans are dropped" in process.stderr
    assert process.stderr.count("\n") <= 2, "an outage is a line or two, not a flood"


def test_a_provider_of_the_applications_own_is_used(model_url: str, receiver: OtlpReceiver, tmp_path: Path) -> None:
    own = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "own = TracerProvider(resource=Resource({'service.name': 'own'})); trace.set_tracer_provider(own)\n"
    )
    process = run(
        own + THREE_LINES.format(url=model_url) + "assert trace.get_tracer_provider() is own",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert [span["service"] for span in receiver.spans()] == ["own"] * 2


def test_a_sampler_of_the_environment_does_not_sample_the_meter(
    model_url: str, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    process = run(
        THREE_LINES.format(url=model_url),
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert process.returncode == 0
    assert len(receiver.spans()) == 2


def test_concurrent_calls_are_all_metered(metered: Metered) -> None:
    client = metered.openai()
    together = threading.Barrier(8)

    def user(number: int) -> None:
        together.wait()
        with farebox.action("chat.reply", wallet=number):
            client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "Hello"}],
                extra_headers={"x-usage": f"input={number + 1}"},
            )

    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(user, range(8)))
    seen = [
        ((span.attributes or {})["farebox.wallet"], (span.attributes or {})["gen_ai.usage.input_tokens"])
        for span in metered.spans()
    ]
    assert sorted(seen) == [(str(number), number + 1) for number in range(8)]
