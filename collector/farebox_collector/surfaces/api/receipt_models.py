"""API models of a receipt; `receipt_check` recomputes a receipt from them alone."""

from pydantic import BaseModel, Field

from farebox_collector.surfaces.api.context import Amount


class ReceiptPrice(BaseModel):
    """The price version of a line."""

    version_id: int
    provider: str
    model: str
    unit: str
    usd_per_1k: str
    condition: str = Field(description="`standard`, or a service tier, a speed, `standard@us`, …")
    over_input_tokens: int
    daily_from: str | None = Field(description="Start of its UTC time of day; null for all day.")
    daily_to: str | None
    weekdays: str = Field("", description="Its UTC days of the week; empty for every day.")
    valid_from: str
    valid_to: str | None
    scope: str = Field(description="`list`, or `negotiated` for a price of this tenant only.")
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
    exact_usd: str = Field(description="Exact, except seconds priced by the hour: 60 digits.")


class ReceiptPart(BaseModel):
    """A part of the answer made by another model, at that model's prices."""

    part: int = Field(description="The part number of its lines.")
    label: str
    provider: str = Field(description="Provider and model in the price book; as reported if unpriced.")
    model: str
    service_tier: str
    speed: str
    inference_region: str
    inclusive_input_tokens: int
    buckets: dict[str, int]
    units: dict[str, int]


class ReceiptUnpriced(BaseModel):
    """Usage without a price yet; a correction settles it once it has one."""

    part: int
    unit: str
    count: int


class ReceiptAction(BaseModel):
    """An action is charged max(floor, sum of its calls' shares); a call is charged its increase of that."""

    action_id: str
    share_credits: Amount = Field(description="The call's charge without a floor.")
    floor_credits: Amount = Field(description="The action's minimum charge.")
    calls_before: int = Field(description="Calls of the action recorded before this one.")
    shares_before_credits: Amount = Field(description="The sum of their shares.")


class ReceiptCharge(BaseModel):
    """How the rule computed the call's charge; figures that its kind does not use are "0".

    `cost_plus`: cost × multiplier ÷ usd_per_credit. `per_1k_tokens`: tokens in, cached and out × their credits ÷ 1,000.
    `flat` and a minimum apply once per action: `action` shows the computation.
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
    action: ReceiptAction | None = Field(description="Present if an action's calls are charged together.")
    charge_credits: Amount


class ReceiptCorrection(BaseModel):
    """A record before and after a correction; amounts are null if nothing was charged."""

    cause: str = Field(description="`replay`, `late_price`, `twin`, `agent` or `action`.")
    recorded_at: str
    transaction_id: int | None = Field(description="The transaction of the difference; null if no money moved.")
    verdict_before: str
    verdict_after: str
    cost_before_usd: Amount | None
    cost_after_usd: Amount | None
    charge_before_credits: Amount | None
    charge_after_credits: Amount | None


class Receipt(BaseModel):
    """Everything that the charge of a call was computed from."""

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
    inclusive_input_tokens: int | None = Field(description="All input tokens; decides long-context prices.")
    started_at: str
    priced_at: str = Field(description="The time whose prices and rule apply.")
    buckets: dict[str, int] | None = Field(description="Disjoint token counts; reasoning is part of output.")
    units: dict[str, int] = Field(description="Other billed units.")
    assumptions: list[str]
    lines: list[ReceiptLine]
    other_parts: list[ReceiptPart] = Field([], description="Parts of the answer made by other models.")
    unpriced: list[ReceiptUnpriced] = Field([], description="Usage without a price; the rest is charged.")
    rounding: str
    list_cost_usd: Amount | None = Field(None, description="The lines' sum; null without lines.")
    stated_cost_usd: Amount | None = Field(None, description="The cost stated by the provider.")
    stated_difference_usd: Amount | None = Field(None, description="stated_cost_usd less list_cost_usd.")
    at_stake_usd: Amount | None = Field(None, description="The cost difference under the other reading of the counts.")
    estimated_cost_usd: Amount | None = Field(None, description="For a call whose end was not observed; not a cost.")
    cost_usd: Amount | None
    charge: ReceiptCharge | None
    corrections: list[ReceiptCorrection] = Field(description="Corrections of the record, oldest first.")
