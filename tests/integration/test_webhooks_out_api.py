"""Webhook endpoints over the API: made, watched, rotated, stopped and ended by operators of their merchant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.app.core import Core
from router.app.loops import create_worker
from router.loops import Loops
from router.webhooks_out import EVENT_ID
from tests.integration.conftest import OpenShop
from tests.integration.shop import LOG, Shop
from tests.unit.webhook_receiver import Receiver, until

pytestmark = pytest.mark.either_database

PATH = "/v1/webhook-endpoints"
OPEN: dict[str, Any] = {"webhook_allow_http": True, "webhook_allow_private": "127.0.0.0/8"}


def _worker(core: Core) -> Loops:
    loops = create_worker(core)
    loops.start()
    return loops


def test_checkout_is_told_of_its_payments_by_a_worker(shops: OpenShop) -> None:
    """From the API to the endpoint's socket and back into the record; nothing of card, token or metadata is told."""
    shop = shops(**OPEN)
    receiver = Receiver()
    loops = _worker(shop.core)
    try:
        made = shop.send("POST", PATH, json={"url": f"{receiver.url}/in", "description": "the shop"})
        assert made.status_code == 201, made.text
        endpoint = made.get_json()
        assert endpoint["secret"].startswith("whsec_")
        paid = shop.pay(metadata={"cart": "secret-cart"}).get_json()
        types = ["pointsman.payment.created", "pointsman.payment.captured"]
        until(lambda: len(receiver.requests) >= len(types), within_s=30)
        told = [json.loads(body) for _, _, body in receiver.requests]
        assert [each["type"] for each in told] == types
        assert {each["subject"] for each in told} == {paid["id"]}
        names = [{name.lower(): value for name, value in headers.items()} for _, headers, _ in receiver.requests]
        assert [each[EVENT_ID.lower()] for each in names] == [each["id"] for each in told]
        everything = b"".join(body for _, _, body in receiver.requests)
        for private in (b"secret-cart", b"pm_card", b"cus_1", b"8415", b"card-", b"visa"):
            assert private not in everything

        def accepted() -> list[dict[str, Any]]:
            answer = shop.send("GET", f"{PATH}/{endpoint['id']}/deliveries?state=accepted")
            found: list[dict[str, Any]] = answer.get_json()["deliveries"]
            return found

        until(lambda: len(accepted()) == len(types), within_s=30)
        assert [each["event_id"] for each in accepted()] == [each["id"] for each in reversed(told)]
        assert {(each["attempts"], each["last_status"], each["last_reason"]) for each in accepted()} == {
            (1, 200, None)
        }
        assert shop.send("GET", f"{PATH}/{endpoint['id']}/deliveries?state=pending").get_json()["deliveries"] == []
        assert "secret" not in shop.send("GET", PATH).get_json()["endpoints"][0]
        assert endpoint["secret"] not in LOG.getvalue()
        assert receiver.url not in LOG.getvalue()
    finally:
        loops.stop(20)
        receiver.close()


def test_the_life_of_an_endpoint(standing_shop: Shop) -> None:
    """List, read, rotate, disable, enable, resend, delete."""
    shop = standing_shop
    key = shop.add_key("operator-of-hooks", merchant="hooks", scopes=("operate",))

    def ask(method: str, path: str = "", **more: Any) -> Any:
        return shop.send(method, PATH + path, api_key=key, **more)

    types = ["pointsman.payment.captured"]
    made = ask("POST", json={"url": "https://shop.example/in", "event_types": types}).get_json()
    one = f"/{made['id']}"
    assert ask("GET").get_json() == {"endpoints": [{k: v for k, v in made.items() if k != "secret"}], "next": None}
    assert ask("GET", one).get_json()["event_types"] == types
    rotated = ask("POST", f"{one}/rotate-secret").get_json()
    assert rotated["secret"] not in (made["secret"], None)
    assert rotated["old_secret_until"] is not None
    off = ask("POST", f"{one}/disable", json={"reason": "moving"}).get_json()
    assert (off["state"], off["cause"]) == ("disabled", "moving")
    on = ask("POST", f"{one}/enable").get_json()
    assert (on["state"], on["cause"]) == ("enabled", None)
    assert ask("POST", f"{one}/resend", json={"since": "2026-01-01T00:00:00+01:00"}).status_code == 202
    assert shop.send("GET", PATH + one).status_code == 404  # another merchant's key
    assert ask("DELETE", one).status_code == 204
    assert (ask("GET", one).status_code, ask("DELETE", one).status_code) == (404, 404)
    assert ask("GET").get_json()["endpoints"] == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"url": "http://shop.example/in"}, "url"),
        ("", {"url": "https://127.0.0.1/in"}, "url"),
        ("", {"url": "https://[::ffff:10.0.0.1]/in"}, "url"),
        ("", {"url": "https://name:word@shop.example/"}, "url"),
        ("", {"url": "https://shop.example/in", "event_types": ["payment.captured"]}, "event_types"),
        ("", {"url": "https://shop.example/in", "more": 1}, "more"),
        ("", {}, "url"),
        ("/whe_none/rotate-secret", {"old_secret_hours": 1000}, "old_secret_hours"),
        ("/whe_none/resend", {"since": "yesterday"}, "since"),
        ("/whe_none/resend", {"since": "2999-01-01T00:00:00Z"}, "since"),
    ],
)
def test_what_is_wrong_is_named(standing_shop: Shop, path: str, body: dict[str, Any], field: str) -> None:
    """Never with its value."""
    answer = standing_shop.send("POST", PATH + path, json=body)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json"), answer.text
    problem = answer.get_json(force=True)
    assert [each["field"] for each in problem["errors"]] == [field]
    assert not [value for value in body.values() if isinstance(value, str) and value in answer.text]


def test_only_operators_may(standing_shop: Shop) -> None:
    """A key for payments neither sees nor makes endpoints; a card number in an address is refused."""
    key = standing_shop.add_key("payer-of-hooks", merchant="default")
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/whe_1"), ("GET", "/whe_1/deliveries")):
        assert standing_shop.send(method, PATH + path, api_key=key, json={}).status_code == 403
        assert standing_shop.send(method, PATH + path, api_key=None, json={}).status_code == 401
    answer = standing_shop.send("POST", PATH, json={"url": "https://shop.example/4111111111111111"})
    assert answer.get_json(force=True)["type"].endswith("card-number-refused")
    assert standing_shop.send("GET", f"{PATH}/whe_none").status_code == 404
