"""The simulated Stripe: can be asked how an attempt stands; what is asked of it is done when it answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from providers import faults
from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Money,
    NoticeKind,
    Outcome,
    Timeouts,
)
from providers.faults import Fault
from tests.simulation.books import Charge, Refund
from tests.simulation.providers import ACCEPTED, REFUSED, Capture, SimProvider


class SimStripe(SimProvider):
    """Satisfies `Provider`."""

    def capture(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        def act() -> ModificationOutcome:
            charge = self._charge(provider_reference)
            if charge is None or charge.status != "authorized" or money.amount > charge.amount:
                return REFUSED
            charge.status, charge.captured, charge.capture_key = "captured", money.amount, idempotency_key
            self.books.changed(charge)
            self.told_of(charge)
            self._tell(NoticeKind.CAPTURED, "charge.captured", **_names(charge), money=money)
            return ACCEPTED

        return self._send(
            "capture", idempotency_key, (provider_reference, money), timeouts, act, Fault.as_modification
        )

    def void(self, provider_reference: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        def act() -> ModificationOutcome:
            charge = self._charge(provider_reference)
            if charge is None or not self._cancel(charge, ("authorized", "requires_action")):
                return REFUSED
            self.told_of(charge)
            return ACCEPTED

        if not provider_reference:
            return faults.ours("misshapen_reference").as_modification()
        return self._send("void", idempotency_key, provider_reference, timeouts, act, Fault.as_modification)

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        def act() -> ModificationOutcome:
            charge = self._charge(provider_reference)
            if charge is None or charge.captured - charge.refunded < money.amount:
                return REFUSED
            refund = Refund(idempotency_key, money.amount, f"re_{self.world.number()}")
            charge.refunds.append(refund)
            self.books.changed(charge)
            self._tell_refund(charge, refund)
            return ModificationOutcome(ModificationKind.DONE, Health.OK, provider_reference=refund.id)

        return self._send(
            "refund", idempotency_key, (provider_reference, money), timeouts, act, Fault.as_modification
        )

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        return ModificationOutcome(ModificationKind.REFUSED, Health.IGNORED, "unsupported")

    def look_up(
        self,
        attempt_id: str,
        *,
        provider_reference: str | None,
        sent_from: dt.datetime,
        sent_until: dt.datetime,
        timeouts: Timeouts,
    ) -> LookUp:
        def act() -> LookUp:
            charge = self._charge(provider_reference)
            found = [charge] if charge is not None else self.books.by_attempt.get(attempt_id, [])
            found = [each for each in found if each.provider == self.name]
            return LookUp(LookUpKind.FOUND, self.outcome(found[0])) if found else LookUp(LookUpKind.NOT_FOUND)

        return self._send("look_up", None, None, timeouts, act, Fault.as_look_up)

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
        def act() -> Outcome:
            charge = self._charge(provider_reference)
            return faults.of_status(404).as_completion() if charge is None else self.outcome(charge)

        return self._send("complete", None, None, timeouts, act, Fault.as_completion)

    def customer(self, charge: Charge, *, passes: bool) -> None:
        """At Stripe the step ends at Stripe."""
        self._conclude(charge, good=passes)

    # ------------------------------------------------------------ what it tells, and what happens by itself

    def told_of(self, charge: Charge) -> None:
        """An event of the intent, as it is now."""
        name = {
            "captured": "payment_intent.succeeded",
            "authorized": "payment_intent.amount_capturable_updated",
            "declined": "payment_intent.payment_failed",
            "requires_action": "payment_intent.requires_action",
            "canceled": "payment_intent.canceled",
        }.get(charge.status)
        if name is not None:
            money = Money(charge.captured or charge.amount, "EUR")
            self._tell(NoticeKind.ATTEMPT, name, **_names(charge), money=money, outcome=self.outcome(charge))

    def fail_capture(self, charge: Charge) -> None:
        """A capture fails after all, and takes its authorization along."""
        charge.status, charge.captured, charge.capture_failed = "canceled", 0, True
        self.books.changed(charge)
        self._tell(
            NoticeKind.CAPTURE_FAILED,
            "payment_intent.payment_failed",
            **_names(charge),
            reason="charge_expired_for_capture",
        )

    def fail_refund(self, charge: Charge, refund: Refund) -> None:
        """A refund fails after all."""
        refund.failed = True
        self.books.changed(charge)
        self._tell_refund(charge, refund)

    def _tell_refund(self, charge: Charge, refund: Refund) -> None:
        self._tell(
            NoticeKind.REFUND_FAILED if refund.failed else NoticeKind.REFUNDED,
            "refund.failed" if refund.failed else "refund.created",
            provider_reference=charge.id,
            operation_key=refund.key,
            modification_reference=refund.id,
            money=Money(refund.amount, "EUR"),
        )


def _names(charge: Charge) -> dict[str, Any]:
    return {"attempt_id": charge.attempt, "provider_reference": charge.id}
