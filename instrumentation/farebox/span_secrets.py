"""Remove secrets from HTTP spans' attributes: keys in headers and query strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "REDACTED"
_HEADER: Final = re.compile(r"http\.(?:request|response)\.header\.(.+)")
_SECRET_NAME: Final = re.compile(
    r"auth|cookie|key|token|secret|passw|pwd|sig|credential|session|jwt|code", re.IGNORECASE
)
_PARAMETER: Final = re.compile(r"([?&;])([^=&;#]*)=([^&;#]*)")
_URLS: Final = ("http.url", "url.full", "http.target", "url.query")


def without_secrets(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes with secret headers and secret query parameters replaced."""
    return {key: _clean(key, value) for key, value in attributes.items()}


def secret_headers(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes to overwrite on an open span, so that no secret header stays."""
    return {key: [REDACTED] for key in attributes if _is_secret_header(key)}


def _clean(key: str, value: Any) -> Any:
    if key in _URLS and isinstance(value, str) and "=" in value:
        return _PARAMETER.sub(_parameter, value if key != "url.query" else f"?{value}").removeprefix(
            "?" if key == "url.query" else ""
        )
    return [REDACTED] if _is_secret_header(key) else value


def _is_secret_header(key: str) -> bool:
    header = _HEADER.fullmatch(key)
    return header is not None and _SECRET_NAME.search(header.group(1)) is not None


def _parameter(found: re.Match[str]) -> str:
    separator, name, value = found.groups()
    return f"{separator}{name}={REDACTED if _SECRET_NAME.search(name) else value}"
