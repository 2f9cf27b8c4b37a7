"""Find the provider that bills a call by the address that was called, regardless of the span's name for it.

A client instrumentation names the client's maker, even if the client called another provider. So the order is:
`farebox.provider`, the address, the provider name, and last the model's name (`providers`).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

PROVIDER = "farebox.provider"
ADDRESS = "server.address"

HOSTS: Mapping[str, str] = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "models.ai.azure.com": "azure.ai.inference",
    "inference.ml.azure.com": "azure.ai.inference",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.groq.com": "groq",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.mistral.ai": "mistral_ai",
    "codestral.mistral.ai": "mistral_ai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.perplexity.ai": "perplexity",
    "api.cerebras.ai": "cerebras",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zhipuai",
    "api.voyageai.com": "voyageai",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.novita.ai": "novita",
    "api.avian.io": "avian",
    "api.baseten.co": "baseten",
    "inference.baseten.co": "baseten",
    "api.elevenlabs.io": "elevenlabs",
    "api.githubcopilot.com": "github-copilot",
    "conductor.arcee.ai": "arcee",
    "endpoints.ai.cloud.ovh.net": "ovhcloud",
    "api.deepinfra.com": "deepinfra",
    "api.sambanova.ai": "sambanova",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.studio.nebius.com": "nebius",
    "integrate.api.nvidia.com": "nvidia",
    "router.huggingface.co": "huggingface",
    "dashscope.aliyuncs.com": "alibaba",
    "dashscope-intl.aliyuncs.com": "alibaba",
    "ark.cn-beijing.volces.com": "volcengine",
    "api.siliconflow.cn": "siliconflow",
    "api.ai21.com": "ai21",
    "api.reka.ai": "reka",
    "models.github.ai": "github",
    "models.inference.ai.azure.com": "github",
}
"""API host, or its last labels → the provider that bills calls to it."""
_PATTERNS = (
    (re.compile(r"bedrock(-runtime|-mantle)?(-fips)?\.[a-z0-9-]+\.(amazonaws\.com(\.cn)?|api\.aws)"), "aws.bedrock"),
    (re.compile(r"[a-z0-9-]+\.bedrock-(runtime|mantle)\.[a-z0-9-]+\.vpce\.amazonaws\.com"), "aws.bedrock"),
    (re.compile(r"(([a-z0-9]+-)+aiplatform|aiplatform(\.[a-z0-9-]+)*)(\.rep)?\.googleapis\.com"), "gcp.vertex_ai"),
)
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "google": (
        *("gcp", "gcp.gemini", "gcp.gen_ai", "gcp.vertex_ai", "gemini", "google", "google-vertex", "googlevertex"),
        *("google_genai", "google_generativeai", "google_vertexai", "google.generative-ai"),
        *("vertex", "vertex_ai", "vertex-ai", "vertexai"),
    ),
    "azure": (
        *("azure", "azure.ai.openai", "azure.ai.inference", "az.ai.openai", "az.ai.inference"),
        *("azure-openai", "azure_openai", "microsoft.foundry"),
    ),
    "aws": (
        "aws",
        "aws.bedrock",
        "aws_bedrock",
        "aws-bedrock",
        "amazon",
        "amazon-bedrock",
        "amazon_bedrock",
        "bedrock",
    ),
    "x-ai": ("xai", "x_ai", "x-ai", "grok"),
    "mistral": ("mistral", "mistral_ai", "mistral-ai", "mistralai"),
    "moonshot": ("moonshot", "moonshot_ai", "moonshotai"),
    "together": ("together", "together_ai", "together-ai", "togetherai"),
    "fireworks": ("fireworks", "fireworks_ai", "fireworks-ai"),
    "openrouter": ("openrouter", "open_router"),
    "voyage": ("voyage", "voyageai", "voyage_ai"),
}
"""Names of the same provider: the span's own name stays if its address agrees."""
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names}
_REGIONAL_OPENAI = re.compile(r"([a-z]{2})\.api\.openai\.com")
_LONGEST = 253


class Billed(NamedTuple):
    """The provider that bills an address, and the processing region if prices depend on it; empty: unknown."""

    provider: str
    inference_region: str = ""


_NOBODY = Billed("")


def family(name: str) -> str:
    """Return one name for all names of a provider."""
    lower = name.strip().lower()
    head = lower
    while head not in _FAMILY_OF and "." in head:
        head = head.rpartition(".")[0]
    return _FAMILY_OF.get(head, lower if "." not in lower else lower.partition(".")[0])


@lru_cache(maxsize=1024)
def billed_at(address: str) -> Billed:
    """Return who bills calls to an address: a host, with or without a port, or a URL."""
    host = _host(address)
    if not host or len(host) > _LONGEST:
        return _NOBODY
    regional = _REGIONAL_OPENAI.fullmatch(host)
    if regional is not None:
        return Billed("openai", regional.group(1))
    labels = host.split(".")
    for start in range(len(labels) - 1):
        provider = HOSTS.get(".".join(labels[start:]))
        if provider is not None:
            return Billed(provider)
    return next((Billed(provider) for pattern, provider in _PATTERNS if pattern.fullmatch(host)), _NOBODY)


def _host(address: str) -> str:
    """Return the host of an address, in lower case."""
    rest = address.strip().lower().partition("://")
    host = (rest[2] or rest[0]).partition("/")[0].rpartition("@")[2]
    return host.partition(":")[0].rstrip(".")
