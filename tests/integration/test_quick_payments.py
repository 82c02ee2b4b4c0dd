"""A payment is answered in front of Flask as its view would answer it, and what went wrong there happens once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from werkzeug.test import Client, TestResponse

from router.api import views
from router.api.quick import QuickDoors
from router.payments import Payments
from tests.integration.conftest import OpenShop
from tests.integration.shop import ABSENT, API_KEY, HANG_READ_TIMEOUT_S, LOG, Shop, order, paying_with

pytestmark = pytest.mark.either_database

TRACE = "0af7651916cd43dd8448eb211c80319c"
PAN = "4111 1111 1111 1111"
GOOD = json.dumps(order(reference="ORD-GOOD")).encode()


class Both:
    """One router, asked through its door (the whole application) and past it (the views alone)."""

    def __init__(self, shop: Shop) -> None:
        door = shop.app.extensions["pointsman_quick"]
        assert isinstance(door, QuickDoors)
        self.shop, self._door = shop, door
        self._inner = door._views
        self._whole, self._plain = Client(shop.app.wsgi_app), Client(door._views)
        self.passed_on = 0

        def passing(environ: Any, start_response: Any) -> Any:
            self.passed_on += 1
            return self._inner(environ, start_response)

        door._views = passing

    def undo(self) -> None:
        """Leave the router as it was."""
        self._door._views = self._inner

    def quick(self, body: Any, key: str | None, **more: Any) -> TestResponse:
        """Through the door; what it bound to the thread is gone afterwards."""
        answer = self._ask(self._whole, body, key, **more)
        assert structlog.contextvars.get_contextvars() == {}
        return answer

    def plain(self, body: Any, key: str | None, **more: Any) -> TestResponse:
        """Past it."""
        return self._ask(self._plain, body, key, **more)

    def same(self, body: Any, key: str | None, **more: Any) -> TestResponse:
        """The answer, which is the same both ways: status, headers and bytes."""
        quick, plain = (ask(body, key, **more) for ask in (self.quick, self.plain))
        assert whole(quick) == whole(plain)
        return quick

    @staticmethod
    def _ask(
        client: Client, body: Any, key: str | None, *, api_key: str | None = API_KEY, **more: Any
    ) -> TestResponse:
        headers = {"X-Request-Id": "checkout-1", "Idempotency-Key": key, "Authorization": f"Bearer {api_key}"}
        headers |= more.pop("headers", {})
        given = {name: value for name, value in headers.items() if value is not None}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, method = more.pop("path", "/v1/payments"), more.pop("method", "POST")
        return client.open(path, method=method, data=data, headers=given, content_type="application/json", **more)


def whole(answer: TestResponse, *without: str) -> tuple[str, list[tuple[str, str]], bytes]:
    return answer.status, sorted(each for each in answer.headers if each[0] not in without), answer.data


def kind(answer: TestResponse) -> str:
    return str(answer.get_json(force=True)["type"]).rpartition(":")[2]


def lines(since: int) -> list[dict[str, Any]]:
    return [each for each in map(json.loads, LOG.getvalue()[since:].splitlines()) if each["event"] != "flag_changed"]


@pytest.fixture
def both(shop: Shop) -> Both:
    return Both(shop)


@pytest.fixture
def standing(standing_shop: Shop, sandbox: Any) -> Iterator[Both]:
    """For requests that make nothing."""
    both = Both(standing_shop)
    before = standing_shop.counts()
    yield both
    both.undo()
    assert standing_shop.counts() == before


# ---------------------------------------------------------------- what is answered here


@pytest.mark.parametrize(
    ("changed", "faults", "status", "becomes"),
    [
        ({}, {}, 201, "captured"),
        ({"capture": "manual"}, {}, 201, "authorized"),
        ({"reference": "Größe ✓ \u2014"}, {}, 201, "captured"),
        ({"payment_method": paying_with(stripe="pm_card_threeDSecure2Required")}, {}, 201, "requires_action"),
        ({}, {"stripe": {"mode": "decline", "decline_code": "stolen_card"}}, 201, "declined"),
        ({}, {"stripe": {"mode": "down"}}, 201, "captured"),
        ({}, {"stripe": {"mode": "down"}, "adyen": {"mode": "down"}}, 202, "parked"),
        ({}, {"stripe": {"mode": "hang"}}, 202, "processing"),
    ],
)
def test_whoever_made_it_the_other_way_answers_the_same(
    shops: OpenShop, changed: Any, faults: dict[str, Any], status: int, becomes: str
) -> None:
    """Made through the door and read again by the view, and the other way round: the same bytes and headers."""
    both = Both(shops(read_timeout_seconds=HANG_READ_TIMEOUT_S, deadline_seconds=1.5))
    for provider, fault in faults.items():
        both.shop.fault(provider, **fault)
    for make, read in ((both.quick, both.plain), (both.plain, both.quick)):
        body, key = order(**changed, allow_repeat_reference=True), f"key-{make.__name__}"
        since = LOG.tell()
        made = make(body, key, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        (line,) = [each for each in lines(since) if each["event"] == "payment"]
        told = made.get_json()
        assert (made.status_code, told["status"]) == (status, becomes), made.text
        assert dict(made.headers) == {
            "Content-Type": "application/json",
            "Content-Length": str(len(made.data)),
            "Cache-Control": "no-store",
            "Location": f"/v1/payments/{told['id']}",
            "X-Request-Id": "checkout-1",
        }
        assert (line["payment"], line["request"], line["trace"], line["replayed"]) == (
            *(told["id"], "checkout-1", TRACE),
            False,
        )
        assert line["latency_ms"] > 0
        again = read(body, key)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert whole(again, "Idempotent-Replayed") == whole(made)
        both.same(body, key)
    assert both.passed_on == 0


def test_each_is_counted_once_in_the_figures(both: Both) -> None:
    def counted(status: str) -> float:
        page = both.shop.send("GET", "/metrics", api_key=None).text
        line = r'^pointsman_http_requests(?:_total)?\{endpoint="payments.create_payment",status="%s"\} (\S+)$'
        return sum(map(float, re.findall(line % status, page, re.MULTILINE)))

    body = order()
    assert [both.quick(body, each).status_code for each in ("k", "k", "other", "")] == [201, 201, 409, 400]
    assert both.passed_on == 2
    assert (counted("2xx"), counted("4xx")) == (2, 2)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "key", "more", "status"),
    [
        (GOOD, None, {}, 400),
        (GOOD, "", {}, 400),
        (GOOD, "a b", {}, 400),
        (GOOD, "é", {}, 400),
        (GOOD, "x" * 256, {}, 400),
        (GOOD, PAN.replace(" ", "-"), {}, 422),
        (GOOD, "k", {"api_key": "nobodys"}, 401),
        (GOOD, "k", {"api_key": ""}, 401),
        (GOOD, "k", {"headers": {"Authorization": f"Basic {API_KEY}"}}, 401),
        (b"", "k", {}, 400),
        (b"[]", "k", {}, 400),
        (b"{", "k", {}, 400),
        (b"{}", "k", {}, 422),
        (GOOD + b"{}", "k", {}, 400),
        (GOOD.replace(b"1999", b'1999, "amount": 1'), "k", {}, 400),
        (GOOD.replace(b"1999", b"-1"), "k", {}, 422),
        (GOOD.replace(b"1999", b"NaN"), "k", {}, 400),
        (GOOD.replace(b"EUR", b"XXX"), "k", {}, 422),
        (GOOD.replace(b"ORD-GOOD", PAN.encode()), "k", {}, 422),
        (GOOD.replace(b"ORD", b"\xff"), "k", {}, 400),
        (b" " * 70_000, "k", {}, 413),
        (order(unknown=1), "k", {}, 422),
        (order(reference=ABSENT), "k", {}, 422),
        (order(payment_method=paying_with(nobody="tok")), "k", {}, 422),
        (order(expires_at="2001-01-01T00:00:00Z"), "k", {}, 422),
        (GOOD, "k", {"path": f"/v1/payments?card={PAN}"}, 422),
        (GOOD, "k", {"path": "/v1/payments/"}, 404),
        (GOOD, "k", {"method": "PUT"}, 405),
        (GOOD, "k", {"environ_overrides": {"CONTENT_LENGTH": str(len(GOOD) + 1)}}, 400),
        (GOOD, "k", {"environ_overrides": {"CONTENT_LENGTH": ""}}, 400),
    ],
)
def test_what_is_refused_is_refused_by_the_view(standing: Both, body: Any, key: Any, more: Any, status: int) -> None:
    since = LOG.tell()
    answer = standing.same(body, key, **more)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    assert standing.passed_on == 1
    assert "1111" not in answer.text + str(answer.headers) + LOG.getvalue()[since:]


def test_all_unavailable_is_said_by_the_view(both: Both) -> None:
    for provider in ("stripe", "adyen"):
        both.shop.fault(provider, "down")
    answer = both.same(order(when_unavailable="fail"), "k")
    assert (answer.status_code, kind(answer), both.passed_on) == (503, "providers-unavailable", 1)
    assert int(answer.headers["Retry-After"]) > 0


def test_a_reference_in_use_and_a_key_used_otherwise(both: Both) -> None:
    body = order()
    made = both.quick(body, "one").get_json()
    in_use = both.same(body, "two")
    assert (in_use.status_code, kind(in_use)) == (409, "reference-in-use")
    assert in_use.get_json(force=True)["payment_id"] == made["id"]
    otherwise = both.same(body | {"amount": 1}, "one")
    assert (otherwise.status_code, kind(otherwise), both.passed_on) == (422, "idempotency-key-reused", 2)
    assert len(both.shop.charged(body["reference"])) == 1


def test_only_a_key_that_may_pay_pays_and_for_its_own_merchant(both: Both) -> None:
    for name, scopes in (("till", ("payments",)), ("desk", ("operate", "reports"))):
        both.shop.add_key(name, merchant="books", scopes=scopes)
        both.plain(b"{}", "k", api_key=name)  # remembered by now
    body = order()
    assert both.same(body, "k", api_key="desk").status_code == 403
    made = both.quick(body, "k", api_key="till")
    assert (made.status_code, both.passed_on) == (201, 1)
    assert both.shop.rows("SELECT merchant FROM payments") == [{"merchant": "books"}]
    assert both.quick(body, "k").get_json()["id"] != made.get_json()["id"]  # that key is another merchant's


# ---------------------------------------------------------------- limits, and what went wrong


def test_what_the_view_refuses_counts_once_against_the_keys_rate(shops: OpenShop) -> None:
    both = Both(shops(rate_per_key=0.1, rate_burst_seconds=30.0))
    body = order()
    assert [both.quick(body, each).status_code for each in ("a", "b", "c")] == [201, 409, 409]
    assert both.passed_on == 2
    # Three at once it has; then for three times what was made is still told, and nothing is made.
    before = both.shop.counts()
    beyond = [both.quick(body, each) for each in ("d", "a", "a", "a")]
    assert [each.status_code for each in beyond] == [429, 201, 201, 429]
    assert beyond[1].headers["Idempotent-Replayed"] == "true"
    assert beyond[3].get_json(force=True)["limit"] == "rate"
    assert both.shop.counts() == before


def test_what_the_view_refuses_counts_once_against_the_merchants_quota(shops: OpenShop) -> None:
    both = Both(shops(quota_floor_per_minute=12))
    body = order()
    assert [both.quick(body, "a").status_code for _ in range(9)] == [201] * 9  # a replay counts not
    assert [both.quick(body, each).status_code for each in ("b", "c")] == [409, 409]
    assert both.quick(order(), "d").status_code == 201
    before = both.shop.counts()
    refused = both.quick(order(), "e")
    assert (refused.status_code, refused.get_json(force=True)["limit"], both.passed_on) == (429, "quota", 3)
    assert int(refused.headers["Retry-After"]) >= 1
    assert 'reason="quota"} 1.0' in both.shop.send("GET", "/metrics", api_key=None).text
    assert both.quick(body, "a").headers["Idempotent-Replayed"] == "true"
    assert both.shop.counts() == before


def test_a_fault_is_met_once_and_told_once(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fails(*_: Any, key: str, **__: Any) -> Any:
        asked.append(key)
        structlog.get_logger("router.payments").info("asked")
        raise KeyError(PAN)

    monkeypatch.setattr(Payments, "create", fails)
    since = LOG.tell()
    answer = both.quick(order(), "k", headers={"X-Request-Id": None})
    assert (answer.status_code, kind(answer), asked) == (500, "internal-error", ["k"])
    told = lines(since)
    assert [each["event"] for each in told] == ["asked", "fault"]
    assert {each["request"] for each in told} == {answer.headers["X-Request-Id"]}
    assert "in fails" in told[1]["exception"]
    assert PAN not in LOG.getvalue()[since:] + answer.text


def test_an_answer_that_cannot_be_worded_charges_once(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_answer: Any) -> Any:
        raise RuntimeError

    body = order()
    with monkeypatch.context() as patch:
        patch.setattr(views, "payment_json", fails)
        assert both.quick(body, "k").status_code == 500
    assert both.passed_on == 1
    assert len(both.shop.charged(body["reference"])) == 1
    assert both.same(body, "k").get_json()["status"] == "captured"


def test_what_ends_the_thread_leaves_nothing_behind(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    class EndedError(BaseException):
        pass

    def ends(*_: Any, **__: Any) -> Any:
        raise EndedError

    monkeypatch.setattr(Payments, "create", ends)
    with pytest.raises(EndedError):
        both.quick(order(), "k")
    assert (structlog.contextvars.get_contextvars(), both.passed_on) == ({}, 0)
