"""A provider's own books: what was really authorized, captured, canceled and refunded. The truth of the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["authorized", "captured", "canceled", "refunded", "declined"]
Dispute = Literal["opened", "won", "lost"]
Mishap = Literal[
    "capture_failed", "refund_failed", "refund_reversed", "dispute_opened", "dispute_won", "dispute_lost"
]
"""What happens to a charge afterwards, without anybody having asked for it."""
EventKind = (
    Literal["authorization", "requires_action", "capture", "cancellation", "technical_cancel", "refund", "reversal"]
    | Mishap
)


@dataclass(slots=True)
class Charge:
    """One authorization. Amounts are integers in the minor units that the vendor was sent; times are Unix seconds."""

    id: str
    """What the vendor calls it: `pi_…` at Stripe, a pspReference at Adyen."""
    reference: str | None
    """The payment's reference (Stripe: metadata; Adyen: merchantOrderReference, else metadata)."""
    attempt: str | None
    """The attempt's id (Stripe: metadata; Adyen: its reference)."""
    amount: int
    currency: str
    """Three capital letters, at both vendors."""
    status: Status
    idempotency_key: str | None
    created_at: float
    amount_captured: int = 0
    amount_refunded: int = 0
    dispute: Dispute | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as the control port shows it; `created_at` in RFC 3339 with milliseconds, UTC; `dispute` if any."""
        row = asdict(self)
        if self.dispute is None:
            del row["dispute"]
        moment = datetime.fromtimestamp(self.created_at, UTC)
        row["created_at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return row


@dataclass(frozen=True, slots=True)
class Event:
    """Something a provider tells by webhook; the vendor's own words for it are made of it at once."""

    provider: str
    kind: EventKind
    success: bool
    charge: Charge | None
    """The row it is about, live; None where there is none yet (not found, or 3-D Secure is awaited)."""
    subject: Any = None
    """The vendor's own object: a payment intent at Stripe, a payment (or a technical cancel) at Adyen."""
    reference: str | None = None
    """The modification's own reference; for a technical cancel without one, the attempt's that it names."""
    modification_id: str | None = None
    amount: int | None = None
    """Of a capture, refund or dispute, in the minor units that the vendor was sent."""
    reason: str = ""
    """Why not, or why at all, in the vendor's words."""
    idempotency_key: str | None = None
    """Of the call that caused it."""


@dataclass(slots=True)
class Books:
    """The charges of one provider, oldest first. Used on the sandbox's own thread only."""

    provider: str
    clock: Callable[[], float]
    charges: list[Charge] = field(default_factory=list)
    changes: int = 0
    """How often the books changed; by it a request is known to have acted."""
    on_event: list[Callable[[Event], None]] = field(default_factory=list)
    _by_id: dict[str, Charge] = field(default_factory=dict)

    def open(
        self,
        *,
        id: str,
        reference: str | None,
        attempt: str | None,
        amount: int,
        currency: str,
        idempotency_key: str | None,
        status: Status,
    ) -> Charge:
        """Write a new authorization (or its refusal) down; captured at once where `status` says so. Tells nobody."""
        charge = Charge(id, reference, attempt, amount, currency.upper(), status, idempotency_key, self.clock())
        if status == "captured":
            charge.amount_captured = amount
        self.charges.append(charge)
        self._by_id[id] = charge
        self.changes += 1
        return charge

    def get(self, id: str) -> Charge | None:
        """The newest row with that vendor id."""
        return self._by_id.get(id)

    def find(self, *, reference: str | None = None, attempt: str | None = None) -> list[Charge]:
        """The rows that match every filter given, oldest first."""
        return [
            charge
            for charge in self.charges
            if (reference is None or charge.reference == reference) and (attempt is None or charge.attempt == attempt)
        ]

    def capture(self, charge: Charge, amount: int) -> bool:
        """Capture that much; False where the state or what is left of the authorization does not allow it."""
        allowed = charge.status in ("authorized", "captured") and charge.amount_refunded == 0
        if not allowed or not 0 < amount <= charge.amount - charge.amount_captured:
            return False
        charge.amount_captured += amount
        charge.status = "captured"
        self.changes += 1
        return True

    def cancel(self, charge: Charge) -> bool:
        """Release an authorization; False where it was captured, canceled or declined."""
        if charge.status != "authorized":
            return False
        charge.status = "canceled"
        self.changes += 1
        return True

    def refund(self, charge: Charge, amount: int) -> bool:
        """Pay that much back; False where it is more than is left of what was captured."""
        if not 0 < amount <= charge.amount_captured - charge.amount_refunded:
            return False
        charge.amount_refunded += amount
        if charge.amount_refunded == charge.amount_captured:
            charge.status = "refunded"
        self.changes += 1
        return True

    def fail_capture(self, charge: Charge, amount: int, *, status: Status) -> bool:
        """Take a capture back that the scheme rejected; `status` where nothing is left of what was captured."""
        if charge.status != "captured" or charge.amount_refunded or not 0 < amount <= charge.amount_captured:
            return False
        charge.amount_captured -= amount
        if charge.amount_captured == 0:
            charge.status = status
        self.changes += 1
        return True

    def fail_refund(self, charge: Charge, amount: int) -> bool:
        """The refund did not reach the customer: the money is back with the merchant."""
        if not 0 < amount <= charge.amount_refunded:
            return False
        charge.amount_refunded -= amount
        charge.status = "captured"
        self.changes += 1
        return True

    def dispute(self, charge: Charge, to: Dispute) -> bool:
        """Open a dispute of a captured charge, the next one too once one is over, or end the one that is open."""
        if to == "opened":
            allowed = charge.amount_captured > 0 and charge.dispute != "opened"
        else:
            allowed = charge.dispute == "opened"
        if not allowed:
            return False
        charge.dispute = to
        self.changes += 1
        return True

    def tell(self, kind: EventKind, *, success: bool, charge: Charge | None, **more: Any) -> None:
        """Tell everybody who listens what a webhook would say; `more` are the further fields of Event."""
        if self.on_event:
            event = Event(self.provider, kind, success, charge, **more)
            for listener in self.on_event:
                listener(event)

    def clear(self) -> None:
        """Empty books; the listeners stay."""
        self.charges.clear()
        self._by_id.clear()
        self.changes = 0
