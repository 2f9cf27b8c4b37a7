"""Build metric families from rows; integers become floats here.

Label sets are cached between scrapes, with their text: only the values of series change.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from prometheus_client import Metric as Family
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.samples import Exemplar, Sample

from farebox_collector.metrics.catalogue import Kind, Metric

Labels = tuple[str, ...]

_LABEL_SETS = 20_000
"""More than the number of series when the totals in the books are at their bounds."""


class LabelSet(dict[str, str]):
    """Labels of a sample with their cached text. Do not modify."""

    __slots__ = ("text",)

    def __init__(self, names: Labels, values: Labels) -> None:
        super().__init__(zip(names, values, strict=True))
        self.text = label_text(self)


def label_text(labels: Mapping[str, str]) -> str:
    """Format labels in the exposition format, in alphabetical order."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(labels.items())) + "}"


def escaped(text: str) -> str:
    """Escape backslashes, newlines and quotes."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


label_set = lru_cache(_LABEL_SETS)(LabelSet)


def family(metric: Metric, samples: Mapping[Any, float]) -> Family:
    """Build a counter or a gauge; samples are keyed by their label values."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    made = kind(metric.name, metric.meaning, labels=metric.labels)
    made.samples = [Sample(metric.name, label_set(metric.labels, labels), value) for labels, value in samples.items()]
    return made


def histogram(
    metric: Metric,
    rows: Iterable[tuple[Labels, Sequence[int], int, int]],
    bounds_ms: Sequence[int],
    exemplar: Callable[[Any, int], Exemplar | None],
) -> Family:
    """Build a histogram from (labels, calls up to each bound, all calls, sum in microseconds)."""
    made = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    names = (*metric.labels, "le")
    bounds = [*(str(bound / 1000) for bound in bounds_ms), "+Inf"]
    bucket, whole, total = (f"{metric.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
    for labels, up_to, count, sum_us in rows:
        for number, (bound, value) in enumerate(zip(bounds, (*up_to, count), strict=True)):
            seen = exemplar(labels, number)
            made.samples.append(Sample(bucket, label_set(names, (*labels, bound)), float(value), None, seen))
        own = label_set(metric.labels, labels)
        made.samples += [Sample(whole, own, float(count)), Sample(total, own, sum_us / 1e6)]
    return made


def summary(metric: Metric, rows: Iterable[tuple[Labels, int, float]]) -> Family:
    """Build a summary from (labels, count, sum)."""
    made = SummaryMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, count, total in rows:
        own = label_set(metric.labels, labels)
        made.samples += [Sample(f"{metric.name}_count", own, float(count)), Sample(f"{metric.name}_sum", own, total)]
    return made
