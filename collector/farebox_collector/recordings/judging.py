"""Judge a recorded exchange: read and priced, with which assumptions, or not recognised."""

import json
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from farebox_collector.dialects.assumptions import ASSUMPTIONS
from farebox_collector.intake.reader import Encoding, RequestReader, SpanReader
from farebox_collector.model.money import NANO
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    NotBillable,
    PricedUsage,
    QualityReport,
    Rejected,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.recordings.exchanges import Exchange
from farebox_collector.recordings.sdk_process import Replayed


class Outcome(StrEnum):
    """The result for an exchange."""

    RIGHT = "right"
    """Read and priced without assumptions."""
    FLAGGED = "flagged"
    """Read and priced, with an assumption."""
    UNPRICED = "unpriced"
    """Read, but there is no price."""
    NOT_METERED = "not metered"
    """A model call without usage that can be charged."""
    FAILED = "failed"
    """A call that the provider refused, free of charge."""
    EXPOSED = "exposed"
    """A call whose end was not recorded; its cost is estimated."""
    NOT_RECOGNISED = "not recognised"
    """Looks like a model call, but its address is unknown."""
    OTHER = "no call"
    """Not a model call."""
    UNUSABLE = "unusable"
    """The recording lacks data needed for a replay."""


MISSED = frozenset({Outcome.NOT_METERED, Outcome.UNPRICED, Outcome.NOT_RECOGNISED})
"""Outcomes of calls that would be missing from a bill."""
_RANK = (Outcome.NOT_METERED, Outcome.UNPRICED, Outcome.EXPOSED, Outcome.FLAGGED, Outcome.RIGHT, Outcome.FAILED)
"""The outcome of an exchange is the first of these among its calls."""
_ORDINARY = frozenset({"wallet_missing"})


class Call(NamedTuple):
    """One call of an exchange."""

    outcome: Outcome
    why: str
    provider: str
    model: str
    operation: str
    tokens: dict[str, int]
    units: dict[str, int]
    conditions: dict[str, str]
    """Service tier, speed and region, if they differ from the standard."""
    other_lines: tuple[str, ...]
    """Usage of other models within the same answer."""
    cost_nanousd: int | None
    stated_cost_nanousd: int | None
    assumed: dict[str, str]
    """Each assumption, with its meaning."""


class Finding(NamedTuple):
    """The judgement of one exchange."""

    exchange: Exchange
    outcome: Outcome
    why: str
    calls: tuple[Call, ...]

    @property
    def cost_nanousd(self) -> int:
        """Cost of all its calls."""
        return sum(call.cost_nanousd or 0 for call in self.calls)


class Judge:
    """Read the SDK's spans as the collector does, and price them as of the time of the recording."""

    def __init__(self, requests: RequestReader, spans: SpanReader) -> None:
        self._requests = requests
        self._spans = spans

    def unusable(self, exchange: Exchange) -> Finding:
        """The finding of an exchange that cannot be replayed."""
        return Finding(exchange, Outcome.UNUSABLE, exchange.unusable, ())

    def judge(self, exchange: Exchange, replayed: Replayed) -> Finding:
        """The finding of an exchange that was replayed."""
        logged = "; ".join(replayed.logged)
        if replayed.otlp is None:
            outcome = Outcome.NOT_RECOGNISED if logged else Outcome.OTHER
            return Finding(exchange, outcome, logged or "not a model call that the SDK knows", ())
        calls = self._calls(replayed.otlp)
        if not calls:
            return Finding(exchange, Outcome.OTHER, logged or "a request without model work", ())
        outcome = min((call.outcome for call in calls), key=_RANK.index)
        why = "; ".join(filter(None, (next(call.why for call in calls if call.outcome is outcome), logged)))
        return Finding(exchange, outcome, why, tuple(calls))

    def _calls(self, otlp: bytes) -> list[Call]:
        calls: list[Call] = []
        for span in self._requests.spans(Encoding.JSON, otlp):
            read = self._spans.read(span, DEFAULT_TENANT_ID, max(span.start_ns, span.end_ns))
            if isinstance(read, PricedUsage):
                calls.append(_call(read))
            elif isinstance(read, Rejected):
                nothing: Any = ("", "", "", {}, {}, {}, (), None, None, {})
                calls.append(Call(Outcome.NOT_METERED, read.reason, *nothing))
            else:
                assert isinstance(read, NotBillable | QualityReport)
        return calls


def _call(priced: PricedUsage) -> Call:
    usage = priced.usage
    assumed = {name: ASSUMPTIONS.get(name, name.replace("_", " ")) for name in priced.assumptions}
    tokens = {} if usage.buckets is None else {name: n for name, n in usage.buckets._asdict().items() if n}
    conditions = {
        "service_tier": usage.service_tier,
        "speed": usage.speed,
        "inference_region": usage.inference_region,
    }
    outcome, why = _outcome(priced, assumed)
    return Call(
        outcome,
        why,
        priced.provider or usage.provider,
        priced.model or usage.response_model or usage.request_model,
        usage.operation,
        tokens,
        dict(usage.units),
        {name: value for name, value in conditions.items() if value},
        tuple(f"{line.label}: {line.provider or usage.provider} {line.model}" for line in usage.other_lines),
        priced.cost_nanousd,
        usage.stated_cost_nanousd,
        assumed,
    )


def _outcome(priced: PricedUsage, assumed: dict[str, str]) -> tuple[Outcome, str]:
    usage: UsageRecord = priced.usage
    if usage.exposure:
        return Outcome.EXPOSED, usage.exposure
    if priced.verdict is Verdict.CHARGED:
        flags = [meaning for name, meaning in assumed.items() if name not in _ORDINARY]
        return (Outcome.FLAGGED, "; ".join(flags)) if flags else (Outcome.RIGHT, "")
    outcomes = {Verdict.UNPRICED: Outcome.UNPRICED, Verdict.FAILED: Outcome.FAILED}
    return outcomes.get(priced.verdict, Outcome.NOT_METERED), priced.reason


def usd(nanousd: int | None) -> str | None:
    """Nano-USD as a decimal number of US dollars; None stays None."""
    return None if nanousd is None else f"{(Decimal(nanousd) / NANO):f}"


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding for scripts, without bodies and query strings."""
    exchange = finding.exchange
    return {
        "entry": exchange.entry,
        "method": exchange.method,
        "url": exchange.place if exchange.url else "",
        "status": exchange.status,
        "outcome": finding.outcome.value,
        "why": finding.why,
        "calls": [
            {
                **call._asdict(),
                "outcome": call.outcome.value,
                "cost_usd": usd(call.cost_nanousd),
                "stated_cost_usd": usd(call.stated_cost_nanousd),
            }
            for call in finding.calls
        ],
    }


def to_text(finding: Finding) -> str:
    """A finding as one line of JSON."""
    return json.dumps(as_json(finding))
