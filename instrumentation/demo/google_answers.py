"""What Google's Gemini API answers: bodies, events and errors in its shapes. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

from model_answers import Call, Json, Usage, data_event, words

GOOGLE_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


def google_usage(usage: Usage) -> Json:
    """The usage object of ``:generateContent``: the candidates' tokens do not count the thoughts, the total does."""
    return {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output,
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input + usage.output + usage.reasoning,
    }


def google_content(call: Call, text: str | None = None, finish_reason: str | None = "STOP") -> Json:
    """The answer of ``:generateContent``; with ``text``, one piece of a stream of it."""
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
    """The stream of ``:streamGenerateContent?alt=sse``; every piece carries the usage."""
    pieces = list(words(call.reply))
    for number, piece in enumerate(pieces, start=1):
        yield data_event(google_content(call, piece, "STOP" if number == len(pieces) else None))


def google_embeddings(call: Call) -> Json:
    """The answer of ``:batchEmbedContents``: a short vector for each text, and no word of usage."""
    return {"embeddings": [{"values": [0.5, 0.25]} for _ in call.body.get("requests") or []]}


def google_error(status: int, message: str) -> Json:
    """Google's error body."""
    return {"error": {"code": status, "message": message, "status": GOOGLE_STATUS.get(status, "INTERNAL")}}
