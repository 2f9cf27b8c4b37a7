"""Calls whose end was not seen, and that the provider may bill all the same: why, and how much it may be.

A request that times out, a stream that is closed early and a connection that breaks leave no usage behind. What they
may cost is estimated: the input from the text of the request, the output from what had arrived of it, else from the
limit that the request names. Nothing is estimated where the provider cannot have billed: no connection, a request that
was not sent whole, an answer with an error.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from farebox import span_attributes

BYTES_PER_TOKEN: Final = 4
ASSUMED_OUTPUT_MAX: Final = 1_024
"""Tokens that are assumed for the output of a call that names no limit and of which nothing had arrived."""
SAMPLE_CHUNKS_MAX: Final = 32
"""How many of the latest chunks of a stream are held, to see how much text a chunk has."""
ATTACHMENT_TOKENS: Final = 1_000
"""What an image, a sound or a file inside a request counts as."""
PARSED_REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""A larger request is not taken apart; its bytes are counted, without the attachments."""

TIMEOUT: Final = "timeout"
CLIENT_CLOSED: Final = "client_closed"
CONNECTION_LOST: Final = "connection_lost"

# By the names of the errors: two libraries have classes of these names, and transports of others map theirs to them.
_REASONS: Final = {
    "ReadTimeout": TIMEOUT,
    "ReadError": CONNECTION_LOST,
    "RemoteProtocolError": CONNECTION_LOST,
    "DecodingError": "unreadable_answer",
    "CancelledError": CLIENT_CLOSED,
    "Cancelled": CLIENT_CLOSED,
    "GeneratorExit": CLIENT_CLOSED,
    "KeyboardInterrupt": CLIENT_CLOSED,
    "SystemExit": CLIENT_CLOSED,
}
_LIMITS: Final = (
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens",),
    ("max_tokens_to_sample",),
    ("generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
)
# What of a request becomes input of the model.
_CONTENT: Final = (
    "messages",
    "input",
    "prompt",
    "contents",
    "content",
    "system",
    "systemInstruction",
    "instructions",
    "tools",
    "functions",
    "message",
    "chat_history",
    "documents",
    "texts",
    "inputText",
)
_ATTACHMENT: Final = re.compile(rb"[A-Za-z0-9+/_=-]{1024,}")
_TEXT: Final = re.compile(
    rb'"(?:content|text|delta|partial_json|thinking|reasoning|reasoning_content|arguments|refusal)"\s*:\s*'
    rb'"((?:[^"\\]|\\.)*)"'
)
_ENDS: Final = (b"[DONE]", b'"message_stop"')


@dataclass(frozen=True)
class Exposure:
    """One call, or one attempt of a call, that may be billed."""

    attributes: Mapping[str, Any]
    """``farebox.exposure`` and the estimates, as span attributes."""
    send_apart: Callable[[], None]
    """Sends it as a span of its own."""


class Arrived:
    """How much of a stream has come so far."""

    __slots__ = ("count", "sample")

    def __init__(self) -> None:
        """Nothing. ``next(count)`` and ``sample.append`` are called for each chunk: what costs least."""
        self.count = itertools.count()
        self.sample: deque[bytes] = deque(maxlen=SAMPLE_CHUNKS_MAX)

    def at_end(self) -> bool:
        """Whether the last that came says that nothing follows."""
        return any(end in chunk for chunk in list(self.sample)[-2:] for end in _ENDS)

    def tokens(self) -> int:
        """About how many tokens of output had come; each chunk with text is one at least."""
        chunks = next(self.count)
        if not self.sample or not chunks:
            return 0
        tokens = sum(_tokens_of_chunk(chunk) for chunk in self.sample)
        return max(1, round(tokens * chunks / len(self.sample)))


def reason_of(error: BaseException) -> str | None:
    """Why a call that raised may be billed; None where the provider cannot have had the whole request."""
    for kind in type(error).__mro__:
        reason = _REASONS.get(kind.__name__)
        if reason is not None:
            return reason if reason != CLIENT_CLOSED or _was_sent(error.__traceback__) else None
    return None


def ended(facts: Mapping[str, Any], request: Mapping[str, Any], *, talks: bool, usage_asked: bool) -> bool:
    """Whether what is known of an answer is all that was to come.

    Args:
        facts: what was read of the answer, as span attributes.
        request: the fields of the request.
        talks: whether the model ends its answer with a reason, as a chat does.
        usage_asked: whether usage was asked for beyond what the request says.
    """
    has_usage = span_attributes.USAGE_OUTPUT in facts or any(key.startswith(span_attributes.UNITS) for key in facts)
    if not talks:
        return has_usage or span_attributes.USAGE_INPUT in facts
    options = request.get("stream_options")
    asked = usage_asked or (isinstance(options, Mapping) and options.get("include_usage") is True)
    return bool(facts.get(span_attributes.FINISH_REASONS)) and (has_usage or not asked)


def estimate(
    reason: str,
    body: bytes,
    fields: Mapping[str, Any],
    facts: Mapping[str, Any],
    arrived: Arrived | None,
    *,
    makes_text: bool,
) -> dict[str, Any]:
    """The attributes of an exposure.

    Args:
        reason: why it is one.
        body: of the request; empty where it cannot be known.
        fields: of the request, as far as they were read.
        facts: what was read of the answer, as span attributes.
        arrived: what had come of a stream; None where nothing had.
        makes_text: whether the output is tokens at all.
    """
    if not fields and 0 < len(body) <= PARSED_REQUEST_BYTES_MAX:
        fields = _fields_of(body)
    known_input, known_output = facts.get(span_attributes.USAGE_INPUT), facts.get(span_attributes.USAGE_OUTPUT)
    input_tokens = known_input if isinstance(known_input, int) else _input_tokens(body, fields)
    came = arrived.tokens() if arrived is not None else 0
    output_tokens = max(came, known_output if isinstance(known_output, int) else 0)
    if not output_tokens and makes_text:
        output_tokens = _output_limit(fields)
    return {
        span_attributes.EXPOSURE: reason,
        span_attributes.EXPOSURE_INPUT: input_tokens,
        span_attributes.EXPOSURE_OUTPUT: output_tokens,
    }


def _was_sent(traceback: TracebackType | None) -> bool:
    """Whether a call that was cancelled had sent its request: then the connection was waiting for the answer."""
    in_connection = False
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if "httpcore" in code.co_filename:
            in_connection = True
            if code.co_name.startswith("_receive"):
                return True
        traceback = traceback.tb_next
    return not in_connection


def _tokens_of_chunk(chunk: bytes) -> int:
    texts = _TEXT.findall(chunk)
    if not texts:
        return 0 if b'"' in chunk else 1  # binary frames hold their text in another encoding
    return max(sum(len(text) for text in texts) // BYTES_PER_TOKEN, sum(1 for text in texts if text))


def _input_tokens(body: bytes, fields: Mapping[str, Any]) -> int:
    content = {name: fields[name] for name in _CONTENT if name in fields}
    if content:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace")
    attachments = 0
    if len(body) >= 1024:
        body, attachments = _ATTACHMENT.subn(b"", body)
    return -(-len(body) // BYTES_PER_TOKEN) + attachments * ATTACHMENT_TOKENS


def _output_limit(fields: Mapping[str, Any]) -> int:
    answers = fields.get("n")
    times = answers if isinstance(answers, int) and not isinstance(answers, bool) and 1 < answers <= 128 else 1
    for path in _LIMITS:
        value: Any = fields
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value * times
    return ASSUMED_OUTPUT_MAX * times


def _fields_of(body: bytes) -> Mapping[str, Any]:
    try:
        fields: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
