"""Decode OTLP metrics, in both encodings: count the data points, and read those of metrics that tell usage.

The messages are walked and not parsed: a few bytes would become an object of a few hundred. Most requests of an
application hold hundreds of points that tell nothing here, and cost a few steps each.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf import message
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint

from farebox_collector.intake.decoding.bounds import DATA_POINTS, Bounds, wire_fields
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge
from farebox_collector.intake.decoding.otlp_json import (
    AttributeReader,
    child,
    document,
    integer,
    objects_in,
    text_in,
)
from farebox_collector.intake.decoding.protobuf import attribute_value
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import Attributes, AttributeValue, MetricPoint

DELTA = 1
"""The temporality of sums since the point before."""
_RESOURCE_METRICS = 1
_RESOURCE, _SCOPE_METRICS = 1, 2
_SCOPE, _METRIC = 1, 2
_NAME, _SUM, _HISTOGRAM = 1, 7, 9
_KINDS = frozenset({5, 7, 9, 10, 11})
"""Gauge, sum, histogram, exponential histogram, summary: the points are field 1 of each."""
_POINTS, _TEMPORALITY = 1, 2
_POINTS_A_PAUSE = 500
_KINDS_IN_JSON = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_TEMPORALITIES = {"AGGREGATION_TEMPORALITY_DELTA": DELTA}


class MetricPoints(NamedTuple):
    """The result of decoding a request."""

    points: int
    """Number of all data points."""
    told: list[MetricPoint]


class MetricDecoder:
    """Decode requests to the points of the `wanted` metrics, with the `attributes` among theirs. Thread-safe."""

    def __init__(self, wanted: frozenset[str], attributes: frozenset[str], bounds: Bounds) -> None:
        self._wanted = wanted
        self._attributes = attributes
        self._in_json = AttributeReader(attributes, {})
        self._bounds = bounds

    def protobuf(self, body: bytes, pause: Pause = no_pause) -> MetricPoints:
        """Decode an ExportMetricsServiceRequest. Raises MalformedRequest, RequestTooLarge."""
        walk = _Walk(body, self._bounds, pause)
        told: list[MetricPoint] = []
        try:
            for number, start, end in walk.fields(0, len(body)):
                if number == _RESOURCE_METRICS:
                    self._resource(walk, start, end, told)
        except (message.DecodeError, ValueError, IndexError) as error:
            raise MalformedRequest("the body is not an OTLP ExportMetricsServiceRequest in protobuf") from error
        return MetricPoints(walk.points, told)

    def json(self, body: bytes, pause: Pause = no_pause) -> MetricPoints:
        """Decode the same as OTLP/JSON. Raises MalformedRequest, RequestTooLarge."""
        self._bounds.check_json(body, DATA_POINTS)
        points, told = 0, []
        for resource_metrics in objects_in(document(body, pause), "resourceMetrics"):
            resource = self._in_json(child(resource_metrics, "resource"))
            for scope_metrics in objects_in(resource_metrics, "scopeMetrics"):
                scope = text_in(child(scope_metrics, "scope").get("name"))
                for metric in objects_in(scope_metrics, "metrics"):
                    name = text_in(metric.get("name"))
                    for kind in _KINDS_IN_JSON:
                        data = child(metric, kind)
                        for point in objects_in(data, "dataPoints"):
                            points += 1
                            if kind in ("sum", "histogram") and name in self._wanted:
                                told.append(self._point_in_json(name, data, point, resource, scope))
        if points > self._bounds.spans:
            raise too_many_points(self._bounds)
        return MetricPoints(points, told)

    def _point_in_json(
        self, name: str, data: Mapping[str, Any], point: Mapping[str, Any], resource: Attributes, scope: str
    ) -> MetricPoint:
        temporality = data.get("aggregationTemporality")
        value = point.get("asDouble", point.get("asInt", point.get("sum")))
        return MetricPoint(
            name,
            _number(value),
            _TEMPORALITIES.get(str(temporality), integer(temporality)) == DELTA,
            integer(point.get("startTimeUnixNano")) or 0,
            integer(point.get("timeUnixNano")) or 0,
            {**resource, **self._in_json(point)},
            scope,
        )

    def _resource(self, walk: "_Walk", start: int, end: int, told: list[MetricPoint]) -> None:
        parts = list(walk.fields(start, end))
        resource: dict[str, AttributeValue] = {}
        for number, at, to in parts:
            if number == _RESOURCE:
                resource = self._pairs(walk.part(one) for one in walk.fields(at, to) if one[0] == 1)
        for number, at, to in parts:
            if number == _SCOPE_METRICS:
                self._scope(walk, (at, to), resource, told)

    def _scope(self, walk: "_Walk", place: tuple[int, int], resource: Attributes, told: list[MetricPoint]) -> None:
        scope = ""
        for number, at, to in walk.fields(*place):
            if number == _SCOPE:
                names = [walk.part(one) for one in walk.fields(at, to) if one[0] == 1]
                scope = names[-1].decode(errors="replace") if names else ""
            elif number == _METRIC:
                self._metric(walk, (at, to), (resource, scope), told)

    def _metric(
        self, walk: "_Walk", place: tuple[int, int], of: tuple[Attributes, str], told: list[MetricPoint]
    ) -> None:
        name = ""
        for number, at, to in walk.fields(*place):
            if number == _NAME:
                name = walk.part((number, at, to)).decode(errors="replace")
            elif number in _KINDS:
                wanted = number in (_SUM, _HISTOGRAM) and name in self._wanted
                temporality, raw = 0, []
                for field, start, end in walk.fields(at, to):
                    if field == _POINTS:
                        walk.count_point()
                        if wanted:
                            raw.append(walk.body[start:end])
                    elif field == _TEMPORALITY:
                        temporality = walk.body[end - 1]
                point_of: type[Any] = NumberDataPoint if number == _SUM else HistogramDataPoint
                told += [self._point(name, point_of.FromString(one), temporality, *of) for one in raw]

    def _point(self, name: str, point: Any, temporality: int, resource: Attributes, scope: str) -> MetricPoint:
        if isinstance(point, HistogramDataPoint):
            value: float = point.sum
        else:
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        own = self._pairs(pair.SerializeToString() for pair in point.attributes)
        times = point.start_time_unix_nano, point.time_unix_nano
        return MetricPoint(name, float(value), temporality == DELTA, *times, {**resource, **own}, scope)

    def _pairs(self, encoded: Iterable[bytes]) -> dict[str, AttributeValue]:
        """Decode the wanted ones among encoded attributes."""
        found: dict[str, AttributeValue] = {}
        for raw in encoded:
            key = KeyValue.FromString(raw).key
            value = attribute_value(raw) if key in self._attributes else None
            if value is not None:
                found[key] = value
        return found


class _Walk:
    """Steps through a message and counts. Raises RequestTooLarge over the bounds."""

    def __init__(self, body: bytes, bounds: Bounds, pause: Pause) -> None:
        self.body = body
        self.points = 0
        self._bounds = bounds
        self._pause = pause
        self._steps = 0

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (number, start, end) of the fields between two offsets."""
        for field in wire_fields(self.body, start, end):
            self._steps += 1
            if self._steps % _POINTS_A_PAUSE == 0:
                self._pause()
            if self._steps > 2 * self._bounds.attributes:
                raise too_many_points(self._bounds)
            yield field

    def part(self, field: tuple[int, int, int]) -> bytes:
        """Return the bytes of a field."""
        return self.body[field[1] : field[2]]

    def count_point(self) -> None:
        """Count a data point."""
        self.points += 1
        if self.points > self._bounds.spans:
            raise too_many_points(self._bounds)


def too_many_points(bounds: Bounds) -> RequestTooLarge:
    """Return the error for a request over the bounds."""
    return RequestTooLarge(f"the request has more than {bounds.spans} data points; send smaller batches")


def _number(value: Any) -> float:
    try:
        return 0.0 if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
