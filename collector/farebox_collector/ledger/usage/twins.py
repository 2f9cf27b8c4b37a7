"""Cover calls that other spans have paid for, many at once, before anything is inserted.

Second reports of calls in the books come in bursts: two instrumentations of one client, each with its own exporter.
`deduplication` decides whether two spans show one call, and which knows more. Spans that agree in all that it looks at
need no such look.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from farebox_collector.ledger.storage.key_lookup import Lookup
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.batch import Prepared
from farebox_collector.ledger.usage.claims import holders
from farebox_collector.ledger.usage.deduplication import same_call
from farebox_collector.ledger.usage.response_ids import Uniqueness, uniqueness
from farebox_collector.ledger.usage.span_matching import knowledge
from farebox_collector.ledger.usage.stored_usage import query_of_ids, stored_calls
from farebox_collector.model.verdicts import Verdict

_KNOWN = ("wallet", "request_model", "assumptions", "units", "unusual", *TOKEN_COLUMNS)
"""All that `knowledge` looks at in a charged call with a response id, and what else two spans of one call share."""
_PAYERS = Lookup(usage_records.name, {"id": "bigint"}, "tenant_id", ("verdict", "started_at_ns", "latency_ns", *_KNOWN))


def cover_claimed(connection: Connection, tenant_id: int, prepared: Prepared) -> Prepared | None:
    """Cover the calls that records in the books have claimed.

    Return None if one is not simply covered: it knows more than its record, is a call of its own, or its record is
    retired.
    """
    payers = _payers(connection, tenant_id, prepared)
    if not payers:
        return None if payers is None else prepared
    record_ids = sorted(set(payers.values()))
    found = _PAYERS.rows(connection, tenant_id, [(record_id,) for record_id in record_ids])
    rows = {record_ids[place]: row for place, *row in found}
    own = list(prepared.columns_of("response_id", "started_at_ns", "latency_ns", *_KNOWN))
    differing = {place: of for place, of in payers.items() if of not in rows or not _agree(own[place], rows[of])}
    if differing and not _all_outdone(connection, tenant_id, prepared, differing):
        return None
    return prepared.covering(payers.keys())


def _payers(connection: Connection, tenant_id: int, prepared: Prepared) -> dict[int, int] | None:
    """Return the record that has claimed each call, by the number of the call; None if it is not one whole record."""
    found = holders(connection, tenant_id, prepared.claims)
    if not found:
        return None if found is None else {}
    payers: dict[int, int] = {}
    for claim, place in enumerate(prepared.places_of_claims()):
        holder = found.get(claim)
        if holder is not None and payers.setdefault(place, holder) != holder:
            return None
    return payers


def _agree(own: tuple[Any, ...], row: list[Any]) -> bool:
    """Return whether a call shows the same as a charged record, as far as anything depends on it."""
    response_id, start, latency, *known = own
    verdict, paid_start, paid_latency, *paid_known = row
    if verdict != Verdict.CHARGED or known != paid_known:
        return False
    if uniqueness(response_id) is not Uniqueness.OVERLAPPING:
        return True
    return bool(start <= paid_start + paid_latency and paid_start <= start + latency)


def _all_outdone(connection: Connection, tenant_id: int, prepared: Prepared, payers: Mapping[int, int]) -> bool:
    """Return whether each call is the same as that of its charged record, and knows no more."""
    query = query_of_ids(tenant_id, set(payers.values()))
    stored = {one.record_id: one.call for one in stored_calls(connection, query)}
    for place, record_id in payers.items():
        call, payer = prepared.call(place), stored.get(record_id)
        if payer is None or payer.verdict is not Verdict.CHARGED:
            return False
        if not same_call(payer, call) or knowledge(call) > knowledge(payer):
            return False
    return True
