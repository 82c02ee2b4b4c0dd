"""The pages beside the payments: the OpenAPI document, its browser, health, circuits and flips."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from router.api.operator_views import FlipList, ProviderList
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, order

pytestmark = pytest.mark.either_database

PROMISED = {
    ("post", "/v1/payments"): {"201", "202", "400", "401", "403", "409", "413", "422", "503"},
    ("get", "/v1/payments"): {"200", "401", "403", "422", "503"},
    ("get", "/v1/payments/{payment_id}"): {"200", "401", "403", "404", "503"},
    ("get", "/v1/providers"): {"200", "401", "403"},
    ("get", "/v1/providers/{name}/transitions"): {"200", "401", "403", "404", "422", "503"},
    ("post", "/v1/providers/{name}/breaker"): {"200", "400", "401", "403", "404", "409", "422", "503"},
    ("get", "/v1/flips"): {"200", "401", "403", "503"},
    ("get", "/v1/flags/changes"): {"200", "401", "403", "422", "503"},
    ("get", "/v1/incidents"): {"200", "401", "403", "422", "503"},
    ("get", "/v1/status"): {"200"},
    ("get", "/v1/dead-letters"): {"200", "401", "403", "422", "503"},
    ("post", "/v1/dead-letters/{payment_id}/redrive"): {"200", "401", "403", "404", "409", "503"},
    ("get", "/healthz"): {"200"},
    ("get", "/readyz"): {"200", "503"},
}


@pytest.fixture
def document(standing_shop: Shop) -> dict[str, Any]:
    """The published document, fetched as a stranger would."""
    answer = standing_shop.send("GET", "/openapi.json", api_key=None)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    return dict(answer.json or {})


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with everything that it refers to beside it."""
    return {"components": document["components"], **schema}


def test_every_call_and_each_of_its_statuses_is_documented(document: dict[str, Any]) -> None:
    """Whoever generates a client from it learns of every refusal."""
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "pointsman"
    for (method, path), statuses in PROMISED.items():
        assert statuses <= document["paths"][path][method]["responses"].keys(), (method, path)


def test_refusals_are_documented_as_problem_documents(document: dict[str, Any]) -> None:
    """With their own media type and schema, but for the readiness page."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    assert answer["content"].keys() == {"application/problem+json"}, (path, status)


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    """And every schema is a schema."""
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_document_describes_what_is_sent_and_answered(document: dict[str, Any], standing_shop: Shop) -> None:
    """A real request and real answers pass its own schemas; the required header is in it."""
    operation = document["paths"]["/v1/payments"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    sent = order()
    Draft202012Validator(_resolve(document, body)).validate(sent)
    header = next(each for each in operation["parameters"] if each["name"] == "Idempotency-Key")
    assert (header["in"], header["required"]) == ("header", True)
    for answer in (standing_shop.pay(sent), standing_shop.pay(amount=-1)):
        media = operation["responses"][str(answer.status_code)]["content"][answer.mimetype]
        Draft202012Validator(_resolve(document, media["schema"])).validate(answer.get_json(force=True))


def test_calls_that_need_a_key_say_so(document: dict[str, Any], standing_shop: Shop) -> None:
    """Every address under /v1/ needs a bearer key, in the document and in fact; nor does the status."""
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            status = standing_shop.send(method.upper(), path.replace("{payment_id}", "p"), api_key=None).status_code
            needed = path.startswith("/v1/") and path != "/v1/status"
            assert bool(operation.get("security")) == needed == (status == 401), path


def test_the_browser_of_the_document_loads_from_this_server_alone(standing_shop: Shop) -> None:
    """/docs leads to a page whose scripts and styles are ours: no other host is asked for anything."""
    answer = standing_shop.send("GET", "/docs", api_key=None)
    assert answer.status_code == 302
    page = standing_shop.app.test_client().get("/docs", follow_redirects=True)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert any(each.endswith(".js") for each in loaded)
    for address in loaded:
        assert not re.match(r"(https?:)?//", address), address
        part = standing_shop.send("GET", address if address.startswith("/") else f"/docs/{address}", api_key=None)
        assert part.status_code == 200, address
    assert not re.findall(r"""url\s*[:=]\s*["']https?://""", page.text)


def test_the_process_says_that_it_lives_and_can_pay(standing_shop: Shop) -> None:
    """No key is needed: a load balancer asks."""
    assert standing_shop.send("GET", "/healthz", api_key=None).json == {"status": "ok"}
    ready = standing_shop.send("GET", "/readyz", api_key=None)
    assert ready.status_code == 200
    body = ready.json or {}
    assert (body["ready"], body["ledger"], body["flags"]["state"]) == (True, "ok", "valid")
    assert body["circuits"] == {"stripe": "closed", "adyen": "closed"}


def test_on_call_sees_every_circuit(shops: OpenShop) -> None:
    """Closed with its window; open, and since when, after the primary went down; switched off by flag."""
    shop = shops(breaker_minimum_calls=2, flags={"payments-provider-adyen-enabled": False})
    shop.pay()
    body = shop.send("GET", "/v1/providers").json or {}
    ProviderList.model_validate(body)
    stripe, adyen = body["providers"]
    assert (stripe["name"], stripe["state"], stripe["enabled"], stripe["window"]["calls"]) == (
        *("stripe", "closed", True),
        1,
    )
    assert (adyen["name"], adyen["enabled"]) == ("adyen", False)
    shop.fault("stripe", "down")
    while (shop.send("GET", "/v1/providers").json or {})["providers"][0]["state"] == "closed":
        shop.pay()
    stripe = (shop.send("GET", "/v1/providers").json or {})["providers"][0]
    assert stripe["state"] == "open"
    assert stripe["since"].endswith("Z")
    assert stripe["window"]["failures"] >= 1


def test_there_are_no_flips_at_first(standing_shop: Shop) -> None:
    """An empty page, in the shape of a list."""
    body = standing_shop.send("GET", "/v1/flips").json or {}
    FlipList.model_validate(body)
    assert body == {"flips": [], "next": None}
