"""Requests that look like calls of a model and go to an address that is not known: said once for each, and counted."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any, Final

from farebox.endpoints import Url
from farebox.model_paths import operations

HOSTS_MAX: Final = 1_000
"""How many unknown addresses are remembered; calls to further ones are counted together and not logged."""
SEARCHED_BYTES: Final = 64 * 1024
"""How much of a request's body is searched for what a call of a model has, at its beginning and at its end."""
_MODEL: Final = re.compile(rb'"model"\s*:\s*"')
_QUESTION: Final = re.compile(rb'"(?:messages|input|prompt|contents|inputs|query|documents|texts)"\s*:')
_MODEL_AND_TURNS: Final = (b'"model"', b'"messages"')
_COUNTS_ONLY: Final = ("/count_tokens", "/count-tokens", ":countTokens", "/input_tokens", "/tokenize")
"""How paths end that count the tokens of a request and let no model work: they cost nothing."""
_logger = logging.getLogger("farebox")


class UnknownHosts:
    """Tells calls of models at unknown addresses, by their path and body, or by their body alone."""

    def __init__(self) -> None:
        """None is known yet."""
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def looks_like_a_call(self, url: Url, body: bytes) -> bool:
        """Whether a POST of this body looks like a call of a model."""
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

    def tell(self, url: Any) -> None:
        """Say once for each address that its calls are not metered, and what to do."""
        # Two servers on one host are two addresses; httpx leaves out the port that the scheme has anyway.
        port = f":{url.port}" if url.port else ""
        address = f"{url.scheme}://{url.host}{port}"
        with self._lock:
            if address in self._told or len(self._told) >= HOSTS_MAX:
                return
            self._told.add(address)
        _logger.warning(
            "farebox: a request to %s looks like a call of a model, and is not metered: the address is not known. "
            "Name it and its provider: farebox.instrument(model_urls={%r: 'openai'}), or FAREBOX_MODEL_URLS=%s=openai",
            address,
            address,
            address,
        )
