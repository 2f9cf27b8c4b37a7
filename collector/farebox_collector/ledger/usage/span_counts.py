"""Count the spans that reach the books and their outcomes, in the transaction that books them.

Spans that are not model calls do not reach the books, and are not counted here. A batch that is retried after the
connection broke during COMMIT may be counted twice, as duplicates, like spans that a sender repeats.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.model.verdicts import Verdict

ACCEPTED = "accepted"
"""The outcome under which every span is counted once, for any verdict."""

_KEY = ("tenant_id", "outcome")


def count_spans(connection: Connection, tenant_id: int, accepted: int, verdicts: Mapping[Verdict, int]) -> None:
    """Add spans of a tenant and their verdicts. Call it last in a transaction: all transactions update these rows."""
    add_span_counts(connection, tenant_id, by_outcome(accepted, verdicts))


def by_outcome(accepted: int, verdicts: Mapping[Verdict, int]) -> dict[str, int]:
    """Return the number of spans under each outcome."""
    return {ACCEPTED: accepted} | {str(verdict): spans for verdict, spans in verdicts.items()}


def add_span_counts(connection: Connection, tenant_id: int, counts: Mapping[str, int]) -> None:
    """Add spans under the outcomes of `by_outcome`."""
    rows = [(tenant_id, outcome, spans) for outcome, spans in sorted(counts.items()) if spans]
    bulk_insert.insert_adding(connection, "intake_totals", _KEY, ("spans",), rows)
