"""Priced calls, made directly: what the ledger gets from pricing."""

from typing import Any

from farebox_collector.model.records import Buckets, Particulars, PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict

START_NS = 1_767_300_000 * 10**9
SECOND_NS = 10**9


def call(
    number: int = 1,
    *,
    trace: int = 1,
    parent: int = 0,
    wallet: str = "ada",
    event: str = "chat",
    cost_nanousd: int = 100,
    response_id: str = "",
    start_ns: int = START_NS,
    latency_ns: int = SECOND_NS,
    verdict: Verdict = Verdict.CHARGED,
    buckets: Buckets | None = Buckets(input=10, output=5),  # noqa: B008  (immutable)
    error_type: str = "",
    model: str = "m",
    assumptions: tuple[str, ...] = (),
) -> PricedUsage:
    """A call with small numbers for ids; a charged one costs `cost_nanousd` and charges three times that."""
    usage = UsageRecord(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        started_at_ns=start_ns,
        latency_ns=latency_ns,
        wallet=wallet,
        event=event,
        action_id="",
        operation="chat",
        provider="p",
        request_model=model,
        response_model=model,
        response_id=response_id,
        service_tier="",
        error_type=error_type,
        buckets=buckets,
        summary=False,
        time_to_first_chunk_ns=None,
        dept="",
        project="",
        task="",
        route="",
        region="",
        dialect="genai",
        assumptions=assumptions,
    )
    charged = verdict is Verdict.CHARGED
    return PricedUsage(
        usage=usage,
        verdict=verdict,
        reason="" if charged else "a reason",
        priced_at_ns=start_ns,
        provider="p",
        model=model,
        cost_nanousd=cost_nanousd if charged else None,
        charge_nanocredits=3 * cost_nanousd if charged else None,
        price_version_ids="[1]" if charged else "",
        rule_version_id=1 if charged else None,
        assumptions=assumptions,
    )


def agent_call(number: int, person: str, session: str, tool: str = "claude_code", **more: Any) -> PricedUsage:
    """A call of a tool, with 60 of 100 input tokens from a cache."""
    usage: dict[str, Any] = {
        "dialect": tool,
        "wallet": "team",
        "user_id": person,
        "action_id": session,
        "project": "shop",
        "buckets": Buckets(input=40, cache_read=60, output=7),
    }
    made = call(number, trace=number, start_ns=more.pop("start_ns", START_NS))
    return made._replace(usage=made.usage._replace(**(usage | more)))


def subscribed(made: PricedUsage, list_nanousd: int) -> PricedUsage:
    """The same call under a subscription."""
    flags = ("under_subscription",)
    usage = made.usage._replace(stated_cost_nanousd=0, assumptions=flags)
    particulars = Particulars(list_cost_nanousd=list_nanousd)
    return made._replace(usage=usage, assumptions=flags, cost_nanousd=0, charge_nanocredits=0, particulars=particulars)
