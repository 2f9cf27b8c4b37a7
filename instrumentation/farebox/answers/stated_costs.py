"""Read the costs that providers state in the usage of a call."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from farebox.answers.counts import amount_in, mapping_in

_TICKS: Final = Decimal(10) ** 10
"""xAI's ticks per US dollar."""
_XAI: Final = frozenset({"x_ai", "xai", "x-ai"})
STATING: Final = {
    "openrouter": b'"cost"',
    **dict.fromkeys(_XAI, b'"cost_in_usd_ticks"'),
    "perplexity": b'"total_cost"',
}
"""Providers with the key of the stated cost in their answers."""


def stated_cost(provider: str, usage: Mapping[str, Any]) -> Decimal | None:
    """Return the provider's stated charge in US dollars, including all fees; None if not stated."""
    if provider == "openrouter":
        return _openrouters(usage)
    if provider in _XAI:
        ticks = amount_in(usage.get("cost_in_usd_ticks"), most=10**19)
        return None if ticks is None else ticks / _TICKS
    if provider == "perplexity":
        return amount_in(mapping_in(usage.get("cost")).get("total_cost"))
    return None


def _openrouters(usage: Mapping[str, Any]) -> Decimal | None:
    """Return the whole charge, including what the user's own provider key pays."""
    cost = amount_in(usage.get("cost"))
    if cost is not None and usage.get("is_byok") is True:
        cost += amount_in(mapping_in(usage.get("cost_details")).get("upstream_inference_cost")) or 0
    return cost
