"""The stand-in providers' webhooks reach the router that runs with them, and it believes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from providers.sandbox.server import SANDBOX_STRIPE_WEBHOOK_SECRET
from router.launch import webhook_environment
from router.settings import Settings
from tests.e2e.house import House, eventually


@pytest.mark.processes
def test_the_demo_traffic_makes_webhooks_that_are_acknowledged(tmp_path: Path) -> None:
    """Both providers tell of every payment, each notice is answered 2xx, and the books of captures close by them."""
    house = House(tmp_path, ROUTER_DEMO_TRAFFIC_PER_SECOND="20")
    try:
        eventually(lambda: house.webhooks("stripe")["acknowledged"] >= 5, 10)
        house.set_flag("payments-primary-provider", "adyen")
        eventually(lambda: house.webhooks("adyen")["acknowledged"] >= 5, 10)
        assert house.webhooks("stripe")["failed"] == house.webhooks("adyen")["failed"] == 0
    finally:
        house.stop()


@pytest.mark.processes
def test_secrets_that_are_set_are_used_by_both_sides(tmp_path: Path) -> None:
    """The sandbox signs with the first of two, as a provider does while one replaces the other."""
    settings = {
        "ROUTER_STRIPE_WEBHOOK_SECRET": "whsec_new, whsec_old",
        "ROUTER_ADYEN_HMAC_KEY": f"{'ab' * 32},{'cd' * 32}",
    }
    house = House(tmp_path, **settings)
    try:
        house.pay()
        house.control("PUT", "/stripe", {"mode": "down"})
        house.pay()
        house.control("PUT", "/stripe", {"mode": "ok"})
        for provider in ("stripe", "adyen"):
            eventually(partial(told, house, provider), 10)
            assert house.webhooks(provider)["failed"] == 0
    finally:
        house.stop()


def told(house: House, provider: str) -> bool:
    """Whether the router has acknowledged a notice of this provider."""
    return bool(house.webhooks(provider)["acknowledged"] > 0)


def test_the_sandbox_signs_with_a_secret_that_everybody_knows_only_where_none_is_set() -> None:
    """Addresses follow the router's own; what a person has set stays."""
    usual = webhook_environment(Settings(bind="127.0.0.1:8123"))
    assert usual["ROUTER_STRIPE_WEBHOOK_SECRET"] == SANDBOX_STRIPE_WEBHOOK_SECRET
    assert usual["ROUTER_SANDBOX_ADYEN_WEBHOOK_URL"] == "http://127.0.0.1:8123/webhooks/adyen"

    own = webhook_environment(Settings.model_validate({"stripe_webhook_secret": "whsec_own"}))
    assert own["ROUTER_STRIPE_WEBHOOK_SECRET"] == "whsec_own"
