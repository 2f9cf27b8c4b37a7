"""The vocabulary: immutable facts that travel from the wire to the ledger. No I/O, no clock, no behaviour.

Times are integer Unix nanoseconds (UTC) and end in `_ns`; money ends in its unit (see `money.py`).
Named tuples rather than frozen dataclasses: several are made for every span, and a tuple costs a quarter as much.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from farebox_collector.model.verdicts import Verdict

AttributeValue = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, AttributeValue]

DEFAULT_TENANT_ID = 1
UNATTRIBUTED = "unattributed"
"""The wallet that pays for calls whose span names nobody."""
STANDARD = "standard"
"""The condition of a price that holds for calls without a service tier of their own."""
IMPLAUSIBLE = "count_over_a_billion"
"""Said of a call that is kept without its counts, since one of them is more than a call can have used."""
NO_EVENT = "unnamed"
"""The event of a call that was made outside any named action."""


class Span(NamedTuple):
    """One span as it came, reduced to the attributes that some dialect reads; prompts never get this far."""

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


class Buckets(NamedTuple):
    """Disjoint token counts of one call. `reasoning` alone is a memo: it is part of `output`, never added to it."""

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
        """All tokens that went in, cached or not: what long-context thresholds look at."""
        cache = self.cache_read + self.cache_write + self.cache_write_1h
        return self.input + cache + self.input_audio + self.input_image

    @property
    def total(self) -> int:
        """All tokens of the call."""
        return self.inclusive_input + self.output + self.output_audio + self.output_image


NO_TOKENS = Buckets()


class ModelLine(NamedTuple):
    """A part of an answer that another model made, which has a price of its own: an advisor, a compaction, an image."""

    label: str
    """What made it necessary, as the sender calls it: `advisor`, `compaction`, `image_generation`."""
    provider: str
    """As the span names it; empty means the provider of the call."""
    model: str
    service_tier: str = ""
    speed: str = ""
    inference_region: str = ""
    buckets: Buckets = NO_TOKENS
    """None of these tokens is in the buckets of the call."""
    units: tuple[tuple[str, int], ...] = ()
    """What else the line is billed by; as `units.billable_units` gives it."""


class Quality(NamedTuple):
    """How good an answer was, as far as somebody said: 1 is yes, 0 is no, None is that nobody said."""

    cache_hit: int | None = None
    """Whether a cache spared the model some or all of the work."""
    citation_rate_ppm: int | None = None
    """The share of the answer's claims that cite a source, in parts per million."""
    human_reviewed: int | None = None
    review_approved: int | None = None
    """What the reviewer found; an approval implies a review."""


NO_QUALITY = Quality()


class UsageRecord(NamedTuple):
    """One model call as a dialect understood it: who, what, model, tokens, latency, outcome, tags."""

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
    """As the span names it; the price book knows the aliases."""
    request_model: str
    response_model: str
    response_id: str
    service_tier: str
    error_type: str
    """Empty for a call that succeeded."""
    buckets: Buckets | None
    """None when the span reports no usage at all."""
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
    """What had to be assumed to read this span; shown on the receipt."""
    units: tuple[tuple[str, int], ...] = ()
    """What else the call is billed by, such as (("web_searches", 2),); as `units.billable_units` gives it."""
    quality: Quality = NO_QUALITY
    scope: str = ""
    """Who made the span: the name of its instrumentation scope."""
    user_id: str = ""
    """Who spends from a wallet of several; empty where the wallet itself is the user."""
    # What few calls have; it rests in one column of the books (`ledger.unusual`).
    speed: str = ""
    """How fast the provider processed the call, such as `fast`; empty is the standard speed."""
    inference_region: str = ""
    """Where the provider processed the call, if it bills by that: `us`, `eu`. Empty is anywhere."""
    other_lines: tuple[ModelLine, ...] = ()
    """Parts of the answer that other models made."""
    stated_cost_nanousd: int | None = None
    """What the provider itself says that it charges for the call."""
    other_reading: Buckets | None = None
    """If the counts contradict each other: how else they can be read. `buckets` is the reading that was chosen."""
    exposure: str = ""
    """Why the end of the call was not seen, such as `timeout`; then `buckets` is an estimate. Empty for other calls."""


class QualityReport(NamedTuple):
    """What somebody found out about the answer of a trace after its calls had ended."""

    trace_id: bytes
    """With `span_id`, the report's own span."""
    span_id: bytes
    subject_trace_id: bytes
    """The trace that the report is about."""
    quality: Quality


class NotBillable(NamedTuple):
    """A span that is no model call, with the reason."""

    reason: str


class Rejected(NamedTuple):
    """A span whose facts can never be booked, with the reason."""

    reason: str


class DeadLetter(NamedTuple):
    """A span that can never be booked as it is, with the reason."""

    span: Span
    reason: str


class LinePrice(NamedTuple):
    """What prices one of the other lines of a call; empty where it has no price."""

    provider: str = ""
    """Provider and model in the price book."""
    model: str = ""
    price_version_ids: str = ""
    """JSON list."""


class UnpricedUnit(NamedTuple):
    """What a call used and has no price for."""

    part: int
    """0 is the call itself, 1 is the first of its other lines."""
    unit: str
    quantity: int


class Particulars(NamedTuple):
    """What pricing made of a call that has unusual facts, or of which something has no price."""

    lines: tuple[LinePrice, ...] = ()
    """The prices of `UsageRecord.other_lines`."""
    unpriced: tuple[UnpricedUnit, ...] = ()
    list_cost_nanousd: int | None = None
    """What the call costs by the price book, where the provider states a cost of its own; None if unknown."""
    at_stake_nanousd: int | None = None
    """By how much the cost would differ by the other reading of its counts; None where they are clear."""
    estimate_nanousd: int | None = None
    """What a call may cost whose end was not seen; None where it cannot be priced."""


class PricedUsage(NamedTuple):
    """A usage record with what it costs and what it is charged, or why it is neither."""

    usage: UsageRecord
    verdict: Verdict
    reason: str
    priced_at_ns: int
    """The moment whose prices were used."""
    provider: str
    """Provider in the price book; as reported where the book does not know it."""
    model: str
    """Model in the price book; as reported where the book does not know it."""
    cost_nanousd: int | None
    charge_nanocredits: int | None
    price_version_ids: str
    """JSON list of the price versions that apply; empty where nothing was priced."""
    rule_version_id: int | None
    assumptions: tuple[str, ...]
    action_floor_nanocredits: int | None = None
    """What the call's rule asks for its action at least, in all, which may be 0; then `charge_nanocredits` is this
    call's share before the ledger looks at the action. None where the call is charged by itself."""
    particulars: Particulars | None = None
    """None for an ordinary call."""


class PriceVersion(NamedTuple):
    """One immutable row of the price book: what one unit of one model costs during a span of time."""

    id: int
    provider: str
    model: str
    unit: str
    """A kind of token or another unit of `units.UNITS`."""
    over_input_tokens: int
    """Applies to the whole call when its inclusive input is over this many tokens; 0 is the base price."""
    daily_from_s: int
    daily_to_s: int
    """UTC seconds of the day between which it applies, half-open; equal means all day."""
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
    """What the provider asks for in its own currency; None in US dollars."""
    usd_per_currency: Decimal = Decimal(1)
    """The exchange rate by which the price became US dollars when it was recorded."""
    tenant_id: int | None = None
    """Whose negotiated price it is; None is the list price."""
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
    """Matches are tried in this order; the first wins."""
    match: str
    """JSON of the clause: equals, starts_with, ends_with, contains, regex, or, and."""


class ChargeRule(NamedTuple):
    """One immutable version of what an event costs in credits. `event` may be `*`, which catches the rest."""

    id: int
    event: str
    kind: str
    """`flat`, `per_1k_tokens` or `cost_plus`; see `pricing.rules`."""
    multiplier: Decimal
    """`cost_plus`: times the provider's cost, converted at `usd_per_credit`."""
    usd_per_credit: Decimal
    valid_from_ns: int
    valid_to_ns: int | None
    minimum_credits: Decimal = Decimal(0)
    """`cost_plus`: an action is charged at least this much."""
    flat_credits: Decimal = Decimal(0)
    """`flat`: what an action is charged."""
    input_credits_per_1k: Decimal = Decimal(0)
    cached_credits_per_1k: Decimal = Decimal(0)
    output_credits_per_1k: Decimal = Decimal(0)
    """`per_1k_tokens`: what 1,000 tokens are charged that went in, were read from a cache, came out."""
