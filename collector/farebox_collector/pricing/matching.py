"""Which model of the price book a name on a span means.

Clauses are the published vocabulary of genai-prices: `equals`, `starts_with`, `ends_with`, `contains`, `regex`, `or`,
`and`; texts compare in lower case. A name that ends in a compact date (`-20251211`) is tried again with dashes, since
some gateways write it so.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

Matcher = Callable[[str], bool]

PROVIDER_ALIASES: Mapping[str, str] = {
    "azure.ai.openai": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "moonshot_ai": "moonshotai",
    "fireworks_ai": "fireworks",
    "together_ai": "together",
}
"""`gen_ai.provider.name` and its older values → provider of the price book, where the two differ."""

FALLBACK_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "azure": ("openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
    "google": ("anthropic",),
}
"""Providers that resell others' models at their list price: where to look for a model that they don't list."""

_COMPACT_DATE = re.compile(r"(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)")


def book_provider(reported: str) -> str:
    """The price book's name of a provider as spans name it."""
    name = reported.strip().lower()
    return PROVIDER_ALIASES.get(name, name)


def compile_match(match: str) -> Matcher:
    """Compile the JSON of a clause to a predicate over a lower-case model name. Raises ValueError if it is none."""
    return _compile(json.loads(match))


def dashed_date(model: str) -> str:
    """Rewrite a compact date in a model name with dashes; names without one come back as they were."""

    def rewrite(found: re.Match[str]) -> str:
        year, month, day = found.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            return found.group(0)
        return f"{year}-{month}-{day}"

    return _COMPACT_DATE.sub(rewrite, model)


def _compile(clause: Mapping[str, Any]) -> Matcher:
    if len(clause) != 1:
        raise ValueError(f"a match clause has exactly one key: {clause!r}")
    ((kind, argument),) = clause.items()
    if kind in ("or", "and"):
        parts = [_compile(part) for part in argument]
        combine = any if kind == "or" else all
        return lambda model: combine(part(model) for part in parts)
    if kind == "regex":
        pattern = re.compile(argument)
        return lambda model: pattern.search(model) is not None
    text = str(argument).lower()
    match kind:
        case "equals":
            return lambda model: model == text
        case "starts_with":
            return lambda model: model.startswith(text)
        case "ends_with":
            return lambda model: model.endswith(text)
        case "contains":
            return lambda model: text in model
    raise ValueError(f"unknown match clause {kind!r}")
