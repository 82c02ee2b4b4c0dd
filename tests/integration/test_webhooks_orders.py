"""A payment's webhooks in every order, once and doubled, ahead of our own answers or after them: one final state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.desk import MANUAL, OTHER, SECRETS, Desk, Letter, LetterBox, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.letters import adyen_letter, dispute, intent, item, refund, stripe_letter
from tests.integration.lives import Life, OneTransaction, Replay, State, figures, life, unanswered
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop, open_shop

pytestmark = pytest.mark.either_database


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in OTHER], ids="-".join)
def told_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router that believes its providers, over each ledger, with each provider as the primary."""
    backend, primary = request.param
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
        **SECRETS,
    }
    folder = tmp_path_factory.mktemp("told")
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def desk(told_shop: tuple[Shop, str], sandbox: Sandbox) -> Desk:
    """The worker, with both providers well and their books empty."""
    return Desk(told_shop[0])


@pytest.fixture
def primary(told_shop: tuple[Shop, str]) -> str:
    return told_shop[1]


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


# ---------------------------------------------------------------- the lives

Story = Callable[[Desk, str], tuple[dict[str, Any], Sequence[Letter]]]
"""Lives a payment at a provider; answers it as it was first told, and what the stand-in does not send."""


def pay(desk: Desk, **changed: Any) -> dict[str, Any]:
    answer = desk.shop.pay(**changed)
    assert answer.status_code in (201, 202), answer.text
    return dict(answer.json or {})


def asked(desk: Desk, body: dict[str, Any], what: str, amount: int | None = None, *, key: str = "1") -> None:
    answer = desk.ask(body["id"], what, {} if amount is None else {"amount": amount}, key=f"{body['id']}-{what}{key}")
    assert answer.status_code in (200, 201, 202), answer.text


def charge(desk: Desk, body: dict[str, Any], provider: str) -> str:
    """The provider's id of the payment."""
    return str(desk.shop.charges(provider, body["reference"])[0]["id"])


def one_refund_of_two_fails(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk, **MANUAL)
    asked(desk, body, "capture")
    asked(desk, body, "refunds", 400)
    asked(desk, body, "refunds", 300, key="2")
    desk.happen(provider, body["reference"], "refund_failed")
    return body, []


def capture_fails(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk, **MANUAL)
    asked(desk, body, "capture", 1500)
    desk.happen(provider, body["reference"], "capture_failed")
    return body, []


def capture_at_once_fails(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk)
    desk.happen(provider, body["reference"], "capture_failed")
    return body, []


def canceled(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk, **MANUAL)
    asked(desk, body, "cancel")
    if provider == "stripe":
        return body, []
    attempt_id, reference = body["attempts"][0]["id"], charge(desk, body, provider)
    nothing = item(
        "TECHNICAL_CANCEL", merchantReference=attempt_id, success="false", reason="Original payment not found"
    )
    too = item("TECHNICAL_CANCEL", merchantReference=attempt_id, originalReference=reference)
    return body, [adyen_letter(nothing), adyen_letter(too)]


def told_by_webhook_only(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    """Its answer is lost, and then somebody pays part of it back in the provider's dashboard."""
    desk.shop.fault(provider, "lose_reply", calls="authorize")
    body = pay(desk)
    assert body["status"] == "processing"
    reference = charge(desk, body, provider)
    if provider == "stripe":
        pending, done = refund(reference, 500, "pending"), refund(reference, 500, "succeeded")
        return body, [
            stripe_letter("refund.created", pending),
            stripe_letter("refund.updated", {**pending, "status": "succeeded"}),
            stripe_letter("refund.updated", done),
            stripe_letter("refund.failed", {**done, "status": "failed"}),
        ]
    small: dict[str, Any] = {"originalReference": reference, "amount": {"currency": "EUR", "value": 500}}
    return body, [
        adyen_letter(item("REFUND", merchantReference="d1", **small)),
        adyen_letter(item("REFUND", merchantReference="d2", pspReference="FAILS12345", **small)),
        adyen_letter(item("REFUND_FAILED", merchantReference="d2", pspReference="FAILS12345", **small)),
    ]


def refund_is_reversed(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk)
    asked(desk, body, "refunds")
    desk.happen(provider, body["reference"], "refund_reversed")
    return body, []


def dispute_is_won_and_lost(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk)
    desk.happen(provider, body["reference"], "dispute_opened")
    desk.happen(provider, body["reference"], "dispute_won")
    reference = charge(desk, body, provider)
    if provider == "stripe":
        return body, [stripe_letter("charge.dispute.closed", dispute(reference, "lost"))]
    return body, [adyen_letter(item("SECOND_CHARGEBACK", originalReference=reference))]


def refunded_and_disputed(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    body = pay(desk)
    asked(desk, body, "refunds", 400)
    desk.happen(provider, body["reference"], "refund_failed")
    desk.happen(provider, body["reference"], "dispute_opened")
    desk.happen(provider, body["reference"], "dispute_lost")
    return body, []


def approved_after_a_decline(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    """The customer's first card was refused, or the step of 3-D Secure failed once."""
    desk.shop.fault(provider, "lose_reply", calls="authorize")
    body = pay(desk)
    attempt_id, reference = body["attempts"][0]["id"], charge(desk, body, provider)
    if provider == "adyen":
        no = item(
            "AUTHORISATION", merchantReference=attempt_id, pspReference=reference, success="false", reason="Refused"
        )
        return body, [adyen_letter(no)]
    error = {"code": "card_declined", "decline_code": "do_not_honor", "type": "card_error"}
    failed = intent(reference, attempt_id, "requires_payment_method", last_payment_error=error)
    step = intent(reference, attempt_id, "requires_action", client_secret="pi_secret")
    return body, [
        stripe_letter("payment_intent.payment_failed", failed),
        stripe_letter("payment_intent.requires_action", step),
    ]


def canceled_after_an_approval(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    """A first card was refused, a second one authorized, and somebody let go of it in the dashboard."""
    desk.shop.fault(provider, "lose_reply", calls="authorize")
    body = pay(desk, **MANUAL)
    attempt_id, reference = body["attempts"][0]["id"], charge(desk, body, provider)
    if provider == "adyen":
        no = item(
            "AUTHORISATION", merchantReference=attempt_id, pspReference=reference, success="false", reason="Refused"
        )
        return body, [adyen_letter(no), adyen_letter(item("CANCELLATION", originalReference=reference))]
    return body, [*held_nothing(reference, attempt_id, "card_declined", decline_code="do_not_honor")]


def held_nothing(reference: str, attempt_id: str, code: str, **more: str) -> Sequence[Letter]:
    """What Stripe tells of an intent that failed, waited for its customer, and was canceled."""
    failed = {"last_payment_error": {"code": code, "type": "card_error", **more}}
    step = {"client_secret": "pi_secret"}
    return [
        stripe_letter(
            "payment_intent.payment_failed", intent(reference, attempt_id, "requires_payment_method", **failed)
        ),
        stripe_letter("payment_intent.requires_action", intent(reference, attempt_id, "requires_action", **step)),
        stripe_letter("payment_intent.canceled", intent(reference, attempt_id, "canceled")),
    ]


def never_charged(desk: Desk, provider: str) -> tuple[str, dict[str, Any]]:
    """A payment of which its provider says nothing in answer, and has nothing; its attempt's id."""
    desk.shop.fault(provider, "errors", calls="authorize")
    body = pay(desk, **MANUAL)
    return str(body["attempts"][0]["id"]), body


def declined_and_canceled(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    attempt_id, body = never_charged(desk, provider)
    if provider == "stripe":
        return body, held_nothing("pi_declined", attempt_id, "card_declined", decline_code="do_not_honor")
    no = item(
        "AUTHORISATION", merchantReference=attempt_id, pspReference="DECLINED1234", success="false", reason="Refused"
    )
    return body, [adyen_letter(no), adyen_letter(item("CANCELLATION", originalReference="DECLINED1234"))]


def acquirer_failed_and_canceled(desk: Desk, provider: str) -> tuple[dict[str, Any], Sequence[Letter]]:
    attempt_id, body = never_charged(desk, provider)
    if provider == "stripe":
        return body, held_nothing("pi_nothing", attempt_id, "api_error")
    no = item(
        "AUTHORISATION",
        merchantReference=attempt_id,
        pspReference="NOTHING12345",
        success="false",
        reason="Acquirer Error",
    )
    return body, [adyen_letter(no), adyen_letter(item("CANCELLATION", originalReference="NOTHING12345"))]


STORIES: Mapping[Story, tuple[State, Mapping[str, int]]] = {
    one_refund_of_two_fails: (
        {"status": "captured", "amount_captured": 1999, "amount_refunded": 400},
        {"stripe": 6, "adyen": 5},
    ),
    capture_fails: ({"status": "authorized", "amount_captured": 0}, {"stripe": 4, "adyen": 3}),
    capture_at_once_fails: ({"status": "authorized", "amount_captured": 0}, {"stripe": 2, "adyen": 2}),
    canceled: ({"status": "canceled", "amount_captured": 0}, {"stripe": 2, "adyen": 4}),
    told_by_webhook_only: (
        {"status": "captured", "amount_captured": 1999, "amount_refunded": 500},
        {"stripe": 4, "adyen": 4},
    ),
    refund_is_reversed: (
        {"status": "captured", "amount_captured": 1999, "amount_refunded": 0},
        {"stripe": 3, "adyen": 3},
    ),
    dispute_is_won_and_lost: ({"status": "captured", "dispute": "lost"}, {"stripe": 4, "adyen": 5}),
    refunded_and_disputed: (
        {"status": "captured", "amount_refunded": 0, "dispute": "lost"},
        {"stripe": 5, "adyen": 6},
    ),
    canceled_after_an_approval: ({"status": "canceled", "decline": None}, {"stripe": 4, "adyen": 3}),
    declined_and_canceled: ({"status": "declined"}, {"stripe": 3, "adyen": 2}),
    acquirer_failed_and_canceled: ({"status": "failed"}, {"stripe": 3, "adyen": 2}),
    approved_after_a_decline: ({"status": "captured", "decline": None}, {"stripe": 3, "adyen": 2}),
}
"""What each comes to, and how many notices tell it."""


def the_end(desk: Desk, primary: str, told: Life, *, doubled: bool) -> State:
    """What every order comes to."""
    database = OneTransaction(desk.shop.url)
    try:
        orders, ends = Replay(database, told.payment_id, doubled).every_order(primary, told.notices)
    finally:
        database.close()
    assert orders == math.factorial(len(told.notices))
    (first, end), *others = ends.values()
    differ = {
        order: {name: (end[name], other[name]) for name in end if end[name] != other[name]} for order, other in others
    }
    assert differ == {}, f"unlike {first}"
    return end


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_order_of_webhooks_comes_to_the_same(desk: Desk, primary: str, box: LetterBox, story: Story) -> None:
    """Row, attempts and operations; ahead of all our own answers, each told twice, and after them, each told once."""
    body, by_hand = story(desk, primary)
    desk.shop.fault(primary, "ok")
    told = life(desk, body["id"], [*box.all_told(), *by_hand])
    expected, notices = STORIES[story]
    assert len(told.notices) == notices[primary], [each.name for each in told.notices]

    answered = None
    if desk.shop.core.database.is_sqlite:
        answered = the_end(desk, primary, told, doubled=False)
    unanswered(desk, body["id"])
    ahead = the_end(desk, primary, told, doubled=True)
    assert answered is None or figures(ahead) == figures(answered)
    assert {name: ahead[name] for name in expected} == expected
    assert (ahead["capture_pending"], ahead["in doubt"], ahead["attention"]) == (False, False, None)
