"""Build answers other than chats: images, audio, pages, and Cohere's and Amazon Bedrock's formats. No I/O."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator

from model_answers import Call, Json, Usage, anthropic_events, anthropic_message, named_event, words

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SOUND = b"ID3" + bytes(61)


def openai_images(call: Call) -> Json:
    """Return the answer of ``/v1/images/generations`` and ``/edits``; only gpt-image models count tokens."""
    answer: Json = {"created": 1, "data": [{"b64_json": PIXEL} for _ in range(int(call.body.get("n") or 1))]}
    if call.model.startswith("gpt-image"):
        answer["usage"] = {
            "input_tokens": call.usage.input,
            "input_tokens_details": {
                "text_tokens": call.usage.input - call.usage.input_image,
                "image_tokens": call.usage.input_image,
            },
            "output_tokens": call.usage.output,
            "total_tokens": call.usage.input + call.usage.output,
        }
    return answer


def openai_transcript(call: Call) -> Json:
    """Return the answer of ``/v1/audio/transcriptions``: whisper bills seconds, other models tokens."""
    if call.model.startswith("whisper"):
        return {"text": call.reply, "usage": {"type": "duration", "seconds": call.usage.seconds}}
    usage = {
        "type": "tokens",
        "input_tokens": call.usage.input,
        "input_token_details": {
            "audio_tokens": call.usage.input_audio,
            "text_tokens": call.usage.input - call.usage.input_audio,
        },
        "output_tokens": call.usage.output,
        "total_tokens": call.usage.input + call.usage.output,
    }
    return {"text": call.reply, "usage": usage}


def mistral_pages(call: Call) -> Json:
    """Return the answer of ``/v1/ocr``."""
    size: Json = {"dpi": 72, "height": 1, "width": 1}
    pages = [{"index": i, "markdown": "", "images": [], "dimensions": size} for i in range(call.usage.pages)]
    return {"pages": pages, "model": call.model, "usage_info": {"pages_processed": call.usage.pages}}


def cohere_usage(usage: Usage) -> Json:
    """Return the usage of ``/v2/chat``: the cache is part of the input."""
    return {
        "billed_units": {"input_tokens": float(usage.input), "output_tokens": float(usage.output)},
        "tokens": {"input_tokens": usage.input + 10, "output_tokens": usage.output},
        "cached_tokens": usage.cache_read,
    }


def cohere_chat(call: Call) -> Json:
    """Return the answer of ``/v2/chat``."""
    return {
        "id": call.response_id,
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": call.reply}]},
        "usage": cohere_usage(call.usage),
    }


def cohere_events(call: Call) -> Iterator[str]:
    """Yield the stream of ``/v2/chat``."""
    yield named_event({"type": "message-start", "id": call.response_id, "delta": {"message": {"role": "assistant"}}})
    for word in words(call.reply):
        delta = {"message": {"content": {"text": word}}}
        yield named_event({"type": "content-delta", "index": 0, "delta": delta})
    end = {"finish_reason": "COMPLETE", "usage": cohere_usage(call.usage)}
    yield named_event({"type": "message-end", "id": call.response_id, "delta": end})


def cohere_embeddings(call: Call) -> Json:
    """Return the answer of ``/v2/embed``."""
    vectors = [[0.5, 0.25] for _ in call.body.get("texts") or []]
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": call.usage.input}}
    return {"id": call.response_id, "embeddings": {"float": vectors}, "texts": call.body.get("texts"), "meta": meta}


def cohere_ranks(call: Call) -> Json:
    """Return the answer of ``/v2/rerank``, billed per search."""
    documents = call.body.get("documents") or []
    results = [{"index": index, "relevance_score": 0.5} for index in range(len(documents))]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": call.usage.searches}}
    return {"id": call.response_id, "results": results, "meta": meta}


def cohere_error(status: int, message: str) -> Json:
    """Return Cohere's error body."""
    return {"id": "00000000-0000-0000-0000-000000000000", "message": message}


def bedrock_usage(usage: Usage) -> Json:
    """Return the usage of Converse: input excludes the cache."""
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output + usage.cache_read + usage.cache_write,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }


def bedrock_converse(call: Call) -> Json:
    """Return the answer of Converse."""
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": call.reply}]}},
        "stopReason": "end_turn",
        "usage": bedrock_usage(call.usage),
        "metrics": {"latencyMs": 1},
    }


def bedrock_converse_events(call: Call) -> Iterator[bytes]:
    """Yield the stream of ConverseStream."""
    yield aws_message("messageStart", {"role": "assistant"})
    for word in words(call.reply):
        yield aws_message("contentBlockDelta", {"delta": {"text": word}, "contentBlockIndex": 0})
    yield aws_message("messageStop", {"stopReason": "end_turn"})
    yield aws_message("metadata", {"usage": bedrock_usage(call.usage), "metrics": {"latencyMs": 1}})


def bedrock_invocation(call: Call) -> Json:
    """Return the answer of InvokeModel for an Anthropic model, in Anthropic's format."""
    return anthropic_message(call)


def bedrock_invocation_events(call: Call) -> Iterator[bytes]:
    """Yield the stream of InvokeModelWithResponseStream: Anthropic's events, packed."""
    for event in anthropic_events(call):
        payload = event.partition("data: ")[2].strip().encode()
        yield aws_message("chunk", {"bytes": base64.b64encode(payload).decode()})


def bedrock_error(status: int, message: str) -> Json:
    """Return Bedrock's error body; a header has its kind."""
    return {"message": message}


def aws_message(kind: str, payload: Json) -> bytes:
    """Return a message of Amazon's event stream: lengths, a checksum, headers, the payload, a checksum."""
    names = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        struct.pack(f">B{len(name)}sBH{len(value)}s", len(name), name.encode(), 7, len(value), value.encode())
        for name, value in names.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 12 + len(headers) + len(body) + 4, len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return whole + struct.pack(">I", zlib.crc32(whole))
