"""Encode requests and their results as bytes between two processes of one collector. Pure.

Both processes run the same Python, so `marshal` is safe; it is several times as fast as pickling named tuples. Named
tuples are sent as plain tuples and rebuilt by the recipient.
"""

import marshal
from typing import Any, NamedTuple

from farebox_collector.intake.reader import Encoding, ReadRequest
from farebox_collector.ledger.usage.batch import Calls, Prepared
from farebox_collector.ledger.usage.batch_sums import BatchSums
from farebox_collector.model.records import (
    NO_QUALITY,
    Buckets,
    DeadLetter,
    PricedUsage,
    Quality,
    QualityReport,
    Span,
    UsageRecord,
)
from farebox_collector.model.unusual import (
    particulars_of,
    read_unusual,
    stored_particulars,
    stored_unusual,
)
from farebox_collector.model.verdicts import Verdict

_BUCKETS = UsageRecord._fields.index("buckets")
_QUALITY = UsageRecord._fields.index("quality")
_UNUSUAL = UsageRecord._fields.index("speed")
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_named = tuple.__new__


class Task(NamedTuple):
    """One request to be read."""

    encoding: Encoding
    body: bytes
    tenant_id: int
    received_at_ns: int


def packed_task(task: Task) -> bytes:
    """Encode a task."""
    return marshal.dumps((task.encoding.value, *task[1:]))


def unpacked_task(data: bytes | bytearray) -> Task:
    """Decode a task."""
    encoding, *rest = marshal.loads(data)  # noqa: S302  (from our own process)
    return Task(Encoding(encoding), *rest)


def packed(read: ReadRequest) -> bytes:
    """Encode the result of a request."""
    prepared = read.calls.prepared
    calls = (
        (*prepared[:-1], tuple(prepared.sums)) if prepared is not None else [_plain_call(call) for call in read.calls]
    )
    reports = [(*report[:3], tuple(report.quality)) for report in read.reports]
    dead = [(tuple(letter.span), letter.reason) for letter in read.dead]
    message: Any = (calls, read.places, reports, dead, read.not_billable, read.spans)
    return marshal.dumps(message)


def unpacked(data: bytes | bytearray | memoryview) -> ReadRequest:
    """Decode the result of a request."""
    calls, places, reports, dead, not_billable, spans = marshal.loads(data)  # noqa: S302  (from our own process)
    return ReadRequest(
        Calls([_call(*fields) for fields in calls]) if isinstance(calls, list) else Calls(prepared=_prepared(*calls)),
        places,
        [QualityReport(report[0], report[1], report[2], Quality(*report[3])) for report in reports],
        [DeadLetter(Span(*span), reason) for span, reason in dead],
        not_billable,
        spans,
    )


def _columns(
    size: int, columns: list[Any], assumptions: Any, claims: list[tuple[int, bytes]], sums: tuple[Any, ...]
) -> Prepared:
    return Prepared(size, columns, assumptions, claims, BatchSums(*sums))


def _prepared(*fields: Any) -> Prepared:
    prepared = Prepared._make(fields)
    return prepared._replace(sums=BatchSums._make(prepared.sums))


def _plain_call(call: PricedUsage) -> tuple[Any, ...]:
    fields: list[Any] = list(call.usage)
    if call.usage.buckets is not None:
        fields[_BUCKETS] = tuple(call.usage.buckets)
    fields[_QUALITY] = None if call.usage.quality is NO_QUALITY else tuple(call.usage.quality)
    fields[_UNUSUAL:] = [stored_unusual(call.usage[_UNUSUAL:])]
    priced = None if call.particulars is None else stored_particulars(call.particulars)
    return fields, call.verdict.value, *call[2:-1], priced


def _call(fields: list[Any], verdict: str, *others: Any) -> PricedUsage:
    rest = list(others)
    buckets, quality = fields[_BUCKETS], fields[_QUALITY]
    if buckets is not None:
        fields[_BUCKETS] = _named(Buckets, buckets)
    # NO_QUALITY is compared by identity.
    fields[_QUALITY] = NO_QUALITY if quality is None else _named(Quality, quality)
    fields[_UNUSUAL:] = read_unusual(fields[_UNUSUAL])
    usage, priced = _named(UsageRecord, fields), particulars_of(rest.pop())
    return _named(PricedUsage, (usage, _VERDICTS[verdict], *rest, priced))
