"""Map provider names on spans and in price lists to the price book's names."""

from collections.abc import Mapping

PROVIDER_ALIASES: Mapping[str, str] = {
    "amazon": "aws",
    "amazon-bedrock": "aws",
    "amazon_bedrock": "aws",
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "aws-bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure-openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "azureopenai": "azure",
    "microsoft.foundry": "azure",
    "claude": "anthropic",
    "cohere_chat": "cohere",
    "fireworks-ai": "fireworks",
    "fireworks_ai": "fireworks",
    "fireworksai": "fireworks",
    "gcp": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gcp.vertex.agent": "google",
    "gemini": "google",
    "google-ai-studio": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_genai": "google",
    "google_generativeai": "google",
    "google_vertexai": "google",
    "googlevertex": "google",
    "vertex": "google",
    "vertex-ai": "google",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "vertexai": "google",
    "grok": "x-ai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "mistral-ai": "mistral",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "codestral": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "open_router": "openrouter",
    "openai_compatible": "openai",
    "text-completion-openai": "openai",
    "pplx": "perplexity",
    "together-ai": "together",
    "together_ai": "together",
    "togetherai": "together",
    "voyage": "voyageai",
    "voyage_ai": "voyageai",
    "z-ai": "zai",
    "z.ai": "zai",
}
"""`gen_ai.provider.name`, its older values and the names written by emitters and gateways → the book's name."""

FALLBACK_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "azure": ("openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
    "google": ("anthropic",),
}
"""Providers that resell others' models at list price → where to look up a model that they don't list."""


def book_provider(reported: str) -> str:
    """Return the price book's name of a provider as spans name it.

    Some emitters append the interface after a dot (`openai.chat`, `google.vertex.chat`): it is removed part by part
    until the rest is known.
    """
    name = reported.strip().lower()
    head = name
    while head not in PROVIDER_ALIASES and "." in head:
        head = head.rpartition(".")[0]
    return PROVIDER_ALIASES.get(head, head)
