"""A provider whose account cannot take payments is left out before a payment fails of it."""

from __future__ import annotations

import pytest

from providers.contract import Timeouts
from router.account_watch import AccountWatch
from router.ledger.accounts import AccountLedger
from router.ledger.alerts import AlertLedger
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database


def learn(shop: Shop) -> None:
    """A worker's look, and what this process then knows."""
    core = shop.core
    AccountWatch(
        core.providers,
        AccountLedger(core.database),
        every_s=0.001,
        timeouts=Timeouts(1, 2),
        clock=core.clock,
        ids=core.ids,
    ).run_once()
    core.accounts.refresh()


def stands(shop: Shop, provider: str, **account: object) -> None:
    shop.control("PUT", f"/control/{provider}/account", json=account)
    learn(shop)


@pytest.fixture(autouse=True)
def well_afterwards(shop: Shop) -> None:
    learn(shop)


def test_payments_go_elsewhere_before_one_fails(shop: Shop) -> None:
    """The provider is well, and is not called; when its account is well again it leads again."""
    stands(shop, "stripe", state="unable")
    paid = shop.pay().json or {}
    assert (paid["provider"], len(paid["attempts"])) == ("adyen", 1)
    (stripe,) = [each for each in paid["decision"]["candidates"] if each["provider"] == "stripe"]
    assert not stripe["eligible"]
    assert "account takes no payments (requirements.past_due, company.verification.document)" in stripe["reasons"]
    shown = {each["name"]: each for each in (shop.send("GET", "/v1/providers").json or {})["providers"]}
    assert shown["stripe"]["account"]["state"] == "unable"
    assert [each.kind for each in AlertLedger(shop.core.database).all()] == ["account_unable"]
    assert (shop.send("GET", "/v1/status").json or {})["status"] == "degraded"
    stands(shop, "stripe", state="able")
    assert (shop.pay().json or {})["provider"] == "stripe"


def test_before_its_deadline_a_provider_is_the_last_resort(shop: Shop) -> None:
    """Within the margin of an hour; where no other can, it still takes the payment."""
    stands(shop, "stripe", state="at_risk", due_in_seconds=7200)
    assert (shop.pay().json or {})["provider"] == "stripe"
    stands(shop, "stripe", state="at_risk", due_in_seconds=3000)
    assert (shop.pay().json or {})["provider"] == "adyen"
    shop.fault("adyen", "down")
    assert (shop.pay().json or {})["provider"] == "stripe"


def test_a_payment_that_only_such_a_provider_could_take_waits(shop: Shop) -> None:
    """Accepted, parked, and paid when the account is well again."""
    stands(shop, "stripe", state="unable")
    tokens = {"type": "card", "tokens": {"stripe": "pm_card_visa"}}
    answer = shop.pay(payment_method=tokens)
    assert (answer.status_code, (answer.json or {})["status"]) == (202, "parked")
    stands(shop, "stripe", state="able")
    retried = shop.core.payments.retry_parked((answer.json or {})["id"])
    assert retried is not None
    assert retried.payment.status == "captured"
