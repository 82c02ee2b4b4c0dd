"""What is answered in front of Flask is what the views would have answered, byte for byte but for ids and times."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import Client, EnvironBuilder, TestResponse, run_wsgi_app

from router.api.quick import QuickDoors
from tests.integration.conftest import OpenShop
from tests.integration.shop import API_KEY, Shop, order

pytestmark = pytest.mark.either_database

NO_TOKENS = {"type": "card", "card": {"brand": "visa", "country": "DE", "funding": "credit"}}
GOOD = json.dumps(order(payment_method=NO_TOKENS)).encode()
KNOWN = f"Bearer {API_KEY}"


class Both:
    """One router, asked through its quick door and past it."""

    def __init__(self, shop: Shop) -> None:
        door = shop.app.extensions["pointsman_quick"]
        assert isinstance(door, QuickDoors)
        self._door = door
        self.passed_on = 0

        def views(environ: Any, start_response: Any) -> Any:
            self.passed_on += 1
            return door._views(environ, start_response)

        self._quick = Client(
            QuickDoors(
                views, door._doors, keys=door._keys, answered=lambda _view: lambda _began: None, ids=shop.core.ids
            )
        )
        self._views = Client(door._views)

    def ask(self, data: bytes, authorization: str | None, path: str = "/v1/decisions", **more: Any) -> TestResponse:
        """The answer, which is the same both ways."""
        headers = {} if authorization is None else {"Authorization": authorization}
        answers = [
            client.open(path, method=more.get("method", "POST"), data=data, headers=headers, content_type=kind)
            for client in (self._quick, self._views)
            for kind in ("application/json",)
        ]
        quick, plain = answers
        assert quick.status_code == plain.status_code
        own = {name: quick.headers[name] for name in ("Content-Length", "X-Request-Id")}
        assert dict(quick.headers) == dict(plain.headers) | own
        assert told(quick) == told(plain)
        return quick


def told(answer: TestResponse) -> Any:
    body = answer.get_json(force=True)
    assert answer.data == (json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n").encode() or (
        answer.status_code != 200
    )
    return {name: value for name, value in body.items() if name not in ("id", "expires_at")}


@pytest.fixture
def both(shop: Shop) -> Both:
    return Both(shop)


def test_a_usual_decision_is_answered_without_the_views(both: Both) -> None:
    answer = both.ask(GOOD, KNOWN)
    assert answer.status_code == 200
    assert answer.json
    assert answer.json["order"]
    assert both.passed_on == 0


@pytest.mark.parametrize(
    ("data", "authorization", "status"),
    [
        (GOOD, None, 401),
        (GOOD, "Bearer nobody's", 401),
        (GOOD, f"Basic {API_KEY}", 401),
        (b"", KNOWN, 400),
        (b"[]", KNOWN, 400),
        (b"{", KNOWN, 400),
        (b'{"amount": 1, "amount": 2}', KNOWN, 400),
        (b"{}", KNOWN, 422),
        (GOOD.replace(b"EUR", b"XXX"), KNOWN, 422),
        (json.dumps(order(reference="4111 1111 1111 1111")).encode(), KNOWN, 422),
        (json.dumps(order(payment_method=NO_TOKENS, expires_at="2001-01-01T00:00:00Z")).encode(), KNOWN, 422),
        (b" " * 70_000, KNOWN, 413),
        (b"\xef\xbb\xbf" + GOOD, KNOWN, 400),
        (GOOD.decode().encode("utf-16"), KNOWN, 400),
        (GOOD.replace(b"ORD", b"\xff"), KNOWN, 400),
        (GOOD.replace(b"ORD", b"\\ud800"), KNOWN, 422),
        (GOOD.replace(b"1999", b"NaN"), KNOWN, 400),
        (GOOD.replace(b"1999", b"1e400"), KNOWN, 422),
        (GOOD.replace(b"1999", b"9" * 5000), KNOWN, 400),
        (GOOD + b"{}", KNOWN, 400),
        (b"[" * 30_000, KNOWN, 400),
        (GOOD.replace(b'"brand"', b'"country": "FR", "brand"'), KNOWN, 400),
        (GOOD.replace(b"cus_1", b"4111\\n 1111\\n 1111\\n 1111"), KNOWN, 422),
        (GOOD.replace(b"cus_1", b"4111 +1111 +1111 +1111"), KNOWN, 422),
    ],
)
def test_what_is_refused_is_refused_by_the_views(
    both: Both, data: bytes, authorization: str | None, status: int
) -> None:
    assert both.ask(data, authorization).status_code == status
    assert both.passed_on == 1


def test_another_path_method_or_query_is_the_views(both: Both) -> None:
    assert both.ask(b"{}", KNOWN, "/v1/nothing").status_code == 404
    assert both.ask(b"", KNOWN, method="GET").status_code == 405
    assert both.ask(GOOD, KNOWN, "/v1/decisions?card=4111111111111111").status_code == 422
    assert both.passed_on == 3


def test_a_key_without_the_scope_is_refused(shop: Shop) -> None:
    shop.add_key("reader", merchant="shop", scopes=("reports",))
    both = Both(shop)
    assert both.ask(GOOD, "Bearer reader").status_code == 403
    assert both.ask(GOOD, "Bearer reader").status_code == 403  # remembered by now
    assert both.passed_on == 2


def test_a_key_of_the_ledger_is_quick_once_it_is_known(shop: Shop) -> None:
    shop.add_key("till", merchant="shop")
    both = Both(shop)
    assert both.ask(GOOD, "Bearer till").status_code == 200
    assert both.passed_on == 1
    assert both.ask(GOOD, "Bearer till").status_code == 200
    assert both.passed_on == 1


class Untouched:
    """A body that nobody may wait for."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError(f"{size} bytes were read")


@pytest.mark.parametrize("authorization", ["", "Bearer nobody's", "Bearer reader"])
def test_no_body_is_waited_for_before_its_key_is_known(shop: Shop, authorization: str) -> None:
    """Else whoever sends half a body, without a key, holds a thread for as long as he likes."""
    shop.add_key("reader", merchant="shop", scopes=("reports",))
    shop.app.test_client().get("/v1/reports", headers={"Authorization": "Bearer reader"})  # remembered by now
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/decisions",
        "CONTENT_LENGTH": "999",
        "HTTP_AUTHORIZATION": authorization,
        "wsgi.input": Untouched(),
    }
    answer = run_wsgi_app(shop.app.wsgi_app, {**EnvironBuilder().get_environ(), **environ})
    assert answer[1].split()[0] in ("401", "403")


def test_the_quick_door_is_behind_the_bound_for_late_bodies(shop: Shop) -> None:
    """So that a key's late bodies are counted here as well, and refused in the same words."""
    seen: list[str] = []

    class Body:
        def read(self, size: int = -1) -> bytes:
            if len(seen) < 100:
                seen.append(ask())
            return GOOD[:size]

    def ask() -> str:
        builder = EnvironBuilder("/v1/decisions", method="POST", headers=Headers({"Authorization": KNOWN}))
        environ: dict[str, Any] = {**builder.get_environ(), "CONTENT_LENGTH": str(len(GOOD)), "wsgi.input": Body()}
        return run_wsgi_app(shop.app.wsgi_app, environ)[1].split()[0]

    assert ask() == "200"
    assert seen[0] == "503"
    assert set(seen[1:]) == {"200"}
    assert len(seen) < 50


def test_a_refused_decision_counts_once_against_its_key_s_rate(shops: OpenShop) -> None:
    """One that is tried here and refused by its view is one request."""
    shop = shops(rate_per_key=0.1, rate_burst_seconds=20.0)
    late = order(payment_method=NO_TOKENS, expires_at="2001-01-01T00:00:00Z")
    asked = [shop.send("POST", "/v1/decisions", json=late).status_code for _ in range(3)]
    assert asked == [422, 422, 429]


def test_no_key_is_no_key_whatever_the_house_s_is(shop: Shop) -> None:
    door = shop.app.extensions["pointsman_quick"]
    assert door._keys.remembered("") is None
