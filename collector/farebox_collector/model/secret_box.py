"""Encrypt the secrets that the books hold: AES-256-GCM under keys that are stored elsewhere.

A sealed secret is `SEALED`, 4 bytes that identify the key, a nonce of 12 bytes, and the ciphertext with its tag. It is
bound to its purpose: a sealed secret that is moved to another place does not open. Several keys may be given: the first
key seals, and each key opens.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
SEALED = b"farebox.sealed.1:"
"""Prefix of a sealed secret. A plain secret is 32 random bytes and does not begin with it."""
_NAME_BYTES = 4
_NONCE_BYTES = 12


class BadSecretsKey(ValueError):
    """A malformed encryption key; the message describes the format."""


class WrongSecretsKey(Exception):
    """None of the keys opens a secret in the books; the message says what to do. Nothing was changed."""


def new_secrets_key() -> str:
    """Return a new key in the format of `FAREBOX_SECRETS_KEY`."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


class SecretBox:
    """Seal with the first key and open with any key. Without keys, leave secrets as they are."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {_name(key): AESGCM(key) for key in keys}
        self._first = _name(keys[0]) if keys else b""

    @property
    def has_key(self) -> bool:
        """Return whether the box encrypts."""
        return bool(self._ciphers)

    def seal(self, secret: bytes, purpose: str) -> bytes:
        """Return what to store for a secret; without a key, the secret itself."""
        if not self.has_key:
            return secret
        nonce = os.urandom(_NONCE_BYTES)
        return SEALED + self._first + nonce + self._ciphers[self._first].encrypt(nonce, secret, purpose.encode())

    def open(self, stored: bytes, purpose: str) -> bytes:
        """Return the secret behind a stored value. Raises WrongSecretsKey."""
        if not is_sealed(stored):
            return stored
        name, rest = stored[len(SEALED) :][:_NAME_BYTES], stored[len(SEALED) + _NAME_BYTES :]
        if not self.has_key:
            raise WrongSecretsKey(
                "secrets in the books are encrypted, and no key was given: set FAREBOX_SECRETS_KEY or"
                " FAREBOX_SECRETS_KEY_FILE to the key that they were encrypted with"
            )
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise WrongSecretsKey(
                "secrets in the books are encrypted with another key than those given: add that key after the first"
                " in FAREBOX_SECRETS_KEY or FAREBOX_SECRETS_KEY_FILE"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise WrongSecretsKey(
                "an encrypted secret in the books was changed or moved: restore it from a backup, or rotate the secret"
            ) from None

    def is_current(self, stored: bytes) -> bool:
        """Return whether a stored value is sealed with the first key, or is plain if the box has no key."""
        return not self.has_key or stored.startswith(SEALED + self._first)


def is_sealed(stored: bytes) -> bool:
    """Return whether a stored value is encrypted."""
    return stored.startswith(SEALED)


def secrets_keys(text: str) -> list[bytes]:
    """Parse keys that are separated by commas or white space. Raises BadSecretsKey."""
    return [_key(word) for word in text.replace(",", " ").split()]


def _key(word: str) -> bytes:
    try:
        key = base64.b64decode(word, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadSecretsKey(f"a key must be {KEY_BYTES} bytes in base64; `farebox secrets generate` prints one")
    return key


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"farebox key name" + key).digest()[:_NAME_BYTES]
