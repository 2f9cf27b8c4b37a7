"""Counts of the spans that came to the books and of what became of them, added to in the transaction that did it.

Spans that are no model calls never come to the books, and are not counted here. A batch that is run again since the
line broke during COMMIT may be counted again, as duplicates: like spans that a sender repeats.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.model.verdicts import Verdict

ACCEPTED = "accepted"
"""The outcome under which every span is counted once, whatever its verdict."""

_KEY = ("tenant_id", "outcome")


def count_spans(connection: Connection, tenant_id: int, accepted: int, verdicts: Mapping[Verdict, int]) -> None:
    """Add spans of a tenant and their verdicts. The last thing in a transaction: these rows are everybody's."""
    counts: dict[str, int] = {ACCEPTED: accepted}
    counts.update({str(verdict): spans for verdict, spans in verdicts.items()})
    rows = [(tenant_id, outcome, spans) for outcome, spans in sorted(counts.items()) if spans]
    bulk_insert.insert_adding(connection, "intake_totals", _KEY, ("spans",), rows)
