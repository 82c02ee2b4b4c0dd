"""Each answer carries its request's id, and each payment leaves one line in the log, with the ids that lead to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.api.request_ids import given_id, trace_of
from tests.integration.shop import LOG, Shop, order

pytestmark = pytest.mark.either_database

PAN = "4111111111111111"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def lines(since: int) -> list[dict[str, Any]]:
    """What was logged of requests from there on; circuits and flags are followed meanwhile."""
    told = [json.loads(line) for line in LOG.getvalue()[since:].splitlines()]
    return [line for line in told if "request" in line]


def test_a_payment_leaves_one_line_with_its_ids(standing_shop: Shop, sandbox: Any) -> None:
    """Nothing of the merchant's data, no token."""
    since = LOG.tell()
    headers = {"X-Request-Id": "checkout-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    body = order()
    answer = standing_shop.send("POST", "/v1/payments", key="line-1", headers=headers, json=body)
    payment = answer.json or {}
    (line,) = [each for each in lines(since) if each["event"] == "payment"]
    assert line.pop("latency_ms") >= 0
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "payment",
        "level": "info",
        "payment": payment["id"],
        "merchant": "default",
        "status": "captured",
        "currency": "EUR",
        "provider": "stripe",
        "attempts": 1,
        "decline": None,
        "replayed": False,
        "request": "checkout-1",
        "trace": TRACE,
    }
    assert answer.headers["X-Request-Id"] == "checkout-1"
    assert body["reference"] not in LOG.getvalue()[since:]


def test_a_decline_is_a_line_like_any_other(standing_shop: Shop, sandbox: Any) -> None:
    """With its code, and no error."""
    since = LOG.tell()
    standing_shop.fault("stripe", "decline", decline_code="insufficient_funds")
    assert standing_shop.pay().status_code == 201
    (line,) = lines(since)
    assert (line["event"], line["level"], line["status"], line["decline"]) == (
        *("payment", "info", "declined"),
        "insufficient_funds",
    )


@pytest.mark.parametrize("path", ["/v1/payments/nothing", "/v1/nothing", "/healthz", "/nothing"])
def test_every_answer_has_an_id_and_no_two_the_same(standing_shop: Shop, path: str) -> None:
    """Refusals too: it is what a merchant quotes."""
    found = [standing_shop.send("GET", path).headers["X-Request-Id"] for _ in range(2)]
    assert found[0] != found[1]
    assert all(each.startswith("req_") for each in found)


def test_an_id_is_one_requests_alone(standing_shop: Shop, sandbox: Any) -> None:
    """The next request on the same thread does not log under it."""
    standing_shop.send("POST", "/v1/payments", key="one", headers={"X-Request-Id": "first"}, json=order())
    since = LOG.tell()
    standing_shop.send("POST", "/v1/payments", key="two", json=order())
    (line,) = lines(since)
    assert line["request"].startswith("req_")
    assert "trace" not in line


@pytest.mark.parametrize(
    "header",
    [
        *(PAN, f"a-{PAN}", "4111-1111-1111-1111", "4111.1111.1111.1111", "4111_1111_1111_1111", "x" * 65, "", "a b"),
        *("a\nb", "é", "<script>", "sk_" + "live_abc", "pm_abc", "-x", "../x"),
    ],
)
def test_an_id_that_no_log_may_hold_is_not_taken_over(header: str) -> None:
    """Card numbers, keys, what is too long, what could forge a line."""
    assert given_id(header) is None


@pytest.mark.parametrize("header", ["a", "checkout-77", "0af7651916cd43dd8448eb211c80319c", "req_01.x", "9" * 12])
def test_an_id_of_the_callers_own_is_kept(header: str) -> None:
    """It is how two services' logs are read together."""
    assert given_id(header) == header


def test_a_trace_is_taken_from_a_right_header_only() -> None:
    """W3C Trace Context: all zeros, version ff and wrong lengths are none."""
    assert trace_of(f"00-{TRACE}-b7ad6b7169203331-01") == TRACE
    assert trace_of(f"cc-{TRACE}-b7ad6b7169203331-01-more") == TRACE
    wrong = [None, "", TRACE, f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-{'0' * 16}-01"]
    wrong += [f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE.upper()}-b7ad6b7169203331-01", f"00-{TRACE}x-b7-01"]
    assert [trace_of(each) for each in wrong] == [None] * len(wrong)
