"""Report requests that look like model calls to unknown addresses: once per address, and counted."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any, Final

from farebox.endpoints import Url
from farebox.model_paths import operations

HOSTS_MAX: Final = 1_000
"""Maximum kept unknown addresses; calls to further ones are counted together and not logged."""
SEARCHED_BYTES: Final = 64 * 1024
"""Bytes at the start and end of a request's body that are searched for signs of a model call."""
_MODEL: Final = re.compile(rb'"model"\s*:\s*"')
_QUESTION: Final = re.compile(rb'"(?:messages|input|prompt|contents|inputs|query|documents|texts)"\s*:')
_MODEL_AND_TURNS: Final = (b'"model"', b'"messages"')
_COUNTS_ONLY: Final = ("/count_tokens", "/count-tokens", ":countTokens", "/input_tokens", "/tokenize")
"""Path suffixes of token counting, which uses no model and is free."""
_logger = logging.getLogger("farebox")


class UnknownHosts:
    """Recognises model calls to unknown addresses by path and body, or by body alone."""

    def __init__(self) -> None:
        """Start empty."""
        self._reported: set[str] = set()
        self._lock = threading.Lock()

    def looks_like_a_call(self, url: Url, body: bytes) -> bool:
        """Return whether a POST of this body looks like a model call."""
        if url.path.rstrip("/").endswith(_COUNTS_ONLY):
            return False
        ends = body if len(body) <= 2 * SEARCHED_BYTES else body[:SEARCHED_BYTES] + body[-SEARCHED_BYTES:]
        if all(key in ends for key in _MODEL_AND_TURNS):
            return _MODEL.search(ends) is not None
        found = operations("POST", url.path.rstrip("/"))
        if not found:
            return False
        names_model = found[0].model is not None or _MODEL.search(ends) is not None
        return names_model and (_QUESTION.search(ends) is not None or found[0].model is not None)

    def report(self, url: Any) -> None:
        """Report once per address that its calls are not metered, with the remedy."""
        # Two ports of a host are two addresses; httpx omits the scheme's default port.
        port = f":{url.port}" if url.port else ""
        address = f"{url.scheme}://{url.host}{port}"
        with self._lock:
            if address in self._reported or len(self._reported) >= HOSTS_MAX:
                return
            self._reported.add(address)
        _logger.warning(
            "farebox: a request to %s looks like a model call and is not metered: the address is unknown. "
            "Name it and its provider: farebox.instrument(model_urls={%r: 'openai'}), or FAREBOX_MODEL_URLS=%s=openai",
            address,
            address,
            address,
        )
