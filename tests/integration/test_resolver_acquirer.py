"""An acquirer that could not, and whose answer was lost: the provider's own record ends the doubt, end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.desk import OTHER, SECRETS, Desk, LetterBox, letter_box
from tests.integration.ledgers import ledger_on
from tests.integration.shop import Shop, open_shop, paying_with

pytestmark = pytest.mark.either_database

BROKEN = {"stripe": "pm_sandbox_api_error", "adyen": "adyen_sandbox_ERROR"}
GOOD = {"stripe": "pm_card_visa", "adyen": "8415718415172204"}


@pytest.fixture(scope="module", params=list(OTHER))
def acquirer_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router whose circuits do not open, with each provider as the primary."""
    primary = request.param
    folder = tmp_path_factory.mktemp("acquirer")
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        **SECRETS,
    }
    with ledger_on("sqlite", request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def primary(acquirer_shop: tuple[Shop, str]) -> str:
    return acquirer_shop[1]


@pytest.fixture
def desk(acquirer_shop: tuple[Shop, str], sandbox: Sandbox) -> Desk:
    """The worker, with both providers well and their books empty."""
    return Desk(acquirer_shop[0])


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


def doubtful(desk: Desk, primary: str) -> dict[str, Any]:
    """A payment whose answers were all lost, at an acquirer that cannot; nobody else was asked."""
    desk.shop.fault(primary, "lose_reply", calls="authorize")
    answer = desk.shop.pay(payment_method=paying_with(**{**GOOD, primary: BROKEN[primary]}))
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json or {}
    assert [each["outcome"] for each in body["attempts"]] == ["unknown"]
    assert desk.books(body["reference"]) == []
    return body


def ended(desk: Desk, primary: str, body: dict[str, Any]) -> None:
    """Nothing is in doubt any more, and nothing was charged: the doubt was resolved as nothing (design §6)."""
    now = desk.shop.read(body["id"])
    assert [(each["provider"], each["outcome"]) for each in now["attempts"]] == [(primary, "not_executed")]
    assert now["status"] == "failed"
    assert desk.books(body["reference"]) == []


def test_a_resend_is_answered_with_the_record(desk: Desk, primary: str) -> None:
    """The same key replays the vendor's first result."""
    body = doubtful(desk, primary)
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1
    ended(desk, primary, body)


def test_the_look_up_or_the_webhook_tells_it(desk: Desk, primary: str, box: LetterBox) -> None:
    """While every re-send's answer is lost, too: Stripe's list, or Adyen's AUTHORISATION without success."""
    body = doubtful(desk, primary)
    if primary == "adyen":
        assert desk.resolve() == 0
        assert box.forward_all() >= 1
        assert desk.read_notices() >= 1
    else:
        assert desk.resolve() == 1
    ended(desk, primary, body)


@pytest.mark.parametrize("mode", ["rate_limited", "down", "errors"])
def test_a_refused_resend_is_no_record(desk: Desk, primary: str, mode: str) -> None:
    """It stays in doubt, and nobody else is asked."""
    body = doubtful(desk, primary)
    desk.shop.fault(primary, mode)
    assert desk.resolve(3) == 0
    assert desk.shop.read(body["id"])["status"] == "processing"
    assert desk.books(body["reference"]) == []
