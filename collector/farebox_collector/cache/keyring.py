"""Authenticate tokens, with a cache of a second: most requests cost one dictionary look-up."""

import asyncio
import threading
from collections.abc import Callable

from farebox_collector.ledger.access.keys import any_key, note_use, verify_key
from farebox_collector.ledger.access.links import Unverified, Verified, verify_link
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.credentials import (
    ALL_SCOPES,
    Caller,
    Scope,
    fingerprint,
    key_id_of,
    read_link,
)
from farebox_collector.model.records import DEFAULT_TENANT_ID

REMEMBER_NS = 10**9
"""How long a valid token is cached: the longest time that a revoked key still works."""
_MAX_REMEMBERED = 10_000
_UNKNOWN_AT_ONCE = 2
_MOST_UNKNOWN = 200

WITHOUT_KEYS = Caller(DEFAULT_TENANT_ID, ALL_SCOPES)
"""Every caller until the first key is created; until then the ports are on loopback."""


class Unauthenticated(Exception):
    """The request has no valid key; `reason` is one of `missing`, `unknown`, `revoked`, `expired`."""

    def __init__(self, reason: str) -> None:
        super().__init__(_DETAILS[reason])
        self.reason = reason


class Forbidden(Exception):
    """The caller is authenticated but lacks a permission; the message names it."""

    reason = "scope"

    def __init__(self, message: str, caller: Caller | None = None) -> None:
        super().__init__(message)
        self.caller = caller


class TooManyUnknownKeys(Exception):
    """Too many unknown keys wait for a look-up; the client may retry."""


_DETAILS = {
    "missing": "an API key is required: send it as Authorization: Bearer, or as X-API-Key",
    # The same for all unknown keys: the answer must not reveal which key ids exist.
    "unknown": "this API key is not known",
    "revoked": "this API key was revoked",
    "expired": "this API key has expired",
}


class KeyRing:
    """Authenticate callers by their tokens. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[bytes, tuple[Verified, int]] = {}
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()
        self._unknown_turns = asyncio.Semaphore(_UNKNOWN_AT_ONCE)
        self._waiting = 0
        self._needs_keys = False
        # If no other process writes the books, only this process can create the first key.
        self._none_yet = False

    async def caller(self, token: str | None, scope: Scope | None = None) -> Caller:
        """Return the caller with this token. Raises Unauthenticated, and Forbidden if the scope is missing.

        Storage errors are passed on: an unavailable database does not make a key invalid.
        """
        found = self._remembered(token)
        if found is None:
            found = await self._looked_up(token)
        if scope is not None and not found.may(scope):
            raise Forbidden(f"this key lacks the scope {scope.value}", found)
        if found.key_id:
            self._used[found.key_id] = self._clock()
        return found

    async def _looked_up(self, token: str | None) -> Caller:
        """Look a token up in the books. Unknown tokens take turns, so that a flood of them does not delay callers.

        Raises TooManyUnknownKeys if too many of them are waiting.
        """
        if not self._needs_keys or (token is not None and fingerprint(token) in self._known):
            return await asyncio.to_thread(self._look_up, token)
        if token is None or (key_id_of(token) is None and read_link(token) is None):
            # Decided without the database.
            return self._look_up(token)
        if self._waiting >= _MOST_UNKNOWN:
            raise TooManyUnknownKeys("too many unknown keys are being looked up; try again")
        self._waiting += 1
        try:
            async with self._unknown_turns:
                return await asyncio.to_thread(self._look_up, token)
        finally:
            self._waiting -= 1

    def needs_keys(self) -> bool:
        """Whether requests need a key: true once the first key exists."""
        if not self._needs_keys and not self._none_yet:
            with self._lock, self._database.snapshot() as connection:
                self._needs_keys = any_key(connection)
                self._none_yet = not self._needs_keys and not self._database.shared
        return self._needs_keys

    def note_first_key(self) -> None:
        """Check again whether requests need a key. Call this after creating a key, before revealing its text."""
        with self._lock:
            self._none_yet = False
        self.needs_keys()

    def note_use(self) -> None:
        """Store when keys were used since the last time. A periodic job calls this."""
        used, self._used = self._used, {}
        if used:
            self._database.transact(lambda connection: note_use(connection, used))

    def _remembered(self, token: str | None) -> Caller | None:
        now_ns = self._clock()
        if self._none_yet:
            return WITHOUT_KEYS
        if token is None:
            return None
        known = self._known.get(fingerprint(token))
        if known is None or not abs(now_ns - known[1]) < REMEMBER_NS:
            return None
        verified = known[0]
        expired = verified.expires_at_ns is not None and verified.expires_at_ns <= now_ns
        return None if expired else verified.caller

    def _look_up(self, token: str | None) -> Caller:
        if not self.needs_keys():
            return WITHOUT_KEYS
        if token is None:
            raise Unauthenticated("missing")
        # Text without the form of a token never reaches the database.
        link = None if key_id_of(token) else read_link(token)
        if link is None and key_id_of(token) is None:
            raise Unauthenticated("unknown")
        now_ns = self._clock()
        try:
            with self._database.snapshot() as connection:
                if link is None:
                    verified = verify_key(connection, token, now_ns)
                else:
                    verified = verify_link(connection, token, link, now_ns)
        except Unverified as error:
            raise Unauthenticated(str(error)) from None
        self._remember(fingerprint(token), verified, now_ns)
        return verified.caller

    def _remember(self, digest: bytes, verified: Verified, now_ns: int) -> None:
        with self._lock:
            self._known.pop(digest, None)
            while len(self._known) >= _MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = (verified, now_ns)
