"""The simulated Adyen: no look-up; what is asked of it is only received, done a moment later, and told by notice."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from providers import declines, faults
from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationOutcome,
    Money,
    NoticeKind,
    Outcome,
    OutcomeKind,
    Timeouts,
)
from providers.faults import Fault
from tests.simulation.books import Charge, Refund
from tests.simulation.providers import RECEIVED, Capture, SimProvider, World

NOT_FOUND = "original_payment_not_found"
DONE_WITHIN_S = (0.0, 0.5, 10.0)
"""From `received` until it is done."""


class SimAdyen(SimProvider):
    """Satisfies `Provider`."""

    compares = False

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self._cancels_ahead: dict[str, str] = {}

    def capture(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        def do(charge: Charge, psp: str) -> None:
            done = charge.status == "authorized" and money.amount <= charge.amount
            if done:
                charge.status, charge.captured, charge.capture_key = "captured", money.amount, idempotency_key
                self.books.changed(charge)
            kind = NoticeKind.CAPTURED if done else NoticeKind.CAPTURE_FAILED
            self._tell_operation(kind, "CAPTURE", charge, idempotency_key, psp, money)

        return self._modify("capture", provider_reference, idempotency_key, timeouts, do)

    def void(self, provider_reference: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        def do(charge: Charge, psp: str) -> None:
            self._canceled(charge, psp, "CANCELLATION", idempotency_key)

        return self._modify("void", provider_reference, idempotency_key, timeouts, do)

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        def do(charge: Charge, psp: str) -> None:
            done = charge.captured - charge.refunded >= money.amount
            if done:
                charge.refunds.append(Refund(idempotency_key, money.amount, psp))
                self.books.changed(charge)
            kind = NoticeKind.REFUNDED if done else NoticeKind.REFUND_FAILED
            self._tell_operation(kind, "REFUND", charge, idempotency_key, psp, money)

        return self._modify("refund", provider_reference, idempotency_key, timeouts, do)

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        def act() -> ModificationOutcome:
            psp = f"psp{self.world.number()}"
            found = [each for each in self.books.by_attempt.get(attempt_id, []) if each.provider == self.name]
            if not found:
                # Whether a payment that comes afterwards dies of it is the vendor's affair: here sometimes.
                if self.scheduler.rng.random() < 0.5:
                    self._cancels_ahead[attempt_id] = psp
                self._tell(
                    NoticeKind.VOID_FAILED,
                    "TECHNICAL_CANCEL",
                    attempt_id=attempt_id,
                    modification_reference=psp,
                    reason=NOT_FOUND,
                )
            for charge in found:
                self._canceled(charge, psp, "TECHNICAL_CANCEL", None)
            return dataclasses.replace(RECEIVED, provider_reference=psp)

        self.world.voids_blindly(attempt_id)
        return self._send("void_attempt", idempotency_key, attempt_id, timeouts, act, Fault.as_modification)

    def look_up(
        self,
        attempt_id: str,
        *,
        provider_reference: str | None,
        sent_from: dt.datetime,
        sent_until: dt.datetime,
        timeouts: Timeouts,
    ) -> LookUp:
        return LookUp(LookUpKind.UNSUPPORTED, reason="no_look_up_at_adyen")

    def complete(
        self,
        provider_reference: str | None,
        details: Mapping[str, Any],
        *,
        capture: Capture,
        idempotency_key: str,
        timeouts: Timeouts,
        attempt_id: str | None = None,
    ) -> Outcome:
        reference, _, word = str(details.get("redirectResult", "")).partition("!")
        charge = self._charge(reference)
        if charge is None:
            return faults.ours("details_refused").as_completion()

        def act() -> Outcome:
            self._conclude(charge, good=word == "success")
            return self.outcome(charge)

        return self._send("complete", idempotency_key, dict(details), timeouts, act, Fault.as_completion)

    def customer(self, charge: Charge, *, passes: bool) -> None:
        """At Adyen the step ends when the details that the customer brings back are sent."""

    # ------------------------------------------------------------ what is different at Adyen

    def outcome(self, charge: Charge) -> Outcome:
        told = super().outcome(charge)
        if charge.status == "requires_action":
            return dataclasses.replace(told, provider_reference=None)  # a redirect has none yet
        if charge.status == "canceled":
            decline = declines.shopper_cancelled()
            return Outcome(
                OutcomeKind.DECLINED, Health.OK, decline.code, provider_reference=charge.id, decline=decline
            )
        return told

    def _approve(self, charge: Charge) -> None:
        super()._approve(charge)
        if charge.attempt in self._cancels_ahead:
            charge.status, charge.captured = "canceled", 0

    def told_of(self, charge: Charge) -> None:
        """AUTHORISATION, with success or without; nothing while it waits."""
        if charge.status in ("pending", "requires_action"):
            return
        psp = self._cancels_ahead.get(charge.attempt) if charge.status == "canceled" else None
        outcome = self.outcome(charge)
        if charge.status == "captured":
            outcome = dataclasses.replace(outcome, captured=False)
        money = Money(charge.amount, "EUR")
        names: dict[str, Any] = {"attempt_id": charge.attempt, "provider_reference": charge.id, "money": money}
        self._tell(NoticeKind.ATTEMPT, "AUTHORISATION", **names, outcome=outcome)
        if psp is not None:
            self._tell_canceled(charge, psp, "TECHNICAL_CANCEL", None)

    def _modify(
        self, call: str, reference: str, key: str, timeouts: Timeouts, do: Callable[[Charge, str], None]
    ) -> ModificationOutcome:
        def act() -> ModificationOutcome:
            charge = self._charge(reference)
            if charge is None:
                return faults.ours("http_422").as_modification()
            psp = f"psp{self.world.number()}"
            wait_s = self.scheduler.rng.choice(DONE_WITHIN_S)
            self.world.later(wait_s, lambda: do(charge, psp))
            return dataclasses.replace(RECEIVED, provider_reference=psp)

        if not reference:
            return faults.ours("misshapen_reference").as_modification()
        return self._send(call, key, reference, timeouts, act, Fault.as_modification)

    def _canceled(self, charge: Charge, psp: str, name: str, key: str | None) -> None:
        if self._cancel(charge, ("authorized",)):
            self._tell_canceled(charge, psp, name, key)
            return
        # What waits for the customer, or for good news, is no payment yet: as if it were not there.
        waits = charge.status in ("pending", "requires_action")
        if waits and name == "TECHNICAL_CANCEL" and self.scheduler.rng.random() < 0.5:
            self._cancels_ahead[charge.attempt] = psp
        self._tell(
            NoticeKind.VOID_FAILED,
            name,
            attempt_id=charge.attempt if key is None else None,
            provider_reference=charge.id,
            operation_key=key,
            modification_reference=psp,
            reason=NOT_FOUND if waits else f"payment_is_{charge.status}",
        )

    def _tell_canceled(self, charge: Charge, psp: str, name: str, key: str | None) -> None:
        self._tell(
            NoticeKind.ATTEMPT,
            name,
            attempt_id=charge.attempt if key is None else None,
            provider_reference=charge.id,
            operation_key=key,
            modification_reference=psp,
            outcome=Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference=charge.id),
        )

    def _tell_operation(
        self, kind: NoticeKind, name: str, charge: Charge, key: str | None, psp: str, money: Money
    ) -> None:
        self._tell(
            kind,
            name,
            provider_reference=charge.id,
            operation_key=key,
            modification_reference=psp,
            money=money,
        )

    def fail_capture(self, charge: Charge) -> None:
        """A capture fails after all; the authorization stays."""
        money = Money(charge.captured, "EUR")
        charge.status, charge.captured, charge.capture_failed = "authorized", 0, True
        self.books.changed(charge)
        # Of a capture at once it carries the attempt's id, as the payment does.
        psp, key = f"psp{self.world.number()}", charge.capture_key or charge.attempt
        self._tell_operation(NoticeKind.CAPTURE_FAILED, "CAPTURE_FAILED", charge, key, psp, money)

    def fail_refund(self, charge: Charge, refund: Refund) -> None:
        """A refund is sent back by the bank."""
        refund.failed = True
        self.books.changed(charge)
        money = Money(refund.amount, "EUR")
        self._tell_operation(NoticeKind.REFUND_FAILED, "REFUNDED_REVERSED", charge, refund.key, refund.id, money)
