"""Webhooks that are not to be believed: refused with 400 or 413, with nothing stored, and nothing of them shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from providers.sandbox.server import SANDBOX_STRIPE_WEBHOOK_SECRET, Sandbox
from router.api.webhooks import MAXIMUM_BODY_BYTES
from tests.integration.conftest import OpenShop
from tests.integration.desk import OTHER, SECRETS, Desk, Letter, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.letters import ACCOUNT, adyen_letter, intent, item, stripe_headers, stripe_letter
from tests.integration.shop import LOG, Shop, open_shop

pytestmark = pytest.mark.either_database

PLANTED = "planted-in-the-webhook"
PAN = "4111111111111111"
BATCH = 4


@pytest.fixture(scope="module", params=BACKENDS)
def believing_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A router that knows the secrets, over each ledger."""
    folder = tmp_path_factory.mktemp("believing")
    with (
        ledger_on(request.param, request, folder) as url,
        open_shop(url, sandbox_process, folder, **SECRETS) as shop,
    ):
        yield shop


@pytest.fixture
def desk(believing_shop: Shop, sandbox: Sandbox) -> Desk:
    return Desk(believing_shop)


def send(shop: Shop, letter: Letter) -> TestResponse:
    provider, headers, body = letter
    return shop.send("POST", f"/webhooks/{provider}", api_key=None, data=body, headers=headers)


def refused(shop: Shop, letter: Letter, status: int = 400, kind: str | None = "webhook-refused") -> None:
    """With a problem that says nothing of what came; nothing is stored, nothing of it is logged but the cause."""
    before, logged_before = shop.counts(), LOG.tell()
    answer = send(shop, letter)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    if kind is not None:
        assert (answer.json or {})["type"] == f"urn:pointsman:problem:{kind}"
    assert shop.counts() == before
    logged = LOG.getvalue()[logged_before:]
    assert kind is None or f'"provider": "{letter[0]}"' in logged, logged
    assert PLANTED not in answer.text + str(answer.headers) + logged


@pytest.fixture
def good(desk: Desk) -> Callable[[str], Letter]:
    """Makes letters that would be believed, about a payment that exists, with something planted in them."""
    body = desk.shop.pay().json or {}
    attempt = body["attempts"][0]

    def make(provider: str) -> Letter:
        if provider == "stripe":
            thing = intent(attempt["provider_reference"], attempt["id"], "succeeded", description=PLANTED)
            return stripe_letter("payment_intent.succeeded", thing)
        return adyen_letter(item("AUTHORISATION", merchantReference=attempt["id"], reason=PLANTED))

    return make


# ---------------------------------------------------------------- signatures


@pytest.mark.parametrize("provider", OTHER)
def test_what_is_not_refused_is_stored(desk: Desk, good: Callable[[str], Letter], provider: str) -> None:
    """The other tests of this file would pass of a router that believes nobody."""
    before = desk.shop.counts()["webhooks"]
    assert send(desk.shop, good(provider)).status_code == 200
    assert desk.shop.counts()["webhooks"] == before + 1


@pytest.mark.parametrize("header", [None, "", "garbage", "t=1", "v1=00", "t=x,v1=00"])
def test_a_stripe_header_that_is_missing_or_misshapen_is_refused(
    desk: Desk, good: Callable[[str], Letter], header: str | None
) -> None:
    """Whatever the body says."""
    _, _, body = good("stripe")
    refused(desk.shop, ("stripe", {} if header is None else {"Stripe-Signature": header}, body))


def test_another_secret_or_another_body_is_refused(desk: Desk, good: Callable[[str], Letter]) -> None:
    """Signed by somebody else; or by Stripe, for something else."""
    _, headers, body = good("stripe")
    refused(desk.shop, ("stripe", stripe_headers(body, secret="whsec_another"), body))
    refused(desk.shop, ("stripe", headers, body.replace(b"1999", b"9991")))
    assert send(desk.shop, ("stripe", headers, body)).status_code == 200


@pytest.mark.parametrize("age_s", [330, 86_400, -330, -86_400])
def test_a_signature_too_old_or_too_far_in_the_future_is_refused(
    desk: Desk, good: Callable[[str], Letter], age_s: int
) -> None:
    """The SDK would take any time in the future; within five minutes either way it is a matter of clocks."""
    _, _, body = good("stripe")
    refused(desk.shop, ("stripe", stripe_headers(body, age_s=age_s), body))
    near = 270 if age_s > 0 else -270
    assert send(desk.shop, ("stripe", stripe_headers(body, age_s=near), body)).status_code == 200


@pytest.mark.parametrize("place", range(BATCH))
@pytest.mark.parametrize("fault", ["another key", "changed", "no signature", "another account"])
def test_one_bad_item_takes_its_whole_batch_down(desk: Desk, place: int, fault: str) -> None:
    """Wherever it stands: none of the good ones beside it is stored; the batch without it is."""
    items = [item("AUTHORISATION", merchantReference=f"{PLANTED}-{number}") for number in range(BATCH)]
    bad = items[place]["NotificationRequestItem"]
    match fault:
        case "another key":
            items[place] = item("AUTHORISATION", key="11" * 32)
        case "changed":
            bad["amount"] = {"currency": "EUR", "value": 1}
        case "no signature":
            bad["additionalData"] = {}
        case "another account":
            items[place] = item("AUTHORISATION", merchantAccountCode=f"Not{ACCOUNT}")
    refused(desk.shop, adyen_letter(*items))
    before = desk.shop.counts()["webhooks"]
    assert send(desk.shop, adyen_letter(*items[:place], *items[place + 1 :])).status_code == 200
    assert desk.shop.counts()["webhooks"] == before + BATCH - 1


def test_one_providers_webhook_is_nothing_to_the_other(desk: Desk, good: Callable[[str], Letter]) -> None:
    """Each route believes its own."""
    for provider, other in OTHER.items():
        _, headers, body = good(provider)
        refused(desk.shop, (other, headers, body))


# ---------------------------------------------------------------- bodies

BODIES = {
    "empty": b"",
    "not JSON": f"{{{PLANTED}".encode(),
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "null": b"null",
    "NaN": b'{"id": NaN}',
    "a name twice": b'{"id": "evt_1", "id": "evt_2"}',
    "too deep": b'{"id":' * 5_000,
    "something else": f'{{"hello": "{PLANTED}"}}'.encode(),
}


@pytest.mark.parametrize("provider", OTHER)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_notification_is_refused(desk: Desk, provider: str, body: bytes) -> None:
    """Even if it is signed."""
    headers = {}
    if provider == "stripe" and body.isascii():
        headers = stripe_headers(body)
    refused(desk.shop, (provider, headers, body))


@pytest.mark.parametrize("provider", OTHER)
def test_a_body_too_large_is_not_even_read(desk: Desk, provider: str) -> None:
    """413; one of just the largest size is looked at. Webhooks may be larger than checkout's requests."""
    padding = json.dumps({"pad": PLANTED}).encode()
    refused(desk.shop, (provider, {}, padding.ljust(MAXIMUM_BODY_BYTES + 1)), 413, None)
    refused(desk.shop, (provider, {}, padding.ljust(MAXIMUM_BODY_BYTES)))
    number = intent("pi_large1", "att_large", "succeeded", description="x" * 200_000)
    large = stripe_letter("payment_intent.succeeded", number)
    if provider == "adyen":
        large = adyen_letter(*(item("REPORT_AVAILABLE") for _ in range(300)))
    assert len(large[2]) > 64 * 1024
    assert send(desk.shop, large).status_code == 200


# ---------------------------------------------------------------- secrets, card numbers


def test_without_a_secret_nobody_is_believed(shops: OpenShop) -> None:
    """Not the real stand-ins either, nor one that signs with nothing."""
    shop = shops()
    with letter_box(shop) as box:
        shop.pay()
        (letter,) = box.all_told()
    refused(shop, letter)
    refused(shop, ("stripe", stripe_headers(letter[2], secret=SANDBOX_STRIPE_WEBHOOK_SECRET), letter[2]))
    refused(shop, adyen_letter(item("AUTHORISATION")))
    assert shop.counts()["webhooks"] == 0


def with_card_number(provider: str, place: str) -> Letter:
    """A signed webhook of another system under the same account, with a card number somewhere."""
    if provider == "adyen":
        return adyen_letter(item("CAPTURE", **{place: PAN}))
    thing: dict[str, Any] = intent("pi_theirs", "theirs", "requires_action", client_secret="pi_secret")
    match place:
        case "metadata":
            thing["metadata"] = {"attempt": PAN}
        case "url":
            url = f"https://bank.example/{PAN}"
            thing["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
        case _:
            thing[place] = PAN
    return stripe_letter("payment_intent.requires_action", thing)


@pytest.mark.parametrize(
    ("provider", "place", "kept"),
    [
        ("adyen", "merchantReference", 0),
        ("adyen", "originalReference", 0),
        ("adyen", "pspReference", 0),
        ("adyen", "reason", 1),
        ("stripe", "metadata", 0),
        ("stripe", "client_secret", 1),
        ("stripe", "url", 1),
        ("stripe", "description", 1),
    ],
)
def test_a_card_number_in_a_webhook_is_neither_stored_nor_logged(
    desk: Desk, provider: str, place: str, kept: int
) -> None:
    """A field that is not kept does no harm, and what the customer is shown is kept without it. A notice that would
    carry it otherwise is dropped with an alert, and not asked for again: the good one beside it in the batch is kept.
    """
    letter = with_card_number(provider, place)
    before, logged_before = desk.shop.counts()["webhooks"], LOG.tell()
    if provider == "adyen":
        bad = json.loads(letter[2])["notificationItems"]
        letter, kept = adyen_letter(*bad, item("REPORT_AVAILABLE")), kept + 1
    assert send(desk.shop, letter).status_code == 200
    desk.read_notices()
    logged = LOG.getvalue()[logged_before:]
    stored = desk.shop.rows("SELECT * FROM webhooks")
    assert len(stored) == before + kept
    assert PAN not in repr(stored) + logged
    assert ("card_number_in_webhook" in logged) is (kept == (provider == "adyen"))
