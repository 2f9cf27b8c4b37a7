"""API keys, signed links and what each allows. Pure.

A key is `fbx_<16 hex digits>_<secret>`: the digits are its public id, the secret has at least 256 bits. A link is
`fbl_<payload>.<signature>` and reads one wallet until it expires. The books store only the SHA-256 of a whole key.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

MAX_TOKEN = 4_096
"""Longest text that is examined as a key or a link, in characters."""

_KEY = re.compile(r"fbx_([0-9a-f]{16})_[A-Za-z0-9_-]{43,128}")
_LINK = re.compile(r"fbl_([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")
_LINK_FIELDS = ([int, int, str, int], [int, int, str, int, int])
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)


class Scope(StrEnum):
    """What a key may be used for."""

    INGEST = "ingest"
    """Report usage over OTLP, and hold credits for it."""
    READ = "read"
    """Read everything of the tenant."""
    WALLETS = "wallets"
    """Deposit, hold, and move credits in any other way."""
    PRICING = "pricing"
    """Set prices, rules, budgets, policies and packs."""
    ALERTS = "alerts"
    """Send alerts and handle incidents. Alertmanager's key has only this scope."""
    ROUTES = "routes"
    """Change how calls are routed."""
    ADMIN = "admin"
    """Manage people, keys, webhooks and settings; includes every other scope except `ingest`."""


class Role(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    """Read everything, change nothing."""
    FINANCE = "finance"
    """Also move credits: deposits, grants, refunds, links for customers."""
    PRICING = "pricing"
    """Also set prices, rules, budgets, policies and packs."""
    OPERATOR = "operator"
    """Also handle alerts and incidents."""
    ADMIN = "admin"
    """Everything except reporting usage; includes people, keys, webhooks and settings."""


SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.FINANCE: frozenset({Scope.READ, Scope.WALLETS}),
    Role.PRICING: frozenset({Scope.READ, Scope.PRICING}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.ALERTS, Scope.ROUTES}),
    Role.ADMIN: frozenset(Scope) - {Scope.INGEST},
}
"""The scopes of each role. The API, the console and the documentation read this table."""

_INCLUDED = {Scope.ADMIN: frozenset(Scope) - {Scope.INGEST}}
ALL_SCOPES = frozenset(Scope)


class Caller(NamedTuple):
    """The caller of a request, identified by its key alone."""

    tenant_id: int
    scopes: frozenset[Scope]
    wallet: str = ""
    """The only wallet that this caller may read; empty for all wallets of the tenant."""
    key_id: str = ""
    person: int = 0
    """The person's number, for a session or a personal key; 0 otherwise."""
    login: str = ""
    """The login of a person with a session; empty for a key."""
    session_id: str = ""
    link_id: int = 0
    """The number of the signed link; 0 without a link, and for links issued before links were numbered."""

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has a scope."""
        return scope in self.scopes or any(scope in _INCLUDED.get(held, ()) for held in self.scopes)


class Link(NamedTuple):
    """The content of a signed link; trusted only after its signature is verified."""

    tenant_id: int
    secret_id: int
    wallet: str
    expires_at_s: int
    link_id: int = 0
    """The link's row in the books; 0 for a link issued before links had rows."""


def new_token() -> str:
    """Return a new key with 256 random bits."""
    return f"fbx_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def key_id_of(token: str) -> str | None:
    """Return the public part of a key; None if the text does not have the form of a key."""
    found = _KEY.fullmatch(token) if len(token) <= MAX_TOKEN else None
    return found.group(1) if found else None


def fingerprint(token: str) -> bytes:
    """Return the hash that the books store. The secret is long and random, so a slow hash is not needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def token_in(authorization: str | None, api_key: str | None) -> str | None:
    """Return the token from the `Authorization: Bearer` or `X-API-Key` header; None if neither is present."""
    if authorization is not None:
        found = _BEARER.fullmatch(authorization) if len(authorization) <= MAX_TOKEN + 16 else None
        return found.group(1) if found else authorization[:MAX_TOKEN]
    return api_key


def sign_link(link: Link, secret: bytes) -> str:
    """Return the text of a signed link."""
    payload = _encoded(json.dumps(link, ensure_ascii=False, separators=(",", ":")).encode())
    return f"fbl_{payload}.{_signature(payload, secret)}"


def read_link(token: str) -> Link | None:
    """Parse a link without verifying its signature; None if the text does not have the form of a link."""
    found = _LINK.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if found is None:
        return None
    try:
        fields = json.loads(_decoded(found.group(1)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, list) or [type(field) for field in fields] not in _LINK_FIELDS:
        return None
    if not all(0 < number < 2**62 for number in fields if isinstance(number, int)):
        return None
    return Link(*fields)


def is_signed(token: str, secret: bytes) -> bool:
    """Verify a link's signature in constant time."""
    payload, _, signature = token.removeprefix("fbl_").partition(".")
    return hmac.compare_digest(signature.encode(), _signature(payload, secret).encode())


def _signature(payload: str, secret: bytes) -> str:
    return _encoded(hmac.digest(secret, payload.encode(), "sha256"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("not base64") from error
