"""Metric families out of rows and figures: integers become floats here and nowhere earlier."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import Metric as Family
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.samples import Exemplar

from farebox_collector.metrics.catalogue import Kind, Metric

Labels = tuple[str, ...]


def family(metric: Metric, samples: Mapping[Any, float]) -> Family:
    """A counter or a gauge; samples are keyed by their label values."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    made = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples.items():
        made.add_metric(labels, value)
    return made


def histogram(
    metric: Metric,
    rows: Iterable[tuple[Labels, Sequence[int], int, int]],
    bounds_ms: Sequence[int],
    exemplar: Callable[[Any, int], Exemplar | None],
) -> Family:
    """A histogram out of (labels, calls up to each bound, all calls, sum in microseconds)."""
    made = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    names = [*(str(bound / 1000) for bound in bounds_ms), "+Inf"]
    for labels, up_to, count, sum_us in rows:
        values = (*up_to, count)
        buckets: list[Any] = [
            (name, float(value), exemplar(labels, number))
            for number, (name, value) in enumerate(zip(names, values, strict=True))
        ]
        made.add_metric(labels, buckets, sum_us / 1e6)
    return made


def summary(metric: Metric, rows: Iterable[tuple[Labels, int, float]]) -> Family:
    """A summary out of (labels, count, sum)."""
    made = SummaryMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, count, total in rows:
        made.add_metric(labels, count, total)
    return made
