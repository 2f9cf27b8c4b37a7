"""Encode metric families as OpenMetrics text, the format that Prometheus requests.

The output equals that of `prometheus_client`, in a fraction of the time: thousands of series keep their labels between
scrapes, and their text is cached (`families.LabelSet`).
"""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric as Family
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString as _go_float

from farebox_collector.metrics.families import LabelSet, escaped, label_text

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0"
"""Prefix of the content type for which `openmetrics` replaces the library's encoder."""


def openmetrics(families: Iterable[Family]) -> bytes:
    """Encode families in OpenMetrics 1.0. Names must consist of letters, digits and underscores."""
    lines = [line for family in families for line in _lines(family)]
    return "".join((*lines, "# EOF\n")).encode()


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {escaped(family.documentation)}\n# TYPE {family.name} {family.type}\n"
    for sample in family.samples:
        labels = sample.labels
        text = labels.text if isinstance(labels, LabelSet) else label_text(labels)
        exemplar = _exemplar(sample.exemplar) if sample.exemplar else ""
        yield f"{sample.name}{text} {_number(sample.value)}{exemplar}\n"


def _exemplar(exemplar: Exemplar) -> str:
    at = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {label_text(exemplar.labels)} {_number(exemplar.value)}{at}"


def _number(value: float) -> str:
    return str(_go_float(value))  # type: ignore[no-untyped-call]
