"""What one payment adds to the reports: its facts. Pure.

The rules are here and nowhere else; each is said where it is applied. They need the payment, its attempts and its
operations as they stand now, and none of their history: so it does not matter how often, or when, they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.currencies import ISO_EXPONENTS
from router.ledger.operations import IN_FORCE
from router.ledger.rollup_rows import RawAttempt, RawPayment
from router.report_measures import (
    DECLINE_CLASSES,
    FEE_UNITS,
    FIRST_LATENCY,
    INDEX,
    MEASURES,
    MINUTE_US,
    Dimensions,
)
from router.reports.figures import latency_bucket

Facts = dict[tuple[int, Dimensions], list[int]]
"""By minute and dimensions, the sums in the order of MEASURES."""
APPROVED = frozenset({"authorized", "captured"})
OPEN = frozenset({"processing", "requires_action", "parked"})
KEPT_AWAY = ("circuit ", "too many calls")
"""How the decision's reasons begin where a provider is unavailable, and not switched off or unable."""
_COUNT = len(MEASURES)


class _Sheet:
    """Facts of one payment, being made."""

    def __init__(self, payment: RawPayment) -> None:
        method = payment.order.get("payment_method") or {}
        card = method.get("card") or {}
        self._of_payment = (payment.merchant, payment.currency)
        self._of_card = (str(card.get("country") or ""), str(card.get("brand") or ""))
        self.facts: Facts = {}

    def fact(self, at_us: int, provider: str | None, decline_class: str) -> list[int]:
        """The sums of this minute, provider and class, to add to."""
        key = (at_us // MINUTE_US, Dimensions(*self._of_payment, provider or "", *self._of_card, decline_class))
        found = self.facts.get(key)
        if found is None:
            found = self.facts[key] = [0] * _COUNT
        return found


def facts(payment: RawPayment) -> Facts:
    """All that a payment adds."""
    sheet = _Sheet(payment)
    taker = next((each for each in payment.attempts if each.id == payment.attempt_id), None)
    approved = payment.status in APPROVED or (
        # Voided after it had been approved: routing did its part.
        payment.status == "canceled" and taker is not None and _is_approved(taker)
    )
    _own(sheet, payment, approved, taker)
    fees = _fees(payment.decision)
    for attempt in payment.attempts:
        _attempt(sheet, payment, attempt, fees.get(attempt.provider, (0, 0)))
    _booked(sheet, payment, taker)
    return {key: sums for key, sums in sheet.facts.items() if any(sums)}


# ---------------------------------------------------------------- the payment's own


def _own(sheet: _Sheet, payment: RawPayment, approved: bool, taker: RawAttempt | None) -> None:
    sums = sheet.fact(payment.created_at, payment.provider, _class_of(payment.decline))

    def add(name: str, much: int = 1) -> None:
        sums[INDEX[name]] += much

    add("payments")
    add("amount", payment.amount)
    if approved:
        add("approved")
        add("approved_amount", payment.amount)
    elif payment.status in OPEN:
        add("open")
    else:  # declined, failed, canceled
        add(payment.status)
    add("captured_amount", payment.amount_captured)
    add("refunded_amount", payment.amount_refunded)
    _recovery(add, payment, approved, taker)
    if payment.dispute:
        each = list((payment.dispute.get("each") or {"": payment.dispute}).values())
        lost = sum(one.get("reason") == "lost" for one in each)
        add("disputes", len(each))
        add("disputed_amount", payment.amount_captured)
        add("chargebacks", lost)
        add("chargeback_amount", payment.amount_captured if lost else 0)


def _recovery(add: Any, payment: RawPayment, approved: bool, taker: RawAttempt | None) -> None:
    """A payment is recovered in one way at most: by waiting if it was ever parked, else by a cascade if a provider
    had declined it before another approved it, else by failover."""
    pairs = list(zip(payment.attempts, payment.attempts[1:], strict=False))
    moved = [before for before, after in pairs if before.provider != after.provider]
    kept_away = _was_kept_away(payment)
    if kept_away or any(before.outcome != "declined" for before in moved):
        add("failed_over")
    if any(before.outcome == "declined" for before in moved):
        add("cascaded")
    how = None
    if payment.tries > 0:
        add("parked")
        how = "parking"
        if taker is not None and taker.finished_at is not None and (approved or payment.status == "declined"):
            add("parked_completed")
            add("parked_wait_ms", max(0, taker.finished_at - payment.created_at) // 1000)
    elif taker is not None:
        left = [each for each in moved if each.number < taker.number and each.provider != taker.provider]
        if any(each.outcome == "declined" for each in left):
            how = "cascade"
        elif left or (kept_away and taker.provider != payment.decision.get("primary")):
            how = "failover"
    if approved and how is not None:
        add(f"recovered_by_{how}")
        add(f"recovered_by_{how}_amount", payment.amount)


def _was_kept_away(payment: RawPayment) -> bool:
    """Whether the payment was sent elsewhere because its primary was unavailable, by its last decision."""
    primary = payment.decision.get("primary")
    if not any(each.provider != primary for each in payment.attempts):
        return False
    return any(
        each.get("provider") == primary
        and not each.get("eligible")
        and any(str(reason).startswith(KEPT_AWAY) for reason in each.get("reasons") or ())
        for each in payment.decision.get("candidates") or ()
    )


def _class_of(decline: Mapping[str, Any] | None) -> str:
    return "" if not decline else str(decline.get("class") or "")


# ---------------------------------------------------------------- its attempts


def _is_approved(attempt: RawAttempt) -> bool:
    return attempt.was_approved or attempt.outcome == "approved"


def _attempt(sheet: _Sheet, payment: RawPayment, attempt: RawAttempt, fees: tuple[int, int]) -> None:
    approved, declined = _is_approved(attempt), attempt.outcome == "declined"
    decline_class = _class_of(attempt.decline) if declined and not approved else ""
    sums = sheet.fact(payment.created_at, attempt.provider, decline_class)
    sums[INDEX["attempts"]] += 1
    if approved:
        sums[INDEX["attempts_approved"]] += 1
    elif declined:
        known = decline_class if decline_class in DECLINE_CLASSES else "other"
        sums[INDEX[f"declines_{known}"]] += 1
    elif attempt.outcome == "not_executed":
        sums[INDEX["attempts_not_executed"]] += 1
    elif attempt.outcome in (None, "unknown"):
        sums[INDEX["attempts_in_doubt"]] += 1
    if attempt.number == 1 and (approved or declined):
        sums[INDEX["first_answers"]] += 1
        sums[INDEX["first_approvals"]] += approved
    if attempt.latency_us is not None:
        sums[FIRST_LATENCY + latency_bucket(attempt.latency_us / 1000)] += 1
    _cost(sums, payment, attempt, fees if attempt.outcome != "not_executed" else (0, 0), approved)


def _cost(sums: list[int], payment: RawPayment, attempt: RawAttempt, fees: tuple[int, int], approved: bool) -> None:
    """What is proved not to have been carried out costs nothing; the fee of an approval is the taker's alone."""
    fee, per_attempt = fees
    estimate = per_attempt + (fee if approved and attempt.id == payment.attempt_id else 0)
    cost = estimate
    if attempt.fee_actual is not None:
        sums[INDEX["fees_told"]] += 1
        if attempt.fee_currency == payment.currency:
            cost = attempt.fee_actual * FEE_UNITS // 10 ** ISO_EXPONENTS.get(payment.currency, 0)
            sums[INDEX["fee_actual"]] += attempt.fee_actual
            sums[INDEX["fee_estimated_of_actual"]] += estimate
        else:
            sums[INDEX["fees_told_otherwise"]] += 1
    sums[INDEX["fee_estimated"]] += estimate
    sums[INDEX["cost"]] += cost


def _fees(decision: Mapping[str, Any]) -> Mapping[str, tuple[int, int]]:
    """By provider, the fee of an approval and of an attempt, in ten-thousandths; the decision rounds to them."""
    found = {}
    for each in decision.get("candidates") or ():
        fee, attempt = each.get("fee"), each.get("attempt_fee")
        if isinstance(fee, int | float) and isinstance(attempt, int | float):
            found[str(each.get("provider"))] = (round(fee * FEE_UNITS), round(attempt * FEE_UNITS))
    return found


# ---------------------------------------------------------------- money by the day on which it moved


def _booked(sheet: _Sheet, payment: RawPayment, taker: RawAttempt | None) -> None:
    """Captures and refunds at their own minute. They add up to the payment's, whatever is not told of them."""
    if taker is None:
        return
    for kind, total in (("capture", payment.amount_captured), ("refund", payment.amount_refunded)):
        for at_us, amount in _moved(payment, taker, kind, total):
            name = "captured_in_period" if kind == "capture" else "refunded_in_period"
            sheet.fact(at_us, payment.provider, "")[INDEX[name]] += amount


def _moved(payment: RawPayment, taker: RawAttempt, kind: str, total: int) -> Iterator[tuple[int, int]]:
    left = total
    for each in payment.operations:
        if each.kind == kind and each.attempt_id == taker.id and each.state in IN_FORCE:
            left -= each.amount
            yield each.finished_at or each.started_at, each.amount
    if left:  # with the authorization
        yield taker.finished_at or taker.started_at, left
