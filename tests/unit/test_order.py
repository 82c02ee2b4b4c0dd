"""The body of a payment: what is taken, what is refused, and when two requests are the same."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iso4217 import Currency
from pydantic import ValidationError

from router.order import MAXIMUM_AMOUNT, Order

USABLE = sorted(each.code for each in Currency if each.exponent is not None)
PRINTABLE = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
COUNTRIES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2)


def _text(most: int, least: int = 1) -> st.SearchStrategy[str]:
    return st.text(PRINTABLE, min_size=least, max_size=most)


def _body(**changed: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "reference": "ORD-12345",
        "amount": 1999,
        "currency": "EUR",
        "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa"}},
    }
    return body | changed


BODIES = st.fixed_dictionaries(
    {
        "reference": _text(80),
        "amount": st.integers(1, MAXIMUM_AMOUNT),
        "currency": st.sampled_from(USABLE),
        "payment_method": st.fixed_dictionaries(
            {
                "type": st.just("card"),
                "tokens": st.dictionaries(
                    st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
                    _text(255) | st.dictionaries(_text(40), _text(255), min_size=1, max_size=4),
                    min_size=1,
                    max_size=8,
                ),
            },
            optional={"card": st.fixed_dictionaries({}, optional={"brand": _text(40), "country": COUNTRIES})},
        ),
    },
    optional={
        "capture": st.sampled_from(["automatic", "manual"]),
        "customer": st.fixed_dictionaries({}, optional={"id": _text(255), "country": COUNTRIES}),
        "when_unavailable": st.sampled_from(["park", "fail"]),
        "allow_repeat_reference": st.booleans(),
        "expires_at": st.datetimes(timezones=st.just(dt.UTC)).map(dt.datetime.isoformat),
        "metadata": st.dictionaries(_text(40), _text(500, 0), max_size=20),
    },
)


@settings(
    suppress_health_check=[HealthCheck.too_slow]
)  # the first draw compiles patterns: a second on a busy machine
@given(BODIES)
def test_a_sound_body_is_taken_and_survives_the_ledger(body: dict[str, Any]) -> None:
    """What a worker reads back later is the same order with the same fingerprint."""
    order = Order.model_validate(body)
    stored = json.loads(json.dumps(order.model_dump(mode="json", exclude_none=True)))
    again = Order.model_validate(stored)
    assert again == order
    assert again.fingerprint() == order.fingerprint()


@given(BODIES, BODIES)
def test_two_requests_are_the_same_exactly_if_they_ask_for_the_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    """The fingerprint neither overlooks a difference nor sees one in the order of names."""
    shuffled = dict(reversed(one.items()))
    assert Order.model_validate(shuffled).fingerprint() == Order.model_validate(one).fingerprint()
    same = Order.model_validate(one) == Order.model_validate(two)
    assert (Order.model_validate(one).fingerprint() == Order.model_validate(two).fingerprint()) == same


@pytest.mark.parametrize(
    "changed",
    [
        {"reference": "ORD-12346"},
        {"amount": 2000},
        {"currency": "USD"},
        {"capture": "manual"},
        {"payment_method": {"type": "card", "tokens": {"stripe": "pm_card_mastercard"}}},
        {"payment_method": {"type": "card", "tokens": {"adyen": "pm_card_visa"}}},
        {"customer": {"id": "cus_2"}},
        {"when_unavailable": "fail"},
        {"allow_repeat_reference": True},
        {"expires_at": "2099-01-01T00:00:00Z"},
        {"initiator": "merchant"},
        {"metadata": {"cart": "77"}},
        {"return_url": "https://shop.example/return"},
        {"browser": {"language": "de"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_field_counts_for_whether_a_request_is_the_same(changed: dict[str, Any]) -> None:
    """No field may differ under one idempotency key."""
    assert Order.model_validate(_body(**changed)).fingerprint() != Order.model_validate(_body()).fingerprint()


def test_one_moment_in_two_zones_is_the_same_request() -> None:
    """A client that formats its time otherwise on a retry still asks for the same."""
    one = Order.model_validate(_body(expires_at="2099-01-01T12:00:00+02:00"))
    two = Order.model_validate(_body(expires_at="2099-01-01T10:00:00Z"))
    assert one.fingerprint() == two.fingerprint()


@given(
    st.integers(max_value=0)
    | st.integers(min_value=MAXIMUM_AMOUNT + 1)
    | st.floats()
    | st.booleans()
    | st.text(max_size=8)
    | st.none()
)
def test_an_amount_is_a_positive_integer_within_bounds_and_nothing_else(amount: object) -> None:
    """No float, no text, no bool, whatever it is worth."""
    with pytest.raises(ValidationError):
        Order.model_validate(_body(amount=amount))


@pytest.mark.parametrize("amount", [1, MAXIMUM_AMOUNT])
def test_the_bounds_of_an_amount_are_within_them(amount: int) -> None:
    """One minor unit, and twelve nines."""
    assert Order.model_validate(_body(amount=amount)).amount == amount


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3))
def test_a_currency_is_one_that_somebody_can_pay_with(code: str) -> None:
    """In ISO 4217, with minor units: no metals, no funds, no test codes."""
    if code in USABLE:
        assert Order.model_validate(_body(currency=code)).currency == code
    else:
        with pytest.raises(ValidationError):
            Order.model_validate(_body(currency=code))


def test_codes_that_nobody_pays_with_are_refused() -> None:
    """They are in the standard, and are no money."""
    for code in ("XXX", "XTS", "XAU", "XAG", "XPT", "XDR"):
        assert code not in USABLE
        with pytest.raises(ValidationError):
            Order.model_validate(_body(currency=code))


@given(st.sampled_from(["\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\udfff"]))
def test_no_text_holds_what_cannot_be_printed(control: str) -> None:
    """Wherever free text is taken."""
    text = f"a{control}b"
    for changed in (
        {"reference": text},
        {"payment_method": {"type": "card", "tokens": {"stripe": text}}},
        {"payment_method": {"type": "card", "tokens": {"stripe": {"payment_method": text}}}},
        {"payment_method": {"type": "card", "tokens": {"stripe": {text: "pm_1"}}}},
        {"payment_method": {"type": "card", "tokens": {"stripe": "pm_1"}, "card": {"fingerprint": text}}},
        {"customer": {"id": text}},
        {"customer": {"email": f"{text}@shop.example"}},
        {"customer": {"ip": f"::{control}1"}},
        {"browser": {"user_agent": text}},
        {"return_url": f"https://shop.example/{text}"},
        {"metadata": {"note": text}},
        {"metadata": {text: "note"}},
    ):
        with pytest.raises(ValidationError):
            Order.model_validate(_body(**changed))


@given(BODIES, st.data())
def test_a_refusal_does_not_show_what_was_sent(body: dict[str, Any], data: st.DataObject) -> None:
    """Not even in the exception's own text, which may end in a log."""
    name = data.draw(st.sampled_from(["reference", "amount", "currency", "capture", "payment_method", "metadata"]))
    planted = "Planted-Words-7Q"
    with pytest.raises(ValidationError) as refused:
        Order.model_validate(body | {name: [planted]})
    assert planted not in str(refused.value)


def test_the_example_of_the_design_is_taken_whole() -> None:
    """With every optional field, and with nothing but what is required."""
    body = _body(
        capture="automatic",
        payment_method={
            "type": "card",
            "tokens": {
                "stripe": {"payment_method": "pm_1", "customer": "cus_1"},
                "adyen": {"stored_payment_method_id": "8415718415172204", "shopper_reference": "cus_1"},
            },
            "card": {"brand": "visa", "country": "DE", "funding": "credit", "fingerprint": "opaque-or-absent"},
        },
        customer={"id": "cus_1", "country": "DE", "email": "a@shop.example", "ip": "2001:db8::1"},
        browser={"user_agent": "Mozilla/5.0", "accept_header": "*/*", "screen_height": 1080, "time_zone_offset": -60},
        initiator="merchant",
        when_unavailable="fail",
        expires_at="2026-11-21T02:03:04.567Z",
        return_url="https://shop.example/return?a=b",
        metadata={"cart": "77"},
    )
    assert Order.model_validate(body).customer.email == "a@shop.example"
    assert Order.model_validate(_body()).when_unavailable is None


def test_todays_fingerprints_are_known_to_later_versions() -> None:
    """A retry that straddles a deploy must meet its own key again: defaults are no part of the digest."""
    order = Order.model_validate(
        {
            "reference": "ORD-1",
            "amount": 1999,
            "currency": "EUR",
            "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa"}},
        }
    )
    assert order.fingerprint() == "e5f28b25885400bb75f83640ddf4fead91445d1623e3a7f0f35f3b69d55d5b54"
    assert order.model_copy(update={"metadata": {}}).fingerprint() == order.fingerprint()
