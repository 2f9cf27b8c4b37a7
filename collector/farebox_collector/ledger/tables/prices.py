"""The tables of the price book; `prices` writes them."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    Int64,
    identity,
    number,
    table,
    words,
)

price_imports = table(
    "price_imports",
    identity(),
    words("source"),
    words("source_version"),
    number("imported_at_ns"),
    number("versions_added"),
    number("versions_closed"),
)

price_versions = table(
    "price_versions",
    identity(),
    Column("import_id", Int64, ForeignKey("price_imports.id"), nullable=False),
    words("provider"),
    words("model"),
    words("unit"),
    number("over_input_tokens"),
    number("daily_from_s"),
    number("daily_to_s"),
    words("usd_per_1k"),
    number("valid_from_ns"),
    number("valid_to_ns", nullable=True),
    words("source"),
    words("source_version"),
    number("recorded_at_ns"),
    words("condition", default="standard"),
    # The tenant of a negotiated price; NULL is the list price.
    number("tenant_id", nullable=True),
    # The price in another currency, and the rate that converted it to US dollars.
    words("currency", default="USD"),
    words("original_per_1k", default=""),
    words("usd_per_currency", default="1"),
    # Days of the week, Monday 1, Tuesday 2, Wednesday 4, …; 0 is every day.
    number("weekdays", default=0),
    CheckConstraint("valid_to_ns IS NULL OR valid_to_ns >= valid_from_ns", name="validity"),
)
Index(
    "ix_price_versions_model",
    price_versions.c.provider,
    price_versions.c.model,
    price_versions.c.unit,
    price_versions.c.valid_from_ns,
)

exchange_rates = table(
    "exchange_rates",
    identity(),
    words("currency"),
    words("usd_per_currency"),
    number("valid_from_ns"),
    words("author"),
    number("recorded_at_ns"),
)

priced_models = table(
    "priced_models",
    identity(),
    words("provider"),
    words("model"),
    number("position"),
    words("match"),
    UniqueConstraint("provider", "model"),
)
