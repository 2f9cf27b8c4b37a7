"""Metrics counted in this process: intake, commits, latencies."""

import sqlite3
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.dialects.assumptions import DOUBTFUL
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.metrics import catalogue
from farebox_collector.metrics.catalogue import Metric
from farebox_collector.metrics.exemplars import Exemplars
from farebox_collector.model.money import NANO
from farebox_collector.model.verdicts import STORED, Verdict

ANOTHER_PRICE = "another_price"
"""Label value for all flags that name the substitute of a missing price."""
_AT_ANOTHER_PRICE = "_price"


class Meters:
    """Metrics of this process, registered in `registry`."""

    def __init__(self, registry: CollectorRegistry, queue_limit_bytes: int) -> None:
        self._registry = registry
        self._spans = self._counter(catalogue.SPANS)
        self._signalled = self._counter(catalogue.SIGNAL_RECORDS)
        self._exports = self._counter(catalogue.EXPORTS)
        self._turned_away = self._counter(catalogue.TURNED_AWAY)
        self._refused_logins = self._counter(catalogue.REFUSED_LOGINS)
        self._payment_events = self._counter(catalogue.PAYMENT_EVENTS)
        self._ingest_seconds = self._histogram(catalogue.INGEST_SECONDS)
        self._commit_seconds = self._histogram(catalogue.COMMIT_SECONDS)
        self._fold_seconds = self._histogram(catalogue.FOLD_SECONDS)
        self._folded_batches = self._counter(catalogue.FOLDED_BATCHES)
        self._commit_records = self._histogram(catalogue.COMMIT_RECORDS)
        self.exemplars = Exemplars()
        self._queue_bytes = self._gauge(catalogue.QUEUE_BYTES)
        self._doubtful = self._counter(catalogue.DOUBTFUL_CALLS)
        self._labels_folded = self._counter(catalogue.LABELS_FOLDED)
        self._long_actions = self._gauge(catalogue.LONG_ACTIONS)
        self._agent_session = self._gauge(catalogue.AGENT_SESSION)
        self._lots_set_aside = self._gauge(catalogue.LOTS_SET_ASIDE)
        self._gauge(catalogue.QUEUE_LIMIT_BYTES).set(queue_limit_bytes)
        self._gauge(catalogue.BUILD_INFO).labels(
            version=version("farebox-collector"), sqlite=sqlite3.sqlite_version
        ).set(1)
        for verdict in Verdict:
            # A series must exist at 0, or its first increase is missed.
            self._spans.labels(verdict=verdict)
        for flag in (*DOUBTFUL, ANOTHER_PRICE):
            self._doubtful.labels(flag=flag)
        for signal in ("logs", "metrics"):
            for told in ("usage", "nothing"):
                self._signalled.labels(signal=signal, tells=told)
        for tool in TOOLS:
            self.agent_sessions(tool, 0, 0)
        for outcome in ("booked", "repeated", "refused", "forged"):
            self._payment_events.labels(outcome=outcome)
        for reason in ("wrong", "locked", "disabled", "no_role"):
            self._refused_logins.labels(reason=reason)
        for port in ("grpc", "http", "api"):
            for reason in ("missing", "unknown", "revoked", "expired", "scope"):
                self._turned_away.labels(port=port, reason=reason)

    def answered(self, transport: str, outcome: str, seconds: float) -> None:
        """Count an answered OTLP request."""
        self._exports.labels(transport=transport, outcome=outcome).inc()
        self._ingest_seconds.labels(transport=transport).observe(seconds)

    def turned_away(self, port: str, reason: str) -> None:
        """Count a request without a valid key at a port: `grpc`, `http`, `api` or `metrics`."""
        self._turned_away.labels(port=port, reason=reason).inc()

    def refused_login(self, reason: str) -> None:
        """Count a refused login: `wrong`, `locked`, `disabled` or `no_role`."""
        self._refused_logins.labels(reason=reason).inc()

    def payment_event(self, outcome: str) -> None:
        """Count an event of the payment provider's webhook: `booked`, `repeated`, `refused` or `forged`."""
        self._payment_events.labels(outcome=outcome).inc()

    def judged(self, verdicts: Mapping[Verdict, int]) -> None:
        """Count the verdicts of an acknowledged request."""
        for verdict, count in verdicts.items():
            self._spans.labels(verdict=verdict).inc(count)

    def signalled(self, signal: str, usage: int, nothing: int) -> None:
        """Count log records or data points of an acknowledged request: those that tell usage, and the others."""
        self._signalled.labels(signal=signal, tells="usage").inc(usage)
        self._signalled.labels(signal=signal, tells="nothing").inc(nothing)

    def committed(self, records: int, seconds: float) -> None:
        """Observe a committed ledger transaction."""
        self._commit_records.observe(records)
        self._commit_seconds.observe(seconds)

    def folded_batches(self, batches: int, seconds: float) -> None:
        """Observe a fold."""
        self._folded_batches.inc(batches)
        self._fold_seconds.observe(seconds)

    def recorded(self, calls: Calls, at_ns: int) -> None:
        """Take exemplars from the booked calls of one request."""
        self.exemplars.see(calls, at_ns)

    def booked(self, calls: Calls, verdicts: Sequence[Verdict]) -> None:
        """Count the assumptions of the new calls of one request."""
        found: Counts[str] = Counts()
        for assumed, verdict in zip(calls.assumptions, verdicts, strict=False):
            if assumed and verdict in STORED:
                found[assumed] += 1
        for assumed, count in found.items():
            flags = assumed.split(",")
            doubts = DOUBTFUL.intersection(flags)
            if any(flag.endswith(_AT_ANOTHER_PRICE) for flag in flags):
                doubts |= {ANOTHER_PRICE}
            for flag in doubts:
                self._doubtful.labels(flag=flag).inc(count)

    def queued(self, size_bytes: int) -> None:
        """Set the bytes of requests in progress."""
        self._queue_bytes.set(size_bytes)

    def lots_set_aside(self, wallets: int) -> None:
        """Set the number of wallets whose lots could not be updated."""
        self._lots_set_aside.set(wallets)

    def long_actions(self, actions: int) -> None:
        """Set the number of actions that are too long."""
        self._long_actions.set(actions)

    def agent_sessions(self, tool: str, costliest_nanousd: int, median_nanousd: int) -> None:
        """Set what sessions of a coding agent cost in the last hour: the costliest, and the median of the others."""
        self._agent_session.labels(tool=tool, which="costliest").set(costliest_nanousd / NANO)
        self._agent_session.labels(tool=tool, which="median").set(median_nanousd / NANO)

    def folded(self, calls: int) -> None:
        """Count calls under the label value `other`."""
        self._labels_folded.inc(calls)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self._registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.meaning, metric.labels, registry=self._registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.meaning, metric.labels, registry=self._registry, buckets=metric.buckets)
