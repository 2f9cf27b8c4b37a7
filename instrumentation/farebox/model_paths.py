"""Map URL paths of model calls to the operation and the answer's shape."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import unquote


class Shape(Enum):
    """The format of request and response bodies; many providers use OpenAI's."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    COHERE = "cohere"
    BEDROCK = "bedrock"
    OLLAMA = "ollama"


class Operation(NamedTuple):
    """What a path determines about a call."""

    name: str
    shape: Shape
    model: str | None = None
    own: str | None = None
    """Part of the only host names at which the path is a model call; None for any host."""
    fetched: str | None = None
    """The id of the requested answer, if the answer itself does not state it."""


# Path suffix, operation, shape, and the only addresses. More specific suffixes come first.
_ENDS: Final = (
    ("/chat/completions", "chat", Shape.OPENAI, None),
    ("/completions", "text_completion", Shape.OPENAI, None),
    ("/responses", "chat", Shape.OPENAI, None),
    ("/responses/compact", "chat", Shape.OPENAI, None),
    ("/multimodalembeddings", "embeddings", Shape.OPENAI, "voyage"),
    ("/contextualizedembeddings", "embeddings", Shape.OPENAI, "voyage"),
    ("/embeddings", "embeddings", Shape.OPENAI, None),
    ("/images/generations", "generate_content", Shape.OPENAI, None),
    ("/images/edits", "generate_content", Shape.OPENAI, None),
    ("/images/variations", "generate_content", Shape.OPENAI, None),
    ("/audio/transcriptions", "generate_content", Shape.OPENAI, None),
    ("/audio/translations", "generate_content", Shape.OPENAI, None),
    ("/audio/speech", "generate_content", Shape.OPENAI, None),
    ("/v1/ocr", "generate_content", Shape.OPENAI, None),
    ("/v1/conversations", "chat", Shape.OPENAI, "mistral"),
    ("/messages", "chat", Shape.ANTHROPIC, None),
    ("/v1/complete", "text_completion", Shape.ANTHROPIC, "anthropic"),
    ("/v1/chat", "chat", Shape.COHERE, "cohere"),
    ("/v2/chat", "chat", Shape.COHERE, "cohere"),
    ("/v1/generate", "text_completion", Shape.COHERE, "cohere"),
    ("/v1/summarize", "text_completion", Shape.COHERE, "cohere"),
    ("/v1/embed", "embeddings", Shape.COHERE, "cohere"),
    ("/v2/embed", "embeddings", Shape.COHERE, "cohere"),
    ("/v1/rerank", "generate_content", Shape.COHERE, "cohere"),
    ("/v2/rerank", "generate_content", Shape.COHERE, "cohere"),
    ("/v1/rerank", "generate_content", Shape.OPENAI, "voyage"),
    ("/api/chat", "chat", Shape.OLLAMA, "ollama"),
    ("/api/generate", "text_completion", Shape.OLLAMA, "ollama"),
    ("/api/embed", "embeddings", Shape.OLLAMA, "ollama"),
    ("/api/embeddings", "embeddings", Shape.OLLAMA, "ollama"),
)
# Paths that name the model or an object of the provider.
_MODEL_PATHS: Final = (
    (re.compile(r"/models/([^/:]+):(?:generateContent|streamGenerateContent)$"), "generate_content", Shape.GOOGLE),
    (re.compile(r"/models/([^/:]+):(?:embedContent|batchEmbedContents)$"), "embeddings", Shape.GOOGLE),
    (re.compile(r"/models/([^/:]*embed[^/:]*):predict$"), "embeddings", Shape.GOOGLE),
    (re.compile(r"/models/([^/:]+):predict$"), "generate_content", Shape.GOOGLE),
    # Vertex counts tokens under a model's name.
    (re.compile(r"/models/(?!count-tokens:)([^/:]+):(?:rawPredict|streamRawPredict)$"), "chat", Shape.ANTHROPIC),
    (re.compile(r"/endpoints/([^/:]+):(?:generateContent|streamGenerateContent)$"), "generate_content", Shape.GOOGLE),
    (re.compile(r"/model/(.+)/converse(?:-stream)?$"), "chat", Shape.BEDROCK),
    (re.compile(r"/model/(.+)/invoke(?:-with-response-stream)?$"), "chat", Shape.BEDROCK),
)
_RUN: Final = re.compile(r"/threads(?:/[^/]+)?/runs(?:/run_[^/]+/submit_tool_outputs)?$")
_CONVERSATION: Final = re.compile(r"/v1/conversations/[^/]+(?:/restart)?$")
_CANCELLED: Final = re.compile(r"/responses/resp_[^/]+/cancel$")
_LATER: Final = re.compile(r"/responses/resp_[^/]+$|/threads/[^/]+/runs/run_[^/]+$")
# xAI's deferred completions and Perplexity's asynchronous ones. The fetched answer has a different id in its body.
_PROMISED: Final = re.compile(r"/chat/deferred-completion/([^/]{1,200})$|/async/chat/completions/([^/]{1,200})$")
# OpenAI's Assistants store messages under /threads/…/messages, which uses no tokens.
_NO_MODEL_CALL: Final = re.compile(r"/threads/")
_LAST: Final = frozenset(end.rpartition("/")[2] for end, _, _, _ in _ENDS) | {
    "cancel",
    "converse",
    "converse-stream",
    "invoke",
    "invoke-with-response-stream",
    "runs",
    "submit_tool_outputs",
}
"""The last segments of model paths that do not end in a model or conversation."""
FETCH: Final = "fetch_response"
"""The operation of a request for an earlier answer, which uses no tokens itself."""


def operations(method: str, path: str) -> list[Operation]:
    """Return the possible operations of a request to this path (without final slash); empty if not a model call.

    A request for a background answer counts as one: it may state the usage.
    """
    if method == "GET":
        later = ("/resp_" in path or "/run_" in path) and _LATER.search(path) is not None
        if later:
            return [Operation(FETCH, Shape.OPENAI)]
        promised = _PROMISED.search(path) if "/chat/" in path else None
        return [Operation(FETCH, Shape.OPENAI, fetched=promised[1] or promised[2])] if promised else []
    last = path.rpartition("/")[2]
    # Most requests of an application are not model calls; this is all they cost.
    if method != "POST" or (last not in _LAST and ":" not in last and "/conversations/" not in path):
        return []
    if "/threads" in path and _RUN.search(path):
        return [Operation("chat", Shape.OPENAI)]
    found = [
        Operation(name, shape, None, own)
        for end, name, shape, own in _ENDS
        if path.endswith(end) and not _NO_MODEL_CALL.search(path)
    ]
    if found:
        return found
    for pattern, name, shape in _MODEL_PATHS:
        if match := pattern.search(path):
            return [Operation(name, shape, unquote(match[1]))]
    if _CONVERSATION.search(path):
        return [Operation("chat", Shape.OPENAI, None, "mistral")]
    return [Operation(FETCH, Shape.OPENAI)] if _CANCELLED.search(path) else []
