"""What one payment adds to the reports: each rule by a payment of its own."""

from __future__ import annotations

from typing import Any

import pytest

from router.ledger.rollup_rows import RawAttempt, RawOperation, RawPayment
from router.report_measures import INDEX, MEASURES, MINUTE_US
from router.reports.facts import facts

AT = 29_000_000 * MINUTE_US
HOUR = 60 * MINUTE_US


def tried(number: int, provider: str, outcome: str | None, **more: Any) -> RawAttempt:
    decline = {"class": more.pop("declined", "soft")} if outcome == "declined" else None
    usual: dict[str, Any] = {
        "was_approved": outcome == "approved",
        "decline": decline,
        "fee_actual": None,
        "fee_currency": None,
        "latency_us": 200_000,
        "started_at": AT,
        "finished_at": AT + 1,
    }
    return RawAttempt("pay", f"att_{number}", number, provider, outcome, **(usual | more))


def paid(status: str, *attempts: RawAttempt, **more: Any) -> RawPayment:
    """A payment of 20.00 EUR that stands on its last attempt; the primary is stripe."""
    last = attempts[-1] if attempts else None
    usual: dict[str, Any] = {
        "amount": 2000,
        "currency": "EUR",
        "amount_captured": 2000 if status == "captured" else 0,
        "amount_refunded": 0,
        "provider": last.provider if last else None,
        "attempt_id": last.id if last else None,
        "decline": last.decline if last and status == "declined" else None,
        "dispute": None,
        "tries": 0,
        "order": {"payment_method": {"card": {"brand": "visa", "country": "DE"}}},
        "decision": decision(),
        "created_at": AT,
        "attempts": attempts,
    }
    return RawPayment("pay", 1, "shop", status, **(usual | more))


def decision(*reasons: str, primary: str = "stripe") -> dict[str, Any]:
    """Reasons keep the primary from being eligible."""
    return {
        "primary": primary,
        "candidates": [
            {"provider": name, "eligible": not (reasons and name == primary), "reasons": ["primary", *reasons]}
            | {"fee": 0.53, "attempt_fee": 0.02}
            for name in ("stripe", "adyen")
        ],
    }


def told(payment: RawPayment) -> dict[str, int]:
    """All that it adds, wherever it is added."""
    whole: dict[str, int] = {}
    for sums in facts(payment).values():
        for measure, much in zip(MEASURES, sums, strict=True):
            if much:
                whole[measure.name] = whole.get(measure.name, 0) + much
    return whole


RECOVERIES = ("failed_over", "cascaded", "recovered_by_failover", "recovered_by_cascade", "recovered_by_parking")


@pytest.mark.parametrize(
    ("payment", "wanted"),
    [
        (paid("captured", tried(1, "stripe", "approved")), ""),
        (paid("captured", tried(1, "stripe", "not_executed"), tried(2, "adyen", "approved")), "failed_over failover"),
        (paid("captured", tried(1, "stripe", "unknown"), tried(2, "adyen", "approved")), "failed_over failover"),
        (paid("captured", tried(1, "stripe", "declined"), tried(2, "adyen", "approved")), "cascaded cascade"),
        (paid("declined", tried(1, "stripe", "declined"), tried(2, "adyen", "declined")), "cascaded"),
        (paid("declined", tried(1, "stripe", "not_executed"), tried(2, "adyen", "declined")), "failed_over"),
        # Its circuit is open: nobody tried, and it was kept away all the same.
        (paid("captured", tried(1, "adyen", "approved"), decision=decision("circuit open")), "failed_over failover"),
        (
            paid("captured", tried(1, "adyen", "approved"), decision=decision("too many calls under way")),
            "failed_over failover",
        ),
        # Switched off by a person, or not the strategy's choice: no failover.
        (paid("captured", tried(1, "adyen", "approved"), decision=decision("disabled by flag")), ""),
        (paid("captured", tried(1, "adyen", "approved")), ""),
        # It waited, and whatever else happened it was the waiting.
        (
            paid("captured", tried(1, "stripe", "not_executed"), tried(2, "adyen", "approved"), tries=1),
            "failed_over parking",
        ),
        (paid("failed", tries=2), ""),
        # The same provider again, after it was parked: nothing moved.
        (paid("captured", tried(1, "stripe", "not_executed"), tried(2, "stripe", "approved"), tries=1), "parking"),
        # The first is approved late, and is what it stands on: the second recovered nothing.
        (
            paid(
                "captured",
                tried(1, "stripe", "approved"),
                tried(2, "adyen", "canceled"),
                attempt_id="att_1",
                provider="stripe",
            ),
            "failed_over",
        ),
    ],
)
def test_a_payment_is_recovered_in_one_way(payment: RawPayment, wanted: str) -> None:
    """By waiting, else by a cascade, else by failover; the money is the payment's."""
    found = told(payment)
    shown = {name.removeprefix("recovered_by_") for name in RECOVERIES if name in found}
    assert shown == set(wanted.split())
    money = sum(found.get(f"recovered_by_{way}_amount", 0) for way in ("failover", "cascade", "parking"))
    assert money == (2000 if shown & {"failover", "cascade", "parking"} else 0)


@pytest.mark.parametrize(
    ("payment", "wanted"),
    [
        (paid("authorized", tried(1, "stripe", "approved")), "approved"),
        (paid("canceled", tried(1, "stripe", "canceled", was_approved=True)), "approved"),
        (paid("canceled", tried(1, "stripe", "canceled")), "canceled"),
        (paid("declined", tried(1, "stripe", "declined")), "declined"),
        (paid("failed", tried(1, "stripe", "not_executed")), "failed"),
        (paid("requires_action", tried(1, "stripe", "requires_action")), "open"),
        (paid("processing", tried(1, "stripe", None)), "open"),
        (paid("parked"), "open"),
    ],
)
def test_a_payment_is_in_one_state(payment: RawPayment, wanted: str) -> None:
    """The states add up to the payments."""
    found = told(payment)
    assert {name for name in ("approved", "declined", "failed", "canceled", "open") if name in found} == {wanted}
    assert found["payments"] == 1


def test_an_attempt_is_its_own_providers_and_the_payment_the_takers() -> None:
    """A cascade: stripe has the decline and the first answer, adyen the approval and the payment."""
    found = {
        (key[1].provider, key[1].decline_class): sums
        for key, sums in facts(
            paid("captured", tried(1, "stripe", "declined"), tried(2, "adyen", "approved"))
        ).items()
    }
    assert found.keys() == {("stripe", "soft"), ("adyen", "")}
    stripe, adyen = found["stripe", "soft"], found["adyen", ""]
    for name, of_stripe, of_adyen in (
        ("payments", 0, 1),
        ("attempts", 1, 1),
        ("first_answers", 1, 0),
        ("declines_soft", 1, 0),
        ("attempts_approved", 0, 1),
        ("captured_amount", 0, 2000),
        ("fee_estimated", 200, 5500),
    ):
        assert (stripe[INDEX[name]], adyen[INDEX[name]]) == (of_stripe, of_adyen), name


def test_a_fee_counts_as_it_was_told_where_it_is_in_the_payments_currency() -> None:
    """Else by its estimate; and what was never carried out costs nothing."""
    assert told(paid("captured", tried(1, "stripe", "approved")))["cost"] == 5500
    own = told(paid("captured", tried(1, "stripe", "approved", fee_actual=61, fee_currency="EUR")))
    assert (own["cost"], own["fee_actual"], own["fee_estimated_of_actual"], own["fees_told"]) == (6100, 61, 5500, 1)
    other = told(paid("captured", tried(1, "stripe", "approved", fee_actual=61, fee_currency="USD")))
    assert (other["cost"], other.get("fee_actual"), other["fees_told_otherwise"]) == (5500, None, 1)
    yen = paid("captured", tried(1, "stripe", "approved", fee_actual=61, fee_currency="JPY"), currency="JPY")
    assert told(yen)["cost"] == 610_000
    assert "cost" not in told(paid("parked", tried(1, "stripe", "not_executed")))


def test_money_moves_in_its_own_minute() -> None:
    """Captured with the authorization and by an operation later, refunded days after; one refused is none."""
    later, refunded = AT + 5 * HOUR, AT + 50 * HOUR
    payment = paid(
        "captured",
        tried(1, "stripe", "approved", finished_at=AT + MINUTE_US),
        amount_captured=1500,
        amount_refunded=300,
        operations=(
            RawOperation("pay", "att_1", "capture", 1000, "done", later, later + 5),
            RawOperation("pay", "att_1", "refund", 300, "received", refunded, None),
            RawOperation("pay", "att_1", "refund", 999, "refused", refunded, refunded),
            RawOperation("pay", "att_0", "refund", 999, "done", refunded, refunded),
        ),
    )
    moved = {}
    for (minute, _), sums in facts(payment).items():
        moved[(minute * MINUTE_US - AT)] = (sums[INDEX["captured_in_period"]], sums[INDEX["refunded_in_period"]])
    assert moved == {0: (0, 0), MINUTE_US: (500, 0), 5 * HOUR: (1000, 0), 50 * HOUR: (0, 300)}


def test_disputes_are_counted_each_and_chargebacks_are_the_lost() -> None:
    """Two on one payment; one of before there could be several."""
    two = {"each": {"a": {"reason": "won"}, "b": {"reason": "lost"}}}
    found = told(paid("captured", tried(1, "stripe", "approved"), dispute=two))
    assert (found["disputes"], found["chargebacks"]) == (2, 1)
    assert (found["disputed_amount"], found["chargeback_amount"]) == (2000, 2000)
    old = told(paid("captured", tried(1, "stripe", "approved"), dispute={"reason": "opened"}))
    assert (old["disputes"], old.get("chargebacks")) == (1, None)


def test_parked_payments_tell_how_long_they_waited() -> None:
    """Until the provider answered; not those that still wait, or came to nothing. All but the money that moved is of
    the minute in which the payment was created."""
    answered = tried(1, "stripe", "approved", started_at=AT + HOUR - 1, finished_at=AT + HOUR)
    whole = facts(paid("captured", answered, tries=2))
    assert [any(sums[: INDEX["captured_in_period"]]) for sums in whole.values()] == [True, False]
    assert [sum(sums[INDEX["attempts"]] for sums in whole.values() if sums[INDEX["payments"]])] == [1]
    found = told(paid("captured", answered, tries=2))
    assert (found["parked"], found["parked_completed"], found["parked_wait_ms"]) == (1, 1, 3_600_000)
    assert "parked_completed" not in told(paid("parked", tries=1))


@pytest.mark.parametrize("order", [{}, {"payment_method": {}}, {"payment_method": {"card": None}}])
def test_what_is_not_known_of_a_payment_is_left_empty(order: dict[str, Any]) -> None:
    """An old order, a decision without fees, a decline of no known class."""
    payment = paid("declined", tried(1, "stripe", "declined", declined="odd"), order=order, decision={})
    ((_, dimensions),) = facts(payment)
    assert (dimensions.country, dimensions.brand, dimensions.decline_class) == ("", "", "odd")
    assert told(payment)["declines_other"] == 1
