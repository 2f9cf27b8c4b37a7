"""Price conditions: how the provider processed a call, as one text. Pure.

A condition is `standard`, a service tier (`batch`), a speed (`fast`), or both (`batch+fast`), optionally followed by
`@` and the billing region: `standard@us`, `fast@us`. The region `*` means every region that a call names. Texts are
lower case, and each condition has exactly one text.
"""

from collections.abc import Sequence

from farebox_collector.model.records import STANDARD

STANDARD_TIERS = frozenset(
    {
        "",
        "default",
        STANDARD,
        "auto",
        "on_demand",
        "on-demand",
        "standard_only",
        "service_tier_standard",
        "service_tier_unspecified",
        "traffic_type_unspecified",
    }
)
"""Providers' names for the service tier and speed that have the standard price."""
GLOBAL_REGIONS = frozenset({"", "global", "not_available", "unspecified"})
"""Providers' names for the region that has the standard price: anywhere."""
ANY_REGION = "*"
MAX_CONDITION = 80
"""Longest text of a condition."""
_TIER_NAMES = {
    "batches": "batch",
    "batch_api": "batch",
    "latency_optimized": "optimized",
    "latency-optimized": "optimized",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
    "service_tier_flex": "flex",
    "service_tier_priority": "priority",
}


def condition_of(tier: str, speed: str = "", region: str = "") -> str:
    """Return the condition of a call from its service tier, speed and region as the span names them."""
    tier, speed, region = tier.strip().lower(), speed.strip().lower(), region.strip().lower()
    parts = [_TIER_NAMES.get(part, part) for part in (tier, speed) if part not in STANDARD_TIERS]
    head = "+".join(dict.fromkeys(parts)) or STANDARD
    return head if region in GLOBAL_REGIONS else f"{head}@{region}"


def canonical(condition: str) -> str:
    """Normalise a condition that a person or a price list wrote."""
    head, _, region = condition.partition("@")
    tier, _, speed = head.partition("+")
    return condition_of(tier, speed, region)


def chain(condition: str) -> tuple[str, ...]:
    """Return the conditions whose prices may serve a call, the best first; `standard` is last.

    Processing takes precedence over region: a price of the tier without the region comes before a price of the region
    without the tier.
    """
    head, _, region = condition.partition("@")
    processings = [head] if head != STANDARD else []
    tier, plus, speed = head.partition("+")
    if plus:
        processings += [speed, tier]
    regions = [f"@{region}", f"@{ANY_REGION}"] if region else []
    found = [f"{processing}{where}" for processing in [*processings, STANDARD] for where in [*regions, ""]]
    return tuple(dict.fromkeys(found))


def lacking(asked: str, found: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the flags for prices of the condition `found` that serve a call of the condition `asked`.

    A missing region is flagged only if one of the model's conditions, `known`, has a region: providers also report a
    region for models that cost the same everywhere.
    """
    if asked == found:
        return ()
    (head, _, region), (found_head, _, found_region) = asked.partition("@"), found.partition("@")
    flags: tuple[str, ...] = ()
    parts, found_parts = head.split("+"), found_head.split("+")
    if any(part not in found_parts and part != STANDARD for part in parts):
        flags = (TIER_FLAG,)
    if region and found_region not in (region, ANY_REGION) and any("@" in one for one in known):
        flags += (REGION_FLAG,)
    return flags


TIER_FLAG = "service_tier_at_standard_price"
REGION_FLAG = "inference_region_at_standard_price"
