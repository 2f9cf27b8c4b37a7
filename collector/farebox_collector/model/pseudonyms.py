"""Replace the names of wallets and users with pseudonyms, for installations whose books must not hold names.

A pseudonym is a keyed hash of the name (HMAC-SHA256); it cannot be reversed without the key. Names are replaced where
they enter, by one function, `name_in_books`. It leaves pseudonyms unchanged, so that a name read from the books can be
used in a request.
"""

import hmac
import re
from functools import lru_cache

_HASH_BYTES = 16
_REMEMBERED = 50_000
_KEPT = re.compile(r"p-[0-9a-f]{32}|erased-[0-9a-f]{16}(-[0-9a-f]{12})?")
"""Prefixes of names that the books already use: pseudonyms and erased names."""
_NO_NAME = frozenset({"", "*"})
"""Names that are never replaced: the empty one and the shared ones."""


class Pseudonyms:
    """The pseudonyms under one key. Equal names get equal pseudonyms, as wallets and as users."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Looking up a known pseudonym is cheaper than computing it.
        self.of = lru_cache(_REMEMBERED)(self._of)

    @property
    def fingerprint(self) -> int:
        """Return a number of 63 bits by which the books recognise the key. It reveals nothing about the key."""
        return int.from_bytes(hmac.digest(self._key, b"fingerprint", "sha256")[:8], "big") >> 1 or 1

    def _of(self, name: str) -> str:
        """Return the pseudonym of a name."""
        if name in _NO_NAME or _KEPT.fullmatch(name):
            return name
        data = b"name\0" + name.encode("utf-8", "surrogatepass")
        return f"p-{hmac.digest(self._key, data, 'sha256')[:_HASH_BYTES].hex()}"


class _InForce:
    """The pseudonyms of this process, which has one set of settings."""

    pseudonyms: Pseudonyms | None = None


def use_pseudonyms(pseudonyms: Pseudonyms | None) -> None:
    """Set the pseudonyms that `name_in_books` uses in this process; None leaves names unchanged."""
    _InForce.pseudonyms = pseudonyms


def name_in_books(name: str) -> str:
    """Return the name of a wallet or user as the books store it: a pseudonym if the installation uses them."""
    return name if _InForce.pseudonyms is None else _InForce.pseudonyms.of(name)
