"""Record a batch of priced calls: the dedupe mark and the money in one transaction.

The database decides what is new: rows go in with ON CONFLICT DO NOTHING under the unique key (tenant, trace, span),
then claim their calls (`call_claims`) in the same way, and only those that did both are posted as charged. So it makes
no difference how often, where and in which company a span arrives.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, delete, select, tuple_

from farebox_collector.ledger import bulk
from farebox_collector.ledger.actions import charge_actions_once
from farebox_collector.ledger.call_claims import claim_recorded
from farebox_collector.ledger.corrections import Cause, correct, cover
from farebox_collector.ledger.days import WalletSums, sum_by_wallet
from farebox_collector.ledger.entries import FACT_COLUMNS, RECORD_COLUMNS, Entry, SpanKey, facts_of, record_row
from farebox_collector.ledger.hold_ends import settle_holds
from farebox_collector.ledger.intake import count_spans
from farebox_collector.ledger.journal import COGS_ACCOUNT, EARNED_ACCOUNT, balance, open_transaction, post
from farebox_collector.ledger.legs import Charge, legs_of
from farebox_collector.ledger.one_charge import (
    charge_each_response_once,
    charge_related_spans_once,
    cover_the_unsettled,
    settle_kept_out,
)
from farebox_collector.ledger.retired import retired_facts, take_out_retired
from farebox_collector.ledger.stored_usage import StoredCall, stored_calls, usage_query
from farebox_collector.ledger.tables import transactions, usage_records
from farebox_collector.ledger.totals import TotalLabels, count_new_calls
from farebox_collector.money import MAX_SUM_NANO
from farebox_collector.records import PricedUsage
from farebox_collector.verdicts import Verdict

_CONFLICT_COLUMNS = ("tenant_id", "trace_id", "span_id", "digest", "received_at_ns", "facts")


def record_usage(
    connection: Connection,
    tenant_id: int,
    calls: Sequence[PricedUsage],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls, and count them. Returns a verdict for each, in order."""
    verdicts = record_calls(connection, tenant_id, calls, received_at_ns, labels)
    count_spans(connection, tenant_id, len(calls), Counter(verdicts))
    return verdicts


def record_calls(
    connection: Connection,
    tenant_id: int,
    calls: Sequence[PricedUsage],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls; who calls this counts them. Returns a verdict for each, in order."""
    entries: dict[SpanKey, Entry] = {}
    for call in calls:
        entries.setdefault((call.usage.trace_id, call.usage.span_id), Entry(call))
    charge_each_response_once(entries.values())
    displaced = charge_related_spans_once(connection, tenant_id, entries)
    _give_back(connection, tenant_id, displaced, received_at_ns, labels)
    cover_the_unsettled(connection, tenant_id, entries.values())
    _leave_out_what_does_not_fit(connection, tenant_id, entries.values())
    _book(connection, tenant_id, entries, received_at_ns, labels)
    verdicts = [_verdict(call, entries[call.usage.trace_id, call.usage.span_id]) for call in calls]
    conflicts = [call for call, verdict in zip(calls, verdicts, strict=True) if verdict is Verdict.CONFLICT]
    _keep_conflicts(connection, tenant_id, conflicts, received_at_ns)
    return verdicts


def _leave_out_what_does_not_fit(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    """Calls that would take the tenant's sums past what a column holds stay unpriced; the others go on."""
    spent, charged = (balance(connection, tenant_id, account) for account in (COGS_ACCOUNT, EARNED_ACCOUNT))
    charging = [entry for entry in entries if entry.verdict is Verdict.CHARGED]
    costs = [entry.call.cost_nanousd or 0 for entry in charging]
    most = [_most(entry.call) for entry in charging]
    if max(spent + sum(costs), charged + sum(most)) <= MAX_SUM_NANO:
        return
    for entry in charging:
        spent += entry.call.cost_nanousd or 0
        charged += _most(entry.call)
        if max(spent, charged) > MAX_SUM_NANO:
            spent -= entry.call.cost_nanousd or 0
            charged -= _most(entry.call)
            entry.leave_open("the amount is out of range")


def _most(call: PricedUsage) -> int:
    """The most that a call can come to once its action is looked at."""
    return max(call.charge_nanocredits or 0, call.action_floor_nanocredits or 0)


def _verdict(call: PricedUsage, entry: Entry) -> Verdict:
    """The verdict of one call, by what the books now say of its span."""
    if call is entry.arrived and entry.booked is None:
        return entry.verdict
    booked = facts_of(entry.call) if entry.booked is None else entry.booked
    return Verdict.DUPLICATE if booked == facts_of(call) else Verdict.CONFLICT


def _book(
    connection: Connection,
    tenant_id: int,
    entries: dict[SpanKey, Entry],
    received_at_ns: int,
    labels: TotalLabels,
) -> None:
    """Insert what is new and post it; note on the others what the books have of their span."""
    transaction_id = open_transaction(connection, tenant_id, "usage", received_at_ns)
    pending = entries
    recorded: list[Entry] = []
    while pending:
        new = _insert(connection, tenant_id, transaction_id, received_at_ns, pending)
        claiming = [entry.call.usage for entry in new.values() if entry.call_key is not None]
        times = [(usage.started_at_ns, usage.latency_ns) for usage in claiming]
        # Of these another span has claimed the call: they go in without it, or take it over.
        kept_out = {key: new.pop(key) for key in claim_recorded(connection, transaction_id, times)}
        recorded += new.values()
        displaced = settle_kept_out(connection, tenant_id, kept_out.values()) if kept_out else []
        _give_back(connection, tenant_id, displaced, received_at_ns, labels)
        pending = kept_out
    if recorded:
        charge_actions_once(connection, tenant_id, recorded)
        charged = sum_by_wallet([entry.call for entry in recorded if entry.verdict is Verdict.CHARGED])
        with_holds = post(
            connection,
            tenant_id,
            transaction_id,
            received_at_ns,
            legs_of(_charges(charged)),
            active=frozenset([entry.call.usage.wallet for entry in recorded]),
            spending=True,
        )
        settle_holds(connection, tenant_id, _charges_of_actions(recorded, with_holds), received_at_ns)
        counted = [(entry.call, entry.verdict) for entry in recorded]
        count_new_calls(connection, tenant_id, counted, charged, labels)
    else:
        # Nothing was new; this id was never seen outside this database transaction.
        connection.execute(delete(transactions).where(transactions.c.id == transaction_id))


def _insert(
    connection: Connection,
    tenant_id: int,
    transaction_id: int,
    received_at_ns: int,
    entries: Mapping[SpanKey, Entry],
) -> dict[SpanKey, Entry]:
    """Insert what is new and return it; the others learn what the books have of their span."""
    ordered = _in_one_order(connection, entries)
    rows = [record_row(tenant_id, transaction_id, received_at_ns, entry) for _, entry in ordered]
    inserted = bulk.insert_ignoring_conflicts(connection, usage_records.name, RECORD_COLUMNS, rows)
    # Only now: the insert has waited for whoever was retiring one of these spans.
    retired = take_out_retired(connection, transaction_id)
    if inserted == len(rows) and not retired:
        return dict(ordered)
    stored = _stored(connection, tenant_id, entries)
    # What was there when this was inserted, and is not any more, was retired in between.
    retired |= retired_facts(connection, tenant_id, entries.keys() - stored.keys() - retired.keys())
    new = {}
    for key, entry in ordered:
        if key in retired:
            entry.booked = retired[key]
            continue
        made_by, facts = stored[key]
        if made_by == transaction_id:
            new[key] = entry
        else:
            entry.booked = facts
    return new


def _in_one_order(connection: Connection, entries: Mapping[SpanKey, Entry]) -> list[tuple[SpanKey, Entry]]:
    """One order for all writers: two that bring the same spans wait for each other, but never crosswise."""
    if connection.dialect.name == "sqlite":
        return list(entries.items())  # there is one writer
    return sorted(entries.items(), key=lambda item: (item[1].call.usage.started_at_ns, item[0]))


def _charges(sums: WalletSums) -> Iterator[Charge]:
    """What the calls of each sum take and cost together."""
    for (_, wallet, event, provider, model, rule_id), (calls, _, _, _, cost, charge) in sums.items():
        yield Charge(wallet, event, rule_id, charge, provider, model, cost, calls)


def _charges_of_actions(recorded: Iterable[Entry], wallets: frozenset[str]) -> dict[tuple[str, str], int]:
    """(wallet, action id) → what was charged now, of the wallets that have credits on hold."""
    if not wallets:
        return {}
    charges: dict[tuple[str, str], int] = {}
    for entry in recorded:
        usage = entry.call.usage
        if entry.charged and usage.action_id and usage.wallet in wallets:
            key = usage.wallet, usage.action_id
            charges[key] = charges.get(key, 0) + (entry.call.charge_nanocredits or 0)
    return charges


def _stored(
    connection: Connection, tenant_id: int, keys: Iterable[SpanKey]
) -> dict[SpanKey, tuple[int, tuple[Any, ...]]]:
    """(trace, span) → (transaction, facts) of the records that are in the books."""
    table = usage_records.c
    found = connection.execute(
        select(
            table.trace_id,
            table.span_id,
            table.transaction_id,
            *(usage_records.c[name] for name in FACT_COLUMNS),
        ).where(table.tenant_id == tenant_id, tuple_(table.trace_id, table.span_id).in_(list(keys)))
    )
    return {(row[0], row[1]): (row[2], tuple(row[3:])) for row in found}


def _keep_conflicts(
    connection: Connection, tenant_id: int, conflicts: Sequence[PricedUsage], received_at_ns: int
) -> None:
    """Keep what arrived under a known span's ids with other content, once for each content."""
    rows = []
    for call in conflicts:
        facts = json.dumps(dict(zip(FACT_COLUMNS, facts_of(call), strict=True)))
        digest = blake2b(facts.encode(), digest_size=16).digest()
        rows.append((tenant_id, call.usage.trace_id, call.usage.span_id, digest, received_at_ns, facts))
    bulk.insert_ignoring_conflicts(connection, "usage_conflicts", _CONFLICT_COLUMNS, rows)


def _give_back(
    connection: Connection, tenant_id: int, displaced: Sequence[StoredCall], at_ns: int, labels: TotalLabels
) -> None:
    """Let records go uncharged whose calls a better witness pays for now."""
    pending = list(displaced)
    while pending:
        done = correct(connection, tenant_id, Cause.TWIN, [cover(stored) for stored in pending], at_ns, labels)
        settled = {correction.stored.record_id for correction in done}
        # Somebody else corrected the rest at the same moment: look again. They are held by now.
        left = [stored.record_id for stored in pending if stored.record_id not in settled]
        table = usage_records.c
        query = usage_query(tenant_id).where(table.id.in_(left), table.verdict == Verdict.CHARGED)
        pending = list(stored_calls(connection, query)) if left else []
