"""Settings of the limits: generous by default, and a wrong one stops the start with one line that tells no value."""

from __future__ import annotations

import pytest

from router.settings import Settings, SettingsError, load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_PER_KEY", "0"),
        ("RATE_PER_KEY", "-1"),
        ("RATE_BURST_SECONDS", "0.5"),
        ("QUOTA_FLOOR_PER_MINUTE", "0"),
        ("QUOTA_CAP_PER_MINUTE", "59999"),
        ("QUOTA_GROWTH", "1"),
        ("LIMITS_STORE", "memcached://host"),
        ("LIMITS_STORE", "redis://"),
    ],
)
def test_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ROUTER_{name}", value)
    with pytest.raises(SettingsError, match=f"^setting ROUTER_{name}: ") as refused:
        load_settings()
    assert "\n" not in str(refused.value)
    assert "memcached" not in str(refused.value)


def test_the_defaults_are_beyond_what_two_cores_do() -> None:
    settings = Settings()
    assert settings.rate_per_key >= 4000
    assert settings.quota_floor_per_minute >= 60 * 1000
    assert settings.limits_store is None
