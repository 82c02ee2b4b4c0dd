"""The stand-in Adyen against Adyen's published OpenAPI file: its answers, and the requests of the real SDK."""

from __future__ import annotations

import copy
import functools
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import Adyen
import pytest
import urllib3
from jsonschema import Draft202012Validator

from providers.sandbox.server import Sandbox

FOLDER = Path(os.environ.get("ROUTER_VENDOR_CONTRACTS") or Path(__file__).parents[3] / "shared" / "contracts")
OPENAPI = FOLDER / "adyen-checkout-v72.openapi.json"
pytestmark = [
    pytest.mark.vendor_contract,
    pytest.mark.skipif(not OPENAPI.exists(), reason=f"the vendor's contract is absent: {OPENAPI}"),
]

ACCOUNT = {"merchantAccount": "ShopECOM"}
PAYMENT = {
    **ACCOUNT,
    "amount": {"value": 1999, "currency": "EUR"},
    "reference": "att_1",
    "merchantOrderReference": "ORD-1",
    "metadata": {"reference": "ORD-1"},
    "paymentMethod": {"type": "scheme", "storedPaymentMethodId": "8415718415172204"},
    "shopperReference": "shopper-1",
    "shopperInteraction": "ContAuth",
    "recurringProcessingModel": "CardOnFile",
    "returnUrl": "https://shop.example/return",
}


@functools.cache
def contract() -> Any:
    """The OpenAPI document, made strict: an object that names its properties has no others."""
    document = json.loads(OPENAPI.read_text())

    def tighten(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict):
                node.setdefault("additionalProperties", False)
            if "oneOf" in node:
                # The file's alternatives overlap (many payment methods share a shape): one that fits is enough.
                node["anyOf"] = node.pop("oneOf")
            for below in node.values():
                tighten(below)
        elif isinstance(node, list):
            for below in node:
                tighten(below)

    tighten(document["components"]["schemas"])
    return document


def operation(template: str) -> Any:
    """The POST operation of a path of the file."""
    return contract()["paths"][template]["post"]


def faults(schema: Any, instance: Any) -> list[str]:
    """What is wrong with it, each with its place."""
    validator = Draft202012Validator({**schema, "components": contract()["components"]})
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(instance)
    ]


def additional_data_names() -> set[str]:
    """Every name that the file knows in an answer's additionalData."""
    schemas = contract()["components"]["schemas"]
    return {
        name
        for title, schema in schemas.items()
        if title.startswith("ResponseAdditionalData")
        for name in schema.get("properties", {})
    }


def check_answer(template: str, answer: urllib3.BaseHTTPResponse) -> Any:
    """The answer's body, after it was found to be what the file says of that status; unknown fields fail."""
    responses = operation(template)["responses"]
    assert str(answer.status) in responses, f"{template} does not answer {answer.status}"
    body = answer.json()
    assert faults(responses[str(answer.status)]["content"]["application/json"]["schema"], body) == []
    assert set(body.get("additionalData", {})) <= additional_data_names()
    return body


class Api:
    """Posts to the sandbox, and checks both directions against the file."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pool = urllib3.PoolManager(retries=False)

    def post(self, template: str, body: Any, psp: str = "", **headers: str) -> Any:
        """The checked answer."""
        url = f"{self.sandbox.adyen_url}/v72{template.replace('{paymentPspReference}', psp)}"
        given = {"x-API-key": "test_key", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return check_answer(template, self.pool.request("POST", url, json=body, headers=given))

    def control(self, body: Any) -> None:
        """Break the provider."""
        url = f"{self.sandbox.control_url}/control/adyen"
        assert self.pool.request("PUT", url, json=body).status == 200


@pytest.fixture
def api(sandbox: Sandbox) -> Api:
    """The stand-in Adyen under check."""
    return Api(sandbox)


def test_the_check_finds_what_it_must(api: Api) -> None:
    """A bad resultCode, a number for a refusalReasonCode, and an unknown field are faults."""
    schema = operation("/payments")["responses"]["200"]["content"]["application/json"]["schema"]
    good = api.post("/payments", PAYMENT)
    assert faults(schema, good) == []
    for bad in ({"resultCode": "Approved"}, {"refusalReasonCode": 2}, {"colour": "red"}, {"amount": {"value": 1}}):
        assert faults(schema, {**copy.deepcopy(good), **bad})


@pytest.mark.parametrize(
    "code", ["1", "2", "3", "4", "5", "6", "9", "11", "12", "13", "14", "15", "20", "27", "38", "46", "999"]
)
def test_every_result_of_a_payment_is_in_the_contract(api: Api, code: str) -> None:
    """Approvals, refusals of all kinds, errors and pending ones."""
    body = api.post("/payments", {**PAYMENT, "additionalData": {"RequestedTestAcquirerResponseCode": code}})
    assert (body["resultCode"] == "Authorised") == (code == "1")


def test_a_redirect_and_its_end_are_in_the_contract(api: Api) -> None:
    """The action, then the answer of `/payments/details` for who passed and who did not."""
    for result in ("success", "fail"):
        started = api.post("/payments", {**PAYMENT, "authenticationData": {"attemptAuthentication": "always"}})
        assert started["resultCode"] == "RedirectShopper"
        page = api.pool.request("GET", f"{started['action']['url']}?result={result}", redirect=False)
        back = parse_qs(urlsplit(page.headers["Location"]).query)
        api.post("/payments/details", {"details": {"redirectResult": back["redirectResult"][0]}})


def test_every_modification_is_in_the_contract(api: Api) -> None:
    """With a reference of its own, and without."""
    for more in ({}, {"reference": "mod_1"}):
        psp = api.post("/payments", {**PAYMENT, "additionalData": {"manualCapture": "true"}})["pspReference"]
        money = {**ACCOUNT, **more, "amount": {"value": 500, "currency": "EUR"}}
        api.post("/payments/{paymentPspReference}/captures", money, psp)
        api.post("/payments/{paymentPspReference}/refunds", money, psp)
        api.post("/payments/{paymentPspReference}/cancels", {**ACCOUNT, **more}, psp)
        api.post("/payments/{paymentPspReference}/reversals", {**ACCOUNT, **more}, psp)
        api.post("/cancels", {**ACCOUNT, **more, "paymentReference": "att_1"})
    api.post("/paymentMethods", ACCOUNT)


@pytest.mark.parametrize("template", ["/payments", "/payments/details", "/cancels", "/paymentMethods"])
def test_every_refusal_is_in_the_contract(api: Api, template: str) -> None:
    """No key, no such account, an empty body, an unknown field, a key that is too long."""
    api.post(template, {}, x_API_key="invalid")
    api.post(template, {})
    api.post(template, {**PAYMENT, "colour": "red"})
    api.post(template, {}, Idempotency_Key="k" * 65)
    if template != "/payments/details":
        api.post(template, {"merchantAccount": "unknown"})


def test_refusals_of_modifications_are_in_the_contract(api: Api) -> None:
    """Of a payment that does not exist."""
    money = {**ACCOUNT, "amount": {"value": 500, "currency": "EUR"}}
    for kind, body in (("captures", money), ("refunds", money), ("cancels", ACCOUNT), ("reversals", ACCOUNT)):
        assert api.post(f"/payments/{{paymentPspReference}}/{kind}", body, "NONE")["errorCode"] == "167"


def test_faults_keep_the_shape_of_an_error(api: Api) -> None:
    """503 and 429 are in no contract; their bodies are the same ServiceError."""
    schema = {"$ref": "#/components/schemas/ServiceError"}
    for mode, status in (("errors", 503), ("rate_limited", 429)):
        api.control({"mode": mode})
        answer = api.pool.request("POST", f"{api.sandbox.adyen_url}/payments", json=PAYMENT)
        assert answer.status == status
        assert faults(schema, answer.json()) == []


def test_the_real_sdk_sends_what_the_contract_says(sandbox: Sandbox) -> None:
    """Each request that the SDK makes is valid by the file, and is taken by the sandbox."""
    client = Adyen.Adyen(xapikey="test_key", platform="test")
    payments, modifications = client.checkout.payments_api, client.checkout.modifications_api
    payments.baseUrl = modifications.baseUrl = f"{sandbox.adyen_url}/v72"

    def sent(template: str, result: Any) -> Any:
        request = operation(template)["requestBody"]["content"]["application/json"]["schema"]
        assert faults(request, result.raw_request) == []
        answer = operation(template)["responses"][str(result.status_code)]["content"]["application/json"]["schema"]
        assert faults(answer, result.message) == []
        return result.message

    manual = {**PAYMENT, "additionalData": {"manualCapture": "true"}}
    psp = sent("/payments", payments.payments(manual, idempotency_key="k1"))["pspReference"]
    assert payments.payments(manual, idempotency_key="k1").psp == psp
    money = {**ACCOUNT, "amount": {"value": 1999, "currency": "EUR"}}
    one = "/payments/{paymentPspReference}"
    sent(f"{one}/captures", modifications.capture_authorised_payment(money, psp, idempotency_key="k2"))
    sent(f"{one}/refunds", modifications.refund_captured_payment(money, psp))
    sent(f"{one}/cancels", modifications.cancel_authorised_payment_by_psp_reference(ACCOUNT, psp))
    sent(f"{one}/reversals", modifications.refund_or_cancel_payment(ACCOUNT, psp))
    sent("/cancels", modifications.cancel_authorised_payment({**ACCOUNT, "paymentReference": "att_1"}))
    sent("/paymentMethods", payments.payment_methods(ACCOUNT))
