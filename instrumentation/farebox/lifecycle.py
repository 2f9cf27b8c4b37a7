"""Turns the metering on and off for the process, and wires its parts together."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SpanExporter

from farebox.client_libraries import ClientLibraries, imported, when_imported
from farebox.delivery import Delivery
from farebox.endpoints import named_urls
from farebox.exporters import otlp_exporter_type
from farebox.guard import guarded
from farebox.span_processor import EXIT_FLUSH_S, MeterProcessor
from farebox.version import __version__

MODEL_URLS: Final = "FAREBOX_MODEL_URLS"
_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"

_logger = logging.getLogger("farebox")


class _Provider(Protocol):
    """What a tracer provider of the SDK, and of those who wrap it, can do."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None: ...


@dataclass
class _Meter:
    """What is on, so that it can be turned off."""

    processor: MeterProcessor
    delivery: Delivery
    libraries: ClientLibraries


_lock = threading.RLock()
_meter: _Meter | None = None
_waiting_for_imports = False
# A provider has no way to lose a processor, so the one it got is used again.
_processors: weakref.WeakKeyDictionary[Any, MeterProcessor] = weakref.WeakKeyDictionary()


def instrument(
    *,
    model_urls: Mapping[str, str] | Iterable[str] = (),
    tracer_provider: trace.TracerProvider | None = None,
    exporter: SpanExporter | None = None,
) -> None:
    """Meter the LLM calls of this process from now on. Calling it again changes nothing.

    Calls made with the ``openai`` and ``anthropic`` clients are metered by their official instrumentations;
    calls that the application makes with plain ``httpx`` or ``httpx2`` to a provider's API are metered
    here. Spans go to localhost:4317 over OTLP/gRPC; the ``OTEL_…`` environment variables say otherwise.

    Call it after the application has set its own tracer provider, if it sets one: the spans then go through
    that provider as well. With ``OTEL_SDK_DISABLED=true`` it does nothing. It raises nothing: what cannot
    be turned on is logged and left out.

    Args:
        model_urls: base URLs of further model APIs, such as a gateway: ``["http://127.0.0.1:9999/v1"]``.
            The provider on their spans follows from the path, ``anthropic`` for ``/messages`` and
            ``openai`` otherwise; a mapping names it: ``{"http://127.0.0.1:9999/v1": "mistral_ai"}``.
            ``FAREBOX_MODEL_URLS`` adds to these.
        tracer_provider: used in place of the global one.
        exporter: used in place of the OTLP exporter, and shut down by :func:`uninstrument`.
    """
    global _meter, _waiting_for_imports
    with _lock, guarded("turning the metering on"):
        if _meter is not None or os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
            return
        provider = _provider(tracer_provider)
        processor = _processors.get(provider)
        if processor is None:
            processor = _processors[provider] = MeterProcessor()
            cast(_Provider, provider).add_span_processor(processor)
        delivery = Delivery(
            (lambda: exporter) if exporter is not None else otlp_exporter_type(), max_spans=_max_spans()
        )
        processor.delivery = delivery
        urls = named_urls(model_urls, os.environ.get(MODEL_URLS, ""))
        _meter = _Meter(processor, delivery, ClientLibraries(provider, urls))
        atexit.register(_at_exit)
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
        meter.processor.delivery = None
        meter.delivery.close(timeout_s)


def flush(timeout_s: float = 10.0) -> bool:
    """Send the spans of all calls that have ended. Returns whether the collector took them in that time.

    A call that streams ends when its stream is read to the end or closed. True when metering is off.
    """
    meter = _meter
    with guarded("flushing"):
        return meter is None or meter.delivery.flush(timeout_s)
    return False


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
            _logger.warning("the tracer provider samples; calls that its sampler turns down are not metered")
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


def _max_spans() -> int:
    size = os.environ.get(_QUEUE_SIZE, "").strip()
    return int(size) if size.isdigit() and int(size) > 0 else 10_000
