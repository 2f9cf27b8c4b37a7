"""What the audit checks of the roll-ups by day, as (name, meaning, SQL): both of them against the records."""

_TOKENS_IN = (
    "coalesce(input_tokens, 0) + coalesce(cache_read_tokens, 0) + coalesce(cache_write_tokens, 0)"
    " + coalesce(cache_write_1h_tokens, 0) + coalesce(input_audio_tokens, 0) + coalesce(input_image_tokens, 0)"
)
_TOKENS_OUT = "coalesce(output_tokens, 0) + coalesce(output_audio_tokens, 0) + coalesce(output_image_tokens, 0)"
_SUMS = {
    "requests": "1",
    "errors": "CASE WHEN error_type <> '' THEN 1 ELSE 0 END",
    "input_tokens": _TOKENS_IN,
    "output_tokens": _TOKENS_OUT,
    "cost_nanousd": "coalesce(cost_nanousd, 0)",
    "charge_nanocredits": "coalesce(charge_nanocredits, 0)",
}
"""The sums of both roll-ups, and what each is of a record."""
_DAY_NS = 86_400 * 10**9


def _records_against_days(table: str, name: str, verdict: str) -> str:
    """The days of a roll-up against the records of those days; `name` is what it tells apart beside the day."""
    figures = " OR ".join(f"sum(side * {figure}) <> 0" for figure in _SUMS)
    return f"""
        SELECT 'tenant ' || tenant_id || ', day ' || day || ', ' || {name},
               sum(CASE WHEN side = 1 THEN requests ELSE 0 END) || ' records',
               sum(CASE WHEN side = -1 THEN requests ELSE 0 END) || ' requests, off by ' || sum(side * cost_nanousd)
               || ' nanousd and ' || sum(side * charge_nanocredits) || ' nanocredits'
        FROM (
            SELECT 1 AS side, tenant_id, priced_at_ns / {_DAY_NS} AS day, {name},
                   {", ".join(f"{of_record} AS {figure}" for figure, of_record in _SUMS.items())}
            FROM usage_records {verdict}
            UNION ALL
            SELECT -1, tenant_id, day, {name}, {", ".join(_SUMS)} FROM {table}
        ) both_sides
        GROUP BY tenant_id, day, {name} HAVING {figures}
    """


DAY_CHECKS = (
    (
        "days",
        "the days of usage are the sums of the records",
        _records_against_days("usage_days", "verdict", ""),
    ),
    (
        "wallet days",
        "the days of every wallet are the sums of its charged records",
        _records_against_days("wallet_days", "wallet", "WHERE verdict = 'charged'"),
    ),
)
