"""The recorded spans of the real emitters, and what the calls behind them came to.

The model server had been told the usage of each call (`recording/calls.json`); the figures here were worked out from
that by hand. `recording/record.py` says how the spans were recorded.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from farebox_collector import dialects
from farebox_collector.intake.decoding.otlp_json import JsonDecoder
from farebox_collector.model.records import (
    Buckets,
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import Units

GOLDEN = Path(__file__).parent / "golden"
EMITTERS = tuple(sorted(path.stem for path in GOLDEN.glob("*.json")))
ANTHROPIC_CLIENT = "com.anthropic.sdk.python"
"""The Anthropic client emits a span of its own for every call, beside any other instrumentation."""
RECORDING = "farebox.recording"
"""The scope of the spans around each call, which are named like it."""

Reading = UsageRecord | QualityReport | NotBillable | Rejected


class Expected(NamedTuple):
    """What a call came to: its buckets, what they cost, and how many such calls there were."""

    buckets: Buckets | None
    cost_nanousd: int | None
    calls: int = 1
    units: Units = ()


# Nano-USD a token: gpt-4o-mini 150 / 75 cached / 600, gpt-5-mini 250 / 2,000, text-embedding-3-small 20,
# claude-sonnet-4-5 3,000 / 300 read / 3,750 written / 6,000 written for an hour / 15,000 and a cent a search,
# gemini-2.5-flash 300 / 30 / 2,500, mistral-embed 100,
# mistral-large-latest 2,000 / 6,000 and nothing off for cached tokens.
CALLS: dict[str, Expected] = {
    "openai.chat": Expected(Buckets(input=1000, output=200), 1000 * 150 + 200 * 600),
    "openai.stream": Expected(Buckets(input=100, output=20), 100 * 150 + 20 * 600),
    "openai.stream_without_usage": Expected(None, None),
    "openai.cache": Expected(
        Buckets(input=500, cache_read=400, cache_write=100, output=200), 500 * 150 + 400 * 75 + 100 * 150 + 200 * 600
    ),
    "openai.reasoning": Expected(Buckets(input=50, output=200, reasoning=150), 50 * 250 + 200 * 2000),
    "openai.audio": Expected(
        Buckets(input=50, input_audio=250, output=40, output_audio=60), (50 + 250) * 150 + (40 + 60) * 600
    ),
    "openai.responses": Expected(
        Buckets(input=600, cache_read=400, output=200, reasoning=50), 600 * 150 + 400 * 75 + 200 * 600
    ),
    "openai.embeddings": Expected(Buckets(input=100), 100 * 20),
    "openai.tool": Expected(Buckets(input=80, output=8), 80 * 150 + 8 * 600),
    "openai.agent": Expected(Buckets(input=80, output=8), 80 * 150 + 8 * 600, calls=2),
    "openai.error": Expected(None, None),
    "anthropic.chat": Expected(Buckets(input=1000, output=200), 1000 * 3000 + 200 * 15_000),
    "anthropic.stream": Expected(Buckets(input=100, output=20), 100 * 3000 + 20 * 15_000),
    "anthropic.cache": Expected(
        Buckets(input=1000, cache_read=400, cache_write=70, cache_write_1h=30, output=200),
        1000 * 3000 + 400 * 300 + 70 * 3750 + 30 * 6000 + 200 * 15_000,
    ),
    "anthropic.cache_stream": Expected(
        Buckets(input=10, cache_read=4000, cache_write=70, cache_write_1h=30, output=20),
        10 * 3000 + 4000 * 300 + 70 * 3750 + 30 * 6000 + 20 * 15_000,
    ),
    "anthropic.reasoning": Expected(Buckets(input=50, output=200, reasoning=150), 50 * 3000 + 200 * 15_000),
    "anthropic.search": Expected(
        Buckets(input=1000, output=200), 1000 * 3000 + 200 * 15_000 + 2 * 10_000_000, units=(("web_searches", 2),)
    ),
    "anthropic.tool": Expected(Buckets(input=80, output=8), 80 * 3000 + 8 * 15_000),
    "anthropic.agent": Expected(Buckets(input=80, output=8), 80 * 3000 + 8 * 15_000, calls=2),
    "anthropic.error": Expected(None, None),
    "google.chat": Expected(Buckets(input=1000, output=200), 1000 * 300 + 200 * 2500),
    "google.stream": Expected(Buckets(input=100, output=20), 100 * 300 + 20 * 2500),
    "google.cache": Expected(Buckets(input=600, cache_read=400, output=200), 600 * 300 + 400 * 30 + 200 * 2500),
    "google.reasoning": Expected(Buckets(input=50, output=200, reasoning=150), 50 * 300 + 200 * 2500),
    "google.error": Expected(None, None),
    "mistral.chat": Expected(Buckets(input=1000, output=200), 1000 * 2000 + 200 * 6000),
    "mistral.stream": Expected(Buckets(input=100, output=20), 100 * 2000 + 20 * 6000),
    "mistral.cache": Expected(Buckets(input=600, cache_read=400, output=200), 1000 * 2000 + 200 * 6000),
    "mistral.embeddings": Expected(Buckets(input=100), 100 * 100),
    "mistral.error": Expected(None, None),
}


def spans_of(emitter: str) -> dict[str, list[Span]]:
    """Call → the spans that tell of it, as they pass the door of a receiver."""
    body = (GOLDEN / f"{emitter}.json").read_bytes()
    decode = JsonDecoder(dialects.wanted_attributes(()), dialects.reduced_attributes())
    names = calls_of(emitter)
    found: defaultdict[str, list[Span]] = defaultdict(list)
    for span in decode(body):
        if span.scope_name != RECORDING:
            found[names[span.trace_id]].append(span)
    return found


def calls_of(emitter: str) -> dict[bytes, str]:
    """Trace → the call that was made in it."""
    request = json.loads((GOLDEN / f"{emitter}.json").read_bytes())
    return {
        bytes.fromhex(span["traceId"]): span["name"]
        for resource_spans in request["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        if scope_spans["scope"]["name"] == RECORDING
        for span in scope_spans["spans"]
    }


def read_all(spans: Iterable[Span]) -> list[tuple[Span, Reading]]:
    """Each span with what it was read as."""
    return [(span, dialects.read(span, ())) for span in spans]
