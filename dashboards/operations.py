"""The operations dashboard, for people on call: are calls served, are answers good, does the meter keep up?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from building import (
    GREEN,
    ON_THESE,
    RED,
    SERVED,
    YELLOW,
    Query,
    Sheet,
    gauge,
    matching,
    narrowed_by,
    new_board,
    own_rate,
    quantile,
    rate,
)
from grafana_foundation_sdk.builders import dashboard

UID = "farebox-operations"
_NAMES = ("provider", "model", "route", "region")
_M = matching(_NAMES)
_CALLS = "farebox_call_seconds_count"
_WAIT = ((None, GREEN), (10.0, YELLOW), (20.0, RED))
_WAIT_TO_BEGIN = ((None, GREEN), (2.0, YELLOW), (5.0, RED))
_FIRST_CHUNK = "farebox_first_chunk_seconds"


class Share(NamedTuple):
    """A counter as a share of another, with thresholds."""

    part: str
    whole: str
    steps: Sequence[tuple[float | None, str]] = ((None, GREEN),)


_FAILED = Share("farebox_call_errors_total", _CALLS, ((None, GREEN), (0.01, YELLOW), (0.05, RED)))
_CACHED = Share("farebox_cache_hits_total", "farebox_cache_lookups_total", ((None, RED), (0.1, YELLOW), (0.3, GREEN)))
_CITED = Share("farebox_citation_rate_sum", "farebox_citation_rate_count")
_APPROVED = Share(
    "farebox_human_approvals_total", "farebox_human_reviews_total", ((None, RED), (0.8, YELLOW), (0.9, GREEN))
)


def _calls(metric: str, *by: str) -> str:
    return rate(metric, SERVED, by, _M)


def _share(share: Share, *by: str) -> str:
    """A ratio without a value where the denominator is zero."""
    return f"{_calls(share.part, *by)} / ({_calls(share.whole, *by)} > 0)"


def board() -> dashboard.Dashboard:
    """Build the dashboard."""
    made = new_board(
        UID,
        "Farebox operations",
        "Are calls served, are answers good, does the meter keep up? Metrics of calls are read from the ledger.",
        ("farebox-finance", "Farebox finance"),
    )
    sheet = Sheet(narrowed_by(made, _CALLS, _NAMES))
    _at_a_glance(sheet)
    _service(sheet)
    _answers(sheet)
    _meter(sheet)
    return sheet.board


def _at_a_glance(sheet: Sheet) -> None:
    sheet.row("Is the service healthy?")
    sheet.stat(
        "How many calls per second?", "Model calls, each counted once.", "reqps", Query(_calls(_CALLS)), decimals=1
    )
    _share_stat(
        sheet, "How many fail?", "Share of calls that ended in an error. The objective is 1 % a month.", _FAILED
    )
    for title, description, metric, steps in (
        ("How long do 95 % take?", "the duration of calls, measured in the application", "farebox_call_seconds", _WAIT),
        ("When do answers begin?", "the time to the first chunk of streamed answers", _FIRST_CHUNK, _WAIT_TO_BEGIN),
    ):
        query = Query(quantile(0.95, metric, (), _M))
        sheet.stat(title, f"95th percentile of {description}.", "s", query, steps=steps)
    cached = "Share of calls that hit a cache: the provider's prompt cache or the application's cache."
    _share_stat(sheet, "How many calls hit a cache?", cached, _CACHED)
    _share_stat(sheet, "Do reviewers approve?", "Share of answers that people reviewed and approved.", _APPROVED)


def _share_stat(sheet: Sheet, title: str, description: str, share: Share) -> None:
    sheet.stat(title, description, "percentunit", Query(_share(share)), steps=share.steps, decimals=1)


def _share_lines(sheet: Sheet, title: str, description: str, share: Share, *by: str, width: int = 6) -> None:
    """A share over time, by some labels."""
    query = Query(_share(share, *by), "/".join(f"{{{{{label}}}}}" for label in by))
    sheet.lines(title, description, "percentunit", query, steps=share.steps, width=width)


def _service(sheet: Sheet) -> None:
    sheet.row("Are calls served?")
    sheet.lines(
        "Which models are called?",
        "Calls per second by model.",
        "reqps",
        Query(_calls(_CALLS, "provider", "model"), "{{provider}}/{{model}}"),
        stacked=True,
    )
    failing = "Share of calls that ended in an error, by model."
    _share_lines(sheet, "Which models fail?", failing, _FAILED, "provider", "model", width=8)
    sheet.lines(
        "How long do calls take?",
        "Median, 95th and 99th percentile. The dots are exemplars: each links to the trace of a call.",
        "s",
        *(
            Query(quantile(q, "farebox_call_seconds", (), _M), f"p{q * 100:.0f}", exemplars=True)
            for q in (0.5, 0.95, 0.99)
        ),
        steps=_WAIT,
    )
    slow = "95th percentile of the duration of calls by route and region."
    by_route = Query(quantile(0.95, "farebox_call_seconds", ("route", "region"), _M), "{{route}} {{region}}")
    sheet.lines("Which route or region is slow?", slow, "s", by_route, width=12)
    begun = "95th percentile of the time to the first chunk."
    by_model = Query(quantile(0.95, _FIRST_CHUNK, ("model",), _M), "{{model}}")
    sheet.lines("When do answers begin, by model?", begun, "s", by_model, width=12)


def _answers(sheet: Sheet) -> None:
    sheet.row("Are answers good?")
    for title, description, share, label in (
        ("Which models hit a cache?", "Share of calls that hit a cache, by model.", _CACHED, "model"),
        ("Do answers cite their sources?", "Average citation rate of the answers that report one.", _CITED, "model"),
        ("Which answers do reviewers approve?", "Share of reviewed answers approved, by route.", _APPROVED, "route"),
    ):
        _share_lines(sheet, title, description, share, label)
    sheet.lines(
        "How many tokens per second?",
        "Input and output tokens, by provider.",
        "short",
        Query(rate("farebox_call_tokens_total", (*SERVED, "kind"), ("provider", "kind"), _M), "{{provider}} {{kind}}"),
        width=6,
        stacked=True,
    )


def _meter(sheet: Sheet) -> None:
    sheet.row("Does the meter keep up?")
    sheet.lines(
        "Are spans accepted?",
        "OTLP requests per second by outcome. Clients retry all outcomes except accepted, or lose the spans.",
        "reqps",
        Query(own_rate("farebox_export_requests_total", ("outcome",)), "{{outcome}}"),
        stacked=True,
    )
    sheet.lines(
        "Which verdicts do spans get?",
        "Spans per second by verdict; verdicts without spans are left out.",
        "short",
        Query(f"{own_rate('farebox_spans_total', ('verdict',))} > 0", "{{verdict}}"),
        stacked=True,
    )
    sheet.lines(
        "How full is the intake?",
        "Bytes of requests in progress, as a share of the collector's limit.",
        "percentunit",
        Query(
            f"{gauge('farebox_queue_bytes', ('instance',))} / {gauge('farebox_queue_limit_bytes', ('instance',))}",
            "{{instance}}",
        ),
        steps=((None, GREEN), (0.5, YELLOW), (0.8, RED)),
    )
    sheet.lines(
        "How fast are commits?",
        "Median and 99th percentile of the duration of ledger transactions, of all collectors.",
        "s",
        *(
            Query(f"histogram_quantile({q}, {own_rate('farebox_commit_seconds_bucket', ('le',))})", f"p{q * 100:.0f}")
            for q in (0.5, 0.99)
        ),
        steps=((None, GREEN), (0.25, YELLOW), (1.0, RED)),
        width=12,
    )
    sheet.bars(
        "What needs attention?",
        "Calls without a price or without usage, dead letters, mismatches of the last audit, refused payment events of"
        " a day, failed automatic top-ups, and abandoned webhook messages. All should be 0.",
        "short",
        *(
            Query(
                f"sum({gauge('farebox_unsettled_records', ('verdict', 'provider', 'model'), matched)}) or vector(0)",
                name,
                instant=True,
            )
            for name, matched in (("unpriced", 'verdict="unpriced"'), ("unmetered", 'verdict="unmetered"'))
        ),
        Query(gauge("farebox_dead_letters"), "dead letters", instant=True),
        Query(gauge("farebox_audit_mismatches"), "audit mismatches", instant=True),
        Query(
            f'sum(increase(farebox_payment_events_total{{{ON_THESE}, outcome="refused"}}[1d]))',
            "refused payments",
            instant=True,
        ),
        Query(gauge("farebox_auto_topups", (), 'state="failed"'), "automatic top-ups", instant=True),
        Query(gauge("farebox_webhook_messages", (), 'state="given_up"'), "webhook messages", instant=True),
        width=12,
    )
