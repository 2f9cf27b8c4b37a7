"""Conversations of real clients with the bundled model server, and what each comes to by the server's own word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

MESSAGES: Any = [{"role": "user", "content": "a secret question"}]
OPENAI = "input=1000,output=200,cache_read=400,reasoning=50"
ANTHROPIC = "input=500,output=120,cache_read=300,cache_write=100,cache_write_1h=40"
PLAIN = "input=300,output=80"


@dataclass(frozen=True)
class Conversation:
    """One call, and what it used."""

    client: str
    kind: str
    host: str
    """The address it is recorded at: the real provider's, or a gateway's."""
    call: Callable[[Any, str], Any]
    """Makes the call with an HTTP client to the base URL."""
    tokens: dict[str, int] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    outcomes: frozenset[str] = frozenset({"right", "flagged"})
    """What may come out of it."""


def _openai(http: Any, url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-secret", http_client=http, max_retries=0)


def _anthropic(http: Any, url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="sk-secret", http_client=http, max_retries=0)


def _chat(**more: Any) -> Callable[[Any, str], Any]:
    def call(http: Any, url: str) -> Any:
        made = _openai(http, url).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, extra_headers={"x-usage": OPENAI}, **more
        )
        return list(made) if more.get("stream") else made

    return call


def _responses(**more: Any) -> Callable[[Any, str], Any]:
    def call(http: Any, url: str) -> Any:
        made = _openai(http, url).responses.create(
            model="gpt-5-mini", input="a secret question", extra_headers={"x-usage": OPENAI}, **more
        )
        return list(made) if more.get("stream") else made

    return call


def _embeddings(http: Any, url: str) -> Any:
    return _openai(http, url).embeddings.create(
        model="text-embedding-3-small", input="a secret question", extra_headers={"x-usage": "input=77"}
    )


def _messages(**more: Any) -> Callable[[Any, str], Any]:
    def call(http: Any, url: str) -> Any:
        made = _anthropic(http, url).messages.create(
            model="claude-haiku-4-5", max_tokens=99, messages=MESSAGES, extra_headers={"x-usage": ANTHROPIC}, **more
        )
        return list(made) if more.get("stream") else made

    return call


def _refused(http: Any, url: str) -> None:
    try:
        _openai(http, url).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, extra_headers={"x-fail": "429"}
        )
    except openai.RateLimitError:
        return


def _post(path: str, body: Any, usage: str) -> Callable[[Any, str], Any]:
    def call(http: Any, url: str) -> Any:
        with http.stream("POST", url + path, json=body, headers={"x-usage": usage}) as response:
            return response.read()

    return call


_OPENAI_TOKENS = {"input": 600, "cache_read": 400, "output": 200, "reasoning": 50}
_ANTHROPIC_TOKENS = {"input": 500, "cache_read": 300, "cache_write": 60, "cache_write_1h": 40, "output": 120}
_PLAIN_TOKENS = {"input": 300, "output": 80}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "a secret question"}]}]}
_CONVERSE = {"messages": [{"role": "user", "content": [{"text": "a secret question"}]}]}
_CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": MESSAGES}
_GEMINI = "/v1beta/models/gemini-2.5-flash"
_NOVA = "/model/us.amazon.nova-lite-v1%3A0"
_BEDROCK_CLAUDE = "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0"
_API_OPENAI, _API_ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com"
_API_GOOGLE = "https://generativelanguage.googleapis.com"
_API_BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com"
_API_MISTRAL, _API_COHERE = "https://api.mistral.ai", "https://api.cohere.com"
_WITH_USAGE: Any = {"stream": True, "stream_options": {"include_usage": True}}
_CHAT_BODY = {"model": "mistral-small-latest", "messages": MESSAGES}
_COHERE_BODY = {"model": "command-r-plus-08-2024", "messages": MESSAGES}

CONVERSATIONS = (
    Conversation("openai", "chat", _API_OPENAI, _chat(), _OPENAI_TOKENS),
    Conversation("openai", "chat, streamed with usage", _API_OPENAI, _chat(**_WITH_USAGE), _OPENAI_TOKENS),
    Conversation(
        "openai", "chat, streamed without usage", _API_OPENAI, _chat(stream=True), outcomes=frozenset({"not metered"})
    ),
    Conversation("openai", "responses", _API_OPENAI, _responses(), _OPENAI_TOKENS),
    Conversation("openai", "responses, streamed", _API_OPENAI, _responses(stream=True), _OPENAI_TOKENS),
    Conversation("openai", "embeddings", _API_OPENAI, _embeddings, {"input": 77}),
    Conversation("openai", "refused", _API_OPENAI, _refused, outcomes=frozenset({"failed"})),
    Conversation("anthropic", "messages", _API_ANTHROPIC, _messages(), _ANTHROPIC_TOKENS),
    Conversation("anthropic", "messages, streamed", _API_ANTHROPIC, _messages(stream=True), _ANTHROPIC_TOKENS),
    Conversation("httpx", "Gemini", _API_GOOGLE, _post(f"{_GEMINI}:generateContent", _CONTENTS, PLAIN), _PLAIN_TOKENS),
    Conversation(
        "httpx",
        "Gemini, streamed",
        _API_GOOGLE,
        _post(f"{_GEMINI}:streamGenerateContent?alt=sse&key=s3cret", _CONTENTS, PLAIN),
        _PLAIN_TOKENS,
    ),
    Conversation("httpx", "Bedrock", _API_BEDROCK, _post(f"{_NOVA}/converse", _CONVERSE, PLAIN), _PLAIN_TOKENS),
    Conversation(
        "httpx",
        "Bedrock, streamed (binary)",
        _API_BEDROCK,
        _post(f"{_NOVA}/converse-stream", _CONVERSE, PLAIN),
        _PLAIN_TOKENS,
    ),
    Conversation(
        "httpx",
        "Claude on Bedrock, streamed (binary)",
        _API_BEDROCK,
        _post(f"{_BEDROCK_CLAUDE}/invoke-with-response-stream", _CLAUDE, PLAIN),
        _PLAIN_TOKENS,
    ),
    Conversation("httpx", "Mistral", _API_MISTRAL, _post("/v1/chat/completions", _CHAT_BODY, PLAIN), _PLAIN_TOKENS),
    Conversation("httpx", "Cohere", _API_COHERE, _post("/v2/chat", _COHERE_BODY, PLAIN), _PLAIN_TOKENS),
    Conversation(
        "httpx",
        "an address that is not known",
        "https://llm.example.com",
        _post("/v1/chat/completions", _CHAT_BODY, PLAIN),
        outcomes=frozenset({"not recognised"}),
    ),
)
