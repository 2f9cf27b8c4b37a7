"""Log in at an OpenID provider: authorization code with PKCE, state and nonce; issuer, audience and signature checked.

The state of a login in progress is in a cookie that only this installation can decrypt.
"""

import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx2

from farebox_collector.ledger.access.people import Identity
from farebox_collector.settings import Settings
from farebox_collector.surfaces.login_desk import Claimed

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

FLOW_SECONDS = 600
"""Maximum time at the provider."""
_TIMEOUT_S = 10.0
_METADATA_SECONDS = 3_600
_MAX_GROUPS = 1_000
_MAX_NAME = 200
_LEEWAY_S = 60
# Accept public-key signatures only. HS256 signs with the client's secret, and `none` does not sign.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class ProviderRefused(Exception):
    """The provider cannot be reached or its response is not trusted; the message tells why."""


class Begun(NamedTuple):
    """A login that continues at the provider."""

    url: str
    """The URL to redirect the browser to."""
    flow: str
    """The encrypted state to keep in a cookie."""


class Finished(NamedTuple):
    """A login that returned from the provider."""

    claimed: Claimed
    after: str
    """The page requested before the login."""


class Provider:
    """The OpenID provider of an installation."""

    def __init__(self, settings: Settings) -> None:
        """The settings must have an issuer, a client and its secret."""
        assert settings.oidc_client_secret is not None
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._scopes = settings.oidc_scopes
        self._groups_claim = settings.oidc_groups_claim
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._metadata_until = 0.0

    def begin(self, redirect_uri: str, after: str) -> Begun:
        """Start a login at the provider that continues at the page `after`. Raises ProviderRefused."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._client(redirect_uri) as client:
            endpoint = self._endpoint("authorization_endpoint")
            url, _ = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, nonce=nonce)
        flow = {"state": state, "nonce": nonce, "verifier": verifier, "after": after}
        return Begun(str(url), self._box().encrypt(json.dumps(flow).encode()).decode())

    def finish(self, query: str, flow: str, redirect_uri: str) -> Finished:
        """Verify the provider's response from the query and the flow cookie. Raises ProviderRefused."""
        begun = self._opened(flow)
        answer = {name: values[0] for name, values in parse_qs(query[:8_000]).items() if len(values) == 1}
        if not secrets.compare_digest(answer.get("state", "").encode(), begun["state"].encode()):
            raise ProviderRefused("The login was started in another browser, or superseded by another one. Try again.")
        if answer.get("iss", self._issuer) != self._issuer:
            raise ProviderRefused("The response comes from another provider.")
        if "error" in answer or not answer.get("code"):
            raise ProviderRefused(f"The provider refused the login: {answer.get('error', 'it sent no code')[:200]}.")
        with self._client(redirect_uri) as client:
            try:
                token = client.fetch_token(
                    self._endpoint("token_endpoint"),
                    grant_type="authorization_code",
                    code=answer["code"],
                    code_verifier=begun["verifier"],
                )
                claims = self._claims(token, begun["nonce"])
                if self._groups_claim not in claims and "userinfo_endpoint" in self._metadata:
                    claims = {**self._userinfo(client, claims["sub"]), **claims}
            except ProviderRefused:
                raise
            except Exception as error:
                # Authlib, joserfc and the HTTP client raise different errors that mean the same to the visitor.
                raise ProviderRefused(f"The provider's response was not accepted: {type(error).__name__}.") from error
        return Finished(self._claimed(claims), begun["after"])

    def _claims(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Return the ID token's claims after checking its signature, issuer, audience, times and nonce."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        if "id_token" not in token:
            raise ProviderRefused("The provider sent no ID token. Add openid to FAREBOX_OIDC_SCOPES.")
        registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
        for again in (False, True):
            keys = KeySet.import_key_set(self._get(self._endpoint("jwks_uri", anew=again)))
            try:
                signed = jwt.decode(token["id_token"], keys, registry=registry)
                break
            except InvalidKeyIdError:
                if again:
                    raise
        options = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client_id},
        }
        params = {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")}
        claims = CodeIDToken(signed.claims, signed.header, options, params)
        claims.validate(leeway=_LEEWAY_S)
        return dict(claims)

    def _userinfo(self, client: Any, subject: str) -> dict[str, Any]:
        found = client.get(self._endpoint("userinfo_endpoint")).raise_for_status().json()
        if not isinstance(found, dict) or found.get("sub") != subject:
            raise ProviderRefused("The provider's user info is for another subject.")
        return found

    def _claimed(self, claims: Mapping[str, Any]) -> Claimed:
        groups = claims.get(self._groups_claim, [])
        groups = [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list):
            groups = []
        named = frozenset(group for group in groups[:_MAX_GROUPS] if isinstance(group, str))
        # An address that the provider did not verify may belong to another person.
        email = claims.get("email") if claims.get("email_verified", True) is True else None
        login = email or claims.get("preferred_username") or claims["sub"]
        name = claims.get("name")
        text = name if isinstance(name, str) and name.isprintable() else ""
        identity = Identity(self._issuer, str(claims["sub"])[:255])
        return Claimed(identity, str(login).strip().lower()[:_MAX_NAME], text[:_MAX_NAME], named)

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        return OAuth2Client(
            self._client_id,
            self._secret.get_secret_value(),
            scope=self._scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def _endpoint(self, name: str, *, anew: bool = False) -> str:
        with self._lock:
            if anew or time.monotonic() >= self._metadata_until:
                document = self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                if document.get("issuer") != self._issuer:
                    raise ProviderRefused(
                        f"The provider's issuer is {document.get('issuer')!r}, which differs from FAREBOX_OIDC_ISSUER."
                    )
                self._metadata, self._metadata_until = document, time.monotonic() + _METADATA_SECONDS
            url = str(self._metadata.get(name, ""))
        if urlsplit(url).scheme != "https" and urlsplit(self._issuer).scheme == "https":
            raise ProviderRefused(f"The provider names no https {name}.")
        return url

    @staticmethod
    def _get(url: str) -> Any:
        try:
            return httpx2.get(url, timeout=_TIMEOUT_S, trust_env=False).raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            raise ProviderRefused(f"The OpenID provider cannot be reached: {type(error).__name__}.") from error

    def _box(self) -> "Fernet":
        """Return encryption with a key derived from the client's secret, which every replica has."""
        from cryptography.fernet import Fernet

        secret = self._secret.get_secret_value().encode()
        return Fernet(urlsafe_b64encode(sha256(b"farebox login flow\0" + secret).digest()))

    def _opened(self, flow: str) -> dict[str, str]:
        from cryptography.fernet import InvalidToken

        try:
            found: dict[str, str] = json.loads(self._box().decrypt(flow[:4_000], ttl=FLOW_SECONDS))
        except (InvalidToken, ValueError):
            raise ProviderRefused("The login took too long or was started in another browser. Try again.") from None
        return found
