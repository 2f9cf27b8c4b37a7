"""Exemplars: for each bucket of a latency histogram, the trace of a call in it, as seen by this process."""

from bisect import bisect_left

from prometheus_client.samples import Exemplar

from farebox_collector.ledger.tables.service import LATENCY_BOUNDS_MS
from farebox_collector.ledger.usage.batch import Calls

_BOUNDS_NS = tuple(bound * 1_000_000 for bound in LATENCY_BOUNDS_MS)
_SAMPLES = 4
_MOST_LABELS = 500

Label = tuple[str, ...]
"""Provider, model, route and region."""


class Exemplars:
    """The latest trace for each (provider, model, route, region) and bucket. One thread writes, another reads."""

    def __init__(self) -> None:
        self._latest: dict[tuple[Label, int], Exemplar] = {}

    def see(self, calls: Calls, at_ns: int) -> None:
        """Store a few calls of a request, including the slowest."""
        if not calls:
            return
        rows = list(calls.columns_of("latency_ns", "trace_id", "provider", "model", "route", "region"))
        for latency_ns, trace_id, *names in (*rows[:: len(rows) // _SAMPLES + 1], max(rows)):
            label = tuple(names)
            key = (label, bisect_left(_BOUNDS_NS, latency_ns))
            if key in self._latest or len(self._latest) < _MOST_LABELS * (len(_BOUNDS_NS) + 1):
                ids = {"trace_id": trace_id.hex()}
                self._latest[key] = Exemplar(ids, latency_ns / 1e9, at_ns / 1e9)

    def of(self, label: Label, bucket: int) -> Exemplar | None:
        """The exemplar of a bucket, numbered from the fastest; None if this process saw no such call."""
        return self._latest.get((label, bucket))
