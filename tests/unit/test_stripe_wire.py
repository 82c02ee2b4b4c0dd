"""What is put on the wire to Stripe is what the SDK would have put there, and its errors are the SDK's."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from stripe._encode import _api_encode

from providers.contract import ChargeRequest, Money, Timeouts
from providers.stripe_render import render
from providers.stripe_wire import StripeWire, form
from providers.transport import Answer, Transport, sending_within
from router.ledger.engine import read, written
from router.ledger.sealed import Seals
from router.sealing import Ring, new_key

_texts = st.text(st.characters(codec="utf-8"), max_size=12)
_leaves = _texts | st.integers() | st.booleans() | st.none()
_names = st.text("abcdefghijklmnop_ []ü&=", min_size=1, max_size=8)


def by_the_sdk(params: dict[str, Any]) -> str:
    """As `stripe._api_requestor` words it."""
    return urlencode(list(_api_encode(params))).replace("%5B", "[").replace("%5D", "]")


@given(st.dictionaries(_names, _leaves | st.dictionaries(_names, _leaves, max_size=3), max_size=6))
def test_a_form_is_the_sdk_s(params: dict[str, Any]) -> None:
    assert form(params) == by_the_sdk(params)


def test_a_list_is_numbered() -> None:
    params = {"expand": ["a.b", "c"], "items": [{"x": True, "y": [1]}], "nothing": [], "none": None}
    assert form(params) == by_the_sdk(params) == "expand[0]=a.b&expand[1]=c&items[0][x]=true&items[0][y][0]=1"


_requests = st.builds(
    ChargeRequest,
    attempt_id=st.just("att_1"),
    payment_id=st.just("pay_1"),
    reference=_texts,
    money=st.builds(
        Money, st.integers(1, 99_000).map(lambda each: each * 100), st.sampled_from(["EUR", "JPY", "KWD"])
    ),
    capture=st.sampled_from(["automatic", "manual"]),
    method=st.just("card"),
    token=st.sampled_from(
        ["pm_1", {"payment_method": "pm_1", "customer": "cus_1"}, {"customer": "cus_1", "payment_method": "pm_1"}]
    ),
    initiator=st.sampled_from(["customer", "merchant"]),
    return_url=st.none() | _texts,
)
_seals = Seals(Ring([new_key()]))


@given(_requests, st.booleans())
def test_a_re_send_is_the_first_send_to_the_byte(request: ChargeRequest, tell_fee: bool) -> None:
    """From the ledger, plain or sealed, comes what was sent: under its key anything else would be refused."""
    params = render(request, tell_fee=tell_fee)
    sent = form(params)
    assert sent == by_the_sdk(dict(params))
    assert form(read(written(params))) == sent
    sealed = read(written(_seals.json(params, "params:att_1")))
    assert form(_seals.open_json(sealed, "params:att_1")) == sent


class Line(Transport):
    """A transport that answers what it is told, and remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(pool_size=1)
        self.sent: list[tuple[Any, ...]] = []
        self.answer = Answer(200, {}, b"{}")

    def send(self, *request: Any) -> Answer:
        self.sent.append(request)
        return self.answer


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def wire(line: Line) -> StripeWire:
    return StripeWire(line, api_key="sk_test_x", base_url="http://stripe.test")


def test_making_one_sends_nothing(line: Line, wire: StripeWire) -> None:
    assert wire
    assert line.sent == []


def test_a_request_is_the_sdk_s_own(line: Line, wire: StripeWire) -> None:
    params = {"amount": 5, "metadata": {"a": "b c"}, "expand": ["x"]}
    with sending_within(Timeouts(1, 1)):
        wire.post("/v1/payment_intents", params, "key-1")
        wire._client.raw_request("post", "/v1/payment_intents", **params, idempotency_key="key-1")
    ours, theirs = line.sent
    assert ours == theirs


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (402, b'{"error": {"type": "card_error", "code": "card_declined"}}', stripe.CardError),
        (400, b'{"error": {"type": "idempotency_error"}}', stripe.IdempotencyError),
        (401, b'{"error": {"message": "no"}}', stripe.AuthenticationError),
        (429, b"{}", stripe.StripeError),
        (500, b"no JSON", stripe.APIError),
        (200, b"no JSON", stripe.APIError),
    ],
)
def test_an_answer_that_is_no_success_is_the_sdk_s_error_and_is_sent_once(
    line: Line, wire: StripeWire, status: int, body: bytes, error: type[Exception]
) -> None:
    line.answer = Answer(status, {}, body)
    with pytest.raises(error), sending_within(Timeouts(1, 1)):
        wire.post("/v1/payment_intents", {"amount": 5}, "key-1")
    assert len(line.sent) == 1
    # The next one is sent again: what came once is nobody else's answer.
    line.answer = Answer(200, {}, b'{"id": "pi_1"}')
    with sending_within(Timeouts(1, 1)):
        assert wire.post("/v1/payment_intents", {"amount": 5}, "key-2") == {"id": "pi_1"}
        assert wire.get("/v1/balance", {}) == {"id": "pi_1"}
    assert len(line.sent) == 3
