"""One order is paid once: the reference, and whose key may do what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.integration.shop import Shop, order, paying_with

pytestmark = pytest.mark.either_database


@pytest.mark.parametrize("mode", ["ok", "lose_reply", "down"], ids=["captured", "processing", "parked"])
def test_a_reference_of_an_open_or_paid_payment_is_taken(shop: Shop, mode: str) -> None:
    """409 reference-in-use naming the payment; with allow_repeat_reference a second payment is made."""
    for provider in ("stripe", "adyen"):
        shop.fault(provider, mode)
    first = shop.pay(reference="ORD-1").json or {}
    before = shop.counts()
    refused = shop.pay(reference="ORD-1")
    assert (refused.status_code, refused.content_type) == (409, "application/problem+json")
    problem = refused.json or {}
    assert problem["type"].endswith(":reference-in-use")
    assert problem["payment_id"] == first["id"]
    assert shop.counts() == before
    repeated = shop.pay(reference="ORD-1", allow_repeat_reference=True)
    assert repeated.status_code in {201, 202}
    assert (repeated.json or {})["id"] != first["id"]
    # The repeat does not free the reference for those who do not ask for it.
    assert shop.pay(reference="ORD-1").status_code == 409


def test_a_refused_reference_consumes_no_key(shop: Shop) -> None:
    """The same key works once the reference is free, or for another one."""
    shop.pay(reference="ORD-1")
    assert shop.pay(reference="ORD-1", key="k").status_code == 409
    assert shop.pay(reference="ORD-2", key="k").status_code == 201


def test_a_reference_is_free_again_after_a_decline(shop: Shop) -> None:
    """The customer tries another card for the same order."""
    declined = paying_with(stripe="pm_card_visa_chargeDeclinedStolenCard")
    assert (shop.pay(reference="ORD-1", payment_method=declined).json or {})["status"] == "declined"
    assert (shop.pay(reference="ORD-1").json or {})["status"] == "captured"
    assert shop.charged("ORD-1") == [("stripe", "captured", 1999)]
    assert shop.pay(reference="ORD-1").status_code == 409


def test_a_double_click_under_two_keys_pays_once(shop: Shop) -> None:
    """Two requests for one reference at the same instant: exactly one payment and one charge, ten times over."""
    barrier = Barrier(2)

    def click(body: dict[str, object], key: str) -> int:
        barrier.wait(5)
        return shop.pay(body, key=key).status_code

    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            body = order(reference=f"click-{number}")
            codes = pool.map(click, [body, body], [f"a{number}", f"b{number}"])
            assert sorted(codes) == [201, 409]
            assert len(shop.charged(f"click-{number}")) == 1


def test_a_key_without_the_scope_may_not_pay(shop: Shop) -> None:
    """403 forbidden, for paying and reading; nothing is created."""
    reporter = shop.add_key("reports-only", merchant="default", scopes=("reports",))
    before = shop.counts()
    for answer in (
        shop.pay(api_key=reporter),
        shop.send("GET", "/v1/payments/pay_1", api_key=reporter),
        shop.send("GET", "/v1/payments?reference=a", api_key=reporter),
    ):
        assert (answer.status_code, answer.content_type) == (403, "application/problem+json")
        assert (answer.json or {})["type"].endswith(":forbidden")
        assert reporter not in answer.text
    assert shop.counts() == before
    assert shop.send("GET", "/v1/providers", api_key=reporter).status_code == 200
    payer = shop.add_key("payments-only", merchant="default")
    assert shop.send("GET", "/v1/providers", api_key=payer).status_code == 403
    assert shop.send("GET", "/v1/flips", api_key=payer).status_code == 403
