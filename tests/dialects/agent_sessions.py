"""The recorded sessions of coding agents, and what their calls came to.

The model server had been told the usage of each answer (`recording/agents/sessions.json`); the figures here were worked
out from that by hand. `recording/agents/record.py` says how the sessions were recorded.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from farebox_collector import dialects
from farebox_collector.intake.decoding.otlp_json import JsonDecoder
from farebox_collector.intake.decoding.otlp_json_logs import JsonLogDecoder
from farebox_collector.model.records import (
    Buckets,
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)
from goldens import RECORDING

SESSIONS_AT = Path(__file__).parent / "golden" / "agents"
SESSIONS = tuple(sorted(path.stem for path in SESSIONS_AT.glob("*.json")))
EVENTS_AT = Path(__file__).parent / "golden" / "events"
EVENT_RECORDINGS = tuple(sorted(path.stem for path in EVENTS_AT.glob("*.json")))
WALLETS = ("user.id",)
Reading = UsageRecord | QualityReport | NotBillable | Rejected


class Answer(NamedTuple):
    """What one answer of the model server came to."""

    buckets: Buckets
    cost_nanousd: int


# Nano-USD a token: claude-sonnet-4-5 3,000 / 300 read / 3,750 written / 15,000; claude-haiku-4-5 1,000 / 5,000;
# gpt-5-mini 250 / 25 read / 2,000, and written tokens at the input's price; gemini-2.5-flash 300 / 30 read / 2,500.
# Claude's cache is beside the input, and its events do not tell the reasoning. Google's thoughts are beside the output.
ANSWERS: dict[str, list[Answer]] = {
    "claude-code": [
        Answer(Buckets(input=1000, cache_write=100, output=8), 1000 * 3000 + 100 * 3750 + 8 * 15_000),
        Answer(Buckets(input=10, cache_read=4000, output=200), 10 * 3000 + 4000 * 300 + 200 * 15_000),
        Answer(Buckets(input=7, cache_read=4000, output=20), 7 * 3000 + 4000 * 300 + 20 * 15_000),
    ],
    "claude-code-account": [Answer(Buckets(input=100, output=20), 100 * 3000 + 20 * 15_000)],
    "claude-code-errors": [Answer(Buckets(input=100, output=20), 100 * 3000 + 20 * 15_000)],
    "claude-code-subagent": [
        Answer(Buckets(input=100, output=20), 100 * 3000 + 20 * 15_000),
        Answer(Buckets(input=30, output=5), 30 * 1000 + 5 * 5000),
        Answer(Buckets(input=40, output=6), 40 * 3000 + 6 * 15_000),
    ],
    "codex-cli": [
        Answer(Buckets(input=1000, output=8), 1000 * 250 + 8 * 2000),
        Answer(Buckets(input=600, cache_read=400, output=200, reasoning=150), 600 * 250 + 400 * 25 + 200 * 2000),
        Answer(
            Buckets(input=500, cache_read=400, cache_write=100, output=20),
            500 * 250 + 400 * 25 + 100 * 250 + 20 * 2000,
        ),
    ],
    "codex-cli-account": [Answer(Buckets(input=100, output=20), 100 * 250 + 20 * 2000)],
    "codex-cli-errors": [Answer(Buckets(input=100, output=20), 100 * 250 + 20 * 2000)],
    "gemini-cli": [
        Answer(Buckets(input=1000, output=8), 1000 * 300 + 8 * 2500),
        Answer(Buckets(input=600, cache_read=400, output=200, reasoning=150), 600 * 300 + 400 * 30 + 200 * 2500),
        Answer(Buckets(input=100, output=20), 100 * 300 + 20 * 2500),
    ],
    "gemini-cli-errors": [Answer(Buckets(input=100, output=20), 100 * 300 + 20 * 2500)],
    "qwen-code": [
        Answer(Buckets(input=600, cache_read=400, output=200, reasoning=150), 600 * 250 + 400 * 25 + 200 * 2000),
        Answer(Buckets(input=100, output=20), 100 * 250 + 20 * 2000),
    ],
}
FAILURES: dict[str, list[str]] = {
    # Claude Code tells only the failure that it gave up at; the attempts before an answer are in no event.
    "claude-code-errors": ["400"],
    "codex-cli-errors": ["503", "500"],
    "gemini-cli-errors": ["503"],
}
BY_SUBSCRIPTION = ("codex-cli-account",)
"""Sessions whose tool tells that a subscription pays."""
NAMES_NOBODY = ("qwen-code",)
"""Sessions whose tool leaves out the resource attributes of its environment, and any developer."""
SPANS_ARE_CALLS = ("claude-code", "claude-code-errors", "claude-code-subagent")
"""Sessions whose spans tell the calls too, as far as a dialect reads them."""


def session(name: str) -> dict[str, Any]:
    """The file of a recorded session."""
    document: dict[str, Any] = json.loads((SESSIONS_AT / f"{name}.json").read_bytes())
    return document


def event_recording(name: str) -> dict[str, Any]:
    """What an instrumentation wrote that tells events beside spans: signal → request, as OTLP/JSON."""
    document: dict[str, Any] = json.loads((EVENTS_AT / f"{name}.json").read_bytes())
    return document


def calls_by_trace(document: dict[str, Any]) -> dict[str, str]:
    """Trace → the call that was made in it."""
    return {
        span["traceId"]: span["name"]
        for resource_spans in document["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        if scope_spans["scope"]["name"] == RECORDING
        for span in scope_spans["spans"]
    }


def requests_of(name: str, signal: str) -> list[bytes]:
    """The requests of one signal (`logs`, `traces` or `metrics`), as OTLP/JSON."""
    return [json.dumps(batch["request"]).encode() for batch in session(name)["batches"] if batch["signal"] == signal]


def records_of(name: str) -> list[Span]:
    """The log records of a session, as they pass the door of a receiver."""
    wanted, reduced = dialects.wanted_log_attributes(WALLETS), dialects.reduced_attributes()
    decode = JsonLogDecoder(dialects.told_events(), wanted, reduced)
    return [record for body in requests_of(name, "logs") for record in decode(body)]


def spans_of(name: str) -> list[Span]:
    """The spans of a session, as they pass the door of a receiver."""
    decode = JsonDecoder(dialects.wanted_attributes(WALLETS), dialects.reduced_attributes())
    return [span for body in requests_of(name, "traces") for span in decode(body)]


def read(span: Span) -> Reading:
    """What a log record or span is read as."""
    return dialects.read(span, WALLETS)


def calls_in(spans: list[Span]) -> list[UsageRecord]:
    """The calls that log records or spans tell, in the order of time."""
    readings = [reading for span in spans if isinstance(reading := read(span), UsageRecord)]
    return sorted(readings, key=lambda usage: usage.started_at_ns)
