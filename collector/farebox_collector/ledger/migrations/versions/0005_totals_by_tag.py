"""Totals by tag and by outcome of calls, quality reports, credits by source."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
QUALITY = ("cache_hit", "citation_rate_ppm", "human_reviewed", "review_approved")
LATENCY_MS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000, 80_000, 160_000)
FIRST_CHUNK_MS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000)
MOST_LABELS = 200
OLD_KEY = ("tenant_id", "event", "provider", "model", "verdict")
NEW_KEY = ("tenant_id", "event", "provider", "model", "dept", "project", "task", "verdict", "reversed")
STRICT = {"sqlite_strict": True}

LATENCY_NS = "CASE WHEN latency_ns > 86400000000000 THEN 86400000000000 ELSE latency_ns END"
ASKED_A_CACHE = "input_tokens IS NOT NULL AND operation <> 'embeddings'"
INPUT = " + ".join(
    f"coalesce({kind}_tokens, 0)"
    for kind in ("input", "cache_read", "cache_write", "cache_write_1h", "input_audio", "input_image")
)
OUTPUT = "coalesce(output_tokens, 0) + coalesce(output_audio_tokens, 0) + coalesce(output_image_tokens, 0)"
SERVICE_SUMS = {
    "requests": "1",
    "errors": "CASE WHEN error_type <> '' THEN 1 ELSE 0 END",
    "latency_us": f"({LATENCY_NS}) / 1000",
    **{f"latency_le_{bound}ms": f"CASE WHEN latency_ns <= {bound * 10**6} THEN 1 ELSE 0 END" for bound in LATENCY_MS},
    "first_chunks": "CASE WHEN time_to_first_chunk_ns IS NULL THEN 0 ELSE 1 END",
    "first_chunk_us": "coalesce(time_to_first_chunk_ns, 0) / 1000",
    **{
        f"first_chunk_le_{bound}ms": f"CASE WHEN time_to_first_chunk_ns <= {bound * 10**6} THEN 1 ELSE 0 END"
        for bound in FIRST_CHUNK_MS
    },
    "input_tokens": INPUT,
    "output_tokens": OUTPUT,
    "cache_lookups": f"CASE WHEN {ASKED_A_CACHE} THEN 1 ELSE 0 END",
    "cache_hits": f"CASE WHEN {ASKED_A_CACHE} AND cache_read_tokens > 0 THEN 1 ELSE 0 END",
    "citation_rates": "0",
    "citation_rate_ppm": "0",
    "human_reviews": "0",
    "human_approvals": "0",
}


def upgrade() -> None:
    for name in QUALITY:
        op.add_column("usage_records", sa.Column(name, INT64, nullable=True))
    with op.batch_alter_table("usage_totals", schema=None, table_kwargs=STRICT) as batch_op:
        for name in ("dept", "project", "task"):
            batch_op.add_column(sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''")))
        batch_op.add_column(sa.Column("reversed", INT64, nullable=False, server_default=sa.text("0")))
        batch_op.drop_constraint("uq_usage_totals_tenant_id_event_provider_model_verdict", type_="unique")
        batch_op.create_unique_constraint("uq_usage_totals", list(NEW_KEY))
    labels = ("provider", "model", "route", "region")
    op.create_table(
        "service_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in labels),
        *(sa.Column(name, INT64, nullable=False) for name in SERVICE_SUMS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_totals")),
        sa.UniqueConstraint("tenant_id", *labels, name=op.f("uq_service_totals_tenant_id_provider_model_route_region")),
        sqlite_strict=True,
    )
    op.create_table(
        "credit_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("movements", INT64, nullable=False),
        sa.Column("amount_nanocredits", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_totals")),
        sa.UniqueConstraint("tenant_id", "source", name=op.f("uq_credit_totals_tenant_id_source")),
        sqlite_strict=True,
    )
    op.create_table(
        "quality_reports",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        sa.Column("subject_trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("received_at_ns", INT64, nullable=False),
        *(sa.Column(name, INT64, nullable=True) for name in QUALITY),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_reports")),
        sa.UniqueConstraint(
            "tenant_id", "trace_id", "span_id", name=op.f("uq_quality_reports_tenant_id_trace_id_span_id")
        ),
        sqlite_strict=True,
    )
    op.create_index("ix_quality_reports_subject_trace_id", "quality_reports", ["tenant_id", "subject_trace_id"])
    _count_what_is_there()


def _count_what_is_there() -> None:
    """Sum up the existing records and deposits; over the bound on labels the smallest go under `other`."""
    op.execute(f"""
        INSERT INTO service_totals (tenant_id, provider, model, route, region, {", ".join(SERVICE_SUMS)})
        WITH calls AS (
            SELECT tenant_id, provider, model, route, region,
                   {", ".join(f"sum({figure}) AS {name}" for name, figure in SERVICE_SUMS.items())}
            FROM usage_records WHERE verdict NOT IN ('covered', 'deferred')
            GROUP BY tenant_id, provider, model, route, region
        ), ranked AS (
            SELECT calls.*, row_number() OVER (
                PARTITION BY tenant_id ORDER BY requests DESC, provider, model, route, region) AS place FROM calls
        )
        SELECT tenant_id, {", ".join(_or_other(name) for name in ("provider", "model", "route", "region"))},
               {", ".join(f"sum({name})" for name in SERVICE_SUMS)}
        FROM ranked GROUP BY 1, 2, 3, 4, 5
    """)
    op.execute("""
        INSERT INTO credit_totals (tenant_id, source, movements, amount_nanocredits)
        SELECT t.tenant_id, t.kind, count(*), sum(p.amount_nano)
        FROM transactions t JOIN postings p ON p.transaction_id = t.id JOIN accounts a ON a.id = p.account_id
        WHERE t.kind = 'deposit' AND a.kind = 'wallet' AND p.amount_nano > 0 GROUP BY t.tenant_id, t.kind
    """)


def _or_other(name: str) -> str:
    return f"CASE WHEN place <= {MOST_LABELS} THEN {name} ELSE 'other' END"


def downgrade() -> None:
    # Rows that the old key cannot distinguish are added up; corrections are netted.
    sums = ("requests", "errors", "cost_nanousd", "charge_nanocredits")
    tokens = [
        f"{kind}_tokens"
        for kind in (
            "input",
            "cache_read",
            "cache_write",
            "cache_write_1h",
            "input_audio",
            "input_image",
            "output",
            "output_audio",
            "output_image",
            "reasoning",
        )
    ]
    figures = (*sums, *tokens)
    op.execute(f"""
        CREATE TEMPORARY TABLE merged_totals AS
        SELECT {", ".join(OLD_KEY)}, {", ".join(f"sum((1 - 2 * reversed) * {name}) AS {name}" for name in figures)}
        FROM usage_totals GROUP BY {", ".join(OLD_KEY)}
    """)
    op.execute("DELETE FROM usage_totals")
    with op.batch_alter_table("usage_totals", schema=None, table_kwargs=STRICT) as batch_op:
        batch_op.drop_constraint("uq_usage_totals", type_="unique")
        for name in ("dept", "project", "task", "reversed"):
            batch_op.drop_column(name)
        batch_op.create_unique_constraint("uq_usage_totals_tenant_id_event_provider_model_verdict", list(OLD_KEY))
    columns = ", ".join((*OLD_KEY, *figures))
    op.execute(f"INSERT INTO usage_totals ({columns}) SELECT {columns} FROM merged_totals")
    op.execute("DROP TABLE merged_totals")
    for table in ("quality_reports", "credit_totals", "service_totals"):
        op.drop_table(table)
    with op.batch_alter_table("usage_records", schema=None, table_kwargs=STRICT) as batch_op:
        for name in QUALITY:
            batch_op.drop_column(name)
