"""Deliver signed webhooks from the outbox, retrying until success or expiry.

The signature follows Standard Webhooks: `webhook-id`, `webhook-timestamp`, and `webhook-signature`, an HMAC-SHA256 of
these two and the body. The sender leases a message, sends it, and then stores the result. If a collector dies in
between, the next one sends the message again, so a receiver may get it twice, under the same id.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import random
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import httpx2

from farebox_collector.background.webhook_destinations import BadDestination, resolve
from farebox_collector.ledger.journal.outbox import (
    LeasedMessage,
    MessageState,
    any_due,
    note_attempt,
    purge_messages,
    release_untried,
    take_due,
)
from farebox_collector.ledger.storage.database import Database

PAUSES_S = (5, 60, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pause after each failed attempt; a message that fails once more after the last pause is abandoned."""
_JITTER = (0.8, 1.2)
_MOST_AT_ONCE = 200
_ATTEMPT_S = 15.0
_ROUND_S = 60.0
_GONE = 410
_SECOND_NS = 10**9

_logger = logging.getLogger(__name__)


class _Outcome(NamedTuple):
    """The result of an attempt: the status of the answer, or why there was none."""

    status: int | None
    error: str

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSender:
    """Send the messages in the outbox, as a periodic job. Collectors lease different messages."""

    def __init__(self, database: Database, private_hosts: tuple[str, ...], clock: Callable[[], int]) -> None:
        self._database = database
        self._private_hosts = private_hosts
        self._clock = clock
        self._purged_ns = 0
        self._stopped = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def round(self) -> None:
        """Send the messages that are due."""
        if self._stopped:
            return
        now_ns = self._clock()
        if now_ns - self._purged_ns > 3600 * _SECOND_NS:
            self._purged_ns = now_ns
            self._database.transact(partial(purge_messages, at_ns=now_ns))
        # Without a fold: this looks every second, and finds little.
        with self._database.snapshot() as connection:
            if not any_due(connection, now_ns):
                return
        taken = self._database.transact(partial(take_due, at_ns=now_ns, limit=_MOST_AT_ONCE))
        if taken:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._send_all(taken))

    def stop(self) -> None:
        """Stop sending. Leased messages without a stored result are due again when their lease ends."""
        self._stopped = True
        running = self._running
        if running is not None:
            loop, task = running
            # A closed loop has nothing to cancel.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()

    async def _send_all(self, taken: Sequence[LeasedMessage]) -> None:
        """Send the messages of each endpoint in sequence, endpoints in parallel: a slow one delays no other."""
        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task
        by_endpoint: defaultdict[int, list[LeasedMessage]] = defaultdict(list)
        for message in taken:
            by_endpoint[message.endpoint_id].append(message)
        until = asyncio.get_running_loop().time() + _ROUND_S
        # A tenant's URL must not be called with the proxies or passwords of this machine's environment.
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=_ATTEMPT_S) as client:
            await asyncio.gather(*(self._send_in_turn(client, messages, until) for messages in by_endpoint.values()))

    async def _send_in_turn(self, client: httpx2.AsyncClient, messages: Sequence[LeasedMessage], until: float) -> None:
        for place, message in enumerate(messages):
            outcome = await self._send(client, message)
            next_ns = await asyncio.to_thread(self._note, message, outcome)
            late = asyncio.get_running_loop().time() > until
            if outcome.status is None or late:
                # The endpoint cannot be reached: defer its other messages too.
                rest = [other.id for other in messages[place + 1 :]]
                due_ns = self._clock() if outcome.arrived else next_ns
                if rest:
                    await asyncio.to_thread(self._database.transact, partial(release_untried, ids=rest, next_ns=due_ns))
                return

    async def _send(self, client: httpx2.AsyncClient, message: LeasedMessage) -> _Outcome:
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                destination = await resolve(message.url, self._private_hosts)
                headers = signed_headers(message, self._clock() // _SECOND_NS) | {"host": destination.host_header}
                async with client.stream(
                    "POST",
                    destination.direct_url,
                    content=message.body.encode(),
                    headers=headers,
                    extensions={"sni_hostname": destination.name},
                    follow_redirects=False,
                ) as answer:
                    # The body of the answer is never read.
                    return _Outcome(answer.status_code, "" if answer.is_success else f"answered {answer.status_code}")
        except TimeoutError:
            return _Outcome(None, f"no answer within {_ATTEMPT_S:.0f} seconds")
        except BadDestination as error:
            return _Outcome(None, str(error))
        except (httpx2.HTTPError, OSError, ssl.SSLError) as error:
            return _Outcome(None, type(error).__name__)

    def _note(self, message: LeasedMessage, outcome: _Outcome) -> int:
        """Store the result. Return when the next attempt is due."""
        now_ns = self._clock()
        state, next_ns = MessageState.PENDING, now_ns
        if outcome.arrived:
            state = MessageState.DELIVERED
        elif outcome.status == _GONE or message.attempts >= len(PAUSES_S):
            state = MessageState.GIVEN_UP
            _logger.error(
                "a webhook message was abandoned",
                extra={"webhook_id": message.message_id, "endpoint": message.endpoint_id},
            )
        else:
            pause_s = PAUSES_S[message.attempts] * random.uniform(*_JITTER)  # noqa: S311
            next_ns = now_ns + int(pause_s * _SECOND_NS)
        self._database.transact(
            partial(
                note_attempt,
                message_id=message.id,
                state=state,
                status=outcome.status,
                error=outcome.error,
                next_ns=next_ns,
            )
        )
        return next_ns


def signed_headers(message: LeasedMessage, timestamp_s: int) -> dict[str, str]:
    """The headers of Standard Webhooks, signed with each of the endpoint's secrets."""
    content = f"{message.message_id}.{timestamp_s}.{message.body}".encode()
    return {
        "content-type": "application/json",
        "user-agent": "farebox",
        "webhook-id": message.message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(_signatures(content, message.secrets)),
    }


def _signatures(content: bytes, secrets: Iterable[bytes]) -> list[str]:
    return [f"v1,{base64.b64encode(hmac.digest(secret, content, 'sha256')).decode()}" for secret in secrets]


def shown_secret(secret: bytes) -> str:
    """Return a secret in the form that receivers' libraries accept."""
    return f"whsec_{base64.b64encode(secret).decode()}"
