"""Send events to webhook endpoints with Stripe's signature; retry those not answered with 2xx."""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from typing import Any

import httpx2

_ATTEMPTS = 6
_TIMEOUT_S = 10.0

_logger = logging.getLogger(__name__)


def sign(body: bytes, secret: str, at_s: int) -> str:
    """The Stripe-Signature header for a body, at a moment in Unix seconds."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256)
    return f"t={at_s},v1={signed.hexdigest()}"


class Delivery:
    """Webhook endpoints and their events."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._endpoints: list[tuple[str, frozenset[str]]] = []
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT_S)
        self._retries: set[asyncio.Task[None]] = set()

    def add(self, url: str, types: frozenset[str]) -> None:
        """Subscribe an address to events of these types, or to all (`*`)."""
        self._endpoints.append((url, types))

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event to its subscribers. Return after the first attempt; retries continue in the background."""
        for url, types in self._endpoints:
            if (event["type"] in types or "*" in types) and not await self._attempt(url, event):
                task = asyncio.create_task(self._retry(url, event))
                self._retries.add(task)
                task.add_done_callback(self._retries.discard)

    async def close(self) -> None:
        """Stop sending."""
        for task in self._retries:
            task.cancel()
        await self._client.aclose()

    async def _retry(self, url: str, event: dict[str, Any]) -> None:
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(2**attempt)
            if await self._attempt(url, event):
                return

    async def _attempt(self, url: str, event: dict[str, Any]) -> bool:
        body = json.dumps(event, indent=2).encode()
        headers = {
            "Stripe-Signature": sign(body, self._secret, int(time.time())),
            "Content-Type": "application/json; charset=utf-8",
        }
        try:
            answer = await self._client.post(url, content=body, headers=headers)
        except httpx2.HTTPError as error:
            _logger.warning("%s did not reach %s: %s", event["type"], url, error)
            return False
        if not answer.is_success:
            _logger.warning("%s was answered with %s: %s", event["type"], answer.status_code, answer.text[:500])
        return answer.is_success
