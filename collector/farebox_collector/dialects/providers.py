"""Find the provider of a call from its own attribute, the address, the provider name or the model's name."""

from typing import NamedTuple

from farebox_collector.dialects.hosts import (
    ADDRESS,
    PROVIDER,
    billed_at,
    family,
)
from farebox_collector.dialects.text import first_text
from farebox_collector.model.records import Attributes

NAMES = frozenset({PROVIDER, ADDRESS})
"""The attributes read here, besides those of a dialect."""

_BY_PREFIX = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e", "tts-", "whisper"), "openai"),
    (("claude-",), "anthropic"),
    (("gemini-",), "google"),
    (("mistral-", "magistral-", "ministral-", "codestral-", "pixtral-"), "mistral"),
    (("deepseek-",), "deepseek"),
    (("command-", "embed-", "rerank-"), "cohere"),
    (("grok-",), "x-ai"),
)
_OWN_MODELS = ("claude-", "gemini-", "grok-", "deepseek-")
"""Prefixes of models that OpenAI never sold, whose names identify the seller."""
_OPEN_WEIGHTS = "gpt-oss"
"""Models that OpenAI made but sells no calls of."""
GATEWAY = "gateway"
"""An unnamed provider that sells a model under another seller's name."""


class Payee(NamedTuple):
    """Who bills a call."""

    provider: str
    inference_region: str = ""
    assumptions: tuple[str, ...] = ()


def payee_of(names: Attributes, named: str, *models: str, guess: bool = False) -> Payee:
    """Return who bills a call with the provider name `named` and these models, the answering one first.

    `guess` is for vocabularies in which naming the provider is optional.
    """
    stated = first_text(names, PROVIDER) if PROVIDER in names else ""
    address = names.get(ADDRESS)
    at = billed_at(address) if isinstance(address, str) else None
    region = at.inference_region if at is not None else ""
    if stated:
        return Payee(stated, region)
    if at is not None and at.provider:
        return Payee(named if named and family(named) == family(at.provider) else at.provider, region)
    model = next((model for model in models if model), "")
    if not named:
        guessed = provider_of_model(model) if guess else ""
        return Payee(guessed, region, ("provider_from_model",) if guessed else ())
    if family(named) == "openai":
        return _not_openai(named, model)
    return Payee(named, region)


def _not_openai(named: str, model: str) -> Payee:
    """Return OpenAI, unless the model's name belongs to another seller: then the client called a custom address."""
    name = model.lower()
    head, slash, _ = name.partition("/")
    if (slash and head != "models") or name.startswith(_OPEN_WEIGHTS):
        # A gateway's price is unknown; the book looks up the price of the seller in the name, if there is one.
        return Payee(GATEWAY, "", ("provider_not_openai",))
    if name.startswith(_OWN_MODELS):
        return Payee(provider_of_model(name), "", ("provider_from_model",))
    return Payee(named)


def provider_of_model(model: str) -> str:
    """Return the provider that sells models with such names; empty if unknown."""
    if model.startswith("text-embedding-00"):
        return "google"
    for prefixes, provider in _BY_PREFIX:
        if model.startswith(prefixes):
            return provider
    return ""
