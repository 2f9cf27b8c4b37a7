"""Who may do what: API keys and signed links, as texts and as what they stand for. Pure.

A key is `fbx_<16 hex digits>_<secret>`: the digits are public and find it, the secret has at least 256 bits. A link is
`fbl_<payload>.<signature>` and reads one wallet until it expires. The books keep the SHA-256 of a whole key only.
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
"""Longest text that is looked at as a key or a link, in characters."""

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
    """Pay in, hold, and whatever else moves credits."""
    PRICING = "pricing"
    """Set prices, rules, budgets, policies and packs."""
    ALERTS = "alerts"
    """Send alerts and handle incidents; Alertmanager's key has this scope and no other."""
    ROUTES = "routes"
    """Change how calls are routed."""
    ADMIN = "admin"
    """People, keys, webhooks, settings, and all that the others may but `ingest`."""


class Role(StrEnum):
    """What a person does here."""

    VIEWER = "viewer"
    """Looks at everything and changes nothing."""
    FINANCE = "finance"
    """Also moves credits: deposits, grants, refunds, links for customers."""
    PRICING = "pricing"
    """Also sets prices, rules, budgets, policies and packs."""
    OPERATOR = "operator"
    """Also handles alerts and incidents."""
    ADMIN = "admin"
    """Everything but reporting usage: people, keys, webhooks, settings too."""


SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.FINANCE: frozenset({Scope.READ, Scope.WALLETS}),
    Role.PRICING: frozenset({Scope.READ, Scope.PRICING}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.ALERTS, Scope.ROUTES}),
    Role.ADMIN: frozenset(Scope) - {Scope.INGEST},
}
"""The scopes of each role: the one table that the API, the console and the documentation read."""

_INCLUDED = {Scope.ADMIN: frozenset(Scope) - {Scope.INGEST}}
ALL_SCOPES = frozenset(Scope)


class Caller(NamedTuple):
    """Who is behind a request. Nothing but its key says so."""

    tenant_id: int
    scopes: frozenset[Scope]
    wallet: str = ""
    """The one wallet that this caller may read; empty for all of the tenant's."""
    key_id: str = ""
    person: int = 0
    """The number of the person to whom the key or the session belongs; 0 for none."""
    login: str = ""
    """The login of a person with a session; empty for a key."""
    session_id: str = ""
    link_id: int = 0
    """The number of the signed link; 0 for none, and for links from before they were numbered."""

    def may(self, scope: Scope) -> bool:
        """Whether a scope is among what this caller may do."""
        return scope in self.scopes or any(scope in _INCLUDED.get(held, ()) for held in self.scopes)


class Link(NamedTuple):
    """What a signed link says; true only if its signature is the secret's."""

    tenant_id: int
    secret_id: int
    wallet: str
    expires_at_s: int
    link_id: int = 0
    """Its row in the books; 0 for a link that was made before links had rows."""


def new_token() -> str:
    """A new key, with 256 bits that nobody can guess."""
    return f"fbx_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def key_id_of(token: str) -> str | None:
    """The public part of a text that has the form of a key; None for any other."""
    found = _KEY.fullmatch(token) if len(token) <= MAX_TOKEN else None
    return found.group(1) if found else None


def fingerprint(token: str) -> bytes:
    """What the books keep of a key. Its secret is random and long, so no slow hash is called for."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def token_in(authorization: str | None, api_key: str | None) -> str | None:
    """The token of a request by its `Authorization: Bearer` or `X-API-Key` header; None without one."""
    if authorization is not None:
        found = _BEARER.fullmatch(authorization) if len(authorization) <= MAX_TOKEN + 16 else None
        return found.group(1) if found else authorization[:MAX_TOKEN]
    return api_key


def sign_link(link: Link, secret: bytes) -> str:
    """The text of a link."""
    payload = _encoded(json.dumps(link, ensure_ascii=False, separators=(",", ":")).encode())
    return f"fbl_{payload}.{_signature(payload, secret)}"


def read_link(token: str) -> Link | None:
    """What a text that has the form of a link says, not yet to be believed; None for any other."""
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
    """Whether a link was signed with a secret; takes as long whether or not it was."""
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
