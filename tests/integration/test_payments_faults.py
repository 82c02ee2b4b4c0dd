"""Each way in which a primary can fail, end to end: what is failed over, and above all what is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from router.api.views import PaymentView
from tests.integration.conftest import OpenShop
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop, open_shop, paying_with

pytestmark = pytest.mark.either_database

OTHER = {"stripe": "adyen", "adyen": "stripe"}
SOFT_DECLINE = {"stripe": "do_not_honor", "adyen": "2"}
HARD_DECLINE = {"stripe": "stolen_card", "adyen": "5"}


@pytest.fixture(
    scope="module", params=[(backend, primary) for backend in BACKENDS for primary in OTHER], ids="-".join
)
def troubled_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router whose circuits do not open, so that every test of the module meets the fault itself."""
    backend, primary = request.param
    folder = tmp_path_factory.mktemp("troubled")
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
    }
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def trouble(troubled_shop: tuple[Shop, str], sandbox: Sandbox) -> tuple[Shop, str]:
    """The router and its primary, with both providers well and their books empty."""
    return troubled_shop


@pytest.mark.parametrize(("mode", "reason"), [("down", "connection_refused"), ("rate_limited", "rate_limited")])
def test_a_primary_that_proves_it_did_nothing_is_failed_over(
    trouble: tuple[Shop, str], mode: str, reason: str
) -> None:
    """A refused connection and a 429: captured by the other, and the attempts tell the story."""
    shop, primary = trouble
    shop.fault(primary, mode)
    answer = shop.pay()
    assert answer.status_code == 201, answer.text
    body = answer.json or {}
    PaymentView.model_validate(body, extra="forbid")
    assert (body["status"], body["provider"]) == ("captured", OTHER[primary])
    assert [(each["provider"], each["outcome"], each["reason"]) for each in body["attempts"]] == [
        (primary, "not_executed", reason),
        (OTHER[primary], "approved", None),
    ]
    assert shop.charged(body["reference"]) == [(OTHER[primary], "captured", 1999)]


@pytest.mark.parametrize(
    ("fault", "reason", "charges"),
    [
        ({"mode": "errors", "acts": False}, "http_503", 0),
        ({"mode": "errors", "acts": True}, "http_503", 1),
        ({"mode": "hang"}, "read_timeout", 1),
        ({"mode": "lose_reply"}, "connection_reset", 1),
        ({"mode": "drop_request"}, "connection_reset", 0),
        ({"mode": "garbage", "acts": False}, "senseless_answer", 0),
        ({"mode": "garbage", "acts": True}, "senseless_answer", 1),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_a_doubtful_outcome_is_processing_and_never_failed_over(
    trouble: tuple[Shop, str], fault: dict[str, Any], reason: str, charges: int
) -> None:
    """202 processing with one unknown attempt; the other hears nothing, whether the first one charged or not."""
    shop, primary = trouble
    shop.fault(primary, **fault)
    answer = shop.pay()
    assert answer.status_code == 202, answer.text
    body = answer.json or {}
    PaymentView.model_validate(body, extra="forbid")
    assert (body["status"], body["provider"], body["amount_captured"]) == ("processing", primary, 0)
    assert [(each["outcome"], each["reason"]) for each in body["attempts"]] == [("unknown", reason)]
    assert shop.charges(OTHER[primary]) == []
    assert len(shop.charged(body["reference"])) == charges
    assert shop.read(body["id"]) == body


def test_a_connection_kept_from_before_the_outage_does_not_make_a_doubt(trouble: tuple[Shop, str]) -> None:
    """A pooled connection that the provider closed is found out before the payment is sent on it."""
    shop, primary = trouble
    assert (shop.pay().json or {})["provider"] == primary
    shop.fault(primary, "down")
    for _ in range(5):
        assert (shop.pay().json or {})["provider"] == OTHER[primary]
    shop.fault(primary, "ok")
    assert (shop.pay().json or {})["provider"] == primary


def test_a_slow_primary_within_its_time_is_waited_for(trouble: tuple[Shop, str]) -> None:
    """Slower than usual but below the read timeout: captured by the primary, with the latency on record."""
    shop, primary = trouble
    shop.fault(primary, "slow", latency_ms=100)
    body = shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("captured", primary)
    assert body["attempts"][0]["latency_ms"] >= 100


def test_a_soft_decline_cascades_when_the_flag_allows(trouble: tuple[Shop, str]) -> None:
    """Another provider may approve what an issuer declined softly."""
    shop, primary = trouble
    shop.fault(primary, "decline", decline_code=SOFT_DECLINE[primary])
    body = shop.pay().json or {}
    assert (body["status"], body["provider"], body["decline"]) == ("captured", OTHER[primary], None)
    assert [each["outcome"] for each in body["attempts"]] == ["declined", "approved"]


def test_a_soft_decline_stands_when_the_flag_forbids_a_cascade(shops: OpenShop) -> None:
    """201 declined, with the class and the network's code; the other provider hears nothing."""
    shop = shops(flags={"payments-cascade-on-soft-decline": False})
    shop.fault("stripe", "decline", decline_code="do_not_honor")
    answer = shop.pay()
    assert answer.status_code == 201
    body = answer.json or {}
    assert (body["status"], body["provider"]) == ("declined", "stripe")
    assert (body["decline"]["class"], body["decline"]["code"]) == ("soft", "do_not_honor")
    assert body["decline"]["network_code"] == "05"
    assert shop.charges("adyen") == []


def test_a_hard_decline_does_not_cascade(trouble: tuple[Shop, str]) -> None:
    """A stolen card is not shown to the next provider."""
    shop, primary = trouble
    shop.fault(primary, "decline", decline_code=HARD_DECLINE[primary])
    answer = shop.pay()
    assert answer.status_code == 201
    body = answer.json or {}
    PaymentView.model_validate(body, extra="forbid")
    assert (body["status"], body["decline"]["class"]) == ("declined", "hard")
    assert [each["outcome"] for each in body["attempts"]] == ["declined"]
    assert shop.charges(OTHER[primary]) == []


def test_a_soft_decline_everywhere_answers_the_last_one(trouble: tuple[Shop, str]) -> None:
    """Both tried, both declined: declined, by the one tried last."""
    shop, primary = trouble
    for provider in OTHER:
        shop.fault(provider, "decline", decline_code=SOFT_DECLINE[provider])
    body = shop.pay().json or {}
    assert (body["status"], body["provider"], body["decline"]["class"]) == ("declined", OTHER[primary], "soft")
    assert [each["outcome"] for each in body["attempts"]] == ["declined", "declined"]


def test_a_decline_followed_by_an_unavailable_provider_is_a_decline(trouble: tuple[Shop, str]) -> None:
    """The issuer has answered: the customer hears of the decline at once, and nothing is parked."""
    shop, primary = trouble
    shop.fault(primary, "decline", decline_code=SOFT_DECLINE[primary])
    shop.fault(OTHER[primary], "down")
    body = shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("declined", primary)


def test_a_decline_followed_by_a_doubt_is_processing(trouble: tuple[Shop, str]) -> None:
    """The second provider may have charged, whatever the first one's issuer said."""
    shop, primary = trouble
    shop.fault(primary, "decline", decline_code=SOFT_DECLINE[primary])
    shop.fault(OTHER[primary], "lose_reply")
    answer = shop.pay()
    assert answer.status_code == 202
    body = answer.json or {}
    assert (body["status"], body["provider"], body["decline"]) == ("processing", OTHER[primary], None)
    assert len(shop.charged(body["reference"])) == 1


def test_a_doubt_after_a_failover_is_processing(trouble: tuple[Shop, str]) -> None:
    """The primary is down and the next loses its reply: one charge, and no third try anywhere."""
    shop, primary = trouble
    shop.fault(primary, "down")
    shop.fault(OTHER[primary], "lose_reply")
    body = shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("processing", OTHER[primary])
    assert [each["outcome"] for each in body["attempts"]] == ["not_executed", "unknown"]
    assert shop.charged(body["reference"]) == [(OTHER[primary], "captured", 1999)]


def test_declines_by_the_vendors_own_test_tokens(trouble: tuple[Shop, str]) -> None:
    """The published test payment methods end as the vendor says they do."""
    shop, primary = trouble
    tokens = {"stripe": "pm_card_visa_chargeDeclinedStolenCard", "adyen": "adyen_sandbox_BLOCK_CARD"}
    body = shop.pay(payment_method=paying_with(**tokens)).json or {}
    assert (body["status"], body["provider"], body["decline"]["class"]) == ("declined", primary, "hard")


def test_a_hanging_primary_cannot_hold_a_request_beyond_its_deadline(shops: OpenShop) -> None:
    """The deadline bounds the whole request, however long a single read may take."""
    shop = shops(deadline_seconds=1.2, read_timeout_seconds=30.0, connect_timeout_seconds=5.0)
    shop.fault("stripe", "hang")
    began = time.monotonic()
    answer = shop.pay()
    # Far below the read timeout, and with room for a busy machine above the deadline.
    assert time.monotonic() - began < 10
    assert (answer.status_code, (answer.json or {})["status"]) == (202, "processing")
    assert shop.charges("adyen") == []


def test_no_further_provider_is_tried_when_the_time_is_nearly_over(shops: OpenShop) -> None:
    """A slow refusal leaves less than an answer needs: the payment is parked, not started and given up."""
    shop = shops(deadline_seconds=1.2)
    shop.fault("stripe", "rate_limited", latency_ms=400)
    body = shop.pay().json or {}
    assert body["status"] == "parked"
    assert [each["provider"] for each in body["attempts"]] == ["stripe"]
    assert shop.charges("adyen") == []
