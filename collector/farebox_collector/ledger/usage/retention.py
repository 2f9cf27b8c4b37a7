"""Retire usage records: delete their detail, and keep charges, counts and sums unchanged.

Each batch is one transaction: it stores tombstones (`retired_spans`), adds the deleted figures to the sums that the
audit compares, and deletes the records. Records are retired in the order of their ids, and only if nothing but a
repeated delivery can happen to them any more.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, select

from farebox_collector.ledger.credits.spending import subjects_of
from farebox_collector.ledger.journal.journal import PROVIDER, WALLET
from farebox_collector.ledger.journal.usage_rollups import figures_of
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.differences import size_in_bytes
from farebox_collector.ledger.tables.books import accounts, usage_records
from farebox_collector.ledger.tables.rollups import DAY_SUMS
from farebox_collector.ledger.tables.tombstones import RETIRED_SUMS
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.claims import Claim, keep_times
from farebox_collector.ledger.usage.columns import facts_digest, facts_of
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.span_index import of_traces
from farebox_collector.ledger.usage.stakes import remove_stakes, stakes_of
from farebox_collector.ledger.usage.stored_usage import StoredCall, stored_call
from farebox_collector.ledger.usage.tombstones import likeness_digest
from farebox_collector.model.moments import day_of
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.parts import WITHOUT_PRICE

_FINAL = (Verdict.CHARGED, Verdict.COVERED, Verdict.FAILED)
_SPAN_COLUMNS = (
    "tenant_id",
    "trace_id",
    "span_id",
    "facts",
    "likeness",
    "charged",
    "started_at_ns",
    "latency_ns",
)
_LEG_KEY = ("transaction_id", "account_id", "event", "rule_version_id")
_LEG_SUMS = ("records", "amount_nano")
_DAY_KEY = ("tenant_id", "day", "kind", "name", "user_id")


class RetentionFrozen(Exception):
    """The audit found mismatches: retention stops, because the detail may explain them."""

    def __init__(self) -> None:
        super().__init__("the last audit found mismatches: nothing is retired until a full audit is clean")


class Kept(StrEnum):
    """Why an old record keeps its detail."""

    OPEN = "open"
    """It waits for a price, for usage or for the calls of an agent."""
    BESIDE_OPEN = "beside_open"
    """Its trace has an open record, whose settlement may depend on it."""
    CORRECTED = "corrected"
    """Its corrections refer to it."""
    OF_ACTION = "of_action"
    """It carries a part of its action's floor."""
    AGENT = "agent"
    """A charged agent: if its calls arrive, the charge is given back."""
    NEWEST = "newest"
    """The newest record: SQLite would reuse its id."""


class RetentionBatch(NamedTuple):
    """The result for a few records."""

    last_id: int
    """The last record that was read, or the start if there was none."""
    retired: int
    kept: Counter[Kept]
    ended: bool
    """Whether there is no further record, or the next one is too young."""


class _Candidates(NamedTuple):
    batch: RetentionBatch
    retiring: list[Row[Any]]


class Size(NamedTuple):
    """Disk use of the books."""

    database_bytes: int
    free_bytes: int | None
    """The part that later records will reuse; None if the database does not report it."""


def preview_retention(connection: Connection, after_id: int, before_ns: int, limit: int) -> RetentionBatch:
    """Return what retiring would do to the next few records after an id; writes nothing."""
    return _candidates(connection, after_id, before_ns, limit, hold=False).batch


def retire(connection: Connection, after_id: int, before_ns: int, limit: int) -> RetentionBatch:
    """Retire the final ones among the next few records after an id that were received before a time.

    Raises RetentionFrozen.
    """
    if are_frozen(connection):
        raise RetentionFrozen
    batch, rows = _candidates(connection, after_id, before_ns, limit, hold=True)
    if not rows:
        return batch
    by_tenant: defaultdict[int, list[StoredCall]] = defaultdict(list)
    for row in rows:
        by_tenant[row.tenant_id].append(stored_call(row))
    for tenant_id, stored in sorted(by_tenant.items()):
        bulk_insert.insert(connection, "retired_spans", _SPAN_COLUMNS, sorted(_span(tenant_id, one) for one in stored))
        _keep_days(connection, tenant_id, stored)
        claiming = [one for one in stored if one.call_key is not None]
        keep_times(connection, tenant_id, [_claim(one) for one in claiming])
        remove_stakes(connection, tenant_id, [stake for one in stored for stake in stakes_of(one.call)])
    _keep_totals(connection, rows)
    _keep_legs(connection, rows)
    ids = [row.id for row in rows]
    deleted = connection.execute(delete(usage_records).where(usage_records.c.id.in_(ids))).rowcount
    assert deleted == len(ids), "held since they were read"
    return batch


def books_size(connection: Connection) -> Size:
    """Return the size of the database."""
    return Size(*size_in_bytes(connection))


def _candidates(connection: Connection, after_id: int, before_ns: int, limit: int, *, hold: bool) -> _Candidates:
    table = usage_records.c
    query = select(usage_records).where(table.id > after_id).order_by(table.id).limit(limit)
    rows = connection.execute(query.with_for_update() if hold else query).all()
    newest = connection.execute(select(func.max(table.id))).scalar()
    young = next((place for place, row in enumerate(rows) if row.received_at_ns >= before_ns), None)
    old = rows[:young]
    reasons = [_kept(row, newest) for row in old]
    final = [row for row, reason in zip(old, reasons, strict=True) if reason is None]
    open_traces = _open_traces(connection, final)
    retiring = [row for row in final if (row.tenant_id, row.trace_id) not in open_traces]
    kept = Counter(reason for reason in reasons if reason is not None)
    if len(retiring) < len(final):
        kept[Kept.BESIDE_OPEN] = len(final) - len(retiring)
    last_id = old[-1].id if old else after_id
    return _Candidates(RetentionBatch(last_id, len(retiring), kept, young is not None or len(rows) < limit), retiring)


def _kept(row: Row[Any], newest: int | None) -> Kept | None:
    """Return why a record by itself keeps its detail."""
    if row.verdict not in _FINAL or WITHOUT_PRICE in row.assumptions:
        return Kept.OPEN
    if row.corrections:
        return Kept.CORRECTED
    if row.action_share_nanocredits is not None:
        return Kept.OF_ACTION
    if row.summary and row.verdict == Verdict.CHARGED:
        return Kept.AGENT
    return Kept.NEWEST if row.id == newest else None


def _open_traces(connection: Connection, rows: Sequence[Row[Any]]) -> set[tuple[int, bytes]]:
    """Return the traces of some records in which a record is open, by tenant."""
    table = usage_records.c
    wanted: defaultdict[int, set[bytes]] = defaultdict(set)
    for row in rows:
        wanted[row.tenant_id].add(row.trace_id)
    found: set[tuple[int, bytes]] = set()
    # One query per tenant: for a list of pairs PostgreSQL reads the whole table.
    for tenant_id, traces in wanted.items():
        query = select(table.trace_id).where(of_traces(connection, tenant_id, traces), table.verdict.not_in(_FINAL))
        found.update((tenant_id, bytes(trace_id)) for trace_id in connection.execute(query).scalars())
    return found


def _span(tenant_id: int, stored: StoredCall) -> tuple[Any, ...]:
    """Return the values of `_SPAN_COLUMNS`."""
    usage = stored.call.usage
    return (
        tenant_id,
        usage.trace_id,
        usage.span_id,
        facts_digest(facts_of(stored.call)),
        likeness_digest(usage),
        int(stored.call.verdict is Verdict.CHARGED),
        usage.started_at_ns,
        usage.latency_ns,
    )


def _claim(stored: StoredCall) -> Claim:
    usage = stored.call.usage
    return Claim(stored.record_id, stored.call_key or b"", usage.started_at_ns, usage.latency_ns)


def _keep_days(connection: Connection, tenant_id: int, stored: Iterable[StoredCall]) -> None:
    """Add deleted records to the retired sums of their days."""
    sums: defaultdict[tuple[int, str, str, str], list[int]] = defaultdict(lambda: [0] * len(DAY_SUMS))
    for one in stored:
        call, usage, day = one.call, one.call.usage, day_of(one.call.priced_at_ns)
        keys = [(day, "verdict", str(call.verdict), "")]
        if call.verdict is Verdict.CHARGED:
            keys.append((day, "wallet", usage.wallet, ""))
            subjects = subjects_of(usage.wallet, usage.user_id, usage.dept, usage.project)
            keys += [(day, str(subject.scope), subject.name, subject.user_id) for subject in subjects]
        figures = figures_of(call)
        for key in keys:
            sums[key] = list(map(add, sums[key], figures))
    rows = [(tenant_id, *key, *figures) for key, figures in sorted(sums.items())]
    bulk_insert.insert_adding(connection, "retired_days", _DAY_KEY, DAY_SUMS, rows)


def _keep_totals(connection: Connection, rows: Iterable[Row[Any]]) -> None:
    """Add deleted records to the retired sums of their tenant and verdict."""
    sums: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * len(RETIRED_SUMS))
    names = ("cost_nanousd", "charge_nanocredits", *TOKEN_COLUMNS)
    for row in rows:
        figures = (1, *(getattr(row, name) or 0 for name in names))
        key = row.tenant_id, row.verdict
        sums[key] = list(map(add, sums[key], figures))
    added = [(*key, *figures) for key, figures in sorted(sums.items())]
    bulk_insert.insert_adding(connection, "retired_totals", ("tenant_id", "verdict"), RETIRED_SUMS, added)


def _keep_legs(connection: Connection, rows: Iterable[Row[Any]]) -> None:
    """Add deleted records to the retired sums of the legs that posted them."""
    sums: defaultdict[tuple[int, str, tuple[int, str, int], str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row.verdict != Verdict.CHARGED:
            continue
        credit = row.tenant_id, WALLET, (row.transaction_id, row.event, row.rule_version_id or 0), row.wallet
        cost = row.tenant_id, PROVIDER, (row.transaction_id, "", 0), f"{row.provider}/{row.model}"
        for key, amount in ((credit, row.charge_nanocredits), (cost, row.cost_nanousd)):
            sums[key][0] += 1
            sums[key][1] += amount
    known = _account_ids(connection, {(tenant_id, kind, name) for tenant_id, kind, _, name in sums})
    added = [
        (transaction_id, known[tenant_id, kind, name], event, rule, *figures)
        for (tenant_id, kind, (transaction_id, event, rule), name), figures in sums.items()
    ]
    bulk_insert.insert_adding(connection, "retired_legs", _LEG_KEY, _LEG_SUMS, sorted(added))


def _account_ids(connection: Connection, names: set[tuple[int, str, str]]) -> dict[tuple[int, str, str], int]:
    """Return account ids by tenant, kind and name: wallets hold credits, providers are paid dollars."""
    table = accounts.c
    wanted: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for tenant_id, kind, name in names:
        wanted[tenant_id, kind].append(name)
    ids: dict[tuple[int, str, str], int] = {}
    for (tenant_id, kind), of_kind in wanted.items():
        query = select(table.name, table.id).where(
            table.tenant_id == tenant_id, table.kind == kind, table.name.in_(sorted(of_kind))
        )
        ids |= {(tenant_id, kind, name): account_id for name, account_id in connection.execute(query)}
    return ids
