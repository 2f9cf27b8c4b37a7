"""Estimate a call's cost from genai-prices' bundled prices. The collector's cost is authoritative."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from farebox import span_attributes

CURRENCY: Final = "USD"

# OpenTelemetry's names that genai-prices does not know or maps to another provider; tried in order.
_PRICED_AS: Final = {
    "aws.bedrock": ("aws",),
    "azure.ai.inference": ("azure",),
    "azure.ai.openai": ("azure", "openai"),
    "gcp.gemini": ("google",),
    "gcp.gen_ai": ("google",),
    "gcp.vertex_ai": ("google",),
    "mistral_ai": ("mistral",),
    "moonshot_ai": ("moonshotai",),
    "x_ai": ("x-ai",),
}

_USAGE: Final = {
    span_attributes.USAGE_INPUT: "input_tokens",
    span_attributes.USAGE_OUTPUT: "output_tokens",
    span_attributes.USAGE_CACHE_READ: "cache_read_tokens",
    span_attributes.USAGE_CACHE_WRITE_BEFORE_1_42: "cache_write_tokens",
    span_attributes.USAGE_CACHE_WRITE: "cache_write_tokens",
    span_attributes.ANTHROPIC_CACHE_WRITE_1H: "cache_write_1h_tokens",
    span_attributes.USAGE_INPUT_AUDIO: "input_audio_tokens",
    span_attributes.USAGE_OUTPUT_AUDIO: "output_audio_tokens",
    span_attributes.USAGE_INPUT_IMAGE: "input_image_tokens",
    span_attributes.USAGE_OUTPUT_IMAGE: "output_image_tokens",
    **{span_attributes.UNITS + unit: unit for unit in span_attributes.UNITS_WRITTEN if unit != "images"},
}
_PRICED_BY_OTHERS: Final = (
    span_attributes.USAGE_CACHE_READ_AUDIO,
    span_attributes.USAGE_CACHE_READ_IMAGE,
    span_attributes.USAGE_INFERENCE_REGION,
    span_attributes.USAGE_LINES,
    span_attributes.USAGE_SERVICE_TIER,
    span_attributes.USAGE_SPEED,
    *(
        span_attributes.UNITS + unit
        for unit in (
            "advanced_web_searches",
            "browser_automations",
            "container_sessions",
            "document_searches",
            "preview_web_searches",
            "web_visits",
        )
    ),
)
"""Units without a price in genai-prices; the collector has one."""
_PLAIN: Final = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"})


def cost_attributes(attributes: Mapping[str, Any], started_at: datetime) -> dict[str, float | str]:
    """Return a call's cost as span attributes; empty if usage or price is unknown.

    Takes up to 100 µs; do not run it in the calling thread.

    Args:
        attributes: attributes of the call's span.
        started_at: the start of the call, with a time zone; prices change.

    Returns:
        ``farebox.cost_actual`` in USD for the call, ``farebox.cost_per_1k`` in USD per 1,000 input and output
        tokens, if any, and ``farebox.currency``. Images billed by the piece have no price here.
    """
    usage = _usage(attributes)
    if any(key in attributes for key in _PRICED_BY_OTHERS):
        return {}
    if not usage or not span_attributes.is_inference(attributes):
        return {}
    provider = str(attributes.get(span_attributes.PROVIDER_NAME, ""))
    for priced_as in _PRICED_AS.get(provider, (provider,)):
        cost_usd = _cost_usd(attributes, usage, priced_as, started_at)
        if cost_usd is not None:
            cost: dict[str, float | str] = {span_attributes.COST_ACTUAL: cost_usd}
            if tokens := usage.get("input_tokens", 0) + usage.get("output_tokens", 0):
                cost[span_attributes.COST_PER_1K] = cost_usd * 1000 / tokens
            return {**cost, span_attributes.CURRENCY: CURRENCY}
    return {}


def started_at(start_time_ns: int | None) -> datetime:
    """Convert a span's start, in nanoseconds since the epoch, to a datetime. An ended span always has one."""
    return datetime.fromtimestamp((start_time_ns or 0) / 1e9, tz=UTC)


def _usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Return the non-zero usage by genai-prices' names."""
    usage: dict[str, int] = {}
    for key, name in _USAGE.items():
        value = attributes.get(key)
        if isinstance(value, int) and value > 0:
            usage[name] = value
    if (seconds := usage.get("audio_seconds")) is not None:
        usage["input_audio_seconds"] = seconds  # models have either of the two prices
    return usage


def _cost_usd(attributes: Mapping[str, Any], usage: Mapping[str, int], provider_id: str, at: datetime) -> float | None:
    # Imported here to load the prices of 2,300 models in the delivery thread, not in the application's.
    from genai_prices import Usage
    from genai_prices.data_snapshot import get_snapshot

    name = attributes.get(span_attributes.RESPONSE_MODEL) or attributes.get(span_attributes.REQUEST_MODEL)
    if not name or not provider_id:
        return None
    tier = attributes.get(span_attributes.OPENAI_SERVICE_TIER)
    context = {"service_tier": str(tier)} if tier else None
    try:
        provider, model = get_snapshot().find_provider_model(str(name), None, provider_id, None)
        # As genai-prices does: another provider's model has no price in this provider's tiers.
        own = context is not None and any(model is one for one in provider.models)
        cost_usd = _plain_cost_usd(vars(model.get_prices(at, context if own else None)), usage)
        if cost_usd is None:
            details: Any = {"genai_request_timestamp": at, "price_context": context}
            cost_usd = model.calc_price(Usage(**usage), provider, **details).total_price
    except (LookupError, ValueError):
        # Unknown model or provider, or contradictory counts: no estimate is better than a wrong one.
        return None
    # A model without prices costs exactly zero, as does a free one, whose estimate is not missed.
    return float(cost_usd) or None


def _plain_cost_usd(prices: Mapping[str, Any], usage: Mapping[str, int]) -> Decimal | None:
    """Return the cost of a call with only text and cache at flat prices, as nearly all are.

    Returns None to leave it to genai-prices, which handles all units and takes ten times as long.
    """
    text, out = prices.get("input_mtok"), prices.get("output_mtok")
    if not usage.keys() <= _PLAIN or not isinstance(text, Decimal) or prices.get("requests_kcount") is not None:
        return None
    read, write = prices.get("cache_read_mtok", text), prices.get("cache_write_mtok", text)
    if not (isinstance(out, Decimal) and isinstance(read, Decimal) and isinstance(write, Decimal)):
        return None
    cached, written = usage.get("cache_read_tokens", 0), usage.get("cache_write_tokens", 0)
    uncached = usage.get("input_tokens", 0) - cached - written
    if uncached < 0 or (written and prices.get("cache_write_5m_mtok") is not None):
        return None
    return (uncached * text + cached * read + written * write + usage.get("output_tokens", 0) * out) / 1_000_000
