"""One tree of spans a payment, as a collector receives it over HTTP; and its troubles are no payment's."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from providers.sandbox.server import Sandbox
from router.telemetry.traces import Tracing
from tests.integration.shop import Shop, open_shop, order
from tests.integration.transcripts import Desk, desk

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, kind)


def spans(collector: Desk) -> list[dict[str, Any]]:
    """Every span that was received, decoded, in the order of their beginnings."""
    found = []
    for body in collector.bodies:
        told = ExportTraceServiceRequest.FromString(body)
        for each in (span for kind in told.resource_spans for scope in kind.scope_spans for span in scope.spans):
            found.append(
                {
                    "name": each.name,
                    "trace": each.trace_id.hex(),
                    "span": each.span_id.hex(),
                    "parent": each.parent_span_id.hex(),
                    "began": each.start_time_unix_nano,
                    "error": each.status.code == 2,
                    "about": {every.key: _plain(every.value) for every in each.attributes},
                }
            )
    return sorted(found, key=lambda each: each["began"])


@pytest.fixture
def collector() -> Iterator[Desk]:
    """Where traces go: a real HTTP server."""
    with desk() as found:
        yield found


@contextlib.contextmanager
def traced_shop(collector_url: str, sandbox: Sandbox, folder: Path, **more: Any) -> Iterator[Shop]:
    """A router that sends its traces there."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    with open_shop(url, sandbox, folder, otlp_endpoint=collector_url, **more) as shop:
        yield shop


def test_a_trace_that_cannot_be_told_costs_no_payment_its_answer(
    collector: Desk, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider has answered by then: what it said is written, whatever becomes of the span."""

    def fault(_tracing: Tracing, _name: str, _value: Any) -> Any:
        msg = "a fault of ours"
        raise ValueError(msg)

    with traced_shop(collector.url, sandbox, tmp_path) as shop:
        monkeypatch.setattr(Tracing, "_scrubbed", fault)
        answer = shop.pay()
        assert (answer.status_code, (answer.json or {})["status"]) == (201, "captured")


def test_a_payment_is_one_tree_below_checkouts_own_span(collector: Desk, sandbox: Sandbox, tmp_path: Path) -> None:
    """The request, the decision with its reasons, each send, the commits; nothing of the merchant's secrets."""
    with traced_shop(collector.url, sandbox, tmp_path) as shop:
        one_token = {"payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa"}}}
        answer = shop.send(
            "POST",
            "/v1/payments",
            key="k-1",
            headers={"traceparent": TRACEPARENT, "X-Request-Id": "checkout-77"},
            json=order(**one_token),
        )
        assert answer.status_code == 201, answer.text
    told = spans(collector)
    assert {each["trace"] for each in told} == {TRACE}
    assert [each["name"] for each in told] == [
        "POST /v1/payments",
        "decision",
        "commit: created",
        "send: authorize",
        "commit: captured",
    ]
    root, *below = told
    assert root["parent"] == PARENT
    assert {each["parent"] for each in below} == {root["span"]}
    payment = (answer.json or {})["id"]
    assert (root["about"]["payment"], root["about"]["request"]) == (payment, "checkout-77")
    assert root["about"]["http.response.status_code"] == 201
    decision = below[0]["about"]
    assert decision["order"] == ["stripe"]
    assert decision["candidate.stripe.reasons"][0] == "primary"
    assert decision["candidate.adyen.eligible"] is False
    sent = below[2]["about"]
    assert (sent["provider"], sent["outcome"], sent["health"]) == ("stripe", "approved", "ok")
    assert sent["provider_reference"].startswith("pi_")
    assert "pm_card_visa" not in repr(told)


def test_a_failover_shows_each_providers_send(collector: Desk, sandbox: Sandbox, tmp_path: Path) -> None:
    """The one that failed and the one that took it, with its commit between them."""
    with traced_shop(collector.url, sandbox, tmp_path) as shop:
        shop.fault("stripe", "down")
        assert shop.pay().status_code == 201
    told = [each for each in spans(collector) if each["name"].startswith(("send", "commit"))]
    assert [(each["name"], each["about"].get("provider"), each["about"].get("outcome")) for each in told] == [
        ("commit: created", None, None),
        ("send: authorize", "stripe", "not_executed"),
        ("commit: attempt_started", None, None),
        ("send: authorize", "adyen", "approved"),
        ("commit: captured", None, None),
    ]
    assert told[1]["about"]["reason"] == "connection_refused"


def test_what_the_worker_does_later_joins_the_payments_trace(
    collector: Desk, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Parked in one trace, paid in it a moment later, by who knows the payment from the ledger alone."""
    with traced_shop(collector.url, sandbox, tmp_path, parked_retry_seconds=1) as shop:
        for provider in ("stripe", "adyen"):
            shop.fault(provider, "down")
        answer = shop.send("POST", "/v1/payments", key="k", headers={"traceparent": TRACEPARENT}, json=order())
        assert (answer.json or {})["status"] == "parked", answer.text
        shop.control("DELETE", "/control")
        again = shop.core.payments.retry_parked((answer.json or {})["id"])
        assert again is not None
        assert again.payment.status == "captured"
        shown = shop.read((answer.json or {})["id"])
        assert shown["status"] == "captured"
    told = spans(collector)
    sends = [each for each in told if each["name"] == "send: authorize" and each["about"]["outcome"] == "approved"]
    assert {each["trace"] for each in sends} == {TRACE}
    assert "commit: captured" in [each["name"] for each in told if each["trace"] == TRACE]


def test_a_share_of_payments_is_traced_and_checkouts_word_beats_it(
    collector: Desk, sandbox: Sandbox, tmp_path: Path
) -> None:
    """None of our own at 0; the one that checkout traces."""
    with traced_shop(collector.url, sandbox, tmp_path, otlp_sample=0.0) as shop:
        assert shop.pay().status_code == 201
        assert shop.send("POST", "/v1/payments", key="a", json=order()).status_code == 201
        headers = {"traceparent": TRACEPARENT}
        assert shop.send("POST", "/v1/payments", key="b", headers=headers, json=order()).status_code == 201
    assert {each["trace"] for each in spans(collector)} == {TRACE}


@pytest.mark.parametrize("trouble", ["away", "errors"])
def test_a_collector_in_trouble_costs_no_payment(
    collector: Desk, sandbox: Sandbox, tmp_path: Path, trouble: str
) -> None:
    """Refused connections, 500s: payments are taken as ever."""
    collector.answers[:] = [(500, b"", "text/plain")] * 50
    url = collector.url if trouble == "errors" else "http://127.0.0.1:9"
    with traced_shop(url, sandbox, tmp_path) as shop:
        assert [shop.pay().status_code for _ in range(3)] == [201] * 3


def test_where_traces_are_off_their_library_is_not_even_loaded() -> None:
    """In a process of its own, because this one has loaded it."""
    program = "import sys, router.app.web; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=100).returncode == 0
