"""The official HTTP instrumentation, turned on by the SDK: where its spans hang, and what goes to which host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import farebox
import httpx
import httpx2
import openai
import pytest
from farebox.http_spans import HttpSpans
from farebox.own_hosts import OwnHosts
from farebox.span_secrets import REDACTED, without_secrets
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.httpx import (
    HTTPX2ClientInstrumentor,
    HTTPXClientInstrumentor,
    SyncOpenTelemetryTransport,
)
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator, default_setter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sdk.sdk_support import scope

HTTP = "opentelemetry.instrumentation.httpx"
ANSWER = (
    b'{"id": "c-1", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [{"index": 0, '
    b'"finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}], '
    b'"usage": {"prompt_tokens": 9, "completion_tokens": 2, '
    b'"total_tokens": 11}}'
)
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
LIBRARIES = [httpx, httpx2]


class Server:
    """Answers every request like a model, after so many failures; keeps the headers that it saw."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.failures = 0
        self.redirect_to = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers["content-length"]))
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        redirect, self.redirect_to = self.redirect_to, ""
        status = 307 if redirect else 500 if self.failures > 0 else 200
        self.failures -= 1
        request.send_response(status)
        if redirect:
            request.send_header("location", redirect)
        request.send_header("set-cookie", "session=secret-cookie")
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(ANSWER) if status == 200 else 0))
        request.end_headers()
        if status == 200:
            request.wfile.write(ANSWER)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    with running.http as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield running
        http.shutdown()
        thread.join()


class Application:
    """An application with traces of its own, and Farebox's exporter beside."""

    def __init__(self) -> None:
        self.own = InMemorySpanExporter()
        self.sent = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.own))

    @contextmanager
    def metering(self, url: str, **settings: Any) -> Iterator[None]:
        farebox.instrument(model_urls=[f"{url}/v1"], tracer_provider=self.provider, exporter=self.sent, **settings)
        try:
            with farebox.action("chat.reply", wallet="ada"):
                yield
            assert farebox.flush(10)
        finally:
            farebox.uninstrument()

    def http_spans(self) -> list[ReadableSpan]:
        return [span for span in self.own.get_finished_spans() if scope(span) == HTTP]


@pytest.fixture
def application() -> Application:
    return Application()


def post(library: Any, url: str, **details: Any) -> None:
    with library.Client(**details) as client:
        client.post(f"{url}/v1/chat/completions", json=BODY).raise_for_status()


def post_async(library: Any, url: str, **details: Any) -> None:
    async def call() -> None:
        async with library.AsyncClient(**details) as client:
            (await client.post(f"{url}/v1/chat/completions", json=BODY)).raise_for_status()

    asyncio.run(call())


def trace_id_in(headers: dict[str, str]) -> int:
    return int(headers["traceparent"].split("-")[1], 16)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("call", [post, post_async])
def test_an_http_span_hangs_below_the_call_and_stays_at_home(
    application: Application, server: Server, library: Any, call: Callable[..., None]
) -> None:
    with application.metering(server.url):
        call(library, server.url)
    (http,) = application.http_spans()
    (call_span,) = application.sent.get_finished_spans()
    assert http.parent is not None
    assert http.parent.span_id == call_span.context.span_id
    assert scope(call_span) == "farebox"
    (headers,) = server.seen
    assert int(headers["traceparent"].split("-")[2], 16) == http.context.span_id
    assert "baggage" not in headers, "no tags without propagate_tags"


def test_the_spans_of_calls_are_sent_where_that_is_asked_for(application: Application, server: Server) -> None:
    with application.metering(server.url, http_spans="send"):
        post(httpx, server.url)
        httpx.post(f"{server.url}/other", content=b"{}")
    assert sorted(scope(span) for span in application.sent.get_finished_spans()) == ["farebox", HTTP]
    assert len(application.http_spans()) == 2


def test_without_a_reader_no_span_is_made_and_the_headers_are_written(server: Server) -> None:
    sent = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(model_urls=[f"{server.url}/v1"], tracer_provider=provider, exporter=sent)
    post(httpx, server.url)
    assert farebox.flush(10)
    farebox.uninstrument()
    (call_span,) = sent.get_finished_spans()
    assert int(server.seen[0]["traceparent"].split("-")[2], 16) == call_span.context.span_id


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_it_can_be_turned_off(
    application: Application, server: Server, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    settings: dict[str, Any] = {"http_spans": False} if how == "argument" else {}
    if how == "environment":
        monkeypatch.setenv("FAREBOX_HTTP_SPANS", "false")
    with application.metering(server.url, **settings):
        post(httpx, server.url)
    assert application.http_spans() == []
    assert "traceparent" not in server.seen[0]
    assert len(application.sent.get_finished_spans()) == 1


def test_the_retries_of_one_call_become_visible(application: Application, server: Server) -> None:
    server.failures = 2
    with (
        application.metering(server.url),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-secret", max_retries=2, timeout=5) as client,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    spans = application.http_spans()
    (call_span,) = application.sent.get_finished_spans()
    assert {span.parent.span_id for span in spans if span.parent} == {call_span.context.span_id}
    assert [(span.attributes or {}).get("http.request.resend_count") for span in spans] == [None, 1, 2]
    assert "sk-secret" not in "".join(span.to_json() for span in application.own.get_finished_spans())


# --- Beside an instrumentation of the application's own: one HTTP span a request, in any order.


def turn_on(application: Application) -> None:
    HTTPXClientInstrumentor().instrument(tracer_provider=application.provider)


def turn_off() -> None:
    if HTTPXClientInstrumentor().is_instrumented_by_opentelemetry:
        HTTPXClientInstrumentor().uninstrument()


@pytest.mark.parametrize("first", ["application", "farebox"])
@pytest.mark.parametrize("leaves_first", ["application", "farebox"])
def test_nothing_is_doubled_in_any_order(
    application: Application, server: Server, first: str, leaves_first: str
) -> None:
    before = (httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request)
    settings: Any = {"tracer_provider": application.provider, "exporter": application.sent}
    client = httpx.Client()  # a client that was there before
    if first == "application":
        turn_on(application)
        farebox.instrument(model_urls=[f"{server.url}/v1"], **settings)
    else:
        farebox.instrument(model_urls=[f"{server.url}/v1"], **settings)
        turn_on(application)
    try:
        client.post(f"{server.url}/v1/chat/completions", json=BODY)
        assert len(application.http_spans()) == 1
        turn_off() if leaves_first == "application" else farebox.uninstrument()
        application.own.clear()
        client.post(f"{server.url}/v1/chat/completions", json=BODY)
        # Where the application had it first, it leaves with the application.
        gone = (first, leaves_first) == ("application", "application")
        assert len(application.http_spans()) == (0 if gone else 1)
    finally:
        turn_off()
        farebox.uninstrument()
        client.close()
    application.own.clear()
    post(httpx, server.url)
    assert application.http_spans() == []
    farebox.instrument(model_urls=[f"{server.url}/v1"], **settings)
    post(httpx, server.url)
    farebox.uninstrument()
    assert len(application.http_spans()) == 1
    if first == "application":
        assert (httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request) == before


@pytest.mark.parametrize("how", ["client", "transport"])
def test_a_single_client_that_the_application_instruments_makes_one_span(
    application: Application, server: Server, how: str
) -> None:
    with application.metering(server.url):
        if how == "client":
            client = httpx.Client()
            HTTPXClientInstrumentor.instrument_client(client, tracer_provider=application.provider)
        else:
            transport = SyncOpenTelemetryTransport(httpx.HTTPTransport(), tracer_provider=application.provider)
            client = httpx.Client(transport=transport)
        with client:
            client.post(f"{server.url}/v1/chat/completions", json=BODY)
    assert len(application.http_spans()) == 1


def test_the_applications_own_settings_hold_when_it_comes_later(application: Application, server: Server) -> None:
    hooked: list[Any] = []
    farebox.instrument(tracer_provider=application.provider, exporter=application.sent)
    HTTPX2ClientInstrumentor().instrument(
        tracer_provider=application.provider, request_hook=lambda span, _request: hooked.append(span)
    )
    try:
        post(httpx2, server.url)
    finally:
        HTTPX2ClientInstrumentor().uninstrument()
        farebox.uninstrument()
    assert len(hooked) == len(application.http_spans()) == 1


# --- What goes to which host.


@contextmanager
def tagged() -> Iterator[None]:
    token = context.attach(baggage.set_baggage("user", "ada@example.com"))
    try:
        yield
    finally:
        context.detach(token)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("reads", [True, False], ids=["HTTP spans are read", "HTTP spans are not read"])
@pytest.mark.parametrize("call", [post, post_async])
def test_a_third_party_gets_trace_context_and_no_baggage(
    application: Application, server: Server, library: Any, reads: bool, call: Callable[..., None]
) -> None:
    provider = application.provider if reads else TracerProvider(shutdown_on_exit=False)
    settings: Any = {"exporter": application.sent, "propagate_tags": True, "baggage_hosts": ["*.own.example"]}
    farebox.instrument(tracer_provider=provider, **settings)
    proxied = {"proxy": server.url}
    try:
        with (
            farebox.action("chat.reply", wallet="ada"),
            tagged(),
            trace.get_tracer("app", tracer_provider=provider).start_as_current_span("request"),
        ):
            call(library, "http://api.groq.com", **proxied)
            call(library, "http://gateway.own.example", **proxied)
            call(library, server.url)
    finally:
        farebox.uninstrument()
    stranger, named, loopback = server.seen
    assert "baggage" not in stranger
    for own in (named, loopback):
        assert "ada@example.com" in own["baggage"].replace("%40", "@")
        assert "farebox.wallet=ada" in own["baggage"]
    assert len({trace_id_in(headers) for headers in server.seen}) == 1


def test_a_redirect_to_a_third_party_leaves_the_baggage_behind(application: Application, server: Server) -> None:
    server.redirect_to = "http://api.groq.com/v1/chat/completions"
    farebox.instrument(tracer_provider=application.provider, exporter=application.sent)
    transport = httpx.HTTPTransport(proxy=server.url)
    try:
        with tagged(), httpx.Client(follow_redirects=True, transport=transport) as client:
            client.post("http://localhost/v1/chat/completions", json=BODY)
    finally:
        farebox.uninstrument()
    assert ["baggage" in headers for headers in server.seen] == [True, False]


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("192.168.0.9", True),
        ("gateway", True),
        ("gateway.default.svc.cluster.local", True),
        ("vm.corp.internal", True),
        ("api.openai.com", False),
        ("8.8.8.8", False),
        ("", False),
        ("llm.example.com", True),
        ("LLM.example.com.", True),
        ("example.com", False),
        ("a.example.org", True),
        ("b.a.example.org", True),
        ("evilexample.org", False),
        ("llm.example.com.evil.net", False),
    ],
)
def test_own_hosts(host: str, own: bool) -> None:
    hosts = OwnHosts(["llm.example.com", "*.example.org"])
    assert (hosts.includes(host), hosts.includes(host)) == (own, own)


# --- Secrets.


def test_secrets_do_not_reach_the_spans(
    application: Application, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", ".*")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", ".*")
    headers = {"authorization": "Bearer s3cr3t", "x-api-key": "s3cr3t", "x-goog-api-key": "s3cr3t", "x-plain": "seen"}
    with application.metering(server.url):
        httpx.post(f"{server.url}/v1/chat/completions?key=s3cr3t&alt=sse", json=BODY, headers=headers)
    (http,) = application.http_spans()
    text = http.to_json()
    assert "s3cr3t" not in text
    assert "secret-cookie" not in text
    assert "seen" in text
    assert f"?key={REDACTED}&alt=sse" in text


def test_secrets_of_urls() -> None:
    clean = without_secrets(
        {"url.full": "https://h/p?api-version=1&API_Key=k&x-amz-signature=a=b#c", "url.query": "key=k"}
    )
    assert clean == {
        "url.full": f"https://h/p?api-version=1&API_Key={REDACTED}&x-amz-signature={REDACTED}#c",
        "url.query": f"key={REDACTED}",
    }


class Seen:
    """A request of which only the headers matter."""

    def __init__(self, library: Any, url: str, headers: dict[str, str] | None = None) -> None:
        self.url, self.headers = library.URL(url), library.Headers(headers)
        self.extensions: dict[str, Any] = {}


class Marking(TextMapPropagator):
    """A propagator of an application's own."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context

    def inject(self, carrier: Any, context: Any = None, setter: Any = default_setter) -> None:
        setter.set(carrier, "x-mark", "1")

    @property
    def fields(self) -> set[str]:
        return {"x-mark"}


STATES = [trace.TraceState(), trace.TraceState([("vendor", "1"), ("other", "2")])]
BEFORE = [None, {"x-first": "1", "traceparent": "00-old", "x-last": "2"}, {"Traceparent": "00-old"}]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://127.0.0.1:1/v1"])
@pytest.mark.parametrize("state", STATES, ids=["no state", "state"])
@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("before", BEFORE, ids=["no header", "headers", "upper case"])
def test_trace_context_is_written_as_the_official_propagator_writes_it(
    library: Any, url: str, state: trace.TraceState, flags: int, before: dict[str, str] | None
) -> None:
    span_context = trace.SpanContext(0x1234, 0x56, False, trace.TraceFlags(flags), state)
    span = trace.NonRecordingSpan(span_context)
    ours, official = Seen(library, url, before), Seen(library, url, before)
    spans = HttpSpans(TracerProvider(shutdown_on_exit=False), OwnHosts())
    token = context.attach(trace.set_span_in_context(span))
    try:
        spans._write_headers(ours, span)
        TraceContextTextMapPropagator().inject(official.headers)
    finally:
        context.detach(token)
    assert ours.headers.multi_items() == official.headers.multi_items()
    assert [value for name, value in ours.headers.raw] == [value for name, value in official.headers.raw]


def test_without_a_span_no_trace_context_is_written() -> None:
    request = Seen(httpx, "https://api.openai.com/v1")
    HttpSpans(TracerProvider(shutdown_on_exit=False), OwnHosts())._write_headers(request, trace.INVALID_SPAN)
    assert not request.headers


@pytest.mark.parametrize("propagators", [[], [Marking()], [CompositePropagator([Marking()])]])
def test_propagators_of_the_application_are_asked(propagators: list[Any]) -> None:
    spans = HttpSpans(TracerProvider(shutdown_on_exit=False), OwnHosts())
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
    first = Seen(httpx, "https://api.openai.com/v1")
    spans._write_headers(first, span)
    assert "traceparent" in first.headers
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator(propagators))
    try:
        second = Seen(httpx, "https://api.openai.com/v1")
        spans._write_headers(second, span)
    finally:
        propagate.set_global_textmap(before)
    assert dict(second.headers) == ({"x-mark": "1"} if propagators else {})


@pytest.mark.parametrize("suppress", [suppress_instrumentation, suppress_http_instrumentation])
@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_written_where_instrumentation_is_suppressed(server: Server, library: Any, suppress: Any) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(model_urls=[f"{server.url}/v1"], tracer_provider=provider, exporter=InMemorySpanExporter())
    try:
        with trace.get_tracer("app", tracer_provider=provider).start_as_current_span("request"):
            post(library, server.url)
            with suppress():
                post(library, server.url)
    finally:
        farebox.uninstrument()
    written, suppressed = server.seen
    assert "traceparent" in written
    assert "traceparent" not in suppressed
