"""Every metric, declared once: name, kind, labels, meaning. `docs/metrics.md` is checked against this list.

Money, tokens and requests are read from the ledger at each scrape, so that they agree with the books and no restart
resets them. What only this process knows (queue, latencies, requests taken) starts at zero with it.
No metric carries a wallet or a user.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric as Prometheus sees it; counters end in `_total`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


_CALL = ("event", "provider", "model")
_WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALL_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)

REQUESTS = Metric("farebox_requests_total", Kind.COUNTER, _CALL, "Model calls in the books, each call once.")
REQUEST_ERRORS = Metric(
    "farebox_request_errors_total", Kind.COUNTER, _CALL, "Model calls in the books that ended in an error."
)
TOKENS = Metric("farebox_tokens_total", Kind.COUNTER, (*_CALL, "kind"), "Tokens of charged calls, by disjoint kind.")
COST = Metric("farebox_cost_usd_total", Kind.COUNTER, _CALL, "What charged calls cost us, in US dollars.")
CHARGE = Metric("farebox_charged_credits_total", Kind.COUNTER, _CALL, "Credits that charged calls took from wallets.")
RECORDS = Metric(
    "farebox_usage_records_total",
    Kind.COUNTER,
    ("verdict",),
    "Usage records in the books by verdict; unpriced and unmetered ones wait to be settled.",
)
UNATTRIBUTED = Metric("farebox_unattributed_requests_total", Kind.COUNTER, (), "Charged calls that named no wallet.")
SPANS = Metric("farebox_spans_total", Kind.COUNTER, ("verdict",), "Spans that this process has answered, by verdict.")
EXPORTS = Metric(
    "farebox_export_requests_total",
    Kind.COUNTER,
    ("transport", "outcome"),
    "OTLP requests that this process has answered: accepted, invalid, unauthenticated, overloaded, or failed.",
)
TURNED_AWAY = Metric(
    "farebox_turned_away_requests_total",
    Kind.COUNTER,
    ("port", "reason"),
    "Requests without a good key: missing, unknown, revoked, expired, or scope. Clients of OTLP drop what they sent.",
)
INGEST_SECONDS = Metric(
    "farebox_ingest_seconds",
    Kind.HISTOGRAM,
    ("transport",),
    "From a whole OTLP request to its acknowledgement, in seconds.",
    _WAIT_S,
)
COMMIT_SECONDS = Metric(
    "farebox_commit_seconds", Kind.HISTOGRAM, (), "Duration of one ledger transaction, in seconds.", _WAIT_S
)
COMMIT_RECORDS = Metric(
    "farebox_commit_records",
    Kind.HISTOGRAM,
    (),
    "Usage records in one ledger transaction.",
    (1, 4, 16, 64, 256, 1024, 4096),
)
CALL_SECONDS = Metric(
    "farebox_call_seconds",
    Kind.HISTOGRAM,
    ("provider", "model"),
    "Duration of charged model calls as the application saw it, in seconds.",
    _CALL_S,
)
QUEUE_BYTES = Metric("farebox_queue_bytes", Kind.GAUGE, (), "Bytes of OTLP requests being worked on.")
QUEUE_LIMIT_BYTES = Metric("farebox_queue_limit_bytes", Kind.GAUGE, (), "Where clients are told to try again later.")
LABELS_FOLDED = Metric(
    "farebox_labels_folded_total",
    Kind.COUNTER,
    (),
    "Calls counted under event, provider and model `other`, since there are too many combinations.",
)
DEAD_LETTERS = Metric("farebox_dead_letters", Kind.GAUGE, (), "Spans that can never be booked, kept for people.")
AUDIT_MISMATCHES = Metric(
    "farebox_audit_mismatches",
    Kind.GAUGE,
    ("scope",),
    "Mismatches that the last audit found: of recent transactions each minute, of all the books each day.",
)
AUDIT_TIMESTAMP = Metric(
    "farebox_audit_timestamp_seconds", Kind.GAUGE, ("scope",), "When the last audit ended, in Unix seconds."
)
BUILD_INFO = Metric(
    "farebox_build_info", Kind.GAUGE, ("version", "sqlite"), "Always 1; the labels say what is running."
)

CATALOGUE: tuple[Metric, ...] = (
    REQUESTS,
    REQUEST_ERRORS,
    TOKENS,
    COST,
    CHARGE,
    RECORDS,
    UNATTRIBUTED,
    SPANS,
    EXPORTS,
    TURNED_AWAY,
    INGEST_SECONDS,
    COMMIT_SECONDS,
    COMMIT_RECORDS,
    CALL_SECONDS,
    QUEUE_BYTES,
    QUEUE_LIMIT_BYTES,
    LABELS_FOLDED,
    DEAD_LETTERS,
    AUDIT_MISMATCHES,
    AUDIT_TIMESTAMP,
    BUILD_INFO,
)
