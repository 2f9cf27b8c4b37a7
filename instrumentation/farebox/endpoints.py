"""Which HTTP requests are calls of a model: providers' addresses, base URLs that the user named, paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from farebox.guard import guarded

_PORTS: Final = {"http": 80, "https": 443}


KNOWN_MAX: Final = 512
"""How many URLs are remembered."""


class Url(Protocol):
    """The part of both libraries' URLs that is used here: their names, and what a port is if it is not said."""

    raw_scheme: Any
    raw_host: Any
    raw_path: Any
    scheme: Any
    host: Any
    port: Any
    path: Any


class Shape(Enum):
    """Whose request and response bodies an endpoint speaks; many providers speak OpenAI's."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    COHERE = "cohere"
    BEDROCK = "bedrock"


@dataclass(frozen=True)
class Endpoint:
    """What a URL says about a call before its body is read."""

    operation: str
    provider: str
    shape: Shape
    model: str | None = None
    region: str | None = None


# The end of the path, the operation, the shape. More specific ends come first.
_PATHS: Final = (
    ("/chat/completions", "chat", Shape.OPENAI),
    ("/completions", "text_completion", Shape.OPENAI),
    ("/responses", "chat", Shape.OPENAI),
    ("/embeddings", "embeddings", Shape.OPENAI),
    ("/images/generations", "generate_content", Shape.OPENAI),
    ("/images/edits", "generate_content", Shape.OPENAI),
    ("/images/variations", "generate_content", Shape.OPENAI),
    ("/audio/transcriptions", "generate_content", Shape.OPENAI),
    ("/audio/translations", "generate_content", Shape.OPENAI),
    ("/audio/speech", "generate_content", Shape.OPENAI),
    ("/v1/ocr", "generate_content", Shape.OPENAI),
    ("/messages", "chat", Shape.ANTHROPIC),
    ("/v1/chat", "chat", Shape.COHERE),
    ("/v2/chat", "chat", Shape.COHERE),
    ("/v1/embed", "embeddings", Shape.COHERE),
    ("/v2/embed", "embeddings", Shape.COHERE),
    ("/v1/rerank", "generate_content", Shape.COHERE),
    ("/v2/rerank", "generate_content", Shape.COHERE),
)
# Paths that name the model themselves.
_MODEL_PATHS: Final = (
    (re.compile(r"/models/([^/:]+):(?:generateContent|streamGenerateContent)$"), "generate_content", Shape.GOOGLE),
    (re.compile(r"/models/([^/:]+):(?:embedContent|batchEmbedContents)$"), "embeddings", Shape.GOOGLE),
    (re.compile(r"/models/([^/:]+):(?:rawPredict|streamRawPredict)$"), "chat", Shape.ANTHROPIC),
    (re.compile(r"/model/(.+)/converse(?:-stream)?$"), "chat", Shape.BEDROCK),
    (re.compile(r"/model/(.+)/invoke(?:-with-response-stream)?$"), "chat", Shape.BEDROCK),
)
_REGIONS: Final = (
    re.compile(r"^bedrock-runtime[^.]*\.([a-z0-9-]+)\.amazonaws\.com$"),
    re.compile(r"^([a-z0-9-]+)-aiplatform\.googleapis\.com$"),
)
# OpenAI's Assistants keep their messages under /threads/…/messages; that makes no tokens.
_NO_MODEL_CALL: Final = re.compile(r"/threads/")

# genai-prices' ids where OpenTelemetry has a name of its own for the provider; the others are the same.
_OTEL_NAMES: Final = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}
_DEFAULT_PROVIDERS: Final = {
    Shape.OPENAI: "openai",
    Shape.ANTHROPIC: "anthropic",
    Shape.GOOGLE: "gcp.gemini",
    Shape.COHERE: "cohere",
    Shape.BEDROCK: "aws.bedrock",
}


@dataclass(frozen=True)
class _BaseUrl:
    origin: tuple[str, str, int | None]
    path: str
    provider: str | None


class ModelEndpoints:
    """Knows the endpoint behind a URL."""

    def __init__(self, model_urls: Mapping[str, str | None], provider_patterns: Iterable[tuple[str, str]]) -> None:
        """Prepare for lookups.

        Args:
            model_urls: base URLs that the user named, each with the provider's name or None; of several that fit, the
                longest counts.
            provider_patterns: pairs of a provider's name and the regular expression of its URLs.

        A base URL without a scheme and a host is reported and left out.
        """
        self._bases: list[_BaseUrl] = []
        for url, provider in model_urls.items():
            with guarded("reading the base URLs of model APIs"):
                self._bases.append(_base_url(url, provider))
        self._bases.sort(key=lambda base: len(base.path), reverse=True)
        self._patterns = [(provider, _whole_host(pattern)) for provider, pattern in provider_patterns]
        # An application calls a model at few distinct URLs.
        self._known: dict[object, Endpoint] = {}

    def find(self, url: Url) -> Endpoint | None:
        """The endpoint of a POST to this URL of httpx or httpx2, or None when it is no model's."""
        place = (url.raw_scheme, url.raw_host, url.port, url.raw_path)
        known = self._known.get(place)
        if known is not None:
            return known
        path = url.path.rstrip("/")
        operation = _operation(path)
        if operation is None:
            return None
        scheme = url.scheme
        endpoint = self._find(operation, (scheme, url.host, url.port or _PORTS.get(scheme)), path)
        if endpoint is not None and len(self._known) < KNOWN_MAX:
            self._known[place] = endpoint
        return endpoint

    def _find(
        self, operation: tuple[str, Shape, str | None], origin: tuple[str, str, int | None], path: str
    ) -> Endpoint | None:
        name, shape, model = operation
        for base in self._bases:
            if origin == base.origin and path.startswith(base.path + "/"):
                return Endpoint(name, base.provider or _DEFAULT_PROVIDERS[shape], shape, model)
        if shape is Shape.COHERE and "cohere" not in origin[1]:
            return None  # such short paths are a model's only at Cohere
        scheme, host, port = origin
        address = host if port == _PORTS.get(scheme) else f"{host}:{port}"
        url = f"{scheme}://{address}{path}"
        for provider, pattern in self._patterns:
            if pattern.match(url):
                return Endpoint(name, _provider_name(provider, host), shape, model, _region(host))
        return None


def known_providers() -> list[tuple[str, str]]:
    """The providers that genai-prices knows, and the patterns of their URLs. Loading takes about 0.1 s."""
    from genai_prices.data_snapshot import get_snapshot

    return [(provider.id, provider.api_pattern) for provider in get_snapshot().providers]


def named_urls(model_urls: Mapping[str, str] | Iterable[str], environment: str) -> dict[str, str | None]:
    """Bring the two ways to name base URLs together.

    Args:
        model_urls: URLs, or a mapping of URLs to providers' names. environment: the text of
            ``FAREBOX_MODEL_URLS``: URLs between commas, each ``url`` or ``url=provider``.
    """
    urls: dict[str, str | None] = {}
    for entry in filter(None, (part.strip() for part in environment.split(","))):
        url, _, provider = entry.partition("=")
        urls[url] = provider or None
    if isinstance(model_urls, str):
        model_urls = [model_urls]
    urls.update(model_urls if isinstance(model_urls, Mapping) else dict.fromkeys(model_urls))
    return urls


def _operation(path: str) -> tuple[str, Shape, str | None] | None:
    for end, operation, shape in _PATHS:
        if path.endswith(end):
            return None if _NO_MODEL_CALL.search(path) else (operation, shape, None)
    for pattern, operation, shape in _MODEL_PATHS:
        if found := pattern.search(path):
            return operation, shape, unquote(found.group(1))
    return None


def _region(host: str) -> str | None:
    for pattern in _REGIONS:
        if found := pattern.match(host):
            return found.group(1)
    return None


def _whole_host(pattern: str) -> re.Pattern[str]:
    # genai-prices leaves most patterns open at their end, where api.openai.com.example.com would fit as well. One
    # that ends in a dot means to be open.
    return re.compile(pattern if pattern.endswith(r"\.") else f"(?:{pattern})(?:(?<=/)|(?=[:/]|$))")


def _base_url(url: str, provider: str | None) -> _BaseUrl:
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"not a base URL: {url!r}")
    return _BaseUrl(
        (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)),
        parts.path.rstrip("/"),
        provider,
    )


def _provider_name(provider: str, host: str) -> str:
    if provider == "google" and "aiplatform" in host:
        return "gcp.vertex_ai"
    return _OTEL_NAMES.get(provider, provider)
