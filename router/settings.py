"""Every setting of the service, in one class: environment variables with the prefix `ROUTER_`.

A wrong setting stops the start with one clear line that names the variable and never its value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from router.by_merchant import EVERY_OTHER, countries, provider_lists, words
from router.sealing import Ring
from router.webhooks_out_addresses import Network, networks

PREFIX = "ROUTER_"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PROVIDER_NAMES = ("stripe", "adyen")
"""Every provider that this build has an adapter for."""


class SettingsError(Exception):
    """A setting is wrong; the message is the one line to show."""


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        ipaddress.ip_address(host)
        sound = 0 < int(port) < 65536
    except ValueError:
        sound = False
    if not sound:
        msg = "must be an IP address and a port, such as 127.0.0.1:8080"
        raise ValueError(msg)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        msg = "must be an http:// or https:// address without a name, a password or a query in it"
        raise ValueError(msg)
    return value.rstrip("/")


def _checkout_url(value: str) -> str:
    version = re.search(r"/v(\d+)$", value)
    if version and version.group(1) != "72":
        msg = "must end in /v72, which the SDK speaks, or in no version"
        raise ValueError(msg)
    return value


def _database_url(value: str) -> str:
    scheme, found, _ = value.partition("://")
    if not found or scheme.partition("+")[0] not in ("sqlite", "postgresql"):
        msg = "must be sqlite:///… or postgresql://…"
        raise ValueError(msg)
    return value


def _launchdarkly_key(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        msg = "must be a key as LaunchDarkly shows it: letters, digits, dots, dashes and underscores"
        raise ValueError(msg)
    return value


def _dsn(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme not in ("http", "https") or not url.username or not url.path.strip("/"):
        msg = "must be a Sentry DSN, https://key@host/project"
        raise ValueError(msg)
    return value


LEAST_SECRET_CHARS = 32


def _decision_secret(value: SecretStr) -> SecretStr:
    if not all(len(each.strip()) >= LEAST_SECRET_CHARS for each in value.get_secret_value().split(",")):
        msg = f"must be at least {LEAST_SECRET_CHARS} characters, each of the two where one replaces the other"
        raise ValueError(msg)
    return value


def _encryption_keys(value: SecretStr) -> SecretStr:
    Ring(each.strip() for each in value.get_secret_value().split(",") if each.strip())
    return value


def _store_url(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme not in ("redis", "rediss") or not url.hostname:
        msg = "must be redis://host:port or rediss://…"
        raise ValueError(msg)
    return value


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return networks(value)
    except ValueError:
        msg = "must be all, none, or networks separated by commas, such as 10.1.0.0/16"
        raise ValueError(msg) from None


def _brokers(value: str) -> str:
    brokers = [each.strip() for each in value.split(",")]
    if not all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}", each) for each in brokers):
        msg = "must be host:port, or several separated by commas"
        raise ValueError(msg)
    return ",".join(brokers)


HostPort = Annotated[str, AfterValidator(_host_and_port)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
ProviderLists = Annotated[
    Mapping[str, tuple[str, ...]], NoDecode, BeforeValidator(lambda value: provider_lists(value, PROVIDER_NAMES))
]
WhenUnavailable = Annotated[
    Mapping[str, Literal["park", "fail"]], NoDecode, BeforeValidator(lambda value: words(value, ("park", "fail")))
]
LaunchDarklyKey = Annotated[str, AfterValidator(_launchdarkly_key)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """`ROUTER_*`, with the defaults of a run on one machine against the sandbox."""

    # Compose files write `NAME=` for "not set".
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    bind: HostPort = "127.0.0.1:8080"
    """Where the web processes listen."""
    run_dir: Path = Path(".run")
    """Holds what one machine's run needs: ledger, flags file, process ids, the generated key."""
    database_url: Annotated[str, AfterValidator(_database_url)] | None = None
    """SQLAlchemy URL of the ledger; by default an SQLite file in `run_dir`."""
    api_key: SecretStr | None = None
    """A bootstrap key with every scope, for merchant `default`."""
    web_processes: Annotated[int, Field(ge=1, le=64)] = 1
    web_threads: Annotated[int, Field(ge=1, le=512)] = 32
    """Payments that one web process works on at once; each may wait on a provider."""
    drain_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    """After SIGTERM: so long may requests and retries in flight go on; longer than `deadline_seconds`."""
    demo_traffic_per_second: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Synthetic payments that `make run` sends; 0 for none."""

    metrics_token: SecretStr | None = None
    """Absent: whoever reaches the port may read /metrics, which holds no secret; else this is its bearer token."""
    worker_metrics_bind: HostPort | None = None
    """Where a worker answers /metrics for itself; absent: the web processes of its machine, or pod, tell of it."""

    flags_file: Path | None = None
    """Used when there is no LaunchDarkly key; by default `flags.json` in `run_dir`."""
    launchdarkly_sdk_key: SecretStr | None = None
    launchdarkly_base_uri: HttpUrl | None = None
    launchdarkly_stream_uri: HttpUrl | None = None
    launchdarkly_events_uri: HttpUrl | None = None
    launchdarkly_api_token: SecretStr | None = None
    """An access token of the REST API that may update flags: with it the router flips the primary in LaunchDarkly."""
    launchdarkly_project: LaunchDarklyKey | None = None
    launchdarkly_environment: LaunchDarklyKey = "production"
    """The one that the SDK key belongs to."""
    launchdarkly_api_uri: HttpUrl = "https://app.launchdarkly.com"

    stripe_api_key: SecretStr = SecretStr("sk_test_sandbox")
    stripe_base_url: HttpUrl = "http://127.0.0.1:8091"
    adyen_api_key: SecretStr = SecretStr("sandbox")
    adyen_merchant_account: str = "SandboxMerchant"
    adyen_base_url: Annotated[HttpUrl, AfterValidator(_checkout_url)] = "http://127.0.0.1:8092"
    adyen_management_url: HttpUrl | None = None
    """Of the Management API, version included: where our key may read the merchant account's status."""
    account_check_seconds: Seconds = 300.0
    """Between two looks at a provider's account; a fifth of that while it is not well."""
    account_margin_seconds: Seconds = 3600.0
    """So long before a provider's deadline for our account it is asked last."""
    default_return_url: HttpUrl = "https://checkout.invalid/return"
    """Sent where a vendor requires a return address and the payment has none."""

    connect_timeout_seconds: Seconds = 1.0
    read_timeout_seconds: Seconds = 10.0
    deadline_seconds: Seconds = 25.0
    """For the whole of one request to the router, whatever it tries."""

    resend_max_age_seconds: Seconds = 900.0
    """Since checkout's last contact: so long is a payment in doubt sent again where checkout was not answered."""
    lease_margin_seconds: Seconds = 15.0
    """A process holds a payment for its deadline and this much more: for its last commit, tried again."""

    action_expires_seconds: Seconds = 3600.0
    """A customer who has not finished the 3-D Secure step so long after it was asked for: the payment is canceled."""

    stripe_webhook_secret: SecretStr | None = None
    """One secret, or two separated by a comma while one replaces the other."""
    adyen_hmac_key: SecretStr | None = None
    """One key in hexadecimal, or two separated by a comma while one replaces the other."""

    decision_secret: Annotated[SecretStr, AfterValidator(_decision_secret)] | None = None
    """What the ids of decisions are signed with: one secret, or two separated by a comma while one replaces the
    other. Absent: one made at random, which the ledger keeps for all processes."""

    encryption_keys: Annotated[SecretStr, AfterValidator(_encryption_keys)] | None = None
    """What tokens and secrets are sealed with in the ledger: Fernet keys, separated by commas. The first seals, all
    open."""
    encryption_keys_file: Path | None = None
    """The same, a key on each line, read again when it changes. Absent, with the ledger a file: made in `run_dir`."""
    seal: Literal["on", "off"] = "on"
    """off: what is new is written plain, and what is sealed is read; while processes of before 0018 still run."""

    breaker_open_wait_seconds: Seconds = 10.0
    breaker_minimum_calls: Annotated[int, Field(ge=1, le=1000)] = 10
    breaker_window_seconds: Seconds | None = None
    """Failures are counted over the calls of so many seconds; absent: over the last 20 calls."""
    breaker_failure_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of failures that opens a circuit; absent: half, or less where the provider's own past says so."""
    breaker_slow_call_seconds: Seconds | None = None
    """A call that takes longer is slow; absent: the provider's own p99, between 1 and 5 s."""
    breaker_consecutive_failures: Annotated[int, Field(ge=2, le=1000)] | None = None
    """So many failures in a row open a circuit before the minimum of calls; absent: they do not."""
    breaker_slow_start_seconds: Seconds | None = None
    """How long a provider that has recovered gets only a part of its payments; absent: three times the open wait."""
    provider_calls_at_once: Annotated[int, Field(ge=1, le=512)] | None = None
    """Payments at one provider at a time, in one web process; absent: three quarters of its threads."""
    flip_after_seconds: Seconds = 60.0
    """Time an incident's circuit has not been closed before the primary flag is moved."""
    flip_cooldown_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    """The machine leaves the flag alone for so long after it has moved it."""
    flips_per_hour: Annotated[int, Field(ge=1, le=60)] = 3
    """So often at most does the machine move the flag, there and back."""
    flip_moves_pins: bool = False
    """Whether rules and targets that serve the failing provider are moved too."""
    flip_restore: Literal["manual", "automatic"] = "manual"
    """Who sets the flag back when the provider is well again."""
    flip_restore_after_seconds: Seconds = 1800.0
    """Where it is automatic: its circuit must have been closed, and not suspect, for so long."""
    alert_webhook_secret: SecretStr | None = None
    """What alerts are signed with."""
    alert_webhook_url: SecretStr | None = None
    """Where alerts are posted to, as JSON; chat services put a secret into such addresses. Needs the secret."""
    parked_retry_seconds: Seconds = 15.0
    """Until a parked payment is tried first; then after as long again as it has waited, ten minutes at most."""
    parked_per_second: Annotated[float, Field(gt=0, le=10_000)] = 200.0
    """Parked payments tried a second at most, by all workers together, once providers are well."""
    parked_at_once: Annotated[int, Field(ge=1, le=256)] = 16
    """Parked payments that one worker tries at the same time."""

    rate_per_key: Annotated[float, Field(ge=0.1, le=1_000_000)] = 5000.0
    """Requests a second of one API key, of each kind (making, changing, reading): all web processes together."""
    rate_burst_seconds: Annotated[float, Field(ge=1, le=60)] = 5.0
    """So many seconds' requests at once, after a rest."""
    quota_floor_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] = 60_000
    """Payments a minute that every merchant may make, whatever its past."""
    quota_cap_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] = 600_000
    """The same that none may exceed, whatever its past."""
    quota_growth: Annotated[float, Field(ge=1.5, le=100)] = 3.0
    """A merchant's quota is so many times its busiest minute of the last day, and of this hour in the last weeks."""
    limits_store: Annotated[SecretStr, AfterValidator(_store_url)] | None = None
    """A Redis where the web processes of all machines count rates and quotas together; absent: each its own part."""

    fees_file: Path | None = None
    """What the providers charge (CSV, see `providers.fees_file`), read at start; absent: `FeeBook.default()`."""
    merchant_countries: Annotated[Mapping[str, str], NoDecode, BeforeValidator(countries)] = {}
    """JSON: the country that each merchant sells from, `*` for every other one; a fee depends on it."""
    merchant_providers: ProviderLists = {}
    """JSON: the providers that a merchant's payments may go to, `*` for every other one; not named at all: to any."""
    merchant_when_unavailable: WhenUnavailable = {}
    """JSON: `park` or `fail` for each merchant whose checkout does not say, `*` for every other one; else `park`."""

    webhook_allow_http: bool = False
    """Whether checkout's webhook endpoints may be http://…, where anybody on the way can read."""
    webhook_allow_private: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Networks that are not public and may be delivered to all the same: `10.1.0.0/16,fd00::/8`, or `all`."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(_brokers)] | None = None
    """Payment events go to this Kafka; absent: to none, and they are kept."""
    kafka_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "pointsman.payments"
    kafka_ca_file: FilePath | None = None
    """Who signed the brokers' certificates (PEM); absent: who the machine trusts."""
    kafka_certificate_file: FilePath | None = None
    """Ours, where the brokers ask for one, with its key."""
    kafka_key_file: FilePath | None = None
    kafka_key_password: SecretStr | None = None
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    kafka_alert_after_seconds: Seconds = 300.0
    """Nothing was delivered for so long, though an event has waited for as long."""

    console_session_hours: Annotated[float, Field(gt=0, le=168)] = 12.0
    """After so long a person logs in to the console again."""
    console_https: bool = False
    """The console is reached by https, which something before the router ends: its cookie goes no other way."""
    console_sandbox: bool = False
    """Whether the console has a store and buttons that break things: `pointsman run` says so of its stand-ins.
    Without effect where a provider is not on this machine."""

    sandbox_stripe_port: Annotated[int, Field(ge=0, le=65535)] = 8091
    sandbox_adyen_port: Annotated[int, Field(ge=0, le=65535)] = 8092
    sandbox_control_port: Annotated[int, Field(ge=0, le=65535)] = 8090
    sandbox_stripe_webhook_url: HttpUrl | None = None
    """Where the stand-in Stripe sends its webhooks; `pointsman run` says its own router."""
    sandbox_adyen_webhook_url: HttpUrl | None = None

    sentry_dsn: Annotated[SecretStr, AfterValidator(_dsn)] | None = None
    otlp_endpoint: Annotated[str, AfterValidator(_http_url)] | None = None
    """Traces go there by OTLP over HTTP, `http://collector:4318`; absent: no payment is traced."""
    otlp_headers: SecretStr | None = None
    """What the collector wants to know us by: `name=value`, or several separated by commas."""
    otlp_sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of payments that are traced, where checkout's own trace does not say."""
    log_format: Annotated[str, Field(pattern="^(json|text)$")] = "json"

    @field_validator("alert_webhook_url")
    @classmethod
    def _alerts_are_signed(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if url is None:
            return None
        found = urlsplit(url.get_secret_value())
        if found.scheme not in ("http", "https") or not found.hostname:
            msg = "must be an http:// or https:// address"
            raise ValueError(msg)
        if info.data.get("alert_webhook_secret") is None:
            msg = f"needs {PREFIX}ALERT_WEBHOOK_SECRET beside it: alerts are signed"
            raise ValueError(msg)
        return url

    @field_validator("encryption_keys_file")
    @classmethod
    def _one_place_for_keys(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("encryption_keys") is not None:
            msg = f"not beside {PREFIX}ENCRYPTION_KEYS: one of the two"
            raise ValueError(msg)
        return path

    @field_validator("kafka_security_protocol")
    @classmethod
    def _protocol_fits(cls, protocol: str, info: ValidationInfo) -> str:
        has_name = all(info.data.get(f"kafka_sasl_{name}") for name in ("mechanism", "username", "password"))
        if protocol.startswith("sasl") and not has_name:
            msg = f"needs {PREFIX}KAFKA_SASL_MECHANISM, …_USERNAME and …_PASSWORD beside it"
            raise ValueError(msg)
        if not protocol.startswith("sasl") and info.data.get("kafka_sasl_password") is not None:
            msg = f"must be sasl_ssl or sasl_plaintext, where {PREFIX}KAFKA_SASL_PASSWORD is set"
            raise ValueError(msg)
        if not protocol.endswith("ssl") and info.data.get("kafka_certificate_file") is not None:
            msg = f"must be ssl or sasl_ssl, where {PREFIX}KAFKA_CERTIFICATE_FILE is set"
            raise ValueError(msg)
        return protocol

    @field_validator("quota_cap_per_minute")
    @classmethod
    def _cap_is_above_the_floor(cls, cap: int, info: ValidationInfo) -> int:
        if cap < info.data.get("quota_floor_per_minute", 0):
            msg = f"must not be less than {PREFIX}QUOTA_FLOOR_PER_MINUTE"
            raise ValueError(msg)
        return cap

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.run_dir.resolve() / 'ledger.db'}"

    def country_of(self, merchant: str) -> str | None:
        """The country that the merchant sells from, where it is known."""
        return self.merchant_countries.get(merchant, self.merchant_countries.get(EVERY_OTHER))

    def providers_of(self, merchant: str) -> tuple[str, ...]:
        """The providers that the merchant's payments may go to."""
        return self.merchant_providers.get(merchant, self.merchant_providers.get(EVERY_OTHER, PROVIDER_NAMES))

    def when_unavailable_of(self, merchant: str) -> Literal["park", "fail"]:
        """What becomes of the merchant's payments that nobody can take now, where checkout does not say."""
        return self.merchant_when_unavailable.get(merchant, self.merchant_when_unavailable.get(EVERY_OTHER, "park"))

    @property
    def calls_at_once(self) -> int:
        """Payments at one provider at a time: a provider that hangs must leave threads for the others."""
        return self.provider_calls_at_once or max(1, self.web_threads * 3 // 4)

    @property
    def slow_start_seconds(self) -> float:
        """How long slow start takes at least, all its stages together."""
        return self.breaker_slow_start_seconds or 3 * self.breaker_open_wait_seconds

    @property
    def has_stand_ins(self) -> bool:
        """Whether the console may break the providers, and pay at them with test cards: they are ours to break."""
        urls = (self.stripe_base_url, self.adyen_base_url)
        return self.console_sandbox and all(urlsplit(url).hostname in LOOPBACK for url in urls)

    @property
    def flags_path(self) -> Path:
        """The flags file that is used when there is no LaunchDarkly key."""
        return self.flags_file or self.run_dir / "flags.json"


def load_settings() -> Settings:
    """The settings of this process. Raises SettingsError with one line that names what is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        detail = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"setting {name}: {detail}") from None
