"""Provider addresses that ``genai-prices`` lacks, and the regions in addresses.

Sources: the providers' pages on base URLs, data residency, regional and FIPS endpoints, as of November 2026.
"""

from __future__ import annotations

import re
from typing import Final

MORE_PATTERNS: Final = (
    ("openai", r"https://[a-z]{2}\.api\.openai\.com"),
    ("x-ai", r"https://[a-z]{2}-[a-z]+-\d\.api\.x\.ai"),
    ("aws", r"https://bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"),
    ("aws", r"https://bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.api\.aws"),
    ("aws", r"https://[a-z0-9-]+\.bedrock-(?:runtime|mantle)\.[a-z0-9-]+\.vpce\.amazonaws\.com"),
    ("aws", r"https://bedrock-mantle(?:-fips)?\.[a-z0-9-]+\.api\.aws"),
    ("mistral", r"https://codestral\.mistral\.ai"),
    ("ollama", r"https://(?:api\.)?ollama\.com"),
    ("openrouter", r"https://eu\.openrouter\.ai"),
    ("together", r"https://api\.together\.ai"),
    ("huggingface", r"https://router\.huggingface\.co"),
    ("deepinfra", r"https://api\.deepinfra\.com"),
    ("sambanova", r"https://api\.sambanova\.ai"),
    ("hyperbolic", r"https://api\.hyperbolic\.xyz"),
    ("nebius", r"https://api\.(?:studio\.nebius\.(?:com|ai)|tokenfactory\.nebius\.com)"),
    ("nvidia", r"https://integrate\.api\.nvidia\.com"),
    ("alibaba", r"https://dashscope(?:-intl|-us)?\.aliyuncs\.com"),
    ("siliconflow", r"https://api\.siliconflow\.(?:cn|com)"),
    ("ai21", r"https://api\.ai21\.com"),
    ("github", r"https://models\.(?:github\.ai|inference\.ai\.azure\.com)"),
)
"""Pairs of provider, as named in ``genai-prices``, and prefix of its URLs."""

REGIONS: Final = (
    re.compile(r"^bedrock-(?:runtime|mantle)[^.]*\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)$"),
    re.compile(r"^[a-z0-9-]+\.bedrock-(?:runtime|mantle)\.([a-z0-9-]+)\.vpce\.amazonaws\.com$"),
    re.compile(r"^([a-z0-9-]+)-aiplatform\.googleapis\.com$"),
    re.compile(r"^aiplatform\.([a-z0-9-]+)\.rep\.googleapis\.com$"),
    re.compile(r"^([a-z]{2}-[a-z]+-\d)\.api\.x\.ai$"),
    re.compile(r"^([a-z]{2})\.api\.openai\.com$"),
)
"""Patterns of the region in a provider's address."""

_BILLED_REGION: Final = re.compile(r"^([a-z]{2})\.api\.openai\.com$")


def region_of(host: str) -> str | None:
    """Return the region in an address."""
    for pattern in REGIONS:
        if found := pattern.match(host):
            return found[1]
    return None


def billed_region_of(host: str) -> str | None:
    """Return the region in an address if prices depend on it: OpenAI's data residency."""
    found = _BILLED_REGION.match(host)
    return found[1] if found else None
