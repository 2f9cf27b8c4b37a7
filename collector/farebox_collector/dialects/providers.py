"""Providers told from the name of a model, for vocabularies that need not name any."""

_BY_PREFIX = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e", "tts-", "whisper"), "openai"),
    (("claude-",), "anthropic"),
    (("gemini-",), "google"),
    (("mistral-", "magistral-", "ministral-", "codestral-", "pixtral-"), "mistral"),
    (("deepseek-",), "deepseek"),
    (("command-", "embed-", "rerank-"), "cohere"),
    (("grok-",), "x-ai"),
)


def told_provider(named: str, model: str) -> tuple[str, tuple[str, ...]]:
    """The provider that a span names, else the one that its model tells of, and that flagged."""
    if named:
        return named, ()
    guessed = provider_of_model(model)
    return guessed, ("provider_from_model",) if guessed else ()


def provider_of_model(model: str) -> str:
    """The provider whose models are called like this; empty where it cannot be told."""
    if model.startswith("text-embedding-00"):
        return "google"
    for prefixes, provider in _BY_PREFIX:
        if model.startswith(prefixes):
            return provider
    return ""
