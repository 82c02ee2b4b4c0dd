"""A card number is refused wherever it stands, and is not to be found anywhere afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Witness
from tests.integration.shop import order, paying_with

pytestmark = pytest.mark.either_database

PAN = "4111111111111111"
FULL_WIDTH = {ord("0") + value: 0xFF10 + value for value in range(10)}
ARABIC = {ord("0") + value: 0x0660 + value for value in range(10)}
WRITTEN = {
    "plain": PAN,
    "with blanks": "4111 1111 1111 1111",
    "with dashes": "4111-1111-1111-1111",
    "in words": f"card {PAN}, please",
    "full-width": PAN.translate(FULL_WIDTH),
    "Arabic digits": PAN.translate(ARABIC),
    "no-break blanks": "4111\u00a01111\u00a01111\u00a01111",
    "American Express": "3782 822463 10005",
    "Mastercard of the 2 series": "2223003122003222",
    "Maestro of 19 digits": "6304000000000000000",
    "Visa of 13 digits": "4222222222222",
}
PLANTED = [
    PAN,
    "1111 1111",
    "1111-1111",
    "1111".translate(FULL_WIDTH),
    "1111".translate(ARABIC),
    "1111\u00a01111",
    "822463",
    "2223003",
    "6304000",
    "4222222",
]


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_card_number_in_the_reference_is_refused_however_it_is_written(witness: Witness, written: str) -> None:
    """422 card-number-refused naming the field."""
    witness.plant(*PLANTED)
    witness.refused(witness.shop.pay(reference=written), 422, "card-number-refused", field="reference")


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "metadata value": ({"metadata": {"note": PAN}}, "metadata"),
    "metadata key": ({"metadata": {PAN: "note"}}, "metadata"),
    "token": ({"payment_method": paying_with(stripe=PAN)}, "payment_method"),
    "token object": ({"payment_method": paying_with(adyen={"stored_payment_method_id": PAN})}, "payment_method"),
    "provider name": ({"payment_method": paying_with(**{PAN: "pm_1"})}, "payment_method"),
    "card number field": ({"payment_method": {"type": "card", "number": PAN}}, "payment_method"),
    "a number instead of text": ({"reference": int(PAN)}, "reference"),
    "a float": ({"metadata": {"note": float(PAN)}}, "metadata"),
    "the amount": ({"amount": int(PAN)}, "amount"),
    "an unknown field": ({"card": {"pan": [[PAN]]}}, "card"),
    "an unknown field's name": ({PAN: 1}, "body"),
    "customer": ({"customer": {"id": f"cus-{PAN}"}}, "customer"),
    "return address": ({"return_url": f"https://shop.example/?c={PAN}"}, "return_url"),
    "a wrong type": ({"currency": [{"deep": [[[f"x{PAN}y"]]]}]}, "currency"),
}


@pytest.mark.parametrize(("changed", "place"), PLACES.values(), ids=PLACES.keys())
def test_a_card_number_is_refused_wherever_it_stands(witness: Witness, changed: dict[str, Any], place: str) -> None:
    """In any field, key, or depth, before any other check can speak of the field."""
    witness.plant(*PLANTED)
    witness.refused(witness.shop.pay(**changed), 422, "card-number-refused", field=place)


@pytest.mark.parametrize("body", [PAN, f'"{PAN}"', f'["{PAN}"]', json.dumps(order()) + PAN], ids=str.__len__)
def test_a_body_that_is_no_order_does_not_leak_a_card_number(witness: Witness, body: str) -> None:
    """A bare number, a string, a list, and broken JSON around it: refused, and nothing is repeated."""
    witness.plant(*PLANTED)
    answer = witness.shop.send("POST", "/v1/payments", key="k", data=body, content_type="application/json")
    assert answer.status_code in {400, 422}
    kind = (answer.get_json(force=True) or {})["type"].rpartition(":")[2]
    assert kind in {"card-number-refused", "invalid-request"}
    witness.refused(answer, answer.status_code, kind, field="body")


def test_a_card_number_as_idempotency_key_is_refused(witness: Witness) -> None:
    """Keys are stored: no card number may be one."""
    witness.plant(*PLANTED)
    for key in (PAN, f"order-{PAN}-1", "4111-1111-1111-1111"):
        witness.refused(witness.shop.pay(key=key), 422, "card-number-refused", field="Idempotency-Key")


@pytest.mark.parametrize(
    "address",
    [
        f"/v1/payments?reference={PAN}",
        "/v1/payments?reference=4111%201111%201111%201111",
        "/v1/payments?reference=4111+1111+1111+1111",
        f"/v1/payments?reference=a&reference={PAN}",
        f"/v1/payments?reference=a&{PAN}=b",
        f"/v1/payments?reference=a&cursor={PAN}",
        f"/v1/payments/{PAN}",
        f"/v1/flips?cursor={PAN}",
        f"/v1/no-such-thing/{PAN}",
    ],
)
def test_a_card_number_in_an_address_is_refused(witness: Witness, address: str) -> None:
    """In the query, in its names, repeated, or in the path."""
    witness.plant(*PLANTED)
    witness.refused(witness.shop.send("GET", address), 422, "card-number-refused")


def test_an_address_that_nobody_knows_does_not_repeat_a_card_number(witness: Witness) -> None:
    """Outside the API too: a 404 says nothing of the path."""
    witness.plant(*PLANTED)
    witness.refused(witness.shop.send("GET", f"/{PAN}", api_key=None), 404, "not-found")


def test_what_only_looks_a_little_like_a_card_number_is_taken(standing_shop: Any, sandbox: Any) -> None:
    """Adyen's numeric stored ids begin with 8; order numbers fail the check digit or are too short."""
    for reference in ("4111111111111112", "ORD-411111111111", "8415718415172204", "1234567890123452"):
        assert standing_shop.pay(reference=reference).status_code == 201
