"""`POST /v1/decisions` and its outcomes, through the real application."""

from __future__ import annotations

import functools
import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from providers.contract import Health as Signal
from router.api.views import DecidedView, OutcomeView
from router.decision_ids import LIVES, MAXIMUM_CHARS
from router.ledger.unavailable import LedgerUnavailableError
from router.reported import SAME_DECLINES
from router.segments import segment
from router.transitions import State
from tests.fakes.house import teach
from tests.integration.conftest import OpenShop, Witness
from tests.integration.decision_desk import desk
from tests.integration.shop import ABSENT, Shop, order, paying_with

pytestmark = pytest.mark.either_database

ONE_LEDGER = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
"""Of what is no query's doing."""
NO_TOKENS = {"type": "card", "card": {"brand": "visa", "country": "DE", "funding": "credit"}}
APPROVED = {"provider": "stripe", "outcome": "approved", "latency_ms": 212}


def decide(shop: Shop, *, api_key: str | None = None, **changed: Any) -> TestResponse:
    """Ask for a decision of the example payment, without tokens unless the change says so."""
    body = order(**({"payment_method": NO_TOKENS} | changed))
    named = {} if api_key is None else {"api_key": api_key}
    return shop.send("POST", "/v1/decisions", json=body, **named)


def decided(shop: Shop, **changed: Any) -> dict[str, Any]:
    """A decision that was made."""
    answer = decide(shop, **changed)
    assert answer.status_code == 200, answer.text
    return dict(answer.json or {})


def tell(shop: Shop, decision: str, *, api_key: str | None = None, **outcome: Any) -> TestResponse:
    """Tell an outcome: an approval by stripe, with these fields changed."""
    body = {name: value for name, value in (APPROVED | outcome).items() if value is not ABSENT}
    named = {} if api_key is None else {"api_key": api_key}
    return shop.send("POST", f"/v1/decisions/{decision}/outcome", json=body, **named)


def kind(answer: TestResponse) -> tuple[int, str]:
    """A refusal's status and type."""
    return answer.status_code, str((answer.get_json(force=True) or {}).get("type", "")).rpartition(":")[2]


# ---------------------------------------------------------------- deciding


@ONE_LEDGER
def test_a_decision_explains_itself_and_charges_nothing(shop: Shop) -> None:
    answer = decide(shop)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json or {}
    DecidedView.model_validate(body)
    assert body["id"].startswith("dec_")
    assert len(body["id"]) <= MAXIMUM_CHARS
    assert body["order"] == ["stripe", "adyen"]
    assert (body["strategy"], body["primary"], body["degraded"]) == ("primary-first", "stripe", False)
    assert "primary" in body["candidates"][0]["reasons"]
    assert shop.charges("stripe") == shop.charges("adyen") == []
    counts = shop.counts()
    assert (counts["payments"], counts["attempts"], counts["idempotency_keys"]) == (0, 0, 0)


@ONE_LEDGER
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"amount": 60_000, "currency": "USD"},
        {"amount": 19, "currency": "BHD"},
        {"payment_method": paying_with(adyen="8415718415172204")},
        {"capture": "manual", "customer": ABSENT, "payment_method": paying_with(stripe="pm_card_visa", adyen="x")},
    ],
)
def test_it_is_what_a_payment_with_the_same_body_gets(shop: Shop, changed: dict[str, Any]) -> None:
    body = order(**changed)
    found = shop.send("POST", "/v1/decisions", json=body).json or {}
    paid = (shop.pay(body).json or {})["decision"]
    assert {name: found[name] for name in paid} == paid


@ONE_LEDGER
def test_flags_circuits_and_tokens_decide(shops: OpenShop) -> None:
    shop = shops(flags={"payments-primary-provider": "adyen", "payments-provider-stripe-enabled": False})
    found = decided(shop)
    assert found["order"] == ["adyen"]
    assert "disabled by flag" in found["candidates"][1]["reasons"]
    # Where tokens are given, a provider without one can never take it: here the only other one is switched off.
    found = decided(shop, payment_method=paying_with(stripe="pm_card_visa"))
    assert found["order"] == []
    assert any("no token" in each for each in found["candidates"][0]["reasons"] + found["candidates"][1]["reasons"])


@ONE_LEDGER
def test_with_all_unavailable_the_order_is_empty_and_no_outcome_is_taken(shop: Shop) -> None:
    for name in ("stripe", "adyen"):
        order_circuit(shop, name, "forced_open")
    found = decided(shop)
    assert found["order"] == []
    assert all("circuit forced_open" in each["reasons"] for each in found["candidates"])
    assert kind(tell(shop, found["id"])) == (422, "invalid-request")


def order_circuit(shop: Shop, provider: str, mode: str) -> None:
    """An operator's order."""
    body = {"mode": mode, "reason": "a test"}
    answer = shop.send("POST", f"/v1/providers/{provider}/breaker", json=body)
    assert answer.status_code == 200, answer.text


def test_the_row_has_what_a_replay_needs_and_nothing_of_the_customer(shop: Shop) -> None:
    method = paying_with(stripe="pm_card_visa", adyen="8415718415172204") | {"card": NO_TOKENS["card"]}
    customer = {"id": "cus_1", "email": "jane@example.com", "ip": "192.0.2.7", "country": "DE"}
    found = decided(shop, reference="ORD-row", payment_method=method, customer=customer, metadata={"note": "secret"})
    (row,) = desk(shop).written()
    assert row["reference"] == "ORD-row"
    assert (row["merchant"], row["amount"], row["currency"], row["method"]) == ("default", 1999, "EUR", "card")
    assert (row["card_brand"], row["card_country"], row["card_funding"]) == ("visa", "DE", "credit")
    # The very text that was answered, behind what only the answer says.
    kept = row["decision"] if isinstance(row["decision"], dict) else json.loads(row["decision"])
    assert list(found.items()) == [*list(found.items())[:4], *kept.items()]
    assert list(found)[:4] == ["id", "order", "expires_at", "degraded"]
    carried = desk(shop).signer.read(found["id"], "default")
    assert carried is not None
    assert (carried.key, carried.order, carried.propensity) == (row["id"], ("stripe", "adyen"), 1.0)
    assert carried.segment == segment(1999, "visa", "DE", "card")
    for private in ("pm_card_visa", "8415718415172204", "jane@", "192.0.2.7", "cus_1", "secret"):
        assert private not in str(row)


@ONE_LEDGER
def test_rows_come_by_themselves_within_moments(shop: Shop) -> None:
    for _ in range(7):
        decided(shop)
    for _ in range(100):
        if len(shop.rows("SELECT id FROM decisions")) == 7:
            return
        threading.Event().wait(0.02)
    pytest.fail("the rows were not written")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changed", "status", "word", "field"),
    [
        ({"amount": 0}, 422, "invalid-request", "amount"),
        ({"currency": "XTS"}, 422, "invalid-request", "currency"),
        ({"currency": ABSENT}, 422, "invalid-request", "currency"),
        ({"surprise": 1}, 422, "invalid-request", "surprise"),
        ({"payment_method": {"type": "sepa"}}, 422, "invalid-request", "payment_method.type"),
        ({"payment_method": {"type": "card", "tokens": {"stripe": ""}}}, 422, "invalid-request", None),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "invalid-request", "expires_at"),
        ({"reference": "4111111111111111"}, 422, "card-number-refused", "reference"),
        ({"payment_method": paying_with(stripe="4111 1111 1111 1111")}, 422, "card-number-refused", "payment_method"),
        ({"amount": 99_999_999_999, "payment_method": paying_with(stripe="pm_x")}, 422, "no-eligible-provider", None),
        ({"payment_method": paying_with(third="t")}, 422, "no-eligible-provider", None),
    ],
)
def test_what_a_payment_refuses_a_decision_refuses(
    witness: Witness, changed: dict[str, Any], status: int, word: str, field: str | None
) -> None:
    witness.plant("4111111111111111", "4111 1111 1111 1111", "XTS", "sepa")
    witness.refused(decide(witness.shop, **changed), status, word, field=field)


def test_a_key_is_needed(witness: Witness) -> None:
    witness.refused(witness.shop.send("POST", "/v1/decisions", json=order(), api_key=None), 401, "unauthenticated")
    answer = witness.shop.send("POST", "/v1/decisions/dec_x/outcome", json=APPROVED, api_key="wrong")
    witness.refused(answer, 401, "unauthenticated")


@ONE_LEDGER
def test_a_key_of_another_scope_is_refused(shop: Shop) -> None:
    key = shop.add_key("reports-key", merchant="finance", scopes=("reports",))
    assert kind(decide(shop, api_key=key)) == (403, "forbidden")
    assert kind(tell(shop, "dec_x", api_key=key)) == (403, "forbidden")


# ---------------------------------------------------------------- outcomes


def test_an_outcome_is_taken_once_and_answered_again(shop: Shop) -> None:
    teacher = desk(shop).teacher
    found = decided(shop)
    first = tell(shop, found["id"])
    assert first.status_code == 200, first.text
    OutcomeView.model_validate(first.json)
    assert first.json is not None
    assert first.json["finishes"]
    assert "Idempotent-Replayed" not in first.headers
    again = tell(shop, found["id"])
    assert (again.status_code, again.json) == (200, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert [row["n"] for row in shop.rows("SELECT count(*) AS n FROM decision_outcomes")] == [1]
    assert teacher.answers == [("stripe", True)]
    assert teacher.calls == [("stripe", False)]


def test_a_checkout_may_fail_over_by_itself(shop: Shop) -> None:
    found = decided(shop)["id"]
    assert tell(shop, found, outcome="not_executed", latency_ms=30).status_code == 200
    assert tell(shop, found, provider="adyen", outcome="approved").status_code == 200
    # Replays are answered though it is finished; news are not taken.
    assert tell(shop, found, outcome="not_executed", latency_ms=30).headers["Idempotent-Replayed"] == "true"
    assert kind(tell(shop, found, outcome="approved")) == (409, "outcome-already-told")
    assert kind(tell(shop, found, provider="adyen", outcome="approved", latency_ms=1)) == (
        409,
        "outcome-already-told",
    )


@pytest.mark.parametrize(
    ("provider", "outcome", "code", "decline", "finishes"),
    [
        ("stripe", "approved", None, None, True),
        ("stripe", "declined", "stolen_card", ("hard", "stolen_card"), True),
        ("adyen", "declined", "20", ("fraud", "fraudulent"), True),
        ("adyen", "declined", "24", ("invalid", "incorrect_cvc"), True),
        ("adyen", "declined", "do_not_honor", ("soft", "do_not_honor"), False),
        ("stripe", "declined", "authentication_required", ("authentication", "authentication_required"), False),
        ("stripe", "declined", "a_new_word", ("soft", "a_new_word"), False),
        ("adyen", "declined", "99", ("soft", "refusal_99"), False),
        ("adyen", "declined", None, ("soft", "generic_decline"), False),
        ("adyen", "declined", "4", None, False),
        ("stripe", "requires_action", None, None, False),
        ("stripe", "unknown", None, None, False),
        ("stripe", "not_executed", None, None, False),
    ],
)
def test_what_finishes_a_decision(
    standing_shop: Shop,
    provider: str,
    outcome: str,
    code: str | None,
    decline: tuple[str, str] | None,
    finishes: bool,
) -> None:
    found = decided(standing_shop)["id"]
    more = {} if code is None else {"decline_code": code}
    answer = tell(standing_shop, found, provider=provider, outcome=outcome, **more)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    expected = None if decline is None else {"class": decline[0], "code": decline[1]}
    assert (answer.json["decline"], answer.json["finishes"]) == (expected, finishes)
    other = tell(standing_shop, found, provider="stripe" if provider == "adyen" else "adyen", outcome="unknown")
    assert kind(other) == ((409, "decision-finished") if finishes else (200, ""))


@pytest.mark.parametrize(
    ("changed", "word", "field"),
    [
        ({"provider": "third"}, "invalid-request", "provider"),
        ({"provider": "Stripe!"}, "invalid-request", "provider"),
        ({"provider": ABSENT}, "invalid-request", "provider"),
        ({"outcome": "paid-by-magic"}, "invalid-request", "outcome"),
        ({"outcome": "canceled"}, "invalid-request", "outcome"),
        ({"latency_ms": -1}, "invalid-request", "latency_ms"),
        ({"latency_ms": 600_001}, "invalid-request", "latency_ms"),
        ({"latency_ms": 1.5}, "invalid-request", "latency_ms"),
        ({"latency_ms": True}, "invalid-request", "latency_ms"),
        ({"decline_code": "do_not_honor"}, "invalid-request", "decline_code"),
        ({"outcome": "declined", "decline_code": "not a code"}, "invalid-request", "decline_code"),
        ({"outcome": "declined", "decline_code": "123456789"}, "invalid-request", "decline_code"),
        ({"outcome": "declined", "decline_code": "4111111111111111"}, "card-number-refused", "decline_code"),
        ({"surprise": "x"}, "invalid-request", "surprise"),
    ],
)
def test_a_wrong_outcome_names_its_field_and_leaves_no_trace(
    standing_shop: Shop, changed: dict[str, Any], word: str, field: str
) -> None:
    found = decided(standing_shop)["id"]
    desk(standing_shop).written()
    before = standing_shop.counts()
    answer = tell(standing_shop, found, **changed)
    assert kind(answer) == (422, word)
    problem = answer.get_json(force=True)
    assert field in [each["field"] for each in problem["errors"]]
    for value in ("paid-by-magic", "Stripe!", "not a code", "123456789", "4111111111111111", "600001"):
        assert value not in answer.text
    assert standing_shop.counts() == before
    assert tell(standing_shop, found).status_code == 200


def test_after_the_customers_step_its_end_is_told_once(standing_shop: Shop) -> None:
    """`requires_action`, then `approved`: the call counts once, the answer counts, and each may be told again."""
    shop, teacher = standing_shop, desk(standing_shop).teacher
    teacher.answers.clear()
    teacher.calls.clear()
    found = decided(shop)["id"]
    step = tell(shop, found, outcome="requires_action", latency_ms=90)
    assert (step.status_code, (step.json or {})["finishes"]) == (200, False)
    again = tell(shop, found, outcome="requires_action", latency_ms=90)
    assert (again.json, again.headers["Idempotent-Replayed"]) == (step.json, "true")
    end = tell(shop, found, latency_ms=212)
    assert (end.status_code, (end.json or {})["outcome"], (end.json or {})["finishes"]) == (200, "approved", True)
    assert "Idempotent-Replayed" not in end.headers
    # The step told late or again, and the end told again: as it now stands.
    for repeated in ({"outcome": "requires_action", "latency_ms": 90}, {"latency_ms": 212}):
        answer = tell(shop, found, **repeated)
        assert (answer.status_code, answer.json, answer.headers["Idempotent-Replayed"]) == (200, end.json, "true")
    assert kind(tell(shop, found, outcome="declined")) == (409, "outcome-already-told")
    assert kind(tell(shop, found, provider="adyen")) == (409, "decision-finished")
    assert (teacher.calls, teacher.answers) == ([("stripe", False)], [("stripe", True)])


@pytest.mark.parametrize(
    ("code", "finishes", "calls", "answers"),
    [
        ("do_not_honor", False, [("stripe", False)], [("stripe", False)]),
        ("stolen_card", True, [("stripe", False)], [("stripe", False)]),
        # An acquirer's fault is no answer: of the two calls, the second failed.
        ("api_error", False, [("stripe", False), ("stripe", True)], []),
    ],
)
def test_a_decline_after_the_customers_step(
    standing_shop: Shop, code: str, finishes: bool, calls: list[Any], answers: list[Any]
) -> None:
    teacher = desk(standing_shop).teacher
    teacher.answers.clear()
    teacher.calls.clear()
    found = decided(standing_shop)["id"]
    assert tell(standing_shop, found, outcome="requires_action").status_code == 200
    end = tell(standing_shop, found, outcome="declined", decline_code=code)
    assert (end.status_code, (end.json or {})["finishes"]) == (200, finishes)
    assert (teacher.calls, teacher.answers) == (calls, answers)
    assert kind(tell(standing_shop, found)) == (409, "outcome-already-told")


def test_only_an_answer_follows_the_customers_step(standing_shop: Shop) -> None:
    found = decided(standing_shop)["id"]
    assert tell(standing_shop, found, outcome="requires_action").status_code == 200
    for outcome in ("unknown", "not_executed"):
        assert kind(tell(standing_shop, found, outcome=outcome)) == (409, "outcome-already-told")
    assert kind(tell(standing_shop, found, outcome="requires_action", latency_ms=1)) == (409, "outcome-already-told")
    # Another provider's approval finishes it: the first one's answer comes too late to count.
    assert tell(standing_shop, found, provider="adyen").status_code == 200
    assert kind(tell(standing_shop, found)) == (409, "decision-finished")
    # What was final is followed by nothing.
    found = decided(standing_shop)["id"]
    assert tell(standing_shop, found, outcome="unknown").status_code == 200
    for outcome in ("approved", "declined", "requires_action"):
        assert kind(tell(standing_shop, found, outcome=outcome)) == (409, "outcome-already-told")


@ONE_LEDGER
def test_the_end_of_the_customers_step_comes_too_late_after_a_day(shop: Shop) -> None:
    signed = desk(shop).signed(at=shop.core.clock.now() - LIVES + (LIVES / 1000))
    assert tell(shop, signed, outcome="requires_action").status_code == 200
    carried = desk(shop).signer.read(signed, "default")
    assert carried is not None
    late = desk(shop).signer.sign(carried._replace(at=carried.at - LIVES), "default")
    assert kind(tell(shop, late)) == (410, "decision-expired")


# ---------------------------------------------------------------- ids


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), letter=st.sampled_from("ABCXYZabcxyz0189-_.~é"))
@example(where=0.999, letter="A").via("bits of the last letter that base64 leaves unused")
def test_an_id_with_any_character_changed_is_none(standing_shop: Shop, where: float, letter: str) -> None:
    found = decided(standing_shop)["id"]
    place = int(where * len(found))
    assume(found[place] != letter)
    forged = found[:place] + letter + found[place + 1 :]
    assert kind(tell(standing_shop, forged)) == (404, "not-found")
    assert kind(tell(standing_shop, found[: place + 1] if place + 1 < len(found) else "d")) == (404, "not-found")


@ONE_LEDGER
def test_another_merchants_decision_is_none(shop: Shop) -> None:
    found = decided(shop)["id"]
    key = shop.add_key("other-key", merchant="other")
    assert kind(tell(shop, found, api_key=key)) == (404, "not-found")
    theirs = (decide(shop, api_key=key).json or {})["id"]
    assert kind(tell(shop, theirs)) == (404, "not-found")
    assert tell(shop, theirs, api_key=key).status_code == 200


@ONE_LEDGER
def test_an_id_that_is_too_long_names_its_field(shop: Shop) -> None:
    assert kind(tell(shop, "dec_" + "a" * 400)) == (422, "invalid-request")


def test_an_expired_decision_takes_nothing_new_and_still_answers_what_it_took(shop: Shop) -> None:
    now = shop.core.clock.now()
    told = desk(shop).signed(at=now - LIVES + (LIVES / 1000))
    assert tell(shop, told).status_code == 200
    assert kind(tell(shop, desk(shop).signed(at=now - LIVES))) == (410, "decision-expired")
    # The same key, a day later.
    carried = desk(shop).signer.read(told, "default")
    assert carried is not None
    late = desk(shop).signer.sign(carried._replace(at=now - 2 * LIVES), "default")
    assert tell(shop, late).headers.get("Idempotent-Replayed") == "true"
    assert kind(tell(shop, late, latency_ms=1)) == (409, "outcome-already-told")


# ---------------------------------------------------------------- processes


def test_an_outcome_is_understood_by_another_process_though_the_row_is_lost(
    shops: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shops(), shops()
    teachers = [desk(each).teacher for each in (first, second)]
    monkeypatch.setattr(desk(first).writer, "put", lambda _row: True)  # as if killed before it wrote
    found = decided(first)["id"]
    assert first.rows("SELECT id FROM decisions") == []
    assert tell(second, found).status_code == 200
    assert tell(first, found).headers["Idempotent-Replayed"] == "true"
    assert [each.answers for each in teachers] == [[], [("stripe", True)]]


def test_a_secret_of_the_settings_signs_for_all(shops: OpenShop) -> None:
    old, new = "o" * 32, "n" * 32
    first = shops(decision_secret=old)
    found = decided(first)["id"]
    assert first.rows("SELECT * FROM secrets WHERE name <> 'console'") == []
    assert tell(shops(decision_secret=f"{new}, {old}"), found).status_code == 200
    assert kind(tell(shops(decision_secret=new), found)) == (404, "not-found")


def test_raced_outcomes_are_learned_once(shops: OpenShop) -> None:
    """Two processes, eight threads, one outcome: one writes, all answer the same."""
    both = [shops(), shops()]
    desks = [desk(each) for each in both]
    found = decided(both[0])["id"]
    answers = at_once([lambda each=each: tell(each, found) for each in both * 4])
    assert {each.status_code for each in answers} == {200}
    assert sum("Idempotent-Replayed" not in each.headers for each in answers) == 1
    assert sum(len(each.teacher.answers) for each in desks) == 1


def test_raced_ends_of_the_customers_step_are_learned_once(shops: OpenShop) -> None:
    """Two processes, eight threads: four tell an approval, four a decline; one of the two is taken, once."""
    both = [shops(), shops()]
    desks = [desk(each) for each in both]
    for _ in range(3):
        found = decided(both[0])["id"]
        assert tell(both[0], found, outcome="requires_action").status_code == 200
        ends = [
            functools.partial(tell, each, found, outcome=end) for each in both for end in ("approved", "declined")
        ]
        answers = at_once(ends * 2)
        assert sorted(kind(each) for each in answers) == [(200, "")] * 4 + [(409, "outcome-already-told")] * 4
        assert sum(each.status_code == 200 and "Idempotent-Replayed" not in each.headers for each in answers) == 1
    assert sum(len(each.teacher.answers) for each in desks) == 3


def test_of_two_that_finish_at_once_one_does(shops: OpenShop) -> None:
    both = [shops(), shops()]
    for _ in range(5):
        found = decided(both[0])["id"]
        answers = at_once(
            [functools.partial(tell, each, found, provider=name) for each in both for name in PROVIDERS]
        )
        kinds = sorted(kind(each) for each in answers)
        assert kinds == [(200, ""), (200, ""), (409, "decision-finished"), (409, "decision-finished")]


PROVIDERS = ("stripe", "adyen")


def at_once(calls: list[Any]) -> list[TestResponse]:
    """All of these, as nearly at one moment as threads can."""
    gate, answers = threading.Barrier(len(calls)), []

    def run(call: Any) -> None:
        gate.wait()
        answers.append(call())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# ---------------------------------------------------------------- the ledger is away


def test_deciding_goes_on_while_the_ledger_is_away(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = desk(shop).teacher
    key = shop.add_key("a-key", merchant="away")
    assert decide(shop, api_key=key).status_code == 200
    desk(shop).written()

    def away(*_args: Any, **_named: Any) -> Any:
        raise LedgerUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(shop.core.database, "read", away)
        patch.setattr(shop.core.database, "write", away)
        card = NO_TOKENS["card"] | {"fingerprint": "known-again"}  # type: ignore[operator]
        answer = decide(shop, api_key=key, payment_method={"type": "card", "card": card})
        assert answer.status_code == 200, answer.text
        assert (answer.json or {})["degraded"] is True
        found = (answer.json or {})["id"]
        assert kind(tell(shop, found, api_key=key)) == (503, "ledger-unavailable")
        assert teacher.calls == []
        with pytest.raises(LedgerUnavailableError):
            desk(shop).writer.run_once()
        assert (decide(shop, api_key=key).json or {})["degraded"] is True
    # What was decided meanwhile is written when it is back.
    assert len(desk(shop).written()) == 3
    assert tell(shop, found, api_key=key).status_code == 200
    assert (decide(shop, api_key=key).json or {})["degraded"] is False


@ONE_LEDGER
def test_the_last_decisions_are_written_when_the_process_stops(shops: OpenShop) -> None:
    first, second = shops(), shops()
    found = decided(first)
    first.app.extensions["pointsman"][1]()
    assert found["id"]
    assert len(second.rows("SELECT id FROM decisions")) == 1


# ---------------------------------------------------------------- a merchant's bug


@ONE_LEDGER
def test_a_merchants_flood_of_failures_cuts_nobody_off(shop: Shop) -> None:
    """10,000 failures told by one merchant: the circuit stays closed, the others' payments go where they went."""
    for _ in range(30):  # this router knows the provider to be well
        teach(shop.core.health, Signal.OK, times=1)
    shop.core.health.watch_once()
    before = desk(shop).availability("stripe")
    for _ in range(10_000):
        shop.core.health.hear_reported("stripe", "buggy", failed=True)
    key = shop.add_key("buggy-key", merchant="buggy")
    for _ in range(3):
        found = (decide(shop, api_key=key).json or {})["id"]
        assert tell(shop, found, api_key=key, outcome="unknown").status_code == 200
    shop.core.health.watch_once()
    circuit = shop.core.health.snapshot("stripe")
    assert (circuit.state, circuit.suspect, circuit.window.failures) == (State.CLOSED, False, 0)
    assert desk(shop).availability("stripe") >= before - 0.001
    answer = shop.pay()
    assert answer.json is not None
    assert (answer.status_code, answer.json["provider"]) == (201, "stripe")


@ONE_LEDGER
def test_two_merchants_make_a_provider_suspect_and_no_more(shop: Shop) -> None:
    for _ in range(30):
        teach(shop.core.health, Signal.OK, times=1)
    shop.core.health.watch_once()
    before = desk(shop).availability("stripe")
    keys = [shop.add_key(f"key-{name}", merchant=name) for name in ("one", "two")]
    for _ in range(12):
        for key in keys:
            found = (decide(shop, api_key=key).json or {})["id"]
            assert tell(shop, found, api_key=key, outcome="unknown").status_code == 200
    shop.core.health.watch_once()
    circuit = shop.core.health.snapshot("stripe")
    assert (circuit.state, circuit.suspect, circuit.window.failures) == (State.CLOSED, True, 0)
    assert circuit.last is not None
    assert circuit.last.reason == "suspect: clients report more failures than usual (2 merchants)"
    assert circuit.last.evidence["reporting_trouble"] == 2
    assert desk(shop).availability("stripe") < before
    assert shop.pay().status_code == 201


@ONE_LEDGER
def test_a_merchant_that_tells_declines_only_teaches_the_others_nothing(shop: Shop) -> None:
    for _ in range(30):  # the router uses the provider itself
        teach(shop.core.health, Signal.OK, times=1)
    shop.core.health.watch_once()
    teacher = desk(shop).teacher
    for _ in range(SAME_DECLINES):
        shop.core.health.hear_reported("stripe", "default", failed=False, approved=False)
    for outcome in ("declined", "approved", "declined"):
        assert tell(shop, decided(shop)["id"], outcome=outcome).status_code == 200
    assert teacher.answers == [("stripe", True), ("stripe", False)]
    assert teacher.calls == [("stripe", False)] * 3  # the provider did answer


@ONE_LEDGER
def test_an_answer_teaches_its_segment(shop: Shop) -> None:
    kind_of = segment(1999, "visa", "DE", "card")
    at = shop.core.clock.now().timestamp()
    before = shop.core.scores.read(kind_of, at)["stripe"].approval
    for _ in range(30):
        code = {"decline_code": "do_not_honor"}
        assert tell(shop, decided(shop)["id"], outcome="declined", **code).status_code == 200
    score = shop.core.scores.read(kind_of, shop.core.clock.now().timestamp())["stripe"]
    assert score.approval < before - 0.05
    assert score.answers == pytest.approx(30, rel=0.01)
    assert score.availability > 0.99


@ONE_LEDGER
def test_a_card_that_was_declined_already_teaches_nothing_of_the_next(shop: Shop) -> None:
    teacher = desk(shop).teacher
    found = decided(shop)["id"]
    assert tell(shop, found, outcome="declined", decline_code="do_not_honor").status_code == 200
    assert tell(shop, found, provider="adyen", outcome="declined").status_code == 200
    assert teacher.answers == [("stripe", False)]
    assert teacher.calls == [("stripe", False), ("adyen", False)]


def test_decisions_are_forgotten_after_a_quarter(shop: Shop) -> None:
    ledger = desk(shop).ledger
    now = shop.core.clock.now()
    for _ in range(3):
        tell(shop, decided(shop)["id"])
    assert len(desk(shop).written()) == 3
    assert (ledger.reap(now - LIVES, limit=2), ledger.reap_outcomes(now - LIVES, limit=2)) == (0, 0)
    later = now + LIVES
    assert (ledger.reap(later, limit=2), ledger.reap_outcomes(later, limit=2)) == (2, 2)
    assert (ledger.reap(later, limit=2), ledger.reap_outcomes(later, limit=2)) == (1, 1)
    assert shop.counts()["decisions"] == shop.counts()["decision_outcomes"] == 0
