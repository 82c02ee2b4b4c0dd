"""An operator's hand on a circuit, and what on-call sees of it: `/v1/providers`, over both databases."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import pytest
from werkzeug.test import TestResponse

from providers.contract import Health, Timeouts
from router.api.operator_views import ProviderList, ProviderView, TransitionList, TransitionView
from router.clock import SystemClock
from router.ledger.circuits import CircuitLedger
from router.ledger.probes import ProbeLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.recovery import Recovery
from router.transitions import State, Transition, following
from tests.fakes.house import teach
from tests.integration.conftest import OpenShop, Witness
from tests.integration.shop import ABSENT, LOG, Shop
from tests.unit.webhook_receiver import until

pytestmark = pytest.mark.either_database

JSON = "application/json"
WHY = "fraud wave, ticket OPS-77"
STATES = {"forced_open": "forced_open", "bypass": "bypass", "metrics_only": "metrics_only"}


def send_order(
    shop: Shop, mode: Any, *, provider: str = "stripe", api_key: str | None = None, **more: Any
) -> TestResponse:
    """`POST /v1/providers/{name}/breaker`, with a reason unless one is given."""
    body = {name: value for name, value in ({"mode": mode, "reason": WHY} | more).items() if value is not ABSENT}
    keys = {} if api_key is None else {"api_key": api_key}
    return shop.send("POST", f"/v1/providers/{provider}/breaker", data=json.dumps(body), content_type=JSON, **keys)


def ordered(shop: Shop, mode: str, **more: Any) -> dict[str, Any]:
    answer = send_order(shop, mode, **more)
    assert answer.status_code == 200, answer.text
    body = dict(answer.json or {})
    TransitionView.model_validate(body)
    return body


def shown(shop: Shop, provider: str = "stripe") -> dict[str, Any]:
    """A provider as `GET /v1/providers` shows it."""
    body = shop.send("GET", "/v1/providers").json or {}
    ProviderList.model_validate(body)
    return next(each for each in body["providers"] if each["name"] == provider)


def rows(shop: Shop, provider: str = "stripe") -> list[dict[str, Any]]:
    query = "SELECT * FROM circuit_transitions WHERE provider = :provider ORDER BY version"
    return shop.rows(query, provider=provider)


def moved(shop: Shop, *states: State, provider: str = "stripe") -> Transition:
    """Move a circuit as the machine does, and let this process follow."""
    ledger = CircuitLedger(shop.core.database)
    for state in states:
        last = next(iter(ledger.latest([provider])), None)
        transition = following(
            last,
            state,
            provider=provider,
            at=shop.core.clock.now(),
            actor="worker:test",
            reason=f"to {state.value}",
            share=0.1 if state is State.SLOW_START else 1.0,
        )
        assert ledger.append(transition)
    shop.core.health.sync_once()
    return transition


def candidate(payment: Mapping[str, Any], provider: str = "stripe") -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in payment["decision"]["candidates"] if each["provider"] == provider)
    return found


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize("mode", STATES)
def test_an_order_is_in_force_at_once_and_on_record_with_who_and_why(shop: Shop, mode: str) -> None:
    """In the answer, in the ledger, on the page, and in the process that took it."""
    logged_before = LOG.tell()
    key = shop.add_key("key-of-ann", merchant="shop", scopes=("operate",))
    until = (shop.core.clock.now() + dt.timedelta(hours=1)).replace(microsecond=0)
    there = until.astimezone(dt.timezone(dt.timedelta(hours=2)))
    told = ordered(shop, mode, until=there.isoformat(), api_key=key)
    by, ends = "operator: test of shop", until.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert (told["provider"], told["version"], told["state"]) == ("stripe", 1, STATES[mode])
    assert (told["by"], told["reason"], told["until"]) == (by, WHY, ends)
    assert shop.core.health.snapshot("stripe").state.value == STATES[mode]
    (row,) = rows(shop)
    assert (row["state"], row["actor"], row["reason"]) == (STATES[mode], by, WHY)
    assert row["until"] == round(until.timestamp() * 1e6)
    page = shown(shop)
    assert (page["state"], page["by"], page["reason"], page["until"]) == (STATES[mode], by, WHY, ends)
    assert shown(shop, "adyen")["state"] == "closed"
    assert f'"mode": "{mode}"' in LOG.getvalue()[logged_before:], "whoever watches the log sees it too"


def test_a_reset_closes_an_open_circuit_and_is_on_record(shop: Shop) -> None:
    """At once, and payments go there again."""
    moved(shop, State.OPEN)
    body = ordered(shop, "reset")
    assert (body["state"], body["reason"], body["until"]) == ("closed", WHY, None)
    assert shown(shop)["state"] == "closed"
    assert rows(shop)[-1]["state"] == "closed"
    assert send_order(shop, "reset", until="2099-01-01T00:00:00Z").status_code == 422


def test_what_would_have_opened_is_shown_while_it_stands(shop: Shop) -> None:
    """In metrics-only; null everywhere else."""
    assert shown(shop)["would_have_opened"] is None
    ordered(shop, "metrics_only")
    for _ in range(10):
        teach(shop.core.health, Health.PROVIDER_ERROR, 1)
    would_have = shown(shop)["would_have_opened"]
    assert would_have["reason"] == "10 of the last 10 calls failed"
    assert (
        dt.timedelta() <= shop.core.clock.now() - dt.datetime.fromisoformat(would_have["at"]) < dt.timedelta(hours=1)
    )
    ordered(shop, "reset")
    assert shown(shop)["would_have_opened"] is None


def test_an_order_without_an_end_has_none(shop: Shop) -> None:
    """And one given through the key from the settings names that."""
    told = ordered(shop, "forced_open")
    assert (told["until"], told["by"]) == (None, "operator: bootstrap key of default")
    assert shown(shop)["until"] is None


def test_the_same_order_twice_is_one_row_and_one_answer(shop: Shop) -> None:
    """A client that lost the first answer asks again."""
    assert ordered(shop, "bypass") == ordered(shop, "bypass")
    assert len(rows(shop)) == 1
    ordered(shop, "bypass", reason="another reason")
    assert [row["reason"] for row in rows(shop)] == [WHY, "another reason"]


def test_every_process_follows_an_order(shops: OpenShop) -> None:
    """Given to one, it holds in the other after its next look at the ledger."""
    first, second = shops(), shops()
    ordered(first, "forced_open")
    second.core.health.sync_once()
    assert shown(second)["state"] == "forced_open"
    ordered(second, "automatic")
    first.core.health.sync_once()
    assert shown(first)["state"] == "open"


def test_forced_open_keeps_payments_away_until_it_is_released_and_probed(shop: Shop) -> None:
    """However healthy the provider; then it is probed, and a tenth of its payments is the first step back."""
    ordered(shop, "forced_open")
    for _ in range(5):
        payment = shop.pay().json or {}
        assert (payment["status"], payment["provider"]) == ("captured", "adyen")
        assert not candidate(payment)["eligible"]
        assert "circuit forced_open" in candidate(payment)["reasons"]
    assert shop.charges("stripe") == []
    told = ordered(shop, "automatic", reason="the wave is over")
    assert (told["state"], told["incident"], told["reason"]) == ("open", None, "the wave is over")
    # No worker here, so this process probes by itself, and at once.
    until(lambda: shown(shop)["state"] == "slow_start", within_s=20)
    assert [row["state"] for row in rows(shop)] == ["forced_open", "open", "half_open", "slow_start"]
    assert shown(shop)["share"] == 0.1
    payment = shop.pay().json or {}
    assert payment["status"] == "captured"
    assert candidate(payment)["eligible"]
    assert candidate(payment)["propensity"] == 0.1
    assert "slow start: 10% of its payments" in candidate(payment)["reasons"]


def test_the_only_provider_left_gets_every_payment_in_slow_start(shops: OpenShop) -> None:
    """A share is of what there is to choose; nothing is withheld from a customer."""
    shop = shops(flags={"payments-provider-adyen-enabled": False})
    moved(shop, State.OPEN, State.HALF_OPEN, State.SLOW_START)
    for _ in range(10):
        payment = shop.pay().json or {}
        assert (payment["status"], payment["provider"]) == ("captured", "stripe")
        assert candidate(payment)["propensity"] == 1.0


@pytest.mark.parametrize("mode", ["bypass", "metrics_only"])
def test_an_order_to_let_payments_through_holds_while_they_fail(shops: OpenShop, mode: str) -> None:
    """Each is sent to the broken primary first, and paid elsewhere; released, the circuit judges from nothing."""
    shop = shops(breaker_minimum_calls=2)
    ordered(shop, mode)
    shop.fault("stripe", "down")
    for _ in range(6):
        payment = shop.pay().json or {}
        assert [each["provider"] for each in payment["attempts"]] == ["stripe", "adyen"]
        assert payment["status"] == "captured"
    page = shown(shop)
    assert (page["state"], page["window"]["failures"]) == (mode, 0 if mode == "bypass" else 6)
    assert ordered(shop, "automatic")["state"] == "closed"
    assert shown(shop)["window"]["calls"] == 0
    for _ in range(25):
        shop.pay()
    assert shop.core.health.snapshot("stripe").state is State.OPEN
    with_why = shop.pay().json or {}
    assert "circuit open" in candidate(with_why)["reasons"]


class Worker(SystemClock):
    """Another process's clock, which may be ahead."""

    later = dt.timedelta()

    def now(self) -> dt.datetime:
        return super().now() + self.later


@pytest.mark.parametrize(("mode", "after"), [("forced_open", "open"), ("bypass", "closed")])
def test_an_order_ends_by_itself_through_the_worker(shop: Shop, mode: str, after: str) -> None:
    """As if its hour were over: the worker says so, and the order's own row stays as it was."""
    core = shop.core
    ordered(shop, mode, until=(core.clock.now() + dt.timedelta(hours=1)).isoformat())
    worker = Worker()
    recovery = Recovery(
        core.providers, core.health, probes=ProbeLedger(core.database), timeouts=Timeouts(1, 2), clock=worker
    )
    assert recovery.run_once() == 0
    worker.later = dt.timedelta(hours=1)
    assert recovery.run_once() == 1
    assert shown(shop)["until"] is None
    # A process of the shop may be probing already.
    ordered_, ended = rows(shop)[:2]
    assert (ordered_["state"], ended["state"]) == (mode, after)
    assert ended["reason"] == f"the override ({mode}) is over"
    assert shop.pay().status_code == 201


def test_an_order_stops_an_outage_from_being_probed(shop: Shop) -> None:
    """Whatever the machine was about: the operator's word is the last until it is taken back."""
    moved(shop, State.OPEN, State.HALF_OPEN)
    ordered(shop, "forced_open")
    assert shown(shop)["incident"] == "inc_stripe_1", "the incident goes on"
    shop.control("PUT", "/control/stripe", json={"mode": "ok"})
    assert shown(shop)["state"] == "forced_open"


# ---------------------------------------------------------------- refused


def test_automatic_when_nothing_is_overridden_is_a_conflict(witness: Witness) -> None:
    """409: whoever sent it thinks that something is."""
    witness.refused(send_order(witness.shop, "automatic"), 409, "state-conflict")


def test_an_open_circuit_is_not_closed_by_a_word(shop: Shop) -> None:
    """Likewise: automatic it is already."""
    moved(shop, State.OPEN)
    answer = send_order(shop, "automatic")
    assert (answer.status_code, (answer.get_json(force=True))["type"]) == (
        409,
        "urn:pointsman:problem:state-conflict",
    )
    assert len(rows(shop)) == 1


@pytest.mark.parametrize("name", ["paypal", "Stripe", "stripe%20", "x" * 80])
def test_an_unknown_provider_is_not_found(witness: Witness, name: str) -> None:
    """To read and to order."""
    witness.refused(send_order(witness.shop, "forced_open", provider=name), 404, "not-found")
    witness.refused(witness.shop.send("GET", f"/v1/providers/{name}/transitions"), 404, "not-found")


SECRET = "Planted-Words-7Q"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no mode": ({"mode": ABSENT}, "mode"),
    "unknown mode": ({"mode": SECRET}, "mode"),
    "a state that no operator orders": ({"mode": "half_open"}, "mode"),
    "mode null": ({"mode": None}, "mode"),
    "mode in capitals": ({"mode": "BYPASS"}, "mode"),
    "no reason": ({"reason": ABSENT}, "reason"),
    "empty reason": ({"reason": ""}, "reason"),
    "long reason": ({"reason": "x" * 256}, "reason"),
    "line break in the reason": ({"reason": f"{SECRET}\nINFO all is well"}, "reason"),
    "escape in the reason": ({"reason": f"\x1b[2J{SECRET}"}, "reason"),
    "NUL in the reason": ({"reason": f"{SECRET}\x00"}, "reason"),
    "line separator in the reason": ({"reason": f"{SECRET}\u2028"}, "reason"),
    "half a character in the reason": ({"reason": "\ud800"}, "reason"),
    "reason no text": ({"reason": 7123456}, "reason"),
    "end without a zone": ({"until": "2099-01-01T00:00:00"}, "until"),
    "end in the past": ({"until": "2020-01-01T00:00:00Z"}, "until"),
    "end beyond the calendar": ({"until": "9999-12-31T23:59:59-12:00"}, "until"),
    "end no time": ({"until": SECRET}, "until"),
    "end of an automatic circuit": ({"mode": "automatic", "until": "2099-01-01T00:00:00Z"}, "until"),
    "unknown field": ({"force": SECRET}, "force"),
}


@pytest.mark.parametrize(("changed", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_order_is_refused_and_names_the_field(witness: Witness, changed: dict[str, Any], field: str) -> None:
    """422; nothing is ordered, and nothing of it is repeated or logged."""
    witness.plant(SECRET, "7123456", "xxxxxxxx")
    answer = send_order(witness.shop, **({"mode": "forced_open"} | changed))
    witness.refused(answer, 422, "invalid-request", field=field)
    assert witness.shop.core.health.snapshot("stripe").state is State.CLOSED


@pytest.mark.parametrize("reason", ["4111 1111 1111 1111", "a customer with 4111111111111111 called"])
def test_a_card_number_in_the_reason_is_refused(witness: Witness, reason: str) -> None:
    """An audit record is kept for years."""
    witness.plant("1111")
    witness.refused(
        send_order(witness.shop, "forced_open", reason=reason), 422, "card-number-refused", field="reason"
    )


def test_a_body_is_needed(witness: Witness) -> None:
    """As everywhere, a sound JSON object."""
    answer = witness.shop.send("POST", "/v1/providers/stripe/breaker", data=b"", content_type=JSON)
    witness.refused(answer, 400, "invalid-request", field="body")


@pytest.mark.parametrize("scope", ["payments", "reports"])
@pytest.mark.parametrize("body", [{"mode": "bypass", "reason": WHY}, {"mode": "nonsense"}], ids=["sound", "wrong"])
@pytest.mark.parametrize("provider", ["stripe", "paypal"])
def test_orders_need_the_scope_operate_before_anything_is_looked_at(
    shop: Shop, scope: str, body: dict[str, Any], provider: str
) -> None:
    """A key that may not order learns neither what an order is nor which providers there are."""
    key = shop.add_key("k", merchant="shop", scopes=(scope,))
    answer = shop.send("POST", f"/v1/providers/{provider}/breaker", api_key=key, json=body)
    assert (answer.status_code, answer.get_json(force=True)["type"]) == (403, "urn:pointsman:problem:forbidden")
    assert rows(shop) == []


def test_without_a_key_nothing_is_ordered_or_shown(witness: Witness) -> None:
    """401."""
    for method, path in (
        ("POST", "/v1/providers/stripe/breaker"),
        ("GET", "/v1/providers/stripe/transitions"),
        ("GET", "/v1/providers"),
    ):
        witness.refused(witness.shop.send(method, path, api_key=None), 401, "unauthenticated")


# ---------------------------------------------------------------- what on-call sees


@pytest.mark.parametrize(("scope", "status"), [("operate", 200), ("reports", 200), ("payments", 403)])
def test_circuits_are_shown_to_operators_and_reports(shop: Shop, scope: str, status: int) -> None:
    """Checkout's key sees none of it."""
    key = shop.add_key("k", merchant="shop", scopes=(scope,))
    for path in ("/v1/providers", "/v1/providers/stripe/transitions"):
        assert shop.send("GET", path, api_key=key).status_code == status


def test_a_provider_is_shown_with_its_thresholds_places_and_recoveries(shops: OpenShop) -> None:
    """Every field that is promised and no other; before anything happened there is nothing to tell."""
    shop = shops(provider_calls_at_once=7)
    page = shown(shop)
    assert page.keys() == ProviderView.model_fields.keys()
    assert page["bulkhead"] == {"limit": 7, "in_use": 0}
    assert page["tuning"].keys() == {"slow_call_s", "failure_rate"}
    assert all("too few to learn from" in reason for reason in page["tuning"].values())
    assert page["recovery"] == {
        "half_open_rounds": 0,
        "half_open_success_rate": None,
        "seconds_to_closed": None,
        "false_recovery_rate": None,
    }
    assert (page["suspect"], page["share"], page["by"], page["reason"]) == (False, 1.0, None, None)
    window = page["window"]
    assert (window["failure_rate"], window["failure_rate_threshold"], window["slow_call_seconds"]) == (None, 0.5, 3.0)


def test_thresholds_set_by_hand_say_who_set_them(shops: OpenShop) -> None:
    """The setting's name, as an operator would look for it."""
    shop = shops(breaker_slow_call_seconds=2.0, breaker_failure_rate=0.4)
    page = shown(shop)
    assert page["tuning"]["slow_call_s"] == "set by ROUTER_BREAKER_SLOW_CALL_SECONDS"
    assert page["tuning"]["failure_rate"] == "set by ROUTER_BREAKER_FAILURE_RATE"


def test_recoveries_are_counted(shop: Shop) -> None:
    """One round that failed, one that did not, and back to closed."""
    moved(shop, State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.SLOW_START, State.CLOSED)
    record = shown(shop)["recovery"]
    assert (record["half_open_rounds"], record["half_open_success_rate"]) == (2, 0.5)
    assert record["seconds_to_closed"] >= 0
    assert record["false_recovery_rate"] == 0.0
    assert shown(shop, "adyen")["recovery"]["half_open_rounds"] == 0


def test_a_suspect_provider_is_shown_as_such(shop: Shop) -> None:
    """With the share that it keeps, and why."""
    ledger = CircuitLedger(shop.core.database)
    assert ledger.append(
        following(
            None,
            State.CLOSED,
            provider="stripe",
            at=shop.core.clock.now(),
            actor="web:9",
            reason="suspect: slower than usual",
            suspect=True,
        )
    )
    shop.core.health.sync_once()
    page = shown(shop)
    assert (page["state"], page["suspect"], page["share"]) == ("closed", True, 0.5)
    assert page["reason"] == "suspect: slower than usual"
    assert candidate(shop.pay().json or {})["propensity"] == 0.5


def test_with_the_ledger_away_the_circuits_are_still_shown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the recoveries, which it keeps: in that hour on-call looks here."""

    def away(*_args: Any, **_named: Any) -> Any:
        raise LedgerUnavailableError("OperationalError")

    for query in ("recoveries", "latest", "_read"):
        monkeypatch.setattr(CircuitLedger, query, away)
    page = shown(shop)
    assert (page["state"], page["recovery"]) == ("closed", None)
    answer = send_order(shop, "forced_open")
    assert (answer.status_code, answer.get_json(force=True)["type"]) == (
        503,
        "urn:pointsman:problem:ledger-unavailable",
    )
    assert shop.core.health.snapshot("stripe").state is State.CLOSED


# ---------------------------------------------------------------- a circuit's history


def history(shop: Shop, provider: str = "stripe", **query: Any) -> dict[str, Any]:
    answer = shop.send("GET", f"/v1/providers/{provider}/transitions", query_string=query)
    assert answer.status_code == 200, answer.text
    body = dict(answer.json or {})
    TransitionList.model_validate(body)
    return body


def test_the_history_is_the_audit_record_newest_first(shop: Shop) -> None:
    """Who or what, when and why; empty for a circuit that never moved."""
    assert history(shop) == {"transitions": [], "next": None}
    moved(shop, State.OPEN)
    ordered(shop, "bypass")
    ordered(shop, "automatic", reason="done")
    found = history(shop)["transitions"]
    assert [(each["version"], each["state"]) for each in found] == [(3, "closed"), (2, "bypass"), (1, "open")]
    assert [each["by"] for each in found] == [*["operator: bootstrap key of default"] * 2, "worker:test"]
    assert [each["incident"] for each in found] == ["inc_stripe_1"] * 3
    assert history(shop, "adyen")["transitions"] == []


def test_a_long_history_comes_in_pages(shop: Shop) -> None:
    """Each transition once, whatever was added between two pages."""
    for _ in range(60):
        moved(shop, State.OPEN, State.CLOSED)
    first = history(shop)
    assert [each["version"] for each in first["transitions"]] == list(range(120, 70, -1))
    moved(shop, State.OPEN)
    second = history(shop, cursor=first["next"])
    assert [each["version"] for each in second["transitions"]] == list(range(70, 20, -1))
    third = history(shop, cursor=second["next"])
    assert [each["version"] for each in third["transitions"]] == list(range(20, 0, -1))
    assert third["next"] is None
    assert history(shop, cursor=1) == {"transitions": [], "next": None}


@pytest.mark.parametrize("cursor", ["0", "-1", "x", "1.5", "", str(2**31), "9" * 40])
def test_a_wrong_cursor_is_refused(witness: Witness, cursor: str) -> None:
    """And no fault of a database that was asked for it."""
    answer = witness.shop.send("GET", "/v1/providers/stripe/transitions", query_string={"cursor": cursor})
    witness.refused(answer, 422, "invalid-request", field="cursor")


def test_no_address_changes_or_deletes_what_is_on_record(shop: Shop) -> None:
    """The record is append-only."""
    ordered(shop, "bypass")
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        for path in ("/v1/providers/stripe/transitions", "/v1/providers/stripe/transitions/1"):
            assert shop.send(method, path, json={"reason": "another"}).status_code in (404, 405)
    assert [row["reason"] for row in rows(shop)] == [WHY]
