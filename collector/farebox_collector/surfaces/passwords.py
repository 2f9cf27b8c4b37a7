"""Check passwords and hash them with Argon2id. A hash takes 19 MiB and some 20 ms; few run at once."""

import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_PASSWORD = 12
MAX_PASSWORD = 200
"""Length of a password in characters."""
_AT_ONCE = 3
_WAIT_S = 5.0

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_turns = threading.Semaphore(_AT_ONCE)
# Verified when there is no account, so that response times do not reveal it.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$CPI3jcNPFem+0zcj9xnhxw$19/ofSaiEC9NdArest3gxbTpJJKRy90iCmL2bkXT1R0"


class BadPassword(ValueError):
    """A password that is not accepted; the message tells the rule."""


class TooBusy(Exception):
    """Too many passwords are being checked at once."""


def new_password() -> str:
    """Return a random password of 96 bits for a new account or a reset."""
    return secrets.token_urlsafe(12)


def hash_password(password: str) -> str:
    """Return the hash to store. Raises BadPassword and TooBusy."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise BadPassword(f"a password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if len(set(password)) < 5:
        raise BadPassword("a password must have at least 5 different characters")
    with _turn():
        return _hasher.hash(password)


def is_password(password_hash: str, password: str) -> bool:
    """Return whether a password matches a hash; an empty hash takes as long. Raises TooBusy."""
    if len(password) > MAX_PASSWORD:
        return False
    with _turn():
        try:
            _hasher.verify(password_hash or _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return False
    return bool(password_hash)


def is_outdated(password_hash: str) -> bool:
    """Return whether a hash was made with outdated parameters."""
    return _hasher.check_needs_rehash(password_hash)


class _turn:
    def __enter__(self) -> None:
        if not _turns.acquire(timeout=_WAIT_S):
            raise TooBusy

    def __exit__(self, *_: object) -> None:
        _turns.release()
