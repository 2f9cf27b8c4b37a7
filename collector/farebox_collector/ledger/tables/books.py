"""The schema. Migrations under `migrations/` build it; a test compares the two.

Every unique key begins with the tenant, so that the books can be sharded by tenant later. Tables are STRICT: otherwise
SQLite would silently convert an integer overflow to a floating-point number.
"""

from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    UniqueConstraint,
    literal_column,
)

from farebox_collector.ledger.tables.columns import Int64, metadata, only_on
from farebox_collector.ledger.tables.columns import identity as _identity
from farebox_collector.ledger.tables.columns import number as _number
from farebox_collector.ledger.tables.columns import table as _table
from farebox_collector.ledger.tables.columns import words as _text
from farebox_collector.ledger.tables.usage_columns import USAGE_COLUMNS

tenants = _table(
    "tenants",
    _identity(),
    _text("name"),
    _text("usd_per_credit"),
    _number("created_at_ns"),
    UniqueConstraint("name"),
)

api_keys = _table(
    "api_keys",
    _identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    # Unique over all tenants, as the only key here: it determines the tenant of a request.
    _text("key_id"),
    _text("name"),
    _text("scopes"),
    _text("wallet"),
    Column("secret_sha256", LargeBinary, nullable=False),
    _number("created_at_ns"),
    _number("expires_at_ns", nullable=True),
    _number("revoked_at_ns", nullable=True),
    _number("last_used_at_ns", nullable=True),
    # The number of the person that it belongs to; 0 for a key of no person.
    _number("person", default=0),
    UniqueConstraint("key_id"),
)

link_secrets = _table(
    "link_secrets",
    _identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    Column("secret", LargeBinary, nullable=False),
    _number("created_at_ns"),
    _number("retired_at_ns", nullable=True),
)

charge_rules = _table(
    "charge_rules",
    _identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    _text("event"),
    _text("kind"),
    _text("multiplier"),
    _text("minimum_credits", default="0"),
    _text("flat_credits", default="0"),
    _text("input_credits_per_1k", default="0"),
    _text("cached_credits_per_1k", default="0"),
    _text("output_credits_per_1k", default="0"),
    _text("usd_per_credit"),
    _number("valid_from_ns"),
    _number("valid_to_ns", nullable=True),
    _text("author"),
    _text("reason"),
    _number("recorded_at_ns"),
    UniqueConstraint("tenant_id", "event", "valid_from_ns"),
)

accounts = _table(
    "accounts",
    _identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    _text("kind"),
    _text("name"),
    _text("commodity"),
    _number("created_at_ns"),
    # Projections: the sum of the account's postings; for wallets also spent credits, number of calls, and last
    # activity.
    _number("balance_nano", default=0),
    _number("spent_nano", default=0),
    _number("charged_calls", default=0),
    _number("last_activity_ns", nullable=True),
    # Credits on hold; usage beyond all lots; balance and newest posting when the lots were last drawn up.
    _number("held_nano", default=0),
    _number("overdraft_nano", default=0),
    _number("drawn_balance_nano", default=0),
    _number("drawn_posting_id", default=0),
    # No hold of the wallet ends later than this.
    _number("holds_until_ns", default=0),
    UniqueConstraint("tenant_id", "kind", "name", "commodity"),
)

transactions = _table(
    "transactions",
    _identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    _text("kind"),
    _number("recorded_at_ns"),
    _text("memo"),
    _text("metadata", default=""),
    # The earliest and the latest time of pricing of the calls that were charged, or were given back.
    _number("calls_from_ns", nullable=True),
    _number("calls_to_ns", nullable=True),
    # 1 while batches of calls may still be appended to it; its postings follow when they are folded.
    _number("is_open", default=0),
)

# The sums of recorded calls that are not in the accounts and roll-ups yet (`usage.folding`): a row for each commit.
unfolded_batches = Table(
    "unfolded_batches",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("transaction_id", Int64, primary_key=True, autoincrement=False),
    Column("number", Int64, primary_key=True, autoincrement=False),
    _number("received_at_ns"),
    _number("calls_from_ns"),
    _number("calls_to_ns"),
    # JSON, as `batch_sums` writes it.
    _text("sums"),
    sqlite_strict=True,
)

postings = _table(
    "postings",
    _identity(),
    _number("transaction_id"),
    _number("account_id"),
    _text("commodity"),
    _number("amount_nano"),
    _text("event"),
    _number("rule_version_id", nullable=True),
    _number("records"),
    # In PostgreSQL each costs a query per row, a sixth of the server's work; the audit finds what they prevent.
    *(only_on("sqlite", ForeignKeyConstraint([f"{name}_id"], [f"{name}s.id"])) for name in ("transaction", "account")),
)
Index("ix_postings_transaction_id", postings.c.transaction_id)
# SQLite uses `account_postings` instead; see `posting_index`.
only_on("postgresql", Index("ix_postings_account_id", postings.c.account_id, postings.c.transaction_id))

usage_records = _table(
    "usage_records",
    _identity(),
    *(column.declared() for column in USAGE_COLUMNS),
    # SQLite uses `record_spans` instead; see `span_index`.
    only_on("postgresql", UniqueConstraint("tenant_id", "trace_id", "span_id")),
)
# The charged records of a wallet are found by its postings (`wallet_usage`): an index over all of them would be written
# at as many places as there are wallets.
_WITHOUT_POSTING = (usage_records.c.verdict != "charged") | (usage_records.c.corrections > 0)
Index(
    "ix_usage_records_apart",
    usage_records.c.tenant_id,
    usage_records.c.wallet,
    usage_records.c.id,
    sqlite_where=_WITHOUT_POSTING,
    postgresql_where=_WITHOUT_POSTING,
)
Index("ix_usage_records_transaction_id", usage_records.c.transaction_id)
Index(
    "ix_usage_records_action",
    usage_records.c.tenant_id,
    usage_records.c.action_id,
    usage_records.c.id,
    sqlite_where=usage_records.c.action_share_nanocredits.is_not(None),
    postgresql_where=usage_records.c.action_share_nanocredits.is_not(None),
)
Index("ix_usage_records_priced_at_ns", usage_records.c.tenant_id, usage_records.c.priced_at_ns)
# Literal values, not parameters: SQLite uses a partial index only if a query has exactly the same condition.
UNSETTLED_VERDICTS = ("unpriced", "unmetered", "deferred", "exposed")
UNSETTLED = usage_records.c.verdict.in_([literal_column(f"'{verdict}'") for verdict in UNSETTLED_VERDICTS])
Index(
    "ix_usage_records_unsettled",
    usage_records.c.tenant_id,
    usage_records.c.verdict,
    usage_records.c.id,
    sqlite_where=UNSETTLED,
    postgresql_where=UNSETTLED,
)
_WITHOUT_ID = (usage_records.c.response_id == "") & (usage_records.c.verdict == "charged")
Index(
    "ix_usage_records_without_id",
    usage_records.c.tenant_id,
    usage_records.c.id,
    sqlite_where=_WITHOUT_ID,
    postgresql_where=_WITHOUT_ID,
)
# Each call of a trace looks up these: one of them may sum up others (`summed_calls`).
Index(
    "ix_usage_records_without_id_trace",
    usage_records.c.tenant_id,
    usage_records.c.trace_id,
    sqlite_where=_WITHOUT_ID,
    postgresql_where=_WITHOUT_ID,
)

# Records in the order of their spans, up to a watermark; empty in PostgreSQL. See `span_index`.
record_spans = Table(
    "record_spans",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("trace_id", LargeBinary, primary_key=True),
    Column("span_id", LargeBinary, primary_key=True),
    _number("record_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

call_claims = Table(
    "call_claims",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("slot", Int64, primary_key=True, autoincrement=False),
    Column("call_key", LargeBinary, primary_key=True),
    _number("usage_record_id"),
    # Of the record, after it is retired; until then the record has it.
    _number("started_at_ns", nullable=True),
    _number("latency_ns", nullable=True),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

usage_conflicts = _table(
    "usage_conflicts",
    _identity(),
    _number("tenant_id"),
    Column("trace_id", LargeBinary, nullable=False),
    Column("span_id", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    _number("received_at_ns"),
    _text("facts"),
    UniqueConstraint("tenant_id", "trace_id", "span_id", "digest"),
)

usage_totals = _table(
    "usage_totals",
    _identity(),
    _number("tenant_id"),
    _text("event"),
    _text("provider"),
    _text("model"),
    _text("dept", default=""),
    _text("project", default=""),
    _text("task", default=""),
    _text("verdict"),
    # 0 for what was booked, 1 for what a correction took back: both only grow, as counters must.
    _number("reversed", default=0),
    _number("requests"),
    _number("errors"),
    _number("input_tokens"),
    _number("cache_read_tokens"),
    _number("cache_write_tokens"),
    _number("cache_write_1h_tokens"),
    _number("input_audio_tokens"),
    _number("input_image_tokens", default=0),
    _number("output_tokens"),
    _number("output_audio_tokens"),
    _number("output_image_tokens", default=0),
    _number("reasoning_tokens"),
    _number("cost_nanousd"),
    _number("charge_nanocredits"),
    UniqueConstraint(
        "tenant_id",
        "event",
        "provider",
        "model",
        "dept",
        "project",
        "task",
        "verdict",
        "reversed",
        name="uq_usage_totals",
    ),
)
