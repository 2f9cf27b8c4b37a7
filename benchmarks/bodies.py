"""OTLP requests by the million: made once as templates, then given ids and times of their own by joining bytes.

A body is a function of its number, so the sender keeps numbers only, and what a number must have cost is known to the
nano-dollar. A span has the 27 attributes that a well-instrumented chat call carries, those of two vocabularies at once.
"""

import functools
import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

MODEL = "gpt-4o-mini"
INPUT_NANOUSD, OUTPUT_NANOUSD = 150, 600
"""What a token of the model costs by its list price."""
EVENTS = ("chat.reply", "agent.run", "image.caption", "search.answer")
SPANS_A_TRACE = 4
_TEMPLATES = 50
_SLOTS = 6
"""What differs from body to body, of every span: trace, span, parent, start, end, response id."""
_LATENCY_NS = 400_000_000
_RESPONSE = "chatcmpl-"


class Shape(NamedTuple):
    """What the load looks like."""

    seed: int = 1
    spans: int = 200
    """Spans of a request."""
    wallets: int = 1_000
    projects: int = 20
    events: int = len(EVENTS)
    second: bool = False
    """Whether other spans report the calls of the same shape without it: with ids of their own, and the same
    responses."""
    logs: bool = False
    """Whether log records tell the calls; see `log_bodies`."""

    @property
    def templates(self) -> int:
        """Templates that it takes for every wallet, project and event to turn up."""
        return max(_TEMPLATES, -(-max(self.wallets, self.projects, self.events) // self.spans))


class _Template(NamedTuple):
    """A request in pieces: every second one is to be filled in, `_SLOTS` a span."""

    parts: list[bytes]
    offsets_ns: list[int]
    latencies_ns: list[int]
    roots: list[int]
    """For every span the number of the one that is the root of its trace."""
    owed_nanousd: Mapping[str, int]


def tokens(number: int) -> tuple[int, int]:
    """Tokens in and out of the span of a number."""
    return 50 + number * 37 % 3000, 10 + number * 17 % 700


def wallet(number: int, wallets: int) -> str:
    """Who pays for the span of a number. Neighbours belong to different ones, as they do in what a fleet sends."""
    return f"wallet-{number * 7919 % wallets:05d}"


def body(shape: Shape, number: int, at_ns: int) -> bytes:
    """The request of a number, with calls that began within the second before a moment."""
    template = _template(shape, number % shape.templates)
    spans = len(template.roots)
    ids = hashlib.shake_128(b"%d:%d" % (shape.seed, number)).digest(spans * 24)
    names = ids[: spans * 16].hex()
    if shape.second:
        ids = hashlib.shake_128(b"second:" + ids).digest(spans * 24)
    traces, keys = ids[: spans * 16], ids[spans * 16 :]
    own = [keys[at : at + 8] for at in range(0, spans * 8, 8)]
    starts = [at_ns - offset for offset in template.offsets_ns]
    begun = struct.pack(f"<{spans}Q", *starts)
    ended = struct.pack(f"<{spans}Q", *map(int.__add__, starts, template.latencies_ns))
    parts = template.parts.copy()
    every = 2 * _SLOTS
    parts[1::every] = [traces[root * 16 : root * 16 + 16] for root in template.roots]
    parts[3::every] = own
    parts[5::every] = [b"" if root == span else own[root] for span, root in enumerate(template.roots)]
    parts[7::every] = [begun[at : at + 8] for at in range(0, spans * 8, 8)]
    parts[9::every] = [ended[at : at + 8] for at in range(0, spans * 8, 8)]
    parts[11::every] = [names[at : at + 32].encode() for at in range(0, spans * 32, 32)]
    return b"".join(parts)


def owed(shape: Shape, numbers: Iterable[int]) -> Counter[str]:
    """Wallet → nano-dollars that the calls of these bodies cost."""
    due: Counter[str] = Counter()
    for template, times in Counter(number % shape.templates for number in numbers).items():
        for name, nanousd in _template(shape, template).owed_nanousd.items():
            due[name] += nanousd * times
    return due


def prepare(shape: Shape) -> None:
    """Make all templates now, so that the first bodies do not wait for it."""
    for number in range(shape.templates):
        _template(shape, number)


@functools.lru_cache(maxsize=4096)
def _template(shape: Shape, number: int) -> _Template:
    first = number * shape.spans
    roots = [min(span // SPANS_A_TRACE * SPANS_A_TRACE + SPANS_A_TRACE, shape.spans) - 1 for span in range(shape.spans)]
    request = _request(shape, first, roots)
    encoded = request.SerializeToString()
    parts: list[bytes] = []
    at = 0
    for span in request.resource_spans[0].scope_spans[0].spans:
        for slot in _slots(span):
            found = encoded.index(slot, at)
            parts += (encoded[at:found], b"")
            at = found + len(slot)
    parts.append(encoded[at:])
    due: Counter[str] = Counter()
    for number in range(first, first + shape.spans):
        into, out = tokens(number)
        due[wallet(number, shape.wallets)] += into * INPUT_NANOUSD + out * OUTPUT_NANOUSD
    offsets = [_LATENCY_NS + (first + span) * 7919 % 600 * 1_000_000 for span in range(shape.spans)]
    latencies = [_LATENCY_NS - tokens(first + span)[1] * 100_000 for span in range(shape.spans)]
    return _Template(parts, offsets, latencies, roots, due)


def _request(shape: Shape, first: int, roots: list[int]) -> ExportTraceServiceRequest:
    """A request whose ids and times are there to be found again and replaced."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource = {
        "service.name": "assistant",
        "service.version": "1.4.2",
        "deployment.environment.name": "production",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.2",
    }
    resource_spans.resource.attributes.extend(_pair(*item) for item in resource.items())
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = "opentelemetry.instrumentation.openai_v2", "2.1"
    for index, root in enumerate(roots):
        marks = hashlib.shake_128(b"marks %d" % index).digest(48)
        span = scope_spans.spans.add(
            trace_id=marks[:16],
            span_id=marks[16:24],
            parent_span_id=b"" if index == root else marks[24:32],
            name=f"chat {MODEL}",
            kind=Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=int.from_bytes(marks[32:40], "little"),
            end_time_unix_nano=int.from_bytes(marks[40:48], "little"),
        )
        span.status.code = 1  # type: ignore[assignment]  # an enum's number
        span.attributes.extend(_pair(*item) for item in _attributes(shape, first + index, marks).items())
    return request


def _attributes(shape: Shape, number: int, marks: bytes) -> dict[str, Any]:
    into, out = tokens(number)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.system": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.response.id": _RESPONSE + marks[:16].hex(),
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": into,
        "gen_ai.usage.output_tokens": out,
        "server.address": "api.openai.com",
        "server.port": 443,
        "app.cell": f"cell-{number % 50:03d}",
        "openinference.span.kind": "LLM",
        "llm.model_name": MODEL,
        "llm.provider": "openai",
        "llm.token_count.prompt": into,
        "llm.token_count.completion": out,
        "llm.token_count.total": into + out,
        "farebox.wallet": wallet(number, shape.wallets),
        "farebox.event": EVENTS[number % shape.events]
        if shape.events <= len(EVENTS)
        else f"event-{number % shape.events}",
        "farebox.dept": f"dept-{number % 5}",
        "farebox.project": f"project-{number % shape.projects}",
        "farebox.task": f"task-{number % 8}",
        "farebox.route": "primary" if number % 10 else "fallback",
    }


def _slots(span: Span) -> tuple[bytes, ...]:
    response = next(pair.value.string_value for pair in span.attributes if pair.key == "gen_ai.response.id")
    return (
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        struct.pack("<Q", span.start_time_unix_nano),
        struct.pack("<Q", span.end_time_unix_nano),
        response.removeprefix(_RESPONSE).encode(),
    )


def _pair(key: str, value: Any) -> KeyValue:
    pair = KeyValue(key=key)
    match value:
        case str():
            pair.value.string_value = value
        case int():
            pair.value.int_value = value
        case float():
            pair.value.double_value = value
        case _:
            for item in value:
                pair.value.array_value.values.add().string_value = item
    return pair
