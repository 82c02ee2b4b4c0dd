"""Requests that must be refused: the right problem document, the field named, no value repeated, no trace left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Witness
from tests.integration.shop import ABSENT, API_KEY, order, paying_with

pytestmark = pytest.mark.either_database

JSON = "application/json"
SECRET = "Planted-Words-7Q"
"""In a value that is refused, to be looked for afterwards."""
DEEP = 20_000


def _raw(**changed: Any) -> str:
    return json.dumps(order(**changed))


MALFORMED = {
    "no body": b"",
    "blanks": b" \r\n\t",
    "broken": b'{"reference": "' + SECRET.encode(),
    "cut": _raw(reference=SECRET)[:-1].encode(),
    "trailing words": _raw().encode() + SECRET.encode(),
    "two objects": _raw().encode() * 2,
    "array": f'["{SECRET}"]'.encode(),
    "string": f'"{SECRET}"'.encode(),
    "number": b"7123456",
    "null": b"null",
    "true": b"true",
    "repeated name": (_raw(reference=SECRET)[:-1] + f', "reference": "{SECRET}"}}').encode(),
    "repeated name within": _raw().replace('"id": "cus_1"', f'"id": "{SECRET}", "id": "{SECRET}"').encode(),
    "NaN": _raw().replace("1999", "NaN").encode(),
    "infinity": _raw().replace("1999", "-Infinity").encode(),
    "number of 5000 digits": _raw().replace("1999", "7" * 5000).encode(),
    "not UTF-8": _raw(reference="ORD-\xe9").encode("latin-1").replace(b"\\u00e9", b"\xe9"),
    "overlong UTF-8": _raw().replace("ORD-", "\x00").encode().replace(b"\x00", b"\xc0\xaf"),
    "UTF-16": _raw(reference=SECRET).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + _raw(reference=SECRET).encode(),
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * (DEEP // 4) + b"1" + b"}" * (DEEP // 4),
    "raw control character": _raw(reference=SECRET).replace(SECRET, SECRET + "\x01").encode(),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_body_that_is_not_one_sound_json_object_is_refused(witness: Witness, data: bytes) -> None:
    """400 invalid-request about the body as a whole."""
    witness.plant(SECRET, "7123456", "7777777")
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=data, content_type=JSON)
    witness.refused(answer, 400, "invalid-request", field="body")


@pytest.mark.parametrize("depth", [200, 990, 5000])
def test_a_deeply_nested_field_is_refused_like_any_other(witness: Witness, depth: int) -> None:
    """Nesting within what the parser takes, or above it, is a refusal and not a fault."""
    data = _raw(metadata="DEEP").replace('"DEEP"', '{"a":' * depth + f'"{SECRET}"' + "}" * depth)
    witness.plant(SECRET)
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=data, content_type=JSON)
    witness.refused(answer, answer.status_code, "invalid-request")
    assert answer.status_code in {400, 422}


def _card(**changed: Any) -> dict[str, Any]:
    return {"payment_method": paying_with(stripe="pm_card_visa") | {"card": changed}}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"surprise": SECRET}, "surprise"),
    "unknown field in the customer": ({"customer": {"id": "c", "surname": SECRET}}, "customer.surname"),
    "unknown field in the card": (_card(number=SECRET), "payment_method.card.number"),
    "unknown field in the method": (
        {"payment_method": paying_with(stripe="pm_card_visa") | {"cvc": SECRET}},
        "payment_method.cvc",
    ),
    "no reference": ({"reference": ABSENT}, "reference"),
    "empty reference": ({"reference": ""}, "reference"),
    "long reference": ({"reference": SECRET + "x" * 80}, "reference"),
    "reference as a number": ({"reference": 7123456}, "reference"),
    "reference null": ({"reference": None}, "reference"),
    "reference with a NUL": ({"reference": f"{SECRET}\x00"}, "reference"),
    "reference with a line break": ({"reference": f"{SECRET}\r\nSet-Cookie: a=b"}, "reference"),
    "reference with a lone surrogate": ({"reference": f"{SECRET}\ud800"}, "reference"),
    "no amount": ({"amount": ABSENT}, "amount"),
    "negative": ({"amount": -7123456}, "amount"),
    "zero": ({"amount": 0}, "amount"),
    "float": ({"amount": 7123.45}, "amount"),
    "whole float": ({"amount": 7123456.0}, "amount"),
    "string": ({"amount": "7123456"}, "amount"),
    "bool": ({"amount": True}, "amount"),
    "null": ({"amount": None}, "amount"),
    "10^18": ({"amount": 10**18}, "amount"),
    "above the maximum": ({"amount": 10**12}, "amount"),
    "beyond 64 bits": ({"amount": 10**40}, "amount"),
    "list": ({"amount": [7123456]}, "amount"),
    "no currency": ({"currency": ABSENT}, "currency"),
    "unknown currency": ({"currency": "QQZ"}, "currency"),
    "lower-case currency": ({"currency": "eur"}, "currency"),
    "no currency at all": ({"currency": "XXX"}, "currency"),
    "gold": ({"currency": "XAU"}, "currency"),
    "test currency": ({"currency": "XTS"}, "currency"),
    "currency with a line break": ({"currency": "EUR\n"}, "currency"),
    "full-width currency": ({"currency": "\uff25\uff35\uff32"}, "currency"),
    "currency as a number": ({"currency": 978}, "currency"),
    "unknown capture": ({"capture": SECRET}, "capture"),
    "no method": ({"payment_method": ABSENT}, "payment_method"),
    "method as a string": ({"payment_method": SECRET}, "payment_method"),
    "unknown method": ({"payment_method": {"type": SECRET, "tokens": {"stripe": "pm_1"}}}, "payment_method.type"),
    "no tokens": ({"payment_method": paying_with()}, "payment_method.tokens"),
    "too many tokens": (
        {"payment_method": paying_with(**{f"p{n}": SECRET for n in range(9)})},
        "payment_method.tokens",
    ),
    "provider name with capitals": ({"payment_method": paying_with(**{SECRET: "t"})}, "payment_method.tokens"),
    "empty token": ({"payment_method": paying_with(stripe="")}, "payment_method.tokens.stripe"),
    "token as a number": ({"payment_method": paying_with(stripe=7123456)}, "payment_method.tokens.stripe"),
    "token as a list": ({"payment_method": paying_with(stripe=[SECRET])}, "payment_method.tokens.stripe"),
    "empty token object": ({"payment_method": paying_with(stripe={})}, "payment_method.tokens.stripe"),
    "token object too deep": (
        {"payment_method": paying_with(stripe={"a": {"b": SECRET}})},
        "payment_method.tokens.stripe.a",
    ),
    "token with control characters": (
        {"payment_method": paying_with(stripe=f"{SECRET}\x7f")},
        "payment_method.tokens.stripe",
    ),
    "card country": (_card(country="deu"), "payment_method.card.country"),
    "funding": (_card(funding=SECRET), "payment_method.card.funding"),
    "customer as a string": ({"customer": SECRET}, "customer"),
    "email without an at": ({"customer": {"email": SECRET}}, "customer.email"),
    "email with a NUL": ({"customer": {"email": f"{SECRET}\x00@shop.example"}}, "customer.email"),
    "email with an escape": ({"customer": {"email": f"{SECRET}\x1b[2J@shop.example"}}, "customer.email"),
    "email with a lone surrogate": ({"customer": {"email": f"{SECRET}\udfff@shop.example"}}, "customer.email"),
    "address of no computer": ({"customer": {"ip": SECRET}}, "customer.ip"),
    "return to a script": ({"return_url": f"javascript:{SECRET}"}, "return_url"),
    "return with blanks": ({"return_url": f"https://shop.example/ {SECRET}"}, "return_url"),
    "initiator": ({"initiator": SECRET}, "initiator"),
    "when_unavailable": ({"when_unavailable": SECRET}, "when_unavailable"),
    "expiry without a zone": ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
    "expiry in the past": ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    "expiry as words": ({"expires_at": SECRET}, "expires_at"),
    "expiry beyond the calendar": ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
    "expiry before the calendar": ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
    "repeat as a string": ({"allow_repeat_reference": "true"}, "allow_repeat_reference"),
    "repeat as a number": ({"allow_repeat_reference": 1}, "allow_repeat_reference"),
    "metadata as a list": ({"metadata": [SECRET]}, "metadata"),
    "metadata value as a number": ({"metadata": {"cart": 7123456}}, "metadata.cart"),
    "metadata value nested": ({"metadata": {"cart": {"a": SECRET}}}, "metadata.cart"),
    "metadata value too long": ({"metadata": {"cart": SECRET * 50}}, "metadata.cart"),
    "metadata with too much in it": ({"metadata": {f"n{n}": SECRET for n in range(21)}}, "metadata"),
    "metadata key with a NUL": ({"metadata": {f"{SECRET}\x00": "a"}}, "metadata"),
    "metadata key too long": ({"metadata": {SECRET * 5: "a"}}, "metadata"),
    "browser": ({"browser": {"color_depth": "7123456"}}, "browser.color_depth"),
}


@pytest.mark.parametrize(("changed", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_named_and_its_value_is_not(witness: Witness, changed: dict[str, Any], field: str) -> None:
    """422 invalid-request with the field's path, for whatever is wrong with it."""
    witness.plant(SECRET, "7123", "QQZ", "deu")
    data = json.dumps(order(**changed))  # escapes what UTF-8 cannot carry, as a client's JSON would
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=data, content_type=JSON)
    witness.refused(answer, 422, "invalid-request", field=field)


def test_everything_that_is_wrong_is_named_at_once(witness: Witness) -> None:
    """A developer sees all wrong fields in one answer."""
    answer = witness.shop.pay(amount=-1, currency="eur", surprise="x", reference="")
    problem = witness.refused(answer, 422, "invalid-request")
    assert {each["field"] for each in problem["errors"]} == {"amount", "currency", "surprise", "reference"}


@pytest.mark.parametrize(
    "key",
    [None, "", "x" * 256, "x" * 300, f"{SECRET} with blanks", f"{SECRET}\xe9", f"{SECRET}\x7f", f"{SECRET}\t"],
    ids=["none", "empty", "256", "300", "blanks", "non-ASCII", "DEL", "tab"],
)
def test_an_idempotency_key_that_is_not_1_to_255_visible_ascii_characters_is_refused(
    witness: Witness, key: str | None
) -> None:
    """400 invalid-request naming the header."""
    witness.plant(SECRET, "x" * 200)
    answer = witness.shop.send("POST", "/v1/payments", key=key, json=order())
    witness.refused(answer, 400, "invalid-request", field="Idempotency-Key")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {SECRET}",
        f"Basic {API_KEY}",
        API_KEY,
        f"Bearer {API_KEY}{SECRET}",
        f"Bearer {SECRET}\xe9",
        f"Bearer {API_KEY[:-1]}",
    ],
)
def test_a_caller_without_a_valid_key_is_not_let_in(witness: Witness, authorization: str | None) -> None:
    """401 with a challenge, before anything of the body is looked at."""
    witness.plant(SECRET, API_KEY[:-1])
    headers = {} if authorization is None else {"Authorization": authorization}
    shop = witness.shop
    for body in ({"json": order()}, {"data": b"{broken", "content_type": JSON}):
        answer = shop.send("POST", "/v1/payments", key="k", api_key=None, headers=headers, **body)
        witness.refused(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    answer = shop.send("GET", "/v1/payments/pay_1", api_key=None, headers=headers)
    witness.refused(answer, 401, "unauthenticated")


@pytest.mark.parametrize("size", [64 * 1024 + 1, 1024 * 1024])
def test_a_body_that_is_too_large_is_refused(witness: Witness, size: int) -> None:
    """413, also as a problem document."""
    data = json.dumps(order(metadata={"cart": SECRET * (size // len(SECRET) + 1)}))
    witness.plant(SECRET)
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=data, content_type=JSON)
    witness.refused(answer, 413, "request-entity-too-large")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data", JSON, ""])
def test_a_form_is_refused(witness: Witness, content_type: str) -> None:
    """A form makes no payment, whatever it says that it is."""
    witness.plant(SECRET)
    data = f"reference={SECRET}&amount=1999&currency=EUR"
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=data, content_type=content_type)
    witness.refused(answer, 400, "invalid-request", field="body")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", f"/v1/payments/{SECRET}", 404, "not-found"),
        ("GET", f"/v1/{SECRET}", 404, "not-found"),
        ("GET", f"/{SECRET}", 404, "not-found"),
        ("DELETE", "/v1/payments", 405, "method-not-allowed"),
        ("PUT", "/v1/providers", 400, "invalid-request"),
        ("POST", "/healthz", 405, "method-not-allowed"),
        ("GET", "/v1/payments", 422, "invalid-request"),
        ("GET", "/v1/payments?reference=", 422, "invalid-request"),
        ("GET", f"/v1/payments?reference={SECRET * 10}", 422, "invalid-request"),
        ("GET", f"/v1/payments?reference=a&cursor={SECRET * 10}", 422, "invalid-request"),
        ("GET", f"/v1/payments?reference={SECRET}%00", 422, "invalid-request"),
        ("GET", f"/v1/payments?reference=a&cursor={SECRET}%00", 422, "invalid-request"),
        ("GET", f"/v1/flips?cursor={SECRET}%00", 422, "invalid-request"),
        ("GET", f"/v1/payments/{SECRET}%00", 422, "invalid-request"),
        ("GET", f"/v1/payments/{SECRET}%0d%0aSet-Cookie:a", 422, "invalid-request"),
    ],
)
def test_an_address_that_makes_no_sense_gets_a_problem_document(
    witness: Witness, method: str, path: str, status: int, kind: str
) -> None:
    """404, 405 and bad queries are problem documents too, and repeat nothing of the address."""
    witness.plant(SECRET)
    answer = witness.shop.send(method, path)
    witness.refused(answer, status, kind)
    if status == 405:
        assert answer.headers["Allow"]
