"""Settings: flags, then `FAREBOX_…` in the environment, then `farebox.toml`, then defaults; checked at boot."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from limits import parse as parse_rate
from pydantic import AfterValidator, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from farebox_collector.model.credentials import Role, key_id_of
from farebox_collector.model.names import is_valid_text
from farebox_collector.model.pseudonyms import Pseudonyms
from farebox_collector.model.secret_box import SecretBox, secrets_keys

CONFIG_FILE = "farebox.toml"
MAX_LINK_DAYS = 366
MIN_RETENTION_DAYS = 35
"""The shortest retention of detail: one month plus time to close it."""


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`. The host has no IPv6 brackets; port 0 lets the system choose."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_address(value: str) -> str:
    """Check an address to listen on. Raises ValueError unless it is `host:port` with an IP address or localhost."""
    host, colon, port = value.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{host!r} is neither an IP address nor localhost") from None
    return value


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listening address."""
    host, _ = host_and_port(address)
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


Address = Annotated[str, AfterValidator(check_address)]


def check_rate(value: str) -> str:
    """Check a rate limit; empty means none. Raises ValueError unless it has the form `100/second`."""
    try:
        if value and parse_rate(value).amount < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{value!r} is not a limit: write 100/second, 6000/minute or 1000000/hour") from None
    return value


RateLimit = Annotated[str, AfterValidator(check_rate)]


class Settings(BaseSettings):
    """The settings of a collector. Every field is also `FAREBOX_<FIELD>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="FAREBOX_", extra="forbid", toml_file=CONFIG_FILE)

    database_url: str = Field(
        "sqlite:///.farebox/farebox.db",
        description="Where the books are kept, as a SQLAlchemy URL: `sqlite:///…` or `postgresql+psycopg://…`.",
    )
    grpc_address: Address = Field("127.0.0.1:4317", description="OTLP/gRPC intake.")
    otlp_http_address: Address = Field(
        "127.0.0.1:4318", description="OTLP/HTTP intake: `/v1/traces`, `/v1/logs`, `/v1/metrics`."
    )
    api_address: Address = Field("127.0.0.1:8080", description="HTTP API, its documentation at `/docs`.")
    metrics_address: Address = Field("127.0.0.1:9464", description="Prometheus metrics, `/metrics`.")
    bootstrap_key: SecretStr | None = Field(
        None,
        description="A key with every scope for the tenant `default`, created at start if there is no key yet;"
        " `farebox keys generate` prints one.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names that the HTTP ports answer to, in addition to this machine's own; comma-separated.",
    )
    metrics_without_key: bool = Field(
        False, description="Answer `/metrics` without a key on an address that other machines can reach."
    )
    stripe_api_key: SecretStr | None = Field(
        None, description="Secret or restricted API key of the Stripe account that top-ups are paid to."
    )
    stripe_webhook_secret: SecretStr | None = Field(
        None,
        description="Signing secret (`whsec_…`) of the webhook endpoint in Stripe that sends to `/v1/webhooks/stripe`.",
    )
    secrets_key: SecretStr | None = Field(
        None,
        description="Keys that encrypt the secrets in the books (of links and webhooks): the first encrypts, all"
        " decrypt. `farebox secrets generate` prints one. Without a key, secrets are stored in plain text.",
    )
    secrets_key_file: FilePath | None = Field(
        None, description="A file with the keys of `secrets_key`, one a line; set one of the two."
    )
    pseudonym_key: SecretStr | None = Field(
        None,
        description="A key from `farebox secrets generate`: the books hold pseudonyms made with it instead of the names"
        " of wallets and users. Set it before the first start and never change it.",
    )
    pseudonym_key_file: FilePath | None = Field(
        None, description="A file with the key of `pseudonym_key`; set one of the two."
    )
    stripe_api_base: str = Field(
        "https://api.stripe.com",
        description="URL of Stripe's API; `farebox stripe-double` prints the value for the bundled double.",
    )
    topup_return_url: str = Field(
        "", description="Page that a checkout returns customers to, unless the top-up request names one."
    )
    link_max_days: int = Field(
        90, ge=1, le=MAX_LINK_DAYS, description="Longest validity of a signed link to a wallet, in days."
    )
    topup_seconds: float = Field(10.0, gt=0, description="Seconds between checks for automatic top-ups.")
    tls_certificate: FilePath | None = Field(
        None, description="PEM file with the certificate chain of all four ports; without it they use plain text."
    )
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's private key.")
    tls_client_ca: FilePath | None = Field(
        None, description="PEM file with the authorities of client certificates; if set, these are required."
    )
    max_request_bytes: int = Field(
        16 * 2**20, ge=1024, description="Largest OTLP request in bytes, before and after decompression."
    )
    max_request_spans: int = Field(50_000, ge=1, description="Most spans in one OTLP request.")
    max_request_attributes: int = Field(
        500_000, ge=1, description="Most attributes in one OTLP request, of all spans and resources together."
    )
    queue_max_bytes: int = Field(
        128 * 2**20,
        ge=2**20,
        description="Most bytes of requests in progress; above it the collector asks clients to retry.",
    )
    request_seconds: float = Field(
        30.0, gt=0, description="Longest time for one request to arrive over HTTP; slower requests are cut off."
    )
    max_connections: int = Field(
        1_000, ge=1, description="Most connections to each port; above it the oldest without a valid key is closed."
    )
    max_connections_per_peer: int = Field(
        200, ge=1, description="Most connections to each port from one address without a valid key."
    )
    limit_tenant_requests: RateLimit = Field(
        "", description="Most requests of a tenant, OTLP and API together, such as `100/second` or `6000/minute`."
    )
    limit_tenant_spans: RateLimit = Field("", description="Most spans of a tenant, such as `1000000/minute`.")
    limit_tenant_bytes: RateLimit = Field("", description="Most bytes of OTLP requests of a tenant, decompressed.")
    limit_key_requests: RateLimit = Field("", description="As `limit_tenant_requests`, for each key.")
    limit_key_spans: RateLimit = Field("", description="As `limit_tenant_spans`, for each key.")
    limit_key_bytes: RateLimit = Field("", description="As `limit_tenant_bytes`, for each key.")
    commit_max_spans: int = Field(4_000, ge=1, le=10_000, description="Most usage records in one database transaction.")
    reading_process: bool = Field(
        True, description="Read requests in a second process once they wait for each other, to use two cores."
    )
    wallet_attributes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("user.id", "enduser.id"),
        description="Span attributes that name the wallet where `farebox.wallet` is absent; comma-separated, in order.",
    )
    agent_events: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="Events of coding agents that name none with `farebox.event`, as `tool=event`, comma-separated: the"
        " tools are `claude_code`, `codex_cli`, `gemini_cli` and `qwen_code`. Others get `agent.code`.",
    )
    subscription_accounts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Accounts of coding agents that a subscription pays: `user.email`, `user.account_uuid`,"
        " `user.account_id` or `organization.id` of their calls; comma-separated. Those calls cost 0, and keep their"
        " list price.",
    )
    charge_exposed: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Tenants whose wallets are charged the estimate for calls whose end was not seen (`default`, …);"
        " comma-separated. Other tenants' wallets are not charged for them.",
    )
    webhook_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names on a private network that webhooks may call, also without TLS; comma-separated.",
    )
    strict_wallets: bool = Field(
        False,
        description="Refuse holds on unknown wallets, and movements of unknown wallets except deposits; usage is still"
        " recorded.",
    )
    max_span_age_hours: int = Field(
        168,
        ge=1,
        description="A start time older than this, or over 5 minutes ahead, is priced at the time of receipt.",
    )
    settle_seconds: float = Field(10.0, gt=0, description="Seconds between attempts to settle open records.")
    agent_quiet_seconds: float = Field(
        300.0,
        ge=0,
        description="Seconds to wait for the calls of an agent before its own usage is charged (at least 120).",
    )
    audit_seconds: float = Field(60.0, gt=0, description="Seconds between audits of recent transactions.")
    full_audit_hours: float = Field(24.0, gt=0, description="Hours between audits of all of the books.")
    full_audit_share: float = Field(
        0.15, gt=0, le=1, description="Share of one thread's time that an audit of all of the books may use."
    )
    dead_letter_days: int = Field(30, ge=1, description="Days that the dead-letter queue keeps a span.")
    retention_days: int = Field(
        0,
        ge=0,
        description="Days after which the detail of a call is removed; charges, sums and reports stay. 0 keeps detail"
        f" permanently; other values are at least {MIN_RETENTION_DAYS}.",
    )
    topup_url: str = Field(
        "",
        pattern=r"^(https?://[!-~]*)?$",
        description="Page where customers top up a wallet, such as `https://shop.example/credits?wallet={wallet}`;"
        " overviews link to it.",
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[!-~]+)?$",
        description="URL under which browsers reach the API's port, such as `https://farebox.example`; required for"
        " logins if a proxy terminates TLS.",
    )
    session_idle_minutes: float = Field(
        60.0, gt=0, le=60 * 24 * 30, description="Minutes without a request after which a session ends."
    )
    session_hours: float = Field(12.0, gt=0, le=24 * 90, description="Hours after which a session ends in any case.")
    oidc_issuer: str = Field(
        "",
        pattern=r"^(https?://[!-~]+)?$",
        description="OpenID provider for logins; its addresses are read from `/.well-known/openid-configuration`.",
    )
    oidc_client_id: str = Field("", description="Client id of this installation at the OpenID provider.")
    oidc_client_secret: SecretStr | None = Field(None, description="Client secret at the OpenID provider.")
    oidc_scopes: str = Field("openid profile email", description="Scopes to request from the OpenID provider.")
    oidc_groups_claim: str = Field("groups", description="The claim that lists a person's groups.")
    oidc_roles: Annotated[dict[str, Role], NoDecode] = Field(
        {},
        description="Roles of groups, such as `farebox-admins=admin,finance=finance`; `*` matches every person of the"
        " provider. A person in none of these groups is refused.",
    )
    oidc_tenant: str = Field("default", description="The tenant of people who log in through the OpenID provider.")
    audit_log_days: int = Field(
        0, ge=0, description="Days after which entries of the audit log are deleted; 0 keeps them permanently."
    )
    drain_seconds: float = Field(20.0, gt=0, description="Longest wait for requests in progress after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")

    @field_validator(
        "wallet_attributes",
        "allowed_hosts",
        "subscription_accounts",
        "charge_exposed",
        "webhook_private_hosts",
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _roles_of_groups(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.rpartition("=") for part in filter(None, (part.strip() for part in value.split(",")))]
        if not all(group and role in set(Role) for group, _, role in pairs):
            raise ValueError(f"write group=role, separated by commas; roles are {', '.join(Role)}")
        return {group.strip(): Role(role) for group, _, role in pairs}

    @field_validator("agent_events", mode="before")
    @classmethod
    def _events_of_tools(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in filter(None, (part.strip() for part in value.split(",")))]
        if not all(tool.strip() and is_valid_text(event.strip()) and event.strip() for tool, _, event in pairs):
            raise ValueError("write tool=event, separated by commas, such as claude_code=agent.code")
        return {tool.strip(): event.strip() for tool, _, event in pairs}

    @model_validator(mode="after")
    def _complete_oidc(self) -> Self:
        stated = (bool(self.oidc_issuer), bool(self.oidc_client_id), self.oidc_client_secret is not None)
        if any(stated) and not all(stated):
            raise ValueError("set oidc_issuer, oidc_client_id and oidc_client_secret together")
        return self

    @field_validator("oidc_issuer")
    @classmethod
    def _encrypted_issuer(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("use an https URL; http is allowed only for an OpenID provider on this machine")
        return value

    @field_validator("bootstrap_key")
    @classmethod
    def _api_key_form(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if key_id_of(value.get_secret_value()) is None:
            raise ValueError("not an API key: `farebox keys generate` prints one")
        return value

    @field_validator("stripe_api_key", "stripe_webhook_secret", "oidc_client_secret", "secrets_key", "pseudonym_key")
    @classmethod
    def _not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None

    @model_validator(mode="after")
    def _readable_secrets_keys(self) -> Self:
        if self.secrets_key is not None and self.secrets_key_file is not None:
            raise ValueError("set secrets_key or secrets_key_file, not both")
        self.secret_box()
        return self

    @model_validator(mode="after")
    def _usable_pseudonyms(self) -> Self:
        if self.pseudonym_key is not None and self.pseudonym_key_file is not None:
            raise ValueError("set pseudonym_key or pseudonym_key_file, not both")
        if self.pseudonyms() is not None and "{wallet}" in self.topup_url:
            raise ValueError("topup_url: remove {wallet}; with a pseudonym key the name of the wallet is not known")
        return self

    def pseudonyms(self) -> Pseudonyms | None:
        """The pseudonyms of names in the books; None if the books hold the names. Raises ValueError for an invalid
        key."""
        text = self.pseudonym_key.get_secret_value() if self.pseudonym_key is not None else ""
        if self.pseudonym_key_file is not None:
            text = self.pseudonym_key_file.read_text(encoding="utf-8")
        elif not text:
            return None
        keys = secrets_keys(text)
        if len(keys) != 1:
            raise ValueError(f"give one pseudonym key, not {len(keys)}; `farebox secrets generate` prints one")
        return Pseudonyms(keys[0])

    def secret_box(self) -> SecretBox:
        """The encryption of secrets in the books. Raises ValueError for an invalid key."""
        if self.secrets_key_file is not None:
            keys = secrets_keys(self.secrets_key_file.read_text(encoding="utf-8"))
            if not keys:
                raise ValueError(f"there is no key in {self.secrets_key_file}: `farebox secrets generate` prints one")
        else:
            keys = secrets_keys(self.secrets_key.get_secret_value()) if self.secrets_key is not None else []
        return SecretBox(keys)

    @field_validator("stripe_api_base")
    @classmethod
    def _encrypted_stripe(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme != "https" and (url.scheme != "http" or url.hostname not in ("127.0.0.1", "::1", "localhost")):
            raise ValueError("use an https URL; http is allowed only for a double of Stripe on this machine")
        return value.rstrip("/")

    @field_validator("topup_return_url")
    @classmethod
    def _web_page(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError(f"{value!r} is not an http or https URL")
        return value

    @model_validator(mode="after")
    def _complete_stripe(self) -> Self:
        if (self.stripe_api_key is None) != (self.stripe_webhook_secret is None):
            raise ValueError("set stripe_api_key and stripe_webhook_secret together")
        return self

    @model_validator(mode="after")
    def _complete_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_key):
            raise ValueError("set tls_certificate and tls_key together; tls_client_ca requires both")
        return self

    @model_validator(mode="after")
    def _valid_retention(self) -> Self:
        least = max(MIN_RETENTION_DAYS, -(-self.max_span_age_hours // 24))
        if self.retention_days and self.retention_days < least:
            raise ValueError(f"set retention_days to at least {least}, or to 0 to keep detail permanently")
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """The four addresses to listen on, by the names of their settings."""
        return {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_address")}

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("write sqlite:///path or postgresql+psycopg://user@host/database")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags take precedence, then the environment, then the file in the working directory."""
        del dotenv_settings, file_secret_settings
        file = TomlConfigSettingsSource(settings_cls, Path(CONFIG_FILE))
        return init_settings, env_settings, file
