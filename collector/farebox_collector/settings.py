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
from farebox_collector.model.pseudonyms import Pseudonyms
from farebox_collector.model.secret_box import SecretBox, secrets_keys

CONFIG_FILE = "farebox.toml"
MAX_LINK_DAYS = 366
MIN_RETENTION_DAYS = 35
"""Detail is kept so long at the least: a month, and time to close it."""


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`; the host comes without the brackets of an IPv6 address, port 0 lets the system choose."""
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
    """Whether only this machine can reach an address to listen on."""
    host, _ = host_and_port(address)
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


Address = Annotated[str, AfterValidator(check_address)]


def check_rate(value: str) -> str:
    """Check a limit in a time, empty for none. Raises ValueError for what does not read like `100/second`."""
    try:
        if value and parse_rate(value).amount < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{value!r} is not a limit: write 100/second, 6000/minute or 1000000/hour") from None
    return value


RateLimit = Annotated[str, AfterValidator(check_rate)]


class Settings(BaseSettings):
    """What can be set. Every field is also `FAREBOX_<FIELD>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="FAREBOX_", extra="forbid", toml_file=CONFIG_FILE)

    database_url: str = Field(
        "sqlite:///.farebox/farebox.db",
        description="Where the books are kept, as a SQLAlchemy URL: `sqlite:///…` or `postgresql+psycopg://…`.",
    )
    grpc_address: Address = Field("127.0.0.1:4317", description="OTLP/gRPC intake.")
    otlp_http_address: Address = Field("127.0.0.1:4318", description="OTLP/HTTP intake, `/v1/traces`.")
    api_address: Address = Field("127.0.0.1:8080", description="HTTP API, its documentation at `/docs`.")
    metrics_address: Address = Field("127.0.0.1:9464", description="Prometheus metrics, `/metrics`.")
    bootstrap_key: SecretStr | None = Field(
        None,
        description="A key with every scope for the tenant `default`, made at a start at which there is no key yet;"
        " `farebox keys generate` prints one.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names that the HTTP ports answer to beside this machine's own; comma-separated.",
    )
    metrics_without_key: bool = Field(
        False, description="Answer `/metrics` without a key on an address that others can reach."
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
        description="Keys under which the secrets in the books (of links and webhooks) are encrypted: the first"
        " encrypts, each decrypts. `farebox secrets generate` prints one. Without a key they are stored in plain text.",
    )
    secrets_key_file: FilePath | None = Field(None, description="A file with those keys, one a line, instead.")
    pseudonym_key: SecretStr | None = Field(
        None,
        description="A key from `farebox secrets generate`: names of wallets and users are pseudonyms under it in the"
        " books. Begins with new books and is never changed.",
    )
    pseudonym_key_file: FilePath | None = Field(None, description="A file with that key instead.")
    stripe_api_base: str = Field(
        "https://api.stripe.com",
        description="Where Stripe's API is; `farebox stripe-double` prints what to set for the bundled double.",
    )
    topup_return_url: str = Field(
        "", description="Where customers come back to from a checkout, unless the request for it says."
    )
    link_max_days: int = Field(
        90, ge=1, le=MAX_LINK_DAYS, description="Most days that a signed link to a wallet works."
    )
    topup_seconds: float = Field(10.0, gt=0, description="How often automatic top-ups are looked at.")
    tls_certificate: FilePath | None = Field(
        None, description="PEM file with the certificate chain of all four ports; without it they speak plain text."
    )
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's private key.")
    tls_client_ca: FilePath | None = Field(
        None, description="PEM file with the authorities of client certificates, which are then required."
    )
    max_request_bytes: int = Field(
        16 * 2**20, ge=1024, description="Largest OTLP request, in bytes, also after decompression."
    )
    max_request_spans: int = Field(50_000, ge=1, description="Most spans in one OTLP request.")
    max_request_attributes: int = Field(
        500_000, ge=1, description="Most attributes in one OTLP request, of all spans and resources together."
    )
    queue_max_bytes: int = Field(
        128 * 2**20,
        ge=2**20,
        description="Bytes of requests being worked on; above it clients are told to retry.",
    )
    request_seconds: float = Field(
        30.0, gt=0, description="Longest that one request may take to arrive over HTTP; slower ones are cut off."
    )
    max_connections: int = Field(
        1_000, ge=1, description="Most connections to each port; the oldest without a good key goes first."
    )
    max_connections_per_peer: int = Field(
        200, ge=1, description="Most connections to each port from one address without a good key."
    )
    limit_tenant_requests: RateLimit = Field(
        "", description="Most requests of a tenant, OTLP and API together, such as `100/second` or `6000/minute`."
    )
    limit_tenant_spans: RateLimit = Field("", description="Most spans of a tenant, such as `1000000/minute`.")
    limit_tenant_bytes: RateLimit = Field("", description="Most bytes of OTLP requests of a tenant, unfolded.")
    limit_key_requests: RateLimit = Field("", description="As `limit_tenant_requests`, for each key.")
    limit_key_spans: RateLimit = Field("", description="As `limit_tenant_spans`, for each key.")
    limit_key_bytes: RateLimit = Field("", description="As `limit_tenant_bytes`, for each key.")
    commit_max_spans: int = Field(4_000, ge=1, le=10_000, description="Most usage records in one database transaction.")
    reading_process: bool = Field(
        True, description="Read requests in a second process once they wait for each other, so as to use two cores."
    )
    wallet_attributes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("user.id", "enduser.id"),
        description="Span attributes that name the wallet where `farebox.wallet` is absent; comma-separated, in order.",
    )
    charge_exposed: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Tenants whose wallets are charged the estimate of calls whose end was not seen (`default`, …);"
        " comma-separated. The others' wallets are not.",
    )
    webhook_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names that webhooks may call although they are on a private network, also without TLS;"
        " comma-separated.",
    )
    strict_wallets: bool = Field(
        False,
        description="Refuse holds on wallets that are not known yet, and movements of them but those that pay in;"
        " usage is recorded all the same.",
    )
    max_span_age_hours: int = Field(
        168,
        ge=1,
        description="A start time older than this, or over 5 minutes ahead, is priced at the time of receipt.",
    )
    settle_seconds: float = Field(10.0, gt=0, description="How often open records are looked at again.")
    agent_quiet_seconds: float = Field(
        300.0,
        ge=0,
        description="How long to wait for the calls of an agent before its own usage is charged (120 at the least).",
    )
    audit_seconds: float = Field(60.0, gt=0, description="How often recent transactions are audited.")
    full_audit_hours: float = Field(24.0, gt=0, description="How often all of the books are audited.")
    full_audit_share: float = Field(
        0.15, gt=0, le=1, description="Share of one thread's time that auditing all of the books takes from other work."
    )
    dead_letter_days: int = Field(30, ge=1, description="How long spans that can never be booked are kept.")
    retention_days: int = Field(
        0,
        ge=0,
        description="Days after which the detail of a call is retired: charges, sums and reports stay; 0 keeps it for"
        f" ever, else {MIN_RETENTION_DAYS} at the least.",
    )
    topup_url: str = Field(
        "",
        pattern=r"^(https?://[!-~]*)?$",
        description="Where customers top up a wallet, such as `https://shop.example/credits?wallet={wallet}`;"
        " overviews show it.",
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[!-~]+)?$",
        description="Where people reach the API's port with their browsers, such as `https://farebox.example`; needed"
        " for logins where TLS ends in front.",
    )
    session_idle_minutes: float = Field(
        60.0, gt=0, le=60 * 24 * 30, description="A session is over after so long without a request."
    )
    session_hours: float = Field(12.0, gt=0, le=24 * 90, description="A session is over after so long in any case.")
    oidc_issuer: str = Field(
        "",
        pattern=r"^(https?://[!-~]+)?$",
        description="OpenID provider at which people log in; its `/.well-known/openid-configuration` says the rest.",
    )
    oidc_client_id: str = Field("", description="What the OpenID provider knows this installation by.")
    oidc_client_secret: SecretStr | None = Field(None, description="The secret of that client.")
    oidc_scopes: str = Field("openid profile email", description="Scopes to ask the OpenID provider for.")
    oidc_groups_claim: str = Field("groups", description="The claim with the groups of a person.")
    oidc_roles: Annotated[dict[str, Role], NoDecode] = Field(
        {},
        description="Roles of groups, such as `farebox-admins=admin,finance=finance`; `*` is every person of the"
        " provider. A person in no such group is refused.",
    )
    oidc_tenant: str = Field("default", description="The tenant of people who log in through the OpenID provider.")
    audit_log_days: int = Field(
        0, ge=0, description="Days after which entries of the audit log are let go; 0 keeps them for ever."
    )
    drain_seconds: float = Field(20.0, gt=0, description="Longest wait for work in hand after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @field_validator("wallet_attributes", "allowed_hosts", "charge_exposed", "webhook_private_hosts", mode="before")
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
            raise ValueError(f"say group=role, separated by commas; roles are {', '.join(Role)}")
        return {group.strip(): Role(role) for group, _, role in pairs}

    @model_validator(mode="after")
    def _whole_oidc(self) -> Self:
        stated = (bool(self.oidc_issuer), bool(self.oidc_client_id), self.oidc_client_secret is not None)
        if any(stated) and not all(stated):
            raise ValueError("oidc_issuer, oidc_client_id and oidc_client_secret belong together")
        return self

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer_nobody_reads(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("an OpenID provider is reached over https, or on this machine itself")
        return value

    @field_validator("bootstrap_key")
    @classmethod
    def _a_key(cls, value: SecretStr | None) -> SecretStr | None:
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
            raise ValueError("secrets_key and secrets_key_file are two ways to say the same: set one of them")
        self.secret_box()
        return self

    @model_validator(mode="after")
    def _usable_pseudonyms(self) -> Self:
        if self.pseudonym_key is not None and self.pseudonym_key_file is not None:
            raise ValueError("pseudonym_key and pseudonym_key_file are two ways to say the same: set one of them")
        if self.pseudonyms() is not None and "{wallet}" in self.topup_url:
            raise ValueError("topup_url: with pseudonyms {wallet} would not be a name; leave it out")
        return self

    def pseudonyms(self) -> Pseudonyms | None:
        """What stands for names in the books; None if the names themselves do. Raises ValueError for what is no key."""
        text = self.pseudonym_key.get_secret_value() if self.pseudonym_key is not None else ""
        if self.pseudonym_key_file is not None:
            text = self.pseudonym_key_file.read_text(encoding="utf-8")
        elif not text:
            return None
        keys = secrets_keys(text)
        if len(keys) != 1:
            raise ValueError(f"pseudonyms have one key, not {len(keys)}: `farebox secrets generate` prints one")
        return Pseudonyms(keys[0])

    def secret_box(self) -> SecretBox:
        """What encrypts the secrets in the books. Raises ValueError for what is no key."""
        if self.secrets_key_file is not None:
            keys = secrets_keys(self.secrets_key_file.read_text(encoding="utf-8"))
            if not keys:
                raise ValueError(f"there is no key in {self.secrets_key_file}: `farebox secrets generate` prints one")
        else:
            keys = secrets_keys(self.secrets_key.get_secret_value()) if self.secrets_key is not None else []
        return SecretBox(keys)

    @field_validator("stripe_api_base")
    @classmethod
    def _nobody_between(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme != "https" and (url.scheme != "http" or url.hostname not in ("127.0.0.1", "::1", "localhost")):
            raise ValueError("the key of a Stripe account travels over https, or to this machine itself")
        return value.rstrip("/")

    @field_validator("topup_return_url")
    @classmethod
    def _a_page(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError(f"{value!r} is not the address of a web page")
        return value

    @model_validator(mode="after")
    def _whole_stripe(self) -> Self:
        if (self.stripe_api_key is None) != (self.stripe_webhook_secret is None):
            raise ValueError("stripe_api_key and stripe_webhook_secret belong together")
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together, and tls_client_ca needs both")
        return self

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        least = max(MIN_RETENTION_DAYS, -(-self.max_span_age_hours // 24))
        if self.retention_days and self.retention_days < least:
            raise ValueError(f"retention_days is 0, to keep detail for ever, or {least} at the least")
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """The four addresses to listen on, by the names of their settings."""
        return {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_address")}

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("the books are kept in sqlite:///path or in postgresql+psycopg://user@host/database")
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
        """Flags first, then the environment, then the file in the working directory, if there is one."""
        del dotenv_settings, file_secret_settings
        file = TomlConfigSettingsSource(settings_cls, Path(CONFIG_FILE))
        return init_settings, env_settings, file
