"""What stands for each merchant: a country, which fees depend on, and the providers its payments may go to."""

from __future__ import annotations

import os

import pytest

from router.settings import PREFIX, PROVIDER_NAMES, SettingsError, load_settings

SECRET = "planted-words-7q"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_without_settings_no_country_is_known_and_any_provider_may_be_used() -> None:
    """Nothing is made up of a merchant."""
    settings = load_settings()
    assert settings.country_of("shop") is None
    assert settings.providers_of("shop") == PROVIDER_NAMES
    assert settings.when_unavailable_of("shop") == "park"


def test_a_merchant_has_what_is_said_of_it_and_else_what_is_said_of_every_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`*` is every merchant that is not named; without it those have no country, and any provider."""
    monkeypatch.setenv("ROUTER_MERCHANT_COUNTRIES", '{"shop": "DE", "*": "FR"}')
    monkeypatch.setenv("ROUTER_MERCHANT_PROVIDERS", '{"shop": ["adyen"], "*": ["stripe", "adyen"]}')
    monkeypatch.setenv("ROUTER_MERCHANT_WHEN_UNAVAILABLE", '{"shop": "fail", "*": "park"}')
    settings = load_settings()
    assert [settings.when_unavailable_of(name) for name in ("shop", "other")] == ["fail", "park"]
    assert [settings.country_of(name) for name in ("shop", "other")] == ["DE", "FR"]
    assert [settings.providers_of(name) for name in ("shop", "other")] == [("adyen",), ("stripe", "adyen")]
    monkeypatch.setenv("ROUTER_MERCHANT_COUNTRIES", '{"shop": "DE"}')
    monkeypatch.setenv("ROUTER_MERCHANT_PROVIDERS", '{"shop": ["stripe"]}')
    settings = load_settings()
    assert (settings.country_of("other"), settings.providers_of("other")) == (None, PROVIDER_NAMES)
    monkeypatch.setenv("ROUTER_MERCHANT_WHEN_UNAVAILABLE", '{"*": "fail"}')
    assert load_settings().when_unavailable_of("other") == "fail"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MERCHANT_COUNTRIES", SECRET, "must be a JSON object by merchant"),
        ("MERCHANT_COUNTRIES", f'["{SECRET}"]', "must be a JSON object by merchant"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": "DE"', "must be a JSON object by merchant"),
        ("MERCHANT_COUNTRIES", "[" * 100_000, "must be a JSON object by merchant"),
        ("MERCHANT_COUNTRIES", '{" ": "DE"}', "must be a JSON object by merchant"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": "UK"}}', "each merchant needs a country of ISO 3166"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": "de"}}', "each merchant needs a country of ISO 3166"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": null}}', "each merchant needs a country of ISO 3166"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": ["DE"]}}', "each merchant needs a country of ISO 3166"),
        ("MERCHANT_COUNTRIES", f'{{"{SECRET}": "DE", "{SECRET}": "FR"}}', "names a merchant twice"),
        ("MERCHANT_WHEN_UNAVAILABLE", SECRET, "must be a JSON object by merchant"),
        ("MERCHANT_WHEN_UNAVAILABLE", f'{{"a": "{SECRET}"}}', "each merchant needs one of park, fail"),
        ("MERCHANT_WHEN_UNAVAILABLE", f'{{"{SECRET}": ["park"]}}', "each merchant needs one of park, fail"),
        ("MERCHANT_PROVIDERS", SECRET, "must be a JSON object by merchant"),
        ("MERCHANT_PROVIDERS", f'{{"a": ["{SECRET}"]}}', "names a provider that is not known"),
        ("MERCHANT_PROVIDERS", f'{{"{SECRET}": ["stripe", "stripe"]}}', "or one twice: known are stripe, adyen"),
        (
            "MERCHANT_PROVIDERS",
            f'{{"{SECRET}": []}}',
            "each merchant needs a list of provider names, and at least one",
        ),
        ("MERCHANT_PROVIDERS", f'{{"{SECRET}": "stripe"}}', "each merchant needs a list of provider names"),
        ("MERCHANT_PROVIDERS", f'{{"{SECRET}": [["stripe"]]}}', "each merchant needs a list of provider names"),
        ("MERCHANT_PROVIDERS", f'{{"{SECRET}": {{"stripe": 1}}}}', "each merchant needs a list of provider names"),
    ],
)
def test_a_wrong_one_stops_the_start_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    """The merchants are part of the value."""
    monkeypatch.setenv(f"ROUTER_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    message = str(refused.value)
    assert message.startswith(f"setting ROUTER_{name}: ")
    assert why in message
    assert "\n" not in message
    assert SECRET not in message
