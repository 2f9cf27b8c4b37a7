"""Requests of log records by the million, as a coding agent writes them: the same way as `bodies`, for another signal.

Every record tells a call of Claude Code, with the attributes of its own events; numbers are texts there. It is known by
its request id; the session is one of a few hundred.
"""

import functools
import hashlib
import struct
import sys
from collections import Counter
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

import bodies
from bodies import Shape, tokens, wallet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

MODEL = "claude-haiku-4-5"
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 5_000
"""What a token of the model costs by its list price."""
SESSIONS = 400
_REQUEST = "req_"
_TOOK_MS = 400
_SLOTS = 2
"""What differs from body to body, of every record: its time and its request id."""


class _Template(NamedTuple):
    parts: list[bytes]
    owed_nanousd: Counter[str]


def body(shape: Shape, number: int, at_ns: int) -> bytes:
    """The request of a number, with calls that ended within the second before a moment."""
    template = _template(shape, number % shape.templates)
    ids = hashlib.shake_128(b"log %d:%d" % (shape.seed, number)).hexdigest(12 * shape.spans).encode()
    parts = template.parts.copy()
    every = 2 * _SLOTS
    parts[1::every] = [struct.pack("<Q", at_ns - record * 1_000_000) for record in range(shape.spans)]
    parts[3::every] = [ids[at : at + 24] for at in range(0, 24 * shape.spans, 24)]
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


def maker(shape: Shape) -> ModuleType:
    """The module that makes the bodies of a shape: this one, or `bodies` for spans."""
    return sys.modules[__name__] if shape.logs else bodies


@functools.lru_cache(maxsize=4096)
def _template(shape: Shape, number: int) -> _Template:
    first = number * shape.spans
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource = {"service.name": "claude-code", "service.version": "2.1.197", "os.type": "linux", "host.arch": "amd64"}
    resource_logs.resource.attributes.extend(_pair(*item) for item in resource.items())
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name, scope_logs.scope.version = "com.anthropic.claude_code.events", "2.1.197"
    slots: list[bytes] = []
    due: Counter[str] = Counter()
    for index in range(shape.spans):
        marks = hashlib.shake_128(b"log marks %d" % index).digest(20)
        at_ns = int.from_bytes(marks[:8], "little")
        named = marks[8:20].hex()
        record = scope_logs.log_records.add(time_unix_nano=at_ns, observed_time_unix_nano=1)
        record.body.string_value = "claude_code.api_request"
        record.attributes.extend(_pair(*item) for item in _attributes(shape, first + index, named).items())
        slots += (struct.pack("<Q", at_ns), named.encode())
        into, out = tokens(first + index)
        due[wallet(first + index, shape.wallets)] += into * INPUT_NANOUSD + out * OUTPUT_NANOUSD
    encoded = request.SerializeToString()
    parts: list[bytes] = []
    at = 0
    for slot in slots:
        found = encoded.index(slot, at)
        parts += (encoded[at:found], b"")
        at = found + len(slot)
    return _Template([*parts, encoded[at:]], due)


def _attributes(shape: Shape, number: int, request_id: str) -> dict[str, str]:
    into, out = tokens(number)
    return {
        "farebox.wallet": wallet(number, shape.wallets),
        "farebox.project": f"project-{number % shape.projects}",
        "user.id": hashlib.blake2b(b"%d" % (number % 100), digest_size=32).hexdigest(),
        "session.id": f"session-{number % SESSIONS:05d}",
        "organization.id": "22222222-2222-4222-8222-222222222222",
        "user.email": f"developer-{number % 100}@example.com",
        "user.account_uuid": "11111111-1111-4111-8111-111111111111",
        "terminal.type": "vscode",
        "event.name": "api_request",
        "event.timestamp": "2026-12-01T12:00:00.000Z",
        "event.sequence": str(number),
        "prompt.id": "33333333-3333-4333-8333-333333333333",
        "model": MODEL,
        "input_tokens": str(into),
        "output_tokens": str(out),
        "cache_read_tokens": "0",
        "cache_creation_tokens": "0",
        "cost_usd": "0.0042",
        "duration_ms": str(_TOOK_MS),
        "request_id": _REQUEST + request_id,
        "speed": "normal",
        "query_source": "repl_main_thread",
    }


def _pair(key: str, value: str) -> KeyValue:
    pair = KeyValue(key=key)
    pair.value.string_value = value
    return pair
