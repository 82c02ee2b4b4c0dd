"""A small client of the sandbox for the tests beside it, over real sockets and without any vendor's SDK."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

from providers.sandbox.server import Sandbox

PROVIDERS = ("stripe", "adyen")
STORED_ID = "8415718415172204"


class Shop:
    """What a merchant can do to both stand-in providers, and what only a test may: break them, read their books."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pool = urllib3.PoolManager(retries=False, maxsize=4)

    # -- payments

    def charge(self, provider: str, attempt: str = "att_1", **more: Any) -> urllib3.BaseHTTPResponse:
        """One authorization of 19.99 EUR; `key` is its idempotency key."""
        return self.pay_stripe(attempt, **more) if provider == "stripe" else self.pay_adyen(attempt, **more)

    def pay_stripe(
        self,
        attempt: str = "att_1",
        *,
        key: str | None = None,
        timeout: float = 5,
        without: tuple[str, ...] = (),
        **fields: str,
    ) -> urllib3.BaseHTTPResponse:
        """`POST /v1/payment_intents`, confirmed; `fields` override, `__` stands for brackets."""
        form = {
            "amount": "1999",
            "currency": "eur",
            "confirm": "true",
            "payment_method": "pm_card_visa",
            "automatic_payment_methods[enabled]": "true",
            "automatic_payment_methods[allow_redirects]": "never",
            "metadata[reference]": "ORD-1",
            "metadata[attempt]": attempt,
        }
        for name, value in fields.items():
            first, _, inner = name.partition("__")
            form[f"{first}[{inner}]" if inner else first] = value
        form = {name: value for name, value in form.items() if name not in without}
        return self.stripe("POST", "/v1/payment_intents", form, key=key, timeout=timeout)

    def stripe(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        *,
        key: str | None = None,
        timeout: float = 5,
        authorization: str | None = "Bearer sk_test_1",
    ) -> urllib3.BaseHTTPResponse:
        """One call of the Stripe API."""
        headers = {}
        if authorization is not None:
            headers["Authorization"] = authorization
        if key is not None:
            headers["Idempotency-Key"] = key
        url = self.sandbox.stripe_url + path
        if method == "GET":
            return self.pool.request(method, url, fields=form, headers=headers, timeout=timeout, redirect=False)
        return self.pool.request(
            method, url, fields=form or {}, encode_multipart=False, headers=headers, timeout=timeout
        )

    def pay_adyen(
        self, attempt: str = "att_1", *, key: str | None = None, timeout: float = 5, **fields: Any
    ) -> urllib3.BaseHTTPResponse:
        """`POST /payments`; `fields` override, None leaves one out."""
        body = {
            "amount": {"value": 1999, "currency": "EUR"},
            "merchantAccount": "ShopECOM",
            "reference": attempt,
            "merchantOrderReference": "ORD-1",
            "paymentMethod": {"type": "scheme", "storedPaymentMethodId": STORED_ID},
            "shopperReference": "shopper-1",
            "shopperInteraction": "ContAuth",
            "returnUrl": "https://shop.example/return",
            **fields,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return self.adyen("/payments", body, key=key, timeout=timeout)

    def adyen(
        self,
        path: str,
        body: Any,
        *,
        key: str | None = None,
        timeout: float = 5,
        api_key: str | None = "test_key",
        prefix: str = "/v72",
    ) -> urllib3.BaseHTTPResponse:
        """One call of Adyen Checkout."""
        headers = {"Content-Type": "application/json"}
        if api_key is not None:
            headers["x-API-key"] = api_key
        if key is not None:
            headers["Idempotency-Key"] = key
        url = self.sandbox.adyen_url + prefix + path
        if isinstance(body, bytes):
            return self.pool.request("POST", url, body=body, headers=headers, timeout=timeout)
        return self.pool.request("POST", url, json=body, headers=headers, timeout=timeout)

    def probe(self, provider: str) -> urllib3.BaseHTTPResponse:
        """The call that moves no money."""
        if provider == "stripe":
            return self.stripe("GET", "/v1/balance")
        return self.adyen("/paymentMethods", {"merchantAccount": "ShopECOM"})

    # -- control

    def control(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        """One control call."""
        return self.pool.request(method, self.sandbox.control_url + path, json=body)

    def mode(self, provider: str, mode: str, **fields: Any) -> None:
        """Break a provider."""
        answer = self.control("PUT", f"/control/{provider}", {"mode": mode, **fields})
        assert answer.status == 200, answer.data

    def state(self, provider: str) -> dict[str, Any]:
        """Mode and counters."""
        state: dict[str, Any] = self.control("GET", f"/control/{provider}").json()
        return state

    def books(self, provider: str, filters: str = "") -> list[dict[str, Any]]:
        """The provider's own books."""
        charges: list[dict[str, Any]] = self.control("GET", f"/control/{provider}/charges{filters}").json()["charges"]
        return charges

    def statuses(self, provider: str) -> list[str]:
        """The statuses in the books, oldest first."""
        return [row["status"] for row in self.books(provider)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_plain_charge_is_approved_and_in_the_books(sandbox: Sandbox, provider: str) -> None:
    """The usual payment: captured at once, one row, all of its fields."""
    shop = Shop(sandbox)
    answer = shop.charge(provider, key="att_1").json()
    [row] = shop.books(provider)
    assert row["id"] == answer.get("id", answer.get("pspReference"))
    del row["id"]
    assert row.pop("created_at").endswith("Z")
    assert row == {
        "reference": "ORD-1",
        "attempt": "att_1",
        "amount": 1999,
        "currency": "EUR",
        "status": "captured",
        "idempotency_key": "att_1",
        "amount_captured": 1999,
        "amount_refunded": 0,
    }
