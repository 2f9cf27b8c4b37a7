"""Build answers of OpenAI and Anthropic: bodies, events and errors. No I/O."""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

EMBEDDING_DIMENSIONS = 8
OPENAI_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Usage:
    """Token counts in the provider's terms: ``input`` includes the cache for OpenAI, not for Anthropic."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    web_searches: int = 0
    input_image: int = 0
    seconds: int = 0
    pages: int = 0
    searches: int = 0

    @classmethod
    def parse(cls, header: str) -> Usage:
        """Parse ``input=1000,output=200``. Raises ValueError for an unknown key or an invalid number."""
        counts = {}
        for pair in header.split(","):
            key, _, number = pair.strip().partition("=")
            if key not in cls.__dataclass_fields__ or not number.isdigit():
                raise ValueError(f"x-usage: cannot read {pair.strip()!r}; write key=number")
            counts[key] = int(number)
        return cls(**counts)


@dataclass(frozen=True)
class Call:
    """A parsed request with all that its answer needs."""

    body: Json
    model: str
    reply: str
    usage: Usage
    response_id: str
    stream: bool

    @property
    def next_tool(self) -> str | None:
        """Return the first offered tool until its result is among the messages."""
        messages = self.body.get("messages")
        if not self.body.get("tools") or not isinstance(messages, list):
            return None
        if any(message.get("role") == "tool" or "tool_result" in json.dumps(message) for message in messages):
            return None
        tool: Json = self.body["tools"][0]
        return str(tool.get("function", tool).get("name"))


def words(text: str) -> Iterator[str]:
    """Split the reply as a stream delivers it; the joined pieces are the text."""
    for index, word in enumerate(text.split(" ")):
        yield word if index == 0 else f" {word}"


def data_event(payload: Json) -> str:
    """Return a server-sent event without a name, as in OpenAI's chat completions."""
    return f"data: {json.dumps(payload)}\n\n"


def named_event(payload: Json) -> str:
    """Return a server-sent event named after the payload's type."""
    return f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n"


def openai_chat_usage(usage: Usage) -> Json:
    """Return the usage of ``/v1/chat/completions``."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": usage.input_audio,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def openai_chat(call: Call) -> Json:
    """Return the answer of ``/v1/chat/completions``."""
    message: Json = {"role": "assistant", "content": call.reply, "refusal": None, "annotations": []}
    if call.next_tool:
        function = {"name": call.next_tool, "arguments": "{}"}
        message["content"] = None
        message["tool_calls"] = [{"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}]
    return {
        "id": call.response_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if call.next_tool else "stop",
            }
        ],
        "usage": openai_chat_usage(call.usage),
        "service_tier": "default",
    }


def openai_chat_events(call: Call) -> Iterator[str]:
    """Yield the stream of ``/v1/chat/completions``."""
    # The real API adds the usage chunk, and a null usage on all other chunks, only if requested; Mistral always does.
    asked_for = bool((call.body.get("stream_options") or {}).get("include_usage"))
    include_usage = asked_for or call.model.startswith("mistral")
    created = int(time.time())

    def chunk(choices: list[Json], usage: Json | None = None) -> str:
        payload = {
            "id": call.response_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": call.model,
            "service_tier": "default",
            "choices": choices,
        }
        return data_event({**payload, "usage": usage} if include_usage else payload)

    def choice(delta: Json, finish_reason: str | None = None) -> list[Json]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

    yield chunk(choice({"role": "assistant", "content": ""}))
    for word in words(call.reply):
        yield chunk(choice({"content": word}))
    yield chunk(choice({}, "stop"))
    if include_usage:
        yield chunk([], openai_chat_usage(call.usage))
    yield "data: [DONE]\n\n"


def openai_response(call: Call, status: str = "completed") -> Json:
    """Return the answer of ``/v1/responses``, with output and usage if the status is ``completed``."""
    done = status == "completed"
    message = {
        "id": f"msg_{call.response_id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_text", "text": call.reply, "annotations": [], "logprobs": []}],
    }
    usage = {
        "input_tokens": call.usage.input,
        "input_tokens_details": {
            "cached_tokens": call.usage.cache_read,
            "cache_write_tokens": call.usage.cache_write,
        },
        "output_tokens": call.usage.output,
        "output_tokens_details": {"reasoning_tokens": call.usage.reasoning},
        "total_tokens": call.usage.input + call.usage.output,
    }
    return {
        "id": call.response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": call.model,
        "output": [message] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "usage": usage if done else None,
    }


def openai_response_events(call: Call) -> Iterator[str]:
    """Yield the stream of ``/v1/responses``."""
    item = {"item_id": f"msg_{call.response_id}", "output_index": 0, "content_index": 0}
    payloads: list[Json] = [{"type": "response.created", "response": openai_response(call, "in_progress")}]
    payloads.extend(
        {"type": "response.output_text.delta", **item, "delta": word, "logprobs": []} for word in words(call.reply)
    )
    payloads.append({"type": "response.completed", "response": openai_response(call)})
    for number, payload in enumerate(payloads):
        yield named_event({**payload, "sequence_number": number})


def openai_embeddings(call: Call) -> Json:
    """Return the answer of ``/v1/embeddings``: the same short vector per text."""
    texts = call.body.get("input")
    vector = [1.0 / (index + 1) for index in range(EMBEDDING_DIMENSIONS)]
    packed = base64.b64encode(struct.pack(f"<{EMBEDDING_DIMENSIONS}f", *vector)).decode()
    embedding = packed if call.body.get("encoding_format") == "base64" else vector
    # Mistral's embeddings have an id, OpenAI's do not.
    identity = {"id": call.response_id} if call.model.startswith("mistral") else {}
    return {
        **identity,
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index in range(len(texts) if isinstance(texts, list) else 1)
        ],
        "model": call.model,
        "usage": {"prompt_tokens": call.usage.input, "total_tokens": call.usage.input},
    }


def openai_error(status: int, message: str) -> Json:
    """Return OpenAI's error body."""
    otherwise = ("server_error" if status >= 500 else "invalid_request_error", None)
    kind, code = OPENAI_ERRORS.get(status, otherwise)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic_usage(usage: Usage, output_tokens: int) -> Json:
    """Return the counts in a message and in a ``message_delta`` event."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": output_tokens,
        "output_tokens_details": {"thinking_tokens": min(usage.reasoning, output_tokens)},
    }


def anthropic_message(call: Call, *, started: bool = False) -> Json:
    """Return the answer of ``/v1/messages``; with ``started``, the message as in ``message_start``."""
    usage = anthropic_usage(call.usage, 1 if started else call.usage.output)
    usage["cache_creation"] = {
        "ephemeral_5m_input_tokens": call.usage.cache_write - call.usage.cache_write_1h,
        "ephemeral_1h_input_tokens": call.usage.cache_write_1h,
    }
    usage["service_tier"] = "standard"
    if call.usage.web_searches:
        usage["server_tool_use"] = {"web_search_requests": call.usage.web_searches, "web_fetch_requests": 0}
    content: list[Json] = [{"type": "text", "text": call.reply}]
    if call.next_tool:
        content = [{"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": call.next_tool, "input": {}}]
    return {
        "id": call.response_id,
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [] if started else content,
        "stop_reason": None if started else "tool_use" if call.next_tool else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def anthropic_events(call: Call) -> Iterator[str]:
    """Yield the stream of ``/v1/messages``; ``message_delta`` has the last cumulative counts."""
    yield named_event({"type": "message_start", "message": anthropic_message(call, started=True)})
    block = {"type": "text", "text": ""}
    yield named_event({"type": "content_block_start", "index": 0, "content_block": block})
    for word in words(call.reply):
        delta = {"type": "text_delta", "text": word}
        yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
    yield named_event({"type": "content_block_stop", "index": 0})
    yield named_event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": anthropic_usage(call.usage, call.usage.output),
        }
    )
    yield named_event({"type": "message_stop"})


def anthropic_error(status: int, message: str) -> Json:
    """Return Anthropic's error body."""
    error = {"type": ANTHROPIC_ERRORS.get(status, "api_error"), "message": message}
    return {"type": "error", "error": error, "request_id": f"req_{uuid.uuid4().hex[:24]}"}
