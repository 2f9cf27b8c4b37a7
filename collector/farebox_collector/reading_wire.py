"""Requests and what they came to, as bytes between two processes of one collector. Pure.

Both run the same Python, so that its own `marshal` will do, which is several times as fast as pickling named tuples:
they become plain tuples for the way and are named again where they arrive.
"""

import marshal
from typing import Any, NamedTuple

from farebox_collector.reading import Encoding, ReadRequest
from farebox_collector.records import (
    NO_QUALITY,
    Buckets,
    DeadLetter,
    PricedUsage,
    Quality,
    QualityReport,
    Span,
    UsageRecord,
)
from farebox_collector.verdicts import Verdict

_BUCKETS = UsageRecord._fields.index("buckets")
_QUALITY = UsageRecord._fields.index("quality")
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_named = tuple.__new__


class Task(NamedTuple):
    """One request to be read."""

    encoding: Encoding
    body: bytes
    tenant_id: int
    received_at_ns: int


def packed_task(task: Task) -> bytes:
    """A task as bytes."""
    return marshal.dumps((task.encoding.value, *task[1:]))


def unpacked_task(data: bytes | bytearray) -> Task:
    """The task of these bytes."""
    encoding, *rest = marshal.loads(data)  # noqa: S302  (from our own process)
    return Task(Encoding(encoding), *rest)


def packed(read: ReadRequest) -> bytes:
    """What a request came to, as bytes."""
    calls = [(_plain(call.usage), call.verdict.value, *call[2:]) for call in read.calls]
    reports = [(*report[:3], tuple(report.quality)) for report in read.reports]
    dead = [(tuple(letter.span), letter.reason) for letter in read.dead]
    return marshal.dumps((calls, read.places, reports, dead, read.not_billable, read.spans))


def unpacked(data: bytes | bytearray | memoryview) -> ReadRequest:
    """What these bytes say that a request came to."""
    calls, places, reports, dead, not_billable, spans = marshal.loads(data)  # noqa: S302  (from our own process)
    return ReadRequest(
        [_named(PricedUsage, (_usage(usage), _VERDICTS[verdict], *rest)) for usage, verdict, *rest in calls],
        places,
        [QualityReport(report[0], report[1], report[2], Quality(*report[3])) for report in reports],
        [DeadLetter(Span(*span), reason) for span, reason in dead],
        not_billable,
        spans,
    )


def _plain(usage: UsageRecord) -> list[Any]:
    fields: list[Any] = list(usage)
    if usage.buckets is not None:
        fields[_BUCKETS] = tuple(usage.buckets)
    fields[_QUALITY] = None if usage.quality is NO_QUALITY else tuple(usage.quality)
    return fields


def _usage(fields: list[Any]) -> UsageRecord:
    buckets, quality = fields[_BUCKETS], fields[_QUALITY]
    if buckets is not None:
        fields[_BUCKETS] = _named(Buckets, buckets)
    # The one that says nothing is known by its identity.
    fields[_QUALITY] = NO_QUALITY if quality is None else _named(Quality, quality)
    return _named(UsageRecord, fields)
