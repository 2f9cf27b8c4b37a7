"""Record OpenTelemetry's GenAI client metrics for the calls that Farebox meters itself.

The official instrumentations record them for their calls. Without a meter provider the cost is negligible.
Source: the semantic conventions for GenAI metrics, including the bucket boundaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.metrics import Histogram, MeterProvider, NoOpMeterProvider, get_meter

from farebox import span_attributes
from farebox.endpoints import Endpoint
from farebox.version import __version__

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4**power for power in range(14))


def goes_nowhere(instrument: object) -> bool:
    """Return whether an instrument is a proxy because the application has set no meter provider."""
    return getattr(instrument, "_real_instrument", instrument) is None


class CallMetrics:
    """Three histograms: tokens used, duration, and time to the first chunk."""

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        """Use this provider, or the global one."""
        meter = get_meter("farebox", __version__, meter_provider)

        def histogram(name: str, unit: str, description: str, boundaries: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, unit=unit, description=description, explicit_bucket_boundaries_advisory=boundaries
            )

        self._idle = isinstance(meter_provider, NoOpMeterProvider)
        self._not_metered = meter.create_counter(
            "farebox.client.requests.not_metered",
            unit="{request}",
            description="Requests that look like model calls to an unknown address",
        )
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens used, by type", _TOKENS)
        self._duration = histogram("gen_ai.client.operation.duration", "s", "Duration of model calls", _SECONDS)
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time until a stream's first chunk", _SECONDS
        )

    def not_metered(self, host: str) -> None:
        """Count a request that looks like a model call to an unknown address."""
        self._not_metered.add(1, {span_attributes.SERVER_ADDRESS: host})

    def record(
        self,
        endpoint: Endpoint,
        request_model: str | None,
        answer: Mapping[str, Any],
        duration_s: float,
        first_chunk_s: float | None,
        error_type: str | None,
    ) -> None:
        """Record an ended call.

        Args:
            endpoint: the called endpoint. request_model: the requested model.
            answer: the facts of the answer, as span attributes.
            duration_s, first_chunk_s: seconds since the request was sent; None without a stream.
            error_type: as on the span; None for a successful call.
        """
        if self._idle or goes_nowhere(self._duration):
            return
        labels: dict[str, Any] = {
            span_attributes.OPERATION_NAME: endpoint.operation,
            span_attributes.PROVIDER_NAME: endpoint.provider,
        }
        if request_model:
            labels[span_attributes.REQUEST_MODEL] = request_model
        if model := answer.get(span_attributes.RESPONSE_MODEL):
            labels[span_attributes.RESPONSE_MODEL] = model
        for kind, key in (("input", span_attributes.USAGE_INPUT), ("output", span_attributes.USAGE_OUTPUT)):
            if (tokens := answer.get(key)) is not None:
                self._tokens.record(tokens, {**labels, "gen_ai.token.type": kind})
        if first_chunk_s is not None:
            self._first_chunk.record(first_chunk_s, labels)
        self._duration.record(duration_s, {**labels, span_attributes.ERROR_TYPE: error_type} if error_type else labels)
