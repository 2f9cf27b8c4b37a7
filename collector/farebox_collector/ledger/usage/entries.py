"""One span of a batch on its way into the books, and the columns it becomes. Pure."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from farebox_collector.ledger.tables.books import TOKEN_COLUMNS
from farebox_collector.ledger.usage.response_ids import call_key
from farebox_collector.model.records import (
    NO_QUALITY,
    Buckets,
    PricedUsage,
    Quality,
    UsageRecord,
)
from farebox_collector.model.units import read_units, stored_units
from farebox_collector.model.unusual import (
    UnusualFacts,
    read_particulars,
    read_unusual,
    stored_column,
    stored_unusual,
)
from farebox_collector.model.verdicts import Verdict

BATCH_COLUMNS = ("tenant_id", "transaction_id", "received_at_ns")
"""What the records of a batch have in common."""
# In the order of the fields of UsageRecord and PricedUsage, so that columns are made of slices of them.
CALL_COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "started_at_ns",
    "latency_ns",
    "wallet",
    "event",
    "action_id",
    "operation",
    "reported_provider",
    "request_model",
    "response_model",
    "response_id",
    "service_tier",
    "error_type",
    *TOKEN_COLUMNS,
    "summary",
    "time_to_first_chunk_ns",
    "dept",
    "project",
    "task",
    "route",
    "region",
    "dialect",
    "units",
    *Quality._fields,
    "scope",
    "user_id",
    "unusual",
    "assumptions",
    "verdict",
    "reason",
    "priced_at_ns",
    "provider",
    "model",
    "cost_nanousd",
    "charge_nanocredits",
    "price_version_ids",
    "rule_version_id",
    "action_share_nanocredits",
    "call_key",
)
FACT_COLUMNS = (
    "started_at_ns",
    "wallet",
    "event",
    "action_id",
    "reported_provider",
    "request_model",
    "response_model",
    "response_id",
    "error_type",
    *TOKEN_COLUMNS,
    "units",
    "unusual",
)
"""What makes two arrivals of one span the same: everything that a bill could depend on."""
_BUCKETS = slice(CALL_COLUMNS.index(TOKEN_COLUMNS[0]), CALL_COLUMNS.index(TOKEN_COLUMNS[-1]) + 1)
_QUALITY = slice(CALL_COLUMNS.index(Quality._fields[0]), CALL_COLUMNS.index(Quality._fields[-1]) + 1)
_UNUSUAL = UsageRecord._fields.index("speed")
_NO_BUCKETS = (None,) * len(TOKEN_COLUMNS)
_NO_MONEY: dict[str, Any] = {
    "cost_nanousd": None,
    "charge_nanocredits": None,
    "price_version_ids": "",
    "rule_version_id": None,
    "action_floor_nanocredits": None,
    "particulars": None,
}
COVERED_REASON = "another span of the same call stands for it"

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""


class RetiredFacts:
    """What is left of the facts of a retired span: equal to the same facts, and to no others."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def __eq__(self, facts: object) -> bool:
        """Whether these, the values of `FACT_COLUMNS`, are the same facts."""
        return isinstance(facts, tuple) and facts_digest(facts) == self._digest

    __hash__ = None  # type: ignore[assignment]


def facts_digest(facts: tuple[Any, ...]) -> bytes:
    """What is kept of the values of `FACT_COLUMNS` for ever: it tells the same facts from others."""
    if not facts[-1]:
        # Spans without unusual facts have the digest that they had before there were any.
        facts = facts[:-1]
    return blake2b(json.dumps(facts).encode(), digest_size=16).digest()


class Entry:
    """One span of a batch on its way into the books."""

    __slots__ = ("arrived", "booked", "call", "call_key", "guessed", "reason", "verdict")

    def __init__(self, call: PricedUsage) -> None:
        self.arrived = call
        self.call = call
        # The facts that were in the books before this batch; None for a span that is new.
        # Of a retired span only what they compare to is left.
        self.booked: tuple[Any, ...] | RetiredFacts | None = None
        self.verdict = call.verdict
        self.reason = call.reason
        self.guessed = call.assumptions
        # Only a charged record holds the key: what has no price yet must not keep its twin from being charged.
        self.call_key = call_key(call.usage.response_id) if call.verdict is Verdict.CHARGED else None

    def cover(self, reason: str = COVERED_REASON) -> None:
        """Let another span of the same call pay."""
        self.verdict, self.reason, self.call_key = Verdict.COVERED, reason, None

    def leave_open(self, reason: str) -> None:
        """Keep the call without charging it yet."""
        self.verdict, self.reason, self.call_key = Verdict.UNPRICED, reason, None

    def charge_apart(self) -> None:
        """Charge although the response id was seen before: the other call was at another time."""
        self.call_key = None
        self.guessed += ("response_id_reused",)

    @property
    def charged(self) -> bool:
        """Whether this entry moves money."""
        return self.verdict is Verdict.CHARGED

    def as_booked(self) -> PricedUsage:
        """The call as the books will have it: what is not charged comes to nothing."""
        call = self.call._replace(verdict=self.verdict, reason=self.reason, assumptions=self.guessed)
        # An estimate stays with the call that it is of, apart from all money.
        return call if self.charged or self.verdict is Verdict.EXPOSED else call._replace(**_NO_MONEY)


def call_columns(calls: Sequence[PricedUsage], keys: Sequence[bytes | None]) -> list[Sequence[Any]]:
    """The values of `CALL_COLUMNS`, each for all of some calls, as the books will have them; `keys` are those that they
    claim. By columns, since to name fifty values of each call takes longer than to store them."""
    usages, verdicts, reasons, *priced, assumptions, floors, particulars = zip(*calls, strict=True)
    of_usage = list(zip(*usages, strict=True))
    charges = priced[4]
    return [
        *of_usage[:15],
        *zip(*[buckets or _NO_BUCKETS for buckets in of_usage[15]], strict=True),
        list(map(int, of_usage[16])),
        *of_usage[17:24],
        [stored_units(units) if units else "" for units in of_usage[25]],
        *zip(*of_usage[26], strict=True),
        *of_usage[27:_UNUSUAL],
        stored_column(of_usage[_UNUSUAL:], particulars),
        [",".join(assumed) for assumed in assumptions],
        [verdict.value for verdict in verdicts],
        reasons,
        *priced,
        [None if floor is None else charge for floor, charge in zip(floors, charges, strict=True)],
        keys,
    ]


def call_of_row(row: Sequence[Any]) -> PricedUsage:
    """The call that a row of `CALL_COLUMNS` was made of."""
    buckets, quality = row[_BUCKETS], row[_QUALITY]
    scope, user_id, unusual, assumptions, verdict, reason, *priced = row[_QUALITY.stop : -2]
    assumed = tuple(assumptions.split(",")) if assumptions else ()
    usage = UsageRecord._make(
        (
            *row[: _BUCKETS.start],
            None if buckets[0] is None else Buckets(*buckets),
            bool(row[_BUCKETS.stop]),
            *row[_BUCKETS.stop + 1 : _QUALITY.start - 1],
            assumed,
            read_units(row[_QUALITY.start - 1]),
            NO_QUALITY if tuple(quality) == NO_QUALITY else Quality(*quality),
            scope,
            user_id,
            *read_unusual(unusual),
        )
    )
    return PricedUsage._make((usage, Verdict(verdict), reason, *priced, assumed, None, read_particulars(unusual)))


def facts_of(call: PricedUsage) -> tuple[Any, ...]:
    """The values of `FACT_COLUMNS` for one call, as they come back from the database."""
    usage = call.usage
    return (
        usage.started_at_ns,
        usage.wallet,
        usage.event,
        usage.action_id,
        usage.provider,
        usage.request_model,
        usage.response_model,
        usage.response_id,
        usage.error_type,
        *(usage.buckets or _NO_BUCKETS),
        stored_units(usage.units) if usage.units else "",
        stored_unusual(usage[_UNUSUAL:]),
    )


assert len(TOKEN_COLUMNS) == len(Buckets._fields)
assert UsageRecord._fields[14:18] == ("error_type", "buckets", "summary", "time_to_first_chunk_ns")
assert UsageRecord._fields[23:_UNUSUAL] == ("dialect", "assumptions", "units", "quality", "scope", "user_id")
assert UsageRecord._fields[_UNUSUAL:] == UnusualFacts._fields
assert PricedUsage._fields[3:10] == CALL_COLUMNS[-9:-2]
