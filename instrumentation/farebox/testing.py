"""Capture model calls, their attribution and usage in an application's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from farebox import lifecycle, span_attributes
from farebox.delivery import Delivery

_FLUSH_S = 10.0


@dataclass(frozen=True)
class CapturedCall:
    """A model call. Unreported values are None."""

    attributes: Mapping[str, Any]
    """All attributes of its span, as sent."""
    started_ns: int
    """Start in nanoseconds since the epoch."""
    latency_ms: float
    """Duration in milliseconds, to the end of a stream."""

    @property
    def operation(self) -> str | None:
        """``chat``, ``embeddings``, ``generate_content`` or ``text_completion``."""
        return self.attributes.get(span_attributes.OPERATION_NAME)

    @property
    def provider(self) -> str | None:
        """OpenTelemetry's name of the provider, such as ``openai``."""
        return self.attributes.get(span_attributes.PROVIDER_NAME)

    @property
    def model(self) -> str | None:
        """The model that answered, else the requested one."""
        return self.attributes.get(span_attributes.RESPONSE_MODEL) or self.attributes.get(span_attributes.REQUEST_MODEL)

    @property
    def wallet(self) -> str | None:
        """What pays."""
        return self.attributes.get(span_attributes.WALLET)

    @property
    def event(self) -> str | None:
        """The product event."""
        return self.attributes.get(span_attributes.EVENT)

    @property
    def action_id(self) -> str | None:
        """The id of the action."""
        return self.attributes.get(span_attributes.ACTION_ID)

    @property
    def input_tokens(self) -> int | None:
        """Input tokens, including the cache."""
        return self.attributes.get(span_attributes.USAGE_INPUT)

    @property
    def output_tokens(self) -> int | None:
        """Output tokens, including reasoning."""
        return self.attributes.get(span_attributes.USAGE_OUTPUT)

    @property
    def cost_usd(self) -> float | None:
        """The estimated cost in US dollars."""
        return self.attributes.get(span_attributes.COST_ACTUAL)

    @property
    def error_type(self) -> str | None:
        """The type of the error."""
        return self.attributes.get(span_attributes.ERROR_TYPE)


class CapturedCalls(Sequence[CapturedCall]):
    """The calls so far, in order of their end. Access waits for ended calls to be delivered."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        """Read from the exporter that receives the calls."""
        self._exporter = exporter

    def _spans(self) -> list[ReadableSpan]:
        lifecycle.flush(_FLUSH_S)
        return [span for span in self._exporter.get_finished_spans() if span_attributes.is_inference(span.attributes)]

    @overload
    def __getitem__(self, index: int) -> CapturedCall: ...

    @overload
    def __getitem__(self, index: slice) -> list[CapturedCall]: ...

    def __getitem__(self, index: int | slice) -> CapturedCall | list[CapturedCall]:
        """Return a call or a list of calls."""
        calls = [_call(span) for span in self._spans()]
        return calls[index]

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._spans())

    def __repr__(self) -> str:
        """Return all calls as text."""
        return repr(list(self))


@contextmanager
def captured_calls(**settings: Any) -> Iterator[CapturedCalls]:
    """Meter the calls made inside into a list and send nothing.

        with farebox.testing.captured_calls() as calls:
            answer(question)
        assert [call.wallet for call in calls] == ["ada"]

    If metering is on, its spans go into the list instead of to the collector; if off, it is turned on inside.

    Args:
        settings: for :func:`farebox.instrument`, such as ``model_urls``; ignored if metering is on.
    """
    exporter = InMemorySpanExporter()
    processor = lifecycle.metering()
    if processor is None or processor.metering is None:
        provider = TracerProvider(shutdown_on_exit=False)
        lifecycle.instrument(**{"tracer_provider": provider, "exporter": exporter, **settings})
        calls = CapturedCalls(exporter)
        try:
            yield calls
        finally:
            lifecycle.uninstrument()
        return
    before = processor.metering
    captured = Delivery(lambda: exporter)
    processor.metering = before._replace(delivery=captured)
    try:
        yield CapturedCalls(exporter)
    finally:
        processor.metering = before
        captured.close(_FLUSH_S)


def _call(span: ReadableSpan) -> CapturedCall:
    started_ns, ended_ns = span.start_time or 0, span.end_time or 0
    return CapturedCall(dict(span.attributes or {}), started_ns, (ended_ns - started_ns) / 1e6)
