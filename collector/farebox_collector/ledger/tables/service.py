"""Tables of running totals: outcomes of calls, quality reports, credits by source."""

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)
from farebox_collector.model.records import Buckets

LATENCY_BOUNDS_MS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000, 80_000, 160_000)
FIRST_CHUNK_BOUNDS_MS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000)

# What charged calls used at the same prices: gives the exact cost of each kind of token.
card_totals = table(
    "card_totals",
    identity(),
    number("tenant_id"),
    # Named as in `usage_totals`: over its bound these are `other`, while the prices stay exact.
    words("provider"),
    words("model"),
    words("price_version_ids"),
    # 0 for what was booked, 1 for what a correction took back, as in `usage_totals`.
    number("reversed"),
    number("requests"),
    *(number(f"{kind}_tokens") for kind in Buckets._fields),
    number("cost_nanousd"),
    UniqueConstraint("tenant_id", "provider", "model", "price_version_ids", "reversed", name="uq_card_totals"),
)

# Outcomes of calls, each counted once, when it is first recorded; corrections of money do not change them.
service_totals = table(
    "service_totals",
    identity(),
    number("tenant_id"),
    words("provider"),
    words("model"),
    words("route"),
    words("region"),
    number("requests"),
    number("errors"),
    # Microseconds: in nanoseconds a few broken clocks could fill the column.
    number("latency_us"),
    # Calls with at most this latency.
    *(number(f"latency_le_{bound}ms") for bound in LATENCY_BOUNDS_MS),
    number("first_chunks"),
    number("first_chunk_us"),
    *(number(f"first_chunk_le_{bound}ms") for bound in FIRST_CHUNK_BOUNDS_MS),
    number("input_tokens"),
    number("output_tokens"),
    number("cache_lookups"),
    number("cache_hits"),
    # Answers with checked citations, and the sum of their citation rates.
    number("citation_rates"),
    number("citation_rate_ppm"),
    number("human_reviews"),
    number("human_approvals"),
    UniqueConstraint("tenant_id", "provider", "model", "route", "region"),
)

credit_totals = table(
    "credit_totals",
    identity(),
    number("tenant_id"),
    words("source"),
    number("movements"),
    number("amount_nanocredits"),
    UniqueConstraint("tenant_id", "source"),
)

# Spans received by the books, under `accepted` and under their first verdict.
intake_totals = table(
    "intake_totals",
    identity(),
    number("tenant_id"),
    words("outcome"),
    number("spans"),
    UniqueConstraint("tenant_id", "outcome"),
)

quality_reports = table(
    "quality_reports",
    identity(),
    number("tenant_id"),
    Column("trace_id", LargeBinary, nullable=False),
    Column("span_id", LargeBinary, nullable=False),
    Column("subject_trace_id", LargeBinary, nullable=False),
    number("received_at_ns"),
    number("cache_hit", nullable=True),
    number("citation_rate_ppm", nullable=True),
    number("human_reviewed", nullable=True),
    number("review_approved", nullable=True),
    # The totals it was counted in; empty if the trace has no call in the books yet.
    words("provider"),
    words("model"),
    UniqueConstraint("tenant_id", "trace_id", "span_id"),
)
Index("ix_quality_reports_subject_trace_id", quality_reports.c.tenant_id, quality_reports.c.subject_trace_id)

budgets = table(
    "budgets",
    identity(),
    number("tenant_id"),
    words("dept"),
    number("nanousd_per_month"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
)
Index("ix_budgets_dept", budgets.c.tenant_id, budgets.c.dept, budgets.c.id)

incidents = table(
    "incidents",
    identity(),
    number("tenant_id"),
    # From Alertmanager: a fingerprint of the labels, and when the alert began to fire.
    words("fingerprint"),
    number("started_at_ns"),
    number("recorded_at_ns"),
    # When the alert was resolved; NULL while it fires.
    number("ended_at_ns", nullable=True),
    words("alert"),
    words("severity"),
    words("team"),
    # JSON: Alertmanager's payload, and the state of the books at that time.
    words("labels"),
    words("annotations"),
    words("snapshot"),
    UniqueConstraint("tenant_id", "fingerprint", "started_at_ns"),
)

# Spans that cannot be booked as they are, until they expire.
dead_letters = table(
    "dead_letters",
    identity(),
    number("tenant_id"),
    Column("digest", LargeBinary, nullable=False),
    number("received_at_ns"),
    number("expires_at_ns"),
    Column("trace_id", LargeBinary, nullable=False),
    Column("span_id", LargeBinary, nullable=False),
    words("reason"),
    words("span"),
    UniqueConstraint("tenant_id", "digest"),
)
Index("ix_dead_letters_expires_at_ns", dead_letters.c.expires_at_ns)
