"""Estimate calls whose end was not observed and that the provider may still bill: the reason and the amount.

A request that times out, a stream closed early and a broken connection report no usage. Their cost is estimated: the
input from the request's text, the output from what had arrived, else from the request's limit. There is no estimate if
the provider cannot have billed: no connection, a request not fully sent, an error response.
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
"""Assumed output tokens of a call without a limit of which nothing had arrived."""
SAMPLE_CHUNKS_MAX: Final = 32
"""Number of latest chunks of a stream kept to sample the text per chunk."""
ATTACHMENT_TOKENS: Final = 1_000
"""Tokens assumed for an image, sound or file in a request."""
PARSED_REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""Requests above this are not parsed; their bytes are counted, without attachments."""

TIMEOUT: Final = "timeout"
CLIENT_CLOSED: Final = "client_closed"
CONNECTION_LOST: Final = "connection_lost"

# By error name: both libraries have classes of these names, and other transports map their errors to them.
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
# The request fields that become model input.
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
    """A call, or an attempt, that may be billed."""

    attributes: Mapping[str, Any]
    """``farebox.exposure`` and the estimates, as span attributes."""
    send_apart: Callable[[], None]
    """Sends it as a separate span."""


class Arrived:
    """The received part of a stream."""

    __slots__ = ("count", "sample")

    def __init__(self) -> None:
        """Start empty. ``next(count)`` and ``sample.append`` are called per chunk, as the cheapest operations."""
        self.count = itertools.count()
        self.sample: deque[bytes] = deque(maxlen=SAMPLE_CHUNKS_MAX)

    def at_end(self) -> bool:
        """Return whether the last chunk marks the end."""
        return any(end in chunk for chunk in list(self.sample)[-2:] for end in _ENDS)

    def tokens(self) -> int:
        """Estimate the received output tokens; each chunk with text has at least one."""
        chunks = next(self.count)
        if not self.sample or not chunks:
            return 0
        tokens = sum(_tokens_of_chunk(chunk) for chunk in self.sample)
        return max(1, round(tokens * chunks / len(self.sample)))


def reason_of(error: BaseException) -> str | None:
    """Return why a failed call may be billed; None if the provider cannot have received the whole request."""
    for kind in type(error).__mro__:
        reason = _REASONS.get(kind.__name__)
        if reason is not None:
            return reason if reason != CLIENT_CLOSED or _was_sent(error.__traceback__) else None
    return None


def ended(facts: Mapping[str, Any], request: Mapping[str, Any], *, talks: bool, usage_asked: bool) -> bool:
    """Return whether an answer was received completely.

    Args:
        facts: the facts of the answer, as span attributes.
        request: the request's fields.
        talks: whether the answer ends with a finish reason, as in a chat.
        usage_asked: whether usage was requested in addition to the request's own options.
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
    """Return the attributes of an exposure.

    Args:
        reason: the reason of the exposure.
        body: the request's body; empty if unknown.
        fields: the request's fields, as far as read.
        facts: the facts of the answer, as span attributes.
        arrived: the received part of a stream; None without any.
        makes_text: whether the output is tokens.
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
    """Return whether a cancelled call had sent its request: its connection was then waiting for the answer."""
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
        return 0 if b'"' in chunk else 1  # binary frames encode their text differently
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
