"""Turns the metering on and off for the process, and wires its parts together."""

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
"""How long :func:`flush` waits for the collector unless told otherwise."""


class _Provider(Protocol):
    """What a tracer provider of the SDK, and of those who wrap it, can do."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None: ...


@dataclass
class _Meter:
    """What is on, so that it can be turned off."""

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
# A provider has no way to lose a processor, so the one it got is used again.
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

    Calls made with clients that OpenTelemetry instruments are metered by its official instrumentations; all others
    that go to a provider's API through ``httpx`` or ``httpx2`` are metered here. Spans go to localhost:4317 over
    OTLP/gRPC; the ``OTEL_…`` environment variables say otherwise.

    Call it after the application has set its own tracer provider, if it sets one: the spans then go through
    that provider as well. With ``OTEL_SDK_DISABLED=true`` it does nothing. It raises nothing: what cannot
    be turned on is logged and left out.

    Args:
        model_urls: base URLs of further model APIs, such as a gateway: ``["http://127.0.0.1:9999/v1"]``.
            The provider on their spans follows from the path, ``anthropic`` for ``/messages`` and
            ``openai`` otherwise; a mapping names it: ``{"http://127.0.0.1:9999/v1": "mistral_ai"}``.
            ``FAREBOX_MODEL_URLS`` adds to these.
        tracer_provider: used in place of the global one.
        meter_provider: used in place of the global one, for OpenTelemetry's GenAI client metrics.
        exporter: used in place of the OTLP exporter, and shut down by :func:`uninstrument`.
        request_stream_usage: ask OpenAI-style chat streams for their usage where the caller does not, and keep the
            additional event from the caller. None leaves it to ``FAREBOX_REQUEST_STREAM_USAGE``; off by default, since
            it changes the request.
        redact: called with the name and value of every span attribute before it is sent, in a thread of Farebox's own;
            returns the value to send, or None for none.
        request_log: write one line of JSON for each call to the logger ``farebox.requests``. None leaves it to
            ``FAREBOX_REQUEST_LOG``.
        trust_baggage: let W3C baggage that arrives name wallet, event and action, and not only tags for reports. None
            leaves it to ``FAREBOX_TRUST_BAGGAGE``; off by default, since anybody may send a header.
        propagate_tags: write wallet, event, action and tags into the baggage of outgoing requests. Requests over httpx
            and httpx2 take them to hosts of one's own only, see ``baggage_hosts``; another instrumentation that the
            application turned on takes them wherever it writes headers. None leaves it to
            ``FAREBOX_PROPAGATE_TAGS``; off by default.
        http_spans: trace the requests of httpx and httpx2 with OpenTelemetry's official instrumentation: HTTP spans in
            the application's own traces, and trace context in the requests' headers. ``"send"`` also sends the spans
            of calls to the collector. None leaves it to ``FAREBOX_HTTP_SPANS``; on by default, and left alone
            where the application has turned the instrumentation on itself.
        baggage_hosts: further hosts that may be told the baggage: ``["api.example.com", "*.example.org"]``. Those of
            loopback and private addresses, names without a dot, ``.local`` and ``.internal`` get it anyway, all
            others none. ``FAREBOX_BAGGAGE_HOSTS`` adds to these.
    """
    given = dict(locals())
    with _lock, guarded("turning the metering on"):
        _instrument(given)


def _instrument(given: Mapping[str, Any]) -> None:
    """As :func:`instrument`, whose arguments are ``given``; the lock is held."""
    global _meter
    MeteringState.begun = True
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return
    if _meter is not None:
        _say_what_is_ignored(_meter.given, given)
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
    """The parts of the meter, wired together; ``given`` are the arguments of :func:`instrument`."""
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
    """The provider's processor, which is added to it the first time."""
    processor = _processors.get(provider)
    if processor is None:
        processor = _processors[provider] = MeterProcessor()
        cast(_Provider, provider).add_span_processor(processor)
    return processor


def _http_spans_of(provider: trace.TracerProvider, wanted: bool | str, given: Mapping[str, Any]) -> HttpSpans:
    own_hosts = OwnHosts(named_hosts(given["baggage_hosts"], os.environ.get(BAGGAGE_HOSTS, "")))
    return HttpSpans(provider, own_hosts, meter_provider=given["meter_provider"], always=wanted == "send")


def _turn_on_libraries() -> None:
    """Meter the client libraries that are imported, and the others once they are."""
    global _waiting_for_imports
    if not _waiting_for_imports:
        _waiting_for_imports = True
        when_imported(_turn_on)
    for library in imported():
        _turn_on(library)


def uninstrument(timeout_s: float = EXIT_FLUSH_S) -> None:
    """Stop metering: deliver what there is for so many seconds at most, and restore every client library."""
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
    """The processor that is at work; None when metering is off."""
    return _meter.processor if _meter is not None else None


def flush(timeout_s: float = FLUSH_S) -> bool:
    """Send the spans of all calls that have ended. Returns whether the collector took them in that time.

    A call that streams ends when its stream is read to the end or closed. False when metering is off: then nothing was
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
    # A test that captures calls has put another one in its place.
    return meter.processor.metering.delivery if meter.processor.metering is not None else meter.delivery


def _turn_on(library: str) -> None:
    # Takes no lock: this runs inside an import, and whoever holds the lock may be waiting for that import.
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
                "the tracer provider samples: calls that its sampler turns down are not metered. Pass a provider "
                "without a sampler to instrument(tracer_provider=…)",
            )
        return provider
    # A meter has to see every call, so this provider of ours samples all of them, whatever the environment
    # says.
    ours = TracerProvider(
        sampler=sampling.ALWAYS_ON,
        resource=Resource.create({"telemetry.distro.name": "farebox", "telemetry.distro.version": __version__}),
        shutdown_on_exit=False,
    )
    if isinstance(provider, trace.ProxyTracerProvider):
        trace.set_tracer_provider(ours)
    return ours


def _http_spans(said: bool | str | None) -> bool | str:
    if said is None:
        text = os.environ.get(HTTP_SPANS, "").strip().lower() or "true"
        said = text if text == "send" else text not in ("false", "0", "no")
    if said not in (True, False, "send"):
        report("http_spans", f"http_spans is True, False or 'send', not {said!r}; it is taken as True")
        return True
    return said


def _say_what_is_ignored(first: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    defaults = instrument.__kwdefaults__ or {}
    others = [name for name, value in again.items() if value != defaults.get(name) and value != first.get(name)]
    if others:
        report(
            "instrumented twice",
            f"instrument() was called before; {', '.join(sorted(others))} of this call are ignored. Pass them with the "
            "first call, or call uninstrument() in between",
        )


def _positive(variable: str, default: int) -> int:
    number = os.environ.get(variable, "").strip()
    return int(number) if number.isdigit() and int(number) > 0 else default
