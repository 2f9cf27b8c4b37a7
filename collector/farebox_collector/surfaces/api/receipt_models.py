"""What a receipt says: models of the API, and all that `receipt_check` works it out again from."""

from pydantic import BaseModel, Field

from farebox_collector.surfaces.api.context import Amount


class ReceiptPrice(BaseModel):
    """The price version that a line uses."""

    version_id: int
    provider: str
    model: str
    unit: str
    usd_per_1k: str
    condition: str = Field(description="`standard`, or what it is for: a service tier, a speed, `standard@us`, …")
    over_input_tokens: int
    daily_from: str | None = Field(description="UTC time of day between which it holds; null for all day.")
    daily_to: str | None
    weekdays: str = Field("", description="UTC days of the week on which it holds; empty is every day.")
    valid_from: str
    valid_to: str | None
    scope: str = Field(description="`list`, or `negotiated` for a price of this tenant alone.")
    currency: str
    original_per_1k: str | None = Field(description="The price in its own currency; null if that is USD.")
    usd_per_currency: str | None = Field(description="usd_per_1k is original_per_1k times this.")
    source: str
    source_version: str


class ReceiptLine(BaseModel):
    """count × usd_per_1k ÷ divisor."""

    part: int = Field(0, description="0 is the call itself, 1 the first of `other_parts`.")
    unit: str
    count: int
    price: ReceiptPrice
    divisor: int = Field(description="1,000, or 3,600,000 for seconds that are priced by the hour.")
    exact_usd: str = Field(description="Exact, but for seconds priced by the hour: those have 60 digits.")


class ReceiptPart(BaseModel):
    """A part of the answer that another model made, billed at that model's prices."""

    part: int = Field(description="Its lines have the same number.")
    label: str
    provider: str = Field(description="Provider and model in the price book; as reported where it has no price.")
    model: str
    service_tier: str
    speed: str
    inference_region: str
    inclusive_input_tokens: int
    buckets: dict[str, int]
    units: dict[str, int]


class ReceiptUnpriced(BaseModel):
    """Something that the call used and that has no price yet: it settles by a correction when it gets one."""

    part: int
    unit: str
    count: int


class ReceiptAction(BaseModel):
    """An action is charged max(floor, sum of its calls' shares); a call is charged what it added to that."""

    action_id: str
    share_credits: Amount = Field(description="What the call would be charged without a floor.")
    floor_credits: Amount = Field(description="What the action is charged at least.")
    calls_before: int = Field(description="Calls of the action that were recorded before this one.")
    shares_before_credits: Amount = Field(description="The sum of their shares.")


class ReceiptCharge(BaseModel):
    """How the rule made a charge of the call; figures that its kind has no use for are "0".

    `cost_plus`: cost × multiplier ÷ usd_per_credit. `per_1k_tokens`: tokens in, cached and out × their credits ÷ 1,000.
    `flat` and a minimum are asked for once an action: `action` says how that came out.
    """

    rule_version_id: int
    rule_event: str
    kind: str
    multiplier: str
    minimum_credits: str
    flat_credits: str
    input_credits_per_1k: str
    cached_credits_per_1k: str
    output_credits_per_1k: str
    usd_per_credit: str
    rounding: str
    action: ReceiptAction | None = Field(description="Where calls of an action are charged as one.")
    charge_credits: Amount


class ReceiptCorrection(BaseModel):
    """What the record said before, and what it said from then on; amounts are null where nothing was charged."""

    cause: str = Field(description="`replay`, `late_price`, `twin`, `agent` or `action`.")
    recorded_at: str
    transaction_id: int | None = Field(description="What posted the difference; null where no money moved.")
    verdict_before: str
    verdict_after: str
    cost_before_usd: Amount | None
    cost_after_usd: Amount | None
    charge_before_credits: Amount | None
    charge_after_credits: Amount | None


class Receipt(BaseModel):
    """Everything that the charge of one call was worked out from."""

    trace_id: str
    span_id: str
    wallet: str
    event: str
    verdict: str
    reason: str
    dialect: str
    provider: str
    model: str
    service_tier: str
    speed: str
    inference_region: str
    inclusive_input_tokens: int | None = Field(description="All tokens that went in: what decides about long context.")
    started_at: str
    priced_at: str = Field(description="The moment whose prices and rule apply.")
    buckets: dict[str, int] | None = Field(description="Disjoint token counts; reasoning is part of output.")
    units: dict[str, int] = Field(description="What else the call is billed by.")
    assumptions: list[str]
    lines: list[ReceiptLine]
    other_parts: list[ReceiptPart] = Field([], description="Parts of the answer that other models made.")
    unpriced: list[ReceiptUnpriced] = Field([], description="What has no price; the rest is charged.")
    rounding: str
    list_cost_usd: Amount | None = Field(None, description="What the lines come to; null without any.")
    stated_cost_usd: Amount | None = Field(None, description="What the provider itself says that the call costs.")
    stated_difference_usd: Amount | None = Field(None, description="stated_cost_usd less list_cost_usd.")
    at_stake_usd: Amount | None = Field(
        None, description="By how much the other reading of the counts would change it."
    )
    estimated_cost_usd: Amount | None = Field(None, description="Of a call whose end was not seen; it is no cost.")
    cost_usd: Amount | None
    charge: ReceiptCharge | None
    corrections: list[ReceiptCorrection] = Field(description="How the record came to say this, oldest first.")
