"""What each vendor is sent for the same ISO amount, seen in that vendor's own books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.ledgers import ledger_on
from tests.integration.shop import Shop, open_shop, paying_with

pytestmark = pytest.mark.either_database


@pytest.fixture(scope="module", params=["stripe", "adyen"])
def _led(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    folder = tmp_path_factory.mktemp("money")
    flags = {"payments-primary-provider": request.param}
    with ledger_on("sqlite", request, folder) as url, open_shop(url, sandbox_process, folder, flags=flags) as shop:
        yield shop, request.param


@pytest.fixture
def led(_led: tuple[Shop, str], sandbox: Sandbox) -> tuple[Shop, str]:
    """A router and its primary, with empty books."""
    return _led


@pytest.mark.parametrize(
    ("currency", "amount", "at"),
    [
        ("JPY", 500, {"stripe": 500, "adyen": 500}),
        ("KWD", 1230, {"stripe": 1230, "adyen": 1230}),
        ("ISK", 300, {"stripe": 30000, "adyen": 30000}),
        ("CLP", 1000, {"stripe": 1000, "adyen": 100000}),
        ("EUR", 1999, {"stripe": 1999, "adyen": 1999}),
    ],
)
def test_an_amount_reaches_the_books_in_the_vendors_own_units(
    led: tuple[Shop, str], currency: str, amount: int, at: dict[str, int]
) -> None:
    """ISO minor units at our side, the vendor's at its own: the value is the same money."""
    shop, primary = led
    answer = shop.pay(currency=currency, amount=amount)
    assert answer.status_code == 201, answer.text
    body = answer.json or {}
    assert (body["provider"], body["amount"], body["amount_captured"]) == (primary, amount, amount)
    assert shop.charged(body["reference"]) == [(primary, "captured", at[primary])]
    assert [each["currency"] for each in shop.charges(primary)] == [currency]


def test_an_amount_that_one_vendor_cannot_express_goes_to_the_other(led: tuple[Shop, str]) -> None:
    """KWD 1.234 has a third decimal that Stripe does not take: not rounded, but ineligible there, with the reason."""
    shop, _ = led
    body = shop.pay(currency="KWD", amount=1234).json or {}
    assert shop.charged(body["reference"]) == [("adyen", "captured", 1234)]
    stripe = next(each for each in body["decision"]["candidates"] if each["provider"] == "stripe")
    assert stripe["eligible"] is False
    assert any("KWD" in reason for reason in stripe["reasons"])
    assert [each["provider"] for each in body["attempts"]] == ["adyen"]


@pytest.mark.parametrize(
    "changed",
    [
        {"currency": "KWD", "amount": 1234, "payment_method": paying_with(stripe="pm_card_visa")},
        {"payment_method": paying_with(braintree="a-token-for-a-provider-we-do-not-have")},
        {"payment_method": paying_with(stripe="not-a-payment-method", adyen="not a stored id either")},
        {"payment_method": paying_with(stripe={"something": "else"}, adyen={"else": "something"})},
        {"payment_method": paying_with(adyen="8415718415172204"), "customer": {}},
    ],
    ids=["amount", "unknown-provider", "misshapen-tokens", "misshapen-objects", "no-shopper"],
)
def test_a_payment_that_nobody_could_take_is_refused_with_reasons(
    led: tuple[Shop, str], changed: dict[str, Any]
) -> None:
    """422 no-eligible-provider with a reason for every provider; nothing is created, and no token is repeated."""
    shop, _ = led
    before = shop.counts()
    answer = shop.pay(**changed)
    assert answer.status_code == 422
    body = answer.json or {}
    assert body["type"].endswith(":no-eligible-provider")
    assert body["reasons"].keys() == {"stripe", "adyen"}
    assert all(body["reasons"].values())
    tokens = [
        token for token in changed.get("payment_method", {}).get("tokens", {}).values() if isinstance(token, str)
    ]
    assert not [token for token in tokens if token in answer.text]
    assert shop.counts() == before
    assert shop.charges("stripe") == shop.charges("adyen") == []
