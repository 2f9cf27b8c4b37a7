"""Recognise model calls among HTTP requests by provider address, user-named base URL and path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from farebox.guard import guarded
from farebox.known_addresses import MORE_PATTERNS, billed_region_of, region_of
from farebox.model_paths import Operation, Shape, operations

__all__ = [
    "DEFAULT_PROVIDERS",
    "KNOWN_MAX",
    "Endpoint",
    "ModelEndpoints",
    "Shape",
    "Url",
    "known_providers",
    "named_urls",
]

_PORTS: Final = {"http": 80, "https": 443}


KNOWN_MAX: Final = 512
"""Maximum cached URLs."""


class Url(Protocol):
    """The used part of both libraries' URLs: their attributes, and the default of a missing port."""

    raw_scheme: Any
    raw_host: Any
    raw_path: Any
    scheme: Any
    host: Any
    port: Any
    path: Any


@dataclass(frozen=True)
class Endpoint:
    """What is known of a call from its URL."""

    operation: str
    provider: str
    shape: Shape
    model: str | None = None
    region: str | None = None
    billed_region: str | None = None
    """The region, if the provider bills by it."""
    certain: bool = True
    """Whether the provider is known from its address or the user, and not guessed from the path."""
    named: bool = False
    """Whether the user named the URL; the answer may then have any shape."""
    fetched: str | None = None
    """The id of the requested earlier answer, if the answer itself does not state it."""


# Provider ids of genai-prices that differ from OpenTelemetry's names.
_OTEL_NAMES: Final = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}
DEFAULT_PROVIDERS: Final = {
    Shape.OPENAI: "openai",
    Shape.ANTHROPIC: "anthropic",
    Shape.GOOGLE: "gcp.gemini",
    Shape.COHERE: "cohere",
    Shape.BEDROCK: "aws.bedrock",
    Shape.OLLAMA: "ollama",
}
_ANYWHERE: Final = frozenset({"anthropic", "cohere", "ollama"})
"""Paths that are model calls below a user-named base URL without further evidence."""


@dataclass(frozen=True)
class _BaseUrl:
    origin: tuple[str, str, int | None]
    path: str
    provider: str | None


class ModelEndpoints:
    """Maps URLs to endpoints."""

    def __init__(self, model_urls: Mapping[str, str | None], provider_patterns: Iterable[tuple[str, str]]) -> None:
        """Prepare for look-ups.

        Args:
            model_urls: base URLs named by the user, each with the provider's name or None; the longest match wins.
            provider_patterns: pairs of provider name and regular expression of its URLs.

        A base URL without scheme and host is reported and ignored.
        """
        self._bases: list[_BaseUrl] = []
        for url, provider in model_urls.items():
            with guarded("reading the base URLs of model APIs"):
                self._bases.append(_base_url(url, provider))
        self._bases.sort(key=lambda base: len(base.path), reverse=True)
        self._patterns = [(provider, _whole_host(pattern)) for provider, pattern in provider_patterns]
        # An application calls models at few distinct URLs.
        self._known: dict[object, Endpoint] = {}

    def find(self, url: Url, method: str = "POST") -> Endpoint | None:
        """Return the endpoint of a request to this URL of httpx or httpx2; None if it is not a model call."""
        place = (method, url.raw_scheme, url.raw_host, url.port, url.raw_path)
        known = self._known.get(place)
        if known is not None:
            return known
        path = url.path.rstrip("/")
        found = operations(method, path)
        if not found:
            return None
        scheme = url.scheme
        endpoint = self._find(found, (scheme, url.host, url.port or _PORTS.get(scheme)), path)
        if endpoint is not None and method == "POST" and len(self._known) < KNOWN_MAX:
            self._known[place] = endpoint
        return endpoint

    def below_named(self, url: Url) -> Endpoint | None:
        """Return the endpoint of a request whose body is a model call, if the user named its base URL."""
        scheme = url.scheme
        base = self._base_of((scheme, url.host, url.port or _PORTS.get(scheme)), url.path)
        if base is None:
            return None
        provider = base.provider or DEFAULT_PROVIDERS[Shape.OPENAI]
        return Endpoint("chat", provider, Shape.OPENAI, certain=base.provider is not None, named=True)

    def _base_of(self, origin: tuple[str, str, int | None], path: str) -> _BaseUrl | None:
        for base in self._bases:
            if origin == base.origin and (path == base.path or path.startswith(base.path + "/")):
                return base
        return None

    def _find(self, found: list[Operation], origin: tuple[str, str, int | None], path: str) -> Endpoint | None:
        scheme, host, port = origin
        base = self._base_of(origin, path)
        if base is not None:
            owned = [one for one in found if one.own and one.own in (base.provider or host)]
            fitting = owned or [one for one in found if one.own is None or one.own in _ANYWHERE]
            if not fitting:
                return None
            operation = fitting[0]
            return Endpoint(
                operation.name,
                base.provider or DEFAULT_PROVIDERS[operation.shape],
                operation.shape,
                operation.model,
                region_of(host),
                billed_region_of(host),
                certain=base.provider is not None,
                named=True,
                fetched=operation.fetched,
            )
        address = host if port == _PORTS.get(scheme) else f"{host}:{port}"
        url = f"{scheme}://{address}{path}"
        for provider, pattern in self._patterns:
            if pattern.match(url):
                fitting = [one for one in found if one.own is None or one.own in host]
                if not fitting:
                    return None
                operation = next((one for one in fitting if one.own), fitting[0])
                return Endpoint(
                    operation.name,
                    _provider_name(provider, host),
                    operation.shape,
                    operation.model,
                    region_of(host),
                    billed_region_of(host),
                    fetched=operation.fetched,
                )
        return None


def known_providers() -> list[tuple[str, str]]:
    """Return genai-prices' providers with their URL patterns. Loading takes about 0.1 s."""
    from genai_prices.data_snapshot import get_snapshot

    return [*((provider.id, provider.api_pattern) for provider in get_snapshot().providers), *MORE_PATTERNS]


def named_urls(model_urls: Mapping[str, str] | Iterable[str], environment: str) -> dict[str, str | None]:
    """Combine the base URLs of the argument and the environment.

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


def _whole_host(pattern: str) -> re.Pattern[str]:
    # Most patterns of genai-prices have no end anchor and would match api.openai.com.example.com. A pattern that ends
    # in a dot is open on purpose.
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
