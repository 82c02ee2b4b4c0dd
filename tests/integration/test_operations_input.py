"""What is refused before a payment is touched: amounts, headers, card numbers, strangers. No echo, no trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.shop import LOG
from tests.integration.till import AMOUNT, SETTINGS, Till, problem

PAN = "4111111111111111"
SECRET = "s3cr3t-7123456"
JSON = "application/json"
MOVES = ("capture", "refunds")
CALLS = ("capture", "cancel", "refunds", "complete", "resolve")


pytestmark = [
    pytest.mark.either_database,
    pytest.mark.parametrize("operating_shop", SETTINGS[::3], indirect=True, ids="-".join, scope="module"),
]


@pytest.fixture
def held(till: Till) -> Iterator[dict[str, Any]]:
    """An authorized payment that nothing in the test may touch, nor write what was planted into the log."""
    body = till.authorized()
    before, logged = (till.trace(), till.row(body["id"])), LOG.tell()
    yield body
    assert (till.trace(), till.row(body["id"])) == before
    assert not [each for each in (SECRET, PAN, "7123456") if each in LOG.getvalue()[logged:]]


WRONG: dict[str, Any] = {
    "zero": 0,
    "negative": -7123456,
    "string": "7123456",
    "float": 7123.456,
    "whole float": 7123456.0,
    "bool": True,
    "list": [7123456],
    "object": {"value": 7123456},
    "above the maximum": 10**12,
    "beyond 64 bits": 10**40,
}


@pytest.mark.parametrize("what", MOVES)
@pytest.mark.parametrize("amount", WRONG.values(), ids=WRONG.keys())
def test_an_amount_that_is_none_is_refused(till: Till, held: dict[str, Any], what: str, amount: Any) -> None:
    """422 naming the field, never the value."""
    answer = till.do(held, what, {"amount": amount})
    (error,) = problem(answer, 422, "invalid-request")["errors"]
    assert error["field"].split(".")[0] == "amount"
    assert "7123" not in answer.text


@pytest.mark.parametrize("what", CALLS)
def test_a_field_that_does_not_belong_is_refused(till: Till, held: dict[str, Any], what: str) -> None:
    """A misspelt `amount` must not capture everything."""
    answer = till.do(held, what, {"amuont": SECRET})
    assert "amuont" in [each["field"] for each in problem(answer, 422, "invalid-request")["errors"]]
    assert SECRET not in answer.text


def test_a_cancel_takes_no_amount(till: Till, held: dict[str, Any]) -> None:
    """An authorization is released whole, or not at all."""
    problem(till.do(held, "cancel", {"amount": 1}), 422, "invalid-request")


@pytest.mark.parametrize("what", CALLS)
def test_a_body_that_is_no_json_object_is_refused(till: Till, held: dict[str, Any], what: str) -> None:
    """400, and not "no body, so all of it"."""
    path = f"/v1/payments/{held['id']}/{what}"
    for data in (b"{", b"[]", b'"x"', b'{"amount": 1, "amount": 2}', b'{"amount": NaN}', b"\xff"):
        problem(till.shop.send("POST", path, key="k", data=data, content_type=JSON), 400, "invalid-request")


@pytest.mark.parametrize("what", CALLS)
def test_a_key_that_is_missing_or_misshapen_is_refused(till: Till, held: dict[str, Any], what: str) -> None:
    """400 naming the header: without a key nothing could be replayed."""
    asked = {"outcome": "declined", "evidence": "e"} if what == "resolve" else {}
    for key in (None, "", "with blank", "x" * 256, "käse"):
        answer = till.shop.send("POST", f"/v1/payments/{held['id']}/{what}", key=key, json=asked)
        found = problem(answer, 400, "invalid-request")
        assert [each["field"] for each in found["errors"]] == ["Idempotency-Key"]
        assert not key or key not in answer.text


PLACES: dict[str, tuple[str, Any, str]] = {
    "capture amount": ("capture", {"amount": int(PAN)}, "amount"),
    "refund amount": ("refunds", {"amount": PAN}, "amount"),
    "unknown field": ("cancel", {"note": f"card {PAN}"}, "note"),
    "details": ("complete", {"details": {"redirectResult": PAN}}, "details"),
    "name of a detail": ("complete", {"details": {PAN: "x"}}, "details"),
    "evidence": ("resolve", {"outcome": "declined", "evidence": f"seen {PAN}"}, "evidence"),
    "reference": (
        "resolve",
        {"outcome": "approved", "evidence": "e", "provider_reference": PAN},
        "provider_reference",
    ),
}


@pytest.mark.parametrize(("what", "asked", "field"), PLACES.values(), ids=PLACES.keys())
def test_a_card_number_is_refused(till: Till, held: dict[str, Any], what: str, asked: Any, field: str) -> None:
    """422 card-number-refused naming the field."""
    answer = till.do(held, what, asked)
    assert [each["field"] for each in problem(answer, 422, "card-number-refused")["errors"]] == [field]
    assert PAN not in answer.text


def test_a_card_number_as_key_or_address_is_refused(till: Till, held: dict[str, Any]) -> None:
    """The header and the path are looked at too."""
    for answer in (till.do(held, "capture", key=PAN), till.ask(PAN, "capture", key="k")):
        problem(answer, 422, "card-number-refused")
        assert PAN not in answer.text


@pytest.mark.parametrize("what", CALLS)
def test_another_merchants_payment_is_not_there(till: Till, held: dict[str, Any], what: str) -> None:
    """404, as for one that never was: not even that it exists is said."""
    theirs = till.shop.add_key(f"other-{till.shop.url}-{what}", merchant="other", scopes=("payments", "operate"))
    asked = {"outcome": "approved", "evidence": "e", "provider_reference": "pi_1"} if what == "resolve" else {}
    answers = [
        till.do(held, what, asked, api_key=theirs),
        till.ask("pay_01jd3nosuchpayment000000000", what, asked, key="k", api_key=theirs),
    ]
    assert [problem(each, 404, "not-found") for each in answers] == [problem(answers[0], 404, "not-found")] * 2
    # Our own key is found for our own payment only.
    problem(till.ask("pay_01jd3nosuchpayment000000000", what, asked, key="k"), 404, "not-found")


@pytest.mark.parametrize("what", CALLS)
def test_a_stranger_learns_nothing(till: Till, held: dict[str, Any], what: str) -> None:
    """401 without a valid key, and 403 with one that may only read reports, before the body is looked at."""
    for key in (None, "no-such-key"):
        problem(till.do(held, what, {"amuont": 1}, api_key=key), 401, "unauthenticated")
    reports = till.shop.add_key(f"reports-{till.shop.url}-{what}", merchant="default", scopes=("reports",))
    problem(till.do(held, what, {"amuont": 1}, api_key=reports), 403, "forbidden")


def test_no_body_at_all_means_all_of_it(till: Till) -> None:
    """Empty, or an amount of null: as if it had been left out."""
    for what, book in (("capture", ("captured", AMOUNT, 0)), ("refunds", ("refunded", AMOUNT, AMOUNT))):
        body = till.authorized() if what == "capture" else till.paid()
        answer = till.shop.send("POST", f"/v1/payments/{body['id']}/{what}", key=f"k-{body['id']}")
        assert answer.status_code == 200, answer.text
        assert till.book(body) == book
        other = till.authorized() if what == "capture" else till.paid()
        data = json.dumps({"amount": None})
        path = f"/v1/payments/{other['id']}/{what}"
        answer = till.shop.send("POST", path, key=f"k-{other['id']}", data=data, content_type=JSON)
        assert answer.status_code == 200, answer.text
        assert till.book(other) == book
