"""Settings come from `ROUTER_*` variables; a wrong one is named in one line that does not show its value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.app.core import breaker_settings
from router.kafka_producer import producer_config
from router.settings import PREFIX, Settings, SettingsError, load_settings

SECRET = "planted-words-7q"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_without_any_variable_a_run_on_one_machine_is_set_up() -> None:
    """The design's defaults: SQLite and the flags file in the run folder, the sandbox's ports."""
    settings = load_settings()
    assert settings.bind == "127.0.0.1:8080"
    assert settings.ledger_url == f"sqlite:///{Path('.run').resolve() / 'ledger.db'}"
    assert settings.flags_path == Path(".run/flags.json")
    assert (settings.stripe_base_url, settings.adyen_base_url) == ("http://127.0.0.1:8091", "http://127.0.0.1:8092")
    assert (settings.connect_timeout_seconds, settings.read_timeout_seconds, settings.deadline_seconds) == (1, 10, 25)
    assert (settings.breaker_open_wait_seconds, settings.breaker_minimum_calls) == (10, 10)
    assert (settings.flip_after_seconds, settings.parked_retry_seconds) == (60, 15)
    assert settings.launchdarkly_sdk_key is None
    assert (settings.launchdarkly_api_token, settings.launchdarkly_project) == (None, None)
    assert settings.launchdarkly_environment == "production"
    assert settings.launchdarkly_api_uri == "https://app.launchdarkly.com"
    assert settings.demo_traffic_per_second == 2


def test_every_setting_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ROUTER_` and the name in capitals."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", "postgresql://db/ledger")
    monkeypatch.setenv("ROUTER_READ_TIMEOUT_SECONDS", "2.5")
    monkeypatch.setenv("ROUTER_RUN_DIR", "/var/run/pointsman")
    monkeypatch.setenv("ROUTER_STRIPE_BASE_URL", "https://api.stripe.com/")
    monkeypatch.setenv("ROUTER_UNKNOWN_TO_THIS_VERSION", "1")
    settings = load_settings()
    assert settings.ledger_url == "postgresql://db/ledger"
    assert settings.read_timeout_seconds == 2.5
    assert settings.flags_path == Path("/var/run/pointsman/flags.json")
    assert settings.stripe_base_url == "https://api.stripe.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIND", SECRET),
        ("LAUNCHDARKLY_PROJECT", f"a/{SECRET}"),
        ("LAUNCHDARKLY_API_URI", SECRET),
        ("BIND", "127.0.0.1:0"),
        ("BIND", "127.0.0.1:70000"),
        ("BIND", ":8080"),
        ("READ_TIMEOUT_SECONDS", SECRET),
        ("READ_TIMEOUT_SECONDS", "0"),
        ("READ_TIMEOUT_SECONDS", "-1"),
        ("READ_TIMEOUT_SECONDS", "nan"),
        ("READ_TIMEOUT_SECONDS", "inf"),
        ("DATABASE_URL", SECRET),
        ("DATABASE_URL", f"mysql://{SECRET}/x"),
        ("SENTRY_DSN", SECRET),
        ("DEADLINE_SECONDS", "1e9"),
        ("WEB_PROCESSES", "0"),
        ("WEB_THREADS", "2.5"),
        ("BREAKER_MINIMUM_CALLS", "0"),
        ("STRIPE_BASE_URL", SECRET),
        ("ADYEN_BASE_URL", f"ftp://{SECRET}"),
        ("LOG_FORMAT", SECRET),
        ("SANDBOX_STRIPE_PORT", "65536"),
        ("DEMO_TRAFFIC_PER_SECOND", "-1"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The start stops, and whoever reads the line knows which variable to mend."""
    monkeypatch.setenv(f"ROUTER_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    message = str(refused.value)
    assert f"ROUTER_{name}" in message
    assert "\n" not in message
    assert SECRET not in message
    assert refused.value.__cause__ is None


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a log nor in a traceback: keys are SecretStr."""
    names = ("API_KEY", "STRIPE_API_KEY", "ADYEN_API_KEY", "LAUNCHDARKLY_SDK_KEY")
    for name in names:
        monkeypatch.setenv(f"ROUTER_{name}", SECRET)
    monkeypatch.setenv("ROUTER_SENTRY_DSN", f"https://{SECRET}@sentry.example/1")
    settings = load_settings()
    assert SECRET not in repr(settings) + str(settings) + str(settings.model_dump())
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == SECRET


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files write it."""
    monkeypatch.setenv("ROUTER_CONNECT_TIMEOUT_SECONDS", "")
    monkeypatch.setenv("ROUTER_DATABASE_URL", "")
    assert load_settings() == Settings()


def test_settings_do_not_change() -> None:
    """Frozen: what a process started with is what it runs with."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().bind = "0.0.0.0:80"


def test_failures_may_be_counted_over_a_time_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both windows can be had by whoever runs the service."""
    monkeypatch.delenv("ROUTER_BREAKER_WINDOW_SECONDS", raising=False)
    assert breaker_settings(load_settings()).window_s is None
    monkeypatch.setenv("ROUTER_BREAKER_WINDOW_SECONDS", "60")
    assert breaker_settings(load_settings()).window_s == 60.0


def test_kafka_is_reached_as_the_settings_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TLS with our own certificate, and a password; what is not set is left to the client."""
    plain = Settings(kafka_bootstrap_servers="one:9092, two:9092")
    config = producer_config(plain)
    assert (config["bootstrap.servers"], config["security.protocol"]) == ("one:9092,two:9092", "plaintext")
    assert (config["enable.idempotence"], config["acks"], config["message.timeout.ms"]) == (True, "all", 0)
    assert not [name for name in config if name.startswith(("ssl.", "sasl."))]
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).touch()
        monkeypatch.setenv(f"ROUTER_KAFKA_{name.upper()}_FILE", str(tmp_path / name))
    for name, value in {
        "BOOTSTRAP_SERVERS": "[::1]:9093",
        "SECURITY_PROTOCOL": "sasl_ssl",
        "KEY_PASSWORD": "of the key",
        "SASL_MECHANISM": "SCRAM-SHA-512",
        "SASL_USERNAME": "router",
        "SASL_PASSWORD": SECRET,
    }.items():
        monkeypatch.setenv(f"ROUTER_KAFKA_{name}", value)
    settings = load_settings()
    assert SECRET not in repr(settings)
    found = {
        name: value for name, value in producer_config(settings).items() if name.startswith(("ssl", "sasl", "sec"))
    }
    assert found == {
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": str(tmp_path / "ca"),
        "ssl.certificate.location": str(tmp_path / "certificate"),
        "ssl.key.location": str(tmp_path / "key"),
        "ssl.key.password": "of the key",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "router",
        "sasl.password": SECRET,
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", {"BOOTSTRAP_SERVERS": "broker"}),
        ("KAFKA_BOOTSTRAP_SERVERS", {"BOOTSTRAP_SERVERS": "a:9092,,b:9092"}),
        ("KAFKA_BOOTSTRAP_SERVERS", {"BOOTSTRAP_SERVERS": "kafka://a:9092"}),
        ("KAFKA_TOPIC", {"TOPIC": "pay ments"}),
        ("KAFKA_SECURITY_PROTOCOL", {"SECURITY_PROTOCOL": "SSL"}),
        ("KAFKA_SECURITY_PROTOCOL", {"SECURITY_PROTOCOL": "sasl_ssl"}),
        (
            "KAFKA_SECURITY_PROTOCOL",
            {"SECURITY_PROTOCOL": "sasl_ssl", "SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "a"},
        ),
        ("KAFKA_SECURITY_PROTOCOL", {"SASL_PASSWORD": SECRET}),
        ("KAFKA_SECURITY_PROTOCOL", {"CERTIFICATE_FILE": __file__}),
        ("KAFKA_CA_FILE", {"CA_FILE": "/nowhere"}),
    ],
)
def test_a_wrong_setting_of_kafka_is_named(
    name: str, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that would go nowhere, or a protocol without one, is a mistake too."""
    for each, value in values.items():
        monkeypatch.setenv(f"ROUTER_KAFKA_{each}", value)
    with pytest.raises(SettingsError, match=f"^setting ROUTER_{name}: ") as caught:
        load_settings()
    assert SECRET not in str(caught.value)
