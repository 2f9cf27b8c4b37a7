"""Estimates what a call costs, from the prices bundled with genai-prices. The collector has the last word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from farebox import span_attributes

CURRENCY: Final = "USD"

# OpenTelemetry's names that genai-prices does not know, or takes for another provider; tried in order.
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


def cost_attributes(attributes: Mapping[str, Any], started_at: datetime) -> dict[str, float | str]:
    """The cost of a call as span attributes; empty when its usage or its price is not known.

    Takes about 80 µs, so this is not for the thread that makes the call.

    Args:
        attributes: of the span of the call.
        started_at: when the call started, with a time zone; prices change.

    Returns:
        ``farebox.cost_actual`` in USD for the call, ``farebox.cost_per_1k`` in USD for 1,000 tokens of it,
        input and output taken together, and ``farebox.currency``.
    """
    tokens = _tokens(attributes, span_attributes.USAGE_INPUT) + _tokens(attributes, span_attributes.USAGE_OUTPUT)
    if tokens == 0 or not span_attributes.is_inference(attributes):
        return {}
    provider = str(attributes.get(span_attributes.PROVIDER_NAME, ""))
    for priced_as in _PRICED_AS.get(provider, (provider,)):
        cost_usd = _cost_usd(attributes, priced_as, started_at)
        if cost_usd is not None:
            return {
                span_attributes.COST_ACTUAL: cost_usd,
                span_attributes.COST_PER_1K: cost_usd * 1000 / tokens,
                span_attributes.CURRENCY: CURRENCY,
            }
    return {}


def started_at(start_time_ns: int | None) -> datetime:
    """A span's start, nanoseconds since the epoch, as a time. A span always has one by the time it ends."""
    return datetime.fromtimestamp((start_time_ns or 0) / 1e9, tz=UTC)


def _tokens(attributes: Mapping[str, Any], key: str) -> int:
    value = attributes.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _cost_usd(attributes: Mapping[str, Any], provider: str, at: datetime) -> float | None:
    # Imported here because it loads the prices of 2,300 models, in the delivery thread and not in the
    # application's.
    from genai_prices import Usage, calc_price

    model = attributes.get(span_attributes.RESPONSE_MODEL) or attributes.get(span_attributes.REQUEST_MODEL)
    if not model or not provider:
        return None
    cache_write = _tokens(attributes, span_attributes.USAGE_CACHE_WRITE)
    usage = Usage(
        input_tokens=_tokens(attributes, span_attributes.USAGE_INPUT),
        output_tokens=_tokens(attributes, span_attributes.USAGE_OUTPUT),
        cache_read_tokens=_tokens(attributes, span_attributes.USAGE_CACHE_READ),
        cache_write_tokens=cache_write or _tokens(attributes, span_attributes.USAGE_CACHE_WRITE_BEFORE_1_42),
        cache_write_1h_tokens=_tokens(attributes, span_attributes.ANTHROPIC_CACHE_WRITE_1H),
    )
    tier = attributes.get(span_attributes.OPENAI_SERVICE_TIER)
    try:
        price = calc_price(
            usage,
            str(model),
            provider_id=provider,
            genai_request_timestamp=at,
            price_context={"service_tier": str(tier)} if tier else None,
        )
    except (LookupError, ValueError):
        # An unknown model or provider, or counts that contradict each other: no estimate is better than a
        # wrong one.
        return None
    # A model whose prices are empty comes out at exactly zero; so does a free one, which is no loss to
    # leave out.
    return float(price.total_price) or None
