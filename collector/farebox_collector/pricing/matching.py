"""Map a model name on a span to a model of the price book.

Clauses are the published vocabulary of genai-prices: `equals`, `starts_with`, `ends_with`, `contains`, `regex`, `or`,
`and`; texts compare in lower case. A name that ends in a compact date (`-20251211`) is retried with dashes, because
some gateways write it so.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from farebox_collector.model.records import PricedModel
from farebox_collector.pricing.providers import FALLBACK_PROVIDERS, PROVIDER_ALIASES, book_provider

Matcher = Callable[[str], bool]
Key = tuple[str, str]
"""Provider and model in the price book."""

_LONGEST_NAME = 150
"""Longer names match no model, even if they begin like one."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_ROUTING_PREFIXES = frozenset(
    {"models", "publishers", "converse", "invoke", "inference-profile", *PROVIDER_ALIASES, *PROVIDER_ALIASES.values()}
)
"""Prefixes of a model name that say how the model is reached, not which model it is."""
_OPEN_WEIGHTS = ("gpt-oss",)
"""Makers of models that many providers sell at their own prices: the maker in the name is not the seller."""
_ROUTING_SUFFIXES = (":nitro", ":floor", ":exacto")
"""OpenRouter's routing preferences; they do not change the model's price."""
_FREE_VARIANT = ":free"
"""Used only by OpenRouter, so it identifies the seller."""
_DATE_AND_VERSION = re.compile(r"(-20\d{6})?(-v?\d+:\d+)?$")
_PROFILE = re.compile(r"(?:[a-z]{2}(?:-[a-z]{2,8})?|apac|amer|emea|latam|global)\.(?=[a-z0-9-]{3,}\.)")
"""How Bedrock's inference profiles begin: the region, before the maker and the model. Some, such as `global.`, have
prices of their own, and are found by their whole name first."""

_COMPACT_DATE = re.compile(r"(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)")


class Recogniser:
    """Finds the model of the price book for a provider and a model on a span."""

    def __init__(self, models: Iterable[PricedModel]) -> None:
        self._models: defaultdict[str, list[PricedModel]] = defaultdict(list)
        for model in sorted(models, key=lambda model: (model.provider, model.position)):
            self._models[model.provider].append(model)
        self._matchers: dict[str, list[tuple[str, Matcher]]] = {}

    def find(self, reported_provider: str, reported_model: str, priced: Container[Key]) -> Key | None:
        """Return provider and model in the book, among those with prices; None if unknown or ambiguous.

        A provider that the book does not know may be a gateway: then the model's name gives the provider, as in
        `anthropic/claude-…`.
        """
        if not reported_model or len(reported_model) > _LONGEST_NAME or not reported_model.isprintable():
            return None
        provider, model = book_provider(reported_provider), reported_model.lower()
        if provider not in self._models:
            head, slash, rest = model.partition("/")
            if slash and model.endswith(_FREE_VARIANT):
                provider = "openrouter"
            elif not slash or rest.startswith(_OPEN_WEIGHTS):
                return None
            else:
                provider, model = book_provider(head), rest
        names = names_of(model)
        for name in names:
            for seller in (provider, *FALLBACK_PROVIDERS.get(provider, ())):
                for candidate, matches in self._matchers_of(seller):
                    if (seller, candidate) in priced and matches(name):
                        return seller, candidate
        return self._on_mantle(names, priced) if provider == "aws" else None

    def _on_mantle(self, names: tuple[str, ...], priced: Container[Key]) -> Key | None:
        """Match Bedrock's Mantle endpoint: its model ids omit date and version, and have regions but no profiles."""
        found = [
            candidate
            for candidate, _ in self._matchers_of("aws")
            if ("aws", candidate) in priced
            and not candidate.startswith("global.")
            and _DATE_AND_VERSION.sub("", candidate.removeprefix("regional.")) in names
        ]
        return ("aws", found[0]) if found else None

    def _matchers_of(self, provider: str) -> list[tuple[str, Matcher]]:
        if provider not in self._matchers:
            found = [(model.model, compile_match(model.match)) for model in self._models.get(provider, ())]
            if not found:
                return found
            self._matchers[provider] = found
        return self._matchers[provider]


def names_of(model: str) -> tuple[str, ...]:
    """Return the names to look up, in order: the lower-case name as it is, then without routing prefixes."""
    names: list[str] = []
    for name in _routes_off(model):
        names.append(name)
        names += [name.removesuffix(suffix) for suffix in _ROUTING_SUFFIXES if name.endswith(suffix)]
        profile = _PROFILE.match(name)
        if profile:
            names.append(name[profile.end() :])
    return tuple(dict.fromkeys(found for name in names for found in (name, dashed_date(name))))


def _routes_off(model: str) -> Iterator[str]:
    """Yield the name, and the last part of `projects/…/models/gemini-x`, `arn:aws:bedrock:…/us.amazon…`,
    `bedrock/…`."""
    yield model
    if model.startswith("arn:"):
        yield model.rpartition("/")[2]
    elif "/models/" in model and model.startswith(("projects/", "publishers/", "locations/")):
        yield model.rpartition("/models/")[2]
    else:
        head, slash, rest = model.partition("/")
        while slash and (head in _ROUTING_PREFIXES or _REGION.fullmatch(head)):
            yield rest
            head, slash, rest = rest.partition("/")


def compile_match(match: str) -> Matcher:
    """Compile the JSON of a clause to a predicate over a lower-case model name. Raises ValueError if invalid."""
    return _compile(json.loads(match))


def dashed_date(model: str) -> str:
    """Rewrite a compact date in a model name with dashes; return other names unchanged."""

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
