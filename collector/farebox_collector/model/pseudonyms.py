"""Pseudonyms in the place of the names of wallets and users, for installations whose books shall hold no name.

A pseudonym is a keyed hash of the name (HMAC-SHA256), so that nobody without the key can guess which name is behind it.
Names are replaced where they come in, by one function, `name_in_books`. It leaves pseudonyms as they are, so that what
was read from the books can be asked for again.
"""

import hmac
import re
from functools import lru_cache

_HASH_BYTES = 16
_REMEMBERED = 50_000
_KEPT = re.compile(r"p-[0-9a-f]{32}|erased-[0-9a-f]{16}(-[0-9a-f]{12})?")
"""What stands in the books already: pseudonyms, and what is left of erased names."""
_NO_NAME = frozenset({"", "*"})
"""None, and each that has nothing of its own."""


class Pseudonyms:
    """The pseudonyms under one key. Equal names have equal pseudonyms, as wallets and as users."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Finding an end customer's pseudonym again is cheaper than making it.
        self.of = lru_cache(_REMEMBERED)(self._of)

    @property
    def fingerprint(self) -> int:
        """A number of 63 bits by which books know the key again; it says nothing of the key."""
        return int.from_bytes(hmac.digest(self._key, b"fingerprint", "sha256")[:8], "big") >> 1 or 1

    def _of(self, name: str) -> str:
        """What stands for a name in the books."""
        if name in _NO_NAME or _KEPT.fullmatch(name):
            return name
        told = b"name\0" + name.encode("utf-8", "surrogatepass")
        return f"p-{hmac.digest(self._key, told, 'sha256')[:_HASH_BYTES].hex()}"


class _InForce:
    """The pseudonyms of this process, which has one set of settings."""

    pseudonyms: Pseudonyms | None = None


def use_pseudonyms(pseudonyms: Pseudonyms | None) -> None:
    """Let `name_in_books` replace names from now on, or leave them, for all of this process."""
    _InForce.pseudonyms = pseudonyms


def name_in_books(name: str) -> str:
    """The name of a wallet or user as the books have it: a pseudonym where the installation wants that."""
    return name if _InForce.pseudonyms is None else _InForce.pseudonyms.of(name)
