"""Build answers of Google's Gemini API: bodies, events and errors. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from model_answers import Call, Json, Usage, data_event, words

GOOGLE_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


def google_usage(usage: Usage) -> Json:
    """Return the usage of ``:generateContent``: candidate tokens exclude thoughts, the total includes them."""
    return {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output,
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input + usage.output + usage.reasoning,
    }


def google_content(call: Call, text: str | None = None, finish_reason: str | None = "STOP") -> Json:
    """Return the answer of ``:generateContent``; with ``text``, a piece of its stream."""
    parts = [{"text": call.reply if text is None else text}]
    candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
    if finish_reason:
        candidate["finishReason"] = finish_reason
    return {
        "candidates": [candidate],
        "usageMetadata": google_usage(call.usage),
        "modelVersion": call.model,
        "responseId": call.response_id,
    }


def google_events(call: Call) -> Iterator[str]:
    """Yield the stream of ``:streamGenerateContent?alt=sse``; every piece has the usage."""
    pieces = list(words(call.reply))
    for number, piece in enumerate(pieces, start=1):
        yield data_event(google_content(call, piece, "STOP" if number == len(pieces) else None))


def google_embeddings(call: Call) -> Json:
    """Return the answer of ``:batchEmbedContents``: a short vector per text, without usage."""
    return {"embeddings": [{"values": [0.5, 0.25]} for _ in call.body.get("requests") or []]}


def google_error(status: int, message: str) -> Json:
    """Return Google's error body."""
    return {"error": {"code": status, "message": message, "status": GOOGLE_STATUS.get(status, "INTERNAL")}}
