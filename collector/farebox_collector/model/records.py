"""The vocabulary: immutable facts that pass from the wire to the ledger. No I/O, no clock, no behaviour.

Times are integer Unix nanoseconds (UTC) and end in `_ns`; money ends in its unit (see `money.py`).
Named tuples, not frozen dataclasses: several are created per span, and a tuple costs a quarter as much.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from farebox_collector.model.verdicts import Verdict

AttributeValue = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, AttributeValue]

DEFAULT_TENANT_ID = 1
UNATTRIBUTED = "unattributed"
"""The wallet that pays for calls whose span names no customer."""
STANDARD = "standard"
"""The price condition of calls without a service tier."""
IMPLAUSIBLE = "count_over_a_billion"
"""Assumption on a call that is kept without its counts because one of them exceeds what a call can use."""
UNDER_SUBSCRIPTION = "under_subscription"
"""Assumption on a call that a subscription pays: it costs nothing more, and keeps its list price beside it."""
NO_EVENT = "unnamed"
"""The event of a call outside any named action."""
EVENT_NAME = "event.name"
"""The attribute with the name of a log record's event, empty if it has none. Only log records have it."""


class Span(NamedTuple):
    """One received span, reduced to the attributes that some dialect reads. Prompts are dropped before this.

    A log record has the same form. It has the attribute `EVENT_NAME`, and no span id until a dialect derives one; its
    start and its end are its time, and its parent is the span that was open when it was written.
    """

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    start_ns: int
    end_ns: int
    failed: bool
    attributes: Attributes
    resource: Attributes
    scope_name: str
    scope_version: str


class MetricPoint(NamedTuple):
    """One data point of a metric that tells usage: a sum, or the sum of a histogram."""

    metric: str
    value: float
    is_delta: bool
    """Whether it counts since the point before; else since its start."""
    start_ns: int
    """When the sum began; 0 if it is not told."""
    time_ns: int
    attributes: Attributes
    """Under the attributes of the point are those of the resource."""
    scope: str


class Buckets(NamedTuple):
    """Disjoint token counts of one call. `reasoning` is a memo: part of `output`, never added to it."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Written to a cache that lives five minutes, the providers' default."""
    cache_write_1h: int = 0
    """Written to a cache that lives an hour, which costs more."""
    input_audio: int = 0
    input_image: int = 0
    output: int = 0
    output_audio: int = 0
    output_image: int = 0
    reasoning: int = 0

    @property
    def inclusive_input(self) -> int:
        """Return all input tokens, cached or not. Long-context thresholds compare this."""
        cache = self.cache_read + self.cache_write + self.cache_write_1h
        return self.input + cache + self.input_audio + self.input_image

    @property
    def total(self) -> int:
        """Return all tokens of the call."""
        return self.inclusive_input + self.output + self.output_audio + self.output_image


NO_TOKENS = Buckets()


class ModelLine(NamedTuple):
    """A part of an answer that another model produced, with its own price: an advisor, a compaction, an image."""

    label: str
    """The sender's name for the kind of part: `advisor`, `compaction`, `image_generation`."""
    provider: str
    """The provider as the span names it; empty for the provider of the call."""
    model: str
    service_tier: str = ""
    speed: str = ""
    inference_region: str = ""
    buckets: Buckets = NO_TOKENS
    """The tokens of this part. They are not included in the buckets of the call."""
    units: tuple[tuple[str, int], ...] = ()
    """Other units that the part is billed by, as `units.billable_units` returns them."""


class Quality(NamedTuple):
    """Reported quality of an answer: 1 is yes, 0 is no, None is not reported."""

    cache_hit: int | None = None
    """Whether a cache spared the model some or all of the work."""
    citation_rate_ppm: int | None = None
    """The share of the answer's claims that cite a source, in parts per million."""
    human_reviewed: int | None = None
    review_approved: int | None = None
    """The reviewer's decision; an approval implies a review."""


NO_QUALITY = Quality()


class UsageRecord(NamedTuple):
    """One model call as a dialect read it: wallet, event, model, tokens, latency, outcome, tags."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    started_at_ns: int
    latency_ns: int
    wallet: str
    event: str
    action_id: str
    operation: str
    provider: str
    """The model as the span names it; the price book resolves aliases."""
    request_model: str
    response_model: str
    response_id: str
    service_tier: str
    error_type: str
    """Empty for a call that succeeded."""
    buckets: Buckets | None
    """None if the span reports no usage."""
    summary: bool
    """True for agent and workflow spans, which repeat the usage of the calls inside them."""
    time_to_first_chunk_ns: int | None
    dept: str
    project: str
    task: str
    route: str
    region: str
    dialect: str
    assumptions: tuple[str, ...]
    """Assumptions made in reading this span; shown on the receipt."""
    units: tuple[tuple[str, int], ...] = ()
    """Other billed units, such as (("web_searches", 2),), as `units.billable_units` returns them."""
    quality: Quality = NO_QUALITY
    scope: str = ""
    """The instrumentation scope that created the span."""
    user_id: str = ""
    """The user who spends from a shared wallet; empty if the wallet itself is the user."""
    # Facts that few calls have. The books store them in one column (`model.unusual`).
    speed: str = ""
    """The processing speed, such as `fast`; empty for the standard speed."""
    inference_region: str = ""
    """The processing region if the provider bills by region: `us`, `eu`. Empty for any region."""
    other_lines: tuple[ModelLine, ...] = ()
    """Parts of the answer that other models produced."""
    stated_cost_nanousd: int | None = None
    """The cost of the call as the provider states it."""
    other_reading: Buckets | None = None
    """The other reading of contradictory counts. `buckets` is the reading that was chosen."""
    exposure: str = ""
    """Why the end of the call was not seen, such as `timeout`; then `buckets` is an estimate. Empty for other calls."""


class QualityReport(NamedTuple):
    """A quality report on the answer of a trace, sent after its calls had ended."""

    trace_id: bytes
    """With `span_id`, the report's own span."""
    span_id: bytes
    subject_trace_id: bytes
    """The trace that the report is about."""
    quality: Quality


class NotBillable(NamedTuple):
    """A span that is not a model call, with the reason."""

    reason: str


class Rejected(NamedTuple):
    """A span whose facts can never be booked, with the reason."""

    reason: str


class DeadLetter(NamedTuple):
    """A span that cannot be booked as it is, with the reason."""

    span: Span
    reason: str


class LinePrice(NamedTuple):
    """The prices of one of the other lines of a call; empty if it has no price."""

    provider: str = ""
    """Provider and model in the price book."""
    model: str = ""
    price_version_ids: str = ""
    """JSON list."""


class UnpricedUnit(NamedTuple):
    """A unit that a call used and that has no price."""

    part: int
    """0 is the call itself, 1 is the first of its other lines."""
    unit: str
    quantity: int


class Particulars(NamedTuple):
    """Pricing results for a call that has unusual facts, or that has a part without a price."""

    lines: tuple[LinePrice, ...] = ()
    """The prices of `UsageRecord.other_lines`."""
    unpriced: tuple[UnpricedUnit, ...] = ()
    list_cost_nanousd: int | None = None
    """The cost by the price book if the provider states its own cost; None if unknown."""
    at_stake_nanousd: int | None = None
    """By how much the other reading of the counts would change the cost; None if the counts are consistent."""
    estimate_nanousd: int | None = None
    """The estimated cost of a call whose end was not seen; None if it cannot be priced."""


class PricedUsage(NamedTuple):
    """A usage record with its cost and charge, or the reason why it has neither."""

    usage: UsageRecord
    verdict: Verdict
    reason: str
    priced_at_ns: int
    """The time whose prices were used."""
    provider: str
    """Provider in the price book; as reported if the book does not know it."""
    model: str
    """Model in the price book; as reported if the book does not know it."""
    cost_nanousd: int | None
    charge_nanocredits: int | None
    price_version_ids: str
    """JSON list of the price versions that apply; empty if nothing was priced."""
    rule_version_id: int | None
    assumptions: tuple[str, ...]
    action_floor_nanocredits: int | None = None
    """The minimum charge that the call's rule sets for the whole action, which may be 0; then `charge_nanocredits` is
    this call's share before the ledger looks at the action. None if the call is charged by itself."""
    particulars: Particulars | None = None
    """None for an ordinary call."""


class PriceVersion(NamedTuple):
    """One immutable row of the price book: the price of one unit of one model during a period."""

    id: int
    provider: str
    model: str
    unit: str
    """A kind of token or another unit of `units.UNITS`."""
    over_input_tokens: int
    """Applies to the whole call if its inclusive input exceeds this many tokens; 0 is the base price."""
    daily_from_s: int
    daily_to_s: int
    """UTC seconds of the day between which the price applies, half-open; equal means all day."""
    usd_per_1k: Decimal
    valid_from_ns: int
    valid_to_ns: int | None
    """Half-open validity; None is open-ended."""
    source: str
    source_version: str
    condition: str = STANDARD
    """How the call was processed: `standard`, a service tier such as `batch`, a speed, a region; see
    `pricing.conditions`."""
    currency: str = "USD"
    original_per_1k: Decimal | None = None
    """The price in the provider's own currency; None if it is in US dollars."""
    usd_per_currency: Decimal = Decimal(1)
    """The exchange rate that converted the price to US dollars when it was recorded."""
    tenant_id: int | None = None
    """The tenant whose negotiated price this is; None for the list price."""
    weekdays: int = 0
    """UTC days of the week on which it applies, Monday 1, Tuesday 2, Wednesday 4, … Sunday 64; 0 is every day."""


class CatalogueRow(NamedTuple):
    """One price as a list states it; see `PriceVersion` for the fields."""

    provider: str
    model: str
    unit: str
    over_input_tokens: int
    daily_from_s: int
    daily_to_s: int
    usd_per_1k: Decimal
    valid_from_ns: int
    valid_to_ns: int | None
    condition: str = STANDARD
    currency: str = "USD"
    original_per_1k: Decimal | None = None
    usd_per_currency: Decimal = Decimal(1)
    weekdays: int = 0


class PricedModel(NamedTuple):
    """How a model of the price book is recognised: `match` is a clause such as {"starts_with": "gpt-4o"}."""

    provider: str
    model: str
    position: int
    """Matches are tried in this order; the first match wins."""
    match: str
    """JSON of the clause: equals, starts_with, ends_with, contains, regex, or, and."""


class ChargeRule(NamedTuple):
    """One immutable version of what an event costs in credits. `*` covers events without a rule."""

    id: int
    event: str
    kind: str
    """`flat`, `per_1k_tokens` or `cost_plus`; see `pricing.rules`."""
    multiplier: Decimal
    """`cost_plus`: multiplier of the provider's cost, converted at `usd_per_credit`."""
    usd_per_credit: Decimal
    valid_from_ns: int
    valid_to_ns: int | None
    minimum_credits: Decimal = Decimal(0)
    """`cost_plus`: the minimum charge of an action."""
    flat_credits: Decimal = Decimal(0)
    """`flat`: the charge of an action."""
    input_credits_per_1k: Decimal = Decimal(0)
    cached_credits_per_1k: Decimal = Decimal(0)
    output_credits_per_1k: Decimal = Decimal(0)
    """`per_1k_tokens`: the charge for 1,000 tokens of input, cached input and output."""
