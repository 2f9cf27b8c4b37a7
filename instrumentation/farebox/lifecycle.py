"""Turn metering on and off for the process, and wire its parts together."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SpanExporter

from farebox.attribution import MeteringState
from farebox.client_libraries import ClientLibraries, imported, when_imported
from farebox.collector_trouble import check_at_start
from farebox.delivery import Delivery
from farebox.endpoints import named_urls
from farebox.exporters import exporter_maker, sends_otlp
from farebox.guard import guarded, report
from farebox.holds import settle, use_delivery
from farebox.http_spans import HTTP_SPANS, HttpSpans
from farebox.outgoing import Outgoing
from farebox.own_hosts import BAGGAGE_HOSTS, OwnHosts, named_hosts
from farebox.privacy import Privacy, Redact
from farebox.propagation import TagPropagation
from farebox.quality import use_provider
from farebox.request_log import RequestLog
from farebox.span_processor import EXIT_FLUSH_S, Metering, MeterProcessor
from farebox.tag_sources import PROPAGATE_TAGS, TRUST_BAGGAGE, TagSources, flag
from farebox.threads import ThreadCarrier
from farebox.version import __version__

MODEL_URLS: Final = "FAREBOX_MODEL_URLS"
REQUEST_STREAM_USAGE: Final = "FAREBOX_REQUEST_STREAM_USAGE"
_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH_SIZE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_DELAY_MS: Final = "OTEL_BSP_SCHEDULE_DELAY"

FLUSH_S: Final = 5.0
"""The default timeout of :func:`flush`."""


class _Provider(Protocol):
    """The used part of the SDK's tracer provider and its wrappers."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None: ...


@dataclass
class _Meter:
    """The active parts, kept to turn them off."""

    processor: MeterProcessor
    delivery: Delivery
    libraries: ClientLibraries
    request_log: RequestLog
    threads: ThreadCarrier
    propagation: TagPropagation
    given: Mapping[str, Any]
    """The arguments of :func:`instrument`."""


_lock = threading.RLock()
_meter: _Meter | None = None
_waiting_for_imports = False
# A provider cannot remove a processor, so the same one is used again.
_processors: weakref.WeakKeyDictionary[Any, MeterProcessor] = weakref.WeakKeyDictionary()


def instrument(
    *,
    model_urls: Mapping[str, str] | Iterable[str] = (),
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    exporter: SpanExporter | None = None,
    request_stream_usage: bool | None = None,
    redact: Redact | None = None,
    request_log: bool | None = None,
    trust_baggage: bool | None = None,
    propagate_tags: bool | None = None,
    http_spans: bool | Literal["send"] | None = None,
    baggage_hosts: Iterable[str] = (),
) -> None:
    """Meter the LLM calls of this process from now on. Calling it again changes nothing.

    A second call with other arguments is logged.

    Clients with an official OpenTelemetry instrumentation are metered by it. All other calls to a provider's API
    through ``httpx`` or ``httpx2`` are metered here. Spans are sent to localhost:4317 over OTLP/gRPC unless ``OTEL_…``
    environment variables configure another target.

    If the application sets its own tracer provider, call this afterwards: the spans then go through that provider as
    well. With ``OTEL_SDK_DISABLED=true`` it does nothing. It never raises: parts that cannot be turned on are logged
    and skipped.

    Args:
        model_urls: base URLs of further model APIs, such as a gateway: ``["http://127.0.0.1:9999/v1"]``.
            Their provider is derived from the path, ``anthropic`` for ``/messages`` and ``openai`` otherwise,
            or named by a mapping: ``{"http://127.0.0.1:9999/v1": "mistral_ai"}``.
            ``FAREBOX_MODEL_URLS`` adds to these.
        tracer_provider: used instead of the global one.
        meter_provider: used instead of the global one for OpenTelemetry's GenAI client metrics.
        exporter: used instead of the OTLP exporter, and shut down by :func:`uninstrument`.
        request_stream_usage: request usage of OpenAI-style chat streams if the caller does not, and hide the
            additional event from the caller. None uses ``FAREBOX_REQUEST_STREAM_USAGE``; off by default, since
            it changes the request.
        redact: called with the name and value of every span attribute before it is sent, in a Farebox thread;
            returns the value to send, or None to send neither.
        request_log: write one line of JSON per call to the logger ``farebox.requests``. None uses
            ``FAREBOX_REQUEST_LOG``.
        trust_baggage: accept wallet, event and action from incoming W3C baggage, and not only tags for reports. None
            uses ``FAREBOX_TRUST_BAGGAGE``; off by default, since any client can send a header.
        propagate_tags: write wallet, event, action and tags into the baggage of outgoing requests. Requests over httpx
            and httpx2 send them to the application's own hosts only, see ``baggage_hosts``; another instrumentation
            that the application turned on sends them with all its headers. None uses ``FAREBOX_PROPAGATE_TAGS``;
            off by default.
        http_spans: trace the requests of httpx and httpx2 with OpenTelemetry's official instrumentation: HTTP spans in
            the application's own traces, and trace context in request headers. ``"send"`` also sends the HTTP spans
            of model calls to the collector. None uses ``FAREBOX_HTTP_SPANS``; on by default, and inactive if the
            application has turned the instrumentation on itself.
        baggage_hosts: further hosts that may receive the baggage: ``["api.example.com", "*.example.org"]``. Loopback
            and private addresses, names without a dot, ``.local`` and ``.internal`` always receive it, all other
            hosts never. ``FAREBOX_BAGGAGE_HOSTS`` adds to these.
    """
    given = dict(locals())
    with _lock, guarded("turning the metering on"):
        _instrument(given)


def _instrument(given: Mapping[str, Any]) -> None:
    """Do the work of :func:`instrument` with the lock held; ``given`` are its arguments."""
    global _meter
    MeteringState.begun = True
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return
    if _meter is not None:
        _report_ignored(_meter.given, given)
        return
    provider = _provider(given["tracer_provider"])
    _meter = _meter_of(provider, given)
    use_provider(provider)
    use_delivery(_deliver)
    _meter.threads.install()
    if flag(PROPAGATE_TAGS, given["propagate_tags"]):
        _meter.propagation.start()
    atexit.register(_at_exit)
    _turn_on_libraries()
    if given["exporter"] is None and sends_otlp():
        check_at_start()


def _meter_of(provider: trace.TracerProvider, given: Mapping[str, Any]) -> _Meter:
    """Wire the parts of the meter together; ``given`` are the arguments of :func:`instrument`."""
    processor = _processor_of(provider)
    lines = RequestLog(given["request_log"])
    spans_wanted = _http_spans(given["http_spans"])
    exporter = given["exporter"]
    delivery = Delivery(
        (lambda: exporter) if exporter is not None else exporter_maker(),
        max_spans=_positive(_QUEUE_SIZE, 10_000),
        max_batch_spans=_positive(_BATCH_SIZE, 512),
        delay_s=_positive(_DELAY_MS, 1_000) / 1000,
    )
    processor.metering = Metering(
        delivery,
        Outgoing(Privacy(given["redact"]), lines),
        TagSources(trust_baggage=flag(TRUST_BAGGAGE, given["trust_baggage"])),
        spans_wanted == "send",
    )
    libraries = ClientLibraries(
        provider,
        named_urls(given["model_urls"], os.environ.get(MODEL_URLS, "")),
        meter_provider=given["meter_provider"],
        request_stream_usage=flag(REQUEST_STREAM_USAGE, given["request_stream_usage"]),
        http_spans=_http_spans_of(provider, spans_wanted, given) if spans_wanted else None,
        exposed=processor.exposed,
    )
    return _Meter(processor, delivery, libraries, lines, ThreadCarrier(), TagPropagation(), given)


def _processor_of(provider: trace.TracerProvider) -> MeterProcessor:
    """Return the provider's processor, adding one the first time."""
    processor = _processors.get(provider)
    if processor is None:
        processor = _processors[provider] = MeterProcessor()
        cast(_Provider, provider).add_span_processor(processor)
    return processor


def _http_spans_of(provider: trace.TracerProvider, wanted: bool | str, given: Mapping[str, Any]) -> HttpSpans:
    own_hosts = OwnHosts(named_hosts(given["baggage_hosts"], os.environ.get(BAGGAGE_HOSTS, "")))
    return HttpSpans(provider, own_hosts, meter_provider=given["meter_provider"], always=wanted == "send")


def _turn_on_libraries() -> None:
    """Meter imported client libraries now and other ones on import."""
    global _waiting_for_imports
    if not _waiting_for_imports:
        _waiting_for_imports = True
        when_imported(_turn_on)
    for library in imported():
        _turn_on(library)


def uninstrument(timeout_s: float = EXIT_FLUSH_S) -> None:
    """Stop metering: deliver pending spans within the timeout, and restore every client library."""
    global _meter
    with _lock, guarded("turning the metering off"):
        meter, _meter = _meter, None
        if meter is None:
            return
        atexit.unregister(_at_exit)
        meter.libraries.turn_off()
        meter.threads.remove()
        meter.propagation.stop()
        meter.processor.release()
        meter.processor.metering = None
        use_provider(None)
        meter.delivery.close(timeout_s)
        meter.request_log.close()


def metering() -> MeterProcessor | None:
    """Return the active processor; None if metering is off."""
    return _meter.processor if _meter is not None else None


def flush(timeout_s: float = FLUSH_S) -> bool:
    """Send the spans of all ended calls. Returns whether the collector accepted them within the timeout.

    A streamed call ends when its stream is read to the end or closed. Returns False if metering is off: nothing was
    delivered.
    """
    meter = _meter
    with guarded("flushing"):
        until_s = time.monotonic() + timeout_s
        settle(timeout_s)
        return meter is not None and _delivery(meter).flush(max(0.0, until_s - time.monotonic()))
    return False


def _deliver(timeout_s: float) -> bool:
    meter = _meter
    return meter is not None and _delivery(meter).flush(timeout_s)


def _delivery(meter: _Meter) -> Delivery:
    # A test that captures calls has replaced it.
    return meter.processor.metering.delivery if meter.processor.metering is not None else meter.delivery


def _turn_on(library: str) -> None:
    # Takes no lock: this runs inside an import, and the lock's holder may be waiting for that import.
    meter = _meter
    if meter is not None:
        meter.libraries.turn_on(library)


def _at_exit() -> None:
    uninstrument(EXIT_FLUSH_S)


def _provider(explicit: trace.TracerProvider | None) -> trace.TracerProvider:
    provider = explicit or trace.get_tracer_provider()
    if hasattr(provider, "add_span_processor"):
        sampler = getattr(provider, "sampler", None)
        if isinstance(sampler, sampling.Sampler) and "TraceIdRatio" in sampler.get_description():
            report(
                "sampler",
                "the tracer provider samples: calls that its sampler drops are not metered. Pass a provider "
                "without a sampler to instrument(tracer_provider=…)",
            )
        return provider
    # A meter must see every call, so this provider samples all of them, regardless of the environment.
    ours = TracerProvider(
        sampler=sampling.ALWAYS_ON,
        resource=Resource.create({"telemetry.distro.name": "farebox", "telemetry.distro.version": __version__}),
        shutdown_on_exit=False,
    )
    if isinstance(provider, trace.ProxyTracerProvider):
        trace.set_tracer_provider(ours)
    return ours


def _http_spans(stated: bool | str | None) -> bool | str:
    if stated is None:
        text = os.environ.get(HTTP_SPANS, "").strip().lower() or "true"
        stated = text if text == "send" else text not in ("false", "0", "no")
    if stated not in (True, False, "send"):
        report("http_spans", f"http_spans must be True, False or 'send', not {stated!r}; using True")
        return True
    return stated


def _report_ignored(first: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    defaults = instrument.__kwdefaults__ or {}
    ignored = [name for name, value in again.items() if value != defaults.get(name) and value != first.get(name)]
    if ignored:
        report(
            "instrumented twice",
            f"instrument() was called before; {', '.join(sorted(ignored))} of this call are ignored. Pass them in the "
            "first call, or call uninstrument() in between",
        )


def _positive(variable: str, default: int) -> int:
    number = os.environ.get(variable, "").strip()
    return int(number) if number.isdigit() and int(number) > 0 else default
